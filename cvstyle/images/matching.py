"""Recolouring: a picture with the mean and covariance of another one's colours.

A linear map of colours, x' = A (x − μ) + μ', before a style transfer (Gatys et al. 2017, arXiv:1611.07865, section 5,
and the authors' ColourControl notebook), or of the luminance alone (Gatys et al. 2016, arXiv:1606.05897). As in the
notebook, values are those of sRGB as encoded, not linear light, and covariances are regularised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from . import profiles
from .colour import LUMA
from .picture import Picture

METHODS = ("sym", "pca", "chol", "mean")
"""sym moves colours least of all maps between the covariances (the optimal transport of Gaussians)."""
_LEAST_VARIANCE = 1e-5 * 255**2  # added to covariances, as in the notebook: 0.8 levels
_LEAST_SHARE = 1e-12  # eigenvalues below this share of the largest are rounding


class Colours(NamedTuple):
    """The mean (3,) and covariance (3, 3) of colours, float64."""

    mean: np.ndarray
    covariance: np.ndarray


class ColourMap(NamedTuple):
    """x → matrix (3, 3) · (x − source) + target."""

    matrix: np.ndarray
    source: np.ndarray
    target: np.ndarray

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """The colours (..., 3), float64."""
        return (rgb - self.source) @ self.matrix.T + self.target


def colours(picture: Picture, mask: np.ndarray | None = None) -> Colours | None:
    """The colours of a picture by the weights of its pixels, alpha times mask (H, W); None where these are all zero."""
    total = 0.0
    mean = np.zeros(3)
    for rgb, weights in _strips(picture, mask):
        total += weights.sum()
        mean += weights @ rgb
    if not total > 0:
        return None
    mean /= total
    covariance = np.zeros((3, 3))
    for rgb, weights in _strips(picture, mask):
        rgb -= mean
        covariance += rgb.T @ (rgb * weights[:, None])
    return Colours(mean, covariance / total)


def colour_map(source: Colours, target: Colours, method: str) -> ColourMap:
    """The map from one picture's colours to another's. method: one of METHODS, or "luminance", which makes grey."""
    before, after = (each.covariance + _LEAST_VARIANCE * np.eye(3) for each in (source, target))
    if method == "luminance":
        gain = np.sqrt((LUMA @ after @ LUMA) / (LUMA @ before @ LUMA))
        matrix = gain * np.outer(np.ones(3), LUMA)
        return ColourMap(matrix, source.mean, np.full(3, LUMA @ target.mean))
    return ColourMap(_MATRICES[method](before, after), source.mean, target.mean)


def recoloured(
    picture: Picture, reference: Picture, method: str, parts: Sequence[tuple[np.ndarray | None, np.ndarray]] = ()
) -> Picture:
    """The picture with the colours of the reference, clipped to 0..255 or to the range of the reference, if wider.

    method: see `colour_map`. parts: (mask of the picture, mask of the reference) of each pair of parts, (H, W) of 0..1
    or, for the whole picture, None; each part takes the colours of its own, and maps are blended by the masks. What is
    in no part, or in one without a visible pixel, is mapped as a whole. Something of both pictures must be visible.
    """
    whole = colour_map(colours(picture), colours(reference), method)
    maps = []
    for mask, other in parts:
        source = colours(picture, mask)
        target = colours(reference, other)
        if source and target:
            mask = np.ones(picture.size, np.float32) if mask is None else mask
            maps.append((mask, colour_map(source, target, method)))
    low = min(0.0, float(reference.rgb.min()))
    high = max(255.0, float(reference.rgb.max()))
    rgb = np.empty_like(picture.rgb, np.float32)
    for rows in profiles.strips(*picture.size):
        rgb[rows] = _blended(picture.rgb[rows], whole, [(mask[rows], own) for mask, own in maps]).clip(low, high)
    return replace(picture, rgb=rgb)


def _blended(rgb, whole, maps):
    """Colours by the average of the maps by their masks, and where these are below 1 in sum, of `whole`."""
    if not maps:
        return whole(rgb)
    total = np.maximum(sum(mask for mask, _ in maps), 0)[..., None].astype(float)
    result = np.maximum(1 - total, 0) * whole(rgb)
    for mask, own in maps:
        result += mask[..., None] * own(rgb)
    return result / np.maximum(total, 1)


def _strips(picture, mask):
    """(colours (N, 3), weights (N,)) of strips of a picture, float64."""
    for rows in profiles.strips(*picture.size):
        rgb = picture.rgb[rows].reshape(-1, 3).astype(float)
        weights = np.ones(len(rgb))
        for factor in (picture.alpha, mask):
            weights *= 1 if factor is None else factor[rows].ravel()
        yield rgb, weights


def _power(matrix, exponent):
    """A power of a symmetric matrix of positive eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, _LEAST_SHARE * values[-1]) ** exponent) @ vectors.T


def _symmetric(before, after):
    """The symmetric map: S^−½ (S^½ T S^½)^½ S^−½ (Pitié and Kokaram 2007, for Gaussians)."""
    root = _power(before, 0.5)
    inverse = _power(before, -0.5)
    return inverse @ _power(root @ after @ root, 0.5) @ inverse


def _principal(before, after):
    """T^½ S^−½."""
    return _power(after, 0.5) @ _power(before, -0.5)


def _triangular(before, after):
    """L_T L_S⁻¹ of Cholesky factors."""
    return _factor(after) @ np.linalg.inv(_factor(before))


def _factor(matrix):
    """The Cholesky factor, by the QR decomposition of the root, which rounding cannot make fail."""
    lower = np.linalg.qr(_power(matrix, 0.5), mode="r").T
    return lower * np.sign(np.diag(lower))


def _by_channel(before, after):
    """The deviation of every channel by itself."""
    return np.diag(np.sqrt(np.diag(after) / np.diag(before)))


_MATRICES = dict(zip(METHODS, (_symmetric, _principal, _triangular, _by_channel)))
