"""Colour: the arrays that a network takes, and the content's colours under the result's brightness."""

from __future__ import annotations

import numpy as np

MEAN_BGR = (103.939, 116.779, 123.68)  # ImageNet's, which the Caffe models were trained with


def preprocess(rgb: np.ndarray, scale: float = 255.0, mean=MEAN_BGR) -> np.ndarray:
    """(H, W, 3) RGB 0..255 → (3, H, W) BGR in 0..scale minus the mean, float32, contiguous.

    scale is 255, or 256 for the numbers of neural_style.lua.
    """
    bgr = rgb[..., ::-1].transpose(2, 0, 1) * np.float32(scale / 255)
    return np.ascontiguousarray(bgr - np.float32(mean)[:, None, None], np.float32)


def deprocess(x: np.ndarray, scale: float = 255.0, mean=MEAN_BGR) -> np.ndarray:
    """The inverse of `preprocess`; values may lie outside 0..255 until the picture is written."""
    bgr = (x + np.float32(mean)[:, None, None]) * np.float32(255 / scale)
    return np.ascontiguousarray(bgr.transpose(1, 2, 0)[..., ::-1], np.float32)


# RGB to Y, U, V: ITU-R BT.601 luma with the U and V of analogue PAL, the matrix of Torch's image.rgb2yuv.
_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]], np.float32
)  # fmt: skip


def original_colors(content: np.ndarray, result: np.ndarray) -> np.ndarray:
    """The brightness (Y) of the result with the colours (U, V) of the content; both (H, W, 3) RGB 0..255."""
    yuv = content @ _YUV.T
    yuv[..., 0] = result.clip(0, 255) @ _YUV[0]
    return (yuv @ np.linalg.inv(_YUV).T).astype(np.float32)
