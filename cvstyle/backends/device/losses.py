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
        channels, positions = x.shape[1], math.prod(x.shape[2:])
        across = -(-channels // _GRAM_TILE)
        tiles = across * (across + 1) // 2
        most = max(1, min(_GRAM_WORKSPACE // (tiles * _GRAM_TILE**2 * 4), -(-positions // 256)))
        g, on_tensor_cores = self.empty((channels, channels)), self._tensor and tensor.gram_fits(channels)

        def run(shares):
            span = -(-positions // shares // 32) * 32
            shares = -(-positions // span)
            members = shares if shares <= _GRAM_SET else math.isqrt(shares - 1) + 1
            sets = -(-shares // members)
            parts = self.empty((shares + sets, tiles, _GRAM_TILE, _GRAM_TILE))
            ends = (channels, positions, span, members, float(factor))
            arguments = (x, parts, g, self.counters(tiles * (sets + 1)))
            if on_tensor_cores:
                peak, defines = self.peak(x), tensor.defines(self.word)
                arguments = (*arguments, peak, *ends)
                self.launch("cuda/gram", "gram_parts", (tiles, shares, 1), arguments, threads=128, defines=defines)
                tensor.remember(x, peak)
            else:
                self.launch("gram", "gram_parts", (tiles, shares, 1), (*arguments, *ends), threads=64)
            if not self.device.finishes:
                self._each("gram", "gram_total", g.size, parts, g, channels, shares, members, float(factor))

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

    def compare(self, x, y):
        groups, span = _shares(x.size)
        *sums, largest = self._room_for_two(groups)
        arguments = (x, y, *sums, largest, self.counters(1), x.size, span)
        self.launch("reduce", "compare", (groups, 1, 1), arguments)
        return self._compared(x, *sums, largest, groups)

    def add_difference(self, y, factor, x, target):
        groups, span = _shares(x.size)
        *sums, largest = self._room_for_two(groups)
        arguments = (y, *self.factor(factor), x, target, *sums, largest, self.counters(1), x.size, span)
        self.launch("reduce", "add_difference", (groups, 1, 1), arguments)
        return self._compared(y, *sums, largest, groups)

    def _room_for_two(self, groups):
        """(parts of both, sum, largest) of a kernel that finds two numbers."""
        return self.empty((2 * groups,)), self.empty((1,)), self.empty((1,))

    def _compared(self, array, parts, squares, largest, groups):
        if self.device.finishes:
            array.block.largest = largest
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
