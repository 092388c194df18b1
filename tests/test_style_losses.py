"""Kinds of style losses, the Laplacian, total variation per pixel and presets of layers, against formulas in NumPy."""

from __future__ import annotations

import pickle
from ast import literal_eval
from dataclasses import replace

import nets
import numpy as np
import pytest
import scipy.linalg
from pictures import random_pixels
from test_losses import weights_of
from test_tiles import noise, vgg

from cvstyle import Job, Objective, Options, backends
from cvstyle.backends import opencl
from cvstyle.backends.reference import Backend
from cvstyle.errors import CheckpointError, OptionError
from cvstyle.graph import Network, load_network, tiling
from cvstyle.losses import create, parse_layer
from cvstyle.losses.layers import KINDS, parse_entry
from cvstyle.losses.style import kind_class
from cvstyle.regions import StyleRegion
from cvstyle.style import measure_styles
from cvstyle.zoo import files_of

SIZE = (150, 210)
NEW = [kind for kind in KINDS if kind != "gram"]
NEEDS_OPENCL = pytest.mark.skipif(
    opencl.Backend.unavailable_because() is not None,
    reason=f"no OpenCL here: {opencl.Backend.unavailable_because()}; NumPy shows the logic",
)


# Formulas


def features(positions, channels=6, seed=0, dead=0):
    """(C, N) features as after a ReLU, with correlated channels of which some are dead."""
    rng = np.random.default_rng(seed)
    found = np.maximum(rng.normal(size=(channels, channels)) @ rng.normal(0.4, 1, (channels, positions)), 0) * 50
    found[:dead] = 0
    return found


def moments_of(f):
    return np.vstack([f @ f.T / f.size, f.mean(axis=1)])


def direct(kind, f, t):
    """The unscaled loss of two sets of features, without moments; of Wasserstein with the floor on the diagonals."""
    if kind == "covariance":
        channels = len(f)
        pull = 2 * (t**2).mean() / channels**2
        spread = (np.cov(f, bias=True) - np.cov(t, bias=True)) / channels
        return (spread**2).mean() + pull * ((f.mean(1) - t.mean(1)) ** 2).mean()
    if kind == "shifted":
        f, t = f - t.mean(), t - t.mean()
        return ((f @ f.T / f.size - t @ t.T / t.size) ** 2).mean()
    floor = 1e-4 * (t**2).mean() * np.eye(len(f))
    a, b = np.cov(f, bias=True) + floor, np.cov(t, bias=True) + floor
    root = scipy.linalg.sqrtm(b)
    cross = scipy.linalg.sqrtm(root @ a @ root).real
    return ((f.mean(1) - t.mean(1)) ** 2).mean() + np.trace(a + b - 2 * cross) / len(f)


def value(kind, f, t, weight=3.0):
    """The loss by cvstyle, and its gradient for the features by its slope."""
    ops = Backend("float64")
    loss = kind_class(kind)("style:x", "x", weight)
    target = loss.style_target(ops, moments_of(t))
    found, slope = loss.compare(ops, moments_of(f), target)
    gradient = slope.factor * np.asarray(slope.matrix) @ f / f.size + slope.shift.reshape(-1, 1) / f.shape[1]
    return float(found) / weight, gradient


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("dead", [0, 2])
def test_values_by_formula(kind, dead):
    """But for the covariance's, scaled so that zeros have the loss of Gram; also for signed features, dead channels."""
    for shift in (0, -20):
        f, t = features(40, seed=1, dead=dead) + shift, features(70, seed=2) + shift
        gram = t @ t.T / t.size
        if kind == "covariance":
            scale = 1
        elif kind == "shifted":
            base = t - t.mean()
            scale = (gram**2).mean() / ((base @ base.T / t.size - t.mean() ** 2 / len(t)) ** 2).mean()
        else:
            scale = (gram**2).mean() / direct(kind, np.zeros((len(t), 5)), t)
        assert value(kind, f, t)[0] == pytest.approx(scale * direct(kind, f, t), rel=1e-7)
        assert value(kind, t, t)[0] == pytest.approx(0, abs=1e-10 * (gram**2).mean())
        zeros = scale * direct(kind, np.zeros((len(t), 5)), t) if kind == "covariance" else (gram**2).mean()
        assert value(kind, np.zeros((len(t), 5)), t)[0] == pytest.approx(zeros, rel=1e-9)
        assert np.abs(value(kind, t, t)[1]).max() <= 1e-8 * np.abs(value(kind, f, t)[1]).max()


