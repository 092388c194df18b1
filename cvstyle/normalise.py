"""Networks whose filters have a mean activation of 1: the weights of Gatys, Ecker and Bethge 2015 (arXiv:1505.07376).

ReLU, pooling and zero padding commute with a factor above zero per channel, so a filter can be divided by its mean
activation and the next layer's weights for that channel be multiplied by it: all features are the same, but for these
factors.

Over a few pictures the mean of a channel that is hardly ever active says little, and division by it would let that
channel decide the losses of any picture where it is active (seen as spots of bright colours), so means have a floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import api
from .errors import ModelError
from .graph import Network
from .netdef import LayerDef, NetDef
from .zoo.conversion import LazyWeights

_HOMOGENEOUS = ("Convolution", "ReLU", "Pooling", "Dropout")
FLOOR = 0.1
"""The default floor of means."""
_ENDS = ("InnerProduct", "Flatten", "Softmax", "SoftmaxWithLoss", "Accuracy")


@dataclass(frozen=True)
class Normalised:
    """A network of mean activations of 1.

    net: with weights that are computed on access. scales: name of each convolution's ReLU → the numbers by which its
    channels are divided, float64 (channels,): their mean activations in the original, or the floor. raised: the same
    names → number of channels with a mean below the floor. left_out: names of layers after the last that the network
    keeps.
    """

    net: NetDef
    scales: dict[str, np.ndarray]
    raised: dict[str, int]
    left_out: tuple[str, ...]


def normalised(
    network: Network, pictures: Sequence, size: int, pooling: str = "max", floor: float = FLOOR
) -> Normalised:
    """The network's convolutional part with every filter's mean activation over pictures and positions at 1.

    pictures: paths or arrays, as for `api.preprocess`, which scales their longest side to `size`; positions of all
    pictures count alike. pooling: "max", or "avg" for average pooling, in the new network and for the activations.
    floor: the smallest mean by which a channel is divided, as a share of the mean of its layer; with 0, as Gatys et al.
    have it, only a channel that is zero everywhere keeps its scale. Raises ModelError for a network that is no chain of
    convolution, ReLU and pooling, ImageError for a picture.
    """
    net, left_out = _chain(network.definition)
    pairs = _convolutions(net)
    net = replace(net, layers=tuple(_pooled(layer, pooling) for layer in net.layers))
    measured = Network(net, network.ops)
    means = _means(measured, [relu.name for _, relu in pairs], pictures, size)
    floors = {name: floor * mean.mean() for name, mean in means.items()}
    raised = {name: int(((mean < floors[name]) | (mean == 0)).sum()) for name, mean in means.items()}
    scales = {name: np.maximum(mean, floors[name]) for name, mean in means.items()}
    scales = {name: np.where(scale > 0, scale, 1.0) for name, scale in scales.items()}
    makers = {}
    before = None
    for layer, relu in pairs:
        makers[layer.name] = _maker(net, layer, before, scales[relu.name])
        before = scales[relu.name]
    return Normalised(replace(net, weights=LazyWeights(makers)), scales, raised, left_out)


def _chain(net: NetDef) -> tuple[NetDef, tuple[str, ...]]:
    """The layers below the classifier, and the names of the others. Raises ModelError."""
    last = next(iter(net.inputs), None)
    kept = []
    for layer in net.layers:
        if layer.type in _ENDS:
            break
        if layer.bottoms != (last,) or len(layer.tops) != 1:
            raise ModelError(
                f"{net.source}: the layer '{layer.name}' ({layer.type}) is no link of a chain, and only in a chain can "
                "filters be scaled; use a network such as VGG"
            )
        filtered = any(before.type == "Convolution" for before in kept)
        if not _is_homogeneous(layer) and (filtered or layer.type != "Power"):
            raise ModelError(
                f"{net.source}: the layer '{layer.name}' ({layer.type}) does not commute with a factor per channel, so "
                "the filters before it cannot be scaled; use a network of convolutions, ReLU and pooling, such as VGG"
            )
        kept.append(layer)
        last = layer.tops[0]
    return replace(net, layers=tuple(kept)), tuple(layer.name for layer in net.layers[len(kept) :])


def _is_homogeneous(layer):
    """True if a factor above zero per channel can be taken before the layer or after it."""
    return layer.type in _HOMOGENEOUS and layer.params.get("pool", "MAX") in ("MAX", "AVE")


def _convolutions(net) -> list[tuple[LayerDef, LayerDef]]:
    """The convolutions, each with its ReLU. Raises ModelError."""
    pairs = []
    for layer, following in zip(net.layers, [*net.layers[1:], None], strict=True):
        if layer.type == "Convolution":
            if following is None or following.type != "ReLU":
                raise ModelError(
                    f"{net.source}: no ReLU comes after the layer '{layer.name}', whose filters so have no activation; "
                    "use a network such as VGG"
                )
            pairs.append((layer, following))
    if not pairs:
        raise ModelError(f"{net.source}: there are no convolutions whose filters could be scaled")
    return pairs


def _pooled(layer, pooling):
    if layer.type != "Pooling" or pooling == "max":
        return layer
    return replace(layer, params={**layer.params, "pool": "AVE"})


def _means(network, names, pictures, size):
    """Mean of each layer's channels over the positions of all pictures, in float64."""
    sums = dict.fromkeys(names, 0.0)
    counts = dict.fromkeys(names, 0)
    for picture in pictures:
        x = api.preprocess(picture, size, network)
        for name, found in api.features(network, x, names).items():
            sums[name] = sums[name] + found.sum((1, 2), dtype=np.float64)
            counts[name] += found[0].size
    return {name: sums[name] / counts[name] for name in names}


def _maker(net, layer, before, after):
    """A function that reads the scaled filters and bias of a convolution."""
    group = layer.params.get("group", 1)

    def make():
        filters, *bias = (np.asarray(blob, np.float64) for blob in net.weights[layer.name])
        factors = 1 / after.reshape(-1, 1, 1, 1)
        if before is not None:
            factors = factors * before.reshape(group, -1).repeat(len(filters) // group, 0)[:, :, None, None]
        return [(filters * factors).astype(np.float32), *((b.reshape(-1) / after).astype(np.float32) for b in bias)]

    return make
