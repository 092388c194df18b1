"""Layers: one file per family, each a shape rule, a forward and a vector-Jacobian product in backend operations.

To add a layer type, add a file here with a class under `@register("TypeName")`; nothing else changes.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from .base import REGISTRY, Context, Layer, Window, register

__all__ = ["Context", "Layer", "Window", "layer_class", "layer_types", "register"]


@cache
def _discover():
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return REGISTRY


def layer_class(type_name: str) -> type[Layer] | None:
    """The class for a Caffe layer type (V2 name), or None if there is none."""
    return _discover().get(type_name)


def layer_types() -> tuple[str, ...]:
    """All layer types that can run."""
    return tuple(sorted(_discover()))
