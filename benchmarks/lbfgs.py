"""The gain of L-BFGS's history, step limits and preconditioner: loss by iterations and time.

usage: python benchmarks/lbfgs.py [--size 256] [--iterations 300] [--lengths 5,10,20,50,100]
           [--networks vgg19,distilled,wavelet]
       python benchmarks/lbfgs.py --steps [--size 256] [--iterations 60] [--networks distilled]
           [--content FILE --style FILE] [--enlarge] [--starts 4]

The initial picture is the network's default. Losses are relative to the lowest loss of any run, so 1.00 is the best;
seconds cover the optimiser and the objective. --steps compares the reference's steps with cvstyle's. --enlarge starts
from the result at half the size, as the second scale of a run. --starts: the geometric mean over several initial
pictures with different noise (deviation 0.001). Without files, pictures are synthetic.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from common import network_files, objective, problem, where

from cvstyle import images, load_network, optimize
from cvstyle.optimize import lbfgs

MARKS = (5, 10, 15, 20, 25, 30, 50, 60, 100, 200, 300, 500, 1000)
STEPS = {
    "reference": {},
    "not smooth": {**lbfgs.FOR_PICTURES, "precondition": 0.0},
    "smooth 0.25": {**lbfgs.FOR_PICTURES, "precondition": 0.25},
    "cvstyle": lbfgs.FOR_PICTURES,
    "smooth 0.75": {**lbfgs.FOR_PICTURES, "precondition": 0.75},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--lengths", default="5,10,20,50,100")
    parser.add_argument("--networks", default="vgg19,distilled,wavelet")
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--content")
    parser.add_argument("--style")
    parser.add_argument("--enlarge", action="store_true")
    parser.add_argument("--starts", type=int, default=1)
    args = parser.parse_args()
    print(where())
    for network in args.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            net = load_network(*network_files(network, Path(folder)))
        function, start = prepare(net, args, args.size)
        if args.enlarge:
            smaller, x = prepare(net, args, args.size // 2)
            x = smaller.ops.asarray(x[None])
            x = optimize.minimize("lbfgs", smaller, x, 60, **lbfgs.FOR_PICTURES)
            x = smaller.ops.to_host(x)[0].transpose(1, 2, 0)
            start = cv2.resize(x, start.shape[:0:-1]).transpose(2, 0, 1)
        starts = [start]
        if args.starts > 1:
            noise = (np.random.default_rng(seed).standard_normal(start.shape) for seed in range(args.starts))
            starts = [(start + 1e-3 * n).astype(np.float32) for n in noise]
        run = partial(curve, function, starts, args.iterations)
        if args.steps:
            curves = {name: run("lbfgs", **steps) for name, steps in STEPS.items()}
        else:
            lengths = [int(n) for n in args.lengths.split(",")]
            curves = {f"history {n}": run("lbfgs", history=n, **lbfgs.FOR_PICTURES) for n in lengths}
            curves["adam"] = run("adam")
        best = min(losses.min() for _, losses in curves.values())
        marks = [m for m in MARKS if m <= args.iterations]
        print(f"\n{network}, {args.size} pixels: loss / best loss after n iterations (seconds)")
        print(f"{'':<14}{'largest':>9}" + "".join(f"{m:>15}" for m in marks))
        for name, (seconds, losses) in curves.items():
            cells = (f"{losses[:m].min() / best:.3f} ({seconds[m - 1]:.1f})" for m in marks)
            print(f"{name:<14}{losses.max() / best:>9.2g}" + "".join(f"{c:>15}" for c in cells), flush=True)


def prepare(net, args, size):
    """(objective, initial picture) at a size."""
    p = problem(net.layer_names, size)
    if args.content:
        content, style = (read(path, size) for path in (args.content, args.style))
        p = replace(p, content=content, style=style, start=content)
    return objective(net, p), p.start


def read(path, size):
    """The preprocessed picture of a file at a size."""
    rgb = images.read(path).rgb
    return images.preprocess(images.resize(rgb, images.target_size(*rgb.shape[:2], size)))


def curve(function, starts, iterations, optimizer, **options):
    """(seconds, losses) after each iteration, mean and geometric mean over the starts."""
    seconds, losses = np.empty((2, len(starts), iterations))
    for i, start in enumerate(starts):
        x = function.ops.asarray(start[None])
        begin = time.perf_counter()

        def report(iteration, x, i=i, begin=begin):
            losses[i, iteration - 1] = function.loss
            seconds[i, iteration - 1] = time.perf_counter() - begin

        optimize.minimize(optimizer, function, x, iterations, report, **options)
    return seconds.mean(0), np.exp(np.log(losses).mean(0))


if __name__ == "__main__":
    main()
