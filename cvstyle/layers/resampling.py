"""Layers that make maps larger or smaller without weights: Interp and Upsample."""

from __future__ import annotations

from fractions import Fraction

from .base import Layer, Window, register
from .shape import repeated


@register("Interp")
class Interp(Layer):
    """DeepLab's and PSPNet's: bilinear interpolation, corners on corners, to height × width or by a factor.

    pad_beg and pad_end, at most 0, crop the bottom first. shrink_factor s leaves (n − 1) / s + 1 of n positions,
    zoom_factor z makes (n − 1) · z + 1 of n; either goes before a size, and a size before both of them. In some
    forks a second bottom states the size.
    """

    inputs = (1, 2)

    saves_activations = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        p = self.params
        self.cut = tuple(-p.get(name, 0) for name in ("pad_beg", "pad_end"))
        if min(self.cut) < 0:
            raise self.fail("pad_beg and pad_end must not be positive")
        self.size = None
        self.factors = tuple(p.get(name, 1) for name in ("shrink_factor", "zoom_factor"))
        if {"height", "width"} <= p.keys() and ("shrink_factor" in p) == ("zoom_factor" in p):
            self.size = p["height"], p["width"]
        elif p.keys().isdisjoint(("shrink_factor", "zoom_factor")) and len(definition.bottoms) == 1:
            raise self.fail("height and width, zoom_factor or shrink_factor is missing")
        if min(self.size or self.factors) < 1:
            raise self.fail(f"a size or factor of {min(self.size or self.factors)} is not positive")

    def window(self):
        return None

    def local_window(self):
        fixed = self.size or len(self.definition.bottoms) == 2
        return None if fixed else Window((2, 2), (Fraction(*self.factors),) * 2)

    def passes_gradient(self, top, bottom):
        return bottom == 0

    def _inner(self, shape):
        return tuple(n - sum(self.cut) for n in self.map_size(shape))

    def top_shapes(self, bottoms):
        inner = self._inner(bottoms[0])
        if min(inner) < 1:
            raise self.fail(f"its input {bottoms[0]} is too small to be cropped by {sum(self.cut)}")
        shrink, zoom = self.factors
        size = self.size or tuple((n - 1) // shrink * zoom + 1 for n in inner)
        return [(*bottoms[0][:2], *(self.map_size(bottoms[1]) if len(bottoms) == 2 else size))]

    def forward(self, bottoms, context):
        ops = self.ops
        x = bottoms[0]
        shape = x.shape
        inner = (*shape[:2], *self._inner(shape))
        start = (0, 0, self.cut[0], self.cut[0])
        if any(self.cut):
            x = ops.empty(inner)
            ops.copy_block(x, (0, 0, 0, 0), bottoms[0], start, inner)

        def backward(g):
            g = ops.resize_backward(g[0], inner)
            if any(self.cut):
                whole = ops.zeros(shape)
                ops.copy_block(whole, start, g, (0, 0, 0, 0), inner)
                g = whole
            return [g, None][: len(bottoms)]

        return [ops.resize(x, self.top_shapes([bottom.shape for bottom in bottoms])[0][2:])], backward


@register("Upsample")
class Upsample(Layer):
    """SegNet's: each element at the place that the second bottom, a pooling layer's mask, has for it, zeros elsewhere.

    Without a mask (YOLO's), each element `scale` times along both axes.
    """

    inputs = (1, 2)

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        p = self.params
        self.has_mask = len(definition.bottoms) == 2
        scale = p.get("scale", 2 if self.has_mask else 1)
        self.scale = p.get("scale_h", scale), p.get("scale_w", scale)
        self.less = tuple(int(p.get(name, False)) for name in ("pad_out_h", "pad_out_w"))
        self.size = (p["upsample_h"], p["upsample_w"]) if {"upsample_h", "upsample_w"} <= p.keys() else None
        if min(self.size or self.scale) < 1 + self.has_mask:
            raise self.fail(f"a size or scale of {min(self.size or self.scale)} is too small")
        if not self.size and any(less and scale != 2 for less, scale in zip(self.less, self.scale, strict=True)):
            raise self.fail("pad_out_h and pad_out_w are for a scale of 2")

    def window(self):
        return None if self.has_mask else self.local_window()

    def local_window(self):
        if self.has_mask and self.size:
            return None
        # Position o has input position ⌊o / scale⌋; with a mask one beside it.
        steps = tuple(Fraction(1, s) for s in self.scale)
        return Window(stride=steps, pad=tuple(1 - step for step in steps))

    def passes_gradient(self, top, bottom):
        return bottom == 0

    def top_shapes(self, bottoms):
        size = self.map_size(bottoms[0])
        if self.has_mask and bottoms[1] != bottoms[0]:
            raise self.fail(f"its mask has shape {bottoms[1]}, its input {bottoms[0]}; they must be equal")
        scaled = (n * s - less for n, s, less in zip(size, self.scale, self.less, strict=True))
        return [(*bottoms[0][:2], *(self.size or scaled))]

    def forward(self, bottoms, context):
        ops = self.ops
        x = bottoms[0]
        shape = x.shape
        if self.has_mask:
            mask = bottoms[1]
            size = self.top_shapes([shape, shape])[0][2:]
            return [ops.unpool(x, mask, size)], lambda g: [ops.unpool_backward(g[0], mask), None]
        channels, height, width = shape[1:]
        # First along the rows, whose elements become the third of four axes, then along the columns.
        steps = [
            (1, channels * height, width, self.scale[1]),
            (1, channels * height, self.scale[0], width * self.scale[1]),
        ]
        ones = [(*steps[0][:3], 1), (*steps[1][:2], 1, steps[1][3])]
        wide = repeated(ops, x.reshape(ones[0]), steps[0])
        top = repeated(ops, wide.reshape(ones[1]), steps[1])

        def backward(g):
            wide = ops.sum_over(g[0].reshape(steps[1]), ones[1])
            return [ops.sum_over(wide.reshape(steps[0]), ones[0]).reshape(shape)]

        return [top.reshape(self.top_shapes([shape])[0])], backward
