"""Pictures: reading, orientation, colour, resizing, writing.

A picture is RGB, float32, (H, W, 3), 0..255, whatever its file holds. Pillow reads files of
8 bits per channel, with their orientation and colour profile, and OpenCV the deeper ones, which Pillow would cut down.
"""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from .errors import ImageError, nearest

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
MEAN_BGR = (103.939, 116.779, 123.68)  # ImageNet's, which the Caffe models were trained with
_DEEP = (".png", ".tif", ".tiff")  # can hold 16 bits per channel
_JPEG_QUALITY = 95
_JPEG_LONGEST, _WEBP_LONGEST = 65535, 16383


@dataclass(frozen=True)
class Picture:
    """rgb: (H, W, 3) float32, 0..255; alpha: (H, W) float32, 0..1, or None; icc: colour profile, or None."""

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None


def read(path: str) -> Picture:
    """The picture in a file, upright: EXIF orientation is applied.

    Grey, palette, CMYK, 8-bit, 16-bit and float files are converted; nothing is rounded. Raises ImageError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's on odd metadata: the picture is read, or an error says why not
        return _read(path)


def _read(path):
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = os.fspath(path)
    if os.path.isdir(path):
        raise ImageError(f"{path}: this is a folder; give a picture in it")
    Image.MAX_IMAGE_PIXELS = None  # pictures may be as large as memory allows
    try:
        if not os.path.getsize(path):
            raise ImageError(f"{path}: the file is empty")
        with Image.open(path) as image:
            # A CMYK profile does not describe the RGB pixels that are made of it.
            icc = None if image.mode == "CMYK" else image.info.get("icc_profile")
            if _is_deep(image):
                if image.format == "TIFF":
                    return _read_tiff(path)
                if image.format == "PNG":
                    image.load()  # OpenCV would fill a truncated one with grey
                return _picture(_read_deep(path), image.getexif().get(_ORIENTATION, 1), icc)
            image = ImageOps.exif_transpose(image)
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            pixels = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
            return _picture(pixels, 1, icc)
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file") from None
    except PermissionError:
        raise ImageError(f"{path}: it may not be read; check its permissions") from None
    except UnidentifiedImageError:  # kinds that Pillow does not know, such as 16-bit RGB TIFF
        with open(path, "rb") as file:
            tiff = file.read(4) in _TIFF
        return _read_tiff(path) if tiff else _picture(_read_deep(path), 1, None)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise _damaged(path, error) from None


def _damaged(path, cause):
    cause = " ".join(str(cause).split()) or type(cause).__name__
    return ImageError(f"{path}: the picture is truncated or damaged ({cause}); get a fresh copy")


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


_ORIENTATION, _DESCRIPTION, _BITS_PER_SAMPLE, _PROFILE = 274, 270, 258, 34675  # tags of TIFF and EXIF


def _read_tiff(path):
    """The Picture in the first page of a TIFF of more than 8 bits."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            kind, planar = page.photometric.name, page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
            if kind not in ("RGB", "MINISBLACK", "MINISWHITE") or page.dtype is None or page.dtype.kind not in "uf":
                raise ImageError(f"{path}: a TIFF of {kind} in {page.dtype} cannot be read; save it as RGB of 16 bits")
            tags = {code: page.tags[code].value for code in (_ORIENTATION, _PROFILE) if code in page.tags}
            try:
                pixels = page.asarray()
            except ValueError:  # a compression that tifffile has no words for, such as LZW
                if planar:
                    raise
                pixels = _read_deep(path)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # tifffile has no common class for what a damaged file makes it raise
        raise _damaged(path, error) from None
    if planar and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim not in (2, 3):
        raise ImageError(f"{path}: a TIFF of {pixels.ndim} dimensions is no picture; save it as RGB of 16 bits")
    if kind == "MINISWHITE":
        pixels = (np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1) - pixels
    try:
        return _picture(pixels, tags.get(_ORIENTATION, 1), tags.get(_PROFILE))
    except ValueError as error:
        raise _damaged(path, error) from None


