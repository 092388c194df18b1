"""Batch normalisations of another framework as blobs of Caffe's BatchNorm and of the forks' layers."""

from __future__ import annotations

import numpy as np

from ..netdef import LayerDef
from .modules import Module, statistics

TYPES = ("BatchNorm", "BN")
_EPS = {"Keras": 1e-3}  # Keras's default; PyTorch's is Caffe's


def eps_of(kind: str) -> float:
    """The default ε of the framework that wrote a file, since files of weights do not hold it."""
    return _EPS.get(kind, 1e-5)


def folding_remark(kind: str) -> str:
    """A sentence for the user on normalisations that became part of the convolutions before them."""
    return f"the batch normalisations are folded into the convolutions (ε {eps_of(kind):g}, the default)"


def takes_factor(layer: LayerDef) -> bool:
    """True for a layer with factor and shift among its blobs: NVCaffe's BatchNorm, SegNet's and PSPNet's BN."""
    params = layer.params
    return layer.type == "BN" or params.get("scale_bias", False) or "scale_filler" in params or "bias_filler" in params


def needs_tensors(layer: LayerDef) -> bool:
    """False for a BatchNorm with the map's own statistics, which works without blobs."""
    return layer.type != "BatchNorm" or takes_factor(layer) or layer.params.get("use_global_stats", True)


def norm_blobs(layer: LayerDef, module: Module, channels: int, eps: float, where: str) -> list[np.ndarray]:
    """The blobs of a layer of `TYPES`, float32. eps: of the file; where: the file. Raises ModelError."""
    factor, shift, mean, variance = (part.astype(np.float64) for part in statistics(module, channels, where))
    if layer.type == "BatchNorm":
        blobs = [mean, variance, np.ones(1), *([factor, shift] if takes_factor(layer) else [])]
    elif "bn_mode" not in layer.params:
        blobs = [factor, shift, mean, variance]
    elif layer.params["bn_mode"] == "INFERENCE":  # factor and shift are all
        factor = factor / np.sqrt(variance + eps)
        blobs = [factor, shift - factor * mean]
    else:
        blobs = [factor, shift]
    return [blob.astype(np.float32) for blob in blobs]


def with_moved_input(layer: LayerDef, blobs: list[np.ndarray], shift: np.ndarray) -> list[np.ndarray]:
    """The blobs for an input from which `shift`, one number per channel, was left out."""
    if layer.type == "BatchNorm":
        return [blobs[0] - shift, *blobs[1:]] if blobs else []
    if "bn_mode" not in layer.params:
        return [*blobs[:2], blobs[2] - shift, blobs[3]]
    if layer.params["bn_mode"] == "INFERENCE":
        return [blobs[0], blobs[1] + blobs[0] * shift]
    return blobs  # the map's own mean takes it up
