"""Losses: one file each.

To add one, add a file here with a class derived from `Loss`; `made(**settings) -> list[Loss]`, whose keywords are its
settings and their defaults for `Objective`; and `Options`, in which the same names are options of a run. Nothing else
changes. Nothing here imports NumPy, since the command line reads the options before it needs any.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from ..errors import OptionError, nearest
from ..fields import options_of
from .base import UNIT, Loss, Power, View, parse_layer

__all__ = ["UNIT", "Loss", "Power", "View", "layer_names", "made", "options", "parse_layer", "setting_names"]


@cache
def _modules():
    """The files, in alphabetical order, in which a layer's gradients are added up."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"]
    return [importlib.import_module(f"{__name__}.{name}") for name in sorted(names)]


def options() -> list[type]:
    """The dataclasses of the losses' options."""
    return [module.Options for module in _modules()]


def setting_names() -> list[str]:
    """The names of all settings."""
    return [name for module in _modules() for name in inspect.signature(module.made).parameters]


def layer_names(settings: dict) -> list[str]:
    """The layers that settings name, whatever their weights: a setting that lists layers is called "..._layers"."""
    entries = (entry for name, value in settings.items() if name.endswith("_layers") for entry in value)
    return list(dict.fromkeys(parse_layer(entry)[0] for entry in entries))


def made(settings: dict) -> list[Loss]:
    """The losses that these settings ask for; what is left out, or None, has the default of its loss.

    Values have any form that options have. Raises OptionError for an unknown name and for values that make no sense.
    """
    known = setting_names()
    unknown = next((name for name in settings if name not in known), None)
    if unknown is not None:
        raise OptionError(f"there is no setting '{unknown}'; {nearest(unknown, known)}")
    found = []
    for module in _modules():
        records = options_of(module.Options).items()
        values = {name: record.convert(settings[name]) for name, record in records if name in settings}
        found += module.made(**{name: value for name, value in values.items() if value is not None})
    return found
