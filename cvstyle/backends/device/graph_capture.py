"""Capture of a function's work on a device, replayed as one launch (a CUDA graph)."""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager

from ...errors import DeviceError
from .pool import DevicePool

_WARMUP = 2  # calls before the capture, which compile kernels and upload constants: neither may be captured
_ATTEMPTS = 3
_lock = threading.Lock()
_paused = 0
_was_enabled = False


@contextmanager
def gc_paused():
    """Turn Python's garbage collector off, in all threads, while a device captures: it could drop an earlier network's
    memory, kernels and captures, and freeing them is an error during a capture."""
    global _paused, _was_enabled
    with _lock:
        if not _paused:
            _was_enabled = gc.isenabled()
            gc.disable()
        _paused += 1
    try:
        yield
    finally:
        with _lock:
            _paused -= 1
            if not _paused and _was_enabled:
                gc.enable()


class CapturedFunction:
    """Calls a function; from the third capturable call on, replays the launches of the third.

    Arrays that the function makes come from a pool of their own, from which nothing else allocates between the replays:
    the captured addresses stay valid, and each replay fills the arrays that the captured call left (losses). The pool
    frees nothing as long as there is a capture. Where the device refuses to capture, calls launch each kernel
    (`Backend.capture_problem`).
    """

    def __init__(self, ops, function):
        self.pool = DevicePool(ops.device)
        self.replays = 0
        self._ops = ops
        self._function = function
        self._warm_calls = 0
        self._replay = None

    def __call__(self, capturable: bool = True) -> None:
        """capturable: the call has the kernels, arrays and arguments of the capturable call before."""
        if capturable and self._replay is None and self._warm_calls == _WARMUP:
            self._replay = self._capture()
        if capturable and self._replay is not None:
            self.replays += 1
            try:
                return self._replay()
            except self._ops.device.errors as error:  # or of work before, which shows at the next call
                raise DeviceError(f"the recorded iteration failed on {self._ops.device.name}: {error}") from error
        self._warm_calls += capturable
        return self._in_own_pool(self._function)

    def _capture(self):
        device = self._ops.device
        problem = "it takes more memory each time"
        gc.collect()
        self.pool.consolidate()
        self.pool.hold()
        for _ in range(_ATTEMPTS):
            before = self.pool.allocations
            try:
                replay = self._in_own_pool(lambda: device.capture(self._function))
            except (DeviceError, MemoryError, *device.errors) as error:
                problem = error
                break
            if self.pool.allocations == before:  # the first attempt may allocate, since the pool frees nothing for it
                return replay
        self.pool.release()
        self._ops.capture_problem = f"the iteration was not recorded as one launch: {problem}"
        return lambda: self._in_own_pool(self._function)

    def _in_own_pool(self, function):
        ops = self._ops
        outer = ops.pool
        ops.pool = self.pool
        try:
            return function()
        finally:
            ops.pool = outer
            ops.captured_peak = max(ops.captured_peak, self.pool.max_allocated)
