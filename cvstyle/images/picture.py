"""A picture, its samples as files hold them, and its PNG."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

PROFILE = 34675  # the tag of TIFF for a colour profile


@dataclass(frozen=True, eq=False)
class Picture:
    """rgb: (H, W, 3) float32, 0..255; alpha: (H, W) float32, 0..1, or None; icc: colour profile, or None.

    Values of rgb may lie outside 0..255 until they are written. Two pictures are equal where they are the same object.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rgb.shape[:2]

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return png(self)


def from_samples(samples: np.ndarray, icc: bytes | None = None, whole: float | None = None) -> Picture:
    """A Picture of samples (H, W[, 1 to 4]): grey, grey and alpha, RGB, RGB and alpha. No array is shared.

    whole: the value of white, and of full opacity; None: the largest of an integer type, 1 of floats.
    Raises ValueError for NaN and infinity.
    """
    if whole is None:
        whole = np.iinfo(samples.dtype).max if samples.dtype.kind in "iu" else 1
    samples = np.atleast_3d(samples).astype(np.float32, copy=False)
    has_alpha = samples.shape[2] in (2, 4)
    colour, alpha = samples[..., :3], samples[..., -1] / np.float32(whole) if has_alpha else None
    if samples.shape[2] < 3:
        colour = np.repeat(samples[..., :1], 3, axis=2)
    rgb = np.ascontiguousarray(colour * np.float32(255 / whole))
    if not np.isfinite(rgb).all():
        raise ValueError("it has values that are NaN or infinite")
    return Picture(rgb, alpha, icc)


def to_samples(picture: Picture, bits: int = 8) -> np.ndarray:
    """(H, W, 3 or, with alpha, 4) uint8 or uint16: clipped to 0..255 and rounded."""
    layers = [picture.rgb.clip(0, 255) / 255]
    if picture.alpha is not None:
        layers.append(picture.alpha.clip(0, 1)[..., None])
    highest = (1 << bits) - 1
    return np.rint(np.concatenate(layers, axis=2) * highest).astype(np.uint16 if bits == 16 else np.uint8)


def png(picture: Picture, metadata: dict[str, str] | None = None, bits: int = 8) -> bytes:
    """The PNG file of a picture. metadata: texts by keyword; bits: 8 or 16. The same input gives the same bytes."""
    import cv2

    # OpenCV encodes 8 and 16 bits; the chunks that it has no words for are put in after the header.
    samples = to_samples(picture, bits)
    order = [2, 1, 0, 3][: samples.shape[2]]
    encoded = cv2.imencode(".png", samples[..., order])[1].tobytes()
    header = 8 + 12 + 13  # signature, and IHDR with its frame
    chunks = [encoded[:header]]
    if picture.icc:
        chunks.append(_chunk(b"iCCP", b"icc\0\0" + zlib.compress(picture.icc)))
    for key, value in (metadata or {}).items():
        # File names may hold bytes that are no text.
        text = value.encode("utf-8", "replace")
        chunks.append(_chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + text))
    return b"".join([*chunks, encoded[header:]])


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
