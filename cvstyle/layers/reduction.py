"""Layers that keep fewer numbers than they read: ArgMax and Reduction."""

from __future__ import annotations

import math

from .base import Layer, Window, register
from .shape import repeated


@register("ArgMax")
class ArgMax(Layer):
    """The indices of the top_k largest values along an axis, or of all values; of equal ones the last comes first.

    With out_max_val the values instead, or beside the indices where no axis is given. As in Caffe there is no backward
    pass.
    """

    saves_activations = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.count = self.params.get("top_k", 1)
        self.values = self.params.get("out_max_val", False)
        self.has_axis = "axis" in self.params

    def window(self):
        return Window() if self.has_axis and self.axis(4) == 1 else None

    def passes_gradient(self, top, bottom):
        return False

    def top_shapes(self, bottoms):
        shape = bottoms[0]
        axis = self.axis(len(shape)) if self.has_axis else 1
        most = shape[axis] if self.has_axis else math.prod(shape[1:])
        if not 1 <= self.count <= most:
            raise self.fail(f"top_k {self.count} is not within 1 to {most}, the number of values to choose from")
        if self.has_axis:
            return [(*shape[:axis], self.count, *shape[axis + 1 :])]
        return [(shape[0], 1 + self.values, self.count, *[1] * (len(shape) - 3))]

    def forward(self, bottoms, context):
        ops = self.ops
        shape = bottoms[0].shape
        (wanted,) = self.top_shapes([shape])
        if self.has_axis:
            values, indices = ops.top_k(bottoms[0], self.axis(len(shape)), self.count)
            return [values if self.values else indices], lambda g: [None]
        values, indices = ops.top_k(bottoms[0].reshape(1, -1), 1, self.count)
        if self.values:
            both = ops.empty((2, self.count))
            ops.copy_block(both, (0, 0), indices, (0, 0), indices.shape)
            ops.copy_block(both, (1, 0), values, (0, 0), values.shape)
            indices = both
        return [indices.reshape(wanted)], lambda g: [None]


@register("Reduction")
class Reduction(Layer):
    """coeff times the sum, the mean, the sum of magnitudes or that of squares, over an axis and all axes after it."""

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.operation = self.params.get("operation", "SUM")
        self.coefficient = float(self.params.get("coeff", 1))

    def window(self):
        return None

    def top_shapes(self, bottoms):
        return [bottoms[0][: self.axis(len(bottoms[0]), default=0)]]

    def forward(self, bottoms, context):
        ops = self.ops
        shape = bottoms[0].shape
        (wanted,) = self.top_shapes([shape])
        rows = math.prod(wanted)
        x = bottoms[0].reshape(rows, -1)
        factor = self.coefficient / (x.shape[1] if self.operation == "MEAN" else 1)
        terms = x
        saved = None
        if self.operation == "ASUM":
            terms, saved = ops.map("abs", x)
        elif self.operation == "SUMSQ":
            terms = ops.multiply(x, x)
        top = ops.scale(ops.sum_over(terms, (rows, 1)), factor)

        def backward(g):
            spread = repeated(ops, g[0].reshape(rows, 1), x.shape)
            if self.operation == "ASUM":
                spread = ops.map_backward("abs", spread, saved)
            elif self.operation == "SUMSQ":
                spread = ops.scale(ops.multiply(spread, x, out=spread), 2)
            return [ops.scale(spread, factor).reshape(shape)]

        return [top.reshape(wanted)], backward
