"""Readers of other frameworks' files of weights, against files that the frameworks themselves wrote."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib

import container_files as made
import numpy as np
import pytest
import scipy.io
from container_files import cell, message, varint

from cvstyle import containers
from cvstyle.containers import keras
from cvstyle.errors import ModelError


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed; hand-made files cover the reader")


def arrays():
    """Arrays as weights are, by name."""
    rng = np.random.default_rng(19)
    return {
        "conv1_1": {"weights": rng.standard_normal((3, 3, 3, 8)).astype("f4"), "bias": np.zeros(8, "f4")},
        "conv1_2": [rng.standard_normal((3, 3, 8, 4)).astype("f8"), rng.standard_normal(4).astype(">f4")],
        "order": np.asfortranarray(rng.standard_normal((3, 4))),
        "step": np.arange(300, dtype="i8"),
        "half": np.float16([[0.5, -2]]),
    }


FLAT = {
    "conv1_1.weights": lambda a: a["conv1_1"]["weights"], "conv1_1.bias": lambda a: a["conv1_1"]["bias"],
    "conv1_2.0": lambda a: a["conv1_2"][0], "conv1_2.1": lambda a: a["conv1_2"][1], "order": lambda a: a["order"],
    "step": lambda a: a["step"], "half": lambda a: a["half"],
}  # fmt: skip


def flat(values):
    return {name: get(values) for name, get in FLAT.items()}


def check(path, expected):
    """The container of a file, whose tensors must be the expected arrays, in their order."""
    container = containers.read(path)
    assert list(container.tensors) == list(expected)
    for name, values in expected.items():
        tensor = container.tensors[name]
        found = tensor.read()
        assert found.shape == tensor.shape == values.shape
        assert found.dtype == tensor.dtype and found.dtype.isnative
        np.testing.assert_array_equal(found, values)
    return container


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    expected = flat(arrays())
    save(tmp_path / "w.npz", **expected, words=np.array(["a", "b"]))
    container = check(tmp_path / "w.npz", expected)
    assert (container.kind, container.layout) == ("NumPy", "")
    assert container.digest() == hashlib.sha256((tmp_path / "w.npz").read_bytes()).hexdigest()


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_dict(tmp_path, protocol):
    """The form of the widespread vgg19.npy, a dict in an array of objects; and the dict alone."""
    boxed = np.empty((), object)
    boxed[()] = arrays()
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (117 - len(header)) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + pickle.dumps(boxed, protocol)
    (tmp_path / "w.npy").write_bytes(npy)
    check(tmp_path / "w.npy", flat(arrays()))
    if protocol > 1:  # before, a pickle has no mark to know it by
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(arrays(), protocol))
        check(tmp_path / "w.pkl", flat(arrays()))


def test_python_2(tmp_path):
    """vgg19.npy itself: Python 2's pickle, in which short arrays are texts."""
    pairs = {name: list(pair) for name, pair in layers().items()}
    boxed = np.array(None, object)
    header = npy(boxed)[: npy(boxed).index(b"\n") + 1]
    data = made.named("numpy.core.multiarray._reconstruct") + b"(" + made.named("numpy.ndarray") + b"K\0\x85U\1btR"
    data += b"(K\1)" + made.called("numpy.dtype", b"U\2O8K\0K\1") + b"\x89](" + made.python2(pairs) + b"etb"
    expected = {f"{name}.{number}": array for name, pair in pairs.items() for number, array in enumerate(pair)}
    check(saved(tmp_path / "w.npy", header + made.pickled(data)), expected)


