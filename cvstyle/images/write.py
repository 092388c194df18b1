"""Writing of picture files."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import paths
from ..errors import ImageError
from .alpha import composited
from .metadata import DESCRIPTION, EXIF, Metadata, append_exif, comment_in, exif, texts_of
from .picture import PROFILE, Picture, to_samples, write_png

_JPEG_QUALITY = 95
_LONGEST_COMMENT = 65533  # bytes in a JPEG
_MOST_IN_JPEG = 255 * 65519  # bytes of a colour profile, in as many segments
_BIG_TIFF = (1 << 32) - (1 << 25)  # bytes of samples from which a TIFF has offsets of 64 bits
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{name}{digit}" for name in ("COM", "LPT") for digit in range(1, 10))}


def check_writable(path: str | os.PathLike, bits: int = 8, longest: int = 1) -> None:
    """Raises ImageError if it is known in advance that `write` would fail. Leaves no file.

    longest: the longer side of the picture, in pixels.
    """
    path = os.fspath(path)
    _check_format(path, bits, longest)
    if os.name == "nt" and os.path.basename(path).split(".")[0].rstrip().upper() in _DEVICES:
        raise ImageError(f"{path}: Windows has a device of this name; choose another name")
    number = paths.descriptor(path)
    if number is not None and os.isatty(number):
        raise ImageError(f"{path}: a terminal shows no picture; redirect the output to a file or into another program")
    try:
        paths.check_writable(path)
    except (OSError, ValueError) as error:
        raise _refused(path, error, "it cannot", "; choose another name or folder") from None


def check_fits(
    path: str | os.PathLike, size: tuple[int, int], channels: int = 3, bits: int = 8, profile: int = 0
) -> None:
    """Raises ImageError if a picture of (height, width) does not fit into the format, or is far too large for the disk.

    profile: bytes of the colour profile.
    """
    path = os.fspath(path)
    kind = _check_format(path, bits, max(size), profile)
    least = size[0] * size[1] * channels * bits // 8 // kind.compression
    free = paths.free(path)
    if free is not None and free < least:
        raise ImageError(
            f"{path}: {free:,} bytes are free there, and the picture needs {least:,} at the least; make room, or "
            "choose another folder"
        )


def write(
    path: str | os.PathLike,
    rgb: np.ndarray,
    alpha: np.ndarray | None = None,
    icc: bytes | None = None,
    texts: dict[str, str] | None = None,
    bits: int = 8,
    metadata: Metadata | None = None,
) -> None:
    """Write a picture atomically, in the format of the extension, or as PNG into a pipe ("-": standard output).

    rgb: (H, W, 3), sRGB, clipped to 0..255 and rounded; alpha: (H, W) 0..1, in JPEG a white background; icc: the file's
    profile, see `Picture`; texts: by keyword, see `read_metadata`; bits: 8 or, for PNG and TIFF, 16; metadata: of the
    photograph. The bytes are deterministic. Raises ImageError for every failure, lack of memory included.
    """
    path = os.fspath(path)
    kind = _check_format(path, bits, max(rgb.shape[:2]), len(icc or b""))
    picture = Picture(rgb, alpha, icc, metadata=metadata)
    try:
        picture = picture if kind.has_alpha else composited(picture)
        with paths.atomic_write(path, durable=True) as file:
            kind.writer(file, picture, texts or {}, bits)
    except Exception as error:  # the encoders' errors have no common class
        raise _refused(path, error) from None


def keeps_alpha(path: str | os.PathLike) -> bool:
    """True for the name of a file that can be transparent. Raises ImageError for one of another kind."""
    return _format_of(os.fspath(path)).has_alpha


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The texts that `write` stored in a picture, or {}."""
    from PIL import Image

    with Image.open(path) as image:
        if image.format == "PNG":
            return dict(image.text)
        if image.format == "JPEG":
            text = image.info.get("comment", b"")
        else:  # earlier versions had them in the description
            tags = image.getexif()
            text = comment_in(tags.get_ifd(EXIF)) or tags.get(DESCRIPTION, "")
    try:
        stored = json.loads(text.encode("latin-1", "replace") if isinstance(text, str) else text)
    except ValueError:
        return {}
    return stored if isinstance(stored, dict) else {}


def _write_jpeg(file, picture, texts, bits):
    from PIL import Image

    named = {"comment": _text(texts, _LONGEST_COMMENT).encode()} if texts else {}
    if picture.metadata:
        named["exif"] = b"Exif\0\0" + exif(picture.metadata)
        if picture.metadata.dpi:
            named["dpi"] = tuple(map(round, picture.metadata.dpi))
    Image.fromarray(to_samples(picture, bits)).save(
        file, "JPEG", quality=_JPEG_QUALITY, subsampling=0, icc_profile=picture.icc, **named
    )


