"""Networks whose filters have a mean activation of 1."""

from __future__ import annotations

from dataclasses import replace

import nets
import numpy as np
import pytest
from pictures import random_pixels, write

import cvstyle
from cvstyle.backends.reference import Backend
from cvstyle.caffe import read_net
from cvstyle.caffe.write import write_caffemodel, write_prototxt
from cvstyle.cli import main
from cvstyle.errors import ModelError
from cvstyle.graph import Network
from cvstyle.netdef import LayerDef, NetDef
from cvstyle.normalise import normalised


def small_vgg(classifier=False):
    net = nets.vgg(16, width=16, size=(64, 48), classifier=classifier)
    return Network(net, Backend())


def features(network, picture):
    names = [name for name in network.layer_names if name.startswith("relu") and not name.endswith(("6", "7"))]
    return cvstyle.features(network, picture, names)


def averaging(network):
    """The network with Caffe's average pooling instead of max pooling."""
    layers = tuple(
        replace(layer, params={**layer.params, "pool": "AVE"}) if layer.type == "Pooling" else layer
        for layer in network.definition.layers
    )
    return Network(replace(network.definition, layers=layers), Backend())


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_features_are_divided_by_their_mean(pooling):
    """Over pictures of several sizes every position counts alike; another picture differs by the same factors."""
    network = small_vgg()
    pictures = [random_pixels(64, 48), random_pixels(40, 64)]
    made = normalised(network, pictures, 64, pooling, floor=0)
    new = Network(made.net, Backend())
    original = network if pooling == "max" else averaging(network)
    maps = [(features(original, x), features(new, x)) for x in map(cvstyle.preprocess, pictures)]
    other = cvstyle.preprocess(random_pixels(52, 52))
    maps_of_other = features(original, other), features(new, other)
    assert list(made.scales) == list(maps[0][0]) and made.left_out == ()
    for name, means in made.scales.items():
        theirs = np.concatenate([old[name].reshape(len(means), -1) for old, _ in maps], 1).mean(1, dtype="f8")
        alive = theirs > 0
        assert made.raised[name] == (~alive).sum() and np.allclose(means, np.where(alive, theirs, 1), rtol=1e-5)
        ours = np.concatenate([scaled[name].reshape(len(means), -1) for _, scaled in maps], 1).mean(1, dtype="f8")
        assert np.allclose(ours, alive, atol=1e-4)
        for old, scaled in [*maps, maps_of_other]:
            wrong = scaled[name] * means[:, None, None] - old[name]
            assert np.abs(wrong).max() <= 1e-5 * old[name].max()


def test_pooling_is_written_as_average(tmp_path):
    made = normalised(small_vgg(), [random_pixels(64, 48)], 64, "avg")
    write_prototxt(tmp_path / "deploy.prototxt", made.net)
    pools = [layer.params["pool"] for layer in read_net(tmp_path / "deploy.prototxt").layers if layer.type == "Pooling"]
    assert pools == ["AVE"] * 5


def test_dead_channels_stay():
    net = nets.vgg(16, width=16, size=(32, 32), classifier=False)
    weights = {name: [blob.copy() for blob in blobs] for name, blobs in net.weights.items()}
    weights["conv2_1"][0][3] = 0
    weights["conv2_1"][1][3] = -1
    network = Network(replace(net, weights=weights), Backend())
    made = normalised(network, [random_pixels(32, 32)], 32, floor=0)
    assert made.raised["relu2_1"] == 1 and made.scales["relu2_1"][3] == 1
    filters, bias = made.net.weights["conv2_1"]
    assert not filters[3].any() and bias[3] == -1
    next_filters = made.net.weights["conv2_2"][0][:, 3] * made.scales["relu2_2"][:, None, None]
    assert np.allclose(next_filters, weights["conv2_2"][0][:, 3], rtol=1e-6)


def test_channels_that_are_hardly_active():
    """Divided by a share of the layer's mean, dead ones too; a layer of zeros alone stays."""
    net = nets.vgg(16, width=16, size=(32, 32), classifier=False)
    weights = {name: [blob.copy() for blob in blobs] for name, blobs in net.weights.items()}
    weights["conv2_1"][0][3] /= 1e4
    weights["conv2_1"][1][3] /= 1e4
    weights["conv5_3"][0][:] = 0
    weights["conv5_3"][1][:] = -1
    network = Network(replace(net, weights=weights), Backend())
    picture = random_pixels(32, 32)
    made = normalised(network, [picture], 32, floor=0.25)
    old, new = (features(n, cvstyle.preprocess(picture)) for n in (network, Network(made.net, Backend())))
    for name, scales in made.scales.items():
        means = old[name].mean((1, 2), dtype="f8")
        wanted = np.maximum(means, 0.25 * means.mean()) if means.any() else np.ones(len(means))
        assert np.allclose(scales, wanted, rtol=1e-5)
        assert made.raised[name] == (means < wanted).sum()
        assert np.allclose(new[name] * scales[:, None, None], old[name], rtol=1e-4, atol=1e-5 * old[name].max())
    assert made.raised["relu2_1"] >= 1 and made.raised["relu5_3"] == len(made.scales["relu5_3"])


