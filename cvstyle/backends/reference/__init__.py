"""The reference backend "numpy": every operation in NumPy, readable, in float32 or float64."""

from __future__ import annotations

from .backend import Backend
from .convolution import Convolution

__all__ = ["Backend", "Convolution"]
