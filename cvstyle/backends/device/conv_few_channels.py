"""Convolution with few channels on one side, as a network's first, by kernels of its own (few_channels.cl); fp32."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..base import BIAS, UNPLACED, PoolWinners, ReluMask
from .conv_problem import epilogue_code
from .convolution import Convolution

_COLUMNS = 32  # these three as in few_channels.cl
_ROWS = 16
_OUTPUTS = 16


def fits(weight, stride, dilation, group):
    """True if the kernels can do a convolution with weights of this shape."""
    outputs, channels, side = weight[:3]
    ordinary = stride == dilation == (1, 1) and group == 1 and side == weight[3]
    return ordinary and 3 <= side <= 7 and channels <= 4 and outputs % _OUTPUTS == 0


class FewChannelsConvolution(Convolution):
    """A convolution of few input channels; with a fused pool, a `Convolution`."""

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        if epilogue.pool:
            return super().forward(x, pad, epilogue, grid)
        height, width = self.output_size(x.shape[2:], pad)
        prologue = None
        if epilogue.saves:
            prologue = ReluMask(self.ops.empty((self.outputs, height, -(-width // 32)), np.uint32))
        return self._forward(x, (height, width), pad, epilogue_code(epilogue), prologue), prologue

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        if isinstance(prologue, PoolWinners):
            return super().backward(g, size, pad, prologue, grid)
        return self._backward(g, size, pad, prologue and prologue.bits)

    @cached_property
    def _filters(self):
        """(blocks of outputs, channels, side, side, outputs of a block)"""
        w = self._source.reshape(-1, _OUTPUTS, *self._source.shape[1:])
        return self.ops.upload_filters(np.ascontiguousarray(w.transpose(0, 2, 3, 4, 1), np.float32))

    @cached_property
    def _rotated_filters(self):
        """(outputs, side, side, channels rounded up to 4), rotated by 180°"""
        w = np.zeros((self.outputs, *self.kernel, 4), np.float32)
        w[..., : self.inputs] = np.flip(self._source, (2, 3)).transpose(0, 2, 3, 1)
        return self.ops.upload_filters(w)

    def _forward(self, x, size, pad, epilogue, prologue):
        ops = self.ops
        y = ops.empty((1, self.outputs, *size))
        largest = ops.empty((1,)) if ops.operand_format == "fp16" else None
        bias = self._no_bias if self._bias is None else self._bias
        arguments = (
            x, self._filters, bias, y, prologue and prologue.bits, largest, ops.counters(2), *x.shape[2:], *size,
            *pad[:2], epilogue, largest is not None,
        )  # fmt: skip
        groups = (_patches(size), self.outputs // _OUTPUTS, 1)
        ops.launch("few_channels", "forward", groups, arguments, _COLUMNS // 4 * _ROWS, self._macros(False))
        y.block.abs_max = largest
        self._algorithms[0] = "few channels"
        return y

    def _backward(self, g, size, pad, mask=None):
        ops = self.ops
        y = ops.empty((1, self.inputs, *size))
        pad = [e - 1 - p for e, p in zip(self.extent, pad)]
        arguments = (g, self._rotated_filters, mask, y, self.outputs, *g.shape[2:], *size, *pad)
        macros = self._macros(mask is not None)
        ops.launch("few_channels", "backward", (_patches(size), 1, 1), arguments, defines=macros)
        self._algorithms[1] = "few channels"
        return y

    def _macros(self, masked):
        return kernel_macros(self.kernel[0], self.inputs, masked)


def kernel_macros(side, channels, masked):
    """Macros of the kernels. masked: whether the gradient has a ReLU mask."""
    return (("SIDE", side), ("CHANNELS", channels), ("PROLOGUE", int(masked)))


def _patches(size):
    return -(-size[0] // _ROWS) * -(-size[1] // _COLUMNS)
