"""Caffe's rules for nets as a whole: names, inputs, blobs, phases, numbers of weights. Each says where Caffe has it."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_helpers import block, floats, shape, v2_layer

from cvstyle import features, load_network
from cvstyle.backends.reference import Backend
from cvstyle.caffe import read_net
from cvstyle.cli import main
from cvstyle.convention import fitted
from cvstyle.errors import ModelError, OptionError, ShapeError, nearest
from cvstyle.graph import Network
from cvstyle.timings import measure
from cvstyle.zoo import choose_layers

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 8 } } }\n'
X = np.random.default_rng(0).normal(0, 50, (3, 6, 8)).astype(np.float32)


def layer(kind, name, bottoms, tops=None, more=""):
    """A layer as text; blob names are separated by spaces, and the top has the layer's name by default."""
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    made = " ".join(f'top: "{top}"' for top in (name if tops is None else tops).split())
    return f'layer {{ name: "{name}" type: "{kind}" {read} {made} {more} }}\n'


def conv(name, bottom, top=None, outputs=2, more=""):
    """A 1×1 convolution with a bias."""
    size = f"convolution_param {{ num_output: {outputs} kernel_size: 1 }} {more}"
    return layer("Convolution", name, bottom, top, size)


def array(*values, dims=None):
    """A blob of a .caffemodel."""
    return shape(*(dims or [len(values)])) + block(5, floats(*values))


def weights(factor, outputs=2, inputs=3):
    """The blobs of `conv`: every filter is `factor` for its own channel, the biases are 1, 2, ..."""
    filters = factor * np.eye(outputs, inputs)
    return array(*filters.ravel(), dims=(outputs, inputs, 1, 1)), array(*range(1, outputs + 1))


def convolved(x, factor, outputs=2):
    """`conv` with `weights` by hand: channel i is factor · x[i] + i + 1."""
    return np.stack([factor * x[i] + i + 1 for i in range(outputs)])


@pytest.fixture
def write(tmp_path):
    """A function that writes text, and the layers of a model, and returns the paths of both files."""

    def write(text, *model):
        (tmp_path / "net.prototxt").write_text(text)
        (tmp_path / "net.caffemodel").write_bytes(b"".join(model))
        return str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel") if model else None

    return write


@pytest.fixture
def load(write):
    return lambda text, *model: load_network(*write(text, *model), backend="numpy")


@pytest.fixture
def info(write, capsys):
    """A function that gives (status, lines of the output and of the errors) of `cvstyle info`."""

    def info(text, *model, size="8x6"):
        files = dict(zip(("--proto", "--model"), write(text, *model)))
        options = [word for option, path in files.items() if path for word in (option, path)]
        status = main(["info", *options, "--image-size", size])
        captured = capsys.readouterr()
        return status, captured.out.splitlines() + captured.err.splitlines()

    return info


def row(lines, name):
    """The cells of a layer's row in the table of `cvstyle info`: type, output, weights or receptive field, ..."""
    return next(line for line in lines if line.split()[:1] == [name]).split(maxsplit=1)[1]


# Names: Net::Init keeps layers in a list and looks a name up only for weights (Net::CopyTrainedLayersFrom)

CROPS = (
    layer("Pooling", "small", "data", more="pooling_param { kernel_size: 3 stride: 1 }")
    + layer("Crop", "crop", "data small", "first", "crop_param { offset: 1 }")
    + layer("Crop", "crop", "data small", "second", "crop_param { offset: 2 }")
    + layer("Power", "crop", "second", "third", "power_param { scale: 2 }")
)


def test_layers_of_one_name_are_layers_of_their_own(load):
    """As HED's five layers `crop`: the name is the first one's, the others have their number in the file behind it."""
    net = load(DATA + CROPS)
    assert net.layer_names == ["small", "crop", "crop@4", "crop@5"]
    found = features(net, X, ["crop", "crop@4", "crop@5"])
    np.testing.assert_array_equal(found["crop"], X[:, 1:5, 1:7])
    np.testing.assert_array_equal(found["crop@4"], X[:, 2:6, 2:8])
    np.testing.assert_array_equal(found["crop@5"], 2 * X[:, 2:6, 2:8])
    np.testing.assert_array_equal(features(net, X, "third")["third"], found["crop@5"])  # by its blob
    fields = net.receptive_fields()
    assert [fields[net.value(name)].size for name in net.layer_names] == [(3, 3)] * 4
    assert len({net.digest([name]) for name in net.layer_names}) == 4
    assert [layer.repeats for layer in net.definition.layers] == ["", "", "crop", "crop"]
    assert net.partition([net.ops, Backend()], ["crop@4"]).nodes[-1].ops is not net.ops


