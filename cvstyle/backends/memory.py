"""A heap of host memory for arrays: the memory of a dropped array is reused by later ones.

An iteration asks for the same sizes in the same order as the one before it, so after the first nothing is allocated and
no page is touched for the first time (page faults of fresh arrays cost as much as a layer). Arrays of different sizes
share memory: blocks are cut from one contiguous range, at the lowest place that has room, and freed neighbours join.
The range is address space only; resident are the parts that were used (`HostPool.reserved`).
"""

from __future__ import annotations

import math
import mmap
import os
import threading
from bisect import bisect_left, insort
from collections import deque
from contextlib import suppress

import numpy as np

from ..machine import available

_ALIGN = 64  # a cache line, and the widest vector
_PAGE = 2 << 20  # a large page
_MIN_RANGE = 64 << 20  # bytes of address space worth reserving
_CHECKED_GROWTH = 32 << 20  # bytes from which on the system is asked whether so much memory is free


class _Block:
    """Memory of one array; NumPy keeps it alive as the array's base, and its end returns the memory."""

    __slots__ = ("__array_interface__", "_place", "_range")

    def __init__(self, memory: _Range, place: tuple[int, int], shape: tuple[int, ...], dtype: np.dtype):
        self._range = memory
        self._place = place
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (memory.address + place[0], False),
        }  # fmt: skip

    def __del__(self):
        # May run inside any allocation (garbage collection), so only this: appending is atomic.
        self._range.returned.append(self._place)


class _Range:
    """Contiguous address space and its free parts: sorted (start, size) holes below `top`, and everything above it."""

    def __init__(self, size: int):
        self._map = mmap.mmap(-1, size + _PAGE, **_PRIVATE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without large pages
                self._map.madvise(mmap.MADV_HUGEPAGE)
        start = np.frombuffer(self._map, np.uint8).ctypes.data
        self.address = -(-start // _PAGE) * _PAGE
        self._offset = self.address - start
        self.size = size
        self.top = 0
        self.peak = 0
        self.holes: list[tuple[int, int]] = []
        self.returned: deque[tuple[int, int]] = deque()

    def take(self, size: int) -> tuple[int, int] | None:
        """The lowest place of this size, or None if the range is too small."""
        self.collect()
        for i, (start, length) in enumerate(self.holes):
            if length < size:
                continue
            self.holes[i : i + 1] = [(start + size, length - size)] if length > size else []
            return start, size
        if self.top + size > self.size:
            return None
        if self.top + size > self.peak:
            _check_available(self.top + size - self.peak)
            self.peak = self.top + size
        self.top += size
        return self.top - size, size

    def collect(self) -> None:
        """Turn returned memory into holes."""
        while self.returned:
            start, size = self.returned.popleft()
            i = bisect_left(self.holes, (start, size))
            if i < len(self.holes) and self.holes[i][0] == start + size:
                size += self.holes.pop(i)[1]
            if i and sum(self.holes[i - 1]) == start:
                i -= 1
                before = self.holes.pop(i)
                start = before[0]
                size += before[1]
            if start + size == self.top:
                self.top = start
            else:
                insort(self.holes, (start, size))

    def trim(self) -> None:
        """Give pages that no array uses back to the system."""
        self.collect()
        for start, size in [*self.holes, (self.top, self.peak - self.top)]:
            first = -(-(start + self._offset) // mmap.PAGESIZE)
            last = (start + size + self._offset) // mmap.PAGESIZE
            if last > first and hasattr(mmap, "MADV_DONTNEED"):
                self._map.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)
        self.peak = self.top


class HostPool:
    """Uninitialised arrays whose memory is reused once no reference (of the array or of a view) is left."""

    def __init__(self):
        self._ranges: list[_Range] = []
        self._lock = threading.Lock()

    @property
    def reserved(self) -> int:
        """Bytes taken from the system so far, in use or free."""
        return sum(r.peak for r in self._ranges)

    def empty(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """A C-contiguous array of this shape and dtype, aligned to a cache line, contents undefined.

        Raises MemoryError where the system has less.
        """
        dtype = np.dtype(dtype)
        size = -(-max(1, math.prod(shape)) * dtype.itemsize // _ALIGN) * _ALIGN
        with self._lock:
            for memory in self._ranges:
                place = memory.take(size)
                if place is not None:
                    break
            else:
                memory = _reserve(size)
                self._ranges.append(memory)
                place = memory.take(size)
        return np.asarray(_Block(memory, place, tuple(shape), dtype))

    def trim(self) -> None:
        """Give the free memory back to the system, as after a change of picture size."""
        with self._lock:
            for memory in self._ranges:
                memory.trim()


def _reserve(size):
    """Address space for at least `size` bytes: as much as there is memory, where unused address space costs nothing."""
    wanted = max(size, _MIN_RANGE)
    if os.name == "posix":
        import resource

        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        wanted = max(wanted, physical if limit == resource.RLIM_INFINITY else min(physical, limit // 4))
    while True:
        try:
            return _Range(wanted)
        except (OSError, OverflowError):
            if wanted <= size:
                raise MemoryError(f"no address space for {size >> 20} MB") from None
            wanted = max(size, wanted // 2)


def _check_available(growth):
    """Raises MemoryError where the system has less: touching the pages would end the process instead."""
    if growth < _CHECKED_GROWTH:
        return
    free = available()
    if free is not None and growth > free:
        raise MemoryError(f"{growth >> 20} MB are needed and {free >> 20} MB are free")


_PRIVATE = {}
if os.name == "posix":
    _NORESERVE = 0x4000 if os.uname().sysname == "Linux" else 0  # mmap.MAP_NORESERVE from Python 3.13 on
    _PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE}
