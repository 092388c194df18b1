"""Masks: pictures that say which part of another picture belongs to a region.

A mask is grey, with weights from black (0) to white (1), or of flat colours, one for each region. Files of flat colours
are not quite that: JPEG and anti-aliasing make further ones. A region's colour is one that fills areas; other pixels
belong to the colour nearest to theirs among those that are near them in the picture, so that a border of red and blue
has no line of purple.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from ..errors import ImageError
from .accept import as_picture
from .alpha import is_opaque
from .picture import Picture
from .resize import resize, target_size

_MOST_PIXELS = 1 << 23  # of a mask of colours that is read without a reduction, which would mix the colours
_DARK = 32  # levels below which all values of a mask are numbers of regions, 0, 1, 2, as programs write them
_SURE = 4  # levels by which a pixel of an area may differ from the area's colour
_APART = 24  # levels by which colours of regions differ at least, in one channel
_AREA = 1e-3  # share of the pixels that a region's colour has at least, in areas
_EXACT = 16  # the most colours of a mask that is exact, in which any area is a region's, however small
_PLENTY = 0.03  # share with which a colour without areas, such as stripes, is a region's
_COVERED = 0.75  # share of the pixels that regions' colours have together
_MOST_COLOURS = 64
_CANDIDATES = 1024  # the most frequent colours, among which those of regions are
_NEAR = 7  # pixels: the side of the square in which a pixel's colour is looked for
_BLACK = 0.02  # the most that a mask of numbers 0, 1, 2 has, of 1; as weights these are hardly a style
_COLOURED = 48  # difference of channels from which a pixel is coloured; JPEG gives grey less
_FINE = 8  # pixels of a mask's standard deviation in a blur at least
_FLAT = 8  # levels within which a transparent mask's colours are one, so that its alpha is meant


def as_mask(thing, role: str = "mask", size: tuple[int, int] | None = None, colours: bool = False) -> Picture:
    """The picture of a mask: as `as_picture`, also from arrays of bools, of floats 0..1 and of whole numbers.

    An array (H, W) of whole numbers other than uint8 and uint16 has a region for each number from 0 to 255. size: the
    (height, width) at which a mask of weights is read, or a very large one of `colours`. Raises ImageError.
    """

    def fit(height, width):
        if colours and height * width <= _MOST_PIXELS:
            return height, width
        return target_size(*size, max(size))

    return as_picture(_plain(thing, role), role, fit if size else None)


def _plain(thing, role):
    """A mask's array in a form that `as_picture` takes; all else as it is."""
    if not isinstance(thing, np.ndarray) or not thing.size:
        return thing
    if thing.dtype.kind == "b":
        return thing.astype(np.uint8) * np.uint8(255)
    if thing.dtype.kind == "f" and np.isfinite(thing).all() and thing.min() >= 0 and thing.max() <= 1:
        return thing.astype(np.float32) * np.float32(255)
    if thing.dtype.kind in "iu" and thing.dtype not in (np.uint8, np.uint16):
        if thing.min() < 0 or thing.max() > 255:
            raise ImageError(f"{role}: its numbers are {thing.min()} to {thing.max()}; regions have 0 to 255")
        return thing.astype(np.uint8)
    return thing


def check_proportions(mask: Picture, role: str, picture: Picture, of: str) -> None:
    """Raises ImageError where a mask has another aspect ratio than its picture, beyond rounding and 1 %."""
    height, width = mask.proportions
    rows, columns = picture.proportions
    fitting = (abs(height - width * rows / columns), abs(width - height * columns / rows))
    if fitting[0] > max(1, 0.01 * height) and fitting[1] > max(1, 0.01 * width):
        raise ImageError(
            f"{role}: the mask is {width}×{height} and {of} is {columns}×{rows}; a mask needs the aspect ratio of its "
            "picture: draw it on a copy of the picture, or crop it likewise"
        )


