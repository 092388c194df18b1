"""Colours: from a file's profile to sRGB, in which everything is computed, and back into the profile of the result.

The conversion is relative colorimetric with black point compensation. Matrices and curves are computed here in floats
and are inverted exactly, so that a wide gamut survives as values outside 0..255; other profiles go through Little CMS
(Pillow's ImageCms) with 8 bits per channel, within the gamut of sRGB.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ..errors import ImageError
from . import icc as icc_format
from .icc import SRGB_CURVE, SRGB_MATRIX, SRGB_PRIMARIES, SRGB_WHITE, ProfileError, luminance, parse

_STRIP = 1 << 16  # pixels converted at a time
_ALIKE = 1.0  # levels of 255 from sRGB; within them lie its variants by HP, Google, Facebook and others
_ALIKE_LUT = 3.0  # the same for tables of 8 bits
_ADOBE_RGB = (SRGB_WHITE, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06), 563 / 256)
_COLOUR_SPACE = 40961  # tag of EXIF; 1: sRGB, 2: Adobe RGB
_EXIF = 0x8769
_INTEROPERABILITY = 0xA005
_CAMERA_FORMATS = ("JPEG", "MPO", "TIFF", "WEBP")
_ICC_SEGMENT = b"ICC_PROFILE\0"  # begins a part of a profile in JPEG, before its number and their count
_BLACK_POINT = 0x2000  # the flag of Little CMS
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_REC2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
_CICP_PRIMARIES = {1: SRGB_PRIMARIES, 9: _REC2020, 12: _P3}  # ITU-T H.273
_HDR = (16, 18)  # its transfer functions PQ and HLG
_CICP_GAMMAS = {1: None, 4: 2.2, 5: 2.8, 6: None, 8: 1.0, 13: None, 14: None, 15: None}


def to_srgb(pixels: np.ndarray, mode: str, icc: bytes | None) -> tuple[np.ndarray, bytes | None, str]:
    """(sRGB (H, W, 3) float32 in 0..255, the profile into which a result may be converted or None, a remark or "").

    pixels: (H, W, C) float32, 0..255. mode: "RGB", "L", "CMYK" (255: full ink) or "LAB" (L*, a*, b* under D50 in their
    own units). icc: the file's profile. One that is damaged, or not of the pixels' kind, is ignored with a remark. sRGB
    itself, in any of its variants, changes no bit.
    """
    if mode == "LAB":
        return _in_strips(pixels, _lab_to_srgb), None, ""
    remark = ""
    if icc:
        try:
            return _by_profile(pixels, mode, parse(icc))
        except ProfileError as error:
            remark = f"its colour profile {error} and was ignored"
    if mode == "CMYK":
        because = remark or "it has no colour profile"
        rgb = _in_strips(pixels, lambda ink: (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255)
        return rgb, None, f"{because}; its CMYK colours are converted by a simple formula and may be off"
    return _as_rgb(pixels), None, remark


def from_srgb(rgb: np.ndarray, icc: bytes | None) -> np.ndarray:
    """sRGB (H, W, 3), 0..255 → the same colours in a profile that `to_srgb` returned; None: sRGB."""
    profile = icc and parse(icc)
    if not profile or _is_srgb(profile):
        return rgb
    matrix = np.linalg.inv(profile.to_linear_srgb).T

    def convert(strip):
        light = (SRGB_CURVE(strip / 255) * (1 - profile.black) + profile.black) @ matrix
        return 255 * np.stack([curve.inverse(light[..., i]) for i, curve in enumerate(profile.curves)], axis=-1)

    return _in_strips(rgb, convert)


def is_output(icc: bytes) -> bool:
    """True for a profile that `to_srgb` may return: of RGB, and invertible or sRGB."""
    try:
        profile = parse(icc)
        return profile.space == "RGB" and (profile.matrix is not None or _is_srgb(profile))
    except ProfileError:
        return False


def from_chromaticities(white, red, green, blue, gamma: float | None = None) -> bytes:
    """The ICC profile of RGB with these CIE x, y and a gamma; None: the curve of sRGB. Raises ProfileError."""
    primaries = (red, green, blue)
    try:
        if not all(0 < y <= 1 and -1 <= x <= 1 for x, y in (white, *primaries)) or not 0.1 < (gamma or 1) < 10:
            raise ProfileError("is damaged")
        matrix = icc_format.colorants(white, primaries)
        if not np.abs(matrix).max() < 30 or abs(np.linalg.det(matrix)) < 1e-3:
            raise ProfileError("is damaged")
    except np.linalg.LinAlgError:
        raise ProfileError("is damaged") from None
    return icc_format.build(white, primaries, gamma)


def of_image(image, name: str = "the picture") -> bytes | None:
    """The colour profile of a Pillow image: the one it contains, or one made of what else it says; None: sRGB.

    In PNG, a cICP chunk precedes a profile, and a profile an sRGB chunk and gAMA with cHRM, as its specification (third
    edition) has it; in EXIF, Adobe RGB is marked by R03 (DCF 2.0). info["nclx"] is read too: two codes of HEIF's
    colour box. name: in messages. Raises ImageError for codes of HDR or of video.
    """
    info = image.info
    coded = _cicp(image) if image.format == "PNG" else None
    if coded is not None:
        primaries, transfer, matrix, full = coded
        if matrix or not full:
            raise ImageError(f"{name}: its colours are coded as HDR or video ({primaries} {transfer}); save it in sRGB")
        profile = _by_codes(primaries, transfer, name)
        if profile:
            return profile
    if info.get("icc_profile"):
        return info["icc_profile"]
    if "nclx" in info:
        return _by_codes(*info["nclx"], name)
    if image.format == "PNG" and "srgb" not in info and ("gamma" in info or "chromaticity" in info):
        return _by_png(info)
    if image.format in ("JPEG", "MPO"):
        parts = [data for kind, data in image.applist if kind == "APP2" and data.startswith(_ICC_SEGMENT)]
        if parts:  # some are missing, so that Pillow gives none; `to_srgb` says so
            return b"".join(data[len(_ICC_SEGMENT) + 2 :] for data in parts)
    return from_chromaticities(*_ADOBE_RGB) if image.format in _CAMERA_FORMATS and _is_adobe_rgb(image) else None


def _by_codes(primaries, transfer, name):
    """The profile of two codes of ITU-T H.273, or None. Raises ImageError for those of HDR."""
    if transfer in _HDR:
        raise ImageError(f"{name}: its colours are coded as HDR or video ({primaries} {transfer}); save it in sRGB")
    if primaries in _CICP_PRIMARIES and transfer in _CICP_GAMMAS:
        return _stated(SRGB_WHITE, _CICP_PRIMARIES[primaries], _CICP_GAMMAS[transfer])
    return None


def _by_png(info):
    """The profile of gAMA and cHRM. The gamma of 1 / 2.2 stands for sRGB's curve, unless there are other primaries."""
    numbers = info.get("chromaticity", ())
    stated = _stated(numbers[:2], list(zip(numbers[2::2], numbers[3::2])), None) if len(numbers) == 8 else None
    white, *primaries = zip(numbers[::2], numbers[1::2]) if stated else (SRGB_WHITE, *SRGB_PRIMARIES)
    gamma = info.get("gamma")
    if not gamma or (abs(gamma * 2.2 - 1) < 0.02 and stated is None):
        return stated
    return _stated(white, primaries, 1 / gamma)


