"""Relative error of each CPU engine's gradient, against NumPy's in float64.

usage: python benchmarks/gradients.py [--size 256] [--seeds 5] [--engines numpy,native-avx2] [--pooling max,avg]

VGG-19 with random weights and its default layers, without total variation, at pictures with added noise. Two errors per
engine: from the exact gradient, and from the exact gradient under the engine's decisions of ReLUs and maxima
(tests/relu_decisions.py), which leaves the rounding of sums alone; with the number of decisions that differ.
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
import relu_decisions


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
    exact = Network(definition, relu_decisions.ReplayBackend())
    layers = relu_decisions.relu_layers(exact, p.style_layers[-1])
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
            errors = []
            replayed_errors = []
            flips = []
            for x, g in zip(pictures, truth, strict=True):
                gradient, maps = run(x, layers)
                replayed, count = relu_decisions.replayed_gradient(reference, maps, x)
                errors.append(distance(gradient, g))
                replayed_errors.append(distance(gradient, replayed))
                flips.append(count)
            decisions = f"{spread(replayed_errors)} with the engine's decisions, of which {spread(flips, 'd')} differ"
            print(f"  {engine:<16}{spread(errors)}; {decisions}", flush=True)


def own_engine(definition, p, pooling, name):
    network = Network(definition, nets.ENGINES[name]())
    own = objective(network, p, pooling=pooling)

    def run(x, layers):
        gradient = network.ops.to_host(own.evaluate(network.ops.asarray(x)))
        return gradient, relu_decisions.feature_maps(own.net, x, layers)

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
            features = style.features(style.x, set(layers))
        return style.x.grad.numpy(), [features[name].numpy() for name in layers]

    return run


def spread(values, form=".1e"):
    """The median with the least and the largest value."""
    low, middle, high = (f"{v:{form}}" for v in (min(values), statistics.median_low(values), max(values)))
    return f"{middle} ({low}, {high})"


if __name__ == "__main__":
    main()
