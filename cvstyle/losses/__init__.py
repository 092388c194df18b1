"""Losses, a file or package each.

A new loss is a file with a class derived from `Loss`; `create(**settings) -> list[Loss]`, whose keywords are the
settings of `Objective` with their defaults; and `Options`, where the same names are options of a run. Nothing else
changes. No file imports NumPy, since the command line reads the options before it needs NumPy.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from ..errors import OptionError, nearest
from ..fields import options_of
from .base import UNIT, Loss, MeanSquares, View
from .layers import KINDS, parse_entry, parse_layer

__all__ = [
    "KINDS", "UNIT", "Loss", "MeanSquares", "View", "create", "layer_names", "options", "parse_entry", "parse_layer",
    "setting_names",
]  # fmt: skip

_SHARED = {"base", "layers", "position_weights"}


@cache
def _modules():
    """The losses' modules in alphabetical order, the order in which a layer's gradients are added up."""
    names = sorted({module.name for module in pkgutil.iter_modules(__path__)} - _SHARED)
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def options() -> list[type]:
    """The dataclasses of the losses' options."""
    return [module.Options for module in _modules()]


def setting_names() -> list[str]:
    """The names of all settings."""
    return [name for module in _modules() for name in inspect.signature(module.create).parameters]


def layer_names(settings: dict) -> list[str]:
    """The layers named in the settings called "..._layers", whatever their weights."""
    entries = (entry for name, value in settings.items() if name.endswith("_layers") for entry in value)
    return list(dict.fromkeys(parse_layer(entry)[0] for entry in entries))


def create(settings: dict) -> list[Loss]:
    """The losses of the settings; a missing setting, or None, means the loss's default.

    Values take every form that options take. Raises OptionError for unknown names and invalid values.
    """
    names = setting_names()
    unknown = next((name for name in settings if name not in names), None)
    if unknown is not None:
        raise OptionError(f"there is no setting '{unknown}'{nearest(unknown, names)}")
    losses = []
    for module in _modules():
        records = options_of(module.Options).items()
        values = {name: record.convert(settings[name]) for name, record in records if name in settings}
        losses += module.create(**{name: value for name, value in values.items() if value is not None})
    return losses
