"""SciPy's L-BFGS-B (Zhu, Byrd, Lu and Nocedal 1997): a line search, and bounds where wanted. It runs on the host.

SciPy owns its loop and calls back. So that ours can be stepped, SciPy's runs on a thread of its own, which stops at
every call until it is answered: one of the two threads works at a time, and the objective is evaluated on the caller's.
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
    """The pictures of `optimize`'s protocol, of one or a few evaluations each; they end where nothing more is gained.

    state: None; what SciPy learnt before `done` is lost, since its state is its own. bounds: None, or (lower, upper) as
    host arrays that broadcast to x's shape.
    """
    if done >= num_iterations:
        return
    ops, shape = objective.ops, x.shape
    begin, limits = ops.to_host(x).astype(np.float64).ravel(), None
    if bounds is not None:
        lower, upper = (np.broadcast_to(b, shape).ravel() for b in bounds)
        limits = scipy.optimize.Bounds(lower, upper)
        begin = np.clip(begin, lower, upper)
    calls, answers = SimpleQueue(), SimpleQueue()

    def call(*arguments):
        calls.put(arguments)
        answer = answers.get()
        if answer is _Closed:
            raise _Closed
        return answer

    def work():
        try:
            _minimize(begin, limits, num_iterations - done, history, call)
            calls.put(None)
        except _Closed:
            pass
        except BaseException as error:
            calls.put(error)

    # A daemon: an interpreter that exits between two iterates would wait for any other.
    thread = threading.Thread(target=work, name="cvstyle-lbfgsb", daemon=True)
    thread.start()
    try:
        while (asked := calls.get()) is not None:
            if isinstance(asked, BaseException):
                raise asked
            kind, at = asked
            if kind == "evaluate":
                answers.put(objective(at))
            else:
                yield ops.asarray(at.reshape(shape))
                answers.put(None)
    finally:
        asked = None  # an error in a circle with its traceback would keep SciPy's arrays
        answers.put(_Closed)
        if not sys.is_finalizing():  # a daemon never runs again then
            thread.join()


def _minimize(begin, limits, count, history, call):
    """SciPy's loop. call(kind, x) asks for (loss, gradient) at x to "evaluate", and reports each "iterate"."""

    def report(intermediate_result):
        call("iterate", intermediate_result.x)

    scipy.optimize.minimize(
        partial(call, "evaluate"), begin, jac=True, method="L-BFGS-B", bounds=limits, callback=report,
        options={"maxiter": count, "maxcor": history, "maxfun": 20 * count + 20, "ftol": 0, "gtol": 0},
    )  # fmt: skip


class _Closed(BaseException):
    """Ends SciPy's loop from within."""


# What a run needs to know: see `optimize`.


def settings(options, limits=None) -> dict:
    """SciPy's history is ours in length, whatever compat says."""
    bounds = {"bounds": limits} if options.bounds else {}
    return {"history": options.lbfgs_num_correction or HISTORY, **bounds}


def start(ops, x, num_iterations, **settings) -> None:
    """Nothing: SciPy's state is its own."""


def restored(ops, arrays, numbers, num_iterations, **settings) -> None:
    """Nothing: SciPy begins anew from the picture."""


def carried(state, resize) -> None:
    """Nothing."""


def kept(num_iterations, itemsize, *, history=HISTORY, bounds=None, **settings) -> Memory:
    """SciPy computes in float64, keeps room for the whole history, and makes Python's numbers of bounds (measured)."""
    return Memory(state=0, step=0, host=4 * history + (30 if bounds is None else 70))
