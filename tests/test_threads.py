"""Several threads on one network or program at once: each result has the bits of the result computed alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import nets
import numpy as np
import pytest

from cvstyle import Objective
from cvstyle.graph import Network, Region

SIZES = (81, 96), (81, 96), (340, 50)  # two alike share prepared calls; the blocks of the longest are offset
ROUNDS = 4
GRAPHS = {
    "vgg": (nets.vgg(19, 8, (64, 64), classifier=False), ["relu1_1", "relu3_2", "relu4_1"]),
    "googlenet": (nets.googlenet(8, (64, 64)), ["conv1/7x7_s2", "inception_3b/output", "inception_4a/output"]),
    "resnet": (nets.resnet50(8, (64, 64)), ["conv1", "res2a", "res3b"]),
}


def pictures(size, seed):
    return np.random.default_rng(seed).normal(0, 50, (1, 3, *size)).astype(np.float32)


def results(program, x):
    """The outputs' maps and the gradient of half the sum of their squares, on the host."""
    ops = program.ops
    features = program.forward(ops.asarray(x), region=Region((0, 0), x.shape[2:]))
    maps = {name: ops.to_host(features[name]) for name in program.outputs}

    def add(name, gradient):
        own = ops.copy(features.pop(name))
        return own if gradient is None else ops.add_scaled(gradient, 1, own)

    return [*maps.values(), ops.to_host(features.backward(add))]


def at_once(functions):
    """The results of functions that start together, each in a thread of its own."""
    barrier = threading.Barrier(len(functions))

    def run(function):
        barrier.wait(60)
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


def assert_bits(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shared", ["network", "program"])
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("engine", nets.ENGINES)
def test_pictures_at_once(engine, graph, shared):
    """Layers are made, and filters packed, while all threads ask for them."""
    definition, outputs = GRAPHS[graph]
    images = [pictures(size, seed) for seed, size in enumerate(SIZES)]
    ops = nets.ENGINES[engine](threads=2)
    expected = [results(Network(definition, ops).program(outputs), x) for x in images]
    network = Network(definition, ops)
    program = network.program(outputs) if shared == "program" else None

    def repeat(x):
        own = program or network.program(outputs)
        return [results(own, x) for _ in range(ROUNDS)]

    for found, alone in zip(at_once([lambda x=x: repeat(x) for x in images]), expected):
        for each in found:
            assert_bits(each, alone)


@pytest.mark.parametrize("engine", [*nets.ENGINES, "float64", "device"])
def test_objectives_at_once(engine, request):
    """Losses and gradients, scalars of the picture's own loss among them; on a device an evaluation has the lock."""
    if engine == "device":
        ops = request.getfixturevalue("device")
    else:
        ops = nets.Backend("float64", threads=2) if engine == "float64" else nets.ENGINES[engine](threads=2)
    network = Network(GRAPHS["vgg"][0], ops)
    images = [pictures(size if engine != "device" else (40, 48), seed)[0] for seed, size in enumerate(SIZES)]
    settings = {"content_layers": ["relu2_2"], "style_layers": ["relu1_1", "relu2_1"]}
    objectives = [Objective(network, x + 9, [x[:, ::-1].copy()], **settings) for x in images]

    def evaluate(objective, x):
        with ops.lock:
            loss, gradient = objective(x)
        return np.array(loss), gradient

    expected = [evaluate(*each) for each in zip(objectives, images)]
    repeats = [lambda pair=pair: [evaluate(*pair) for _ in range(ROUNDS)] for pair in zip(objectives, images)]
    for found, alone in zip(at_once(repeats), expected):
        for each in found:
            assert_bits(each, alone)
