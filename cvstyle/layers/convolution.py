"""Convolution, Deconvolution and InnerProduct."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property

import numpy as np

from .activation import ReLU
from .base import Layer, Window, register
from .pooling import Pooling


class _Filters(Layer):
    """The parameters that convolution and its transpose share (Caffe's ConvolutionParameter)."""

    retains = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        p = self.params
        if "num_output" not in p or p["num_output"] < 1:
            raise self.fail("num_output is missing or zero")
        self.num_output = p["num_output"]
        self.kernel = self.pair("kernel_size", 0, "kernel")
        self.stride = self.pair("stride", 1)
        pad = self.pair("pad", 0)
        self.pad = (*pad, *pad)
        self.dilation = self.pair("dilation", 1)
        # Files with ConvolutionDepthwise (of forks) state no group: there each channel is one.
        self.group = p.get("group", self.num_output if definition.type == "ConvolutionDepthwise" else 1)
        self.has_bias = p.get("bias_term", True)
        if min(self.kernel) < 1:
            raise self.fail("kernel_size is missing or zero")
        if min(self.stride) < 1 or min(self.dilation) < 1 or min(pad) < 0 or self.group < 1:
            raise self.fail(
                f"stride {self.stride}, dilation {self.dilation}, pad {pad} or group {self.group} is invalid"
            )
        if p.get("axis", 1) != 1:
            raise self.fail(f"axis {p['axis']} is not supported; only axis 1 is")
        self.extent = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    backward = False
    """Whether the map is that of the filters' gradient."""

    @property
    def block(self):
        return self.filters.block

    def place(self, shift, whole):
        """Of windows: blocks start so many positions before the map, (vertical, horizontal), and `whole` is the
        (height, width) of the picture's map."""
        self.filters.place(shift, whole, self.backward)

    def channels(self, bottoms):
        shape = bottoms[0]
        self.map_size(shape)
        if shape[1] % self.group or self.num_output % self.group:
            raise self.fail(
                f"{shape[1]} input and {self.num_output} output channels do not divide into {self.group} groups"
            )
        return shape[1]

    def blobs_of(self, first, second):
        weight = (first, second // self.group, *self.kernel)
        return [weight, (self.num_output,)] if self.has_bias else [weight]


@register("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution")
class Convolution(_Filters):
    """y = W ⋆ x + b (cross-correlation), output size rounded down."""

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self._folded = {}  # layer that follows → both in one, the same for every program so that weights are there once

    def top_shapes(self, bottoms):
        self.channels(bottoms)
        size = tuple(
            (n + 2 * p - e) // s + 1
            for n, p, e, s in zip(bottoms[0][2:], self.pad, self.extent, self.stride)
        )
        if min(size) < 1:
            raise self.fail(f"its input of {_size(bottoms[0][2:])} is too small for a window of {_size(self.extent)}")
        return [(1, self.num_output, *size)]

    @property
    def movable(self):
        return self.filters.movable

    def blob_shapes(self, bottoms):
        return self.blobs_of(self.num_output, self.channels(bottoms))

    def load(self, blobs, bottoms):
        bias = blobs[1] if self.has_bias else None
        self.weight, self.affine = blobs[0], (1.0, 0.0 if bias is None else bias.astype("float64"))
        self.filters = self.ops.convolution(blobs[0], bias, self.stride, self.dilation, self.group)

    def window(self):
        return Window(self.extent, self.stride, self.pad[:2])

    def forward(self, bottoms, keep, overwrite):
        size = bottoms[0].shape[2:]
        top = self.filters.forward(bottoms[0], self.pad)
        return [top], lambda g: [self.filters.backward(g[0], size, self.pad)]

    def fused_with(self, following):
        if isinstance(following, ReLU) and following.slope == 0:
            return _ConvolutionReLU(self, following)
        if following.by_channel:
            if following not in self._folded:
                self._folded[following] = _Folded(self, following)
            return self._folded[following]
        return None


class _Folded(Convolution):
    """A convolution and what follows it by channel (BatchNorm, Scale, Bias), which its weights and bias take up.

    a (W ⋆ x + b) + c = (a W) ⋆ x + (a b + c), in float64 and rounded once; what pads x is not touched.
    """

    def __init__(self, convolution, following):
        super().__init__(convolution.definition, convolution.ops)
        self.names = [*convolution.names, following.name]
        self._before, self._following = convolution, following

    @property
    def weight(self):
        return self._before.weight

    @property
    def affine(self):
        (factor, shift), (a, c) = self._before.affine, self._following.affine
        return a * factor, a * shift + c

    @cached_property
    def filters(self):
        factor, shift = (np.broadcast_to(n, self.num_output) for n in self.affine)
        weight = np.empty(self.weight.shape, self.ops.dtype)
        np.multiply(self.weight, factor.reshape(-1, 1, 1, 1), out=weight, casting="same_kind")
        return self.ops.convolution(weight, shift, self.stride, self.dilation, self.group)


class _ConvolutionReLU(Layer):
    """A convolution and the ReLU after it; the gradient is masked on its way into the convolution's backward."""

    retains = False

    def __init__(self, convolution, relu):
        super().__init__(convolution.definition, convolution.ops)
        self.convolution, self.names = convolution, [*convolution.names, relu.name]
        self.place = convolution.place

    def forward(self, bottoms, keep, overwrite):
        size, pad, filters = bottoms[0].shape[2:], self.convolution.pad, self.convolution.filters
        top, mask = filters.forward_relu(bottoms[0], pad, keep)
        return [top], lambda g: [filters.backward_relu(g[0], mask, size, pad)]

    def fused_with(self, following):
        if isinstance(following, Pooling) and following.method == "MAX" and self.ops.fuses_pooling:
            return _ConvolutionReLUPool(self, following)
        return None


class _ConvolutionReLUPool(Layer):
    """A convolution, its ReLU and the max pool after them: the map between them, the largest, is never stored."""

    retains = False

    def __init__(self, rectified, pool):
        super().__init__(rectified.definition, rectified.ops)
        self.rectified, self.pool, self.names = rectified, pool, [*rectified.names, pool.name]
        self.place = rectified.place

    def forward(self, bottoms, keep, overwrite):
        convolution = self.rectified.convolution
        size, pad, filters = bottoms[0].shape[2:], convolution.pad, convolution.filters
        window, output = self.pool.geometry(convolution.top_shapes([bottoms[0].shape])[0])
        if not filters.fuses_pool(*window):
            (middle,), backward = self.rectified.forward(bottoms, keep, overwrite)
            top, pool_backward = self.pool.forward([middle], keep, True)
            return top, lambda g: backward(pool_backward(g))
        top, winners = filters.forward_relu_pool(bottoms[0], pad, keep, output)
        return [top], lambda g: [filters.backward_relu_pool(g[0], winners, size, pad)]


@register("Deconvolution")
class Deconvolution(_Filters):
    """The transpose of a convolution: its forward is that convolution's backward, and the other way round."""

    backward = True

    def top_shapes(self, bottoms):
        self.channels(bottoms)
        size = tuple(
            s * (n - 1) + e - 2 * p
            for n, p, e, s in zip(bottoms[0][2:], self.pad, self.extent, self.stride)
        )
        if min(size) < 1:
            raise self.fail(f"its input of {_size(bottoms[0][2:])} is too small for a pad of {_size(self.pad[:2])}")
        return [(1, self.num_output, *size)]

    def blob_shapes(self, bottoms):
        return self.blobs_of(self.channels(bottoms), self.num_output)

    def load(self, blobs, bottoms):
        self.filters = self.ops.convolution(blobs[0], None, self.stride, self.dilation, self.group)
        self.bias = self.ops.asarray(blobs[1].reshape(1, -1, 1, 1)) if self.has_bias else None

    def window(self):
        # Output position o gets input positions (o + pad - tap) / stride.
        extent = tuple(math.ceil(e / s) for e, s in zip(self.extent, self.stride, strict=True))
        pad = tuple(
            Fraction(e - 1 - p, s)
            for e, p, s in zip(self.extent, self.pad, self.stride)
        )
        return Window(extent, tuple(Fraction(1, s) for s in self.stride), pad)

    def forward(self, bottoms, keep, overwrite):
        size = self.top_shapes([bottoms[0].shape])[0][2:]
        top = self.ops.settled(self.filters.backward(bottoms[0], size, self.pad))
        if self.bias is not None:
            top = self.ops.affine(top, None, self.bias, out=top)
        return [top], lambda g: [self.filters.forward(g[0], self.pad)]


@register("InnerProduct")
class InnerProduct(Layer):
    """A fully connected layer: a convolution whose kernel is the whole input."""

    retains = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.num_output = self.params.get("num_output", 0)
        self.has_bias = self.params.get("bias_term", True)
        self.transposed = self.params.get("transpose", False)
        if self.num_output < 1:
            raise self.fail("num_output is missing or zero")

    def top_shapes(self, bottoms):
        if self.axis(len(bottoms[0])) != 1:
            raise self.fail("only axis 1 is supported")
        return [(1, self.num_output)]

    def blob_shapes(self, bottoms):
        inputs = math.prod(bottoms[0][1:])
        weight = (inputs, self.num_output) if self.transposed else (self.num_output, inputs)
        return [weight, (self.num_output,)] if self.has_bias else [weight]

    def load(self, blobs, bottoms):
        weight = blobs[0].T if self.transposed else blobs[0]
        bias = blobs[1] if self.has_bias else None
        self.filters = self.ops.convolution(weight[:, :, None, None], bias, (1, 1), (1, 1), 1)

    def window(self):
        return None

    def forward(self, bottoms, keep, overwrite):
        shape = bottoms[0].shape
        top = self.filters.forward(bottoms[0].reshape(1, -1, 1, 1), (0, 0, 0, 0)).reshape(1, -1)

        def backward(g):
            return [self.filters.backward(g[0].reshape(1, -1, 1, 1), (1, 1), (0, 0, 0, 0)).reshape(shape)]

        return [top], backward


def _size(pair):
    return f"{pair[0]}×{pair[1]}"
