"""Input convention of a net: mean, order and number of channels, and scale, from its file or from options.

The optimised arrays are in pixel units for every net, so that total variation, step sizes and bounds have the same
meaning. Scaling and conversion to luminance are layers in front of the file's own.
"""

from __future__ import annotations

import math
import ntpath
from collections import ChainMap
from dataclasses import replace

import numpy as np

from .errors import ModelError, OptionError
from .fields import FLOAT, MEAN, NAME, POSITIVE, argument
from .netdef import Convention, LayerDef, NetDef, imagenet_mean

CHANNELS = ("bgr", "rgb")
_LUMINANCE_BGR = (0.114, 0.587, 0.299)  # ITU-R BT.601, as in OpenCV's grey pictures, which Caffe reads
# Layers that preserve the number of channels, on the way from an input to its first convolution.
_SAME_CHANNELS = ("BatchNorm", "Bias", "Dropout", "LRN", "MVN", "Pooling", "Power", "ReLU", "Scale", "Split")


def fitted(net: NetDef, mean=None, input_scale=None, channels=None) -> NetDef:
    """The net for pictures: it takes arrays (1, 3, H, W) of its `convention`, and scales them itself.

    mean: one number, or one per channel in their order, of 0..255; input_scale: factor of the pixels after subtraction
    of the mean; channels: "bgr" or "rgb". None: from the file's transform_param, else ImageNet's mean, 1 and "bgr".
    A net with one channel gets the luminance, unless another input has three.

    Raises OptionError for invalid values, ModelError for an invalid transform_param, or if no input that a layer reads
    has three channels or one.
    """
    channels = argument("channels", channels, NAME) or "bgr"
    if channels not in CHANNELS:
        raise OptionError(f"--channels must be {' or '.join(CHANNELS)}, not '{channels}'")
    scale = argument("input_scale", input_scale, FLOAT, POSITIVE)
    if scale is None:
        scale = net.transform.scale if net.transform else 1.0
        if not 0 < scale < math.inf:
            raise ModelError(f"{net.source}: its transform_param has the scale {scale:g}; say --input-scale")
    read = {bottom for layer in net.layers for bottom in layer.bottoms}
    counts = {name: input_channels(net, name) for name in net.inputs if name in read}
    colour = {name: count for name, count in counts.items() if count in (3, None)}
    pictures = colour or {name: count for name, count in counts.items() if count == 1}
    if counts and not pictures:
        name, count = next(iter(counts.items()))
        mismatch = f"{count} channels; a picture has 3, or 1 as luminance"
        if not count:
            mismatch = f"the shape {list(net.inputs[name])}; a picture has [1, 3, height, width]"
        raise ModelError(f"{net.source}: input '{name}' has {mismatch}")
    mean, missing = _mean(net, argument("mean", mean, MEAN), channels)
    grey = set(pictures.values()) == {1}
    convention = Convention(tuple(mean), channels, luminance=grey, scale=scale, missing=missing)
    return _with_first_layers(replace(net, convention=convention), pictures)


def _mean(net, given, channels):
    """(mean per channel, name of the missing mean file or "")."""
    if given is not None:
        return given, ""
    stated = net.transform
    if stated and stated.mean:
        try:
            return MEAN.convert(stated.mean), ""
        except ValueError:
            text = ",".join(f"{n:g}" for n in stated.mean[:4])
            raise ModelError(
                f"{net.source}: its transform_param comes to the mean {text}; one finite number, or three, are "
                "needed: say --mean"
            ) from None
    return imagenet_mean(channels), ntpath.basename(stated.mean_file) if stated else ""


def input_channels(net: NetDef, name: str) -> int | None:
    """The number of channels of an input, by its shape or the weights of its first convolution.

    None if nothing tells; 0 for a shape that is not (N, C, H, W).
    """
    stated = net.inputs[name]
    if stated is not None:
        return stated[1] if len(stated) == 4 else 0
    same = {name}
    for layer in net.layers:
        if same.isdisjoint(layer.bottoms):
            continue
        blobs = net.weights.get(layer.name)
        if layer.type == "Convolution" and blobs and blobs[0].ndim == 4:
            return blobs[0].shape[1] * layer.params.get("group", 1)
        if layer.type in _SAME_CHANNELS and len(layer.bottoms) == 1:
            same.update(layer.tops)
        else:
            same.difference_update(layer.tops)
    return None


def _with_first_layers(net, counts):
    """The net with layers in front that convert three channels to the input of the file's first layers."""
    scale = net.convention.scale
    order = 1 if net.convention.channels == "bgr" else -1
    first = []
    inputs = dict(net.inputs)
    weights = {}
    taken = {layer.name for layer in net.layers}
    for name, count in counts.items():
        # In place, so that all readers of the input get the converted values.
        if count == 1:
            layer = _unused(f"{name}/luminance", taken)
            params = {"num_output": 1, "kernel_size": [1], "bias_term": False}
            first.append(LayerDef(layer, "Convolution", (name,), (name,), params))
            weights[layer] = [np.float32(_LUMINANCE_BGR[::order]).reshape(1, 3, 1, 1) * np.float32(scale)]
            inputs[name] = net.inputs[name] and (net.inputs[name][0], 3, *net.inputs[name][2:])
        elif scale != 1:
            first.append(LayerDef(_unused(f"{name}/scale", taken), "Power", (name,), (name,), {"scale": scale}))
    if not first:
        return net
    layers = (*first, *net.layers)
    return replace(net, inputs=inputs, layers=layers, weights=ChainMap(weights, net.weights), added=len(first))


def _unused(name, taken):
    """The name, with underscores appended until it is unused."""
    while name in taken:
        name += "_"
    return name
