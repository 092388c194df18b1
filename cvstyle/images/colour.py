"""Colour: the arrays that a network takes, and the content's colours under the result's brightness."""

from __future__ import annotations

import numpy as np

from ..netdef import IMAGENET, Convention


def preprocess(rgb: np.ndarray, scale: float = 255.0, convention: Convention = IMAGENET) -> np.ndarray:
    """(H, W, 3) RGB 0..255 → (3, H, W), float32, contiguous: the convention's channels in 0..scale less its mean.

    scale is 255, or 256 for the numbers of neural_style.lua.
    """
    planes = _ordered(rgb, convention).transpose(2, 0, 1) * np.float32(scale / 255)
    return np.ascontiguousarray(planes - np.float32(convention.mean)[:, None, None], np.float32)


def deprocess(x: np.ndarray, scale: float = 255.0, convention: Convention = IMAGENET) -> np.ndarray:
    """The inverse of `preprocess`; values may lie outside 0..255 until the picture is written."""
    planes = (x + np.float32(convention.mean)[:, None, None]) * np.float32(255 / scale)
    return np.ascontiguousarray(_ordered(planes.transpose(1, 2, 0), convention), np.float32)


def _ordered(pixels, convention):
    """(H, W, 3) from RGB to the convention's order, or back."""
    return pixels[..., ::-1] if convention.channels == "bgr" else pixels


# RGB to Y, U, V: ITU-R BT.601 luma with the U and V of analogue PAL, the matrix of Torch's image.rgb2yuv.
_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]], np.float32
)  # fmt: skip


def original_colors(content: np.ndarray, result: np.ndarray) -> np.ndarray:
    """The brightness (Y) of the result with the colours (U, V) of the content; both (H, W, 3) RGB 0..255."""
    yuv = content @ _YUV.T
    yuv[..., 0] = result.clip(0, 255) @ _YUV[0]
    return (yuv @ np.linalg.inv(_YUV).T).astype(np.float32)