def test_timings_have_a_row_for_each_layer_of_a_name(load):
    rows, _ = measure(load(DATA + CROPS), ["crop"], ["crop@5"], (6, 8), rounds=1)
    assert [row.names for row in rows] == [["small"], ["crop"], ["crop@4"], ["crop@5"]]


def test_a_name_of_the_file_is_not_given_away(load):
    text = DATA + layer("ReLU", "a", "data", "x") + layer("ReLU", "a", "x", "y") + layer("ReLU", "a@3", "y", "z")
    assert load(text).layer_names == ["a", "a@3_", "a@3"]


def test_names_of_layers_in_other_phases_and_of_losses_do_not_count(load):
    train = "include { phase: TRAIN }"
    text = DATA + layer("ReLU", "a", "data", "x", train) + layer("EuclideanLoss", "a", "data data", "loss")
    assert load(text + layer("TanH", "a", "data", "y")).layer_names == ["a"]


def test_weights_go_to_the_first_layer_of_a_name(load):
    """Net::CopyTrainedLayersFrom stops at the first target; the filler's values in the others would be noise."""
    text = DATA + conv("a", "data", "x") + layer("ReLU", "a", "x", "y") + conv("a", "y", "z")
    net = load(text, v2_layer("a", *weights(2)))
    np.testing.assert_allclose(features(net, X, "a@3")["a@3"], np.maximum(convolved(X, 2), 0), rtol=1e-5, atol=1e-4)
    with pytest.raises(ModelError, match=r"layer 'a@4' .*an earlier layer is named 'a' too, and as in Caffe the first"):
        features(net, X, "a@4")
    other = load(DATA + layer("ReLU", "a", "data", "x") + conv("a", "x", "z"), v2_layer("a", *weights(2)))
    with pytest.raises(
        ModelError, match=r"layer 'a' \(ReLU\) has 2 weight blobs in the model; the prototxt asks for no"
    ):
        features(other, X, "x")


def test_of_one_name_in_the_model_the_last_counts(load):
    """Each is copied in turn, in Net::CopyTrainedLayersFrom."""
    net = load(DATA + conv("a", "data"), v2_layer("a", *weights(2)), v2_layer("a", *weights(3)))
    np.testing.assert_allclose(features(net, X, "a")["a"], convolved(X, 3), rtol=1e-5, atol=1e-4)


# Inputs: UpgradeNetInput makes a layer of the `input` fields if any shape is there, else drops them

R = layer("ReLU", "r", "a")
A_LAYER = 'layer { name: "d" type: "Input" top: "a" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } } }\n'
DIMS = " input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 5 "
SHAPE = " input_shape { dim: 1 dim: 3 dim: 6 dim: 7 } "
V1 = 'layers { name: "r" type: RELU bottom: "a" top: "r" }'


@pytest.mark.parametrize("text, inputs", [
    ('input: "a"' + A_LAYER + R, {"a": (1, 3, 4, 5)}),
    (A_LAYER + R + 'input: "a" input: "b"', {"b": None, "a": (1, 3, 4, 5)}),
    ('input: "a"' + R, {"a": None}),  # dropped in Caffe, where nothing makes it then
    ('input: "a"' + layer("Data", "d", "", "a label") + R, {"a": None}),
    ('input: "a"' + layer("ReLU", "i", "a", "a") + R, {"a": None}),  # what is changed in place is not made
    (DIMS + A_LAYER + R, {"a": (1, 3, 4, 5)}),  # shapes without `input` mean nothing
    (SHAPE + A_LAYER + R, {"a": (1, 3, 4, 5)}),
    ('input: "a"' + DIMS + SHAPE + R, {"a": (1, 3, 6, 7)}),  # input_shape goes before input_dim
    ('input: "a"' + SHAPE + SHAPE + R, {"a": (1, 3, 6, 7)}),
    ('input: "a"' + DIMS + DIMS + R, {"a": (1, 3, 4, 5)}),
    ('input: "a"' + DIMS + "input_dim: 9 " + R, {"a": (1, 3, 4, 5)}),
    ('input: "a" input: "b"' + DIMS + DIMS.replace("3", "1") + R, {"a": (1, 3, 4, 5), "b": (1, 1, 4, 5)}),
    ('input: "b"' + DIMS + A_LAYER + R, {"b": (1, 3, 4, 5), "a": (1, 3, 4, 5)}),
    ('input: "a"' + SHAPE + V1, {"a": (1, 3, 6, 7)}),
    ('input: "a"' + DIMS + V1, {"a": (1, 3, 4, 5)}),
    ('input: "a"' + V1, {"a": None}),
    ('input: "a" layers { name: "d" type: DATA top: "a" top: "l" }' + V1, {"a": None}),
    ('input: "a"' + DIMS + 'layers { bottom: "a" top: "r" layer { name: "r" type: "relu" } }', {"a": (1, 3, 4, 5)}),
])  # fmt: skip
def test_inputs(write, text, inputs):
    net = read_net(write(text)[0])
    assert net.inputs == inputs and net.layers[-1].name == "r"


