"""Graphs: whole nets against OpenCV's Caffe importer, gradients against finite differences, traps of aliasing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import cv2
import nets
import numpy as np
import pytest
import relu_decisions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvstyle import Objective, backends, load_network
from cvstyle.backends import registry
from cvstyle.backends.base import BIAS, UNPLACED
from cvstyle.backends.choose import choose
from cvstyle.backends.reference import Backend, Convolution
from cvstyle.caffe import read_net
from cvstyle.errors import ModelError, OptionError, ShapeError
from cvstyle.graph import Network
from cvstyle.layers import Context, layer_class
from cvstyle.netdef import LayerDef, NetDef

WHOLE = {
    "vgg16 V2": (lambda: nets.vgg(16, 16, (66, 97)), "V2"),
    "vgg16 V1": (lambda: nets.vgg(16, 16, (66, 97)), "V1"),
    "vgg19 V2": (lambda: nets.vgg(19, 16, (65, 40)), "V2"),
    "vgg19 V1": (lambda: nets.vgg(19, 16, (65, 40)), "V1"),
    "nin": (lambda: nets.nin(16, (96, 67)), "V1"),
    "alexnet": (lambda: nets.alexnet(16, (67, 99)), "V1"),
    "caffenet": (lambda: nets.caffenet(16, (99, 70)), "V2"),
    "googlenet V2": (lambda: nets.googlenet(16, (64, 97)), "V2"),
    "googlenet V1": (lambda: nets.googlenet(16, (64, 97)), "V1"),
    "googlenet 224": (lambda: nets.googlenet(32), "V2"),
    "googlenet_": (lambda: nets.googlenet(16, (97, 64), separator="_"), "V2"),
    "squeezenet": (lambda: nets.squeezenet(16, (65, 99)), "V2"),
    "resnet50": (lambda: nets.resnet50(16, (64, 97)), "V2"),
}


def picture(net, seed=0):
    (shape,) = net.inputs.values()
    return np.random.default_rng(seed).normal(0, 50, shape).astype(np.float32)


def graph(*layers, size=(7, 6), inputs=None, seed=0):
    """A net from rows: type, name, bottoms, tops (the name if left out), params. Blob names are separated by spaces."""
    definitions = []
    for kind, name, bottoms, *rest in layers:
        tops, params = (*rest, {})[:2] if rest and isinstance(rest[0], str) else (name, *rest, {})[:2]
        definitions.append(LayerDef(name, kind, tuple(bottoms.split()), tuple(tops.split()), params))
    net = NetDef("net", inputs or {"data": (1, 3, *size)}, tuple(definitions), source="net.prototxt")
    return nets.with_weights(net, seed) if inputs is None else net


def naive(net, x, ops):
    """Every layer's first output, each layer run by itself on copies: layer name -> array. No graph logic at all."""
    blobs, results = {next(iter(net.inputs)): np.array(x, ops.dtype)}, {}
    for d in net.layers:
        bottoms = [blobs[b].copy() for b in d.bottoms]
        if d.type in ("Dropout", "Split"):
            tops = [bottoms[0]] * len(d.tops)
        else:
            layer = layer_class(d.type)(d, ops)
            if d.name in net.weights:
                layer.load(net.weights[d.name], [b.shape for b in bottoms])
            tops, _ = layer.forward(bottoms, Context())
        tops = [t.copy() for t in tops]
        blobs.update(zip(d.tops, tops, strict=True))
        results[d.name] = tops[0]
    return results


class Projection:
    """Σ over the taps of <weights, features>, a function of the picture whose gradient `Program.backward` gives."""

    def __init__(self, net, taps, ops, seed=1, pooling="max"):
        self.ops = ops
        self.program = Network(net, ops, pooling).program(taps)
        (shape,) = net.inputs.values()
        rng = np.random.default_rng(seed)
        self.weights = {name: rng.normal(size=s) for name, s in self.program.shapes(shape[2:], shape[1]).items()}

    def value(self, x):
        features = self.program.forward(self.ops.asarray(x), needs_grad=False)
        return sum(float((self.weights[name] * f).sum()) for name, f in features.items())

    def gradient(self, x):
        called = []

        def add(name, gradient):
            called.append(name)
            own = self.ops.asarray(self.weights[name])
            return own if gradient is None else self.ops.add_scaled(gradient, 1, own)

        gradient = np.array(self.program.forward(self.ops.asarray(x)).backward(add))
        assert sorted(called) == sorted(self.weights)
        return gradient

    def check(self, x, step=1e-4, tolerance=1e-6):
        """Gradient against central differences along a random direction and along itself."""
        x, gradient = np.asarray(x, np.float64), self.gradient(x)
        assert gradient.shape == x.shape
        norm = np.linalg.norm(gradient)
        for direction in (np.random.default_rng(5).normal(size=x.shape), gradient):
            direction = direction / (np.linalg.norm(direction) or 1)
            difference = (self.value(x + step * direction) - self.value(x - step * direction)) / (2 * step)
            assert abs(difference - (gradient * direction).sum()) <= tolerance * max(norm, 1e-3)
        return gradient


# Whole nets


