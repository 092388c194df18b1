"""Which variant of a kernel is fastest: measured on the device when a shape is first met, and kept in a file.

Variants may add in another order, so their results differ in the last bits. A choice that is in the file is never
measured again, so runs of one machine give the same bytes; without the file, a checkpoint brings the choices along.
Only what was measured here goes into the file. What there was no time to try, the estimate decides, until a later
process has tried it.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

from ...errors import DeviceError, OptionError
from . import kept

_ROUNDS = 3
_BUDGET = 60  # seconds that may be spent on trying


class Choices:
    """The choices of one device. A file that is missing, damaged or of another device or version counts as empty."""

    def __init__(
        self, device, kernels: str, folder: Path | None = None, seconds: Callable | None = None,
        prepare: Callable | None = None,
    ):  # fmt: skip
        """kernels: the digest of the kernels' sources. folder: where the file is; the user's cache by default. seconds:
        in place of `device.seconds`. prepare: `Backend.prepare`."""
        self._device, self._prepare = device, prepare
        self._seconds = seconds or (lambda work: device.seconds(work))
        self._identity = {
            "device": device.name, "driver": device.driver, "units": device.units, "kernels": kernels
        }  # fmt: skip
        self.path = kept.path("tuning", self._identity, folder)
        self.kept: dict[str, str] = kept.read(self.path, "choices", self._identity)
        """Choices by what they are for, both as text: from the file, made here, or adopted."""
        self.untried: list[str] = []
        """What was left to the estimate, since the time for trying was used up."""
        self._budget = self._left = _budget()
        self._measured: dict[str, str] = {}
        self._known: dict[tuple, object] = {}
        self.adopted = 0
        """How often others were taken in their place."""

    def pick(self, key: tuple, candidates: Sequence, run: Callable, kernels: Callable | None = None):
        """The candidate that is fastest at what `key` says.

        candidates: best by estimate first; the first one where none can be run, or no time is left. run(candidate) puts
        its work on the queue, any number of times. kernels(candidate): those that it launches, as (source, defines);
        what is to be compared is compiled side by side. Raises DeviceError where the device stops working.
        """
        found = self._known.get(key)
        if found is None:
            text, names = _text(key), {str(c): c for c in candidates}
            found = names.get(self.kept.get(text))
            if found is None:
                found = self._chosen(text, candidates, run, kernels)
                self.kept[text] = str(found)
            self._known[key] = found
        return found

    def expected(self, key: tuple, candidates: Sequence):
        """The candidate that was chosen already, or the one that is best by estimate."""
        kept = self.kept.get(_text(key))
        return next((c for c in candidates if str(c) == kept), candidates[0])

    def to_try(self, key: tuple, candidates: Sequence) -> Sequence:
        """What `pick` would compare; nothing where it would not have to, or had no time."""
        known = self.kept.get(_text(key)) in map(str, candidates)
        return [] if known or len(candidates) == 1 or self._left <= 0 else candidates

    def adopt(self, choices: dict[str, str]) -> None:
        """Take choices that a checkpoint has, in place of those made here."""
        self.kept.update(choices)
        self._known.clear()
        self.adopted += 1

    @property
    def problem(self) -> str:
        """A sentence about what was not tried; empty where all was, or nothing was to be."""
        if not (self.untried and self._budget):
            return ""
        return (
            f"{len(self.untried)} choices among kernels were left to the estimate, since {self._budget:g} s of trying "
            "were used up; the next run tries more (CVSTYLE_AUTOTUNE_SECONDS)"
        )

    def _chosen(self, text, candidates, run, kernels):
        if len(candidates) == 1:
            return candidates[0]
        if self._left <= 0:
            self.untried.append(text)
            return candidates[0]
        start = perf_counter()
        if kernels and self._prepare:
            self._prepare([each for candidate in candidates for each in kernels(candidate)])
        found = self._fastest(text, candidates, run)
        self._left -= perf_counter() - start
        if found is None:
            return candidates[0]
        self._measured[text] = str(found)
        kept.add(self.path, "choices", self._identity, self._measured)
        return found

    def _fastest(self, text, candidates, run):
        """The candidate that took the least time; None where none could be run."""
        best, least = None, float("inf")
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
                best, least = candidate, seconds
        return best

    def _check(self, when):
        """After some errors a GPU refuses everything, and so it would every other candidate."""
        try:
            self._device.synchronize()
        except self._device.errors as error:
            raise DeviceError(f"{self._device.name} stopped working {when}: {error}") from error


def _text(key):
    return " ".join(map(str, key))


def _budget():
    """Seconds for trying: CVSTYLE_AUTOTUNE_SECONDS, where that is set; 0: nothing is tried."""
    text = os.environ.get("CVSTYLE_AUTOTUNE_SECONDS") or str(_BUDGET)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not seconds >= 0:
        raise OptionError(f"CVSTYLE_AUTOTUNE_SECONDS is '{text}'; a number of seconds, 0 or more, is needed")
    return seconds
