"""What `selfcheck` found on this machine: asked once, in a process of its own, and kept in a file of the user's cache.

A process, because what is in doubt may hang, or leave the GPU's context broken: that ends with the process. The file is
one for each device, driver, compiler and state of the kernels; without it, it is asked again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from . import kept
from .compiler import digest

RIGHT = "right"
LIMIT = 120  # seconds, most of them for the compiler
_COMMAND = (sys.executable, "-m", "cvstyle.backends.device.selfcheck")
_ENDING = 5  # seconds for a process that was killed; a hanging driver may need longer, which is not waited for
_found: dict[Path, dict[str, str]] = {}  # by this process


def is_right(device, word: str) -> bool:
    """Whether this device may use wgmma with this word (`tensor.WORDS`); asks where it is not known yet."""
    path = _path(device)
    if path not in _found:
        _found[path] = known(device)
    verdicts = _found[path]
    if word not in verdicts:
        print(f"{device.name}: trying wgmma with {word}, once, for at most {LIMIT} s ... ", end="", file=sys.stderr)
        sys.stderr.flush()
        started = time.monotonic()
        verdicts[word] = _examined(device.number, word)
        print(f"{verdicts[word]} ({time.monotonic() - started:.0f} s)", file=sys.stderr)
        kept.add(path, "verdicts", _identity(device), {word: verdicts[word]})
    return verdicts[word] == RIGHT


def known(device) -> dict[str, str]:
    """The verdicts on this device by word: "right", what was wrong, or that it did not finish."""
    return kept.read(_path(device), "verdicts", _identity(device))


def _identity(device):
    return {"device": device.name, "driver": device.driver, "compiler": device.compiler, "kernels": digest()}


def _path(device):
    return kept.path("wgmma", _identity(device))


def _examined(number, word):
    """What `selfcheck` says of a word, or that it did not finish, and why."""
    folder = str(Path(__file__).resolve().parents[3])  # where it is imported from, whatever the working directory
    paths = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [*_COMMAND, str(number), word], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        encoding="utf-8", errors="replace", env={**os.environ, "PYTHONPATH": paths}, start_new_session=True,
    )  # fmt: skip
    try:
        said, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"did not finish: no answer within {LIMIT} s"
    finally:
        _end(process)
    for line in said.splitlines():
        if line.startswith(f"{word}: "):
            return line.removeprefix(f"{word}: ")
    if process.returncode < 0:
        return f"did not finish: ended by {signal.Signals(-process.returncode).name}"
    last = (errors.strip().splitlines() or ["it said nothing"])[-1]
    return f"did not finish: exit status {process.returncode}, {last}"


def _end(process):
    """Kill it and what it started, where it still runs: it hangs, or somebody pressed Ctrl-C."""
    if process.poll() is None:
        with suppress(OSError):  # it ended just now
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING)
    process.stdout.close()
    process.stderr.close()
