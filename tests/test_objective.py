"""The loss and its gradient: small cases worked out here, finite differences, and numbers from PyTorch's autograd."""

from __future__ import annotations

import json
import math
from pathlib import Path

import nets
import numpy as np
import pytest
import scipy.optimize
from reference import make_reference

from cvstyle import Objective
from cvstyle.backends.reference import Backend
from cvstyle.errors import ImageError, OptionError
from cvstyle.graph import Network
from cvstyle.losses import parse_layer
from cvstyle.netdef import LayerDef, NetDef

REFERENCE = json.loads(Path(make_reference.__file__).with_name("objective.json").read_text())


def identity(ops=None):
    """A net whose layer "same" is the picture."""
    layer = LayerDef("same", "Power", ("data",), ("same",))
    return Network(NetDef("net", {"data": None}, (layer,), source="net.prototxt"), ops or Backend("float64"))


def mixing(matrix, ops=None):
    """A net whose layer "mix" is a matrix (C, 3) applied to the channels."""
    layer = LayerDef("mix", "Convolution", ("data",), ("mix",), {
        "num_output": len(matrix), "kernel_size": [1], "bias_term": False,
    })  # fmt: skip
    weights = {"mix": [np.asarray(matrix, np.float64)[:, :, None, None]]}
    return Network(NetDef("net", {"data": None}, (layer,), weights, "net.prototxt"), ops or Backend("float64"))


def noise(*shape, seed=0, scale=10):
    return np.random.default_rng(seed).normal(0, scale, shape)


def gram(f):
    flat = f.reshape(len(f), -1)
    return np.einsum("ip,jp->ij", flat, flat) / flat.size


# Worked out by hand: three channels of 1×2 pixels, features = picture

X = np.array([[[1.0, 2]], [[3, 4]], [[5, 6]]])
NOTHING = np.zeros((3, 1, 2))


def test_content_by_hand():
    objective = Objective(identity(), NOTHING, [], content_weight=5, tv_weight=0, content_layers=["same"])
    loss, gradient = objective(X)
    assert loss == pytest.approx(5 * 91 / 6, rel=1e-14)
    np.testing.assert_allclose(gradient, 5 * 2 / 6 * X, rtol=1e-14)
    assert objective.losses == {"content:same": loss}


def test_gram_by_hand():
    objective = Objective(identity(), NOTHING, [NOTHING], style_weight=100, tv_weight=0, style_layers=["same"])
    loss, gradient = objective(X)
    # G = [[5, 11, 17], [11, 25, 39], [17, 39, 61]] / 6
    assert loss == pytest.approx(100 * 8233 / 36 / 9, rel=1e-14)
    product = np.array([[[123, 156]], [[281, 356]], [[439, 556]]]) / 6
    np.testing.assert_allclose(gradient, 100 * 4 / (9 * 6) * product, rtol=1e-13)


def test_total_variation_by_hand():
    x = np.zeros((3, 2, 2))
    x[1] = [[1, 4], [6, 100]]
    objective = Objective(identity(), np.zeros((3, 2, 2)), [], tv_weight=0.5)
    loss, gradient = objective(x)
    assert loss == 0.5 / 2 * (3**2 + 5**2)
    assert objective.losses == {"tv": loss}
    assert gradient.tolist() == [[[0, 0], [0, 0]], [[-4, 1.5], [2.5, 0]], [[0, 0], [0, 0]]]


def test_blend_by_hand():
    """Two flat styles of one colour each and different sizes: A = 1/4 · 4²/3 + 3/4 · 8²/3 on the first channel."""
    styles = [np.zeros((3, 1, 2)), np.zeros((3, 5, 3))]
    styles[0][0], styles[1][0] = 4, 8
    objective = Objective(
        identity(), NOTHING, styles, style_weight=9, tv_weight=0, style_layers=["same"], style_blend_weights=[5, 15]
    )
    assert objective(NOTHING)[0] == pytest.approx(9 / 9 * (0.25 * 16 / 3 + 0.75 * 64 / 3) ** 2, rel=1e-14)


