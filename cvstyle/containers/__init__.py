"""Weights in the formats of other frameworks: named tensors, read without those frameworks."""

from __future__ import annotations

from .read import read
from .tensors import Container, Tensor

__all__ = ["Container", "Tensor", "read"]
