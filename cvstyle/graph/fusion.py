"""Fusion: several layers of the graph as one step, where no other layer reads the values between them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..backends.base import Epilogue
from ..errors import ModelError
from ..layers import Context, Layer
from ..layers.activation import ReLU
from ..layers.convolution import Convolution
from ..layers.pooling import Pooling


@dataclass(frozen=True)
class Step:
    """One call of a program: a layer, or several fused into one, and the values that it reads and writes.

    first_top: the value that the first of the fused layers writes in the graph.
    """

    layer: Any
    bottoms: tuple[int, ...]
    tops: tuple[int, ...]
    first_top: int


def fused_steps(network, indices, outputs) -> list[Step]:
    """The nodes of a network as steps in order of execution.

    indices: numbers of the nodes. outputs: values that must be computed, so that no step may skip them.
    """
    nodes = [network.nodes[i] for i in indices]
    readers = Counter(bottom for node in nodes for bottom in node.bottoms)
    steps: list[Step] = []
    for index, node in zip(indices, nodes, strict=True):
        layer = network.layer(index)
        tops = node.tops
        if isinstance(layer, Pooling) and layer.has_mask:
            if not readers[tops[1]] and tops[1] not in outputs:
                layer = layer.without_mask()
                tops = tops[:1]
            elif layer.method != "MAX":
                raise _no_mask(network, layer, [n.definition for n in nodes if tops[1] in n.bottoms])
        last = steps[-1] if steps else None
        if last is not None and node.bottoms == last.tops and last.layer.ops is layer.ops:
            between = node.bottoms[0]
            fused = fuse(last.layer, layer) if readers[between] == 1 and between not in outputs else None
            if fused is not None:
                steps[-1] = replace(last, layer=fused, tops=tops)
                continue
        steps.append(Step(layer, node.bottoms, tops, tops[0]))
    return steps


def _no_mask(network, layer, readers):
    asked = f"; '{readers[0].name}' ({readers[0].type}) depends on it" if readers else ""
    return ModelError(
        f"{network.definition.source}: {layer.fail('an average has no mask')}{asked}; keep --pooling max, or use "
        "other layers"
    )


def fuse(layer: Layer, following: Layer) -> Layer | None:
    """One layer that computes both, or None if there is none."""
    if isinstance(layer, FusedConvolution):
        pools = isinstance(following, Pooling) and following.method == "MAX" and not following.has_mask
        fits = pools and layer.ops.fuses_pooling and layer.pool is None
        return FusedConvolution(layer.convolution, layer.relu, following) if fits else None
    if not isinstance(layer, Convolution):
        return None
    if isinstance(following, ReLU) and following.slope == 0:
        return FusedConvolution(layer, following)
    if following.by_channel:
        if following not in layer.folded:
            layer.folded.setdefault(following, FoldedConvolution(layer, following))  # another thread may be here too
        return layer.folded[following]
    return None


class FoldedConvolution(Convolution):
    """A convolution whose weights and bias have taken up the following layer by channel (BatchNorm, Scale, Bias).

    a (W ⋆ x + b) + c = (a W) ⋆ x + (a b + c), in float64 and rounded once; the padding of x is not touched.
    """

    def __init__(self, convolution: Convolution, following: Layer):
        super().__init__(convolution.definition, convolution.ops)
        self.names = [*convolution.names, following.name]
        self._convolution = convolution
        self._following = following

    @property
    def weight(self):
        return self._convolution.weight

    @property
    def affine(self):
        factor, shift = self._convolution.affine
        a, c = self._following.affine
        return a * factor, a * shift + c

    @cached_property
    def filters(self):
        factor, shift = (np.broadcast_to(n, self.num_output) for n in self.affine)
        weight = np.empty(self.weight.shape, self.ops.dtype)
        np.multiply(self.weight, factor.reshape(-1, 1, 1, 1), out=weight, casting="same_kind")
        return self.ops.convolution(weight, shift, self.stride, self.dilation, self.group)


class FusedConvolution(Layer):
    """A convolution, its ReLU and, where there is one, the max pool after that: their maps are never stored.

    The gradient is masked on its way into the convolution's own gradient.
    """

    saves_activations = False
    uses_grid = True

    def __init__(self, convolution: Convolution, relu: ReLU, pool: Pooling | None = None):
        super().__init__(convolution.definition, convolution.ops)
        self.convolution = convolution
        self.relu = relu
        self.pool = pool
        self.names = [*convolution.names, relu.name, *([pool.name] if pool else [])]

    def window(self):
        return self.convolution.window()

    def forward(self, bottoms, context):
        size = bottoms[0].shape[2:]
        pad = self.convolution.pad
        filters = self.convolution.filters
        pooled = self._pooled(bottoms[0].shape)
        epilogue = Epilogue(relu=True, saves=context.needs_grad, pool=pooled)
        top, prologue = filters.forward(bottoms[0], pad, epilogue, context.grid)
        if self.pool is None or pooled:
            return [top], lambda g: [filters.backward(g[0], size, pad, prologue)]
        (top,), pool_backward = self.pool.forward([top], Context(context.needs_grad, overwrite=True))
        return [top], lambda g: [filters.backward(pool_backward(g)[0], size, pad, prologue)]

    def _pooled(self, shape):
        """(height, width) of the pool in the convolution's epilogue; None for a pool of its own, or for none."""
        if self.pool is None:
            return None
        window, output = self.pool.geometry(self.convolution.top_shapes([shape])[0])
        return output if self.convolution.filters.fuses_pool(*window) else None
