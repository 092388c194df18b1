"""Whether wgmma is right here: what is tried, the process that it is tried in, and what is kept of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import fake_cupy
import numpy as np
import ptx
import pytest

from cvstyle import backends, paths
from cvstyle.backends.device import compiler, conv_tensor_cores, mma, operands, wgmma_check, wgmma_verdict

TILE = mma.WGMMA_BLOCKS[-1]


@pytest.fixture
def hopper(monkeypatch):
    """Backends of one word and two on a GPU that runs CUDA's code on the CPU, where a verdict decides."""
    fake_cupy.install(monkeypatch, ptx.Device())
    monkeypatch.setenv("CVSTYLE_WGMMA", "")
    return [backends.get("cuda", precision=precision) for precision in ("fp16-fast", "fp16")]


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The cache, in a new folder; nothing is known."""
    monkeypatch.setattr(paths, "cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(wgmma_verdict, "_verdicts", {})
    return tmp_path / "cache"


class Child:
    """In place of `wgmma_check`: a script, which counts how often it is run."""

    def __init__(self, monkeypatch, tmp_path, code):
        self.log = tmp_path / "runs"
        count = f"open({str(self.log)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')"
        command = (sys.executable, "-c", f"import os, signal, subprocess, sys, time\n{count}\n{code}")
        monkeypatch.setattr(wgmma_verdict, "_COMMAND", command)

    @property
    def runs(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


# What is tried


def test_the_kernel_is_right(hopper):
    assert wgmma_check.examine(*hopper, (TILE,), [((64, 3, 17), 16)], 1) == "right"
    for ops, expected in zip(hopper, (4, 1)):  # forward and without mask, of bits, with a style's, of winners; forward
        assert len({defines for name, _, defines in ops._kernels._kernels if name == "cuda/convolution"}) == expected


@pytest.mark.parametrize("old, new, ops, name", [
    ('"r"((a).y), "r"((a).z)', '"r"((a).z), "r"((a).y)', "fp16-fast", "a product"),
    ("if (SPLIT && r < SIDE) PRODUCT", "if (0) PRODUCT", "fp16", "a product"),
    ("((mark)&1u << ((column)&15)) != 0", "((mark)&1u << ((column)&7)) != 0", "fp16-fast", "a ReLU's gradient"),
    ("((mark) == (((row)&1) * 2 + ((column)&1)))", "((mark) == (((row)&1) + ((column)&1)))", "fp16-fast",
     "a pool's gradient"),
    ("a[0] = now;", "a[0] = ahead;", "fp16-fast", "a style's gradient with it"),
], ids=["fragments", "second word", "bits", "winners", "another chunk"])  # fmt: skip
def test_a_mistake_is_named(hopper, monkeypatch, old, new, ops, name):
    sources = compiler.source
    assert old in sources("cuda/convolution")
    monkeypatch.setattr(compiler, "source", lambda name: sources(name).replace(old, new))
    monkeypatch.setattr(wgmma_check, "_SPLITS", (1,))
    verdict = wgmma_check.examine(*hopper, (TILE,), [((64, 3, 17), 16)], 1)
    assert verdict.startswith(f"wrong: tile {TILE}, 1 share, {name}, {ops}: ")


@pytest.mark.parametrize("shape, outputs", wgmma_check.CASES)
def test_sums_are_exact_in_float32(shape, outputs):
    """Whole numbers below 2^24, in part not those of one word: 8, 11 and 11 bits."""
    for long in (False, True):
        found = wgmma_check._layer(wgmma_check.Exact("float64"), (shape[0], 9, 12), outputs, long)()
        assert max(np.abs(array).max() for array in found.values()) < 1 << 23
        assert all(np.array_equal(array, np.round(array)) for array in found.values())
    assert found.keys() == {"a product", "a ReLU", "a ReLU with bits", "a pool"}


def test_each_word_is_a_line(monkeypatch, capsys):
    monkeypatch.setattr(wgmma_check, "get", lambda *arguments: arguments)
    monkeypatch.setattr(wgmma_check, "examine", lambda one, two: "right" if two[2] == "fp16" else f"wrong: {one}")
    assert wgmma_check.main(["1", "fp16"]) == 0
    assert wgmma_check.main(["1", "bf16", "fp16"]) == 1
    lines = ["fp16: right", "bf16: wrong: ('cuda', '1', 'bf16-fast')", "fp16: right"]
    assert capsys.readouterr().out.splitlines() == lines


# The process


@pytest.mark.parametrize("code, verdict", [
    ("print('fp16: right')", "right"),
    ("print('fp16: wrong: 3 of 4 numbers'); sys.exit(1)", "wrong: 3 of 4 numbers"),
    ("time.sleep(600)", "did not finish: no answer within 2 s"),
    ("os.kill(os.getpid(), signal.SIGSEGV)", "did not finish: ended by SIGSEGV"),
    ("sys.exit('no GPU')", "did not finish: exit status 1, no GPU"),
    ("print('bf16: right')", "did not finish: exit status 0, it said nothing"),
], ids=["right", "wrong", "hangs", "crashes", "fails", "another word"])  # fmt: skip
def test_a_verdict_is_asked_for_once(hopper, folder, monkeypatch, tmp_path, capsys, code, verdict):
    child = Child(monkeypatch, tmp_path, code)
    monkeypatch.setattr(wgmma_verdict, "LIMIT", 2)
    device = hopper[0].device
    assert wgmma_verdict.known_verdicts(device) == {}
    for _ in range(2):
        assert wgmma_verdict.is_correct(device, "fp16") == (verdict == "right")
        monkeypatch.setattr(wgmma_verdict, "_verdicts", {})  # as in a new process
    assert wgmma_verdict.known_verdicts(device) == {"fp16": verdict}
    assert child.runs == ["0 fp16"]
    said = capsys.readouterr().err.splitlines()
    line = f"Fake GPU 0: trying wgmma with fp16, once, for at most 2 s ... {verdict} ("
    assert len(said) == 1 and said[0].startswith(line)
    monkeypatch.setattr(device, "driver", "another")
    wgmma_verdict.is_correct(device, "fp16")
    assert len(child.runs) == 2


def test_what_hangs_ends_with_all_that_it_started(hopper, folder, monkeypatch, tmp_path):
    started = tmp_path / "started"
    code = f"p = subprocess.Popen(['sleep', '600']); open({str(started)!r}, 'w').write(str(p.pid)); time.sleep(600)"
    Child(monkeypatch, tmp_path, code)
    monkeypatch.setattr(wgmma_verdict, "LIMIT", 3)
    assert not wgmma_verdict.is_correct(hopper[0].device, "fp16")
    grandchild = int(started.read_text())
    for _ in range(100):
        with open(f"/proc/{grandchild}/stat") if os.path.exists(f"/proc/{grandchild}") else open(os.devnull) as file:
            state = file.read().rpartition(")")[2].split()[:1]
        if state in ([], ["Z"]):  # gone, or waiting for whoever adopted it
            break
        time.sleep(0.05)
    else:
        os.kill(grandchild, signal.SIGKILL)
        raise AssertionError("it still runs")


def test_a_cache_that_cannot_be_written(hopper, monkeypatch, tmp_path):
    """The verdict holds for this process."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(paths, "cache", lambda: tmp_path / "file" / "cache")
    monkeypatch.setattr(wgmma_verdict, "_verdicts", {})
    child = Child(monkeypatch, tmp_path, "print('fp16: right')")
    assert wgmma_verdict.is_correct(hopper[0].device, "fp16") and wgmma_verdict.is_correct(hopper[1].device, "fp16")
    assert child.runs == ["0 fp16"] and wgmma_verdict.known_verdicts(hopper[0].device) == {}


