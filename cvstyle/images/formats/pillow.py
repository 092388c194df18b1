"""Files and images that Pillow decodes."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import numpy as np

from ...errors import ImageError
from .. import kinds, metadata, profiles
from ..source import Source, cut, rows_of

_ORIENTATION = 274  # tag of EXIF
# Formats that run other programs, are read elsewhere, or whose samples are no colours.
_NEVER = {"EPS", "WMF", "MPEG", "GRIB", "HDF5", "BUFR", "FITS", "SPIDER", "MCIDAS", "TIFF", "PNG"}
# Pillow's mode → the mode and the alpha of a Source, or the mode to convert to.
_MODES = {
    "L": ("L", None), "LA": ("L", "straight"), "La": ("L", "premultiplied"), "RGB": ("RGB", None),
    "RGBA": ("RGB", "straight"), "RGBa": ("RGB", "premultiplied"), "CMYK": ("CMYK", None), "LAB": ("LAB", None),
}  # fmt: skip
_CONVERTED = {"1": "L", "P": "RGB", "PA": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
# Bytes per pixel beside Pillow's image, while it is decoded and afterwards: measured.
_BUFFERS = {"AVIF": (6, 3), "HEIF": (5, 1), "JPEG2000": (16, 0)}
_LONGEST_HEADER = 1 << 22  # bytes of a JPEG 2000 file in which its first marker is looked for
_FRAMES = range(0xC0, 0xD0)  # markers of JPEG: start of frame, without the three that are other things
_NO_FRAMES = (0xC4, 0xC8, 0xCC)
_USUAL_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # baseline, extended, progressive, and the last two by arithmetic coding


def source_of(file, name: str) -> Source:
    """The source of a file in a format of Pillow."""
    head = file.read(kinds.HEAD)
    file.seek(0)
    if head.startswith(b"\xff\xd8"):
        _check_jpeg(file, name)
    image = _opened(file, name, head)
    codes = head.find(b"colrnclx")
    if image.format == "JPEG2000" and "icc_profile" not in image.info:
        image.info["icc_profile"] = _profile_in(head, file)
    if image.format in ("AVIF", "HEIF") and 0 <= codes <= len(head) - 12:
        image.info["nclx"] = struct.unpack(">HH", head[codes + 8 : codes + 12])  # primaries and transfer function
    if image.format in ("JPEG", "MPO"):
        return _jpeg(image, name)
    if image.format == "WEBP" and getattr(image, "n_frames", 1) == 1:
        return _by_opencv(image, name, file)
    if image.format == "JPEG2000" and image.mode.startswith("RGB") and _precision(file) == 16:
        return _by_opencv(image, name, file)
    if image.format == "PSD":
        return _photoshop(image, name, file)
    source = of_image(image, name)
    if image.format == "GIF":
        _uncover(image, source)
    if image.format == "TGA" and source.alpha and not head[17] & 15:  # no bits of opacity, says the descriptor
        source.map_strips(_without_alpha, None)
    if image.format in ("BMP", "DIB", "ICO", "CUR") and source.alpha:
        _fill_unused_alpha(image, name, source)
    source.remarks += _animation(image, name)
    return source


def of_image(image, name: str) -> Source:
    """The source of a Pillow image. Raises ImageError for modes whose numbers do not say what is white."""
    transparent = "transparency" in image.info
    mode = image.mode
    width, height = image.size
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PPM", "PNG")):
        return _sixteen_bits(image, name)
    target = _CONVERTED.get(mode, mode)
    if mode == "P" and image.palette is not None and "A" in image.palette.mode:
        target = "RGBA"
    if transparent and target in ("L", "RGB"):
        target += "A"
    if target not in _MODES:
        raise ImageError(f"{name}: Pillow's mode {mode} does not say what is white; convert it to RGB")
    colours, alpha = _MODES[target]

    def strips(*_):
        image.load()
        return (height, width), _strips(image, target)

    stored = 1 if mode in ("1", "L", "P") else 4
    decoding, held = ((stored + more) * height * width for more in _BUFFERS.get(image.format, (0, 0)))
    return Source(
        (height, width), colours, strips, lambda *_: (decoding, held), alpha,
        **_lab() if colours == "LAB" else {}, orientation=orientation(image), icc=profiles.of_image(image, name),
        metadata=metadata.of_image(image),
    )  # fmt: skip


def tiff_page(file, name: str, number: int) -> Source:
    """The source of a page of a TIFF that Pillow decodes as a whole."""
    from PIL import Image

    file.seek(0)
    image = Image.open(file, formats=["TIFF"])
    image.seek(number)
    return of_image(image, name)


def orientation(image) -> int:
    """The orientation of a Pillow image, 1 where it states none or its metadata are damaged."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's errors about damaged EXIF have no common class
        return 1
    return found if found in range(1, 9) else 1


