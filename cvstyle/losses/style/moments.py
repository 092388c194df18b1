"""The base of style losses: functions of the moments of a layer's map.

For the features F (C channels) and weights w of the positions p, of sum 1, the moments are the matrix
G = 1/C · Σ_p w(p) F(p) F(p)ᵀ and the means μ = Σ_p w(p) F(p), which give the covariance C·G − μμᵀ. Without weights w is
1/(H·W), and G the Gram matrix F Fᵀ / N of Gatys et al. (2015) and neural_style.lua. Moments are sums over positions, so
tiles and devices add up, and styles are blended by blending their moments.

Any loss L(G, μ) has the gradient w(p) · (2/C · (∂L/∂G) F(p) + ∂L/∂μ).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..position_weights import Part, WeightedLoss


class Slope(NamedTuple):
    """The gradient of the unweighted loss for the moments: ∂L/∂G = factor/2 · matrix, and ∂L/∂μ = shift.

    matrix: symmetric, (C, C). shift: (1, C, 1, 1); None: zeros.
    """

    matrix: Any
    factor: float
    shift: Any = None


class Moments(WeightedLoss):
    """A loss of the moments. A subclass defines L in `compare`, whose context is a `Slope`.

    The statistic is G, (C, C), or with `means` the array (C + 1, C) of G and, as its last row, μ. weights: a
    non-negative array (H, W) of sum 1 over the layer's map; None: equal weights.
    """

    has_statistic = True
    target_from = "styles"
    means = False
    """True where the loss needs the means."""

    def mean_squares(self, statistic):
        """The mean squares of G's entries, and of the features, which is its trace."""
        gram = statistic[: statistic.shape[1]].astype(float)
        return super().mean_squares(gram)._replace(features=float(gram.trace()))

    def statistic(self, view):
        part = self._part(view)
        if part is None:
            return None
        ops = view.ops
        even = self._even_weight(view)
        x = part.cut(view)
        channels = x.shape[1]
        rooted = x if even is not None else self.weights.times(view, part, x, 0.5)
        gram = ops.gram(rooted, self._factor(view))
        if not self.means:
            return gram
        mean = ops.sum_over(x if even is not None else self.weights.times(view, part, x), (1, channels, 1, 1))
        mean = mean if even is None else ops.scale(mean, even)
        return joined(ops, gram, mean)

    def of_moments(self, moments):
        return moments if self.means else moments[:-1]

    def gradient(self, view, context):
        return self.add_gradient(view, context, 1, None)[0], 1, None

    def add_gradient(self, view, context, weight, out):
        ops = view.ops
        part = self._part(view)
        if part is None:
            return ops.zeros(view.x.shape) if out is None else out, None
        even = self._even_weight(view)
        x = part.cut(view)
        onto = out if even is not None and x is view.x else None
        factor = weight * (context.factor * self._factor(view))
        product = ops.gram_backward(context.matrix, x, factor, out=onto)
        if context.shift is not None:
            shift = ops.scale(ops.copy(context.shift), weight * (1 if even is None else even))
            product = ops.affine(product, None, shift, out=product)
        if even is None:
            product = self.weights.times(view, part, product, out=product)
        return product if onto is not None else part.add(view, out, product), None

    def _part(self, view):
        """The part of a view that the loss sees."""
        return Part((0, 0), tuple(view.x.shape[2:])) if self.weights is None else self.weights.part(view)

    def _factor(self, view):
        """The factor of Σ F Fᵀ in G; weights that differ are part of the features instead."""
        if self.weights is None:
            return 1 / view.count
        return (1 if self.weights.even is None else self.weights.even) / view.whole[0]

    def _even_weight(self, view):
        """The weight of every position of the view's part, where it is the same; else None."""
        return 1 / math.prod(view.whole[1:]) if self.weights is None else self.weights.even


def joined(ops, gram, mean):
    """The statistic (C + 1, C) of G and μ, an array of C numbers in any shape."""
    channels = gram.shape[1]
    out = ops.empty((channels + 1, channels))
    ops.copy_block(out, (0, 0), gram, (0, 0), gram.shape)
    ops.copy_block(out, (channels, 0), mean.reshape(1, channels), (0, 0), (1, channels))
    return out


def split(ops, statistic):
    """(G, μ) of the statistic (C + 1, C): arrays (C, C) and (1, C, 1, 1)."""
    channels = statistic.shape[1]
    gram = ops.empty((channels, channels))
    mean = ops.empty((1, channels))
    ops.copy_block(gram, (0, 0), statistic, (0, 0), gram.shape)
    ops.copy_block(mean, (0, 0), statistic, (channels, 0), mean.shape)
    return gram, mean.reshape(1, channels, 1, 1)

def host_moments(statistic):
    """(G, μ) in float64, of shapes (C, C) and (C,), of a host array (C + 1, C)."""
    values = np.asarray(statistic, np.float64)
    return values[:-1], values[-1]


def relative_to_gram(gram, loss_of_zeros) -> float:
    """The factor that gives a map of zeros the loss mean(G²) of Gram; 1 where there is no such factor."""
    of_gram = (gram**2).mean()
    return float(of_gram / loss_of_zeros) if of_gram > 0 and loss_of_zeros > 0 else 1.0
