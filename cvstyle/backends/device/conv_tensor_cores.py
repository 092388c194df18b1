"""Convolution and the Gram matrices' gradient on tensor cores (kernels/cuda).

Arrays stay float32; numbers are rounded where a kernel reads them, and sums are float32. The forward convolutions split
every number into two words (operands.py), at three times the products, since a ReLU or a max-pool winner that rounding
switches costs the gradient far more than the rounding itself (docs/performance-gpu.md).
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..base import BIAS, RELU, UNPLACED, PoolWinners, ReluMask
from .array import Array
from .conv_problem import EpilogueCode, PrologueCode, epilogue_code
from .convolution import Convolution
from .mma import PATCH_COLUMNS, best_algorithm, kernel_macros, ranked_algorithms
from .operands import PackedFilters, format_macros, numbers_per_word, pack_filters

_PAD = (1, 1, 1, 1)  # the only padding of the kernels


def fits(weight, stride, dilation, group, operand_format):
    """True if the kernels can do a convolution with weights of this shape."""
    channels = math.lcm(8 * numbers_per_word(operand_format), 16)
    return (
        tuple(weight[2:]) == (3, 3) and stride == dilation == (1, 1) and group == 1
        and weight[0] % channels == 0 and weight[1] % channels == 0
    )  # fmt: skip


class TensorCoreConvolution(Convolution):
    """A 3×3 convolution on tensor cores; with a padding other than 1, or a pool that rounds down, a `Convolution`."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.winograd = False  # of the `Convolution`: windows ask for the block size before the padding is known

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        if not _same(pad) or tuple(epilogue.pool or ()) not in ((), _halves(x.shape[2:])):
            return super().forward(x, pad, epilogue, grid)
        return self._forward(x, epilogue, grid.full_map)[:2]

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        pooled = isinstance(prologue, PoolWinners)
        if not _same(pad) or (pooled and tuple(g.shape[2:]) != _halves(size)):
            return super().backward(g, size, pad, prologue, grid)
        self.ops.materialize(g)  # otherwise its work and inputs would be deferred as well
        shape = 1, self.inputs, *(size if pooled else g.shape[2:])
        deferred = DeferredGradient(self, g, prologue, shape)
        return Array(self.ops, None, shape, self.ops.dtype, pending=deferred)

    @cached_property
    def _packed_filters(self):
        return self._uploaded(self._source, self.ops.split_operands)

    @cached_property
    def _packed_backward_filters(self):
        return self._uploaded(np.flip(self._source, (2, 3)).transpose(1, 0, 2, 3), False)

    def _uploaded(self, weight, split):
        words, abs_max = pack_filters(weight, self.ops.operand_format, split)
        return PackedFilters(self.ops.upload_filters(words), self.ops.constant(abs_max), split)

    def _forward(self, x, epilogue=BIAS, full_map=None):
        """(y, the prologue of its gradient or None, the `Algorithm`)"""
        ops = self.ops
        filters = self._packed_filters
        size = x.shape[2:]
        order = self._reduction_order(size, _PAD, epilogue, False, full_map)
        prologue = None
        if epilogue.pool:
            prologue = PoolWinners(ops.empty((self.outputs, *epilogue.pool), np.uint8))
        elif epilogue.saves:
            prologue = ReluMask(ops.empty((self.outputs, size[0], -(-size[1] // PATCH_COLUMNS)), np.uint16))
        y = ops.empty((1, self.outputs, *(epilogue.pool or size)))
        bias = self._no_bias if self._bias is None else self._bias
        product = Product(
            x, filters, y, size, bias=bias, epilogue=epilogue_code(epilogue), saved=prologue and prologue[0]
        )
        algorithm = multiply(ops, product, order)
        self._algorithms[0] = f"{ops.operand_format}{' + rest' if filters.split else ''}, {algorithm}"
        return y, prologue, algorithm

    def _estimated_algorithm(self, size, pad, backward):
        if not _same(pad):
            return super()._estimated_algorithm(size, pad, backward)
        return best_algorithm(*_shape(self.ops, self.inputs, size, self.outputs, 3, self._packed_filters))

    def _timed_algorithm(self, size, pad, backward):
        if not _same(pad):
            return super()._timed_algorithm(size, pad, backward)
        return self._forward(self.ops.empty((1, self.inputs, *size)), RELU)[2]


class DeferredGradient:
    """The work of a gradient, deferred until the gradient is read: a product that is added to it before (`addend`) is
    computed in the same launch, which saves a reading and a writing of the gradient."""

    def __init__(self, convolution, g, prologue, shape):
        self.convolution = convolution
        self.g = g
        self.prologue = prologue
        self.shape = shape
        self.addend = None

    def __call__(self):
        convolution = self.convolution
        ops = convolution.ops
        filters = convolution._packed_backward_filters
        bias = convolution._no_bias
        y = ops.empty(self.shape)
        mask = self.prologue and self.prologue[0]
        product = Product(self.g, filters, y, self.shape[2:], bias=bias, mask=mask, addend=self.addend)
        algorithm = multiply(ops, product)
        convolution._algorithms[1] = f"{ops.operand_format}, {algorithm}"
        return y


class Addend(NamedTuple):
    """factor · (filters ⋆ x) with filters of one tap, added to a `Product` of nine taps with a factor of 1."""

    x: object
    filters: PackedFilters
    factor: object


class Product(NamedTuple):
    """y ← factor · (filters ⋆ x) + bias, with `side`² taps, on a map of this size; accumulate: y is added to.

    saved: room for the epilogue's bits or winners. mask: bits or winners of the prologue of x.
    """

    x: object
    filters: PackedFilters
    y: object
    size: tuple[int, int]
    side: int = 3
    bias: object = None
    epilogue: EpilogueCode = EpilogueCode.BIAS
    saved: object = None
    mask: object = None
    factor: object = 1.0
    accumulate: bool = False
    addend: Addend | None = None

    @property
    def prologue(self):
        if self.mask is None:
            return PrologueCode.NONE
        return PrologueCode.POOL_WINNERS if self.mask.dtype == np.uint8 else PrologueCode.MASK_BITS


def multiply(ops, product, order=None):
    """Compute a `Product`; returns the `Algorithm`. order: a prescribed `Algorithm.reduction_order`, or None."""
    x, filters, y, size, side = product[:5]
    addend = product.addend
    shape = _shape(ops, x.shape[1], size, y.shape[1], side, filters)
    options = {"order": order} if order else {}
    abs_max = {x: ops.cached_abs_max(x)}
    if addend is not None:
        abs_max[addend.x] = ops.cached_abs_max(addend.x)

    def run(algorithm, y=y):
        return _launch(ops, product._replace(y=y), algorithm, abs_max)

    def kernels(algorithm):
        return [("cuda/convolution", _macros(ops, product, algorithm.block))]

    if ops.autotune:
        codes = map(int, (product.prologue, product.epilogue, addend is not None, product.accumulate))
        key = "cuda/convolution", *shape, *codes, *(order or ())
        # A product that accumulates is tried on an array that nothing reads.
        trial = (lambda algorithm: run(algorithm, ops.empty(y.shape))) if product.accumulate else run
        algorithm = ops.choices.pick(key, ranked_algorithms(*shape, **options), trial, kernels)
    else:
        algorithm = best_algorithm(*shape, **options)
    record_abs_max(y, run(algorithm))
    for array, largest in abs_max.items():
        record_abs_max(array, largest)
    return algorithm


def _launch(ops, product, algorithm, abs_max):
    """Launch a product; returns an array of the largest magnitude of y, or None where it is not known.

    abs_max: arrays of the largest magnitudes, by operand.
    """
    x, filters, y, size, _, bias = product[:6]
    block, splits = algorithm[:2]
    groups = (
        -(-size[0] // block.rows) * -(-size[1] // PATCH_COLUMNS), -(-y.shape[1] // block.bm), splits
    )  # fmt: skip
    partial_sums = None
    if splits > 1:
        partial_sums = ops.empty((math.prod(groups), block.bm * block.rows * PATCH_COLUMNS))
    counters = ops.counters(2 + math.prod(groups[:2]))
    largest = ops.empty((1,)) if ops.operand_format == "fp16" else None
    factor = product.factor
    added = (None,) * 4
    if product.addend is not None:
        added_x, added_filters, factor = product.addend
        added = added_x, added_filters.words, abs_max[added_x], added_filters.abs_max
    ops.launch(
        "cuda/convolution", "convolution", groups,
        (x, filters.words, bias, y, product.mask, product.saved, abs_max[x], filters.abs_max, largest, *added,
         partial_sums, counters, *ops.factor(factor), x.shape[1], *size, y.shape[1], splits, product.epilogue,
         product.accumulate),
        block.threads, _macros(ops, product, block),
    )  # fmt: skip
    return largest


def _macros(ops, product, block):
    return kernel_macros(
        block, product.side, ops.operand_format, product.filters.split, product.prologue, product.addend is not None
    )


def _shape(ops, channels, size, outputs, side, filters):
    """Arguments of `best_algorithm` and `ranked_algorithms`."""
    wgmma = side == 3 and ops.wgmma
    return channels, *size, outputs, side, ops.operand_format, filters.split, ops.device.multiprocessors, wgmma


def record_abs_max(x, largest):
    """Record an array of the largest magnitude of x for `Backend.cached_abs_max`; None is ignored."""
    if largest is not None:
        x.block.abs_max = largest


def _same(pad):
    return tuple(pad) == _PAD


def _halves(size):
    """Size of a 2×2 max pool by the kernels, rounded up."""
    return tuple(-(-n // 2) for n in size)


def gram_fits(channels):
    """True if feature maps of this many channels have their Gram matrix on tensor cores."""
    return channels % 64 == 0


def gram_backward(ops, d, x, factor, target, accumulate):
    """target ← factor · D F (+ target) for D symmetric (C, C) and F = x as (C, positions)."""
    size = d.shape[0]
    words = ops.empty((size * size // numbers_per_word(ops.operand_format),), np.uint32)
    filters = PackedFilters(words, ops.cached_abs_max(d))
    groups = (-(-words.size // 256), 1, 1)
    arguments = (d, words, filters.abs_max, size)
    ops.launch("cuda/pack", "pack", groups, arguments, defines=format_macros(ops.operand_format))
    if isinstance(target.pending, DeferredGradient) and target.pending.addend is None:
        target.pending.addend = Addend(x, filters, factor)
    else:
        product = Product(x, filters, target, x.shape[2:], side=1, factor=factor, accumulate=accumulate)
        multiply(ops, product)
