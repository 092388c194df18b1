"""Weights from a binary .caffemodel. The file is memory-mapped; opening it reads only layer names and sizes."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from math import prod

import numpy as np
from google.protobuf.message import DecodeError

from ..errors import ModelError
from .caffe_pb2 import BlobProto, LayerParameter, NetParameter, V0LayerParameter, V1LayerParameter
from .errors import model_error
from .sniff import check_file_type
from .wire import FIXED32, FIXED64, LENGTH, Field, WireError, fields

_MOST_AXES = 32  # Caffe's own limit


def _numbers(message) -> dict[str, int]:
    return {field.name: field.number for field in message.DESCRIPTOR.fields}


_NET, _V2, _V1, _V0, _BLOB = map(
    _numbers, (NetParameter, LayerParameter, V1LayerParameter, V0LayerParameter, BlobProto)
)
_DATA = {_BLOB["data"]: np.dtype("<f4"), _BLOB["double_data"]: np.dtype("<f8")}
_UNUSED = {_BLOB["diff"], _BLOB["double_diff"]}


class Weights(Mapping):
    """Mapping from layer name to the layer's list of blobs, for every layer of a .caffemodel that has blobs, in order.

    Blobs are read-only '<f4' or '<f8' arrays in the shape that the file states: (n, c, h, w) in old files, else any
    number of axes. They are views of the mapped file, usually unaligned, and outlive this object as long as the file is
    not truncated. Data that are unpacked or in several pieces are copied.

    Opening and `weights[name]` raise ModelError for a damaged file. If a layer is in the file twice, the last one with
    blobs counts, as in Caffe.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        check_file_type(self.path, text=False)
        try:
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise model_error(f"{self.path}: cannot be mapped: {getattr(error, 'strerror', None) or error}") from None
        if hasattr(mmap, "MADV_RANDOM"):  # no reading ahead while hopping over blobs
            self._map.madvise(mmap.MADV_RANDOM)
        self._blobs = self._index()
        if hasattr(mmap, "MADV_NORMAL"):
            self._map.madvise(mmap.MADV_NORMAL)

    def __len__(self) -> int:
        return len(self._blobs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._blobs)

    def __contains__(self, name: object) -> bool:
        return name in self._blobs

    def __getitem__(self, name: str) -> list[np.ndarray]:
        return [self._blob(name, index, at) for index, at in enumerate(self._blobs[name])]

    def _index(self) -> dict[str, list[Field]]:
        """Layer name -> fields of its blobs."""
        index: dict[str, list[Field]] = {}
        layers = 0
        name = ""
        try:
            for field in fields(self._map, 0, len(self._map)):
                if field.wire != LENGTH or field.number not in (_NET["layer"], _NET["layers"]):
                    continue
                layers += 1
                name, blobs = self._layer(field, _V2 if field.number == _NET["layer"] else _V1)
                if blobs:
                    index.pop(name, None)
                    index[name] = blobs
        except WireError as error:
            after = f" after layer '{name}'" if name else ""
            raise self._damaged(error, after) from None
        if not layers:
            raise model_error(
                f"{self.path}: holds no layers, so it is not a .caffemodel; is it a mean file or a solver state?"
            )
        return index

    def _layer(self, layer: Field, numbers: dict[str, int]) -> tuple[str, list[Field]]:
        name = ""
        blobs = []
        for field in fields(self._map, layer.start, layer.stop):
            if field.wire != LENGTH:
                continue
            if field.number == numbers["name"]:
                name = self._map[field.start : field.stop].decode(errors="replace")
            elif field.number == numbers["blobs"]:
                blobs.append(field)
            elif numbers is _V1 and field.number == _V1["layer"]:
                nested_name, nested_blobs = self._layer(field, _V0)
                name = nested_name or name
                blobs += nested_blobs
        return name, blobs

    def _blob(self, name: str, index: int, blob: Field) -> np.ndarray:
        where = f"{self.path}: blob {index} of layer '{name}' (byte {blob.at})"
        header = b""
        chunks: dict[int, list[np.ndarray]] = {number: [] for number in _DATA}
        try:
            for field in fields(self._map, blob.start, blob.stop):
                if field.number in _DATA:
                    chunks[field.number].append(self._values(field))
                elif field.number not in _UNUSED:
                    header += self._map[field.at : field.stop]
            proto = BlobProto.FromString(header)
        except WireError as error:
            raise self._damaged(error, f" in blob {index} of layer '{name}'") from None
        except DecodeError:
            raise model_error(f"{where} has a damaged header; download the file again") from None
        parts = chunks[_BLOB["double_data"]] or chunks[_BLOB["data"]]
        count = sum(len(part) for part in parts)
        shape = stated_shape(proto, count)
        if any(dim < 0 for dim in shape) or len(shape) > _MOST_AXES:
            raise model_error(f"{where} has the impossible shape {list(shape)[:40]}; download the file again")
        if prod(shape) != count:
            raise model_error(
                f"{where} has the shape {list(shape)}, which needs {prod(shape)} values, but holds {count}; "
                "the file is damaged or not a trained model"
            )
        if len(parts) == 1:
            return parts[0].reshape(shape)
        data = np.concatenate(parts) if parts else np.empty(0, "<f4")
        data.flags.writeable = False
        return data.reshape(shape)

    def _values(self, field: Field) -> np.ndarray:
        dtype = _DATA[field.number]
        if field.wire == LENGTH:
            count, rest = divmod(field.stop - field.start, dtype.itemsize)
            if rest:
                raise WireError(field.at, f"has {field.stop - field.start} bytes of {dtype.itemsize}-byte numbers")
            return np.frombuffer(self._map, dtype, count, field.start)
        if field.wire != {4: FIXED32, 8: FIXED64}[dtype.itemsize]:
            raise WireError(field.at, f"has data of the wire type {field.wire}")
        records = np.frombuffer(self._map, np.uint8, field.stop - field.at, field.at)
        values = np.ascontiguousarray(records.reshape(field.count, -1)[:, -dtype.itemsize :]).view(dtype)[:, 0]
        values.flags.writeable = False
        return values

    def _damaged(self, error: WireError, where: str) -> ModelError:
        return model_error(
            f"{self.path}: damaged at byte {error.offset}{where}: {error}; "
            "the file is cut short or corrupt, download it again"
        )


def stated_shape(proto: BlobProto, count: int) -> tuple[int, ...]:
    """The shape of a blob: stated as `shape` or as four numbers, else (count,)."""
    if proto.HasField("shape"):
        return tuple(proto.shape.dim)
    old = ("num", "channels", "height", "width")
    if any(proto.HasField(name) for name in old):
        return tuple(getattr(proto, name) for name in old)
    return (count,)
