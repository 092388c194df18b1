"""The loss of covariances and means: Gram's with its two parts compared on their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .moments import Moments, Slope, host_moments, relative_to_gram, split


class _Target(NamedTuple):
    """covariance: K, (C, C). mean: μ, (1, C, 1, 1). pull: the factor of the means' part. scale: of all."""

    covariance: Any
    mean: Any
    pull: float
    scale: float


class Covariance(Moments):
    """w · s · (mean((K − K_t)²) + p · mean((μ − μ_t)²)) with K = G − μμᵀ/C, the covariance over C.

    p = 2 mean(F_t²)/C² makes the means count about as much as they do within Gram's matrices, whatever the scale of
    the features; s makes a map of zeros as bad as for Gram. For targets of mean 0 both K and s are Gram's.
    """

    means = True

    def style_target(self, ops, statistic):
        gram, mean = host_moments(statistic)
        channels = len(mean)
        covariance = gram - np.outer(mean, mean) / channels
        pull = 2 * gram.trace() / channels**2
        scale = relative_to_gram(gram, (covariance**2).mean() + pull * (mean**2).mean())
        return _Target(ops.asarray(covariance), ops.asarray(mean.reshape(1, -1, 1, 1)), pull, scale)

    def compare(self, ops, total, target):
        gram, mean = split(ops, total)
        channels = gram.shape[0]
        difference = ops.add_scaled(gram, -1, ops.gram(mean, 1 / channels))
        difference = ops.add_scaled(difference, -1, target.covariance)
        shift = ops.difference(mean, target.mean)
        loss = ops.dot(difference, difference) / channels**2 + ops.dot(shift, shift) * (target.pull / channels)
        shift = ops.scale(shift, 2 * target.pull * target.scale / channels)
        shift = ops.gram_backward(difference, mean, -4 * target.scale / channels**3, out=shift)
        return self.weight * target.scale * loss, Slope(difference, 4 * target.scale / channels**2, shift)
