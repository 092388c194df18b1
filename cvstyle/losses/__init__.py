"""Losses: one file each.

To add one, add a file here with a class derived from `Loss`, and `made(**settings) -> list[Loss]`, whose keywords are
its settings and their defaults for `Objective`. Nothing else changes.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from ..errors import OptionError, nearest
from .base import Loss, View, parse_layer

__all__ = ["Loss", "View", "made", "parse_layer"]


@cache
def _makers():
    """module name → its `made`, in alphabetical order, in which a layer's gradients are added up."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"]
    return {name: importlib.import_module(f"{__name__}.{name}").made for name in sorted(names)}


def made(settings: dict) -> list[Loss]:
    """The losses that these settings ask for; what is left out has the default of its loss.

    Raises OptionError for an unknown name and for values that make no sense.
    """
    known = {name: maker for maker in _makers().values() for name in inspect.signature(maker).parameters}
    unknown = next((name for name in settings if name not in known), None)
    if unknown is not None:
        raise OptionError(f"there is no setting '{unknown}'; {nearest(unknown, list(known))}")
    return [
        loss for maker in _makers().values()
        for loss in maker(**{name: value for name, value in settings.items() if known[name] is maker})
    ]  # fmt: skip
