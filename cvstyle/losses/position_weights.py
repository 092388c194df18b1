"""Weights of the positions of a layer's map, by which losses see a part of it."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from .base import Loss


class Part(NamedTuple):
    """A rectangle of a view: the (row, column) at which it starts in the view, and its (height, width)."""

    start: tuple[int, int]
    shape: tuple[int, int]

    def cut(self, view) -> Any:
        """The view's values in the rectangle: a copy, or the view's own array where that is all of it."""
        if self.shape == tuple(view.x.shape[2:]):
            return view.x
        out = view.ops.empty((*view.x.shape[:2], *self.shape))
        view.ops.copy_block(out, (0, 0, 0, 0), view.x, (0, 0, *self.start), out.shape)
        return out

    def add(self, view, out: Any, values: Any) -> Any:
        """out + values at the rectangle, in place on out; None stands for zeros. values may be overwritten."""
        ops = view.ops
        if self.shape == tuple(view.x.shape[2:]):
            return values if out is None else ops.add_scaled(out, 1, values)
        out = ops.zeros(view.x.shape) if out is None else out
        block = ops.empty(values.shape)
        ops.copy_block(block, (0, 0, 0, 0), out, (0, 0, *self.start), block.shape)
        ops.copy_block(out, (0, 0, *self.start), ops.add_scaled(block, 1, values), (0, 0, 0, 0), block.shape)
        return out


class PositionWeights:
    """Non-negative weights (H, W) of a map's positions on the host, of which those outside a rectangle are zero.

    even: the weight of every position in the rectangle, where it is the same; else None.
    """

    def __init__(self, values):
        self.values = values
        self._spans = [_span(values.any(axis=axis)) for axis in (1, 0)]
        inside = values[tuple(slice(*span) for span in self._spans)]
        self.even = float(inside.flat[0]) if inside.size and inside.min() == inside.max() else None
        self._maps: dict[tuple, Any] = {}

    def part(self, view) -> Part | None:
        """The view's part with weights above zero; None where there is none."""
        starts = [max(a, first) - first for (a, _), first in zip(self._spans, view.start)]
        ends = [min(b - first, n) for (_, b), first, n in zip(self._spans, view.start, view.x.shape[2:])]
        shape = tuple(end - start for start, end in zip(starts, ends))
        return Part(tuple(starts), shape) if min(shape) > 0 else None

    def times(self, view, part: Part, x: Any, power: float = 1, out: Any = None) -> Any:
        """x, at a part of the view, times the weights to a power; into `out`, which may be x."""
        key = view.ops, power, view.start, part
        if key not in self._maps:  # made once per part
            first, second = (slice(a + b, a + b + n) for a, b, n in zip(view.start, part.start, part.shape))
            weights = self.values[first, second] ** power
            self._maps[key] = view.ops.asarray(weights).reshape(1, 1, *part.shape)
        return view.ops.multiply(x, self._maps[key], out=out)

    def __getstate__(self):
        return self.__dict__ | {"_maps": {}}  # arrays of a backend cannot leave their process


class WeightedLoss(Loss):
    """A loss that knows weights of positions: a host array (H, W) over the layer's map; None: equal ones."""

    def __init__(self, name, layer, weight, weights=None):
        super().__init__(name, layer, weight)
        self.weights = None if weights is None else PositionWeights(weights)

    def weighted(self, weights):
        loss = copy.copy(self)
        loss.weights = PositionWeights(weights)
        return loss


def _span(occupied):
    """(first, end) of the True among a host array of bools."""
    found = occupied.nonzero()[0]
    return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)
