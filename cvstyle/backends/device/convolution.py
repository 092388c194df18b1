"""Convolution on a device: weights packed for the kernels, and the choice among them."""

from __future__ import annotations

import math
from functools import cache, cached_property

import numpy as np

from . import winograd
from .ways import plan, ranked

_SLACK = 128  # floats after the weights that a tile may read
_TRIAL = 8 << 20  # floats of a map, at most, on which orders of sums are timed: enough to fill a device
_MASKS = {np.dtype(np.uint32): 1, np.dtype(np.uint8): 2, np.dtype(np.uint16): 3}  # MASKED in convolution.cl


class Convolution:
    """Convolution with fixed weights on a device; see `numpy.Convolution` for the arguments and methods.

    Masks of Winograd's algorithm are (bits of its tiles, where these start).
    """

    movable = True
    shift = (0, 0)

    def __init__(self, ops, weight, bias, stride, dilation, group):
        self.ops, self.stride, self.dilation, self.group = ops, stride, dilation, group
        self.kernel = weight.shape[2:]
        self.extent = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, dilation, strict=True))
        self.outputs, self.inputs = weight.shape[0], weight.shape[1] * group
        self.winograd = winograd.fits(weight.shape, stride, dilation, group)
        self._source = weight
        self._bias = None if bias is None else ops.asarray(bias)
        self._taken, self._needed, self._orders = {}, set(), {}
        self._wholes = {}  # direction → the map of the picture of which windows are computed

    def place(self, shift, whole, backward=False):
        self.shift, self._wholes = shift, {int(backward): whole}

    @property
    def block(self):
        return 4 if self.winograd else 1

    def output_size(self, size, pad):
        """(height, width) of the output for an input of this (height, width)."""
        return tuple((n + pad[i] + pad[i + 2] - self.extent[i]) // self.stride[i] + 1 for i, n in enumerate(size))

    def engine(self, backward=False):
        """What the last call in this direction was carried out by, in words."""
        taken = self._taken.get(int(backward))
        return "" if taken is None else str(taken)

    def forward(self, x, pad):
        return self._forward(x, pad)[0]

    def backward(self, g, size, pad):
        return self._backward(g, size, pad)

    def forward_relu(self, x, pad, keep):
        return self._forward(x, pad, relu=2 if keep else 1)

    def backward_relu(self, g, mask, size, pad):
        return self._backward(g, size, pad, mask)

    def fuses_pool(self, kernel, stride, pad):
        """Whether `forward_relu_pool` can do this max pool."""
        return kernel == stride == (2, 2) and pad == (0, 0)

    def forward_relu_pool(self, x, pad, keep, output):
        """`forward_relu` and then a 2×2 max pool of this output size: (y, winners)."""
        return self._forward(x, pad, relu=3, pooled=output)

    def backward_relu_pool(self, g, winners, size, pad):
        """Vector-Jacobian product of `forward_relu_pool`."""
        return self._backward(g, size, pad, winners, pooled=g.shape[2:])

    def _forward(self, x, pad, relu=0, pooled=None):
        return self._run(x, self.output_size(x.shape[2:], pad), pad, self.outputs, 0, relu, pooled=pooled)

    def _backward(self, g, size, pad, mask=None, pooled=None):
        return self._run(g, size, pad, self.inputs, 1, mask=mask, pooled=pooled)[0]

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

    def _run(self, x, size, pad, outputs, adjoint, relu=0, mask=None, pooled=None):
        """(y, what the ReLU or the pool leaves for the gradient)"""
        ops, groups = self.ops, self.group
        mask, saved = mask if isinstance(mask, tuple) else (mask, (0, 0))
        shift = (0, 0) if adjoint else self.shift
        channels, per_group, source = x.shape[1] // groups, outputs // groups, x.shape[2:]
        masked = 0 if mask is None else _MASKS[mask.dtype]
        if masked == 2:  # x stands for the map before the pool, of which windows reach these rows and columns
            source = [min(n, 2 * m) for n, m in zip(self.output_size(size, pad), pooled)]
        shape, options = self._shape(size, adjoint, shift, 4 * math.prod(pooled) if relu == 3 else None)
        (_, positions, _, _, repeats, _), order = shape, self._order(size, pad, relu, adjoint)
        if order:
            options["order"] = order
        apart = [s // math.gcd(s, d) if adjoint else 1 for s, d in zip(self.stride, self.dilation)]
        described = (channels, *source, per_group, *size, *self.kernel, *self.stride, *self.dilation, *pad[:2], *apart)
        y = ops.empty((1, outputs, *(pooled if relu == 3 else size)))
        bias = self._no_bias if adjoint or self._bias is None else self._bias

        def run(way):
            """Returns the bits or winners."""
            tile, splits, by_winograd = way[:3]
            bits = self._room_for_bits(relu, size, pooled, by_winograd and shift)
            if by_winograd:
                winograd.convolve(
                    ops, way, x, source, self._frequencies, bias, y, size, shift, pad, groups, adjoint, relu, masked,
                    mask, saved, bits, pooled
                )  # fmt: skip
                return (bits, shift) if relu == 2 else bits
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
            return bits

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

    def _order(self, size, pad, relu, adjoint):
        """In which order sums must be taken (`Way.order`), so that windows of a picture round as it does; None: in any.

        It is decided by the layer and the picture's map: by estimate or, where ways are timed, by time on a map of that
        shape and at most _TRIAL numbers, whatever follows the sums."""
        whole = self._wholes.get(adjoint)
        if whole is None:
            return None
        if not self.ops.autotune:
            return self._estimated(whole, pad, adjoint).order
        scale = min(1, math.sqrt(_TRIAL / max(self.inputs, self.outputs) / math.prod(whole)))
        tried = tuple(max(1, round(n * scale)) for n in whole)
        if tried == size and relu == (0 if adjoint else 2):
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
            self._run(self.ops.empty((1, self.outputs, *source)), size, pad, self.inputs, 1)
        else:
            source = [(n - 1) * s + e - a - b for n, s, e, a, b in zip(size, self.stride, self.extent, pad, pad[2:])]
            self._run(self.ops.empty((1, self.inputs, *source)), size, pad, self.outputs, 0, relu=2)
        return self._taken[adjoint]

    def _room_for_bits(self, relu, size, pooled, shift):
        """An array for what a ReLU, or a pool after it, leaves for the gradient; None where it leaves nothing. shift:
        where Winograd's tiles start, if it is by them."""
        if relu == 3:
            return self.ops.empty((self.outputs, *pooled), np.uint8)
        if relu < 2:
            return None
        if shift:
            return self.ops.empty((self.outputs, *winograd.blocks(size, shift)), np.uint16)
        return self.ops.empty((self.outputs, -(-math.prod(size) // 32)), np.uint32)

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