def weights(mask: Picture, role: str, size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 of 0..1 from a grey mask, at a (height, width).

    Of a mask with transparency and one colour alone, the opacity counts; of others, transparent parts are black. Raises
    ImageError for a mask with colours, or without anything above black.
    """
    alpha = None if is_opaque(mask.alpha) else mask.alpha.clip(0, 1)
    if alpha is not None and not alpha.any():
        raise ImageError(f"{role}: the mask is transparent everywhere, so nothing is painted; make its region white")
    visible = mask.rgb if alpha is None else mask.rgb[alpha > 0]
    ends = visible.reshape(-1, 3).min(axis=0), visible.reshape(-1, 3).max(axis=0)
    if alpha is not None and np.ptp(ends, axis=0).max() <= _FLAT:
        values = alpha
    else:
        coloured = float((np.ptp(visible, axis=-1) > _COLOURED).mean())
        if coloured > 0.01:
            way_out = (
                "for regions by colour give the styles' regions too, as --style-mask" if alpha is None
                else "fill what is not transparent with white"
            )  # fmt: skip
            raise ImageError(
                f"{role}: {coloured:.0%} of the mask is coloured, and a mask of a style is grey, white where the style "
                f"is painted; {way_out}"
            )
        values = mask.rgb.clip(0, 255).mean(axis=-1) / np.float32(255)
        values = values if alpha is None else values * alpha
    values = resized(values, size)
    if not values.any():
        raise ImageError(f"{role}: the mask is black everywhere, so nothing is painted; make its region white")
    if (most := float(values.max())) < _BLACK:
        raise ImageError(
            f"{role}: the mask is almost black, {255 * most:.3g} of 255 where it is brightest; make its region white, "
            "255, or give an array of bools"
        )
    return values


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) at another (height, width), by area averages or linear, so that masks of sum 1 keep it."""
    mask = np.ascontiguousarray(mask, np.float32)
    if is_even(mask):  # without rounding
        return np.full(size, mask.flat[0])
    if any(new > old for new, old in zip(size, mask.shape)):
        return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_LINEAR)
    return resize(mask[..., None], size)[..., 0]


def is_even(mask: np.ndarray) -> bool:
    """True for a mask of one value."""
    return bool(mask.min() == mask.max())


def feathered(mask: np.ndarray, width: float, repeats: Collection[int] = ()) -> np.ndarray:
    """A mask with borders that rise over about `width` pixels; masks of sum 1 keep it, and even ones their values.

    repeats: the axes along which the picture repeats, where a border at an edge rises over both ends.
    """
    if width <= 0 or is_even(mask):
        return mask
    sigma = min(width / 2, 2 * max(mask.shape))  # more makes every mask even
    around = [min(2 * n, math.ceil(4 * sigma)) if axis in repeats else 0 for axis, n in enumerate(mask.shape)]
    seen = np.pad(mask, [(n, n) for n in around], "wrap") if any(around) else mask
    rows, columns = (slice(edge, edge + n) for edge, n in zip(around, mask.shape))
    return _blurred(seen, sigma)[rows, columns].clip(0, 1)


def _blurred(mask, sigma):
    """The mask after a Gaussian blur; a wide one is of a smaller mask, since its time grows with the cube of sigma."""
    step = max(1, int(sigma / _FINE))
    size = tuple(math.ceil(n / step) for n in mask.shape)
    small = resize(np.ascontiguousarray(mask)[..., None], size)[..., 0] if step > 1 else mask
    down, across = (sigma * new / old for new, old in zip(size, mask.shape))
    blurred = cv2.GaussianBlur(small, (0, 0), across, sigmaY=down, borderType=cv2.BORDER_REFLECT)
    return cv2.resize(blurred, mask.shape[::-1], interpolation=cv2.INTER_LINEAR) if step > 1 else blurred


@dataclass(frozen=True, eq=False)
class ColourRegion:
    """A region of a mask of colours. rgb: its colour. mask: (H, W) of 0..1. share: that of the mask's pixels."""

    rgb: tuple[int, int, int]
    mask: np.ndarray
    share: float

    @property
    def name(self) -> str:
        """CSS's name of the colour, or #rrggbb."""
        return colour_name(self.rgb)

    def matches(self, rgb: tuple[int, int, int]) -> bool:
        """True for the same colour, as far as JPEG keeps it; numbers of regions must be the same."""
        apart = max(abs(a - b) for a, b in zip(self.rgb, rgb))
        return apart < (1 if max(*self.rgb, *rgb) < _DARK else _APART)


def colour_name(rgb: tuple[int, int, int]) -> str:
    """CSS's name of a colour, or #rrggbb."""
    return _css_names().get(tuple(rgb), "#{:02x}{:02x}{:02x}".format(*rgb))


@cache
def _css_names():
    """Colour → its first name in CSS."""
    from PIL import ImageColor

    names = {}
    for name in list(ImageColor.colormap):
        names.setdefault(ImageColor.getrgb(name), name)
    return names


