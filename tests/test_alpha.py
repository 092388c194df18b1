"""Transparency: colours under alpha 0 are no part of a picture, whatever they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pictures import noise, random_pixels
from PIL import Image
from test_tiles import vgg

import cvstyle
from cvstyle import images
from cvstyle.backends.reference import Backend
from cvstyle.cli import main
from cvstyle.errors import ImageError, OptionError
from cvstyle.losses.style.gram import Gram
from cvstyle.style import measure_styles

HIDDEN = {"black": (0, 0, 0), "magenta": (255, 0, 255), "noise": None}
SETTINGS = {"image_size": 64, "num_iterations": 3, "seed": 1, "backend": "cpu"}


def cut_out(height=60, width=80, hidden="black", opaque_inside=True, seed=0):
    """RGBA samples of a disc with a soft edge on a transparent ground with hidden colours."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2)
    alpha = np.clip((height / 3 - distance) / 3, 0, 1)
    alpha = alpha if opaque_inside else alpha * 0.5
    rgb = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_CUBIC)
    alpha = np.rint(alpha * 255).astype(np.uint8)
    colours = HIDDEN[hidden] or np.random.default_rng(9).integers(0, 256, rgb.shape)
    return np.dstack([np.where(alpha[..., None] > 0, rgb, colours).astype(np.uint8), alpha])


OPAQUE = random_pixels(60, 80)


@pytest.mark.parametrize("role", ["content", "style", "init_image"])
@pytest.mark.parametrize("side, options", [(64, {}), (128, {}), (64, {"compat": True})])
def test_hidden_colours_are_no_part_of_a_run(role, side, options, tmp_path):
    """Bit for bit, smaller and larger than the file, from files and from Python."""
    results = {}
    for hidden in HIDDEN:
        samples = cut_out(hidden=hidden)
        path = tmp_path / f"{hidden}.png"
        Image.fromarray(samples).save(path)
        for kind, picture in (("array", samples), ("file", path), ("image", Image.fromarray(samples))):
            given = {"content": OPAQUE, "style": OPAQUE, role: picture}
            content = given.pop("content")
            style = given.pop("style")
            settings = SETTINGS | {"image_size": side, "num_iterations": 2} | options | given
            rgb = cvstyle.stylize(content, style, **settings).picture.rgb
            assert np.array_equal(results.setdefault(kind, rgb), rgb), (kind, hidden)


def test_hidden_colours_are_no_part_of_an_input():
    inputs = [cvstyle.preprocess(cut_out(hidden=hidden), size) for hidden in HIDDEN for size in (None, 40, 160)]
    for number, x in enumerate(inputs[3:]):
        assert np.array_equal(x, inputs[number % 3])


def test_visible_colours_stay():
    picture = images.as_picture(cut_out(hidden="magenta"))
    filled = images.filled(picture, "it")
    visible = picture.alpha > 1 / 16
    assert np.array_equal(filled.rgb[visible], picture.rgb[visible])
    assert np.array_equal(filled.alpha, picture.alpha)
    half = images.as_picture(cut_out(opaque_inside=False))
    assert np.array_equal(images.filled(half, "it").rgb[half.alpha > 1 / 30], half.rgb[half.alpha > 1 / 30])


