"""Steps of a report one after the other, each a process with a limit, within a time for all."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

MARK = "\x1e"  # begins a line that is a row (as in RFC 7464); all other lines go to the log
_TAIL = 4000  # characters from the end of a failed step's output in the report
_LEAST = 3  # seconds that a step is worth beginning with
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class Step:
    """A process that fills rows of a table.

    section: the name of the table and of the function that fills it (measure.py). configuration: the variant that is
    measured. limit, expected: seconds; why: the reasons for `expected`. settings: arguments of the function.
    environment: variables for the process. vital: without this step the others are of no use.
    """

    section: str
    configuration: str
    limit: float
    expected: float
    why: str = ""
    settings: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    vital: bool = False


@dataclass
class Part:
    """Steps under one heading; number: its place, from which a report can continue. limit: seconds for all steps,
    beside the seconds left of parts before."""

    number: int
    title: str
    limit: float
    steps: list[Step]

    @property
    def expected(self) -> float:
        """Expected seconds of all steps."""
        return sum(step.expected for step in self.steps)


class Stop(Exception):
    """The rest of the report is of no use."""


class Runner:
    """Runs parts; a step that fails, hangs or does not fit is a line of the report, and the next step follows.

    common: settings of every step. program: the command before "one SECTION SETTINGS". after: called when a part ended.
    left: (number, step) of the steps not done.
    """

    def __init__(self, report, sections, common, program, after=lambda: None):
        self.report, self.sections, self.common, self.program, self.after = report, sections, common, program, after
        self.left: list[tuple[int, Step]] = []

    def run(self, parts: list[Part]) -> None:
        """All of them, in order. What is left of one part's time is there for the next ones."""
        end = time.monotonic()
        self.left = [(part.number, step) for part in parts for step in part.steps]
        for part in parts:
            end += part.limit
            self.report.title(f"{part.number}. {part.title}")
            began, failed = time.monotonic(), []
            try:
                self._steps(part, end, failed)
            finally:
                for what, text in failed:
                    self.report.fault(what, text)
                self.after()
            took = time.monotonic() - began
            self.report.note(f"Part {part.number}: {took:.0f} s (reckoned: {part.expected:.0f} s).")

    def _steps(self, part, end, failed):
        for step in part.steps:
            room = end - time.monotonic()
            if room < _LEAST:
                return
            self._step(step, min(step.limit, room), failed)
            self.left.remove((part.number, step))
            if step.vital and failed:
                raise Stop(f"Without {step.section} there is no use in going on.")

    def _step(self, step, limit, failed):
        section, log = self.sections[step.section], self.report.path("log")
        began, start = time.monotonic(), log.stat().st_size
        with log.open("a", encoding="utf-8") as file:
            file.write(f"\n==== {step.section}: {step.configuration}\n")
        first = section.columns[0].name

        def row(values):
            self.report.row(section, {first: step.configuration, **values})

        settings = {**self.common, **step.settings, "configuration": step.configuration}
        command = [*self.program, "one", step.section, json.dumps(settings)]
        fault = _process(command, {**os.environ, **step.environment}, limit, log, row)
        seconds = round(time.monotonic() - began, 2)
        self.report.content["steps"].append(
            {"section": step.section, "configuration": step.configuration, "seconds": seconds, "fault": fault}
        )
        if fault:
            printed = log.read_bytes()[start:].decode("utf-8", "replace").strip()
            row({section.columns[1].name: f"left out: {fault}"})
            failed.append((f"{step.section}, {step.configuration}: {fault}", printed[-_TAIL:]))


def _process(command, environment, limit, log, row):
    """Run a command; row(values) for each row that it prints, the rest to the log. Returns the fault, or None."""
    with log.open("a", encoding="utf-8") as file:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file, text=True, errors="replace",
            env={**environment, "PYTHONUNBUFFERED": "1"}, start_new_session=True, preexec_fn=_dies_with_its_parent,
        )  # fmt: skip
        lines = queue.Queue()
        threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
        end = time.monotonic() + limit
        try:
            while True:
                line = lines.get(timeout=max(0.01, end - time.monotonic()))
                if line is None:
                    break
                if line.startswith(MARK):
                    row(json.loads(line[1:]))
                else:
                    file.write(line)
                    file.flush()
            status = child.wait(timeout=max(1, end - time.monotonic()))
        except (queue.Empty, subprocess.TimeoutExpired):
            return f"stopped after {limit:.0f} s"
        finally:
            _end(child)
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"exit status {status}" if status else None


def _read(stream, lines):
    with suppress(ValueError, OSError):
        for line in stream:
            lines.put(line)
    lines.put(None)


def _end(child):
    """Kill the rest of a step and its children, without a wait for a process that the driver holds."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=5)


def _dies_with_its_parent():
    """A kill of the report must not leave a step on the GPU (Linux: prctl(PR_SET_PDEATHSIG))."""
    if _LIBC:
        _LIBC.prctl(1, signal.SIGKILL)
