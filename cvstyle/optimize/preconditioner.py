"""A multilevel preconditioner for pictures, which lengthens steps along the long waves of a picture.

P = Σ_k w_k U^k (U^k)ᵀ/4^k, with U the bilinear doubling of a picture (Bramble, Pasciak and Xu 1990, "Parallel
multilevel preconditioners"). A wave much longer than 2^k pixels passes the terms up to k, so with w_0 = 1 and
w_k = 2^(ak) − 2^(a(k−1)) it grows 2^(ak) times, up to the last level. P is symmetric; an optimiser that minimises
over z with x = P z takes P g as the gradient and P s as the step.
"""

from __future__ import annotations

LEVELS = 3
"""More levels gain nothing: see docs/performance.md."""

SCRATCH = 4 / 3
"""The memory of one application, in pictures: the array and its coarser levels."""


def gain(exponent: float) -> float:
    """The largest factor by which P lengthens an array."""
    return 2 ** (exponent * LEVELS)


def apply(ops, x, exponent: float, onto=None):
    """x (1, 3, H, W) ← P x, in place, or onto ← onto + P x; returns the array that changed. exponent: a."""
    side = min(x.shape[2:])
    levels = 0
    while levels < LEVELS and side > 1:
        side = -(-side // 2)
        levels += 1
    weights = [1.0, *(2 ** (exponent * level) - 2 ** (exponent * (level - 1)) for level in range(1, levels + 1))]
    return ops.add_halvings(x, weights, ops.halvings(x, levels), onto)
