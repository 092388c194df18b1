"""A multilevel preconditioner for pictures, which lengthens steps along the long waves of a picture.

P = Σ_k w_k U^k (U^k)ᵀ/4^k, with U the bilinear doubling of a picture (Bramble, Pasciak and Xu 1990, "Parallel
multilevel preconditioners"). A wave much longer than 2^k pixels passes the terms up to k, so with w_0 = 1 and
w_k = 2^(ak) − 2^(a(k−1)) it grows 2^(ak) times, up to the last level. P is symmetric; an optimiser that minimises
over z with x = P z takes P g as the gradient and P s as the step.

A picture that repeats (`graph.periodic.Extension`) has waves that go on beyond its edges. There P is C P E: E adds
pixels from the opposite side, C cuts them off. Its transpose Eᵀ P Cᵀ is for the gradient; both are the same where the
coarsest level's step, 8 pixels, divides the size.
"""

from __future__ import annotations

LEVELS = 3
"""More levels gain nothing: see docs/performance.md."""

REACH = 3 << LEVELS
"""The pixels beyond an edge of a picture that repeats on which P depends."""

SCRATCH = 4 / 3
"""The memory of one application, in pictures: the array and its coarser levels."""


def gain(exponent: float) -> float:
    """The largest factor by which P lengthens an array."""
    return 2 ** (exponent * LEVELS)


def to_step(ops, s, exponent: float, x, extension=None) -> None:
    """x ← x + P s, arrays (1, 3, H, W); s may change. exponent: a. extension: by REACH; None: x does not repeat."""
    if extension is None:
        _apply(ops, s, exponent, onto=x)
    else:
        longer = _apply(ops, extension.apply(ops, s), exponent)
        ops.copy_block(s, (0, 0, 0, 0), longer, (0, 0, *extension.before), s.shape)
        ops.add_scaled(x, 1, s)


def to_gradient(ops, g, exponent: float, extension=None):
    """Pᵀ g, in place for a picture that does not repeat."""
    if extension is None:
        return _apply(ops, g, exponent)
    longer = ops.zeros((*g.shape[:2], *extension.extended))
    ops.copy_block(longer, (0, 0, *extension.before), g, (0, 0, 0, 0), g.shape)
    return extension.adjoint(ops, _apply(ops, longer, exponent))


def _apply(ops, x, exponent, onto=None):
    """x ← P x in place, or onto ← onto + P x; returns the array that changed."""
    side = min(x.shape[2:])
    levels = 0
    while levels < LEVELS and side > 1:
        side = -(-side // 2)
        levels += 1
    weights = [1.0, *(2 ** (exponent * level) - 2 ** (exponent * (level - 1)) for level in range(1, levels + 1))]
    return ops.add_halvings(x, weights, ops.halvings(x, levels), onto)
