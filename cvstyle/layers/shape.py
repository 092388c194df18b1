"""Layers that pass values on: Dropout and Split unchanged, Flatten and Reshape in another shape."""

from __future__ import annotations

import math

from .base import Layer, register


@register("Dropout", "Split")
class Identity(Layer):
    """Passes its bottom on to every top (dropout does nothing at test time)."""

    identity = True


class _View(Layer):
    """A top that shares its bottom's memory."""

    def window(self):
        return None

    def forward(self, bottoms, context):
        shape = bottoms[0].shape
        return [bottoms[0].reshape(self.top_shapes([shape])[0])], lambda g: [g[0].reshape(shape)]


@register("Flatten")
class Flatten(_View):
    """Joins the axes from `axis` to `end_axis` into one."""

    def top_shapes(self, bottoms):
        shape = bottoms[0]
        first = self.axis(len(shape))
        last = self.axis(len(shape), -1, "end_axis")
        if first > last:
            raise self.fail(f"axis {first} comes after end_axis {last}")
        return [(*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])]


@register("Reshape")
class Reshape(_View):
    """Gives the axes from `axis` on (num_axes of them) a new shape; 0 copies an extent, −1 infers one."""

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.dims = list(self.params.get("shape", {}).get("dim", []))

    def top_shapes(self, bottoms):
        shape = bottoms[0]
        first = self.params.get("axis", 0)
        first += len(shape) + 1 if first < 0 else 0  # here −1 means after the last axis
        if not 0 <= first <= len(shape):
            raise self.fail(f"axis {self.params['axis']} is outside the {len(shape)} axes of its input")
        count = self.params.get("num_axes", -1)
        last = len(shape) if count == -1 else first + count
        if not first <= last <= len(shape):
            raise self.fail(f"num_axes {count} from axis {first} on does not fit the {len(shape)} axes of its input")
        part = shape[first:last]
        dims = [part[i] if d == 0 and i < len(part) else d for i, d in enumerate(self.dims)]
        known = math.prod(d for d in dims if d != -1)
        total = math.prod(part)
        if dims.count(-1) == 1 and known > 0 and total % known == 0:
            dims[dims.index(-1)] = total // known
        if math.prod(dims) != total or min(dims, default=1) < 1:
            raise self.fail(f"{part} cannot take the shape {tuple(self.dims)}")
        return [(*shape[:first], *dims, *shape[last:])]
