"""Layers that pass values on: unchanged (Dropout, Split), in another shape or order, or several times (Tile)."""

from __future__ import annotations

import math

from .base import Layer, Window, register


@register("Dropout", "SpatialDropout", "Split")
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


def repeated(ops, x, shape):
    """An array of this shape that repeats x along the axes where x has extent 1: the adjoint of `sum_over`."""
    return ops.affine(ops.zeros(shape), None, x)


@register("Tile")
class Tile(Layer):
    """Several copies of the bottom one after the other along an axis."""

    saves_activations = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.tiles = self.params.get("tiles", 0)
        if self.tiles < 1:
            raise self.fail("tiles is missing or not positive")

    def window(self):
        return Window() if self.axis(4) < 2 else None

    def top_shapes(self, bottoms):
        shape = bottoms[0]
        axis = self.axis(len(shape))
        return [(*shape[:axis], shape[axis] * self.tiles, *shape[axis + 1 :])]

    def forward(self, bottoms, context):
        ops = self.ops
        shape = bottoms[0].shape
        once = (math.prod(shape[: self.axis(len(shape))]), 1, math.prod(shape[self.axis(len(shape)) :]))
        often = (once[0], self.tiles, once[2])
        top = repeated(ops, bottoms[0].reshape(once), often).reshape(self.top_shapes([shape])[0])
        return [top], lambda g: [ops.sum_over(g[0].reshape(often), once).reshape(shape)]


@register("Permute")
class Permute(Layer):
    """SSD's: the axes in another order; those that `order` does not name follow in their own."""

    saves_activations = False

    def _order(self, rank):
        named = list(self.params.get("order", []))
        if len(set(named)) < len(named) or any(axis >= rank for axis in named):
            raise self.fail(f"order {named} does not name different ones of the {rank} axes of its input")
        return [*named, *(axis for axis in range(rank) if axis not in named)]

    def window(self):
        return Window() if self._order(4)[2:] == [2, 3] else None

    def top_shapes(self, bottoms):
        shape = bottoms[0]
        if len(shape) > 4:
            raise self.fail(f"its input has shape {shape}; it needs at most four axes")
        return [tuple(shape[axis] for axis in self._order(len(shape)))]

    def forward(self, bottoms, context):
        order = self._order(len(bottoms[0].shape))
        back = sorted(range(len(order)), key=order.__getitem__)
        return [self.ops.transpose(bottoms[0], order)], lambda g: [self.ops.transpose(g[0], back)]


@register("ShuffleChannel")
class ShuffleChannel(Layer):
    """ShuffleNet's: the channels of all groups in turn, first the first of each (Zhang et al. 2017)."""

    saves_activations = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.group = self.params.get("group", 1)
        if self.group < 1:
            raise self.fail("group must be positive")

    def top_shapes(self, bottoms):
        if bottoms[0][1] % self.group:
            raise self.fail(f"{bottoms[0][1]} channels do not divide into {self.group} groups")
        return [bottoms[0]]

    def forward(self, bottoms, context):
        channels = bottoms[0].shape[1]
        top = self._shuffled(bottoms[0], self.group)
        return [top], lambda g: [self._shuffled(g[0], channels // self.group)]

    def _shuffled(self, x, group):
        shape = x.shape
        return self.ops.transpose(x.reshape(1, group, shape[1] // group, -1), (0, 2, 1, 3)).reshape(shape)


@register("Reorg")
class Reorg(Layer):
    """YOLO's: the numbers of a map (C / s², H · s, W · s) in blocks of s × s positions, one of them after the other.

    The bottom (C, H, W) counts as that map, number by number, and the top is (C · s², H / s, W / s); with `reverse` the
    other way round.
    """

    saves_activations = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.stride = self.params.get("stride", 0)
        self.reverse = self.params.get("reverse", False)
        if self.stride < 1:
            raise self.fail("stride is missing or zero")

    def window(self):
        return None

    def top_shapes(self, bottoms):
        height, width = self.map_size(bottoms[0])
        channels = bottoms[0][1]
        s = self.stride
        if channels % s**2 or (not self.reverse and (height % s or width % s)):
            raise self.fail(f"a stride of {s} does not divide its input {bottoms[0]}")
        if self.reverse:
            return [(1, channels // s**2, height * s, width * s)]
        return [(1, channels * s**2, height // s, width // s)]

    def forward(self, bottoms, context):
        shape = bottoms[0].shape
        _, channels, height, width = shape
        rows = channels // self.stride**2 * height
        orders = [(1, 3, 0, 2), (2, 0, 3, 1)]  # blocks from positions, and back
        views = [(rows, self.stride, width, self.stride), (self.stride, self.stride, rows, width)]
        if self.reverse:
            orders.reverse()
            views.reverse()
        top = self.ops.transpose(bottoms[0].reshape(views[0]), orders[0]).reshape(self.top_shapes([shape])[0])
        return [top], lambda g: [self.ops.transpose(g[0].reshape(views[1]), orders[1]).reshape(shape)]
