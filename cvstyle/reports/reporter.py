"""Progress and log of a run, without waiting for a device."""

from __future__ import annotations

import time
import warnings
from contextlib import contextmanager

from ..errors import CheckpointWarning
from .log import Log
from .progress import Progress


class Reporter:
    """A context manager whose object is the callback of a run: it shows its iterations and logs their losses.

    print_iter, quiet, stream: see `Progress`. log: the path of a CSV file. Raises OptionError, on entering, where the
    log cannot be opened.
    """

    def __init__(self, print_iter: int = 50, quiet: bool = False, log: str | None = None, stream=None):
        self.progress = Progress(print_iter, quiet, stream)
        self.path = log
        self.log = None
        self.started = None
        self.pending = None

    def __enter__(self):
        if self.path:
            self.log = Log(self.path, self.say)
        self.started = self.progress.started = time.monotonic()
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self._report_pending()
        self.progress.close()
        if self.log is not None:
            self.log.close()

    def __call__(self, iterate) -> None:
        """Report an `Iterate`: at once, or on a device when the next one has begun, so that its losses have arrived."""
        now = time.monotonic()
        self.progress.first_ended = self.progress.first_ended or now
        self._report_pending()
        if (self.log is not None and self.log.is_open) or self.progress.is_due(iterate, now):
            iterate.fetch()
            self.pending = iterate, now
        if not iterate.asynchronous or iterate.iteration == iterate.num_iterations:
            self._report_pending()

    def say(self, line: str) -> None:
        """Print a line of the program."""
        self.progress.say(f"cvstyle: {line}")

    def _report_pending(self):
        if self.pending is None:
            return
        iterate, now = self.pending
        self.pending = None
        if self.log is not None:
            self.log.write(iterate, now - self.started)
        if self.progress.is_due(iterate, now):
            self.progress.show(iterate, now)


@contextmanager
def warnings_as_lines(say):
    """Within it, a checkpoint that could not be written is a line for `say`; other warnings are shown as before."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CheckpointWarning)
        show = warnings.showwarning

        def tell(message, category, *rest):
            if issubclass(category, CheckpointWarning):
                say(str(message))
            else:
                show(message, category, *rest)

        warnings.showwarning = tell
        yield