def test_groups():
    """Channels of a group see the factors of their own inputs."""
    rng = np.random.default_rng(0)
    layers = (
        LayerDef("a", "Convolution", ("data",), ("a",), {"num_output": 4, "kernel_size": [3]}),
        LayerDef("a_relu", "ReLU", ("a",), ("a",)),
        LayerDef("b", "Convolution", ("a",), ("b",), {"num_output": 6, "kernel_size": [1], "group": 2}),
        LayerDef("b_relu", "ReLU", ("b",), ("b",)),
    )
    shapes = {"a": [(4, 3, 3, 3), (4,)], "b": [(6, 2, 1, 1), (6,)]}
    weights = {name: [rng.normal(0, 1, s).astype("f4") + 0.1 for s in blobs] for name, blobs in shapes.items()}
    network = Network(NetDef("grouped", {"data": (1, 3, 9, 9)}, layers, weights), Backend())
    picture = random_pixels(9, 9)
    made = normalised(network, [picture], 9)
    x = cvstyle.preprocess(picture)
    old, new = (cvstyle.features(n, x, ["b_relu"])["b_relu"] for n in (network, Network(made.net, Backend())))
    assert np.allclose(new, old / made.scales["b_relu"][:, None, None], rtol=1e-4, atol=1e-5)


def chain(*types, **params):
    layers, last = [], "data"
    for number, kind in enumerate(types):
        name = f"{kind.lower()}{number}"
        filters = {"num_output": 2, "kernel_size": [1]} if kind == "Convolution" else params.get(kind, {})
        layers.append(LayerDef(name, kind, (last,), (name,), filters))
        last = name
    weights = {d.name: [np.ones((2, 3, 1, 1), "f4"), np.ones(2, "f4")] for d in layers if d.type == "Convolution"}
    return Network(NetDef("chain", {"data": (1, 3, 8, 8)}, tuple(layers), weights, source="chain.prototxt"), Backend())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: chain("Convolution", "ReLU", "LRN"), r"'lrn2' \(LRN\) does not commute with a factor"),
        (lambda: chain("Convolution", "Sigmoid"), r"'sigmoid1' \(Sigmoid\) does not commute"),
        (lambda: chain("Convolution", "Pooling", Pooling={"kernel_size": 2}), "no ReLU comes after"),
        (lambda: chain("Convolution", "ReLU", "Pooling", Pooling={"pool": "STOCHASTIC"}), "'pooling2'"),
        (lambda: chain("ReLU"), "there are no convolutions"),
        (lambda: chain("Convolution", "Dropout"), "no ReLU comes after the layer 'convolution0'"),
        (lambda: Network(nets.squeezenet(width=16), Backend()), "is no link of a chain"),
    ],
)  # fmt: skip
def test_other_networks_are_refused(network, message):
    with pytest.raises(ModelError, match=message):
        normalised(network(), [random_pixels(8, 8)], 8)


@pytest.mark.parametrize("verb", ["normalise", "normalize", "NORMALISE"])
def test_command(tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    net = nets.vgg(16, width=16, size=(32, 32), classifier=True)
    write_prototxt("deploy.prototxt", net)
    write_caffemodel("vgg.caffemodel", net)
    pictures = write(tmp_path, one=(40, 32), two=(32, 48))
    command = ["models", verb, "deploy.prototxt", "vgg.caffemodel", *pictures, "--dir", "new", "--image-size", "32",
               "--floor", "0"]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "vgg: 13 layers scaled to a mean activation of 1 over 2 pictures"
    assert out[1] == "left out: fc6, relu6, drop6, fc7, relu7, drop7, fc8, prob"
    assert "--proto new/vgg-normalised.prototxt --model new/vgg-normalised.caffemodel --content" in out[-1]
    new = cvstyle.load_network("new/vgg-normalised.prototxt", "new/vgg-normalised.caffemodel", "numpy")
    maps = [cvstyle.features(new, cvstyle.preprocess(p, 32), ["relu1_1"])["relu1_1"].reshape(4, -1) for p in pictures]
    means = np.concatenate(maps, 1).mean(1)
    assert np.allclose(means[means > 0], 1, rtol=1e-5)
    assert main([*command[:-2], "--dir", "other", "--floor", "1"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "channels with less than 1 of their layer's mean activation in these pictures are scaled as if they" in line


def test_command_needs_a_model_and_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vgg.caffemodel").write_bytes(b"")
    for words, message in (
        (["vgg19-conv"], "a model and at least one picture are needed"),
        (["deploy.prototxt", "vgg.caffemodel"], "a model and at least one picture are needed"),
        (["vgg91", "a.png"], "vgg91: no such file, and there is no known model 'vgg91'"),
        (["distilled", "none.png"], "the layer 'sum_conv4' (Eltwise) is no link of a chain"),
        (["distilled", "none.png", "--pooling", "min"], "--pooling min: it is max or avg"),
        (["distilled", "none.png", "--image-size", "0"], "--image-size 0: a number of pixels above zero is needed"),
        (["vgg.caffemodel", "a.png"], "vgg.caffemodel: first comes the model, a name or a .prototxt and its"),
        (["distilled", "none.png", "--floor", "-1"], "--floor -1: it is a share of a layer's mean activation, 0 to 1"),
    ):
        assert main(["models", "normalise", *words]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and message in printed.err and len(printed.err.splitlines()) == 1
