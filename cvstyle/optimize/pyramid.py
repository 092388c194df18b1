"""A preconditioner for pictures: steps that are longer in the picture's long waves.

P = Σ_k w_k U^k (U^k)ᵀ/4^k, with U the bilinear doubling of a picture (Bramble, Pasciak and Xu 1990, "Parallel
multilevel preconditioners"). A wave much longer than 2^k pixels passes the terms up to k, so with w_0 = 1 and
w_k = 2^(ak) − 2^(a(k−1)) it comes out 2^(ak) times as large, up to the last level. P is symmetric; an optimiser that
minimises over z with x = P z takes P g for the gradient, and P s for the step s that it finds.
"""

from __future__ import annotations

LEVELS = 3
"""More are worth nothing: see docs/performance.md."""

PICTURES = 4 / 3
"""The memory of a step to smooth and its coarser levels, in pictures."""


def gain(exponent: float) -> float:
    """The most by which P lengthens an array."""
    return 2 ** (exponent * LEVELS)


def apply(ops, x, exponent: float):
    """x (1, 3, H, W) ← P x, in place; exponent: a."""
    return _apply(ops, x, exponent, 0)


def _apply(ops, x, exponent, level):
    weight = 2 ** (exponent * level) - 2 ** (exponent * (level - 1)) if level else 1.0
    if level == LEVELS or min(x.shape[2:]) == 1:
        return ops.scale(x, weight)
    return ops.add_doubled(x, weight, _apply(ops, ops.halve(x), exponent, level + 1))
