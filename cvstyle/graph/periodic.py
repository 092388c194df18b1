"""Pictures that repeat along an axis, so that their opposite edges meet without a seam.

Layers know nothing of it. They see the picture extended by pixels from its opposite side, as many as keep the layers'
own borders (zeros, clipped windows) out of sight of every position of the picture proper; these positions have the
features of the infinite periodic picture, and only they count. The gradient for the extension's pixels is added to that
of the pixels they copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .footprint import find_needs
from .tiling import Rect, Tile, cut, paste, split

AXES = {"x": (1,), "y": (0,), "xy": (0, 1)}
"""The axes (0: vertical) of an array (H, W) along which a picture repeats."""


def repeats(wrap: str | None) -> tuple[bool, bool]:
    """For each axis of an array (H, W), True where a picture repeats. wrap: a key of AXES; None: not at all."""
    axes = AXES.get(wrap, ())
    return 0 in axes, 1 in axes


@dataclass(frozen=True)
class Extension:
    """The pixels added to a picture of (height, width) `size`: before its first row and column, and after its last.

    mirrored: they are of its mirror images (`of_host` alone), as for a picture that does not repeat.
    """

    size: tuple[int, int]
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    mirrored: bool = False

    @property
    def extended(self) -> tuple[int, int]:
        """(height, width) with the added pixels."""
        return tuple(map(sum, zip(self.before, self.size, self.after)))

    def apply(self, ops, x):
        """x (1, C, H, W) extended, a new array; x itself where nothing is added."""
        for axis in (0, 1):
            if self.before[axis] or self.after[axis]:
                shape = list(x.shape)
                shape[2 + axis] = self.extended[axis]
                out = ops.empty(tuple(shape))
                for to, start, length in self._copies(axis):
                    place, origin, block = _block(x.shape, axis, to, start, length)
                    ops.copy_block(out, place, x, origin, block)
                x = out
        return x

    def adjoint(self, ops, gradient):
        """The gradient for x (1, C, H, W), from that for `apply`'s result: every pixel's copies are added up."""
        for axis in (1, 0):
            if self.before[axis] or self.after[axis]:
                gradient = self._folded(ops, gradient, axis)
        return gradient

    def of_host(self, picture: np.ndarray) -> np.ndarray:
        """A host picture (C, H, W) extended."""
        for axis, (before, n, after) in enumerate(zip(self.before, self.size, self.after), 1):
            if before or after:
                places = np.arange(-before, n + after) % (2 * n if self.mirrored else n)
                picture = picture.take(np.minimum(places, 2 * n - 1 - places) if self.mirrored else places, axis)
        return picture

    def _copies(self, axis):
        """(first pixel along an axis of the extended picture, of the picture, number) of the runs that are copied."""
        before = self.before[axis]
        n = self.size[axis]
        done = 0
        while done < self.extended[axis]:
            start = (done - before) % n
            length = min(n - start, self.extended[axis] - done)
            yield done, start, length
            done += length

    def _folded(self, ops, gradient, axis):
        shape = list(gradient.shape)
        shape[2 + axis] = self.size[axis]
        out = ops.empty(tuple(shape))
        whole = next(copy for copy in self._copies(axis) if copy[2] == self.size[axis])
        for to, start, length in (whole, *(copy for copy in self._copies(axis) if copy != whole)):
            source, place, block = _block(shape, axis, to, start, length)
            if (to, start, length) == whole:
                ops.copy_block(out, place, gradient, source, block)
            else:
                part = cut(ops, gradient, Rect(source[2:], block[2:]))
                target = Rect(place[2:], block[2:])
                paste(ops, out, target, ops.add_scaled(cut(ops, out, target), 1, part))
        return out


@dataclass(frozen=True)
class Periodic:
    """A picture of a program, periodic along some axes or none.

    extension: the pixels that its layers see. positions: layer → for each axis the (first, end) of the extended
    picture's positions that are the picture's own; None without extension. shapes: layer → (1, C, h, w) of these.
    """

    extension: Extension
    positions: Mapping[str, tuple[tuple[int, int], tuple[int, int]]] | None
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def extended(self) -> tuple[int, int]:
        """(height, width) of the picture that layers see."""
        return self.extension.extended

    def tiles(self, program, tile_size: int | None, devices: int = 1) -> list[Tile]:
        """The tiles of the extended picture that own the picture's own positions (see `tiling.split`)."""
        return split(program, self.extended, tile_size, devices, self.positions)


def periodic(program, size: tuple[int, int], wrap: str | None, mirrored: bool = False) -> Periodic:
    """The picture of (height, width) `size`, periodic along the axes of `wrap` (a key of AXES; None: not at all).

    mirrored: it is continued by its mirror images (`Extension`). Where a layer's step does not divide the size, the
    last position of a row reaches beyond the picture's end into its beginning. Raises OptionError where a layer sees
    the whole picture or joins maps of different scales.
    """
    if wrap is None:
        return Periodic(Extension(size), None, program.shapes(size))
    both = [_along(program, size, axis) if on else None for axis, on in enumerate(repeats(wrap))]
    extension = Extension(size, *(tuple(e[i] if e else 0 for e in both) for i in (0, 1)), mirrored)
    shapes = program.shapes(extension.extended)
    positions = {}
    own = {}
    for name, shape in shapes.items():
        spans = tuple(e[2][name] if e else (0, n) for e, n in zip(both, shape[2:]))
        positions[name] = spans
        own[name] = (*shape[:2], *(end - first for first, end in spans))
    return Periodic(extension, positions, own)


def _along(program, size, axis):
    """(pixels before, pixels after, {layer: (first, end) of the picture's own positions}) along a periodic axis."""
    steps = program.steps_along(axis, repeats=True)
    unit = math.lcm(*(step.numerator for step in steps.values()))

    def whole_units(pixels):
        return max(0, math.ceil(pixels / unit)) * unit

    counts = {name: math.ceil(size[axis] / steps[output]) for name, output in program.outputs.items()}
    spans = {}
    for name, count in counts.items():  # a layer may have two names
        spans[program.outputs[name]] = 0, count
    needs = find_needs(program, spans, axis)
    before = whole_units(max(-low * steps[value] for value, (low, _) in needs.items()))
    after = whole_units(max(high * steps[value] for value, (_, high) in needs.items()) - size[axis])
    while True:  # until no layer's border is among what the positions depend on
        length = before + size[axis] + after
        shapes = program.all_shapes((length, length), 3)
        ends = {value: shapes[value][2 + axis] - before / steps[value] for value in needs}
        missing = max((high - ends[value]) * steps[value] for value, (_, high) in needs.items())
        if missing <= 0:
            break
        after += whole_units(missing)
    firsts = {name: int(before / steps[output]) for name, output in program.outputs.items()}
    return before, after, {name: (first, first + counts[name]) for name, first in firsts.items()}


def _block(shape, axis, to, start, length):
    """(start in the extended array, start in the array, shape) of a run along an axis of arrays (1, C, H, W)."""
    first = [0, 0, 0, 0]
    second = [0, 0, 0, 0]
    block = list(shape)
    first[2 + axis] = to
    second[2 + axis] = start
    block[2 + axis] = length
    return tuple(first), tuple(second), tuple(block)
