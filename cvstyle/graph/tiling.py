"""Tiles: windows of the picture that together give every position of the loss layers exactly once.

A position of a loss layer has its exact value in a window that holds its footprint; zero padding and clipped pooling at
the window's inner borders falsify other positions only. Each window therefore *owns* a rectangle of every loss layer's
map, and the rectangles of all windows partition the map. A gradient at owned positions flows back through their
footprint alone, so it is exact too, and the sum over the windows is the gradient of the whole picture.

Windows start at multiples of the network's total stride and have one shape, so that strided layers meet the picture's
own grid, shapes fit each other as in the whole picture, and buffers are reused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from ..errors import OptionError
from .footprint import Footprint

STRIP = 1 << 21  # elements of a feature map that are cut out at a time (8 MB in float32)


@dataclass(frozen=True)
class Rect:
    """A rectangle: its first position, (vertical, horizontal), and its (height, width)."""

    start: tuple[int, int]
    shape: tuple[int, int]

    def strips(self, channels: int, step: int = 1) -> list[Rect]:
        """The rectangle in strips of whole rows, each about STRIP elements of a map with that many channels.

        step: strips are multiples of so many rows, but for the last.
        """
        height, width = self.shape
        rows = max(1, STRIP // (channels * width * step)) * step if width else step
        return [
            Rect((self.start[0] + first, self.start[1]), (min(rows, height - first), width))
            for first in range(0, height if width else 0, rows)
        ]


@dataclass(frozen=True)
class Tile:
    """A window of the picture, and the rectangle of each loss layer's map that it owns.

    owned: layer → rectangle in the window's own coordinates; None: the tile is the whole picture and owns everything.
    origins: layer → (row, column) of the picture's map at which the window's map starts.
    """

    window: Rect
    owned: Mapping[str, Rect] | None = field(default=None, compare=False)
    origins: Mapping[str, tuple[int, int]] | None = field(default=None, compare=False)


def whole(size: tuple[int, int]) -> Tile:
    """The one tile that is a picture of (height, width) `size`."""
    return Tile(Rect((0, 0), tuple(size)))


def split(
    program, size: tuple[int, int], tile_size: int | None, devices: int = 1, positions: Mapping | None = None
) -> list[Tile]:
    """The tiles of a picture of (height, width) `size`: windows of at most tile_size pixels a side, or of any size.

    For several devices, the grid of windows that takes the least time: for two devices and no tile size, two strips
    across the longer side. positions: layer → for each axis the (first, end) of the positions that are owned, the first
    of which is the map's position 0 (`periodic.Periodic`); None: all. Raises OptionError where a layer sees the whole
    picture, or more than a tile of this size.
    """
    tile_size = tile_size or max(size)
    if devices == 1 and max(size) <= tile_size and positions is None:
        return [whole(size)]
    footprints = [program.footprint(size, axis) for axis in (0, 1)]
    if positions is not None:
        owned = [{name: spans[axis] for name, spans in positions.items()} for axis in (0, 1)]
        footprints = [replace(footprint, owned=spans) for footprint, spans in zip(footprints, owned)]
    axes = [_choices(footprint, tile_size, devices) for footprint in footprints]
    if not all(axes):
        name, seen = max((footprint.largest for footprint in footprints), key=lambda largest: largest[1])
        raise OptionError(
            f"a tile of {tile_size} pixels is too small for a picture of {size[1]}×{size[0]}"
            f"{'' if positions is None else ', counted with what repeats beyond its edges'}: a position of layer "
            f"'{name}' needs {seen} pixels at once, and tiles start at multiples of {max(r.unit for r in footprints)}; "
            f"use a tile size of {min_tile_size(footprints)} or more"
        )
    rows, columns = min(product(*axes), key=lambda grid: _cost(*grid, devices))
    if len(rows) * len(columns) == 1 and positions is None:
        return [whole(size)]
    return [
        Tile(
            Rect((y.first, x.first), (y.length, x.length)),
            {
                name: Rect((y.owned[name][0], x.owned[name][0]), (y.owned[name][1], x.owned[name][1]))
                for name in y.owned
            },
            {name: (y.origins[name], x.origins[name]) for name in y.origins},
        )
        for y, x in product(rows, columns)
    ]


def cut(ops, array, rect: Rect):
    """A copy of a rectangle of maps (1, C, H, W)."""
    out = ops.empty((*array.shape[:2], *rect.shape))
    ops.copy_block(out, (0, 0, 0, 0), array, (0, 0, *rect.start), out.shape)
    return out


def paste(ops, array, rect: Rect, block) -> None:
    """Put a block back where `cut` took it from."""
    ops.copy_block(array, (0, 0, *rect.start), block, (0, 0, 0, 0), block.shape)


def relative_cost(count: int) -> float:
    """Cost of `count` windows on a device, in evaluations of one window: all but the last go forward twice."""
    return 1.5 * count - 0.5


def _cost(rows, columns, devices):
    """(pixels of evaluations until the last device is done, number of windows)."""
    count = len(rows) * len(columns)
    return rows[0].length * columns[0].length * relative_cost(-(-count // devices)), count


@dataclass(frozen=True)
class _Interval:
    """A window along one axis.

    owned: layer → (first position in the window's own coordinates, number). origins: layer → position of the picture's
    map at which the window's map starts.
    """

    first: int
    length: int
    owned: Mapping[str, tuple[int, int]]
    origins: Mapping[str, int]


def min_tile_size(footprints) -> int:
    """The smallest tile size with which windows can cover both axes."""
    return max(_shortest(footprint, None) for footprint in footprints)


def _choices(footprint: Footprint, tile_size: int, devices: int) -> list[list[_Interval]]:
    """Sets of windows along one axis: the fewest that the tile size allows and, for each further device, one more.

    The windows of a set are as short as their number allows. Empty where the tile size is too small.
    """
    longest = footprint.length - max(0, -(-(footprint.length - tile_size) // footprint.unit)) * footprint.unit
    fewest = _cover(footprint, longest) if longest > 0 else None
    if fewest is None:
        return []
    return [_cover(footprint, _shortest(footprint, len(fewest) + more)) for more in range(devices)]


def _shortest(footprint, most):
    """The shortest length with which at most `most` windows cover the axis."""
    low = 0  # units by which windows can be shortened for certain
    high = (footprint.length - 1) // footprint.unit
    while low < high:
        middle = (low + high + 1) // 2
        found = _cover(footprint, footprint.length - middle * footprint.unit)
        if found is not None and (most is None or len(found) <= most):
            low = middle
        else:
            high = middle - 1
    return footprint.length - low * footprint.unit


def _cover(footprint, length):
    """Windows of this length that cover the axis, each as late as the first position not yet owned allows, or None."""
    done = {name: first for name, (first, _) in footprint.owned.items()}
    windows = []
    while True:
        waiting = [name for name, (_, end) in footprint.owned.items() if done[name] < end]
        pending = [int(footprint.starts[name][done[name]]) for name in waiting]
        if not pending:
            return windows
        start = min(min(pending) // footprint.unit * footprint.unit, footprint.length - length)
        owned = {}
        before = dict(done)
        first = {name: start // footprint.unit * steps for name, steps in footprint.per_unit.items()}
        for name, (_, end) in footprint.owned.items():
            last = int(np.searchsorted(footprint.stops[name], start + length, "right"))
            done[name] = max(done[name], min(last, end))
            owned[name] = (before[name] - first[name], done[name] - before[name])
        if done == before:
            return None
        origins = {name: position - footprint.owned[name][0] for name, position in first.items()}
        windows.append(_Interval(start, length, owned, origins))
