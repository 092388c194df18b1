"""The squared Wasserstein distance of two normal distributions of features (Olkin and Pukelsheim 1982)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .moments import Moments, Slope, host_moments, relative_to_gram

_FLOOR = 1e-4  # of the features' mean square: less than the rounding of float32 moments makes of 512 channels


class _Target(NamedTuple):
    """Host arrays in float64: μ_t, and the root of Σ_t + δ. spread: the trace of the latter. floor: δ. scale: s."""

    mean: np.ndarray
    root: np.ndarray
    spread: float
    floor: float
    scale: float


class Wasserstein(Moments):
    """w · s · (mean((μ − μ_t)²) + tr(Σ + Σ_t − 2 (Σ_t^½ Σ Σ_t^½)^½)/C), both covariances with δ on the diagonal.

    With T = Σ_t^½ (Σ_t^½ Σ Σ_t^½)^−½ Σ_t^½, the linear map that carries the one distribution into the other, the
    gradients are (I − T)/C for Σ and 2(μ − μ_t)/C for μ. δ, 10⁻⁴ of the mean square of the style's features, keeps T
    finite where a map has dead channels, or fewer positions than channels. s makes a map of zeros as bad as for Gram.
    Eigenvectors are computed on the host.
    """

    means = decides_on_host = True

    def style_target(self, ops, statistic):
        gram, mean = host_moments(statistic)
        floor = _FLOOR * gram.trace() or _FLOOR
        values, vectors = np.linalg.eigh(_covariance(gram, mean))
        values = np.maximum(values, 0) + floor
        root = (vectors * np.sqrt(values)) @ vectors.T
        of_zeros = (mean**2).mean() + ((np.sqrt(values) - np.sqrt(floor)) ** 2).mean()
        return _Target(mean, root, float(values.sum()), float(floor), relative_to_gram(gram, of_zeros))

    def compare(self, ops, total, target):
        gram, mean = host_moments(ops.to_host(total))
        channels = len(mean)
        covariance = _covariance(gram, mean)
        covariance.flat[:: channels + 1] += target.floor
        product = target.root @ covariance @ target.root
        values, vectors = np.linalg.eigh((product + product.T) / 2)
        roots = np.sqrt(np.maximum(values, target.floor**2))  # rounding alone makes smaller ones
        half = target.root @ (vectors / np.sqrt(roots))
        carried = half @ half.T
        distance = covariance.trace() + target.spread - 2 * roots.sum()
        loss = (((mean - target.mean) ** 2).sum() + distance) / channels
        shift = 2 * target.scale / channels * (carried @ mean - target.mean)
        matrix = ops.asarray(np.eye(channels) - carried)
        shift = ops.asarray(shift.reshape(1, -1, 1, 1))
        return self.weight * target.scale * float(loss), Slope(matrix, 2 * target.scale, shift)


def _covariance(gram, mean):
    return len(mean) * gram - np.outer(mean, mean)
