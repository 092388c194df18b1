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


def infer_shapes(network, size, channels=3, indices=None, faults=None) -> dict[int, Shape]:
    """Shape of every value for a picture of (height, width) `size`.

    channels: of the picture; None: as many as each input has. indices: numbers of the nodes to run through, all by
    default. Raises ModelError naming the first layer that cannot run; into `faults`, if it is a dict, go all of them
    instead, as number of the node → error, and they and everything after them are left out.
    """
    shapes = {}
    unfit = {}
    for value in range(len(network.input_names)):
        try:
            shapes[value] = input_shape(network, value, size, channels)
        except ModelError as error:
            unfit[value] = error
    for index in range(len(network.nodes)) if indices is None else indices:
        node = network.nodes[index]
        try:
            network.layer(index)
            for bottom in node.bottoms:
                if bottom in unfit:
                    raise unfit[bottom]
            if all(b in shapes for b in node.bottoms):
                tops = _top_shapes(network, index, [shapes[b] for b in node.bottoms], math.prod(size))
                shapes.update(zip(node.tops, tops, strict=False))
        except CvstyleError as error:
            if faults is None:
                raise
            faults[index] = error
    return shapes


def input_shape(network, value, size, channels) -> Shape:
    """Shape of an input of the network. Raises ModelError where the file states another shape than a picture's."""
    name = network.input_names[value]
    stated = network.definition.inputs[name]
    if channels is None and stated is not None:
        return (1, stated[1], *size) if len(stated) == 4 else (1, *stated[1:])
    channels = channels or 3
    where = f"{network.definition.source}: input '{name}'"
    if stated is not None and len(stated) != 4:
        raise ModelError(f"{where} has the shape {list(stated)}; a picture has [1, {channels}, height, width]")
    if stated is not None and stated[1] != channels:
        raise ModelError(f"{where} has {stated[1]} channels; a picture has {channels}")
    return (1, channels, *size)


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
        if below and len(below) == len(node.bottoms):
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
