"""What L-BFGS history is worth: loss against time for several lengths, on both networks.

usage: python benchmarks/history.py [--size 256] [--iterations 300] [--lengths 5,10,20,50,100] [--networks ...]

The picture starts as the networks' defaults say (VGG-19: the content; wavelets: noise). Losses are relative to the
lowest that any run reached, so 1.00 is the best; seconds are those of the optimiser and the objective together.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from common import network_files, objective, problem, where

from cvstyle import load_network, optimize
from cvstyle.optimize import lbfgs

MARKS = (25, 50, 100, 200, 300, 500, 1000)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--lengths", default="5,10,20,50,100")
    parser.add_argument("--networks", default="vgg19,wavelets")
    args = parser.parse_args()
    print(where())
    for network in args.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            net = load_network(*network_files(network, Path(folder)))
        p = problem(net.layer_names, args.size)
        function = objective(net, p)
        lengths = [int(n) for n in args.lengths.split(",")]
        run = partial(curve, function, p.start, args.iterations)
        curves = {f"history {n}": run("lbfgs", history=n, **lbfgs.STEPS) for n in lengths}
        curves["adam"] = run("adam")
        best = min(losses.min() for _, losses in curves.values())
        marks = [m for m in MARKS if m <= args.iterations]
        print(f"\n{network}, {args.size} pixels: loss / best loss after n iterations (seconds)")
        print(f"{'':<14}" + "".join(f"{m:>18}" for m in marks))
        for name, (seconds, losses) in curves.items():
            cells = (f"{losses[: m].min() / best:.3f} ({seconds[m - 1]:.1f})" for m in marks)
            print(f"{name:<14}" + "".join(f"{c:>18}" for c in cells), flush=True)


def curve(function, start, iterations, optimizer, **options):
    """(seconds, losses) after each iteration."""
    seconds, losses = [], []
    x = function.ops.asarray(start[None])
    begin = time.perf_counter()

    def report(iteration, x):
        losses.append(function.loss)
        seconds.append(time.perf_counter() - begin)

    optimize.get(optimizer).minimize(function, x, iterations, report, **options)
    return np.array(seconds), np.array(losses)


if __name__ == "__main__":
    main()
