"""Options by which an artist controls a run: strength, regions and colour."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import OptionError
from .fields import CONTROL, SHARE, Kind, Settings, as_word, option

_METHODS = ("match:sym", "match:pca", "match:chol", "match:mean")


def _as_color(value):
    word = as_word(value).strip()
    return _METHODS[0] if word == "match" else word


@dataclass(kw_only=True)
class Control(Settings):
    """The controls of a style transfer."""

    strength: float = option(
        1, "0 to 1: from the photograph to the full style (default: %(default)s)", CONTROL, metavar="S", limits=SHARE,
        identity=True,
    )  # fmt: skip
    color: str | None = option(
        None, "colours of the result: style (default); content: the photograph's; match: the style is given the "
        "photograph's colours before the run, by a map that moves them least (match:sym, the same as match), or "
        "match:pca, match:chol or match:mean; luminance: only brightness is transferred",
        CONTROL, kind=Kind(_as_color, "a name is needed"), metavar="NAME", flags=("--colour",),
        choices=("style", "content", *_METHODS, "luminance"),
    )  # fmt: skip
    original_colors: bool | None = option(
        None, "the same as --color content", CONTROL, choices=(0, 1), const=1, flags=("--original-colours",)
    )

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
