"""What a loss may be: moments with means and weights, losses of the picture itself, targets that are made once."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from test_tiles import noise, vgg

from cvstyle import Objective
from cvstyle.backends import opencl
from cvstyle.backends.reference import Backend
from cvstyle.errors import OptionError
from cvstyle.graph import Network
from cvstyle.losses import Loss, create
from cvstyle.losses.style.gram import Gram
from cvstyle.losses.style.moments import Moments, Slope
from cvstyle.style import StyleTargets, measure_styles

SIZE = (150, 210)


class MeanAndCovariance(Moments):
    """w · (mean((m − m_t)²) + mean((Σ − Σ_t)²)), on the host."""

    means = decides_on_host = True

    def compare(self, ops, total, target):
        mean, covariance = self.split(ops.to_host(total).astype(np.float64))
        goal_mean, goal = self.split(ops.to_host(target).astype(np.float64))
        channels = len(mean)
        d_mean = 2 / channels * (mean - goal_mean)
        d_second = 2 / channels**2 * (covariance - goal)
        d_mean = d_mean - 2 * d_second @ mean
        loss = ((mean - goal_mean) ** 2).mean() + ((covariance - goal) ** 2).mean()
        shift = ops.asarray(d_mean.reshape(1, -1, 1, 1))
        return self.weight * loss, Slope(ops.asarray(channels * d_second), 2, shift)

    @staticmethod
    def split(moments):
        return moments[-1], len(moments[0]) * moments[:-1] - np.outer(moments[-1], moments[-1])


class Saturation(Loss):
    """w · Σ (x − its mean over the channels)²: pointwise, of the picture."""

    def gradient(self, view, aim):
        grey = view.ops.sum_over(view.x, (1, 1, *view.x.shape[2:]))
        colour = view.ops.affine(view.x, None, view.ops.scale(grey, -1 / 3))
        return colour, 2, self.weight * view.ops.dot(colour, colour)


class Nearness(Loss):
    """w · Σ (x − content)², of the picture."""

    target_from = "content"

    def gradient(self, view, aim):
        difference = view.ops.difference(view.x, aim)
        return difference, 2, self.weight * view.ops.dot(difference, difference)


class Brightness(Loss):
    """w · (Σ x / N)², of the picture: a statistic without a target."""

    has_statistic = True

    def statistic(self, view):
        return view.ops.scale(view.ops.sum_over(view.x, (1, 1, 1, 1)), 1 / view.count)

    def compare(self, ops, total, target):
        return self.weight * ops.dot(total, total), total

    def gradient(self, view, aim):
        return view.ops.affine(view.ops.zeros(view.x.shape), None, aim), 2 / view.count, None


def weights_of(net, layer, size, seed=7):
    """Smooth weights of sum 1 over a layer's map, some of them zero."""
    shape = net.program([layer]).shapes(size)[layer][2:]
    found = np.random.default_rng(seed).uniform(0, 1, shape)
    found[: shape[0] // 3] = 0
    return found / found.sum()


def extra(net, name, size=SIZE):
    weights = weights_of(net, "relu3_1", size)
    return {
        "means": lambda: MeanAndCovariance("means", "relu3_1", 3.0),
        "weighted gram": lambda: Gram("weighted", "relu3_1", 5.0, weights=weights),
        "weighted means": lambda: MeanAndCovariance("means", "relu3_1", 3.0, weights=weights),
        "saturation": lambda: Saturation("saturation", None, 1e-3),
        "nearness": lambda: Nearness("nearness", None, 1e-3),
        "brightness": lambda: Brightness("brightness", None, 100.0),
    }[name]()


EXTRA = ("means", "weighted gram", "weighted means", "saturation", "nearness", "brightness")


def objective(net, name, size=SIZE, styles=None, **settings):
    loss = extra(net, name, size)
    if styles is None:  # with the weights of the content, a style of its size
        styles = measure_styles(net, [loss], [noise(3, *size, seed=2, scale=60)])
    settings = {"tv_weight": 0, "more_losses": [loss], **settings}
    return Objective(net, noise(3, *size), styles, **settings)


def statistic(net, loss, picture):
    """Σ w F Fᵀ / C, and below it Σ w F, by NumPy."""
    x = net.program([loss.layer]).forward(net.ops.asarray(picture[None]), needs_grad=False)[loss.layer]
    f = np.array(x)[0].reshape(x.shape[1], -1)
    w = np.full(f.shape[1], 1 / f.shape[1]) if loss.weights is None else loss.weights.values.ravel()
    gram = (f * w) @ f.T / len(f)
    return np.vstack([gram, f @ w]) if loss.means else gram


@pytest.mark.parametrize("name", ["means", "weighted gram", "weighted means"])
def test_moments_by_formula(name):
    net = vgg(Backend("float64"))
    loss, style = extra(net, name), noise(3, *SIZE, seed=2)
    found = measure_styles(net, [loss], [style]).statistics[loss.name]
    np.testing.assert_allclose(found, statistic(net, loss, style), rtol=1e-10, atol=1e-12 * np.abs(found).max())


def test_raw_moments_are_blended():
    net = vgg(Backend("float64"))
    loss = MeanAndCovariance("means", "relu3_1", 1.0)
    styles = [noise(3, 40, 50, seed=1), noise(3, 64, 33, seed=2)]
    found = measure_styles(net, [loss], styles, [1, 3]).statistics["means"]
    wanted = 0.25 * statistic(net, loss, styles[0]) + 0.75 * statistic(net, loss, styles[1])
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12 * np.abs(wanted).max())


