"""What a network takes for a picture: as its prototxt says, as it is told; by hand and beside OpenCV's blobs."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import nets
import numpy as np
import pytest
import runs
from caffe_helpers import SMALL, block, doubles, floats, number, shape, small_weights

import cvstyle
from cvstyle import Objective, Options, checkpoint, images, load_network, stylize
from cvstyle.backends.reference import Backend
from cvstyle.caffe import read_net
from cvstyle.caffe.write import write_caffemodel, write_prototxt
from cvstyle.cli import main
from cvstyle.convention import fitted
from cvstyle.errors import CheckpointError, ModelError, OptionError
from cvstyle.graph import Network
from cvstyle.netdef import IMAGENET, LayerDef, NetDef, Transform

RELU = 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }'
TEST, TRAIN = "include { phase: TEST }", "include { phase: TRAIN }"
LUMINANCE = np.array([0.114, 0.587, 0.299])  # of B, G, R: ITU-R BT.601
RGB = np.random.default_rng(0).integers(0, 256, (10, 12, 3)).astype(np.float32)
needs_opencv = pytest.mark.skipif(not hasattr(cv2.dnn, "readNetFromCaffe"), reason="OpenCV 5 has no Caffe importer")


def data(transform, rules="", kind="Data"):
    text = f"transform_param {{ {transform} }}" if transform is not None else ""
    return f'layer {{ name: "d" type: "{kind}" top: "data" top: "label" {rules} {text} }}\n'


@pytest.fixture
def read(tmp_path):
    def read(text, phase="TEST"):
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        return read_net(path, phase=phase)

    return read


# What the file says


@pytest.mark.parametrize("text, wanted", [
    (data("mean_value: 104 mean_value: 117 mean_value: 123"), Transform((104, 117, 123))),
    (data("mean_value: 127.5 scale: 0.007843 mirror: true", kind="AnnotatedData"), Transform((127.5,), 0.007843)),
    (data("scale: 0.00390625 # 0.017\n"), Transform((0,), 0.00390625)),  # LeNet's; a comment says nothing
    (data("crop_size: 227"), Transform()), (data(None), None), (data("scale: 2", TRAIN) + data(None, TEST),
    Transform((0,), 2)), (data("scale: 2", TRAIN) + data("scale: 3", TEST), Transform((0,), 3)),
    (data("mean_file: 'a/b.binaryproto' scale: 0.5"), Transform((), 0.5, "a/b.binaryproto")),
    ('layer { name: "d" type: "MemoryData" top: "data" top: "l" transform_param { mean_value: 9 } memory_data_param { '
     'batch_size: 1 channels: 3 height: 4 width: 5 } }', Transform((9,))),
    ('layer { name: "d" type: "Input" top: "data" }' + data("mean_value: 7", TRAIN).replace("data", "x"),
     Transform((7,))),
], ids=lambda value: str(value)[-60:])  # fmt: skip
def test_transform_param(read, text, wanted):
    assert read(text + RELU).transform == wanted


@pytest.mark.parametrize("phase, mean", [("TRAIN", 1), ("TEST", 2)])
def test_the_data_layer_of_the_phase_counts(read, phase, mean):
    text = data("mean_value: 1", TRAIN) + data("mean_value: 2", TEST) + RELU
    assert read(text, phase).transform == Transform((mean,))


@pytest.mark.parametrize("text, wanted", [
    ('layers { name: "d" type: DATA top: "data" top: "l" data_param { source: "x" scale: 0.5 mean_file: "m" } }',
     Transform((), 0.5, "m")),
    ('layers { name: "d" type: IMAGE_DATA top: "data" top: "l" image_data_param { scale: 0.25 mirror: true } }',
     Transform((0,), 0.25)),
    ('layers { name: "d" type: WINDOW_DATA top: "data" top: "l" window_data_param { mean_file: "m" } }',
     Transform((), 1, "m")),
    ('layers { name: "d" type: DATA top: "data" top: "l" transform_param { mean_value: 3 } data_param { scale: 2 } }',
     Transform((3,), 2)),
    ('layers { name: "d" type: DATA top: "data" top: "l" data_param { source: "x" batch_size: 3 } }', None),
    ('layers { layer { name: "d" type: "data" source: "x" meanfile: "m" scale: 0.5 cropsize: 9 } top: "data" top: "l" '
     '}', Transform((), 0.5, "m")),
    ('layers { layer { name: "d" type: "images" scale: 0.5 } top: "data" top: "l" }', Transform((0,), 0.5)),
], ids=lambda value: str(value)[-60:])  # fmt: skip
def test_older_forms(read, text, wanted):
    form = 'layers { layer { name: "r" type: "relu" } bottom: "data" top: "r" }'
    if "layers { name" in text:
        form = 'layers { name: "r" type: RELU bottom: "data" top: "r" }'
    assert read(text + form).transform == wanted


MEANS = np.arange(24, dtype=float).reshape(3, 2, 4) * [[[1]], [[2]], [[5]]]  # of B 3.5, of G 23, of R 97.5


@pytest.mark.parametrize("name, place", [
    ("means/m.binaryproto", "means/m.binaryproto"), ("means/m.binaryproto", "m.binaryproto"),
    ("/data/m.binaryproto", "m.binaryproto"), (r"C:\\data\\m.binaryproto", "m.binaryproto"),
])  # fmt: skip
@pytest.mark.parametrize("blob", [
    number(1, 1) + number(2, 3) + number(3, 2) + number(4, 4) + block(5, floats(*MEANS.ravel())),
    block(8, doubles(*MEANS.ravel())) + shape(3, 2, 4),
], ids=["old", "new"])  # fmt: skip
def test_a_mean_file_beside_the_prototxt_is_read(read, tmp_path, name, place, blob):
    (tmp_path / "means").mkdir()
    (tmp_path / place).write_bytes(blob)
    net = fitted(read(data(f'mean_file: "{name}"') + RELU))
    np.testing.assert_allclose(net.convention.mean, [3.5, 23, 97.5], rtol=1e-12)
    assert str(net.convention) == "BGR, mean 3.5,23,97.5"


def test_a_mean_file_that_is_absent_is_said(read):
    net = fitted(read(data('mean_file: "data/ilsvrc12/imagenet_mean.binaryproto" scale: 0.5') + RELU))
    assert net.convention == replace(IMAGENET, scale=0.5, missing="imagenet_mean.binaryproto")
    assert str(net.convention) == (
        "BGR, mean 103.939,116.779,123.68 (ImageNet's, since imagenet_mean.binaryproto is not beside the prototxt; "
        "--mean says another), scale 0.5"
    )
    assert fitted(read(data('mean_file: "m"') + RELU), mean=(1, 2, 3)).convention == replace(IMAGENET, mean=(1, 2, 3))


@pytest.mark.parametrize("content", [
    b"", b"version https://git-lfs.github.com/spec/v1\n", block(5, floats(1, 2, 3)) + shape(3, 2, 4), shape(0, 0, 0),
    block(5, floats(*range(6))) + shape(2, 3, 1, 1),
])  # fmt: skip
def test_what_is_no_mean_file_is_refused(read, tmp_path, content):
    (tmp_path / "m.binaryproto").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.binaryproto: .* not a mean file .* or move it away and give mean"):
        read(data('mean_file: "m.binaryproto"') + RELU)


# From there to what the network takes


def net_of(transform=None, inputs=None, *layers, weights=()):
    layers = layers or (LayerDef("r", "ReLU", ("data",), ("r",)),)
    return NetDef("n", inputs or {"data": None}, layers, dict(weights), "n.prototxt", transform=transform)


@pytest.mark.parametrize("transform, told, wanted", [
    (None, {}, IMAGENET), (None, {"channels": "rgb"}, replace(IMAGENET, mean=(123.68, 116.779, 103.939),
     channels="rgb")),
    (Transform((104, 117, 123), 0.017), {}, replace(IMAGENET, mean=(104, 117, 123), scale=0.017)),
    (Transform((127.5,)), {}, replace(IMAGENET, mean=(127.5,) * 3)),
    (Transform((127.5,), 0.1), {"mean": "1,2,3", "input_scale": 2}, replace(IMAGENET, mean=(1, 2, 3), scale=2)),
    (Transform((1, 2, 3), 0.1), {"channels": "rgb"}, replace(IMAGENET, mean=(1, 2, 3), scale=0.1, channels="rgb")),
    (Transform((1, 2), -1), {"mean": np.float32(5), "input_scale": np.float64(0.5)},
     replace(IMAGENET, mean=(5,) * 3, scale=0.5)),
    (Transform((103.939, 116.779, 123.68)), {}, IMAGENET),
], ids=lambda value: str(value)[:50])  # fmt: skip
def test_what_is_told_comes_before_what_the_file_says(transform, told, wanted):
    assert fitted(net_of(transform), **told).convention == wanted


@pytest.mark.parametrize("transform, told, error, message", [
    (Transform((1, 2)), {}, ModelError, "n.prototxt: its transform_param comes to the mean 1,2; one finite number"),
    (Transform((1, float("nan"), 2)), {}, ModelError, "comes to the mean 1,nan,2; one finite number, or three"),
    (Transform(scale=0), {}, ModelError, "n.prototxt: its transform_param has the scale 0; say input_scale"),
    (None, {"mean": "1,2"}, OptionError, "mean is '1,2'; three numbers such as 104,117,123, or one for all channels"),
    (None, {"mean": [1, np.inf, 2]}, OptionError, "mean is "), (None, {"mean": "blue"}, OptionError, "mean is 'blue'"),
    (None, {"input_scale": 0}, OptionError, "input_scale is 0.0; a number above zero is needed"),
    (None, {"channels": "grb"}, OptionError, "channels must be bgr or rgb, not 'grb'"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(transform, told, error, message):
    with pytest.raises(error) as caught:
        fitted(net_of(transform), **told)
    assert message in str(caught.value) and "\n" not in str(caught.value)


CONV = LayerDef("conv", "Convolution", ("bn",), ("conv",), {"num_output": 2, "kernel_size": [3], "group": 1})
NORM = LayerDef("bn", "BatchNorm", ("data",), ("bn",))


@pytest.mark.parametrize("stated", [None, (1, 1, 8, 8)])
@pytest.mark.parametrize("channels", ["bgr", "rgb"])
def test_a_network_of_one_channel_takes_the_luminance(stated, channels):
    """Known from its input's shape, or from the weights of its first convolution."""
    kernel = np.random.default_rng(1).normal(size=(2, 1, 3, 3))
    norm = [np.array([4.0]), np.array([9.0]), np.array([1.0])]
    weights = {"conv": [kernel, np.zeros(2)], "bn": norm} if stated is None else {"conv": [kernel, np.zeros(2)]}
    layers = (NORM, CONV) if stated is None else (replace(CONV, bottoms=("data",)),)
    net = Network(
        fitted(net_of(Transform((50,), 0.25), {"data": stated}, *layers, weights=weights.items()), channels=channels),
        Backend("float64"),
    )
    assert net.convention.luminance and str(net.convention) == f"luminance of {channels.upper()}, mean 50, scale 0.25"
    x = images.preprocess(RGB, convention=net.convention)
    grey = ((RGB[..., ::-1] @ LUMINANCE) - 50) * 0.25
    if stated is None:
        grey = (grey - 4) / np.sqrt(9 + 1e-5)
    windows = np.lib.stride_tricks.sliding_window_view(grey, (3, 3))
    wanted = np.einsum("hwij,kij->khw", windows, kernel[:, 0])
    np.testing.assert_allclose(cvstyle.features(net, x, ["conv"])["conv"], wanted, rtol=1e-5, atol=1e-5)