def state(torch):
    """A state dict of a small network, and tensors of every kind that is read."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8),
        torch.nn.Conv2d(8, 4, 3).to(memory_format=torch.channels_last),
    )  # fmt: skip
    shared = torch.randn(6)
    tensors = {
        "transposed": torch.randn(5, 7).t(), "part": torch.randn(10)[3:7], "half": torch.randn(4).half(),
        "brain": torch.randn(3, 4).bfloat16(), "scalar": torch.tensor(3.5), "empty": torch.empty(0, 3),
        "truth": torch.tensor([True, False]), "double": torch.randn(2).double(), "shared": shared,
        "same": shared.view(2, 3), "parameter": torch.nn.Parameter(torch.randn(3)),
    }  # fmt: skip
    return network, network.state_dict() | tensors


def values(tensors):
    """The values as NumPy has them; bfloat16 as float32."""
    return {
        name: (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).detach().numpy()
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_pytorch(tmp_path, torch, archive, protocol):
    network, tensors = state(torch)
    path = tmp_path / "w.pth"

    def saved(value):
        torch.save(value, path, _use_new_zipfile_serialization=archive, pickle_protocol=protocol)
        return path

    container = check(saved(tensors), values(tensors))
    assert (container.kind, container.layout) == ("PyTorch", "oihw")
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.randn(1, 3, 9, 9)).sum().backward()
    optimiser.step()
    training = {"epoch": 3, "optimizer": optimiser.state_dict(), "state_dict": tensors, "seed": np.random.get_state()}
    check(saved(training), values(tensors))
    check(saved(network), values(network.state_dict()))  # a whole module: its class is a name, never imported
    check(saved(list(network.parameters())), values({str(n): p for n, p in enumerate(network.parameters())}))


def test_safetensors(tmp_path, torch):
    save_file = pytest.importorskip("safetensors.torch", reason="safetensors is not installed").save_file
    tensors = {f"features.{n}.weight": torch.randn(2, 3) for n in (0, 10, 2)} | {"brain": torch.randn(3).bfloat16()}
    save_file(tensors, tmp_path / "w.safetensors", {"format": "pt"})
    order = ["brain", "features.0.weight", "features.2.weight", "features.10.weight"]
    container = check(tmp_path / "w.safetensors", values({name: tensors[name] for name in order}))
    assert (container.kind, container.layout) == ("safetensors", "oihw")


def test_safetensors_of_numpy(tmp_path):
    """The library sorts names as texts, and states no framework."""
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    arrays = {f"features.{n}.weight": np.full((n, 3), n, dtype) for n, dtype in ((2, "f4"), (10, "f2"), (11, "i8"))}
    numpy.save_file(arrays, tmp_path / "w.safetensors")
    assert check(tmp_path / "w.safetensors", arrays).layout == ""


def layers():
    """Filters (height, width, inputs, outputs) and biases of three layers, by name."""
    rng = np.random.default_rng(7)
    shapes = {"conv1_1": (3, 3, 3, 8), "conv1_2": (3, 3, 8, 4), "score": (1, 1, 4, 1)}
    return {name: (rng.random(shape, "f4"), rng.random(shape[-1], "f4")) for name, shape in shapes.items()}


def write_keras(h5py, path, storage, **attributes):
    """A model as Keras 2 saves it."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"input_1", *(name.encode() for name in reversed(layers()))]
        group.attrs.update(attributes)
        group.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for name, (filters, biases) in layers().items():
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}_b_1:0".encode()]
            layer.create_dataset(f"{name}/kernel:0", data=filters, **storage)
            layer.create_dataset(f"{name}_b_1:0", data=biases)
        file.create_group("optimizer_weights").create_dataset("m", data=np.zeros(3))


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason="h5py is not installed")


@pytest.mark.parametrize("storage", [{}, {"chunks": (1, 1, 1, 1), "compression": "gzip"}], ids=["plain", "packed"])
def test_keras(tmp_path, h5py, storage):
    backend = "tensorflow" if storage else "theano"
    write_keras(h5py, tmp_path / "w.h5", storage, backend=backend)
    expected = {}
    for name, (filters, biases) in reversed(layers().items()):
        expected[f"{name}/kernel:0"] = filters if backend == "tensorflow" else np.rot90(filters, 2)
        expected[f"{name}_b_1:0"] = biases
    container = check(tmp_path / "w.h5", expected)
    assert (container.kind, container.layout, len(container.remarks)) == ("Keras", "hwio", backend == "theano")


@pytest.mark.parametrize("group", ["layers", "block1"], ids=["model", "subclass"])
def test_keras_3(tmp_path, h5py, group):
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        for number in (10, 2, 0):
            file[f"{group}/conv2d{f'_{number}' * bool(number)}/vars/0"] = np.full((1, 1, 1, 2), number, "f4")
        file["optimizer/vars/0"] = np.zeros(2)
    expected = {
        f"{group}/conv2d{name}/vars/0": np.full((1, 1, 1, 2), n, "f4") for name, n in (("", 0), ("_2", 2), ("_10", 10))
    }
    assert check(tmp_path / "w.weights.h5", expected).kind == "Keras"


