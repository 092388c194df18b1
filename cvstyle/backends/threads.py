"""Host threads: a pool of them, and a BLAS without threads of its own.

A BLAS with threads of its own spins while it waits for them; where OpenCV's threads or another program hold a core,
one product can then take a hundred times as long (measured: 12 ms → 4.8 s). Work is therefore split here, and each
piece calls a BLAS of one thread.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import threadpoolctl


def limit(count: int | None) -> None:
    """Limit backends made from now on to `count` threads, unless their constructor names a number; None: no limit."""
    global _limit
    _limit = count


_limit = None


def cpu_count() -> int:
    """Processors that this process may use, or the limit."""
    if _limit is not None:
        return _limit
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """`count` threads that run pieces of one operation."""

    def __init__(self, count: int | None = None):
        self.count = count or cpu_count()
        self._executor = ThreadPoolExecutor(self.count) if self.count > 1 else None

    def run(self, function, items) -> list:
        """[function(item) for item in items], at the same time."""
        items = list(items)
        with one_thread_each():
            if self._executor is None or len(items) < 2:
                return [function(item) for item in items]
            return list(self._executor.map(function, items))

    def split(self, count: int, unit: int = 1) -> list[tuple[int, int]]:
        """range(count) in one (first, end) per thread, each a multiple of `unit` long but for the last."""
        size = max(unit, -(-count // (self.count * unit)) * unit)
        return [(first, min(first + size, count)) for first in range(0, count, size)]


class _OneThreadEach:
    """The first of all threads that enters sets the limit, and the last that leaves lifts it."""

    def __init__(self):
        self._lock = threading.Lock()
        self._within = 0
        self._limit = None

    def __enter__(self):
        with self._lock:
            if not self._within:
                self._disown()
                self._limit = _blas().limit(limits=1, user_api="blas")
            self._within += 1

    def __exit__(self, *_):
        with self._lock:
            self._within -= 1
            if not self._within:
                self._disown()
                self._limit.restore_original_limits()
                self._disown()

    @staticmethod
    def _disown():
        """Let any thread set the limit: threadpoolctl 3.8 heeds none but the one that was first."""
        for library in _blas().lib_controllers:
            if hasattr(library, "clear_controlling_thread"):
                library.clear_controlling_thread(force=True)


_one_thread_each = _OneThreadEach()


def one_thread_each():
    """A context in which a BLAS has no threads of its own, in whatever thread."""
    return _one_thread_each


@cache
def _blas():
    return threadpoolctl.ThreadpoolController()
