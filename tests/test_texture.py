"""Pictures that repeat without a seam, and textures: runs without a photograph."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import cv2
import nets
import numpy as np
import pictures
import pytest
from PIL import Image

import cvstyle
from cvstyle import Objective, backends, optimize
from cvstyle.backends.reference import Backend
from cvstyle.cli import main
from cvstyle.control import Canvas
from cvstyle.errors import CheckpointError, ImageError, OptionError
from cvstyle.graph import Network
from cvstyle.graph.periodic import AXES, Extension, periodic
from cvstyle.optimize import lbfgs
from cvstyle.options import Options
from cvstyle.run.planner import Planner
from cvstyle.run.scale import Scale

LAYERS = {
    "content_layers": ["relu2_2"], "style_layers": ["relu1_1", "pool1", "relu3_1:2"], "content_weight": 1e-2,
    "style_weight": 1e3, "tv_weight": 1e-2,
}  # fmt: skip
NAMES = ["relu1_1", "pool1", "relu2_2", "relu3_1"]
SIZE = (24, 36)
STEP = 4  # of relu3_1
noise = partial(pictures.noise, scale=50, dtype=np.float64)


@cache
def vgg(dtype="float64", name="numpy"):
    ops = Backend(dtype, threads=1) if name == "numpy" else backends.get(name)
    return Network(nets.vgg(16, 8, (32, 32), classifier=False), ops)


def objective(wrap, size=SIZE, net=None, content=None, **settings):
    content = noise(3, *size) if content is None else content
    return Objective(net or vgg(), content, [noise(3, 40, 33, seed=2)], wrap=wrap, **{**LAYERS, **settings})


@pytest.mark.parametrize("size", [(7, 5), (1, 2), (3, 11)])
@pytest.mark.parametrize("before, after", [((0, 3), (0, 9)), ((2, 0), (0, 1)), ((13, 4), (20, 30))])
def test_extension_and_its_adjoint(size, before, after):
    """By NumPy's pad; ⟨E x, y⟩ = ⟨x, Eᵀ y⟩."""
    extension, ops = Extension(size, before, after), Backend("float64")
    x = noise(3, *size)
    ends = ((0, 0), *zip(before, after))
    expected = np.tile(x, (1, 50, 50))
    rows, columns = (slice(25 * n - b, 26 * n + a) for n, b, a in zip(size, before, after))
    extended = extension.apply(ops, x[None])[0]
    np.testing.assert_array_equal(extended, expected[:, rows, columns])
    np.testing.assert_array_equal(extension.of_host(x), extended)
    np.testing.assert_array_equal(replace(extension, mirrored=True).of_host(x), np.pad(x, ends, "symmetric"))
    y = noise(1, *extended.shape, seed=1)
    assert (extended * y[0]).sum() == pytest.approx((x * extension.adjoint(ops, y)[0]).sum(), rel=1e-12)


