"""Options by which an artist controls a run: strength, regions and colour."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import CONTROL, SHARE, Settings, option


@dataclass(kw_only=True)
class Control(Settings):
    """The controls of a style transfer."""

    strength: float = option(
        1, "0 to 1: from the photograph to the full style (default: %(default)s)", CONTROL, metavar="S", limits=SHARE,
        identity=True,
    )  # fmt: skip
