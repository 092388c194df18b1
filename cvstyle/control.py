"""Options by which an artist controls a run: strength, regions and colour; and the canvas of a texture."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

from . import fields
from .errors import OptionError
from .fields import CONTROL, NONNEGATIVE, PICTURES, SHARE, Kind, Settings, as_word, option
from .formatting import counted

_METHODS = ("match:sym", "match:pca", "match:chol", "match:mean")


def _as_color(value):
    word = as_word(value).strip()
    return _METHODS[0] if word == "match" else word


def _as_masks(value):
    """Paths from text such as "sky.png,houses.png"; paths and `Picture`s from a list of masks or from one mask."""
    if isinstance(value, str | os.PathLike):
        return fields.as_paths(value)
    if not isinstance(value, list | tuple):
        value = [value]
    return [_as_mask(mask, number) for number, mask in enumerate(value, 1)] or None


def _as_mask(mask, number):
    if isinstance(mask, str | os.PathLike):
        return fields.PATH.convert(mask)
    from .images.masks import as_mask  # imported late: it needs NumPy

    return as_mask(mask, f"mask {number}")


def _as_factors(value):
    """[("sky", 2.0), ("houses", 0.5)] from "sky:2,houses:0.5" or a mapping; [(None, 2.0), (None, 0.5)] from "2,0.5"."""
    if isinstance(value, Mapping):
        value = value.items()
    factors = [_as_factor(item) for item in fields.as_items(value)]
    if not factors or len({name is None for name, _ in factors}) > 1:
        raise ValueError
    return factors


def _as_factor(item):
    name = None
    if isinstance(item, str):
        name, _, item = item.rpartition(":")
        name = name.strip()
    elif isinstance(item, tuple | list):
        name, item = item
    number = fields.as_float(item)
    if not (math.isfinite(number) and number >= 0 and isinstance(name, str | None)):
        raise ValueError
    return (name or None, number)


_MASKS = Kind(_as_masks, "masks such as sky.png,houses.png are needed", "can be no file on this machine")
_FACTORS = "numbers that are not negative, as in sky:2,houses:0.5 or 2,0.5, are needed"
_WEIGHTS = Kind(
    _as_factors, f"area, equal, or {_FACTORS}", "is neither area nor equal, nor such as sky:2,houses:0.5 or 2,0.5",
    {"area": "area", "equal": "equal"},
)  # fmt: skip

def _as_wrap(value: object) -> str | None:
    """"xy" from "xy", "yx" or "XY"; None from "off"."""
    text = "".join(sorted(fields.as_word(value).strip()))
    if text not in ("x", "y", "xy"):
        raise ValueError
    return text


def _as_size(value: object) -> tuple[int, int]:
    """(height, width) from "2048x1024", width first, from one number for both, or from (height, width)."""
    if isinstance(value, str):
        sides = re.fullmatch(r"(\d+)(?: *(?:[x×*]|px) *(\d+))?", value.strip().lower().removesuffix("px").rstrip())
        value = [sides[2] or sides[1], sides[1]]
    elif isinstance(value, Real):
        value = [value, value]
    height, width = map(fields.as_int, value)
    if min(height, width) < 1:
        raise ValueError
    return height, width


_SIZE = fields.Kind(
    _as_size, "a size such as 1024, \"2048x1024\" (width first) or (height, width) is needed",
    "is no size such as 1024 or 2048x1024 (width first)",
)  # fmt: skip
_WRAP = fields.Kind(_as_wrap, "x, y or xy is needed", "is not x, y or xy", {"off": None, "none": None})


@dataclass(kw_only=True)
class Control(Settings):
    """The controls of a style transfer.

    Masks are paths or other forms of pictures, which become `Picture`s; factors of regions by name, or in their order.
    """

    strength: float = option(
        1, "0 to 1: from the photograph to the full style (default: %(default)s)", CONTROL, metavar="S", limits=SHARE,
        of_content=True, identity=True,
    )  # fmt: skip
    color: str | None = option(
        None, "colours of the result: style (default); content: the photograph's; match: the style is given the "
        "photograph's colours before the run, by a map that moves them least (match:sym, the same as match), or "
        "match:pca, match:chol or match:mean; luminance: only brightness is transferred",
        CONTROL, kind=Kind(_as_color, "a name is needed"), metavar="NAME", flags=("--colour",),
        choices=("style", "content", *_METHODS, "luminance"), of_content=True,
    )  # fmt: skip
    original_colors: bool | None = option(
        None, "the same as --color content", CONTROL, choices=(0, 1), const=1, flags=("--original-colours",),
        of_content=True,
    )  # fmt: skip
    wrap: str | None = option(
        None, "the picture repeats without a seam: from left to right (x), from top to bottom (y) or both (xy)",
        CONTROL, kind=_WRAP, metavar="x|y|xy", flags=("--tile",), identity=True,
    )  # fmt: skip
    mask: Sequence | None = option(
        None, "where each style is painted: for each a grey picture, white there; or, with --style-mask, one picture "
        "with a colour for each region", CONTROL, kind=_MASKS, metavar="FILE[,FILE]", repeated=True, of_content=True,
    )  # fmt: skip
    style_mask: Sequence | None = option(
        None, "for each style a picture with the colours of --mask: a region is painted with that of its colour",
        CONTROL, kind=_MASKS, metavar="FILE[,FILE]", repeated=True, of_content=True,
    )  # fmt: skip
    mask_mode: str = option(
        "simple", "%(default)s (default): a position of a layer belongs to the regions of its pixels; inside: to one "
        "only if it sees nothing else", CONTROL, choices=("simple", "inside"), of_content=True, identity=True,
    )  # fmt: skip
    mask_feather: float = option(
        4, "pixels of the result over which the borders of regions are soft (default: %(default)s)", CONTROL,
        metavar="N", limits=NONNEGATIVE, unit="pixels", of_content=True, identity=True,
    )  # fmt: skip
    region_weights: str | Sequence = option(
        "area", "weight of the style in the regions: by area (default), equal, or factors of that by area, as "
        "sky:2,houses:0.5 or 2,0.5", CONTROL, kind=_WEIGHTS, metavar="area|equal|NAME:X,...", of_content=True,
        identity=True,
    )  # fmt: skip
    region_content: Sequence | None = option(
        None, "factors of the content weight in the regions, as sky:0 or 0,1: 0 holds nothing of the photograph, more "
        "than 1 keeps it", CONTROL, kind=Kind(_as_factors, _FACTORS, f"is not right; {_FACTORS}"),
        metavar="NAME:X,...", of_content=True, identity=True,
    )  # fmt: skip

    @property
    def colors(self) -> str:
        """The value of color, of which original_colors is another name."""
        return self.color or ("content" if self.original_colors else "style")

    @property
    def matching(self) -> str:
        """The method by which styles are recoloured before the run (see `images.recoloured`); "" for none."""
        return self.colors.removeprefix("match:") if self.colors not in ("style", "content") else ""

    def check_colors(self) -> None:
        """Raises OptionError where color and original_colors contradict each other."""
        as_content = self.color == "content"
        if None in (self.color, self.original_colors) or self.original_colors == as_content:
            return
        if self.original_colors or as_content:
            stated = "keeps the photograph's colours" if self.original_colors else "is 0"
            raise OptionError(f"--original-colors {stated}, and --color is {self.color}; leave one of them out")

    def check_masks(self, styles: int) -> None:
        """Raises OptionError where masks do not fit each other or the number of styles."""
        masks, style_masks = (len(given or ()) for given in (self.mask, self.style_mask))
        if style_masks and not masks:
            raise OptionError(
                "--style-mask pairs regions by colour with those of the photograph, whose picture is missing: give it "
                "as --mask"
            )
        if style_masks and masks > 1:
            raise OptionError(
                f"--mask is {masks} pictures; with --style-mask it is one, with a colour for each region; leave "
                "--style-mask out if each of these shows where a style is painted"
            )
        if style_masks not in (0, styles):
            given = counted(style_masks)
            raise OptionError(f"--style-mask is {given} for {counted(styles, 'style')}; give one for each")
        if masks not in (0, styles) and not style_masks:
            raise OptionError(
                f"--mask is {counted(masks)} for {counted(styles, 'style')}; give one for each style, or one with a "
                "colour for each region and --style-mask with the same colours"
            )


@dataclass(kw_only=True)
class Canvas(Settings):
    """The empty picture that a texture fills: the `content` of a `Job`, which then needs no photograph."""

    size: tuple[int, int] | None = option(
        None, "width and height of the texture in pixels, or one number for both (default: those of the first picture, "
        "reduced to 1024 pixels if it is larger)", PICTURES, kind=_SIZE, metavar="WxH",
    )  # fmt: skip
    """(height, width)."""