def test_normalized_gradients_by_hand():
    settings = {"content_weight": 5, "style_weight": 100, "tv_weight": 0, "normalize_gradients": True}
    content = Objective(identity(), NOTHING, [], content_layers=["same"], **settings)
    np.testing.assert_allclose(content(X)[1], 5 * X / 21, rtol=1e-8)
    style = Objective(identity(), NOTHING, [NOTHING], style_layers=["same"], **settings)
    product = np.array([[[123, 156]], [[281, 356]], [[439, 556.0]]])
    np.testing.assert_allclose(style(X)[1], 100 * product / 1911, rtol=1e-8)
    both = Objective(identity(), NOTHING, [NOTHING], content_layers=["same"], style_layers=["same"], **settings)
    loss, gradient = both(X)
    np.testing.assert_allclose(gradient, content(X)[1] + style(X)[1], rtol=1e-12)
    assert loss == pytest.approx(content.loss + style.loss)  # the loss is not normalised


def test_normalizing_a_gradient_of_zero_gives_zero():
    objective = Objective(
        identity(), X, [X], content_layers=["same"], style_layers=["same"], tv_weight=0, normalize_gradients=True
    )
    loss, gradient = objective(X)
    assert loss == 0
    assert not gradient.any()


# Worked out by explicit formulas


@pytest.mark.parametrize("ops, tolerance", [
    (lambda: Backend("float64"), 1e-11), *((make, 1e-5) for make in nets.ENGINES.values()),
], ids=["float64", *nets.ENGINES])  # fmt: skip
@pytest.mark.parametrize("normalize", [False, True])
def test_all_parts_by_formula(ops, tolerance, normalize):
    matrix = noise(4, 3, seed=1, scale=1)
    content, style1, style2, x = noise(3, 5, 7), noise(3, 4, 4, seed=2), noise(3, 6, 3, seed=3), noise(3, 5, 7, seed=4)
    objective = Objective(
        mixing(matrix, ops()), content, [style1, style2], content_weight=3, style_weight=7, tv_weight=0.25,
        content_layers=["mix:0.5"], style_layers=[("mix", 2)], style_blend_weights=[1, 3],
        normalize_gradients=normalize,
    )  # fmt: skip
    f, target, s1, s2 = (np.einsum("ij,jhw->ihw", matrix, p) for p in (x, content, style1, style2))
    wanted = 0.25 * gram(s1) + 0.75 * gram(s2)
    losses = {"content:mix": 1.5 * ((f - target) ** 2).mean(), "style:mix": 14 * ((gram(f) - wanted) ** 2).mean()}
    own = {
        "content:mix": 2 / f.size * (f - target),
        "style:mix": 4 / (16 * f.size) * np.einsum("ij,jhw->ihw", gram(f) - wanted, f),
    }
    if normalize:
        own = {name: g / (np.abs(g).sum() + 1e-8) for name, g in own.items()}
    gradient = np.einsum("ij,ihw->jhw", matrix, 1.5 * own["content:mix"] + 14 * own["style:mix"])
    losses["tv"] = 0
    for c, i, j in np.ndindex(3, 4, 6):
        for di, dj in ((0, 1), (1, 0)):
            difference = x[c, i, j] - x[c, i + di, j + dj]
            losses["tv"] += 0.125 * difference**2
            gradient[c, i, j] += 0.25 * difference
            gradient[c, i + di, j + dj] -= 0.25 * difference
    loss, ours = objective(x)
    assert loss == pytest.approx(sum(losses.values()), rel=tolerance)
    assert objective.losses == pytest.approx(losses, rel=tolerance)
    assert np.linalg.norm(ours - gradient) <= tolerance * np.linalg.norm(gradient)


# PyTorch's numbers


def small_vgg(ops):
    layers, below = [], "data"
    pools = iter(("pool1", "pool2"))
    for step in make_reference.ORDER:
        if step == "pool":
            name = next(pools)
            params = {"pool": "MAX", "kernel_size": 2, "stride": 2}
            layers.append(LayerDef(name, "Pooling", (below,), (name,), params))
            below = name
            continue
        channels = make_reference.CHANNELS[step][1]
        params = {"num_output": channels, "kernel_size": [3], "pad": [1]}
        layers.append(LayerDef(step, "Convolution", (below,), (step,), params))
        layers.append(LayerDef(step.replace("conv", "relu"), "ReLU", (step,), (step,)))
        below = step
    return Network(NetDef("small", {"data": None}, tuple(layers), make_reference.weights(), "small.prototxt"), ops)


