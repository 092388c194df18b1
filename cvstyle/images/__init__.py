"""Pictures: reading, orientation, colour, resizing, writing.

A picture is RGB, float32, (H, W, 3), 0..255, for every file format.
"""

from __future__ import annotations

from .accept import as_picture
from .alpha import composited, filled, is_opaque, resized
from .colour import deprocess, luminance, original_colors, preprocess
from .matching import METHODS, recoloured
from .metadata import Metadata
from .picture import Picture, png
from .read import read, reading_memory
from .resize import padded_size, resize, target_size
from .write import RESORTS, check_fits, check_writable, keeps_alpha, read_metadata, write

__all__ = [
    "METHODS",
    "RESORTS",
    "Metadata",
    "Picture",
    "as_picture",
    "check_fits",
    "check_writable",
    "composited",
    "deprocess",
    "filled",
    "is_opaque",
    "keeps_alpha",
    "luminance",
    "original_colors",
    "padded_size",
    "png",
    "preprocess",
    "read",
    "read_metadata",
    "reading_memory",
    "recoloured",
    "resize",
    "resized",
    "target_size",
    "write",
]  # fmt: skip
