"""Geometry of a convolution as the kernels take it, and the integers for its fused operations."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from ..base import Size


class EpilogueCode(IntEnum):
    """The kernels' argument `epilogue` (portable.h): the operations on the sums of a convolution."""

    BIAS = 0
    RELU = 1
    RELU_BITS = 2  # the ReLU's bits are saved
    RELU_POOL = 3  # a 2×2 max pool after the ReLU; its winners are saved


class PrologueCode(IntEnum):
    """The kernels' macro PROLOGUE (portable.h): how an incoming gradient is masked as it is read."""

    NONE = 0
    MASK_BITS = 1  # one bit per element, by rows
    POOL_WINNERS = 2  # one byte per window of a 2×2 max pool
    MASK_TILES = 3  # 16 bits per Winograd tile


def epilogue_code(epilogue) -> EpilogueCode:
    """The code of an `Epilogue`."""
    return EpilogueCode.RELU_POOL if epilogue.pool else EpilogueCode(epilogue.relu + epilogue.saves)


_BY_DTYPE = {
    np.dtype(np.uint32): PrologueCode.MASK_BITS, np.dtype(np.uint8): PrologueCode.POOL_WINNERS,
    np.dtype(np.uint16): PrologueCode.MASK_TILES,
}  # fmt: skip


def prologue_code(prologue) -> PrologueCode:
    """The code of a prologue that `convolution.Convolution` made, or of None."""
    return _BY_DTYPE[prologue[0].dtype] if prologue else PrologueCode.NONE


class ConvProblem(NamedTuple):
    """Geometry of one pass of a convolution, forward or backward; sizes are (height, width).

    channels, outputs: numbers of maps per group that the pass reads and writes. source: size of the map that is read
    (with POOL_WINNERS, of the map before the pool, whose gradient is read). size: size of the map that is computed.
    pad: (top, left). pooled: size of the pooled map that is read or written, or None. tile_offset, mask_offset: rows
    and columns by which Winograd tiles, of the outputs and of a mask, start before the map.
    """

    channels: int
    source: Size
    outputs: int
    size: Size
    kernel: Size = (1, 1)
    stride: Size = (1, 1)
    dilation: Size = (1, 1)
    pad: Size = (0, 0)
    groups: int = 1
    backward: bool = False
    prologue: PrologueCode = PrologueCode.NONE
    epilogue: EpilogueCode = EpilogueCode.BIAS
    pooled: Size | None = None
    tile_offset: Size = (0, 0)
    mask_offset: Size = (0, 0)

    @property
    def written(self) -> tuple[int, ...]:
        """Shape of the result."""
        size = self.pooled if self.epilogue is EpilogueCode.RELU_POOL else self.size
        return (1, self.groups * self.outputs, *size)

    @property
    def positions(self) -> int:
        """Positions of one of the products: of one phase of a strided gradient, of whole windows before a pool."""
        if self.epilogue is EpilogueCode.RELU_POOL:
            return 4 * math.prod(self.pooled)
        return math.prod(-(-n // s) for n, s in zip(self.size, self.phases))

    @property
    def phases(self) -> Size:
        """Numbers of rows and columns of phases: positions of a strided gradient that meet the same taps."""
        return self.stride if self.backward else (1, 1)

    @property
    def repeats(self) -> int:
        """Number of products, each of `positions`."""
        return self.groups * math.prod(self.phases)

    @property
    def _shape(self):
        steps = [s // math.gcd(s, d) if self.backward else 1 for s, d in zip(self.stride, self.dilation)]
        return (
            self.channels, *self.source, self.outputs, *self.size, *self.kernel, *self.stride, *self.dilation,
            *self.pad, *steps,
        )  # fmt: skip

    @property
    def key(self) -> tuple[int, ...]:
        """Numbers that identify the problem in the tuning file and in checkpoints."""
        codes = map(int, (self.backward, self.prologue, self.epilogue))
        return (*self._shape, self.groups, *codes, *(self.pooled or ()))

    def layout(self, splits: int) -> tuple[int, ...]:
        """The arguments LAYOUT of convolution.cl."""
        return (
            *self._shape, self.groups, splits, self.backward, self.epilogue, *(self.pooled or (1, 1)),
            *self.mask_offset,
        )  # fmt: skip


class ConvOperands(NamedTuple):
    """Arrays of one pass of a convolution. mask: bits or winners of the prologue, or None. saved: room for the bits or
    winners of the epilogue, or None."""

    x: object
    mask: object
    bias: object
    y: object
    saved: object