def test_hdf5_elsewhere(tmp_path, h5py):
    """An array whose values are in another file could be any file of the user's."""
    (tmp_path / "secret").write_bytes(bytes(8))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["w"] = np.zeros(2, "f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("w", (2,), "f4", external=[(str(tmp_path / "secret"), 0, 8)])
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.attrs["layer_names"] = [b"l"]
        file.create_group("l").attrs["weight_names"] = [b"w"]
        file["l"]["w"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "w")
    for name in ("a.h5", "b.h5"):
        with pytest.raises(ModelError, match="is in another file"):
            containers.read(tmp_path / name)


def test_hdf5_limits(tmp_path, h5py, monkeypatch):
    """Arrays that would be larger than the file, too many of them, and a library that does not come back."""
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("w", (1 << 30,), "f4", chunks=True, compression="gzip")
    with pytest.raises(ModelError, match="'w' would expand from 0 bytes to 4294967296, which no weights do"):
        containers.read(tmp_path / "w.h5")
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for number in range(5_001):
            file[str(number)] = 1.0
    with pytest.raises(ModelError, match="has more than 5000 tensors"):
        containers.read(tmp_path / "many.h5")
    monkeypatch.setattr(keras, "_SECONDS", 0.01)
    with pytest.raises(ModelError, match=r"HDF5 stops or hangs on it \(status -9\)"):
        containers.read(tmp_path / "w.h5")


def test_hdf5_of_caffe(tmp_path, h5py):
    """Caffe's own weights in HDF5 (snapshot_format: HDF5)."""
    expected = {}
    with h5py.File(tmp_path / "w.caffemodel.h5", "w") as file:
        for name in ("conv1_1", "conv1_2", "conv10_1"):
            expected |= {f"data/{name}/{n}": np.full((2,), n, "f4") for n in (0, 1)}
            file[f"diff/{name}/0"] = np.zeros(2)
        for name, array in expected.items():
            file[name] = array
    container = check(tmp_path / "w.caffemodel.h5", expected)
    assert (container.kind, container.layout) == ("Caffe", "oihw")


def test_without_h5py(tmp_path, h5py, monkeypatch):
    write_keras(h5py, tmp_path / "w.h5", {})
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    (tmp_path / "h5py.py").write_text("raise ModuleNotFoundError(name='h5py')")
    with pytest.raises(ModelError, match=r"h5py is needed: pip install 'cvstyle\[keras\]'"):
        containers.read(tmp_path / "w.h5")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["weights", "filters", "net", "dag"])
def test_matconvnet(tmp_path, packed, form):
    picture = np.broadcast_to(np.float32([123.68, 116.779, 103.939]), (5, 4, 3))
    normalization = {"averageImage": picture, "imageSize": np.float64([224, 224, 3])}
    if form == "filters":  # before beta 7
        net = [{"name": n, "type": "conv", "filters": f, "biases": b} for n, (f, b) in layers().items()]
        variables = {"layers": cell(*net, {"type": "relu", "name": "r"}), "normalization": normalization}
    elif form == "dag":
        params = [(f"{n}{end}", v) for n, pair in layers().items() for end, v in zip(("f", "b"), pair)]
        records = np.zeros(len(params), [("name", object), ("value", object)])
        records[:] = params
        variables = {"params": records, "meta": {"normalization": normalization}}
    else:
        net = [{"name": n, "type": "conv", "weights": cell(f, b[None])} for n, (f, b) in layers().items()]
        variables = {"layers": cell(*net), "meta": {"normalization": normalization, "classes": cell("cat", "hen")}}
        variables = {"net": variables} if form == "net" else variables
    scipy.io.savemat(tmp_path / "w.mat", variables, do_compression=packed)
    ends = ("f", "b") if form == "dag" else (".filters", ".biases")
    expected = {f"{name}{end}": array for name, pair in layers().items() for end, array in zip(ends, pair)}
    container = check(tmp_path / "w.mat", expected)
    assert (container.kind, container.layout, container.channels) == ("MatConvNet", "hwio", "rgb")
    np.testing.assert_allclose(container.mean, [123.68, 116.779, 103.939], rtol=1e-6)


