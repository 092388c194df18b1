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


class Way(NamedTuple):
    """A way to carry a convolution out: a tile, how many groups share the channels, and whether by winograd.cl."""

    tile: object
    splits: int
    winograd: bool = False

    @property
    def order(self):
        """What decides in which order a sum is taken: ways that have this in common give the same bits."""
        return self.splits, self.winograd, getattr(self.tile, "wgmma", False)

    def __str__(self):
        algorithm = "Winograd, " if self.winograd else ""
        return f"{algorithm}tile {self.tile}, {self.splits} share{'s' if self.splits > 1 else ''}"


TILES = (
    Tile(128, 128, 8, 8, 1.0, 0.3), Tile(64, 128, 8, 8, 0.95, 0.5), Tile(64, 64, 8, 8, 0.85, 1.0),
    Tile(32, 128, 4, 8, 0.65, 0.7), Tile(4, 256, 4, 4, 0.2, 0.5),
)  # fmt: skip
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)
_WORKSPACE = 4 << 20  # floats that the shares may take together
_SLAB = 8 << 20  # floats that a slab of Winograd tiles may take, inputs and outputs together
_BLOCKS = 2048  # tiles in it that fill every device
_FULL = 384  # work-items that keep a multiprocessor busy
_TRAFFIC = 40  # multiply-adds that take as long as moving one float through memory
_MOST, _WORTH = 8, 1.7  # so many ways are tried out, and those estimated to take so much more than the best


def plan(*shape, **options):
    """The `Way` of the least estimated time; see `ranked`."""
    return ranked(*shape, **options)[0]


@cache
def ranked(outputs, positions, channels, taps, repeats, units, splits=SPLITS, blocks=0, order=None, cpu=False):
    """The ways that are worth trying, by their estimated time.

    outputs, channels: of one of the repeats. units: multiprocessors. blocks: tiles of 4×4 outputs that Winograd's
    algorithm would have, 0 where it does not apply; where it does, its best way is among those returned, and so is the
    best one without it, for the estimate knows nothing of the device but its multiprocessors. order: that of the ways
    (`Way.order`), where it is known already. cpu: whether the device is one.
    """
    splits = splits if order is None else order[:1]
    direct = list(_estimates(outputs, positions, channels, taps, repeats, units, splits, cpu))
    if not blocks or (order and not order[1]):
        return best_of(direct)
    both, other, winograd = repeats * channels, repeats * outputs, []
    for split in splits:
        size = slab(both, other, split, blocks)
        read = 36 * (repeats * channels * outputs + size * (both + split * other))  # and written, by one product
        moved = blocks * ((16 + 36) * both + (16 + 36 * split) * other)  # by the transforms
        for time, way in _estimates(outputs, size, channels, 1, 36 * repeats, units, (split,), cpu, shares_cost=False):
            time = -(-blocks // size) * max(time, read * _TRAFFIC / units) + moved * _TRAFFIC / units
            winograd.append((time, way._replace(winograd=True)))
    if order:
        return best_of(winograd)
    return list(dict.fromkeys((*best_of(direct + winograd), best_of(direct)[0], best_of(winograd)[0])))


def _estimates(outputs, positions, channels, taps, repeats, units, splits, cpu, shares_cost=True):
    """(time, way) of a product: the busiest multiprocessor's multiply-adds, slowed where too few work-items hide its
    latency, and the traffic of the shares."""
    chunks = -(-channels // 8)
    for tile in TILES:
        groups = -(-outputs // tile.bm) * -(-positions // tile.bn) * repeats
        for split in splits:
            large = shares_cost and len(splits) > 1 and split * outputs * positions * repeats > _WORKSPACE
            if split > 1 and (split > chunks or large):
                break
            turns = -(-groups * split // units)
            resident = min(turns * tile.threads, tile.resident)
            work = turns * tile.bm * tile.bn * -(-chunks // split) * 8 * taps
            time = work / tile.on_cpus if cpu else work / (tile.efficiency * min(1, resident / _FULL))
            if split > 1 and shares_cost:
                time += (2 * split + 1) * outputs * positions * repeats * _TRAFFIC / units
            yield time, Way(tile, split)


def best_of(found):
    """The ways worth trying of (estimated time, way), best first."""
    found = sorted(found, key=lambda pair: pair[0])
    return [way for time, way in found[:_MOST] if time <= _WORTH * found[0][0]]


def slab(channels, outputs, splits, blocks):
    """How many of these Winograd tiles are treated at a time: a multiple of four, and few enough to be even slabs."""
    step = 128  # what a group of the product takes
    most = min(_BLOCKS, max(4, _SLAB // (36 * (channels + splits * outputs)) // 4 * 4))
    if blocks <= most:
        return -(-blocks // 4) * 4
    most = most // step * step or most
    even = -(-blocks // -(-blocks // most))
    return min(most, -(-even // step) * step)
