"""Tiles: windows of the picture that together give every position of the loss layers exactly once.

A loss layer's position has its exact value in a window that holds all pixels it sees; zero padding and clipped pooling
windows at the window's inner borders then falsify only positions that nobody counts. Each window therefore *owns* a
rectangle of every loss layer's map, and the rectangles of all windows partition the map. A gradient that is injected at
owned positions flows back through nothing but what they see, so it is exact too, and the sum over the windows is the
gradient of the whole picture.

Windows start at multiples of the network's total stride and are all of one shape, that of the last one, so that strided
layers meet the picture's own grid, shapes fit each other as in the whole picture, and buffers are reused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from .errors import OptionError

STRIP = 1 << 21  # elements of a feature map that are cut out at a time (8 MB in float32)


@dataclass(frozen=True)
class Reach:
    """What the positions of the loss layers need of the picture along one axis (see `Program.reach`).

    length: pixels. unit: the total stride, in pixels. steps: layer → positions per unit. first, end: layer → for each
    of its positions, the pixels [first, end) that a window must hold; both ascend. widest: the layer that sees most.
    """

    length: int
    unit: int
    steps: Mapping[str, int]
    first: Mapping[str, np.ndarray]
    end: Mapping[str, np.ndarray]
    widest: tuple[str, int]


@dataclass(frozen=True)
class Part:
    """A rectangle: where it starts, (vertical, horizontal), and its (height, width)."""

    start: tuple[int, int]
    shape: tuple[int, int]

    def strips(self, channels: int) -> list[Part]:
        """The rectangle in parts of whole rows, each of STRIP elements or so of a map with that many channels."""
        height, width = self.shape
        rows = max(1, STRIP // (channels * width)) if width else 1
        return [
            Part((self.start[0] + first, self.start[1]), (min(rows, height - first), width))
            for first in range(0, height if width else 0, rows)
        ]


@dataclass(frozen=True)
class Tile:
    """A window of the picture, and what it owns of each loss layer's map, in the window's own coordinates.

    origins: where the window's map starts in that of the picture, (row, column), by layer. Without `owned` the tile is
    the whole picture and owns everything.
    """

    window: Part
    owned: Mapping[str, Part] | None = field(default=None, compare=False)
    origins: Mapping[str, tuple[int, int]] | None = field(default=None, compare=False)


def whole(size: tuple[int, int]) -> Tile:
    """The one tile that is a picture of (height, width) `size`."""
    return Tile(Part((0, 0), tuple(size)))


def split(program, size: tuple[int, int], tile_size: int | None, devices: int = 1) -> list[Tile]:
    """The tiles of a picture of (height, width) `size`, windows of at most tile_size pixels a side; None: any.

    Several devices that share them get the grid of windows with which they are done first: two, where nothing else asks
    for more, two strips across the longer side. Raises OptionError where a layer sees the whole picture, or more than a
    tile of this size.
    """
    tile_size = tile_size or max(size)
    if devices == 1 and max(size) <= tile_size:
        return [whole(size)]
    reaches = [program.reach(size, axis) for axis in (0, 1)]
    axes = [_choices(reach, tile_size, devices) for reach in reaches]
    if not all(axes):
        name, seen = max((reach.widest for reach in reaches), key=lambda widest: widest[1])
        raise OptionError(
            f"a tile of {tile_size} pixels is too small for a picture of {size[1]}×{size[0]}: a position of layer "
            f"'{name}' needs {seen} pixels at once, and tiles start at multiples of {max(r.unit for r in reaches)}; "
            f"use a tile size of {least(reaches)} or more"
        )
    rows, columns = min(product(*axes), key=lambda grid: _cost(*grid, devices))
    if len(rows) * len(columns) == 1:
        return [whole(size)]
    return [
        Tile(
            Part((y.first, x.first), (y.length, x.length)),
            {
                name: Part((y.owned[name][0], x.owned[name][0]), (y.owned[name][1], x.owned[name][1]))
                for name in y.owned
            },
            {name: (y.origins[name], x.origins[name]) for name in y.origins},
        )
        for y, x in product(rows, columns)
    ]


def cut(ops, array, part: Part):
    """A copy of a rectangle of maps (1, C, H, W)."""
    out = ops.empty((*array.shape[:2], *part.shape))
    ops.copy_block(out, (0, 0, 0, 0), array, (0, 0, *part.start), out.shape)
    return out


def paste(ops, array, part: Part, block) -> None:
    """Put a rectangle that `cut` gave in its place."""
    ops.copy_block(array, (0, 0, *part.start), block, (0, 0, 0, 0), block.shape)


def passes(count: int) -> float:
    """What `count` windows cost a device, in evaluations of one: all but the last go forward twice."""
    return 1.5 * count - 0.5


def _cost(rows, columns, devices):
    """(pixels of evaluations until the last device is done, windows)."""
    count = len(rows) * len(columns)
    return rows[0].length * columns[0].length * passes(-(-count // devices)), count


@dataclass(frozen=True)
class _Interval:
    """A window along one axis.

    owned: layer → (first position in the window's own coordinates, number). origins: layer → where the window's map
    starts in that of the picture.
    """

    first: int
    length: int
    owned: Mapping[str, tuple[int, int]]
    origins: Mapping[str, int]


def least(reaches) -> int:
    """The least tile size with which these axes can be covered."""
    return max(_shortest(reach, None) for reach in reaches)


def _choices(reach: Reach, tile_size: int, devices: int) -> list[list[_Interval]]:
    """Windows along one axis: as few as the tile size allows, and more for several devices; each as short as their
    number allows. None at all where the tile size is too small."""
    longest = reach.length - max(0, -(-(reach.length - tile_size) // reach.unit)) * reach.unit
    fewest = _cover(reach, longest) if longest > 0 else None
    if fewest is None:
        return []
    return [_cover(reach, _shortest(reach, len(fewest) + more)) for more in range(devices)]


def _shortest(reach, most):
    """The shortest length with which windows (at most so many) cover everything."""
    low, high = 0, (reach.length - 1) // reach.unit  # shortened by so many units: `low` always does
    while low < high:
        middle = (low + high + 1) // 2
        found = _cover(reach, reach.length - middle * reach.unit)
        if found is not None and (most is None or len(found) <= most):
            low = middle
        else:
            high = middle - 1
    return reach.length - low * reach.unit


def _cover(reach, length):
    """Windows of this length, each started as late as what is not owned yet allows; None if they cannot do it."""
    done, windows = dict.fromkeys(reach.first, 0), []
    while True:
        pending = [int(first[done[name]]) for name, first in reach.first.items() if done[name] < len(first)]
        if not pending:
            return windows
        start = min(min(pending) // reach.unit * reach.unit, reach.length - length)
        owned, before = {}, dict(done)
        origins = {name: start // reach.unit * steps for name, steps in reach.steps.items()}
        for name, end in reach.end.items():
            done[name] = max(done[name], int(np.searchsorted(end, start + length, "right")))
            owned[name] = (before[name] - origins[name], done[name] - before[name])
        if done == before:
            return None
        windows.append(_Interval(start, length, owned, origins))
