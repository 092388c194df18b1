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

_KINDS = ("auto", "gpu", "cpu")
_HELPERS = {"base", "choose", "device", "files", "memory", "threads"}


@cache
def names() -> tuple[str, ...]:
    """Names of all backends in this folder, whether or not they work on this machine."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _HELPERS))


def get(backend="auto", device=None, precision="fp32"):
    """The backend of this name, a new one each time; a backend object is returned as it is.

    "auto" takes the best that works here: a GPU, else the CPU; "gpu" and "cpu" the best of their kind. device: a number
    or a part of the name of one of the backend's devices. precision: "fp32", or what convolutions and Gram matrices
    round their operands to on tensor cores, "tf32", "fp16" or "bf16" (the forward pass takes two such words for each
    number; one with "-fast" behind the name); arrays, sums and losses are float32 in each.
    Raises OptionError for an unknown or unusable backend or device, or a precision that it does not have.
    """
    if not isinstance(backend, str):
        if not hasattr(backend, "asarray"):
            raise OptionError(f"{backend!r} is no backend; give a name ('cpu', 'gpu', 'auto') or a backend object")
        return backend
    if backend in _KINDS:
        module = best("gpu" if backend == "auto" and device is not None else backend)
        if module is None:
            reasons = {}  # each once: cudnn's are cuda's
            for name, reason, _ in survey():
                if hasattr(_module(name), "devices"):
                    reasons.setdefault(reason or "it has no GPU", name)
            raise OptionError("no GPU can be used (" + "; ".join(f"{n}: {r}" for r, n in reasons.items()) + ")")
        return _made(module, device, precision)
    if backend not in names():
        raise OptionError(f"unknown backend '{backend}': {nearest(backend, (*_KINDS, *names()))}")
    module = _module(backend)
    problem = module.problem()
    if problem:
        raise OptionError(f"backend '{backend}' cannot be used here: {problem}")
    return _made(module, device, precision)


def best(kind: str):
    """The module of highest priority of a kind ("auto", "gpu" or "cpu") that works here, or None."""
    modules = sorted((_module(name) for name in names()), key=lambda m: -m.PRIORITY)
    fitting = (m for m in modules if kind == "auto" or hasattr(m, "devices") == (kind == "gpu"))
    return next((m for m in fitting if m.problem() is None and getattr(m, "automatic", lambda: True)()), None)


def host(folder: str | None = None):
    """The fastest backend whose arrays are NumPy's; large ones are files in `folder` where one is given."""
    from .files import FilePool
    from .numpy import Backend

    usable = [m for m in map(_module, names()) if m.problem() is None and issubclass(m.Backend, Backend)]
    ops = max(usable, key=lambda m: m.PRIORITY).Backend()
    if folder:
        ops.pool = FilePool(folder)
    return ops


def is_host(name: str) -> bool:
    """Whether a backend's arrays are NumPy's, and its devices shares of the CPU."""
    from .numpy import Backend

    return name == "cpu" or (name in names() and issubclass(_module(name).Backend, Backend))


def survey() -> list[tuple[str, str | None, list]]:
    """(name, problem or None, devices) of every backend, in the order in which "auto" tries them."""
    found = [(name, _module(name)) for name in names()]
    found.sort(key=lambda pair: -pair[1].PRIORITY)
    return [(name, m.problem(), m.devices() if hasattr(m, "devices") else []) for name, m in found]


def _made(module, device, precision):
    if not hasattr(module, "devices"):
        if device is not None:
            raise OptionError(f"backend '{module.Backend.name}' has no devices to choose from, so no device '{device}'")
        if precision != "fp32":
            raise OptionError(
                f"precision {precision} cannot be had with backend '{module.Backend.name}', which computes in fp32: it "
                "needs an NVIDIA GPU of compute capability 8.0 or later (backend cuda)"
            )
        return module.Backend()
    return module.Backend(device, precision)


def _module(name):
    return importlib.import_module(f"{__name__}.{name}")
