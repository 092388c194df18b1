"""Operations that take elements from other places, on a device."""

from __future__ import annotations

import math

from ...errors import DeviceError
from .arrays import strides_of
from .layers import winner_macros
from .reductions import GROUP

_TILE = 32  # SIDE in gathering.cl
_NARROW = 8  # extents below which a tile would be mostly empty
_FEW = 4096  # lines of `top_k` that do not fill a device by themselves
_LONGEST = 1 << 16  # extent along which the kernels interpolate


class Gathering:
    """A part of `backend.Backend`."""

    def transpose(self, x, axes):
        out = self.empty([x.shape[axis] for axis in axes])
        extents, strides = _joined(out.shape, [strides_of(x.shape)[axis] for axis in axes])
        if strides[3] <= 1 or min(extents[3], extents[strides.index(1)]) < _NARROW:
            self._each("gathering", "transpose", x.size, x, out, x.size, *extents[1:], *strides)
            return out
        # The last axis of x and that of the result make matrices, the others count these.
        columns = strides.index(1)
        first, second = (i for i in range(3) if i != columns)
        steps = strides_of(extents)
        groups = extents[first] * extents[second] * -(-extents[3] // _TILE) * -(-extents[columns] // _TILE)
        self.launch("gathering", "transpose_tiles", (groups, 1, 1), (
            x, out, extents[3], extents[columns], strides[3], steps[columns], extents[second],
            strides[first], strides[second], steps[first], steps[second],
        ))  # fmt: skip
        return out

    def top_k(self, x, axis, count):
        shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
        values = self.empty(shape)
        indices = self.empty(shape)
        inner = math.prod(x.shape[axis + 1 :])
        lines = math.prod(x.shape[:axis]) * inner
        arguments = (x, values, indices, x.shape[axis], inner, count)
        if lines < _FEW and x.shape[axis] >= GROUP:
            self.launch("gathering", "top_k_of_line", (lines, 1, 1), arguments)
        else:
            self._each("gathering", "top_k", lines, *arguments, lines)
        return values, indices

    def pool_positions(self, winner, shape, kernel, stride, pad):
        positions = self.empty(winner.shape)
        geometry = (*shape[2:], *winner.shape[2:], *kernel, *stride, *pad)
        defines = winner_macros(winner)
        self._each("pooling", "pool_positions", winner.size, winner, positions, winner.size, *geometry, defines=defines)
        return positions

    def unpool(self, x, positions, size):
        out = self.zeros((*x.shape[:2], *size))  # holds the winners first
        sizes = (math.prod(size), math.prod(x.shape[2:]))
        self._each("gathering", "unpool_winners", x.size, positions, out, *sizes, x.size)
        self._each("gathering", "unpool", out.size, x, out, *sizes, out.size)
        return out

    def unpool_backward(self, g, positions):
        gx = self.empty(positions.shape)
        planes = (math.prod(g.shape[2:]), math.prod(positions.shape[2:]))
        self._each("gathering", "unpool_backward", gx.size, g, positions, gx, *planes, gx.size)
        return gx

    def resize(self, x, size):
        for axis, extent in zip((2, 3), size, strict=True):
            x = self._interpolate("resize", x, axis, extent)
        return x

    def resize_backward(self, g, shape):
        for axis in (3, 2):
            g = self._interpolate("resize_backward", g, axis, shape[axis])
        return g

    def _interpolate(self, kernel, x, axis, extent):
        out = self.empty((*x.shape[:axis], extent, *x.shape[axis + 1 :]))
        both = (x.shape[axis], extent) if kernel == "resize" else (extent, x.shape[axis])
        if max(both) > _LONGEST:
            raise DeviceError(f"interpolation of {both[0]} places to {both[1]} is beyond what kernels count (65536)")
        self._each("gathering", kernel, out.size, x, out, *both, math.prod(x.shape[axis + 1 :]), out.size)
        return out


def _joined(extents, strides):
    """Extents and strides of four axes, neighbours that lie one after the other as one; where there are fewer, others
    of one entry and no stride before them."""
    found = []
    for n, stride in zip(extents, strides, strict=True):
        if n == 1:
            continue
        if found and found[-1][1] == n * stride:
            found[-1] = [found[-1][0] * n, stride]
        else:
            found.append([n, stride])
    found = [[1, 0]] * (4 - len(found)) + found
    return [n for n, _ in found], [stride for _, stride in found]
