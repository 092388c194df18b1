"""TIFF (TIFF 6.0, with its supplements): tifffile parses the directories, `tiff_samples` decodes the page."""

from __future__ import annotations

import logging
import math

import numpy as np

from ...errors import ImageError
from .. import metadata
from ..picture import PROFILE
from ..source import Source
from .tiff_samples import Samples

_GREY_INVERTED = 0  # photometric interpretations
_GREY = 1
_RGB = 2
_PALETTE = 3
_MASK = 4
_CMYK = 5
_YCBCR = 6
_LAB = 8
_ICC_LAB = 9
_SENSOR = {32803: "colour filter array", 34892: "linear raw"}
_MODES = {
    _GREY_INVERTED: ("L", 1), _GREY: ("L", 1), _RGB: ("RGB", 3), _PALETTE: ("RGB", 1), _CMYK: ("CMYK", 4),
    _YCBCR: ("RGB", 3), _LAB: ("LAB", 3), _ICC_LAB: ("LAB", 3),
}  # fmt: skip
_SUBFILE = 254  # tags
_OLD_SUBFILE = 255
_MAKE = 271
_ORIENTATION = 274
_COLORMAP = 320
_INK_SET = 332
_SMIN = 340
_SMAX = 341
_DEPTH = 32997
_REDUCED = 1  # bits of the subfile's type
_PART_MASK = 4
_ASSOCIATED = 1  # kinds of an extra channel
_UNASSOCIATED = 2
_DEPTH_OF_FILES = 4  # of subfiles within subfiles

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else its remarks on odd files go to the terminal


def source_of(file, name: str) -> Source:
    """The source of the largest full-resolution page."""
    import tifffile

    tiff = tifffile.TiffFile(file)
    page, remarks = _largest(tiff, name)
    described = tiff.imagej_metadata or {}
    return _source_of_page(file, page, name, described, remarks)


def _largest(tiff, name):
    """(the largest page that is neither a preview nor a mask, remarks). Raises ImageError for camera raw."""
    pages = list(_pages(tiff.pages, _DEPTH_OF_FILES, set()))
    if not pages:
        raise ValueError("no page")
    for page in pages:
        if int(page.photometric) in _SENSOR:
            make = str(_tag(pages[0], _MAKE, "")).strip("\0 ")
            kind = f"camera raw file ({make})" if make else "camera raw file"
            raise ImageError(f"{name}: this is a {kind}, the sensor's values; export it as a 16-bit TIFF or a JPEG")
    full = [page for page in pages if not _is_preview(page)] or pages
    chosen = max(full, key=lambda page: page.imagewidth * page.imagelength)
    if len(full) == 1:
        return chosen, []
    number = next(n for n, page in enumerate(full, 1) if page is chosen)
    sizes = {(page.imagewidth, page.imagelength) for page in full}
    largest = ", the largest," if len(sizes) > 1 else ""
    return chosen, [f"{name}: page {number} of {len(full)}{largest} is used"]


def _pages(pages, depth, seen):
    """The pages and their subfiles, each once: in damaged files directories lead back to others. seen: offsets."""
    for page in pages:
        if page.offset in seen:
            return
        seen.add(page.offset)
        page = page if hasattr(page, "tags") else page.aspage()
        yield page
        if page.subifds and depth:
            yield from _pages(page.pages, depth - 1, seen)


def _is_preview(page):
    kind = int(_tag(page, _SUBFILE, 0))
    old = _tag(page, _OLD_SUBFILE, 1)  # 2 is reduced
    return bool(kind & (_REDUCED | _PART_MASK)) or old == 2 or int(page.photometric) == _MASK


def _tag(page, code, default=None):
    return page.tags[code].value if code in page.tags else default


def _source_of_page(file, page, name, described, remarks):
    photometric = int(page.photometric)
    mode, colours = _MODES.get(photometric, ("", 0))
    if not mode:
        kind = getattr(page.photometric, "name", photometric)
        raise ImageError(f"{name}: a TIFF of {kind} cannot be read; save it as RGB of 16 bits")
    if _tag(page, _DEPTH, 1) > 1:
        raise ImageError(f"{name}: this TIFF is a volume of {_tag(page, _DEPTH)} layers; save one of them as a picture")
    if photometric == _CMYK and (_tag(page, _INK_SET, 1) != 1 or page.samplesperpixel < 4):
        raise ImageError(f"{name}: this TIFF has other inks than cyan, magenta, yellow and black; save it as RGB")
    samples = Samples(file, page, name)
    chosen, alpha, more = _channels(page, colours, name)
    numbers = _numbers(page, samples, mode, described, name)
    whole = samples.strips
    all_channels = chosen == list(range(page.samplesperpixel))

    def strips(*_):
        prepared = _prepared(page, photometric, samples.full)
        return samples.size, (prepared(strip if all_channels else strip[..., chosen]) for strip in whole())

    white = samples.full
    return Source(
        samples.size, mode, strips, samples.memory, alpha, **numbers, opaque=white,
        orientation=_tag(page, _ORIENTATION, 1), icc=_profile(page), remarks=[*remarks, *more],
        metadata=metadata.of_tags(page.tags),
    )  # fmt: skip


