"""Relative error of each CPU engine's gradient, against NumPy's in float64.

usage: python benchmarks/gradients.py [--size 256] [--seeds 5] [--engines numpy,native-avx2] [--pooling max,avg]

VGG-19 with random weights and its default layers, no total variation, at pictures with noise on them. Two errors each:
against the exact gradient, and against the exact gradient along the engine's own choices of ReLUs and maxima
(tests/turns.py), which leaves the rounding of sums alone; and how many choices differ.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import distance, objective, picture, problem, vgg19, where

from cvstyle.graph import Network

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import nets
import turns


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--engines", default=",".join([*nets.ENGINES, "torch"]))
    parser.add_argument("--pooling", default="max,avg")
    args = parser.parse_args()
    engines = args.engines.split(",")
    if "torch" in engines and importlib.util.find_spec("torch") is None:
        engines.remove("torch")
    print(where())
    definition = vgg19()
    p = problem([d.name for d in definition.layers], args.size)
    p.tv_weight = 0.0
    exact = Network(definition, turns.Following())
    layers = turns.relus(exact, p.style_layers[-1])
    pictures = [
        (picture(args.size, seed) + np.random.default_rng(seed).normal(0, 20, p.content.shape)).astype(np.float32)[None]
        for seed in range(1, args.seeds + 1)
    ]
    for pooling in args.pooling.split(","):
        reference = objective(exact, p, pooling=pooling)
        truth = [np.array(reference.evaluate(exact.ops.asarray(x.astype(np.float64)))) for x in pictures]
        print(f"\n{pooling} pooling: median (least, most) of {args.seeds}")
        for engine in engines:
            make = torch_engine if engine == "torch" else own_engine
            run = make(definition, p, pooling, engine)
            plain, along, turned = [], [], []
            for x, g in zip(pictures, truth, strict=True):
                found, maps = run(x, layers)
                followed, count = turns.gradient_along(reference, maps, x)
                plain.append(distance(found, g))
                along.append(distance(found, followed))
                turned.append(count)
            choices = f"{spread(along)} along its own choices, of which {spread(turned, 'd')} differ"
            print(f"  {engine:<16}{spread(plain)}; {choices}", flush=True)


def own_engine(definition, p, pooling, name):
    network = Network(definition, nets.ENGINES[name]())
    own = objective(network, p, pooling=pooling)

    def run(x, layers):
        return network.ops.to_host(own.evaluate(network.ops.asarray(x))), turns.maps(own.net, x, layers)

    return run


def torch_engine(definition, p, pooling, _):
    import torch
    from peer_torch import TorchStyle

    method = {"pool": "AVE" if pooling == "avg" else "MAX"}
    layers = tuple(
        replace(d, params={**d.params, **method}) if d.type == "Pooling" else d for d in definition.layers
    )
    style = TorchStyle(replace(definition, layers=layers), p)

    def run(x, layers):
        style.x.data = torch.from_numpy(x.copy())
        style.closure()
        with torch.no_grad():
            found = style.features(style.x, set(layers))
        return style.x.grad.numpy(), [found[name].numpy() for name in layers]

    return run


def spread(values, form=".1e"):
    low, middle, high = (f"{v:{form}}" for v in (min(values), statistics.median_low(values), max(values)))
    return f"{middle} ({low}, {high})"


if __name__ == "__main__":
    main()
