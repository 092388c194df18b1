"""The loss of covariances and means: Gram's with its two parts compared on their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .moments import Moments, Slope, host_moments, split


class _Target(NamedTuple):
    """covariance: K, (C, C). mean: μ, (1, C, 1, 1). pull: the factor of the means' part."""

    covariance: Any
    mean: Any
    pull: float


class Covariance(Moments):
    """w · (mean((K − K_t)²) + p · mean((μ − μ_t)²)) with K = G − μμᵀ/C, the covariance over C.

    p = 2 mean(F_t²)/C² makes the means count about as much as they do within Gram's matrices, whatever the scale of
    the features. For features of mean 0 the loss is Gram's.
    """

    means = True

    def style_target(self, ops, statistic):
        gram, mean = host_moments(statistic)
        channels = len(mean)
        covariance = gram - np.outer(mean, mean) / channels
        pull = float(2 * gram.trace() / channels**2)
        return _Target(ops.asarray(covariance), ops.asarray(mean.reshape(1, -1, 1, 1)), pull)

    def compare(self, ops, total, target):
        gram, mean = split(ops, total)
        channels = gram.shape[0]
        difference = ops.add_scaled(gram, -1, ops.gram(mean, 1 / channels))
        difference = ops.add_scaled(difference, -1, target.covariance)
        shift = ops.difference(mean, target.mean)
        loss = ops.dot(difference, difference) / channels**2 + ops.dot(shift, shift) * (target.pull / channels)
        shift = ops.scale(shift, 2 * target.pull / channels)
        shift = ops.gram_backward(difference, mean, -4 / channels**3, out=shift)
        return self.weight * loss, Slope(difference, 4 / channels**2, shift)
