"""A check of the rule that chooses an engine for each convolution: every layer by every engine of the native backend.

usage: python benchmarks/engines.py [--networks vgg19,distilled,wavelet] [--sizes 256,512] [--rounds 5] [--all]

Each convolution with a ReLU, forward and backward, on random input of the layer's size; one thread, the least processor
time of --rounds, which other programs disturb little. A row is printed where the rule's engine is more than 3 % slower
than the best (--all: every row); the last line compares the sums.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from common import network_files, where

from cvstyle import load_network, zoo
from cvstyle.backends import native
from cvstyle.backends.base import RELU
from cvstyle.backends.native import general, winograd
from cvstyle.layers.convolution import Convolution
from cvstyle.losses import parse_layer

ENGINES = ("Winograd", "product", "few")
_RULE = general._MAX_FEW, winograd._MIN_CHANNELS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="vgg19,distilled,wavelet")
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    ops = native.Backend(threads=1)
    print(where(), f"{ops.variant}, one thread", sep=", ")
    for network in args.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            net = load_network(*network_files(network, Path(folder)), ops)
            for size in map(int, args.sizes.split(",")):
                compare(net, network, size, args)


def compare(net, network, size, args):
    """Print the table of a network at a size."""
    print(f"\n{network} {size}×{size * 3 // 4}, milliseconds")
    print(f"{'layers':<34}{'':<10}{'Winograd':>10}{'product':>10}{'few':>10}  the rule's")
    sums = [0.0, 0.0]
    for names, definition, shape in convolutions(net, (size * 3 // 4, size)):
        for backward in (False, True):
            times = {e: best(definition, shape, backward, e, args.rounds) for e in ENGINES}
            times = {engine: t for engine, t in times.items() if t is not None}
            rule = chosen(definition, shape, backward)
            least = min(times.values())
            sums[0] += len(names) * times[rule]
            sums[1] += len(names) * least
            if args.all or times[rule] > 1.03 * least:
                cells = "".join(f"{times[e]:>10.3f}" if e in times else f"{'':>10}" for e in ENGINES)
                direction = "backward" if backward else "forward"
                more = f" + {len(names) - 1}" if len(names) > 1 else ""
                ratio = f" ({times[rule] / least:.2f} of the best)" if times[rule] > least else ""
                print(f"{names[0] + more:<34}{direction:<10}{cells}  {rule}{ratio}", flush=True)
    print(f"all: the rule {sums[0]:.1f} ms, the best for each {sums[1]:.1f} ms: {sums[0] / sums[1]:.3f}")


def convolutions(net, size):
    """(names, layer, input shape) of every distinct convolution below the default layers."""
    defaults = zoo.defaults(net.layer_names)
    used = [parse_layer(name)[0] for kind in ("content_layers", "style_layers") for name in defaults[kind]]
    program = net.program(used)
    shapes = program.all_shapes(size, 3)
    distinct = {}
    for index in program.indices:
        layer = net.layer(index)
        if isinstance(layer, Convolution):
            shape = shapes[net.nodes[index].bottoms[0]]
            key = layer.kernel, layer.stride, layer.dilation, layer.group, layer.num_output, layer.pad, shape
            distinct.setdefault(key, ([], layer, shape))[0].append(layer.name)
    return list(distinct.values())


def chosen(layer, shape, backward):
    """The engine that the rule chooses, one of ENGINES."""
    name = filters(layer, shape).engine(backward)
    return next(short for short in ENGINES if short in name)


def filters(layer, shape):
    """A convolution like the layer's with random weights."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((layer.num_output, shape[1] // layer.group, *layer.kernel), dtype=np.float32)
    bias = np.zeros(layer.num_output, np.float32)
    return layer.ops.convolution(weight, bias, layer.stride, layer.dilation, layer.group)


def best(layer, shape, backward, engine, rounds):
    """The least milliseconds of the engine, or None where the engine cannot compute the convolution."""
    ops = layer.ops
    general._MAX_FEW = _RULE[0] if engine == "few" else 0
    winograd._MIN_CHANNELS = 1 if engine == "Winograd" else 1 << 30
    try:
        own = filters(layer, shape)
        outputs = (own.inputs if backward else own.outputs) // own.group
        is_winograd = isinstance(own, winograd.WinogradConvolution)
        if (engine == "Winograd") != is_winograd or (engine == "few" and outputs > _RULE[0]):
            return None
        x = ops.asarray(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
        y, mask = own.forward(x, layer.pad, RELU)
        times = []
        for _ in range(rounds):
            g = ops.copy(y)
            start = time.process_time()
            result = own.backward(g, shape[2:], layer.pad, mask) if backward else own.forward(x, layer.pad, RELU)
            times.append(time.process_time() - start)
            del result
        return 1e3 * min(times)
    finally:
        general._MAX_FEW, winograd._MIN_CHANNELS = _RULE


if __name__ == "__main__":
    main()
