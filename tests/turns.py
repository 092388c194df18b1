"""The exact gradient along another engine's turns.

A gradient in float32 differs from float64's for two reasons: its sums are rounded, and a ReLU or a maximum whose
choice is closer than rounding may turn, after which the gradient takes another way through the network. `Following`
computes in float64 with the choices that an engine makes, so that the first is seen alone.
"""

from __future__ import annotations

import numpy as np

from cvstyle.backends import reference
from cvstyle.backends.reference import pooling


class Following(reference.Backend):
    """NumPy in float64 whose ReLUs (slope 0) and max pools choose as `maps` do, where there are any.

    maps: an engine's outputs of all ReLUs, (1, C, H, W), in the order of the forward pass; or None.
    """

    def __init__(self, threads=None):
        super().__init__("float64", threads)
        self.maps, self._next, self.turned = None, 0, 0

    def relu(self, x, slope=0.0, out=None):
        if self.maps is None:
            return super().relu(x, slope, out)
        on = self.maps[self._next] > 0
        self._next += 1
        self.turned += np.count_nonzero(on != (x > 0))
        return np.multiply(x, on, out=out), np.packbits(on)

    def max_pool(self, x, kernel, stride, pad, output):
        y, winner = super().max_pool(x, kernel, stride, pad, output)
        if self.maps is None:
            return y, winner
        # What is not positive is behind a ReLU that is off, so its gradient comes to nothing anyway.
        followed = super().max_pool(np.array(self.maps[self._next - 1], x.dtype), kernel, stride, pad, output)[1]
        self.turned += np.count_nonzero((followed != winner) & (y > 0))
        windows = pooling.windows(self._padded(x, kernel, stride, pad, output, -np.inf), kernel, stride, output)
        return np.choose(followed, list(windows)), followed


def relus(network, last):
    """Names of the ReLU layers up to the one called `last`, in order."""
    names = [node.definition.name for node in network.nodes if node.definition.type == "ReLU"]
    return names[: names.index(last) + 1]


def maps(network, x, layers):
    """What the named layers of a float32 network give for a picture (1, 3, H, W)."""
    found = network.program(layers).forward(network.ops.asarray(x), needs_grad=False)
    return [network.ops.to_host(found[name]) for name in layers]


def gradient_along(objective, maps, x):
    """(gradient of `objective`, whose backend is `Following`, at x (1, 3, H, W); how many choices turned).

    maps: an engine's outputs of the ReLUs that the objective runs, in order.
    """
    ops = objective.ops
    ops.maps, ops._next, ops.turned = maps, 0, 0
    try:
        return np.array(objective.evaluate(ops.asarray(x.astype(ops.dtype)))), ops.turned
    finally:
        ops.maps = None
