"""Readers of other frameworks' files of weights, against files that the frameworks themselves wrote."""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys

import numpy as np
import pytest
import scipy.io

from cvstyle import containers
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


@pytest.mark.parametrize("storage", [{}, {"chunks": (1, 3, 1, 1), "compression": "gzip"}], ids=["plain", "packed"])
@pytest.mark.parametrize("backend", ["tensorflow", "theano"])
def test_keras(tmp_path, h5py, storage, backend):
    write_keras(h5py, tmp_path / "w.h5", storage, backend=backend)
    expected = {}
    for name, (filters, biases) in reversed(layers().items()):
        expected[f"{name}/kernel:0"] = filters if backend == "tensorflow" else np.rot90(filters, 2)
        expected[f"{name}_b_1:0"] = biases
    container = check(tmp_path / "w.h5", expected)
    assert (container.kind, container.layout) == ("Keras", "hwio")


def test_keras_3(tmp_path, h5py):
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        for number in (10, 2, 0):
            file[f"layers/conv2d{f'_{number}' * bool(number)}/vars/0"] = np.full((1, 1, 1, 2), number, "f4")
        file["optimizer/vars/0"] = np.zeros(2)
    expected = {
        f"layers/conv2d{name}/vars/0": np.full((1, 1, 1, 2), n, "f4") for name, n in (("", 0), ("_2", 2), ("_10", 10))
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


def test_without_h5py(tmp_path, h5py, monkeypatch):
    write_keras(h5py, tmp_path / "w.h5", {})
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    (tmp_path / "h5py.py").write_text("raise ModuleNotFoundError(name='h5py')")
    with pytest.raises(ModelError, match=r"h5py is needed: pip install 'cvstyle\[keras\]'"):
        containers.read(tmp_path / "w.h5")


def cell(*members):
    """A cell array for savemat."""
    made = np.empty(len(members), object)
    made[:] = members
    return made


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


def test_matlab_large(tmp_path):
    """Values past the first states that are kept of the expansion."""
    rng = np.random.default_rng(1)
    arrays = {f"a{n}": rng.random((400, 1000), "f4") for n in range(4)}
    scipy.io.savemat(tmp_path / "w.mat", {"all": cell(*arrays.values())}, do_compression=True)
    container = check(tmp_path / "w.mat", {f"all.{n}": array for n, array in enumerate(arrays.values())})
    np.testing.assert_array_equal(container.tensors["all.0"].read(), arrays["a0"])  # again, after others


def message(*fields):
    """A message of protobuf from (number, value): integers as varints, bytes as they are, floats as 32 bits."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


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
