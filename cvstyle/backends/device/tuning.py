"""Autotuning: the fastest of several algorithms, measured when a shape first occurs, and recorded in a file.

Algorithms may add in different orders, so their results differ in the last bits. A choice in the file is never measured
again, so runs of one machine give the same bytes; without the file, a checkpoint brings the choices along. The file has
measured choices alone. Where the time for trying is used up, the estimate decides, until a later process has tried.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

from ...errors import DeviceError, OptionError
from . import cache_file

_ROUNDS = 3
_BUDGET = 60  # seconds of trying


class Choices:
    """The choices of one device. A file that is missing, damaged or of another device or version counts as empty."""

    def __init__(
        self, device, kernels: str, folder: Path | None = None, seconds: Callable | None = None,
        prepare: Callable | None = None,
    ):  # fmt: skip
        """kernels: the digest of the kernels' sources. folder: the folder of the file; the user's cache by default.
        seconds: in place of `device.seconds`. prepare: `Backend.prepare`."""
        self._device = device
        self._prepare = prepare
        self._seconds = seconds or (lambda work: device.seconds(work))
        self._identity = {
            "device": device.name, "driver": device.driver, "units": device.multiprocessors, "kernels": kernels
        }  # fmt: skip
        self.path = cache_file.path("tuning", self._identity, folder)
        self.entries: dict[str, str] = cache_file.read(self.path, "choices", self._identity)
        """Choices by key, both as text: from the file, made here, or adopted."""
        self.untried: list[str] = []
        """Keys that the estimate decided, since the time for trying was used up."""
        self._budget = _budget()
        self._seconds_left = self._budget
        self._measured: dict[str, str] = {}
        self._picked: dict[tuple, object] = {}
        self.adoptions = 0
        """Number of calls of `adopt`."""

    def pick(self, key: tuple, candidates: Sequence, run: Callable, kernels: Callable | None = None):
        """The candidate that is fastest for the key.

        candidates: best by estimate first; the first is the result where none can be run, or no time is left.
        run(candidate) puts its work on the queue, any number of times. kernels(candidate): the kernels that it
        launches, as (source, defines), for a parallel compilation. Raises DeviceError where the device stops working.
        """
        choice = self._picked.get(key)
        if choice is None:
            text = _text(key)
            names = {str(c): c for c in candidates}
            choice = names.get(self.entries.get(text))
            if choice is None:
                choice = self._measure(text, candidates, run, kernels)
                self.entries[text] = str(choice)
            self._picked[key] = choice
        return choice

    def expected(self, key: tuple, candidates: Sequence):
        """The candidate that was chosen already, or the best by estimate."""
        entry = self.entries.get(_text(key))
        return next((c for c in candidates if str(c) == entry), candidates[0])

    def to_try(self, key: tuple, candidates: Sequence) -> Sequence:
        """The candidates that `pick` would compare: none where the choice is known, or no time is left."""
        known = self.entries.get(_text(key)) in map(str, candidates)
        return [] if known or len(candidates) == 1 or self._seconds_left <= 0 else candidates

    def adopt(self, choices: dict[str, str]) -> None:
        """Take the choices of a checkpoint in place of choices made here."""
        self.entries.update(choices)
        self._picked.clear()
        self.adoptions += 1

    @property
    def problem(self) -> str:
        """A sentence about choices that were not tried; empty without any, or where trying is turned off."""
        if not (self.untried and self._budget):
            return ""
        return (
            f"{len(self.untried)} choices among kernels were left to the estimate, since {self._budget:g} s of trying "
            "were used up; the next run tries more (CVSTYLE_AUTOTUNE_SECONDS)"
        )

    def _measure(self, text, candidates, run, kernels):
        """The fastest candidate, which is added to the file; the first where nothing was measured."""
        if len(candidates) == 1:
            return candidates[0]
        if self._seconds_left <= 0:
            self.untried.append(text)
            return candidates[0]
        start = perf_counter()
        if kernels and self._prepare:
            self._prepare([each for candidate in candidates for each in kernels(candidate)])
        fastest = self._fastest(text, candidates, run)
        self._seconds_left -= perf_counter() - start
        if fastest is None:
            return candidates[0]
        self._measured[text] = str(fastest)
        cache_file.add(self.path, "choices", self._identity, self._measured)
        return fastest

    def _fastest(self, text, candidates, run):
        """The candidate that took the least time; None where none could be run."""
        best = None
        least = float("inf")
        self._check(f"before anything was tried for '{text}'")
        for candidate in candidates:
            work = lambda candidate=candidate: run(candidate)  # noqa: E731
            try:
                work()  # compiles, and takes its memory
                seconds = statistics.median(self._seconds(work) for _ in range(_ROUNDS))
            except (DeviceError, MemoryError, *self._device.errors) as error:
                self._check(f"when '{candidate}' was tried for '{text}' ({error})")
                continue
            if seconds < least:
                best = candidate
                least = seconds
        return best

    def _check(self, when):
        """Raise DeviceError if the device refuses all work, as a GPU does after some errors, whatever the candidate."""
        try:
            self._device.synchronize()
        except self._device.errors as error:
            raise DeviceError(f"{self._device.name} stopped working {when}: {error}") from error


def _text(key):
    return " ".join(map(str, key))


def _budget():
    """Seconds of trying: CVSTYLE_AUTOTUNE_SECONDS where that is set; with 0 nothing is tried."""
    text = os.environ.get("CVSTYLE_AUTOTUNE_SECONDS") or str(_BUDGET)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not seconds >= 0:
        raise OptionError(f"CVSTYLE_AUTOTUNE_SECONDS is '{text}'; a number of seconds, 0 or more, is needed")
    return seconds
