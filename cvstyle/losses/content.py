"""Content loss: w · mean((F − T)²), F the features of a layer, T the content picture's (Gatys et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import fields
from ..errors import OptionError
from ..fields import NETWORK, NONNEGATIVE, WEIGHTS, Settings, option
from .base import Loss
from .layers import checked_weight, weighted_layers
from .position_weights import Part, WeightedLoss


@dataclass(kw_only=True)
class Options(Settings):
    """None means the network's default; layers are given as in `Objective`."""

    content_layers: Sequence | None = option(
        None, "layers for content, each with an optional factor", NETWORK, kind=fields.LAYERS, metavar="A,B:2",
        of_content=True, identity=True,
    )  # fmt: skip
    content_weight: float | None = option(
        None, "default: that of the network", WEIGHTS, metavar="W", limits=NONNEGATIVE,
        of_content=True, identity=True,
    )  # fmt: skip


class Content(WeightedLoss):
    """The gradient is w · 2/N · c · (F − T), with N = C·H·W values in the map, and c the positions' factors.

    weights: the factors, an array (H, W) over the layer's map; None: 1 everywhere.
    """

    target_from = "content"

    def gradient(self, view, target):
        difference = view.ops.difference(view.x, target)
        factored = difference if self.weights is None else self._factored(view, difference)
        squares = view.ops.dot(factored, difference)
        return factored, 2 / view.count, self.weight / view.count * squares

    def add_gradient(self, view, target, weight, out):
        if out is None or self.weights is not None:
            return super().add_gradient(view, target, weight, out)
        squares = view.ops.add_difference(out, weight * (2 / view.count), view.x, target)
        return out, self.weight / view.count * squares

    def _factored(self, view, difference):
        return self.weights.times(view, Part((0, 0), tuple(view.x.shape[2:])), difference)


def create(content_weight=5.0, content_layers=()) -> list[Loss]:
    """One loss per layer ("name", "name:factor" or (name, factor)), with the full weight times the factor."""
    entries = weighted_layers(content_layers, checked_weight(content_weight, "content_weight"))
    styled = next((entry for entry in entries if entry.kind), None)
    if styled is not None:
        raise OptionError(
            f"content layer '{styled.name}' has '@{styled.kind}', which is a style loss; leave it out, or name the "
            "layer in --style-layers"
        )
    return [Content(f"content:{entry.name}", entry.name, entry.factor) for entry in entries]
