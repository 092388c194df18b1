"""The base class of losses, and the views of feature maps that losses see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

UNIT = 1e4
"""The value of a balanced loss of weight 1 where the difference is as large as the target. On this scale the weights of
neural_style.lua serve any network."""


class MeanSquares(NamedTuple):
    """Mean squares of a loss's target, and of the features from which the target was computed."""

    target: float
    features: float


@dataclass(frozen=True)
class View:
    """A rectangle of a layer's feature map, or of the picture, on the backend that computes it.

    x: the values (1, C, h, w), read-only. whole: the shape (C, H, W) of the map of the whole picture. start: (row,
    column) of x in that map.
    """

    ops: Any
    x: Any
    whole: tuple[int, int, int]
    start: tuple[int, int] = (0, 0)

    @property
    def count(self) -> int:
        """Number of values in the map of the whole picture."""
        return math.prod(self.whole)


class Loss:
    """A term of the objective. A loss sees a map in views that partition it, from any tile of any device.

    A loss that depends on the whole map has a `statistic`, which is summed over all views; `compare` turns the sum into
    the loss and a context for the gradients. A loss without a statistic is itself a sum over views; its context at a
    view is the content target there.
    """

    target_from: str | None = None
    """"styles": the target is the statistic of the style pictures (losses of layers only). "content": the target is
    `content_target` at each view (losses without a statistic only). None: no target."""

    has_statistic = False
    decides_on_host = False
    """True where the gradient depends on numbers of the host that change between evaluations; a device then captures no
    graph of the evaluation."""

    normalized = True
    """False where normalize_gradients does not divide the gradient by its L1 norm."""

    overlap = 0
    """Rows and columns that each view shares with the next one (losses of the picture only)."""

    step = 1
    """The rows at which views begin are multiples of this, and the least side of a view is this more than `overlap`
    (losses of the picture only)."""

    def __init__(self, name: str, layer: str | None, weight: float):
        """name: the key in `Objective.losses`. layer: the layer whose features the loss sees; None: the picture."""
        self.name = name
        self.layer = layer
        self.weight = weight

    def content_target(self, view: View) -> Any:
        """The target that a view of the content gives: an array of view.ops."""
        return view.x

    def content_values(self, shape: tuple[int, int, int]) -> int:
        """The number of values of `content_target` for a whole map of a shape (C, H, W)."""
        return math.prod(shape)

    def style_target(self, ops, statistic) -> Any:
        """The target that `compare` takes, made once from the styles' statistic, a host array."""
        return ops.asarray(statistic)

    def statistic(self, view: View) -> Any:
        """An array that is summed over the views of a map; None: zeros."""
        raise NotImplementedError

    def compare(self, ops, total: Any, target: Any) -> tuple[Any, Any]:
        """(weighted loss, context) of the statistic of the whole map, which may be overwritten; target: from
        `style_target`."""
        raise NotImplementedError

    def compare_view(self, view: View, target: Any) -> tuple[Any, Any]:
        """`compare` for a view of the whole map."""
        return self.compare(view.ops, self.statistic(view), target)

    def weighted(self, weights: Any) -> Loss:
        """The loss that gives positions the weights, a host array (H, W) over the layer's map.

        In a statistic they are of sum 1; in a loss without one they are factors of the positions' parts of the loss. A
        loss that knows no weights is its own.
        """
        return self

    def gradient(self, view: View, context: Any) -> tuple[Any, Any, Any]:
        """(array, factor, weighted loss of the view or None): array · factor is the gradient of the unweighted loss.

        The caller may overwrite the array.
        """
        raise NotImplementedError

    def balance(self, target: MeanSquares | None, shape: tuple[int, int, int], normalized: bool) -> float:
        """The factor by which a balanced objective multiplies the weight.

        target: the target's mean squares; None for a loss without a target. shape: the picture's. normalized: True
        where normalize_gradients acts on the loss; the features' gradient then has a fixed size, and the picture's
        gradient scales with the features.
        """
        if target is None:
            return 1.0
        size = math.sqrt(target.features) if normalized else target.target
        return UNIT / size if size > 0 else 0.0

    def mean_squares(self, statistic) -> MeanSquares:
        """The mean squares of the styles' statistic, a host array."""
        mean = float((statistic.astype(float) ** 2).mean())
        return MeanSquares(mean, mean)

    def of_moments(self, moments: Any) -> Any:
        """The `statistic` from the moments of a layer's map, a host array (C + 1, C) (see `style.moments`).

        None where it is no function of these.
        """
        return None

    def add_gradient(self, view: View, context: Any, weight: Any, out: Any) -> tuple[Any, Any]:
        """(out + weight · gradient, weighted loss of the view or None); out is overwritten; None stands for zeros."""
        array, factor, value = self.gradient(view, context)
        return accumulate(view.ops, out, weight * factor, array), value


def accumulate(ops, out: Any, factor: Any, array: Any) -> Any:
    """out + factor · array, in place on out, or on the array where out is None (zeros)."""
    return ops.scale(array, factor) if out is None else ops.add_scaled(out, factor, array)