def _opened(file, name, head):
    from PIL import Image, UnidentifiedImageError

    kind = kinds.heif_kind(head)
    Image.init()
    if kind and not (kind == "AVIF" and "AVIF" in Image.ID):
        _register_heif(name, kind)
    try:
        return Image.open(file, formats=[known for known in Image.ID if known not in _NEVER])
    except UnidentifiedImageError:
        kind = "JPEG" if head.startswith(b"\xff\xd8") else kind
        if kind:
            raise kinds.damaged(name, f"no {kind} header that can be decoded") from None
        raise kinds.unknown(name, head) from None


def _register_heif(name, kind):
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            f"{name}: this is a picture in {kind} format, which needs another package: pip install pillow-heif; "
            "or save it as JPEG"
        ) from None
    pillow_heif.register_heif_opener()


def _strips(image, mode) -> Iterator[np.ndarray]:
    width, height = image.size
    rows = rows_of(width)
    for top in range(0, height, rows):
        part = image.crop((0, top, width, min(height, top + rows)))
        pixels = np.asarray(part if part.mode == mode else part.convert(mode))
        yield _offset_lab(pixels) if mode == "LAB" else pixels.reshape(*pixels.shape[:2], -1)


def _lab():
    """The numbers of black and white for L, a, b of 0..255, where 128 of a and b is neutral: units, not 0..255."""
    return {"black": (0.0, 128.0, 128.0), "white": (255 / 100 * 255, 128 + 255.0, 128 + 255.0)}


def _offset_lab(pixels):
    return pixels ^ np.uint8([0, 128, 128])


def _sixteen_bits(image, name):
    width, height = image.size
    kind = ">u2" if image.mode == "I;16B" else "<u2"
    key = image.info.get("transparency")

    def strips(*_):
        image.load()
        rows = rows_of(width)
        parts = (image.crop((0, top, width, min(height, top + rows))) for top in range(0, height, rows))
        arrays = (np.asarray(part) if part.mode == "I" else np.frombuffer(part.tobytes(), kind) for part in parts)
        grey = (array.astype(np.uint16).reshape(-1, width, 1) for array in arrays)
        return (height, width), (with_key(strip, (key,)) for strip in grey) if isinstance(key, int) else grey

    held = (4 if image.mode == "I" else 2) * height * width
    return Source(
        (height, width), "L", strips, lambda *_: (held, held), "straight" if isinstance(key, int) else None,
        white=65535.0, opaque=65535.0, orientation=orientation(image), icc=profiles.of_image(image, name),
        metadata=metadata.of_image(image),
    )  # fmt: skip


def with_key(strip: np.ndarray, key) -> np.ndarray:
    """A strip with an alpha channel: 0 where the colour is the key, the type's maximum elsewhere."""
    opaque = np.iinfo(strip.dtype).max
    alpha = np.where((strip == np.array(key, strip.dtype)).all(axis=2), 0, opaque).astype(strip.dtype)
    return np.concatenate([strip, alpha[..., None]], axis=2)


