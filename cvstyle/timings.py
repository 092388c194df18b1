"""Time of an iteration by steps of the network, forward and backward."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from .graph.fusion import FusedConvolution
from .layers.convolution import Convolution
from .objective import Objective


@dataclass
class Row:
    """One step of a network.

    names: the layers that it computes at once. engine: the implementation, forward and backward. seconds: medians of
    forward and backward. operations: floating point operations of a direct convolution one way, 0 for other layers.
    """

    names: list[str]
    engine: tuple[str, str]
    seconds: tuple[float, float]
    operations: int


class _Timer:
    """A `Program.on_step` that keeps the seconds of every call. wait: a function that waits for arrays."""

    def __init__(self, wait):
        self._wait = wait
        self.seconds = defaultdict(list)  # (step, direction) → seconds
        self.shapes = {}  # step → shape of its first bottom

    def __call__(self, step, direction, function, arrays, *others):
        if direction == "forward":
            self.shapes[step] = arrays[0].shape
        start = time.perf_counter()
        result = function(arrays, *others)
        self._wait(result[0] if direction == "forward" else result)
        self.seconds[step, direction].append(time.perf_counter() - start)
        return result

    def row(self, step):
        engine = ("", "")
        operations = 0
        layer = step.layer.convolution if isinstance(step.layer, FusedConvolution) else step.layer
        if isinstance(layer, Convolution):
            shape = self.shapes[step]
            engine = layer.filters.engine(), layer.filters.engine(backward=True)
            positions = math.prod(layer.top_shapes([shape])[0][2:])
            operations = 2 * math.prod(layer.blob_shapes([shape])[0]) * positions
        medians = [statistics.median(self.seconds[step, way] or [0.0]) for way in ("forward", "backward")]
        return Row(step.layer.names, engine, tuple(medians), operations)


def measure(net, content_layers, style_layers, size, rounds=5) -> tuple[list[Row], float]:
    """(rows in the network's order, seconds of a whole evaluation) on noise of (height, width) `size`.

    A device is waited for after each step, which adds some microseconds to it, and keeps style gradients out of the
    convolutions that they would be part of.
    """
    wait = net.ops.finish
    pictures = np.random.default_rng(0).uniform(-100, 100, (2, 3, *size)).astype(np.float32)
    objective = Objective(net, pictures[0], [pictures[1]], content_layers=content_layers, style_layers=style_layers)
    x = net.ops.asarray(pictures[:1])
    wait([objective.evaluate(x)])  # the first evaluation touches memory and packs filters
    timer = _Timer(wait)
    objective.program.on_step = timer
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        wait([objective.evaluate(x)])
        seconds.append(time.perf_counter() - start)
    return [timer.row(step) for step in objective.program.steps], statistics.median(seconds)