def test_matlab_whole_numbers(tmp_path):
    """MATLAB writes floating-point arrays of whole numbers as integers: single 0, -3 and 200 as int16."""
    values = struct.pack("<3h2x", 0, -3, 200)
    parts = [(6, struct.pack("<II", 7, 0)), (5, struct.pack("<II", 3, 1)), (1, b"biases\0\0"), (3, values)]
    sizes = {1: 6, 3: 6}
    body = b"".join(struct.pack("<II", kind, sizes.get(kind, len(data))) + data for kind, data in parts)
    data = made.compressed(b"")[:128] + struct.pack("<II", 14, len(body)) + body
    check(saved(tmp_path / "w.mat", data), {"biases": np.float32([[0], [-3], [200]])})


def test_matlab_large(tmp_path):
    """Values past the first states that are kept of the expansion."""
    rng = np.random.default_rng(1)
    arrays = {f"a{n}": rng.random((400, 1000), "f4") for n in range(4)}
    scipy.io.savemat(tmp_path / "w.mat", {"all": cell(*arrays.values())}, do_compression=True)
    container = check(tmp_path / "w.mat", {f"all.{n}": array for n, array in enumerate(arrays.values())})
    np.testing.assert_array_equal(container.tensors["all.0"].read(), arrays["a0"])  # again, after others


def onnx_model():
    """A model of ONNX's definition, and the arrays that it holds."""
    filters, biases = layers()["conv1_1"]
    filters = np.ascontiguousarray(filters.transpose(3, 2, 0, 1))
    dims = [(1, n) for n in filters.shape]
    packed = b"".join(varint(n) for n in (2, 3))
    initializers = [
        message((1, 8), (2, 1), (8, b"bias"), (9, biases.tobytes())),
        message(*dims, (2, 1), (4, filters.tobytes()), (8, b"filters")),
        message((1, packed), (2, 1), *((4, float(n)) for n in range(6)), (8, b"loose")),
        message((1, 2), (2, 16), (9, np.uint16([0x3F80, 0xC000]).tobytes()), (8, b"brain")),
    ]
    value = message((1, 1), (2, 11), (10, struct.pack("<d", 2.5)))
    constant = message((2, b"fixed"), (4, b"Constant"), (5, message((1, b"value"), (5, value))))
    conv = message((1, b"data"), (1, b"filters"), (1, b"bias"), (2, b"out"), (4, b"Conv"))
    graph = message((1, constant), (1, conv), *((5, tensor) for tensor in initializers))
    expected = {
        "filters": filters, "bias": biases, "fixed": np.float64([2.5]),
        "loose": np.arange(6, dtype="f4").reshape(2, 3), "brain": np.float32([1, -2]),
    }  # fmt: skip
    return message((1, 8), (2, b"test"), (7, graph)), expected


def test_onnx(tmp_path):
    data, expected = onnx_model()
    (tmp_path / "w.onnx").write_bytes(data)
    container = check(tmp_path / "w.onnx", expected)
    assert (container.kind, container.layout) == ("ONNX", "oihw")
    external = message((1, 8), (7, message((5, message((1, 4), (2, 1), (8, b"far"), (14, 1))))))
    (tmp_path / "e.onnx").write_bytes(external)
    with pytest.raises(ModelError, match=r"tensor 'far' is in another file \(external data\); save the model in one"):
        containers.read(tmp_path / "e.onnx")


def test_attack(tmp_path):
    class Attack:
        def __reduce__(self):
            return (eval, (f"open({str(tmp_path / 'sentinel')!r}, 'w')",))

    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": np.zeros(3), "x": Attack()}))
    with pytest.raises(ModelError, match=r"calls builtins.eval, which no file of weights does; nothing was run"):
        containers.read(tmp_path / "w.pkl")
    assert not (tmp_path / "sentinel").exists()


def saved(path, data):
    path.write_bytes(data)
    return path


def by_hand():
    """Arrays, and the values of their storages by key."""
    values = made.arrays()
    return values, {str(key): array.tobytes() for key, array in enumerate(values.values())}


def test_pytorch_by_hand(tmp_path, monkeypatch):
    """Both forms without PyTorch, from their definition."""
    values, storages = by_hand()
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZIP64_LIMIT", 10)
        check(saved(tmp_path / "z", made.torch_archive(made.state_dict(values), storages)), values)
    check(saved(tmp_path / "a", made.torch_archive(made.state_dict(values), storages)), values)
    big = {key: array.astype(array.dtype.newbyteorder(">")).tobytes() for key, array in zip("0123", values.values())}
    check(saved(tmp_path / "b", made.torch_archive(made.state_dict(values), big, "big")), values)
    legacy = {key: (array.size, storages[key]) for key, array in zip("0123", values.values())}
    check(saved(tmp_path / "c", made.torch_legacy(made.state_dict(values, legacy=True), legacy)), values)