def _is_deep(image):
    """Whether a file has more than 8 bits per channel, which Pillow would cut down."""
    if image.format == "PNG":
        return any(";16" in str(tile[3]) for tile in image.tile)
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) > 8
    return image.mode[0] in "IF"


def _read_deep(path):
    """Pixels (H, W[, C]) as OpenCV decodes them, RGB order, of any depth."""
    import cv2

    with open(path, "rb") as file:
        data = np.frombuffer(file.read(), np.uint8)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        raise ImageError(
            f"{path}: this is no picture that cvstyle can read, or a damaged one (PNG, JPEG, WebP, TIFF, ...)"
        )
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def _picture(pixels, orientation, icc):
    """A Picture of pixels (H, W[, 1 to 4]) of any dtype; floats are 0..1. Raises ValueError for NaN and infinity."""
    whole = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1
    pixels = _upright(np.atleast_3d(pixels), orientation).astype(np.float32)
    has_alpha = pixels.shape[2] in (2, 4)
    colour, alpha = pixels[..., :3], pixels[..., -1] / np.float32(whole) if has_alpha else None
    if pixels.shape[2] < 3:
        colour = np.repeat(pixels[..., :1], 3, axis=2)
    rgb = np.ascontiguousarray(colour * np.float32(255 / whole))
    if not np.isfinite(rgb).all():
        raise ValueError("it has values that are NaN or infinite")
    return Picture(rgb, alpha, icc)


def _upright(pixels, orientation):
    """Undo an EXIF orientation (1 to 8); others count as 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def target_size(height: int, width: int, longest: int, compat: bool = False) -> tuple[int, int]:
    """(height, width) with `longest` as the longer side and the proportions kept; at least 1 pixel.

    compat: the other side is rounded down, as by Torch's image.scale; else to the nearest.
    """
    factor = longest / max(height, width)
    around = math.floor if compat else round
    other = max(1, around(min(height, width) * factor + (1e-9 if compat else 0)))
    return (longest, other) if height >= width else (other, longest)


def widened(size: tuple[int, int], margin: int) -> tuple[int, int]:
    """(height, width) with a margin of so many pixels on every side."""
    return tuple(n + 2 * margin for n in size)


def resize(pixels: np.ndarray, size: tuple[int, int], compat: bool = False) -> np.ndarray:
    """(H, W, C) float32 resized to `size` (height, width): an area average when shrinking, bicubic when enlarging.

    compat: enlarging is bilinear with the corner pixels kept in the corners, as Torch's image.scale does it.
    """
    import cv2

    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    try:
        return _resized(pixels, height, width, compat).reshape(height, width, -1)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"for a picture of {width}×{height}") from None
        source = f"{pixels.shape[1]}×{pixels.shape[0]}"
        raise ImageError(f"a picture of {source} cannot be resized to {width}×{height}: {error.err}") from None


def _resized(pixels, height, width, compat):
    import cv2

    if height <= pixels.shape[0] and width <= pixels.shape[1]:
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    elif compat:
        rows, columns = map(_aligned_corners, (height, width), pixels.shape[:2])
        grid = np.meshgrid(columns, rows)
        resized = cv2.remap(pixels, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    else:
        low, high = float(pixels.min()), float(pixels.max())
        resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC).clip(low, high)
    return resized


def _aligned_corners(count, source):
    """Source positions (float32) of `count` samples whose first and last are the source's first and last."""
    return np.linspace(0, source - 1, count, dtype=np.float32)


def preprocess(rgb: np.ndarray, scale: float = 255.0, mean=MEAN_BGR) -> np.ndarray:
    """(H, W, 3) RGB 0..255 → (3, H, W) BGR in 0..scale minus the mean, float32, contiguous.

    scale is 255, or 256 for the numbers of neural_style.lua.
    """
    bgr = rgb[..., ::-1].transpose(2, 0, 1) * np.float32(scale / 255)
    return np.ascontiguousarray(bgr - np.float32(mean)[:, None, None], np.float32)


