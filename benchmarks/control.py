"""Seconds per iteration and peak memory of every control option beside a run without it, alternating in one run.

usage: python benchmarks/control.py [--networks vgg19,distilled] [--size 512] [--rounds 9] [--only PATTERN]

Each case is a separate process with a run of one scale on the CPU, 4:3, with default layers and weights, beside a
process without options; the two take turns, one iteration at a time, and the case's factor is the median of the
quotients of neighbouring turns. VGG-19 has random weights.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from common import memory_mb, network_files, where

PAUSE = 0.2  # seconds between turns, since another process's idle threads may spin


def quarters(height: int, width: int) -> np.ndarray:
    """A picture (H, W, 3) of four colours, one for each quarter."""
    colours = np.uint8([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]])
    return colours.repeat(height // 2, 0).repeat(width // 2, 1)


def halves(height: int, width: int) -> list[np.ndarray]:
    """Two masks (H, W), the left half and the right."""
    left = np.zeros((height, width), np.uint8)
    left[:, : width // 2] = 255
    return [left, 255 - left]


_SOURCES = 2  # style pictures of every case, blended where there are no regions
_CASES = {  # case: a function of the (height, width) → settings
    "none": lambda size: {},
    "strength 0.5": lambda size: {"strength": 0.5},
    "two regions": lambda size: {"mask": halves(*size)},
    "four regions": lambda size: {"mask": [quarters(*size)], "style_mask": [quarters(*size)] * _SOURCES},
    "two regions, inside": lambda size: {"mask": halves(*size), "mask_mode": "inside"},
    "color content": lambda size: {"color": "content"},
    "color match": lambda size: {"color": "match"},
    "color luminance": lambda size: {"color": "luminance"},
    "style loss covariance": lambda size: {"style_loss": "covariance"},
    "style loss shifted": lambda size: {"style_loss": "shifted"},
    "style loss wasserstein": lambda size: {"style_loss": "wasserstein"},
    "style layers all": lambda size: {"style_layers": "all"},
    "style layers falling": lambda size: {"style_layers": "falling"},
    "laplacian": lambda size: {"laplacian": 10},
    "wrap xy": lambda size: {"wrap": "xy"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="vgg19,distilled")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="*")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(*args.worker)
    print(f"{where()}, {args.size}×{args.size * 3 // 4}\n")
    with tempfile.TemporaryDirectory() as folder:
        for network in args.networks.split(","):
            files = network_files(network, Path(folder))
            print(f"{network:<26}{'seconds':>10}{'against none':>16}{'MB':>8}{'against none':>16}")
            for case in filter(lambda name: fnmatch(name, args.only), _CASES):
                seconds, factor, peak, base = measure(files, case, args.size, args.rounds)
                print(f"{case:<26}{seconds:>10.3f}{factor:>15.2f}×{peak:>8.0f}{peak - base:>+13.0f} MB", flush=True)
            print()


def measure(files, case, size, rounds):
    """(median seconds per iteration, median quotient, peak MB, peak MB without options)."""
    cases = ["none", case]
    processes = [
        subprocess.Popen(
            [sys.executable, Path(__file__), "--worker", *files, name, str(size)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in cases
    ]  # fmt: skip
    try:
        for process in processes:
            ask(process, "ready")
        turns = []
        for _ in range(rounds):
            turns.append([])
            for process in processes:
                time.sleep(PAUSE)
                turns[-1].append(ask(process, "step"))
        base, peak = (ask(process, "peak") for process in processes)
    finally:
        for process in processes:
            process.stdin.close()
            process.wait()
    factors = [own / none for none, own in turns]
    return statistics.median(own for _, own in turns), statistics.median(factors), peak, base


def ask(process, question) -> float:
    """The number that a worker answers."""
    process.stdin.write(question + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def work(proto, model, case, size):
    """Answer "ready" (after two iterations), "step" (seconds of one iteration) and "peak" (MB)."""
    from cvstyle import Job, Options

    longest = int(size)
    height = longest * 3 // 4
    rng = np.random.default_rng(1)
    content, *styles = (rng.integers(0, 256, (height // 8, longest // 8, 3), np.uint8) for _ in range(1 + _SOURCES))
    content, *styles = (picture.repeat(8, 0).repeat(8, 1) for picture in (content, *styles))
    options = Options(
        image_size=longest, num_iterations=1000, seed=1, **_CASES[case]((height, longest)),
    )  # fmt: skip
    run = Job(content, styles, proto, model, options).start()
    for _ in range(2):
        next(run)
    for question in map(str.strip, sys.stdin):
        if question == "peak":
            answer = memory_mb("VmHWM")
        elif question == "step":
            started = time.perf_counter()
            next(run)
            answer = time.perf_counter() - started
        else:
            answer = 0.0
        print(answer, flush=True)


if __name__ == "__main__":
    sys.exit(main())