def test_pytorch_reads_what_is_made_by_hand(tmp_path, torch):
    values, storages = by_hand()
    legacy = {key: (array.size, storages[key]) for key, array in zip("0123", values.values())}
    for data in (
        made.torch_archive(made.state_dict(values), storages),
        made.torch_legacy(made.state_dict(values, legacy=True), legacy),
    ):
        found = torch.load(saved(tmp_path / "w.pth", data), weights_only=True)
        assert list(found) == list(values)
        for name, array in values.items():
            np.testing.assert_array_equal(found[name].numpy(), array)


def test_pytorch_views(tmp_path):
    """Tensors that share a storage, with offsets and strides; and the views of legacy files."""
    numbers = np.arange(24, dtype="f4")
    whole = made.storage("0", "Float", 24)
    view = made.storage("0", "Float", 24, b"(" + made.text("1") + made.integer(6) + made.integer(18) + b"t")
    expected = {
        "part": numbers[4:10].reshape(2, 3), "turned": numbers.reshape(4, 6).T,
        "parameter": numbers[:2], "old": numbers[2:4], "derived": numbers[:3], "device": np.float32([1]),
        "untyped": numbers[1:3],
    }  # fmt: skip
    held = {"0": numbers.tobytes(), "1": numbers[1:3].tobytes()}
    tensors = {
        "part": made.tensor(whole, (2, 3), offset=4),
        "turned": made.tensor(whole, (6, 4), strides=(1, 6)),
        "parameter": made.called("torch._utils._rebuild_parameter", made.tensor(whole, (2,)), b"\x88", b"N"),
        "old": made.named("torch.FloatTensor") + b")\x81(" + whole + made.integer(2) + b"(K\x02t(K\x01ttb",
        "derived": made.called(
            "torch._tensor._rebuild_from_type_v2", made.named("torch._utils._rebuild_tensor_v2"),
            made.named("my.Class"), b"(" + whole + b"K\0(K\3t(K\1t\x89}t", b"}",
        ),
        "device": made.called(
            "torch._utils._rebuild_device_tensor_from_numpy", made.python2({"": [np.float32([1])]})[6:-2],
            made.named("torch.float32"), made.text("xla:0"), b"\x89",
        ),
        "untyped": made.called(
            "torch._utils._rebuild_tensor_v3", made.storage("1", "Untyped", 8), b"K\0(K\2t(K\1t\x89}",
            made.named("torch.float32"),
        ),
    }
    check(saved(tmp_path / "a", made.torch_archive(made.dictionary(tensors), held)), expected)
    root = made.dictionary({"v": made.tensor(view, (3, 2), offset=1)})
    data = made.torch_legacy(root, {"0": (24, numbers.tobytes())})
    check(saved(tmp_path / "b", data), {"v": numbers[7:13].reshape(3, 2)})


def archive_of(*tensors, size=96, **options):
    """An archive of PyTorch with one storage of so many bytes."""
    root = made.dictionary({f"t{number}": tensor for number, tensor in enumerate(tensors)})
    return made.torch_archive(root, {"0": bytes(size)}, **options)


def zipped(*members, packed=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packed) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that is there twice
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def moved(data, count):
    """An archive whose directory gives another place of its last member: the first one's, of so many bytes."""
    data = bytearray(data)
    entry = data.rfind(b"PK\x01\x02")
    data[entry + 42 : entry + 46] = struct.pack("<I", count)
    return bytes(data)


def renamed(data, old, new):
    """An archive whose directory has another name than the member itself."""
    at = data.rfind(old)
    return data[:at] + new + data[at + len(old) :]


