"""Decoders of picture files: each makes a `Source` of an open file."""

from __future__ import annotations

import os

from ...errors import ImageError
from ..kinds import HEAD, PNG, PNM, TIFF, refuse
from ..source import Source
from . import pillow, png, pnm, tiff

_LARGE = 100_000_000  # pixels
_MOST_PIXELS_OF_A_BYTE = 10_000  # in a large picture; a blank page of one bit has fewer in PNG


def source_of(file, name: str) -> Source:
    """The picture of an open, seekable binary file. name: in messages.

    Raises ImageError for files that are no pictures, or of a kind that cannot be read, and errors of many other classes
    for damaged ones.
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the limit is memory
    head = file.read(HEAD)
    file.seek(0)
    refuse(name, head)
    source = _decoder(head)(file, name)
    height, width = source.size
    position = file.tell()
    length = file.seek(0, os.SEEK_END)
    file.seek(position)
    if height * width > max(_LARGE, _MOST_PIXELS_OF_A_BYTE * length):
        raise ImageError(
            f"{name}: it states {height * width / 1e6:.0f} megapixels in {length} bytes, as files do that are made to "
            "fill the memory; save it again, smaller"
        )
    return source


def _decoder(head):
    if head.startswith(PNG):
        return png.source_of
    if head.startswith(TIFF):
        return tiff.source_of
    if head.startswith(PNM) and head[2:3].isspace():
        return pnm.source_of
    return pillow.source_of