def reference_objective(case, ops):
    settings = make_reference.DEFAULTS | make_reference.CASES[case]
    content, styles, x = make_reference.pictures(settings)
    objective = Objective(
        small_vgg(ops), content, styles, style_blend_weights=settings["blend"],
        **{k: v for k, v in settings.items() if k not in ("content_shape", "style_shapes", "blend")},
    )  # fmt: skip
    return objective, x


@pytest.mark.parametrize("case", make_reference.CASES)
def test_float64_equals_pytorch(case):
    objective, x = reference_objective(case, Backend("float64"))
    expected = REFERENCE[case]
    loss, gradient = objective(x.astype(np.float64))
    assert objective.losses == pytest.approx(expected["losses"], rel=1e-9)
    assert loss == pytest.approx(sum(expected["losses"].values()), rel=1e-9)
    norm = expected["gradient_norm"]
    assert np.linalg.norm(gradient) == pytest.approx(norm, rel=1e-9)
    direction = np.random.RandomState(5).standard_normal(gradient.shape)
    assert (gradient * direction).sum() == pytest.approx(expected["gradient_projected"], abs=1e-9 * norm * 100)
    assert gradient.sum() == pytest.approx(expected["gradient_sum"], abs=1e-9 * norm * 100)
    for at, value in expected["gradient_at"]:
        assert gradient.flat[at] == pytest.approx(value, rel=1e-9, abs=1e-9 * norm)


@pytest.mark.parametrize("ops", nets.ENGINES.values(), ids=nets.ENGINES)
@pytest.mark.parametrize("case", make_reference.CASES)
def test_float32_equals_pytorch(case, ops):
    objective, x = reference_objective(case, ops())
    expected = REFERENCE[case]
    _, gradient = objective(x)
    assert objective.losses == pytest.approx(expected["losses"], rel=1e-4)
    exact = reference_objective(case, Backend("float64"))[0](x)[1]  # equal to PyTorch's as the test above shows
    assert np.linalg.norm(gradient - exact) <= 1e-4 * expected["gradient_norm"]
    indices, values = zip(*expected["gradient_at"])
    error = np.linalg.norm(gradient.ravel()[list(indices)] - values)
    assert error <= 1e-4 * expected["gradient_norm"]


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("rectified", [True, False])
def test_float32_gradient_of_vgg19_at_full_depth(pooling, rectified):
    """Every CPU engine within 1e-4 of float64; without ReLU and with averages nothing can flip on the way."""
    definition, size = nets.vgg(19, 8, (48, 64), classifier=False), (48, 64)
    names = {"conv4_2": 1}, {f"conv{i}_1": 1 for i in range(1, 6)}
    if rectified:
        names = [{name.replace("conv", "relu"): w for name, w in layers.items()} for layers in names]
    else:
        layers = tuple(d for d in definition.layers if d.type != "ReLU")
        definition = NetDef("linear", definition.inputs, layers, definition.weights, "linear")

    def gradient(ops):
        net = Network(definition, ops)
        objective = Objective(
            net, noise(3, *size, scale=50), [noise(3, *size, seed=1, scale=50)], content_layers=names[0],
            style_layers=names[1], pooling=pooling,
        )  # fmt: skip
        return objective(noise(3, *size, seed=2, scale=50))[1]

    exact = gradient(Backend("float64"))
    for name, ops in nets.ENGINES.items():
        assert np.linalg.norm(gradient(ops()) - exact) <= 1e-4 * np.linalg.norm(exact), name


# Finite differences


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("size, styles", [
    ((24, 32), [(20, 28)]), ((27, 33), [(31, 18), (19, 45)]), ((16, 17), [(64, 16), (17, 17), (23, 31)]),
], ids=str)  # fmt: skip
def test_gradient_is_that_of_the_loss(pooling, size, styles):
    net = Network(nets.vgg(19, 16, (32, 32), classifier=False), Backend("float64"))
    objective = Objective(
        net, noise(3, *size, scale=50), [noise(3, *s, seed=i, scale=60) for i, s in enumerate(styles)],
        style_weight=1e-2, tv_weight=1e-2, content_layers=["relu4_2", "conv3_1:0.5"],
        style_layers=["relu3_1:3", "relu1_1", "pool2:0.1", "relu5_1"], pooling=pooling,
    )  # fmt: skip
    x = noise(3, *size, seed=9, scale=50)
    loss, gradient = objective(x)
    assert loss > 0
    assert all(value > 0 for value in objective.losses.values())
    rng, norm = np.random.default_rng(0), np.linalg.norm(gradient)
    directions = [gradient, rng.normal(size=x.shape), rng.normal(size=x.shape)]
    for _ in range(4):
        single = np.zeros(x.shape)
        single[tuple(rng.integers(n) for n in x.shape)] = 1
        directions.append(single)
    for direction in directions:
        direction = direction / np.linalg.norm(direction)
        above, below = objective(x + 1e-4 * direction)[0], objective(x - 1e-4 * direction)[0]
        assert abs((above - below) / 2e-4 - (gradient * direction).sum()) <= 1e-6 * norm


