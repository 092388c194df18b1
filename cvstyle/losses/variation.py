"""Total variation: w/2 · Σ of squared differences to the right and lower neighbour over the (H−1) × (W−1) block.

The gradient is that of neural_style.lua, which leaves the value out of its loss; here a line search needs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..fields import NONNEGATIVE, WEIGHTS, Settings, option
from .base import Loss, checked_weight

_PIXELS = 512 * 384


@dataclass(kw_only=True)
class Options(Settings):
    """None is that of the network."""

    tv_weight: float | None = option(
        None, "smoothness; default: that of the network", WEIGHTS, metavar="W",
        limits=NONNEGATIVE, identity=True,
    )  # fmt: skip


class TotalVariation(Loss):
    """Of the picture itself. neural_style.lua normalises no gradient of it."""

    normalized = False
    overlap = 1

    def balance(self, target, shape, normalized):
        """1 at the default size. The sum over a texture grows with the pixels, over a form that is drawn larger not at
        all; pictures are between these (docs/mathematics.md)."""
        return math.sqrt(_PIXELS / math.prod(shape[1:]))

    def gradient(self, view, aim):
        out = view.ops.zeros(view.x.shape)
        return out, 1, self.weight * view.ops.total_variation(view.x, 1, out)

    def add_gradient(self, view, aim, weight, out):
        return out, view.ops.total_variation(view.x, weight, out)


def made(tv_weight=1e-3) -> list[Loss]:
    """One loss, or none of weight 0."""
    weight = checked_weight(tv_weight, "tv_weight")
    return [TotalVariation("tv", None, weight)] if weight else []
