"""Files of torch.save: since 1.6 an archive of a pickle and the storages, before that a sequence of pickles.

A tensor is a pickled call of a function of torch._utils: a storage, the offset of its first value, its shape and its
strides. Storages are outside the pickle, which names them.
https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from .archive import Member
from .arrays import array_tensor, pickle_error
from .nested import tensors_in
from .pickles import Global, Object, PickleError, interpret
from .source import BFLOAT16, Source
from .tensors import Container, Tensor

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_KIND = "PyTorch"
_LAYOUT = "oihw"
_STORAGES = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1",
    "Byte": "u1", "Bool": "?",
}  # fmt: skip
# Sizes of others, which are found in a legacy file and not read.
_SIZES = {
    "QInt8": 1, "QUInt8": 1, "QUInt4x2": 1, "QUInt2x4": 1, "QInt32": 4, "ComplexFloat": 8, "ComplexDouble": 16,
    "Untyped": 1,
}  # fmt: skip
_DTYPES = {
    "float64": "Double", "double": "Double", "float32": "Float", "float": "Float", "float16": "Half", "half": "Half",
    "bfloat16": "BFloat16", "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte",
    "bool": "Bool",
}  # fmt: skip
_REBUILD = "torch._utils._rebuild_"
_PARAMETERS = (f"{_REBUILD}parameter", f"{_REBUILD}parameter_with_state", "torch.nn.parameter.Parameter")


@dataclass(eq=False)
class _Storage:
    """A storage. type: such as "FloatStorage". data: None until known."""

    key: str
    type: str
    data: memoryview | None = None

    @property
    def dtype(self) -> np.dtype | None:
        name = self.type.removesuffix("Storage")
        if name == "BFloat16":
            return BFLOAT16
        return np.dtype(_STORAGES[name]) if name in _STORAGES else None

    @property
    def size(self) -> int:
        """Bytes of a number, or 0."""
        return self.dtype.itemsize if self.dtype else _SIZES.get(self.type.removesuffix("Storage"), 0)


def pickle_member(members: dict[str, Member]) -> Member | None:
    """The pickle of an archive of torch.save."""
    return next((member for name, member in members.items() if name.rpartition("/")[2] == "data.pkl"), None)


def read_archive(source: Source, members: dict[str, Member]) -> Container:
    """The container of an archive, TorchScript's included. Raises ModelError."""
    pickle = pickle_member(members)
    folder = pickle.name.removesuffix("data.pkl")
    order = members.get(f"{folder}byteorder")
    big = order is not None and bytes(order.data[:3]) == b"big"
    storages: dict[str, _Storage] = {}

    def persistent(value):
        storage = _storage(value, storages)
        if not isinstance(storage, _Storage):
            raise PickleError("the pickle refers to a part of a file of PyTorch before 1.6")
        member = members.get(f"{folder}data/{storage.key}")
        if member is None:
            raise source.damaged(f"storage '{storage.key}' is not in the archive")
        storage.data = _stored(source, member)
        return storage

    try:
        root, _ = interpret(_stored(source, pickle), persistent)
    except PickleError as error:
        raise pickle_error(source, error) from None
    return _container(source, root, big)


def _stored(source: Source, member: Member) -> memoryview:
    if member.deflated:
        raise source.error(
            f"member '{member.name}' of the archive is compressed, and torch.save never does that; "
            "unpack the archive and pack it uncompressed (zip -0)"
        )
    return member.data


def is_legacy(head: bytes) -> bool:
    """True if a file begins with the pickle of torch.save's magic number."""
    magic = LEGACY_MAGIC.to_bytes(10, "little")
    return head[:1] == b"\x80" and magic in head[:32]


def read_legacy(source: Source) -> Container:
    """The container of a file of PyTorch before 1.6. Raises ModelError."""
    storages: dict[str, _Storage] = {}
    at = 0

    def following(persistent=None):
        nonlocal at
        value, length = interpret(source.view[at:], persistent)
        at += length
        return value

    try:
        magic = following()
        protocol = following()
        if magic != LEGACY_MAGIC or protocol != _PROTOCOL:
            raise source.error("is a file of torch.save in an unknown protocol; load it with PyTorch and save it again")
        following()  # the machine that wrote it; values are little-endian whatever that was
        root = following(lambda value: _storage(value, storages))
        keys = following()
    except PickleError as error:
        raise pickle_error(source, error) from None
    if not isinstance(keys, list):
        raise source.damaged("it has no list of storages")
    for key in keys:
        at = _place(source, storages.get(key) if isinstance(key, str) else None, at)
    return _container(source, root, big=False)


