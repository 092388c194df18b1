"""Style losses, a file for each kind; all are functions of the moments of a layer's map (`moments`).

They are scaled so that a weight means about the same for each, whatever the scale of the features.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from ... import fields
from ...fields import NETWORK, NONNEGATIVE, WEIGHTS, Settings, option
from ..base import Loss
from ..layers import KINDS, checked_kind, checked_weight, weighted_layers


@dataclass(kw_only=True)
class Options(Settings):
    """None means the network's default; layers are given as in `Objective`."""

    style_layers: Sequence | None = option(
        None, "layers for style, each with an optional factor and style loss, or a preset: gatys (the default), "
        "falling, all, fine or coarse", NETWORK, kind=fields.LAYERS, metavar="A,B:2@LOSS", identity=True,
    )  # fmt: skip
    style_weight: float | None = option(
        None, "default: that of the network", WEIGHTS, metavar="W", limits=NONNEGATIVE,
        identity=True,
    )  # fmt: skip
    style_loss: str | None = option(
        None, "statistics of style that are compared: gram (default), covariance, shifted or wasserstein (default of "
        "textures)", WEIGHTS, choices=tuple(KINDS), identity=True,
    )  # fmt: skip


def create(style_weight=100.0, style_layers=(), style_loss="gram") -> list[Loss]:
    """One loss per layer (an entry for `parse_entry`), with the full weight times the factor."""
    kind = checked_kind(style_loss, "--style-loss")
    entries = weighted_layers(style_layers, checked_weight(style_weight, "style_weight"))
    return [kind_class(entry.kind or kind)(f"style:{entry.name}", entry.name, entry.factor) for entry in entries]


def kind_class(kind: str) -> type[Loss]:
    """The class of a kind, which is imported when asked for: some need NumPy."""
    return getattr(importlib.import_module(f"{__name__}.{kind}"), KINDS[kind])
