"""A picture, its integer samples, and its PNG encoding."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from ..errors import ImageError
from . import profiles
from .metadata import Metadata, exif
from .png import encode

PROFILE = 34675  # TIFF tag of the colour profile


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture. rgb: (H, W, 3) float32, sRGB in 0..255; alpha: (H, W) float32, 0..1, or None.

    icc: the colour profile of the picture's files, to which colours are converted on writing: of RGB, by a matrix and
    curves, as `read` gives it; None: sRGB. full_size: (height, width) in the file, if the picture was reduced on
    reading. remarks: sentences for the user about decisions made on reading. metadata: date, camera, copyright and the
    like, which files keep. Values of rgb outside 0..255, such as colours outside the gamut of sRGB, are clipped only in
    files. Comparison is by identity. Raises ImageError for another kind of profile.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = field(default=None, repr=False)
    full_size: tuple[int, int] | None = None
    remarks: tuple[str, ...] = ()
    metadata: Metadata | None = None

    def __post_init__(self):
        if self.icc is not None and not profiles.is_output(self.icc):
            raise ImageError(
                "the colour profile of a Picture must be one of RGB by a matrix and curves; leave it out for sRGB"
            )

    @property
    def proportions(self) -> tuple[int, int]:
        """The size to which sizes of a run are proportional: that of the file."""
        return self.full_size or self.size

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rgb.shape[:2]

    def _repr_png_(self) -> bytes:
        """The PNG that a notebook displays."""
        return png(self)


def strips(picture: Picture, bits: int = 8) -> Iterator[np.ndarray]:
    """Samples (rows, W, 3 or, with alpha, 4), uint8 or uint16, in the picture's profile, from top to bottom."""
    highest = np.float32((1 << bits) - 1)
    for part in profiles.strips(*picture.size):
        planes = [profiles.from_srgb(picture.rgb[part], picture.icc).clip(0, 255) / np.float32(255)]
        if picture.alpha is not None:
            planes.append(picture.alpha[part].clip(0, 1)[..., None])
        yield np.rint(np.concatenate(planes, axis=2) * highest).astype(np.uint16 if bits == 16 else np.uint8)


def to_samples(picture: Picture, bits: int = 8) -> np.ndarray:
    """All `strips` as one array (H, W, 3 or 4)."""
    channels = 3 if picture.alpha is None else 4
    samples = np.empty((*picture.size, channels), np.uint16 if bits == 16 else np.uint8)
    top = 0
    for strip in strips(picture, bits):
        samples[top : top + len(strip)] = strip
        top += len(strip)
    return samples


def png(picture: Picture, texts: dict[str, str] | None = None, bits: int = 8) -> bytes:
    """Encode a picture as PNG. texts: by keyword; bits: 8 or 16. The bytes are deterministic."""
    with io.BytesIO() as file:
        write_png(file, picture, texts or {}, bits)
        return file.getvalue()


def write_png(file: BinaryIO, picture: Picture, texts: dict[str, str], bits: int) -> None:
    """Write what `png` returns to a file."""
    chunks = []
    if picture.icc:
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(picture.icc)))
    if picture.metadata:
        if picture.metadata.dpi:
            per_metre = (round(dpi / 0.0254) for dpi in picture.metadata.dpi)
            chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
        chunks.append((b"eXIf", exif(picture.metadata)))
    for key, value in texts.items():
        # File names may contain bytes that are not valid text.
        chunks.append((b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + value.encode("utf-8", "replace")))
    encode(file, strips(picture, bits), (*picture.size, 3 if picture.alpha is None else 4), bits, chunks)
