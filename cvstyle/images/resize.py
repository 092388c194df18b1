"""Sizes and resampling of pictures."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ImageError


def target_size(height: int, width: int, longest: int, compat: bool = False) -> tuple[int, int]:
    """(height, width) with `longest` as the longer side and the same aspect ratio; at least 1 pixel.

    compat: round the other side down, as Torch's image.scale does, instead of to nearest.
    """
    factor = longest / max(height, width)
    rounding = math.floor if compat else round
    other = max(1, rounding(min(height, width) * factor + (1e-9 if compat else 0)))
    return (longest, other) if height >= width else (other, longest)


def padded_size(size: tuple[int, int], margins: tuple[int, int]) -> tuple[int, int]:
    """(height, width) with margins in pixels: above and below, and on the left and right."""
    return tuple(n + 2 * margin for n, margin in zip(size, margins))


def resize(pixels: np.ndarray, size: tuple[int, int], compat: bool = False) -> np.ndarray:
    """Resize (H, W, C) float32 to `size` (height, width): area averaging for reduction, bicubic for enlargement.

    compat: enlargement is bilinear with aligned corners, as in Torch's image.scale.
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
        low = float(pixels.min())
        high = float(pixels.max())
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC).clip(low, high)
    return resized


def _aligned_corners(count, source):
    """Source positions (float32) of `count` samples with aligned corners."""
    return np.linspace(0, source - 1, count, dtype=np.float32)