def _check_jpeg(file, name):
    """Raises ImageError for the rare kinds of JPEG that are not decoded, by the frame's marker."""
    file.seek(2)
    while (marker := file.read(2)) and marker[0] == 0xFF:
        if marker[1] == 0xFF:  # fill bytes
            file.seek(-1, 1)
        elif marker[1] in _FRAMES and marker[1] not in _NO_FRAMES:
            bits = file.read(3)[-1:]
            if bits not in (b"", b"\x08") or marker[1] not in _USUAL_FRAMES:
                kind = f"{bits[0]}-bit" if bits != b"\x08" else "lossless or hierarchical"
                raise ImageError(f"{name}: this is a {kind} JPEG, which is rare; save it as PNG or TIFF")
            break
        elif not 0xD0 <= marker[1] <= 0xD9 and marker[1] != 1:
            file.seek(max(0, int.from_bytes(file.read(2), "big") - 2), 1)
    file.seek(0)


def _jpeg(image, name):
    """JPEG, decoded by the DCT's low frequencies where the picture is needed at less than half its size."""
    width, height = image.size
    source = of_image(image, name)
    sampling = [across * down for _, across, down, _ in image.layer]
    buffered = image.info.get("progressive", 0) and 2 * height * width * sum(sampling) / max(sampling)

    def scale(needed):
        return next((n for n in (8, 4, 2) if min(height / needed[0], width / needed[1]) >= 4 * n), 1)

    def strips(*needed):
        part = scale(needed)
        if part > 1:
            image.draft(None, (width // part, height // part))
            part = image.decoderconfig[0]
        image.load()
        return (height / part, width / part), _strips(image, image.mode)

    source.strips = strips
    _, full = source.memory(*source.size)

    def memory(*needed):
        held = full / scale(needed) ** 2
        return held + buffered, held

    source.memory = memory
    source.remarks += _stereo(image, name)
    return source


def _stereo(image, name):
    """A remark where a multi-picture file holds several of equal rank: stereo, panorama, several angles."""
    pictures = getattr(image, "mpinfo", {}).get(0xB002, ())
    equal = [entry for entry in pictures if "Multi-Frame" in str(entry["Attribute"]["MPType"])]
    return [f"{name}: the first of {len(pictures)} pictures is used"] if len(equal) > 1 else []


def _animation(image, name):
    """A remark where a file has several frames; in icons they are sizes, of which Pillow takes the largest."""
    if image.format in ("ICO", "CUR", "ICNS", "PSD"):
        return []
    try:
        count = getattr(image, "n_frames", 1)
    except Exception:  # a later frame is damaged
        image.seek(0)
        return [f"{name}: the first of several frames is used, and a later one is damaged"]
    which = {"DCX": f"the first of {count} pages", "HEIF": f"the main one of {count} pictures"}
    return [f"{name}: {which.get(image.format, f'the first of {count} frames')} is used"] if count > 1 else []


def _fill_unused_alpha(image, name, source):
    """Make a bitmap opaque whose alpha is 0 everywhere, as viewers do; its writer left the channel empty."""

    def filled(parts):
        if image.getextrema()[-1] != (0, 0):
            return parts
        if image.format in ("ICO", "CUR"):
            raise ImageError(f"{name}: the icon is transparent everywhere; save it as PNG in a picture program")
        return (part | np.uint8([0, 0, 0, 255]) for part in parts)

    source.map_strips(filled, source.alpha)


def _uncover(image, source):
    """Make transparent what a GIF's first frame leaves of the screen, as browsers do."""
    left, top, right, bottom = image.tile[0][1] if image.tile else (0, 0, *image.size)
    if (left, top, right, bottom) == (0, 0, *image.size):
        return
    has_alpha = source.alpha is not None

    def uncovered(parts):
        row = 0
        for part in parts:
            alpha = part[..., -1:].copy() if has_alpha else np.full((*part.shape[:2], 1), 255, np.uint8)
            rows = np.arange(row, row + len(part))
            alpha[(rows < top) | (rows >= bottom)] = 0
            alpha[:, :left] = 0
            alpha[:, right:] = 0
            row += len(part)
            yield np.concatenate([part[..., :-1] if has_alpha else part, alpha], axis=2)

    source.map_strips(uncovered, "straight")


def _by_opencv(image, name, file):
    """A format that OpenCV decodes into fewer bytes, or without loss of depth; Pillow reads its metadata."""
    width, height = image.size
    has_alpha = "A" in image.mode
    deep = image.format == "JPEG2000"
    file.seek(0, 2)
    length = file.tell()

    def strips(*_):
        file.seek(0)
        pixels = decoded_by_opencv(file.read())
        if pixels.shape[:2] != (height, width) or pixels.shape[2:] != (4 if has_alpha else 3,):
            raise ValueError(f"it decodes to {pixels.shape}")
        return (height, width), cut_rgb(pixels)

    channels = 4 if has_alpha else 3
    white = 65535.0 if deep else 255.0
    held = (2 if deep else 1) * channels * height * width
    decoding = 2 * length + (held + 4 * channels * height * width if deep else 2 * held)
    return Source(
        (height, width), "RGB", strips, lambda *_: (decoding, held),
        "straight" if has_alpha else None, white=white, opaque=white, orientation=orientation(image),
        icc=profiles.of_image(image, name), metadata=metadata.of_image(image),
    )  # fmt: skip


def decoded_by_opencv(data: bytes) -> np.ndarray:
    """Pixels (H, W[, C]) of an encoded picture in OpenCV's order, B, G, R[, alpha]. Raises ValueError."""
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(error.err) from None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        raise ValueError("OpenCV cannot decode it")
    return pixels


def cut_rgb(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Strips in the order R, G, B[, alpha] of pixels in OpenCV's."""
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return (strip[..., order] for strip in cut(pixels))


def _precision(file):
    """Bits of the first component of a JPEG 2000 file, by its SIZ marker (ISO 15444-1, A.5.1), behind its profile."""
    file.seek(0)
    head = file.read(_LONGEST_HEADER)
    file.seek(0)
    at = head.find(b"\xff\x4f\xff\x51")
    return (head[at + 42] & 0x7F) + 1 if at >= 0 and len(head) > at + 42 else 0


def _profile_in(head, file):
    """The colour profile of a JPEG 2000 file, which Pillow passes over, or None (ISO 15444-1, I.5.3.3)."""
    found = re.search(b"(?s)(....)colr(.)..", head)
    if not found or found[2] not in b"\2\3":
        return None
    file.seek(found.end())
    profile = file.read(max(0, int.from_bytes(found[1], "big") - 11))
    file.seek(0)
    return profile


def _photoshop(image, name, file):
    """The composite of a Photoshop document, which its writer may have left out (resource 1057, "VersionInfo")."""
    for number, _, data in image.resources:
        if number == 1057 and data[4:5] == b"\0":
            raise ImageError(
                f"{name}: this Photoshop document holds its layers only; save it with 'Maximize Compatibility', "
                "or as TIFF"
            )
    source = of_image(image, name)
    if image.mode == "1":  # 1 is ink
        source.black, source.white = source.white, source.black
    if source.alpha and not _layers_are_transparent(file):  # a saved selection
        source.map_strips(_without_alpha, None)
    elif source.alpha:  # colours are blended with white
        source.map_strips(_without_white, "premultiplied")
    return source


def _without_alpha(strips):
    return (strip[..., :-1] for strip in strips)


def _without_white(strips):
    def one(strip):
        white = 255 - strip[..., -1:]
        return np.concatenate([np.maximum(strip[..., :-1], white) - white, strip[..., -1:]], axis=2)

    return map(one, strips)


def _layers_are_transparent(file):
    """True where the composite's fourth channel is its transparency: the number of layers is negative (Adobe's
    specification of the format, "Layer info")."""
    file.seek(26)
    for _ in range(2):  # colour mode data, image resources
        file.seek(struct.unpack(">I", file.read(4))[0], 1)
    layers, info = struct.unpack(">II", file.read(8))
    return bool(layers and info) and struct.unpack(">h", file.read(2))[0] < 0
