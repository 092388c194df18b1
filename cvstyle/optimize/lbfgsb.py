"""SciPy's L-BFGS-B (Zhu, Byrd, Lu and Nocedal 1997), with a line search and optional bounds. It runs on the host.

SciPy owns its loop and calls back. To make the loop steppable, SciPy runs on a thread of its own, which blocks in every
call until the caller answers: only one of the two threads works at a time, and the caller evaluates the objective.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from queue import SimpleQueue

import numpy as np
import scipy.optimize

from . import Memory

HISTORY = 20


def iterates(objective, x, num_iterations, *, state=None, done=0, history=HISTORY, bounds=None):
    """The pictures of `optimize`'s protocol, of one or a few evaluations each, until SciPy finds no improvement.

    state: None; SciPy keeps its state to itself, so a resumed run starts a new history. bounds: None, or (lower, upper)
    as host arrays that broadcast to x's shape.
    """
    if done >= num_iterations:
        return
    ops = objective.ops
    shape = x.shape
    x0 = ops.to_host(x).astype(np.float64).ravel()
    scipy_bounds = None
    if bounds is not None:
        lower, upper = (np.broadcast_to(b, shape).ravel() for b in bounds)
        scipy_bounds = scipy.optimize.Bounds(lower, upper)
        x0 = np.clip(x0, lower, upper)
    calls = SimpleQueue()
    answers = SimpleQueue()

    def call(*arguments):
        calls.put(arguments)
        answer = answers.get()
        if answer is _Closed:
            raise _Closed
        return answer

    def work():
        try:
            _minimize(x0, scipy_bounds, num_iterations - done, history, call)
            calls.put(None)
        except _Closed:
            pass
        except BaseException as error:
            calls.put(error)

    # A daemon, since an interpreter that exits between two iterates would wait for an ordinary thread.
    thread = threading.Thread(target=work, name="cvstyle-lbfgsb", daemon=True)
    thread.start()
    try:
        while (request := calls.get()) is not None:
            if isinstance(request, BaseException):
                raise request
            kind, picture = request
            if kind == "evaluate":
                answers.put(objective(picture))
            else:
                yield ops.asarray(picture.reshape(shape))
                answers.put(None)
    finally:
        request = None  # breaks the cycle of an error and its traceback, which would keep SciPy's arrays
        answers.put(_Closed)
        if not sys.is_finalizing():  # daemons no longer run then
            thread.join()


def _minimize(x0, bounds, count, history, call):
    """SciPy's loop. call("evaluate", x) returns (loss, gradient) at x; call("iterate", x) reports an iterate."""

    def report(intermediate_result):
        call("iterate", intermediate_result.x)

    scipy.optimize.minimize(
        partial(call, "evaluate"), x0, jac=True, method="L-BFGS-B", bounds=bounds, callback=report,
        options={"maxiter": count, "maxcor": history, "maxfun": 20 * count + 20, "ftol": 0, "gtol": 0},
    )  # fmt: skip


class _Closed(BaseException):
    """Ends SciPy's loop from within."""


# The rest of `optimize`'s protocol.


def settings(options, limits=None) -> dict:
    """The length of the history, under compat too, and bounds where the options ask for them."""
    bounds = {"bounds": limits} if options.bounds else {}
    return {"history": options.lbfgs_num_correction or HISTORY, **bounds}


def initial_state(ops, x, num_iterations, **settings) -> None:
    """None: SciPy keeps its state to itself."""


def load_state(ops, arrays, numbers, num_iterations, **settings) -> None:
    """None: SciPy starts afresh from the picture."""


def resize_state(state, resize) -> None:
    """None."""


def memory(num_iterations, itemsize, *, history=HISTORY, bounds=None, **settings) -> Memory:
    """SciPy computes in float64, allocates the whole history, and turns bounds into Python floats (measured)."""
    return Memory(state=0, step=0, host=4 * history + (30 if bounds is None else 70))
