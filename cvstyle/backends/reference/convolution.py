"""Convolution in NumPy."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from .. import base
from ..base import BIAS, UNPLACED, ReluMask

_COLUMN_BYTES = 4 << 20  # im2col works on strips of rows of about this size, so that they stay in cache


class Convolution(base.Convolution):
    """Convolution by im2col and GEMM, a strip of rows at a time."""

    def __init__(self, ops, weight, bias, stride, dilation, group):
        super().__init__(ops, weight, bias, stride, dilation, group)
        self.bias = None if bias is None else np.array(bias, ops.dtype)

    @cached_property
    def weight(self):
        """The filters, contiguous and aligned; made when first needed, since the file's may be neither."""
        return np.require(self._source, self.ops.dtype, ["C", "A"])

    def engine(self, backward=False):
        return "im2col, BLAS"

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        y = self._correlate(x, pad)
        if not epilogue.relu:
            return y, None
        if not epilogue.saves:
            return np.maximum(y, 0, out=y), None
        y, bits = self.ops.relu(y, out=y)
        return y, ReluMask(bits)

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        return self._transpose(g if prologue is None else self.ops.relu_backward(g, prologue.bits), size, pad)

    def _correlate(self, x, pad):
        ops = self.ops
        out_h, out_w = self.output_size(x.shape[2:], pad)
        y = ops.empty((1, self.outputs, out_h, out_w))
        if self._is_pointwise(pad):
            padded = x[0]
        else:
            padded = ops.zeros((x.shape[1], x.shape[2] + pad[0] + pad[2], x.shape[3] + pad[1] + pad[3]))
            padded[:, pad[0] : pad[0] + x.shape[2], pad[1] : pad[1] + x.shape[3]] = x[0]
        sources = self._groups(padded)
        targets = self._groups(y[0].reshape(y.shape[1], -1))

        def strip(piece):
            group, first, last = piece
            columns = self._columns(sources[group], first, last, out_w, pad)
            np.matmul(self._matrices[group], columns, out=targets[group][:, first * out_w : last * out_w])

        ops.workers.run(strip, [(i, *ends) for i in range(self.group) for ends in self._strips(out_h, out_w)])
        if self.bias is not None:
            y += self.bias[:, None, None]
        return y

    def _transpose(self, g, size, pad):
        ops = self.ops
        out_h, out_w = g.shape[2:]
        pointwise = self._is_pointwise(pad)
        padded = (ops.empty if pointwise else ops.zeros)(
            (self.inputs, size[0] + pad[0] + pad[2], size[1] + pad[1] + pad[3])
        )
        sources = self._groups(g[0].reshape(g.shape[1], -1))
        targets = self._groups(padded)

        def share(piece):
            """The gradient for some of the input channels of a group, so that no two pieces add to one place."""
            group, start, end = piece
            source = sources[group]
            target = targets[group][start:end]
            taps = math.prod(self.kernel)
            weight = self._matrices[group][:, start * taps : end * taps].T
            if pointwise:
                np.matmul(weight, source, out=target.reshape(end - start, -1))
                return
            for first, last in self._strips(out_h, out_w):
                columns = ops.empty((len(weight), (last - first) * out_w))
                np.matmul(weight, source[:, first * out_w : last * out_w], out=columns)
                columns = columns.reshape(end - start, *self.kernel, last - first, out_w)
                for (ky, kx), rows, cols in self._taps(first, last, out_w):
                    target[:, rows, cols] += columns[:, ky, kx]

        group_inputs = self.inputs // self.group
        parts = ops.workers.split(group_inputs) if self.group < ops.workers.count else [(0, group_inputs)]
        ops.workers.run(share, [(i, *ends) for i in range(self.group) for ends in parts])
        inner = padded[:, pad[0] : pad[0] + size[0], pad[1] : pad[1] + size[1]]
        if inner.shape == padded.shape:
            return padded[None]
        gx = ops.empty((1, *inner.shape))
        gx[0] = inner
        return gx

    def _is_pointwise(self, pad):
        return self.kernel == (1, 1) and self.stride == (1, 1) and not any(pad)

    @cached_property
    def _matrices(self):
        return self.weight.reshape(self.group, self.outputs // self.group, -1)

    def _groups(self, x):
        return x.reshape(self.group, x.shape[0] // self.group, *x.shape[1:])

    def _strips(self, out_h, out_w):
        row = self.weight[0].size * out_w * self.ops.dtype.itemsize
        rows = max(1, min(_COLUMN_BYTES // row, -(-out_h // self.ops.workers.count)))
        return [(first, min(first + rows, out_h)) for first in range(0, out_h, rows)]

    def _taps(self, first, last, out_w):
        """For each kernel position, the rows and columns of the padded input that output rows first..last meet."""
        sy, sx = self.stride
        dy, dx = self.dilation
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                top = first * sy + ky * dy
                left = kx * dx
                yield (
                    (ky, kx),
                    slice(top, top + (last - first - 1) * sy + 1, sy),
                    slice(left, left + (out_w - 1) * sx + 1, sx),
                )

    def _columns(self, padded, first, last, out_w, pad):
        """im2col of output rows first..last: (channels · kernel, rows · out_w)."""
        if self._is_pointwise(pad):
            return padded.reshape(padded.shape[0], -1)[:, first * out_w : last * out_w]
        columns = self.ops.empty((padded.shape[0], *self.kernel, last - first, out_w))
        for (ky, kx), rows, cols in self._taps(first, last, out_w):
            columns[:, ky, kx] = padded[:, rows, cols]
        return columns.reshape(-1, (last - first) * out_w)
