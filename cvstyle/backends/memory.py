"""A pool of host memory: an array that is dropped leaves its block to the next array of the same size.

An iteration asks for the same sizes in the same order as the one before it, so after the first iteration nothing is
allocated and no page is touched for the first time (page faults of fresh arrays cost as much as a layer).
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

_ALIGN = 64  # a cache line, and the widest vector


class _Block:
    """Memory under one array; NumPy keeps it alive as the array's base, and its end returns the memory."""

    __slots__ = ("__array_interface__", "_free", "_memory")

    def __init__(self, memory: np.ndarray, free: list, shape: tuple[int, ...], dtype: np.dtype):
        self._memory, self._free = memory, free
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (memory.ctypes.data, False),
        }  # fmt: skip

    def __del__(self):
        self._free.append(self._memory)


class HostPool:
    """Uninitialised arrays whose memory is reused once no reference (of the array or of a view) is left."""

    def __init__(self):
        self._free = defaultdict(list)
        self.allocated = 0
        """Bytes taken from the system so far, in use or free."""

    def empty(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """A C-contiguous array of this shape and dtype, aligned to a cache line, contents undefined."""
        dtype = np.dtype(dtype)
        size = max(1, math.prod(shape)) * dtype.itemsize
        free = self._free[size]
        try:
            memory = free.pop()
        except IndexError:
            raw = np.empty(size + _ALIGN, np.uint8)
            start = -raw.ctypes.data % _ALIGN
            memory = raw[start : start + size]
            self.allocated += size
        return np.asarray(_Block(memory, free, tuple(shape), dtype))

    def trim(self) -> None:
        """Give the free blocks back to the system, as after a change of picture size."""
        for size, free in self._free.items():
            self.allocated -= size * len(free)
            free.clear()
