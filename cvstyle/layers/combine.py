"""Layers that join, cut and add feature maps: Concat, Slice, Crop, Eltwise, Axpy."""

from __future__ import annotations

import math
from itertools import pairwise

from .base import Layer, Window, register


class _Along(Layer):
    """Base of the layers that join or cut along an axis."""

    saves_activations = False

    older = ""
    """The older name of the parameter `axis`."""

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        if self.older in self.params:
            self.params.setdefault("axis", self.params[self.older])

    def window(self):
        return Window() if self.axis(4) < 2 else None


@register("Concat")
class Concat(_Along):
    """Bottoms one after the other along an axis."""

    inputs = (1, math.inf)

    older = "concat_dim"

    def top_shapes(self, bottoms):
        axis = self.axis(len(bottoms[0]))
        first = bottoms[0]
        for shape in bottoms[1:]:
            if len(shape) != len(first) or any(
                a != b for i, (a, b) in enumerate(zip(shape, first, strict=True)) if i != axis
            ):
                raise self.fail(f"inputs {first} and {shape} differ outside axis {axis}")
        return [(*first[:axis], sum(s[axis] for s in bottoms), *first[axis + 1 :])]

    def forward(self, bottoms, context):
        ops = self.ops
        shapes = [b.shape for b in bottoms]
        axis = self.axis(len(shapes[0]))
        top = ops.empty(self.top_shapes(shapes)[0])
        zero = (0,) * len(top.shape)
        for start, bottom in zip(_starts(shapes, axis), bottoms, strict=True):
            ops.copy_block(top, start, bottom, zero, bottom.shape)

        return [top], lambda g: ops.cut(g[0], axis, shapes)