def test_grouped_and_absent_weights():
    """A first convolution of three groups has three channels; without weights nothing tells of one."""
    grouped = replace(CONV, bottoms=("data",), params={**CONV.params, "num_output": 3, "group": 3})
    weights = {"conv": [np.zeros((3, 1, 3, 3)), np.zeros(3)]}
    assert fitted(net_of(None, None, grouped, weights=weights.items())) == net_of(
        None, None, grouped, weights=weights.items()
    )
    net = Network(fitted(net_of(None, {"data": (1, 1, 9, 9)}, replace(CONV, bottoms=("data",)))), Backend())
    with pytest.raises(ModelError, match=r"needs weights: give the \.caffemodel that belongs to this"):
        cvstyle.features(net, np.zeros((3, 9, 9), np.float32), ["conv"])


@pytest.mark.parametrize("count", [2, 4, 15])
def test_other_numbers_of_channels_are_refused(count):
    """Where the shape tells, and where the weights do."""
    message = f"n.prototxt: input 'data' has {count} channels; a picture has 3, or 1 as luminance"
    weights = {"conv": [np.zeros((2, count, 3, 3)), np.zeros(2)]}
    for net in (
        net_of(None, {"data": (1, count, 8, 8)}),
        net_of(None, None, replace(CONV, bottoms=("data",)), weights=weights.items()),
    ):
        with pytest.raises(ModelError, match=message):
            fitted(net)


