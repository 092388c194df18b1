"""Where the time of an iteration goes: every layer, forward and backward, and the losses."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field

import numpy as np

from .layers.convolution import Convolution
from .objective import Objective


@dataclass
class Row:
    """One step of a network.

    names: the layers that it does at once. engine: what runs it, forward and backward. seconds: medians of forward and
    backward. operations: floating point operations of a direct convolution one way, 0 for other layers.
    """

    names: list[str]
    engine: tuple[str, str]
    seconds: tuple[float, float]
    operations: int


@dataclass
class _Timed:
    """A layer whose calls are timed."""

    layer: object
    wait: object
    seconds: tuple[list, list] = field(default_factory=lambda: ([], []))
    shape: tuple[int, ...] = ()

    def forward(self, bottoms, keep, overwrite):
        self.shape = bottoms[0].shape
        start = time.perf_counter()
        tops, backward = self.layer.forward(bottoms, keep, overwrite)
        self.wait(tops)
        self.seconds[0].append(time.perf_counter() - start)

        def timed(g):
            begin = time.perf_counter()
            gradients = backward(g)
            self.wait(gradients)
            self.seconds[1].append(time.perf_counter() - begin)
            return gradients

        return tops, timed

    def row(self):
        engine, operations = ("", ""), 0
        convolution = _convolution(self.layer)
        if convolution is not None:
            filters = convolution.filters
            engine = filters.engine(), filters.engine(backward=True)
            positions = math.prod(convolution.top_shapes([self.shape])[0][2:])
            operations = 2 * math.prod(convolution.blob_shapes([self.shape])[0]) * positions
        medians = tuple(statistics.median(s) if s else 0.0 for s in self.seconds)
        return Row(self.layer.names, engine, medians, operations)


def _convolution(layer):
    """The convolution in a layer that may be fused, or None."""
    while hasattr(layer, "rectified"):
        layer = layer.rectified
    layer = getattr(layer, "convolution", layer)
    return layer if isinstance(layer, Convolution) and hasattr(layer.filters, "engine") else None


def measure(net, content_layers, style_layers, size, rounds=5) -> tuple[list[Row], float]:
    """(rows in the network's order, seconds of a whole evaluation) on noise of (height, width) `size`.

    A device is waited for after each step, which adds some microseconds to it, and keeps style gradients out of the
    convolutions that they would be part of.
    """
    wait = net.ops.finish if net.ops.asynchronous else lambda arrays: None
    pictures = np.random.default_rng(0).uniform(-100, 100, (2, 3, *size)).astype(np.float32)
    objective = Objective(net, pictures[0], [pictures[1]], content_layers=content_layers, style_layers=style_layers)
    program = objective.program
    program._steps = [(node, _Timed(layer, wait)) for node, layer in program._steps]
    x, whole = net.ops.asarray(pictures[:1]), []
    for turn in range(rounds + 1):
        start = time.perf_counter()
        wait([objective.evaluate(x)])
        whole.append(time.perf_counter() - start)
        if not turn:  # the first touches memory and packs filters
            whole.clear()
            for _, timed in program._steps:
                timed.seconds = ([], [])
    return [timed.row() for _, timed in program._steps], statistics.median(whole)
