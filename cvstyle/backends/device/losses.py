"""Sums over arrays, and what the losses need: Gram matrices, their gradients, total variation."""

from __future__ import annotations

import math

from . import tensor
from .array import Scalar
from .convolution import matrix_product

GROUP = 256  # GROUP in portable.h
_SPAN = 8192  # elements that one group reduces, at least
_GRAM_TILE = 64
_GRAM_WORKSPACE = 8 << 20  # bytes for the parts of a Gram matrix


class Losses:
    """A part of `operations.Backend`."""

    # Reductions

    def dot(self, x, y):
        return self._reduce("sum_of_products", "total", x, y)

    def l1(self, x):
        return self._reduce("sum_of_magnitudes", "total", x, x)

    def abs_max(self, x):
        return self._reduce("largest_magnitude", "largest", x, x)

    # Losses

    def gram(self, x, factor):
        channels, positions = x.shape[1], math.prod(x.shape[2:])
        across = -(-channels // _GRAM_TILE)
        tiles = across * (across + 1) // 2
        most = max(1, min(_GRAM_WORKSPACE // (tiles * _GRAM_TILE**2 * 4), -(-positions // 256)))
        g, on_tensor_cores = self.empty((channels, channels)), self._tensor and tensor.gram_fits(channels)

        def run(shares):
            span = -(-positions // shares // 32) * 32
            shares = -(-positions // span)
            parts = self.empty((shares, tiles, _GRAM_TILE, _GRAM_TILE))
            if on_tensor_cores:
                peak, defines = self.peak(x), tensor.defines(self.word)
                arguments = (x, parts, peak, channels, positions, span)
                self.launch("cuda/gram", "gram_parts", (tiles, shares, 1), arguments, threads=128, defines=defines)
                tensor.remember(x, peak)
            else:
                self.launch("gram", "gram_parts", (tiles, shares, 1), (x, parts, channels, positions, span), threads=64)
            self._each("gram", "gram_total", g.size, parts, g, channels, shares, tiles, float(factor))

        # Groups for each multiprocessor, the estimate first.
        ways = list(dict.fromkeys(min(most, -(-n * self.device.units // tiles)) for n in (4, 2, 8, 1)))
        shares = ways[0]
        if self.autotune:
            key = ("gram", self.word if on_tensor_cores else "fp32", channels, positions)
            shares = self.choices.pick(key, ways, run)
        run(shares)
        return g

    def gram_backward(self, d, x, factor, out=None):
        target = self.empty(x.shape) if out is None else out
        product = tensor.gram_backward if self._tensor and tensor.gram_fits(x.shape[1]) else matrix_product
        product(self, d, x, factor, target, accumulate=out is not None)
        return target

    def total_variation(self, x, weight, out):
        groups = min(512, -(-x.size // GROUP))
        parts, total = self.empty((groups,)), self.empty((1,))
        arguments = (x, out, parts, float(weight), *x.shape[2:], x.size)
        self.launch("variation", "total_variation", (groups, 1, 1), arguments)
        self.launch("reduce", "total", (1, 1, 1), (parts, parts, total, groups, groups))
        return Scalar(total) * (weight / 2)

    def _reduce(self, kernel, last, x, y):
        groups = max(1, min(GROUP, x.size // _SPAN))
        span, result = -(-x.size // groups), self.empty((1,))
        if groups == 1:
            self.launch("reduce", kernel, (1, 1, 1), (x, y, result, x.size, span))
            return Scalar(result)
        parts = self.empty((groups,))
        self.launch("reduce", kernel, (groups, 1, 1), (x, y, parts, x.size, span))
        self.launch("reduce", last, (1, 1, 1), (parts, parts, result, groups, groups))
        return Scalar(result)
