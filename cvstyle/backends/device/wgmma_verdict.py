"""The verdict of `wgmma_check` on this machine: from one run in a process of its own, recorded in the user's cache.

In a process, because the instruction may hang, or leave the GPU's context broken, which ends with the process. There is
one file for each device, driver, compiler and state of the kernels; without it, the check runs again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from . import cache_file
from .compiler import digest

CORRECT = "right"
LIMIT = 120  # seconds, most of them for the compiler
_COMMAND = (sys.executable, "-m", "cvstyle.backends.device.wgmma_check")
_KILL_TIMEOUT = 5  # seconds for a killed process to end; a hanging driver may need longer, without a wait
_verdicts: dict[Path, dict[str, str]] = {}  # of this process


def is_correct(device, operand_format: str) -> bool:
    """True if this device may use wgmma with this format (`operands.FORMATS`); without a verdict, runs the check."""
    path = _path(device)
    if path not in _verdicts:
        _verdicts[path] = known_verdicts(device)
    verdicts = _verdicts[path]
    if operand_format not in verdicts:
        trying = f"{device.name}: trying wgmma with {operand_format}, once, for at most {LIMIT} s ... "
        print(trying, end="", file=sys.stderr)
        sys.stderr.flush()
        started = time.monotonic()
        verdicts[operand_format] = _check(device.number, operand_format)
        print(f"{verdicts[operand_format]} ({time.monotonic() - started:.0f} s)", file=sys.stderr)
        cache_file.add(path, "verdicts", _identity(device), {operand_format: verdicts[operand_format]})
    return verdicts[operand_format] == CORRECT


def known_verdicts(device) -> dict[str, str]:
    """The verdicts on this device by format: "right", the fault, or the reason why the check did not finish."""
    return cache_file.read(_path(device), "verdicts", _identity(device))


def _identity(device):
    return {"device": device.name, "driver": device.driver, "compiler": device.compiler, "kernels": digest()}


def _path(device):
    return cache_file.path("wgmma", _identity(device))


def _check(number, operand_format):
    """The verdict of `wgmma_check` on a format, or the reason why the check did not finish."""
    folder = str(Path(__file__).resolve().parents[3])  # of this package, whatever the working directory
    paths = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [*_COMMAND, str(number), operand_format], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, encoding="utf-8", errors="replace", env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"did not finish: no answer within {LIMIT} s"
    finally:
        _end(process)
    for line in output.splitlines():
        if line.startswith(f"{operand_format}: "):
            return line.removeprefix(f"{operand_format}: ")
    if process.returncode < 0:
        return f"did not finish: ended by {signal.Signals(-process.returncode).name}"
    last = (errors.strip().splitlines() or ["it said nothing"])[-1]
    return f"did not finish: exit status {process.returncode}, {last}"


def _end(process):
    """Kill the process and its children if it still runs: it hangs, or the user pressed Ctrl-C."""
    if process.poll() is None:
        with suppress(OSError):  # the process ended just now
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_TIMEOUT)
    process.stdout.close()
    process.stderr.close()
