"""L-BFGS with a fixed step and no line search: the algorithm of neural_style.lua (torch/optim's lbfgs).

Directions come from the two-loop recursion (Nocedal and Wright 2006, algorithm 7.4) with H₀ = (s·y / y·y) I. The first
step is min(1, 1/‖g‖₁) long, later ones `learning_rate`; a pair with y·s ≤ 1e-10 is not stored. One iteration is one
evaluation. All vectors are arrays of the backend.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from . import Stop

HISTORY = 100
_CURVATURE = 1e-10


@dataclass
class State:
    """What a run needs to go on.

    pairs: (s, y, 1 / y·s) for up to `history` steps, oldest first, s and y as x. gradient, step: the last iteration's,
    None before the first. scale: the factor H₀ of the identity.
    """

    history: int
    pairs: deque = field(default_factory=deque)
    gradient: Any = None
    step: Any = None
    scale: float = 1.0


def update(ops, x, gradient, state: State, learning_rate: float) -> None:
    """One step, in place on x and the state; the gradient is that at x and belongs to the state afterwards."""
    if state.gradient is None:
        step = ops.scale(ops.copy(gradient), -min(1.0, 1.0 / max(ops.l1(gradient), 1e-30)) * learning_rate)
    else:
        y = ops.difference(gradient, state.gradient)
        curvature = ops.dot(y, state.step)
        if curvature > _CURVATURE:
            state.scale = curvature / ops.dot(y, y)
            state.pairs.append((state.step, y, 1 / curvature))
            if len(state.pairs) > state.history:
                state.pairs.popleft()
        step = ops.scale(_direction(ops, gradient, state), learning_rate)
    state.gradient, state.step = gradient, step
    ops.add_scaled(x, 1, step)


def _direction(ops, gradient, state):
    """−H g by the two-loop recursion."""
    q = ops.scale(ops.copy(gradient), -1)
    alphas = []
    for s, y, rho in reversed(state.pairs):
        alphas.append(rho * ops.dot(s, q))
        q = ops.add_scaled(q, -alphas[-1], y)
    q = ops.scale(q, state.scale)
    for (s, y, rho), alpha in zip(state.pairs, reversed(alphas), strict=True):
        q = ops.add_scaled(q, alpha - rho * ops.dot(y, q), s)
    return q


def minimize(objective, x, num_iterations, callback, learning_rate=1.0, history=HISTORY):
    """Run num_iterations steps from x, which is changed in place."""
    ops, state = objective.ops, State(history)
    for iteration in range(1, num_iterations + 1):
        update(ops, x, objective.evaluate(x), state, learning_rate)
        try:
            callback(iteration, x)
        except Stop:
            break
    return x
