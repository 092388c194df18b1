"""The embedded network: a genuine, small Caffe model that OpenCV reads alike, and a run with it does its work."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

import cvstyle
from cvstyle import Objective, embedded_network, images, load_network, stylize, zoo
from cvstyle.backends.reference import Backend
from cvstyle.caffe import read_net
from cvstyle.caffe.caffe_pb2 import NetParameter

MODELS = Path(__file__).resolve().parent.parent / "models"
PROTO, MODEL = zoo.embedded_files()
DEFAULTS = zoo.defaults(embedded_network("numpy").layer_names)
CONTENT, STYLE = DEFAULTS["content_layers"], DEFAULTS["style_layers"]
OCTAVES = [f"octave{i}" for i in range(1, 6)]  # of the wavelets, the other network that comes with it


def test_files_are_small_and_plain():
    """A megabyte in a wheel, which is a zip file; layers that every Caffe has; weights in float32."""
    packed = sum(len(zlib.compress(Path(path).read_bytes(), 6)) for path in (PROTO, MODEL))
    assert packed < 1_000_000
    net = read_net(PROTO, MODEL)
    assert {layer.type for layer in net.layers} <= {"Convolution", "ReLU", "Pooling", "Eltwise"}
    message = NetParameter.FromString(Path(MODEL).read_bytes())
    assert {layer.name for layer in message.layer if layer.blobs} == set(net.weights)
    assert all(blob.data and not blob.double_data for layer in message.layer for blob in layer.blobs)


@pytest.mark.skipif(not hasattr(cv2.dnn, "readNetFromCaffe"), reason="OpenCV 5 has no Caffe importer")
@pytest.mark.parametrize("size", [(96, 128), (77, 101)])
@pytest.mark.parametrize("model, style, tolerance", [("distilled", STYLE, 2e-5), ("wavelet", OCTAVES, 1e-5)])
def test_opencv_computes_the_same(model, style, tolerance, size):
    x = np.random.default_rng(1).normal(0, 60, (1, 3, *size)).astype(np.float32)
    reference = cv2.dnn.readNetFromCaffe(*zoo.files_of(model=model))
    net = load_network(model=model, backend="numpy")
    features = net.program(style).forward(net.ops.asarray(x), needs_grad=False)
    for name in style:
        reference.setInput(x)
        expected = reference.forward(name)
        assert np.abs(features[name] - expected).max() <= tolerance * np.abs(expected).max(), name


@pytest.mark.parametrize(
    "model, content_layers, style", [("distilled", CONTENT, STYLE), ("wavelet", ["octave3"], OCTAVES)]
)
def test_gradient(model, content_layers, style):
    net = load_network(model=model, backend=Backend("float64"))
    rng = np.random.default_rng(2)
    content, painting, x = (rng.normal(0, 60, (3, 50, 63)) for _ in range(3))
    objective = Objective(net, content, [painting], content_layers=content_layers, style_layers=style)
    _, gradient = objective(x)
    direction = gradient / np.linalg.norm(gradient)
    step = 1e-5
    difference = (objective(x + step * direction)[0] - objective(x - step * direction)[0]) / (2 * step)
    assert difference == pytest.approx(np.linalg.norm(gradient), rel=1e-5)


def test_no_map_is_dead_or_outweighs_the_others():
    """Every style layer has channels that see something in a photograph, and none alone makes up its Gram matrix."""
    x = cvstyle.preprocess(MODELS / "demo" / "content.jpg", size=256)
    for name, features in cvstyle.features(embedded_network(), x, STYLE).items():
        energy = (features**2).mean(axis=(1, 2))
        assert (energy > 0).mean() > 0.9 and energy.max() < 0.5 * energy.sum(), name


def test_the_demo_takes_the_colours_of_the_style_and_the_forms_of_the_content():
    folder = MODELS / "demo"
    losses = []
    result = stylize(
        folder / "content.jpg", [folder / "style.jpg"], image_size=96, num_iterations=40, seed=1,
        callback=lambda iterate: losses.append(iterate.loss),
    )  # fmt: skip
    assert losses[-1] < losses[0] / 10 and not result.stopped
    content, style = (
        images.resize(images.read(folder / f"{name}.jpg").rgb, result.picture.rgb.shape[:2])
        for name in ("content", "style")
    )
    made = result.picture.rgb

    def statistics(rgb):
        return np.concatenate([rgb.mean(axis=(0, 1)), rgb.std(axis=(0, 1))])

    far, near = (np.abs(statistics(made) - statistics(other)).max() for other in (content, style))
    assert near < far / 3
    likeness = [np.corrcoef(made.mean(axis=2).ravel(), p.mean(axis=2).ravel())[0, 1] for p in (content, style)]
    assert likeness[0] > 0.3 > likeness[1]
