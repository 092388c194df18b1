"""Operations that take elements from other places, in NumPy."""

from __future__ import annotations

import numpy as np

from ..base.gathering import GatherOperations


class Gathering(GatherOperations):
    """Transposition, largest elements, unpooling and interpolation."""

    def transpose(self, x, axes):
        return self.asarray(np.transpose(x, axes))

    def top_k(self, x, axis, count):
        # A stable order of the reversed axis: of equal elements the one with the larger index comes first.
        reverse = np.flip(x, axis)
        order = np.argsort(-reverse, axis=axis, kind="stable").take(range(count), axis=axis)
        return self.asarray(np.take_along_axis(reverse, order, axis)), self.asarray(x.shape[axis] - 1 - order)

    def pool_positions(self, winner, shape, kernel, stride, pad):
        row, column = np.divmod(winner.astype(np.int64), kernel[1])
        row += (np.arange(winner.shape[2]) * stride[0] - pad[0])[:, None]
        column += np.arange(winner.shape[3]) * stride[1] - pad[1]
        return self.asarray(row * shape[3] + column)

    def unpool(self, x, positions, size):
        top = self.zeros((*x.shape[:2], *size))
        planes = top.reshape(x.shape[1], -1)
        for plane, values, places in zip(planes, x[0], _places(positions), strict=True):
            inside = (places >= 0) & (places < plane.size)
            plane[places[inside]] = values.reshape(-1)[inside]
        return top

    def unpool_backward(self, g, positions):
        gx = self.zeros(positions.shape)
        planes = g.reshape(g.shape[1], -1)
        for plane, part, places in zip(planes, gx[0], _places(positions), strict=True):
            inside = (places >= 0) & (places < plane.size)
            part.reshape(-1)[inside] = plane[places[inside]]
        return gx

    def resize(self, x, size):
        for axis, n in zip((2, 3), size, strict=True):
            low, high, share = self._neighbours(x.shape[axis], n, axis)
            first = np.take(x, low, axis)
            x = first + (np.take(x, high, axis) - first) * share
        return self.asarray(x)

    def resize_backward(self, g, shape):
        for axis in (3, 2):
            low, _, share = self._neighbours(shape[axis], g.shape[axis], axis)
            spread = self.zeros((*g.shape[:axis], shape[axis], *g.shape[axis + 1 :]))
            target = np.moveaxis(spread, axis, 0)
            places, starts = np.unique(low, return_index=True)
            inner = places + 1 < shape[axis]  # the last element has no upper neighbour
            target[places] = np.moveaxis(np.add.reduceat(g * (1 - share), starts, axis), axis, 0)
            target[places[inner] + 1] += np.moveaxis(np.add.reduceat(g * share, starts, axis), axis, 0)[inner]
            g = spread
        return g

    def _neighbours(self, n, size, axis):
        """(lower neighbour, upper one, the upper one's share) of each place along an axis of n elements."""
        intervals = max(size - 1, 1)
        low, rest = np.divmod(np.arange(size) * (n - 1), intervals)
        share = (rest / intervals).astype(self.dtype).reshape(-1, *[1] * (3 - axis))
        return low, np.minimum(low + 1, n - 1), share


def _places(positions):
    return positions[0].reshape(positions.shape[1], -1).astype(np.int64)
