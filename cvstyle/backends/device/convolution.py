"""Convolution on a device: packed filters, the choice of an algorithm, and the launches."""

from __future__ import annotations

import math
from functools import cache, cached_property

import numpy as np

from .. import base
from ..base import BIAS, RELU, UNPLACED, PoolWinners, ReluMask
from . import winograd
from .algorithms import best_algorithm, ranked_algorithms
from .conv_problem import ConvOperands, ConvProblem, EpilogueCode, epilogue_code, prologue_code

_SLACK = 128  # floats after the filters that a block may read
_TRIAL_SIZE = 8 << 20  # most floats of a map on which orders of sums are timed: enough to fill a device


class Convolution(base.Convolution):
    """Convolution with fixed filters on a device."""

    supports_offset = True

    def __init__(self, ops, weight, bias, stride, dilation, group):
        super().__init__(ops, weight, bias, stride, dilation, group)
        self.winograd = winograd.fits(weight.shape, stride, dilation, group)
        self._bias = None if bias is None else ops.asarray(bias)
        self._algorithms = {}  # by direction (1: backward): the algorithm of the last call
        self._used_filters = set()
        self._timed_orders = {}

    @property
    def block_size(self):
        return 4 if self.winograd else 1

    def engine(self, backward=False):
        """Description of the last call's algorithm in this direction, "" before any."""
        return str(self._algorithms.get(int(backward), ""))

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        size = self.output_size(x.shape[2:], pad)
        order = self._reduction_order(size, pad, epilogue, False, grid.full_map)
        return self._run(x, self._problem(x.shape, size, pad, epilogue=epilogue, tile_offset=grid.offset), order=order)

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        order = self._reduction_order(size, pad, BIAS, True, grid.full_map)
        return self._run(g, self._problem(g.shape, size, pad, True, prologue=prologue), prologue, order)[0]

    def fuses_pool(self, kernel, stride, pad):
        return kernel == stride == (2, 2) and pad == (0, 0)

    @cached_property
    def _forward_filters(self):
        return self._packed(self._grouped().transpose(0, 3, 2, 1))

    @cached_property
    def _backward_filters(self):
        return self._packed(self._grouped().transpose(0, 3, 1, 2))

    @cached_property
    def _winograd_filters(self):
        return self.ops.upload_filters(winograd.transform_filters(self._grouped()))

    @cached_property
    def _no_bias(self):
        return self.ops.zeros((max(self.inputs, self.outputs),))

    def _grouped(self):
        """(group, outputs, inputs, taps)"""
        return self._source.reshape(self.group, self.outputs // self.group, self.inputs // self.group, -1)

    def _packed(self, weight):
        """Filters (group, taps, channels, outputs) on the device: channels and outputs rounded up, slack at the end."""
        groups, taps, channels, outputs = weight.shape
        shape = groups, taps, -(-channels // 8) * 8, -(-outputs // 4) * 4
        host = np.zeros(math.prod(shape) + _SLACK, np.float32)
        host[: math.prod(shape)].reshape(shape)[:, :, :channels, :outputs] = weight
        return self.ops.upload_filters(host)

    def _problem(self, shape, size, pad, backward=False, epilogue=BIAS, prologue=None, tile_offset=(0, 0)):
        """The problem that makes maps of this size from an array of this shape."""
        outputs = self.inputs if backward else self.outputs
        source = shape[2:]
        pooled = epilogue.pool
        if isinstance(prologue, PoolWinners):  # source: rows and columns of the map before the pool within windows
            pooled = source
            source = tuple(min(n, 2 * m) for n, m in zip(self.output_size(size, pad), pooled))
        mask_offset = prologue.offset if isinstance(prologue, ReluMask) else (0, 0)
        return ConvProblem(
            shape[1] // self.group, source, outputs // self.group, size, self.kernel, self.stride, self.dilation,
            pad[:2], self.group, backward, prologue_code(prologue), epilogue_code(epilogue), pooled, tile_offset,
            mask_offset,
        )  # fmt: skip

    def _run(self, x, problem, prologue=None, order=None):
        """(y, the prologue of its gradient or None)"""
        ops = self.ops
        y = ops.empty(problem.written)
        bias = self._no_bias if problem.backward or self._bias is None else self._bias

        def run(algorithm):
            saved = self._empty_prologue(problem, algorithm.winograd)
            operands = ConvOperands(x, prologue and prologue[0], bias, y, saved and saved[0])
            if algorithm.winograd:
                winograd.convolve(ops, algorithm, problem, operands, self._winograd_filters)
            else:
                self._launch_direct(algorithm, problem, operands)
            return saved

        shape, options = self._gemm_shape(problem, order)
        if ops.autotune:
            key = ("convolution", *problem.key, *(order or ()))
            candidates = ranked_algorithms(*shape, **options)
            algorithm = ops.choices.pick(key, candidates, run, lambda each: _kernels(each, problem))
            self._drop_untaken_filters(algorithm, problem.backward)
        else:
            algorithm = best_algorithm(*shape, **options)
        self._algorithms[problem.backward] = algorithm
        return y, run(algorithm)

    def _launch_direct(self, algorithm, problem, operands):
        """Launch convolution.cl and, after split-K, finish.cl."""
        ops = self.ops
        block, splits = algorithm[:2]
        y = operands.y
        pools = problem.epilogue is EpilogueCode.RELU_POOL
        outputs = y.shape[1]
        plane = math.prod(problem.size)
        target = y if splits == 1 else ops.empty((splits, outputs, problem.positions if pools else plane))
        filters = self._backward_filters if problem.backward else self._forward_filters
        groups = (
            -(-problem.positions // block.bn), -(-problem.outputs // block.bm), problem.repeats * splits
        )  # fmt: skip
        arguments = (
            operands.x, filters, operands.bias, target, operands.mask, operands.saved, *ops.factor(1.0), 0,
            *problem.layout(splits),
        )  # fmt: skip
        macros = _macros(block, problem.prologue)
        ops.launch("convolution", "convolution", groups, arguments, block.threads, macros)
        if splits == 1:
            return
        groups = (-(-math.prod(y.shape[2:]) // 256), outputs, 1)
        arguments = (target, operands.bias, y, operands.saved, splits, outputs)
        if pools:
            ops.launch("finish", "finish_pool", groups, (*arguments, *problem.size, *problem.pooled))
        else:
            ops.launch("finish", "finish", groups, (*arguments, plane, problem.epilogue))

    def _gemm_shape(self, problem, order=None):
        """(arguments, options) of `best_algorithm` and `ranked_algorithms`."""
        device = self.ops.device
        taps = math.prod(self.kernel)
        shape = (
            problem.outputs, problem.positions, problem.channels, taps, problem.repeats, device.multiprocessors
        )  # fmt: skip
        blocks = math.prod(winograd.tile_grid(problem.size, problem.tile_offset)) if self.winograd else 0
        options = {
            "blocks": blocks, "cpu": device.kind == "cpu", "memory": device.memory, "cache_size": device.cache_size
        }  # fmt: skip
        return shape, options | ({"order": order} if order else {})

    def _reduction_order(self, size, pad, epilogue, backward, full_map):
        """The `Algorithm.reduction_order` by which windows of a picture round as the whole; None: any.

        The layer and the picture's map decide it: by estimate or, where algorithms are timed, by time on a map of that
        shape and at most _TRIAL_SIZE numbers, whatever the epilogue."""
        if full_map is None:
            return None
        if not self.ops.autotune:
            return self._estimated_algorithm(full_map, pad, backward).reduction_order
        scale = min(1, math.sqrt(_TRIAL_SIZE / max(self.inputs, self.outputs) / math.prod(full_map)))
        trial = tuple(max(1, round(n * scale)) for n in full_map)
        if trial == size and epilogue == (BIAS if backward else RELU):
            return None  # this call is the trial
        key = trial, pad, self.ops.choices.adoptions
        if key not in self._timed_orders:
            self._timed_orders[key] = self._timed_algorithm(trial, pad, backward).reduction_order
        return self._timed_orders[key]

    def _estimated_algorithm(self, size, pad, backward):
        """The `Algorithm` with the least estimated time on a map of this size."""
        problem = self._problem(self._trial_shape(size, pad, backward), size, pad, backward)
        shape, options = self._gemm_shape(problem)
        return best_algorithm(*shape, **options)

    def _timed_algorithm(self, size, pad, backward):
        """The fastest `Algorithm` on a map of this size."""
        x = self.ops.empty(self._trial_shape(size, pad, backward))
        self._run(x, self._problem(x.shape, size, pad, backward, BIAS if backward else RELU))
        return self._algorithms[backward]

    def _trial_shape(self, size, pad, backward):
        """Shape of an array from which a map of this size is computed."""
        if backward:
            return (1, self.outputs, *self.output_size(size, pad))
        source = [(n - 1) * s + e - a - b for n, s, e, a, b in zip(size, self.stride, self.extent, pad, pad[2:])]
        return (1, self.inputs, *source)

    def _empty_prologue(self, problem, by_winograd):
        """A prologue with room for the ReLU's bits or the pool's winners, or None where nothing is saved."""
        if problem.epilogue is EpilogueCode.RELU_POOL:
            return PoolWinners(self.ops.empty((self.outputs, *problem.pooled), np.uint8))
        if problem.epilogue is not EpilogueCode.RELU_BITS:
            return None
        if by_winograd:
            offset = problem.tile_offset
            tiles = winograd.tile_grid(problem.size, offset)
            return ReluMask(self.ops.empty((self.outputs, *tiles), np.uint16), offset)
        return ReluMask(self.ops.empty((self.outputs, -(-math.prod(problem.size) // 32)), np.uint32))

    def _drop_untaken_filters(self, algorithm, backward):
        """Free filters of algorithms that were tried and not taken."""
        used = "_winograd_filters" if algorithm.winograd else "_backward_filters" if backward else "_forward_filters"
        self._used_filters.add(used)
        packed = {"_winograd_filters", "_backward_filters", "_forward_filters"}
        for name in packed & vars(self).keys() - self._used_filters:
            filters = vars(self).pop(name)
            self.ops.filter_bytes -= filters.nbytes
            pool = filters.block.pool
            del filters
            pool.trim_persistent()


def matrix_product(ops, d, x, factor, target, accumulate):
    """target ← factor · D F (+ target) for D symmetric (C, C) and F = x as (C, positions)."""
    channels = x.shape[1]
    positions = math.prod(x.shape[2:])
    problem = ConvProblem(channels, (1, positions), channels, (1, positions))
    cpu = ops.device.kind == "cpu"
    shape = channels, positions, channels, 1, 1, ops.device.multiprocessors
    block = best_algorithm(*shape, splits=(1,), cpu=cpu).block
    arguments = (x, d, None, target, None, None, *ops.factor(factor), accumulate, *problem.layout(1))
    groups = (-(-positions // block.bn), -(-channels // block.bm), 1)
    ops.launch("convolution", "convolution", groups, arguments, block.threads, _macros(block, matrix=1))


def _kernels(algorithm, problem):
    """(source, macros) of the kernels that an algorithm launches, without the end of split-K."""
    if algorithm.winograd:
        return winograd.kernels(algorithm.block, problem)
    return [("convolution", _macros(algorithm.block, problem.prologue))]


@cache
def _macros(block, prologue=0, matrix=0):
    return (*block.macros, ("PROLOGUE", int(prologue)), ("MATRIX", matrix))
