"""What a loss is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import OptionError

UNIT = 1e4
"""A balanced loss of weight 1 where the difference is as large as the target. With it the weights of neural_style.lua
serve any network."""


class Power(NamedTuple):
    """Mean squares: of the values of a loss's target, and of the features that it was made of."""

    target: float
    features: float


@dataclass(frozen=True)
class View:
    """A rectangle of a layer's feature map, or of the picture, on the backend that computes it.

    x: (1, C, h, w), not to be changed. whole: (C, H, W) of the map of the whole picture. start: where x is in it, (row,
    column).
    """

    ops: Any
    x: Any
    whole: tuple[int, int, int]
    start: tuple[int, int] = (0, 0)

    @property
    def count(self) -> int:
        """Values in the map of the whole picture."""
        return math.prod(self.whole)


class Loss:
    """A term of the objective. It sees a map in views that partition it, from any tile of any device.

    What decides on the whole map is a `statistic`, which is summed over all views before `compare` makes of it the
    loss and an aim; without one the value is a sum over views too. The aim is what the gradient of a view needs: what
    `compare` gave, or what `keep` kept of the content at that view.
    """

    target_from: str | None = None
    """"styles": the statistic of the style pictures, for a loss of a layer. "content": what `keep` gives of the
    content, for a loss without a statistic. None: neither."""

    has_statistic = False
    decides_on_host = False
    """Whether numbers of the host that differ from one evaluation to the next enter: then no device records it."""

    normalized = True
    """Whether normalize_gradients divides the gradient by its L1 norm."""

    overlap = 0
    """Of a loss of the picture itself: rows and columns of the next view that each view has as well."""

    def __init__(self, name: str, layer: str | None, weight: float):
        """name: its key in `Objective.losses`. layer: the one whose features it sees; None: the picture itself."""
        self.name = name
        self.layer = layer
        self.weight = weight

    def keep(self, view: View) -> Any:
        """What is kept of the content at a view: an array of view.ops."""
        return view.x

    def statistic(self, view: View) -> Any:
        """An array that is summed over the views of a map."""
        raise NotImplementedError

    def compare(self, ops, total: Any, target: Any) -> tuple[Any, Any]:
        """(weighted loss, aim) of the statistic of the whole map, which may be changed, and that of the styles."""
        raise NotImplementedError

    def compare_view(self, view: View, target: Any) -> tuple[Any, Any]:
        """`compare` where one view is the whole map."""
        return self.compare(view.ops, self.statistic(view), target)

    def gradient(self, view: View, aim: Any) -> tuple[Any, Any, Any]:
        """(array, factor, weighted loss of the view or None): array · factor is the gradient of the unweighted loss.

        The array may be changed afterwards.
        """
        raise NotImplementedError

    def balance(self, target: Power | None, shape: tuple[int, int, int], normalized: bool) -> float:
        """The factor by which a balanced objective multiplies the weight.

        target: None where it has none. shape: of the picture. normalized: whether normalize_gradients acts on it: the
        gradient for the features has one size then, and that for the picture goes with the features.
        """
        if target is None:
            return 1.0
        size = math.sqrt(target.features) if normalized else target.target
        return UNIT / size if size > 0 else 0.0

    def power(self, statistic) -> Power:
        """That of the styles' statistic, a host array."""
        mean = float((statistic.astype(float) ** 2).mean())
        return Power(mean, mean)

    def add_gradient(self, view: View, aim: Any, weight: Any, out: Any) -> tuple[Any, Any]:
        """(out + weight · gradient, weighted loss of the view or None); out is changed, and may be None for zeros."""
        array, factor, value = self.gradient(view, aim)
        return added(view.ops, out, weight * factor, array), value


def added(ops, out: Any, factor: Any, array: Any) -> Any:
    """out + factor · array, in place on out, or on the array where out is None for zeros."""
    return ops.scale(array, factor) if out is None else ops.add_scaled(out, factor, array)


def checked_weight(value: float, name: str) -> float:
    """A weight as a float. Raises OptionError where it is negative, infinite or NaN."""
    if not (math.isfinite(value) and value >= 0):
        raise OptionError(f"{name} is {value}; a finite number that is not negative is needed")
    return float(value)


def layer_weights(layers: Iterable, weight: float) -> dict[str, float]:
    """Layer name → weight times the layer's factor, without those of weight 0; layers: see `parse_layer`."""
    result = {}
    for entry in layers:
        name, factor = parse_layer(entry)
        if name in result:
            raise OptionError(f"layer '{name}' is listed twice")
        result[name] = weight * checked_weight(factor, f"the weight of layer '{name}'")
    return {name: w for name, w in result.items() if w}


def parse_layer(entry) -> tuple[str, float]:
    """("relu1_1", 2.0) from "relu1_1:2" or from that pair; the factor is 1 where none is given."""
    if not isinstance(entry, str):
        name, factor = entry
        return name, factor
    name, colon, factor = entry.rpartition(":")
    if not colon:
        return entry, 1.0
    try:
        return name, float(factor)
    except ValueError:
        return entry, 1.0
