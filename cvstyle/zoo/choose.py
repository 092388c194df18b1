"""Layers for style and for content, chosen from the graph of any convolutional network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

_ACTIVATIONS = ("ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "AbsVal")
_JOINS = ("Concat", "Eltwise")
_ELEMENTWISE = ("BatchNorm", "Scale", "Bias", "Power", "LRN")  # between a join and its activation
_LEARNED = ("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution", "Deconvolution", "InnerProduct")
_FEWEST = 8  # positions of a map along a side, for style
_WIDEST = 172  # pixels of a style layer's receptive field: about VGG's relu5_1
_CONTENT_STEP, _CONTENT_FIELD = 8, 92  # pixels: about VGG's relu4_2


class _Map(NamedTuple):
    """A feature map through which all that is deeper is computed: its layer, place and geometry in pixels."""

    name: str
    type: str
    step: float
    field: int
    side: int  # positions along the shorter side
    channels: int


def choose_layers(network, sizes: Sequence[tuple[int, int]]) -> dict[str, list[str]]:
    """{"style_layers": [...], "content_layers": [...]}, those of a `Network` that serve best; {} where it has no maps.

    sizes: (height, width) of the picture, then of others that the layers must take as well.

    They are among those through which every path to the network's coarsest map leads: the activations, and the joins of
    branches that no activation follows; all others only where there are none of these. Style: of each resolution the
    last one whose receptive field is neither too large for the picture nor beyond that of VGG's relu5_1, since coarser
    scales see what is larger; and the first of three or more. Content: the one that is most like VGG's relu4_2.
    """
    trunk, size = _trunk(network, sizes), sizes[0]
    maps = sorted(list(_features(trunk)) or trunk, key=attrgetter("step"))
    if not maps:
        return {}
    widest = min(_WIDEST, *size)
    style, content = [], []
    for _, group in groupby(maps, attrgetter("step")):
        group = list(group)
        content += _wide(group)
        fine = _wide([m for m in group if m.field <= widest and m.side >= _FEWEST])
        style += [*(fine[:1] if len(fine) > 2 else ()), *fine[-1:]]
    best = min(reversed(content), key=_unlike_content)
    return {"style_layers": [m.name for m in style or maps[:1]], "content_layers": [best.name]}


def _unlike_content(found):
    """How far a map is from what serves for content."""
    return 2 * abs(math.log2(found.step / _CONTENT_STEP)) + abs(math.log2(found.field / _CONTENT_FIELD))


def _wide(group):
    """Those without the activations of few channels that lie between wider maps."""
    most = max((m.channels for m in group), default=0)
    return [m for m in group if m.type in _JOINS or 2 * m.channels >= most]


def _features(trunk):
    """The activations, and the joins that have none."""
    join = None
    for found in trunk:
        if join and found.type not in (*_ACTIVATIONS, *_ELEMENTWISE):
            yield join
            join = None
        if found.type in _JOINS:
            join = found
        elif found.type in _ACTIVATIONS:
            yield found
            join = None
    if join:
        yield join


def _trunk(network, sizes) -> list[_Map]:
    """The maps without which the coarsest one cannot be computed, in order from the picture on."""
    shapes, *others = (network.shapes(size, _channels(network), strict=False) for size in dict.fromkeys(sizes))
    fields = network.receptive_fields(local=True)
    below, pictures = _ancestors(network), (1 << len(network.input_names)) - 1
    classes = _classes(network)
    maps = {
        value: node.definition for node in network.nodes for value in node.tops[:1]
        if len(shapes.get(value, ())) == 4 and min(shapes[value][2:]) > 1
        and fields[value].size and (below[value] & pictures).bit_count() == 1
        and value not in classes and all(value in other for other in others)
    }  # fmt: skip
    if not maps:
        return []
    last = max(maps, key=lambda value: (max(fields[value].step), below[value].bit_count()))
    return [
        _Map(
            maps[value].name, maps[value].type, max(fields[value].step), max(fields[value].size),
            min(shapes[value][2:]), shapes[value][1],
        )
        for value in _on_every_path(network, below[last] | 1 << last, last) if value in maps
    ]  # fmt: skip


def _on_every_path(network, trunk, last):
    """The values of a trunk (a set of bits) through which every path to its last one leads.

    Values are numbered in the order of computation, so an edge leads around all those between its ends.
    """
    begins, around = [0] * (last + 2), 0
    for node in network.nodes:
        for top in node.tops:
            for bottom in node.bottoms:
                if trunk >> top & trunk >> bottom & 1:
                    begins[bottom + 1] += 1
                    begins[top] -= 1
    for value in range(last + 1):
        around += begins[value]
        if not around and trunk >> value & 1:
            yield value


def _ancestors(network):
    """value -> the values from which it is computed, as a set of bits."""
    below = dict.fromkeys(range(len(network.input_names)), 0)
    below = {value: 1 << value for value in below}
    for node in network.nodes:
        found = 0
        for bottom in node.bottoms:
            found |= below[bottom] | 1 << bottom
        below.update(dict.fromkeys(node.tops, found))
    return below


def _classes(network):
    """The values that are pooled over the whole picture, or go to a softmax, without another layer that has weights."""
    ends, learned = set(), set()
    for node in reversed(network.nodes):
        layer = node.definition
        has_weights = layer.type in _LEARNED or not learned.isdisjoint(node.tops)
        if has_weights:
            learned.update(node.bottoms)
        elif layer.type == "Softmax" or layer.params.get("global_pooling") or not ends.isdisjoint(node.tops):
            ends.update(node.bottoms)
    return ends - learned


def _channels(network):
    """Of the picture that the network takes."""
    stated = next(iter(network.definition.inputs.values()))
    return stated[1] if stated is not None and len(stated) == 4 else 3
