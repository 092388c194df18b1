"""Files of weights, byte by byte as their formats say, for readers that are tested without the frameworks."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable

import numpy as np
import scipy.io

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "u1": "Byte"}


def arrays() -> dict[str, np.ndarray]:
    """Filters (outputs, inputs, height, width) and biases of two layers, by name."""
    rng = np.random.default_rng(19)
    return {
        "features.0.weight": rng.standard_normal((8, 3, 3, 3)).astype("f4"),
        "features.0.bias": rng.standard_normal(8).astype("f8"),
        "features.2.weight": rng.standard_normal((4, 8, 1, 1)).astype("f2"),
        "features.2.bias": np.arange(4),
    }


# Pickles, put together from their operations


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def integers(values) -> bytes:
    return b"(" + b"".join(integer(value) for value in values) + b"t"


def named(path: str) -> bytes:
    module, _, name = path.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def called(path: str, *arguments: bytes) -> bytes:
    return named(path) + b"(" + b"".join(arguments) + b"tR"


def dictionary(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def storage(key: str, kind: str, count: int, *view: bytes) -> bytes:
    identity = [text("storage"), named(f"torch.{kind}Storage"), text(key), text("cpu"), integer(count), *view]
    return b"(" + b"".join(identity) + b"tQ"


def tensor(held: bytes, shape, *, offset=0, strides=None) -> bytes:
    """A call of torch's function. strides: in numbers."""
    strides = strides or [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    place = [integer(offset), integers(shape), integers(strides)]
    return called("torch._utils._rebuild_tensor_v2", held, *place, b"\x89", called("collections.OrderedDict"))


def state_dict(values: dict[str, np.ndarray], legacy=False) -> bytes:
    view = [b"N"] if legacy else []
    return dictionary({
        name: tensor(storage(str(key), STORAGES[v.dtype.str[1:]], v.size, *view), v.shape)
        for key, (name, v) in enumerate(values.items())
    })  # fmt: skip


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def python2(values: dict[str, list[np.ndarray]]) -> bytes:
    """Lists of float32 arrays, by name, as Python 2 pickles them: a str holds texts and bytes alike."""

    def short(data: bytes) -> bytes:
        return b"U" + bytes([len(data)]) + data

    def array(v: np.ndarray) -> bytes:
        bare = called("numpy.core.multiarray._reconstruct", named("numpy.ndarray"), b"K\0\x85", short(b"b"))
        state = b"(K\3" + short(b"<") + b"NNN" + integer(-1) + integer(-1) + b"K\0t"
        dtype = called("numpy.dtype", short(b"f4"), b"K\0K\1") + state + b"b"
        data = v.tobytes()
        held = short(data) if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data
        return bare + b"(K\1" + integers(v.shape) + dtype + b"\x89" + held + b"tb"

    lists = [short(name.encode()) + b"](" + b"".join(map(array, vs)) + b"e" for name, vs in values.items()]
    return b"}(" + b"".join(lists) + b"u"


def torch_archive(root: bytes, storages: dict[str, bytes], order="little", packed=zipfile.ZIP_STORED) -> bytes:
    """A file of torch.save since 1.6."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packed) as archive:
        archive.writestr("w/data.pkl", pickled(root))
        archive.writestr("w/byteorder", order)
        for key, data in storages.items():
            archive.writestr(f"w/data/{key}", data)
        archive.writestr("w/version", "3\n")
    return out.getvalue()


def torch_legacy(root: bytes, storages: dict[str, tuple[int, bytes]]) -> bytes:
    """A file of torch.save before 1.6. storages: counts and values."""
    magic = b"\x8a\x0a" + MAGIC.to_bytes(10, "little")
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    keys = b"](" + b"".join(text(key) for key in storages) + b"e"
    parts = [pickled(magic), pickled(b"M\xe9\x03"), pickle.dumps(machine, 2), pickled(root), pickled(keys)]
    return b"".join(parts) + b"".join(struct.pack("<q", count) + data for count, data in storages.values())


def safetensors(values: dict[str, np.ndarray], **changes) -> bytes:
    codes = {"f4": "F32", "f8": "F64", "f2": "F16", "i8": "I64", "u1": "U8"}
    header: dict = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, v in values.items():
        header[name] = {"dtype": codes[v.dtype.str[1:]], "shape": v.shape, "data_offsets": [at, at + v.nbytes]}
        at += v.nbytes
    text = json.dumps(header | changes).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(v.tobytes() for v in values.values())


# Messages of protobuf


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def message(*fields: tuple[int, int | float | bytes]) -> bytes:
    """A message from numbers and values: integers as varints, bytes as they are, floats as 32 bits."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def onnx(values: dict[str, np.ndarray]) -> bytes:
    codes = {"f4": 1, "f8": 11, "f2": 10, "i8": 7, "u1": 2}
    made = [
        message(*((1, n) for n in v.shape), (2, codes[v.dtype.str[1:]]), (8, name.encode()), (9, v.tobytes()))
        for name, v in values.items()
    ]
    node = message((1, b"data"), *((1, name.encode()) for name in values), (2, b"out"), (4, b"Conv"))
    return message((1, 8), (2, b"test"), (7, message((1, node), *((5, tensor) for tensor in made))))


def cell(*members) -> np.ndarray:
    """A cell array for scipy.io.savemat."""
    made = np.empty(len(members), object)
    made[:] = members
    return made


def _written(write: Callable[[io.BytesIO], object]) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def matlab(values: dict[str, np.ndarray], packed: bool) -> bytes:
    f, b = list(values.values())[:2]
    layer = {"name": "conv1_1", "type": "conv", "weights": cell(f.transpose(2, 3, 1, 0), b)}
    net = {"layers": cell(layer), "normalization": {"averageImage": np.float32([123, 117, 104])}}
    return _written(lambda out: scipy.io.savemat(out, net, do_compression=packed))


def compressed(stream: bytes) -> bytes:
    """A file of MATLAB with one compressed variable."""
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(stream)) + stream


