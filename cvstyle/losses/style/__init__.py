"""Style losses, a file for each kind; all are functions of the moments of a layer's map (`moments`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ... import fields
from ...fields import NETWORK, NONNEGATIVE, WEIGHTS, Settings, option
from ..base import Loss, checked_weight, layer_weights
from .gram import Gram


@dataclass(kw_only=True)
class Options(Settings):
    """None means the network's default; layers are given as in `Objective`."""

    style_layers: Sequence | None = option(
        None, "layers for style", NETWORK, kind=fields.LAYERS, metavar="A,B:2", identity=True
    )
    style_weight: float | None = option(
        None, "default: that of the network", WEIGHTS, metavar="W", limits=NONNEGATIVE,
        identity=True,
    )  # fmt: skip


def create(style_weight=100.0, style_layers=()) -> list[Loss]:
    """One loss per layer ("name", "name:factor" or (name, factor)), with the full weight times the factor."""
    weights = layer_weights(style_layers, checked_weight(style_weight, "style_weight"))
    return [Gram(f"style:{name}", name, weight) for name, weight in weights.items()]
