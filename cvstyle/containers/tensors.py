"""Tensors of a file of weights, independent of its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file. read: its values as an array of `shape`, read-only where they are a view of the file."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Container:
    """A file of named tensors.

    kind: the format in words, such as "PyTorch". tensors: in the file's order. layout: axes of a convolution's filters,
    "oihw" (outputs, inputs, height, width) or "hwio", "" where the format leaves it open. channels, mean: the order and
    the mean (in that order, 0..255) of a picture's channels where the file states them. digest: SHA-256 of the file,
    hexadecimal, computed when asked for.
    """

    path: str
    kind: str
    tensors: Mapping[str, Tensor]
    layout: str
    digest: Callable[[], str]
    channels: str = ""
    mean: tuple[float, ...] = ()
    remarks: tuple[str, ...] = field(default=())
