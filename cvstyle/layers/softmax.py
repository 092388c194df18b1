"""Softmax."""

from __future__ import annotations

from .base import Layer, register


@register("Softmax")
class Softmax(Layer):
    """Softmax over the channels."""

    def top_shapes(self, bottoms):
        if self.axis(len(bottoms[0])) != 1:
            raise self.fail("only axis 1 is supported")
        return [bottoms[0]]

    def forward(self, bottoms, context):
        top = self.ops.softmax(bottoms[0])
        return [top], lambda g: [self.ops.softmax_backward(g[0], top)]
