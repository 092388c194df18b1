"""Presets of --style-layers: layers and their weights for any network."""

from __future__ import annotations

from collections.abc import Sequence

from .choose import feature_maps

PRESETS = ("gatys", "falling", "all", "fine", "coarse")
_FINE = 4  # pixels between the positions of the coarsest layers of "fine" and the finest of "coarse"


def preset_layers(
    preset: str, network, layers: Sequence[tuple[str, float]], sizes: Sequence[tuple[int, int]]
) -> list[tuple[str, float]]:
    """[(layer, weight)] of a preset for a `Network`.

    layers: the network's default layers for style, in the same form. sizes: see `choose_layers`.

    gatys: the default layers. falling: these, with weights that fall by 4 where a map has half the resolution (those of
    github.com/crowsonkb/style-transfer-pytorch for VGG). all: every activation, or join of branches, up to the deepest
    of these, with weights that fall by 2 from each to the next (Novak and Nikulin 2016, arXiv:1605.04603). fine,
    coarse: the default layers with at most 4 pixels between positions, or at least 4. The weights of falling and all
    have the mean 1.
    """
    fields = network.receptive_fields(local=True)
    steps = {name: max(fields[network.value(name)].step) for name, _ in layers}
    if preset == "gatys":
        return list(layers)
    if preset == "falling":
        return _normalised({name: steps[name] ** -2.0 for name in steps})
    if preset == "all":
        order = {name: number for number, name in enumerate(network.layer_names)}
        deepest = max(order[name] for name, _ in layers)
        names = [name for name in feature_maps(network, sizes) if order[name] <= deepest]
        names = names if set(names) >= set(steps) else list(steps)
        return _normalised({name: 0.5**depth for depth, name in enumerate(names)})
    limit = min(max(_FINE, min(steps.values())), max(steps.values()))
    return [(name, w) for name, w in layers if (steps[name] <= limit if preset == "fine" else steps[name] >= limit)]


def listed(layers: Sequence[tuple[str, float]]) -> str:
    """The layers and weights as --style-layers takes them, rounded to three digits."""
    return ",".join(name if weight == 1 else f"{name}:{weight:.3g}" for name, weight in layers)


def _normalised(weights):
    factor = len(weights) / sum(weights.values())
    return [(name, weight * factor) for name, weight in weights.items()]