@pytest.mark.parametrize("kind", NEW)
def test_gradient_for_the_features(kind):
    f, t = features(40, seed=1), features(70, seed=2)
    gradient, rng = value(kind, f, t)[1], np.random.default_rng(3)
    for _ in range(3):
        direction = rng.normal(size=f.shape)
        above, below = (value(kind, f + sign * 1e-4 * direction, t, 1.0)[0] for sign in (1, -1))
        assert (above - below) / 2e-4 == pytest.approx((gradient * direction).sum(), rel=1e-5)


@pytest.mark.parametrize("kind", NEW)
def test_degenerate_features_stay_finite(kind):
    """Fewer positions than channels, one position, no activation, equal channels, in float32 and in float64."""
    for dtype in ("float32", "float64"):
        ops = Backend(dtype)
        maps = [features(3), features(1), np.zeros((6, 9)), np.ones((6, 9)), features(40), features(40, dead=6)]
        for t in maps:
            loss = kind_class(kind)("style:x", "x", 1.0)
            target = loss.style_target(ops, moments_of(t).astype(dtype))
            for f in maps:
                found, slope = loss.compare(ops, moments_of(f).astype(dtype), target)
                assert np.isfinite(float(found)) and found >= -1e-6 * (t**2).mean() ** 2
                assert np.isfinite(slope.matrix).all() and np.isfinite(slope.shift).all() and np.isfinite(slope.factor)


def test_means_of_zero_are_grams():
    """Without means, covariance and shifted features have the loss of Gram."""
    f, t = (x - x.mean(axis=1, keepdims=True) for x in (features(40, seed=1), features(70, seed=2)))
    gram = ((f @ f.T / f.size - t @ t.T / t.size) ** 2).mean()
    assert value("covariance", f, t)[0] == pytest.approx(gram, rel=1e-9)
    assert value("shifted", f, t)[0] == pytest.approx(gram, rel=1e-9)


def test_wasserstein_of_known_distributions():
    """(μ − μ_t)² + Σ (σ − σ_t)² for independent channels, but for the floor; scaled to 10⁴ for zeros."""
    rng = np.random.default_rng(0)
    f, t = (s[:, None] * rng.choice([-1.0, 1.0], (4, 4000)) + m[:, None] for s, m in rng.uniform(1, 9, (2, 2, 4)))
    whole = lambda x, y: ((x.mean(1) - y.mean(1)) ** 2).mean() + ((x.std(1) - y.std(1)) ** 2).mean()  # noqa: E731
    found = value("wasserstein", f, t)[0]
    gram = ((t @ t.T / t.size) ** 2).mean()
    assert found / gram == pytest.approx(whole(f, t) / whole(np.zeros((4, 9)), t), rel=0.02)


# Within an objective


def objective(net, kind, size=SIZE, weights=None, styles=None, **settings):
    losses = [kind_class(kind)(f"own:{layer}", layer, 1e2, weights=weights) for layer in ("relu2_1", "relu3_1")[1:]]
    if styles is None:
        styles = measure_styles(net, losses, [noise(3, *size, seed=2), noise(3, 64, 90, seed=3)] if weights is None
                                else [noise(3, *size, seed=2)])  # fmt: skip
    return Objective(net, noise(3, *size), styles, more_losses=losses, **{"tv_weight": 0, **settings})


