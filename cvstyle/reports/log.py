"""The losses of every iteration as a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from contextlib import suppress

from .. import paths
from ..errors import OptionError


class Log:
    """A CSV file with a row per iteration: iteration, seconds, loss and its parts. A failure ends the log, not the run.

    say: called with a message if the log ends early. Raises OptionError if the file cannot be opened.
    """

    def __init__(self, path: str, say: Callable[[str], None]):
        self.path = path
        self.say = say
        self.is_open = True
        self._is_empty = True
        try:
            number = paths.descriptor(path)
            file = path if number is None else os.dup(number)
            self._file = open(file, "w", encoding="utf-8", errors="replace", newline="")  # noqa: SIM115 (until `close`)
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or error
            raise OptionError(f"{path}: the log cannot be written: {cause}; choose another name or folder") from None

    def write(self, iterate, seconds: float) -> None:
        """Write the row of an `Iterate`. seconds: since the start of the run."""
        if not self.is_open:
            return
        losses = iterate.losses
        row = [iterate.iteration, f"{seconds:.3f}", *(f"{v:.9g}" for v in (iterate.loss, *losses.values()))]
        try:
            writer = csv.writer(self._file)
            if self._is_empty:
                writer.writerow(["iteration", "seconds", "loss", *losses])
                self._is_empty = False
            writer.writerow(row)
            self._file.flush()
        except OSError as error:
            self._end(error)

    def close(self) -> None:
        """Close the file."""
        if self.is_open:
            self.is_open = False
            try:
                self._file.close()
            except OSError as error:  # of a network's file system, late
                self._end(error)

    def _end(self, error):
        self.is_open = False
        self.say(f"{self.path}: the log ends here: {error.strerror or error}")
        with suppress(OSError):
            self._file.close()
