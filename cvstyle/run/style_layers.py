"""Presets among the layers of --style-layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .. import losses, zoo
from ..errors import OptionError, nearest
from ..options import Options


def without_presets(options: Options, net, layers: Sequence | None, sizes) -> tuple[Options, list[str]]:
    """(the options with layers in the place of presets, a remark for each preset).

    layers: the network's default layers for style; without any, presets leave nothing. sizes: see `choose_layers`. A
    layer that is called like a preset has priority. Raises OptionError for a name that is neither.
    """
    remarks = []
    result = []
    for entry in options.style_layers or ():
        name, factor, kind = losses.parse_entry(entry)
        preset = name.lower()
        if net.has_layer(name):
            result.append(entry)
        elif preset not in zoo.PRESETS:
            hint = nearest(name, [*net.layer_names, *zoo.PRESETS], otherwise="'cvstyle info' lists all")
            loss = name.rpartition("@")[2]
            if net.has_layer(losses.parse_layer(name.removesuffix(f"@{loss}"))[0]):
                hint = f"; there is no style loss '{loss}'{nearest(loss, list(losses.KINDS))}"
            raise OptionError(f"{net.definition.source}: there is no layer or preset '{name}'{hint}")
        elif layers:
            own = zoo.preset_layers(preset, net, list(map(losses.parse_layer, layers)), sizes)
            remarks.append(f"style by the preset {preset}: {zoo.listed(own)}")
            result += [(layer, weight * factor, *([kind] if kind else ())) for layer, weight in own]
    if options.style_layers:
        options = dataclasses.replace(options, style_layers=result or None)
    return options, remarks