@pytest.mark.parametrize("options", [
    {}, {"weighted": True}, {"strength": 0.4}, {"balance": "targets"}, {"tile_size": 104, "weighted": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("kind", NEW)
def test_gradient_is_that_of_the_loss(kind, options):
    net, options = vgg(Backend("float64")), dict(options)
    size = (130, 150) if "tile_size" in options else (48, 56)
    weights = weights_of(net, "relu3_1", size) if options.pop("weighted", False) else None
    function, x = objective(net, kind, size, weights, **options), noise(3, *size, seed=9)
    assert ("tile_size" in options) == (len(function.tiles) > 1)
    loss, gradient = function(x)
    assert loss > 0
    norm, rng = np.linalg.norm(gradient), np.random.default_rng(0)
    for direction in (gradient, rng.normal(size=x.shape)):
        direction = direction / np.linalg.norm(direction)
        above, below = function(x + 1e-3 * direction)[0], function(x - 1e-3 * direction)[0]
        assert abs((above - below) / 2e-3 - (gradient * direction).sum()) <= 2e-5 * norm


@pytest.mark.parametrize("settings", [
    {}, {"normalize_gradients": True, "balance": "targets"}, {"devices": 2, "strength": 0.5},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("kind", [*NEW, "laplacian", "variation"])
def test_tiles_and_devices_change_nothing(kind, settings, monkeypatch):
    monkeypatch.setattr(tiling, "STRIP", 8 * 3 * SIZE[1] * 17)  # strips of 17 rows, where the loss has no step
    settings = {"style_layers": ["relu1_1", "relu3_1:2"], "content_layers": ["relu2_2"], "tv_weight": 1e-2} | settings
    settings |= {
        "laplacian": {"laplacian": 5, "laplacian_pool": [4, 7], "tv_weight": 0},
        "variation": {"tv_per_pixel": True},
    }.get(kind, {"style_loss": kind})  # fmt: skip
    devices = [Backend("float64") for _ in range(settings.pop("devices", 1))]
    net, x = vgg(devices[0]), noise(3, *SIZE, seed=5)
    pictures = noise(3, *SIZE), [noise(3, 96, 130, seed=2)]
    whole = Objective(net, *pictures, **settings)
    tiled = Objective(net, *pictures, tile_size=104, devices=devices, **settings)
    assert len(tiled.tiles) > 1
    (loss, gradient), (own_loss, own_gradient) = whole(x), tiled(x)
    assert own_loss == pytest.approx(loss, rel=1e-9)
    assert tiled.losses == pytest.approx(whole.losses, rel=1e-9)
    assert np.linalg.norm(own_gradient - gradient) <= 1e-9 * np.linalg.norm(gradient)


@NEEDS_OPENCL
@pytest.mark.parametrize(("kind", "tile_size"), [
    ("covariance", 104), ("shifted", None), ("wasserstein", 104), ("laplacian", 104), ("variation", None),
])  # fmt: skip
def test_on_a_device(device, kind, tile_size):
    settings = {"style_layers": ["relu1_1", "relu3_1:2"], "tv_weight": 0} | {
        "laplacian": {"laplacian": 5, "laplacian_pool": [4, 7], "style_weight": 0},
        "variation": {"tv_per_pixel": True, "tv_weight": 1e-2, "style_weight": 0},
    }.get(kind, {"style_loss": kind})  # fmt: skip
    pictures, x = (noise(3, *SIZE), [noise(3, 96, 130, seed=2)]), noise(3, *SIZE, seed=5)
    exact = Objective(vgg(Backend("float64")), *pictures, **settings)(x)
    loss, gradient = Objective(vgg(device), *pictures, tile_size=tile_size, **settings)(x)
    assert loss == pytest.approx(exact[0], rel=1e-4)
    assert np.linalg.norm(gradient - exact[1]) <= 1e-3 * np.linalg.norm(exact[1])


def test_kinds_by_layer():
    net = vgg(Backend("float64"))
    pictures, x = (noise(3, *SIZE), [noise(3, 96, 130, seed=2)]), noise(3, *SIZE, seed=5)

    def losses(**settings):
        function = Objective(net, *pictures, tv_weight=0, **settings)
        function(x)
        return function.losses

    each = losses(style_layers="relu1_1:2@Wasserstein, relu2_1, relu3_1@shifted:3", style_loss="covariance")
    assert each == losses(
        style_layers=[("relu1_1", 2, "wasserstein"), "relu2_1", ("relu3_1", 3, "shifted")], style_loss="covariance"
    )
    assert each == losses(
        style_layers={"relu1_1": (2, "wasserstein"), "relu2_1": 1, "relu3_1": (3, "shifted")}, style_loss="COVARIANCE"
    )
    for name, kind, factor in (("relu1_1", "wasserstein", 2), ("relu2_1", "covariance", 1), ("relu3_1", "shifted", 3)):
        alone = losses(style_layers=[name], style_loss=kind)
        assert each[f"style:{name}"] == pytest.approx(factor * alone[f"style:{name}"], rel=1e-12)


def test_entries():
    assert parse_entry("crop@36:3") == ("crop@36", 3, None)
    assert parse_entry("crop@36@gram") == ("crop@36", 1, "gram")
    assert parse_entry("a@Shifted:2") == parse_entry("a:2@shifted") == ("a", 2, "shifted")
    assert parse_entry("a:b@c") == ("a:b@c", 1, None)
    assert parse_layer("a:2@shifted") == parse_layer(("a", 2, "shifted")) == ("a", 2)
    for wrong, message in {
        (("a", 1, "grma"),): "the style loss of layer 'a' is 'grma'.*did you mean gram",
        ("a:2@gram", "a"): "listed twice", ("a:-1@gram",): "the weight of layer 'a' is -1",
    }.items():
        with pytest.raises(OptionError, match=message):
            create({"style_layers": list(wrong)})
    with pytest.raises(OptionError, match="style_loss is 'sliced'; there are gram, "):
        create({"style_loss": "sliced", "style_layers": ["a"]})
    with pytest.raises(OptionError, match="content layer 'a' has '@gram'"):
        create({"content_layers": ["a@gram"]})


def test_only_wasserstein_waits_for_the_host():
    net, content = vgg(Backend()), noise(3, 40, 50)
    for kind in KINDS:
        function = Objective(net, content, [content], style_layers=["relu1_1"], style_loss=kind)
        assert function.capturable == (kind != "wasserstein")
        loss = pickle.loads(pickle.dumps(function._losses[0]))
        assert type(loss) is kind_class(kind) and loss.weight == function._losses[0].weight


# Losses of the picture


def laplacian_of(x, pool):
    """The Laplacian by loops, of (3, H, W)."""
    rows, columns = (n // pool for n in x.shape[1:])
    means = np.array([
        [x[:, i * pool : (i + 1) * pool, j * pool : (j + 1) * pool].mean(axis=(1, 2)).sum() for j in range(columns)]
        for i in range(rows)
    ])  # fmt: skip
    return 4 * means[1:-1, 1:-1] - means[:-2, 1:-1] - means[2:, 1:-1] - means[1:-1, :-2] - means[1:-1, 2:]


@pytest.mark.parametrize(("size", "pool"), [((24, 31), 4), ((17, 20), 5), ((9, 6), 2), ((5, 7), 1)])
def test_laplacian_by_formula(size, pool):
    net, content, x = vgg(Backend("float64")), noise(3, *size), noise(3, *size, seed=1)
    function = Objective(net, content, laplacian=7, laplacian_pool=[pool], tv_weight=0)
    loss, gradient = function(x)
    wanted = laplacian_of(content, pool)
    assert loss == pytest.approx(7 * ((laplacian_of(x, pool) - wanted) ** 2).mean(), rel=1e-10)
    assert function.losses == {"laplacian": loss}
    direction = np.random.default_rng(0).normal(size=x.shape)
    above, below = function(x + 1e-3 * direction)[0], function(x - 1e-3 * direction)[0]
    assert (above - below) / 2e-3 == pytest.approx((gradient * direction).sum(), rel=1e-7)
    balanced = Objective(net, content, laplacian=7, laplacian_pool=[pool], tv_weight=0, balance="targets")(x)[0]
    assert balanced == pytest.approx(loss * 1e4 / (wanted**2).mean(), rel=1e-9)
    at_content = function(content)
    assert at_content[0] == 0 and not at_content[1].any()


def test_laplacian_of_small_and_several_squares():
    net, content, x = vgg(Backend("float64")), noise(3, 40, 44), noise(3, 40, 44, seed=1)
    alone = [Objective(net, content, laplacian=2, laplacian_pool=[p], tv_weight=0)(x)[0] for p in (4, 13)]
    both = Objective(net, content, laplacian=2, laplacian_pool="4,13,14", tv_weight=0)  # three squares of 14 are 42
    both(x)
    assert both.losses == pytest.approx({"laplacian:4": alone[0], "laplacian:13": alone[1]}, rel=1e-12)
    for wrong in ([], [0], [4, 4]):
        with pytest.raises(OptionError, match=r"laplacian_pool is .*different sizes"):
            create({"laplacian": 1, "laplacian_pool": wrong})


def test_squares_that_are_too_large_are_said():
    """Edges need three squares; a loss without any would be left out in silence."""
    options = Options(image_size=48, margin=0, laplacian=9, laplacian_pool=[13, 14])
    said = Job(random_pixels(40, 48), random_pixels(40, 48), options=options).setup().remarks
    assert "the loss laplacian:14 has no effect: a picture of 48×40 is too small for it" in said
    assert not any("laplacian:13" in line for line in said)


def test_variation_per_pixel():
    """Half the sum of squared differences, times 512·384 over the number of pixels, whatever the balance."""
    x = noise(3, 40, 52)
    block = x[:, :-1, :-1]
    total = ((block - x[:, :-1, 1:]) ** 2 + (block - x[:, 1:, :-1]) ** 2).sum() / 2
    for balance in ("none", "targets"):
        found = Objective(vgg(Backend("float64")), x, tv_weight=0.1, tv_per_pixel=True, balance=balance)(x)[0]
        assert found == pytest.approx(0.1 * total * 512 * 384 / (40 * 52), rel=1e-10)


# Presets of layers


def setup(net, **options):
    content, style = (np.full((n, n + 20, 3), 128, np.float32) for n in (120, 90))
    return Job(content, [style], options=Options(image_size=140, seed=1, **options), network=net).setup()


def layers_of(net, **options):
    return dict(map(parse_layer, setup(net, **options).loss_settings["style_layers"]))


def test_presets_of_vgg():
    net = vgg(Backend())
    names = [f"relu{n}_1" for n in range(1, 6)]
    assert layers_of(net) == layers_of(net, style_layers="gatys") == dict.fromkeys(names, 1)
    falling = dict(zip(names, np.array([256, 64, 16, 4, 1]) * 5 / 341))  # of style-transfer-pytorch
    assert layers_of(net, style_layers="Falling") == pytest.approx(falling)
    every = [n for n in net.layer_names if n.startswith("relu")]
    every = every[: every.index("relu5_1") + 1]
    weights = 2.0 ** -np.arange(len(every))
    assert layers_of(net, style_layers="all") == pytest.approx(dict(zip(every, weights * len(every) / weights.sum())))
    assert list(layers_of(net, style_layers="fine")) == names[:3]
    assert list(layers_of(net, style_layers="coarse")) == names[2:]
    mixed = layers_of(net, style_layers="coarse:2, relu1_2:5")
    assert mixed == {"relu3_1": 2, "relu4_1": 2, "relu5_1": 2, "relu1_2": 5}
    found = setup(net, style_layers=["falling@shifted"], style_loss="wasserstein")
    assert {loss.name: type(loss).__name__ for loss in create(found.loss_settings) if loss.layer in names} == {
        f"style:{name}": "Shifted" for name in names
    }
    assert any("style by the preset falling: relu1_1:3.75,relu2_1:0.938" in line for line in found.remarks)
    assert [parse_layer(literal_eval(text)) for text in found.identity["style_layers"]] == [
        (name, pytest.approx(falling[name])) for name in names
    ]


def test_presets_of_any_network():
    """The layers are chosen from the graph; factors of the family's own layers stay but for falling and all."""
    resnet = Network(nets.resnet50(4, (140, 140)), Backend())
    chosen = setup(resnet).value("style_layers")
    assert list(layers_of(resnet, style_layers="gatys")) == chosen
    for preset in ("falling", "all"):
        weights = layers_of(resnet, style_layers=preset)
        assert set(chosen) <= set(weights) and np.mean(list(weights.values())) == pytest.approx(1)
        assert list(weights.values()) == sorted(weights.values(), reverse=True)
    wavelet = load_network(*files_of(None, "wavelet"), Backend())
    own = {"octave1": 6, "octave2": 1, "octave3": 1, "octave4": 1, "octave5": 0.1}
    assert layers_of(wavelet, style_layers="gatys") == own
    assert layers_of(wavelet, style_layers="fine") == {name: own[name] for name in list(own)[:3]}
    assert list(layers_of(wavelet, style_layers="all")) == list(own)  # its features are on no common path


def test_a_layer_that_is_called_like_a_preset_has_priority():
    definition = nets.vgg(19, 8, (32, 32), classifier=False)
    layers = [replace(layer, name="all") if layer.name == "relu1_2" else layer for layer in definition.layers]
    net = Network(replace(definition, layers=tuple(layers)), Backend())
    assert layers_of(net, style_layers="all,relu2_1") == {"all": 1, "relu2_1": 1}
    with pytest.raises(OptionError, match=r"there is no layer or preset 'fallin'; did you mean falling\?"):
        setup(net, style_layers="fallin")
    with pytest.raises(OptionError, match=r"no style loss 'covarience'; did you mean covariance\?"):
        setup(net, style_layers="relu2_1:2@covarience")


def test_a_run_resumes_and_is_cut_into_tiles(tmp_path):
    """With all that is new: the bytes of a run in one piece, and the picture of one without tiles."""
    picture = lambda *size: np.random.default_rng(0).uniform(0, 255, (*size, 3)).astype(np.float32)  # noqa: E731
    options = {
        "style_layers": "falling@wasserstein", "style_loss": "covariance", "laplacian": 20, "tv_per_pixel": True,
        "image_size": 130, "seed": 1, "margin": 0,
    }  # fmt: skip
    files = dict(zip(("proto", "model"), nets.write(nets.vgg(16, 8, (32, 32), classifier=False), tmp_path)))

    def run(**more):
        job = Job(picture(90, 130), [picture(80, 80)], options=Options(**options | more), **files)
        return pickle.loads(pickle.dumps(job)).run().picture.rgb

    whole = run(num_iterations=4)
    saved = {"checkpoint": str(tmp_path / "run.npz"), "resume": True}
    run(num_iterations=2, **saved)
    changes = {"laplacian": 10, "style_layers": "falling@shifted", "style_loss": "gram", "tv_per_pixel": 0}
    for name, value in changes.items():
        with pytest.raises(CheckpointError, match=f"with (another|other) {name} "):
            run(num_iterations=4, **saved, **{name: value})
    np.testing.assert_array_equal(run(num_iterations=4, **saved), whole)
    layers = {"style_layers": "relu1_1@wasserstein,relu2_1:0.3", "content_layers": "relu2_2"}
    tiled, untiled = (run(num_iterations=3, tile_size=side, **layers) for side in (64, None))
    assert np.sqrt(np.mean((tiled - untiled) ** 2)) < 0.01  # levels of 255


@pytest.mark.parametrize("kind", NEW)
def test_regions_have_every_kind(kind):
    """Two regions with a style each, one of them a few positions of the layer: as one loss on each part."""
    size = (64, 80)
    net, x = vgg(Backend("float64")), noise(3, *size, seed=5)
    styles = [noise(3, 60, 50, seed=2), noise(3, 40, 70, seed=3)]
    mask = np.zeros(size, np.float32)
    mask[:16, :24] = 1  # six positions of relu3_1
    regions = [StyleRegion("a", mask, {0: None}, weight=1.0), StyleRegion("b", 1 - mask, {1: None}, weight=1.0)]
    settings = {"style_layers": ["relu3_1"], "style_loss": kind, "tv_weight": 0}
    function = Objective(net, noise(3, *size), styles, regions=regions, **settings)
    gradient = function(x)[1]
    maps = [net.program(["relu3_1"]).forward(p[None], needs_grad=False)["relu3_1"] for p in (x, *styles)]
    f, *targets = (np.asarray(m)[0] for m in maps)
    inside = np.zeros(f.shape[1:], bool)
    inside[:4, :6] = True
    for (name, part), t in zip({"a": inside, "b": ~inside}.items(), targets):
        alone = value(kind, f[:, part], t.reshape(len(t), -1), 1.0)[0]
        assert function.losses[f"style:relu3_1@{name}"] == pytest.approx(100 * alone, rel=1e-5)  # weights are float32
    direction = gradient / np.linalg.norm(gradient)
    above, below = function(x + 1e-3 * direction)[0], function(x - 1e-3 * direction)[0]
    assert (above - below) / 2e-3 == pytest.approx(np.linalg.norm(gradient), rel=1e-4)


@pytest.mark.parametrize("name", ["native", "opencv"])
@pytest.mark.parametrize("kind", [*NEW, "laplacian"])
def test_other_backends(name, kind):
    settings = {"laplacian": {"laplacian": 5}}.get(kind, {"style_loss": kind})
    pictures, x = (noise(3, 60, 70), [noise(3, 50, 40, seed=2)]), noise(3, 60, 70, seed=5)
    settings |= {"style_layers": ["relu1_1", "relu3_1"]}
    exact = Objective(vgg(Backend("float64")), *pictures, **settings)(x)
    loss, gradient = Objective(vgg(backends.get(name)), *pictures, **settings)(x)
    assert loss == pytest.approx(exact[0], rel=1e-4)
    assert np.linalg.norm(gradient - exact[1]) <= 1e-3 * np.linalg.norm(exact[1])
