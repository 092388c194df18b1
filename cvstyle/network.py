"""The graph: what must run for the layers that are asked for, in what order, on what shapes, and back again."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np

from .convention import fitted
from .errors import CvstyleError, ModelError, OptionError, ShapeError, nearest
from .layers import layer_class, layer_types
from .netdef import Convention, LayerDef, NetDef
from .tiles import Reach

# Outputs beyond both are not meant: the pads and strides of a damaged file ask for any amount of memory.
_MOST_VALUES, _MOST_VALUES_PER_PIXEL = 1 << 28, 1 << 14
_LONG = 320  # pixels of an axis from which on blocks are moved along it: the blocks more are below 2 % of an iteration


@dataclass(frozen=True)
class _Node:
    """A layer with its values in single-assignment form: an in-place layer has a new value as its top."""

    definition: LayerDef
    bottoms: tuple[int, ...]
    tops: tuple[int, ...]
    ops: Any  # the backend that runs it


@dataclass(frozen=True)
class ReceptiveField:
    """What one position of a layer sees of the picture: size in pixels along each axis, and its step in pixels.

    size is None where the field is unbounded (global pooling, fully connected layers).
    """

    size: tuple[int, int] | None
    step: tuple[float, float]


class Network:
    """A network description bound to a backend, or to several that have some of its layers each (`across`).

    Values are numbered: each blob of the file becomes one value per layer that writes it, and layers that change
    nothing (Dropout, Split) share their input's value. Layers are made, and weights read, when a program needs them.
    """

    def __init__(self, definition: NetDef, ops, pooling: str = "max", later: Sequence[tuple[int, Any]] = ()):
        """pooling: "max" leaves the network as it is, "avg" replaces max pooling (see `layers.pooling`).

        later: (number, backend) pairs: after so many of the file's layers that backend takes over from `ops`.
        Raises ModelError for a layer that reads a blob that nothing before it produces.
        """
        if pooling not in ("max", "avg"):
            raise OptionError(f"pooling must be max or avg, not '{pooling}'")
        self.definition, self.ops, self.pooling, self._later = definition, ops, pooling, tuple(later)
        self.nodes: list[_Node] = []
        self._layers: dict[int, object] = {}
        self._loaded: dict[int, list[tuple[int, ...]]] = {}  # the shapes that the layer's weights have
        current = {name: i for i, name in enumerate(definition.inputs)}
        self.input_names = tuple(definition.inputs)
        self._names: dict[str, int] = {}
        count = len(current)
        for number, layer in enumerate(definition.layers):
            missing = [b for b in layer.bottoms if b not in current]
            if missing:
                raise ModelError(
                    f"{definition.source}: layer '{layer.name}' reads blob '{missing[0]}', "
                    "which no layer before it produces"
                )
            bottoms = tuple(current[b] for b in layer.bottoms)
            cls = layer_class(layer.type)
            if not layer.tops:
                continue
            if cls is not None and cls.identity and bottoms:
                tops = bottoms[:1] * len(layer.tops)
            else:
                tops = tuple(range(count, count + len(layer.tops)))
                count += len(tops)
                self.nodes.append(_Node(layer, bottoms, tops, [ops, *(b for n, b in self._later if n <= number)][-1]))
            current.update(zip(layer.tops, tops, strict=True))
            self._names[layer.name] = tops[0]
        self._blob_names = current

    def with_pooling(self, pooling: str) -> Network:
        """This network with max pooling replaced, or itself if nothing changes."""
        return self if pooling == self.pooling else Network(self.definition, self.ops, pooling, self._later)

    def on(self, ops) -> Network:
        """This network on another backend, with layers of its own; itself on its own backend."""
        return self if ops is self.ops else Network(self.definition, ops, self.pooling)

    def mapped(self, replace) -> Network:
        """This network on the backends replace(ops), with layers of its own."""
        return Network(self.definition, replace(self.ops), self.pooling, [(n, replace(ops)) for n, ops in self._later])

    def across(self, devices: Sequence, cuts: Sequence[int | str]) -> Network:
        """This network with its layers on several backends, one after the other.

        cuts: for each backend but the last, the layer after which the next one takes over: its name, or its place in
        the file, where `layer_names` counts from 1 (as neural_style.lua's -multigpu_strategy, which counts losses too).
        Raises OptionError for cuts that there are not, that do not ascend, or of another number.
        """
        names, told = self.layer_names, ",".join(map(str, cuts))
        if len(cuts) != len(devices) - 1:
            raise OptionError(
                f"a split after layers {told} makes {len(cuts) + 1} parts for {len(devices)} devices; one layer fewer "
                "than devices is needed"
            )
        for cut in cuts:
            if isinstance(cut, str) and cut not in names:
                raise OptionError(f"{self.definition.source}: there is no layer '{cut}'; {nearest(cut, names)}")
            if isinstance(cut, int) and not 1 <= cut < len(names):
                raise OptionError(
                    f"{self.definition.source} cannot be split after layer {cut}; it has layers 1 to {len(names)}, and "
                    "something must be left behind the split"
                )
        places = [names.index(cut) + 1 if isinstance(cut, str) else cut for cut in cuts]
        if any(a >= b for a, b in pairwise(places)):
            raise OptionError(f"the layers of the split, {told}, are not in the network's order")
        order = [layer.name for layer in self.definition.layers]
        later = [(order.index(names[place - 1]) + 1, ops) for place, ops in zip(places, devices[1:])]
        return Network(self.definition, devices[0], self.pooling, later)

    @property
    def convention(self) -> Convention:
        """The pictures that the network takes."""
        return self.definition.convention

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers that have an output, in file order."""
        return list(self._names)

    def value(self, name: str) -> int:
        """The value that a layer's first top, or else a blob at the end of the net, holds."""
        if name in self._names:
            return self._names[name]
        if name in self._blob_names:
            return self._blob_names[name]
        raise OptionError(f"{self.definition.source}: there is no layer '{name}'; {nearest(name, self.layer_names)}")

    def program(self, taps, like: Program | None = None) -> Program:
        """What computes the named layers and, back from them, the gradient for the picture.

        like: a program whose blocks start at the same places, so that both round alike.
        """
        return Program(self, taps, like)

    def shapes(self, size: tuple[int, int], channels: int = 3, strict: bool = True) -> dict[int, tuple[int, ...]]:
        """Shape of every value for a picture of this (height, width).

        Raises ModelError naming the layer at which shapes do not fit; with strict=False leaves out that layer, the
        layers of unknown type and everything after them.
        """
        shapes = self._input_shapes(size, channels)
        for index in range(len(self.nodes)):
            try:
                self._infer(index, shapes)
            except CvstyleError:
                if strict:
                    raise
        return shapes

    def receptive_fields(self, local: bool = False) -> dict[int, ReceptiveField]:
        """The receptive field of every value that can be computed.

        local: where a layer joins a map and what sees the whole picture (a gate of squeeze and excitation), by the map.
        """
        fields = {i: ReceptiveField((1, 1), (1, 1)) for i in range(len(self.input_names))}
        for index, node in enumerate(self.nodes):
            below = [fields[b] for b in node.bottoms if b in fields]
            try:
                window = self.layer(index).window()
            except ModelError:
                continue
            if not below:
                continue
            if local:
                below = [f for f in below if f.size] or below
            step = tuple(max(f.step[axis] for f in below) for axis in (0, 1))
            size = None
            if window is not None:
                if all(f.size for f in below):
                    size = tuple(
                        max(f.size[axis] for f in below) + (window.extent[axis] - 1) * step[axis] for axis in (0, 1)
                    )
                    size = tuple(math.ceil(n) for n in size)
                step = tuple(s * t for s, t in zip(step, window.stride, strict=True))
            for top in node.tops:
                fields[top] = ReceptiveField(size, step)
        return fields

    def digest(self, names) -> str:
        """A short name for the graph and the weights that the named layers depend on."""
        found = hashlib.sha256()
        program = self.program(names)
        for index in program.indices:
            layer = self.nodes[index].definition
            parts = (layer.type, layer.name, layer.bottoms, layer.tops, sorted(layer.params.items()))
            found.update(repr(parts).encode())
            for blob in self.definition.weights.get(layer.name, ()):
                found.update(np.ascontiguousarray(blob))
        return found.hexdigest()[:16]

    def parameter_count(self, name: str) -> int:
        """Number of weights that the model file holds for a layer."""
        return sum(b.size for b in self.definition.weights.get(name, ()))

    def layer(self, index: int):
        """The layer of a node, made when first asked for. Raises ModelError for an unknown type or bad parameters."""
        if index not in self._layers:
            definition = self.nodes[index].definition
            cls = layer_class(definition.type)
            if cls is None:
                raise ModelError(
                    f"{self.definition.source}: layer '{definition.name}' has type '{definition.type}', which cvstyle "
                    f"cannot run; {nearest(definition.type, layer_types())}"
                )
            try:
                layer = cls(definition, self.nodes[index].ops)
            except ModelError as error:
                raise ModelError(f"{self.definition.source}: {error}") from None
            if hasattr(layer, "replace_max"):
                layer.replace_max(self.pooling)
            self._layers[index] = layer
        return self._layers[index]

    def prepare(self, index: int, bottoms: list[tuple[int, ...]]) -> None:
        """Load a node's weights, checked against the shapes that its layer expects, unless that is done.

        Raises ModelError naming the file and layer where weights are missing or of another size.
        """
        layer, definition = self.layer(index), self.definition
        expected = [tuple(shape) for shape in layer.blob_shapes(bottoms)]
        where = f"{definition.weights_source or definition.source}: layer '{layer.name}' ({layer.definition.type})"
        if index in self._loaded:
            for known, shape in zip(self._loaded[index], expected, strict=True):
                if known != shape:
                    raise _misfit(where, layer, known, shape)
            return
        if expected:
            blobs = definition.weights.get(layer.name, ())
            if not blobs:
                raise ModelError(
                    f"{where} has no weights in the model; {nearest(layer.name, list(definition.weights))}"
                    if definition.weights
                    else f"{where} needs weights: give the .caffemodel that belongs to this prototxt"
                )
            if len(blobs) < len(expected):
                raise ModelError(
                    f"{where} has {len(blobs)} weight blobs in the model; the prototxt asks for {len(expected)}"
                )
            for blob, shape in zip(blobs, expected, strict=False):
                if blob.size != math.prod(shape) or not _same_extents(blob.shape, shape):
                    raise _misfit(where, layer, tuple(blob.shape), shape)
            layer.load([np.reshape(b, s) for b, s in zip(blobs, expected, strict=False)], bottoms)
        self._loaded[index] = expected

    def _input_shapes(self, size, channels):
        shapes = {}
        for i, (name, stated) in enumerate(self.definition.inputs.items()):
            if stated is not None and len(stated) == 4 and stated[1] != channels:
                raise ModelError(
                    f"{self.definition.source}: input '{name}' has {stated[1]} channels; a picture has {channels}"
                )
            shapes[i] = (1, channels, *size)
        return shapes

    def _infer(self, index, shapes):
        node = self.nodes[index]
        if any(b not in shapes for b in node.bottoms):
            return
        bottoms = [shapes[b] for b in node.bottoms]
        layer = self.layer(index)
        try:
            tops = layer.top_shapes(bottoms)
        except ModelError as error:
            raise ShapeError(f"{self.definition.source}: {error}") from None
        wrong = next((top for top in tops if len(top) < 2 or top[0] != 1), None)
        if wrong is not None:
            raise ShapeError(
                f"{self.definition.source}: {layer.fail(f'its output would have the shape {wrong}')}; the first axis "
                "counts pictures, of which there is one"
            )
        picture = max(math.prod(shapes[i][2:]) for i in range(len(self.input_names)))
        if max(map(math.prod, tops)) > max(_MOST_VALUES, _MOST_VALUES_PER_PIXEL * picture):
            raise ShapeError(
                f"{self.definition.source}: {layer.fail(f'its output would have the shape {max(tops, key=math.prod)}')}"
                ", which no real network asks for; the file is damaged"
            )
        if len(tops) < len(node.tops):
            raise ModelError(
                f"{self.definition.source}: {layer.fail(f'has {len(node.tops)} tops; it can have {len(tops)}')}"
            )
        shapes.update(zip(node.tops, tops, strict=False))


class Program:
    """The part of a network that the named layers need, run forward and backward on pictures of any size.

    taps: layer names in any order. devices: the backends that take part, that of the picture first; a value goes once
    to each other one that reads it, and its gradient comes back. One forward is followed by at most one backward.
    """

    def __init__(self, network: Network, taps, like: Program | None = None):
        self.network, self.ops = network, network.ops
        self.taps = {name: network.value(name) for name in taps}
        needed = set(self.taps.values())
        indices = []
        for index in reversed(range(len(network.nodes))):
            node = network.nodes[index]
            if needed.intersection(node.tops):
                needed.update(node.bottoms)
                indices.append(index)
        self.indices = indices[::-1]
        inputs = [name for i, name in enumerate(network.input_names) if i in needed]
        if len(inputs) != 1:
            raise ModelError(
                f"{network.definition.source}: these layers depend on {len(inputs)} inputs"
                f"{' (' + ', '.join(inputs) + ')' if inputs else ''}; exactly one, the picture, is supported"
            )
        self._input = network.input_names.index(inputs[0])
        steps, begun = self._fused()
        # Convolutions: first node and layer, and what does the step.
        filtered = [(*first, *step) for first, step in zip(begun, steps, strict=True) if hasattr(first[1], "place")]
        self._placed = [(first.tops[0], layer) for first, _, _, layer in filtered]
        # Taps that one of stride 1 computes from the picture: the largest maps, and the cheapest to compute again.
        self._again = {
            node.tops[0]: layer
            for _, first, node, layer in filtered
            if node.bottoms == (self._input,) and layer.ops is self.ops and first.window().stride == (1, 1)
        }
        self._places = {self._input: self.ops, **{top: layer.ops for node, layer in steps for top in node.tops}}
        self._steps = self._with_handovers(steps)
        self.devices = list(dict.fromkeys(self._places.values()))
        self._uses = Counter(b for node, _ in self._steps for b in node.bottoms)
        self._kept = set(self.taps.values()) | {self._input}
        for node, layer in self._steps:
            if layer.retains:
                self._kept.update(node.bottoms, node.tops)
        self._like = like
        self._checked = {}
        self._reach, self._windows = {}, {}
        self._tape = None

    def _fused(self):
        """(node, layer) in order of execution, where a layer and its only reader are one if they can be; and the first
        (node, layer) that is in each."""
        network, steps, begun = self.network, [], []
        nodes = [network.nodes[i] for i in self.indices]
        uses = Counter(b for node in nodes for b in node.bottoms)
        for index, node in zip(self.indices, nodes, strict=True):
            layer = network.layer(index)
            if steps and len(node.bottoms) == 1:
                last, before = steps[-1]
                alone = last.tops == node.bottoms and uses[node.bottoms[0]] == 1 and before.ops is layer.ops
                fused = before.fused_with(layer) if alone and last.tops[0] not in self.taps.values() else None
                if fused is not None:
                    steps[-1] = (replace(last, tops=node.tops), fused)
                    continue
            steps.append((node, layer))
            begun.append(steps[-1])
        return steps, begun

    @cached_property
    def _moved(self):
        """The nodes whose blocks start half a block before the map, if they can be moved.

        A block of 3×3 filters needs inputs one position beyond its own extent. Blocks below that start at the same
        places would be needed whole on both sides; those that start half a block from there end there as well.
        """
        if self._like:
            return self._like._moved
        moved, asked = set(), {}  # asked: value → the (first, end) along each axis that blocks above need, modulo 4
        for index in reversed(self.indices):
            node, layer = self.network.nodes[index], self.network.layer(index)
            above = [bounds for top in node.tops for bounds in asked.get(top, ())]
            window = layer.window()
            if window is None or any(Fraction(n).denominator > 1 for n in (*window.stride, *window.pad)):
                continue
            if hasattr(layer, "place") and window.extent == (3, 3) and window.stride == (1, 1):
                starts = (0,) if layer.backward else (0, 2)  # those of a deconvolution cannot be moved
                start = min(starts, key=lambda o: sum((a - o) % 4 + (o - b) % 4 for bounds in above for a, b in bounds))
                if start:
                    moved.add(index)
                above = [((start, start),) * 2]
            needs = [
                tuple(
                    ((a * s - p) % 4, ((b - 1) * s + e - p) % 4)
                    for (a, b), s, p, e in zip(bounds, window.stride, window.pad, window.extent, strict=True)
                )
                for bounds in above
            ]
            for bottom in node.bottoms:
                asked.setdefault(bottom, set()).update(needs)
        return frozenset(moved)

    def _with_handovers(self, steps):
        """The steps, with one before the first that reads a value of another backend, which brings it there."""
        brought, found = {}, []
        for node, layer in steps:
            for value in dict.fromkeys(node.bottoms):
                source, key = self._places[value], (value, layer.ops)
                if source is not layer.ops and key not in brought:
                    brought[key] = copy = -1 - len(brought)
                    self._places[copy] = layer.ops
                    found.append((replace(node, bottoms=(value,), tops=(copy,)), _Handover(source, layer.ops)))
            bottoms = tuple(brought.get((value, layer.ops), value) for value in node.bottoms)
            found.append((replace(node, bottoms=bottoms), layer))
        return found

    def ops_of(self, name: str):
        """The backend on which a tap's feature map is, and its gradient."""
        return self._places[self.taps[name]]

    def memory(self, size: tuple[int, int]) -> list[tuple[str, int, int]]:
        """(last layer, bytes kept from forward to backward, bytes at work) of every step, for a picture of this size.

        An estimate in float32, of what the graph asks for: filters for both directions, a bit per output, taps, and the
        inputs and outputs at hand.
        """
        shapes = self._all_shapes(size, 3)
        wanted, found = set(self.taps.values()).difference(self._again), []
        for node, layer in self._steps:
            tops = {t: math.prod(shapes[t]) for t in node.tops}
            kept = sum(n for t, n in tops.items() if t in wanted or layer.retains)
            filters = sum(self.network.parameter_count(name) for name in layer.names)
            at_work = sum(tops.values()) + sum(math.prod(shapes[b]) for b in node.bottoms)
            found.append((layer.names[-1], 4 * (kept + 2 * filters) + sum(tops.values()) // 8, 4 * at_work))
        return found

    def shapes(self, size: tuple[int, int], channels: int = 3) -> dict[str, tuple[int, ...]]:
        """Shape of every tap for a picture of this (height, width). Raises ShapeError where it is too small."""
        if (size, channels) not in self._checked:
            shapes = self._all_shapes(size, channels)
            for index in self.indices:
                self.network.prepare(index, [shapes[b] for b in self.network.nodes[index].bottoms])
            self._checked[size, channels] = {name: shapes[value] for name, value in self.taps.items()}
        return self._checked[size, channels]

    def _all_shapes(self, size, channels):
        shapes = self.network._input_shapes(size, channels)
        for index in self.indices:
            self.network._infer(index, shapes)
        return shapes

    def reach(self, size: tuple[int, int], axis: int, channels: int = 3) -> Reach:
        """What each position of the taps needs of a picture of this (height, width) along an axis (0: vertical).

        A window that holds it, and starts and ends whole units from where the picture does, gives the position its
        exact value. Where layers compute in blocks, which round by all that is in one, what is needed are whole blocks,
        so that the value has the picture's bits; and blocks that cannot be moved are whole units. Raises OptionError
        where a layer sees the whole picture or joins maps of different scales.
        """
        if (size, axis) not in self._reach:
            self._reach[size, axis] = self._find_reach(size, axis, channels)
        return self._reach[size, axis]

    def _find_reach(self, size, axis, channels):
        length, shapes, steps = size[axis], self._all_shapes(size, channels), self._steps_along(axis)
        self.shapes(size, channels)  # loads the weights
        blocks = self._blocks(size)
        still = {value: block for value, (block, _, movable) in blocks.items() if not movable}
        unit = math.lcm(*((step * still.get(value, 1)).numerator for value, step in steps.items()))
        first, end = {}, {}
        for name, tap in self.taps.items():
            count = shapes[tap][2 + axis]
            low, high = np.full(count, length), np.zeros(count, int)
            needs = {tap: (np.arange(count), np.arange(1, count + 1))}
            for value, (a, b) in self._walk_back(needs, shapes, axis, blocks):
                # The window's own map of this value must hold the positions, wherever its borders cut it.
                step = steps[value]
                rest = shapes[value][2 + axis] - b
                low = np.minimum(low, a * step.numerator // step.denominator)
                high = np.maximum(high, length - rest * step.numerator // step.denominator)
            first[name], end[name] = np.clip(low, 0, length), np.clip(high, 0, length)
        widths = {name: int((end[name] - first[name]).max()) for name in first}
        widest = max(widths, key=widths.get)
        per_unit = {name: int(unit / steps[tap]) for name, tap in self.taps.items()}
        return Reach(length, unit, per_unit, first, end, (widest, widths[widest]))

    def _steps_along(self, axis):
        """Pixels from one position to the next along an axis, of every value."""
        network, steps = self.network, {self._input: Fraction(1)}
        for index in self.indices:
            node, layer = network.nodes[index], network.layer(index)
            window = layer.window()
            if window is None:
                raise OptionError(
                    f"layer '{layer.name}' ({node.definition.type}) sees the whole picture or depends on the place in "
                    "it, so this network cannot be computed in tiles; use layers before it, or --tile-size off, and "
                    "--split layers for several devices"
                )
            below = {steps[b] for b in node.bottoms}
            if len(below) > 1:
                raise OptionError(
                    f"layer '{layer.name}' ({node.definition.type}) joins maps of different scales, so this network "
                    "cannot be computed in tiles; use layers before it, or --tile-size off, and --split layers "
                    "for several devices"
                )
            steps.update(dict.fromkeys(node.tops, below.pop() * window.stride[axis]))
        return steps

    def _walk_back(self, needs, shapes, axis, blocks):
        """(value, (first, end)) for every value below: what must be known of it for the positions in `needs`."""
        for index in reversed(self.indices):
            node, layer = self.network.nodes[index], self.network.layer(index)
            tops = [needs[t] for t in node.tops if t in needs]
            if not tops:
                continue
            low, high = _union(tops)
            block, start, _ = blocks.get(node.tops[0], (1, (0, 0), False))
            if block > 1:
                count, start = shapes[node.tops[0]][2 + axis], start[axis]
                low = np.maximum(0, (low - start) // block * block + start)
                high = np.minimum(count, -((start - high) // block) * block + start)
            window = layer.window()
            stride, pad = Fraction(window.stride[axis]), Fraction(window.pad[axis])
            low = _ceil(low, stride, pad)
            high = _ceil(high - 1, stride, pad) + window.extent[axis]
            for bottom in node.bottoms:
                count = shapes[bottom][2 + axis]
                # A window wholly in the padding still depends on where the border is.
                part = np.clip(low, 0, count - 1), np.clip(high, 1, count)
                needs[bottom] = _union([part, needs[bottom]]) if bottom in needs else part
        yield from needs.items()

    def _blocks(self, size):
        """Value → (side, where along both axes one starts in a picture of this size, whether windows can move them)
        of the blocks in which it is computed, if it is."""
        found = {}
        for index in self.indices:
            layer = self.network.layer(index)
            if layer.block > 1:
                half = layer.block // 2 * (layer.movable and index in self._moved)
                found[self.network.nodes[index].tops[0]] = (
                    layer.block, tuple(half * (n >= _LONG) for n in size), layer.movable
                )  # fmt: skip
        return found

    def _settle(self, size, at, channels):
        """Tell the layers what the picture is, of which a window that starts at `at` is computed."""
        if (size, at) not in self._windows:
            shapes, blocks = self._all_shapes(size, channels), self._blocks(size)
            steps = [self._steps_along(axis) if at[axis] else None for axis in (0, 1)]
            self._windows[size, at] = found = []
            for top, layer in self._placed:
                block, starts, _ = blocks.get(top, (1, (0, 0), False))
                first = (int(a / along[top]) if a else 0 for a, along in zip(at, steps))
                shift = tuple((position - start) % block for position, start in zip(first, starts))
                found.append((layer, shift, shapes[top][2:]))
        for layer, shift, whole in self._windows[size, at]:
            layer.place(shift, whole)

    def forward(
        self, x, keep: bool = True, again: bool = False, of: tuple[int, int] | None = None, at: tuple[int, int] = (0, 0)
    ) -> dict:
        """The taps' feature maps, by name, for a picture x (1, C, H, W) on the backend; x is not changed.

        keep: a backward pass will follow. Everything that neither the taps nor the backward pass need is dropped on
        the way. again: maps that are one layer from the picture are dropped as well and computed once more when
        they are read from the result, from an x that must not have changed. of, at: where x is a window of a picture,
        that picture's (height, width), and where the window starts in it.
        """
        self.shapes(tuple(x.shape[2:]), x.shape[1])
        self._settle(of or tuple(x.shape[2:]), at, x.shape[1])
        uses = dict(self._uses)
        values = {self._input: x}
        wanted = set(self.taps.values()).difference(self._again if again else ())
        tape = []
        for node, layer in self._steps:
            bottoms = [values[b] for b in node.bottoms]
            for b in node.bottoms:
                uses[b] -= 1
                if not uses[b] and b not in wanted:
                    values.pop(b, None)
            overwrite = not uses[node.bottoms[0]] and node.bottoms[0] not in self._kept
            tops, backward = layer.forward(bottoms, keep, overwrite)
            if keep:
                tape.append((node, backward, [top.shape for top in tops]))
            values.update((v, top) for v, top in zip(node.tops, tops, strict=False) if v in uses or v in wanted)
            del bottoms, tops, backward
        features = _Features({name: values.get(value) for name, value in self.taps.items()})
        for name, value in self.taps.items():
            if value not in wanted:
                features[name] = partial(self._compute_again, self._again[value], x)
        self._tape = (tape, x.shape) if keep else None
        return features

    def backward(self, add):
        """The gradient for the picture.

        add(name, gradient) is called once per tap, when the gradient from the layers above it is complete: it returns
        that gradient with the tap's own added; `gradient` is None where nothing above contributes, and may be
        changed in place.
        """
        if self._tape is None:
            raise RuntimeError("Program.backward follows one Program.forward(keep=True)")
        (tape, shape), self._tape = self._tape, None
        names: dict[int, list[str]] = {}
        for name, value in self.taps.items():
            names.setdefault(value, []).append(name)
        gradients = {}
        while tape:
            node, backward, shapes = tape.pop()
            tops = [self._complete(v, gradients, names, add) for v in node.tops]
            if all(g is None for g in tops):
                continue
            ops = self._places[node.tops[0]]
            tops = [ops.zeros(s) if g is None else g for g, s in zip(tops, shapes, strict=False)]
            bottoms = backward(tops)
            del backward, tops
            for value, g in zip(node.bottoms, bottoms, strict=True):
                if g is not None:
                    known = gradients.get(value)
                    gradients[value] = g if known is None else self._places[value].add_scaled(known, 1, g)
            del bottoms, g
        gradient = self._complete(self._input, gradients, names, add)
        return self.ops.zeros(shape) if gradient is None else gradient

    @staticmethod
    def _compute_again(layer, x):
        return layer.forward([x], False, False)[0][0]

    @staticmethod
    def _complete(value, gradients, names, add):
        gradient = gradients.pop(value, None)
        for name in names.get(value, ()):
            gradient = add(name, gradient)
        return gradient


class _Handover:
    """A value brought from one backend to another, and its gradient brought back: to `Program`, a layer."""

    names = ("handover",)
    retains = True  # on the host both may be one array

    def __init__(self, source, target):
        self.source, self.ops = source, target

    def forward(self, bottoms, keep, overwrite):
        return [self.ops.receive(bottoms[0])], lambda g: [self.source.receive(g[0])]


def _union(intervals):
    firsts, ends = zip(*intervals)
    return np.minimum.reduce(firsts), np.maximum.reduce(ends)


def _ceil(position, stride, pad):
    """⌈position · stride − pad⌉ for an array of positions, exactly."""
    numerator = position * (stride.numerator * pad.denominator) - pad.numerator * stride.denominator
    return -(-numerator // (stride.denominator * pad.denominator))


class _Features(dict):
    """Feature maps by name; where there is a function in place of one, it is called each time the map is read."""

    def __getitem__(self, name):
        map_or_function = super().__getitem__(name)
        return map_or_function() if isinstance(map_or_function, partial) else map_or_function

    def pop(self, name):
        value = self[name]
        del self[name]
        return value

    def items(self):
        return ((name, self[name]) for name in self)


def _misfit(where, layer, found, asked):
    """The error for weights of another shape than the layer asks for on this picture."""
    outputs = getattr(layer, "num_output", None)  # of a fully connected layer; else the weights are those of a map
    if layer.window() is None and (outputs is None or outputs in found):
        return ShapeError(
            f"{where} has weights of shape {found}; a picture of this size asks for {asked}: such a layer takes one "
            "picture size, so use layers below it"
        )
    return ModelError(
        f"{where} has weights of shape {found}; the prototxt asks for {asked}: do these two files belong together?"
    )


def _same_extents(a, b):
    """Whether two shapes of one size agree but for ones: Caffe's older files write a bias as (1, 1, 1, N)."""
    trimmed = [tuple(n for n in shape if n != 1) for shape in (a, b)]
    return trimmed[0] == trimmed[1]


def load_network(proto=None, model=None, backend="auto", *, mean=None, input_scale=None, channels=None) -> Network:
    """The network of a Caffe .prototxt and .caffemodel (paths), on a backend (name or object).

    Either may be the name of a known model, alone too; neither means the embedded network (see `zoo.files_of`).
    mean, input_scale, channels: of its pictures, where the prototxt's transform_param does not say what is right (see
    `convention.fitted`).
    Weights are read when they are needed. Raises ModelError for unreadable or mismatched files, OptionError for an
    unusable backend or such a value.
    """
    from . import backends, zoo
    from .caffe import read_net

    files = zoo.files_of(proto, model)
    ops = backends.get(backend)
    return Network(fitted(read_net(*files), mean, input_scale, channels), ops)
