"""Optimisers: one module each, found by name.

Each defines `minimize(objective, x, num_iterations, callback, **options)` over an `Objective` and a picture x
(1, 3, H, W) of its backend, and returns the last picture. callback(iteration, x) is called after every iteration,
counted from 1, with the picture that the iteration ended in (a backend array, to be copied if kept); it may raise
`Stop` to end the run there. `objective.losses` is then what the iteration evaluated.
"""

from __future__ import annotations

import importlib

from ..errors import OptionError, nearest

NAMES = ("lbfgs", "lbfgsb", "adam")


class Stop(Exception):
    """Raised by a callback to end an optimisation after this iteration."""


def get(name: str):
    """The module of an optimiser. Raises OptionError for an unknown name, or where a package is missing."""
    if name not in NAMES:
        raise OptionError(f"unknown optimizer '{name}': {nearest(name, NAMES)}")
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise OptionError(
            f"optimizer '{name}' needs {error.name}: pip install 'cvstyle[scipy]', or take lbfgs or adam"
        ) from None
