"""That tests leave the user's cache alone, and what `make gpu-quick` runs of them on a GPU (the marker `gpu`)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nvrtc
import pytest

from cvstyle import paths
from cvstyle.backends.device.tuning import Choices


class Nothing:
    name, driver, multiprocessors, errors = "no device", "1", 1, ()
    synchronize = staticmethod(lambda: None)


def test_the_users_cache_is_left_alone():
    """What is measured here goes to a temporary folder, in programs that tests start as well."""
    choices = Choices(Nothing, "digest", seconds=lambda work: 1.0)
    choices.pick(("x",), ["a", "b"], lambda candidate: None)
    command = [sys.executable, "-c", "from cvstyle import paths; print(paths.cache())"]
    started = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert choices.path.parent == paths.cache() == Path(started)
    assert choices.path.is_file() and paths.cache().is_relative_to(tempfile.gettempdir())
    assert not paths.cache().is_relative_to(Path(os.path.expanduser("~"), ".cache"))


def run(*arguments, backend):
    """What a program prints, on a backend for tests (CVSTYLE_TEST_BACKEND), from the repository's root."""
    root = Path(__file__).resolve().parents[1]
    environment = os.environ | {"CVSTYLE_TEST_BACKEND": backend, "PYTHONPATH": str(root)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True).stdout


def needs_compiler():
    if nvrtc.library() is None:
        pytest.skip("CUDA's compiler is not installed")


def test_the_chosen_tests_launch_every_kernel(monkeypatch, tmp_path):
    """Counted on a device that computes nothing and has an H200's size; a compilation there takes about half a second.

    Without assertions, for whatever is compared is wrong there.
    """
    files = [f"tests/test_{name}.py" for name in ("opencl", "gathering", "winograd", "tensor")]
    monkeypatch.setenv("CVSTYLE_TEST_VARIANTS", str(tmp_path / "variants.json"))
    said = run("-O", "-m", "pytest", "--assert=plain", "-p", "no:cacheprovider", "-m", "gpu", *files, backend="nothing")
    found = re.search(r"On nothing: (\d+) of (\d+) kernels in (\d+) variants, (\d+) launches", said)
    assert found and "not launched" not in said and " failed" not in said, said
    assert int(found[4]) <= 5000
    variants = json.loads((tmp_path / "variants.json").read_text("utf-8"))
    assert len(variants) == int(found[3]) <= 100
    assert ["cuda/gram", [["PRECISION", 2]]] in variants


def test_what_they_need_is_compiled_beforehand(monkeypatch, tmp_path):
    needs_compiler()
    path = tmp_path / "variants.json"
    path.write_text(json.dumps([["copy", []], ["cuda/pack", [["PRECISION", 2]]]]), "utf-8")
    monkeypatch.setenv("CVSTYLE_TEST_VARIANTS", str(path))
    chosen = ("-m", "gpu", "-k", "copy", "tests/test_opencl.py")
    said = run("-m", "pytest", "-p", "no:cacheprovider", *chosen, backend="ptx")
    assert re.search(r"launches, 2 of 2 compiled beforehand in \d+\.\d s", said) and " failed" not in said, said


def test_the_program_for_memcheck():
    """On the CPU, which sees accesses outside of arrays as well."""
    needs_compiler()
    *cases, end = run("tests/memcheck.py", backend="ptx").splitlines()
    assert [line.split(": ")[0] for line in cases] == ["fp32 18×10", "fp16 17×9", "fp32 11×33 in tiles of 26"]
    assert end == "all is well"
