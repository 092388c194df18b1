"""The picture of a file, before its samples are decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .metadata import Metadata

STRIP = 1 << 20  # samples of a strip, about

Strips = Callable[[int, int], tuple[tuple[float, float], Iterator[np.ndarray]]]


@dataclass
class Source:
    """A decoder's description of a picture, and the way to its samples.

    size: (height, width) as stored; `orientation` (EXIF's, 1 to 8) makes it upright. mode: of the colour channels, "L",
    "RGB", "CMYK" (ink) or "LAB". strips(height, width): for a picture needed at this size, its (height, width) in
    samples, a fraction where the last one is cut, and arrays (rows, width, channels) of the file's own type from the
    top, which hold all samples together. memory(height, width): for this size, the peak bytes of decoding before the
    first strip, and the bytes that are held while strips are taken.
    alpha: None, "straight" or "premultiplied", of the last channel. black, white: the samples of 0 and 255, one number
    or one for each colour channel. opaque: the sample of full opacity. bounded: samples beyond black and white are an
    error.
    """

    size: tuple[int, int]
    mode: str
    strips: Strips | None
    memory: Callable[[int, int], tuple[float, float]]
    alpha: str | None = None
    black: float | tuple[float, ...] = 0.0
    white: float | tuple[float, ...] = 255.0
    opaque: float = 255.0
    bounded: bool = False
    orientation: int = 1
    icc: bytes | None = field(default=None, repr=False)
    remarks: list[str] = field(default_factory=list)
    metadata: Metadata | None = None

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) with the orientation applied."""
        return self.turned(self.size)

    def map_strips(self, change: Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]], alpha: str | None) -> None:
        """Pass the strips through a function of their iterator, called after decoding. alpha: that of its result."""
        whole = self.strips

        def strips(*size):
            extent, parts = whole(*size)
            return extent, change(parts)

        self.strips = strips
        self.alpha = alpha

    def turned(self, size: tuple[int, int]) -> tuple[int, int]:
        """A size upright from one as stored, or back."""
        return (size[1], size[0]) if self.orientation in (5, 6, 7, 8) else size


def nothing(*_) -> tuple[float, float]:
    """The memory of a decoder that holds no more than a strip."""
    return 0.0, 0.0


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8); other values count as 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def rows_of(width: int) -> int:
    """The rows of a strip, whatever its channels, so that the same sums are made of the same picture in any format."""
    return max(1, STRIP // max(1, 4 * width))


def cut(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The strips of decoded pixels (H, W[, C])."""
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    rows = rows_of(pixels.shape[1])
    for top in range(0, len(pixels), rows):
        yield pixels[top : top + rows]