def test_equal_weights_are_none():
    net = vgg(Backend("float64"))
    _, _, height, width = net.program(["relu3_1"]).shapes(SIZE)["relu3_1"]
    style = noise(3, 40, 50, seed=1)
    results = []
    for weights in (None, np.full((height, width), 1 / (height * width))):
        target = measure_styles(net, [Gram("g", "relu3_1", 5.0)], [style])
        loss = Gram("g", "relu3_1", 5.0, weights=weights)
        results.append(Objective(net, noise(3, *SIZE), target, more_losses=[loss])(noise(3, *SIZE, seed=1)))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-12)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=1e-9, atol=1e-12 * np.abs(results[0][1]).max())


@pytest.mark.parametrize("name", EXTRA)
def test_gradient_is_that_of_the_loss(name):
    size = (40, 56)
    function, x = objective(vgg(Backend("float64")), name, size), noise(3, *size, seed=9)
    loss, gradient = function(x)
    assert loss > 0 and function.losses == {next(iter(function.losses)): loss}
    norm, rng = np.linalg.norm(gradient), np.random.default_rng(0)
    for direction in (gradient, rng.normal(size=x.shape), rng.normal(size=x.shape)):
        direction = direction / np.linalg.norm(direction)
        above, below = function(x + 1e-4 * direction)[0], function(x - 1e-4 * direction)[0]
        assert abs((above - below) / 2e-4 - (gradient * direction).sum()) <= 2e-6 * norm


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("name", EXTRA)
def test_tiles_and_devices_change_nothing(name, devices, normalize):
    """Beside content, style and total variation, in windows of 128 pixels."""
    backends = [Backend("float64") for _ in range(devices)]
    net = vgg(backends[0])
    styles = measure_styles(net, [*create({"style_layers": ["relu2_1"]}), extra(net, name)], [noise(3, *SIZE, seed=2)])
    settings = {
        "content_layers": ["relu2_2"], "style_layers": ["relu2_1"], "normalize_gradients": normalize, "tv_weight": 1e-2,
    }  # fmt: skip
    x = noise(3, *SIZE, seed=5)
    whole = objective(net, name, styles=styles, **settings)
    tiled = objective(net, name, styles=styles, tile_size=128, devices=backends, **settings)
    assert len(tiled.tiles) > 1
    loss, gradient = whole(x)
    own_loss, own_gradient = tiled(x)
    assert own_loss == pytest.approx(loss, rel=1e-9)
    assert tiled.losses == pytest.approx(whole.losses, rel=1e-9) and len(whole.losses) == 4
    assert np.linalg.norm(own_gradient - gradient) <= 1e-9 * np.linalg.norm(gradient)


