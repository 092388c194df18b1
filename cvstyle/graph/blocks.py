"""Blocks: where convolutions that compute in blocks of outputs begin them, in the picture and in windows of it.

Rounding depends on all that is in a block, so a window of the picture has the picture's bits where its blocks are the
picture's. The alignment is a matter of the graph alone and the same on every backend; a backend is asked only for the
size of its blocks.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from ..backends.base import BlockGrid, Size

_BLOCK = 4  # outputs along an axis of the blocks of Winograd's F(4×4, 3×3), the only ones that can begin elsewhere
_LONG = 320  # pixels of an axis from which on blocks are offset along it: extra blocks are below 2 % of an iteration


class Region(NamedTuple):
    """A window of a picture: origin, the pixel at which it starts, and the (height, width) of the picture."""

    origin: Size
    full_size: Size


class Blocks(NamedTuple):
    """The blocks in which one value is computed.

    size: outputs along an axis. starts: position of a block's first output along both axes, 0 or half a block.
    supports_offset: whether a window may begin them anywhere.
    """

    size: int
    starts: Size
    supports_offset: bool


class BlockAlignment:
    """The blocks of a program's convolutions, for the picture and for its windows."""

    def __init__(self, program, same_as: BlockAlignment | None = None):
        """same_as: the alignment of another program of the network, so that both round alike."""
        self._program = program
        self._same_as = same_as
        self._grids: dict[Region, dict[int, BlockGrid]] = {}

    def blocks(self, size: Size) -> dict[int, Blocks]:
        """Value → the blocks in which it is computed for a picture of (height, width) `size`, if it is."""
        network = self._program.network
        found = {}
        for index in self._program.indices:
            layer = network.layer(index)
            if layer.block_size > 1:
                offset = layer.supports_offset and index in self._half_block_offset
                starts = tuple(layer.block_size // 2 * (offset and n >= _LONG) for n in size)
                found[network.nodes[index].tops[0]] = Blocks(layer.block_size, starts, layer.supports_offset)
        return found

    def grids(self, region: Region, channels: int) -> dict[int, BlockGrid]:
        """Value of a convolution → its place in the picture's map, for a window of a picture."""
        if region not in self._grids:
            self._grids[region] = dict(self._find_grids(region, channels))
        return self._grids[region]

    def _find_grids(self, region, channels):
        program = self._program
        shapes = program.all_shapes(region.full_size, channels)
        blocks = self.blocks(region.full_size)
        steps = [program.steps_along(axis) if region.origin[axis] else None for axis in (0, 1)]
        for step in program.steps:
            if step.layer.uses_grid:
                value = step.first_top
                size, starts, _ = blocks.get(value, Blocks(1, (0, 0), False))
                first = (int(a / along[value]) if a else 0 for a, along in zip(region.origin, steps))
                offset = tuple((position - start) % size for position, start in zip(first, starts))
                yield value, BlockGrid(offset, shapes[value][2:])

    @cached_property
    def _half_block_offset(self):
        """The nodes whose blocks start half a block before the map, where their backend supports it.

        A block of 3×3 filters needs inputs one position beyond its own extent. Blocks below that start at the same
        places would be needed whole on both sides; blocks that start half a block from there end there as well.
        """
        if self._same_as is not None:
            return self._same_as._half_block_offset
        network = self._program.network
        found = set()
        bounds_of: dict[int, set] = {}  # value → the (first, end) along each axis that blocks above need, modulo 4
        for index in reversed(self._program.indices):
            node = network.nodes[index]
            layer = network.layer(index)
            above = [bounds for top in node.tops for bounds in bounds_of.get(top, ())]
            window = layer.window()
            if window is None or any(Fraction(n).denominator > 1 for n in (*window.stride, *window.pad)):
                continue
            if layer.uses_grid and window.extent == (3, 3) and window.stride == (1, 1):
                start = _best_start(above, (0,) if layer.transposed else (0, _BLOCK // 2))
                if start:
                    found.add(index)
                above = [((start, start),) * 2]
            needs = [_input_bounds(bounds, window) for bounds in above]
            for bottom in node.bottoms:
                bounds_of.setdefault(bottom, set()).update(needs)
        return frozenset(found)


def _best_start(above, starts):
    """The start of blocks with which the bounds that blocks above need lie nearest to blocks' ends."""

    def excess(start):
        return sum((a - start) % _BLOCK + (start - b) % _BLOCK for bounds in above for a, b in bounds)

    return min(starts, key=excess)


def _input_bounds(bounds, window):
    """The (first, end) of inputs along each axis, modulo 4, for those of outputs."""
    return tuple(
        ((a * s - p) % _BLOCK, ((b - 1) * s + e - p) % _BLOCK)
        for (a, b), s, p, e in zip(bounds, window.stride, window.pad, window.extent, strict=True)
    )
