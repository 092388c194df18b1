"""The wavelets, a network without training: its files are what the script makes (test_embedded.py: OpenCV's)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from cvstyle import load_network, zoo
from cvstyle.backends.reference import Backend
from cvstyle.caffe import read_net

MODELS = Path(__file__).resolve().parent.parent / "models"
PROTO, MODEL = MODELS / "wavelet.prototxt", MODELS / "wavelet.caffemodel"
OCTAVES = [f"octave{i}" for i in range(1, 6)]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("build_wavelet", MODELS / "build_wavelet.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before  # it adds the source tree, where other tests want what is installed
    return module


def test_files_are_what_the_script_makes(script):
    made, read = script.build(), read_net(PROTO, MODEL)
    assert [d.name for d in read.layers] == [d.name for d in made.layers]
    assert set(read.weights) == set(made.weights)
    for name, blobs in made.weights.items():
        for ours, theirs in zip(read.weights[name], blobs, strict=True):
            # The cosine of another machine may differ in its last bit.
            np.testing.assert_allclose(ours, theirs.reshape(ours.shape), rtol=1e-5, atol=1e-6)
    assert PROTO.stat().st_size + MODEL.stat().st_size < 300_000


def test_waves_have_no_mean_and_unit_norm(script):
    waves = script.gabors().reshape(script.ORIENTATIONS, script.PHASES, -1)
    np.testing.assert_allclose(waves.sum(axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(waves, axis=-1), 1)
    np.testing.assert_allclose(waves[:, 0], -waves[:, 2], atol=1e-12)  # phases 0 and π


def test_an_even_picture_gives_even_features():
    """No frame: the edge of the picture leaves no mark where there is nothing to see."""
    net = load_network(PROTO, MODEL, Backend("float64"))
    x = np.broadcast_to(np.float64([[[60.0]], [[-20]], [[35]]]), (3, 64, 80))[None]
    for name, f in net.program(OCTAVES[:1]).forward(net.ops.asarray(x), needs_grad=False).items():
        assert np.abs(f - f[..., 32:33, 40:41]).max() < 1e-8, name


def test_defaults_start_from_the_content():
    assert zoo.defaults(load_network(model="wavelet", backend="numpy").layer_names)["init"] == "image"
