"""Networks with common layer names, and the default options for each kind."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import numpy as np

from ..netdef import NetDef

_GENERAL = {
    "content_layers": None,
    "style_layers": None,
    "content_weight": 10.0,
    "style_weight": 100.0,
    "tv_weight": 1e-3,
    "num_iterations": 400,
    "init": "image",
    "balance": "targets",
    "margin": None,
}
# For networks with the weights of neural_style.lua, whose losses count as they are.
_REFERENCE = {"balance": "none", "content_weight": 5.0}
# L2 norm of the first filters, the median: 0.9 in VGG-16 as published, 0.07 where it is normalised; a network of
# torchvision's training (MobileNet v2) has 0.014, in levels of 0..255.
_REFERENCE_FILTERS = 0.15
_COMPAT_ITERATIONS = 1000  # neural_style.lua's


@dataclass(frozen=True)
class Family:
    """Networks with common layer names.

    layer_patterns: fnmatch patterns, each of which matches a layer of the network. defaults: see `defaults`.
    """

    layer_patterns: tuple[str, ...]
    defaults: dict

    def matches(self, layer_names: list[str]) -> bool:
        """True if a network with these layers belongs to the family."""
        return all(fnmatch.filter(layer_names, pattern) for pattern in self.layer_patterns)


# Chosen by eye (docs/embedded-network.md).
DISTILLED = Family(
    ("relu1", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu4"),
    {
        "content_layers": ("relu3_2",),
        "style_layers": ("relu1", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu4"),
        "content_weight": 20.0,
        "margin": 4,
    },
)
# From noise, L-BFGS without a line search hardly moves here.
WAVELET = Family(
    ("octave*",),
    {
        "content_layers": ("octave3",),
        "style_layers": ("octave1:6", "octave2", "octave3", "octave4", "octave5:0.1"),
        "content_weight": 8.0,
        "tv_weight": 1e-4,
        "num_iterations": 100,
        "margin": 6,  # the width of the taper
    },
)
# The layers of Gatys et al. (2016) and neural_style.lua.
VGG = Family(
    ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"),
    {
        "content_layers": ("relu4_2",),
        "style_layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        **_REFERENCE,
    },
)
# From neural-style-pt's README; neural_style.lua's README has style_weight 1000.
NIN = Family(
    ("cccp1", "relu0", "relu3", "relu7", "relu12"),
    {
        "content_layers": ("relu0", "relu3", "relu7", "relu12"),
        "style_layers": ("relu0", "relu3", "relu7", "relu12"),
        **_REFERENCE,
        "content_weight": 10.0,
        "style_weight": 500.0,
    },
)
# The layers of github.com/fzliu/style-transfer, after their ReLU; without its inception_5a, whose receptive field is
# larger than most pictures.
ALEXNET = Family(
    ("norm1", "norm2", "relu1", "relu2", "relu3", "relu4", "relu5", "pool5"),
    {"content_layers": ("relu4",), "style_layers": ("relu1", "relu2", "relu3", "relu4", "relu5")},
)
GOOGLENET = Family(
    ("conv1/relu_7x7", "conv2/relu_3x3", "inception_3a/output", "inception_4a/output"),
    {
        "content_layers": ("inception_3a/output",),
        "style_layers": ("conv1/relu_7x7", "conv2/relu_3x3", "inception_3a/output", "inception_4a/output"),
    },
)
_FAMILIES = (DISTILLED, WAVELET, VGG, NIN, ALEXNET, GOOGLENET)


def has_reference_scale(net: NetDef) -> bool:
    """False for smaller features than the published networks have: normalised ones, and those of other trainings.

    A net without weights counts as published.
    """
    for layer in net.layers:
        blobs = net.weights.get(layer.name) if layer.type == "Convolution" else None
        if blobs:
            filters = np.asarray(blobs[0], np.float64)
            return float(np.median(np.sqrt((filters.reshape(len(filters), -1) ** 2).sum(1)))) >= _REFERENCE_FILTERS
    return True


def defaults(layer_names: list[str], compat: bool = False, reference_scale: bool = True) -> dict:
    """Default options for a network, recognised by its layer names. compat: its layers only, the rest as for VGG.

    reference_scale: see `has_reference_scale`; without it, losses are balanced in every family.

    content_layers and style_layers (None for an unknown network), content_weight, style_weight, tv_weight,
    num_iterations, init, balance and margin (None: computed from the graph).
    """
    specific = next((family.defaults for family in _FAMILIES if family.matches(layer_names)), {})
    if not reference_scale and specific.get("balance") == "none":
        specific = _layers_of(specific)
    if compat:
        specific = _layers_of(specific) | _REFERENCE
        specific |= {"init": "random", "margin": 0, "num_iterations": _COMPAT_ITERATIONS}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in (_GENERAL | specific).items()}


def _layers_of(options):
    return {name: value for name, value in options.items() if name.endswith("_layers")}
