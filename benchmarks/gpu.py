"""Milliseconds per L-BFGS iteration of VGG-19 on a GPU, and the memory it takes.

usage: python benchmarks/gpu.py [--backend cuda] [--sizes 256,512] [--iterations 50]

VGG-19 with random weights, 4:3 pictures, content relu4_2, style relu1_1 ... relu5_1, history 100. Each size runs once
to compile and to begin the history, then three times, each timed between two synchronisations; the median counts. The
TFLOP/s are those of direct convolutions.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

from common import VGG19, objective, problem, vgg19, where

from cvstyle import backends
from cvstyle.network import Network
from cvstyle.optimize import lbfgs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device")
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--iterations", type=int, default=50)
    args = parser.parse_args()
    definition = vgg19()
    print(where())
    for size in map(int, args.sizes.split(",")):
        ops = backends.get(args.backend, args.device)
        net = Network(definition, ops)
        p = problem(net.layer_names, size)
        function, x = objective(net, p), ops.asarray(p.start[None])
        state = lbfgs.init(ops, x)
        measured = [seconds(ops, function, x, state, n) for n in (args.iterations, *[args.iterations] * 3)][1:]
        each = statistics.median(measured) / args.iterations
        parts = {name: seconds_of(ops, run) for name, run in {
            "objective": lambda: function.evaluate(x), "forward": lambda: function._program.forward(x),
        }.items()}  # fmt: skip
        history = state.steps.nbytes + state.changes.nbytes
        print(
            f"{ops.device.name}, {size}×{size * 3 // 4}: {each * 1e3:.2f} ms per iteration "
            f"({min(measured) / args.iterations * 1e3:.2f} to {max(measured) / args.iterations * 1e3:.2f}), "
            f"forward {parts['forward'] * 1e3:.2f} ms, forward and backward {parts['objective'] * 1e3:.2f} ms, "
            f"{2 * products(size, size * 3 // 4) / parts['objective'] / 1e12:.1f} TFLOP/s; memory "
            f"{ops.pool.allocated / 1e6:.0f} MB: {ops.weights / 1e6:.0f} filters, {history / 1e6:.0f} history, "
            f"{(ops.pool.allocated - ops.weights - history) / 1e6:.0f} beside them; loss {function.loss:.6g}"
        )


def seconds(ops, function, x, state, iterations):
    ops.device.synchronize()
    start = time.perf_counter()
    for _ in range(iterations):
        lbfgs.update(ops, x, function.evaluate(x), state, 1.0)
    ops.device.synchronize()
    return time.perf_counter() - start


def seconds_of(ops, run, repeats=10):
    """Median seconds of a call, with the wait for the device."""
    times = []
    for _ in range(repeats):
        ops.device.synchronize()
        start = time.perf_counter()
        run()
        ops.device.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def products(width, height):
    """Multiply-adds of one forward and backward pass up to relu5_1."""
    total, channels, positions = 0, 3, width * height
    for outputs, count in VGG19[:-1]:
        for _ in range(count):
            total += 2 * 9 * channels * outputs * positions
            channels = outputs
        positions = math.ceil(positions / 4)
    return total + 2 * 9 * channels * VGG19[-1][0] * positions


if __name__ == "__main__":
    main()
