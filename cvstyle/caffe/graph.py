"""NetParameter message -> NetDef: selection of layers by phase, inputs, and validation of the graph."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

import numpy as np

from ..errors import nearest
from ..netdef import LayerDef, NetDef, Transform
from .caffe_pb2 import LayerParameter, NetParameter, NetState
from .errors import model_error
from .upgrade import upgraded_layers


def net_def(net: NetParameter, source: str, phase: str = "TEST") -> NetDef:
    """The net in one phase, without the layers for training and evaluation. Raises ModelError.

    Data layers become inputs (their first top); labels, losses, accuracies and layers that depend on these alone are
    dropped. Layers that read a blob which nothing makes stay (`NetDef.missing`), unless all layers depend on such.
    `transform` is the transform_param of a data layer of the phase, else of one of another phase.
    """
    phases = NetState.DESCRIPTOR.fields_by_name["phase"].enum_type.values_by_name
    if phase not in phases:
        raise model_error(f"phase '{phase}' is unknown; it is TEST or TRAIN")
    state = NetState(phase=phases[phase].number, level=net.state.level, stage=net.state.stage)
    all_layers = upgraded_layers(net, source)
    included = [_included(layer, state, source) for layer in all_layers]
    builder = _Builder(source, all_layers, included, phase)
    builder.legacy_inputs(net)
    for index, layer in enumerate(all_layers):
        if included[index]:
            builder.add(layer, index)
    if not builder.layers:
        raise model_error(f"{source}: no layer is left in phase {phase}; is it a .prototxt of a net?")
    if not builder.whole:
        first = builder.layers[0]
        why = next(builder.missing[bottom] for bottom in first.bottoms if bottom in builder.missing)
        raise model_error(f"{source}: layer '{first.name}': {why}")
    transform = builder.transform or builder.other_transform
    layers = tuple(builder.layers)
    return NetDef(net.name, builder.inputs, layers, source=source, transform=transform, missing=builder.missing)


class _Builder:
    """Builds the graph from layers in file order; a blob name is in at most one of `blobs`, `labels` and `dropped`."""

    def __init__(self, source: str, all_layers: list[LayerParameter], included: list[bool], phase: str):
        self.source = source
        self.all_layers = all_layers
        self.phase = phase
        self.inputs: dict[str, tuple[int, ...] | None] = {}
        self.layers: list[LayerDef] = []
        self.taken = {layer.name for layer in all_layers}
        self.names: set[str] = set()
        self.blobs: set[str] = set()  # blobs of the net
        self.labels: set[str] = set()  # further tops of data layers
        self.dropped: set[str] = set()  # outputs of dropped layers
        self.missing: dict[str, str] = {}  # blobs that are read before anything makes them → why
        self.severed: set[str] = set()  # outputs of layers that depend on missing blobs
        self.whole = False  # True with a layer that depends on none of them
        self.made = {top for layer, here in zip(all_layers, included) if here for top in _new_tops(layer)}
        # Inputs from data layers of other phases, for a training file without a test phase.
        self.other_inputs: dict[str, tuple[int, ...] | None] = {}
        self.transform: Transform | None = None
        self.other_transform: Transform | None = None
        for layer in (layer for layer, here in zip(all_layers, included) if not here and _is_source(layer)):
            self.other_inputs.setdefault(layer.top[0], next(iter(_source_shapes(layer)), None))
            self.labels.update(layer.top[1:])
            self.other_transform = self.other_transform or _transform(layer, source)
        self.labels.difference_update(self.made)

    def legacy_inputs(self, net: NetParameter) -> None:
        """The net's `input` fields (Caffe's UpgradeNetInput): input_shape, else input_dim; surplus shapes mean nothing.

        Caffe drops inputs without any shape; here only those that a layer makes, since others can have any size.
        """
        count = len(net.input)
        dims = list(net.input_dim)
        if net.input_shape:
            shapes = [tuple(shape.dim) for shape in net.input_shape]
            stated = "input_shape"
        else:
            shapes = [tuple(dims[i : i + 4]) for i in range(0, len(dims) - 3, 4)]
            stated = "groups of 4 input_dim"
        if len(shapes) < count and (net.input_shape or dims):
            raise model_error(f"{self.source}: has {count} `input` but {len(shapes)} {stated}; give one for each input")
        for name, shape in zip(net.input, shapes or [None] * count):
            if shape is not None or name not in self.made:
                self._input(name, shape, "input")

    def add(self, layer: LayerParameter, index: int) -> None:
        name = layer.name or self._unused(layer.type.lower() or "layer", index)
        if _is_source(layer):
            self._add_source(layer, name)
            return
        if _is_training_only(layer.type) or self._depends_on_dropped(layer):
            labels = all(bottom in self.labels for bottom in layer.bottom)
            (self.labels if labels else self.dropped).update(top for top in layer.top if top not in self.blobs)
            return
        repeats = layer.name if name in self.names else ""
        if repeats:
            name = self._unused(name, index)
        self.names.add(name)
        for bottom in layer.bottom:
            self._read(bottom, name, index)
        for top in _new_tops(layer):
            self._make(top, name)
        if self.severed.isdisjoint(layer.bottom):
            self.whole = True
            self.severed.difference_update(layer.top)
        else:
            self.severed.update(layer.top)
        shared = tuple(spec.name for spec in layer.param)
        params = layer_params(layer)
        if layer.type == "BatchNorm" and self._phase(layer) == "TRAIN":
            params.setdefault("use_global_stats", False)
        self.layers.append(
            LayerDef(
                name, layer.type, tuple(layer.bottom), tuple(layer.top), params, repeats,
                shared if any(shared) else (),
            )
        )  # fmt: skip

    def _phase(self, layer: LayerParameter) -> str:
        """The phase of a layer: its own, else that of the net (Caffe's Net::Init)."""
        if not layer.HasField("phase"):
            return self.phase
        return layer.DESCRIPTOR.fields_by_name["phase"].enum_type.values_by_number[layer.phase].name

    def _read(self, bottom: str, name: str, index: int) -> None:
        if bottom in self.labels:  # used as data after all
            self._input(bottom, None, name)
        elif bottom in self.blobs:
            return
        elif bottom in self.other_inputs:
            self._input(bottom, self.other_inputs[bottom], name)
        else:
            self.missing.setdefault(bottom, self._why_missing(bottom, index))
            self.severed.add(bottom)

    def _add_source(self, layer: LayerParameter, name: str) -> None:
        self.transform = self.transform or _transform(layer, self.source)
        shapes = _source_shapes(layer)
        if len(shapes) not in (0, 1, len(layer.top)):
            raise model_error(
                f"{self.source}: layer '{name}' has {len(layer.top)} tops but {len(shapes)} shapes; give one or as many"
            )
        shapes = shapes * len(layer.top) if len(shapes) == 1 else shapes or [None] * len(layer.top)
        inputs = len(layer.top) if layer.type == "Input" else 1
        for top, shape in zip(layer.top[:inputs], shapes):
            self._input(top, shape, name)
        self.labels.update(top for top in layer.top[inputs:] if top not in self.blobs)

    def _input(self, blob: str, shape: tuple[int, ...] | None, name: str) -> None:
        if shape is not None and any(dim < 0 for dim in shape):
            raise model_error(f"{self.source}: input '{blob}' has a negative size in its shape {list(shape)}")
        self._make(blob, name)
        self.inputs[blob] = shape

    def _make(self, blob: str, name: str) -> None:
        if blob in self.blobs:
            raise model_error(f"{self.source}: layer '{name}': blob '{blob}' is already made above; rename one of them")
        self.blobs.add(blob)
        self.labels.discard(blob)
        self.dropped.discard(blob)
        self.severed.discard(blob)

    def _depends_on_dropped(self, layer: LayerParameter) -> bool:
        bottoms = set(layer.bottom)
        return bool(bottoms) and (bottoms <= self.labels | self.dropped or not bottoms.isdisjoint(self.dropped))

    def _unused(self, name: str, index: int) -> str:
        """A name for a layer that has none of its own: its number in the file behind `name`."""
        name = f"{name}@{index + 1}"
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _why_missing(self, blob: str, index: int) -> str:
        for position, other in enumerate(self.all_layers):
            if blob in other.top:
                if position == index:
                    return f"its input '{blob}' is its own output, and no layer above makes it; the graph has a circle"
                if position > index:
                    return (
                        f"its input '{blob}' is made only below, by layer '{other.name}'; "
                        "the graph has a circle, or the layers are out of order"
                    )
                return f"its input '{blob}' is made by layer '{other.name}', which is not in phase {self.phase}"
        known = nearest(blob, sorted(self.blobs)) if self.blobs else f'; write `input: "{blob}"` above the layers'
        return f"no layer makes its input '{blob}'{known}"


_MESSAGES = {
    **dict.fromkeys(("Deconvolution", "ConvolutionDepthwise", "DepthwiseConvolution"), "convolution_param"),
    "Normalize": "norm_param",
}
"""Layer types whose parameter message has another name than theirs."""


def layer_params(layer: LayerParameter) -> dict[str, Any]:
    """The fields that a V2 layer sets in the parameter message of its type (see LayerDef.params).

    For a type without a known message, such as a fork's, the fields of all messages.
    """
    params: dict[str, Any] = {}
    own = param_message(layer.type)
    for field, message in layer.ListFields():
        if field.name == own or (not own and field.name.endswith("_param")):
            params.update(_plain(message))
    return params


def param_message(layer_type: str) -> str:
    """The name of the parameter message of a V2 layer type, "" if unknown."""
    if layer_type in _MESSAGES:
        return _MESSAGES[layer_type]
    wanted = layer_type.lower() + "param"
    names = (field.name for field in LayerParameter.DESCRIPTOR.fields if field.name.endswith("_param"))
    return next((name for name in names if name.replace("_", "") == wanted), "")


def _plain(message) -> dict[str, Any]:
    """A message as Python values: enum values by name, messages as dicts, repeated fields as lists."""
    result = {}
    for field, value in message.ListFields():
        if field.message_type:
            convert = _plain
        elif field.enum_type:
            convert = _enum_namer(field.enum_type)
        else:
            convert = _identity
        is_list = isinstance(value, MutableSequence)
        result[field.name] = [convert(item) for item in value] if is_list else convert(value)
    return result


def _enum_namer(enum):
    return lambda number: enum.values_by_number[number].name


def _identity(value):
    return value


def _is_source(layer: LayerParameter) -> bool:
    if layer.bottom or not layer.top:
        return False
    # A Python layer without inputs can only be a reader of data.
    return layer.type in ("Input", "Python") or layer.type.endswith("Data")


def _is_training_only(layer_type: str) -> bool:
    """True for losses, measures and sinks, forks' included (SoftmaxWithLossOHEM, SegAccuracy, MultiBoxLoss)."""
    kind = layer_type.lower()
    return "loss" in kind or kind.endswith("accuracy") or layer_type in ("Silence", "HDF5Output", "DetectionEvaluate")


def _new_tops(layer: LayerParameter) -> list[str]:
    """The tops that a layer makes; a top that is the bottom at its place is changed in place (Net::AppendTop)."""
    return [top for i, top in enumerate(layer.top) if i >= len(layer.bottom) or layer.bottom[i] != top]


def _source_shapes(layer: LayerParameter) -> list[tuple[int, ...]]:
    """The shapes of an input layer's tops as stated: none, one for all, or one each."""
    dummy = layer.dummy_data_param
    memory = layer.memory_data_param
    if layer.type == "Input":
        return [tuple(shape.dim) for shape in layer.input_param.shape]
    if layer.type == "DummyData" and dummy.shape:
        return [tuple(dummy.shape[0].dim)]
    if layer.type == "DummyData":
        return list(zip(dummy.num, dummy.channels, dummy.height, dummy.width))[:1]
    if layer.type == "MemoryData" and memory.channels:
        return [(memory.batch_size, memory.channels, memory.height, memory.width)]
    return []


def _transform(layer: LayerParameter, source: str) -> Transform | None:
    """The preprocessing in a data layer; a transform_param without a mean subtracts none."""
    if not layer.HasField("transform_param"):
        return None
    stated = layer.transform_param
    if stated.mean_value and stated.mean_file:
        raise model_error(f"{source}: layer '{layer.name}' has both mean_value and mean_file; keep one of them")
    mean = tuple(map(_as_written, stated.mean_value)) or (() if stated.mean_file else (0.0,))
    return Transform(mean, _as_written(stated.scale) if stated.HasField("scale") else 1.0, stated.mean_file)


def _as_written(value: float) -> float:
    """A float32 as the decimal number in the file: 0.017 from 0.017000000923871994."""
    return float(str(np.float32(value)))


def _included(layer: LayerParameter, state: NetState, source: str) -> bool:
    if layer.include and layer.exclude:
        raise model_error(f"{source}: layer '{layer.name}' has both include and exclude rules; keep one kind")
    if layer.include:
        return any(_meets(state, rule) for rule in layer.include)
    return not any(_meets(state, rule) for rule in layer.exclude)


def _meets(state: NetState, rule) -> bool:
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )
