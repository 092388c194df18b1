"""Pictures into files."""

from __future__ import annotations

import json
import os
import tempfile

import numpy as np

from ..errors import ImageError, nearest
from ..paths import atomic_write
from .picture import PROFILE, Picture, png, to_samples

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
_DEEP = (".png", ".tif", ".tiff")  # can hold 16 bits per channel
_JPEG_QUALITY = 95
_JPEG_LONGEST, _WEBP_LONGEST = 65535, 16383
_DESCRIPTION = 270  # the tag of TIFF and EXIF for a text


def check_writable(path: str | os.PathLike, bits: int = 8, longest: int = 1) -> None:
    """Raises ImageError where `write` would fail for a reason that can be known before. Changes no file.

    longest: the longer side of the picture, in pixels.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise ImageError(f"{path}: this is a folder; name a file in it")
    extension = os.path.splitext(path)[1].lower()
    if extension not in EXTENSIONS:
        raise ImageError(f"{path}: cannot write '{extension}' files; {nearest(extension, EXTENSIONS)}")
    if bits == 16 and extension not in _DEEP:
        raise ImageError(f"{path}: {extension} has no 16 bits per channel; use .png or .tiff")
    limit = {".webp": _WEBP_LONGEST, ".jpg": _JPEG_LONGEST, ".jpeg": _JPEG_LONGEST}.get(extension, longest)
    if longest > limit:
        raise ImageError(f"{path}: {extension} pictures are at most {limit} pixels wide and high; use .png or .tiff")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise ImageError(f"{path}: there is no folder '{folder}'; create it first")
    try:
        # A file is tried, since permission bits say nothing to root or on a read-only file system.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ImageError(f"{path}: the folder '{folder}' cannot be written to: {error.strerror}") from None


def write(
    path: str | os.PathLike,
    rgb: np.ndarray,
    alpha: np.ndarray | None = None,
    icc: bytes | None = None,
    metadata: dict[str, str] | None = None,
    bits: int = 8,
) -> None:
    """Write a picture, in the form that the extension names. The file appears whole or not at all.

    rgb: (H, W, 3), clipped to 0..255 and rounded; alpha: (H, W) 0..1, dropped by JPEG; metadata: texts that
    `read_metadata` returns; bits: 8 or, for PNG and TIFF, 16. The same input gives the same bytes.
    """
    path = os.fspath(path)
    check_writable(path, bits, max(rgb.shape[:2]))
    extension = os.path.splitext(path)[1].lower()
    writer = _WRITERS.get(extension, _write_jpeg)
    picture = Picture(rgb, None if writer is _write_jpeg else alpha, icc)
    try:
        with atomic_write(path, f".{os.path.basename(path)}.", extension) as file:
            writer(file, picture, metadata or {}, bits)
            os.chmod(file.name, 0o666 & ~_umask())  # a temporary file lets nobody else read
    except OSError as error:
        raise ImageError(f"{path}: it could not be written: {error.strerror or error}") from None


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The texts that `write` stored in a picture; {} if there are none."""
    from PIL import Image

    with Image.open(path) as image:
        if image.format == "PNG":
            return dict(image.text)
        if image.format == "JPEG":
            text = image.info.get("comment", b"")
        else:  # TIFF has the tag itself, WebP within EXIF
            tags = image.tag_v2 if image.format == "TIFF" else image.getexif()
            text = tags.get(_DESCRIPTION, "")
    try:
        stored = json.loads(text.encode("latin-1", "replace") if isinstance(text, str) else text)
    except ValueError:
        return {}
    return stored if isinstance(stored, dict) else {}


def _text(metadata):
    """All texts as a single ASCII text, for formats with a single text field."""
    return json.dumps(metadata, ensure_ascii=True)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_png(file, picture, metadata, bits):
    file.write(png(picture, metadata, bits))


def _write_jpeg(file, picture, metadata, bits):
    from PIL import Image

    Image.fromarray(to_samples(picture, bits)).save(
        file, "JPEG", quality=_JPEG_QUALITY, subsampling=0, icc_profile=picture.icc, comment=_text(metadata).encode()
    )


def _write_webp(file, picture, metadata, bits):
    """Lossless: lossy WebP always halves the resolution of colour."""
    from PIL import Image

    image = Image.fromarray(to_samples(picture, bits))
    exif = Image.Exif()
    exif[_DESCRIPTION] = _text(metadata)
    image.save(file, "WEBP", lossless=True, exact=True, icc_profile=picture.icc, exif=exif)


def _write_tiff(file, picture, metadata, bits):
    import tifffile

    samples, icc = to_samples(picture, bits), picture.icc
    tifffile.imwrite(
        file, samples, photometric="rgb", extrasamples=["unassalpha"] if samples.shape[2] == 4 else None,
        compression="zlib", predictor=True, description=_text(metadata), software=False, metadata=None,
        extratags=[(PROFILE, 7, len(icc), icc, True)] if icc else (),
    )  # fmt: skip


_WRITERS = {".png": _write_png, ".webp": _write_webp, ".tif": _write_tiff, ".tiff": _write_tiff}
