"""The report of a GPU (benchmarks/gpu), whose steps fail, hang and die here as they may on a GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks/gpu")]

from parts import PRECISIONS, quick  # noqa: E402
from report import Column, Report, Section  # noqa: E402
from schedule import Part, Runner, Step, Stop  # noqa: E402

TABLE = Section("A table", (Column("what"), Column("ms", ".1f"), Column("note")))
STEPS = """
import json, os, signal, sys, time
settings = json.loads(sys.argv[3])
def emit(**values):
    print("\\x1e" + json.dumps(values), flush=True)
print("noise | of a library", flush=True)
kind = settings["configuration"]
if kind == "right":
    emit(ms=1.25)
    emit(ms=2, note="a|b")
elif kind == "wrong":
    emit(ms=3.0)
    raise ValueError("a kernel is wrong")
elif kind == "hangs":
    emit(ms=4.0)
    if os.fork() == 0:
        open(settings["pid"], "w").write(str(os.getpid()))
        time.sleep(600)
    time.sleep(600)
elif kind == "dies":
    os.kill(os.getpid(), signal.SIGSEGV)
elif kind == "sleeps":
    time.sleep(2)
elif kind == "environment":
    emit(note=os.environ["CVSTYLE_WGMMA"])
"""


@pytest.fixture
def runner(tmp_path):
    (tmp_path / "steps.py").write_text(STEPS)
    report = Report(tmp_path / "out", "gpu-test")
    settings = {"pid": str(tmp_path / "pid")}
    return Runner(report, {"table": TABLE}, settings, [sys.executable, str(tmp_path / "steps.py")])


def step(kind, limit=20.0, **options):
    return Step("table", kind, limit, 1, **options)


def content(report):
    return json.loads(report.path("json").read_text("utf-8"))


def test_rows_are_written_in_order_and_noise_goes_to_the_log(runner):
    runner.run([Part(1, "First", 60, [step("right")]), Part(2, "Second", 60, [step("right")])])
    text = runner.report.path("md").read_text("utf-8")
    assert text.index("## 1. First") < text.index("| right | 1.2 |  |") < text.index("## 2. Second")
    assert "| right | 2.0 | a\\|b |" in text
    assert text.count("**A table**") == 2  # one under each heading
    assert "noise" not in text and "noise" in runner.report.path("log").read_text("utf-8")
    assert [(r["what"], r["ms"]) for r in content(runner.report)["rows"]] == [("right", 1.25), ("right", 2)] * 2
    assert not runner.left and not content(runner.report)["faults"]


def test_what_fails_hangs_or_dies_takes_nothing_with_it(runner, tmp_path):
    steps = [step("wrong"), step("hangs", 3), step("dies"), step("right")]
    runner.run([Part(1, "All", 60, steps)])
    found = content(runner.report)
    assert [r.get("ms") for r in found["rows"]] == [
        3.0, "left out: exit status 1", 4.0, "left out: stopped after 3 s", "left out: ended by SIGSEGV", 1.25, 2,
    ]  # fmt: skip
    assert "ValueError: a kernel is wrong" in found["faults"][0]["text"]  # the traceback
    assert "ValueError: a kernel is wrong" in runner.report.path("md").read_text("utf-8")
    assert gone(int((tmp_path / "pid").read_text()))  # what it had started as well


def test_time_that_is_left_over_serves_later_parts(runner):
    runner.run([Part(1, "Quick", 60, [step("right")]), Part(2, "None of its own", 0, [step("right")])])
    assert len(content(runner.report)["rows"]) == 4 and not runner.left


def test_what_does_not_fit_into_the_time_is_left(runner):
    runner.run([Part(1, "Too long", 5, [step("hangs"), step("right")]), Part(2, "No time", 0, [step("right")])])
    assert content(runner.report)["rows"][1]["ms"] == "left out: stopped after 5 s"
    assert [(number, s.configuration) for number, s in runner.left] == [(1, "right"), (2, "right")]


def test_nothing_goes_on_where_a_vital_step_fails(runner):
    parts = [Part(1, "First", 60, [step("wrong", vital=True), step("right")]), Part(2, "Second", 60, [step("right")])]
    with pytest.raises(Stop):
        runner.run(parts)
    assert len(content(runner.report)["faults"]) == 1
    assert [(number, s.configuration) for number, s in runner.left] == [(1, "right"), (2, "right")]


def test_steps_have_an_environment_of_their_own(runner):
    runner.run([Part(1, "One", 60, [step("environment", environment={"CVSTYLE_WGMMA": "7"})])])
    assert content(runner.report)["rows"][0]["note"] == "7"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_in_the_middle_leaves_a_report_that_can_be_read(tmp_path, how):
    (tmp_path / "steps.py").write_text(STEPS)
    program = f"""
        import sys, signal
        sys.path[:0] = [{str(ROOT / "tests")!r}, {str(ROOT / "benchmarks/gpu")!r}]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        from test_gpu_report import *
        runner = Runner(
            Report(Path({str(tmp_path)!r}), "gpu-test"), {{"table": TABLE}}, {{"pid": {str(tmp_path / "pid")!r}}},
            [sys.executable, {str(tmp_path / "steps.py")!r}],
        )
        runner.run([Part(1, "One", 60, [step("right"), step("hangs", 60), step("right")])])
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    report = tmp_path / "gpu-test.md"
    while not (report.exists() and "hangs" in report.read_text("utf-8") and (tmp_path / "pid").exists()):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(timeout=60)
    rows = json.loads((tmp_path / "gpu-test.json").read_text("utf-8"))["rows"]
    assert [r["ms"] for r in rows] == [1.25, 2, 4.0]
    assert "| hangs | 4.0 |" in report.read_text("utf-8")
    if how == signal.SIGTERM:
        assert gone(int((tmp_path / "pid").read_text()))
    else:  # nobody is left to end what the step itself had started
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def gone(number):
    """Whether a process has ended, or is about to."""
    for _ in range(100):
        try:
            if Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_the_quick_parts_fit_into_eight_minutes():
    parts = quick(dry=False)
    assert [part.number for part in parts] == [1, 2, 3, 4, 5, 6, 7]
    assert sum(part.limit for part in parts) == 480
    assert all(part.expected <= part.limit for part in parts)
    assert all(s.why and s.expected <= s.limit for part in parts for s in part.steps)
    timed = [s.configuration for s in parts[1].steps if s.section == "iterations"]
    assert sorted(timed) == sorted(PRECISIONS) == sorted(s.configuration for s in parts[1].steps if s.section == "runs")


