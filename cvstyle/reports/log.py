"""The losses of every iteration as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import suppress

from ..errors import OptionError


class Log:
    """A CSV file with a row per iteration: iteration, seconds, loss and its parts. A disk that is full ends the log.

    say: takes the line that says so. Raises OptionError where the file cannot be opened.
    """

    def __init__(self, path: str, say: Callable[[str], None]):
        self.path = path
        self.say = say
        self.columns = None
        try:
            self.file = open(path, "w", encoding="utf-8", newline="")  # noqa: SIM115 (until `close`)
        except OSError as error:
            raise OptionError(f"{path}: the log cannot be written: {error.strerror}") from None

    def write(self, iterate, seconds: float) -> None:
        """Add the row of an `Iterate`. seconds: since the run began."""
        if self.file is None:
            return
        writer = csv.writer(self.file)
        if self.columns is None:
            self.columns = list(iterate.losses)
            writer.writerow(["iteration", "seconds", "loss", *self.columns])
        values = [iterate.losses[name] for name in self.columns]
        writer.writerow([iterate.iteration, f"{seconds:.3f}", *(f"{v:.9g}" for v in (iterate.loss, *values))])
        try:
            self.file.flush()
        except OSError as error:
            self.say(f"{self.path}: the log ends here: {error.strerror}")
            with suppress(OSError):
                self.file.close()
            self.file = None

    @property
    def is_open(self) -> bool:
        """Whether rows are still written."""
        return self.file is not None

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
