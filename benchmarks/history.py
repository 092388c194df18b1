"""What L-BFGS history is worth: loss against time for several lengths, on both networks.

usage: python benchmarks/history.py [--size 256] [--iterations 300] [--lengths 5,10,20,50,100] [--networks ...]

The picture starts as the networks' defaults say (VGG-19: the content; wavelets: noise). Losses are relative to the
lowest that any run reached, so 1.00 is the best; seconds are those of the optimiser and the objective together.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from common import CONTENT_LAYERS, STYLE_LAYERS, picture, vgg19, where

from cvstyle import Objective, backends, embedded_network, optimize, zoo
from cvstyle.network import Network

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
        objective, start = problem(network, args.size)
        lengths = [int(n) for n in args.lengths.split(",")]
        curves = {f"history {n}": curve(objective, start, args.iterations, "lbfgs", history=n) for n in lengths}
        curves["adam"] = curve(objective, start, args.iterations, "adam")
        best = min(losses.min() for _, losses in curves.values())
        marks = [m for m in MARKS if m <= args.iterations]
        print(f"\n{network}, {args.size} pixels: loss / best loss after n iterations (seconds)")
        print(f"{'':<14}" + "".join(f"{m:>18}" for m in marks))
        for name, (seconds, losses) in curves.items():
            cells = (f"{losses[: m].min() / best:.3f} ({seconds[m - 1]:.1f})" for m in marks)
            print(f"{name:<14}" + "".join(f"{c:>18}" for c in cells), flush=True)


def problem(network, size):
    """(objective, starting picture) of a style transfer with the network's default weights."""
    content, style = picture(size, 1), picture(size, 2)
    if network == "vgg19":
        net = Network(vgg19(), backends.get())
        layers = {"content_layers": CONTENT_LAYERS, "style_layers": STYLE_LAYERS}
        return Objective(net, content, [style], **layers), content
    net = embedded_network()
    names = ("content_layers", "style_layers", "content_weight", "style_weight", "tv_weight")
    known = zoo.defaults(net.layer_names)
    start = np.random.default_rng(0).standard_normal(content.shape).astype(np.float32) * 1e-3
    return Objective(net, content, [style], **{n: known[n] for n in names if known.get(n) is not None}), start


def curve(objective, start, iterations, optimizer, **options):
    """(seconds, losses) after each iteration."""
    seconds, losses = [], []
    x = objective.ops.asarray(start[None])
    begin = time.perf_counter()

    def report(iteration, x):
        losses.append(objective.loss)
        seconds.append(time.perf_counter() - begin)

    optimize.get(optimizer).minimize(objective, x, iterations, report, **options)
    return np.array(seconds), np.array(losses)


if __name__ == "__main__":
    main()
