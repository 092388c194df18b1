"""Seconds per L-BFGS iteration and peak memory: cvstyle's backends beside plain PyTorch, alternating in one run.

usage: python benchmarks/iteration.py [--sizes 256,512] [--rounds 5] [--engines opencv,numpy,torch]

Each engine is a process of its own, so that its memory is its own; they take turns, one iteration at a time. VGG-19
with random weights, 4:3 pictures, content relu4_2, style relu1_1 ... relu5_1, history 100.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import CONTENT_LAYERS, STYLE_LAYERS, memory_mb, picture, vgg19, where


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", default="native,opencv,numpy,torch")
    parser.add_argument("--worker", nargs=2, metavar=("ENGINE", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker[0], int(args.worker[1]))
    engines = args.engines.split(",")
    if "torch" in engines and importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed (pip install torch==2.13.0); its column is left out")
        engines.remove("torch")
    print(where())
    print(f"\n{'size':>9}  " + "  ".join(f"{e:>24}" for e in engines))
    for size in map(int, args.sizes.split(",")):
        measured = measure(engines, size, args.rounds)
        base = measured["torch"][0] if "torch" in measured else None
        cells = []
        for engine in engines:
            seconds, peak = measured[engine]
            ratio = f" ({base / seconds:.2f}×)" if base and engine != "torch" else ""
            cells.append(f"{seconds:.2f} s{ratio}, {peak:.0f} MB")
        print(f"{size}×{size * 3 // 4:<5}  " + "  ".join(f"{c:>24}" for c in cells), flush=True)
    print("\nMedian seconds per iteration (in brackets: PyTorch's time divided by it) and peak resident memory.")


def measure(engines, size, rounds):
    """engine -> (median seconds per iteration, peak resident MB); the first iteration of each is not counted."""
    processes = {
        engine: subprocess.Popen(
            [sys.executable, Path(__file__), "--worker", engine, str(size)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for engine in engines
    }  # fmt: skip
    times = {engine: [] for engine in engines}
    for engine in engines:
        ask(processes[engine], "ready")
    for turn in range(rounds + 1):
        for engine in engines:
            seconds = float(ask(processes[engine], "step"))
            if turn:
                times[engine].append(seconds)
    peaks = {engine: float(ask(processes[engine], "peak")) for engine in engines}
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return {engine: (statistics.median(times[engine]), peaks[engine]) for engine in engines}


def ask(process, what):
    process.stdin.write(what + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("a worker died; see its message above")
    return answer


def work(engine, size):
    """The worker: answers "ready", "step" (seconds) and "peak" (MB) on standard output."""
    step = torch_step(size) if engine == "torch" else cvstyle_step(engine, size)
    for line in sys.stdin:
        if line.strip() == "step":
            start = time.perf_counter()
            step()
            print(time.perf_counter() - start, flush=True)
        else:
            print(memory_mb("VmHWM"), flush=True)


def torch_step(size):
    from peer_torch import TorchStyle

    return TorchStyle(size).step


def cvstyle_step(backend, size):
    from cvstyle import Objective, backends
    from cvstyle.network import Network
    from cvstyle.optimize import lbfgs

    net = Network(vgg19(), backends.get(backend))
    objective = Objective(
        net, picture(size, 1), [picture(size, 2)], content_layers=CONTENT_LAYERS, style_layers=STYLE_LAYERS
    )
    x = net.ops.asarray(picture(size, 1)[None])
    state = lbfgs.init(net.ops, x)

    def step():
        gradient = objective.evaluate(x)
        lbfgs.update(net.ops, x, gradient, state, 1.0)
        return objective.loss

    return step


if __name__ == "__main__":
    main()
