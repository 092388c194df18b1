"""The Gram matrix's loss for shifted features (Novak and Nikulin 2016, arXiv:1605.04603, section 3.4)."""

from __future__ import annotations

from typing import Any, NamedTuple

from .moments import Moments, Slope, host_moments, relative_to_gram, split


class _Target(NamedTuple):
    """gram: G, (C, C). mean: μ, (1, C, 1, 1). shift: s. scale: the factor of the loss."""

    gram: Any
    mean: Any
    shift: float
    scale: float


class Shifted(Moments):
    """w · c · mean((G' − G'_t)²) with G' = G + s/C · (μ1ᵀ + 1μᵀ) + s²/C, the Gram matrix of F + s.

    s is minus the mean of the style's features in the layer: it is −1, the paper's, in the network of the paper, which
    has filters of mean activation 1. c makes a map of zeros as bad as for Gram.
    """

    means = True

    def style_target(self, ops, statistic):
        gram, mean = host_moments(statistic)
        channels = len(mean)
        shift = float(-mean.mean())
        wanted = gram + shift / channels * (mean[:, None] + mean)
        scale = relative_to_gram(gram, (wanted**2).mean())
        return _Target(ops.asarray(gram), ops.asarray(mean.reshape(1, -1, 1, 1)), shift, scale)

    def compare(self, ops, total, target):
        gram, mean = split(ops, total)
        channels = gram.shape[0]
        difference = ops.add_scaled(gram, -1, target.gram)
        means = ops.scale(ops.difference(mean, target.mean), target.shift / channels)
        for shape in ((channels, 1), (1, channels)):
            difference = ops.affine(difference, None, means.reshape(shape), out=difference)
        sums = ops.sum_over(difference.reshape(1, channels, 1, channels), (1, channels, 1, 1))
        shift = ops.scale(sums, 4 * target.shift * target.scale / channels**3)
        loss = ops.dot(difference, difference) / channels**2
        return self.weight * target.scale * loss, Slope(difference, 4 * target.scale / channels**2, shift)