@pytest.fixture(scope="module", params=WHOLE)
def whole(request, tmp_path_factory):
    """(net as built, its two files)."""
    build, form = WHOLE[request.param]
    net = build()
    return net, nets.write(net, tmp_path_factory.mktemp("net"), form)


def test_files_give_the_net_back(whole):
    net, files = whole
    read = read_net(*files)
    assert dict(read.inputs) == dict(net.inputs)
    assert [(d.name, d.type, d.bottoms, d.tops) for d in read.layers] == [
        (d.name, d.type, d.bottoms, d.tops) for d in net.layers
    ]
    for name, blobs in net.weights.items():
        for a, b in zip(blobs, read.weights[name], strict=True):
            np.testing.assert_array_equal(np.ravel(a), np.ravel(b))


def test_every_layer_of_a_whole_net_agrees_with_opencv(whole):
    net, files = whole
    names = [d.name for d in net.layers if d.type != "Dropout"]  # OpenCV removes Dropout
    other = cv2.dnn.readNetFromCaffe(*files)
    other.enableFusion(False)
    x = picture(net)
    other.setInput(x)
    expected = dict(zip(names, other.forward(names), strict=True))
    for backend in (make() for make in nets.ENGINES.values()):
        own = load_network(*files, backend=backend)
        features = own.program(names).forward(own.ops.asarray(x))
        for name in names:
            assert features[name].shape == expected[name].shape
            np.testing.assert_allclose(
                features[name], expected[name], rtol=1e-3, atol=1e-4 * np.abs(expected[name]).max(), err_msg=name
            )


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_gradient_of_a_whole_net(whole, pooling):
    net, _ = whole
    names = [d.name for d in net.layers]
    taps = [names[1], names[len(names) // 2], names[-2]]
    if pooling == "avg" and any(d.type == "InnerProduct" for d in net.layers):
        taps.pop()  # the smaller maps do not fit the fully connected layers
    Projection(net, taps, Backend("float64"), pooling=pooling).check(picture(net))


def test_gradients_of_backends_agree_on_a_whole_net(whole):
    net, _ = whole
    names = [d.name for d in net.layers]
    taps = [names[1], names[len(names) // 2]]
    exact = Projection(net, taps, Backend("float64")).gradient(picture(net))
    for ops in (make() for make in nets.ENGINES.values()):
        gradient = Projection(net, taps, ops).gradient(picture(net))
        assert np.linalg.norm(gradient - exact) <= 1e-3 * np.linalg.norm(exact)


def test_slice_split_and_join_agree_with_opencv(tmp_path):
    net = graph(
        ("Convolution", "conv", "data", {"num_output": 6, "kernel_size": [3]}),
        ("Split", "split", "conv", "one two"),
        ("Slice", "slice", "one", "a b c"),
        ("Eltwise", "max", "a c", {"operation": "MAX"}),
        ("Concat", "out", "b max two"),
    )
    files = nets.write(net, tmp_path)
    other = cv2.dnn.readNetFromCaffe(*files)
    other.setInput(picture(net))
    ours = load_network(*files, backend="numpy")
    np.testing.assert_allclose(
        ours.program(["out"]).forward(ours.ops.asarray(picture(net)))["out"], other.forward("out"), rtol=1e-4, atol=1e-3
    )


# Shapes and receptive fields


def test_receptive_fields_of_vgg19():
    network = Network(nets.vgg(19, 32), Backend())
    fields = network.receptive_fields()
    known = {"relu1_1": (3, 1), "relu2_1": (10, 2), "relu3_1": (24, 4), "relu4_1": (68, 8), "relu4_2": (84, 8),
             "relu5_1": (156, 16)}  # fmt: skip
    for name, (size, step) in known.items():
        field = fields[network.value(name)]
        assert (field.size, field.step) == ((size, size), (step, step))
    assert fields[network.value("fc6")].size is None
    assert fields[network.value("prob")].size is None


@pytest.mark.parametrize("layers, exact", [
    ([("Convolution", "a", "data", {"num_output": 2, "kernel_h": 3, "kernel_w": 5, "stride_h": 2, "stride_w": 1}),
      ("Pooling", "b", "a", {"pool": "AVE", "kernel_size": 3, "stride": 2}),
      ("Convolution", "c", "b", {"num_output": 2, "kernel_size": [3], "dilation": [2, 1]})], True),
    ([("Convolution", "a", "data", {"num_output": 2, "kernel_size": [5]}),
      ("Convolution", "b", "data", {"num_output": 2, "kernel_size": [1]}),
      ("Crop", "cut", "b a", {"offset": [2]}),
      ("Eltwise", "c", "a cut")], True),
    ([("Power", "p", "data"), ("LRN", "c", "p", {"norm_region": "WITHIN_CHANNEL", "local_size": 5})], True),
    ([("Convolution", "a", "data", {"num_output": 2, "kernel_size": [3], "stride": [2]}),
      ("Deconvolution", "b", "a", {"num_output": 2, "kernel_size": [4], "stride": [2]}),
      ("Convolution", "c", "b", {"num_output": 2, "kernel_size": [3]})], False),
], ids=["windows", "branches", "lrn", "deconvolution"])  # fmt: skip
def test_receptive_field_is_what_one_output_sees(layers, exact):
    """The support of a gradient, with weights that cannot cancel; where inputs are spread, the field is a bound."""
    net = graph(*layers, size=(41, 37))
    net = replace(net, weights={n: [np.ones_like(b) for b in blobs] for n, blobs in net.weights.items()})
    network = Network(net, Backend("float64"))
    program = network.program(["c"])
    shape = program.forward(np.ones((1, 3, 41, 37)))["c"].shape
    middle = [n // 2 for n in shape[2:]]
    supports = []
    for offset in itertools.product((0, 1), repeat=2):
        features = program.forward(np.ones((1, 3, 41, 37)))
        delta = np.zeros(shape)
        delta[0, 0, middle[0] + offset[0], middle[1] + offset[1]] = 1
        gradient = features.backward(lambda name, g, delta=delta: delta)
        rows, columns = (np.flatnonzero(np.abs(gradient).sum(axis=(0, 1, 3 - a))) for a in (0, 1))
        supports.append((rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1))
    field = network.receptive_fields()[network.value("c")].size
    measured = tuple(map(max, zip(*supports)))
    assert field == measured if exact else all(m <= f <= m + 2 for m, f in zip(measured, field))


def test_shapes_of_all_values():
    network = Network(nets.googlenet(16), Backend())
    shapes = network.shapes((224, 224))
    assert shapes[network.value("inception_3a/output")] == (1, 16, 28, 28)
    assert shapes[network.value("inception_5b/output")] == (1, 64, 7, 7)
    assert network.program(["pool4/3x3_s2"]).shapes((225, 640)) == {"pool4/3x3_s2": (1, 52, 7, 20)}
    assert network.parameter_count("conv1/7x7_s2") == 4 * 3 * 49 + 4
    assert network.parameter_count("pool1/3x3_s2") == 0


# Aliases


def conv(name, bottom, channels=4, **params):
    return ("Convolution", name, bottom, {"num_output": channels, "kernel_size": [3], "pad": [1], **params})


GRAPHS = {
    "conv below in-place relu": [conv("conv", "data"), ("ReLU", "relu", "conv", "conv"), conv("top", "conv")],
    "chain in place": [
        conv("conv", "data"), ("BatchNorm", "bn", "conv", "conv"), ("Scale", "scale", "conv", "conv"),
        ("ReLU", "relu", "conv", "conv"), ("Power", "power", "conv", "conv", {"power": 2.0, "scale": 0.1}),
        ("Sigmoid", "sigmoid", "conv", "conv"), conv("top", "conv"),
    ],
    "relu over the picture": [("ReLU", "relu", "data", "data"), conv("top", "data")],
    "sigmoid then in-place relu": [
        conv("conv", "data"), ("Sigmoid", "sigmoid", "conv"), ("Bias", "bias", "sigmoid", "sigmoid"),
        ("ReLU", "top", "sigmoid", "sigmoid", {"negative_slope": 2.0}),
    ],
    "tanh then in-place batchnorm": [
        conv("conv", "data"), ("TanH", "tanh", "conv", "conv"), ("BatchNorm", "top", "conv", "conv"),
    ],
    "lrn's input used again": [
        conv("conv", "data"), ("LRN", "lrn", "conv", {"alpha": 0.5}), ("ReLU", "relu", "lrn", "lrn"),
        ("Eltwise", "top", "conv lrn"),
    ],
    "in-place relu after lrn's input": [
        conv("conv", "data"), ("LRN", "lrn", "conv", {"alpha": 0.5}), ("ReLU", "relu", "conv", "conv"),
        ("Concat", "top", "conv lrn"),
    ],
    "residual": [
        conv("conv", "data"), conv("a", "conv"), ("ReLU", "relu", "a", "a"), conv("b", "a"),
        ("Eltwise", "sum", "conv b"), ("ReLU", "top", "sum", "sum"),
    ],
    "shared bottom in place": [
        # Each branch reads what the blob holds at its place in the file, which is Caffe's order of execution.
        conv("conv", "data"), conv("a", "conv"), ("ReLU", "relu", "conv", "conv"), conv("b", "conv"),
        ("Eltwise", "top", "a b"),
    ],
    "same bottom twice": [
        conv("conv", "data"), ("Eltwise", "square", "conv conv", {"operation": "PROD"}),
        ("Eltwise", "sum", "square square"), ("Concat", "top", "sum sum sum"),
    ],
    "dropout and split": [
        conv("conv", "data"), ("Dropout", "drop", "conv", "conv"), ("Split", "split", "conv", "one two"),
        ("ReLU", "relu", "one", "one"), ("Sigmoid", "sigmoid", "two", "two"),
        ("Eltwise", "top", "one two", {"operation": "PROD"}),
    ],
    "slice with an unused top": [
        conv("conv", "data", 6), ("Slice", "slice", "conv", "a b c"), ("ReLU", "relu", "b", "b"), conv("top", "b"),
    ],
    "view and in place": [
        conv("conv", "data"), ("Reshape", "view", "conv", {"shape": {"dim": [0, 2, -1, 6]}}),
        ("ReLU", "relu", "view", "view"), ("Reshape", "back", "view", {"shape": {"dim": [0, 4, -1, 6]}}),
        ("Eltwise", "top", "conv back"),
    ],
    "gate": [
        conv("conv", "data"), ("Pooling", "pool", "conv", {"pool": "AVE", "global_pooling": True}),
        ("InnerProduct", "fc", "pool", {"num_output": 4}), ("Sigmoid", "gate", "fc", "fc"),
        ("Scale", "scale", "conv fc", {"axis": 0}), ("Bias", "top", "scale fc", {"axis": 0}),
    ],
    "crop to the picture": [
        conv("conv", "data"), ("Deconvolution", "up", "conv", {"num_output": 2, "kernel_size": [4], "stride": [2]}),
        ("Crop", "crop", "up data", {"offset": [1, 3]}), ("ReLU", "top", "crop", "crop"),
    ],
    "unfinished branch": [
        conv("conv", "data"), conv("side", "conv"), ("ReLU", "relu", "conv", "conv"), conv("top", "conv"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_graph(name):
    """Taps give what each layer alone gives, in any combination, and the gradient is that of finite differences."""
    net, ops = graph(*GRAPHS[name]), Backend("float64")
    x = np.random.default_rng(0).normal(size=(1, 3, 7, 6))
    expected = naive(net, x, ops)
    names = [d.name for d in net.layers]
    combinations = [[n] for n in names] + [[n, "top"] for n in names[:-1]] + [names]
    for taps in combinations:
        for keep in (False, True):
            before = x.copy()
            features = Network(net, ops).program(taps).forward(x, needs_grad=keep)
            np.testing.assert_array_equal(x, before)
            for tap in taps:
                # Not to the bit: a BatchNorm or Scale that is folded into its convolution rounds otherwise.
                np.testing.assert_allclose(features[tap], expected[tap], rtol=1e-12, atol=1e-13)
        projection = Projection(net, taps, ops)
        gradient = projection.check(x, step=1e-5)
        np.testing.assert_array_equal(projection.gradient(x), gradient)
        for other in (make() for make in nets.ENGINES.values()):
            error = Projection(net, taps, other).gradient(x) - gradient
            assert np.linalg.norm(error) <= 1e-4 * np.linalg.norm(gradient)


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_engines_at_full_width(pooling):
    """The exact gradient of VGG-19, but for the few ReLUs and maxima whose choice is closer than rounding."""
    definition, rng = nets.vgg(19, 1, (48, 64), classifier=False), np.random.default_rng(0)
    content, style, x = (rng.normal(0, 60, (3, 48, 64)).astype(np.float32) for _ in range(3))
    goal = partial(
        Objective, content=content, styles=[style], content_layers=["relu4_2"],
        style_layers=[f"relu{i}_1" for i in range(1, 6)], tv_weight=0, pooling=pooling,
    )  # fmt: skip
    exact = goal(Network(definition, relu_decisions.ReplayBackend()))
    layers = relu_decisions.relu_layers(exact.net, "relu5_1")
    truth = exact(x)[1]
    for make in nets.ENGINES.values():
        objective = goal(Network(definition, make()))
        gradient = objective(x)[1]
        maps = relu_decisions.feature_maps(objective.net, x[None], layers)
        along, flips = relu_decisions.replayed_gradient(exact, maps, x[None])
        assert np.linalg.norm(gradient - along[0]) <= 2e-5 * np.linalg.norm(along)
        assert flips <= 4 and np.linalg.norm(along[0] - truth) <= (1e-2 if flips else 1e-6) * np.linalg.norm(truth)


def test_taps_on_one_value_add_up():
    net = graph(conv("conv", "data"), ("Dropout", "drop", "conv", "conv"), ("Split", "split", "conv", "a b"))
    program = Network(net, Backend("float64")).program(["conv", "drop", "split", "b"])
    assert set(program.outputs.values()) == {program.outputs["conv"]}
    x = picture(net).astype(np.float64)
    features = program.forward(x)
    assert all(f is features["conv"] for f in features.values())

    def gradient(taps):
        program = Network(net, Backend("float64")).program(taps)
        return program.forward(x).backward(lambda name, g: np.ones(features["conv"].shape) + (0 if g is None else g))

    np.testing.assert_allclose(gradient(["conv", "drop", "split", "b"]), 4 * gradient(["conv"]))


def test_tap_on_the_picture_itself():
    net = graph(conv("conv", "data"))
    program = Network(net, Backend("float64")).program(["data", "conv"])
    x = picture(net).astype(np.float64)
    features = program.forward(x)
    assert features["data"] is x
    ours = features.backward(lambda name, g: np.zeros((1, 4, 7, 6)) if name == "conv" else g + 3)
    assert (ours == 3).all()


def test_order_of_taps_does_not_matter():
    net = nets.vgg(16, 16, (32, 32))
    a = Projection(net, ["conv3_1", "relu1_2", "pool2"], Backend())
    b = Projection(net, ["relu1_2", "pool2", "conv3_1"], Backend())
    b.weights = a.weights
    np.testing.assert_array_equal(a.gradient(picture(net)), b.gradient(picture(net)))


@pytest.mark.parametrize("taps, slope, readers, fused", [
    (["relu"], 0, [], True), (["relu", "conv"], 0, [], False), (["relu"], 0.5, [], False),
    (["relu", "other"], 0, [("AbsVal", "other", "conv")], False), (["other"], 0, [("AbsVal", "other", "relu")], True),
], ids=str)  # fmt: skip
def test_relu_is_fused_with_a_convolution_that_nobody_else_reads(taps, slope, readers, fused):
    calls = []

    class Spy(Convolution):
        def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
            calls.append("forward") if epilogue.relu else None
            return super().forward(x, pad, epilogue, grid)

        def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
            calls.append("backward") if prologue else None
            return super().backward(g, size, pad, prologue, grid)

    ops = Backend("float64")
    ops.convolution = lambda *args: Spy(ops, *args)
    relu = ("ReLU", "relu", "conv", {"negative_slope": slope})
    net = graph(conv("conv", "data"), relu, *readers)
    ours, plain = Projection(net, taps, ops), Projection(net, ["conv", *taps], Backend("float64"))
    x = picture(net)
    gradient = ours.gradient(x)
    assert calls == (["forward", "backward"] if fused else [])
    plain.weights = {"conv": np.zeros((1, 4, 7, 6)), **ours.weights}
    np.testing.assert_allclose(gradient, plain.gradient(x), rtol=1e-12, atol=1e-12)


def test_backward_needs_a_forward_that_keeps():
    net = graph(conv("conv", "data"))
    program = Network(net, Backend()).program(["conv"])
    features = program.forward(picture(net), needs_grad=False)
    with pytest.raises(RuntimeError, match="forward"):
        features.backward(lambda name, g: g)
    features = program.forward(picture(net))
    features.backward(lambda name, g: g)
    with pytest.raises(RuntimeError, match="forward"):
        features.backward(lambda name, g: g)


def test_no_gradient_from_any_tap_is_zero():
    net = graph(conv("conv", "data"), ("ReLU", "relu", "conv", "conv"))
    program = Network(net, Backend()).program(["relu"])
    gradient = program.forward(picture(net)).backward(lambda name, g: None)
    assert gradient.shape == (1, 3, 7, 6)
    assert not gradient.any()


# Random graphs

_UNARY = {
    "ReLU": {}, "Sigmoid": {}, "TanH": {}, "ELU": {}, "AbsVal": {}, "PReLU": {}, "BatchNorm": {}, "Scale": {},
    "Bias": {}, "Power": {"power": 2.0, "scale": 0.3}, "Dropout": {},
}  # fmt: skip
_OTHER = {
    "Convolution": {"kernel_size": [3], "pad": [1]}, "LRN": {"local_size": 3, "alpha": 0.5}, "Softmax": {},
    "Pooling": {"pool": "MAX", "kernel_size": 3, "stride": 1, "pad": 1},
    "Deconvolution": {"kernel_size": [3], "pad": [1]},
}  # fmt: skip


@st.composite
def random_graphs(draw):
    """A net of maps of one size; only the number of channels differs. In-place layers and reuse are frequent."""
    channels, layers = {"data": 3}, []
    for number in range(draw(st.integers(2, 8))):
        name = f"n{number}"
        blob = draw(st.sampled_from(sorted(channels)))
        kind = draw(st.sampled_from([*_UNARY, *_UNARY, *_OTHER, "Eltwise", "Eltwise", "Concat", "Slice", "Split"]))
        if kind in _UNARY:
            top = draw(st.sampled_from([blob, name]))
            layers.append((kind, name, blob, top, _UNARY[kind]))
            channels[top] = channels[blob]
        elif kind in _OTHER:
            params = dict(_OTHER[kind])
            channels[name] = channels[blob]
            if "olution" in kind:
                channels[name] = params["num_output"] = draw(st.integers(2, 3))
            if kind == "Pooling":
                params["pool"] = draw(st.sampled_from(["MAX", "AVE"]))
            layers.append((kind, name, blob, name, params))
        elif kind == "Eltwise":
            alike = sorted(b for b in channels if channels[b] == channels[blob])
            others = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=2))
            operation = draw(st.sampled_from(["SUM", "PROD", "MAX"]))
            layers.append((kind, name, " ".join([blob, *others]), name, {"operation": operation}))
            channels[name] = channels[blob]
        elif kind == "Concat":
            other = draw(st.sampled_from(sorted(channels)))
            layers.append((kind, name, f"{blob} {other}", name, {}))
            channels[name] = channels[blob] + channels[other]
        elif kind == "Split":
            layers.append((kind, name, blob, f"{name}a {name}b", {}))
            channels.update({f"{name}a": channels[blob], f"{name}b": channels[blob]})
        elif channels[blob] > 1:
            layers.append((kind, name, blob, f"{name}a {name}b", {"slice_point": [1]}))
            channels.update({f"{name}a": 1, f"{name}b": channels[blob] - 1})
    if not layers:
        layers.append(("ReLU", "n0", "data", "data", {}))
    names = [row[1] for row in layers]
    taps = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    return layers, taps, names


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(random_graphs())
def test_random_graph(case):
    layers, taps, names = case
    net, ops = graph(*layers, size=(4, 3)), Backend("float64")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 4, 3))
    expected = naive(net, x, ops)
    projection = Projection(net, taps, ops)
    for name, value in projection.program.forward(x).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-12, atol=1e-12)
    gradient = projection.gradient(x)
    scale = max(1, np.abs(gradient).max())
    numeric, at = np.empty_like(x), x.copy()
    for i in np.ndindex(x.shape):
        sides = []
        for step in (1e-6, -1e-6):
            at[i] = x[i] + step
            sides.append(projection.value(at))
        at[i], numeric[i] = x[i], (sides[0] - sides[1]) / 2e-6
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-6 * scale)
    # Whatever else is tapped, with no gradient of its own, changes nothing.
    more = Projection(net, names, ops)
    more.weights = {n: projection.weights.get(n, np.zeros(w.shape)) for n, w in more.weights.items()}
    np.testing.assert_allclose(more.gradient(x), gradient, rtol=1e-9, atol=1e-12 * scale)


# Memory


@pytest.mark.parametrize("engine", list(nets.ENGINES))
@pytest.mark.parametrize("build", [
    lambda: nets.vgg(19, 8, (64, 80), classifier=False), lambda: nets.googlenet(8, (64, 97)),
    lambda: nets.resnet50(16, (64, 64)), lambda: nets.nin(16, (96, 67)),
], ids=["vgg19", "googlenet", "resnet50", "nin"])  # fmt: skip
def test_later_iterations_allocate_nothing(engine, build):
    net = build()
    # One thread: how many strips are at work at a time, and hold a buffer, is otherwise up to the scheduler.
    ops = nets.ENGINES[engine](threads=1)
    names = [d.name for d in net.layers if d.type in ("Convolution", "Pooling", "Eltwise")]
    projection = Projection(net, [names[0], names[len(names) // 2], names[-1]], ops)
    sizes, results = [], []
    for _ in range(4):
        results.append(projection.gradient(picture(net)))
        sizes.append(ops.pool.reserved)
    assert sizes[0] > 0
    assert len(set(sizes)) == 1
    assert all(np.array_equal(r, results[0]) for r in results)
    ops.trim()
    assert ops.pool.reserved < sizes[0] / 2  # what a dropped iteration held is free


def test_pooled_arrays_do_not_overlap():
    """Features stay as they are while later passes reuse memory."""
    net = nets.googlenet(16, (64, 64))
    network = Network(net, Backend())
    program = network.program(["inception_3a/output", "pool2/3x3_s2"])
    x = picture(net)
    held = program.forward(x, needs_grad=False)
    copies = {n: f.copy() for n, f in held.items()}
    for _ in range(2):
        features = program.forward(picture(net, 1))
        features.backward(lambda name, g: np.ones(held[name].shape, np.float32) if g is None else g)
    for name, copy in copies.items():
        np.testing.assert_array_equal(held[name], copy)


# Truncation and errors


class Recorder(Mapping):
    """Weights that say of which layers blobs were read."""

    def __init__(self, weights):
        self.weights, self.asked = weights, set()

    def __getitem__(self, name):
        blobs = self.weights[name]
        self.asked.add(name)
        return blobs

    def __iter__(self):
        return iter(self.weights)

    def __len__(self):
        return len(self.weights)


def test_only_needed_weights_are_read():
    net = nets.vgg(16, 16, (64, 64))
    recorder = Recorder(net.weights)
    network = Network(replace(net, weights=recorder), Backend())
    program = network.program(["relu2_1", "conv1_1"])
    assert not recorder.asked
    program.forward(picture(net))
    assert recorder.asked == {"conv1_1", "conv1_2", "conv2_1"}


def test_layers_above_the_last_tap_do_no_harm():
    layers = (
        LayerDef("unknown", "Voodoo", ("conv",), ("unknown",)),
        LayerDef("bad", "Convolution", ("conv",), ("bad",), {"num_output": 0}),
        LayerDef("huge", "Convolution", ("conv",), ("huge",), {"num_output": 9, "kernel_size": [99]}),
        LayerDef("weightless", "InnerProduct", ("conv",), ("weightless",), {"num_output": 2}),
    )
    net = graph(conv("conv", "data"))
    network = Network(replace(net, layers=net.layers + layers), Backend())
    assert network.program(["conv"]).forward(picture(net))["conv"].shape == (1, 4, 7, 6)
    assert len(network.shapes((7, 6), strict=False)) == 3
    assert set(network.receptive_fields()) >= {0, 1}
    for name, message in [
        ("unknown", "layer 'unknown' has type 'Voodoo'"), ("bad", "layer 'bad'.*num_output"),
        ("huge", "layer 'huge'.*too small"), ("weightless", "layer 'weightless'.*no weights"),
    ]:  # fmt: skip
        with pytest.raises(ModelError, match=f"net.prototxt.*{message}|net.caffemodel.*{message}"):
            network.program([name]).forward(picture(net))


@pytest.mark.parametrize("name, suggestion", [("relu4_22", "relu4_2"), ("conv1-1", "conv1_1"), ("Relu3_1", "relu3_1")])
def test_unknown_layer_suggests_the_nearest(name, suggestion):
    with pytest.raises(OptionError, match=rf"VGG.*no layer '{name}'.*{suggestion}"):
        Network(nets.vgg(19, 32), Backend()).program([name])


def test_unknown_type_suggests_the_nearest():
    net = NetDef("net", {"data": None}, (LayerDef("x", "Convolutoin", ("data",), ("x",)),), source="net.prototxt")
    with pytest.raises(ModelError, match=r"'Convolutoin'.*did you mean Convolution"):
        Network(net, Backend()).program(["x"])


def test_missing_weights():
    net = nets.vgg(16, 32, (32, 32))
    fewer = {n: b for n, b in net.weights.items() if n != "conv2_1"}
    with pytest.raises(ModelError, match=r"caffemodel: layer 'conv2_1' .*no weights.*did you mean"):
        Network(replace(net, weights=fewer), Backend()).program(["conv2_2"]).forward(picture(net))
    with pytest.raises(ModelError, match=r"layer 'conv1_1'.*give the .caffemodel"):
        Network(replace(net, weights={}, weights_source=""), Backend()).program(["conv1_1"]).forward(picture(net))
    short = {**net.weights, "conv1_1": net.weights["conv1_1"][:1]}
    with pytest.raises(ModelError, match=r"layer 'conv1_1'.*1 weight blobs.*asks for 2"):
        Network(replace(net, weights=short), Backend()).program(["conv1_1"]).forward(picture(net))


@pytest.mark.parametrize("shape", [(2, 3, 3, 4), (4, 3, 3, 3), (2, 1, 3, 3), (3, 2, 3, 3), (54,)])
def test_mismatched_weights(shape):
    net = nets.vgg(16, 32, (32, 32))
    assert net.weights["conv1_1"][0].shape == (2, 3, 3, 3)
    weights = {**net.weights, "conv1_1": [np.zeros(shape, np.float32), net.weights["conv1_1"][1]]}
    with pytest.raises(ModelError, match=r"layer 'conv1_1'.*belong together"):
        Network(replace(net, weights=weights), Backend()).program(["conv1_1"]).forward(picture(net))


def test_old_shape_of_bias_is_accepted():
    net = nets.vgg(16, 32, (16, 16), classifier=False)
    weights = {name: [w, b.reshape(1, 1, 1, -1)] for name, (w, b) in net.weights.items()}
    new, old = (
        Network(n, Backend()).program(["conv1_2"]).forward(picture(net))["conv1_2"]
        for n in (net, replace(net, weights=weights))
    )
    np.testing.assert_array_equal(new, old)


def test_wrong_channel_count():
    net = graph(conv("conv", "data"))
    grey = replace(net, inputs={"data": (1, 1, 7, 6)})
    with pytest.raises(ModelError, match=r"input 'data' has 1 channels; a picture has 3"):
        Network(grey, Backend()).program(["conv"]).shapes((7, 6))
    unstated = replace(net, inputs={"data": None}, weights={"conv": [np.zeros((4, 1, 3, 3)), np.zeros(4)]})
    with pytest.raises(ModelError, match=r"layer 'conv'.*\(4, 1, 3, 3\).*asks for \(4, 3, 3, 3\)"):
        Network(unstated, Backend()).program(["conv"]).shapes((7, 6))


def test_too_small_picture_names_the_layer():
    with pytest.raises(ShapeError, match=r"CaffeNet.*layer 'conv1' .*8×64 is too small"):
        Network(nets.caffenet(16), Backend()).program(["pool5"]).shapes((8, 64))
    with pytest.raises(ShapeError, match=r"layer 'pool2' .*1×1 is too small"):
        Network(nets.caffenet(16), Backend()).program(["pool5"]).shapes((20, 20))


def test_fully_connected_layers_take_one_size():
    net = nets.vgg(16, 32, (64, 64))
    program = Network(net, Backend()).program(["fc7"])
    program.forward(picture(net))
    for fresh in (program, Network(net, Backend()).program(["fc7"])):
        with pytest.raises(ShapeError, match=r"layer 'fc6' .*one picture size"):
            fresh.forward(np.zeros((1, 3, 96, 64), np.float32))
    assert program.forward(picture(net))["fc7"].shape == (1, 128)
    weights = {**net.weights, "fc6": [np.zeros((9, 64), np.float32), np.zeros(9, np.float32)]}
    with pytest.raises(ModelError, match=r"layer 'fc6' .*belong together"):
        Network(replace(net, weights=weights), Backend()).program(["fc7"]).forward(picture(net))


def test_weights_of_a_map_take_one_size():
    layers = (LayerDef("b", "Bias", ("data",), ("b",), {"num_axes": 3}),)
    net = NetDef("net", {"data": None}, layers, {"b": [np.ones((3, 4, 5), np.float32)]}, "net.prototxt")
    program = Network(net, Backend()).program(["b"])
    assert program.shapes((4, 5)) == {"b": (1, 3, 4, 5)}
    with pytest.raises(ShapeError, match=r"layer 'b' .*one picture size"):
        Network(net, Backend()).program(["b"]).shapes((6, 5))


@pytest.mark.parametrize("kind, bottoms, params", [
    ("Concat", ("data", "data"), {"axis": 5}), ("Slice", ("data",), {"axis": 5}), ("Scale", ("data",), {"axis": 5}),
])  # fmt: skip
def test_an_axis_that_is_not_there_names_the_file(kind, bottoms, params):
    net = NetDef("net", {"data": None}, (LayerDef("a", kind, bottoms, ("a",), params),), source="net.prototxt")
    with pytest.raises(ShapeError, match=r"net.prototxt: layer 'a' .*axis 5 is outside the 4 axes"):
        Network(net, Backend()).program(["a"]).shapes((4, 5))


@pytest.mark.parametrize("kind, bottoms, params", [
    ("Concat", ("data", "data"), {"axis": 0}), ("Reshape", ("data",), {"shape": {"dim": [-1]}}),
    ("Reshape", ("data",), {"shape": {"dim": [3, 1, 0, 0]}}),
])  # fmt: skip
def test_one_picture_at_a_time(kind, bottoms, params):
    """Layers and kernels look at no more than the first of a batch."""
    net = NetDef("net", {"data": None}, (LayerDef("a", kind, bottoms, ("a",), params),), source="net.prototxt")
    with pytest.raises(ShapeError, match=r"net.prototxt: layer 'a' .*the first axis counts pictures"):
        Network(net, Backend()).program(["a"]).shapes((4, 5))


def test_a_layer_without_an_output_does_no_harm():
    layers = LayerDef("cut", "Slice", ("data",), ()), LayerDef("a", "ReLU", ("data",), ("a",))
    net = Network(NetDef("net", {"data": None}, layers), Backend())
    assert net.layer_names == ["a"]
    assert net.shapes((2, 2)) == {0: (1, 3, 2, 2), 1: (1, 3, 2, 2)}


def test_graph_must_be_in_order_and_have_one_input():
    layers = LayerDef("a", "ReLU", ("b",), ("a",)), LayerDef("b", "ReLU", ("data",), ("b",))
    backwards = NetDef("net", {"data": None}, layers)
    with pytest.raises(ModelError, match="layer 'a': reads blob 'b', which no layer before it produces"):
        Network(backwards, Backend()).program(["a"])
    layers = (LayerDef("sum", "Eltwise", ("one", "two"), ("sum",)),)
    two = NetDef("net", {"one": None, "two": None}, layers, source="net.prototxt")
    with pytest.raises(ModelError, match=r"2 inputs \('one', 'two'\)"):
        Network(two, Backend()).program(["sum"])
    assert Network(two, Backend()).program(["one"]).shapes((2, 2)) == {"one": (1, 3, 2, 2)}


def test_too_many_tops():
    net = NetDef("net", {"data": None}, (LayerDef("a", "ReLU", ("data",), ("a", "b")),), source="net.prototxt")
    with pytest.raises(ModelError, match=r"layer 'a' .*2 tops; it can have 1"):
        Network(net, Backend()).program(["a"]).shapes((2, 2))


def test_pooling_option():
    network = Network(nets.vgg(16, 32, (9, 9), classifier=False), Backend())
    assert network.program(["pool1"]).shapes((9, 9)) == {"pool1": (1, 2, 5, 5)}
    average = network.with_pooling("avg")
    assert average.program(["pool1"]).shapes((9, 9)) == {"pool1": (1, 2, 4, 4)}
    assert network.with_pooling("max") is network
    x = np.random.default_rng(0).normal(size=(1, 3, 9, 9)).astype(np.float32)
    features = average.program(["relu1_2", "pool1"]).forward(x)
    below = features["relu1_2"][:, :, :8, :8].reshape(1, 2, 4, 2, 4, 2)
    np.testing.assert_allclose(features["pool1"], below.mean(axis=(3, 5)), rtol=1e-5, atol=1e-6)
    with pytest.raises(OptionError, match="median"):
        network.with_pooling("median")


def test_backends_by_name():
    assert backends.get("numpy").name == "numpy"
    assert backends.get("auto").name in backends.names()
    ops = Backend("float64")
    assert backends.get(ops) is ops
    with pytest.raises(OptionError, match=r"unknown backend 'opencvv'.*opencv"):
        backends.get("opencvv")


def test_a_backend_of_the_callers_own(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})

    @backends.register
    class Own(Backend):
        name = "own"
        priority = 99

    assert "own" in backends.names() and type(backends.get("own")) is type(backends.host()) is Own
    assert backends.pick("cpu") is Own and backends.list_backends()[0].name == "own"
    (ops,) = choose("own", None, "1", "fp32", False, print)
    assert type(ops) is Own
    with pytest.raises(OptionError, match="'numpy' already"):
        backends.register(type("Another", (Backend,), {"name": "numpy"}))


def test_layer_names_are_those_with_an_output():
    net = nets.vgg(16, 32, (16, 16), classifier=False)
    assert Network(net, Backend()).layer_names == [d.name for d in net.layers]


@pytest.mark.parametrize("damage", ["pad: 4294967295", "pad: 100000"])
def test_sizes_beyond_reason_are_refused_before_memory_is_asked_for(tmp_path, damage):
    path = tmp_path / "net.prototxt"
    path.write_text(
        'input: "data" layer { name: "c" type: "Convolution" bottom: "data" top: "c" '
        f"convolution_param {{ num_output: 4 kernel_size: 3 {damage} }} }}"
    )
    with pytest.raises(ModelError, match=r"net.prototxt: layer 'c' .*no real network"):
        Network(read_net(path), Backend()).shapes((64, 64))
