"""L-BFGS with a fixed step and no line search: the algorithm of neural_style.lua (torch/optim's lbfgs).

Directions are those of the two-loop recursion (Nocedal and Wright 2006, algorithm 7.4) with H₀ = (s·y / y·y) I. The
first step is min(1, 1/‖g‖₁) times −g, later ones `learning_rate` times the direction; a pair with y·s ≤ 1e-10 is not
stored. One iteration is one evaluation.

Three numbers extend that algorithm; None is the reference. `first`: the mean change of a value in the first step. The
reference's is 2e-6 for a picture of 512×384, and less for larger ones: values about 100 round it away, or leave of the
first pair's curvature nothing but rounding, and the second step is too long by orders of magnitude. `longest`: the root
mean square that a step is shortened to, for curvature grows as a step goes on. `smooth`: the exponent of the
preconditioner in `pyramid`; steps and gradients are then those of z in x = P z, so H₀ is a multiple of P² instead of I,
and a picture takes half as many iterations. `longest` is then that of x for a step halfway between the waves that P
leaves as they are and those it lengthens most. docs/performance.md has what each is worth.

The recursion runs on inner products alone, kept from one iteration to the next (Chen, Wang and Zhou 2014, "Large-scale
L-BFGS using MapReduce"), so an iteration reads the history twice instead of five times: once for the products with the
new pair and gradient, once for the step. Nothing is decided on the host, so nothing waits for a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import Memory, pyramid

HISTORY = 20  # pairs; docs/performance.md compares lengths
FOR_PICTURES = {"first": 1.0, "longest": 10.0, "smooth": 0.5}  # in 0..255 units
_COMPAT_HISTORY = 100
_CURVATURE = 1e-10
_MOST = 1e20  # times −g at most, so that a gradient of zero stays


@dataclass
class State:
    """What a run needs to go on; all but `iteration` are arrays of the backend (see `Backend.lbfgs_products`).

    steps, changes: (history + 1, n), the pairs s and y as a ring of rows; the row after the newest pair holds the last
    step and gradient, from which the next pair comes. Rows from `iteration` on are undefined.
    products: (2, history + 1, history + 1). ring: (3,). iteration: updates done.
    """

    steps: Any
    changes: Any
    products: Any
    ring: Any
    iteration: int = 0


def init(ops, x, history: int = HISTORY) -> State:
    """The state before the first step, with memory for `history` pairs of the size of x."""
    rows, size = history + 1, math.prod(x.shape)
    return State(*ops.lbfgs_history(rows, size), ops.zeros((2, rows, rows)), ops.asarray([0.0, 0.0, 1.0]))


def with_room(arrays: dict[str, np.ndarray], history: int) -> dict[str, np.ndarray]:
    """A state's arrays, by name and on the host, with memory for at least `history` pairs.

    What had memory for fewer had it for as many as there were to be iterations, so its ring has not come round.
    """
    rows = len(arrays["steps"])
    more = history + 1 - rows
    if more <= 0:
        return arrays
    steps, changes, products = (arrays[name] for name in ("steps", "changes", "products"))
    room = np.zeros((more, steps.shape[1]), steps.dtype)
    return arrays | {
        "steps": np.concatenate([steps, room]),
        "changes": np.concatenate([changes[:rows], room, changes[rows:]]),  # a backend may keep more behind its rows
        "products": np.pad(products, ((0, 0), (0, more), (0, more))),
    }


def update(
    ops, x, gradient, state: State, learning_rate: float, first: float | None = None, longest: float | None = None,
    smooth: float | None = None,
) -> None:  # fmt: skip
    """One step, in place on x and the state; the gradient is that at x, and `smooth` changes it."""
    _step(ops, x, gradient, state, learning_rate, first, longest, smooth)
    state.iteration += 1


def _step(ops, x, gradient, state, learning_rate, first, longest, smooth):
    """What `update` does on the device: the same each time once the history is full."""
    if smooth:
        pyramid.apply(ops, gradient, smooth)
    history, capacity = (state.steps, state.changes), state.steps.shape[0]
    rows = min(state.iteration, capacity)
    if rows:
        measured = ops.lbfgs_products(gradient, *history, state.ring, rows)
        coefficients = ops.lbfgs_coefficients(measured, state.products, state.ring, _CURVATURE, learning_rate)
    else:
        sum_of_changes, most = (1, 1) if first is None else (first * math.prod(x.shape), _MOST)
        scaled = ops.l1(gradient) / sum_of_changes
        coefficients = ops.lbfgs_first_coefficients(scaled, most, capacity, learning_rate)
    norm = math.inf if longest is None else longest * math.sqrt(math.prod(x.shape) / pyramid.gain(smooth or 0))
    moved = ops.lbfgs_step(None if smooth else x, gradient, *history, coefficients, state.ring, rows, norm)
    if smooth:
        pyramid.apply(ops, moved, smooth, onto=x)


def iterates(
    objective, x, num_iterations, *, state=None, done=0, learning_rate=1.0, history=HISTORY, first=None, longest=None,
    smooth=None,
):  # fmt: skip
    """The pictures of `optimize`'s protocol; x is changed in place. history: pairs that are kept at most."""
    ops = objective.ops
    state = state or start(ops, x, num_iterations, history=history)
    repeated = ops.repeated(lambda: _step(ops, x, objective.evaluate(x), state, learning_rate, first, longest, smooth))
    for _ in range(done, num_iterations):
        repeated(objective.capturable and state.iteration >= state.steps.shape[0])
        state.iteration += 1
        yield x


# What a run needs to know: see `optimize`.


def settings(options, limits=None) -> dict:
    """What is best for most pictures; under compat, the reference's. Options that say something go before both."""
    chosen = {"history": _COMPAT_HISTORY} if options.compat else {"history": HISTORY, **FOR_PICTURES}
    if options.lbfgs_smooth is not None:
        chosen["smooth"] = options.lbfgs_smooth
    if options.lbfgs_num_correction:
        chosen["history"] = options.lbfgs_num_correction
    return chosen


def start(ops, x, num_iterations, *, history=HISTORY, **settings) -> State:
    """`init`, with no more pairs than there are iterations."""
    return init(ops, x, min(history, num_iterations))


def restored(ops, arrays, numbers, num_iterations, *, history=HISTORY, **settings) -> State:
    """The state on the backend; more iterations may be asked for than the history was made for."""
    arrays = with_room(arrays, min(history, num_iterations))
    return State(**{name: ops.asarray(array) for name, array in arrays.items()}, **numbers)


def carried(state, resize) -> None:
    """Nothing: curvature of another size is another function's."""


def kept(num_iterations, itemsize, *, history=HISTORY, smooth=None, **settings) -> Memory:
    """The pairs, with the last gradient in float32 where they are kept in less; the step, or the first one's norm."""
    rows = 2 * min(history, num_iterations) + 2
    last = 1 if itemsize < 4 else 0
    return Memory(state=rows * itemsize / 4 + last, step=pyramid.PICTURES if smooth else 1, host=0)
