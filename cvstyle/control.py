"""Options by which an artist controls a run: strength, regions and colour."""

from __future__ import annotations

from dataclasses import dataclass

from . import fields
from .fields import CONTROL, SHARE, Settings, option


def _as_wrap(value: object) -> str | None:
    """"xy" from "xy", "yx" or "XY"; None from "off"."""
    text = "".join(sorted(fields.as_word(value).strip()))
    if text not in ("x", "y", "xy"):
        raise ValueError
    return text


_WRAP = fields.Kind(_as_wrap, "x, y or xy is needed", "is not x, y or xy", {"off": None, "none": None})


@dataclass(kw_only=True)
class Control(Settings):
    """The controls of a style transfer."""

    strength: float = option(
        1, "0 to 1: from the photograph to the full style (default: %(default)s)", CONTROL, metavar="S", limits=SHARE,
        identity=True,
    )  # fmt: skip
    wrap: str | None = option(
        None, "the picture repeats without a seam: from left to right (x), from top to bottom (y) or both (xy)",
        CONTROL, kind=_WRAP, metavar="x|y|xy", flags=("--tile",), identity=True,
    )  # fmt: skip