def test_pooling_average_differs_and_leaves_the_net_alone():
    net = Network(nets.vgg(19, 16, (32, 32), classifier=False), Backend())
    settings = {"content_layers": ["relu2_1"], "tv_weight": 0}
    content, x = noise(3, 32, 32), noise(3, 32, 32, seed=1)
    before = Objective(net, content, [], **settings)(x)[0]
    average = Objective(net, content, [], pooling="avg", **settings)(x)[0]
    assert average != pytest.approx(before, rel=1e-2)
    assert Objective(net, content, [], **settings)(x)[0] == before


# The interface


def whole(ops=None, **settings):
    net = Network(nets.vgg(19, 16, (32, 32), classifier=False), ops or Backend())
    settings = {"content_layers": ["relu4_2"], "style_layers": ["relu1_1", "relu3_1"], **settings}
    return Objective(net, noise(3, 20, 24, scale=50), [noise(3, 18, 30, seed=1, scale=50)], **settings)


def test_losses_sum_to_the_loss():
    objective = whole(style_layers=["relu3_1", "relu1_1:2", "relu2_1:0"])
    assert objective.losses == {}
    loss, _ = objective(noise(3, 20, 24))
    assert list(objective.losses) == ["content:relu4_2", "style:relu3_1", "style:relu1_1", "tv"]
    assert all(type(value) is float for value in objective.losses.values())
    assert loss == math.fsum(objective.losses.values()) == objective.loss
    assert type(loss) is float
    objective(noise(3, 20, 24, seed=5))
    assert objective.loss != loss


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 20, 24), (1, 3, 20, 24), (1440,)])
def test_gradient_is_like_the_picture(dtype, shape):
    x = noise(*shape).astype(dtype)
    before = x.copy()
    loss, gradient = whole()(x)
    assert gradient.shape == shape
    assert gradient.dtype == dtype
    assert math.isfinite(loss)
    np.testing.assert_array_equal(x, before)


def test_integer_pictures_have_real_gradients():
    _, gradient = whole()(np.ones((3, 20, 24), np.int16))
    assert gradient.dtype == np.float32


def test_gradient_belongs_to_the_caller():
    objective, x = whole(), noise(3, 20, 24)
    first = objective(x)[1]
    kept = first.copy()
    objective(noise(3, 20, 24, seed=2))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(objective(x)[1], kept)


def test_content_does_not_alias_the_callers_array():
    content = noise(3, 8, 8)
    objective = Objective(identity(), content, [], content_layers=["same"], tv_weight=0)
    original = content.copy()
    content += 1
    assert objective(original)[0] == 0


def test_serves_scipy():
    objective = whole(Backend("float64"))
    x = noise(3, 20, 24, seed=3)
    start, _ = objective(x)
    result = scipy.optimize.minimize(objective, x.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 20})
    assert result.fun < 0.2 * start
    assert scipy.optimize.check_grad(
        lambda v: objective(v)[0], lambda v: objective(v)[1], x.ravel(), direction="random", seed=0, epsilon=1e-5
    ) < 1e-4 * np.linalg.norm(objective(x)[1])  # fmt: skip


def test_layers_in_any_order_and_form():
    x = noise(3, 20, 24)
    loss, gradient = whole(style_layers=["relu1_1:2", "relu3_1:0.5"])(x)
    for layers in (["relu3_1:0.5", "relu1_1:2"], [("relu1_1", 2), ("relu3_1", 0.5)], {"relu3_1": 0.5, "relu1_1": 2}):
        other = whole(style_layers=layers)(x)
        assert other[0] == pytest.approx(loss, rel=1e-12)
        np.testing.assert_array_equal(other[1], gradient)


