"""The exact gradient under another engine's ReLU and max-pooling decisions.

A float32 gradient differs from the float64 one for two reasons: its sums are rounded, and a ReLU or a maximum closer
than the rounding may be decided differently, after which the gradient takes another path through the network.
`ReplayBackend` computes in float64 with an engine's decisions, which isolates the first reason.
"""

from __future__ import annotations

import numpy as np

from cvstyle.backends import reference
from cvstyle.backends.reference import pooling


class ReplayBackend(reference.Backend):
    """NumPy in float64 whose ReLUs (slope 0) and max pools decide as the maps of another engine.

    maps: the engine's outputs of all ReLUs, (1, C, H, W), in the order of the forward pass; None: own decisions.
    flips: decisions that differ from the own ones.
    """

    def __init__(self, threads=None):
        super().__init__("float64", threads)
        self.maps = None
        self.flips = 0
        self._next = 0

    def relu(self, x, slope=0.0, out=None):
        if self.maps is None:
            return super().relu(x, slope, out)
        on = self.maps[self._next] > 0
        self._next += 1
        self.flips += np.count_nonzero(on != (x > 0))
        return np.multiply(x, on, out=out), np.packbits(on)

    def max_pool(self, x, kernel, stride, pad, output):
        y, winner = super().max_pool(x, kernel, stride, pad, output)
        if self.maps is None:
            return y, winner
        # A maximum that is not positive lies behind a ReLU that is off, so its gradient is zero either way.
        replayed = super().max_pool(np.array(self.maps[self._next - 1], x.dtype), kernel, stride, pad, output)[1]
        self.flips += np.count_nonzero((replayed != winner) & (y > 0))
        windows = pooling.windows(self._padded(x, kernel, stride, pad, output, -np.inf), kernel, stride, output)
        return np.choose(replayed, list(windows)), replayed


def relu_layers(network, last):
    """Names of the ReLU layers up to the layer `last`, in order."""
    names = [node.definition.name for node in network.nodes if node.definition.type == "ReLU"]
    return names[: names.index(last) + 1]


def feature_maps(network, x, layers):
    """Outputs of the named layers of a float32 network at a picture (1, 3, H, W)."""
    features = network.program(layers).forward(network.ops.asarray(x), needs_grad=False)
    return [network.ops.to_host(features[name]) for name in layers]


def replayed_gradient(objective, maps, x):
    """(gradient of an objective on a `ReplayBackend` at x (1, 3, H, W), number of decisions that differ).

    maps: an engine's outputs of the ReLUs that the objective runs, in order.
    """
    ops = objective.ops
    ops.maps = maps
    ops.flips = 0
    ops._next = 0
    try:
        return np.array(objective.evaluate(ops.asarray(x.astype(ops.dtype)))), ops.flips
    finally:
        ops.maps = None
