"""Peak memory and seconds per iteration by the size of the picture: tiles, and one device beside several.

usage: python benchmarks/large.py [--megapixels 2,8,32,64] [--tile-size 1024] [--network distilled|wavelet|vgg19]
                                  [--devices 1,2,2:layers] [--threads N] [--backend native] [--iterations 1]
                                  [--offload FOLDER] [--style-layers relu1,relu2_1]

Each row is a separate process. The optimiser is Adam, whose state is two pictures; pictures are square, with one style
of a megapixel; VGG-19 has random weights. Seconds cover the evaluation and the step of the last iteration. --devices 2:
two devices share the tiles; 2:layers: two devices share the layers. A device is an OpenCL device, or a CPU backend of
--threads threads (default: all; devices that share the tiles divide them equally).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import memory_mb, vgg19, where

from cvstyle import Objective, backends, load_network, zoo
from cvstyle.backends.threads import cpu_count
from cvstyle.graph import Network
from cvstyle.graph.placement import balanced_cuts
from cvstyle.optimize import adam


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", default="2,8,32,64")
    parser.add_argument("--tile-size", type=int, default=1024)
    parser.add_argument("--network", choices=("distilled", "wavelet", "vgg19"), default="distilled")
    parser.add_argument("--backend", default="native")
    parser.add_argument("--devices", default="1")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--offload")
    parser.add_argument("--style-layers", help="these layers and no content (default: the network's)")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args)
    print(where())
    threads = args.threads or "all"
    print(f"{args.network}, {args.backend}, {threads} threads a device, tile {args.tile_size}")
    print("   MP      picture   devices  tiles  peak MB  less pictures  s/iteration   s/MP")
    for size in args.megapixels.split(","):
        for devices in args.devices.split(","):
            subprocess.run([sys.executable, Path(__file__), *sys.argv[1:], "--worker", size, devices], check=True)


def work(args):
    """Print the line of one size on one number of devices."""
    megapixels = float(args.worker[0])
    side = int((megapixels * 1e6) ** 0.5)
    count, _, split = args.worker[1].partition(":")
    count = int(count)
    threads = args.threads or (cpu_count() if split else max(1, cpu_count() // count))
    devices = [_device(args.backend, number, threads) for number in range(count)]
    if args.network == "vgg19":
        net = Network(vgg19(), devices[0])
    else:
        net = load_network(model=args.network, backend=devices[0])
    defaults = zoo.defaults(net.layer_names)
    styles = args.style_layers.split(",") if args.style_layers else defaults["style_layers"]
    contents = [] if args.style_layers else defaults["content_layers"]
    if split:
        names = [str(entry).partition(":")[0] for entry in [*contents, *styles]]
        window = (min(side, args.tile_size),) * 2
        net = net.partition(devices, balanced_cuts(net.program(dict.fromkeys(names)), window, count))
    rng = np.random.default_rng(0)
    content, style = (rng.random((3, n, n), np.float32) * 255 - 115 for n in (side, 1000))
    objective = Objective(
        net, content, [style], content_layers=contents, style_layers=styles, tile_size=args.tile_size,
        devices=devices if count > 1 and not split else None,
        home=backends.host(args.offload) if args.offload else None,
    )  # fmt: skip
    ops = objective.ops
    x = ops.asarray(content[None])
    del content
    state = adam.init(ops, x)
    for _ in range(args.iterations):
        start = time.perf_counter()
        adam.update(ops, x, objective.evaluate(x), state, 1.0)
        float(objective.loss)
        seconds = time.perf_counter() - start
    peak = memory_mb("VmHWM")
    pictures = 4 * 12 * side**2 / 2**20  # picture, gradient, two moments
    print(
        f"{megapixels:5g} {side:>6}×{side:<5} {args.worker[1]:>8} {len(objective.tiles):>6} {peak:>8.0f} "
        f"{peak - pictures:>14.0f} {seconds:>12.1f} {seconds / side**2 * 1e6:>6.2f}", flush=True,
    )  # fmt: skip


def _device(backend, number, threads):
    cls = type(backends.get(backend))
    return cls(threads=threads) if cls.on_host else backends.get(backend, number)


if __name__ == "__main__":
    main()
