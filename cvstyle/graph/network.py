"""A network: a description bound to backends, its values in single-assignment form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..errors import ModelError, OptionError, ShapeError, nearest
from ..layers import layer_class, layer_types
from ..netdef import Convention, LayerDef, NetDef
from .program import Program
from .shapes import ReceptiveField, infer_shapes, receptive_fields
from .weights import check_names, check_weights, check_without_weights, count_blobs, digest, fingerprint, load_weights


@dataclass(frozen=True)
class Node:
    """A layer of the file, the values that it reads and writes, and the backend that runs it.

    An in-place layer has a new value as its top.
    """

    definition: LayerDef
    bottoms: tuple[int, ...]
    tops: tuple[int, ...]
    ops: Any


class Network:
    """A network description bound to a backend, or to several that have some of its layers each (`partition`).

    Values are numbered: each blob of the file becomes one value per layer that writes it, and layers that change
    nothing (Dropout, Split) share their input's value. A blob that is read before anything makes it is a value too,
    which is never computed. Layers are made, and weights read, when a program needs them.
    """

    def __init__(self, definition: NetDef, ops, pooling: str = "max", placements: Sequence[tuple[int, Any]] = ()):
        """pooling: "max" leaves the network as it is, "avg" replaces max pooling (see `layers.pooling`).

        placements: (number, backend) pairs: after so many of the definition's layers that backend takes over from
        `ops`. Raises ModelError where the model holds weights for a layer that changes nothing.
        """
        if pooling not in ("max", "avg"):
            raise OptionError(f"pooling must be max or avg, not '{pooling}'")
        self.definition = definition
        self.ops = ops
        self.pooling = pooling
        self.nodes: list[Node] = []
        self.input_names = tuple(definition.inputs)
        self._placements = tuple(placements)
        self._layers: dict[int, Any] = {}
        self._weight_shapes: dict[int, list[tuple[int, ...]]] = {}  # of the nodes whose weights are loaded
        self._names: dict[str, int] = {}
        self._missing: dict[int, str] = {}  # value that nothing makes → its blob
        self._blob_names = self._bind()

    def _bind(self):
        """Make the nodes; returns blob name → value at the end of the net."""
        current = {name: i for i, name in enumerate(self.input_names)}
        count = len(current)
        for number, layer in enumerate(self.definition.layers):
            for blob in (b for b in layer.bottoms if b not in current):
                current[blob] = count
                self._missing[count] = blob
                count += 1
            if not layer.tops:
                continue
            bottoms = tuple(current[b] for b in layer.bottoms)
            cls = layer_class(layer.type)
            if cls is not None and cls.identity and bottoms:
                check_without_weights(layer, self.definition)
                tops = bottoms[:1] * len(layer.tops)
            else:
                tops = tuple(range(count, count + len(layer.tops)))
                count += len(tops)
                ops = [self.ops, *(ops for first, ops in self._placements if first <= number)][-1]
                self.nodes.append(Node(layer, bottoms, tops, ops))
            current.update(zip(layer.tops, tops, strict=True))
            self._names[layer.name] = tops[0]
        return {blob: value for blob, value in current.items() if value not in self._missing}

    def with_pooling(self, pooling: str) -> Network:
        """This network with max pooling replaced, or itself if nothing changes."""
        return self if pooling == self.pooling else Network(self.definition, self.ops, pooling, self._placements)

    def to(self, ops) -> Network:
        """This network on another backend, with layers of its own; itself on its own backend."""
        return self if ops is self.ops else Network(self.definition, ops, self.pooling)

    def map_backends(self, function: Callable[[Any], Any]) -> Network:
        """This network on the backends function(ops), with layers of its own."""
        placements = [(first, function(ops)) for first, ops in self._placements]
        return Network(self.definition, function(self.ops), self.pooling, placements)

    def partition(self, devices: Sequence, cuts: Sequence[int | str]) -> Network:
        """This network with its layers on several backends, one after the other.

        cuts: for each backend but the last, the layer after which the next one takes over: its name, or its place in
        the file, where `layer_names` counts from 1 (as neural_style.lua's -multigpu_strategy, which counts losses too).
        Raises OptionError for cuts that do not exist, do not ascend, or are of another number.
        """
        names = self.layer_names
        cut_text = ",".join(map(str, cuts))
        if len(cuts) != len(devices) - 1:
            raise OptionError(
                f"a split after layers {cut_text} makes {len(cuts) + 1} parts for {len(devices)} devices; one layer "
                "fewer than devices is needed"
            )
        for cut in cuts:
            if isinstance(cut, str) and cut not in names:
                raise self._no_layer(cut)
            if isinstance(cut, int) and not 1 <= cut < len(names):
                raise OptionError(
                    f"{self.definition.source} cannot be split after layer {cut}; it has layers 1 to {len(names)}, and "
                    "something must be left behind the split"
                )
        positions = [names.index(cut) + 1 if isinstance(cut, str) else cut for cut in cuts]
        if any(a >= b for a, b in pairwise(positions)):
            raise OptionError(f"the layers of the split, {cut_text}, are not in the network's order")
        order = [layer.name for layer in self.definition.layers]
        firsts = [order.index(names[position - 1]) + 1 for position in positions]
        return Network(self.definition, devices[0], self.pooling, list(zip(firsts, devices[1:])))

    @property
    def convention(self) -> Convention:
        """The pictures that the network takes."""
        return self.definition.convention

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers that have an output, in file order."""
        return list(self._names)

    def has_layer(self, name: str) -> bool:
        """True for a name that `value` knows."""
        return name in self._names or name in self._blob_names

    def value(self, name: str) -> int:
        """The value that a layer's first top, or else a blob at the end of the net, holds."""
        if name in self._names:
            return self._names[name]
        if name in self._blob_names:
            return self._blob_names[name]
        raise self._no_layer(name)

    def _no_layer(self, name):
        hint = nearest(name, self.layer_names, otherwise="'cvstyle info' lists all")
        return OptionError(f"{self.definition.source}: there is no layer '{name}'{hint}")

    def program(self, outputs, same_blocks_as: Program | None = None) -> Program:
        """The `Program` that computes the named layers and, back from them, the gradient for the picture."""
        return Program(self, outputs, same_blocks_as)

    def shapes(self, size: tuple[int, int], channels: int = 3, strict: bool = True) -> dict[int, tuple[int, ...]]:
        """Shape of every value for a picture of (height, width) `size` (see `infer_shapes`).

        strict: False leaves out layers that cannot run, and everything after them.
        """
        return infer_shapes(self, size, channels, faults=None if strict else {})

    def examine(self, size: tuple[int, int]) -> tuple[dict[int, tuple[int, ...]], dict[int, ModelError], list[str]]:
        """(shapes of values, faults, layers without weights) for a picture of (height, width) `size`.

        Inputs have the channels that the file states. faults: number of a node → why it cannot run; nodes that only
        depend on such are absent, and their values have no shapes. Raises ModelError where the model is not that of the
        prototxt: it holds blobs of other shapes, or another number of them, or nothing for any layer.
        """
        check_names(self.definition)
        faults: dict[int, ModelError] = {}
        shapes = infer_shapes(self, size, None, faults=faults)
        bare = []
        for index, node in enumerate(self.nodes):
            if index in faults or any(value not in shapes for value in node.bottoms):
                continue
            try:
                blobs, expected = check_weights(self.layer(index), self.definition, [shapes[b] for b in node.bottoms])
            except ShapeError as error:
                faults[index] = error
            else:
                bare += [node.definition.name] if expected and not blobs else []
        return infer_shapes(self, size, None, [i for i in range(len(self.nodes)) if i not in faults]), faults, bare

    def receptive_fields(self, local: bool = False) -> dict[int, ReceptiveField]:
        """The receptive field of every value that can be computed (see `shapes.receptive_fields`)."""
        return receptive_fields(self, local)

    def gradient_stops(self) -> dict[int, LayerDef]:
        """Value from which no gradient reaches an input → the layer that lets none pass (`Layer.passes_gradient`)."""
        stops: dict[int, LayerDef] = {}
        for index, node in enumerate(self.nodes):
            try:
                layer = self.layer(index)
            except ModelError:
                continue
            for i, top in enumerate(node.tops):
                ways = [bottom for j, bottom in enumerate(node.bottoms) if layer.passes_gradient(i, j)]
                if all(bottom in stops for bottom in ways):
                    stops[top] = stops[ways[0]] if ways else node.definition
        return stops

    def digest(self, names) -> str:
        """A short name for the graph and the weights that the named layers depend on."""
        return digest(self.definition, [self.nodes[index].definition for index in self.program(names).indices])

    def fingerprints(self, names) -> dict[str, str]:
        """Layer → a short name for the function of the picture that it computes, without the kind of its pooling.

        It is the same in every file with these weights, unlike `digest`, which also has the names of layers and blobs.
        """
        program = self.program(names)
        values = {number: f"input {number}" for number in range(len(self.input_names))}
        for index in program.indices:
            node = self.nodes[index]
            own = fingerprint(self.definition, node.definition, [values[bottom] for bottom in node.bottoms])
            values |= {top: f"{own}.{i}" if i else own for i, top in enumerate(node.tops)}
        return {name: values[value] for name, value in program.outputs.items()}

    def parameter_count(self, name: str) -> int:
        """Number of weights that the model file holds for a layer."""
        return sum(b.size for b in self.definition.weights.get(name, ()))

    def layer(self, index: int):
        """The layer of a node, made when first asked for.

        Raises ModelError for an unknown type, bad parameters or a bottom that nothing makes.
        """
        if index not in self._layers:
            definition = self.nodes[index].definition
            where = f"{self.definition.source}: layer '{definition.name}'"
            missing = next((self._missing[b] for b in self.nodes[index].bottoms if b in self._missing), None)
            if missing is not None:
                why = self.definition.missing.get(missing, f"reads blob '{missing}', which no layer before it produces")
                raise ModelError(f"{where}: {why}")
            cls = layer_class(definition.type)
            if cls is None:
                hint = nearest(definition.type, layer_types())
                raise ModelError(f"{where} has type '{definition.type}', which cvstyle cannot run{hint}")
            try:
                layer = cls(definition, self.nodes[index].ops)
            except ModelError as error:
                raise ModelError(f"{self.definition.source}: {error}") from None
            if layer.blobs_decide:
                layer.blob_count = count_blobs(definition, self.definition)
            layer.replace_max_pooling(self.pooling)
            self._layers.setdefault(index, layer)  # another thread may have made it meanwhile
        return self._layers[index]

    def prepare(self, index: int, bottoms: list[tuple[int, ...]]) -> None:
        """Load a node's weights, unless that is done (see `load_weights`). bottoms: shapes of the layer's bottoms."""
        loaded = self._weight_shapes.get(index)
        self._weight_shapes[index] = load_weights(self.layer(index), self.definition, bottoms, loaded)