def test_a_gap_continues_its_surroundings():
    """A hole in a plane of colours is the plane again; what is far off has the colours of the nearest edge."""
    y, x = np.mgrid[:64, :64].astype(np.float32)
    plane = np.dstack([2 * x + 50, y + 60, 200 - x - y])
    alpha = np.ones((64, 64), np.float32)
    alpha[24:40, 20:44] = 0
    picture = images.Picture(np.where(alpha[..., None] > 0, plane, 255), alpha)
    assert np.abs(images.filled(picture, "it").rgb - plane).max() < 15
    halves = np.full((64, 64, 3), (10, 20, 30), np.float32)
    halves[:, 48:] = (200, 100, 0)
    alpha = np.zeros((64, 64), np.float32)
    alpha[:, :8] = alpha[:, 56:] = 1
    filled = images.filled(images.Picture(halves, alpha), "it").rgb
    assert np.abs(filled[:, :16] - halves[0, 0]).max() < 40 and np.abs(filled[:, 48:] - halves[0, 63]).max() < 40
    assert filled.min() >= 0 and filled[..., 0].max() <= 200


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (5, 1), (7, 3)])
def test_tiny_pictures_are_filled(size):
    rgb = np.full((*size, 3), 255, np.float32)
    rgb[0, 0] = (1, 2, 3)
    alpha = np.zeros(size, np.float32)
    alpha[0, 0] = 0.25
    filled = images.filled(images.Picture(rgb, alpha), "it")
    np.testing.assert_allclose(filled.rgb, np.broadcast_to(np.float32([1, 2, 3]), filled.rgb.shape), atol=1e-5)


def test_a_reduction_weighs_by_alpha():
    rgb = np.float32([[[100] * 3, [200] * 3], [[50] * 3, [0] * 3]])
    alpha = np.float32([[1, 0.5], [0.5, 0]])
    small = images.resized(images.filled(images.Picture(rgb, alpha), "it"), (1, 1))
    assert abs(small.rgb[0, 0, 0] - (100 + 100 + 25) / 2) < 0.2
    assert small.alpha[0, 0] == 0.5


def test_opaque_pictures_keep_their_bits():
    samples = random_pixels()
    opaque = images.as_picture(np.dstack([samples, np.full((11, 17), 255, np.uint8)]))
    for size in ((11, 17), (5, 8), (22, 34)):
        expected = images.resize(samples.astype(np.float32), size)
        assert np.array_equal(images.resized(images.filled(opaque, "it"), size).rgb, expected)
    given = np.dstack([OPAQUE, np.full(OPAQUE.shape[:2], 255, np.uint8)])
    plain = cvstyle.stylize(OPAQUE, OPAQUE, **SETTINGS).picture
    again = cvstyle.stylize(OPAQUE, given, **SETTINGS).picture
    assert np.array_equal(plain.rgb, again.rgb)


@pytest.mark.parametrize("role", ["content", "style 1", "init_image"])
def test_nothing_visible_is_an_error(role):
    nothing = np.zeros((40, 40, 4), np.uint8)
    content = nothing if role == "content" else OPAQUE
    styles = [nothing if role == "style 1" else OPAQUE]
    start = {"init_image": nothing} if role == "init_image" else {}
    with pytest.raises(ImageError, match=f"^{role}: the picture is transparent everywhere; give one"):
        cvstyle.stylize(content, styles, **SETTINGS, **start)


def test_the_error_names_the_file(tmp_path):
    path = tmp_path / "nothing.png"
    Image.new("RGBA", (40, 40)).save(path)
    with pytest.raises(ImageError, match=rf"^{path}: the picture is transparent everywhere"):
        cvstyle.stylize(OPAQUE, path, **SETTINGS)


LAYERS = ["relu1_1", "relu2_1", "relu3_1"]


def moments(features, weights):
    """1/C · Σ w F Fᵀ with w of sum 1, in double precision."""
    f = features.reshape(len(features), -1).astype(float)
    return (f * (weights / weights.sum()).ravel()) @ f.T / len(f)