def _is_adobe_rgb(image):
    """True where EXIF says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exif = image.getexif()
            space = exif.get_ifd(_EXIF).get(_COLOUR_SPACE)
            return space == 2 or (space != 1 and str(exif.get_ifd(_INTEROPERABILITY).get(1)).startswith("R03"))
        except Exception:  # Pillow's errors about damaged EXIF have no common class
            return False


def _stated(white, primaries, gamma):
    """The profile of stated chromaticities; None where they are impossible, or sRGB's."""
    try:
        data = from_chromaticities(white, *primaries, gamma)
    except ProfileError:
        return None
    return None if _is_srgb(parse(data)) else data


def _cicp(image):
    """The four numbers of a PNG's cICP chunk, which Pillow passes over, or None."""
    file = getattr(image, "fp", None)
    if file is None or not file.seekable():
        return None
    place = file.tell()
    try:
        file.seek(8)
        while len(start := file.read(8)) == 8 and start[4:] != b"IDAT":
            size = struct.unpack(">I", start[:4])[0]
            if start[4:] == b"cICP":
                numbers = tuple(file.read(4))
                return numbers if len(numbers) == 4 else None
            file.seek(size + 4, io.SEEK_CUR)
        return None
    finally:
        file.seek(place)


def _by_profile(pixels, mode, profile):
    """`to_srgb` by a profile. Grey pixels may have a profile of RGB, as in browsers. Raises ProfileError."""
    needed = {"RGB": ("RGB",), "L": ("GRAY", "RGB"), "CMYK": ("CMYK",)}[mode]
    if profile.space not in needed:
        raise ProfileError(f"is for {profile.space}")
    if profile.space == "RGB":
        pixels = _as_rgb(pixels)
        kept = profile.data
        if _is_srgb(profile):
            return pixels, kept, ""
        if profile.matrix is not None:
            return _in_strips(pixels, lambda strip: _matrix_to_srgb(strip, profile)), kept, ""
    elif profile.curves:
        rgb = pixels if _is_srgb(profile) else _in_strips(pixels, lambda strip: _grey_to_srgb(strip, profile), 1)
        return _as_rgb(rgb), None, ""
    return _by_little_cms(pixels, profile), None, ""


