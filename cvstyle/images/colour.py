"""Conversion between pictures and network inputs, and transfer of the content's colours to the result."""

from __future__ import annotations

import numpy as np

from ..netdef import IMAGENET, Convention


def preprocess(rgb: np.ndarray, pixel_range: float = 255.0, convention: Convention = IMAGENET) -> np.ndarray:
    """(H, W, 3) RGB 0..255 → (3, H, W) float32, contiguous: channels in the convention's order, minus its mean.

    pixel_range: the value of white, 255, or 256 as in neural_style.lua.
    """
    planes = _reorder(rgb, convention).transpose(2, 0, 1) * np.float32(pixel_range / 255)
    return np.ascontiguousarray(planes - np.float32(convention.mean)[:, None, None], np.float32)


def deprocess(x: np.ndarray, pixel_range: float = 255.0, convention: Convention = IMAGENET) -> np.ndarray:
    """The inverse of `preprocess`; values outside 0..255 are clipped only when the picture is written."""
    planes = (x + np.float32(convention.mean)[:, None, None]) * np.float32(255 / pixel_range)
    return np.ascontiguousarray(_reorder(planes.transpose(1, 2, 0), convention), np.float32)


def _reorder(pixels, convention):
    """(H, W, 3) from RGB to the convention's order, or back."""
    return pixels[..., ::-1] if convention.channels == "bgr" else pixels


LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G and B in the luminance of encoded values (ITU-R BT.601)."""
# RGB to Y, U, V: luma with the U and V of analogue PAL, the matrix of Torch's image.rgb2yuv.
_YUV = np.array([LUMA, [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]], np.float32)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB as a grey picture of the same luminance."""
    return np.repeat((rgb @ np.float32(LUMA))[..., None], 3, axis=2)


def original_colors(content: np.ndarray, result: np.ndarray) -> np.ndarray:
    """The brightness (Y) of the result with the colours (U, V) of the content; both (H, W, 3) RGB 0..255."""
    yuv = content @ _YUV.T
    yuv[..., 0] = result.clip(0, 255) @ _YUV[0]
    return (yuv @ np.linalg.inv(_YUV).T).astype(np.float32)
