"""Activations in NumPy."""

from __future__ import annotations

import numpy as np

from ..base.layers import LayerOperations

_PIECE = 1 << 14  # numbers that functions compute at a time


class Activations(LayerOperations):
    """ReLU, softmax, and the table of element-wise functions. Masks are packed bits."""

    def relu(self, x, slope=0.0, out=None):
        mask = np.packbits(x > 0)
        out = self.empty(x.shape) if out is None else out
        if isinstance(slope, float) and slope == 0:
            return np.maximum(x, 0, out=out), mask
        negative = np.minimum(x, 0, out=self.empty(x.shape))
        negative *= slope
        np.maximum(x, 0, out=out)
        return np.add(out, negative, out=out), mask

    def relu_backward(self, g, mask, slope=0.0):
        positive = np.unpackbits(mask, count=g.size).view(bool).reshape(g.shape)
        if isinstance(slope, float) and slope == 0:
            return np.multiply(g, positive, out=g)
        factor = np.where(positive, self.dtype.type(1), np.asarray(slope, self.dtype))
        return np.multiply(g, factor, out=g)

    def clip(self, x, low, high, closed=True, out=None):
        inside = (x >= low) & (x <= high) if closed else (x > low) & (x < high)
        return np.clip(x, low, high, out=self.empty(x.shape) if out is None else out), np.packbits(inside)

    def map(self, function, x, parameters=(), out=None):
        f, _, saves = _FUNCTIONS[function]
        y = self.empty(x.shape) if out is None or saves == "x" else out
        self._in_pieces(lambda x, y: np.copyto(y, f(x, *parameters), casting="unsafe"), x, y)
        return y, {"x": x, "y": y, None: None}[saves]

    def map_backward(self, function, g, saved, parameters=()):
        _, derivative, saves = _FUNCTIONS[function]
        saved = g if saves is None else saved
        self._in_pieces(lambda g, saved: np.multiply(g, derivative(saved, *parameters), out=g), g, saved)
        return g

    def _in_pieces(self, function, *arrays):
        """function(*pieces) over contiguous arrays of one size, by the threads; intermediate arrays stay in caches."""
        rows = [array.reshape(-1) for array in arrays]

        def share(ends):
            with np.errstate(all="ignore"):
                for first in range(*ends, _PIECE):
                    piece = slice(first, min(first + _PIECE, ends[1]))
                    function(*(row[piece] for row in rows))

        self.workers.run(share, self.workers.split(rows[0].size, _PIECE))

    def softmax(self, x):
        y = np.exp(x - x.max(axis=1, keepdims=True))
        y /= y.sum(axis=1, keepdims=True)
        return y

    def softmax_backward(self, g, y):
        g -= (g * y).sum(axis=1, keepdims=True)
        g *= y
        return g


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _swish_slope(x, beta):
    sigmoid = _sigmoid(beta * x)
    return sigmoid * (1 + beta * x * (1 - sigmoid))


def _power(x, power, scale, shift):
    return (scale * x + shift) ** power


# name → (f(x, *parameters), derivative(saved, *parameters), the argument of the derivative: "x", "y" or None)
_FUNCTIONS = {
    "sigmoid": (_sigmoid, lambda y: y * (1 - y), "y"),
    "tanh": (np.tanh, lambda y: 1 - y * y, "y"),
    "elu": (lambda x, a: np.where(x > 0, x, a * np.expm1(x)), lambda y, a: np.where(y > 0, 1, y + a), "y"),
    "abs": (np.abs, np.sign, "x"),
    "power": (_power, lambda x, p, a, b: p * a * (a * x + b) ** (p - 1), "x"),
    "linear": (lambda x, a, b: a * x + b, lambda _, a, b: a, None),
    "exp": (lambda x, a, b: np.exp(a * x + b), lambda y, a, b: a * y, "y"),
    "log": (lambda x, c, a, b: c * np.log(a * x + b), lambda x, c, a, b: c * a / (a * x + b), "x"),
    "bnll": (lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), _sigmoid, "x"),
    "swish": (lambda x, beta: x * _sigmoid(beta * x), _swish_slope, "x"),
    "step": (lambda x, threshold: x > threshold, lambda _, threshold: 0, None),
}
