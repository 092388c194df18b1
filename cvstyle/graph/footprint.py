"""Footprints: the part of the picture that each position of a feature map depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..errors import OptionError


@dataclass(frozen=True)
class Footprint:
    """The pixels along one axis of a picture on which the positions of a program's outputs depend.

    length: pixels of the axis. unit: the total stride, in pixels. per_unit: output → positions per unit. starts, stops:
    output → for each of its positions, the pixels [start, stop) that a window must hold; both ascend. largest: the
    output with the largest footprint, and that in pixels. owned: output → (first, end) of the positions that count.
    """

    length: int
    unit: int
    per_unit: Mapping[str, int]
    starts: Mapping[str, np.ndarray]
    stops: Mapping[str, np.ndarray]
    largest: tuple[str, int]
    owned: Mapping[str, tuple[int, int]]


def find_footprint(program, size: tuple[int, int], axis: int, channels: int = 3) -> Footprint:
    """The footprint of a program's outputs along an axis (0: vertical) of a picture of (height, width) `size`.

    A window that holds it, and starts and ends whole units from where the picture does, gives the position its exact
    value. Where layers compute in blocks, whole blocks are needed, so that the value has the picture's bits; and blocks
    that cannot be offset are whole units. Raises OptionError where a layer sees the whole picture or joins maps of
    different scales.
    """
    length = size[axis]
    shapes = program.all_shapes(size, channels)
    steps = program.steps_along(axis)
    program.shapes(size, channels)  # loads the weights
    blocks = program.alignment.blocks(size)
    fixed = {value: block.size for value, block in blocks.items() if not block.supports_offset}
    unit = math.lcm(*((step * fixed.get(value, 1)).numerator for value, step in steps.items()))
    starts = {}
    stops = {}
    for name, output in program.outputs.items():
        count = shapes[output][2 + axis]
        low = np.full(count, length)
        high = np.zeros(count, int)
        needs = {output: (np.arange(count), np.arange(1, count + 1))}
        for value, (first, end) in _walk_back(program, needs, shapes, axis, blocks):
            # The window's own map of this value must hold the positions, wherever its borders cut it.
            step = steps[value]
            rest = shapes[value][2 + axis] - end
            low = np.minimum(low, first * step.numerator // step.denominator)
            high = np.maximum(high, length - rest * step.numerator // step.denominator)
        starts[name] = np.clip(low, 0, length)
        stops[name] = np.clip(high, 0, length)
    widths = {name: int((stops[name] - starts[name]).max()) for name in starts}
    widest = max(widths, key=widths.get)
    per_unit = {name: int(unit / steps[output]) for name, output in program.outputs.items()}
    owned = {name: (0, len(start)) for name, start in starts.items()}
    return Footprint(length, unit, per_unit, starts, stops, (widest, widths[widest]), owned)


def find_sight(program, size: tuple[int, int], axis: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Output → for each of its positions along an axis, the pixels [first, end) that it sees (its receptive field).

    Joins with a value of the whole picture, such as a gate, count as the map alone; an output that depends on the whole
    picture in every way sees all pixels.
    """
    shapes = program.all_shapes(size, 3)
    sight = {}
    for name, output in program.outputs.items():
        count = shapes[output][2 + axis]
        needs = {output: (np.arange(count), np.arange(1, count + 1))}
        found = dict(_walk_back(program, needs, shapes, axis, {}, local=True))
        sight[name] = found.get(program.input, (np.zeros(count, int), np.full(count, size[axis])))
    return sight


def find_needs(program, spans: Mapping[int, tuple[int, int]], axis: int) -> dict[int, tuple[int, int]]:
    """The (first, end) of every value's positions along an axis on which some positions depend.

    spans: value → (first, end) of these. Of a picture without borders: positions may be below zero.
    """
    needs = {value: (np.array([first]), np.array([end])) for value, (first, end) in spans.items()}
    return {value: (int(low[0]), int(high[0])) for value, (low, high) in _walk_back(program, needs, None, axis, {})}


def find_steps(network, indices, source: int, axis: int, repeats: bool = False) -> dict[int, Fraction]:
    """Pixels from one position to the next along an axis, of every value that nodes compute from the value `source`.

    repeats: True for a picture that repeats, else for tiles. Raises OptionError as `find_footprint` does.
    """
    steps = {source: Fraction(1)}
    for index in indices:
        node = network.nodes[index]
        layer = network.layer(index)
        window = layer.window()
        below = {steps[b] for b in node.bottoms}
        if window is None or len(below) > 1:
            reason = "joins maps of different scales"
            if window is None:
                reason = "sees the whole picture or depends on the place in it"
            where = f"{network.definition.source}: layer '{layer.name}' ({node.definition.type})"
            consequence = (
                "so this network cannot be computed in tiles; use layers before it, or --tile-size off, and --split "
                "layers for several devices"
            )
            if repeats:
                consequence = "so this network's pictures cannot repeat (--wrap); use layers before it"
            raise OptionError(f"{where} {reason}, {consequence}")
        steps.update(dict.fromkeys(node.tops, below.pop() * window.stride[axis]))
    return steps


def _walk_back(program, needs, shapes, axis, blocks, local=False):
    """(value, (first, end)) for every value below: the positions of it on which those in `needs` depend.

    shapes: of the values; None: the picture has no borders. local: leave out dependence on the whole picture.
    """
    network = program.network
    for index in reversed(program.indices):
        node = network.nodes[index]
        tops = [needs[t] for t in node.tops if t in needs]
        if not tops:
            continue
        low, high = _union(tops)
        block = blocks.get(node.tops[0])
        if block is not None:
            count = shapes[node.tops[0]][2 + axis]
            start = block.starts[axis]
            low = np.maximum(0, (low - start) // block.size * block.size + start)
            high = np.minimum(count, -((start - high) // block.size) * block.size + start)
        layer = network.layer(index)
        window = layer.local_window() if local else layer.window()
        if window is None:
            continue
        stride = Fraction(window.stride[axis])
        pad = Fraction(window.pad[axis])
        low = _ceil(low, stride, pad)
        high = _ceil(high - 1, stride, pad) + window.extent[axis]
        for bottom in (b for b in node.bottoms if shapes is None or len(shapes[b]) == 4):
            part = low, high
            if shapes is not None:
                # A window wholly in the padding still depends on where the border is.
                count = shapes[bottom][2 + axis]
                part = np.clip(low, 0, count - 1), np.clip(high, 1, count)
            needs[bottom] = _union([part, needs[bottom]]) if bottom in needs else part
    yield from needs.items()


def _union(intervals):
    firsts, ends = zip(*intervals)
    return np.minimum.reduce(firsts), np.maximum.reduce(ends)


def _ceil(position, stride, pad):
    """⌈position · stride − pad⌉ for an array of positions, exactly."""
    numerator = position * (stride.numerator * pad.denominator) - pad.numerator * stride.denominator
    return -(-numerator // (stride.denominator * pad.denominator))
