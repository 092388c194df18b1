"""Readers of other frameworks' files of weights, against files that the frameworks themselves wrote."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest

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


def test_attack(tmp_path):
    class Attack:
        def __reduce__(self):
            return (eval, (f"open({str(tmp_path / 'sentinel')!r}, 'w')",))

    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": np.zeros(3), "x": Attack()}))
    with pytest.raises(ModelError, match=r"calls builtins.eval, which no file of weights does; nothing was run"):
        containers.read(tmp_path / "w.pkl")
    assert not (tmp_path / "sentinel").exists()