@pytest.mark.parametrize("text, message", [
    ('input: "a"' + DIMS + A_LAYER + R, "blob 'a' is already made above"),  # "produced by multiple sources"
    ('input: "a" input: "b"' + SHAPE + R, "has 2 `input` but 1 input_shape; give one for each input"),
    ('input: "a" input: "b"' + DIMS + R, "has 2 `input` but 1 groups of 4 input_dim"),
    ('input: "a" input_dim: 1 input_dim: 3 ' + R, "has 1 `input` but 0 groups of 4 input_dim"),
    (A_LAYER + R + layer("TanH", "t", "r", "a"), "layer 't': blob 'a' is already made above"),  # Net::AppendTop
    (A_LAYER + layer("Slice", "s", "a", "b b"), "layer 's': blob 'b' is already made above"),
    (A_LAYER + layer("Voodoo", "s", "a", "b a"), "layer 's': blob 'a' is already made above"),  # not at its place
])  # fmt: skip
def test_contradictions_are_refused(write, text, message):
    with pytest.raises(ModelError, match=message):
        read_net(write(text)[0])


# Inputs that nothing asked for

SECOND = {
    "six channels": "dim: 1 dim: 6 dim: 6 dim: 8",
    "one channel": "dim: 1 dim: 1 dim: 6 dim: 8",
    "two axes": "dim: 1 dim: 3",
    "rois": "dim: 9 dim: 5",
    "one axis": "dim: 7",
    "five axes": "dim: 1 dim: 3 dim: 2 dim: 6 dim: 8",
    "scalar": "",
}


@pytest.mark.parametrize("dims", SECOND.values(), ids=SECOND)
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("reader", [layer("ReLU", "q", "other"), layer("Voodoo", "q", "p other"), ""])
def test_an_input_that_is_not_asked_for_does_no_harm(load, dims, order, reader):
    other = f'layer {{ name: "o" type: "Input" top: "other" input_param {{ shape {{ {dims} }} }} }}\n'
    inputs = other + DATA if order == "before" else DATA + other
    net = load(inputs + layer("Power", "p", "data", more="power_param { scale: 3 }") + reader)
    np.testing.assert_allclose(features(net, X, "p")["p"], 3 * X, rtol=1e-6)
    assert not net.convention.luminance
    assert choose_layers(net, [(64, 64)])["content_layers"] == ["p"]
    assert net.program(["p"]).shapes((6, 8)) == {"p": (1, 3, 6, 8)}


def test_an_input_that_is_asked_for_must_be_a_picture(load):
    two = DATA + 'layer { name: "i" type: "Input" top: "info" top: "six" input_param { shape { dim: 1 dim: 3 } %s } }\n'
    text = two % "shape { dim: 1 dim: 6 dim: 2 dim: 2 }" + layer("ReLU", "a", "info") + layer("ReLU", "b", "six")
    net = load(text + layer("Concat", "c", "data six") + layer("ReLU", "p", "data"))
    for name, message in [
        ("a", r"input 'info' has the shape \[1, 3\]; a picture has \[1, 3, height, width\]"),
        ("info", r"input 'info' has the shape \[1, 3\]"), ("b", "input 'six' has 6 channels; a picture has 3"),
        ("c", r"the layers c depend on 2 inputs \('data', 'six'\); exactly one, the picture, is supported"),
    ]:  # fmt: skip
        with pytest.raises(ModelError, match=message):
            net.program([name]).shapes((2, 2))
    only = two.removeprefix(DATA) % "shape { dim: 1 dim: 6 dim: 2 dim: 2 }" + layer("ReLU", "b", "six")
    with pytest.raises(ModelError, match="input 'six' has 6 channels; a picture has 3, or 1 as luminance"):
        load(only)


