"""The interface of convolutions."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .records import BIAS, UNPLACED, BlockGrid, Epilogue, Prologue, Size


class Convolution(ABC):
    """Convolution (cross-correlation, as in Caffe) with fixed filters, ready to run in both directions.

    outputs, inputs: channels. kernel, extent, stride, dilation: (vertical, horizontal), the extent with the dilation
    counted. pad is given per call: (top, left, bottom, right).
    """

    block_size = 1
    """Outputs along an axis of the blocks in which they are computed: rounding depends on all that is in a block."""

    supports_offset = False
    """Blocks can start any number of positions before the map (`BlockGrid.offset`)."""

    def __init__(self, ops, weight, bias, stride: Size, dilation: Size, group: int):
        """weight: (outputs, inputs / group, kernel height, kernel width), read when filters are packed, which may be
        later. bias: (outputs,) or None.
        """
        self.ops = ops
        self.stride = stride
        self.dilation = dilation
        self.group = group
        self.kernel = weight.shape[2:]
        self.extent = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, dilation, strict=True))
        self.outputs = weight.shape[0]
        self.inputs = weight.shape[1] * group
        self._source = weight

    def output_size(self, size: Size, pad) -> Size:
        """(height, width) of the output for an input of (height, width) `size`."""
        return tuple((n + pad[i] + pad[i + 2] - self.extent[i]) // self.stride[i] + 1 for i, n in enumerate(size))

    @abstractmethod
    def forward(self, x, pad, epilogue: Epilogue = BIAS, grid: BlockGrid = UNPLACED):
        """(1, C, H, W) → ((1, outputs, *output_size), bias added; the prologue of its gradient or None).

        grid: without blocks it has no meaning. A pool in the epilogue needs `fuses_pool`.
        """

    @abstractmethod
    def backward(self, g, size: Size, pad, prologue: Prologue | None = None, grid: BlockGrid = UNPLACED):
        """Gradient for the input of (height, width) `size`, given the gradient of the output; the bias plays no part.

        prologue: the result of `forward`, whose epilogue the gradient passes first; g may be overwritten then. grid:
        the place of the gradient's map, where a transposed convolution is computed.
        """

    @abstractmethod
    def engine(self, backward: bool = False) -> str:
        """The implementation of a direction in words, for `cvstyle info --timings`."""

    def fuses_pool(self, kernel: Size, stride: Size, pad: Size) -> bool:
        """True if an epilogue can have this max pool."""
        return False
