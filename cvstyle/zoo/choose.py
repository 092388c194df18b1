"""Automatic choice of style and content layers from the graph of a convolutional network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

_ACTIVATIONS = (
    "ReLU", "ReLU6", "PReLU", "ELU", "SeLu", "Sigmoid", "Swish", "Mish", "TanH", "BNLL", "Clip", "AbsVal",
)  # fmt: skip
_JOINS = ("Concat", "Eltwise", "Axpy")
_ELEMENTWISE = ("BatchNorm", "BN", "MVN", "Scale", "Bias", "Power", "LRN")  # between a join and its activation
_CLASSIFIERS = ("Softmax", "ArgMax")
_LEARNED = ("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution", "Deconvolution", "InnerProduct")
_MIN_STYLE_SIDE = 8  # positions of a map along a side, for style
_MAX_STYLE_FIELD = 172  # pixels of a style layer's receptive field: about VGG's relu5_1
_CONTENT_STEP = 8  # pixels: as VGG's relu4_2
_CONTENT_FIELD = 92  # pixels: about VGG's relu4_2


class _Map(NamedTuple):
    """A feature map on which all deeper maps depend: its layer, and its geometry in pixels."""

    name: str
    type: str
    step: float
    field: int
    side: int  # positions along the shorter side
    channels: int


def choose_layers(network, sizes: Sequence[tuple[int, int]]) -> dict[str, list[str]]:
    """The best layers of a `Network`: {"style_layers": [...], "content_layers": [...]}; {} for a network without maps.

    sizes: (height, width) of the picture, then other sizes that the layers must accept.

    Candidates are on every path to the network's coarsest map: the activations, and joins of branches without an
    activation behind them; other layers only if there are none of these. Style: for each resolution the last layer
    whose receptive field is neither larger than the picture nor than that of VGG's relu5_1, since coarser scales cover
    larger structures; and the first of three or more. Content: the layer most similar to VGG's relu4_2.
    """
    trunk = _trunk(network, sizes)
    maps = sorted(list(_features(trunk)) or trunk, key=attrgetter("step"))
    if not maps:
        return {}
    max_field = min(_MAX_STYLE_FIELD, *sizes[0])
    style = []
    content = []
    for _, group in groupby(maps, attrgetter("step")):
        group = list(group)
        content += _wide(group)
        fine = _wide([m for m in group if m.field <= max_field and m.side >= _MIN_STYLE_SIDE])
        style += [*(fine[:1] if len(fine) > 2 else ()), *fine[-1:]]
    best = min(reversed(content), key=_content_distance)
    return {"style_layers": [m.name for m in style or maps[:1]], "content_layers": [best.name]}


def feature_maps(network, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """All candidates of `choose_layers` with as many channels as their neighbours, in the order of computation."""
    trunk = _trunk(network, sizes)
    maps = list(_features(trunk)) or trunk
    return [m.name for _, group in groupby(maps, attrgetter("step")) for m in _wide(list(group))]


def _content_distance(candidate):
    """The distance of a map's geometry from VGG's relu4_2."""
    return 2 * abs(math.log2(candidate.step / _CONTENT_STEP)) + abs(math.log2(candidate.field / _CONTENT_FIELD))


def _wide(group):
    """The maps except activations with few channels between wider maps."""
    most = max((m.channels for m in group), default=0)
    return [m for m in group if m.type in _JOINS or 2 * m.channels >= most]


def _features(trunk):
    """The activations, and the joins without an activation."""
    join = None
    for candidate in trunk:
        if join and candidate.type not in (*_ACTIVATIONS, *_ELEMENTWISE):
            yield join
            join = None
        if candidate.type in _JOINS:
            join = candidate
        elif candidate.type in _ACTIVATIONS:
            yield candidate
            join = None
    if join:
        yield join


def _trunk(network, sizes) -> list[_Map]:
    """The maps on every path to the coarsest map, in order of computation."""
    shapes, *others = (network.shapes(size, _channels(network), strict=False) for size in dict.fromkeys(sizes))
    fields = network.receptive_fields(local=True)
    ancestors = _ancestors(network)
    inputs = (1 << len(network.input_names)) - 1
    excluded = _classes(network) | network.gradient_stops().keys()
    maps = {
        value: node.definition for node in network.nodes for value in node.tops[:1]
        if len(shapes.get(value, ())) == 4 and min(shapes[value][2:]) > 1
        and fields[value].size and (ancestors[value] & inputs).bit_count() == 1
        and value not in excluded and all(value in other for other in others)
    }  # fmt: skip
    if not maps:
        return []
    last = max(maps, key=lambda value: (max(fields[value].step), ancestors[value].bit_count()))
    return [
        _Map(
            maps[value].name, maps[value].type, max(fields[value].step), max(fields[value].size),
            min(shapes[value][2:]), shapes[value][1],
        )
        for value in _on_every_path(network, ancestors[last] | 1 << last, last) if value in maps
    ]  # fmt: skip


def _on_every_path(network, trunk, last):
    """The values of a trunk (a bit set) that are on every path to its last value.

    Values are numbered in order of computation, so an edge bypasses all values between its ends.
    """
    changes = [0] * (last + 2)
    bypasses = 0
    for node in network.nodes:
        for top in node.tops:
            for bottom in node.bottoms:
                if trunk >> top & trunk >> bottom & 1:
                    changes[bottom + 1] += 1
                    changes[top] -= 1
    for value in range(last + 1):
        bypasses += changes[value]
        if not bypasses and trunk >> value & 1:
            yield value


def _ancestors(network):
    """value -> the values on which it depends, as a bit set."""
    ancestors = {value: 1 << value for value in range(len(network.input_names))}
    for node in network.nodes:
        found = 0
        for bottom in node.bottoms:
            found |= ancestors.get(bottom, 0) | 1 << bottom
        ancestors.update(dict.fromkeys(node.tops, found))
    return ancestors


def _classes(network):
    """Values that go to global pooling, a softmax or the largest of them without another layer with weights between."""
    ends = set()
    learned = set()
    for node in reversed(network.nodes):
        layer = node.definition
        has_weights = layer.type in _LEARNED or not learned.isdisjoint(node.tops)
        if has_weights:
            learned.update(node.bottoms)
        elif layer.type in _CLASSIFIERS or layer.params.get("global_pooling") or not ends.isdisjoint(node.tops):
            ends.update(node.bottoms)
    return ends - learned


def _channels(network):
    """The number of channels of the network's input: a picture's three, if one can have them."""
    stated = [shape for shape in network.definition.inputs.values() if shape is None or len(shape) == 4]
    counts = [3 if shape is None else shape[1] for shape in stated]
    return 3 if 3 in counts or not counts else counts[0]
