"""The logic of the wheel's smoke test: which Pythons it finds and chooses, and how it reads pip's output."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile

import pytest
import smoke
from smoke import Interpreter


def write_program(path, text="exit 127"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(stat.S_IRWXU)
    return path


def test_candidates_of_path_and_pyenv(tmp_path):
    names = ["python3", "python3.10", "python3.15", "python3.14t", "pypy3.11"]
    for name in (*names, "python", "python2.7", "python3.9", "python3.12-config", "python3-config", "pydoc3"):
        write_program(tmp_path / "bin" / name)
    for version in ("2.7.18", "3.12.1"):
        write_program(tmp_path / ".pyenv/versions" / version / "bin/python")
    path = os.pathsep.join(["", str(tmp_path / "absent"), str(tmp_path / "bin")])
    found = [str(one.relative_to(tmp_path)) for one in smoke.candidates({"PATH": path}, tmp_path)]
    assert sorted(found[:-2]) == sorted(f"bin/{name}" for name in names)
    assert found[-2:] == [f".pyenv/versions/{version}/bin/python" for version in ("2.7.18", "3.12.1")]
    assert smoke.candidates({"PYENV_ROOT": str(tmp_path / "other")}, tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")
def test_probe(tmp_path):
    answer = "echo 'CPython free-threaded'; echo 3 14 2; echo /opt/python"
    found = smoke.probe(write_program(tmp_path / "python3", answer))
    assert found == Interpreter("CPython free-threaded", (3, 14, 2), "/opt/python")
    assert smoke.probe(write_program(tmp_path / "shim")) is None
    assert smoke.probe(write_program(tmp_path / "talkative", "echo Welcome")) is None
    assert smoke.probe(tmp_path / "absent") is None
    ours = subprocess.check_output([sys.executable, "-c", smoke.PROBE], text=True).splitlines()
    assert ours[1:] == [" ".join(map(str, sys.version_info[:3])), sys.executable]


def test_one_of_each_implementation_and_version_is_chosen():
    newest, older, oldest, pypy, threaded = (
        Interpreter("CPython", (3, 12, 10), "a"), Interpreter("CPython", (3, 12, 9), "b"),
        Interpreter("CPython", (3, 10, 0), "c"), Interpreter("PyPy", (3, 12, 1), "d"),
        Interpreter("CPython free-threaded", (3, 12, 10), "e"),
    )  # fmt: skip
    too_old = Interpreter("CPython", (3, 9, 18), "f")
    chosen = smoke.choose([older, newest, pypy, too_old, oldest, threaded, newest])
    assert chosen == [oldest, newest, threaded, pypy]
    assert smoke.choose([too_old]) == []


NO_WHEEL = """
ERROR: Could not find a version that satisfies the requirement numpy>=1.24 (from cvstyle) (from versions: none)
ERROR: No matching distribution found for numpy>=1.24 (from cvstyle)
"""
CONFLICT = """
ERROR: Cannot install scipy because these package versions have conflicting dependencies.

Additionally, some packages in these conflicts have no matching distributions available for your environment:
    numpy

To fix this you could try to:
"""
RETRY = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/numpy/\n"
UNREACHABLE = "error: connection-failed\n\n× Failed to connect to index.example while fetching https://index.example/numpy"
UNSUPPORTED = "ERROR: cvstyle-0.1.0-cp311-cp311-linux_x86_64.whl is not a supported wheel on this platform.\n"


@pytest.mark.parametrize(
    ("output", "missing", "offline"),
    [
        (NO_WHEEL, "numpy>=1.24", False),
        (CONFLICT, "numpy", False),
        (RETRY + NO_WHEEL, None, True),
        (UNREACHABLE, None, True),
        (UNSUPPORTED, None, False),
    ],
    ids=["no wheel", "conflict", "retry", "unreachable", "unsupported"],
)
def test_reasons_of_pip(output, missing, offline):
    assert smoke.missing_wheel(output) == missing
    assert smoke.is_offline(output) is offline


def fail(monkeypatch, at, output):
    """Let every command succeed at once but the one that contains a word."""

    def run(*command, **_):
        if at in command:
            raise smoke.CommandError(command, output)
        return ""

    monkeypatch.setattr(smoke, "run", run)


@pytest.mark.parametrize(
    ("at", "output", "state", "lines"),
    [
        ("nothing", "", "OK", ["C engine compiled"]),
        ("install", NO_WHEEL, "left out", ["no wheel of numpy>=1.24 for this Python"]),
        ("install", UNSUPPORTED, "FAILED", ["install", "is not a supported wheel"]),
        ("venv", "no ensurepip", "FAILED", ["-m venv", "no ensurepip"]),
        ("devices", NO_WHEEL, "FAILED", ["cvstyle devices", "No matching distribution"]),
        ("check", "AssertionError: numpy.png is constant", "FAILED", ["smoke.py check", "numpy.png is constant"]),
    ],
    ids=["good", "no wheel", "unsupported", "venv", "command", "check"],
)
def test_outcome_of_one_python(monkeypatch, capsys, tmp_path, at, output, state, lines):
    fail(monkeypatch, at, output)
    python = Interpreter("CPython", (3, 12, 10), "/opt/python")
    assert smoke.attempt(python, tmp_path / "cvstyle.whl", "pip", ["native", "numpy"]) == state
    printed = capsys.readouterr().out
    assert printed.startswith(f"CPython 3.12.10  {state}") and all(line in printed for line in lines)
    assert len(printed.splitlines()) == 1 or state == "FAILED"


@pytest.mark.parametrize(
    ("states", "status"), [(["OK", "left out"], 0), (["OK", "FAILED"], 1), (["left out", "left out"], 1)]
)
def test_exit_status_and_absent_versions(monkeypatch, capsys, tmp_path, states, status):
    wheel = tmp_path / "cvstyle.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("cvstyle/backends/native/_engine.so", b"")
    seen = []
    monkeypatch.setattr(smoke, "build", lambda _: (wheel, "pip"))
    monkeypatch.setattr(smoke, "candidates", lambda *_: [10, 12])
    monkeypatch.setattr(smoke, "probe", lambda minor: Interpreter("CPython", (3, minor, 0), str(minor)))

    def attempt(python, backends, **_):
        seen.append(backends)
        return states[python.version[1] > 10]

    monkeypatch.setattr(smoke, "attempt", attempt)
    assert smoke.main() == status
    assert capsys.readouterr().out == "not on this machine: 3.11, 3.13, 3.14\n"
    assert seen == [["native", "numpy"]] * 2


@pytest.mark.parametrize(("output", "status"), [(RETRY + NO_WHEEL, 0), ("error: no setup.py", 1)])
def test_a_wheel_that_cannot_be_built(monkeypatch, capsys, output, status):
    fail(monkeypatch, "wheel", output)
    monkeypatch.setattr(smoke, "candidates", lambda *_: [])
    assert smoke.main() == status
    printed = capsys.readouterr().out
    assert output in printed if status else printed.splitlines() == [printed.strip()]