def _profile(page):
    profile = _tag(page, PROFILE)
    return bytes(profile) if isinstance(profile, (bytes, bytearray)) else None


def _channels(page, colours, name):
    """(indices of the channels used, the alpha, remarks).

    An extra channel without a stated kind is a saved selection, or a measurement; a fourth channel of RGB that is not
    mentioned at all is alpha, as in most programs.
    """
    count = page.samplesperpixel
    kinds = [int(kind) for kind in page.extrasamples]
    if count < colours:
        raise ImageError(f"{name}: a TIFF with {count} of {colours} channels is no picture; save it as RGB")
    if not kinds and colours == 3 and count == 4:
        kinds = [_UNASSOCIATED]
    kinds += [0] * (count - colours - len(kinds))
    found = next((n for n, kind in enumerate(kinds) if kind in (_ASSOCIATED, _UNASSOCIATED)), None)
    used = list(range(colours))
    if found is None and colours == 1 and count > 1:
        raise ImageError(
            f"{name}: a TIFF of {count} channels without colours is no picture; save the channel, or save as RGB"
        )
    unused = count - colours - (found is not None)
    remarks = [f"{name}: {unused} more channel{'s' * (unused > 1)} than a picture has are not used"] if unused else []
    if found is None:
        return used, None, remarks
    return [*used, colours + found], "premultiplied" if kinds[found] == _ASSOCIATED else "straight", remarks


def _numbers(page, samples, mode, described, name):
    """The samples of black and white, by the type or by the range that the file states."""
    stated = (_tag(page, _SMIN), _tag(page, _SMAX))
    if stated == (None, None) and "min" in described and "max" in described:
        stated = (described["min"], described["max"])
    kind = samples.kind
    if mode == "LAB":
        return _lab_numbers(page, samples, name)
    if int(page.photometric) == _PALETTE:
        return {}
    if kind == "u":
        return {"white": samples.full}
    if None not in stated:
        low = float(np.min(stated[0]))
        high = float(np.max(stated[1]))
        if high > low and math.isfinite(high - low):
            return {"black": low, "white": high, "bounded": True}
    if kind == "i":
        raise ImageError(
            f"{name}: a TIFF of int{samples.bits} does not say which numbers are black and white; save it as "
            "16-bit TIFF or PNG without signs"
        )
    return {"white": 1.0, "bounded": True}


def _lab_numbers(page, samples, name):
    """Black and white of L, a, b in their own units, for 255 steps (TIFF 6.0, section 23; ICC for 16 bits)."""
    if samples.kind == "f":
        return {}
    if samples.bits not in (8, 16):
        raise ImageError(f"{name}: a TIFF of CIELAB in {samples.bits} bits cannot be read; save it as RGB of 16 bits")
    unit = 1 if samples.bits == 8 else 256
    # 16-bit ICCLAB encodes L = 100 as 0xff00 and neutral as 0x8000.
    hundred = 255 if samples.bits == 8 else 65280 if int(page.photometric) == _ICC_LAB else 65535
    neutral = 128.0 * unit
    return {"black": (0.0, neutral, neutral), "white": (hundred * 2.55, neutral + 255 * unit, neutral + 255 * unit)}


def _prepared(page, photometric, full):
    """A function of strips that makes the channels those of the mode."""
    if photometric == _GREY_INVERTED:
        return lambda strip: _inverted(strip, full)
    if photometric == _PALETTE:
        table = np.asarray(_tag(page, _COLORMAP)).reshape(3, -1).T
        table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
        return lambda strip: np.concatenate([table[strip[..., 0]], strip[..., 1:].astype(np.uint8)], axis=2)
    if photometric == _LAB:
        return _unsigned_lab
    return lambda strip: strip


def _inverted(strip, full):
    strip = strip.copy()
    strip[..., 0] = strip.dtype.type(full) - strip[..., 0]
    return strip


def _unsigned_lab(strip):
    """a and b with 128 (of 8 bits) for neutral; floats have no need of it."""
    if strip.dtype.kind == "f":
        return strip
    strip = strip.copy()
    strip[..., 1:3] ^= strip.dtype.type(1 << (8 * strip.dtype.itemsize - 1))
    return strip