def test_a_grey_input_beside_one_of_unknown_channels_is_not_the_picture(load):
    grey = 'layer { name: "g" type: "Input" top: "g" input_param { shape { dim: 1 dim: 1 dim: 6 dim: 8 } } }\n'
    assert not load(grey + 'input: "data"' + layer("Concat", "c", "data g")).convention.luminance
    assert load(grey + layer("ReLU", "r", "g")).convention.luminance


# Layers that cannot run cut what depends on them, and nothing else

CHAIN = layer("Power", "p", "data", more="power_param { scale: 3 }")
CUTS = {
    "unknown type": layer("Voodoo", "v", "p"),
    "unknown, in place on a blob of its own": layer("Power", "w", "p")
    + layer("Voodoo", "v", "w", "w")
    + layer("TanH", "v2", "w", "v"),
    "unknown, with a label": layer("Data", "l", "", "more label") + layer("Voodoo", "v", "p label"),
    "unknown, with a label of the other phase": layer("Data", "l", "", "data label", "include { phase: TRAIN }")
    + layer("Voodoo", "v", "p label"),
    "unknown source": layer("Voodoo", "s", "", "s") + layer("Eltwise", "v", "p s"),
    "unknown, with a missing bottom": layer("Voodoo", "v", "p nothing"),
    "missing bottom": layer("Eltwise", "v", "p nothing"),
    "missing bottom in place": layer("ReLU", "w", "nothing", "nothing") + layer("Eltwise", "v", "p nothing"),
    "bottom of the other phase": layer("TanH", "t", "p", "t", "include { phase: TRAIN }")
    + layer("Eltwise", "v", "p t"),
    "bottom made below": layer("Eltwise", "v", "p below") + layer("TanH", "z", "p", "below"),
    "bad parameters": layer("Pooling", "v", "p", more="pooling_param { kernel_size: 0 }"),
    "too many tops": layer("ReLU", "v", "p", "v w"),
    "shapes that do not fit": layer("Pooling", "w", "p", more="pooling_param { kernel_size: 2 stride: 2 }")
    + layer("Eltwise", "v", "p w"),
}
AFTER = layer("ReLU", "a", "v") + layer("Concat", "b", "a p") + layer("EuclideanLoss", "loss", "b label")


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_what_does_not_depend_on_a_layer_runs(load, info, cut):
    text = DATA + CHAIN + cut + AFTER + layer("Power", "q", "p", more="power_param { scale: 2 }")
    net = load(text)
    found = features(net, X, ["p", "q"])
    np.testing.assert_allclose(found["q"], 6 * X, rtol=1e-6)
    for name in "ab":
        with pytest.raises(ModelError) as caught:
            net.program([name]).shapes((6, 8))
        assert "net.prototxt: layer '" in str(caught.value) and f"layer '{name}'" not in str(caught.value).split(";")[0]
    chosen = choose_layers(net, [(64, 64)])
    assert net.program(chosen["content_layers"] + chosen["style_layers"]).shapes((64, 64))
    status, lines = info(text)
    assert status == 0 and "3×6×8" in row(lines, "q") and row(lines, "a") == row(lines, "b").replace("Concat", "ReLU  ")


@pytest.mark.parametrize(
    "cut, cause",
    [
        (layer("Voodoo", "v", "p"), "layer 'v' has type 'Voodoo', which cvstyle cannot run; layer 'b' depends on it"),
        (
            layer("Voodoo", "u", "p", "p") + layer("TanH", "v", "p"),
            "layer 'u' has type 'Voodoo'.*; layer 'b' depends on it",
        ),
        (
            layer("Voodoo", "v", "nix"),
            "layer 'v': no layer makes its input 'nix'; known: data, p; layer 'b' depends on it",
        ),
        (layer("Voodoo", "s", "", "s") + layer("Eltwise", "v", "p s"), "layer 's' has type 'Voodoo'"),
        (layer("TanH", "v", "dat"), "layer 'v': no layer makes its input 'dat'; known: data, p"),
        (layer("TanH", "v", "a"), "layer 'v': its input 'a' is made only below, by layer 'a'; the graph has a circle"),
        (
            layer("TanH", "t", "p", "t", "include { phase: TRAIN }") + layer("TanH", "v", "t"),
            "layer 'v': its input 't' is made by layer 't', which is not in phase TEST",
        ),
    ],
)
def test_the_cause_is_named(load, cut, cause):
    net = load(DATA + CHAIN + cut + AFTER)
    with pytest.raises(ModelError, match=cause):
        net.program(["p", "b"])


