"""Picture files for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write(folder: Path, **sizes: tuple[int, int]) -> list[str]:
    """A smooth random picture of each (width, height), as folder/NAME.png; returns their paths."""
    rng, paths = np.random.default_rng(0), []
    for name, size in sizes.items():
        pixels = rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
        paths.append(str(folder / f"{name}.png"))
        Image.fromarray(pixels).resize(size, Image.BICUBIC).save(paths[-1])
    return paths
