"""Steps by other programs: the compiler, whole runs, tests; see measure.py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import network_files, objective, problem
from measure import ROOT, Settings

from cvstyle import images, optimize
from cvstyle.backends.device import dry_run
from cvstyle.graph import Network
from cvstyle.optimize import lbfgs


def compile(s: Settings, emit):
    """All that an evaluation and two iterations at these sizes need, tuning included. Several precisions: at once."""
    if "," in s.configuration:
        command = [sys.executable, str(Path(__file__).parent), "one", "compile"]
        each = [{**vars(s), "configuration": p} for p in s.configuration.split(",")]
        subprocess.Popen([sys.executable, "-c", "import torch"])  # its libraries are read before it is timed
        children = [subprocess.Popen([*command, json.dumps(settings)]) for settings in each]  # their rows are ours
        sys.exit(max([child.wait() for child in children]))
    ops, start = s.ops(), time.perf_counter()
    for name, definition in s.nets():
        needed = {}
        for size in s.sizes:
            needed.update(dict.fromkeys(dry_run.kernels_needed(ops, lambda other: briefly(other, definition, size))))
        listed = time.perf_counter() - start
        compiled = ops.prepare(needed)
        emit({
            "for": f"{s.configuration}, {name}", "sources": len(needed), "compiled anew": compiled,
            "dry run, s": listed, "seconds": time.perf_counter() - start,
        })  # fmt: skip


def briefly(ops, definition, size):
    """Two iterations."""
    p = problem([d.name for d in definition.layers], size)
    function = objective(Network(definition, ops), p)
    optimize.minimize("lbfgs", function, ops.asarray(p.start[None]), 2, **lbfgs.FOR_PICTURES)


def files(s: Settings, emit):
    """A prototxt and a caffemodel for whole runs, and pictures of 4:3."""
    start = time.perf_counter()
    network_files("vgg19", Path(s.scratch), classifier=False, divisor=s.narrow)
    for name in ("content", "style"):
        rgb = images.read(str(ROOT / f"models/demo/{name}.jpg")).rgb
        height, width = rgb.shape[:2]
        images.write(str(s.at(f"{name}.png")), rgb[:, : height * 4 // 3][: width * 3 // 4])
    emit({"what": "written", "seconds": time.perf_counter() - start})


def runs(s: Settings, emit):
    """The command as a user gives it, from start to end."""
    command = [
        sys.executable, "-m", "cvstyle", "run", "--backend", "cuda", "--precision", s.configuration,
        "--proto", s.at("vgg19.prototxt"), "--model", s.at("vgg19.caffemodel"), "--content", s.at("content.png"),
        "--style", s.at("style.png"), "--image-size", "64" if s.dry else "512", "--num-iterations",
        "5" if s.dry else "500", "--seed", "1", "--output", s.at(f"run-{s.configuration}.png"),
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    seconds = time.perf_counter() - start
    print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    emit({"seconds": seconds, "said": said[-1] if said else ""})
    sys.exit(done.returncode)


def tests(s: Settings, emit):
    """A program and its last line, with the launches of the chosen tests; for "memcheck" compute-sanitizer watches it.
    Where nothing is computed no test has passed, and the launches are the whole result."""
    command, watched = s.command, "not watched: compute-sanitizer is not here"
    if s.configuration == "memcheck":
        found = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
        if found:
            command, watched = [found, "--tool", "memcheck", "--error-exitcode", "9", *command], "watched"
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    print(done.stdout, file=sys.stderr)
    lines = [line for line in done.stdout.splitlines() if line.strip()] or [""]
    launched = [line for line in lines if line.startswith("On ")]
    results = {"memcheck": f"{lines[-1]} ({watched})", "listing": "; ".join(launched)}
    emit({"result": results.get(s.configuration, "; ".join((lines[-1], *launched)))})
    sys.exit(done.returncode)


def wgmma(s: Settings, emit):
    """Every line of the check of wgmma: a format and its verdict."""
    done = subprocess.run(s.command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    print(done.stdout, file=sys.stderr)
    for word, _, verdict in (line.partition(": ") for line in done.stdout.splitlines() if line.strip()):
        emit({"what": word, "result": verdict})
    sys.exit(done.returncode)
