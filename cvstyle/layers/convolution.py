"""Convolution, Deconvolution and InnerProduct."""

from __future__ import annotations

import math
from fractions import Fraction

from .base import Layer, Window, register


class _Filters(Layer):
    """The parameters that convolution and its transpose share (Caffe's ConvolutionParameter).

    With several bottoms the same filters make a top of each.
    """

    saves_activations = False

    inputs = (1, math.inf)

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
        if len(definition.tops) != len(definition.bottoms):
            raise self.fail(f"has {len(definition.bottoms)} inputs but {len(definition.tops)} tops; each input has one")
        if p.get("axis", 1) not in (1, -3):
            raise self.fail(f"axis {p['axis']} is not supported; only axis 1 of four is")
        self.extent = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    uses_grid = True

    transposed = False
    """True where the map is computed as the gradient of the filters' convolution."""

    @property
    def block_size(self):
        return self.filters.block_size

    def channels(self, bottoms):
        """Channels of the bottoms, which have one shape."""
        shape = bottoms[0]
        self.map_size(shape)
        if any(other != shape for other in bottoms):
            raise self.fail("its inputs differ in shape: " + ", ".join(map(str, bottoms)))
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
        self.folded = {}  # following layer → both in one, the same for every program so that weights are there once

    def top_shapes(self, bottoms):
        self.channels(bottoms)
        size = tuple(
            (n + 2 * p - e) // s + 1
            for n, p, e, s in zip(bottoms[0][2:], self.pad, self.extent, self.stride)
        )
        if min(size) < 1:
            raise self.fail(f"its input of {_size(bottoms[0][2:])} is too small for a window of {_size(self.extent)}")
        return [(1, self.num_output, *size)] * len(bottoms)

    @property
    def supports_offset(self):
        return self.filters.supports_offset

    def blob_shapes(self, bottoms):
        return self.blobs_of(self.num_output, self.channels(bottoms))

    def load(self, blobs, bottoms):
        bias = blobs[1] if self.has_bias else None
        self.weight = blobs[0]
        self.affine = (1.0, 0.0 if bias is None else bias.astype("float64"))
        self.filters = self.ops.convolution(blobs[0], bias, self.stride, self.dilation, self.group)

    def window(self):
        return Window(self.extent, self.stride, self.pad[:2])

    def forward(self, bottoms, context):
        size = bottoms[0].shape[2:]
        tops = [self.filters.forward(bottom, self.pad, grid=context.grid)[0] for bottom in bottoms]
        return tops, lambda g: [self.filters.backward(each, size, self.pad) for each in g]


@register("Deconvolution")
class Deconvolution(_Filters):
    """The transpose of a convolution: its forward is that convolution's backward, and the other way round."""

    transposed = True

    def top_shapes(self, bottoms):
        self.channels(bottoms)
        size = tuple(
            s * (n - 1) + e - 2 * p
            for n, p, e, s in zip(bottoms[0][2:], self.pad, self.extent, self.stride)
        )
        if min(size) < 1:
            raise self.fail(f"its input of {_size(bottoms[0][2:])} is too small for a pad of {_size(self.pad[:2])}")
        return [(1, self.num_output, *size)] * len(bottoms)

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

    def forward(self, bottoms, context):
        size = self.top_shapes([bottom.shape for bottom in bottoms])[0][2:]
        tops = [self._transpose(bottom, size, context.grid) for bottom in bottoms]
        return tops, lambda g: [self.filters.forward(each, self.pad)[0] for each in g]

    def _transpose(self, x, size, grid):
        top = self.ops.materialize(self.filters.backward(x, size, self.pad, grid=grid))
        return top if self.bias is None else self.ops.affine(top, None, self.bias, out=top)


@register("InnerProduct")
class InnerProduct(Layer):
    """A fully connected layer: a convolution whose kernel is all that comes from `axis` on."""

    saves_activations = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.num_output = self.params.get("num_output", 0)
        self.has_bias = self.params.get("bias_term", True)
        self.transposed = self.params.get("transpose", False)
        if self.num_output < 1:
            raise self.fail("num_output is missing or zero")

    def top_shapes(self, bottoms):
        return [(*bottoms[0][: self._first(bottoms[0])], self.num_output)]

    def blob_shapes(self, bottoms):
        inputs = math.prod(bottoms[0][self._first(bottoms[0]) :])
        weight = (inputs, self.num_output) if self.transposed else (self.num_output, inputs)
        return [weight, (self.num_output,)] if self.has_bias else [weight]

    def load(self, blobs, bottoms):
        weight = blobs[0].T if self.transposed else blobs[0]
        bias = blobs[1] if self.has_bias else None
        self.filters = self.ops.convolution(weight[:, :, None, None], bias, (1, 1), (1, 1), 1)

    def window(self):
        return None

    def _first(self, shape):
        first = self.axis(len(shape))
        if first == 0:
            raise self.fail("axis 0 counts pictures, of which there is one")
        return first

    def forward(self, bottoms, context):
        shape = bottoms[0].shape
        places = math.prod(shape[: self._first(shape)])
        top, _ = self.filters.forward(self._columns(bottoms[0], places), (0, 0, 0, 0))

        def backward(g):
            g = self.filters.backward(self._columns(g[0], places), (places, 1), (0, 0, 0, 0))
            return [self._rows(g, places).reshape(shape)]

        return [self._rows(top, places).reshape(self.top_shapes([shape])[0])], backward

    def _columns(self, x, places):
        """A row for each place as (1, numbers of the row, places, 1)."""
        if places == 1:
            return x.reshape(1, -1, 1, 1)
        return self.ops.transpose(x.reshape(1, places, -1, 1), (0, 2, 1, 3))

    def _rows(self, x, places):
        return x if places == 1 else self.ops.transpose(x, (0, 2, 1, 3))


def _size(pair):
    return f"{pair[0]}×{pair[1]}"
