"""A pool of device memory: best-fit allocation from large chunks.

Neighbouring holes merge. Where no hole fits, a chunk is allocated in place of smaller chunks that are wholly free;
once, when an iteration has gone by without a new chunk and most memory is free again, the free chunks are replaced by
one of the size that proved necessary. After a few iterations nothing is allocated, since each iteration asks for the
same sizes in the same order. Small arrays have blocks of their own, by size, so that they do not break up the holes.

A capture (graph_capture.py) holds addresses, so the pool frees nothing while one is made or in use (`hold`).
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict, deque
from contextlib import suppress

_SMALL = 1 << 16
_STEP = 4096  # chunks are cut at multiples of this (sub-buffers of OpenCL devices must start at some multiple)
_SMALL_STEP = 256


class Block:
    """Memory of one array, which returns to the pool when the block is dropped. view: the argument of kernels.

    abs_max: None, or an array of one number, the largest magnitude in the block.
    """

    __slots__ = ("abs_max", "chunk", "pool", "size", "start", "view")

    def __init__(self, pool, chunk, start, size, view):
        self.pool = pool
        self.chunk = chunk
        self.start = start
        self.size = size
        self.view = view
        self.abs_max = None

    def __del__(self):
        # May run inside any allocation (garbage collection), so only this: appending is atomic.
        self.pool.returned.append((self.chunk, self.start, self.size, self.view))


class _Chunk:
    """persistent: made for one array, which is still there."""

    def __init__(self, memory, size, persistent):
        self.memory = memory
        self.size = size
        self.persistent = persistent
        self.holes = [(0, size)]  # (start, size), by start
        self.views = {}

    @property
    def is_free(self):
        return self.holes == [(0, self.size)]


class DevicePool:
    """Uninitialised memory of a device.

    reserved: bytes taken from the device, in use or not; max_reserved: the most so far; max_allocated: the most bytes
    that were in use at once. allocations: number of requests to the device.
    """

    def __init__(self, device):
        self._device = device
        self._chunks: list[_Chunk] = []
        self._small = defaultdict(list)
        self._allocated = 0
        # Bytes in use that were cut from chunks, without persistent arrays: now, the most so far, and the least since a
        # chunk was added.
        self._cut = 0
        self._most_cut = 0
        self._least_cut = 0
        self._grew = False  # chunks were added
        self._reached_again = False  # as much was in use again since, without another chunk
        self._joined = False  # the chunks were replaced by one
        self.returned = deque()
        self.reserved = 0
        self.max_reserved = 0
        self.max_allocated = 0
        self.allocations = 0
        self._holds = 0

    def hold(self) -> None:
        """Free nothing until `release` has been called as often."""
        self._holds += 1

    def release(self) -> None:
        self._holds -= 1

    def consolidate(self) -> None:
        """Replace the free chunks by one now, if the next array would cause it."""
        self._collect()
        self._join(_STEP)

    @property
    def allocated(self) -> int:
        """Bytes in use."""
        self._collect()
        return self._allocated

    def empty(self, size: int, persistent: bool = False) -> Block:
        """A block of at least `size` bytes. Raises MemoryError where the device has no more.

        persistent: the array will stay, so it gets a chunk of its own and does not break up a hole.
        """
        small = size < _SMALL
        step = _SMALL_STEP if small else _STEP
        size = max(1, -(-size // step)) * step
        self._collect()
        if small:
            free = self._small[size]
            view = free.pop() if free else self._device.view(self._allocate(size), 0, size)
            return self._block(None, 0, size, view)
        if persistent:
            chunk, index = self._new_chunk(size, True)
        else:
            self._join(size)
            chunk, index = self._hole(size) or self._grow(size)
            self._cut += size
            self._most_cut = max(self._most_cut, self._cut)
        start, hole = chunk.holes.pop(index)
        if hole > size:
            chunk.holes.insert(index, (start + size, hole - size))
        view = chunk.views.get((start, size))
        if view is None:
            view = chunk.views[start, size] = self._device.view(chunk.memory, start, size)
        return self._block(chunk, start, size, view)

    def _block(self, chunk, start, size, view):
        self._allocated += size
        self.max_allocated = max(self.max_allocated, self._allocated)
        return Block(self, chunk, start, size, view)

    def trim(self) -> None:
        """Give memory that no array uses back to the device."""
        self._collect()
        if self._holds:
            return
        self._least_cut = self._most_cut = self._cut
        self._grew = self._reached_again = self._joined = False
        for size, free in self._small.items():
            self.reserved -= size * len(free)
            free.clear()
        self._drop(lambda chunk: True)

    def trim_persistent(self) -> None:
        """Give back the chunks of persistent arrays that were dropped."""
        self._collect()
        self._drop(lambda chunk: chunk.persistent)

    def _hole(self, size):
        """(chunk, index) of the smallest hole that is large enough, or None."""
        fits = [(hole[1], c, index) for c, chunk in enumerate(self._chunks)
                for index, hole in enumerate(chunk.holes) if hole[1] >= size]  # fmt: skip
        if not fits:
            return None
        _, c, index = min(fits)
        return self._chunks[c], index

    def _grow(self, size):
        """Add a chunk, in place of smaller ones that are free: their arrays fit into it."""
        self._drop(lambda chunk: chunk.size < size)
        self._grew = True
        self._reached_again = False
        self._least_cut = self._cut
        return self._new_chunk(size)

    def _join(self, size):
        """Replace the free chunks by one, once, when use is as low again as at the least while they sufficed."""
        self._least_cut = min(self._least_cut, self._cut)
        span = self._most_cut - self._least_cut
        self._reached_again = self._reached_again or 8 * (self._most_cut - self._cut - size) < span
        due = self._grew and self._reached_again and not self._joined
        if self._holds or not due or 8 * (self._cut - self._least_cut) > span:
            return
        occupied = [c for c in self._chunks if not (c.is_free or c.persistent)]
        holes = sum(hole for c in occupied for _, hole in c.holes)
        self._joined = True
        self._drop(lambda chunk: True)
        with suppress(MemoryError):  # more than the device gives in one piece: piece by piece, as before
            self._new_chunk(max(self._most_cut - self._cut - holes, size))

    def _new_chunk(self, size, persistent=False):
        self._chunks.append(_Chunk(self._allocate(size), size, persistent))
        return self._chunks[-1], 0

    def _allocate(self, size):
        self.allocations += 1
        try:
            memory = self._device.allocate(size)
        except MemoryError:
            if self._holds or not any(chunk.is_free for chunk in self._chunks):
                raise
            self._device.synchronize()  # work on the queue may still use the chunks
            self._drop(lambda chunk: True)
            memory = self._device.allocate(size)
        self.reserved += size
        self.max_reserved = max(self.max_reserved, self.reserved)
        return memory

    def _drop(self, condition):
        """Free the chunks that no array uses and that meet the condition."""
        if self._holds:
            return
        for chunk in [c for c in self._chunks if c.is_free and condition(c)]:
            self._chunks.remove(chunk)
            self.reserved -= chunk.size

    def _collect(self):
        """Take back the blocks that were dropped since the last call."""
        while self.returned:
            chunk, start, size, view = self.returned.popleft()
            self._allocated -= size
            if chunk is None:
                self._small[size].append(view)
                continue
            if not chunk.persistent:
                self._cut -= size
            chunk.persistent = False
            end = start + size
            holes = []
            for hole in chunk.holes:
                if hole[0] + hole[1] == start:
                    start = hole[0]
                elif hole[0] == end:
                    end += hole[1]
                else:
                    holes.append(hole)
            insort(holes, (start, end - start))
            chunk.holes = holes
