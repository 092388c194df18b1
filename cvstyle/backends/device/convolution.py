"""Convolution on a device: weights packed for the kernel, and the choice of tiles."""

from __future__ import annotations

import math
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np


class Tile(NamedTuple):
    """What one group computes (see convolution.cl): bm outputs × bn positions, tm × tn of them per work-item.

    efficiency: arithmetic per access to local memory, relative to the largest tile.
    """

    bm: int
    bn: int
    tm: int
    tn: int
    efficiency: float

    def __str__(self):
        return f"{self.bm}×{self.bn}"

    @property
    def threads(self):
        return self.bm // self.tm * (self.bn // self.tn)

    @property
    def resident(self):
        """Work-items that a multiprocessor holds (convolution.cl gives the registers for that)."""
        return 384 if self.threads == 64 else 512


class Way(NamedTuple):
    """A way to carry a convolution out: a tile, and how many groups share the channels."""

    tile: object
    splits: int

    def __str__(self):
        return f"tile {self.tile}, {self.splits} share{'s' if self.splits > 1 else ''}"


TILES = (
    Tile(128, 128, 8, 8, 1.0), Tile(64, 128, 8, 8, 0.95), Tile(64, 64, 8, 8, 0.85), Tile(32, 128, 4, 8, 0.65),
    Tile(4, 256, 4, 4, 0.2),
)  # fmt: skip
_SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)
_WORKSPACE = 4 << 20  # floats that the shares may take together
_FULL = 384  # work-items that keep it busy
_TRAFFIC = 40  # multiply-adds that take as long as moving one float through memory
_SLACK = 128  # floats after the weights that a tile may read
_MOST, _WORTH = 8, 1.7  # so many ways are tried out, and those estimated to take so much more than the best


