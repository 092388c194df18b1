"""The records that layers, fusion and backends exchange about a convolution."""

from __future__ import annotations

from typing import Any, NamedTuple

Size = tuple[int, int]  # (height, width)


class BlockGrid(NamedTuple):
    """The place of a window's map in the picture's map, by which a convolution rounds as it does for the picture.

    offset: number of positions, (vertical, horizontal), by which the first block of outputs starts before the map.
    full_map: (height, width) of the picture's map, which decides the order of sums; None: no order is prescribed.
    """

    offset: Size = (0, 0)
    full_map: Size | None = None


UNPLACED = BlockGrid()


class Epilogue(NamedTuple):
    """Operations on the outputs of a convolution in the same pass, after the bias.

    relu: ReLU with slope 0. saves: a prologue for the gradient is returned as well. pool: (height, width) of the 2×2
    max pool of stride 2 after the ReLU, or None for no pool.
    """

    relu: bool = False
    saves: bool = False
    pool: Size | None = None


BIAS = Epilogue()
RELU = Epilogue(relu=True, saves=True)


class ReluMask(NamedTuple):
    """Prologue of a gradient: one bit per output of the ReLU, set where it was positive.

    bits: an array in the backend's own layout. offset: of the block grid, where the layout is by blocks.
    """

    bits: Any
    offset: Size = (0, 0)


class PoolWinners(NamedTuple):
    """Prologue of a gradient: the winner of each 2×2 window after a ReLU, or none where the maximum is 0."""

    winners: Any


Prologue = ReluMask | PoolWinners
