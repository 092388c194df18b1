"""Neutral description of a network, independent of file formats and numerics.

A reader (`cvstyle.caffe`) produces a `NetDef`, and `cvstyle.network` makes it executable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LayerDef:
    """A layer as stated in the file.

    name: unique within the net. The file's, or, where an earlier layer has that one, the file's with "@" and the
        layer's number in the file behind it; `repeats` is the file's then. Caffe gives the model's weights to the first
        layer of a name.
    type: Caffe's V2 type name, such as "Convolution".
    bottoms, tops: blob names in order; in-place layers name the same blob on both sides.
    params: the fields that the file sets in the layer's parameter message (such as convolution_param), under Caffe's
        field names, with plain Python values: int, float, bool, str (enum names such as "MAX"), list for repeated
        fields. Unset fields are absent: each layer has its own defaults.
    shared: for each blob the name under which layers share it (Caffe's `param { name }`), "" for a blob of its own.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    repeats: str = ""
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transform:
    """The preprocessing stated in a file, of pixels 0..255: (pixel − mean) · scale.

    mean: one number for all channels, or one for each in their order; empty if it is in a missing file.
    mean_file: the name of that file in the prototxt ("" if there is none).
    """

    mean: tuple[float, ...] = (0.0,)
    scale: float = 1.0
    mean_file: str = ""


@dataclass(frozen=True)
class Convention:
    """The input of a net: arrays (3, H, W) of pixels 0..255 minus a mean.

    mean: of each channel in their order; ImageNet's if unknown. channels: order, "bgr" or "rgb".
    luminance, scale: conversions by the net's first layers (see `cvstyle.convention`).
    missing: the name of a missing mean file, or "".
    """

    mean: tuple[float, float, float] = (103.939, 116.779, 123.68)
    channels: str = "bgr"
    luminance: bool = False
    scale: float = 1.0
    missing: str = ""

    def __str__(self) -> str:
        """One line: the order of the channels, the mean, the scale."""
        mean = self.mean[:1] if len(set(self.mean)) == 1 else self.mean
        text = "luminance of " * self.luminance + f"{self.channels.upper()}, mean {','.join(f'{n:g}' for n in mean)}"
        if self.missing:
            text += f" (ImageNet's, since {self.missing} is not beside the prototxt; --mean says another)"
        return text + (f", scale {self.scale:g}" if self.scale != 1 else "")


IMAGENET = Convention()
"""The convention of most of Caffe's models."""


def imagenet_mean(channels: str) -> tuple[float, ...]:
    """ImageNet's mean, for channels in this order."""
    return IMAGENET.mean[:: 1 if channels == IMAGENET.channels else -1]


@dataclass(frozen=True)
class NetDef:
    """A directed acyclic graph of layers, and its weights.

    inputs: blob name -> shape as stated in the file, (N, C, H, W) for pictures, or None.
    layers: in file order, which is an order of execution.
    weights: layer name -> the layer's blobs (NumPy arrays in file order); layers without weights are absent.
        The mapping may read blobs on access. Blobs are read-only.
    source: name of the file, for messages.
    weights_source: name of the weight file, for messages ("" if there is none).
    transform: the preprocessing stated in the file, or None.
    convention: the input that the net takes.
    missing: blob name -> why nothing makes it, for the blobs that layers read before anything makes them.
    added: the number of layers in front that are not the file's, but the convention's.
    digests: layer → the digest of its weights, once computed.
    """

    name: str
    inputs: Mapping[str, tuple[int, ...] | None]
    layers: tuple[LayerDef, ...]
    weights: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    source: str = ""
    weights_source: str = ""
    transform: Transform | None = None
    convention: Convention = IMAGENET
    missing: Mapping[str, str] = field(default_factory=dict)
    added: int = 0
    digests: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
