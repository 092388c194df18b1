"""The interface of backends: operations, capabilities, and the records that layers and convolutions exchange."""

from __future__ import annotations

from .backend import Backend
from .convolution import Convolution
from .records import BIAS, RELU, UNPLACED, BlockGrid, Epilogue, PoolWinners, Prologue, ReluMask, Size
from .scalars import Scalar, copy_to_host_async

__all__ = [
    "BIAS", "RELU", "UNPLACED", "Backend", "BlockGrid", "Convolution", "Epilogue", "PoolWinners", "Prologue",
    "ReluMask", "Scalar", "Size", "copy_to_host_async",
]  # fmt: skip
