"""The margin that a network needs, since its layers see pixels at the border of the picture less often."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Shares of a layer's interior influence that it must have at the border: the finest layer, which draws the detail
# there, and the layer in the middle between the finest and the coarsest. Chosen by eye (docs/mathematics.md).
_FINEST = 0.9
_MIDDLE = 0.5


def needed_margin(network, names: Sequence[str], size: tuple[int, int]) -> int:
    """The margin, in pixels, that a picture of `size` (height, width) needs for a finished border.

    The margin is wide enough for the named layers to influence border pixels almost as much as interior pixels (see
    `_influence`), rounded up to whole positions of the coarsest layer. 0 where one of the layers has no map.
    """
    fields = network.receptive_fields(local=True)
    values = [network.value(name) for name in names]
    if not values or any(value not in fields or fields[value].size is None for value in values):
        return 0
    values.sort(key=lambda value: (fields[value].step, fields[value].size))
    finest = values[0]
    middle = values[(len(values) - 1) // 2]
    strides = [math.ceil(max(fields[value].step[axis] for value in values)) for axis in (0, 1)]
    # A picture large enough to have an interior, with windows that end as in the true picture.
    shape = tuple(n + -(-3 * fields[middle].size[i] // strides[i]) * strides[i] for i, n in enumerate(size))
    shapes = network.shapes(shape, strict=False)
    margin = 0
    for axis, stride in enumerate(strides):
        for value, share in ((finest, _FINEST), (middle, _MIDDLE)):
            influence = _influence(network, value, shapes, axis)
            distance = _distance(influence, math.ceil(fields[value].step[axis]), stride, share)
            margin = max(margin, -(-2 * distance // stride) * stride // 2)
    return margin


def _distance(influence, step, stride, share):
    """The distance from either end at which the influence reaches a share of its value in the middle."""
    interior = influence[(len(influence) - stride) // 2 :][:stride].mean()
    # Averaged over a step, within which windows overlap unevenly.
    influence = np.convolve(influence, np.ones(step) / step, "valid")
    return int(np.argmax(np.minimum(influence, influence[::-1]) >= share * interior))


def _influence(network, value, shapes, axis):
    """The expected energy of a layer's gradient at the pixels along an axis, from the energy 1 at each position.

    A position passes its energy in equal parts to the positions in its window, as independent weights of mean 0 would,
    and in equal parts to the inputs of a join.
    """
    energy = {value: np.ones(shapes[value][2 + axis])}
    for index in reversed(range(len(network.nodes))):
        node = network.nodes[index]
        if energy.keys().isdisjoint(node.tops):
            continue
        window = network.layer(index).local_window()
        bottoms = [b for b in node.bottoms if len(shapes[b]) == 4]
        for top in energy.keys() & node.tops if window else ():
            extent = window.extent[axis]
            above = energy.pop(top)
            first = np.floor(np.arange(len(above)) * float(window.stride[axis]) - float(window.pad[axis])).astype(int)
            for bottom in bottoms:
                below = energy.setdefault(bottom, np.zeros(shapes[bottom][2 + axis]))
                for positions in (first + offset for offset in range(extent)):
                    inside = (positions >= 0) & (positions < len(below))
                    np.add.at(below, positions[inside], above[inside] / (len(bottoms) * extent))
    return next(pixels for i, pixels in energy.items() if i < len(network.input_names))
