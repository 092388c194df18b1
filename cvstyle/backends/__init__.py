"""Backends: arrays and the few operations that the layers, the losses and the optimisers are written in.

`base` is the interface and `reference` its definition in NumPy. A backend is a class derived from `base.Backend`: a
module of this package with a line in `registry`, or a caller's own class under `@register`. Backends know no layers and
no file formats.
"""

from __future__ import annotations

from .base import Backend
from .registry import backend_class, get, host, list_backends, names, pick, register

__all__ = ["Backend", "backend_class", "get", "host", "list_backends", "names", "pick", "register"]