WHOLE = made.storage("0", "Float", 24)
ONE = made.tensor(WHOLE, (1,))
ZEROS = bytes(32 << 20)
# A variable of MATLAB: tags (type, bytes) and their data of a matrix, its class, its shape, its name and its values.
BOMB = struct.pack("<14I", 14, len(ZEROS) + 48, 6, 8, 7, 0, 5, 8, len(ZEROS) // 4, 1, 1, 0, 7, len(ZEROS)) + ZEROS
REFUSED = {
    "outside": (archive_of(made.tensor(WHOLE, (5, 5))), "'t0' of shape [5, 5] needs 100 bytes where 96 are held"),
    "offset": (archive_of(made.tensor(WHOLE, (4, 6), offset=1)), "needs 100 bytes where 96"),
    "before": (archive_of(made.tensor(WHOLE, (2,), offset=-1)), "'t0' begins before its storage"),
    "strides": (archive_of(made.tensor(WHOLE, (2, 2), strides=(23, 1))), "needs 100 bytes where 96"),
    "repeated": (archive_of(made.tensor(WHOLE, (1000, 1000), strides=(0, 0))), "needs 4000000 bytes where 96"),
    "negative": (archive_of(made.tensor(WHOLE, (-1, 2))), "impossible shape"),
    "axes": (archive_of(made.tensor(WHOLE, (1,) * 40)), "impossible shape of 40 axes"),
    "huge": (archive_of(made.tensor(WHOLE, (1 << 30,) * 4, strides=(1,) * 4)), "where 96 are held"),
    "no storage": (archive_of(made.tensor(made.storage("1", "Float", 1), (1,))), "storage '1' is not in the archive"),
    "two types": (archive_of(ONE, made.tensor(made.storage("0", "Half", 1), (1,))), "two types"),
    "complex": (
        archive_of(made.tensor(made.storage("0", "ComplexFloat", 1), (1,))),
        "'t0' holds numbers of type Complex",
    ),
    "quantised": (archive_of(made.called("torch._utils._rebuild_qtensor", WHOLE)), "'t0' is not a plain one (qtensor)"),
    "packed": (
        archive_of(ONE, packed=zipfile.ZIP_DEFLATED),
        "is compressed, and torch.save never",
    ),
    "no tensors": (archive_of(made.text("nothing")), "holds no tensors that can be read (format: PyTorch)"),
    "system": (
        archive_of(made.called("os.system", made.text("touch x"))),
        "its pickle calls os.system, which no file of",
    ),
    "posix": (made.pickled(made.called("posix.system", made.text("touch x"))), "its pickle calls posix.system"),
    "open": (made.pickled(b"(ibuiltins\nopen\n"), "its pickle calls builtins.open"),
    "extension": (made.pickled(b"\x82\x01"), "the operation 0x82, which no file of weights needs"),
    "persistent": (archive_of(b"NQ"), "refers to an object that is no storage"),
    "outer": (made.pickled(b"K\x01Q"), "refers to objects outside it"),
    "text": (made.pickled(b"\x8d" + (1 << 63).to_bytes(8, "little")), "ends inside an operation"),
    "number": (made.pickled(b"\x8b\xff\xff\xff\x7f"), "a number of 2147483647 bytes"),
    "underflow": (made.pickled(b"R"), "invalid operation"),
    "memo": (made.pickled(b"j\xff\xff\xff\x7f"), "invalid operation"),
    "marks": (made.pickled(b"(" * 4000), "invalid operation"),
    "nested": (made.pickled(b")" + b"\x85" * 100_000), "holds no tensors"),
    "dicts": (made.pickled(b"}" * 400_000), "more than 300000 operations"),
    "many": (
        made.torch_archive(b"(" + ONE + b"q\0" + b"h\0" * 5_000 + b"l", {"0": bytes(96)}),
        "has more than 5000 tensors",
    ),
    "one name": (
        archive_of(made.dictionary({"x.y": ONE, "x": made.dictionary({"y": ONE})})),
        "two tensors have the name 't0.x.y'",
    ),
    "twice": (zipped(("a.npy", npy(np.zeros(3))), ("a.npy", b"")), "'a.npy' is twice in the archive"),
    "overlap": (moved(zipped(("a.npy", npy(np.zeros(3))), ("a.npx", b"")), 0), "has another name at byte 0"),
    "names": (
        renamed(zipped(("a.npy", npy(np.zeros(3)))), b"a.npy", b"b.npy"),
        "'b.npy' of the archive has another name",
    ),
    "bomb.npz": (zipped(("a.npy", npy(np.zeros(4 << 20))), packed=zipfile.ZIP_DEFLATED), "would expand from"),
    "no weights": (zipped(("readme.txt", b"")), "ZIP archive without weights of PyTorch or NumPy"),
    "keras": (
        zipped(("config.json", b""), ("model.weights.h5", b"")),
        "unpack it (unzip) and give its model.weights.h5",
    ),
    "cut": (zipped(("a.npy", npy(np.zeros(300))))[:500], "no directory at its end"),
    "npy": (npy(np.zeros(300))[:-8], "needs 2400 bytes where 2392 are held"),
    "words": (npy(np.array(["a"])), "holds '<U1' and no numbers"),
    "bomb.mat": (made.compressed(zlib.compress(BOMB)), "would expand to more than"),
    "longer": (made.safetensors({})[:20], "its header of 34 bytes is longer than the file"),
    "header": (struct.pack("<Q", 2 << 20) + b"{" + bytes(2 << 20), "lists more tensors than any network"),
    "json": (struct.pack("<Q", 4) + b"{{{{", "its header is not valid JSON"),
    "deep": (struct.pack("<Q", 200_005) + b'{"a":' + b"[" * 200_000, "its header is nested too deeply"),
    "same name": (struct.pack("<Q", 14) + b'{"a":1, "a":2}', "a name is in it twice"),
    "gap": (
        made.safetensors({}, a={"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}) + bytes(8),
        "begins at byte 4",
    ),
    "rest": (made.safetensors({}) + bytes(8), "8 bytes at its end belong to no tensor"),
    "shape": (
        made.safetensors({}, a={"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}) + bytes(8),
        "12 bytes where 8",
    ),
    "float8": (
        made.safetensors({}, a={"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}) + b"0",
        "type F8_E4M3",
    ),
    # Other files:
    "empty": (b"", "is empty (0 bytes)"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 8\n", "a Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html><html>", "a web page, not weights"),
    "zstd": (b"(\xb5/\xfd" + b"x" * 99, "a Zstandard archive"),
    "lz4": (b"\x04\x22\x4d\x18" + b"x" * 99, "an LZ4 archive"),
    "gzip": (gzip.compress(b"weights"), "a gzip archive"),
    "jpeg": (b"\xff\xd8\xff\xe0", "a picture (JPEG), not weights"),
    "png": (b"\x89PNG\r\n\x1a\n", "a picture (PNG), not weights"),
    "tar": (made.tar("weights.pth"), "a tar archive; unpack it"),
    "old": (made.tar("sys_info"), "a PyTorch before 0.1.10 (tar)"),
    "torch7": (b"\4\0\0\0\1\0\0\0\3\0\0\0V 1\r\0\0\0nn.Sequential", "a file of Torch7 (.t7)"),
    "torch7 ascii": (b"4\n1\n3\nV 1\n13\nnn.Sequential\n", "a file of Torch7 (.t7, ASCII)"),
    "matlab 7.3": (b"MATLAB 7.3 MAT-file, Platform: GLNXA64", "save(..., '-v7')"),
    "checkpoint": (b"model_checkpoint_path: 'model'", "a TensorFlow checkpoint"),
    "index": (bytes(40) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "a TensorFlow checkpoint"),
    "caffe": (message((1, b"net"), (100, message((1, b"a"), (7, message((5, bytes(4))))))), "is a .caffemodel already"),
    "words only": (b"These are not weights.", "not a file of weights in a known format"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    """One line with the file, the cause and the way out; no more memory than the file has bytes, but for some MB."""
    data, cause = REFUSED[name]
    path = saved(tmp_path / "w", data)
    containers.read(saved(tmp_path / "warm", made.safetensors(made.arrays())))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as caught:
            containers.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    line = caught.value.command_line
    assert line.startswith(f"{path}: ") and cause in line and "\n" not in line
    operations = 64 * min(len(data), 300_000) if data[:1] == b"\x80" else 0  # an object, of an operation of one byte
    assert peak < 2 * len(data) + 2 * operations + (6 << 20)


def test_refused_where(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        containers.read(tmp_path / "absent")
    with pytest.raises(ModelError, match="is a directory; give the file of weights in it"):
        containers.read(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ModelError, match="is a SavedModel of TensorFlow"):
        containers.read(tmp_path)


def test_damaged_files_are_read_or_refused():
    """Damaged copies of each file (tests/container_fuzz.py)."""
    tests = os.path.dirname(made.__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(tests), tests, *sys.path])}
    run = [sys.executable, os.path.join(tests, "container_fuzz.py"), "0", "20"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=600)
    assert not done.stdout
    assert not done.returncode, done.stderr[-2000:]
