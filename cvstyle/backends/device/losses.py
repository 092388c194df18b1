"""Operations of the losses on a device: Gram matrices and their gradients, content difference, total variation."""

from __future__ import annotations

import math

from . import conv_tensor_cores
from .array import Scalar
from .convolution import matrix_product
from .operands import format_macros
from .reductions import GROUP, reduction_groups

_GRAM_TILE = 64  # SIDE in gram.h
_GRAM_WORKSPACE = 8 << 20  # bytes for the partial sums of a Gram matrix
_GRAM_SET = 16  # most partial sums that one group adds; more are added in two steps (gram.h)


class Losses:
    """A part of `backend.Backend`."""

    def gram(self, x, factor):
        return self._gram(x, factor)[0]

    def gram_difference(self, x, factor, target):
        g, squares, largest = self._gram(x, factor, target if self.device.single_pass_reductions else None)
        if squares is None:
            self.add_scaled(g, -1, target)
            return g, self.dot(g, g)
        g.block.abs_max = largest
        return g, Scalar(squares)

    def _gram(self, x, factor, target=None):
        """(the matrix, None, None); given a target (the difference, the sum of its squares, its largest magnitude)."""
        channels = x.shape[1]
        positions = math.prod(x.shape[2:])
        across = -(-channels // _GRAM_TILE)
        tiles = across * (across + 1) // 2
        largest = max(1, min(_GRAM_WORKSPACE // (tiles * _GRAM_TILE**2 * 4), -(-positions // 256)))
        tensor_cores = self.uses_tensor_cores and conv_tensor_cores.gram_fits(channels)
        results = self.empty((channels, channels)), None, None
        sums = None
        if target is not None:
            sums = self.empty((2 * tiles,))
            results = results[0], self.empty((1,)), self.empty((1,))

        def run(splits):
            self._launch_gram(x, factor, target, results, sums, tiles, splits, tensor_cores)

        # Groups per multiprocessor, the estimate first.
        multiprocessors = self.device.multiprocessors
        candidates = list(dict.fromkeys(min(largest, -(-n * multiprocessors // tiles)) for n in (4, 2, 8, 1)))
        splits = candidates[0]
        if self.autotune:
            key = ("gram", self.operand_format if tensor_cores else "fp32", channels, positions)
            splits = self.choices.pick(key, candidates, run)
        run(splits)
        return results

    def _launch_gram(self, x, factor, target, results, sums, tiles, splits, tensor_cores):
        """Fill `results` of `_gram`, the positions split over this many groups. sums: two numbers for each tile."""
        channels = x.shape[1]
        positions = math.prod(x.shape[2:])
        span = -(-positions // splits // 32) * 32
        splits = -(-positions // span)
        members = splits if splits <= _GRAM_SET else math.isqrt(splits - 1) + 1
        sets = -(-splits // members)
        parts = self.empty((splits + sets, tiles, _GRAM_TILE, _GRAM_TILE))
        counters = self.counters(tiles * (sets + 1) + 1)
        g, squares, largest = results
        arguments = (
            channels, positions, span, g, target, parts, sums, squares, largest, counters, members, float(factor),
            target is not None,
        )  # fmt: skip
        groups = (tiles, splits, 1)
        if tensor_cores:
            abs_max = self.cached_abs_max(x)
            macros = format_macros(self.operand_format)
            self.launch("cuda/gram", "gram_parts", groups, (x, abs_max, *arguments), threads=128, defines=macros)
            conv_tensor_cores.record_abs_max(x, abs_max)
        else:
            self.launch("gram", "gram_parts", groups, (x, *arguments), threads=64)
        if not self.device.single_pass_reductions:
            self._each("gram", "gram_total", g.size, parts, g, channels, splits, members, float(factor))

    def gram_backward(self, d, x, factor, out=None):
        target = self.empty(x.shape) if out is None else out
        tensor_cores = self.uses_tensor_cores and conv_tensor_cores.gram_fits(x.shape[1])
        product = conv_tensor_cores.gram_backward if tensor_cores else matrix_product
        product(self, d, x, factor, target, accumulate=out is not None)
        return target

    def add_difference(self, y, factor, x, target):
        groups, span = reduction_groups(x.size)
        parts = self.empty((2 * groups,))
        squares = self.empty((1,))
        largest = self.empty((1,))
        arguments = (
            y, *self.factor(factor), x, target, parts, squares, largest, self.counters(1), x.size, span
        )  # fmt: skip
        self.launch("reduce", "add_difference", (groups, 1, 1), arguments)
        if self.device.single_pass_reductions:
            y.block.abs_max = largest
        return self._second_stage("total", parts, squares, groups)

    def total_variation(self, x, weight, out):
        groups = min(512, -(-x.size // GROUP))
        parts = self.empty((groups,))
        total = self.empty((1,))
        arguments = (x, out, parts, total, self.counters(1), float(weight), *x.shape[2:], x.size)
        self.launch("variation", "total_variation", (groups, 1, 1), arguments)
        return self._second_stage("total", parts, total, groups) * (weight / 2)
