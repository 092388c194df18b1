"""The registry of backends: names, the best of a kind, and new backend objects."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from ..errors import OptionError, nearest
from .base import Backend

_KINDS = ("auto", "gpu", "cpu")
_MODULES = {  # name → module of this package, whose class `Backend` it is
    "cuda": "cuda", "cudnn": "cudnn", "native": "native", "numpy": "reference", "opencl": "opencl", "opencv": "opencv",
}  # fmt: skip
_registered: dict[str, type[Backend]] = {}


class BackendInfo(NamedTuple):
    """A backend on this machine: `unavailable_because` and `list_devices` of its class."""

    name: str
    unavailable_because: str | None
    devices: list


def register(cls: type[Backend]) -> type[Backend]:
    """Class decorator: `get` knows this subclass of `base.Backend` by its `name`.

    Raises OptionError for a name that cvstyle uses itself.
    """
    if cls.name in _KINDS or cls.name in _MODULES:
        raise OptionError(f"a backend of cvstyle is called '{cls.name}' already; give yours another name")
    _registered[cls.name] = cls
    return cls


def names() -> tuple[str, ...]:
    """Names of all backends, whether or not they work on this machine."""
    return tuple(sorted({*_MODULES, *_registered}))


def proper_name(name: str) -> str:
    """A name of a backend, or of a kind of them, as it is registered: "CPU" is "cpu". Others stay as they are."""
    return name if name in names() else next((n for n in (*_KINDS, *names()) if n.lower() == name.lower()), name)


def backend_class(name: str) -> type[Backend]:
    """The class of a backend. Raises OptionError for an unknown name."""
    name = proper_name(name)
    if name in _registered:
        return _registered[name]
    if name not in _MODULES:
        raise OptionError(f"unknown backend '{name}'{nearest(name, (*_KINDS, *names()), ': ')}")
    return importlib.import_module(f".{_MODULES[name]}", __package__).Backend


def get(backend="auto", device=None, precision="fp32") -> Backend:
    """A new backend of this name; a backend object is returned as it is.

    "auto" takes the best that works here: a GPU, else the CPU; "gpu" and "cpu" the best of their kind. device: a number
    or a part of the name of one of the backend's devices. precision: "fp32", or the type to which convolutions and Gram
    matrices round their operands on tensor cores, "tf32", "fp16" or "bf16" (the forward pass takes two such words for
    each number; one with "-fast" behind the name); arrays, sums and losses are float32 in each.
    Raises OptionError for an unknown or unusable backend or device, or a precision that it does not have.
    """
    if not isinstance(backend, str):
        if not isinstance(backend, Backend):
            raise OptionError(f"{backend!r} is no backend; give a name ('cpu', 'gpu', 'auto') or a backend object")
        return backend
    backend = proper_name(backend)
    if backend in _KINDS:
        return _new(_best("gpu" if backend == "auto" and device is not None else backend), device, precision)
    cls = backend_class(backend)
    reason = cls.unavailable_because()
    if reason:
        raise OptionError(f"backend '{backend}' cannot be used here: {reason}")
    return _new(cls, device, precision)


def pick(kind: str) -> type[Backend] | None:
    """The class of highest priority of a kind ("auto", "gpu" or "cpu") that works here, or None."""
    fitting = (cls for cls in _by_priority() if kind == "auto" or cls.on_host == (kind == "cpu"))
    return next((cls for cls in fitting if cls.unavailable_because() is None and cls.auto_selectable()), None)


def host(folder: str | None = None) -> Backend:
    """The fastest backend on the host; with a folder, its large arrays are files there."""
    from .mapped import MappedPool

    cls = next(cls for cls in _by_priority() if cls.on_host and cls.unavailable_because() is None)
    return cls(pool=MappedPool(folder) if folder else None)


def list_backends() -> list[BackendInfo]:
    """All backends, in the order in which "auto" tries them."""
    return [BackendInfo(cls.name, cls.unavailable_because(), cls.list_devices()) for cls in _by_priority()]


def _by_priority():
    return sorted(map(backend_class, names()), key=lambda cls: -cls.priority)


def _best(kind):
    """The class that `pick` gives. Raises OptionError with the reasons where there is no GPU."""
    cls = pick(kind)
    if cls is not None:
        return cls
    reasons = {}  # reason → the first backend with it: cudnn's are cuda's
    for name, reason, _ in list_backends():
        if not backend_class(name).on_host:
            reasons.setdefault(reason or "it has no GPU", name)
    raise OptionError("no GPU can be used (" + "; ".join(f"{n}: {r}" for r, n in reasons.items()) + ")")


def _new(cls, device, precision):
    if not cls.on_host:
        return cls(device, precision)
    if device is not None:
        raise OptionError(f"backend '{cls.name}' has no devices to choose from, so no device '{device}'")
    if precision != "fp32":
        raise OptionError(
            f"precision {precision} cannot be had with backend '{cls.name}', which computes in fp32: it needs an "
            "NVIDIA GPU of compute capability 8.0 or later (backend cuda)"
        )
    return cls()
