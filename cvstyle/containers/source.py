"""A file of weights, mapped, and arrays that are views of it."""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Callable, Iterable
from math import prod

import numpy as np

from ..caffe.errors import model_error
from ..errors import ModelError
from .tensors import Tensor

# A bfloat16 is the upper half of a float32. NumPy lacks it; the structure tells it from numbers of 16 bits.
BFLOAT16 = np.dtype([("bfloat16", "<u2")])

_CHUNK = 1 << 20
_MOST_EXPANSION = 100  # trained weights shrink by a tenth, and zlib's own limit is 1032
_SMALL = 1 << 20  # bytes to which anything may expand
_MOST_TENSORS = 5_000
_MOST_AXES = 32  # NumPy 1's limit, and Caffe's
_NUMBER = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1|\?)", re.ASCII)


class Source:
    """A mapped file. Raises ModelError where it cannot be read; `view` is all of it, read-only."""

    def __init__(self, path: str):
        self.path = path
        try:
            with open(path, "rb") as file:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or error
            raise model_error(f"{path}: cannot be mapped: {cause}; copy it to a local disk") from None
        self.view = memoryview(self.map)
        self.size = len(self.view)

    def error(self, cause: str) -> ModelError:
        return model_error(f"{self.path}: {cause}")

    def damaged(self, cause: str) -> ModelError:
        return self.error(f"is damaged: {cause}; the file is cut short or corrupt, download it again")

    def check_count(self, tensors: int) -> None:
        """Raises ModelError for more tensors than a network has."""
        if tensors > _MOST_TENSORS:
            raise self.error(f"has more than {_MOST_TENSORS} tensors, which no network of pictures has")

    def digest(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def tensor(self, name: str, dtype: np.dtype, shape: Iterable[int], buffer: memoryview, *, offset=0, strides=None,
               order="C") -> Tensor:  # fmt: skip
        """A tensor whose values are in a part of the map; offset, strides: in bytes.

        Nothing is read before the tensor is asked for. Raises ModelError where the values would not be inside `buffer`,
        or would be more bytes than it (axes of stride 0).
        """
        shape = self.shape(name, shape)
        count = prod(shape)
        last = offset
        if strides is None:
            last += count * dtype.itemsize
        else:
            if len(strides) != len(shape) or min(strides, default=0) < 0:
                raise self.damaged(f"tensor '{name}' of {len(shape)} axes has other strides")
            last += sum((n - 1) * stride for n, stride in zip(shape, strides)) + dtype.itemsize if count else 0
        if offset < 0:
            raise self.damaged(f"tensor '{name}' begins before its storage")
        if last > len(buffer) or count * dtype.itemsize > len(buffer):
            raise self.damaged(
                f"tensor '{name}' of shape {list(shape)} needs {max(last, count * dtype.itemsize)} bytes where "
                f"{len(buffer)} are held"
            )

        def read():
            return np.ndarray(shape, dtype, buffer, offset, strides, order) if count else np.empty(shape, dtype)

        return tensor_of(name, dtype, shape, read)

    def shape(self, name: str, shape: Iterable[int]) -> tuple[int, ...]:
        """A shape that an array can have. Raises ModelError."""
        shape = tuple(shape)
        if len(shape) > _MOST_AXES or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
            raise self.damaged(f"tensor '{name}' has an impossible shape of {len(shape)} axes")
        return shape


def tensor_of(name: str, dtype: np.dtype, shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> Tensor:
    """A tensor from a function that reads `dtype`: bfloat16 becomes float32, and any byte order the machine's."""
    if dtype.names:
        return Tensor(name, shape, np.dtype("f4"), lambda: _widened(read()))
    if dtype.isnative:
        return Tensor(name, shape, dtype, read)
    native = dtype.newbyteorder("=")
    return Tensor(name, shape, native, lambda: read().astype(native))


def _widened(values: np.ndarray) -> np.ndarray:
    wide = values["bfloat16"].astype("u4")
    wide <<= 16
    return wide.view("f4")


def expansion_limit(packed: int) -> int:
    """The most bytes to which so many packed ones may expand."""
    return max(_SMALL, _MOST_EXPANSION * packed)


def number_type(text: str) -> np.dtype | None:
    """The dtype of NumPy's description of a number, such as "<f4", or None for any other."""
    return np.dtype(text) if _NUMBER.fullmatch(text) else None
