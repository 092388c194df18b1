"""Strength: from the photograph, exactly, to the full style, with every step away from the photograph."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from nets import vgg as vgg_net
from pictures import random_pixels
from test_colour import painting
from test_tiles import DEEP, assert_same, noise, vgg

import cvstyle
from cvstyle import Job, Objective, Options, images
from cvstyle.backends.reference import Backend
from cvstyle.errors import CheckpointError, OptionError
from cvstyle.graph import Network
from cvstyle.regions import StyleRegion
from cvstyle.run.scale import Scale

CONTENT = painting(96, 128, seed=1, low=20, high=230)
STYLE = painting(90, 80, seed=2, low=0, high=255) + noise(90, 80, 3, seed=5).astype(np.float32) / 2
SMALL = {"image_size": 128, "seed": 1, "backend": "cpu"}
TINY = SMALL | {"image_size": 64, "num_iterations": 3}
START = STYLE.clip(0, 255)
TILES = {"tile_size": 160, "image_size": 256, "content_layers": "relu2_2", "style_layers": "relu1,relu2_1"}
STEPS = (0, 0.25, 0.5, 0.75, 1)


def distance(rgb):
    """Root mean square of the differences from the photograph, at the size of the result."""
    return float(np.sqrt(((rgb - images.resized(images.Picture(CONTENT), rgb.shape[:2]).rgb) ** 2).mean()))


@pytest.mark.parametrize("more", [
    {}, {"balance": "none", "style_weight": 1e5, "tv_weight": 0}, {"normalize_gradients": True}, {"init": "random"},
    {"init_image": START}, {"optimizer": "adam"}, {"optimizer": "lbfgsb", "num_iterations": 4},
    {"scales": [48, 128], "scale_iterations": [8, 8]}, {"color": "luminance"},
], ids=",".join)  # fmt: skip
def test_every_step_leads_away_from_the_photograph(more):
    given = SMALL | ({} if "scales" in more else {"num_iterations": 12}) | more
    found = [distance(cvstyle.stylize(CONTENT, STYLE, strength=s, **given).picture.rgb) for s in STEPS]
    assert found[0] < 0.01
    assert all(b > a + 0.3 for a, b in pairwise(found)), found
    middle = (found[2] - found[0]) / (found[4] - found[0])
    assert 0.15 < middle < 0.85, found


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgsb", "adam"])
@pytest.mark.parametrize("more", [
    {}, {"init": "random"}, {"init_image": START}, {"compat": True}, {"avg_decay": 0.9}, TILES,
    {"normalize_gradients": True}, {"balance": "none"}, {"balance": "targets", "tv_weight": 1},
    {"scales": [20, 40, 64], "scale_iterations": [2, 2]}, {"margin": 0},
    TILES | {"devices": ["numpy"] * 2},
    {"color": "content"}, {"color": "match:pca"}, {"lbfgs_smooth": 0}, {"image_size": 200}, {"pooling": "avg"},
], ids=",".join)  # fmt: skip
def test_none_is_the_photograph(optimizer, more):
    if more.get("devices"):
        more = more | {"backend": "auto"}
    given = TINY | {"optimizer": optimizer, "strength": 0} | more
    seen = []
    result = cvstyle.stylize(CONTENT, STYLE, callback=lambda i: seen.append(i.picture().rgb), **given)
    photo = images.as_picture(CONTENT, fit=lambda h, w: images.target_size(h, w, given["image_size"]))
    for rgb in (result.picture.rgb, *seen):
        assert np.abs(rgb - images.resized(photo, rgb.shape[:2], "compat" in more).rgb).max() < 0.01


def test_none_keeps_alpha_and_odd_photographs():
    alpha = np.linspace(0, 1, 96 * 128, dtype=np.float32).reshape(96, 128)
    for content in (np.dstack([CONTENT, alpha * 255]), np.full((64, 64, 3), 255, np.uint8), random_pixels(40, 64)):
        rgba = images.filled(images.as_picture(content), "it")
        result = cvstyle.stylize(content, STYLE, strength=0, **TINY | {"image_size": max(rgba.size)}).picture
        assert np.abs(result.rgb - rgba.rgb).max() < 0.01
        assert result.alpha is None if rgba.alpha is None else np.array_equal(result.alpha, rgba.alpha)


def test_full_strength_changes_nothing():
    for more in ({}, {"init": "random"}, {"init_image": START}, {"scales": [32, 64]}):
        one, two, less = (
            cvstyle.stylize(CONTENT, STYLE, **TINY | more | strength).picture.rgb
            for strength in ({}, {"strength": 1}, {"strength": 0.999})
        )
        assert one.tobytes() == two.tobytes() != less.tobytes()


@pytest.mark.parametrize("more", [{}, {"init": "random"}, {"init_image": START}, {"compat": True}], ids=",".join)
def test_the_start_by_hand(more):
    """The start at full strength, its distance from the photograph scaled."""
    scales = {
        s: Scale(Job(CONTENT, [STYLE], options=Options(strength=s, image_size=64, seed=1, **more)).setup(), 0)
        for s in (0, 0.3, 1)
    }
    photo = scales[1].content[None].astype(float)
    assert np.abs(scales[0].start() - photo).max() < 1e-3
    expected = 0.7 * photo + 0.3 * scales[1].start()
    np.testing.assert_allclose(scales[0.3].start(), expected, atol=1e-3)


def test_a_scale_gets_the_detail_of_the_photograph_by_hand():
    options = Options(image_size=64, seed=1, scales=[32, 64], strength=0.25, margin=0)
    first, second = (Scale(Job(CONTENT, [STYLE], options=options).setup(), index) for index in (0, 1))
    x = noise(1, 3, *first.size, seed=4).astype(np.float32)
    lost = second.content - second.enlarged(first.content[None])
    np.testing.assert_allclose(second.continued(x, first), second.enlarged(x) + 0.75 * lost, atol=1e-3)
    full = replace(options, strength=1)
    first, second = (Scale(Job(CONTENT, [STYLE], options=full).setup(), index) for index in (0, 1))
    assert second.continued(x, first).tobytes() == second.enlarged(x).tobytes()


# The objective.


def gram(features):
    matrix = features.reshape(len(features), -1).astype(float)
    return matrix @ matrix.T / matrix.size


def maps(net, picture, layers):
    return cvstyle.features(net, picture.astype(np.float32), layers)


@pytest.mark.parametrize("strength", [0, 0.3, 1])
@pytest.mark.parametrize("tile_size, devices", [(None, 0), (48, 0), (48, 2)])
def test_the_target_is_the_blend(strength, tile_size, devices):
    """s · (the styles' blend) + (1 − s) · the content's own; total variation counts by s, content whole."""
    net = vgg(Backend("float64"))
    layers = ["relu1_1", "relu2_1"]
    content, x = noise(3, 96, 128), noise(3, 96, 128, seed=3)
    one, two = noise(3, 60, 50, seed=1), noise(3, 40, 70, seed=2)
    objective = Objective(
        net, content, [one, two], style_blend_weights=[3, 1], strength=strength, content_layers=["relu2_2"],
        style_layers=layers, content_weight=5, style_weight=7, tv_weight=0.5, tile_size=tile_size,
        devices=[Backend("float64") for _ in range(devices)] or None,
    )  # fmt: skip
    objective(x)
    found = objective.losses
    for layer in layers:
        own, first, second, now = (gram(maps(net, p, [layer])[layer]) for p in (content, one, two, x))
        target = strength * (0.75 * first + 0.25 * second) + (1 - strength) * own
        assert found[f"style:{layer}"] == pytest.approx(7 * ((now - target) ** 2).mean(), rel=1e-5)
    ours, theirs = (maps(net, p, ["relu2_2"])["relu2_2"] for p in (x, content))
    assert found["content:relu2_2"] == pytest.approx(5 * ((ours.astype(float) - theirs) ** 2).mean(), rel=1e-5)
    block = (x[:, :-1, :-1] - x[:, :-1, 1:]) ** 2 + (x[:, :-1, :-1] - x[:, 1:, :-1]) ** 2
    assert found.get("tv", 0) == pytest.approx(strength * 0.25 * block.sum(), rel=1e-6)


@pytest.mark.parametrize("settings", [
    {"strength": 0}, {"strength": 0.4}, {"strength": 0.4, "balance": "targets"}, {"strength": 0.4, "tile_size": 48},
], ids=",".join)  # fmt: skip
def test_gradients_are_those_of_the_loss(settings):
    """By central differences in float64."""
    layers = {"content_layers": ["relu2_2"], "style_layers": ["relu1_1", "relu3_1"]}
    more = {**layers, "style_weight": 1e3, "tv_weight": 0.1}
    net = vgg(Backend("float64"))
    objective = Objective(net, noise(3, 64, 80), [noise(3, 50, 60, seed=1)], **more, **settings)
    x = noise(3, 64, 80, seed=2)
    _, gradient = objective(x)
    for seed in (3, 4, 5):
        step = noise(3, 64, 80, seed=seed) * 1e-7
        slope = (objective(x + step)[0] - objective(x - step)[0]) / 2
        assert (gradient * step).sum() == pytest.approx(slope, rel=1e-5)


def test_none_has_its_minimum_at_the_photograph():
    content = noise(3, 211, 307)
    for more in ({}, {"balance": "targets"}, {"tile_size": 200}):
        net = vgg(Backend("float64"))
        loss, gradient = Objective(net, content, [noise(3, 50, 60, seed=1)], strength=0, **DEEP | more)(content)
        assert loss < 1e-12 and np.abs(gradient).max() < 1e-9


@pytest.mark.parametrize("settings", [
    {}, {"balance": "targets"}, {"normalize_gradients": True}, {"pooling": "avg"}, {"devices": 2},
], ids=",".join)  # fmt: skip
def test_tiles_and_devices_change_nothing(settings):
    more = dict(settings)
    if count := more.pop("devices", 0):
        more["devices"] = [Backend("float64") for _ in range(count)]
    assert_same(vgg(Backend("float64")), (211, 307), 200, strength=0.3, **DEEP, **more)


def test_regions_are_blended_with_their_own():
    """A region's target is blended with the same region of the photograph."""
    net = vgg(Backend("float64"))
    content, style, x = (noise(3, 64, 80, seed=seed) for seed in (0, 1, 2))
    left = np.zeros((64, 80), np.float32)
    left[:, :40] = 1
    objective = Objective(
        net, content, [style], strength=0.3, style_layers=["relu1_1"], style_weight=7, tv_weight=0,
        regions=[StyleRegion("left", left, {0: None})],
    )  # fmt: skip
    objective(x)
    own, now, whole = (maps(net, p, ["relu1_1"])["relu1_1"] for p in (content, x, style))
    target = 0.3 * gram(whole) + 0.7 * gram(own[:, :, :40])
    expected = 7 * 0.5 * ((gram(now[:, :, :40]) - target) ** 2).mean()
    assert objective.losses["style:relu1_1@left"] == pytest.approx(expected, rel=1e-5)


def test_a_run_is_resumed_at_its_strength(tmp_path):
    for strength in (0, 0.4):
        kept = SMALL | {"image_size": 64, "scales": [32, 64], "scale_iterations": [3, 4], "strength": strength}
        whole = cvstyle.stylize(CONTENT, STYLE, **kept).picture.rgb
        path = str(tmp_path / f"{strength}.npz")
        kept["checkpoint"] = path
        cvstyle.stylize(CONTENT, STYLE, **kept | {"scale_iterations": [3, 2]})
        again = cvstyle.stylize(CONTENT, STYLE, **kept, resume=True).picture.rgb
        assert again.tobytes() == whole.tobytes()
        with pytest.raises(CheckpointError, match=rf"another strength \({float(strength)}; here 0.5\)"):
            cvstyle.stylize(CONTENT, STYLE, **kept | {"strength": 0.5}, resume=True)


def test_values_that_are_no_strength():
    for value in (-0.1, 1.01, float("nan"), float("inf"), "much", None, True, [0.5]):
        with pytest.raises(OptionError, match=r"strength is .*; a number"):
            cvstyle.stylize(CONTENT, STYLE, strength=value, **TINY)
    for value in (-0.1, 1.01, float("nan"), "much"):
        with pytest.raises(OptionError, match=r"strength is .*; a number"):
            Objective(Network(vgg_net(16, 16, (32, 32), classifier=False), Backend()), noise(3, 32, 32), strength=value)
