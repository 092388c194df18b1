"""Variables of MATLAB's files of level 5 (-v6, and -v7 whose variables are compressed).

A compressed variable is one stream: opening expands it once, dropping the values, and keeps states of the expansion
from which values are read later.
https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np

from .source import Source, expansion_limit, tensor_of
from .tensors import Tensor

HEADER = 128
_MATRIX = 14
_COMPRESSED = 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "utf-8", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL = 1
_STRUCT = 2
_OBJECT = 3
_CHAR = 4
_NUMERIC = range(6, 16)
_FLOATS = (6, 7)
_COMPLEX = 0x800
_DEEPEST = 16
_MOST_MATRICES = 50_000  # a name and a description of each class of pictures count too
_LONGEST_TEXT = 4096
_MOST_AXES = 32
_PIECE = 1 << 16  # bytes expanded at a time
_STEP = 1 << 20  # compressed bytes between two states that are kept, of some 50 kB


class Array(NamedTuple):
    """An array of numbers. tensor: its tensor, from a name and a shape of as many numbers."""

    shape: tuple[int, ...]
    tensor: Callable[[str, tuple[int, ...]], Tensor]


class _Mapped:
    """An uncompressed variable."""

    def __init__(self, source: Source, start: int, stop: int):
        self.source = source
        self.view = source.view[start:stop]
        self.length = stop - start
        self.at = 0

    def take(self, count: int) -> bytes:
        return bytes(self.part(count))

    def part(self, count: int) -> memoryview:
        self.skip(count)
        return self.view[self.at - count : self.at]

    def check(self, count: int) -> None:
        """Raise ModelError if fewer bytes follow."""
        if count > self.length - self.at:
            raise self.source.damaged(f"a variable ends {count - self.length + self.at} bytes early")

    def skip(self, count: int) -> None:
        self.check(count)
        self.at += count

    def array(self, dtype: np.dtype, size: int) -> Callable:
        part = self.part(size)
        return lambda name, shape: self.source.tensor(name, dtype, shape, part, order="F")


class _Compressed:
    """A compressed variable, read from its begin to its end. length: the most bytes that it may expand to."""

    def __init__(self, source: Source, start: int, stop: int):
        self.source = source
        self.packed = source.view[start:stop]
        self.length = expansion_limit(len(self.packed))
        self.at = 0
        self._stream = zlib.decompressobj()
        self._consumed = 0
        self._ready = memoryview(b"")
        self._states = [(0, 0, self._stream.copy())]

    def take(self, count: int) -> bytes:
        found = bytearray()
        self._each(count, found.extend)
        return bytes(found)

    def skip(self, count: int) -> None:
        self._each(count, lambda part: None)

    def array(self, dtype: np.dtype, size: int) -> Callable:
        start = self.at
        self.skip(size)

        def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
            read = lambda: np.ndarray(shape, dtype, self._read(start, size), order="F")  # noqa: E731
            return tensor_of(name, dtype, shape, read)

        return tensor

    def check(self, count: int) -> None:
        """Raise ModelError if so many bytes more are more than the variable may expand to."""
        if count > self.length - self.at:
            raise self.source.error(
                f"a variable of {len(self.packed)} bytes would expand to more than {self.length}, which no weights do; "
                "save it with -v6"
            )

    def _each(self, count: int, use: Callable[[memoryview], None]) -> None:
        self.check(count)
        while count:
            if not len(self._ready):
                self._expand()
            part = self._ready[:count]
            use(part)
            self._ready = self._ready[len(part) :]
            self.at += len(part)
            count -= len(part)

    def _expand(self) -> None:
        if self._consumed - self._states[-1][1] >= _STEP:
            self._states.append((self.at, self._consumed, self._stream.copy()))
        piece = self.packed[self._consumed : self._consumed + _PIECE]
        try:
            self._ready = memoryview(self._stream.decompress(piece, _PIECE))
        except zlib.error as error:
            raise self.source.damaged(f"a variable cannot be expanded: {error}") from None
        self._consumed += len(piece) - len(self._stream.unconsumed_tail)
        if not len(self._ready) and (not len(piece) or self._stream.eof):
            raise self.source.damaged("a compressed variable ends early")

    def _read(self, start: int, size: int) -> memoryview:
        """Bytes before the place that has been reached."""
        again = _Compressed.__new__(_Compressed)
        again.__dict__ |= self.__dict__
        again._states = [next(state for state in reversed(self._states) if state[0] <= start)]
        again.at, again._consumed, stream = again._states[0]
        again._stream = stream.copy()
        again._ready = memoryview(b"")
        again.skip(start - again.at)
        values = memoryview(bytearray(size))

        def keep(part):
            values[again.at - start :][: len(part)] = part

        again._each(size, keep)
        return values


class _Reader:
    """Reader of the matrices of one file."""

    def __init__(self, source: Source):
        self.source = source
        self.order = ">" if bytes(source.view[126:128]) == b"MI" else "<"
        self.matrices = 0

    def variables(self) -> dict[str, object]:
        found = {}
        at = HEADER
        while at + 8 <= self.source.size:
            kind, size = struct.unpack_from(f"{self.order}II", self.source.map, at)
            start = at + 8
            at = start + size
            if at > self.source.size:
                raise self.source.damaged(f"a variable of {size} bytes has {self.source.size - start} at byte {start}")
            if kind == _COMPRESSED:
                stream = _Compressed(self.source, start, at)
                kind, size, _ = self._tag(stream)
            else:
                stream = _Mapped(self.source, start, at)
            if kind == _MATRIX:
                name, value = self._matrix(stream, size, 0)
                found[name] = value
        return found

    def _tag(self, stream) -> tuple[int, int, bytes | None]:
        """Type and size of an element; and its data where they are in the tag."""
        head = stream.take(8)
        kind, size = struct.unpack(f"{self.order}II", head)
        if kind >> 16:
            size = kind >> 16
            if size > 4:
                raise self.source.damaged(f"an element of {size} bytes is in the 4 of its tag")
            return kind & 0xFFFF, size, head[4 : 4 + size]
        return kind, size, None

    def _element(self, stream, most: int) -> tuple[int, bytes]:
        """Type and data of a small element."""
        kind, size, data = self._tag(stream)
        if size > most:
            raise self.source.damaged(f"a name, a shape or a text of {size} bytes is longer than {most}")
        return kind, self._data(stream, size) if data is None else data

    def _data(self, stream, size: int) -> bytes:
        data = stream.take(size)
        stream.skip(min(-size % 8, stream.length - stream.at))
        return data

    def _matrix(self, stream, size: int, depth: int) -> tuple[str, object]:
        """Name and value: Array, str, a list for a cell, a dict for a structure, or a list of dicts; else None."""
        end = stream.at + size
        self.matrices += 1
        if not size:
            return "", None
        stream.check(size)
        if depth > _DEEPEST or self.matrices > _MOST_MATRICES:
            raise self.source.damaged("a variable is nested too deeply or has too many members")
        flags = struct.unpack(f"{self.order}I", self._element(stream, 8)[1][:4].ljust(4, b"\0"))[0]
        shape = self._integers(stream, 4 * _MOST_AXES)
        name = self._element(stream, _LONGEST_TEXT)[1].decode("utf-8", "replace")
        value = self._value(stream, flags, shape, depth)
        if stream.at > end:
            raise self.source.damaged(f"variable '{name}' has {size} bytes and needs more")
        stream.skip(end - stream.at)
        return name, value

    def _integers(self, stream, most: int) -> tuple[int, ...]:
        data = self._element(stream, most)[1]
        return struct.unpack(f"{self.order}{len(data) // 4}i", data[: len(data) // 4 * 4])

    def _value(self, stream, flags: int, shape: tuple[int, ...], depth: int) -> object:
        kind = flags & 0xFF
        count = prod(self.source.shape("", shape))
        if kind in _NUMERIC and not flags & _COMPLEX:
            return self._array(stream, shape, count, kind in _FLOATS)
        if kind == _CHAR and count <= _LONGEST_TEXT // 4:
            code, data = self._element(stream, _LONGEST_TEXT)
            order = {"<": "-le", ">": "-be"}[self.order] if _TEXTS.get(code, "utf-8") != "utf-8" else ""
            return data.decode(_TEXTS.get(code, "utf-8") + order, "replace")
        if kind == _CELL:
            return self._members(stream, count, depth)
        if kind not in (_STRUCT, _OBJECT):
            return None
        if kind == _OBJECT:
            self._element(stream, _LONGEST_TEXT)
        (length,) = self._integers(stream, 4) or (0,)
        text = self._element(stream, 1 << 20)[1]
        if length < 1:
            raise self.source.damaged("a structure has fields without names")
        names = [text[at : at + length].split(b"\0")[0].decode(errors="replace") for at in range(0, len(text), length)]
        values = self._members(stream, count * len(names), depth)
        found = [dict(zip(names, values[at : at + len(names)])) for at in range(0, len(values), len(names) or 1)]
        return found[0] if len(found) == 1 else found

    def _members(self, stream, count: int, depth: int) -> list:
        if count > min(_MOST_MATRICES, (stream.length - stream.at) // 8):
            raise self.source.damaged(f"a cell or a structure of {count} members is longer than the file")
        found = []
        for _ in range(count):
            kind, size, data = self._tag(stream)
            if kind != _MATRIX or data is not None:
                raise self.source.damaged(f"a member of a cell or a structure has the type {kind}")
            found.append(self._matrix(stream, size, depth + 1)[1])
        return found

    def _array(self, stream, shape: tuple[int, ...], count: int, floats: bool) -> Array:
        kind, size, data = self._tag(stream)
        if kind not in _NUMBERS:
            raise self.source.damaged(f"an array has numbers of the type {kind}")
        dtype = np.dtype(self.order + _NUMBERS[kind])
        if count * dtype.itemsize != size:
            raise self.source.damaged(f"an array of shape {list(shape)} has {size} bytes")
        if data is not None:
            held = memoryview(data)
            tensor = lambda name, wanted: self.source.tensor(name, dtype, wanted, held, order="F")  # noqa: E731
        else:
            tensor = stream.array(dtype, size)
            stream.skip(min(-size % 8, stream.length - stream.at))
        return Array(shape, _as_floats(tensor) if floats and dtype.kind != "f" else tensor)


def _as_floats(tensor: Callable) -> Callable:
    """MATLAB writes whole numbers of a floating-point array, such as biases of 0, as the smallest integers."""

    def converted(name: str, shape: tuple[int, ...]) -> Tensor:
        whole = tensor(name, shape)
        dtype = np.dtype("f4" if whole.dtype.itemsize < 4 else "f8")
        return Tensor(name, shape, dtype, lambda: whole.read().astype(dtype))

    return converted


def variables(source: Source) -> dict[str, object]:
    """Variables by name: Array, str, a list for a cell, a dict for a structure, None for others. Raises ModelError."""
    return _Reader(source).variables()
