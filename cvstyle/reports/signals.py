"""Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def handling(finish_iteration: bool, say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Within it, signals end a run cleanly; yields `stop_requested()`, to be polled after each iteration.

    The first signal raises KeyboardInterrupt at once; with finish_iteration, where a checkpoint needs the state of a
    whole iteration, it says so and only sets the stop flag, and the second raises. One more while the picture is saved
    changes nothing, and the next has the system's default effect: it ends the process. The handlers from before are
    back afterwards. Outside the main thread, where Python handles no signals, nothing is changed and
    `stop_requested()` is False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    stop = _StopFlag(finish_iteration, say)
    previous = {kind: signal.signal(kind, stop.handle) for kind in _SIGNALS}
    try:
        yield stop.requested
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)


class _StopFlag:
    """How many signals have come, and what the next one does."""

    def __init__(self, finish_iteration, say):
        self.say = say
        self.waits = 1 if finish_iteration else 0
        self.count = 0

    def handle(self, _, frame):
        self.count += 1
        if self.count <= self.waits:
            self.say("stopping after this iteration; once more to stop at once")
        elif self.count == self.waits + 1:
            if frame.f_code.co_name != "__del__":  # Python ignores what is raised there; this iteration is the last
                raise KeyboardInterrupt
        else:
            for kind in _SIGNALS:
                signal.signal(kind, signal.SIG_DFL)

    def requested(self):
        if self.count:
            self.count += self.waits  # the wait is over, so the next signal finds the picture being saved
        return self.count > 0
