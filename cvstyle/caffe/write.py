"""Writers of .prototxt and .caffemodel in all three forms: for cvstyle's own models and tests of the readers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import text_format

from ..netdef import LayerDef, NetDef
from .caffe_pb2 import BlobProto, LayerParameter, NetParameter, V0LayerParameter, V1LayerParameter
from .errors import model_error
from .graph import param_message
from .upgrade import V0_FIELDS, V0_TYPES, V1_FIELDS, V1_TYPES
from .wire import LENGTH

_V1_NAMES = {v2: v1 for v1, v2 in V1_TYPES.items()}
_V0_NAMES = {V1_TYPES[v1]: v0 for v0, v1 in V0_TYPES.items()}
_CHUNK = 1 << 20  # elements copied at a time

Blobs = Mapping[str, Sequence[np.ndarray]]


def write_prototxt(path: str | os.PathLike, net: NetDef, form: str = "V2") -> None:
    """Write the graph as text. form: "V2", "V1" or "V0". Raises ModelError if the form cannot express the net."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text_format.MessageToString(net_message(net, form), as_utf8=True))


def write_caffemodel(
    path: str | os.PathLike,
    net: NetDef,
    weights: Blobs | None = None,
    form: str = "V2",
    legacy_shape: bool | None = None,
) -> None:
    """Write graph and weights as binary, with only one layer's blobs in memory at a time.

    weights: layer name -> blobs; None: NetDef.weights. float64 blobs become double_data, all other types float data.
    legacy_shape: write shapes as num, channels, height, width (at most 4 axes, ones in front); None: for V0 and V1.
    """
    weights = net.weights if weights is None else weights
    legacy = form != "V2" if legacy_shape is None else legacy_shape
    message = net_message(net, form)
    rest = NetParameter()
    rest.CopyFrom(message)
    rest.ClearField("layer")
    rest.ClearField("layers")
    with open(path, "wb") as file:
        file.write(rest.SerializeToString())
        for layer in [*message.layer, *message.layers]:
            name = layer.layer.name if form == "V0" else layer.name
            blobs = [_Blob(array, legacy) for array in weights.get(name, ())]
            _write_layer(file, layer, blobs, form)


def net_message(net: NetDef, form: str = "V2") -> NetParameter:
    """The message of a net without blobs."""
    if form not in _FORMS:
        raise model_error(f"form '{form}' is unknown; it is V0, V1 or V2")
    message = NetParameter(name=net.name)
    for name, shape in net.inputs.items():
        if form == "V2":
            layer = message.layer.add(name=name, type="Input", top=[name])
            if shape is not None:
                layer.input_param.shape.add(dim=shape)
        else:
            message.input.append(name)
            message.input_dim.extend(shape or ())
    for definition in net.layers:
        _FORMS[form](message, definition)
    return message


def _v2(message: NetParameter, definition: LayerDef) -> None:
    layer = message.layer.add(
        name=definition.name, type=definition.type, bottom=definition.bottoms, top=definition.tops
    )
    _set_params(layer, definition)


def _v1(message: NetParameter, definition: LayerDef) -> None:
    if definition.type not in _V1_NAMES:
        raise model_error(f"layer '{definition.name}': form V1 has no type {definition.type}; write V2")
    layer = message.layers.add(name=definition.name, bottom=definition.bottoms, top=definition.tops)
    layer.type = V1LayerParameter.LayerType.Value(_V1_NAMES[definition.type])
    _set_params(layer, definition)


def _v0(message: NetParameter, definition: LayerDef) -> None:
    if definition.type not in _V0_NAMES:
        raise model_error(f"layer '{definition.name}': form V0 has no type {definition.type}; write V1 or V2")
    outer = message.layers.add(bottom=definition.bottoms, top=definition.tops)
    layer = outer.layer
    layer.name = definition.name
    layer.type = _V0_NAMES[definition.type]
    names = {V1_FIELDS.get(name, name): name for name in V0_FIELDS.get(layer.type, ("", ()))[1]}
    for name, value in definition.params.items():
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if name not in names or isinstance(value, list):
            raise model_error(f"layer '{definition.name}': form V0 cannot say {name}: {value}; write V1 or V2")
        _set(layer, names[name], value)


_FORMS = {"V0": _v0, "V1": _v1, "V2": _v2}


def _set_params(layer: LayerParameter | V1LayerParameter, definition: LayerDef) -> None:
    message = param_message(definition.type)
    if definition.params and not hasattr(layer, message):
        raise model_error(f"layer '{definition.name}': no parameter message is known for the type {definition.type}")
    for name, value in definition.params.items():
        _set(getattr(layer, message), name, value)


def _set(message, name: str, value: Any) -> None:
    """Set a field from a plain value (see LayerDef.params); a repeated field also accepts a single value."""
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise model_error(f"{message.DESCRIPTOR.name} has no field {name}")
    if isinstance(value, Mapping):
        getattr(message, name).SetInParent()
        for key, item in value.items():
            _set(getattr(message, name), key, item)
    elif isinstance(value, (list, tuple)):
        getattr(message, name).extend(value)
    elif field.enum_type:
        setattr(message, name, field.enum_type.values_by_name[value].number)
    elif hasattr(getattr(message, name), "append"):
        getattr(message, name).append(value)
    else:
        setattr(message, name, value)


class _Blob:
    """A serialised blob: a header, then the data in chunks."""

    def __init__(self, array: np.ndarray, legacy: bool):
        self.array = np.asarray(array)
        double = self.array.dtype == np.float64
        self.dtype = np.dtype("<f8" if double else "<f4")
        header = BlobProto()
        if legacy:
            shape = (1,) * (4 - self.array.ndim) + self.array.shape
            if len(shape) != 4:
                raise model_error(f"a blob of shape {shape} has too many axes for num, channels, height, width")
            header.num, header.channels, header.height, header.width = shape
        else:
            header.shape.dim.extend(self.array.shape)
        number = _number(BlobProto, "double_data" if double else "data")
        data_size = self.array.size * self.dtype.itemsize
        self.head = header.SerializeToString() + _open(number, data_size)
        self.size = len(self.head) + data_size

    def chunks(self) -> Iterator[bytes | memoryview]:
        yield self.head
        for start in range(0, self.array.size, _CHUNK):
            part = self.array.flat[start : start + _CHUNK]
            yield memoryview(np.ascontiguousarray(part, self.dtype)).cast("B")


def _write_layer(file, layer, blobs: list[_Blob], form: str) -> None:
    holder = {"V2": LayerParameter, "V1": V1LayerParameter, "V0": V0LayerParameter}[form]
    number = _number(holder, "blobs")
    heads = [_open(number, blob.size) for blob in blobs]
    size = sum(len(head) + blob.size for head, blob in zip(heads, blobs))
    start = layer.SerializeToString()
    rest = b""
    if form == "V0":  # the blobs are in the nested layer
        inner = layer.layer.SerializeToString()
        start = _open(_number(V1LayerParameter, "layer"), len(inner) + size) + inner
        layer.ClearField("layer")
        rest = layer.SerializeToString()
    file.write(_open(_number(NetParameter, "layer" if form == "V2" else "layers"), len(start) + size + len(rest)))
    file.write(start)
    for head, blob in zip(heads, blobs):
        file.write(head)
        for chunk in blob.chunks():
            file.write(chunk)
    file.write(rest)


def _number(message, name: str) -> int:
    return message.DESCRIPTOR.fields_by_name[name].number


def _open(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return _varint(number << 3 | LENGTH) + _varint(length)


def _varint(value: int) -> bytes:
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