def _as_rgb(pixels):
    """(H, W, 1 or 3) → (H, W, 3)."""
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels[..., :1], 3, axis=2)


def _in_strips(pixels, convert, channels=3):
    """convert((rows, W, C) in float64) → (rows, W, channels) over strips, together as float32."""
    result = np.empty((*pixels.shape[:2], channels), np.float32)
    for rows in strips(*pixels.shape[:2]):
        result[rows] = convert(pixels[rows].astype(np.float64))
    return result


def strips(height: int, width: int) -> Iterator[slice]:
    """Rows of a picture, in strips that are converted at a time."""
    rows = max(1, _STRIP // width)
    for first in range(0, height, rows):
        yield slice(first, first + rows)


def _matrix_to_srgb(strip, profile):
    light = np.stack([curve(strip[..., i] / 255) for i, curve in enumerate(profile.curves)], axis=-1)
    return _from_linear(light @ profile.to_linear_srgb.T, profile.black)


def _grey_to_srgb(strip, profile):
    light = profile.curves[0](strip / 255)
    return _from_linear(luminance(100 * light) if profile.lightness else light, profile.black)


def _from_linear(light, black=0.0):
    """sRGB in 0..255 of linear light, with a black that becomes 0."""
    return 255 * SRGB_CURVE.inverse((light - black) / (1 - black))


def _lab_to_srgb(strip):
    lightness, a, b = np.moveaxis(strip, -1, 0)
    xyz = np.stack([luminance(lightness + n) for n in (116 / 500 * a, 0, -116 / 200 * b)], axis=-1)
    return _from_linear((xyz * icc_format.D50) @ np.linalg.inv(SRGB_MATRIX).T)


@lru_cache(16)
def _is_srgb(profile):
    """True where a profile of RGB or grey makes of all pixels, within a level, what sRGB makes of them."""
    levels = np.linspace(0, 255, 18)
    if profile.space == "GRAY":
        grey = np.arange(256.0)
        return bool(profile.curves) and np.abs(_grey_to_srgb(grey, profile) - grey).max() <= _ALIKE
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    if profile.matrix is not None:
        return np.abs(_matrix_to_srgb(cube, profile) - cube).max() <= _ALIKE
    return np.abs(_by_little_cms(cube, profile) - cube).max() <= _ALIKE_LUT


def _by_little_cms(pixels, profile):
    """sRGB (H, W, 3) of pixels of the profile's kind. Raises ProfileError where Little CMS rejects the profile."""
    from PIL import Image, ImageCms

    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[profile.space]
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile.data)), ImageCms.createProfile("sRGB"), mode, "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC, _BLACK_POINT,
        )  # fmt: skip
    except ImportError:
        raise ProfileError("needs Little CMS, which this Pillow lacks,") from None
    except (ImageCms.PyCMSError, OSError):
        raise ProfileError("is damaged") from None

    def convert(strip):
        samples = np.rint(strip.clip(0, 255)).astype(np.uint8)
        image = Image.frombytes(mode, samples.shape[1::-1], samples.tobytes())
        return np.asarray(transform.apply(image))

    return _in_strips(pixels, convert)