def test_what_is_put_before_the_first_layer_has_a_name_of_its_own():
    layers = LayerDef("data/scale", "ReLU", ("data",), ("a",)), LayerDef("b", "Power", ("data",), ("b",))
    net = Network(fitted(net_of(Transform((0,), 0.5), None, *layers)), Backend())
    assert net.layer_names == ["data/scale_", "data/scale", "b"]
    maps = cvstyle.features(net, np.full((3, 4, 4), 8, np.float32), ["data/scale", "b"])
    assert maps["data/scale"].max() == maps["b"].max() == 4


def test_preprocess_by_hand_and_back():
    net = Network(fitted(net_of(Transform((1, 2, 3), 0.5)), channels="rgb"), Backend())
    x = cvstyle.preprocess(np.array([[[10, 20, 30]]], np.uint8), network=net)
    assert x.ravel().tolist() == [9, 18, 27]  # the scale is the network's own
    assert cvstyle.features(net, x, ["r"])["r"].ravel().tolist() == [4.5, 9, 13.5]
    assert cvstyle.deprocess(x, net).rgb.ravel().tolist() == [10, 20, 30]
    x = images.preprocess(np.array([[[255, 0, 51.0]]]), 256, net.convention)
    np.testing.assert_allclose(x.ravel(), [255, -2, 51.2 - 3], rtol=1e-6)


