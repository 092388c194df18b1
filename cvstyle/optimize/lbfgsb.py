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
    with _Aside(partial(_minimize, begin, limits, num_iterations - done, history)) as aside:
        while (call := aside.next_call()) is not None:
            kind, at = call
            if kind == "evaluate":
                aside.answer(objective(at))
            else:
                yield ops.asarray(at.reshape(shape))
                aside.answer(None)
            del call, at  # arrays of SciPy's, which it may want to let go of


def _minimize(begin, limits, count, history, call):
    """SciPy's loop. call(kind, x) asks for (loss, gradient) at x to "evaluate", and reports each "iterate"."""

    def report(intermediate_result):
        call("iterate", intermediate_result.x)

    scipy.optimize.minimize(
        partial(call, "evaluate"), begin, jac=True, method="L-BFGS-B", bounds=limits, callback=report,
        options={"maxiter": count, "maxcor": history, "maxfun": 20 * count + 20, "ftol": 0, "gtol": 0},
    )  # fmt: skip


class _Aside:
    """work(call) on a thread of its own, which waits in every call for its `answer`.

    When the context ends so does the thread: in its next call, if not before.
    """

    def __init__(self, work):
        self._calls, self._answers = SimpleQueue(), SimpleQueue()
        # A daemon: an interpreter that exits between two iterates would wait for any other.
        self._thread = threading.Thread(target=self._run, args=(work,), name="cvstyle-lbfgsb", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._answers.put(_Closed())
        if not sys.is_finalizing():  # a daemon never runs again then
            self._thread.join()

    def answer(self, value) -> None:
        """Answer the last call."""
        self._answers.put(value)

    def next_call(self):
        """The next call's arguments, or None after the last. Raises what work raised."""
        call = self._calls.get()
        if isinstance(call, BaseException):
            try:
                raise call
            finally:
                del call  # in a circle with its traceback, SciPy's arrays would stay
        return call

    def _run(self, work):
        try:
            work(self._call)
        except _Closed:
            pass
        except BaseException as error:
            self._calls.put(error)
        else:
            self._calls.put(None)

    def _call(self, *arguments):
        self._calls.put(arguments)
        answer = self._answers.get()
        if isinstance(answer, _Closed):
            raise answer
        return answer


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
