"""Losses relative to what they aim at: worked out here, and alike for networks, sizes and splits that differ."""

from __future__ import annotations

import copy

import nets
import numpy as np
import pytest

import cvstyle
from cvstyle import Objective, Stop, checkpoint, losses, stylize, zoo
from cvstyle.backends.reference import Backend
from cvstyle.errors import CheckpointError, OptionError
from cvstyle.graph import Network
from cvstyle.losses import UNIT

LAYERS = {"content_layers": ["relu2_1"], "style_layers": ["relu1_1", "relu2_2:3"]}


def small(factor=1.0, dtype="float64"):
    """VGG's first layers, with features `factor` times as large: ReLU and pooling pass it on, bias and all."""
    definition = nets.vgg(16, width=16, size=(32, 32), classifier=False)
    first = definition.layers[0].name
    definition.weights[first] = [blob * factor for blob in definition.weights[first]]
    for layer in definition.layers[1:]:
        if layer.name in definition.weights:
            weight, bias = definition.weights[layer.name]
            definition.weights[layer.name] = [weight, bias * factor]
    return Network(definition, Backend(dtype))


@pytest.fixture
def pictures():
    draw = np.random.default_rng(3)
    return draw.uniform(-100, 100, (3, 3, 40, 44))


def gram(f):
    flat = f.reshape(len(f), -1)
    return flat @ flat.T / flat.size


def relative(a, b):
    return ((a - b) ** 2).mean() / (b**2).mean()


def test_every_loss_is_relative_to_its_target(pictures):
    content, style, x = pictures
    net, names = small(), ["relu1_1", "relu2_1", "relu2_2"]
    maps = [{name: f.astype(float) for name, f in cvstyle.features(net, p, names).items()} for p in pictures]
    objective = Objective(net, content, [style, content], balance="targets", style_blend_weights=[1, 3], **LAYERS)
    objective(x)

    def aim(name):
        return 0.25 * gram(maps[1][name]) + 0.75 * gram(maps[0][name])

    wanted = {
        "content:relu2_1": 5 * UNIT * relative(maps[2]["relu2_1"], maps[0]["relu2_1"]),
        "style:relu1_1": 100 * UNIT * relative(gram(maps[2]["relu1_1"]), aim("relu1_1")),
        "style:relu2_2": 300 * UNIT * relative(gram(maps[2]["relu2_2"]), aim("relu2_2")),
    }
    block = x[:, :-1, :-1]
    squares = ((x[:, :-1, 1:] - block) ** 2 + (x[:, 1:, :-1] - block) ** 2).sum()
    wanted["tv"] = 1e-3 / 2 * squares * (512 * 384 / (40 * 44)) ** 0.5
    assert set(wanted) == set(objective.losses)
    for name, value in wanted.items():
        assert objective.losses[name] == pytest.approx(value, rel=1e-9), name


