"""The neutral description of a network: what a file format says, without numerics.

A reader (`cvstyle.caffe`) produces a `NetDef`; `cvstyle.network` turns it into something that runs.
Neither a layer nor a backend knows which file format it came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LayerDef:
    """One layer as the file states it.

    name: unique within the net.
    type: Caffe's V2 type name, such as "Convolution".
    bottoms, tops: blob names in order; in-place layers name the same blob on both sides.
    params: the fields that the file sets in the layer's parameter message (convolution_param and the like),
        under Caffe's field names, with plain Python values: int, float, bool, str (enum names such as "MAX"),
        list for repeated fields. A field that is not set is absent: each layer states its own defaults.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Transform:
    """What a file says is done to a picture's pixels, 0..255, before the net: (pixel − mean) · scale.

    mean: one number for all channels, or one for each in their order; empty where it is in a file that is not there.
    mean_file: that file, as the net's names it ("" if it names none).
    """

    mean: tuple[float, ...] = (0.0,)
    scale: float = 1.0
    mean_file: str = ""


@dataclass(frozen=True)
class Convention:
    """The arrays (3, H, W) that a net takes for pictures: channels in an order, of 0..255, less a mean.

    mean: of each channel in their order; ImageNet's where nothing is known. channels: "bgr" or "rgb".
    luminance, scale: what the net itself makes of such an array first (see `cvstyle.convention`).
    missing: the mean file that there should be, and is not ("" where none is missing).
    """

    mean: tuple[float, float, float] = (103.939, 116.779, 123.68)
    channels: str = "bgr"
    luminance: bool = False
    scale: float = 1.0
    missing: str = ""

    def __str__(self) -> str:
        """One line: the order of the channels, the mean, the scale."""
        mean = self.mean[:1] if len(set(self.mean)) == 1 else self.mean
        found = "luminance of " * self.luminance + f"{self.channels.upper()}, mean {','.join(f'{n:g}' for n in mean)}"
        if self.missing:
            found += f" (ImageNet's, since {self.missing} is not beside the prototxt; --mean says another)"
        return found + (f", scale {self.scale:g}" if self.scale != 1 else "")


IMAGENET = Convention()
"""What most of Caffe's models were trained with."""


def imagenet_mean(channels: str) -> tuple[float, ...]:
    """ImageNet's mean for channels in this order."""
    return IMAGENET.mean[:: 1 if channels == IMAGENET.channels else -1]


@dataclass(frozen=True)
class NetDef:
    """A directed acyclic graph of layers in the file's order, and where its weights come from.

    inputs: blob name -> shape (N, C, H, W) as the file states it, or None where it states none.
    layers: in file order, which is an order of execution.
    weights: layer name -> the layer's blobs (NumPy arrays in file order); a layer without weights is absent.
        May be lazy: a layer's blobs are read when they are asked for. Blobs are read-only to everyone.
    source: the file's name, for messages.
    weights_source: the weight file's name, for messages ("" if there is none).
    transform: what the file says of pixels, None where it says nothing.
    convention: the pictures that the net takes.
    """

    name: str
    inputs: Mapping[str, tuple[int, ...] | None]
    layers: tuple[LayerDef, ...]
    weights: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    source: str = ""
    weights_source: str = ""
    transform: Transform | None = None
    convention: Convention = IMAGENET
