"""Optimisers: one module each, found by name. A new one is such a module, and its name in `NAMES`.

A module defines, over an `Objective` and a picture x (1, 3, H, W), an array of its backend `ops`:

    iterates(objective, x, num_iterations, *, state=None, done=0, **settings)
        A generator of the pictures after iterations done + 1 to num_iterations, each to be copied if kept; x may be
        changed in place. Until the next picture is asked for, `objective.losses` are the losses of the iteration. The
        generator may end early and be closed at any time; exceptions of the objective pass through it.
    settings(options, limits=None) -> dict
        The settings for a run's options; limits: the (lower, upper) that `options.bounds` asks to keep to, as host
        arrays that broadcast to x's shape.
    start(ops, x, num_iterations, **settings) -> State or None
        The state before the first step, with memory for so many; a dataclass of numbers and of the backend's arrays.
        None where there is nothing to go on with. `iterates` changes it in place.
    restored(ops, arrays, numbers, num_iterations, **settings) -> State or None
        What `saved` made of a state, its arrays on the host, with memory for so many iterations in all.
    carried(state, resize) -> State or None
        What goes along to another size, by `resize(array) -> array`; None: that begins anew.
    kept(num_iterations, itemsize, **settings) -> Memory
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
    """What an optimiser keeps, in pictures of float32.

    state, step: on the picture's backend, from one iteration to the next, and beside that during a step. host: in host
    memory, whatever the backend.
    """

    state: float
    step: float
    host: float


class Stop(Exception):
    """Raised by a callback to end an optimisation after this iteration."""


def get(name: str):
    """The module of an optimiser. Raises OptionError for an unknown name."""
    if name not in NAMES:
        raise OptionError(f"unknown optimizer '{name}': {nearest(name, NAMES)}")
    return importlib.import_module(f"{__name__}.{name}")


def minimize(name: str, objective, x, num_iterations: int, callback: Callable | None = None, **settings):
    """Run an optimiser's `iterates`; returns the last picture, which is x itself if there is none.

    callback(iteration, x) is called after every iteration, counted on from `done`, and may raise `Stop`.
    """
    with closing(get(name).iterates(objective, x, num_iterations, **settings)) as iterates:
        for iteration, x in enumerate(iterates, settings.get("done", 0) + 1):
            try:
                if callback:
                    callback(iteration, x)
            except Stop:
                break
    return x


def saved(state) -> tuple[dict[str, float], dict[str, Any]]:
    """(numbers, arrays) of an optimiser's state, by name: arguments of `restored`, once the arrays are on the host."""
    values = {field.name: getattr(state, field.name) for field in fields(state)} if state else {}
    numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
    return numbers, {name: value for name, value in values.items() if name not in numbers}