def test_the_gradient_is_that_of_the_loss(pictures):
    content, style, x = pictures
    objective = Objective(small(), content, style, balance="targets", **LAYERS)
    gradient = objective(x)[1]
    direction = np.random.default_rng(4).standard_normal(x.shape)
    step = 1e-5
    ends = [objective(x + sign * step * direction)[0] for sign in (1, -1)]
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx((gradient * direction).sum(), rel=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("factor", [0.01, 100])
def test_networks_whose_features_differ_a_hundredfold_are_one(pictures, factor, normalize):
    content, style, x = pictures
    settings = {"balance": "targets", "normalize_gradients": normalize, **LAYERS}
    ours, other = (Objective(net, content, style, **settings) for net in (small(), small(factor)))
    (loss, gradient), (other_loss, other_gradient) = ours(x), other(x)
    if not normalize:  # those losses are not in the gradient as they are
        assert other_loss == pytest.approx(loss, rel=1e-6)  # the weights are float32
    np.testing.assert_allclose(other_gradient, gradient, atol=1e-4 * abs(gradient).max())
    unbalanced = Objective(small(factor), content, style, **settings | {"balance": "none"})(x)[1]
    assert abs(unbalanced - gradient).max() > 0.1 * abs(gradient).max()


@pytest.mark.parametrize("share", ["tiles", "devices"])
def test_tiles_and_devices_find_the_same_factors(pictures, share):
    content, style, x = pictures
    settings = {"balance": "targets", **LAYERS}
    loss, gradient = Objective(small(), content, style, **settings)(x)
    net = small()
    more = {"tile_size": 28} if share == "tiles" else {"devices": [net.ops, Backend("float64")]}
    split = Objective(net, content, style, **settings, **more)
    assert len(split.tiles) > 1
    split_loss, split_gradient = split(x)
    assert split_loss == pytest.approx(loss, rel=1e-11)
    np.testing.assert_allclose(split_gradient, gradient, atol=1e-10 * abs(gradient).max())


def test_the_content_may_be_kept_elsewhere(pictures, tmp_path):
    from cvstyle import backends

    content, style, x = (picture.astype(np.float32) for picture in pictures)
    net, settings = small(dtype="float32"), {"balance": "targets", **LAYERS}
    loss = Objective(net, content, style, **settings)(x)[0]
    home = backends.host(str(tmp_path))
    assert Objective(net, content, style, home=home, **settings)(x)[0] == pytest.approx(loss, rel=1e-6)


def test_variation_between_that_of_a_texture_and_of_a_form():
    """A chequered picture of twice the side has four times the sum, and here twice."""
    found = []
    for side in (17, 33):
        rows, columns = np.indices((side, side))
        x = np.broadcast_to((rows + columns) % 2 * 100.0, (3, side, side))
        objective = Objective(small(), x, balance="targets")
        objective(x)
        found.append(objective.losses["tv"] * side / (side - 1) ** 2)  # the block without the last row and column
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_a_target_of_zero_does_not_count():
    """Nothing is relative to nothing."""
    black = np.zeros((3, 16, 16))
    definition = nets.vgg(16, width=16, size=(32, 32), classifier=False)
    for name, (weight, bias) in definition.weights.items():
        definition.weights[name] = [weight, bias * 0]
    objective = Objective(Network(definition, Backend("float64")), black, black, balance="targets", **LAYERS)
    loss, gradient = objective(np.random.default_rng(0).uniform(-9, 9, black.shape))
    assert {v for name, v in objective.losses.items() if name != "tv"} == {0}
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_a_callers_loss_keeps_its_weight(pictures):
    content, _, x = pictures
    own = losses.create({"content_layers": ["relu1_1"], "tv_weight": 0})[0]
    before = copy.copy(vars(own))
    first, second = (
        Objective(small(), content, more_losses=[own], balance="targets", tv_weight=0)(x)[0] for _ in range(2)
    )
    assert vars(own) == before and first == second > 0


def test_an_unknown_balance_is_refused(pictures):
    with pytest.raises(OptionError, match="balance must be none or targets, not 'both'"):
        Objective(small(), pictures[0], balance="both")
    with pytest.raises(OptionError, match=r"balance.*auto"):
        cvstyle.Options(balance="both").check(1)


@pytest.mark.parametrize(
    ("build", "compat", "balance"),
    [
        (lambda: nets.vgg(19, width=32, size=(32, 32), classifier=False), False, "none"),
        (lambda: nets.nin(width=32), False, "none"),
        (lambda: nets.googlenet(width=16), False, "targets"),
        (lambda: nets.googlenet(width=16), True, "none"),
    ],
    ids=["vgg19", "nin", "googlenet", "compat"],
)
def test_auto(build, compat, balance):
    found = zoo.defaults([layer.name for layer in build().layers], compat)
    assert found["balance"] == balance
    assert found["init"] == ("random" if compat else "image")


def test_a_checkpoint_belongs_to_its_balance(tmp_path, pictures):
    picture = pictures[0].transpose(1, 2, 0).astype(np.float32) + 120
    path = str(tmp_path / "run.npz")
    settings = {"network": small(dtype="float32"), "image_size": 32, "num_iterations": 4, "seed": 1, **LAYERS}

    def stop(iterate):
        if iterate.iteration == 2:
            raise Stop

    whole = stylize(picture, picture[::-1], balance="targets", **settings)
    stylize(picture, picture[::-1], balance="targets", checkpoint=path, callback=stop, **settings)
    rest = stylize(picture, picture[::-1], balance="targets", checkpoint=path, resume=True, **settings)
    assert rest.picture.rgb.tobytes() == whole.picture.rgb.tobytes()
    with pytest.raises(CheckpointError, match="another balance"):
        stylize(picture, picture[::-1], balance="none", checkpoint=path, resume=True, **settings)
    header, arrays = checkpoint.load(path)
    del header["settings"]["balance"]  # of a version that had none: the numbers of the reference
    checkpoint.save(path, header, arrays)
    stylize(picture, picture[::-1], balance="none", checkpoint=path, resume=True, **settings)