@register("Slice")
class Slice(_Along):
    """Cuts its bottom along an axis, at slice_point or into equal parts."""

    older = "slice_dim"

    def top_shapes(self, bottoms):
        shape = bottoms[0]
        count = len(self.definition.tops)
        axis = self.axis(len(shape))
        points = list(self.params.get("slice_point", []))
        if not points:
            if shape[axis] % count:
                raise self.fail(f"{shape[axis]} entries along axis {axis} do not divide into {count} equal parts")
            points = [shape[axis] // count * i for i in range(1, count)]
        edges = [0, *points, shape[axis]]
        if len(edges) != count + 1 or any(a >= b for a, b in pairwise(edges)):
            raise self.fail(f"slice points {points} do not cut {shape[axis]} entries into {count} parts")
        return [(*shape[:axis], b - a, *shape[axis + 1 :]) for a, b in pairwise(edges)]

    def forward(self, bottoms, context):
        ops = self.ops
        shape = bottoms[0].shape
        shapes = self.top_shapes([shape])
        axis = self.axis(len(shape))
        zero = (0,) * len(shape)
        tops = []
        for start, part in zip(_starts(shapes, axis), shapes, strict=True):
            tops.append(ops.empty(part))
            ops.copy_block(tops[-1], zero, bottoms[0], start, part)

        def backward(g):
            whole = ops.empty(shape)
            for start, part in zip(_starts(shapes, axis), g, strict=True):
                ops.copy_block(whole, start, part, zero, part.shape)
            return [whole]

        return tops, backward


@register("Crop")
class Crop(Layer):
    """The first bottom cut to the size of the second, from `axis` (default 2) on, at `offset`."""

    inputs = (2, 2)

    saves_activations = False

    def _starts(self, bottoms):
        rank = len(bottoms[0])
        axis = self.axis(rank, default=2)
        offsets = list(self.params.get("offset", [])) or [0]
        if len(offsets) == 1:
            offsets *= rank - axis
        if len(offsets) != rank - axis:
            raise self.fail(f"{len(offsets)} offsets for {rank - axis} cropped axes")
        return (0,) * axis + tuple(offsets)

    def top_shapes(self, bottoms):
        if len(bottoms[0]) != len(bottoms[1]):
            raise self.fail(f"its inputs differ in their number of axes: {bottoms[0]}, {bottoms[1]}")
        starts = self._starts(bottoms)
        axis = self.axis(len(bottoms[0]), default=2)
        shape = (*bottoms[0][:axis], *bottoms[1][axis:])
        if any(s + n > whole for s, n, whole in zip(starts, shape, bottoms[0], strict=True)):
            raise self.fail(f"a crop of {shape} at {starts} does not fit into {bottoms[0]}")
        return [shape]

    def window(self):
        starts = self._starts([(1, 1, 1, 1)])
        return Window(pad=(-starts[2], -starts[3]))

    def passes_gradient(self, top, bottom):
        return bottom == 0

    def forward(self, bottoms, context):
        ops = self.ops
        shapes = [b.shape for b in bottoms]
        starts = self._starts(shapes)
        top = ops.empty(self.top_shapes(shapes)[0])
        zero = (0,) * len(top.shape)
        ops.copy_block(top, zero, bottoms[0], starts, top.shape)

        def backward(g):
            whole = ops.zeros(shapes[0])
            ops.copy_block(whole, starts, g[0], zero, g[0].shape)
            return [whole, None]

        return [top], backward


@register("Eltwise")
class Eltwise(Layer):
    """Sum with coefficients, product, or maximum of bottoms of one shape."""

    inputs = (2, math.inf)

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.operation = self.params.get("operation", "SUM")
        self.saves_activations = self.operation == "PROD"
        count = len(definition.bottoms)
        self.coefficients = list(self.params.get("coeff", [])) or [1.0] * count
        if len(self.coefficients) != count:
            raise self.fail(f"{len(self.coefficients)} coefficients for {count} inputs")
        if self.operation not in ("SUM", "PROD", "MAX"):
            raise self.fail(f"operation {self.operation} is not supported")

    def top_shapes(self, bottoms):
        if any(shape != bottoms[0] for shape in bottoms):
            raise self.fail("its inputs differ in shape: " + ", ".join(map(str, bottoms)))
        return [bottoms[0]]

    def forward(self, bottoms, context):
        return {"SUM": self._sum, "PROD": self._product, "MAX": self._maximum}[self.operation](bottoms)

    def _sum(self, bottoms):
        ops = self.ops
        top = ops.copy(bottoms[0])
        if self.coefficients[0] != 1:
            top = ops.scale(top, self.coefficients[0])
        for factor, bottom in zip(self.coefficients[1:], bottoms[1:], strict=True):
            top = ops.add_scaled(top, factor, bottom)

        def backward(g):
            (g,) = g
            copies = [ops.copy(g) for _ in self.coefficients[1:]]
            return [
                part if factor == 1 else ops.scale(part, factor)
                for part, factor in zip([g, *copies], self.coefficients, strict=True)
            ]

        return [top], backward

    def _product(self, bottoms):
        def backward(g):
            # The product of the others, not top / bottom, so that a zero does no harm.
            return [self._product_of([g[0], *bottoms[:i], *bottoms[i + 1 :]]) for i in range(len(bottoms))]

        return [self._product_of(bottoms)], backward

    def _product_of(self, factors):
        out = self.ops.multiply(factors[0], factors[1])
        for factor in factors[2:]:
            out = self.ops.multiply(out, factor, out=out)
        return out

    def _maximum(self, bottoms):
        # Where inputs are equal Caffe takes the second of the first two, but any further one only where it is larger.
        top, mask = self.ops.maximum(bottoms[0], bottoms[1])
        masks = []
        for bottom in bottoms[2:]:
            top, further = self.ops.maximum(bottom, top)
            masks.append(further)

        def backward(g):
            rest = g[0]
            parts = []
            for further in reversed(masks):
                part, rest = self.ops.select(rest, further)
                parts.append(part)
            return [*self.ops.select(rest, mask), *reversed(parts)]

        return [top], backward


@register("Axpy")
class Axpy(Layer):
    """SENet's: the second bottom times a number for each channel, plus the third (Hu et al. 2017)."""

    inputs = (3, 3)

    def top_shapes(self, bottoms):
        factors, x, y = bottoms
        if x != y or factors[:2] != x[:2] or any(n != 1 for n in factors[2:]):
            raise self.fail(f"its inputs {factors}, {x} and {y} must be a number for each channel and two equal shapes")
        return [x]

    def forward(self, bottoms, context):
        ops = self.ops
        factors, x, y = bottoms
        shape = factors.shape
        factors = factors.reshape(*x.shape[:2], *[1] * (len(x.shape) - 2))

        def backward(g):
            (g,) = g
            for_factors = ops.sum_over(ops.multiply(g, x), factors.shape).reshape(shape)
            return [for_factors, ops.multiply(g, factors), g]

        return [ops.affine(x, factors, y)], backward


def _starts(shapes, axis):
    """The first position of each part in the joined array."""
    start = [0] * len(shapes[0])
    for shape in shapes:
        yield tuple(start)
        start[axis] += shape[axis]
