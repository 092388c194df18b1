"""The wavelets, a network without training: its files are what the script makes, and OpenCV reads them alike."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cvstyle import Objective, load_network, zoo
from cvstyle.backends.numpy import Backend
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


@pytest.mark.parametrize("size", [(96, 128), (77, 101)])
def test_opencv_computes_the_same(size):
    x = np.random.default_rng(1).normal(0, 60, (1, 3, *size)).astype(np.float32)
    reference = cv2.dnn.readNetFromCaffe(str(PROTO), str(MODEL))
    reference.setInput(x)
    expected = dict(zip(OCTAVES, reference.forward(OCTAVES), strict=True))
    net = load_network(model="wavelet", backend="numpy")
    features = net.program(OCTAVES).forward(net.ops.asarray(x), keep=False)
    for name in OCTAVES:
        assert np.abs(features[name] - expected[name]).max() <= 1e-5 * np.abs(expected[name]).max()


def test_an_even_picture_gives_even_features():
    """No frame: the edge of the picture leaves no mark where there is nothing to see."""
    net = load_network(PROTO, MODEL, Backend("float64"))
    x = np.broadcast_to(np.float64([[[60.0]], [[-20]], [[35]]]), (3, 64, 80))[None]
    for name, f in net.program(OCTAVES[:1]).forward(net.ops.asarray(x), keep=False).items():
        assert np.abs(f - f[..., 32:33, 40:41]).max() < 1e-8, name


def test_gradient():
    net = load_network(PROTO, MODEL, Backend("float64"))
    rng = np.random.default_rng(2)
    content, style, x = (rng.normal(0, 60, (3, 50, 63)) for _ in range(3))
    objective = Objective(net, content, [style], content_layers=["octave3"], style_layers=OCTAVES)
    _, gradient = objective(x)
    direction = gradient / np.linalg.norm(gradient)
    step = 1e-5
    difference = (objective(x + step * direction)[0] - objective(x - step * direction)[0]) / (2 * step)
    assert difference == pytest.approx(np.linalg.norm(gradient), rel=1e-5)


def test_defaults_start_from_the_content():
    assert zoo.defaults(load_network(model="wavelet", backend="numpy").layer_names)["init"] == "image"
