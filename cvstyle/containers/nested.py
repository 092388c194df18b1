"""Tensors of an unpickled object: nested dicts and lists, and modules of PyTorch."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..errors import ModelError
from .pickles import Object
from .source import Source
from .tensors import Tensor

_DIGITS = "0123456789"
_DEEPEST = 16
_LONGEST_NAME = 300
# A training checkpoint keeps its network under one of these, beside the state of the optimiser.
_NETWORKS = (
    "state_dict", "model_state_dict", "model_state", "model", "params_ema", "params", "net", "network", "weights",
    "module",
)  # fmt: skip
_STATES = frozenset((
    "optimizer", "optimizer_state_dict", "optimizer_states", "optimizers", "optim", "optim_state_dict", "scheduler",
    "lr_scheduler", "lr_schedulers", "scaler", "rng_state", "loss_history",
))  # fmt: skip
_SCRIPT = "__torch__."  # classes of TorchScript, which have their members as attributes


def tensors_in(source: Source, root: object, make: Callable[[str, object], Tensor | None]) -> dict[str, Tensor]:
    """Tensors by name, in the order of the file.

    make: the tensor that a value is, or None. Names of nested containers are joined by dots; numbers are the indices of
    lists. Of a training checkpoint, only the network's tensors count. Raises ModelError, also from `make`.
    """
    root = _network(root, make)
    found: dict[str, Tensor] = {}
    seen = set()
    waiting = [("", root, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        tensor = make(name, value)
        if tensor is not None:
            if name in found:
                raise source.error(f"two tensors have the name '{name}'; rename one and save the file again")
            source.check_count(len(found) + 1)
            found[name] = tensor
            continue
        members = _members(value)
        if members and depth < _DEEPEST and len(name) < _LONGEST_NAME and id(value) not in seen:
            seen.add(id(value))  # a container may be in itself
            prefix = f"{name}." if name else ""
            waiting += [
                (f"{prefix}{key}", member, depth + 1) for key, member in reversed(members)
                if depth or key not in _STATES
            ]  # fmt: skip
    return found


def counted(name: str) -> list[tuple[bool, int, str]]:
    """Key that sorts names with the numbers in them by value, for files whose order means nothing."""
    parts = re.findall("[0-9]+|[^0-9]+", name)
    return [(False, int(part[:18]), part) if part[0] in _DIGITS else (True, 0, part) for part in parts]


def _network(root: object, make) -> object:
    """The part of a checkpoint that is the network."""
    for _ in range(3):
        if not isinstance(root, dict):
            return root
        for key in _NETWORKS:
            if _holds_tensors(root.get(key), make):
                root = root[key]
                break
        else:
            return root
    return root


def _holds_tensors(value: object, make) -> bool:
    """True if a tensor is in a container, or in the containers in it."""
    for _ in range(3):
        members = _members(value)
        if any(_is_tensor(member, make) for _, member in members):
            return True
        value = next((member for _, member in members if _members(member)), None)
    return False


def _is_tensor(value: object, make) -> bool:
    try:
        return make("", value) is not None
    except ModelError:  # a tensor that cannot be read
        return True


def _members(value: object) -> list[tuple[object, object]]:
    """Key and value of what is in a container: of a module, its parameters, buffers and modules."""
    if isinstance(value, Object):
        state = value.state if isinstance(value.state, dict) else {}
        parts = [state.get(part) for part in ("_parameters", "_buffers", "_modules")]
        if isinstance(parts[0], dict):
            return [pair for part in parts if isinstance(part, dict) for pair in _members(part)]
        value = state if value.path.startswith(_SCRIPT) else value.items
    if isinstance(value, dict):
        return [(key, member) for key, member in value.items() if isinstance(key, (str, int))]
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    return []
