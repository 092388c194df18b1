"""Writing of picture files."""

from __future__ import annotations

import json
import os
import tempfile

import numpy as np

from ..errors import ImageError, nearest
from ..paths import atomic_write
from .alpha import composited
from .picture import PROFILE, Picture, png, to_samples

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
_DEEP = (".png", ".tif", ".tiff")  # formats with 16 bits per channel
_JPEG_QUALITY = 95
_MAX_SIDE = {".webp": 16383, ".jpg": 65535, ".jpeg": 65535}
_DESCRIPTION = 270  # TIFF and EXIF tag for text


def check_writable(path: str | os.PathLike, bits: int = 8, longest: int = 1) -> None:
    """Raises ImageError if it is known in advance that `write` would fail. Changes no file.

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
    limit = _MAX_SIDE.get(extension, longest)
    if longest > limit:
        raise ImageError(f"{path}: {extension} pictures are at most {limit} pixels wide and high; use .png or .tiff")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise ImageError(f"{path}: there is no folder '{folder}'; create it first")
    try:
        # Permission bits are not reliable for root or on a read-only file system, so a file is created.
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
    """Write a picture atomically, in the format of the extension.

    rgb: (H, W, 3), sRGB, clipped to 0..255 and rounded; alpha: (H, W) 0..1, in JPEG a white background; icc: the file's
    profile, see `Picture`; metadata: texts by keyword, see `read_metadata`; bits: 8 or, for PNG and TIFF, 16. The bytes
    are deterministic.
    """
    path = os.fspath(path)
    check_writable(path, bits, max(rgb.shape[:2]))
    extension = os.path.splitext(path)[1].lower()
    writer = _WRITERS.get(extension, _write_jpeg)
    picture = Picture(rgb, alpha, icc)
    picture = picture if keeps_alpha(path) else composited(picture)
    try:
        with atomic_write(path, f".{os.path.basename(path)}.", extension) as file:
            writer(file, picture, metadata or {}, bits)
            os.chmod(file.name, 0o666 & ~_umask())  # a temporary file is readable by its owner only
    except OSError as error:
        raise ImageError(f"{path}: it could not be written: {error.strerror or error}") from None


def keeps_alpha(path: str | os.PathLike) -> bool:
    """True for the name of a file that can be transparent."""
    return os.path.splitext(path)[1].lower() not in (".jpg", ".jpeg")


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The metadata that `write` stored in a picture, or {}."""
    from PIL import Image

    with Image.open(path) as image:
        if image.format == "PNG":
            return dict(image.text)
        if image.format == "JPEG":
            text = image.info.get("comment", b"")
        else:  # a tag of TIFF, or of EXIF in WebP
            tags = image.tag_v2 if image.format == "TIFF" else image.getexif()
            text = tags.get(_DESCRIPTION, "")
    try:
        stored = json.loads(text.encode("latin-1", "replace") if isinstance(text, str) else text)
    except ValueError:
        return {}
    return stored if isinstance(stored, dict) else {}


def _text(metadata):
    """All metadata as one ASCII text, for formats with a single text field."""
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
    """Lossless, since lossy WebP always subsamples colour."""
    from PIL import Image

    image = Image.fromarray(to_samples(picture, bits))
    exif = Image.Exif()
    exif[_DESCRIPTION] = _text(metadata)
    image.save(file, "WEBP", lossless=True, exact=True, icc_profile=picture.icc, exif=exif)


def _write_tiff(file, picture, metadata, bits):
    import tifffile

    samples = to_samples(picture, bits)
    icc = picture.icc
    tifffile.imwrite(
        file, samples, photometric="rgb", extrasamples=["unassalpha"] if samples.shape[2] == 4 else None,
        compression="zlib", predictor=True, description=_text(metadata), software=False, metadata=None,
        extratags=[(PROFILE, 7, len(icc), icc, True)] if icc else (),
    )  # fmt: skip


_WRITERS = {".png": _write_png, ".webp": _write_webp, ".tif": _write_tiff, ".tiff": _write_tiff}