def stand_in(**variables):
    """The environment of a process that finds a CuPy (tests/standin)."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/standin'}", **variables}


@pytest.mark.parametrize("section, precision, rows", [
    ("compile", "fp16", 1), ("layers", "fp16", 13), ("layers", "fp32", 13), ("iterations", "fp16", 2),
])  # fmt: skip
def test_steps_at_their_own_sizes_on_a_gpu_that_does_nothing(tmp_path, section, precision, rows):
    """Which minds that what is recorded stays as it was, and that nothing is compiled or given back meanwhile."""
    settings = {"configuration": precision, "sizes": [512, 1024], "networks": ["VGG-19"], "scratch": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/gpu"), "one", section, json.dumps(settings)], text=True,
        env=stand_in(CVSTYLE_STANDIN="idle", XDG_CACHE_HOME=str(tmp_path)), capture_output=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line[1:]) for line in done.stdout.split("\n") if line.startswith("\x1e")]
    assert len(found) == rows and "left out" not in done.stdout


def test_the_whole_of_it_over_a_stand_in(tmp_path):
    """make gpu-quick, small: what PoCL can compute has numbers, what is NVIDIA's alone is a line that says why not."""
    command = [sys.executable, str(ROOT / "benchmarks/gpu"), "quick", "--dry", "--narrow", "16", "--minutes", "80"]
    done = subprocess.run(
        command, env=stand_in(OUT=str(tmp_path)), capture_output=True, text=True, cwd=ROOT, timeout=900
    )
    (path,) = tmp_path.glob("gpu-*.json")
    found, text = json.loads(path.read_text("utf-8")), path.with_suffix(".md").read_text("utf-8")
    report = done.stdout + done.stderr
    faults = {f["what"].partition(":")[0] for f in found["faults"]}
    rows = {}
    for row in found["rows"]:
        rows.setdefault(row["table"], []).append(row)
    assert [line[3] for line in text.splitlines() if line.startswith("## ") and line[3].isdigit()] == list("1234567")
    (first,) = rows["One evaluation against NumPy in float64"]
    assert first["error of the gradient"] < 1e-4 and first["replayed"] < 1e-4 and first["recorded"] == "yes", report
    timed = {(r["precision"], r["size"]) for r in rows["Iterations of L-BFGS"] if isinstance(r.get("ms"), float)}
    assert timed == {("fp32", "48×36"), ("fp32", "64×48")}
    assert rows["Gradients against float64"][0]["error"] < 1e-4
    (large,) = rows["One evaluation of a large picture, in tiles"]
    assert large["tiles"] > 1 and 0.8 < large["planned, MB"] / large["taken, MB"] < 1.2
    assert any("passed" in r["result"] for r in rows["Tests of the kernels against NumPy"])
    assert not any(fault.startswith(("first", "files", "iterations, fp32", "runs", "largest")) for fault in faults)
    assert "iterations, fp16" not in faults  # it says why not, in a row
    assert "does not compile" in rows["Iterations of L-BFGS"][-1]["spread"]
    assert "Fake GPU" in text and "no figure here is that of a GPU" in text
    assert list(tmp_path.glob("gpu-*-pictures.jpg"))
