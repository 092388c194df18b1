"""Laplacian loss: edges of the content, as in Lapstyle (Li, Xu, Nie and Liu 2017, arXiv:1707.01253)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import fields
from ..errors import OptionError
from ..fields import NONNEGATIVE, WEIGHTS, Settings, option
from .base import Loss
from .layers import checked_weight

_NEIGHBOURS = ((0, 1), (1, 0), (1, 2), (2, 1))
_CENTRE = (1, 1)


@dataclass(kw_only=True)
class Options(Settings):
    """None means the squares of the paper."""

    laplacian: float = option(
        0, "weight of the photograph's edges, which keeps outlines: 10 to 100 (default: %(default)s, off)", WEIGHTS,
        metavar="W", limits=NONNEGATIVE, flags=("--laplacian-weight",), of_content=True, identity=True,
    )  # fmt: skip
    laplacian_pool: Sequence[int] | None = option(
        None, "pixels a side of the squares whose means have the edges; several are several losses (default: 4)",
        WEIGHTS, kind=fields.INTS, metavar="N,N", unit="pixels", of_content=True, identity=True,
    )  # fmt: skip


class Laplacian(Loss):
    """w · mean((D − T)²), D the Laplacian of the picture's means over squares of `pool` pixels, T the content's.

    D sums the channels, and has the squares with four neighbours: 4 times a square less its neighbours. Rows and
    columns that fill no square count in none.
    """

    target_from = "content"
    normalized = False

    def __init__(self, name, weight, pool):
        super().__init__(name, None, weight)
        self.pool = pool
        self.step = pool
        self.overlap = 2 * pool

    def content_values(self, shape):
        height, width = self._squares(shape)
        return (height - 2) * (width - 2)

    def content_target(self, view):
        ops = view.ops
        pool = (self.pool, self.pool)
        grey = ops.sum_over(view.x, (1, 1, *view.x.shape[2:]))
        squares = ops.avg_pool(grey, pool, pool, (0, 0), self._squares(view.x.shape[1:]))
        size = tuple(n - 2 for n in squares.shape[2:])
        edges = ops.scale(_block(ops, squares, _CENTRE, size), 4)
        for start in _NEIGHBOURS:
            edges = ops.add_scaled(edges, -1, _block(ops, squares, start, size))
        return edges

    def gradient(self, view, target):
        ops = view.ops
        count = self.content_values(view.whole)
        difference = ops.add_scaled(self.content_target(view), -1, target)
        loss = self.weight / count * ops.dot(difference, difference)
        height, width = view.x.shape[2:]
        shape = (1, 1, *self._squares(view.x.shape[1:]))
        squares = ops.scale(_placed(ops, difference, _CENTRE, shape), 4)
        for start in _NEIGHBOURS:
            squares = ops.add_scaled(squares, -1, _placed(ops, difference, start, shape))
        pool = (self.pool, self.pool)
        grey = ops.avg_pool_backward(squares, (1, 1, height, width), pool, pool, (0, 0))
        return ops.affine(ops.zeros(view.x.shape), None, grey), 2 / count, loss

    def _squares(self, shape):
        return tuple(n // self.pool for n in shape[1:])


def create(laplacian=0.0, laplacian_pool=(4,)) -> list[Loss]:
    """A loss for each size of squares; none for weight 0."""
    weight = checked_weight(laplacian, "laplacian")
    if not laplacian_pool or min(laplacian_pool) < 1 or len(set(laplacian_pool)) < len(laplacian_pool):
        shown = ",".join(map(str, laplacian_pool))
        raise OptionError(f"--laplacian-pool is {shown or 'empty'}; different sizes of 1 pixel or more are needed")
    several = len(laplacian_pool) > 1
    names = {pool: f"laplacian:{pool}" if several else "laplacian" for pool in laplacian_pool}
    return [Laplacian(name, weight, pool) for pool, name in names.items() if weight]


def _block(ops, array, start, size):
    """A copy of the part of this (height, width) of a map (1, 1, H, W)."""
    out = ops.empty((1, 1, *size))
    ops.copy_block(out, (0, 0, 0, 0), array, (0, 0, *start), out.shape)
    return out


def _placed(ops, part, start, shape):
    """Zeros of a shape (1, 1, H, W) with the part in its place."""
    out = ops.zeros(shape)
    ops.copy_block(out, (0, 0, *start), part, (0, 0, 0, 0), part.shape)
    return out