@pytest.mark.parametrize("kind", [
    "SoftmaxWithLossOHEM", "SmoothL1Loss", "SegAccuracy", "MultiBoxLoss", "Yolov3DetectionLoss", "Accuracy", "Silence",
])  # fmt: skip
def test_training_layers_of_forks_go_with_their_labels(write, kind):
    """Also where the labels are made in the other phase, in a file without a test phase."""
    text = (
        layer("Data", "d", "", "data label", "include { phase: TRAIN }")
        + CHAIN
        + layer(kind, "loss", "p label", "loss")
    )
    net = read_net(write(text + layer("Power", "half", "loss"))[0])
    assert net.inputs == {"data": None} and [layer.name for layer in net.layers] == ["p"]


def test_a_blob_that_nothing_makes_has_no_name(load):
    with pytest.raises(OptionError, match=r"there is no layer 'nothing'; known: p, v, a, b"):
        load(DATA + CHAIN + CUTS["missing bottom"] + AFTER).program(["nothing"])


def test_nothing_left_is_an_error(write):
    with pytest.raises(ModelError, match=r"net.prototxt: layer 'a': no layer makes its input 'x'; known: data$"):
        read_net(write(DATA + layer("ReLU", "a", "x") + layer("ReLU", "b", "a") + layer("TanH", "c", "b", "b"))[0])


# Numbers of blobs: "Incompatible number of blobs for layer" (Net::CopyTrainedLayersFrom)


@pytest.mark.parametrize("more", [[], ["data"], ["data", "data"]])
def test_a_layer_takes_all_blobs_of_the_model(load, info, more):
    text = DATA + layer("ReLU", "r", "data") + conv("a", "r") + conv("c", "a") + layer("Dropout", "d", "c", "c")
    blobs = weights(2)
    held = [blobs[0], *(blobs[1:] if more else []), *(array(1) for _ in more[1:])]
    net = load(text, v2_layer("a", *held), v2_layer("c", *weights(2, inputs=2)))
    features(net, X, "r")
    if len(held) == 2:
        np.testing.assert_allclose(features(net, X, "a")["a"], convolved(np.maximum(X, 0), 2), rtol=1e-5, atol=1e-4)
        assert info(text, v2_layer("a", *held), v2_layer("c", *weights(2, inputs=2)))[0] == 0
        return
    message = f"layer 'a' (Convolution) has {len(held)} weight blobs in the model; the prototxt asks for 2: do these"
    with pytest.raises(ModelError) as caught:
        features(net, X, "a")
    assert message in str(caught.value)
    status, lines = info(text, v2_layer("a", *held), v2_layer("c", *weights(2, inputs=2)))
    assert status == 2 and len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize("kind", ["ReLU", "Dropout", "Split", "Pooling"])
def test_a_layer_without_weights_takes_none(load, kind):
    text = DATA + layer(kind, "r", "data", more="pooling_param { kernel_size: 1 }") + layer("TanH", "t", "r")
    with pytest.raises(
        ModelError, match=rf"caffemodel: layer 'r' \({kind}\) has 1 weight blobs in the model; .* for none"
    ):
        features(load(text, v2_layer("r", array(1))), X, "t")


def test_the_number_of_blobs_is_known_before_their_shapes_are_asked_for(load):
    text = DATA + conv("a", "data") + layer("ReLU", "r", "a")
    for model, counts in [([v2_layer("a", *weights(2))], [2, 0]), ([], [None, None])]:
        net = load(text, *model)
        for index, count in enumerate(counts):
            if model:
                net.prepare(index, [(1, 3 - index, 6, 8)])
            assert net.layer(index).blob_count == count


# Shared weights: Net::AppendParam; Layer::ToProto writes the blobs of every layer, the shared ones too

SHARED = 'param { name: "w" } param { name: "b" }'


def siamese(more=SHARED):
    return (
        DATA
        + conv("a", "data", more=more)
        + layer("Power", "p", "data", more="power_param { scale: 2 }")
        + conv("a_p", "p", more=more)
    )


