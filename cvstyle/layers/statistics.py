"""Normalisation by the map's own mean, variance or norm: MVN and Normalize, and `standardized` for BatchNorm and BN."""

from __future__ import annotations

import math

from .base import Layer, Window, register

_TINY = 1e-30  # keeps the reciprocal of a standard deviation of zero finite


class OwnStatistics(Layer):
    """Base of layers that normalise a map by numbers of the map as a whole."""

    def window(self):
        return None

    def local_window(self):
        return Window()


def standardized(ops, x, shape, eps: float):
    """(x − mean) / √(variance + eps) and its backward; mean and variance, divided by the count, over the axes along
    which `shape` has extent 1.
    """
    centred, mean_over = _centred(ops, x, shape)
    variance = mean_over(ops.multiply(centred, centred))
    factor, _ = ops.map("power", variance, (-0.5, 1.0, eps))
    top = ops.multiply(centred, factor, out=centred)
    return top, lambda g: _backward(ops, g, top, factor, mean_over)


def _centred(ops, x, shape):
    """x less its mean over the axes along which `shape` has extent 1, and the function that takes such means."""
    share = math.prod(shape) / math.prod(x.shape)

    def mean_over(array):
        return ops.scale(ops.sum_over(array, shape), share)

    return ops.affine(x, None, ops.scale(mean_over(x), -1)), mean_over


def _backward(ops, g, top, factor, mean_over, correction=None):
    """factor · (g − mean g − top · mean (g · top)), in place; correction: a factor of the last term."""
    through_factor = mean_over(ops.multiply(g, top))
    if correction is not None:
        through_factor = ops.multiply(through_factor, correction, out=through_factor)
    g = ops.affine(g, None, ops.scale(mean_over(g), -1), out=g)
    g = ops.add_scaled(g, -1, ops.multiply(top, through_factor))
    return ops.multiply(g, factor, out=g)


@register("MVN")
class MVN(OwnStatistics):
    """(x − mean) / (standard deviation + ε) of each channel, or of all, or x − mean without normalize_variance.

    Caffe's own backward pass takes ε as a part of the deviation; here it is the derivative.
    """

    def top_shapes(self, bottoms):
        shape = bottoms[0]
        if len(shape) > 4:
            raise self.fail(f"its input has shape {shape}; it needs at most four axes")
        return [(*shape, 1, 1)[: max(4, len(shape))]]

    def forward(self, bottoms, context):
        ops = self.ops
        shape = bottoms[0].shape
        x = bottoms[0].reshape(self.top_shapes([shape])[0])
        channels = 1 if self.params.get("across_channels", False) else x.shape[1]
        centred, mean_over = _centred(ops, x, (1, channels, 1, 1))
        if not self.params.get("normalize_variance", True):
            return [centred], lambda g: [_centred(ops, g[0], (1, channels, 1, 1))[0].reshape(shape)]
        deviation, _ = ops.map("power", mean_over(ops.multiply(centred, centred)), (0.5, 1.0, 0.0))
        factor, _ = ops.map("power", deviation, (-1.0, 1.0, float(self.params.get("eps", 1e-9))))
        top = ops.multiply(centred, factor, out=centred)

        def backward(g):
            # 1 / (factor · deviation): the variance does not depend on ε.
            correction, _ = ops.map("power", ops.multiply(deviation, factor), (-1.0, 1.0, _TINY))
            return [_backward(ops, g[0], top, factor, mean_over, correction).reshape(shape)]

        return [top], backward


@register("Normalize")
class Normalize(OwnStatistics):
    """SSD's: x divided by its norm √(Σ x² + ε), over the channels of a position or over all, times a learned factor."""

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.across_spatial = self.params.get("across_spatial", True)
        self.shared = self.params.get("channel_shared", True)

    def window(self):
        return None if self.across_spatial else Window()

    def top_shapes(self, bottoms):
        self.map_size(bottoms[0])
        return [bottoms[0]]

    def blob_shapes(self, bottoms):
        return [(1,) if self.shared else (bottoms[0][1],)]

    def load(self, blobs, bottoms):
        self._scale = self.ops.asarray(blobs[0].reshape(1, -1, 1, 1))

    def forward(self, bottoms, context):
        ops = self.ops
        (x,) = bottoms
        shape = (1, 1, 1, 1) if self.across_spatial else (1, 1, *x.shape[2:])
        squares = ops.sum_over(ops.multiply(x, x), shape)
        factor, _ = ops.map("power", squares, (-0.5, 1.0, float(self.params.get("eps", 1e-10))))
        unit = ops.multiply(x, factor)
        top = ops.multiply(unit, self._scale)

        def backward(g):
            g = ops.multiply(g[0], self._scale, out=g[0])
            along = ops.sum_over(ops.multiply(g, unit), shape)
            g = ops.add_scaled(g, -1, ops.multiply(unit, along))
            return [ops.multiply(g, factor, out=g)]

        return [top], backward
