"""Adam (Kingma and Ba 2015, algorithm 1), as neural_style.lua uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import Stop

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass
class State:
    """What a run needs to go on: the moments (as x) and the number of steps done."""

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


def minimize(objective, x, num_iterations, callback, learning_rate=10.0, state=None, done=0):
    """Run up to iteration num_iterations from x, which is changed in place; learning_rate is in 0..255 units.

    state, done: to go on after so many iterations.
    """
    ops = objective.ops
    state = state or init(ops, x)
    count = ops.asarray([state.step])  # counted where it is used, so that each iteration is the same work
    repeated = ops.repeated(lambda: _step(ops, x, objective.evaluate(x), state, count, learning_rate))
    for iteration in range(done + 1, num_iterations + 1):
        repeated(objective.repeats)
        state.step += 1
        try:
            callback(iteration, x)
        except Stop:
            break
    return x
