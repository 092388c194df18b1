"""Files of safetensors: the length of a header in JSON, the header, and the values.

The library sorts tensors by size of dtype and by name, so that the order in a file means nothing; names are sorted as
people count here, "features.2" before "features.10".
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json

import numpy as np

from .nested import counted
from .source import BFLOAT16, Source
from .tensors import Container, Tensor

_LONGEST_HEADER = 1 << 20  # 10,000 tensors; the format's own limit is 100 MB, of which JSON would make 2 GB
_DTYPES = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BFLOAT16, "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"), "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"), "U16": np.dtype("<u2"), "U8": np.dtype("u1"), "BOOL": np.dtype("?"),
}  # fmt: skip
_LAYOUTS = {"pt": "oihw", "tf": "hwio", "flax": "hwio"}  # by the framework that the header names


def begins(head: bytes) -> bool:
    """True if a file's first bytes are the length of a header, and its beginning."""
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000


def read(source: Source) -> Container:
    """The container. Raises ModelError."""
    length = int.from_bytes(source.view[:8], "little")
    if length > source.size - 8:
        raise source.damaged(f"its header of {length} bytes is longer than the file")
    if length > _LONGEST_HEADER:
        raise source.error(f"its header of {length} bytes lists more tensors than any network has; is it safetensors?")
    header = _header(source, source.view[8 : 8 + length])
    metadata = header.pop("__metadata__", None)
    values = source.view[8 + length :]
    tensors: dict[str, Tensor] = {}
    spans = []
    for name, entry in header.items():
        dtype, shape, start, stop = _entry(source, name, entry)
        if not 0 <= start <= stop <= len(values):
            raise source.damaged(f"tensor '{name}' is in the bytes {start} to {stop} of {len(values)}")
        tensors[name] = source.tensor(name, dtype, shape, values[start:stop])
        if np.prod(tensors[name].shape, dtype=object) * dtype.itemsize != stop - start:
            raise source.damaged(f"tensor '{name}' of shape {shape} has {stop - start} bytes")
        spans.append((start, stop, name))
    reached = 0
    for start, stop, name in sorted(spans):
        if start != reached:
            raise source.damaged(f"tensor '{name}' begins at byte {start} of the values, and not at byte {reached}")
        reached = stop
    if reached != len(values):
        raise source.damaged(f"{len(values) - reached} bytes at its end belong to no tensor")
    framework = metadata.get("format") if isinstance(metadata, dict) else None
    return Container(
        source.path, "safetensors", {name: tensors[name] for name in sorted(tensors, key=counted)},
        _LAYOUTS.get(framework if isinstance(framework, str) else "", ""), source.digest,
    )  # fmt: skip


def _header(source: Source, text: memoryview) -> dict:
    def unique(pairs):
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name is in it twice")
        return found

    try:
        header = json.loads(bytes(text), object_pairs_hook=unique)
    except RecursionError:
        raise source.damaged("its header is nested too deeply") from None
    except ValueError as error:
        raise source.damaged(f"its header is not valid JSON: {error}") from None
    if not isinstance(header, dict):
        raise source.damaged("its header lists no tensors")
    return header


def _entry(source: Source, name: str, entry: object) -> tuple[np.dtype, list[int], int, int]:
    try:
        code = entry["dtype"]
        shape = list(entry["shape"])
        start, stop = entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise source.damaged(f"tensor '{name}' lacks a dtype, a shape or its place") from None
    if type(start) is not int or type(stop) is not int:
        raise source.damaged(f"tensor '{name}' lacks its place")
    if not isinstance(code, str) or code not in _DTYPES:
        raise source.error(f"tensor '{name}' holds numbers of type {code}; convert the file to F32")
    return _DTYPES[code], shape, start, stop