class Convolution:
    """Convolution with fixed weights on a device; see `numpy.Convolution` for the arguments and methods."""

    block = 1
    movable = False

    def __init__(self, ops, weight, bias, stride, dilation, group):
        self.ops, self.stride, self.dilation, self.group = ops, stride, dilation, group
        self.kernel = weight.shape[2:]
        self.extent = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, dilation, strict=True))
        self.outputs, self.inputs = weight.shape[0], weight.shape[1] * group
        self._source = weight
        self._bias = None if bias is None else ops.asarray(bias)
        self._taken = {}

    def output_size(self, size, pad):
        """(height, width) of the output for an input of this (height, width)."""
        return tuple((n + pad[i] + pad[i + 2] - self.extent[i]) // self.stride[i] + 1 for i, n in enumerate(size))

    def engine(self, backward=False):
        """What the last call in this direction was carried out by, in words."""
        taken = self._taken.get(int(backward))
        return "" if taken is None else str(taken)

    def forward(self, x, pad):
        return self._run(x, self._weights, self._bias, self.output_size(x.shape[2:], pad), pad, self.outputs)

    def backward(self, g, size, pad):
        return self._run(g, self._adjoint, None, size, pad, self.inputs, adjoint=1)

    def forward_relu(self, x, pad, keep):
        size = self.output_size(x.shape[2:], pad)
        bits = self.ops.empty((self.outputs, -(-math.prod(size) // 32)), np.uint32) if keep else None
        y = self._run(x, self._weights, self._bias, size, pad, self.outputs, relu=2 if keep else 1, bits=bits)
        return y, bits

    def backward_relu(self, g, mask, size, pad):
        return self._run(g, self._adjoint, None, size, pad, self.inputs, adjoint=1, mask=mask)

    def fuses_pool(self, kernel, stride, pad):
        """Whether `forward_relu_pool` can do this max pool."""
        return kernel == stride == (2, 2) and pad == (0, 0)

    def forward_relu_pool(self, x, pad, keep, output):
        """`forward_relu` and then a 2×2 max pool of this output size: (y, winners)."""
        winners = self.ops.empty((self.outputs, *output), np.uint8)
        size = self.output_size(x.shape[2:], pad)
        y = self._run(x, self._weights, self._bias, size, pad, self.outputs, relu=3, bits=winners, pooled=output)
        return y, winners

    def backward_relu_pool(self, g, winners, size, pad):
        """Vector-Jacobian product of `forward_relu_pool`."""
        return self._run(g, self._adjoint, None, size, pad, self.inputs, adjoint=1, mask=winners, pooled=g.shape[2:])

    @cached_property
    def _weights(self):
        return self._packed(self._grouped().transpose(0, 3, 2, 1))

    @cached_property
    def _adjoint(self):
        return self._packed(self._grouped().transpose(0, 3, 1, 2))

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

    def _run(self, x, weights, bias, size, pad, outputs, adjoint=0, relu=0, mask=None, bits=None, pooled=None):
        ops, groups = self.ops, self.group
        channels, per_group, source = x.shape[1] // groups, outputs // groups, x.shape[2:]
        masked = int(mask is not None)
        if masked and pooled:
            masked = 2  # x stands for the map before the pool, of which windows reach these rows and columns
            source = [min(n, 2 * m) for n, m in zip(self.output_size(size, pad), pooled)]
        phases = self.stride if adjoint else (1, 1)
        positions = 4 * math.prod(pooled) if relu == 3 else math.prod(-(-n // s) for n, s in zip(size, phases))
        repeats = groups * math.prod(phases)
        shape = per_group, positions, channels, math.prod(self.kernel), repeats, ops.device.units
        apart = [s // math.gcd(s, d) if adjoint else 1 for s, d in zip(self.stride, self.dilation)]
        described = (channels, *source, per_group, *size, *self.kernel, *self.stride, *self.dilation, *pad[:2], *apart)
        y = ops.empty((1, outputs, *(pooled if relu == 3 else size)))
        bias = self._no_bias if bias is None else bias

        def run(way):
            tile, splits = way
            target = y if splits == 1 else ops.empty((splits, outputs, positions if relu == 3 else math.prod(size)))
            grid = (-(-positions // tile.bn), -(-per_group // tile.bm), repeats * splits)
            layout = (*described, groups, splits, adjoint, relu, *(pooled or (1, 1)))
            arguments = (x, weights, bias, target, mask, bits, *ops.factor(1.0), 0, *layout)
            ops.launch("convolution", "convolution", grid, arguments, tile.threads, _defines(tile, masked))
            if splits > 1:
                over = (-(-math.prod(y.shape[2:]) // 256), outputs, 1)
                ends = (target, bias, y, bits, splits, outputs)
                if relu == 3:
                    ops.launch("finish", "finish_pool", over, (*ends, *size, *pooled))
                else:
                    ops.launch("finish", "finish", over, (*ends, math.prod(size), relu))

        if ops.autotune:
            key = ("convolution", *described, groups, adjoint, masked, relu, *(pooled or ()))
            way = ops.choices.pick(key, ranked(*shape), run)
        else:
            way = plan(*shape)
        self._taken[adjoint] = way
        run(way)
        return y


def matrix_product(ops, d, x, factor, target, accumulate):
    """target ← factor · D F (+ target) for D symmetric (C, C) and F = x as (C, positions)."""
    channels, size = x.shape[1], x.shape[2:]
    positions = math.prod(size)
    tile, _ = plan(channels, positions, channels, 1, 1, ops.device.units, splits=(1,))
    layout = (channels, 1, positions, channels, 1, positions, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1)
    arguments = (x, d, None, target, None, None, *ops.factor(factor), int(accumulate), *layout)
    grid = (-(-positions // tile.bn), -(-channels // tile.bm), 1)
    ops.launch("convolution", "convolution", grid, arguments, tile.threads, _defines(tile, matrix=1))


def plan(*shape, splits=_SPLITS):
    """The `Way` of the least estimated time; see `ranked`."""
    return ranked(*shape, splits)[0]


@cache
def ranked(outputs, positions, channels, taps, repeats, units, splits=_SPLITS):
    """The ways that are worth trying, by their estimated time.

    units: multiprocessors. The estimate: the busiest one's multiply-adds, slowed where too few work-items hide its
    latency, and the traffic of the shares.
    """
    found = []
    chunks = -(-channels // 8)
    for tile in TILES:
        blocks = -(-outputs // tile.bm) * -(-positions // tile.bn) * repeats
        for split in splits:
            if split > chunks or (split > 1 and split * outputs * positions * repeats > _WORKSPACE):
                break
            turns = -(-blocks * split // units)
            resident = min(turns * tile.threads, tile.resident)
            work = turns * tile.bm * tile.bn * -(-chunks // split) * 8 * taps
            time = work / (tile.efficiency * min(1, resident / _FULL))
            if split > 1:
                time += (2 * split + 1) * outputs * positions * repeats * _TRAFFIC / units
            found.append((time, Way(tile, split)))
    return best_of(found)


def best_of(found):
    """The ways worth trying of (estimated time, way), best first."""
    found = sorted(found, key=lambda pair: pair[0])
    return [way for time, way in found[:_MOST] if time <= _WORTH * found[0][0]]


@cache
def _defines(tile, masked=0, matrix=0):
    sizes = (("BM", tile.bm), ("BN", tile.bn), ("BK", 8), ("TM", tile.tm), ("TN", tile.tn))
    return (*sizes, ("MASKED", masked), ("MATRIX", matrix))
