"""Optimisers: one module each, found by name. A new optimiser is a new module and its name in `NAMES`.

A module defines, over an `Objective` and a picture x (1, 3, H, W), an array of the objective's backend `ops`:

    iterates(objective, x, num_iterations, *, state=None, done=0, **settings)
        A generator of the pictures after iterations done + 1 to num_iterations, to be copied if kept; it may change x
        in place. Until the next picture is requested, `objective.losses` are the losses of the iteration. The generator
        may end early and be closed at any time; exceptions of the objective pass through it.
    settings(options, limits=None) -> dict
        The settings for a run's options. limits: (lower, upper) for `options.bounds`, host arrays that broadcast to x's
        shape.
    initial_state(ops, x, num_iterations, **settings) -> State or None
        The state before the first step, with memory for so many iterations; a dataclass of numbers and arrays of the
        backend. None for an optimiser without a state. `iterates` changes the state in place.
    load_state(ops, arrays, numbers, num_iterations, **settings) -> State or None
        The state from its `state_entries`, the arrays on the host, with memory for so many iterations in all.
    resize_state(state, resize) -> State or None
        The state for another picture size, by `resize(array) -> array`; None: start afresh.
    memory(num_iterations, itemsize, **settings) -> Memory
        itemsize: the backend's `history_itemsize`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from typing import Any, NamedTuple

from ..errors import OptionError, nearest

NAMES = ("lbfgs", "lbfgsb", "adam")


class Memory(NamedTuple):
    """The memory of an optimiser, in pictures of float32.

    state: on the picture's backend, between iterations. step: on the same backend, additionally during a step. host: in
    host memory, whatever the backend.
    """

    state: float
    step: float
    host: float


class Stop(Exception):
    """Raised by a callback to end an optimisation after the current iteration."""


def get(name: str):
    """The module of an optimiser. Raises OptionError for an unknown name."""
    if name not in NAMES:
        raise OptionError(f"unknown optimizer '{name}'{nearest(name, NAMES, ': ')}")
    return importlib.import_module(f"{__name__}.{name}")


def minimize(name: str, objective, x, num_iterations: int, callback: Callable | None = None, **settings):
    """Run an optimiser's `iterates`; returns the last picture, or x itself after no iteration.

    callback(iteration, x) is called after every iteration, numbered on from `done`, and may raise `Stop`.
    """
    with closing(get(name).iterates(objective, x, num_iterations, **settings)) as iterates:
        for iteration, x in enumerate(iterates, settings.get("done", 0) + 1):
            try:
                if callback:
                    callback(iteration, x)
            except Stop:
                break
    return x


def state_entries(state) -> tuple[dict[str, float], dict[str, Any]]:
    """(numbers, arrays) of an optimiser's state, by name: the arguments of `load_state`, with arrays on the backend."""
    values = {field.name: getattr(state, field.name) for field in fields(state)} if state else {}
    numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
    return numbers, {name: value for name, value in values.items() if name not in numbers}
