"""Pooling in NumPy."""

from __future__ import annotations

import math

import numpy as np

from ..base.layers import LayerOperations


class Pooling(LayerOperations):
    """Pools as a maximum or sum of strided views of their input, one view for each position in the window."""

    def max_pool(self, x, kernel, stride, pad, output):
        x = self._padded(x, kernel, stride, pad, output, -np.inf)
        y = winner = None
        index = np.min_scalar_type(math.prod(kernel) - 1)
        for k, window in enumerate(windows(x, kernel, stride, output)):
            if y is None:
                y = self.copy(window)
                winner = self.pool.empty(y.shape, index)
                winner.fill(0)
            else:
                better = (window > y).view(np.uint8).astype(index, copy=False)
                better *= index.type(k)
                np.maximum(winner, better, out=winner)
                np.maximum(y, window, out=y)
        return y, winner

    def max_pool_backward(self, g, winner, shape, kernel, stride, pad):
        gx, inner = self._padded_zeros(shape, kernel, stride, pad, g.shape[2:])
        for k, window in enumerate(windows(gx, kernel, stride, g.shape[2:])):
            window += g * (winner == k)
        return self._cropped(gx, inner)

    def avg_pool(self, x, kernel, stride, pad, output):
        divisor = self._pool_divisor(x.shape, kernel, stride, pad, output)
        x = self._padded(x, kernel, stride, pad, output, 0)
        y = self.zeros((*x.shape[:2], *output))
        for window in windows(x, kernel, stride, output):
            y += window
        y /= divisor
        return y

    def avg_pool_backward(self, g, shape, kernel, stride, pad):
        share = g / self._pool_divisor(shape, kernel, stride, pad, g.shape[2:])
        gx, inner = self._padded_zeros(shape, kernel, stride, pad, g.shape[2:])
        for window in windows(gx, kernel, stride, g.shape[2:]):
            window += share
        return self._cropped(gx, inner)

    def _padded(self, x, kernel, stride, pad, output, value):
        """x as it is where all windows lie inside, else a copy with a border of `value`."""
        bottom, right = (
            max(0, s * (o - 1) + k - p - n)
            for s, o, k, p, n in zip(stride, output, kernel, pad, x.shape[2:], strict=True)
        )
        if not (pad[0] or pad[1] or bottom or right):
            return x
        h, w = x.shape[2:]
        out = self.empty((*x.shape[:2], h + pad[0] + bottom, w + pad[1] + right))
        out.fill(value)
        out[..., pad[0] : pad[0] + h, pad[1] : pad[1] + w] = x
        return out

    def _padded_zeros(self, shape, kernel, stride, pad, output):
        """Zeros large enough for all windows, and the slices that hold the unpadded array."""
        h, w = shape[2:]
        size = (max(n + p, s * (o - 1) + k) for s, o, k, p, n in zip(stride, output, kernel, pad, (h, w), strict=True))
        inner = (..., slice(pad[0], pad[0] + h), slice(pad[1], pad[1] + w))
        return self.zeros((*shape[:2], *size)), inner

    def _cropped(self, x, inner):
        part = x[inner]
        return x if part.shape == x.shape else self.copy(part)

    def _pool_divisor(self, shape, kernel, stride, pad, output):
        """Elements that Caffe counts in each window, as an array (output height, output width)."""
        counts = []
        for n, k, s, p, o in zip(shape[2:], kernel, stride, pad, output, strict=True):
            start = np.arange(o) * s - p
            counts.append(np.minimum(start + k, n + p) - start)
        return np.multiply.outer(*counts).astype(self.dtype)


def windows(x, kernel, stride, output):
    """Strided views of x, one for each position in the window, each of the output's height and width."""
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            yield x[
                ...,
                ky : ky + stride[0] * (output[0] - 1) + 1 : stride[0],
                kx : kx + stride[1] * (output[1] - 1) + 1 : stride[1],
            ]
