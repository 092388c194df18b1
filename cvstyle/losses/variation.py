"""Total variation: w/2 · Σ of squared differences to the right and lower neighbour over the (H−1) × (W−1) block.

The gradient is neural_style.lua's. The reference leaves the value out of its loss; a line search needs the value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..fields import NONNEGATIVE, WEIGHTS, Settings, option
from .base import Loss
from .layers import checked_weight

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


class TotalVariation(Loss):
    """The total variation of the picture itself. neural_style.lua does not normalise its gradient.

    per_pixel: times 512·384 / (H·W).
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
        return out, 1, self.weight * view.ops.total_variation(view.x, self._factor(view), out)

    def add_gradient(self, view, context, weight, out):
        return out, view.ops.total_variation(view.x, weight * self._factor(view), out)

    def _factor(self, view):
        return _DEFAULT_PIXELS / math.prod(view.whole[1:]) if self.per_pixel else 1


def create(tv_weight=1e-3, tv_per_pixel=False) -> list[Loss]:
    """One loss; none for weight 0."""
    weight = checked_weight(tv_weight, "tv_weight")
    return [TotalVariation("tv", None, weight, bool(tv_per_pixel))] if weight else []