@pytest.mark.parametrize(
    "model, factor",
    [
        ([("a", 2), ("a_p", 2)], 2),
        ([("a", 2)], 2),
        ([("a_p", 2)], 2),
        ([("a", 3), ("a_p", 2)], 2),
        ([("a_p", 2), ("a", 3)], 3),
    ],
)
def test_layers_share_blobs_of_one_name(load, model, factor):
    """As Caffe writes them; for one of the layers alone; and where they differ, the last ones copied."""
    net = load(siamese(), *(v2_layer(name, *weights(n)) for name, n in model))
    found = features(net, X, ["a", "a_p"])
    np.testing.assert_allclose(found["a"], convolved(X, factor), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found["a_p"], convolved(2 * X, factor), rtol=1e-5, atol=1e-4)


def test_one_blob_may_be_shared_and_another_not(load):
    text = siamese('param { name: "w" lr_mult: 1 } param { lr_mult: 2 }')
    net = load(text, v2_layer("a", *weights(2)), v2_layer("a_p", weights(3)[0], array(5, 6)))
    found = features(net, X, ["a", "a_p"])
    np.testing.assert_allclose(found["a"], convolved(X, 3), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found["a_p"], convolved(2 * X, 3) + 4, rtol=1e-5, atol=1e-4)
    with pytest.raises(ModelError, match=r"'a_p' .*has 1 weight blobs in the model; the prototxt asks for 2"):
        features(load(text, v2_layer("a", *weights(2))), X, "a_p")


def test_layers_of_one_name_that_share_have_weights(load):
    text = DATA + conv("a", "data", "x", more=SHARED) + layer("Power", "p", "data") + conv("a", "p", "y", more=SHARED)
    np.testing.assert_allclose(
        features(load(text, v2_layer("a", *weights(2))), X, "a@4")["a@4"], convolved(X, 2), rtol=1e-5, atol=1e-4
    )


def test_v1_names_of_shared_blobs(write):
    """In V1 a string for each blob (UpgradeV1LayerParameter)."""
    text = (
        'input: "data"' + DIMS + 'layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" param: "w" param: "b" '
        "convolution_param { num_output: 2 kernel_size: 1 } }"
        'layers { name: "d" type: CONVOLUTION bottom: "data" top: "d" param: "w" blobs_lr: 1 }'
    )
    assert [layer.shared for layer in read_net(write(text)[0]).layers] == [("w", "b"), ("w",)]


def test_shared_weights_are_in_the_digest(load):
    text = siamese()
    one, two = (load(text, v2_layer("a", *weights(n))).digest(["a_p"]) for n in (2, 3))
    assert one != two


# Weights of a net of one channel


def test_the_layer_that_needs_weights_is_the_files(load):
    grey = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 6 dim: 8 } } }\n'
    text = grey + conv("first", "data")
    with pytest.raises(
        ModelError, match=r"net.prototxt: layer 'first' \(Convolution\) needs weights: give the .caffemo"
    ):
        features(load(text), X, "first")
    with pytest.raises(
        ModelError, match=r"net.caffemodel: layer 'first' \(Convolution\) has no weights in the model; d"
    ):
        features(load(text, v2_layer("First", *weights(2))), X, "first")
    with pytest.raises(ModelError, match=r"'first' .*has no weights in the model; known: other$"):
        features(load(text, v2_layer("other", *weights(2))), X, "first")


# info


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 15])
@pytest.mark.parametrize("stated", [True, False], ids=["stated", "by the weights"])
def test_info_lists_nets_of_any_number_of_channels(info, channels, stated):
    dims = f"shape {{ dim: 1 dim: {channels} dim: 5 dim: 5 }}" if stated else ""
    text = f'layer {{ name: "i" type: "Input" top: "data" input_param {{ {dims} }} }}' + conv("a", "data")
    status, lines = info(text, v2_layer("a", *weights(2, inputs=channels)))
    assert status == 0 and row(lines, "a").split()[:3] == ["Convolution", "2×6×8", str(2 * channels + 2)]
    refusal = f"a run refuses this network: input 'data' has {channels} channels; a picture has 3, or 1 as luminance"
    assert (refusal in lines) == (channels != 1)
    assert row(lines, "a").endswith("c s") == (channels == 1)


