"""L-BFGS with a fixed step and no line search: the algorithm of neural_style.lua (torch/optim's lbfgs).

The two-loop recursion (Nocedal and Wright 2006, algorithm 7.4) with H₀ = (s·y / y·y) I gives the direction. The first
step is min(1, 1/‖g‖₁) times −g, later steps are `learning_rate` times the direction; a pair with y·s ≤ 1e-10 is not
stored. One iteration is one evaluation.

Three settings extend the algorithm; None means the reference's rule. `initial_step`: the mean change of a value in the
first step. The reference's is 2e-6 for a picture of 512×384 and less for larger pictures: rounding of values about 100
swallows the step, or all curvature in the first pair, and the second step is too long by orders of magnitude.
`max_step_rms`: the root mean square to which a step is shortened, since curvature grows along a step. `precondition`:
the exponent of `preconditioner`; steps and gradients are then those of z in x = P z, so H₀ is a multiple of P² instead
of I, and a picture takes half as many iterations. `max_step_rms` then holds for x and a step halfway between the waves
that P does not change and the waves that P lengthens most. docs/performance.md shows the gain of each.

The recursion runs on inner products alone, kept from one iteration to the next (Chen, Wang and Zhou 2014, "Large-scale
L-BFGS using MapReduce"), so an iteration reads the history twice instead of five times: once for the products with the
new pair and gradient, once for the step. The host decides nothing, so it never waits for a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import Memory, preconditioner

HISTORY = 20  # pairs; docs/performance.md compares lengths
FOR_PICTURES = {"initial_step": 1.0, "max_step_rms": 10.0, "precondition": 0.5}  # in 0..255 units
_COMPAT_HISTORY = 100
_MIN_CURVATURE = 1e-10
_MAX_FIRST_FACTOR = 1e20  # of −g in the first step, so that a zero gradient gives a zero step


@dataclass
class State:
    """The history; all fields but `iteration` are arrays of the backend (see `Backend.lbfgs_products`).

    steps, changes: (history + 1, n), the pairs s and y as a ring of rows; the row after the newest pair holds the last
    step and gradient, which give the next pair. Rows from `iteration` on are undefined.
    products: (2, history + 1, history + 1). ring: (3,). iteration: updates done.
    """

    steps: Any
    changes: Any
    products: Any
    ring: Any
    iteration: int = 0


def init(ops, x, history: int = HISTORY) -> State:
    """The state before the first step, with memory for `history` pairs of the size of x."""
    rows = history + 1
    pairs = ops.lbfgs_history(rows, math.prod(x.shape))
    return State(*pairs, ops.zeros((2, rows, rows)), ops.asarray([0.0, 0.0, 1.0]))


def grow_history(arrays: dict[str, np.ndarray], history: int) -> dict[str, np.ndarray]:
    """A state's arrays, by name and on the host, with memory for at least `history` pairs.

    A shorter history was limited by the planned number of iterations, so its ring has not wrapped around.
    """
    rows = len(arrays["steps"])
    added = history + 1 - rows
    if added <= 0:
        return arrays
    steps, changes, products = (arrays[name] for name in ("steps", "changes", "products"))
    empty = np.zeros((added, steps.shape[1]), steps.dtype)
    return arrays | {
        "steps": np.concatenate([steps, empty]),
        "changes": np.concatenate([changes[:rows], empty, changes[rows:]]),  # a backend may append rows of its own
        "products": np.pad(products, ((0, 0), (0, added), (0, added))),
    }


def update(
    ops, x, gradient, state: State, learning_rate: float, initial_step: float | None = None,
    max_step_rms: float | None = None, precondition: float | None = None, extension=None,
) -> None:  # fmt: skip
    """One step, in place on x and the state; gradient: the gradient at x, overwritten by `precondition`.

    extension: of a picture that repeats, by the preconditioner's reach.
    """
    _step(ops, x, gradient, state, learning_rate, initial_step, max_step_rms, precondition, extension)
    state.iteration += 1


def _step(ops, x, gradient, state, learning_rate, initial_step, max_step_rms, precondition, extension):
    """The device's part of `update`: the same work in each iteration once the history is full."""
    if precondition:
        gradient = preconditioner.to_gradient(ops, gradient, precondition, extension)
    history = state.steps, state.changes
    capacity = state.steps.shape[0]
    rows = min(state.iteration, capacity)
    if rows:
        measured = ops.lbfgs_products(gradient, *history, state.ring, rows)
        coefficients = ops.lbfgs_coefficients(measured, state.products, state.ring, _MIN_CURVATURE, learning_rate)
    else:
        scaled = ops.l1(gradient) / (1 if initial_step is None else initial_step * math.prod(x.shape))
        largest = 1 if initial_step is None else _MAX_FIRST_FACTOR
        coefficients = ops.lbfgs_first_coefficients(scaled, largest, capacity, learning_rate)
    norm = math.inf
    if max_step_rms is not None:
        norm = max_step_rms * math.sqrt(math.prod(x.shape) / preconditioner.gain(precondition or 0))
    step = ops.lbfgs_step(None if precondition else x, gradient, *history, coefficients, state.ring, rows, norm)
    if precondition:
        preconditioner.to_step(ops, step, precondition, x, extension)


def iterates(
    objective, x, num_iterations, *, state=None, done=0, learning_rate=1.0, history=HISTORY, initial_step=None,
    max_step_rms=None, precondition=None,
):  # fmt: skip
    """The pictures of `optimize`'s protocol; x is changed in place. history: the largest number of pairs."""
    ops = objective.ops
    state = state or initial_state(ops, x, num_iterations, history=history)
    extension = objective.extension(preconditioner.REACH) if precondition else None
    rules = initial_step, max_step_rms, precondition, extension
    step = ops.capture(lambda: _step(ops, x, objective.evaluate(x), state, learning_rate, *rules))
    for _ in range(done, num_iterations):
        step(objective.capturable and state.iteration >= state.steps.shape[0])
        state.iteration += 1
        yield x


# The rest of `optimize`'s protocol.


def settings(options, limits=None) -> dict:
    """The settings that suit most pictures, or the reference's under compat; explicit options override both."""
    settings = {"history": _COMPAT_HISTORY} if options.compat else {"history": HISTORY, **FOR_PICTURES}
    if options.lbfgs_smooth is not None:
        settings["precondition"] = options.lbfgs_smooth
    if options.lbfgs_num_correction:
        settings["history"] = options.lbfgs_num_correction
    return settings


def initial_state(ops, x, num_iterations, *, history=HISTORY, **settings) -> State:
    """`init`, with no more pairs than iterations."""
    return init(ops, x, min(history, num_iterations))


def load_state(ops, arrays, numbers, num_iterations, *, history=HISTORY, **settings) -> State:
    """The state on the backend, with a longer history where there are more iterations than planned at first."""
    arrays = grow_history(arrays, min(history, num_iterations))
    return State(**{name: ops.asarray(array) for name, array in arrays.items()}, **numbers)


def resize_state(state, resize) -> None:
    """None: curvature at one size says nothing about another size."""


def memory(num_iterations, itemsize, *, history=HISTORY, precondition=None, **settings) -> Memory:
    """The pairs, with the last gradient in float32 where pairs are narrower; the step, or the first step's norm."""
    rows = 2 * min(history, num_iterations) + 2
    last_gradient = 1 if itemsize < 4 else 0
    step = preconditioner.SCRATCH if precondition else 1
    return Memory(state=rows * itemsize / 4 + last_gradient, step=step, host=0)