def _write_webp(file, picture, texts, bits):
    """Lossless, since lossy WebP always subsamples colour."""
    from PIL import Image

    tags = exif(picture.metadata or Metadata(), _text(texts))
    Image.fromarray(to_samples(picture, bits)).save(
        file, "WEBP", lossless=True, exact=True, icc_profile=picture.icc, exif=b"Exif\0\0" + tags if tags else b""
    )


def _write_tiff(file, picture, texts, bits):
    import tifffile

    samples = to_samples(picture, bits)
    metadata = picture.metadata or Metadata()
    tags = [(*entry, True) for entry in texts_of(metadata)]
    if picture.icc:
        tags.append((PROFILE, 7, len(picture.icc), picture.icc, True))
    tifffile.imwrite(
        file, samples, photometric="rgb", extrasamples=["unassalpha"] if samples.shape[2] == 4 else None,
        compression="zlib", predictor=True, description=None, software=False, metadata=None, extratags=tags,
        resolution=metadata.dpi, resolutionunit=2 if metadata.dpi else None, bigtiff=samples.nbytes > _BIG_TIFF,
        byteorder="<",
    )  # fmt: skip
    append_exif(file, metadata, _text(texts))


def _write_array(file, picture, texts, bits):
    np.save(file, to_samples(picture, bits))


def _text(texts, longest=None):
    """All texts as one ASCII text, for formats with a single text field; long ones are cut if it is too long."""
    text = json.dumps(texts, ensure_ascii=True) if texts else ""
    most = longest
    while longest and len(text) > longest:
        most //= 2
        text = json.dumps({key: value[:most] for key, value in texts.items()}, ensure_ascii=True)
    return text


@dataclass(frozen=True)
class _Format:
    """A file format. compression: the factor by which its files are smaller than the samples, at the most.

    writer: a function of a binary file, a `Picture`, texts and bits.
    """

    extensions: tuple[str, ...]
    writer: Callable
    max_side: int
    max_profile: int = (1 << 31) - 1
    is_deep: bool = False
    has_alpha: bool = True
    compression: int = 10


# The limits are libpng's (for most programs that read the file), libjpeg's, libwebp's and, for TIFF, that of 32 bits.
_PNG = _Format((".png",), write_png, 1_000_000, is_deep=True)
_FORMATS = (
    _PNG,
    _Format((".jpg", ".jpeg", ".jpe", ".jfif"), _write_jpeg, 65500, _MOST_IN_JPEG, has_alpha=False, compression=30),
    _Format((".webp",), _write_webp, 16383),
    _Format((".tif", ".tiff"), _write_tiff, (1 << 32) - 1, is_deep=True),
)
_ARRAY = _Format((".npy",), _write_array, (1 << 63) - 1, is_deep=True, compression=1)  # the last resort of a run
RESORTS = tuple(kind.extensions[0] for kind in (_PNG, _FORMATS[-1], _ARRAY))
"""The endings of the formats that take any picture, if writing in another format fails; ".npy" is for NumPy."""


def _format_of(path):
    extension = os.path.splitext(path)[1].lower()
    for kind in (*_FORMATS, _ARRAY):
        if extension in kind.extensions:
            return kind
    if not os.path.basename(path) and not os.path.isdir(path):
        raise ImageError(f"'{path}' names no file to write; give one such as {os.path.join(path, 'out.png')}")
    if extension:
        raise ImageError(f"{path}: cannot write '{extension}' files; use .png, .jpg, .webp or .tiff")
    if paths.is_stream(path):
        return _PNG
    if os.path.isdir(path):
        raise ImageError(f"{path}: this is a folder; name a file in it")
    raise ImageError(f"{path}: the name has no ending, by which the format is chosen; name it {path}.png, for example")


def _check_format(path, bits, longest, profile=0):
    """The format of a path. Raises ImageError if it is not for such a picture."""
    kind = _format_of(path)
    extension = kind.extensions[0]
    if bits == 16 and not kind.is_deep:
        raise ImageError(f"{path}: {extension} has no 16 bits per channel; use .png or .tiff")
    if longest > kind.max_side:
        raise ImageError(f"{path}: {extension} pictures are at most {kind.max_side} pixels wide and high; use .tiff")
    if profile > kind.max_profile:
        raise ImageError(f"{path}: {extension} cannot hold a colour profile of {profile:,} bytes; use .png or .tiff")
    return kind


def _refused(path, error, it="it could not", way_out=""):
    """The ImageError for a failure of writing."""
    folder = os.path.dirname(path) or "."
    number = getattr(error, "errno", None)
    cause = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        cause = "not enough memory"
    if number == errno.EISDIR or os.path.isdir(path):
        return ImageError(f"{path}: this is a folder; name a file in it")
    if number in (errno.ENOENT, errno.ENOTDIR) and not os.path.isdir(folder):
        return ImageError(f"{path}: there is no folder '{folder}'; create it first")
    if number == errno.ENAMETOOLONG:
        return ImageError(f"{path}: the name is too long for the file system; choose a shorter one")
    return ImageError(f"{path}: {it} be written: {cause}{way_out}")
