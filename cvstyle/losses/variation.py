"""Total variation: w/2 · Σ of squared differences to the right and lower neighbour over the (H−1) × (W−1) block.

The gradient is neural_style.lua's. The reference leaves the value out of its loss; a line search needs the value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..fields import NONNEGATIVE, WEIGHTS, Settings, option
from .base import Loss
from .layers import checked_weight
from .position_weights import Part, WeightedLoss

_DEFAULT_PIXELS = 512 * 384


@dataclass(kw_only=True)
class Options(Settings):
    """None means the network's default."""

    tv_weight: float | None = option(
        None, "smoothness; default: that of the network", WEIGHTS, metavar="W",
        limits=NONNEGATIVE, identity=True,
    )  # fmt: skip
    tv_per_pixel: bool = option(
        False, "divide total variation by the number of pixels, times that of 512×384, so that its share of the loss "
        "does not grow with the size", WEIGHTS, identity=True,
    )  # fmt: skip


class TotalVariation(WeightedLoss):
    """The total variation of the picture itself. neural_style.lua does not normalise its gradient.

    per_pixel: times 512·384 / (H·W). weights: factors (H, W) of the squares of each pixel and its two neighbours; None:
    1 everywhere.
    """

    normalized = False
    overlap = 1

    def __init__(self, name, layer, weight, per_pixel=False):
        super().__init__(name, layer, weight)
        self.per_pixel = per_pixel

    def balance(self, target, shape, normalized):
        """The factor, 1 at the default size. The sum over a texture grows with the number of pixels; the sum over an
        enlarged shape does not. Pictures lie between the two (docs/mathematics.md)."""
        return 1.0 if self.per_pixel else math.sqrt(_DEFAULT_PIXELS / math.prod(shape[1:]))

    def gradient(self, view, context):
        out = view.ops.zeros(view.x.shape)
        return out, 1, self.weight * self._add(view, 1, out)

    def add_gradient(self, view, context, weight, out):
        return out, self._add(view, weight, out)

    def _add(self, view, weight, out):
        """weight times the loss of weight 1; adds its gradient to out."""
        if self.per_pixel:
            weight = weight * (_DEFAULT_PIXELS / math.prod(view.whole[1:]))
        if self.weights is None:
            return view.ops.total_variation(view.x, weight, out)
        ops = view.ops
        first = Part((0, 0), tuple(n - 1 for n in view.x.shape[2:]))
        pixels = first.cut(view)
        squares = 0
        for start in ((0, 1), (1, 0)):
            neighbours = Part(start, first.shape)
            difference = ops.difference(pixels, neighbours.cut(view))
            product = self.weights.times(view, first, difference)
            squares = ops.dot(product, difference) + squares
            first.add(view, out, ops.scale(product, weight))
            neighbours.add(view, out, ops.scale(product, -1))
        return weight / 2 * squares


def create(tv_weight=1e-3, tv_per_pixel=False) -> list[Loss]:
    """One loss; none for weight 0."""
    weight = checked_weight(tv_weight, "tv_weight")
    return [TotalVariation("tv", None, weight, bool(tv_per_pixel))] if weight else []