def keras(values: dict[str, np.ndarray], **storage) -> bytes:
    """A model as Keras 2 saves it; needs h5py."""
    import h5py

    def write(out):
        with h5py.File(out, "w") as file:
            group = file.create_group("model_weights")
            group.attrs["layer_names"] = [b"conv"]
            group.create_group("conv").attrs["weight_names"] = [name.encode() for name in values]
            for name, v in values.items():
                group["conv"].create_dataset(name, data=v, **storage)

    return _written(write)


def tar(name: str) -> bytes:
    """The beginning of a tar archive."""
    return name.encode().ljust(257, b"\0") + b"ustar\x0000" + bytes(248)


def files() -> dict[str, bytes]:
    """A file of every format but HDF5, by name."""
    values = arrays()
    storages = {str(key): v.tobytes() for key, v in enumerate(values.values())}
    legacy = {key: (v.size, data) for (key, data), v in zip(storages.items(), values.values())}
    return {
        "archive.pth": torch_archive(state_dict(values), storages),
        "legacy.pth": torch_legacy(state_dict(values, legacy=True), legacy),
        "w.safetensors": safetensors(values),
        "w.npz": _written(lambda out: np.savez(out, **values)),
        "packed.npz": _written(lambda out: np.savez_compressed(out, **values)),
        "w.npy": _written(lambda out: np.save(out, np.array(values, object))),
        "array.npy": _written(lambda out: np.save(out, values["features.0.weight"])),
        "2.pkl": pickle.dumps(values, 2),
        "4.pkl": pickle.dumps({"params": list(values.values()), "epoch": 3}, 4),
        "w.onnx": onnx(values),
        "w.mat": matlab(values, packed=False),
        "packed.mat": matlab(values, packed=True),
    }
