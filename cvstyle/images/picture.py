"""A picture, its integer samples, and its PNG encoding."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

from ..errors import ImageError
from . import profiles

PROFILE = 34675  # TIFF tag of the colour profile


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture. rgb: (H, W, 3) float32, sRGB in 0..255; alpha: (H, W) float32, 0..1, or None.

    icc: the colour profile of the picture's files, to which colours are converted on writing: of RGB, by a matrix and
    curves, as `read` gives it; None: sRGB. full_size: (height, width) in the file, if the picture was reduced on
    reading. remarks: sentences for the user about decisions made on reading. Values of rgb outside 0..255, such as
    colours outside the gamut of sRGB, are clipped only in files. Comparison is by identity. Raises ImageError for
    another kind of profile.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = field(default=None, repr=False)
    full_size: tuple[int, int] | None = None
    remarks: tuple[str, ...] = ()

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


def from_samples(samples: np.ndarray, icc: bytes | None = None, max_value: float | None = None) -> Picture:
    """A Picture of samples (H, W[, 1 to 4]): grey, grey and alpha, RGB, RGB and alpha. No memory is shared.

    max_value: the value of white and of full opacity; None: the maximum of an integer type, 1 for floats.
    Raises ValueError for NaN and infinity.
    """
    if max_value is None:
        max_value = np.iinfo(samples.dtype).max if samples.dtype.kind in "iu" else 1
    samples = np.atleast_3d(samples).astype(np.float32, copy=False)
    has_alpha = samples.shape[2] in (2, 4)
    colour = samples[..., :3]
    alpha = samples[..., -1] / np.float32(max_value) if has_alpha else None
    if samples.shape[2] < 3:
        colour = np.repeat(samples[..., :1], 3, axis=2)
    rgb = np.ascontiguousarray(colour * np.float32(255 / max_value))
    if not np.isfinite(rgb).all():
        raise ValueError("it has values that are NaN or infinite")
    return Picture(rgb, alpha, icc)


def to_samples(picture: Picture, bits: int = 8) -> np.ndarray:
    """(H, W, 3 or, with alpha, 4) uint8 or uint16, in the picture's profile, clipped and rounded."""
    highest = (1 << bits) - 1
    channels = 3 if picture.alpha is None else 4
    samples = np.empty((*picture.size, channels), np.uint16 if bits == 16 else np.uint8)
    for rows in profiles.strips(*picture.size):
        rgb = profiles.from_srgb(picture.rgb[rows], picture.icc)
        samples[rows, :, :3] = np.rint(rgb.clip(0, 255) / 255 * highest)
        if picture.alpha is not None:
            samples[rows, :, 3] = np.rint(picture.alpha[rows].clip(0, 1) * highest)
    return samples


def png(picture: Picture, metadata: dict[str, str] | None = None, bits: int = 8) -> bytes:
    """Encode a picture as PNG. metadata: texts by keyword; bits: 8 or 16. The bytes are deterministic."""
    import cv2

    # OpenCV encodes 8 and 16 bits; chunks that it does not support are inserted after the header.
    samples = to_samples(picture, bits)
    order = [2, 1, 0, 3][: samples.shape[2]]
    encoded = cv2.imencode(".png", samples[..., order])[1].tobytes()
    header = 8 + 12 + 13  # signature, and IHDR with its frame
    chunks = [encoded[:header]]
    if picture.icc:
        chunks.append(_chunk(b"iCCP", b"icc\0\0" + zlib.compress(picture.icc)))
    for key, value in (metadata or {}).items():
        # File names may contain bytes that are not valid text.
        text = value.encode("utf-8", "replace")
        chunks.append(_chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + text))
    return b"".join([*chunks, encoded[header:]])


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