def test_the_style_is_weighed_by_alpha():
    """Against the formula; weights are the mean of alpha over the part of each position."""
    net = vgg(Backend(threads=1))
    picture = noise(3, 64, 48, scale=50)
    mask = np.random.default_rng(1).random((64, 48)).astype(np.float32)
    mask[:, :24] = 0
    maps = cvstyle.features(net, picture, LAYERS)
    found = measure_styles(net, {"style_layers": LAYERS, "style_weight": 1}, [picture], masks=[mask]).statistics
    for layer, stride in zip(LAYERS, (1, 2, 4)):
        cells = mask.reshape(64 // stride, stride, 48 // stride, stride).mean((1, 3))
        np.testing.assert_allclose(found[f"style:{layer}"], moments(maps[layer], cells), rtol=1e-4, atol=1e-5)


def test_weights_do_not_depend_on_tiles():
    net = vgg(Backend(threads=1))
    picture = noise(3, 96, 80, scale=50)
    mask = np.clip(noise(96, 80, seed=2) + 0.5, 0, 1)
    settings = {"style_layers": LAYERS, "style_weight": 1}
    whole = measure_styles(net, settings, [picture], masks=[mask]).statistics
    tiled = measure_styles(net, settings, [picture], tile_size=48, masks=[mask]).statistics
    for name, statistic in whole.items():
        np.testing.assert_allclose(tiled[name], statistic, rtol=1e-4, atol=1e-5)


def test_a_uniform_mask_is_none():
    net = vgg(Backend(threads=1))
    picture = noise(3, 64, 48, scale=50)
    settings = {"style_layers": LAYERS, "style_weight": 1}
    plain = measure_styles(net, settings, [picture]).statistics
    half = measure_styles(net, settings, [picture], masks=[np.full((64, 48), 0.5, np.float32)]).statistics
    assert all(np.array_equal(half[name], plain[name]) for name in plain)


def test_masks_of_objectives():
    """One style of two has a mask; the target is the blend, and the loss's own weights for the picture stay equal."""
    net = vgg(Backend(threads=1))
    content, one, other = noise(3, 3, 64, 48, scale=50)
    mask = (np.arange(48) < 24) * np.ones((64, 1), np.float32)
    settings = {"style_layers": LAYERS, "style_weight": 1}
    objective = cvstyle.Objective(net, content, [one, other], style_masks=[None, mask], tv_weight=0, **settings)
    loss, gradient = objective(content)
    maps = [cvstyle.features(net, picture, LAYERS) for picture in (content, one, other)]
    expected = 0
    for layer, stride in zip(LAYERS, (1, 2, 4)):
        cells = mask.reshape(64 // stride, stride, 48 // stride, stride).mean((1, 3))
        g, a, b = (moments(m[layer], w) for m, w in zip(maps, (cells * 0 + 1, cells * 0 + 1, cells)))
        expected += ((g - (a + b) / 2) ** 2).mean()
    assert abs(loss / expected - 1) < 1e-4
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("mask, message", [
    (np.zeros((64, 48), np.float32), "too little of the picture is visible for layer 'relu1_1'"),
    (np.pad(np.ones((1, 1), np.float32), ((0, 63), (0, 47))), "visible for layer 'relu4_1'; cut off what is"),
    (np.ones((64, 47), np.float32), "a number for each pixel of 48×64, none negative"),
    (np.full((64, 48), -1, np.float32), "none negative"),
    (np.full((64, 48), np.nan, np.float32), "none negative"),
])  # fmt: skip
def test_masks_that_cannot_be_used(mask, message):
    with pytest.raises(ImageError, match=f"style 1.*{message}"):
        measure_styles(
            vgg(Backend(threads=1)), {"style_layers": [*LAYERS, "relu4_1"], "style_weight": 1},
            [noise(3, 64, 48)], masks=[mask],
        )  # fmt: skip


def test_as_many_masks_as_styles():
    with pytest.raises(OptionError, match="2 masks for 1 style"):
        measure_styles(vgg(Backend(threads=1)), {"style_layers": LAYERS}, [noise(3, 64, 48)], masks=[None, None])


def test_a_weighted_loss_leaves_the_other_alone():
    loss = Gram("g", "relu1_1", 1.0)
    weighted = loss.weighted(np.full((2, 2), 0.25))
    assert loss.weights is None and weighted.weights is not None


def test_half_a_style_counts_as_that_half():
    """The right half of the style is transparent: the result is nearly that of the left half alone."""
    left, right = random_pixels(64, 64) // 4, 255 - random_pixels(64, 64) // 4
    samples = np.dstack([np.hstack([left, right]), np.repeat(np.uint8([255, 0]), 64)[None].repeat(64, 0)])
    settings = SETTINGS | {"image_size": 80, "num_iterations": 20}
    expected = cvstyle.stylize(OPAQUE, left, **settings | {"style_scale": 64 / 80}).picture.rgb
    found = cvstyle.stylize(OPAQUE, samples, **settings | {"style_scale": 128 / 80}).picture.rgb
    with_right = cvstyle.stylize(OPAQUE, samples[..., :3], **settings | {"style_scale": 128 / 80}).picture.rgb
    assert np.abs(found - expected).mean() < np.abs(with_right - expected).mean() / 4


def test_composition_on_a_background():
    rgb = np.float32([[[100, 300, -20], [1, 2, 3]]])
    picture = images.Picture(rgb, np.float32([[0.5, 0]]))
    result = images.composited(picture, (255, 0, 50))
    assert result.alpha is None
    np.testing.assert_allclose(result.rgb, [[[177.5, 127.5, 25], [255, 0, 50]]])


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg"])
def test_jpeg_from_python_is_on_white(name, tmp_path):
    samples = cut_out(hidden="magenta")
    cvstyle.write_picture(tmp_path / name, samples)
    white = Image.new("RGBA", (80, 60), "white")
    white.alpha_composite(Image.fromarray(samples))
    with Image.open(tmp_path / name) as image:
        assert np.abs(np.asarray(image).astype(int) - np.asarray(white)[..., :3]).mean() < 2
        assert min(image.getpixel((0, 0))) > 250


@pytest.mark.parametrize("name, more, colour, line", [
    ("out.jpg", [], (255, 255, 255), "are white, as JPEG has no transparency"),
    ("out.jpg", ["--background", "#204060"], (0x20, 0x40, 0x60), "show the background, #204060"),
    ("out.png", ["--background", "teal"], (0, 128, 128), "show the background, #008080"),
    ("out.png", [], None, None),
])  # fmt: skip
def test_the_command_line_says_what_becomes_of_transparency(name, more, colour, line, tmp_path, capsys):
    Image.fromarray(cut_out(hidden="magenta")).save(tmp_path / "c.png")
    Image.fromarray(OPAQUE).save(tmp_path / "s.png")
    out = tmp_path / name
    words = ["run", "--content", tmp_path / "c.png", "--style", tmp_path / "s.png", "--output", out, *more]
    assert main([*map(str, words), "--image-size", "64", "--num-iterations", "2", "--backend", "cpu"]) == 0
    lines = [text for text in capsys.readouterr().err.splitlines() if "transparen" in text]
    with Image.open(out) as image:
        assert ("A" in image.mode) == (colour is None)
        if colour:
            assert np.abs(np.subtract(image.getpixel((1, 1)), colour)).max() < 3
    assert len(lines) == (line is not None)
    assert not line or (line in lines[0] and str(out) in lines[0])


def test_a_background_of_opaque_pictures_is_said_to_be_none(tmp_path, capsys):
    Image.fromarray(OPAQUE).save(tmp_path / "c.png")
    words = ["run", "--content", "c.png", "--style", "c.png", "--output", "out.png", "--background", "red"]
    words = [str(tmp_path / word) if word.endswith(".png") else word for word in words]
    assert main([*words, "--image-size", "64", "--num-iterations", "1", "--backend", "cpu"]) == 0
    assert "--background has no effect" in capsys.readouterr().err


def test_a_background_is_a_colour(capsys):
    assert main(["run", "--content", "c", "--style", "s", "--background", "sea"]) == 2
    assert "'sea' is no colour such as white or #ffeedd" in capsys.readouterr().err
