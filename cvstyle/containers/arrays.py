"""Arrays of NumPy: in files of their own (.npy), in archives of them (.npz), and in pickles.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import re
import struct
import zlib
from math import prod

import numpy as np

from .archive import Member
from .nested import tensors_in
from .pickles import Object, PickleError, Text, interpret
from .source import Source, number_type, tensor_of
from .tensors import Container, Tensor

MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000  # numpy.load's limit
_HEADER = re.compile(
    rb"\{\s*'descr': '([^']*)',\s*'fortran_order': (True|False),\s*'shape': \(([0-9L, ]*)\),?\s*\}\s*"
)
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
_ENCODE = "_codecs.encode"
_LAYOUT = ""  # ports of Caffe's networks keep filters either way
_Header = tuple[str, tuple[int, ...], str, int]  # dtype's description, shape, order, length of the header


def read_npy(source: Source) -> Container:
    """The container of an .npy file: one array, or a pickled dict of arrays. Raises ModelError."""
    code, shape, order, start = _header(source, "", source.view[: _LONGEST_HEADER + 16])
    if code.endswith("O"):
        tensors = _pickled(source, source.view[start:])
    else:
        tensors = {"": _array(source, "", code, shape, source.view[start:], order)}
    return Container(source.path, "NumPy", tensors, _LAYOUT, source.digest)


def read_npz(source: Source, members: dict[str, Member]) -> Container:
    """The container of an .npz archive. Raises ModelError."""
    tensors: dict[str, Tensor] = {}
    for file, member in members.items():
        name = file.removesuffix(".npy")
        code, shape, order, start = _header(source, name, _part(source, member, _LONGEST_HEADER + 16))
        if code.endswith("O"):
            for key, tensor in _pickled(source, _part(source, member)[start:]).items():
                tensors[f"{name}.{key}"] = tensor
        elif number_type(code):
            tensors[name] = _member(source, name, (code, shape, order, start), member)
    return Container(source.path, "NumPy", tensors, _LAYOUT, source.digest)


def read_pickle(source: Source) -> Container:
    """The container of a pickle with arrays of NumPy in dicts and lists. Raises ModelError."""
    return Container(source.path, "NumPy (pickle)", _pickled(source, source.view), _LAYOUT, source.digest)


def pickle_error(source: Source, error: PickleError):
    """The ModelError for a pickle that cannot be interpreted."""
    if error.hostile:
        return source.error(
            f"its pickle calls {error.hostile}, which no file of weights does; nothing was run. "
            "Delete the file and get the weights from elsewhere"
        )
    return source.damaged(str(error))


def array_tensor(source: Source, name: str, value: object) -> Tensor | None:
    """The tensor of a pickled array of numbers; None for anything else. Raises ModelError for a damaged one."""
    if not isinstance(value, Object):
        return None
    if value.path in _RECONSTRUCT and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, fortran, data = value.state
        order = "F" if fortran else "C"
    elif value.path in _FROM_BUFFER and len(value.arguments) == 4:
        data, dtype, shape, order = value.arguments
    else:
        return None
    number = _pickled_type(dtype)
    if number is None:
        return None
    if not isinstance(shape, tuple) or order not in ("C", "F"):
        raise source.damaged(f"array '{name}' has no shape")
    if isinstance(data, Object) and data.path == _ENCODE and data.arguments:
        return _text_tensor(source, name, number, shape, data.arguments[0], order)
    if isinstance(data, str):
        data = memoryview(data.encode("latin-1", "replace"))
    if not isinstance(data, memoryview):
        raise source.damaged(f"array '{name}' has no values")
    return source.tensor(name, number, shape, data, order=order)


def _text_tensor(source: Source, name: str, dtype: np.dtype, shape: tuple, text: object, order: str) -> Tensor:
    """The tensor of values that Python 3 wrote as a text, a character per byte (protocol 2)."""
    count = prod(source.shape(name, shape)) * dtype.itemsize
    data = text.data if isinstance(text, Text) else text.encode("utf-8", "replace") if isinstance(text, str) else b""
    if count > len(data):  # bytes from 0x80 are two in UTF-8
        raise source.damaged(f"array '{name}' of shape {list(shape)} needs {count} bytes where {len(data)} are held")

    def read():
        values = str(data, "utf-8", "replace").encode("latin-1", "replace")
        if len(values) != count:
            raise source.damaged(f"array '{name}' of shape {list(shape)} has {len(values)} bytes")
        return np.ndarray(shape, dtype, values, order=order)

    return tensor_of(name, dtype, shape, read)


def _pickled_type(value: object) -> np.dtype | None:
    """The dtype of a pickled numpy.dtype of numbers."""
    if not isinstance(value, Object) or value.path != "numpy.dtype" or not value.arguments:
        return None
    code = value.arguments[0]
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "="
    if not isinstance(code, str) or order not in ("<", ">", "=", "|"):
        return None
    dtype = number_type(code)
    return dtype.newbyteorder(order) if dtype else None


def _pickled(source: Source, data: memoryview) -> dict[str, Tensor]:
    try:
        root, _ = interpret(data)
    except PickleError as error:
        raise pickle_error(source, error) from None
    return tensors_in(source, _unboxed(root), lambda name, value: array_tensor(source, name, value))


def _unboxed(root: object) -> object:
    """The only element of an array of objects, which numpy.save makes of a dict."""
    if isinstance(root, Object) and root.path in _RECONSTRUCT and isinstance(root.state, tuple):
        items = root.state[-1]
        if isinstance(items, list):
            return items[0] if len(items) == 1 else items
    return root


def _header(source: Source, name: str, head: memoryview) -> _Header:
    where = f"array '{name}'" if name else "its array"
    if bytes(head[:6]) != MAGIC or len(head) < 12:
        raise source.damaged(f"{where} has no header of NumPy")
    start, form = (10, "<H") if head[6] == 1 else (12, "<I")
    (length,) = struct.unpack_from(form, head, 8)
    text = bytes(head[start : start + min(length, _LONGEST_HEADER)])
    found = _HEADER.fullmatch(text)
    if length > _LONGEST_HEADER or len(text) != length or not found:
        raise source.error(f"{where} has a header that is not one of an array of numbers; save it as float32")
    axes = tuple(int(n) if len(n) < 15 else -1 for n in re.findall(rb"[0-9]+", found[3]))
    return found[1].decode("latin-1"), axes, "F" if found[2] == b"True" else "C", start + length


def _array(source: Source, name: str, code: str, shape: tuple, data: memoryview, order: str) -> Tensor:
    dtype = number_type(code)
    if dtype is None:
        raise source.error(f"its array holds '{code}' and no numbers; save it as float32")
    return source.tensor(name, dtype, shape, data, order=order)


def _member(source: Source, name: str, header: _Header, member: Member) -> Tensor:
    code, shape, order, start = header
    if not member.deflated:
        return _array(source, name, code, shape, member.data[start:], order)
    dtype = number_type(code)
    shape = source.shape(name, shape)
    if prod(shape) * dtype.itemsize != member.size - start:
        raise source.damaged(f"array '{name}' of shape {list(shape)} has {member.size - start} bytes")
    read = lambda: np.ndarray(shape, dtype, _part(source, member), start, order=order)  # noqa: E731
    return tensor_of(name, dtype, shape, read)


def _part(source: Source, member: Member, most: int | None = None) -> memoryview:
    try:
        return member.read(most)
    except (zlib.error, ValueError):
        raise source.damaged(f"member '{member.name}' of the archive cannot be expanded") from None
