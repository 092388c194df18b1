"""BatchNorm, Scale and Bias that a convolution's weights take up: against each layer by itself, and OpenCV."""

from __future__ import annotations

from dataclasses import replace

import cv2
import nets
import numpy as np
import pytest
from test_network import Projection, graph, picture
from test_tiles import check_features, noise

from cvstyle import Objective
from cvstyle.backends.reference import Backend
from cvstyle.graph import Network

BN, SCALE = ("BatchNorm", "bn", "conv", "conv"), ("Scale", "scale", "conv", "conv")
BIASED = (*SCALE, {"bias_term": True})
RELU = ("ReLU", "relu", "conv", "conv")
BELOW = ("Convolution", "below", "data", {"num_output": 16, "kernel_size": [1], "bias_term": False})
POOL = ("Pooling", "pool", "conv", {"kernel_size": 2, "stride": 2})


def conv(outputs=16, kernel=3, kind="Convolution", below="data", **params):
    return kind, "conv", below, {"num_output": outputs, "kernel_size": [kernel], **params}


def steps(net, taps, ops=None):
    """What layers each step of a program does."""
    return [" ".join(step.layer.names) for step in Network(net, ops or Backend()).program(taps).steps]


def check(net, taps, engine):
    """Features and gradient of the taps, against those of every layer by itself in float64: all are tapped."""
    ours = Projection(net, taps, nets.ENGINES[engine]())
    plain = Projection(net, [d.name for d in net.layers], Backend("float64"))
    assert len(ours.program.steps) < len(plain.program.steps) == len(net.layers)
    plain.weights = {name: ours.weights.get(name, np.zeros(w.shape)) for name, w in plain.weights.items()}
    x = picture(net)
    exact = plain.program.forward(x.astype(np.float64), needs_grad=False)
    for name, feature in ours.program.forward(ours.ops.asarray(x), needs_grad=False).items():
        assert np.linalg.norm(feature - exact[name]) <= 5e-6 * np.linalg.norm(exact[name])
    gradient = plain.gradient(x)
    assert np.linalg.norm(ours.gradient(x) - gradient) <= 5e-6 * np.linalg.norm(gradient)


@pytest.mark.parametrize("engine", nets.ENGINES)
@pytest.mark.parametrize("rows", [
    [conv(pad=[1]), BN, BIASED],
    [conv(kernel=1, bias_term=False), BN, BIASED, RELU],
    [conv(stride=[2], pad=[1], bias_term=False), BN, SCALE, RELU],
    [conv(kernel=7, stride=[2], pad=[3]), BN],
    [conv(dilation=[2], pad=[2]), ("BatchNorm", "bn", "conv", "conv", {"eps": 0.5, "use_global_stats": True}), RELU],
    [conv(bias_term=False), SCALE, RELU],
    [conv(), ("Bias", "shift", "conv", "conv"), RELU],
    [BELOW, conv(below="below", pad=[1]), BN, BIASED, RELU, POOL],
    [BELOW, conv(below="below", pad=[1], group=4), BN, BIASED, RELU],
    [BELOW, conv(below="below", pad=[1], group=16, bias_term=False), BN, BIASED, RELU],
    [BELOW, conv(below="below", kind="ConvolutionDepthwise", pad=[1], stride=[2]), BN, BIASED],
    [conv(), ("BatchNorm", "bn", "conv", "a"), ("Scale", "scale", "a", "b"), ("ReLU", "relu", "b")],
], ids=lambda rows: "-".join(row[1] for row in rows) + str(rows[0][3].get("kernel_size", "")))  # fmt: skip
def test_a_folded_convolution_is_its_layers(rows, engine):
    net, last = graph(*rows, size=(23, 18)), rows[-1][1]
    folded = " ".join(row[1] for row in rows if row not in (BELOW, POOL))
    assert [step for step in steps(net, [last]) if step.startswith("conv")] == [folded]
    check(net, [last], engine)


@pytest.mark.parametrize("engine", nets.ENGINES)
def test_statistics_without_a_factor_are_none(engine):
    net = graph(conv(), BN, SCALE)
    mean, variance, factor = net.weights["bn"]
    check(replace(net, weights={**net.weights, "bn": [mean, variance, 0 * factor]}), ["scale"], engine)


def test_weights_are_rounded_once():
    net, given, ops = graph(conv(pad=[1]), BN, BIASED), [], Backend()
    make = ops.convolution
    ops.convolution = lambda *args: given.append(args) or make(*args)
    Network(net, ops).program(["scale"]).forward(picture(net))
    (weight, bias), (mean, variance, factor), (by, plus) = (
        [blob.astype(np.float64) for blob in net.weights[name]] for name in ("conv", "bn", "scale")
    )
    a = by / np.sqrt(variance / factor + 1e-5)
    assert given[-1][0].dtype == np.float32
    np.testing.assert_allclose(given[-1][0], weight * a.reshape(-1, 1, 1, 1), rtol=2**-24 * (1 + 1e-6))
    np.testing.assert_allclose(given[-1][1], a * bias + plus - a * mean / factor, rtol=1e-14)


