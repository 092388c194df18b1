"""The interface of a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from ..backends.base import UNPLACED, BlockGrid
from ..errors import ModelError
from ..netdef import LayerDef

Shape = tuple[int, ...]
REGISTRY: dict[str, type[Layer]] = {}


def register(*types: str):
    """Class decorator: this class runs layers of these Caffe types."""

    def add(cls):
        for name in types:
            REGISTRY[name] = cls
        return cls

    return add


@dataclass(frozen=True)
class Window:
    """The part of its input that one output position sees, along (vertical, horizontal).

    extent: positions from first to last (dilation counted); stride: input positions per output position (a fraction
    for layers that enlarge); pad: positions before the input's first.
    """

    extent: tuple[int, int] = (1, 1)
    stride: tuple[Fraction | int, Fraction | int] = (1, 1)
    pad: tuple[Fraction | int, Fraction | int] = (0, 0)


class Context(NamedTuple):
    """The circumstances of one forward pass of a layer.

    needs_grad: a backward pass will follow; without it `backward` may be anything and nothing need be saved for it.
    overwrite: no other layer reads the first bottom, so the top may be computed in its memory. grid: of a convolution,
    the place of its map in that of the picture.
    """

    needs_grad: bool = True
    overwrite: bool = False
    grid: BlockGrid = UNPLACED


class Layer:
    """One layer of a graph, bound to a backend.

    Feature maps are (1, C, H, W) arrays of the backend `ops`; after InnerProduct and the like (1, C).
    A subclass reads its parameters in `__init__` (with Caffe's defaults), and overrides what differs from an
    element-wise layer without weights.
    """

    inputs = (1, 1)
    """The least and the largest number of bottoms."""

    identity = False
    """True where the top is the bottom (Dropout, Split): both have one value, and the layer never runs."""

    saves_activations = True
    """True where bottoms or tops live on in the backward closure or share memory: no layer overwrites them."""

    uses_grid = False
    """True where rounding depends on `Context.grid`: a convolution, whose outputs a backend may compute in blocks."""

    block_size = 1
    """Outputs along an axis of the blocks in which they are computed; known when the weights are loaded."""

    supports_offset = False
    """True where blocks can start any number of positions before the map; known when the weights are loaded."""

    by_channel = False
    """True where the top is the bottom times a factor for each channel, plus a shift: `affine`."""

    blob_count: int | None = None
    """Number of blobs that the model holds for the layer, known before `blob_shapes` is asked; None without a model."""

    blobs_decide = False
    """True where `blob_count` decides what the layer is; it is known before all else then."""

    affine: tuple[np.ndarray | float, np.ndarray | float]
    """(factor, shift) of a layer that is `by_channel`, float64, each (C,) or a number, known with the weights."""

    def __init__(self, definition: LayerDef, ops):
        self.definition = definition
        self.ops = ops
        self.name = definition.name
        self.names = [definition.name]
        """Names of the layers that this one computes: its own, or those of all layers fused into it."""
        self.params: dict[str, Any] = dict(definition.params)
        least, most = self.inputs
        if not least <= len(definition.bottoms) <= most:
            wanted = str(least) if least == most else f"{least} or more" if most > 2 else f"{least} or {most}"
            raise self.fail(f"has {len(definition.bottoms)} inputs; it takes {wanted}")

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Shapes of the tops for these shapes of the bottoms. Raises ModelError where they do not fit."""
        return [bottoms[0]]

    def blob_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Shapes of the weights that the layer expects, in file order."""
        return []

    def load(self, blobs: Sequence[np.ndarray], bottoms: Sequence[Shape]) -> None:
        """Take the weights, already in the shapes of `blob_shapes(bottoms)`; called once, before the first forward."""

    def window(self) -> Window | None:
        """The `Window` of an output; None if it may be the whole input, or depends on the place in the picture."""
        return Window()

    def local_window(self) -> Window | None:
        """`window` without what the layer knows of the map as a whole, such as its mean: for the choice of layers."""
        return self.window()

    def passes_gradient(self, top: int, bottom: int) -> bool:
        """True where `backward` gives the bottom of this number a gradient for that of the top of this number."""
        return True

    def forward(self, bottoms: list, context: Context) -> tuple[list, Callable[[list], list] | None]:
        """Run the layer: (tops, backward).

        backward(top gradients) -> bottom gradients is the vector-Jacobian product; its closure holds just what it
        needs. A bottom gradient is None where none passes (`passes_gradient`). It owns the top gradients and may
        overwrite them; no two gradients that it returns share memory.
        """
        raise NotImplementedError

    def replace_max_pooling(self, method: str) -> None:
        """Replace max pooling by `method`, "max" or "avg"; only Pooling has any."""

    def fail(self, message: str) -> ModelError:
        """An error that names this layer."""
        return ModelError(f"layer '{self.name}' ({self.definition.type}): {message}")

    def axis(self, rank: int, default: int = 1, name: str = "axis") -> int:
        """The parameter of this name, negative counted from the end, checked against the rank."""
        axis = self.params.get(name, default)
        if not -rank <= axis < rank:
            raise self.fail(f"{name} {axis} is outside the {rank} axes of its input")
        return axis % rank

    def map_size(self, shape: Shape) -> tuple[int, int]:
        """(height, width) of a bottom that must be a feature map. Raises ModelError where it is none."""
        if len(shape) != 4:
            raise self.fail(f"its input has shape {shape}; it needs (1, C, H, W)")
        return shape[2:]

    def pair(self, name: str, default: int, short: str | None = None) -> tuple[int, int]:
        """A (vertical, horizontal) parameter: `name` (one number or a list), or `short`_h and `short`_w."""
        short = short or name
        if f"{short}_h" in self.params or f"{short}_w" in self.params:
            return self.params.get(f"{short}_h", default), self.params.get(f"{short}_w", default)
        value = self.params.get(name, default)
        if not isinstance(value, (list, tuple)):
            return value, value
        if len(value) > 2:
            raise self.fail(f"{name} has {len(value)} values; only two spatial axes are supported")
        return (value[0], value[-1]) if value else (default, default)
