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
class NetDef:
    """A directed acyclic graph of layers in the file's order, and where its weights come from.

    inputs: blob name -> shape (N, C, H, W) as the file states it, or None where it states none.
    layers: in file order, which is an order of execution.
    weights: layer name -> the layer's blobs (NumPy arrays in file order); a layer without weights is absent.
        May be lazy: a layer's blobs are read when they are asked for. Blobs are read-only to everyone.
    source: the file's name, for messages.
    weights_source: the weight file's name, for messages ("" if there is none).
    """

    name: str
    inputs: Mapping[str, tuple[int, ...] | None]
    layers: tuple[LayerDef, ...]
    weights: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    source: str = ""
    weights_source: str = ""
