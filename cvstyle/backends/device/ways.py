"""Ways to carry a convolution out by the portable kernels, and an estimate of which is fastest."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple


class Tile(NamedTuple):
    """What one group computes (see product.h): bm outputs × bn positions, tm × tn of them per work-item.

    efficiency: arithmetic per access to local memory, relative to the largest tile. on_cpus: speed on a CPU, relative
    to the fastest tile (measured with PoCL, docs/performance-gpu.md).
    """

    bm: int
    bn: int
    tm: int
    tn: int
    efficiency: float
    on_cpus: float

    def __str__(self):
        return f"{self.bm}×{self.bn}"

    @property
    def threads(self):
        return self.bm // self.tm * (self.bn // self.tn)

    @property
    def resident(self):
        """Work-items that a multiprocessor holds (product.h gives the registers for that)."""
        return 384 if self.threads == 64 else 512

    @property
    def macros(self):
        """What the kernels know of it."""
        return (("BM", self.bm), ("BN", self.bn), ("BK", 8), ("TM", self.tm), ("TN", self.tn))


_SLAB = 8 << 20  # floats that a slab of Winograd tiles may take, inputs and outputs together, on every device


class Way(NamedTuple):
    """A way to carry a convolution out: a tile, how many groups share the channels, and whether by winograd.cl.

    room: floats that a slab of Winograd tiles may take.
    """

    tile: object
    splits: int
    winograd: bool = False
    room: int = _SLAB

    @property
    def order(self):
        """What decides in which order a sum is taken: ways that have this in common give the same bits."""
        return self.splits, self.winograd, getattr(self.tile, "wgmma", False)

    def __str__(self):
        algorithm = "Winograd, " if self.winograd else ""
        slabs = f", slabs of {4 * self.room >> 20} MB" if self.room != _SLAB else ""
        return f"{algorithm}tile {self.tile}, {self.splits} share{'s' if self.splits > 1 else ''}{slabs}"


TILES = (
    Tile(128, 128, 8, 8, 1.0, 0.3), Tile(64, 128, 8, 8, 0.95, 0.5), Tile(64, 64, 8, 8, 0.85, 1.0),
    Tile(32, 128, 4, 8, 0.65, 0.7), Tile(4, 256, 4, 4, 0.2, 0.5),
)  # fmt: skip
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)
_WORKSPACE = 4 << 20  # floats that the shares may take together
_BLOCKS = 2048  # tiles in a slab of _SLAB, at most: they fill every device
_LARGER = 4  # times the room for a slab that is tried next
_ROOMS = 256  # so many of the largest, or more, are in a device's memory
_FULL = 384  # work-items that keep a multiprocessor busy
_TRAFFIC = 40  # multiply-adds that take as long as moving one float through memory
_CACHED = 25  # or from and to a GPU's cache
_KEPT = 0.5  # of that cache, what may count on staying there (each half of a Hopper's may have a copy of its own)
_LAUNCH = 400_000  # multiply-adds of a multiprocessor while one launch follows another on a GPU (2 to 3 µs)
_MOST, _WORTH = 8, 1.7  # so many ways are tried out, and those estimated to take so much more than the best


def plan(*shape, **options):
    """The `Way` of the least estimated time; see `ranked`."""
    return ranked(*shape, **options)[0]


@cache
def ranked(
    outputs, positions, channels, taps, repeats, units, splits=SPLITS, blocks=0, order=None, cpu=False, memory=0,
    cached=0,
):  # fmt: skip
    """The ways that are worth trying, by their estimated time.

    outputs, channels: of one of the repeats. units: multiprocessors. blocks: tiles of 4×4 outputs that Winograd's
    algorithm would have, 0 where it does not apply; where it does, its best way is among those returned, with slabs of
    every size, and so is the best one without it, for the estimate knows little of the device. order: that of the ways
    (`Way.order`), where it is known already. cpu: whether the device is one. memory, cached: bytes of the device's
    memory and cache.
    """
    splits = splits if order is None else order[:1]
    direct = list(_estimates(outputs, positions, channels, taps, repeats, units, splits, cpu))
    if not blocks or (order and not order[1]):
        return best_of(direct)
    sizes = {}  # a way but for the size of its slabs → (time, way) for each
    for split in splits:
        for room in _rooms(0 if cpu else memory):
            size = slab(repeats * channels, repeats * outputs, split, blocks, room)
            found = _estimates_by_winograd(outputs, channels, repeats, units, split, blocks, cpu, size, cached)
            for time, way in found:
                sizes.setdefault(way[:3], []).append((time, way._replace(room=room)))
            if size >= blocks:
                break
    winograd = [min(found, key=lambda pair: pair[0]) for found in sizes.values()]
    best = best_of(winograd)[0]
    others = [way for _, way in sizes[best[:3]]]
    if order:
        return list(dict.fromkeys((*best_of(winograd), *others)))
    return list(dict.fromkeys((*best_of(direct + winograd), best_of(direct)[0], best, *others)))


def _rooms(memory):
    """Floats that a slab may take on a device of so many bytes: one choice, or several where there is memory.

    A larger slab takes fewer launches, fills the multiprocessors better and reads filters less often; a smaller one
    stays in the cache between its three kernels. The results are the same.
    """
    found = [_SLAB]
    while 4 * found[-1] * _LARGER * _ROOMS <= memory:
        found.append(found[-1] * _LARGER)
    return found


def _estimates_by_winograd(outputs, channels, repeats, units, split, blocks, cpu, size, cached):
    """(time, way) with slabs of this size."""
    count, both, other = -(-blocks // size), repeats * channels, repeats * outputs
    slabs = 36 * (both + split * other)  # floats for each tile, which one kernel writes and the next one reads
    kept = 0 if cpu else min(1, _KEPT * cached / (4 * slabs * size))
    rate = (kept * _CACHED + (1 - kept) * _TRAFFIC) / units
    read = 36 * both * outputs * _TRAFFIC / units + slabs * size * rate  # and written, by one product
    moved = blocks * (16 * (both + other) * _TRAFFIC / units + slabs * rate)  # by the transforms
    launches = 0 if cpu else 3 * count * _LAUNCH
    for time, way in _estimates(outputs, size, channels, 1, 36 * repeats, units, (split,), cpu, alone=False):
        yield count * max(time, read) + moved + launches, way._replace(winograd=True)


def _estimates(outputs, positions, channels, taps, repeats, units, splits, cpu, alone=True):
    """(time, way) of a product: the busiest multiprocessor's multiply-adds, slowed where too few work-items hide its
    latency, and, of one that is `alone`, its launches and the traffic of the shares."""
    chunks = -(-channels // 8)
    for tile in TILES:
        groups = -(-outputs // tile.bm) * -(-positions // tile.bn) * repeats
        for split in splits:
            large = alone and len(splits) > 1 and split * outputs * positions * repeats > _WORKSPACE
            if split > 1 and (split > chunks or large):
                break
            turns = -(-groups * split // units)
            resident = min(turns * tile.threads, tile.resident)
            work = turns * tile.bm * tile.bn * -(-chunks // split) * 8 * taps
            time = work / tile.on_cpus if cpu else work / (tile.efficiency * min(1, resident / _FULL))
            if split > 1 and alone:
                time += (2 * split + 1) * outputs * positions * repeats * _TRAFFIC / units
            if alone and not cpu:
                time += (1 + (split > 1)) * _LAUNCH
            yield time, Way(tile, split)


def best_of(found):
    """The ways worth trying of (estimated time, way), best first."""
    found = sorted(found, key=lambda pair: pair[0])
    return [way for time, way in found[:_MOST] if time <= _WORTH * found[0][0]]


def slab(channels, outputs, splits, blocks, room=_SLAB):
    """How many of these Winograd tiles are treated at a time: a multiple of four, and few enough to be even slabs."""
    step = 128  # what a group of the product takes
    most = min(_BLOCKS * max(1, room // _SLAB), max(4, room // (36 * (channels + splits * outputs)) // 4 * 4))
    if blocks <= most:
        return -(-blocks // 4) * 4
    most = most // step * step or most
    even = -(-blocks // -(-blocks // most))
    return min(most, -(-even // step) * step)
