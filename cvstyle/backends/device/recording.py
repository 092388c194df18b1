"""A piece of work that is the same each time, recorded once and replayed by a device as one launch (a CUDA graph)."""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager

from ...errors import DeviceError
from .pool import DevicePool

_PRACTICE = 2  # calls before the recording: they compile kernels and upload constants, which must not be in it
_ATTEMPTS = 3
_lock, _under_way, _collects = threading.Lock(), 0, False


@contextmanager
def uncollected():
    """While a device records: Python's garbage collector is off, in all threads. What it drops could be an earlier
    network's memory, kernels and recordings, and giving those back is nothing to do in the middle of a recording."""
    global _under_way, _collects
    with _lock:
        if not _under_way:
            _collects = gc.isenabled()
            gc.disable()
        _under_way += 1
    try:
        yield
    finally:
        with _lock:
            _under_way -= 1
            if not _under_way and _collects:
                gc.enable()


class Repeated:
    """Calls a function; from the third steady call on by replaying what it put on the queue.

    Arrays that the function makes come from a pool of their own, which nothing else takes from between the replays: the
    addresses in the recording stay theirs, and what the last recorded call left (losses) is what each replay fills. It
    gives nothing back to the device as long as there is a recording.
    Where the device refuses to record, the calls go on as they are (`Backend.recording_problem`).
    """

    def __init__(self, ops, function):
        self.pool = DevicePool(ops.device)
        self.replays = 0
        self._ops, self._function = ops, function
        self._steady, self._replay = 0, None

    def __call__(self, steady: bool = True) -> None:
        """steady: kernels, arrays and arguments are those of the steady call before."""
        if steady and self._replay is None and self._steady == _PRACTICE:
            self._replay = self._recorded()
        if steady and self._replay is not None:
            self.replays += 1
            try:
                return self._replay()
            except self._ops.device.errors as error:  # also one of work before, which shows when more is to be done
                raise DeviceError(f"the recorded iteration failed on {self._ops.device.name}: {error}") from error
        self._steady += steady
        return self._alone(self._function)

    def _recorded(self):
        device, problem = self._ops.device, "it takes more memory each time"
        gc.collect()
        self.pool.settle()
        self.pool.hold()
        for _ in range(_ATTEMPTS):
            before = self.pool.allocations
            try:
                replay = self._alone(lambda: device.record(self._function))
            except (DeviceError, MemoryError, *device.errors) as error:
                problem = error
                break
            if self.pool.allocations == before:  # the first may have had to, since nothing was given back for it
                return replay
        self.pool.release()
        self._ops.recording_problem = f"the iteration was not recorded as one launch: {problem}"
        return lambda: self._alone(self._function)

    def _alone(self, function):
        ops = self._ops
        outer, ops.pool = ops.pool, self.pool
        try:
            return function()
        finally:
            ops.pool = outer
            ops.recorded_peak = max(ops.recorded_peak, self.pool.peak)
