"""Colours of files as sRGB."""

from __future__ import annotations

import numpy as np


def of_image(image) -> bytes | None:
    """The colour profile of a Pillow image, or None."""
    return image.info.get("icc_profile")


def to_srgb(pixels: np.ndarray, mode: str, icc: bytes | None) -> tuple[np.ndarray, bytes | None, str]:
    """(pixels in sRGB, the profile to write with them, a remark or "").

    pixels: (H, W, C) float32, 0..255 per channel (CMYK: ink), or L, a and b in their own units. mode: "RGB", "L",
    "CMYK" or "LAB".
    """
    if mode == "L":
        return np.repeat(pixels, 3, axis=2), icc, ""
    if mode == "CMYK":
        return (255 - pixels[..., :3]) * (1 - pixels[..., 3:] / 255), None, ""
    if mode == "LAB":
        import cv2

        return np.ascontiguousarray(cv2.cvtColor(pixels, cv2.COLOR_LAB2RGB) * np.float32(255)), None, ""
    return pixels, icc, ""
