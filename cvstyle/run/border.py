"""How wide a margin a network needs: its layers see less of the pixels at the border of the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# The share of its hold inside that the finest layer must have at the rim, since it draws the detail there, and the one
# in the middle between the finest and the coarsest. Chosen by pictures (docs/mathematics.md).
_FINEST, _MIDDLE = 0.9, 0.5


def needed_margin(network, names: Sequence[str], size: tuple[int, int]) -> int:
    """Pixels around a picture of this (height, width) without which its rim would be half made.

    As many as it takes until the layers of these names hold a pixel nearly as they do inside (see `_hold`), rounded up
    so that the coarsest has whole positions more. 0 where one of them has no map.
    """
    fields = network.receptive_fields(local=True)
    values = [network.value(name) for name in names]
    if not values or any(value not in fields or fields[value].size is None for value in values):
        return 0
    values.sort(key=lambda value: (fields[value].step, fields[value].size))
    finest, middle = values[0], values[(len(values) - 1) // 2]
    units = [math.ceil(max(fields[value].step[axis] for value in values)) for axis in (0, 1)]
    # A picture that is long enough to have an inside, and ends where windows do as they do in the true one.
    shape = tuple(n + -(-3 * fields[middle].size[i] // units[i]) * units[i] for i, n in enumerate(size))
    shapes = network.shapes(shape, strict=False)
    found = 0
    for axis, unit in enumerate(units):
        for value, share in ((finest, _FINEST), (middle, _MIDDLE)):
            distance = _distance(_hold(network, value, shapes, axis), math.ceil(fields[value].step[axis]), unit, share)
            found = max(found, -(-2 * distance // unit) * unit // 2)
    return found


def _distance(hold, step, unit, share):
    """The distance from either end from which on the hold is this share of that in the middle."""
    inside = hold[(len(hold) - unit) // 2 :][:unit].mean()
    # Over a step, within which some pixels are in more windows than others.
    hold = np.convolve(hold, np.ones(step) / step, "valid")
    return int(np.argmax(np.minimum(hold, hold[::-1]) >= share * inside))


def _hold(network, value, shapes, axis):
    """Of a layer's gradient, with the energy 1 at each position, what is to be expected at the pixels along an axis.

    A position's energy goes in equal parts to those that its window holds, as weights would take it there that are
    independent and of mean 0; and to a join's inputs in equal parts.
    """
    energy = {value: np.ones(shapes[value][2 + axis])}
    for index in reversed(range(len(network.nodes))):
        node = network.nodes[index]
        if energy.keys().isdisjoint(node.tops):
            continue
        window, bottoms = network.layer(index).window(), [b for b in node.bottoms if len(shapes[b]) == 4]
        for top in energy.keys() & node.tops if window else ():
            extent, part = window.extent[axis], energy.pop(top)
            first = np.floor(np.arange(len(part)) * float(window.stride[axis]) - float(window.pad[axis])).astype(int)
            for bottom in bottoms:
                below = energy.setdefault(bottom, np.zeros(shapes[bottom][2 + axis]))
                for at in (first + offset for offset in range(extent)):
                    inside = (at >= 0) & (at < len(below))
                    np.add.at(below, at[inside], part[inside] / (len(bottoms) * extent))
    return next(found for i, found in energy.items() if i < len(network.input_names))
