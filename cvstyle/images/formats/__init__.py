"""Decoders of picture files: each makes a `Source` of an open file."""

from __future__ import annotations

from ..kinds import HEAD, PNG, PNM, TIFF, refuse
from ..source import Source
from . import pillow, png, pnm, tiff


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
    if head.startswith(PNG):
        return png.source_of(file, name)
    if head.startswith(TIFF):
        return tiff.source_of(file, name)
    if head.startswith(PNM) and head[2:3].isspace():
        return pnm.source_of(file, name)
    return pillow.source_of(file, name, head)
