"""Transparency: colours that nobody sees are no part of a picture.

Hidden colours (alpha 0) are replaced by a smooth continuation of the visible surroundings, as push-pull interpolation
makes it (Gortler et al. 1996, The Lumigraph, section 3.4): the picture is halved again and again, each time as an
average weighted by alpha, and gaps are filled from the next coarser level, by linear interpolation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import ImageError
from . import profiles
from .picture import Picture
from .resize import resize

_FAINT = 1 / 16  # alpha below which, relative to the largest, a colour also gives way to its surroundings
_HIDDEN = 1 / 1024  # weight of filled colours in a reduction, where nothing else is in a pixel


def filled(picture: Picture, role: str) -> Picture:
    """The picture with other colours where it is transparent, by its visible ones alone.

    role: the picture's name in the error. Raises ImageError where nothing is visible.
    """
    alpha = picture.alpha
    if is_opaque(alpha):
        return picture
    highest = alpha.max()
    if not highest > 0:
        raise ImageError(f"{role}: the picture is transparent everywhere; give one with something to see")
    weight = (alpha / highest)[..., None]
    rgb = np.where(weight > 0, picture.rgb, 0)
    result = _pulled_and_pushed(rgb, weight)
    _mix(result, rgb, weight, _FAINT)
    np.copyto(result, rgb, where=weight >= _FAINT)  # without rounding
    return replace(picture, rgb=result)


def resized(picture: Picture, size: tuple[int, int], compat: bool = False) -> Picture:
    """A filled picture at another size (height, width), whose colours count by their alpha in a reduction."""
    alpha = picture.alpha
    if alpha is not None:
        alpha = resize(alpha[..., None], size, compat)[..., 0]
    enlarges = any(new > old for new, old in zip(size, picture.size))
    if is_opaque(picture.alpha) or enlarges or size == picture.size:
        return replace(picture, rgb=resize(picture.rgb, size, compat), alpha=alpha)
    weight = picture.alpha[..., None] + np.float32(_HIDDEN)
    rgb = resize(picture.rgb * weight, size, compat) / resize(weight, size, compat)
    return replace(picture, rgb=rgb, alpha=alpha)


def composited(picture: Picture, background: tuple[int, int, int] = (255, 255, 255)) -> Picture:
    """The picture without alpha, as it looks on a background (sRGB, 0..255)."""
    if picture.alpha is None:
        return picture
    shown = profiles.from_srgb(picture.rgb, picture.icc).clip(0, 255)  # as a file would hold it
    rgb = profiles.to_srgb(shown, "RGB", picture.icc)[0]
    alpha = picture.alpha.clip(0, 1)[..., None]
    return replace(picture, rgb=alpha * rgb + (1 - alpha) * np.float32(background), alpha=None)


def is_opaque(alpha: np.ndarray | None) -> bool:
    """True without alpha, or where it is 1 everywhere."""
    return alpha is None or bool(alpha.min() >= 1)


def _pulled_and_pushed(rgb, weight):
    """(H, W, 3) that equals an average of rgb by weight (H, W, 1), the finer the nearer visible pixels are."""
    import cv2

    height, width = weight.shape[:2]
    if height == width == 1:
        return rgb
    half = ((height + 1) // 2, (width + 1) // 2)
    colour = resize(rgb * weight, half)
    mass = resize(weight, half)
    colour /= np.where(mass > 0, mass, 1)
    coarse = _pulled_and_pushed(colour, np.minimum(4 * mass, 1))  # a visible pixel of four is enough
    result = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    _mix(result, rgb, weight)
    return result


def _mix(result, rgb, weight, full=1.0):
    """Replace the result by rgb, in place, to the part weight / full."""
    for rows in profiles.strips(*weight.shape[:2]):
        result[rows] += (rgb[rows] - result[rows]) * np.minimum(weight[rows] / np.float32(full), 1)
