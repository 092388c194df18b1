"""Sizes, and pictures made larger or smaller."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ImageError


def target_size(height: int, width: int, longest: int, compat: bool = False) -> tuple[int, int]:
    """(height, width) with `longest` as the longer side and the proportions kept; at least 1 pixel.

    compat: the other side is rounded down, as by Torch's image.scale; else to the nearest.
    """
    factor = longest / max(height, width)
    around = math.floor if compat else round
    other = max(1, around(min(height, width) * factor + (1e-9 if compat else 0)))
    return (longest, other) if height >= width else (other, longest)


def widened(size: tuple[int, int], margin: int) -> tuple[int, int]:
    """(height, width) with a margin of so many pixels on every side."""
    return tuple(n + 2 * margin for n in size)


def resize(pixels: np.ndarray, size: tuple[int, int], compat: bool = False) -> np.ndarray:
    """(H, W, C) float32 resized to `size` (height, width): an area average when shrinking, bicubic when enlarging.

    compat: enlarging is bilinear with the corner pixels kept in the corners, as Torch's image.scale does it.
    """
    import cv2

    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    try:
        return _resized(pixels, height, width, compat).reshape(height, width, -1)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"for a picture of {width}×{height}") from None
        source = f"{pixels.shape[1]}×{pixels.shape[0]}"
        raise ImageError(f"a picture of {source} cannot be resized to {width}×{height}: {error.err}") from None


def _resized(pixels, height, width, compat):
    import cv2

    if height <= pixels.shape[0] and width <= pixels.shape[1]:
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    elif compat:
        rows, columns = map(_aligned_corners, (height, width), pixels.shape[:2])
        grid = np.meshgrid(columns, rows)
        resized = cv2.remap(pixels, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    else:
        low, high = float(pixels.min()), float(pixels.max())
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC).clip(low, high)
    return resized


def _aligned_corners(count, source):
    """Source positions (float32) of `count` samples whose first and last are the source's first and last."""
    return np.linspace(0, source - 1, count, dtype=np.float32)