# Beside OpenCV


@needs_opencv
@pytest.mark.parametrize("channels", ["bgr", "rgb"])
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_features_are_those_of_opencvs_blob(tmp_path, grey, channels):
    proto, model = str(tmp_path / "a.prototxt"), str(tmp_path / "a.caffemodel")
    weights, net, mean = small_weights(), SMALL, (90.0, 110.0, 130.0)
    if grey:
        net = replace(SMALL, inputs={"data": (1, 1, 10, 12)})
        weights["conv1"][0] = weights["conv1"][0][:, :1]
        mean = (99.0,) * 3
    write_prototxt(proto, net)
    write_caffemodel(model, net, weights)
    theirs, bgr = cv2.dnn.readNetFromCaffe(proto, model), np.ascontiguousarray(RGB[..., ::-1])
    image = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY) if grey else bgr
    swap = channels == "rgb" and not grey
    theirs.setInput(cv2.dnn.blobFromImage(image, 0.017, (12, 10), mean[:1] if grey else mean, swapRB=swap))
    ours = load_network(proto, model, "numpy", mean=mean, input_scale=0.017, channels=channels)
    x = cvstyle.preprocess(RGB, network=ours)
    for layer in ("relu1", "norm1", "fc"):
        wanted = theirs.forward(layer)[0]
        np.testing.assert_allclose(cvstyle.features(ours, x, layer)[layer], wanted, rtol=1e-4, atol=1e-4)


# Gradients


@pytest.mark.parametrize("grey", [False, True], ids=["scale", "luminance"])
def test_the_gradient_is_that_of_the_loss(grey):
    """By differences, through what is put before the first layer; that of luminance has its direction."""
    rng = np.random.default_rng(2)
    conv = LayerDef("conv", "Convolution", ("data",), ("conv",), {"num_output": 4, "kernel_size": [3]})
    weights = {"conv": [rng.normal(size=(4, 1 if grey else 3, 3, 3)), rng.normal(size=4)]}
    layers = conv, LayerDef("e", "ELU", ("conv",), ("e",))
    net = Network(fitted(net_of(Transform((9,), 0.02), None, *layers, weights=weights.items())), Backend("float64"))
    content, style, x, direction = (rng.normal(0, 50, (3, 9, 11)) for _ in range(4))
    objective = Objective(net, content, style, content_layers="e", style_layers="e", style_weight=5, tv_weight=0)
    gradient = objective(x)[1]
    step = 1e-5
    slope = (objective(x + step * direction)[0] - objective(x - step * direction)[0]) / (2 * step)
    assert slope == pytest.approx((gradient * direction).sum(), rel=1e-6)
    if grey:
        along = gradient / LUMINANCE[:, None, None]
        np.testing.assert_allclose(along, np.broadcast_to(along[:1], along.shape), rtol=1e-5)


