"""Weights of an ONNX model: the initializers of its graph, in the order in which its nodes take them.

Numbers of fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..caffe.wire import FIXED32, FIXED64, LENGTH, VARINT, Field, WireError, fields, varint
from .source import BFLOAT16, Source
from .tensors import Container, Tensor

_IR_VERSION = 1  # fields of ModelProto
_GRAPH = 7
_NODE = 1  # of GraphProto
_INITIALIZER = 5
_INPUT = 1  # of NodeProto
_OUTPUT = 2
_OPERATOR = 4
_ATTRIBUTE = 5
_VALUE = 5  # of AttributeProto
_DIMS = 1  # of TensorProto
_TYPE = 2
_FLOATS = 4
_NAME = 8
_RAW = 9
_DOUBLES = 10
_LOCATION = 14
_EXTERNAL = 1
_TYPES = {
    1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1"), 4: np.dtype("<u2"), 5: np.dtype("<i2"),
    6: np.dtype("<i4"), 7: np.dtype("<i8"), 9: np.dtype("?"), 10: np.dtype("<f2"), 11: np.dtype("<f8"),
    12: np.dtype("<u4"), 13: np.dtype("<u8"), 16: BFLOAT16,
}  # fmt: skip
_TYPED = {_FLOATS: np.dtype("<f4"), _DOUBLES: np.dtype("<f8")}
_MOST_AXES = 64


class _Node(NamedTuple):
    operator: str
    inputs: list[str]
    outputs: list[str]
    value: Field | None


def is_onnx(source: Source) -> bool:
    """True for a protobuf with the version and the graph of a ModelProto."""
    found = set()
    try:
        for field in fields(source.map, 0, source.size):
            found.add((field.number, field.wire))
    except WireError:
        pass
    return (_IR_VERSION, VARINT) in found and (_GRAPH, LENGTH) in found


def read(source: Source) -> Container:
    """The container. Raises ModelError."""
    try:
        graph = next(f for f in fields(source.map, 0, source.size) if (f.number, f.wire) == (_GRAPH, LENGTH))
        tensors: dict[str, Tensor] = {}
        used: list[str] = []
        for field in _messages(source, graph):
            if field.number == _INITIALIZER:
                _add(source, tensors, field)
            elif field.number == _NODE:
                node = _node(source, field)
                used += node.inputs
                if node.operator == "Constant" and node.value and node.outputs:
                    _add(source, tensors, node.value, node.outputs[0])
    except WireError as error:
        raise source.damaged(f"at byte {error.offset} it {error}") from None
    order = [name for name in dict.fromkeys(used) if name in tensors]
    order += [name for name in tensors if name not in set(order)]
    return Container(source.path, "ONNX", {name: tensors[name] for name in order}, "oihw", source.digest)


def _messages(source: Source, parent: Field) -> Iterator[Field]:
    return (field for field in fields(source.map, parent.start, parent.stop) if field.wire == LENGTH)


def _node(source: Source, parent: Field) -> _Node:
    node = _Node("", [], [], None)
    for field in _messages(source, parent):
        if field.number == _INPUT:
            node.inputs.append(_text(source, field))
        elif field.number == _OUTPUT:
            node.outputs.append(_text(source, field))
        elif field.number == _OPERATOR:
            node = node._replace(operator=_text(source, field))
        elif field.number == _ATTRIBUTE:
            value = next((f for f in _messages(source, field) if f.number == _VALUE), None)
            node = node._replace(value=value or node.value)
    return node


def _text(source: Source, field: Field) -> str:
    return source.map[field.start : field.stop].decode("utf-8", "replace")


def _add(source: Source, tensors: dict[str, Tensor], parent: Field, name: str = "") -> None:
    """Add the tensor of a TensorProto under its name."""
    dims: list[int] = []
    numbers = {_TYPE: 0, _LOCATION: 0}
    values: dict[int, Field] = {}
    for field in fields(source.map, parent.start, parent.stop):
        if field.number == _DIMS:
            dims += _integers(source, field)
        elif field.number in numbers and field.wire == VARINT:
            (numbers[field.number],) = _integers(source, field)
        elif field.number == _NAME and field.wire == LENGTH:
            name = name or _text(source, field)
        elif field.number == _RAW or field.number in _TYPED:
            values[field.number] = field
        if len(dims) > _MOST_AXES:
            raise source.damaged(f"tensor '{name}' has more than {_MOST_AXES} axes")
    if name in tensors:
        raise source.damaged(f"tensor '{name}' is twice in it")
    source.check_count(len(tensors) + 1)
    if numbers[_LOCATION] == _EXTERNAL:
        raise source.error(
            f"tensor '{name}' is in another file (external data); save the model in one file, "
            "with onnx.save(onnx.load(...), ...)"
        )
    dtype = _TYPES.get(numbers[_TYPE])
    if dtype is not None and values:
        tensors[name] = _tensor(source, name, dtype, dims, values)


def _tensor(source: Source, name: str, dtype: np.dtype, dims: list[int], values: dict[int, Field]) -> Tensor | None:
    number, field = next(iter(values.items()))
    fitting = field.wire in (LENGTH, FIXED32, FIXED64) and _TYPED.get(number, dtype) == dtype
    if len(values) > 1 or not fitting:
        raise source.damaged(f"tensor '{name}' has values of two types")
    if field.wire == LENGTH:
        return source.tensor(name, dtype, dims, source.view[field.start : field.stop])
    records = source.view[field.at : field.stop]  # of a number and the tag before it
    strides = _strides(dims, (field.stop - field.at) // field.count)
    return source.tensor(name, dtype, dims, records, offset=1, strides=strides)


def _strides(dims: list[int], size: int) -> tuple[int, ...]:
    strides = [size]
    for n in dims[:0:-1]:
        strides.append(strides[-1] * n)
    return tuple(strides[::-1])[-len(dims) :] if dims else ()


def _integers(source: Source, field: Field) -> list[int]:
    """The integers of a repeated field, packed or not; at most one more than a shape may have."""
    found: list[int] = []
    at = field.start
    while at < field.stop and len(found) <= _MOST_AXES and field.wire in (VARINT, LENGTH):
        value, at = varint(source.map, at, field.stop)
        found.append(value)
    return found