def test_a_process_reads_the_file_once(hopper, folder, monkeypatch, tmp_path):
    """A convolution asks each time that it is launched."""
    child = Child(monkeypatch, tmp_path, "print('fp16: right')")
    assert wgmma_verdict.is_correct(hopper[0].device, "fp16")
    monkeypatch.setattr(wgmma_verdict, "known_verdicts", None)
    assert wgmma_verdict.is_correct(hopper[0].device, "fp16") and child.runs == ["0 fp16"]


@pytest.mark.parametrize("content", ["", "[]", '{"for": 1}', '{"for": {}, "verdicts": {"fp16": "right"}}'])
def test_a_damaged_file_is_nothing_known(hopper, folder, content):
    device = hopper[0].device
    kept = {"for": wgmma_verdict._identity(device), "verdicts": {"fp16": "right"}}
    paths.write(wgmma_verdict._path(device), json.dumps(kept).encode())
    assert wgmma_verdict.known_verdicts(device) == {"fp16": "right"}
    wgmma_verdict._path(device).write_text(content)
    assert wgmma_verdict.known_verdicts(device) == {}


def test_the_module_says_why_it_cannot_run(hopper, folder, monkeypatch):
    """By the real command, in a process that sees no GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not wgmma_verdict.is_correct(hopper[0].device, "fp16")
    verdict = wgmma_verdict.known_verdicts(hopper[0].device)["fp16"]
    assert verdict.startswith("did not finish: exit status 1, ") and "cannot be used here" in verdict


# Who is asked, and who sees it


def test_tiles_are_candidates_where_the_verdict_is_right(hopper, folder, monkeypatch, tmp_path):
    """And where ways are timed; with CVSTYLE_WGMMA=0 nothing is asked, nor for a Gram gradient."""
    child, ops = Child(monkeypatch, tmp_path, "print(sys.argv[2] + ': right' * (sys.argv[2] == 'fp16'))"), hopper[0]

    def offered(ops, side=3):
        shape = conv_tensor_cores._shape(ops, 32, (4, 5), 32, side, operands.PackedFilters(None, None))
        return any(way.block.wgmma for way in mma.ranked_algorithms(*shape))

    assert not ops.autotune and not offered(ops) and not child.runs
    ops.autotune = True
    assert not offered(ops, side=1) and not child.runs
    assert offered(ops) and child.runs == ["0 fp16"]
    other = backends.get("cuda", precision="bf16")
    other.autotune = True
    assert not offered(other) and child.runs == ["0 fp16", "0 bf16"]
    monkeypatch.setenv("CVSTYLE_WGMMA", "0")
    off = backends.get("cuda", precision="tf32")
    off.autotune = True
    assert not offered(off) and len(child.runs) == 2


def test_devices_show_what_is_known(hopper, folder, monkeypatch, tmp_path, capsys):
    from cvstyle.cli import main

    child = Child(monkeypatch, tmp_path, "print('fp16: right')")
    assert main(["devices"]) == 0 and "wgmma" not in capsys.readouterr().out
    wgmma_verdict.is_correct(hopper[0].device, "fp16")
    assert main(["devices"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert any("0: Fake GPU 0" in line and line.endswith("wgmma with fp16: right") for line in out)
    assert child.runs == ["0 fp16"]
