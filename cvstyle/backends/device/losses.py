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
_GRAM_SET = 16  # parts that one group adds; of more, in two steps of as many parts and sums (gram.h)


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
        return self._gram(x, factor)[0]

    def gram_difference(self, x, factor, target):
        g, squares, largest = self._gram(x, factor, target if self.device.finishes else None)
        if squares is None:
            self.add_scaled(g, -1, target)
            return g, self.dot(g, g)
        g.block.largest = largest
        return g, Scalar(squares)

    def _gram(self, x, factor, target=None):
        """(the matrix, None, None); given a target (the difference, the sum of its squares, its largest magnitude)."""
        channels, positions = x.shape[1], math.prod(x.shape[2:])
        across = -(-channels // _GRAM_TILE)
        tiles = across * (across + 1) // 2
        most = max(1, min(_GRAM_WORKSPACE // (tiles * _GRAM_TILE**2 * 4), -(-positions // 256)))
        g, on_tensor_cores = self.empty((channels, channels)), self._tensor and tensor.gram_fits(channels)
        found = (None,) * 3 if target is None else (self.empty((2 * tiles,)), self.empty((1,)), self.empty((1,)))

        def run(shares):
            span = -(-positions // shares // 32) * 32
            shares = -(-positions // span)
            members = shares if shares <= _GRAM_SET else math.isqrt(shares - 1) + 1
            sets = -(-shares // members)
            parts = self.empty((shares + sets, tiles, _GRAM_TILE, _GRAM_TILE))
            given, groups = (channels, positions, span), (tiles, shares, 1)
            counters = self.counters(tiles * (sets + 1) + 1)
            end = g, target, parts, *found, counters, members, float(factor), int(target is not None)
            if on_tensor_cores:
                peak, defines = self.peak(x), tensor.defines(self.word)
                self.launch("cuda/gram", "gram_parts", groups, (x, peak, *given, *end), threads=128, defines=defines)
                tensor.remember(x, peak)
            else:
                self.launch("gram", "gram_parts", groups, (x, *given, *end), threads=64)
            if not self.device.finishes:
                self._each("gram", "gram_total", g.size, parts, g, channels, shares, members, float(factor))

        # Groups for each multiprocessor, the estimate first.
        ways = list(dict.fromkeys(min(most, -(-n * self.device.units // tiles)) for n in (4, 2, 8, 1)))
        shares = ways[0]
        if self.autotune:
            key = ("gram", self.word if on_tensor_cores else "fp32", channels, positions)
            shares = self.choices.pick(key, ways, run)
        run(shares)
        return g, *found[1:]

    def gram_backward(self, d, x, factor, out=None):
        target = self.empty(x.shape) if out is None else out
        product = tensor.gram_backward if self._tensor and tensor.gram_fits(x.shape[1]) else matrix_product
        product(self, d, x, factor, target, accumulate=out is not None)
        return target

    def add_difference(self, y, factor, x, target):
        groups, span = _shares(x.size)
        parts, squares, largest = self.empty((2 * groups,)), self.empty((1,)), self.empty((1,))
        arguments = (
            y, *self.factor(factor), x, target, parts, squares, largest, self.counters(1), x.size, span
        )  # fmt: skip
        self.launch("reduce", "add_difference", (groups, 1, 1), arguments)
        if self.device.finishes:
            y.block.largest = largest
        return self._finished("total", parts, squares, groups)

    def total_variation(self, x, weight, out):
        groups = min(512, -(-x.size // GROUP))
        parts, total = self.empty((groups,)), self.empty((1,))
        arguments = (x, out, parts, total, self.counters(1), float(weight), *x.shape[2:], x.size)
        self.launch("variation", "total_variation", (groups, 1, 1), arguments)
        return self._finished("total", parts, total, groups) * (weight / 2)

    def _reduce(self, kernel, last, x, y):
        groups, span = _shares(x.size)
        parts, result = self.empty((groups,)), self.empty((1,))
        self.launch("reduce", kernel, (groups, 1, 1), (x, y, parts, result, self.counters(1), x.size, span))
        return self._finished(last, parts, result, groups)

    def _finished(self, kernel, parts, result, groups):
        """A scalar: the result of so many groups, which left parts where the device does not finish them."""
        if groups > 1 and not self.device.finishes:
            self.launch("reduce", kernel, (1, 1, 1), (parts, result, groups))
        return Scalar(result)


def _shares(size):
    """(groups of a reduction, elements for each)"""
    groups = max(1, min(GROUP, size // _SPAN))
    return groups, -(-size // groups)
