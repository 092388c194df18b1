"""A pool of device memory: an array that is dropped leaves its bytes to later ones of any size.

Arrays are cut from chunks, each from the smallest hole that is large enough, and holes side by side become one again. A
chunk is added where no hole is large enough, and takes the place of smaller ones that are wholly free; once, when an
iteration has gone by without a new one and most is free again, the free chunks make room for one of the size that
proved necessary. After a few iterations nothing is allocated any more, since each asks for the same sizes in the same
order. Small arrays have blocks of their own, by size, so that they do not break up the holes.

A recording (recording.py) has addresses in it, so while one is made and as long as it is used nothing is given back to
the device (`hold`).
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict, deque
from contextlib import suppress

_SMALL = 1 << 16
_STEP = 4096  # chunks are cut at multiples of this (sub-buffers of OpenCL devices must start at some multiple)
_SMALL_STEP = 256


class Block:
    """Memory of one array; `view` is what kernels take. It returns to the pool when dropped.

    largest: None, or an array of one number, the largest magnitude in it.
    """

    __slots__ = ("chunk", "largest", "pool", "size", "start", "view")

    def __init__(self, pool, chunk, start, size, view):
        self.pool, self.chunk, self.start, self.size, self.view = pool, chunk, start, size, view
        self.largest = None

    def __del__(self):
        # May run inside any allocation (garbage collection), so only this: appending is atomic.
        self.pool.returned.append((self.chunk, self.start, self.size, self.view))


class _Chunk:
    """lasting: it was made for one array, which is still there."""

    def __init__(self, memory, size, lasting):
        self.memory, self.size, self.lasting = memory, size, lasting
        self.holes = [(0, size)]  # (start, size), by start
        self.views = {}

    @property
    def is_free(self):
        return self.holes == [(0, self.size)]


class DevicePool:
    """Uninitialised memory of a device.

    allocated: bytes taken from the device, in use or not; taken: the most of them; peak: the most that were in use.
    allocations: how often the device was asked for memory.
    """

    def __init__(self, device):
        self._device = device
        self._chunks: list[_Chunk] = []
        self._small = defaultdict(list)
        self._used = 0
        # Bytes in use that were cut from chunks, those of lasting arrays apart: now, the most so far, and the least
        # since a chunk was added.
        self._cut = self._least_cut = self._most_cut = 0
        # Whether chunks were added, whether as much was in use again since without another, and whether they were
        # replaced by one.
        self._grown = self._repeated = self._joined = False
        self.returned = deque()
        self.allocated = self.taken = self.peak = self.allocations = 0
        self._holds = 0

    def hold(self) -> None:
        """From now on nothing is given back to the device, until `release` has been called as often."""
        self._holds += 1

    def release(self) -> None:
        self._holds -= 1

    def settle(self) -> None:
        """Replace the free chunks by one now, if the next array would be the occasion for it."""
        self._collect()
        self._join(_STEP)

    @property
    def used(self) -> int:
        """Bytes in use."""
        self._collect()
        return self._used

    def empty(self, size: int, lasting: bool = False) -> Block:
        """A block of at least `size` bytes. Raises MemoryError where the device has no more.

        lasting: it will stay, so it should not break up a hole that others come and go in.
        """
        small = size < _SMALL
        step = _SMALL_STEP if small else _STEP
        size = max(1, -(-size // step)) * step
        self._collect()
        if small:
            free = self._small[size]
            view = free.pop() if free else self._device.view(self._allocate(size), 0, size)
            return self._block(None, 0, size, view)
        if lasting:
            chunk, at = self._new_chunk(size, True)
        else:
            self._join(size)
            chunk, at = self._hole(size) or self._grow(size)
            self._cut += size
            self._most_cut = max(self._most_cut, self._cut)
        start, room = chunk.holes.pop(at)
        if room > size:
            chunk.holes.insert(at, (start + size, room - size))
        view = chunk.views.get((start, size))
        if view is None:
            view = chunk.views[start, size] = self._device.view(chunk.memory, start, size)
        return self._block(chunk, start, size, view)

    def _block(self, chunk, start, size, view):
        self._used += size
        self.peak = max(self.peak, self._used)
        return Block(self, chunk, start, size, view)

    def trim(self) -> None:
        """Give memory that no array uses back to the device."""
        self._collect()
        if self._holds:
            return
        self._least_cut = self._most_cut = self._cut
        self._grown = self._repeated = self._joined = False
        for size, free in self._small.items():
            self.allocated -= size * len(free)
            free.clear()
        self._drop(lambda chunk: True)

    def trim_lasting(self) -> None:
        """Give back what lasting arrays left behind."""
        self._collect()
        self._drop(lambda chunk: chunk.lasting)

    def _hole(self, size):
        """(chunk, index) of the smallest hole that is large enough, or None."""
        fits = [(hole[1], c, at) for c, chunk in enumerate(self._chunks)
                for at, hole in enumerate(chunk.holes) if hole[1] >= size]  # fmt: skip
        if not fits:
            return None
        _, c, at = min(fits)
        return self._chunks[c], at

    def _grow(self, size):
        """A chunk more, in place of smaller ones that are free: whatever they served fits into it."""
        self._drop(lambda chunk: chunk.size < size)
        self._grown, self._repeated, self._least_cut = True, False, self._cut
        return self._new_chunk(size)

    def _join(self, size):
        """Replace the free chunks by one, once, when as little is in use again as at the least while they sufficed."""
        self._least_cut = min(self._least_cut, self._cut)
        span = self._most_cut - self._least_cut
        self._repeated = self._repeated or 8 * (self._most_cut - self._cut - size) < span
        due = self._grown and self._repeated and not self._joined
        if self._holds or not due or 8 * (self._cut - self._least_cut) > span:
            return
        kept = [c for c in self._chunks if not (c.is_free or c.lasting)]
        room = sum(hole for c in kept for _, hole in c.holes)
        self._joined = True
        self._drop(lambda chunk: True)
        with suppress(MemoryError):  # more than the device gives in one piece: piece by piece, as before
            self._new_chunk(max(self._most_cut - self._cut - room, size))

    def _new_chunk(self, size, lasting=False):
        self._chunks.append(_Chunk(self._allocate(size), size, lasting))
        return self._chunks[-1], 0

    def _allocate(self, size):
        self.allocations += 1
        try:
            memory = self._device.allocate(size)
        except MemoryError:
            if self._holds or not any(chunk.is_free for chunk in self._chunks):
                raise
            self._device.synchronize()  # work on the queue may still hold what is given back
            self._drop(lambda chunk: True)
            memory = self._device.allocate(size)
        self.allocated += size
        self.taken = max(self.taken, self.allocated)
        return memory

    def _drop(self, condition):
        if self._holds:
            return
        for chunk in [c for c in self._chunks if c.is_free and condition(c)]:
            self._chunks.remove(chunk)
            self.allocated -= chunk.size

    def _collect(self):
        """Take back what was dropped since the last call."""
        while self.returned:
            chunk, start, size, view = self.returned.popleft()
            self._used -= size
            if chunk is None:
                self._small[size].append(view)
                continue
            if not chunk.lasting:
                self._cut -= size
            chunk.lasting = False
            end, holes = start + size, []
            for hole in chunk.holes:
                if hole[0] + hole[1] == start:
                    start = hole[0]
                elif hole[0] == end:
                    end += hole[1]
                else:
                    holes.append(hole)
            insort(holes, (start, end - start))
            chunk.holes = holes
