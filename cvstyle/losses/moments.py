"""Losses of second moments M = 1/C · Σ_p w(p) F'(p) F'(p)ᵀ over the positions p of a layer's map.

F' are the C features, optionally with a row of ones below them; M then holds the means as well, and hence the
covariance. w sums to 1; without weights w is 1/(H·W), so M without ones is the Gram matrix G = F Fᵀ / N of Gatys et al.
(2015) and neural_style.lua. Moments are sums over positions, so tiles and devices add up, and styles are blended by
blending their moments.

Any loss L(M) has the gradient 2/C · w(p) · (∂L/∂M) F'(p), of which the first C rows count.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from .. import fields
from ..fields import NETWORK, NONNEGATIVE, WEIGHTS, Settings, option
from .base import Loss, checked_weight, layer_weights


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


class Moments(Loss):
    """A loss of M. A subclass defines L in `compare`, whose context is (matrix, slope) with ∂L/∂M = slope/2 · matrix.

    weights: a non-negative array (H, W) of sum 1 over the layer's map; None: equal weights.
    """

    has_statistic = True
    target_from = "styles"
    ones = False
    """True where F' has the row of ones."""

    def __init__(self, name, layer, weight, weights=None):
        super().__init__(name, layer, weight)
        self.weights = weights
        self._maps: dict[tuple, object] = {}

    def weighted(self, weights):
        loss = copy.copy(self)
        loss.weights = weights
        loss._maps = {}
        return loss

    def mean_squares(self, statistic):
        return super().mean_squares(statistic)._replace(features=float(statistic.trace(dtype=float)))

    def statistic(self, view):
        return view.ops.gram(self._features(view), self._factor(view))

    def gradient(self, view, context):
        matrix, slope = context
        features = self._features(view)
        product = view.ops.gram_backward(matrix, features, slope * self._factor(view))
        return self._features_gradient(view, product), 1, None

    def add_gradient(self, view, context, weight, out):
        if self.ones or self.weights is not None:
            return super().add_gradient(view, context, weight, out)
        matrix, slope = context
        return view.ops.gram_backward(matrix, view.x, weight * (slope * self._factor(view)), out=out), None

    def _factor(self, view):
        """The factor before the sum over positions; given weights are part of the features instead."""
        return 1 / (view.count if self.weights is None else view.whole[0])

    def _features(self, view):
        """√w F', (1, C or C + 1, h, w)."""
        ops = view.ops
        x = view.x
        if self.ones:
            x = ops.empty((1, view.x.shape[1] + 1, *view.x.shape[2:]))
            ops.copy_block(x, (0, 0, 0, 0), view.x, (0, 0, 0, 0), view.x.shape)
            ops.copy_block(x, (0, view.x.shape[1], 0, 0), self._ones(view), (0, 0, 0, 0), (1, 1, *view.x.shape[2:]))
        if self.weights is None:
            return x
        return ops.multiply(x, self._root_weights(view), out=x if self.ones else None)

    def _features_gradient(self, view, g):
        """The gradient for F from the gradient for √w F', which may be overwritten."""
        if self.weights is not None:
            g = view.ops.multiply(g, self._root_weights(view), out=g)
        if not self.ones:
            return g
        out = view.ops.empty(view.x.shape)
        view.ops.copy_block(out, (0, 0, 0, 0), g, (0, 0, 0, 0), out.shape)
        return out

    def _ones(self, view):
        return self._cached_map(view, "ones", lambda shape: [[1.0] * shape[1]] * shape[0])

    def _root_weights(self, view):
        rows, columns = (slice(first, first + n) for first, n in zip(view.start, view.x.shape[2:]))
        return self._cached_map(view, "root", lambda shape: self.weights[rows, columns] ** 0.5)

    def _cached_map(self, view, kind, make):
        """make((h, w)) for the view, as an array (1, 1, h, w) of the view's backend; made once per view."""
        key = (view.ops, kind, view.start, tuple(view.x.shape[2:]))
        if key not in self._maps:
            self._maps[key] = view.ops.asarray(make(view.x.shape[2:])).reshape(1, 1, *view.x.shape[2:])
        return self._maps[key]

    def __getstate__(self):
        return self.__dict__ | {"_maps": {}}  # arrays of a backend cannot leave their process


class Gram(Moments):
    """w · mean((G − A)²) over the C² entries, A the blended style matrix; the gradient is w · 4/(C² N) · (G − A) F."""

    def compare(self, ops, total, target):
        difference = ops.add_scaled(total, -1, target)
        return self._loss_and_context(difference, ops.dot(difference, difference))

    def compare_view(self, view, target):
        if self.ones or self.weights is not None:
            return super().compare_view(view, target)
        return self._loss_and_context(*view.ops.gram_difference(view.x, self._factor(view), target))

    def _loss_and_context(self, difference, squares):
        entries = difference.shape[0] ** 2
        return self.weight / entries * squares, (difference, 4 / entries)


def create(style_weight=100.0, style_layers=()) -> list[Loss]:
    """One loss per layer ("name", "name:factor" or (name, factor)), with the full weight times the factor."""
    weights = layer_weights(style_layers, checked_weight(style_weight, "style_weight"))
    return [Gram(f"style:{name}", name, weight) for name, weight in weights.items()]
