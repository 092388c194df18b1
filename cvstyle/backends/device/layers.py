"""Operations of the layers on a device: activations, convolution, pooling, normalization, softmax."""

from __future__ import annotations

import math

import numpy as np

from . import conv_few_channels, conv_tensor_cores
from .array import Array
from .convolution import Convolution

_FUNCTIONS = {  # name: (FUNCTION in functions.cl, array that `map_backward` needs, as in numpy.py)
    "sigmoid": (0, "y"), "tanh": (1, "y"), "elu": (2, "y"), "abs": (3, "x"), "power": (4, "x"), "linear": (5, None),
    "exp": (6, "y"), "log": (7, "x"), "bnll": (8, "x"), "swish": (9, "x"), "step": (10, None),
}  # fmt: skip


class Layers:
    """A part of `backend.Backend`."""

    # Activations

    def relu(self, x, slope=0.0, out=None):
        out = self.empty(x.shape) if out is None else out
        mask = self.bits(x.size)
        self._each("elementwise", "relu", x.size, x, out, mask, *self._slopes(x, slope), x.size)
        return out, mask

    def relu_backward(self, g, mask, slope=0.0):
        self._each("elementwise", "relu_backward", g.size, g, mask, *self._slopes(g, slope), g.size)
        return g

    def _slopes(self, x, slope):
        """(slopes, elements per slope, number of slopes)"""
        if isinstance(slope, Array):
            return slope, _plane(x), slope.size
        return self.constant(float(slope)), x.size, 1

    def clip(self, x, low, high, closed=True, out=None):
        out = self.empty(x.shape) if out is None else out
        mask = self.bits(x.size)
        self._each("elementwise", "clip", x.size, x, out, mask, float(low), float(high), int(closed), x.size)
        return out, mask

    def map(self, function, x, parameters=(), out=None):
        number, saves = _FUNCTIONS[function]
        y = self.empty(x.shape) if out is None or saves == "x" else out
        self._map("map_forward", number, x, y, parameters)
        return y, {"x": x, "y": y, None: None}[saves]

    def map_backward(self, function, g, saved, parameters=()):
        self._map("map_backward", _FUNCTIONS[function][0], g, saved, parameters)
        return g

    def _map(self, kernel, number, first, second, parameters):
        parameters = (*map(float, parameters), 0.0, 0.0, 0.0)[:3]
        defines = (("FUNCTION", number),)
        self._each("functions", kernel, first.size, first, second, *parameters, first.size, defines=defines)

    # Convolution

    def convolution(self, weight, bias, stride, dilation, group):
        kind = Convolution
        if self.uses_tensor_cores and conv_tensor_cores.fits(
            weight.shape, stride, dilation, group, self.operand_format
        ):
            kind = conv_tensor_cores.TensorCoreConvolution
        elif conv_few_channels.fits(weight.shape, stride, dilation, group):
            kind = conv_few_channels.FewChannelsConvolution
        return kind(self, weight, bias, stride, dilation, group)

    # Pooling

    def max_pool(self, x, kernel, stride, pad, output):
        y = self.empty((*x.shape[:2], *output))
        winner = self.empty(y.shape, np.uint8 if math.prod(kernel) <= 256 else np.uint32)
        geometry = (*x.shape[2:], *output, *kernel, *stride, *pad)
        self._each("pooling", "max_pool", y.size, x, y, winner, y.size, *geometry, defines=winner_macros(winner))
        return y, winner

    def max_pool_backward(self, g, winner, shape, kernel, stride, pad):
        gx = self.empty(shape)
        geometry = (*shape[2:], *g.shape[2:], *kernel, *stride, *pad)
        defines = winner_macros(winner)
        self._each("pooling", "max_pool_backward", gx.size, g, winner, gx, gx.size, *geometry, defines=defines)
        return gx

    def avg_pool(self, x, kernel, stride, pad, output):
        y = self.empty((*x.shape[:2], *output))
        self._each("pooling", "avg_pool", y.size, x, y, y.size, *x.shape[2:], *output, *kernel, *stride, *pad)
        return y

    def avg_pool_backward(self, g, shape, kernel, stride, pad):
        gx = self.empty(shape)
        geometry = (*shape[2:], *g.shape[2:], *kernel, *stride, *pad)
        self._each("pooling", "avg_pool_backward", gx.size, g, gx, gx.size, *geometry)
        return gx

    # Across channels

    def lrn(self, x, size, alpha, beta, k):
        y = self.empty(x.shape)
        s = self.empty(x.shape)
        arguments = (_plane(x), x.shape[1], size, alpha / size, float(beta), float(k), x.size)
        self._each("channels", "lrn", x.size, x, y, s, *arguments)
        return y, s

    def lrn_backward(self, g, x, s, size, alpha, beta):
        out = self.empty(x.shape)
        arguments = (_plane(x), x.shape[1], size, alpha / size, float(beta), x.size)
        self._each("channels", "lrn_backward", x.size, g, x, s, out, *arguments)
        return out

    def softmax(self, x):
        y = self.empty(x.shape)
        self._each("channels", "softmax", _plane(x), x, y, _plane(x), x.shape[1])
        return y

    def softmax_backward(self, g, y):
        self._each("channels", "softmax_backward", _plane(g), g, y, _plane(g), g.shape[1])
        return g


def _plane(x):
    """Elements of one channel."""
    return math.prod(x.shape[2:])


def winner_macros(winner):
    """The type of winners for pooling.cl."""
    return (("INDEX", "uchar" if winner.dtype == np.uint8 else "uint"),)