@pytest.mark.parametrize("name", EXTRA)
def test_normalized_gradients(name):
    """A loss alone has a gradient of L1 norm w, if it is that of the picture's values."""
    net = vgg(Backend("float64"))
    if name in ("saturation", "nearness", "brightness"):
        function = objective(net, name, normalize_gradients=True)
        gradient = function(noise(3, *SIZE, seed=5))[1]
        assert np.abs(gradient).sum() == pytest.approx(function._picture_pass.losses[0].weight, rel=1e-6)
        return
    plain, normal = (objective(net, name, normalize_gradients=n)(noise(3, *SIZE, seed=5))[1] for n in (False, True))
    cosine = (plain * normal).sum() / np.linalg.norm(plain) / np.linalg.norm(normal)
    assert cosine == pytest.approx(1, abs=1e-9)
    assert np.linalg.norm(plain) != pytest.approx(np.linalg.norm(normal), rel=1e-2)


@pytest.mark.skipif(
    opencl.Backend.unavailable_because() is not None,
    reason=f"no OpenCL here: {opencl.Backend.unavailable_because()}; NumPy shows the logic",
)
@pytest.mark.parametrize("tile_size", [None, 128])
@pytest.mark.parametrize("name", EXTRA)
def test_on_a_device(device, name, tile_size):
    exact = objective(vgg(Backend("float64")), name)(noise(3, *SIZE, seed=5))
    function = objective(vgg(device), name, tile_size=tile_size)
    for _ in range(2):  # maps of weights are made once
        loss, gradient = function(noise(3, *SIZE, seed=5))
        assert loss == pytest.approx(exact[0], rel=1e-4)
        assert np.linalg.norm(gradient - exact[1]) <= 1e-3 * np.linalg.norm(exact[1])


def test_a_style_that_is_made_once_serves_many_objectives():
    """Of other contents and backends, and through a pickle, with the bits of one made there."""
    settings = {"style_layers": ["relu1_1", "relu3_1:2"], "content_layers": ["relu2_2"]}
    styles = [noise(3, 90, 70, seed=1), noise(3, 33, 80, seed=2)]
    net = vgg(Backend())
    targets = pickle.loads(pickle.dumps(measure_styles(net, create(settings), styles, [1, 2])))
    for size in ((60, 80), (75, 64)):
        x = noise(3, *size, seed=4).astype(np.float32)
        loss, gradient = Objective(net, noise(3, *size), styles, style_blend_weights=[1, 2], **settings)(x)
        again, same = Objective(net, noise(3, *size), targets, **settings)(x)
        assert again == loss
        np.testing.assert_array_equal(same, gradient)
        other = Network(net.definition, Backend("float64"))
        assert Objective(other, noise(3, *size), targets, **settings)(x)[0] == pytest.approx(loss, rel=1e-4)


def test_what_cannot_be():
    net, content = vgg(Backend()), noise(3, 40, 50)
    targets = measure_styles(net, create({"style_layers": ["relu1_1"]}), [noise(3, 30, 30)])
    with pytest.raises(OptionError, match=r"without 'style:relu2_1'"):
        Objective(net, content, targets, style_layers=["relu1_1", "relu2_1"])
    with pytest.raises(OptionError, match="no setting 'style_wieght'; did you mean style_weight"):
        Objective(net, content, [content], style_wieght=3)
    with pytest.raises(OptionError, match="two losses are called 'style:relu1_1'"):
        Objective(net, content, targets, style_layers=["relu1_1"], more_losses=[Gram("style:relu1_1", "relu1_1", 1.0)])


def test_a_loss_that_decides_on_the_host_is_not_recorded():
    net, content = vgg(Backend()), noise(3, 40, 50)
    assert Objective(net, content, [content], style_layers=["relu1_1"]).capturable
    loss = MeanAndCovariance("style:own", "relu1_1", 1.0)
    assert not Objective(net, content, [content], more_losses=[loss]).capturable


def test_without_styles_what_aims_at_them_is_left_out():
    function = Objective(vgg(Backend()), noise(3, 40, 50), StyleTargets({}), style_layers=["relu1_1"])
    function(noise(3, 40, 50))
    assert list(function.losses) == ["tv"]


def test_a_loss_is_picklable_after_use():
    net = vgg(Backend())
    function = objective(net, "weighted means")
    function(noise(3, *SIZE))
    loss = pickle.loads(pickle.dumps(function._losses[0]))
    assert isinstance(loss, MeanAndCovariance) and loss.weight == 3 and not loss.weights._maps
