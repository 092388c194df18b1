"""Options by which an artist controls a run: strength, regions and colour; and the canvas of a texture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Real

from . import fields
from .fields import CONTROL, PICTURES, SHARE, Settings, option


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
    """The controls of a style transfer."""

    strength: float = option(
        1, "0 to 1: from the photograph to the full style (default: %(default)s)", CONTROL, metavar="S", limits=SHARE,
        of_content=True, identity=True,
    )  # fmt: skip
    wrap: str | None = option(
        None, "the picture repeats without a seam: from left to right (x), from top to bottom (y) or both (xy)",
        CONTROL, kind=_WRAP, metavar="x|y|xy", flags=("--tile",), identity=True,
    )  # fmt: skip


@dataclass(kw_only=True)
class Canvas(Settings):
    """The empty picture that a texture fills: the `content` of a `Job`, which then needs no photograph."""

    size: tuple[int, int] | None = option(
        None, "width and height of the texture in pixels, or one number for both (default: those of the first picture, "
        "reduced to 1024 pixels if it is larger)", PICTURES, kind=_SIZE, metavar="WxH",
    )  # fmt: skip
    """(height, width)."""
