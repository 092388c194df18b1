"""Backends: arrays and the few operations that the layers, the losses and the optimisers are written in.

`numpy` is the definition; the others override what they do better. A backend is one module or package in this folder
that defines `Backend` (see `numpy.Backend` for the operations), `PRIORITY` (higher wins in "auto") and `problem()`,
which says in one line why it cannot be used here, or returns None. One with a choice of devices defines `devices()` as
well, its `Backend` takes one of them, and its `automatic()` says whether "auto" may take it. Backends know no layers
and no file formats.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from ..errors import OptionError, nearest

_HELPERS = {"device", "memory", "threads"}


@cache
def names() -> tuple[str, ...]:
    """Names of all backends in this folder, whether or not they work on this machine."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _HELPERS))


def get(backend="auto", device=None):
    """The backend of this name, a new one each time; a backend object is returned as it is.

    "auto" takes the one of highest priority that works here: a GPU, else OpenCV. device: a number or a part of the name
    of one of the backend's devices. Raises OptionError for an unknown or unusable backend or device.
    """
    if not isinstance(backend, str):
        return backend
    if backend == "auto":
        modules = sorted((_module(name) for name in names()), key=lambda m: -m.PRIORITY)
        usable = [m for m in modules if m.problem() is None and (device is None or hasattr(m, "devices"))]
        chosen = next((m for m in usable if getattr(m, "automatic", lambda: True)()), None)
        if chosen is None:
            raise OptionError(f"no GPU was found, so there is no device '{device}'; 'cvstyle devices' says why")
        return _made(chosen, device)
    if backend not in names():
        raise OptionError(f"unknown backend '{backend}': {nearest(backend, ('auto', *names()))}")
    module = _module(backend)
    problem = module.problem()
    if problem:
        raise OptionError(f"backend '{backend}' cannot be used here: {problem}")
    return _made(module, device)


def survey() -> list[tuple[str, str | None, list]]:
    """(name, problem or None, devices) of every backend, in the order in which "auto" tries them."""
    found = [(name, _module(name)) for name in names()]
    found.sort(key=lambda pair: -pair[1].PRIORITY)
    return [(name, m.problem(), m.devices() if hasattr(m, "devices") else []) for name, m in found]


def _made(module, device):
    if not hasattr(module, "devices"):
        if device is not None:
            raise OptionError(f"backend '{module.Backend.name}' has no devices to choose from, so no device '{device}'")
        return module.Backend()
    return module.Backend(device)


def _module(name):
    return importlib.import_module(f"{__name__}.{name}")