def test_one_layer_may_serve_content_and_style():
    x = noise(3, 20, 24)
    parts = [whole(content_layers=c, style_layers=s, tv_weight=0)(x) for c, s in (
        (["relu3_1"], ["relu3_1"]), (["relu3_1"], []), ([], ["relu3_1"]),
    )]  # fmt: skip
    assert parts[0][0] == pytest.approx(parts[1][0] + parts[2][0])
    np.testing.assert_allclose(parts[0][1], parts[1][1] + parts[2][1], rtol=1e-3, atol=1e-3 * np.abs(parts[0][1]).max())


def test_equal_styles_blend_to_one():
    net, content, style, x = identity(), noise(3, 6, 6), noise(3, 7, 5, seed=1), noise(3, 6, 6, seed=2)
    one = Objective(net, content, [style], style_layers=["same"])(x)
    for weights in (None, [1, 1, 1], [3, 7, 0.5]):
        three = Objective(net, content, [style] * 3, style_layers=["same"], style_blend_weights=weights)(x)
        assert three[0] == pytest.approx(one[0], rel=1e-12)
        np.testing.assert_allclose(three[1], one[1], rtol=1e-10)


def test_without_style_pictures_only_content_and_variation_remain():
    objective = Objective(identity(), X, [], content_layers=["same"], style_layers=["same"])
    objective(X + 1)
    assert list(objective.losses) == ["content:same"]  # one row of pixels has no block to vary over


@pytest.mark.parametrize("backend", nets.ENGINES.values(), ids=nets.ENGINES)
def test_later_evaluations_allocate_nothing(backend):
    ops = backend(threads=1)
    objective = whole(ops, style_layers=["relu1_1", "relu2_1", "relu3_1"])
    x, sizes = ops.asarray(noise(1, 3, 20, 24)), []
    for _ in range(4):
        objective.evaluate(x)
        sizes.append(ops.pool.reserved)
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("settings, message", [
    ({"content_layers": ["relu9_9"]}, "no layer 'relu9_9'"),
    ({"style_layers": ["relu1_1", "relu4_11:2"]}, "no layer 'relu4_11'.*relu4_1"),
    ({"style_layers": ["relu1_1", "relu1_1:2"]}, "listed twice"),
    ({"style_layers": ["relu1_1:-1"]}, "relu1_1.*-1"),
    ({"style_layers": ["relu1_1:nan"]}, "relu1_1.*nan"),
    ({"content_weight": -5}, "content_weight"),
    ({"style_weight": math.inf}, "style_weight"),
    ({"tv_weight": math.nan}, "tv_weight"),
    ({"style_blend_weights": [1, 2]}, "2 style blend weights for 1 style"),
    ({"style_blend_weights": [0]}, "all zero"),
    ({"style_blend_weights": [-1]}, "blend weight"),
    ({"pooling": "median"}, "median"),
], ids=str)  # fmt: skip
def test_bad_options(settings, message):
    with pytest.raises(OptionError, match=message):
        whole(**settings)


def test_bad_pictures():
    net = Network(nets.nin(32, (96, 96)), Backend())
    good, layers = noise(3, 96, 96), {"content_layers": ["relu7"], "style_layers": ["relu3"]}
    for bad in (good.transpose(1, 2, 0), good[0], good[None], good[:1]):
        with pytest.raises(ImageError, match=r"content has shape .*\(3, height, width\)"):
            Objective(net, bad, [good], **layers)
        with pytest.raises(ImageError, match=r"style 2 has shape"):
            Objective(net, good, [good, bad], **layers)
    with pytest.raises(ImageError, match=r"content picture of 100×9 does not fit .*'conv1'.*too small"):
        Objective(net, noise(3, 9, 100), [good], **layers)
    with pytest.raises(ImageError, match=r"style 2 picture of 10×100 does not fit .*'conv1'"):
        Objective(net, good, [good, noise(3, 100, 10)], **layers)
    with pytest.raises(ImageError, match=r"picture has shape \(3, 96, 95\).*\(3, 96, 96\)"):
        Objective(net, good, [good], **layers)(good[:, :, 1:])


def test_parse_layer():
    assert parse_layer("relu1_1") == ("relu1_1", 1)
    assert parse_layer("relu1_1:2.5") == ("relu1_1", 2.5)
    assert parse_layer("inception_3a/1x1:0") == ("inception_3a/1x1", 0)
    assert parse_layer("odd:name") == ("odd:name", 1)
    assert parse_layer(("odd:name", 2)) == ("odd:name", 2)
    assert parse_layer("odd:name:3") == ("odd:name", 3)