def deprocess(x: np.ndarray, scale: float = 255.0, mean=MEAN_BGR) -> np.ndarray:
    """The inverse of `preprocess`; values may lie outside 0..255 until the picture is written."""
    bgr = (x + np.float32(mean)[:, None, None]) * np.float32(255 / scale)
    return np.ascontiguousarray(bgr.transpose(1, 2, 0)[..., ::-1], np.float32)


# RGB to Y, U, V: ITU-R BT.601 luma with the U and V of analogue PAL, the matrix of Torch's image.rgb2yuv.
_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]], np.float32
)  # fmt: skip


def original_colors(content: np.ndarray, result: np.ndarray) -> np.ndarray:
    """The brightness (Y) of the result with the colours (U, V) of the content; both (H, W, 3) RGB 0..255."""
    yuv = content @ _YUV.T
    yuv[..., 0] = result.clip(0, 255) @ _YUV[0]
    return (yuv @ np.linalg.inv(_YUV).T).astype(np.float32)


def check_writable(path: str, bits: int = 8, longest: int = 1) -> None:
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
    path: str,
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
    layers = [rgb.clip(0, 255) / 255]
    if alpha is not None and extension not in (".jpg", ".jpeg"):
        layers.append(alpha.clip(0, 1)[..., None])
    highest = (1 << bits) - 1
    pixels = np.rint(np.concatenate(layers, axis=2) * highest).astype(np.uint16 if bits == 16 else np.uint8)
    writer = {".png": _write_png, ".webp": _write_webp, ".tif": _write_tiff, ".tiff": _write_tiff}
    folder, name = os.path.split(path)
    handle, temporary = tempfile.mkstemp(dir=folder or ".", prefix=f".{name}.", suffix=extension)
    try:
        os.close(handle)
        with open(temporary, "wb") as file:
            writer.get(extension, _write_jpeg)(file, pixels, icc, metadata or {})
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp lets nobody else read
        os.replace(temporary, path)
    except OSError as error:
        raise ImageError(f"{path}: it could not be written: {error.strerror or error}") from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def read_metadata(path: str) -> dict[str, str]:
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
    """All texts as one of ASCII, for formats with a single place for them."""
    return json.dumps(metadata, ensure_ascii=True)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_jpeg(file, pixels, icc, metadata):
    from PIL import Image

    Image.fromarray(pixels).save(
        file, "JPEG", quality=_JPEG_QUALITY, subsampling=0, icc_profile=icc, comment=_text(metadata).encode()
    )


def _write_webp(file, pixels, icc, metadata):
    """Lossless: lossy WebP always halves the resolution of colour."""
    from PIL import Image

    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[_DESCRIPTION] = _text(metadata)
    image.save(file, "WEBP", lossless=True, exact=True, icc_profile=icc, exif=exif)


def _write_tiff(file, pixels, icc, metadata):
    import tifffile

    tifffile.imwrite(
        file, pixels, photometric="rgb", extrasamples=["unassalpha"] if pixels.shape[2] == 4 else None,
        compression="zlib", predictor=True, description=_text(metadata), software=False, metadata=None,
        extratags=[(_PROFILE, 7, len(icc), icc, True)] if icc else (),
    )  # fmt: skip


def _write_png(file, pixels, icc, metadata):
    """OpenCV encodes 8 and 16 bits; the chunks that it has no words for are put in after the header."""
    import cv2

    order = [2, 1, 0, 3][: pixels.shape[2]]
    encoded = cv2.imencode(".png", pixels[..., order])[1].tobytes()
    header = 8 + 12 + 13  # signature, and IHDR with its frame
    file.write(encoded[:header])
    if icc:
        file.write(_png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc)))
    for key, value in metadata.items():
        # File names may hold bytes that are no text.
        text = value.encode("utf-8", "replace")
        file.write(_png_chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + text))
    file.write(encoded[header:])


def _png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
