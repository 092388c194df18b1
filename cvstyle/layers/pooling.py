"""Pooling and SPP."""

from __future__ import annotations

import math
from dataclasses import replace

from .base import Layer, Window, register


@register("Pooling")
class Pooling(Layer):
    """Maximum or mean over windows. Output sizes round up and windows are clipped at the border, as in Caffe.

    A second top of max pooling is the mask: the place of each maximum in its channel, row · width + column.

    After `replace_max_pooling("avg")` max pooling is done as an average whose output sizes round down, as
    neural_style.lua does under `-pooling avg`.
    """

    saves_activations = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        p = self.params
        self.whole = p.get("global_pooling", False)
        self.kernel = self.pair("kernel_size", 0, "kernel")
        self.stride = self.pair("stride", 1)
        self.pad = self.pair("pad", 0)
        self.method = p.get("pool", "MAX")
        self.round_up = p.get("ceil_mode", True) and p.get("round_mode", "CEIL") == "CEIL"
        if self.method not in ("MAX", "AVE"):
            raise self.fail(f"pooling method {self.method} is not supported; MAX and AVE are")
        if not self.whole and min(self.kernel) < 1:
            raise self.fail("kernel_size is missing or zero")
        if not self.whole and (min(self.stride) < 1 or min(self.pad) < 0):
            raise self.fail(f"stride {self.stride} or pad {self.pad} is invalid")
        if not self.whole and any(p >= k for p, k in zip(self.pad, self.kernel, strict=True)):
            raise self.fail(f"pad {self.pad} must be smaller than the kernel {self.kernel}")

    def replace_max_pooling(self, method: str) -> None:
        """Do max pooling by `method`, "max" or "avg"."""
        if method == "avg" and self.method == "MAX":
            self.method = "AVE"
            self.round_up = False

    def geometry(self, shape):
        """((kernel, stride, pad), output size) for an input of this shape."""
        size = self.map_size(shape)
        if self.whole:
            return (size, (1, 1), (0, 0)), (1, 1)
        output = tuple(map(self._output, size, self.kernel, self.stride, self.pad))
        if min(output) < 1:
            raise self.fail(
                f"its input of {size[0]}×{size[1]} is too small for a window of {self.kernel[0]}×{self.kernel[1]}"
            )
        # Clipped windows have no more rows and columns than this, whatever the file says.
        kernel = tuple(min(k, n + 2 * p) for k, n, p in zip(self.kernel, size, self.pad, strict=True))
        return (kernel, self.stride, self.pad), output

    def _output(self, n, kernel, stride, pad):
        span = n + 2 * pad - kernel
        count = (math.ceil(span / stride) if self.round_up else span // stride) + 1
        # A last window that would start beyond the input is dropped; Caffe keeps it, empty, where nothing is padded.
        return count - 1 if (count - 1) * stride >= n + pad else count

    @property
    def has_mask(self):
        """True where a second top takes the mask."""
        return len(self.definition.tops) > 1

    def without_mask(self) -> Pooling:
        """This layer with its first top alone."""
        layer = Pooling(replace(self.definition, tops=self.definition.tops[:1]), self.ops)
        layer.method = self.method
        layer.round_up = self.round_up
        return layer

    def top_shapes(self, bottoms):
        if self.has_mask and self.params.get("pool", "MAX") != "MAX":
            raise self.fail("has 2 tops; only max pooling has a mask for the second")
        return [(*bottoms[0][:2], *self.geometry(bottoms[0])[1])] * (1 + self.has_mask)

    def passes_gradient(self, top, bottom):
        return top == 0

    def window(self):
        return None if self.whole else Window(self.kernel, self.stride, self.pad)

    def forward(self, bottoms, context):
        ops = self.ops
        shape = bottoms[0].shape
        window, output = self.geometry(shape)
        if self.method == "MAX":
            top, winner = ops.max_pool(bottoms[0], *window, output)
            tops = [top, ops.pool_positions(winner, shape, *window)] if self.has_mask else [top]
            return tops, lambda g: [ops.max_pool_backward(g[0], winner, shape, *window)]
        top = ops.avg_pool(bottoms[0], *window, output)
        return [top], lambda g: [ops.avg_pool_backward(g[0], shape, *window)]


@register("SPP")
class SPP(Layer):
    """Spatial pyramid pooling (He et al. 2014): level i of pyramid_height pools over a grid of 2^i × 2^i windows.

    The tops of several levels are flat, one after the other; that of one level is a map of 1×1.
    """

    saves_activations = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.height = self.params.get("pyramid_height", 0)
        if self.height < 1:
            raise self.fail("pyramid_height is missing or zero")

    def window(self):
        return None

    def _levels(self, shape):
        """The pooling layer of each level for an input of this shape."""
        size = self.map_size(shape)
        for level in range(self.height):
            kernel = [-(-n // 2**level) for n in size]
            pad = [(k * 2**level - n + 1) // 2 for k, n in zip(kernel, size, strict=True)]
            params = {"pool": self.params.get("pool", "MAX")}
            for name, (vertical, horizontal) in (("kernel", kernel), ("stride", kernel), ("pad", pad)):
                params[f"{name}_h"] = vertical
                params[f"{name}_w"] = horizontal
            yield Pooling(replace(self.definition, params=params), self.ops)

    def top_shapes(self, bottoms):
        shapes = [level.top_shapes(bottoms)[0] for level in self._levels(bottoms[0])]
        return shapes if self.height == 1 else [(1, sum(map(math.prod, shapes)))]

    def forward(self, bottoms, context):
        ops = self.ops
        levels = [level.forward(bottoms, context._replace(overwrite=False)) for level in self._levels(bottoms[0].shape)]
        if self.height == 1:
            return levels[0]
        maps = [tops[0] for tops, _ in levels]
        backwards = [backward for _, backward in levels]
        shapes = [m.shape for m in maps]
        flat = [(1, math.prod(shape)) for shape in shapes]
        top = ops.empty((1, sum(n for _, n in flat)))
        start = 0
        for pooled, (_, count) in zip(maps, flat, strict=True):
            ops.copy_block(top, (0, start), pooled.reshape(1, count), (0, 0), (1, count))
            start += count

        def backward(g):
            parts = zip(backwards, ops.cut(g[0], 1, flat), shapes, strict=True)
            first, *others = (back([part.reshape(shape)])[0] for back, part, shape in parts)
            for other in others:
                first = ops.add_scaled(first, 1, other)
            return [first]

        return [top], backward
