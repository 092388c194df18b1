"""Progress of a run: a bar on a terminal, else lines, and a log, without waiting for the device."""

from __future__ import annotations

import os
import shutil
import sys
import time
import warnings
from contextlib import contextmanager, suppress

from ..errors import CheckpointWarning
from ..formatting import duration
from .log import Log

_BAR = "{n_fmt}/{total_fmt} |{bar}| {rate_fmt}{postfix}"
_WIDE = 120  # columns that bar, rate and all losses need


class Reporter:
    """Callback of a run, and context manager: shows iterations on standard error and logs losses.

    print_iter: without a terminal, iterations between two lines; below 1: no lines. quiet: show no iteration. log: path
    of a CSV file. Raises OptionError, on entering, if the log cannot be opened.
    """

    def __init__(self, print_iter: int = 50, quiet: bool = False, log: str | None = None):
        self.print_iter = print_iter
        self.silent = quiet
        self.path = log
        self.bar = self.log = self.pending = None
        self.started = self.first_ended = self.drawn = None
        self.first_share = 0.0

    def __enter__(self):
        if self.path:
            self.log = Log(self.path, self.say)
        self.started = time.monotonic()
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self._report_pending()
        if self.bar is not None:
            with suppress(OSError, ValueError):
                self.bar.close()
        if self.log is not None:
            self.log.close()

    def __call__(self, iterate) -> None:
        """Report an `Iterate`: immediately, or on an asynchronous device once the next iteration has started."""
        now = time.monotonic()
        if self.first_ended is None:
            self.first_ended = now
            self.first_share = iterate.share
        self._report_pending()
        if (self.log is not None and self.log.is_open) or self._is_due(iterate, now):
            iterate.fetch()
            self.pending = iterate, now
        if not iterate.asynchronous or iterate.iteration == iterate.num_iterations:
            self._report_pending()

    def say(self, line: str) -> None:
        """Print a message of the program."""
        self._print(f"cvstyle: {line}")

    def _print(self, line):
        with self._silent_when_lost():
            if self.bar is not None:
                self.bar.clear()
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def _silent_when_lost(self):
        """A standard error that is closed, full or a lost terminal does not end the run; nothing more is shown then."""
        try:
            yield
        except (OSError, ValueError):
            self.silent = True

    def _is_due(self, iterate, now):
        """True if an iteration that ended now is to be shown."""
        if self.silent:
            return False
        last = iterate.iteration == iterate.num_iterations
        if _on_terminal():
            return last or self.bar is None or now - self.drawn >= self.bar.mininterval
        return self.print_iter > 0 and (iterate.iteration % self.print_iter == 0 or last)

    def _report_pending(self):
        if self.pending is None:
            return
        iterate, now = self.pending
        self.pending = None
        if self.log is not None:
            self.log.write(iterate, now - self.started)
        if not self._is_due(iterate, now):
            return
        if _on_terminal():
            with self._silent_when_lost():
                self._draw_bar(iterate, now)
        else:
            self._print(self._line(iterate, now))

    def _line(self, iterate, now):
        # The first iteration includes loading and compilation, so it is not representative.
        steps = iterate.iteration - 1
        seconds = now - self.first_ended
        rate = steps / seconds if steps and seconds else 1 / (now - self.started)
        done = f"iteration {iterate.iteration}/{iterate.num_iterations}"
        return f"{done}: {summary(iterate)}; {rate:.2f} iterations/s, {self._left(iterate, now)} left"

    def _left(self, iterate, now):
        """The remaining time as text, proportional to the remaining work: finer scales have more per iteration."""
        seconds = now - self.first_ended
        done = iterate.share - self.first_share
        if not done:
            seconds = now - self.started
            done = iterate.share
        return duration(seconds * (1 - iterate.share) / done)

    def _draw_bar(self, iterate, now):
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=iterate.num_iterations, unit="it", dynamic_ncols=True, smoothing=0.1, bar_format=_BAR)
        short = shutil.get_terminal_size().columns < _WIDE
        self.bar.set_postfix_str(f"{self._left(iterate, now)} left, {summary(iterate, short)}", refresh=False)
        self.bar.update(iterate.iteration - self.bar.n)
        self.drawn = now


def _on_terminal():
    """True if standard error is a terminal that can redraw a line."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def summary(iterate, short: bool = False) -> str:
    """The loss and its kinds: "loss 1.2e+05 (content 3e+04, style 9e+04, tv 120)"; short: the kinds alone."""
    kinds = {}
    for name, value in iterate.losses.items():
        kind = name.partition(":")[0]
        kinds[kind] = kinds.get(kind, 0) + value
    if short:
        return ", ".join(f"{kind} {value:.2g}" for kind, value in kinds.items())
    return f"loss {iterate.loss:.4g} (" + ", ".join(f"{kind} {value:.3g}" for kind, value in kinds.items()) + ")"


@contextmanager
def warnings_as_lines(say):
    """Context in which `say` gets the text of a CheckpointWarning; others are treated as before."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CheckpointWarning)
        show = warnings.showwarning

        def show_or_say(message, category, *rest):
            if issubclass(category, CheckpointWarning):
                say(str(message))
            else:
                show(message, category, *rest)

        warnings.showwarning = show_or_say
        yield
