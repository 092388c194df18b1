"""Softmax."""

from __future__ import annotations

import math

from .base import Layer, Window, register

_SWAP = (0, 2, 1, 3)  # puts the axis of the softmax first


@register("Softmax")
class Softmax(Layer):
    """Softmax over an axis, by default the channels."""

    def window(self):
        return Window() if self.axis(4) == 1 else None

    def top_shapes(self, bottoms):
        self.axis(len(bottoms[0]))
        return [bottoms[0]]

    def forward(self, bottoms, context):
        ops = self.ops
        shape = bottoms[0].shape
        axis = self.axis(len(shape))
        if axis == 1:
            top = ops.softmax(bottoms[0])
            return [top], lambda g: [ops.softmax_backward(g[0], top)]
        rows = (1, math.prod(shape[:axis]), *shape[axis : axis + 1], math.prod(shape[axis + 1 :]))
        top = ops.softmax(ops.transpose(bottoms[0].reshape(rows), _SWAP))

        def backward(g):
            g = ops.softmax_backward(ops.transpose(g[0].reshape(rows), _SWAP), top)
            return [ops.transpose(g, _SWAP).reshape(shape)]

        return [ops.transpose(top, _SWAP).reshape(shape)], backward
