"""The tensors of a file by module: a layer's filters, its bias, and the statistics of a normalisation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ..containers import Container, Tensor
from ..containers.nested import counted
from ..errors import ModelError

_ROLES = {
    "weight": ("weight", "weights", "kernel", "filter", "filters", "w", "gamma", "alpha", "slope"),
    "depthwise": ("depthwise_kernel",),
    "bias": ("bias", "biases", "b", "beta"),
    "mean": ("running_mean", "moving_mean"),
    "variance": ("running_var", "moving_variance", "moving_var"),
    "counter": ("num_batches_tracked",),
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words}
# Keras 1 ends names in _1:0, as TensorFlow does in :0.
_NAMED = re.compile(rf"(?:(.*?)[./_:])?({'|'.join(_ROLE_OF)})(?:_\d+)?(?::\d+)?", re.IGNORECASE)
# Keras 3 and Caffe's HDF5 number a layer's variables; in files of NumPy they are lists of arrays, named conv1.0.
_NUMBERED = re.compile(r"(.*?)(?:/vars)?/([0-3])")
_LISTED = re.compile(r"(.*?)[./]([0-3])")
_BY_NUMBER = ("weight", "bias", "mean", "variance")


@dataclass(frozen=True)
class Module:
    """Tensors of one layer of another framework by role: weight, depthwise, bias, mean, variance, counter."""

    name: str
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def weight(self) -> Tensor | None:
        """The filters, the matrix or the factors."""
        return self.tensors.get("weight") or self.tensors.get("depthwise")

    @property
    def axes(self) -> int:
        """Number of axes of the weight: 4 of a convolution, 2 of a fully connected layer, 1 of factors; 0 without."""
        return len(self.weight.shape) if self.weight else 0

    @property
    def normalises(self) -> bool:
        """True for a batch normalisation with its statistics."""
        return "mean" in self.tensors and "variance" in self.tensors


def modules_of(container: Container) -> list[Module]:
    """The modules of a file, in its order. Names that say no role go by shape: filters, and the vector after them."""
    found: dict[str, Module] = {}
    last = None
    for tensor in container.tensors.values():
        name, role = _name_and_role(tensor.name, _LISTED if container.kind == "NumPy" else _NUMBERED)
        if role is None and len(tensor.shape) == 1 and last and _takes_bias(last, tensor):
            last.tensors["bias"] = tensor
            continue
        module = found.setdefault(name, Module(name))
        if role in module.tensors or (role is None and module.tensors):  # two tensors that one name would hide
            module = found.setdefault(tensor.name, Module(tensor.name))
        module.tensors[role or ("weight" if len(tensor.shape) > 1 else "bias")] = tensor
        last = module
    return list(found.values())


def natural(modules: Iterable[Module]) -> list[Module]:
    """Modules in the natural order of their names: features.2 before features.10."""
    return sorted(modules, key=lambda module: counted(module.name))


def names_of(modules: Iterable[Module]) -> tuple[str, ...]:
    """Names of the modules' tensors of floats; others are counters and constants."""
    return tuple(t.name for module in modules for t in module.tensors.values() if t.dtype.kind == "f")


def values(tensor: Tensor, where: str) -> np.ndarray:
    """A tensor as float32. where: the file, for messages. Raises ModelError for other numbers than finite floats."""
    if tensor.dtype.kind != "f":
        raise ModelError(
            f"{where}: the tensor {tensor.name} is of {tensor.dtype}, not of floats; save the weights before they are "
            "quantised"
        )
    array = np.asarray(tensor.read(), np.float32)
    if not np.isfinite(array).all():
        raise ModelError(f"{where}: the tensor {tensor.name} holds values that are NaN or infinite; get the file anew")
    return array


def vector(tensor: Tensor, count: int, where: str) -> np.ndarray:
    """A tensor of one float32 per channel, without its axes of 1. Raises ModelError for another count."""
    found = values(tensor, where).reshape(-1)
    if len(found) != count:
        raise ModelError(
            f"{where}: the tensor {tensor.name} has {len(found)} values for {count} channels; is the file complete?"
        )
    return found


def statistics(module: Module, count: int, where: str) -> tuple[np.ndarray, ...]:
    """Scale, shift, mean and variance of a batch normalisation of `count` channels. Raises ModelError."""
    plain = {"weight": 1.0, "bias": 0.0}
    return tuple(
        vector(module.tensors[role], count, where) if role in module.tensors else np.full(count, plain[role])
        for role in ("weight", "bias", "mean", "variance")
    )


def _name_and_role(name, numbered):
    """(name of the module, role) of a tensor; the role is None if the name does not say it."""
    match = _NAMED.fullmatch(name)
    if match:
        return match[1] or "", _ROLE_OF[match[2].lower()]
    match = numbered.fullmatch(name)
    if match:
        return match[1], _BY_NUMBER[int(match[2])]
    return name, None


def _takes_bias(module, tensor):
    return "bias" not in module.tensors and module.axes > 1 and tensor.shape[0] in module.weight.shape