def test_info_lists_each_input_with_its_own_shape(info):
    text = (
        DATA + 'layer { name: "o" type: "Input" top: "six" top: "im_info" input_param { '
        "shape { dim: 2 dim: 6 dim: 3 dim: 3 } shape { dim: 4 dim: 3 } } }\n"
        + layer("ReLU", "a", "six") + layer("TanH", "b", "im_info") + layer("Sigmoid", "c", "data")
        + layer("Concat", "d", "six data")
    )  # fmt: skip
    status, lines = info(text)
    assert status == 0
    assert row(lines, "a").split() == ["ReLU", "6×6×8", "1"] and row(lines, "b").split()[:2] == ["TanH", "3"]
    assert row(lines, "c").split() == ["Sigmoid", "3×6×8", "1", "c", "s"]
    assert row(lines, "d").split() == ["Concat", "9×6×8", "1"]  # no use: it needs two inputs


def test_info_says_the_true_reason(info):
    text = (
        DATA + layer("Voodoo", "u", "data") + layer("ReLU", "after", "u")
        + layer("Pooling", "half", "data", more="pooling_param { kernel_size: 2 stride: 2 }")
        + layer("Eltwise", "sum", "data half") + layer("ReLU", "sum2", "sum")
        + layer("Convolution", "large", "data", more="convolution_param { num_output: 1 kernel_size: 20 }")
        + layer("ReLU", "large2", "large") + layer("ReLU", "lost", "nothing")
    )  # fmt: skip
    status, lines = info(text)
    assert status == 0
    assert row(lines, "u").split(maxsplit=1)[1] == "cannot run"
    assert row(lines, "after").split(maxsplit=1)[1] == "needs 'u'"
    assert row(lines, "sum").split(maxsplit=1)[1] == "cannot run"
    assert row(lines, "sum2").split(maxsplit=1)[1] == "needs 'sum'"
    for name in ("large", "large2"):
        assert row(lines, name).split(maxsplit=1)[1].startswith("does not run at this size")
    assert row(lines, "half").split()[1] == "3×3×4"
    for line in (
        "layer 'u' has type 'Voodoo', which cvstyle cannot run",
        "layer 'sum' (Eltwise): its inputs differ in shape: (1, 3, 6, 8), (1, 3, 3, 4)",
        "layer 'lost': no layer makes its input 'nothing'; known: data, half, large, large2, sum, sum2, u, after",
    ):
        assert line.split("; known")[0] in "\n".join(lines)
    lines = info(text, size="64x64")[1]
    assert row(lines, "large").split()[1] == "1×45×45"


def test_info_knows_segnets_decoders_of_an_odd_height(info):
    """They run at no square: of 360×480, three times halved, the height is odd and the width even."""
    pool = 'layer { name: "%s" type: "Pooling" bottom: "%s" top: "%s" top: "mask%s" '
    pool += "pooling_param { kernel_size: 2 stride: 2 } }\n"
    text = 'layer { name: "data" type: "DenseImageData" top: "data" top: "label" }\n'
    for n, below in enumerate(("data", "p0", "p1", "p2")):
        text += pool % (f"p{n}", below, f"p{n}", n)
    text += layer("Upsample", "up", "p3 mask3", more="upsample_param { scale: 2 pad_out_h: true }")
    text += layer("Eltwise", "sum", "up p2") + layer("Eltwise", "never", "up p1")
    lines = info(text, size="480x360")[1]
    assert row(lines, "sum").split()[1] == "3×45×60"
    lines = info(text, size="512x512")[1]
    assert row(lines, "sum").split(maxsplit=1)[1].startswith("does not run at this size")
    assert row(lines, "never").split(maxsplit=1)[1] == "cannot run"


def test_info_knows_that_fully_connected_layers_take_one_size(info):
    text = (
        DATA
        + layer("InnerProduct", "fc", "data", more="inner_product_param { num_output: 2 }")
        + layer("ReLU", "r", "fc")
    )
    model = v2_layer("fc", array(*range(288), dims=(2, 144)), array(1, 2))
    lines = info(text, model)[1]
    assert row(lines, "fc").split()[:3] == ["InnerProduct", "2", "290"] and row(lines, "r").split()[1] == "2"
    status, lines = info(text, model, size="9x9")
    assert status == 0 and all("does not run at this size" in row(lines, name) for name in ("fc", "r"))


