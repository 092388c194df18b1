"""Files that PyTorch itself wrote, and features that it computed: see reference/make_pytorch.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import cvstyle
from cvstyle import cli, containers

FOLDER = Path(__file__).parent / "reference" / "pytorch"


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_every_kind_of_tensor(name):
    tensors = containers.read(str(FOLDER / f"{name}.pth")).tensors
    expected = {
        "transposed": np.arange(12.0).reshape(3, 4).T, "part": np.arange(10.0)[3:7], "half": np.array([0.5, -2.0]),
        "brain": np.array([[1.5, -3.0]]), "double": np.array([1 / 3]), "scalar": np.array(3.5),
        "empty": np.empty((0, 3)), "shared": np.arange(6.0), "same": np.arange(6.0).reshape(2, 3),
        "parameter": np.ones(3),
    }  # fmt: skip
    types = {"half": "f2", "double": "f8"}
    assert list(tensors)[-len(expected) :] == list(expected)
    for tensor, values in expected.items():
        found = tensors[tensor].read()
        assert found.dtype == np.dtype(types.get(tensor, "f4"))
        np.testing.assert_array_equal(found, values)
    with np.load(FOLDER / "features.npz") as reference:
        np.testing.assert_array_equal(tensors["features.0.weight"].read(), reference["first"])


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_an_imported_network_has_the_features_of_pytorch(tmp_path, monkeypatch, name):
    """Everywhere, since PyTorch's picture has Caffe's mean around it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(FOLDER / f"{name}.pth", tmp_path / "net.pth")
    assert cli.main(["models", "import", "net.pth", "--as", "vgg19", "--training", "torchvision"]) == 0
    net = cvstyle.load_network("net.prototxt", "net.caffemodel", "numpy")
    with np.load(FOLDER / "features.npz") as reference:
        layers = [layer for layer in reference.files if layer.startswith("relu")]
        found = cvstyle.features(net, cvstyle.preprocess(reference["rgb"]), layers)
        assert len(layers) == 5
        for layer in layers:
            expected = reference[layer]
            assert np.abs(found[layer] - expected).max() <= 1e-5 * expected.max() and expected.max() > 0, layer
