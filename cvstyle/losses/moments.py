"""Losses of second moments M = 1/C · Σ_p w(p) F'(p) F'(p)ᵀ over the positions p of a layer's map.

F' are the C features, for a loss that asks with a row of ones below them: then M holds the means as well, and with them
the covariance. w sums to 1; without weights it is 1/(H·W), so that M without ones is the Gram matrix G = F Fᵀ / N of
Gatys et al. (2015) and neural_style.lua. Moments are sums over positions, so tiles and devices add theirs up, and
several styles are blended by blending their moments.

Any loss L(M) has the gradient 2/C · w(p) · (∂L/∂M) F'(p), its first C rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import fields
from ..fields import NETWORK, NONNEGATIVE, WEIGHTS, Settings, option
from .base import Loss, checked_weight, layer_weights


@dataclass(kw_only=True)
class Options(Settings):
    """None is that of the network; layers are as in `Objective`."""

    style_layers: Sequence | None = option(
        None, "layers for style", NETWORK, kind=fields.LAYERS, metavar="A,B:2", identity=True
    )
    style_weight: float | None = option(
        None, "default: that of the network", WEIGHTS, metavar="W", limits=NONNEGATIVE,
        identity=True,
    )  # fmt: skip


class Moments(Loss):
    """A loss of M: a subclass says in `compare` what L is; its aim is (matrix, slope) with ∂L/∂M = slope/2 · matrix.

    weights: an array (H, W) for the layer's map, not negative, with sum 1, or None for all positions alike.
    """

    has_statistic = True
    target_from = "styles"
    ones = False
    """Whether F' has the row of ones."""

    def __init__(self, name, layer, weight, weights=None):
        super().__init__(name, layer, weight)
        self.weights = weights
        self._maps: dict[tuple, object] = {}

    def power(self, statistic):
        return super().power(statistic)._replace(features=float(statistic.trace(dtype=float)))

    def statistic(self, view):
        return view.ops.gram(self._features(view), self._share(view))

    def gradient(self, view, aim):
        matrix, slope = aim
        features = self._features(view)
        product = view.ops.gram_backward(matrix, features, slope * self._share(view))
        return self._features_gradient(view, product), 1, None

    def add_gradient(self, view, aim, weight, out):
        if self.ones or self.weights is not None:
            return super().add_gradient(view, aim, weight, out)
        matrix, slope = aim
        return view.ops.gram_backward(matrix, view.x, weight * (slope * self._share(view)), out=out), None

    def _share(self, view):
        """The factor before the sum over positions; weights are in the features."""
        return 1 / (view.count if self.weights is None else view.whole[0])

    def _features(self, view):
        """√w F', (1, C or C + 1, h, w)."""
        ops, x = view.ops, view.x
        if self.ones:
            x = ops.empty((1, view.x.shape[1] + 1, *view.x.shape[2:]))
            ops.copy_block(x, (0, 0, 0, 0), view.x, (0, 0, 0, 0), view.x.shape)
            ops.copy_block(x, (0, view.x.shape[1], 0, 0), self._ones(view), (0, 0, 0, 0), (1, 1, *view.x.shape[2:]))
        if self.weights is None:
            return x
        return ops.multiply(x, self._root(view), out=x if self.ones else None)

    def _features_gradient(self, view, g):
        """That of F from that of √w F', which may be changed."""
        if self.weights is not None:
            g = view.ops.multiply(g, self._root(view), out=g)
        if not self.ones:
            return g
        out = view.ops.empty(view.x.shape)
        view.ops.copy_block(out, (0, 0, 0, 0), g, (0, 0, 0, 0), out.shape)
        return out

    def _ones(self, view):
        return self._map(view, "ones", lambda shape: [[1.0] * shape[1]] * shape[0])

    def _root(self, view):
        rows, columns = (slice(first, first + n) for first, n in zip(view.start, view.x.shape[2:]))
        return self._map(view, "root", lambda shape: self.weights[rows, columns] ** 0.5)

    def _map(self, view, kind, make):
        """What make(shape) gives for a view's (h, w), as (1, 1, h, w) on its backend, made once."""
        key = (view.ops, kind, view.start, tuple(view.x.shape[2:]))
        if key not in self._maps:
            self._maps[key] = view.ops.asarray(make(view.x.shape[2:])).reshape(1, 1, *view.x.shape[2:])
        return self._maps[key]

    def __getstate__(self):
        return self.__dict__ | {"_maps": {}}  # arrays of a backend stay in their process


class Gram(Moments):
    """w · mean((G − A)²) over the C² entries, A the styles' blended; its gradient is w · 4/(C² N) · (G − A) F."""

    def compare(self, ops, total, target):
        difference = ops.add_scaled(total, -1, target)
        return self._compared(difference, ops.dot(difference, difference))

    def compare_view(self, view, target):
        if self.ones or self.weights is not None:
            return super().compare_view(view, target)
        return self._compared(*view.ops.gram_difference(view.x, self._share(view), target))

    def _compared(self, difference, squares):
        entries = difference.shape[0] ** 2
        return self.weight / entries * squares, (difference, 4 / entries)


def made(style_weight=100.0, style_layers=()) -> list[Loss]:
    """A loss for each layer ("name", "name:factor" or (name, factor)), of the full weight times its factor."""
    weights = layer_weights(style_layers, checked_weight(style_weight, "style_weight"))
    return [Gram(f"style:{name}", name, weight) for name, weight in weights.items()]
