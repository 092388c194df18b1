"""Handlers of Ctrl-C, SIGTERM and the loss of the terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last is Ctrl-Break on Windows
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


@contextmanager
def handling(finish_iteration: bool, say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Context in which signals end a run cleanly; yields `stop_requested()`, to be polled after each iteration.

    The first signal raises KeyboardInterrupt at once. With finish_iteration, which a checkpoint requires, the first
    signal sets `stop_requested` and the second raises. One more signal while the picture is saved has no effect, and
    the next has the system's default effect: it ends the process. Signals that are ignored stay so (nohup, a shell's
    jobs in the background), as do handlers that are not Python's. The previous handlers are restored afterwards.
    Outside the main thread, where Python handles no signals, nothing changes and `stop_requested()` is False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    handled = [kind for kind in _SIGNALS if signal.getsignal(kind) not in (signal.SIG_IGN, None)]
    waits = int(finish_iteration)
    count = 0

    def handle(_, frame):
        nonlocal count
        count += 1
        if count <= waits:
            say("stopping after this iteration; once more to stop at once")
        elif count == waits + 1:
            if frame.f_code.co_name != "__del__":  # Python ignores exceptions there
                raise KeyboardInterrupt
        else:
            for kind in handled:
                signal.signal(kind, signal.SIG_DFL)

    def stop_requested():
        nonlocal count
        if count:
            count += waits  # the next signal arrives while the picture is saved
        return count > 0

    previous = {kind: signal.signal(kind, handle) for kind in handled}
    try:
        yield stop_requested
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)
