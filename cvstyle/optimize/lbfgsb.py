"""SciPy's L-BFGS-B (Zhu, Byrd, Lu and Nocedal 1997): a line search, and bounds where wanted. It runs on the host."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from . import Stop

HISTORY = 20


def minimize(objective, x, num_iterations, callback, history=HISTORY, bounds=None, done=0):
    """Run up to iteration num_iterations (of one or a few evaluations each) from x; returns a new array.

    bounds: None, or (lower, upper) as arrays that broadcast to x's shape. done: iterations that led to x; what SciPy
    learnt in them is lost, since its state is its own.
    """
    ops, shape = objective.ops, x.shape
    start = ops.to_host(x).astype(np.float64).ravel()
    limits = None
    if bounds is not None:
        lower, upper = (np.broadcast_to(b, shape).ravel() for b in bounds)
        limits = scipy.optimize.Bounds(lower, upper)
        start = np.clip(start, lower, upper)
    last = start
    iteration = done

    def report(intermediate_result):
        nonlocal iteration, last
        iteration += 1
        last = intermediate_result.x
        try:
            callback(iteration, ops.asarray(last.reshape(shape)))
        except Stop:
            raise StopIteration from None

    result = scipy.optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=limits, callback=report,
        options={
            "maxiter": num_iterations - done, "maxcor": history, "maxfun": 20 * (num_iterations - done) + 20, "ftol": 0,
            "gtol": 0,
        },
    )  # fmt: skip
    return ops.asarray(result.x.reshape(shape))
