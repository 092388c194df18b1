"""Backends: arrays and the few operations that the layers, the losses and the optimisers are written in.

`numpy` is the definition; the others override what they do better. A backend is one module or package in this folder
that defines `Backend` (see `numpy.Backend` for the operations), `PRIORITY` (higher wins in "auto") and `problem()`,
which says in one line why it cannot be used here, or returns None. Backends know no layers and no file formats.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from ..errors import OptionError, nearest

_HELPERS = {"memory", "threads"}


@cache
def names() -> tuple[str, ...]:
    """Names of all backends in this folder, whether or not they work on this machine."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _HELPERS))


def get(backend="auto"):
    """The backend of this name, a new one each time; a backend object is returned as it is.

    "auto" takes the one of highest priority that works here. Raises OptionError for an unknown or unusable one.
    """
    if not isinstance(backend, str):
        return backend
    if backend == "auto":
        modules = sorted((_module(name) for name in names()), key=lambda m: -m.PRIORITY)
        return next(m for m in modules if m.problem() is None).Backend()
    if backend not in names():
        raise OptionError(f"unknown backend '{backend}': {nearest(backend, ('auto', *names()))}")
    module = _module(backend)
    problem = module.problem()
    if problem:
        raise OptionError(f"backend '{backend}' cannot be used here: {problem}")
    return module.Backend()


def _module(name):
    return importlib.import_module(f"{__name__}.{name}")