@pytest.mark.parametrize("grey", [False, True], ids=["scale", "luminance"])
def test_tiles_change_nothing(grey):
    rng = np.random.default_rng(3)
    conv = LayerDef("conv", "Convolution", ("data",), ("conv",), {"num_output": 4, "kernel_size": [3], "pad": [1]})
    layers = conv, LayerDef("r", "ReLU", ("conv",), ("r",))
    weights = {"conv": [rng.normal(size=(4, 1 if grey else 3, 3, 3)), rng.normal(size=4)]}
    net = Network(fitted(net_of(Transform((9,), 0.02), None, *layers, weights=weights.items())), Backend("float64"))
    content, style, x = (rng.normal(0, 50, (3, 40, 33)) for _ in range(3))
    whole, tiled = (Objective(net, content, style, content_layers="r", style_layers="r", tile_size=n)
                    for n in (None, 16))  # fmt: skip
    loss, gradient = whole(x)
    assert len(tiled.tiles) > 4 and tiled(x)[0] == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(tiled(x)[1], gradient, rtol=1e-9, atol=1e-12 * np.abs(gradient).max())


# Runs


def lenet(size=(28, 28)):
    """Caffe's LeNet (examples/mnist/lenet.prototxt), its input of one channel."""
    b = nets.Builder("LeNet", size, 1)
    b.conv("conv1", 20, 5, stride=[1])
    b.pool("pool1", 2, 2)
    b.conv("conv2", 50, 5, stride=[1])
    b.pool("pool2", 2, 2)
    b.add("InnerProduct", "ip1", num_output=500)
    b.inplace("ReLU", "relu1")
    b.add("InnerProduct", "ip2", num_output=10)
    b.add("Softmax", "prob")
    return nets.with_weights(NetDef("LeNet", {"data": (64, 1, *size)}, tuple(b.layers), source="lenet.prototxt"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = runs.files(folder, lenet(), content=(80, 60), style=(60, 60))
    train = folder / "train.prototxt"
    text = (folder / "net.prototxt").read_text()
    start = text.index("layer", text.index("layer") + 1)  # behind the Input
    train.write_text(data("scale: 0.00390625", TRAIN) + data("scale: 0.00390625", TEST) + text[start:])
    (folder / "colour").mkdir()
    colour = nets.write(nets.vgg(16, 16, (64, 64), classifier=False), folder / "colour")
    return {**paths, "train": str(train), "colour": colour}


def command(files, output, *more, proto="train"):
    return runs.command(
        {**files, "proto": files[proto]}, output, "--image-size", 48, "--num-iterations", 6, "--init", "image",
        "--content-layers", "conv2", "--style-layers", "conv1,conv2", "--backend", "numpy", *more,
    )  # fmt: skip


def test_a_training_file_of_one_channel_paints(files, tmp_path, capsys):
    output, log = tmp_path / "out.png", tmp_path / "log.csv"
    assert main(command(files, output, "--log", log, "--style-weight", 1e5)) == 0
    losses = [float(line.split(",")[2]) for line in log.read_text().split()[1:]]
    assert losses[-1] < 0.7 * losses[0]
    shown = images.read(output).rgb
    content = images.resize(images.read(files["content"]).rgb, shown.shape[:2])
    within = ((shown > 0) & (shown < 255)).all(-1)
    np.testing.assert_allclose(np.diff(shown - content)[within], 0, atol=2)  # its colours, another brightness
    assert np.abs(shown - content).max() > 9 and within.mean() > 0.6
    line = "pictures enter the network as luminance of BGR, mean 0, scale 0.00390625; the colours stay the content's"
    assert capsys.readouterr().err.count(line) == 1
    assert main(command(files, output, "--quiet")) == 0
    assert line not in capsys.readouterr().err
    assert main(["info", "--proto", files["train"], "--model", files["model"]]) == 0
    shown = capsys.readouterr().out
    assert "input: luminance of BGR, mean 0, scale 0.00390625\n" in shown and "data/luminance" in shown
    assert main(["info", "--proto", files["train"], "--model", files["model"], "--mean", "9", "--channels", "rgb"]) == 0
    assert "input: luminance of RGB, mean 9, scale 0.00390625\n" in capsys.readouterr().out


def test_a_usual_network_says_nothing(capsys):
    assert main(["info"]) == 0
    assert "input:" not in capsys.readouterr().out


def painted(files, **settings):
    given = {"image_size": 48, "num_iterations": 3, "seed": 3, "content_layers": "conv2", "style_layers": "conv1"}
    given |= {"proto": files["train"], "model": files["model"], "backend": "numpy", **settings}
    return stylize(files["content"], files["style"], **given)


def test_compat_takes_the_references_numbers(files):
    """It asks no prototxt; values times 256."""
    told = painted(files, compat=True, mean=IMAGENET.mean, input_scale=1, channels="bgr")
    assert painted(files, compat=True).losses == told.losses
    assert painted(files, compat=True, proto=files["proto"]).losses == told.losses
    assert painted(files, compat=True, input_scale=0.5).losses != told.losses


def test_a_loaded_network_has_its_own(files):
    net = load_network(files["train"], files["model"], "numpy", mean=5)
    loaded = {"network": net, "proto": None, "model": None, "backend": "auto"}
    assert painted(files, **loaded).losses == painted(files, mean=5).losses
    with pytest.raises(OptionError, match="a network knows its pictures already; give mean and channels to load_netwo"):
        painted(files, **loaded, mean=5, channels="bgr")


def test_noise_begins_about_the_same_colour_whatever_the_mean(files):
    for settings in ({}, {"mean": (10, 20, 200)}, {"mean": (200, 20, 10), "channels": "rgb"}):
        job = cvstyle.Job(
            files["content"], files["style"], *files["colour"],
            Options(init="random", content_layers="relu2_2", style_layers="relu1_1", image_size=40, **settings),
            cvstyle.Compute(backend="numpy"),
        )  # fmt: skip
        run = job.start()
        picture = run.scale.render(run.state.x)
        assert np.abs(picture.rgb - IMAGENET.mean[::-1]).max() < 0.01


def test_bounds_are_black_and_white(files):
    start = np.float32([[[-90, 0, 300], [128, 255, 400]]] * 16).repeat(16, 1)  # RGB, beyond both
    settings = {"mean": (10, 20, 200), "channels": "rgb", "optimizer": "lbfgsb", "bounds": True, "style_weight": 0}
    settings |= {"content_layers": "relu2_2", "style_layers": "relu1_1", "tv_weight": 1e-9, "init_image": start}
    result = painted(files, **settings, **dict(zip(("proto", "model"), files["colour"])))
    assert result.picture.rgb.min() == 0 and result.picture.rgb.max() == pytest.approx(255, abs=1e-4)


def test_another_convention_does_not_go_on(files, tmp_path):
    path = tmp_path / "run.npz"
    done = ["--seed", 3, "--checkpoint", path]
    assert main(command(files, tmp_path / "a.png", *done)) == 0
    settings = checkpoint.load(str(path))[0]["settings"]
    assert (settings["mean"], settings["input_scale"], settings["channels"]) == ([0, 0, 0], 0.00390625, None)
    same = {"checkpoint": str(path), "resume": True, "num_iterations": 6, "init": "image"}
    same["style_layers"] = "conv1,conv2"
    for more in ({"mean": (0, 0, 1)}, {"input_scale": 0.5}, {"channels": "rgb"}):
        (name,) = more
        with pytest.raises(CheckpointError, match=f"(another|other) {name} "):
            painted(files, **same, **more)
    assert painted(files, **same, mean=0, input_scale=1 / 256).iterations == 6


def test_what_is_usual_is_as_before_there_were_these_options(files, tmp_path):
    """A checkpoint from then goes on, however the usual mean is told."""
    path = str(tmp_path / "run.npz")
    more = {"proto": files["proto"], "checkpoint": path}
    painted(files, **more)
    header, arrays = checkpoint.load(path)
    for name in ("mean", "input_scale", "channels"):
        assert header["settings"].pop(name) is None
    checkpoint.save(path, {k: v for k, v in header.items() if k not in ("format", "arrays")}, arrays, np.asarray)
    assert painted(files, **more, resume=True, mean=IMAGENET.mean, input_scale=1, num_iterations=4).iterations == 4
    assert json.loads(json.dumps(header))  # plain values


@pytest.mark.parametrize("more, message", [
    (["--mean", "1,2"], "'1,2' is not three numbers such as 104,117,123, nor one for all channels"),
    (["--mean", "blue"], "'blue' is not three numbers"),
    (["--input-scale", "0"], "--input-scale is 0.0; a number above zero is needed"),
    (["--input-scale", "much"], "'much' is not a number"), (["--channels", "grb"], "grb"),
])  # fmt: skip
def test_mistakes_on_the_command_line(files, tmp_path, capsys, more, message):
    try:
        assert main(command(files, tmp_path / "out.png", *more)) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert message in capsys.readouterr().err
