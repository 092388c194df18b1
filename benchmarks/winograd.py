"""Winograd convolution on a device: the error by interpolation points, and the time beside the direct kernel's.

usage: python benchmarks/winograd.py [--size 256] [--rounds 1] [--backend opencl] [--no-times]

The first table is emulated on the host in float32: one convolution of 512 channels, relative norm of the difference
from float64, for rectified and for signed inputs. The second table is VGG-19 with random weights, content relu4_2 and
style relu1_1 to relu5_1: milliseconds forward and backward of every convolution with its ReLU and pool, and of the
whole evaluation, medians of --rounds, first with the direct kernel everywhere, then with the estimate's choice. PoCL
runs on unknown processors as in the tests.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from common import distance, vgg19, where

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import pocl

from cvstyle import backends, timings
from cvstyle.backends.device import algorithms, convolution, winograd
from cvstyle.graph import Network

POINTS = {
    "F(2×2): 0, ±1, ∞": (2, (0, 1, -1)),
    "F(4×4): 0, ±1, ±2, ∞": (4, (0, 1, -1, 2, -2)),
    "F(4×4): 0, ±1, 1/2, −2, ∞": (4, (0, 1, -1, 0.5, -2)),
    "F(4×4): 0, ±√½, ±√2, ∞": (4, (0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))),
    "F(4×4): 0, ±2/3, ±3/2, ∞": (4, (0, 2 / 3, -2 / 3, 1.5, -1.5)),
    "F(4×4): 0, ±5/8, ±3/2, ∞": (4, (0, 0.625, -0.625, 1.5, -1.5)),
    "F(6×6): 0, ±1, ±2, ±1/2, ∞": (6, (0, 1, -1, 2, -2, 0.5, -0.5)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--backend", default="opencl")
    parser.add_argument("--no-times", action="store_true")
    args = parser.parse_args()
    print(where())
    errors()
    if not args.no_times:
        pocl.prepare()
        times(args)


def errors(channels=512, tiles=300):
    """Print the table of errors."""
    print("\n| | rectified | signed |\n| --- | --- | --- |")
    rows = {name: [] for name in ("direct", *POINTS)}
    for rectified in (True, False):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((tiles, channels, 8, 8), dtype=np.float32)
        x = np.maximum(x, 0) if rectified else x
        weight = rng.standard_normal((channels, 3, 3), dtype=np.float32) * np.float32((2 / 9 / channels) ** 0.5)
        exact, direct = (np.zeros((tiles, 6, 6), kind) for kind in (np.float64, np.float32))
        for c in range(channels):
            for i in range(3):
                for j in range(3):
                    exact += weight[c, i, j].astype(float) * x[:, c, i : i + 6, j : j + 6]
                    direct += weight[c, i, j] * x[:, c, i : i + 6, j : j + 6]
        rows["direct"].append(distance(direct, exact))
        for name, (m, points) in POINTS.items():
            rows[name].append(distance(by_winograd(x[:, :, : m + 2, : m + 2], weight, m, points), exact[:, :m, :m]))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{error:.1e}" for error in row) + " |")


def by_winograd(x, weight, m, points):
    """One tile of m×m outputs from each (channels, m + 2, m + 2) of x, in float32 except the filters' transform."""
    points = np.array(points, float)
    n = m + 2
    filters = winograd.evaluation(points)
    inputs = np.zeros((n, n))
    for i in range(n - 1):
        inputs[i, : n - 1] = np.poly(np.delete(points, i))[::-1]
    inputs[-1] = np.poly(points)[::-1]
    outputs = np.hstack([points ** np.arange(m)[:, None], np.eye(m)[:, m - 1 :]])
    u = np.einsum("ia,cab,jb->cij", filters, weight.astype(float), filters).astype(np.float32)
    v = both_sides(inputs, x)
    sums = np.zeros((len(x), n, n), np.float32)
    for c in range(len(u)):
        sums += u[c] * v[:, c]
    return both_sides(outputs, sums)


def both_sides(matrix, x):
    """matrix · x · matrixᵀ, with the sums of float32 numbers in order."""
    for _ in range(2):
        rows = []
        for row in matrix.astype(np.float32):
            terms = [row[j] * x[..., j, :] for j in np.flatnonzero(row)]
            rows.append(sum(terms[1:], terms[0]))
        x = np.stack(rows, -1)  # transposes, too
    return x


def times(args):
    """Print the table of times."""
    ops = backends.get(args.backend)
    ops.autotune = False
    size = args.size * 3 // 4, args.size
    net = Network(vgg19(), ops)
    style = [f"relu{block}_1" for block in range(1, 6)]
    plans = lambda *shape, blocks=0, **options: algorithms.best_algorithm(*shape, **options), algorithms.best_algorithm
    results = []
    for plan in plans:
        convolution.best_algorithm = plan
        results.append(timings.measure(net, ["relu4_2"], style, size, args.rounds))
    print(f"\n{ops.device.name}, {ops.device.multiprocessors} units, {size[1]}×{size[0]}\n")
    print("| layer | direct, ms: forward, backward | by estimate | forward by | backward by |\n" + "| --- " * 5 + "|")
    for direct, chosen in zip(results[0][0], results[1][0], strict=True):
        if direct.operations:
            cells = ("{:.0f}, {:.0f}".format(*(1e3 * t for t in row.seconds)) for row in (direct, chosen))
            print(f"| {direct.names[0]} | " + " | ".join((*cells, *chosen.engine)) + " |")
    whole = [seconds for _, seconds in results]
    print(f"\nThe whole evaluation: {whole[0]:.2f} s and {whole[1]:.2f} s, ratio {whole[0] / whole[1]:.2f}")


if __name__ == "__main__":
    main()
