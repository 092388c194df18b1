"""Reading of picture files.

Pillow reads files with 8 bits per channel, with orientation and colour profile; OpenCV and tifffile read deeper files,
which Pillow would reduce to 8 bits.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..errors import ImageError
from . import profiles
from .alpha import is_opaque
from .picture import PROFILE, Picture, from_samples
from .resize import resize

Fit = Callable[[int, int], tuple[int, int]]
"""(height, width) of a file's picture, upright → the size needed of it."""

_ORIENTATION = 274  # tags of TIFF and EXIF
_BITS_PER_SAMPLE = 258
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read(path: str | os.PathLike, fit: Fit | None = None) -> Picture:
    """Read a picture and apply its EXIF orientation.

    fit: the size needed; a larger picture is reduced to it. None: the picture's own.
    Grey, palette, CMYK, 8-bit, 16-bit and float files are converted without rounding. Raises ImageError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about unusual metadata
        picture = reduced(_read(path), fit)
    return replace(picture, remarks=tuple(f"{os.fspath(path)}: {remark}" for remark in picture.remarks))


def reduced(picture: Picture, fit: Fit | None) -> Picture:
    """The picture, or one reduced to the size needed of it."""
    size = fit(*picture.size) if fit else picture.size
    if size == picture.size or any(new > old for new, old in zip(size, picture.size)):
        return picture
    rgb = picture.rgb
    alpha = picture.alpha
    if is_opaque(alpha):
        rgb = resize(rgb, size)
        alpha = None if alpha is None else np.ones(size, np.float32)
    else:
        rgb = resize(rgb * alpha[..., None], size)
        alpha = resize(alpha[..., None], size)[..., 0]
        rgb /= np.maximum(alpha, np.finfo(np.float32).tiny)[..., None]
    return replace(picture, rgb=rgb, alpha=alpha, full_size=picture.proportions)


def _read(path):
    from PIL import Image, UnidentifiedImageError

    path = os.fspath(path)
    if os.path.isdir(path):
        raise ImageError(f"{path}: this is a folder; give a picture in it")
    Image.MAX_IMAGE_PIXELS = None  # no limit
    try:
        if not os.path.getsize(path):
            raise ImageError(f"{path}: the file is empty")
        # Given a path, Pillow maps an uncompressed TIFF, and scrambles a rotated one.
        with open(path, "rb") as file, Image.open(file) as image:
            if _is_deep(image):
                if image.format == "TIFF":
                    return _read_tiff(path)
                icc = profiles.of_image(image)
                if image.format == "PNG":
                    image.load()  # raises for a truncated file, which OpenCV fills with grey
                return _in_srgb(_upright(_read_deep(path), image.getexif().get(_ORIENTATION, 1)), icc)
            return from_pillow(image)
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file") from None
    except PermissionError:
        raise ImageError(f"{path}: it may not be read; check its permissions") from None
    except UnidentifiedImageError:  # formats unknown to Pillow, such as 16-bit RGB TIFF
        with open(path, "rb") as file:
            tiff = file.read(4) in _TIFF
        return _read_tiff(path) if tiff else from_samples(_read_deep(path))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise _damaged(path, error) from None


def from_pillow(image) -> Picture:
    """The Picture of a Pillow image with 8 bits per channel, or 16-bit grey (mode I;16), with orientation applied."""
    from PIL import ImageOps

    icc = profiles.of_image(image)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return _in_srgb(np.asarray(image), icc)
    if image.mode in ("CMYK", "LAB"):
        pixels = np.asarray(image).astype(np.float32)
        if image.mode == "LAB":  # Pillow's a* and b* are bytes with a sign
            pixels = np.stack([pixels[..., 0] * (100 / 255), *((pixels[..., i] + 128) % 256 - 128 for i in (1, 2))], -1)
        rgb, _, remark = profiles.to_srgb(pixels, image.mode, icc)
        return Picture(rgb, remarks=(remark,) if remark else ())
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    return _in_srgb(np.asarray(image.convert(mode + "A" if has_alpha else mode)), icc)


def _in_srgb(samples, icc):
    """The Picture of samples (see `from_samples`) in a colour profile."""
    picture = from_samples(samples)
    grey = samples.ndim == 2 or samples.shape[2] < 3
    rgb, icc, remark = profiles.to_srgb(picture.rgb[..., : 1 if grey else 3], "L" if grey else "RGB", icc)
    return replace(picture, rgb=rgb, icc=icc, remarks=(remark,) if remark else ())


def _damaged(path, cause):
    cause = " ".join(str(cause).split()) or type(cause).__name__
    return ImageError(f"{path}: the picture is truncated or damaged ({cause}); get a fresh copy")


def _read_tiff(path):
    """The Picture in the first page of a TIFF with more than 8 bits."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            kind = page.photometric.name
            planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
            if kind not in ("RGB", "MINISBLACK", "MINISWHITE") or page.dtype is None or page.dtype.kind not in "uf":
                raise ImageError(f"{path}: a TIFF of {kind} in {page.dtype} cannot be read; save it as RGB of 16 bits")
            tags = {tag.code: tag.value for tag in page.tags}
            try:
                pixels = page.asarray()
            except ValueError:  # a compression without support in tifffile, such as LZW
                if planar:
                    raise
                pixels = _read_deep(path)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # tifffile's errors about damaged files have no common class
        raise _damaged(path, error) from None
    if planar and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim not in (2, 3):
        raise ImageError(f"{path}: a TIFF of {pixels.ndim} dimensions is no picture; save it as RGB of 16 bits")
    if kind == "MINISWHITE":
        pixels = (np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1) - pixels
    try:
        return _in_srgb(_upright(pixels, tags.get(_ORIENTATION, 1)), tags.get(PROFILE))
    except ValueError as error:
        raise _damaged(path, error) from None


def _is_deep(image):
    """True for a file with more than 8 bits per channel, which Pillow would reduce."""
    if image.format == "PNG":
        return any(";16" in str(tile[3]) for tile in image.tile)
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) > 8
    return image.mode[0] in "IF"


def _read_deep(path):
    """Pixels (H, W[, C]) decoded by OpenCV, in RGB order, of any depth."""
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


def _upright(pixels, orientation):
    """Apply an EXIF orientation (1 to 8); other values count as 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
