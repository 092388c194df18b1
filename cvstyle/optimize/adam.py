"""Adam (Kingma and Ba 2015, algorithm 1), as neural_style.lua uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import Memory

BETA1 = 0.9
BETA2 = 0.999
EPSILON = 1e-8


@dataclass
class State:
    """The moments, shaped as x, and the number of steps done."""

    m: Any
    v: Any
    step: int = 0


def init(ops, x) -> State:
    """The state before the first step."""
    return State(ops.zeros(x.shape), ops.zeros(x.shape))


def update(ops, x, gradient, state: State, learning_rate: float) -> None:
    """One step, in place on x and the state."""
    _step(ops, x, gradient, state, ops.asarray([state.step]), learning_rate)
    state.step += 1


def _step(ops, x, gradient, state, count, learning_rate):
    ops.adam_step(x, gradient, state.m, state.v, count, learning_rate, BETA1, BETA2, EPSILON)


def iterates(objective, x, num_iterations, *, state=None, done=0, learning_rate=10.0):
    """The pictures of `optimize`'s protocol; x is changed in place. learning_rate: in 0..255 units."""
    ops = objective.ops
    state = state or init(ops, x)
    count = ops.asarray([state.step])  # counted on the device, so that every iteration launches the same work
    step = ops.capture(lambda: _step(ops, x, objective.evaluate(x), state, count, learning_rate))
    for _ in range(done, num_iterations):
        step(objective.capturable)
        state.step += 1
        yield x


# The rest of `optimize`'s protocol.


def settings(options, limits=None) -> dict:
    """The learning rate, by the strength: steps have its size, whatever the loss, and must not pass a near goal."""
    return {"learning_rate": options.learning_rate * options.strength}


def initial_state(ops, x, num_iterations, **settings) -> State:
    """`init`, whatever the number of iterations."""
    return init(ops, x)


def load_state(ops, arrays, numbers, num_iterations, **settings) -> State:
    """The state with its moments on the backend."""
    return State(**{name: ops.asarray(array) for name, array in arrays.items()}, **numbers)


def resize_state(state: State, resize) -> State:
    """The state with resized moments. `resize` must not make second moments negative."""
    return State(resize(state.m), resize(state.v), state.step)


def memory(num_iterations, itemsize, **settings) -> Memory:
    """The moments; a step needs no more memory than the evaluation before it."""
    return Memory(state=2, step=0, host=0)
