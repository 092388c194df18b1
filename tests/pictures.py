"""Picture files and random arrays for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_RNG = np.random.default_rng(0)


def noise(*shape: int, seed: int = 0, scale: float = 1, dtype=np.float32) -> np.ndarray:
    """Normal numbers of mean 0 and this standard deviation."""
    return np.random.default_rng(seed).normal(0, scale, shape).astype(dtype)


def random_pixels(height: int = 11, width: int = 17, channels: int = 3, dtype=np.uint8) -> np.ndarray:
    """Random pixels (height, width, channels) over all the numbers of an integer type, others at each call."""
    return _RNG.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype=dtype)


def write(folder: Path, **sizes: tuple[int, int]) -> list[str]:
    """A smooth random picture of each (width, height), as folder/NAME.png; returns their paths."""
    rng, paths = np.random.default_rng(0), []
    for name, size in sizes.items():
        pixels = rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
        paths.append(str(folder / f"{name}.png"))
        Image.fromarray(pixels).resize(size, Image.BICUBIC).save(paths[-1])
    return paths
