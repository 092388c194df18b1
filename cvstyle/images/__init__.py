"""Pictures: reading, orientation, colour, resizing, writing.

A picture is RGB, float32, (H, W, 3), 0..255, whatever its file holds.
"""

from __future__ import annotations

from .accept import as_picture
from .colour import deprocess, original_colors, preprocess
from .picture import Picture, png
from .read import read
from .resize import resize, target_size, widened
from .write import EXTENSIONS, check_writable, read_metadata, write

__all__ = [
    "EXTENSIONS", "Picture", "as_picture", "check_writable", "deprocess", "original_colors", "png",
    "preprocess", "read", "read_metadata", "resize", "target_size", "widened", "write",
]  # fmt: skip
