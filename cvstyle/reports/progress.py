"""How far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time

_BAR = "{n_fmt}/{total_fmt} |{bar}| {rate_fmt}, {remaining} left{postfix}"
_WIDE = 120  # columns in which bar, rate and all losses have room


class Progress:
    """Shows iterations on a stream, and lines between them.

    print_iter: without a terminal, iterations from one line to the next; below 1: no lines. quiet: nothing is shown of
    iterations. stream: standard error if None.
    """

    def __init__(self, print_iter: int = 50, quiet: bool = False, stream=None):
        self.print_iter = print_iter
        self.silent = quiet
        self.stream = sys.stderr if stream is None else stream
        self.bar = None
        self.drawn = None
        self.started = time.monotonic()
        self.first_ended = None  # the first iteration, set by whoever shows the run's iterations

    def is_due(self, iterate, now: float) -> bool:
        """Whether an `Iterate` is to be shown. now: of `time.monotonic`, when it ended."""
        if self.silent:
            return False
        last = iterate.iteration == iterate.num_iterations
        if self.stream.isatty():
            return last or self.bar is None or now - self.drawn >= self.bar.mininterval
        return self.print_iter > 0 and (iterate.iteration % self.print_iter == 0 or last)

    def show(self, iterate, now: float) -> None:
        """Show an `Iterate`, as `is_due` has it."""
        if self.stream.isatty():
            self._draw_bar(iterate, now)
        else:
            self.say(self._line(iterate, now))

    def say(self, line: str) -> None:
        """Print a line; a reader that went away does not end the run."""
        try:
            if self.bar is not None:
                self.bar.clear()
            print(line, file=self.stream, flush=True)
        except OSError:
            self.silent = True

    def close(self) -> None:
        """Leave the bar as it is, and go on below it."""
        if self.bar is not None:
            self.bar.close()

    def _line(self, iterate, now):
        from ..words import duration

        # The first iteration waits for files and kernels, so it says nothing about the others.
        steps = iterate.iteration - 1
        seconds = now - self.first_ended
        rate = steps / seconds if steps and seconds else 1 / (now - self.started)
        left = duration((iterate.num_iterations - iterate.iteration) / rate)
        done = f"iteration {iterate.iteration}/{iterate.num_iterations}"
        return f"{done}: {summary(iterate)}; {rate:.2f} iterations/s, {left} left"

    def _draw_bar(self, iterate, now):
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(
                total=iterate.num_iterations, unit="it", dynamic_ncols=True, smoothing=0.1, bar_format=_BAR,
                file=self.stream,
            )  # fmt: skip
        short = shutil.get_terminal_size().columns < _WIDE
        self.bar.set_postfix_str(summary(iterate, short), refresh=False)
        self.bar.update(iterate.iteration - self.bar.n)
        self.drawn = now


def summary(iterate, short: bool = False) -> str:
    """The loss and its kinds: "loss 1.2e+05 (content 3e+04, style 9e+04, tv 120)"; short: the kinds alone."""
    kinds = {}
    for name, value in iterate.losses.items():
        kind = name.partition(":")[0]
        kinds[kind] = kinds.get(kind, 0) + value
    if short:
        return ", ".join(f"{kind} {value:.2g}" for kind, value in kinds.items())
    return f"loss {iterate.loss:.4g} (" + ", ".join(f"{kind} {value:.3g}" for kind, value in kinds.items()) + ")"
