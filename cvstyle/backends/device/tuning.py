"""Which variant of a kernel is fastest: measured on the device when a shape is first met, and kept in a file.

Variants may add in another order, so their results differ in the last bits. A choice that is in the file is never
measured again, so runs of one machine give the same bytes; without the file, a checkpoint brings the choices along.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ... import folders
from ...errors import DeviceError

_ROUNDS = 3


class Choices:
    """The choices of one device. A file that is missing, damaged or of another device or version counts as empty."""

    def __init__(self, device, kernels: str, folder: Path | None = None, seconds: Callable | None = None):
        """kernels: the digest of the kernels' sources. folder: where the file is; the user's cache by default. seconds:
        in place of `device.seconds`."""
        self._device = device
        self._seconds = seconds or (lambda work: device.seconds(work))
        self._identity = {
            "device": device.name, "driver": device.driver, "units": device.units, "kernels": kernels
        }  # fmt: skip
        name = hashlib.sha256(json.dumps(self._identity).encode()).hexdigest()[:16]
        self.path = (folder or folders.cache()) / f"tuning-{name}.json"
        self.kept: dict[str, str] = self._read()
        """Choices by what they are for, both as text."""
        self._known: dict[tuple, object] = {}
        self.adopted = 0
        """How often others were taken in their place."""

    def pick(self, key: tuple, candidates: Sequence, run: Callable):
        """The candidate that is fastest at what `key` says.

        candidates: best by estimate first; the first one where none can be run. run(candidate) puts its work on the
        queue, any number of times.
        """
        found = self._known.get(key)
        if found is None:
            text, names = " ".join(map(str, key)), {str(c): c for c in candidates}
            found = names.get(self.kept.get(text))
            if found is None:
                found = self._measured(candidates, run)
                self.kept[text] = str(found)
                self._write()
            self._known[key] = found
        return found

    def adopt(self, choices: dict[str, str]) -> None:
        """Take choices that a checkpoint has, in place of those made here."""
        self.kept.update(choices)
        self._known.clear()
        self.adopted += 1

    def _measured(self, candidates, run):
        best = candidates[0]
        if len(candidates) > 1:
            least = float("inf")
            for candidate in candidates:
                work = lambda candidate=candidate: run(candidate)  # noqa: E731
                try:
                    work()  # compiles, and takes its memory
                    seconds = statistics.median(self._seconds(work) for _ in range(_ROUNDS))
                except (DeviceError, MemoryError, *self._device.errors):
                    continue
                if seconds < least:
                    best, least = candidate, seconds
        return best

    def _read(self):
        try:
            content = json.loads(self.path.read_text("utf-8"))
            choices = content["choices"] if content["for"] == self._identity else {}
            return {str(key): str(choice) for key, choice in choices.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _write(self):
        """In one step, with what other processes chose meanwhile; where nothing can be written, nothing is."""
        content = {"for": self._identity, "choices": {**self._read(), **self.kept}}
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(content, file, indent=0)
                os.replace(name, self.path)
            except OSError:
                with suppress(OSError):
                    os.unlink(name)
