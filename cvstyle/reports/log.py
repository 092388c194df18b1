"""The losses of every iteration as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import suppress

from ..errors import OptionError


class Log:
    """A CSV file with a row per iteration: iteration, seconds, loss and its parts. A full disk ends the log.

    say: called with a message if the disk is full. Raises OptionError if the file cannot be opened.
    """

    def __init__(self, path: str, say: Callable[[str], None]):
        self.path = path
        self.say = say
        self.is_open = True
        self._is_empty = True
        try:
            self._file = open(path, "w", encoding="utf-8", newline="")  # noqa: SIM115 (until `close`)
        except OSError as error:
            raise OptionError(f"{path}: the log cannot be written: {error.strerror}") from None

    def write(self, iterate, seconds: float) -> None:
        """Write the row of an `Iterate`. seconds: since the start of the run."""
        if not self.is_open:
            return
        writer = csv.writer(self._file)
        losses = iterate.losses
        if self._is_empty:
            writer.writerow(["iteration", "seconds", "loss", *losses])
            self._is_empty = False
        writer.writerow([iterate.iteration, f"{seconds:.3f}", *(f"{v:.9g}" for v in (iterate.loss, *losses.values()))])
        try:
            self._file.flush()
        except OSError as error:
            self.say(f"{self.path}: the log ends here: {error.strerror}")
            with suppress(OSError):
                self.close()

    def close(self) -> None:
        """Close the file."""
        self.is_open = False
        self._file.close()
