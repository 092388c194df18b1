"""A program: the part of a network that some outputs need, run forward and backward."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from ..backends.base import UNPLACED
from ..errors import ModelError
from ..layers import Context
from .blocks import BlockAlignment, Region
from .footprint import Footprint, find_footprint, find_sight, find_steps
from .fusion import fused_steps
from .shapes import infer_shapes, input_shape
from .transfer import with_transfers


class Program:
    """The layers of a `Network` that the named outputs depend on, for pictures of any size and from any thread.

    outputs: name → value. steps: the calls of layers in order. devices: the backends that take part, the picture's
    first; a value goes once to each other one that reads it, and its gradient comes back. on_step: for measurements, a
    function of (step, "forward" or "backward", function, its arguments) that calls the function and returns its result.
    """

    def __init__(self, network, outputs, same_blocks_as: Program | None = None):
        """outputs: names of layers in any order. same_blocks_as: a program of the network, so that both round alike."""
        self.network = network
        self.ops = network.ops
        self.outputs = {name: network.value(name) for name in outputs}
        self.indices, self.input = _needed(network, self.outputs)
        self.alignment = BlockAlignment(self, same_blocks_as and same_blocks_as.alignment)
        self.on_step: Callable | None = None
        wanted = set(self.outputs.values())
        steps = fused_steps(network, self.indices, wanted)
        # Outputs that a convolution of stride 1 computes from the picture: the largest maps, and the cheapest to
        # compute again.
        self._recomputable = {
            step.tops[0]: step
            for step in steps
            if step.layer.uses_grid and step.bottoms == (self.input,) and step.layer.ops is self.ops
            and step.layer.window().stride == (1, 1)
        }  # fmt: skip
        self._backends = {self.input: self.ops, **{top: step.layer.ops for step in steps for top in step.tops}}
        self.steps = with_transfers(steps, self._backends)
        self.devices = list(dict.fromkeys(self._backends.values()))
        self._readers = Counter(b for step in self.steps for b in step.bottoms)
        self._not_overwritable = wanted | {self.input}
        for step in self.steps:
            if step.layer.saves_activations:
                self._not_overwritable.update(step.bottoms, step.tops)
        self._shapes: dict[tuple, dict] = {}
        self._footprints: dict[tuple, Footprint] = {}
        self._sights: dict[tuple, dict] = {}

    @property
    def max_pools(self) -> bool:
        """True where a layer does max pooling, which `Network.with_pooling` replaces."""
        definitions = (self.network.nodes[index].definition for index in self.indices)
        return any(d.type == "Pooling" and d.params.get("pool", "MAX") == "MAX" for d in definitions)

    def backend_of(self, name: str):
        """The backend that holds an output's feature map, and its gradient."""
        return self._backends[self.outputs[name]]

    def memory(self, size: tuple[int, int]) -> list[tuple[str, int, int]]:
        """(last layer, bytes resident from forward to backward, bytes at work) of every step, for a picture of `size`.

        An estimate in float32, from the graph alone: filters for both directions, a bit per output, outputs of the
        program, and the inputs and outputs at hand.
        """
        shapes = self.all_shapes(size, 3)
        wanted = set(self.outputs.values()).difference(self._recomputable)
        found = []
        for step in self.steps:
            tops = {t: math.prod(shapes[t]) for t in step.tops}
            resident = sum(n for t, n in tops.items() if t in wanted or step.layer.saves_activations)
            filters = sum(self.network.parameter_count(name) for name in step.layer.names)
            at_work = sum(tops.values()) + sum(math.prod(shapes[b]) for b in step.bottoms)
            found.append((step.layer.names[-1], 4 * (resident + 2 * filters) + sum(tops.values()) // 8, 4 * at_work))
        return found

    def shapes(self, size: tuple[int, int], channels: int = 3) -> dict[str, tuple[int, ...]]:
        """Shape of every output for a picture of (height, width) `size`; loads the weights.

        Raises ShapeError where the picture is too small.
        """
        if (size, channels) not in self._shapes:
            shapes = self.all_shapes(size, channels)
            for index in self.indices:
                self.network.prepare(index, [shapes[b] for b in self.network.nodes[index].bottoms])
            self._shapes[size, channels] = {name: shapes[value] for name, value in self.outputs.items()}
        return self._shapes[size, channels]

    def all_shapes(self, size, channels) -> dict[int, tuple[int, ...]]:
        """Shape of every value for a picture of (height, width) `size`."""
        input_shape(self.network, self.input, size, channels)
        return infer_shapes(self.network, size, channels, self.indices)

    def footprint(self, size: tuple[int, int], axis: int) -> Footprint:
        """The pixels along an axis on which each position of the outputs depends (see `find_footprint`)."""
        if (size, axis) not in self._footprints:
            self._footprints[size, axis] = find_footprint(self, size, axis)
        return self._footprints[size, axis]

    def sight(self, size: tuple[int, int], axis: int) -> dict:
        """The pixels along an axis that each position of the outputs sees (see `find_sight`)."""
        if (size, axis) not in self._sights:
            self._sights[size, axis] = find_sight(self, size, axis)
        return self._sights[size, axis]

    def steps_along(self, axis: int, repeats: bool = False) -> dict:
        """Pixels from one position to the next along an axis, of every value (see `find_steps`)."""
        return find_steps(self.network, self.indices, self.input, axis, repeats)

    def forward(self, x, needs_grad: bool = True, recompute: bool = False, region: Region | None = None) -> Features:
        """The outputs' feature maps for a picture x (1, C, H, W) on the backend; x is not changed.

        needs_grad: `Features.backward` will follow. A value is dropped on the way as soon as neither the outputs nor
        the backward pass need it. recompute: outputs that are one layer from the picture are dropped as well and
        computed once more when they are read from the result, from an x that must not have changed. region: the place
        of x in a larger picture, of which it is a window.
        """
        size = tuple(x.shape[2:])
        self.shapes(size, x.shape[1])
        grids = self.alignment.grids(region or Region((0, 0), size), x.shape[1])
        wanted = set(self.outputs.values()).difference(self._recomputable if recompute else ())
        readers = dict(self._readers)
        values = {self.input: x}
        tape = []
        for step in self.steps:
            bottoms = [values[b] for b in step.bottoms]
            for b in step.bottoms:
                readers[b] -= 1
                if not readers[b] and b not in wanted:
                    values.pop(b, None)
            overwrite = not readers[step.bottoms[0]] and step.bottoms[0] not in self._not_overwritable
            context = Context(needs_grad, overwrite, grids.get(step.first_top, UNPLACED))
            tops, backward = self._call(step, "forward", step.layer.forward, bottoms, context)
            if needs_grad:
                tape.append((step, backward, [top.shape for top in tops]))
            values.update((v, t) for v, t in zip(step.tops, tops, strict=False) if v in readers or v in wanted)
            del bottoms, tops, backward
        maps = {name: values.get(value) for name, value in self.outputs.items()}
        for name, value in self.outputs.items():
            if value not in wanted:
                step = self._recomputable[value]
                maps[name] = partial(_recomputed, step.layer, x, Context(False, False, grids[step.first_top]))
        return Features(maps, partial(self._backward, tape, x.shape) if needs_grad else None)

    def _backward(self, tape, shape, add):
        names: dict[int, list[str]] = {}
        for name, value in self.outputs.items():
            names.setdefault(value, []).append(name)
        gradients: dict[int, Any] = {}

        def completed(value):
            gradient = gradients.pop(value, None)
            for name in names.get(value, ()):
                gradient = add(name, gradient)
            return gradient

        while tape:
            step, backward, shapes = tape.pop()
            tops = [completed(v) for v in step.tops]
            if all(g is None for g in tops):
                continue
            ops = self._backends[step.tops[0]]
            tops = [ops.zeros(s) if g is None else g for g, s in zip(tops, shapes, strict=False)]
            bottoms = self._call(step, "backward", backward, tops)
            del backward, tops
            for value, g in zip(step.bottoms, bottoms, strict=True):
                if g is not None:
                    other = gradients.get(value)
                    gradients[value] = g if other is None else self._backends[value].add_scaled(other, 1, g)
            del bottoms, g
        gradient = completed(self.input)
        return self.ops.zeros(shape) if gradient is None else gradient

    def _call(self, step, direction, function, *arguments):
        if self.on_step is None:
            return function(*arguments)
        return self.on_step(step, direction, function, *arguments)


class Features(dict):
    """Feature maps by name; a function in place of a map is called each time that the map is read."""

    def __init__(self, maps: dict, backward: Callable | None):
        super().__init__(maps)
        self._backward = backward

    def backward(self, add: Callable[[str, Any], Any]):
        """The gradient for the picture; once at most.

        add(name, gradient) is called once per output, when the gradient from the layers above it is complete; it
        returns that gradient with the output's own added; `gradient` is None where nothing above contributes, and may
        be changed in place. Raises RuntimeError after a forward pass without needs_grad, or a second time.
        """
        if self._backward is None:
            raise RuntimeError("Features.backward follows one Program.forward(needs_grad=True)")
        backward = self._backward
        self._backward = None
        return backward(add)

    def __getitem__(self, name):
        map_or_function = super().__getitem__(name)
        return map_or_function() if isinstance(map_or_function, partial) else map_or_function

    def pop(self, name):
        value = self[name]
        del self[name]
        return value

    def items(self):
        return ((name, self[name]) for name in self)


def _recomputed(layer, x, context):
    return layer.forward([x], context)[0][0]


def _needed(network, outputs):
    """(numbers of the nodes that the outputs depend on, in order; the number of the one input among their values).

    Raises ModelError naming the first layer that cannot be made, or the inputs where there is not one.
    """
    indices, inputs = _ancestors(network, outputs.values())
    for index in indices:
        try:
            network.layer(index)
        except ModelError as error:
            name = network.nodes[index].definition.name
            dependent = next(n for n, value in outputs.items() if index in _ancestors(network, [value])[0])
            raise error if dependent == name else ModelError(f"{error}; layer '{dependent}' depends on it") from None
    if len(inputs) != 1:
        names = ", ".join(f"'{network.input_names[i]}'" for i in inputs)
        raise ModelError(
            f"{network.definition.source}: the layers {', '.join(outputs)} depend on {len(inputs)} inputs ({names}); "
            "exactly one, the picture, is supported"
        )
    return indices, inputs[0]


def _ancestors(network, values):
    """(numbers of the nodes that values depend on, in order; numbers of the inputs among these)."""
    values = set(values)
    indices = []
    for index in reversed(range(len(network.nodes))):
        node = network.nodes[index]
        if values.intersection(node.tops):
            values.update(node.bottoms)
            indices.append(index)
    return indices[::-1], [i for i in range(len(network.input_names)) if i in values]