@pytest.mark.parametrize("wrap", AXES)
@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_features_are_those_of_the_infinite_picture(wrap, pooling):
    """Of the middle of a picture that is repeated often enough along these axes."""
    net = vgg().with_pooling(pooling)
    program, x = net.program(NAMES), noise(1, 3, *SIZE)
    times = [5 if axis in AXES[wrap] else 1 for axis in (0, 1)]
    tiled = program.forward(np.tile(x, (1, 1, *times)), needs_grad=False)
    seen = periodic(program, SIZE, wrap)
    features = program.forward(seen.extension.apply(net.ops, x), needs_grad=False)
    for name in NAMES:
        shape = seen.shapes[name][2:]
        own = tuple(slice(*span) for span in seen.positions[name])
        middle = tuple(slice(t // 2 * n, t // 2 * n + n) for t, n in zip(times, shape))
        assert shape == tuple(n // t for n, t in zip(tiled[name].shape[2:], times))
        expected = tiled[name][0][(slice(None), *middle)]
        np.testing.assert_allclose(features[name][0][(slice(None), *own)], expected, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("wrap", AXES)
@pytest.mark.parametrize("more", [
    {}, {"normalize_gradients": True}, {"balance": "targets", "strength": 0.5}, {"pooling": "avg"},
], ids=str)  # fmt: skip
def test_shifted_pictures_are_the_same(wrap, more):
    shift = [STEP * (3 if axis == 0 else -5) * (axis in AXES[wrap]) for axis in (0, 1)]
    moved = partial(np.roll, shift=shift, axis=(1, 2))
    content, x = noise(3, *SIZE), noise(3, *SIZE, seed=1)
    loss, gradient = objective(wrap, **more)(x)
    other_loss, other_gradient = objective(wrap, content=moved(content), **more)(moved(x))
    assert other_loss == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(other_gradient, moved(gradient), atol=1e-11 * np.abs(gradient).max())
    assert objective(None, **more)(moved(x))[0] != pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("optimizer, settings", [("lbfgs", lbfgs.FOR_PICTURES), ("lbfgsb", {}), ("adam", {})])
def test_shifted_runs_are_the_same(optimizer, settings):
    """Optimisers know no edges either, or they would leave a seam."""
    size, shift = (24, 40), (8, -16)
    content, x = noise(3, *size), noise(1, 3, *size, seed=1)
    results = []
    for by in ((0, 0), shift):
        evaluate = objective("xy", size, content=np.roll(content, by, (1, 2)))
        results.append(optimize.minimize(optimizer, evaluate, np.roll(x, by, (2, 3)), 8, **settings))
    np.testing.assert_allclose(results[1], np.roll(results[0], shift, (2, 3)), atol=1e-3)


@pytest.mark.parametrize("wrap, size", [("x", (22, 36)), ("y", (21, 30)), ("xy", (24, 36)), ("xy", (19, 27))])
def test_gradient(wrap, size):
    """Against finite differences: of pixels at the corners and the middle, and along a direction."""
    evaluate, x, h = objective(wrap, size, pooling="avg"), noise(3, *size, seed=1), 1e-3
    gradient = evaluate(x)[1]
    direction = noise(3, *size, seed=7)
    steps = [(np.unravel_index(i, x.shape), 1) for i in (0, size[1] - 1, x.size - 1, x.size // 2)]
    for place, length in [*steps, (slice(None), direction / np.linalg.norm(direction))]:
        change = np.zeros_like(x)
        change[place] = length
        slope = (evaluate(x + h * change)[0] - evaluate(x - h * change)[0]) / (2 * h)
        assert slope == pytest.approx((gradient * change).sum(), rel=1e-5, abs=1e-6 * np.abs(gradient).max())


def test_total_variation_is_periodic():
    x = noise(3, *SIZE, seed=1)
    for wrap, along in (("x", [2]), ("xy", [1, 2])):
        evaluate = objective(wrap, content_layers=[], style_layers=[], tv_weight=2.0)
        part = x if 1 in along else x[:, :-1]
        down = (np.roll(x, -1, 1) - x)[:, : part.shape[1]]
        expected = (down**2).sum() + ((np.roll(part, -1, 2) - part) ** 2).sum()
        assert evaluate(x)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("more", [
    {}, {"normalize_gradients": True}, {"balance": "targets", "strength": 0.7}, {"style_layers": []},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("wrap, size", [("x", (50, 70)), ("xy", (53, 67))])
def test_tiles_and_devices(wrap, size, more):
    x = noise(3, *size, seed=1)
    loss, gradient = objective(wrap, size, **more)(x)
    for cut in ({"tile_size": 64}, {"devices": [Backend("float64"), Backend("float64")]}):
        tiled = objective(wrap, size, **more, **cut)
        tiled_loss, tiled_gradient = tiled(x)
        assert len(tiled.tiles) > 1
        assert tiled_loss == pytest.approx(loss, rel=1e-11)
        np.testing.assert_allclose(tiled_gradient, gradient, atol=1e-11 * np.abs(gradient).max())


@pytest.mark.parametrize("name", ["native", "opencv", "opencl"])
def test_backends(name):
    if reason := backends.backend_class(name).unavailable_because():
        pytest.skip(reason)
    size = (40, 52)
    x = noise(3, *size, seed=1).astype(np.float32)
    loss, gradient = objective("xy", size, net=vgg("float32"))(x)
    for cut in ({}, {"tile_size": 64}):
        other_loss, other_gradient = objective("xy", size, net=vgg(name=name), **cut)(x)
        assert other_loss == pytest.approx(loss, rel=1e-4)
        assert np.linalg.norm(other_gradient - gradient) <= 1e-3 * np.linalg.norm(gradient)


def test_a_style_has_no_borders_of_its_own():
    """Its statistic is that of a picture which goes on as its mirror image."""
    style = noise(3, 16, 20, seed=2)
    measured = cvstyle.measure_styles(vgg(), {"style_layers": ["relu3_1"]}, [style], wrap="xy").statistics
    mirrored = np.tile(np.block([[style, style[..., ::-1]], [style[:, ::-1], style[:, ::-1, ::-1]]]), (1, 3, 3))
    features = vgg().program(["relu3_1"]).forward(mirrored[None], needs_grad=False)["relu3_1"][0]
    own = features[:, 8:12, 10:15].reshape(len(features), -1)  # of the third of six rows and columns
    np.testing.assert_allclose(measured["style:relu3_1"], own @ own.T / own.size, rtol=1e-10)


def test_a_network_that_sees_the_whole_picture():
    net = Network(nets.vgg(16, 8, (32, 32)), Backend())
    with pytest.raises(OptionError, match=r"sees the whole picture.*cannot repeat \(wrap\)"):
        Objective(net, noise(3, 32, 32), [noise(3, 32, 32)], style_layers=["fc6"], wrap="x")
    with pytest.raises(OptionError, match="wrap must be x, y, xy or None"):
        objective("z")


# Runs


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Strokes of one direction, 128 pixels, whose left and right edges differ."""
    rows, columns = np.mgrid[:128, :128]
    value = 110 + 60 * np.sin((rows + 0.4 * columns) / 3) + np.random.default_rng(0).normal(0, 12, (128, 128))
    rgb = np.stack([value, value * 0.8 + columns * 0.2, 255 - value], axis=2)
    path = tmp_path_factory.mktemp("textures") / "strokes.png"
    Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(path)
    return path


def synthesize(source, size=(64, 96), **more):
    return cvstyle.synthesize(source, size, **{"num_iterations": 12, "seed": 1, "backend": "cpu", **more}).picture.rgb


def steps_across(rgb, axis):
    """(mean squared difference of the two rows that meet at the seam, the same of all neighbouring rows)."""
    differences = ((np.roll(rgb, -1, axis) - rgb) ** 2).mean(axis=(1 - axis, 2))
    return differences[-1], differences[:-1].mean()


@pytest.mark.parametrize("size", [(64, 96), (75, 83)])
def test_no_seam(source, size):
    for wrap in AXES:
        rgb = synthesize(source, size, wrap=wrap, num_iterations=30)
        for axis in (0, 1):
            seam, inside = steps_across(rgb, axis)
            repeats = axis in AXES[wrap]
            assert seam < 1.3 * inside if repeats else seam > 1.3 * inside, (wrap, axis)


def test_scales_tiles_devices_and_resuming_agree(source, tmp_path):
    more = {"wrap": "xy", "num_iterations": None, "size": (100, 200), "scales": [100, 200], "scale_iterations": [4, 3]}
    more |= {"style_layers": ["relu1", "relu2_2"], "backend": "numpy"}
    rgb = synthesize(source, **more)
    assert np.abs(synthesize(source, **more, tile_size=160) - rgb).mean() < 0.05
    two = [backends.get("numpy"), backends.get("numpy")]
    assert np.abs(synthesize(source, **{**more, "backend": "auto"}, devices=two) - rgb).mean() < 0.05
    path = str(tmp_path / "run.npz")
    for stop in (2, 5):

        def until(iterate, stop=stop):
            if iterate.iteration == stop:
                raise cvstyle.Stop

        synthesize(source, **more, checkpoint=path, resume=True, callback=until)
    np.testing.assert_array_equal(synthesize(source, **more, checkpoint=path, resume=True), rgb)
    for other in ({"wrap": "x"}, {"size": (98, 200)}):
        with pytest.raises(CheckpointError):
            synthesize(source, **{**more, **other}, checkpoint=path, resume=True)


@pytest.mark.parametrize("wrap", [None, *AXES])
def test_enlarging_a_picture_that_repeats(source, wrap, monkeypatch):
    """By np.interp; no larger picture is made, also where the sizes have no common factor."""
    options = Options(wrap=wrap, seed=1, scales=[101, 203], margin=0)
    setup = cvstyle.Job(Canvas(size=(150, 203)), [source], options=options).setup()
    x = noise(1, 3, *setup.sizes[0], seed=1).astype(np.float32)
    scale = Scale(setup, 1, objective=False)
    expected = x.astype(float)
    for axis, (n, new) in enumerate(zip(*setup.sizes)):
        places = (np.arange(new) + 0.5) * n / new - 0.5
        period = n if axis in AXES.get(wrap, ()) else None
        expected = np.apply_along_axis(lambda v, *a: np.interp(*a[:1], np.arange(len(v)), v, period=a[1]), 2 + axis,
                                       expected, places, period)  # fmt: skip
    resize, sizes = cv2.resize, []
    monkeypatch.setattr(cv2, "resize", lambda *a, **more: sizes.append(a[1]) or resize(*a, **more))
    np.testing.assert_allclose(scale.enlarged(x), expected, atol=1e-3)
    assert sizes == [(203, 150)]


def test_a_source_keeps_its_size(source):
    """And the noise of the start its colours."""

    def setup(size, source=source, **options):
        return cvstyle.Job(Canvas(size=size), [source], options=Options(seed=1, **options)).setup()

    assert setup((64, 256)).style_sizes(0) == [(128, 128)]  # at the last scale
    assert setup("512x256").style_sizes(0) == [(64, 64)] and setup("512×256").sizes[0] == (128, 256)
    assert setup(512, style_scale=2).style_sizes(2) == [(256, 256)]
    assert setup((64, 64)).style_sizes(0) == [(64, 64)]  # larger than the texture
    assert setup(None).sizes == [(128, 128)]
    assert setup(None, np.full((1500, 3000, 3), 9, np.uint8)).sizes[-1] == (512, 1024)
    one = setup((512, 512))
    rgb = one.deprocess(Scale(one, len(one.sizes) - 1).start()[0]).reshape(-1, 3)
    pixels = np.asarray(Image.open(source), float).reshape(-1, 3)
    np.testing.assert_allclose(rgb.mean(axis=0), pixels.mean(axis=0), atol=0.5)
    np.testing.assert_allclose(np.cov(rgb.T), np.cov(pixels.T), rtol=0.03, atol=20)


@pytest.mark.parametrize("picture", [
    np.full((40, 30), 200, np.uint8), np.full((64, 64, 3), 40000, np.uint16),
    np.dstack([pictures.noise(80, 70, 3, scale=60) % 255, np.full((80, 70), 255) * (np.arange(70) > 20)]),
    Image.fromarray(np.zeros((70, 50, 4), np.uint8) + np.arange(50, dtype=np.uint8)[:, None] + 100),
], ids=["grey", "16 bits", "alpha", "Pillow"])  # fmt: skip
def test_any_picture(picture):
    rgb = synthesize(picture, (49, 66), num_iterations=2, wrap="y")
    assert rgb.shape == (49, 66, 3) and np.isfinite(rgb).all()


def test_several_sources_and_a_pickled_job(source):
    second = np.full((70, 90, 3), (200, 30, 30), np.uint8)
    job = cvstyle.Job(
        Canvas(size=(48, 48)), [source, second], options=Options(num_iterations=2, seed=1, blend_weights=[0, 1])
    )
    result = pickle.loads(pickle.dumps(job)).run()
    assert result.picture.rgb.shape == (48, 48, 3)
    assert result.picture.rgb.mean(axis=(0, 1)) == pytest.approx([200, 30, 30], abs=15)


def test_a_seamless_run(source):
    content = np.roll(np.asarray(Image.open(source)), (64, 64), (0, 1))
    more = {"image_size": 96, "num_iterations": 8, "seed": 1, "wrap": "xy", "strength": 1}
    rgb = cvstyle.stylize(content, source, **more).picture.rgb
    moved = cvstyle.stylize(np.roll(content, 64, 0), source, **more).picture.rgb
    assert np.corrcoef(np.roll(rgb, 48, 0).ravel(), moved.ravel())[0, 1] > 0.8


def test_plan(source):
    """With the pixels that are computed beyond the edges."""
    plans = {}
    costs = None
    for wrap in (None, "xy"):
        setup = cvstyle.Job(Canvas(size=256), [source], options=Options(wrap=wrap, seed=1)).setup()
        setup.reading_peak = 0  # that of this process, by whatever it did before
        planner = Planner(setup)
        planner.costs = costs = costs or planner.costs
        plans[wrap] = planner.plan()
    assert plans["xy"].size == (256, 256)
    assert min(plans["xy"].window) > 256 + 171 - 16  # the pixels that a position of the deepest layer sees
    assert plans["xy"].memory > plans[None].memory


# The command line


def test_command_line(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["--num-iterations", "1", "--seed", "1"]
    assert main(["texture", str(source), "--size", "50x40", "--tile", "yx", *quick]) == 0
    assert Image.open("strokes_texture.png").size == (50, 40)
    assert main(["-o", "a.png", "texture", "--style", str(source), *quick, "--size=48", str(source)]) == 0
    assert Image.open("a.png").size == (48, 48)
    assert main(["texture", str(source), *quick]) == 0
    assert "128×128 pixels, by the first picture" in capsys.readouterr().err
    assert main(["texture", str(source), "--plan", "--size", "64 x 48"]) == 0
    assert "picture   64×48" in (out := capsys.readouterr().out) and "--size " in out
    assert not Path("out.png").exists()


@pytest.mark.parametrize("words, message", [
    ("", "no picture is named: cvstyle texture"),
    ("-o {source}", "no picture is named: '{source}' is the value of --output"),
    ("{source} --size 0x10", "--size: '0x10' is no size"), ("{source} --size big", "'big' is no size"),
    ("{source} --size 10x", "'10x' is no size"), ("{source} --size -5", "'-5' is no size"),
    ("{source} 64x64", "say --size 64x64"), ("nothing.png", "texture nothing.png: there is no such file"),
    ("{source} --content a.png", "--content is for a photograph"), ("{source} -c a.png", "for a photograph"),
    ("{source} --content-weight 3", "--content-weight is for a photograph"),
    ("{source} --original-colors", "is for a photograph"), ("{source} --strength 0.4", "is for a photograph"),
    ("{source} --image-size 64", "cvstyle texture bricks.jpg --size"), ("{source} --tile z", "'z' is not x, y or xy"),
    ("{source} --size 64 --scales 32,48", "leave one of them out"), ("{source} --tile {source}", "is not x, y or xy"),
    ("{source} -o {source}", "would overwrite the input"), ("{source} --siez 64", "did you mean --size?"),
])  # fmt: skip
def test_errors(source, words, message, capsys):
    assert main(["texture", *words.format(source=source).split()]) == 2
    out = capsys.readouterr().err
    assert message.format(source=source) in out and out.count("\n") == 1


def test_errors_from_python(source):
    for size in ((0, 5), "x", 3.5, (1, 2, 3), [4]):
        with pytest.raises(OptionError, match="a size such as 1024"):
            cvstyle.synthesize(source, size)
    with pytest.raises(OptionError, match="content_weight is for a photograph"):
        cvstyle.synthesize(source, 64, content_weight=3)
    with pytest.raises(OptionError, match="give its size as size"):
        cvstyle.synthesize(source, image_size=64)
    with pytest.raises(OptionError, match="no style picture is given"):
        cvstyle.synthesize([], 64)
    with pytest.raises(ImageError, match="transparent everywhere"):
        cvstyle.synthesize(np.zeros((8, 8, 4), np.uint8), 64)