@pytest.mark.parametrize("taps, rows, expected", [
    (["conv", "scale"], [conv(), BN, SCALE], ["conv", "bn", "scale"]),
    (["bn", "relu"], [conv(), BN, SCALE, RELU], ["conv bn", "scale", "relu"]),
    (["scale", "relu"], [conv(), BN, SCALE, RELU], ["conv bn scale", "relu"]),
    (["sum"], [conv(), ("BatchNorm", "bn", "conv"), ("Eltwise", "sum", "conv bn")], ["conv", "bn", "sum"]),
    (["side", "bn"], [conv(), ("AbsVal", "side", "conv"), BN], ["conv", "side", "bn"]),
    (["conv"], [("BatchNorm", "bn", "data"), conv(below="bn")], ["bn", "conv"]),
    (["bn"], [conv(), RELU, BN], ["conv relu", "bn"]),
    (["scale"], [conv(), ("Scale", "scale", "conv conv", {"axis": 0})], ["conv", "scale"]),
    (["scale"], [conv(), ("Scale", "scale", "conv", {"axis": 2})], ["conv", "scale"]),
    (["scale"], [conv(), ("Scale", "scale", "conv", {"num_axes": -1})], ["conv", "scale"]),
    (["scale"], [conv(), ("Scale", "scale", "conv", {"num_axes": 0})], ["conv", "scale"]),
], ids=lambda value: "-".join(value) if isinstance(value[0], str) else None)  # fmt: skip
def test_what_somebody_reads_or_no_number_for_each_channel_says_stays(taps, rows, expected):
    net = graph(*rows)
    assert steps(net, taps) == expected
    exact = Projection(net, [d.name for d in net.layers], Backend("float64"))
    ours = Projection(net, taps, Backend("float64"))
    exact.weights = {name: ours.weights.get(name, np.zeros(w.shape)) for name, w in exact.weights.items()}
    np.testing.assert_allclose(ours.gradient(picture(net)), exact.gradient(picture(net)), rtol=1e-10, atol=1e-12)


def test_devices_have_their_own_layers():
    net, devices = graph(conv(), BN, BIASED, RELU), [Backend("float64"), Backend("float64")]
    split = Network(net, devices[0]).partition(devices, ["bn"]).program(["relu"])
    assert [" ".join(step.layer.names) for step in split.steps] == ["conv bn", "transfer", "scale", "relu"]
    whole = Network(net, devices[0]).program(["relu"])
    x = picture(net).astype(np.float64)
    np.testing.assert_allclose(split.forward(x)["relu"], whole.forward(x)["relu"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("engine", nets.ENGINES)
def test_a_whole_net_agrees_with_opencv(tmp_path, engine):
    """Taps after the joins alone, so that everything between them is folded."""
    net = nets.resnet50(16, (64, 97))
    taps = ["res2c_relu", "res3d_relu", "res4f_relu", "res5c_relu"]
    assert "res4b_branch2b bn4b_branch2b scale4b_branch2b res4b_branch2b_relu" in steps(net, taps)
    other = cv2.dnn.readNetFromCaffe(*nets.write(net, tmp_path))
    other.setInput(picture(net))
    ops = nets.ENGINES[engine]()
    features = Network(net, ops).program(taps).forward(ops.asarray(picture(net)))
    for name, theirs in zip(taps, other.forward(taps), strict=True):
        np.testing.assert_allclose(features[name], theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


# Tiles: what is placed is what runs


def deep(engine):
    rows, below = [], "data"
    for n in range(4):
        rows += [
            ("Convolution", f"conv{n}", below, {"num_output": 16, "kernel_size": [3], "pad": [1], "bias_term": False}),
            ("BatchNorm", f"bn{n}", f"conv{n}", f"conv{n}"), ("Scale", f"scale{n}", f"conv{n}", f"conv{n}"),
            ("ReLU", f"relu{n}", f"conv{n}", f"conv{n}"),
        ]  # fmt: skip
        below = f"conv{n}"
    return Network(graph(*rows, size=(8, 8)), nets.ENGINES[engine]())


@pytest.mark.parametrize("engine", [name for name in nets.ENGINES if name.startswith("native")])
def test_windows_have_the_bits_of_the_picture(engine):
    net = deep(engine)
    check_features(net, ["relu1", "relu3"], (345, 333), 200)
    check_features(net, ["bn1", "relu3"], (345, 333), 200)  # another fold of the same convolution


@pytest.mark.parametrize("engine", [name for name in nets.ENGINES if name.startswith("native")])
def test_programs_of_one_network_round_alike(engine):
    """That of the content's layer and that of all: at the content its loss is none."""
    net, content = deep(engine), noise(3, 345, 300)
    layers = {"content_layers": ["relu2"], "style_layers": ["relu3"]}
    objective = Objective(net, content, [noise(3, 60, 60)], tile_size=200, **layers)
    objective(content.astype(np.float32))
    assert len(objective.tiles) > 1 and objective.losses["content:relu2"] == 0
