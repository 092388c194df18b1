"""Convolution on a device: weights packed for the kernels, and the choice among them."""

from __future__ import annotations

import math
from functools import cache, cached_property

import numpy as np

from ..base import BIAS, RELU, UNPLACED, Epilogue, PoolWinners, ReluMask
from . import winograd
from .ways import plan, ranked

_SLACK = 128  # floats after the weights that a tile may read
_TRIAL = 8 << 20  # floats of a map, at most, on which orders of sums are timed: enough to fill a device
_MASKS = {np.dtype(np.uint32): 1, np.dtype(np.uint8): 2, np.dtype(np.uint16): 3}  # MASKED in convolution.cl


def fused_code(epilogue):
    """The argument `relu` of the kernels: 0 for the bias alone, 1 for the ReLU, 2 with its bits, 3 with the pool."""
    return 3 if epilogue.pool else epilogue.relu + epilogue.saves


class Convolution:
    """Convolution with fixed weights on a device; see `numpy.Convolution` for the arguments and methods."""

    supports_offset = True

    def __init__(self, ops, weight, bias, stride, dilation, group):
        self.ops, self.stride, self.dilation, self.group = ops, stride, dilation, group
        self.kernel = weight.shape[2:]
        self.extent = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, dilation, strict=True))
        self.outputs, self.inputs = weight.shape[0], weight.shape[1] * group
        self.winograd = winograd.fits(weight.shape, stride, dilation, group)
        self._source = weight
        self._bias = None if bias is None else ops.asarray(bias)
        self._taken, self._needed, self._orders = {}, set(), {}

    @property
    def block_size(self):
        return 4 if self.winograd else 1

    def output_size(self, size, pad):
        """(height, width) of the output for an input of this (height, width)."""
        return tuple((n + pad[i] + pad[i + 2] - self.extent[i]) // self.stride[i] + 1 for i, n in enumerate(size))

    def engine(self, backward=False):
        """What the last call in this direction was carried out by, in words."""
        taken = self._taken.get(int(backward))
        return "" if taken is None else str(taken)

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        return self._run(x, self.output_size(x.shape[2:], pad), pad, 0, epilogue, grid=grid)

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        return self._run(g, size, pad, 1, prologue=prologue, grid=grid)[0]

    def fuses_pool(self, kernel, stride, pad):
        return kernel == stride == (2, 2) and pad == (0, 0)

    @cached_property
    def _weights(self):
        return self._packed(self._grouped().transpose(0, 3, 2, 1))

    @cached_property
    def _adjoint(self):
        return self._packed(self._grouped().transpose(0, 3, 1, 2))

    @cached_property
    def _frequencies(self):
        return self.ops.filters(winograd.transformed(self._grouped()))

    @cached_property
    def _no_bias(self):
        return self.ops.zeros((max(self.inputs, self.outputs),))

    def _grouped(self):
        """(group, outputs, inputs, taps)"""
        return self._source.reshape(self.group, self.outputs // self.group, self.inputs // self.group, -1)

    def _packed(self, weight):
        """(group, taps, channels, outputs) as the kernel reads it: rounded up with zeros, and some slack at the end."""
        groups, taps, channels, outputs = weight.shape
        shape = groups, taps, -(-channels // 8) * 8, -(-outputs // 4) * 4
        host = np.zeros(math.prod(shape) + _SLACK, np.float32)
        host[: math.prod(shape)].reshape(shape)[:, :, :channels, :outputs] = weight
        return self.ops.filters(host)

    def _run(self, x, size, pad, adjoint, epilogue=BIAS, prologue=None, grid=UNPLACED):
        """(y on a map of this size, the prologue of its gradient or None)"""
        ops, groups, relu = self.ops, self.group, fused_code(epilogue)
        outputs = self.inputs if adjoint else self.outputs
        mask, saved = (*(prologue or (None,)), (0, 0))[:2]
        pooled = x.shape[2:] if isinstance(prologue, PoolWinners) else epilogue.pool
        shift = (0, 0) if adjoint else grid.offset
        channels, per_group, source = x.shape[1] // groups, outputs // groups, x.shape[2:]
        masked = 0 if mask is None else _MASKS[mask.dtype]
        if masked == 2:  # x stands for the map before the pool, of which windows reach these rows and columns
            source = [min(n, 2 * m) for n, m in zip(self.output_size(size, pad), pooled)]
        shape, options = self._shape(size, adjoint, shift, 4 * math.prod(pooled) if relu == 3 else None)
        (_, positions, _, _, repeats, _), order = shape, self._order(size, pad, epilogue, adjoint, grid.full_map)
        if order:
            options["order"] = order
        apart = [s // math.gcd(s, d) if adjoint else 1 for s, d in zip(self.stride, self.dilation)]
        described = (channels, *source, per_group, *size, *self.kernel, *self.stride, *self.dilation, *pad[:2], *apart)
        y = ops.empty((1, outputs, *(pooled if relu == 3 else size)))
        bias = self._no_bias if adjoint or self._bias is None else self._bias

        def run(way):
            """Returns the prologue."""
            tile, splits, by_winograd = way[:3]
            found = self._empty_prologue(epilogue, size, by_winograd, shift)
            bits = found and found[0]
            if by_winograd:
                winograd.convolve(
                    ops, way, x, source, self._frequencies, bias, y, size, shift, pad, groups, adjoint, relu, masked,
                    mask, saved, bits, pooled
                )  # fmt: skip
                return found
            target = y if splits == 1 else ops.empty((splits, outputs, positions if relu == 3 else math.prod(size)))
            grid = (-(-positions // tile.bn), -(-per_group // tile.bm), repeats * splits)
            layout = (*described, groups, splits, adjoint, relu, *(pooled or (1, 1)), *saved)
            weights = self._adjoint if adjoint else self._weights
            arguments = (x, weights, bias, target, mask, bits, *ops.factor(1.0), 0, *layout)
            ops.launch("convolution", "convolution", grid, arguments, tile.threads, _defines(tile, masked))
            if splits > 1:
                over = (-(-math.prod(y.shape[2:]) // 256), outputs, 1)
                ends = (target, bias, y, bits, splits, outputs)
                if relu == 3:
                    ops.launch("finish", "finish_pool", over, (*ends, *size, *pooled))
                else:
                    ops.launch("finish", "finish", over, (*ends, math.prod(size), relu))
            return found

        def kernels(way):
            if way.winograd:
                return winograd.kernels(way.tile, adjoint, masked)
            return [("convolution", _defines(way.tile, masked))]

        if ops.autotune:
            key = ("convolution", *described, groups, adjoint, masked, relu, *(pooled or ()), *(order or ()))
            way = ops.choices.pick(key, ranked(*shape, **options), run, kernels)
            self._forget_but(way, adjoint)
        else:
            way = plan(*shape, **options)
        self._taken[adjoint] = way
        return y, run(way)

    def _shape(self, size, adjoint, shift=(0, 0), positions=None):
        """What `plan` and `ranked` ask for, on a map of this size: arguments, and options."""
        per_group, channels = (n // self.group for n in (self.outputs, self.inputs)[:: -1 if adjoint else 1])
        phases = self.stride if adjoint else (1, 1)
        positions = positions or math.prod(-(-n // s) for n, s in zip(size, phases))
        repeats = self.group * math.prod(phases)
        device = self.ops.device
        shape = per_group, positions, channels, math.prod(self.kernel), repeats, device.units
        blocks = math.prod(winograd.blocks(size, shift)) if self.winograd else 0
        known = {"cpu": device.kind == "cpu", "memory": device.memory, "cached": device.cache}
        return shape, {"blocks": blocks, **known}

    def _order(self, size, pad, epilogue, adjoint, full_map):
        """In which order sums must be taken (`Way.order`), so that windows of a picture round as it does; None: in any.

        It is decided by the layer and the picture's map: by estimate or, where ways are timed, by time on a map of that
        shape and at most _TRIAL numbers, whatever follows the sums."""
        if full_map is None:
            return None
        if not self.ops.autotune:
            return self._estimated(full_map, pad, adjoint).order
        scale = min(1, math.sqrt(_TRIAL / max(self.inputs, self.outputs) / math.prod(full_map)))
        tried = tuple(max(1, round(n * scale)) for n in full_map)
        if tried == size and epilogue == (Epilogue() if adjoint else RELU):
            return None  # this is what is timed
        key = tried, pad, self.ops.choices.adopted
        if key not in self._orders:
            self._orders[key] = self._timed(tried, pad, adjoint).order
        return self._orders[key]

    def _estimated(self, size, pad, adjoint):
        """The `Way` that is estimated to be fastest on a map of this size."""
        shape, options = self._shape(size, adjoint)
        return plan(*shape, **options)

    def _timed(self, size, pad, adjoint):
        """The `Way` that is fastest on a map of this size."""
        if adjoint:
            source = self.output_size(size, pad)
            self._run(self.ops.empty((1, self.outputs, *source)), size, pad, 1)
        else:
            source = [(n - 1) * s + e - a - b for n, s, e, a, b in zip(size, self.stride, self.extent, pad, pad[2:])]
            self._run(self.ops.empty((1, self.inputs, *source)), size, pad, 0, RELU)
        return self._taken[adjoint]

    def _empty_prologue(self, epilogue, size, by_winograd, offset):
        """A prologue with room for the bits of the ReLU or the winners of the pool, or None where nothing is saved."""
        if epilogue.pool:
            return PoolWinners(self.ops.empty((self.outputs, *epilogue.pool), np.uint8))
        if not epilogue.saves:
            return None
        if by_winograd:
            return ReluMask(self.ops.empty((self.outputs, *winograd.blocks(size, offset)), np.uint16), offset)
        return ReluMask(self.ops.empty((self.outputs, -(-math.prod(size) // 32)), np.uint32))

    def _forget_but(self, way, adjoint):
        """Give filters up that were needed for ways that were tried and not taken."""
        self._needed.add("_frequencies" if way.winograd else "_adjoint" if adjoint else "_weights")
        for name in {"_frequencies", "_adjoint", "_weights"} & vars(self).keys() - self._needed:
            filters = vars(self).pop(name)
            self.ops.weights -= filters.nbytes
            pool = filters.block.pool
            del filters
            pool.trim_lasting()


def matrix_product(ops, d, x, factor, target, accumulate):
    """target ← factor · D F (+ target) for D symmetric (C, C) and F = x as (C, positions)."""
    channels, size = x.shape[1], x.shape[2:]
    positions = math.prod(size)
    cpu = ops.device.kind == "cpu"
    tile = plan(channels, positions, channels, 1, 1, ops.device.units, splits=(1,), cpu=cpu).tile
    layout = (channels, 1, positions, channels, 1, positions, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0)
    arguments = (x, d, None, target, None, None, *ops.factor(factor), int(accumulate), *layout)
    grid = (-(-positions // tile.bn), -(-channels // tile.bm), 1)
    ops.launch("convolution", "convolution", grid, arguments, tile.threads, _defines(tile, matrix=1))


@cache
def _defines(tile, masked=0, matrix=0):
    return (*tile.macros, ("MASKED", masked), ("MATRIX", matrix))
