"""The convolution that reads the picture: few channels on one side, so it has kernels of its own (picture.cl); fp32."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..base import BIAS, UNPLACED, PoolWinners, ReluMask
from .convolution import Convolution, fused_code

_COLUMNS, _ROWS, _OUTPUTS = 32, 16, 16  # as in picture.cl


def fits(weight, stride, dilation, group):
    """Whether a convolution of this weight shape is one for these kernels."""
    outputs, channels, side = weight[:3]
    ordinary = stride == dilation == (1, 1) and group == 1 and side == weight[3]
    return ordinary and 3 <= side <= 7 and channels <= 4 and outputs % _OUTPUTS == 0


class PictureConvolution(Convolution):
    """Such a convolution; with a pool after it, it is an ordinary one."""

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        if epilogue.pool:
            return super().forward(x, pad, epilogue, grid)
        if not epilogue.saves:
            return self._map(x, pad, fused_code(epilogue)), None
        height, width = self.output_size(x.shape[2:], pad)
        bits = self.ops.empty((self.outputs, height, -(-width // 32)), np.uint32)
        return self._map(x, pad, fused_code(epilogue), bits), ReluMask(bits)

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        if isinstance(prologue, PoolWinners):
            return super().backward(g, size, pad, prologue, grid)
        return self._gradient(g, size, pad, prologue and prologue.bits)

    @cached_property
    def _filters(self):
        """(blocks of outputs, channels, side, side, outputs of a block)"""
        w = self._source.reshape(-1, _OUTPUTS, *self._source.shape[1:])
        return self.ops.filters(np.ascontiguousarray(w.transpose(0, 2, 3, 4, 1), np.float32))

    @cached_property
    def _turned(self):
        """(outputs, side, side, channels rounded up to 4), turned by half a circle"""
        w = np.zeros((self.outputs, *self.kernel, 4), np.float32)
        w[..., : self.inputs] = np.flip(self._source, (2, 3)).transpose(0, 2, 3, 1)
        return self.ops.filters(w)

    def _map(self, x, pad, relu=0, bits=None):
        ops, size = self.ops, self.output_size(x.shape[2:], pad)
        y, groups = ops.empty((1, self.outputs, *size)), (_groups(size), self.outputs // _OUTPUTS, 1)
        largest = ops.empty((1,)) if ops.word == "fp16" else None
        bias = self._no_bias if self._bias is None else self._bias
        arguments = (
            x, self._filters, bias, y, bits, largest, ops.counters(2), *x.shape[2:], *size, *pad[:2], relu,
            int(largest is not None),
        )  # fmt: skip
        ops.launch("picture", "forward", groups, arguments, _COLUMNS // 4 * _ROWS, self._defines(0))
        y.block.largest = largest
        self._taken[0] = "few channels"
        return y

    def _gradient(self, g, size, pad, mask=None):
        ops, y = self.ops, self.ops.empty((1, self.inputs, *size))
        pad = [e - 1 - p for e, p in zip(self.extent, pad)]
        arguments = (g, self._turned, mask, y, self.outputs, *g.shape[2:], *size, *pad)
        defines = self._defines(int(mask is not None))
        ops.launch("picture", "backward", (_groups(size), 1, 1), arguments, defines=defines)
        self._taken[1] = "few channels"
        return y

    def _defines(self, masked):
        return defines(self.kernel[0], self.inputs, masked)


def defines(side, channels, masked):
    """What the kernels are compiled for."""
    return (("SIDE", side), ("CHANNELS", channels), ("MASKED", masked))


def _groups(size):
    return -(-size[0] // _ROWS) * -(-size[1] // _COLUMNS)