@pytest.mark.parametrize(
    "model, message",
    [
        ([v2_layer("other", *weights(2))], "net.caffemodel: holds no weights for any layer of"),
        (
            [v2_layer("a", *weights(2, outputs=3))],
            "layer 'a' (Convolution) has weights of shape (3, 3, 1, 1); the prototxt asks",
        ),
        (
            [v2_layer("a", *weights(2, inputs=4))],
            "layer 'a' (Convolution) has weights of shape (2, 4, 1, 1); the prototxt asks",
        ),
        (
            [v2_layer("a", *weights(2), array(1))],
            "layer 'a' (Convolution) has 3 weight blobs in the model; the prototxt asks for 2",
        ),
        (
            [v2_layer("a", *weights(2)[:1])],
            "layer 'a' (Convolution) has 1 weight blobs in the model; the prototxt asks for 2",
        ),
        (
            [v2_layer("a", *weights(2)), v2_layer("r", array(1))],
            "layer 'r' (ReLU) has 1 weight blobs in the model; the prototxt",
        ),
    ],
)
def test_info_refuses_a_model_of_another_prototxt(info, model, message):
    status, lines = info(DATA + conv("a", "data") + layer("ReLU", "r", "a"), *model)
    assert (
        status == 2
        and len(lines) == 1
        and message in lines[0]
        and lines[0].endswith("do these two files belong together?")
    )


def test_info_names_layers_that_the_model_lacks(info):
    text = DATA + conv("a", "data") + conv("b", "a") + conv("c", "b")
    status, lines = info(text, v2_layer("a", *weights(2)))
    assert status == 0 and "layers without weights in the model: b, c" in lines
    assert not any("without weights" in line for line in info(text)[1])


# Hints

TYPES = (
    "AbsVal", "BatchNorm", "Bias", "Concat", "Convolution", "Crop", "ELU", "Eltwise", "Exp", "InnerProduct", "Permute",
    "Pooling", "PReLU", "ReLU", "Reshape", "Scale", "SELU", "Slice", "Softmax",
)  # fmt: skip

@pytest.mark.parametrize(
    "name, known, hint",
    [
        ("Voodoo", TYPES, ""),
        ("Mish", TYPES, ""),
        ("GELU", TYPES, ""),
        ("RReLU", TYPES, ""),
        ("PSROIPooling", TYPES, ""),
        ("DetectionOutput", TYPES, ""),
        ("Resize", TYPES, ""),
        ("relu", TYPES, "; did you mean ReLU?"),
        ("Batch_Norm", TYPES, "; did you mean BatchNorm?"),
        ("Convolutoin", TYPES, "; did you mean Convolution?"),
        ("Polling", TYPES, "; did you mean Pooling?"),
        ("InnerProducts", TYPES, "; did you mean InnerProduct?"),
        ("elu", TYPES, "; did you mean ELU?"),
        ("conv1", ("a", "b"), "; known: a, b"),
        ("conv1", (), ""),
        ("nix", [f"layer{i}" for i in range(13)], ""),
        ("relu9", [f"relu{i}_1" for i in range(14)], "; did you mean relu9_1?"),
        ("relu3-1", ["relu3_1", "relu3_2"], "; did you mean relu3_1?"),
        ("vgg91", ("vgg19", "vgg16"), "; did you mean vgg19?"),
        ("", ["a"] * 20, ""),
    ],
)
def test_a_hint_is_a_slip_away(name, known, hint):
    assert nearest(name, known) == hint


def test_hints_for_layers(load):
    net = load(DATA + "".join(layer("ReLU", f"relu{i}", "data") for i in range(20)))
    for name, hint in [("relu_7", "did you mean relu7?"), ("conv", "'cvstyle info' lists all")]:
        with pytest.raises(OptionError, match=rf"net.prototxt: there is no layer '{name}'; {hint}"):
            net.program([name])


def test_unfit_pictures_are_still_errors_of_size(load):
    net = load(DATA + layer("Convolution", "c", "data", more="convolution_param { num_output: 1 kernel_size: 20 }"))
    with pytest.raises(ShapeError, match=r"layer 'c' .*too small"):
        net.program(["c"]).shapes((6, 8))


def test_a_fitted_net_counts_the_layers_in_front(write):
    grey = 'input: "data" input_dim: 1 input_dim: 1 input_dim: 6 input_dim: 8 ' + layer("ReLU", "r", "data")
    net = fitted(read_net(write(grey)[0]))
    assert net.added == 1 and Network(net, Backend()).layer_names == ["data/luminance", "r"]