def _place(source: Source, storage: _Storage | None, at: int) -> int:
    """Find a storage's values at a position of the file; returns the position after them."""
    if storage is None or not storage.size:
        raise source.damaged(f"it has a storage of unknown type at byte {at}")
    if at + 8 > source.size:
        raise source.damaged(f"storage '{storage.key}' has no values")
    (count,) = struct.unpack_from("<q", source.map, at)
    size = count * storage.size
    if not 0 <= size <= source.size - at - 8:
        raise source.damaged(f"storage '{storage.key}' of {count} numbers has {source.size - at - 8} bytes")
    storage.data = source.view[at + 8 : at + 8 + size]
    return at + 8 + size


def _storage(value: object, storages: dict[str, _Storage]) -> object:
    """The storage of a persistent id: ("storage", type, key, device, numbers, and in the legacy form a view)."""
    if isinstance(value, tuple) and len(value) > 1 and value[0] == "module":
        return value[1]  # the class of a module, beside its source
    if not isinstance(value, tuple) or len(value) < 5 or value[0] != "storage":
        raise PickleError("the pickle refers to an object that is no storage")
    _, kind, key, _, _, view = (*value, None)[:6]
    if not isinstance(kind, Global) or not isinstance(key, (str, int)):
        raise PickleError("the pickle refers to a storage without a type")
    storage = storages.setdefault(str(key), _Storage(str(key), kind.name))
    if storage.type != kind.name:
        raise PickleError(f"storage '{key}' has two types")
    if isinstance(view, tuple) and len(view) == 3 and type(view[1]) is int:
        return _View(storage, view[1])
    return storage


@dataclass(eq=False)
class _View:
    """A part of a storage that begins at a number of it, in legacy files."""

    storage: _Storage
    offset: int


def _container(source: Source, root: object, big: bool) -> Container:
    tensors = tensors_in(source, root, lambda name, value: _tensor(source, name, value, big))
    return Container(source.path, _KIND, tensors, _LAYOUT, source.digest)


def _tensor(source: Source, name: str, value: object, big: bool) -> Tensor | None:
    """The tensor that a pickled call rebuilds; None for other objects."""
    for _ in range(4):  # a parameter, or a class derived from Tensor, has the tensor inside
        inner = _inner(value)
        if inner is None:
            break
        value = inner
    if not isinstance(value, Object):
        return None
    path = value.path
    arguments = value.arguments
    if path.startswith("torch.") and path.endswith("Tensor") and isinstance(value.state, tuple):  # before 0.2
        path = f"{_REBUILD}tensor"
        arguments = value.state
    if not path.startswith(_REBUILD):
        return array_tensor(source, name, value)
    if path == f"{_REBUILD}device_tensor_from_numpy" and arguments:
        return array_tensor(source, name, arguments[0])
    if path not in (f"{_REBUILD}tensor", f"{_REBUILD}tensor_v2", f"{_REBUILD}tensor_v3"):
        kind = path.removeprefix(_REBUILD)
        raise source.error(
            f"tensor '{name}' is not a plain one ({kind}); save the weights as plain tensors, such as "
            "dequantised ones of float32"
        )
    return _rebuilt(source, name, path, arguments, big)


def _inner(value: object) -> object:
    if isinstance(value, Object):
        if value.path in _PARAMETERS:
            inside = value.arguments or value.state
            return inside[0] if isinstance(inside, tuple) and inside else None
        if value.path == "torch._tensor._rebuild_from_type_v2" and len(value.arguments) == 4:
            return Object(value.arguments[0], value.arguments[2])
    return None


def _rebuilt(source: Source, name: str, path: str, arguments: tuple, big: bool) -> Tensor:
    padded = (*arguments, None, None, None, None)
    storage, start, shape, strides = padded[:4]
    offset = 0
    if isinstance(storage, _View):
        offset = storage.offset
        storage = storage.storage
    numbers = isinstance(shape, tuple) and isinstance(strides, tuple) and all(type(n) is int for n in (start, *strides))
    if not isinstance(storage, _Storage) or not numbers:
        raise source.damaged(f"tensor '{name}' has no storage, shape or strides")
    dtype = storage.dtype
    code = storage.type
    if path.endswith("_v3"):
        named = arguments[6] if len(arguments) > 6 else None
        code = _DTYPES.get(named.name, named.name) if isinstance(named, Global) else ""
        dtype = _Storage("", code).dtype
    if dtype is None:
        raise source.error(f"tensor '{name}' holds numbers of type {code}; save the weights as float32")
    if storage.data is None:
        raise source.damaged(f"tensor '{name}' has a storage without values")
    if big:
        dtype = dtype.newbyteorder(">")
    size = dtype.itemsize
    return source.tensor(
        name, dtype, shape, storage.data, offset=(offset + start) * size, strides=tuple(n * size for n in strides)
    )
