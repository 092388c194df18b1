"""Shapes of a network's values for a picture of any size, and the receptive fields behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import CvstyleError, ModelError, ShapeError

Shape = tuple[int, ...]

# An output beyond both is a mistake: the pads and strides of a damaged file ask for any amount of memory.
_MOST_VALUES = 1 << 28
_MOST_VALUES_PER_PIXEL = 1 << 14


@dataclass(frozen=True)
class ReceptiveField:
    """The part of the picture that one position of a layer sees: its size and its step in pixels, along each axis.

    size is None where the field is unbounded (global pooling, fully connected layers).
    """

    size: tuple[int, int] | None
    step: tuple[float, float]


def infer_shapes(network, size, channels=3, indices=None, strict=True) -> dict[int, Shape]:
    """Shape of every value for a picture of (height, width) `size`.

    indices: numbers of the nodes to run through, all by default. Raises ModelError naming the layer at which shapes do
    not fit; with strict=False that layer, layers of unknown type and everything after them are left out.
    """
    shapes = input_shapes(network, size, channels)
    pixels = max(math.prod(shape[2:]) for shape in shapes.values())
    for index in range(len(network.nodes)) if indices is None else indices:
        node = network.nodes[index]
        if any(b not in shapes for b in node.bottoms):
            continue
        try:
            tops = _top_shapes(network, index, [shapes[b] for b in node.bottoms], pixels)
        except CvstyleError:
            if strict:
                raise
        else:
            shapes.update(zip(node.tops, tops, strict=False))
    return shapes


def input_shapes(network, size, channels) -> dict[int, Shape]:
    """Shape of the network's inputs. Raises ModelError where the prototxt states another number of channels."""
    shapes = {}
    for i, (name, stated) in enumerate(network.definition.inputs.items()):
        if stated is not None and len(stated) == 4 and stated[1] != channels:
            raise ModelError(
                f"{network.definition.source}: input '{name}' has {stated[1]} channels; a picture has {channels}"
            )
        shapes[i] = (1, channels, *size)
    return shapes


def receptive_fields(network, local: bool = False) -> dict[int, ReceptiveField]:
    """The receptive field of every value that can be computed.

    local: where a layer joins a map and a value of the whole picture (a squeeze-and-excitation gate), or normalises a
    map by its own statistics, that of the map.
    """
    fields = {i: ReceptiveField((1, 1), (1, 1)) for i in range(len(network.input_names))}
    for index, node in enumerate(network.nodes):
        below = [fields[b] for b in node.bottoms if b in fields]
        try:
            layer = network.layer(index)
            window = layer.local_window() if local else layer.window()
        except ModelError:
            continue
        if below:
            if local:
                below = [field for field in below if field.size] or below
            fields.update(dict.fromkeys(node.tops, _field(below, window)))
    return fields


def _top_shapes(network, index, bottoms, pixels):
    """The shapes of a node's tops, checked: batches of one, and no more values than a real network has."""
    layer = network.layer(index)
    source = network.definition.source
    few = next((shape for shape in bottoms if len(shape) < 2), None)
    if few is not None:
        raise ShapeError(f"{source}: {layer.fail(f'its input has shape {few}; at least two axes are needed')}")
    try:
        tops = layer.top_shapes(bottoms)
    except ModelError as error:
        raise ShapeError(f"{source}: {error}") from None
    wrong = next((top for top in tops if top and top[0] != 1), None)
    if wrong is not None:
        raise ShapeError(
            f"{source}: {layer.fail(f'its output would have the shape {wrong}')}; the first axis counts pictures, of "
            "which there is one"
        )
    if max(map(math.prod, tops)) > max(_MOST_VALUES, _MOST_VALUES_PER_PIXEL * pixels):
        raise ShapeError(
            f"{source}: {layer.fail(f'its output would have the shape {max(tops, key=math.prod)}')}, which no real "
            "network asks for; the file is damaged"
        )
    count = len(network.nodes[index].tops)
    if len(tops) < count:
        raise ModelError(f"{source}: {layer.fail(f'has {count} tops; it can have {len(tops)}')}")
    return tops


def _field(below, window):
    """The receptive field of a layer with this window over bottoms with those."""
    step = tuple(max(field.step[axis] for field in below) for axis in (0, 1))
    if window is None:
        return ReceptiveField(None, step)
    size = None
    if all(field.size for field in below):
        largest = (max(field.size[axis] for field in below) for axis in (0, 1))
        size = tuple(math.ceil(n + (e - 1) * s) for n, e, s in zip(largest, window.extent, step, strict=True))
    return ReceptiveField(size, tuple(s * t for s, t in zip(step, window.stride, strict=True)))
