"""Convolution of any geometry as sums over shifted inputs, with the ReLU after it in the same pass."""

from __future__ import annotations

import numpy as np

from ..base import BIAS, UNPLACED, ReluMask
from .convolution import Convolution
from .library import General

_MAX_FEW = 4  # outputs of a group up to which `few` is faster than `product` (and the most that it can do)
_MIN_POSITIONS = 16  # below, a convolution is a product with a vector: NumPy, without packing the filters
PANEL = 8  # outputs in a panel of filters


class GeneralConvolution(Convolution):
    """Convolution of any stride, dilation and group; its gradient is one sum for each phase of the stride."""

    def __init__(self, ops, weight, bias, stride, dilation, group):
        super().__init__(ops, weight, bias, stride, dilation, group)
        self._group_outputs = self.outputs // group
        self._group_inputs = self.inputs // group
        self._forward_sums = {}  # pad → sum
        self._backward_sums = {}  # pad → [(top, left, sum or None)]

    def engine(self, backward=False):
        outputs = self._group_inputs if backward else self._group_outputs
        return f"{'few outputs' if outputs <= _MAX_FEW else 'gathered product'}, {self.ops.variant}"

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        ops = self.ops
        height, width = self.output_size(x.shape[2:], pad)
        # First, so that large maps lie side by side and leave large holes.
        bits = ops.bits(self.outputs, height * width) if epilogue.saves else None
        prologue = None if bits is None else ReluMask(bits)
        y = ops.empty((1, self.outputs, height, width))
        few = self._group_outputs <= _MAX_FEW
        if height * width < _MIN_POSITIONS:
            y = self._correlate(x, pad)
        else:
            after = {} if few else {"relu": epilogue.relu, "bits_out": bits}
            self._forward_sum(pad).run(ops, x, y, height, width, 0, bias=self.bias, **after)
            if not few:
                return y, prologue
        if bits is not None:
            ops.call("relu", y, y, bits, self.outputs, height * width)
        elif epilogue.relu:
            np.maximum(y, 0, out=y)
        return y, prologue

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        ops = self.ops
        mask = prologue and prologue.bits
        positions = g[0, 0].size
        if mask is not None and not (self._group_inputs <= _MAX_FEW and positions >= _MIN_POSITIONS):
            ops.call("relu_backward", g, mask, g.shape[1], positions)
            mask = None
        if positions < _MIN_POSITIONS:
            return self._transpose(g, size, pad)
        sums = self._sums_by_phase(pad)
        make = ops.empty if all(each for _, _, each in sums) else ops.zeros
        gx = make((1, self.inputs, *size))
        for top, left, each in sums:
            height, width = (-(-(n - at) // s) for n, at, s in zip(size, (top, left), self.stride, strict=True))
            if each and height > 0 and width > 0:
                each.run(ops, g, gx, height, width, top * size[1] + left, self.stride, mask=mask)
        return gx

    def _forward_sum(self, pad):
        """The sum over taps that `forward` is."""
        if pad not in self._forward_sums:
            offsets = [[k * d - p for k in range(n)] for n, d, p in zip(self.kernel, self.dilation, pad)]
            self._forward_sums[pad] = GatheredConv(self._grouped_filters(), offsets, self.stride)
        return self._forward_sums[pad]

    def _sums_by_phase(self, pad):
        """(top, left, sum over taps or None) for every phase of the input's positions under the stride.

        Input i gets the gradient of output (i + pad − k · dilation) / stride, where that is whole.
        """
        if pad not in self._backward_sums:
            filters = self._grouped_filters().swapaxes(1, 2)
            sums = []
            for phase in np.ndindex(self.stride):
                taps = []
                offsets = []
                for i, p, n, d, s in zip(phase, pad, self.kernel, self.dilation, self.stride):
                    taps.append([k for k in range(n) if (i + p - k * d) % s == 0])
                    offsets.append([(i + p - k * d) // s for k in taps[-1]])
                some = filters[..., taps[0], :][..., taps[1]]
                sums.append((*phase, GatheredConv(some, offsets, (1, 1)) if some.size else None))
            self._backward_sums[pad] = sums
        return self._backward_sums[pad]

    def _grouped_filters(self):
        return self._filters.reshape(self.group, self._group_outputs, self._group_inputs, *self.kernel)


class GatheredConv:
    """A sum over shifted inputs, gathered for a matrix product or, for few outputs, added as they are."""

    def __init__(self, weight, offsets, step):
        """weight: (groups, outputs, channels, *taps). offsets: of the taps along each axis. step: input positions from
        one output to the next along each axis."""
        self.groups, self.outputs, self.channels = weight.shape[:3]
        flat = weight.reshape(*weight.shape[:3], -1)
        self.few = self.outputs <= _MAX_FEW
        self.weight = np.require(flat.transpose(0, 2, 3, 1), None, ["C", "A"]) if self.few else _panels(flat)
        self.dy, self.dx = (np.array(d, np.int64).ravel() for d in np.meshgrid(*offsets, indexing="ij"))
        self.step = step
        self._calls = {}

    def run(self, ops, x, y, height, width, start, stride=(1, 1), bias=None, relu=False, mask=None, bits_out=None):
        """y[start + i · stride] over a grid of (height, width) from x; y and x whole maps."""
        key = x.shape, y.shape, height, width, relu
        if key not in self._calls:
            self._calls[key] = ops.prepare(
                "few" if self.few else "product", General, channels=self.channels, groups=self.groups,
                height=x.shape[2], width=x.shape[3], step_y=self.step[0], step_x=self.step[1], taps=self.dy.size,
                dy=self.dy, dx=self.dx, weight=self.weight, outputs=self.outputs, plane=y[0, 0].size,
                row=stride[0] * y.shape[3], column=stride[1], out_height=height, out_width=width, bias=bias,
                relu=relu,
            )  # fmt: skip
        self._calls[key](x=x, y=y.reshape(-1)[start:], mask=mask, bits_out=bits_out)


def _panels(weight):
    """(groups, outputs, channels, taps) → (groups, ⌈outputs / 8⌉, channels, taps, 8), zeros beyond the last output."""
    groups, outputs, channels, taps = weight.shape
    padded = np.zeros((groups, -(-outputs // PANEL) * PANEL, channels, taps), np.float32)
    padded[:, :outputs] = weight
    return np.ascontiguousarray(padded.reshape(groups, -1, PANEL, channels, taps).transpose(0, 1, 3, 4, 2))
