"""3×3 convolution by Winograd's F(4×4, 3×3), with the ReLU and the 2×2 max pool after it in the same pass."""

from __future__ import annotations

import math

import numpy as np

from ..base import BIAS, UNPLACED, PoolWinners, ReluMask
from .convolution import Convolution
from .library import Winograd

_MIN_CHANNELS = 8  # of inputs and of outputs, from which on the transforms pay
_SOURCES = {type(None): 0, ReluMask: 1, PoolWinners: 2}  # as in engine.h: the meaning of the gradient's numbers
SLACK = 64  # bytes that the engine may read beyond the bits and bytes that it saves


def fits(weight, stride, dilation, group) -> bool:
    """True if Winograd's algorithm can compute a convolution of this weight shape and is worth it."""
    geometry = (*weight[2:], *stride, *dilation, group)
    return geometry == (3, 3, 1, 1, 1, 1, 1) and min(weight[:2]) >= _MIN_CHANNELS


class WinogradConvolution(Convolution):
    """Convolution in blocks of 4×4 outputs; the bits of its ReLU masks are in the order of the blocks."""

    block_size = 4
    supports_offset = True

    def __init__(self, ops, weight, bias, stride, dilation, group):
        super().__init__(ops, weight, bias, stride, dilation, group)
        self._calls = {}

    def engine(self, backward=False):
        return f"Winograd 4×4, {self.ops.variant}"

    def fuses_pool(self, kernel, stride, pad):
        return kernel == stride == (2, 2) and pad == (0, 0)

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        size = x.shape[2:]
        offset = grid.offset
        relu, saves, pool = epilogue
        height, width = self.output_size(size, pad)
        saved = None  # made first, so that large maps lie side by side and leave large holes
        if saves and pool:
            saved = self.ops.pool.empty((self.outputs * math.prod(pool) + SLACK,), np.uint8)
        elif saves:
            blocks = math.prod(-(-(n + o) // 4) for n, o in zip((height, width), offset))
            saved = self.ops.bits(self.outputs, 16 * 48 * -(-blocks // 48))
        y = self.ops.empty((1, self.outputs, *(pool or (height, width))))
        key = size, pad, relu, pool, offset
        if key not in self._calls:
            pooled = pool or (0, 0)
            self._calls[key] = self.ops.prepare(
                "winograd", Winograd, channels=self.inputs, height=size[0], width=size[1], weight=self._filters,
                outputs=self.outputs, output_step=9 * self.inputs, input_step=9, bias=self.bias, pad_top=pad[0],
                pad_left=pad[1], out_height=height, out_width=width, shift_y=offset[0], shift_x=offset[1],
                relu=relu, pool_height=pooled[0], pool_width=pooled[1],
            )  # fmt: skip
        self._calls[key](x=x, y=y, bits_out=saved)
        if saved is None:
            return y, None
        return y, PoolWinners(saved) if pool else ReluMask(saved, offset)

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        pooled = isinstance(prologue, PoolWinners)
        source = _SOURCES[type(prologue)]
        saved, saved_offset = (*(prologue or (None,)), (0, 0))[:2]
        key = size, pad, source, g.shape[2:], saved_offset
        if key not in self._calls:
            map_size = self.output_size(size, pad) if pooled else g.shape[2:]
            self._calls[key] = self.ops.prepare(
                "winograd", Winograd, channels=self.outputs, height=map_size[0], width=map_size[1], source=source,
                saved_y=saved_offset[0], saved_x=saved_offset[1], pooled_height=g.shape[2], pooled_width=g.shape[3],
                weight=self._filters, outputs=self.inputs, output_step=9, input_step=9 * self.inputs, flip=True,
                pad_top=2 - pad[0], pad_left=2 - pad[1], out_height=size[0], out_width=size[1],
            )  # fmt: skip
        gx = self.ops.empty((1, self.inputs, *size))
        self._calls[key](x=g, saved=saved, y=gx)
        return gx