def colour_regions(mask: Picture, role: str, size: tuple[int, int]) -> list[ColourRegion]:
    """The regions of a mask of colours at a (height, width), the largest first; what is transparent is in none.

    Raises ImageError for a picture that is no mask of colours.
    """
    levels = np.rint(mask.rgb.clip(0, 255)).astype(np.uint8)
    alpha = None if is_opaque(mask.alpha) else mask.alpha.clip(0, 1)
    visible = np.ones(levels.shape[:2], bool) if alpha is None else alpha >= 0.5
    if not visible.any():
        raise ImageError(f"{role}: the mask is transparent everywhere, so it has no region; paint regions in colours")
    palette, sure, radius = _palette(levels, visible)
    if not palette or (sure >= 0)[visible].mean() < _COVERED:
        raise ImageError(
            f"{role}: this is no mask of colours but like a photograph; a mask has a few flat colours, one for each "
            "region"
        )
    numbers = _nearest(levels, palette, sure) if radius else sure
    found = []
    for number, colour in enumerate(palette):
        values = ((numbers == number) & visible).astype(np.float32)
        share = float(values.mean(dtype=float))
        if alpha is not None:
            values *= alpha
        found.append(ColourRegion(colour, resized(values, size), share))
    return sorted((region for region in found if region.mask.any()), key=lambda region: -region.share)


def _palette(levels, visible):
    """(colours of the regions, each pixel's index among them or -1 where that is not sure, the radius of sureness)."""
    codes = levels.astype(np.int32) @ np.int32([1 << 16, 1 << 8, 1])
    found, indices, counts = np.unique(codes[visible], return_inverse=True, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:_CANDIDATES]
    rank = np.full(len(found) + 1, len(frequent))  # the last rank is that of all other pixels
    rank[frequent] = np.arange(len(frequent))
    ranks = np.full(codes.shape, len(frequent))
    ranks[visible] = rank[indices.reshape(-1)]
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)[frequent]
    radius, apart = (0, 1) if levels[visible].max() < _DARK else (_SURE, _APART)
    palette = []
    index_of = np.full(len(frequent) + 1, -1)
    for colour in colours:
        if any(np.abs(colour - other).max() < apart for other in palette):
            continue
        near = np.append(np.abs(colours - colour).max(axis=1) <= radius, False)
        share = counts[frequent][near[:-1]].sum() / counts.sum()
        large = share >= _AREA or len(found) <= _EXACT
        if not radius or share >= _PLENTY or (large and _has_area(near[ranks])):
            index_of[near & (index_of < 0)] = len(palette)
            palette.append(colour)
            if len(palette) > _MOST_COLOURS:
                return [], index_of[ranks], radius
    sure = index_of[ranks]
    if len(found) > len(palette):  # a border of two colours may have pixels of a third one
        for index in range(len(palette)):
            own = (sure == index).astype(np.uint8)
            areas = cv2.morphologyEx(own, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
            if areas.any():
                sure[own > areas] = -1
    return [_snapped(colour) if radius else tuple(map(int, colour)) for colour in palette], sure, radius


def _has_area(chosen):
    """True where a 3×3 square of pixels is True."""
    return bool(cv2.erode(chosen.astype(np.uint8), np.ones((3, 3), np.uint8)).any())


def _snapped(colour):
    """The colour of CSS that a colour (3,) is but for JPEG's noise, else the colour."""
    close = (named for named in _css_names() if np.abs(np.subtract(named, colour)).max() <= _SURE)
    return next(close, tuple(map(int, colour)))


def _nearest(levels, palette, sure):
    """Each pixel's index in the palette: that of `sure`, or of the nearest colour among those near in the picture."""
    open_pixels = np.nonzero(sure < 0)
    own = levels[open_pixels].astype(np.float32)
    best = np.full(len(own), np.inf, np.float32)
    result = sure.copy()
    chosen = np.zeros(len(own), sure.dtype)
    square = np.ones((_NEAR, _NEAR), np.uint8)
    for index, colour in enumerate(palette):
        far = cv2.dilate((sure == index).astype(np.uint8), square)[open_pixels] == 0
        distances = ((own - np.float32(colour)) ** 2).sum(axis=1) + far * np.float32(1e6)
        chosen[distances < best] = index
        np.minimum(best, distances, out=best)
    result[open_pixels] = chosen
    return result
