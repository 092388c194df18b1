"""Tiles: loss and gradient from windows are those of the whole picture, whatever the graph, the sizes and the tiles."""

from __future__ import annotations

import math
import os
import weakref
from functools import partial

import nets
import numpy as np
import pictures
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cvstyle import Objective
from cvstyle.backends.mapped import MappedPool
from cvstyle.backends.reference import Backend
from cvstyle.errors import OptionError
from cvstyle.graph import Network, Program, Region
from cvstyle.graph.tiling import Rect, split
from cvstyle.netdef import LayerDef, NetDef

DEEP = {
    "content_layers": ["relu4_2", "conv2_1:0.3"], "style_layers": ["relu1_1", "pool1", "relu3_1:2", "relu5_1"],
    "style_weight": 1e3, "tv_weight": 1e-2,
}  # fmt: skip
noise = partial(pictures.noise, scale=50, dtype=np.float64)


def vgg(ops, width=16):
    return Network(nets.vgg(19, width, (32, 32), classifier=False), ops)


def evaluate(net, size, tile_size, styles=((40, 50),), devices=None, **settings):
    objective = Objective(
        net, noise(3, *size), [noise(3, *s, seed=2 + i) for i, s in enumerate(styles)], tile_size=tile_size,
        devices=devices, **settings,
    )  # fmt: skip
    loss, gradient = objective(noise(3, *size, seed=1))
    return loss, gradient, objective


def assert_same(net, size, tile_size, tolerance=1e-10, **settings):
    """Compares with the whole picture; returns the tiled objective."""
    devices = settings.pop("devices", None)
    loss, gradient, whole = evaluate(net, size, None, **settings)
    tiled_loss, tiled_gradient, tiled = evaluate(net, size, tile_size, devices=devices, **settings)
    assert tiled_loss == pytest.approx(loss, rel=tolerance)
    assert tiled.losses == pytest.approx(whole.losses, rel=max(tolerance, 1e-9))
    assert np.linalg.norm(tiled_gradient - gradient) <= tolerance * np.linalg.norm(gradient)
    return tiled


def check_features(net, taps, size, tile, first=0):
    """What windows own of feature maps has the bits of the whole picture's.

    first: so many windows are computed before the picture is.
    """
    program, x = net.program(taps), noise(1, 3, *size).astype(np.float32)
    found = split(program, size, tile)
    assert len(found) > 1

    def features(part, keep):
        rows, columns = (slice(a, a + n) for a, n in zip(part.start, part.shape))
        window = program.ops.asarray(np.ascontiguousarray(x[..., rows, columns]))
        maps = program.forward(window, needs_grad=keep, region=Region(part.start, size))
        return {name: np.array(program.ops.to_host(maps[name])) for name in taps}

    parts = [features(tile.window, keep=False) for tile in found[:first]]
    whole = features(Rect((0, 0), size), keep=True)
    parts += [features(tile.window, keep=False) for tile in found[first:]]
    for tile, part in zip(found, parts, strict=True):
        for name, owned in tile.owned.items():
            step = -(-size[0] // whole[name].shape[2])
            starts = [a + s // step for a, s in zip(owned.start, tile.window.start)]
            expected, own = (
                array[..., y : y + owned.shape[0], x : x + owned.shape[1]]
                for array, (y, x) in ((whole[name], starts), (part[name], owned.start))
            )
            np.testing.assert_array_equal(own, expected)


# Whole networks


@pytest.mark.parametrize("options", [
    {}, {"pooling": "avg"}, {"normalize_gradients": True}, {"content_layers": []}, {"tv_weight": 0},
    {"styles": [(210, 61), (33, 300)], "style_blend_weights": [1, 3]}, {"style_layers": []},
    {"style_layers": [], "normalize_gradients": True},
], ids=str)  # fmt: skip
def test_every_option(options):
    tiled = assert_same(vgg(Backend("float64")), (211, 307), 200, **DEEP | options)
    assert len(tiled.tiles) > 1


def test_a_style_may_need_larger_windows_than_the_content():
    """They are then the least that it can be cut into."""
    net = vgg(Backend("float64"))
    program, layers = net.program(["relu1_1", "relu3_1"]), {"style_layers": ["relu1_1", "relu3_1"]}
    size, style = (74, 98), (79, 105)
    least = [least_tile(program, s) for s in (size, style)]
    assert least[0] < least[1]
    assert_same(net, size, least[0], styles=[style], **layers)


@pytest.mark.parametrize("normalize", [False, True])
def test_one_windows_maps_are_gone_before_the_next(normalize, monkeypatch):
    """Of every pass, and of the styles': memory is that of one window."""
    forward, alive = Program.forward, []

    def watched(self, *args, **named):
        assert all(reference() is None for reference in alive)
        features = forward(self, *args, **named)
        alive[:] = [weakref.ref(f) for f in dict.values(features) if isinstance(f, np.ndarray)]
        assert alive
        return features

    net = vgg(Backend("float32", threads=1))
    monkeypatch.setattr(Program, "forward", watched)
    settings = DEEP | {"normalize_gradients": normalize, "content_layers": [], "style_layers": ["relu1_1", "relu2_1"]}
    _, _, objective = evaluate(net, (61, 97), 48, styles=[(70, 90)], **settings)
    assert len(objective.tiles) > 2


@pytest.mark.parametrize("size", [(200, 16), (17, 420), (189, 188), (401, 233), (180, 180), (90, 181)])
def test_any_size(size):
    assert_same(vgg(Backend("float64")), size, 188, **DEEP)


@pytest.mark.parametrize("engine", [name for name in nets.ENGINES if name.startswith("native")])
@pytest.mark.parametrize("deepest, size, tile", [("relu5_1", (345, 333), 312), ("relu3_2", (158, 301), 126)])
def test_features_that_count_have_the_bits_of_the_whole_picture(engine, deepest, size, tile):
    """No block of theirs holds anything that the window does not know; along axes of less than 320 pixels all of the
    picture's blocks start at its border."""
    check_features(vgg(nets.ENGINES[engine](), 8), ["relu1_1", "relu2_2", "relu3_1", deepest], size, tile)


@pytest.mark.parametrize("engine", [name for name in nets.ENGINES if name.startswith("native")])
def test_blocks_are_moved_alike_for_content_and_gradient(engine):
    """Both programs, the content's and that of all layers, round alike: at the content its loss is none."""
    net = vgg(nets.ENGINES[engine](), 8)
    objective = Objective(
        net, noise(3, 345, 300), [noise(3, 60, 60)], content_layers=["relu4_2"], style_layers=["relu5_1"], tile_size=312
    )
    objective(noise(3, 345, 300).astype(np.float32))
    assert len(objective.tiles) > 1 and objective.losses["content:relu4_2"] == 0


@pytest.mark.parametrize("engine", [name for name in nets.ENGINES if name.startswith("native")][-1:])
def test_blocks_below_a_deconvolution_fit_its_own_which_cannot_be_moved(engine):
    rng, layers, weights = np.random.default_rng(0), [], {}
    for name, below, channels, kind in [
        ("first", "data", 3, "Convolution"), ("second", "first", 16, "Convolution"),
        ("third", "second", 16, "Deconvolution"), ("fourth", "third", 16, "Convolution"),
    ]:  # fmt: skip
        layers.append(LayerDef(name, kind, (below,), (name,), {"num_output": 16, "kernel_size": [3], "pad": [1]}))
        weights[name] = nets.blobs_for(layers[-1], [(1, channels, 8, 8)], rng)
    net = Network(NetDef("net", {"data": None}, tuple(layers), weights), nets.ENGINES[engine]())
    check_features(net, ["second", "third", "fourth"], (345, 333), 200)
    # A block of 4 takes 3 blocks of the deconvolution, 4 of the second layer, 18 positions of the first, 20 pixels.
    assert net.program(["fourth"]).footprint((345, 333), 0).largest == ("fourth", 20)


@pytest.mark.parametrize("engine", nets.ENGINES)
def test_float32_with_every_engine(engine):
    """On short axes a block at the border of what a window knows may round otherwise and turn a ReLU, which is rare."""
    (_, whole, _), (_, tiled, objective) = (
        evaluate(vgg(nets.ENGINES[engine](), 8), (430, 400), size, **DEEP) for size in (None, 340)
    )
    assert len(objective.tiles) > 1
    assert np.linalg.norm(tiled - whole) <= 1e-5 * np.linalg.norm(whole)


@pytest.fixture(scope="module")
def full_vgg():
    engine = list(nets.ENGINES)[-1]
    return Network(nets.vgg(19, 1, (32, 32), classifier=False), nets.ENGINES[engine]())


@pytest.mark.parametrize("size, tile", [((337, 299), 320), ((90, 421), 322), ((322, 345), 340)])
def test_float32_of_the_full_vgg19(full_vgg, size, tile):
    """Its default layers, with max pooling: 4e-6 was seen."""
    layers = {"content_layers": ["relu4_2"], "style_layers": [f"relu{n}_1" for n in (1, 2, 3, 4, 5)], "tv_weight": 0}
    assert len(assert_same(full_vgg, size, tile, 1e-5, **layers).tiles) > 1


@pytest.mark.parametrize("build, layers, size, tile", [
    (lambda: nets.nin(16, (96, 96)), ["relu3", "relu7", "relu0"], (301, 260), 200),
    (lambda: nets.alexnet(16, (96, 96)), ["relu3", "norm1", "pool2"], (251, 300), 180),
    (lambda: nets.caffenet(16, (96, 96)), ["relu3", "norm1", "relu5"], (300, 251), 220),
    (lambda: nets.googlenet(16, (96, 96)), ["inception_3a/output", "conv2/norm2", "pool1/3x3_s2"], (251, 230), 170),
    (lambda: nets.squeezenet(16, (96, 96)), ["fire4/concat", "pool1", "fire5/relu_expand1x1"], (260, 181), 170),
    (lambda: nets.resnet50(16, (96, 96)), ["res2c", "res3a", "conv1"], (200, 251), 160),
], ids=["nin", "alexnet", "caffenet", "googlenet", "squeezenet", "resnet50"])  # fmt: skip
def test_known_networks(build, layers, size, tile):
    """Strides, pads at one side, ceiling sizes, response normalisation, joins: pictures and tiles of odd sizes."""
    net = Network(build(), Backend("float64"))
    tiled = assert_same(net, size, tile, content_layers=layers[1:2], style_layers=layers, styles=[(150, 231)])
    assert len(tiled.tiles) > 1


def test_the_wavelets():
    """It divides by how much of a window lies in the picture: the border must stay where it is."""
    from cvstyle import load_network

    net = load_network(model="wavelet", backend=Backend("float64"))
    layers = {"content_layers": ["smooth2"], "style_layers": ["relu_wave1", "relu_wave2"]}
    assert_same(net, (150, 110), 96, styles=[(60, 60)], **layers)


def least_tile(program, size):
    """The least tile size, as the error message states it."""
    with pytest.raises(OptionError, match=r"use a tile size of \d+ or more") as caught:
        split(program, size, 1)
    return int(str(caught.value).rpartition("size of ")[2].split()[0])


# Geometry


@pytest.mark.parametrize("size, tile", [((2048, 2048), 512), ((3000, 1111), 700), ((8192, 8192), 2048)])
def test_windows_cover_the_layers_once_in_one_shape(size, tile):
    program = vgg(Backend()).program(["relu1_1", "relu4_2", "relu5_1"])
    tiles = split(program, size, tile)
    assert len({t.window.shape for t in tiles}) == 1
    assert max(tiles[0].window.shape) <= tile
    for name, steps in (("relu1_1", 1), ("relu4_2", 8), ("relu5_1", 16)):
        counted = np.zeros(program.shapes(size)[name][2:], np.uint8)
        for t in tiles:
            (y, x), (h, w) = (s // steps for s in t.window.start), t.owned[name].shape
            y, x = y + t.owned[name].start[0], x + t.owned[name].start[1]
            counted[y : y + h, x : x + w] += 1
        assert (counted == 1).all()
    assert {s % 16 for t in tiles for s in t.window.start} == {0}


@pytest.mark.parametrize("engine, most", [(e, 1.25 if e == "numpy" else 1.3) for e in nets.ENGINES])
def test_overhead_of_large_tiles_is_small(engine, most):
    """Pixels that VGG-19's tiles of 2048 compute, over those of the picture: issue 5 allows 1.4."""
    program = vgg(nets.ENGINES[engine](), 8).program(["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"])
    for size in ((5464, 8192), (8192, 8192), (3000, 4000)):
        computed = sum(math.prod(t.window.shape) for t in split(program, size, 2048))
        assert computed / math.prod(size) < most


def test_a_tile_as_large_as_the_picture_changes_nothing():
    net = vgg(Backend())
    whole, tiled = (evaluate(net, (50, 70), size, **DEEP)[:2] for size in (None, 70))
    assert whole[0] == tiled[0]
    np.testing.assert_array_equal(whole[1], tiled[1])


def test_memory_is_that_of_a_tile():
    """What the pool holds for a picture four times as large grows by the picture's own arrays, no more."""
    held = []
    for size in ((270, 270), (540, 540)):
        ops = Backend(threads=1)
        objective = evaluate(vgg(ops, 16), size, 200, **DEEP | {"content_layers": []})[2]
        x = ops.asarray(noise(1, 3, *size))
        ops.trim()
        objective.evaluate(x)
        first = ops.pool.reserved
        objective.evaluate(x)
        assert ops.pool.reserved == first
        held.append(first - 2 * x.nbytes)
    assert held[1] < 1.05 * held[0]


# Devices


@pytest.mark.parametrize("options", [{}, {"normalize_gradients": True}], ids=str)
@pytest.mark.parametrize("count", [2, 3])
def test_devices_share_the_tiles(count, options):
    devices = [Backend("float64", threads=1) for _ in range(count)]
    assert_same(vgg(Backend("float64")), (211, 307), 200, devices=devices, **DEEP | options)


@pytest.mark.parametrize(
    "engine, threads", [(e, n) for e, n in (("opencv", 1), ("native-avx2", 2)) if e in nets.ENGINES]
)
def test_sharing_gives_the_same_bytes_each_time(engine, threads):
    make = nets.ENGINES[engine]
    results = {
        evaluate(vgg(make()), (350, 260), 300, devices=[make(threads=threads) for _ in range(2)], **DEEP)[1].tobytes()
        for _ in range(4)
    }
    assert len(results) == 1


def test_a_blas_has_one_thread_while_devices_work(monkeypatch):
    """All the time: with one device done, another is not."""
    from cvstyle.backends import threads

    def counts():
        return {library["num_threads"] for library in threads._blas().info() if library["user_api"] == "blas"}

    class Looking(Backend):
        def gram(self, x, factor):
            seen.append(counts())
            return super().gram(x, factor)

    before, seen = counts(), []
    evaluate(vgg(Backend()), (211, 307), 200, devices=[Looking(threads=2), Looking(threads=2)], **DEEP)
    assert seen[-1] == {1} and seen[-5] == {1}
    assert counts() == before


@pytest.mark.parametrize("size, devices, grid", [
    ((800, 1000), 2, (1, 2)), ((1000, 800), 2, (2, 1)), ((3000, 3200), 2, (1, 2)), ((600, 3000), 3, (1, 3)),
    ((2000, 2000), 4, (2, 2)), ((150, 150), 2, (1, 1)),
])  # fmt: skip
def test_devices_get_as_few_windows_as_they_need(size, devices, grid):
    tiles = split(vgg(Backend()).program(["relu1_1", "relu5_1"]), size, None, devices)
    assert tuple(len({t.window.start[axis] for t in tiles}) for axis in (0, 1)) == grid


def test_devices_share_windows_of_a_size_evenly():
    """Three windows would be enough, but of four each of two devices gets two, which are smaller."""
    program = vgg(Backend()).program(["relu1_1", "relu3_1"])
    assert len(split(program, (300, 1700), 640)) == 3
    shared = split(program, (300, 1700), 640, 2)
    assert len(shared) == 4 and shared[0].window.shape[1] < 500


def test_more_devices_than_tiles():
    assert_same(vgg(Backend("float64")), (32, 40), 64, devices=[Backend("float64") for _ in range(3)], **DEEP)


# Where the picture lives


@pytest.mark.parametrize("devices", [None, 2])
@pytest.mark.parametrize("tile", [None, 200])
def test_a_picture_in_files(tmp_path, tile, devices):
    """Large arrays are files; the numbers are the same to the last bit."""
    net = vgg(Backend("float64"))
    home = Backend("float64", pool=MappedPool(str(tmp_path)))
    devices = [Backend("float64", threads=1) for _ in range(devices)] if devices else None
    expected = evaluate(net, (211, 307), tile, devices=devices, **DEEP)
    objective = evaluate(net, (211, 307), tile, devices=devices, home=home, **DEEP)
    assert objective[0] == expected[0]
    np.testing.assert_array_equal(objective[1], expected[1])
    before = home.pool.reserved
    assert home.zeros((1, 3, 1000, 1000)).sum() == 0
    assert home.pool.reserved == before


def test_a_folder_without_room(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MemoryError, match="No space left"):
        MappedPool(str(tmp_path)).empty((1 << 20,), "float32")


# Refusals


@pytest.mark.parametrize("rows, named", [
    ([("Pooling", "everywhere", {"pool": "AVE", "global_pooling": True})], "everywhere"),
    ([("Concat", "joined", {"axis": 2})], "joined"),
    ([("Scale", "painted", {"num_axes": -1})], "painted"),
    ([("Pooling", "small", {"kernel_size": 2, "stride": 2}), ("Flatten", "flat", {})], "flat"),
    ([("LRN", "wide", {"norm_region": "WITHIN_CHANNEL", "local_size": 81})], "wide"),
], ids=lambda v: v if isinstance(v, str) else "")  # fmt: skip
def test_layers_that_see_everything_are_refused_by_name(rows, named):
    below, layers = "data", []
    for kind, name, params in rows:
        bottoms = (below, below) if kind == "Concat" else (below,)
        layers.append(LayerDef(name, kind, bottoms, (name,), params))
        below = name
    net = NetDef("net", {"data": (1, 3, 64, 64)}, tuple(layers), source="net.prototxt")
    net = Network(nets.with_weights(net, 0), Backend())
    with pytest.raises(OptionError, match=named):
        evaluate(net, (64, 64), 40, style_layers=[below])
    evaluate(net, (64, 64), None, styles=[(64, 64)], content_layers=[below])


def test_a_tile_that_is_too_small_is_refused():
    with pytest.raises(OptionError, match=r"tile of 100 .*'relu5_1' needs 156 pixels .*use a tile size of 1\d\d or"):
        evaluate(vgg(Backend()), (400, 400), 100, **DEEP)
    net = vgg(Backend())
    for size in ((400, 400), (401, 577), (300, 1000)):
        least = least_tile(net.program(["relu1_1", "relu5_1"]), size)
        assert 156 <= least <= 156 + 2 * 16
        with pytest.raises(OptionError):
            split(net.program(["relu1_1", "relu5_1"]), size, least - 1)
        assert split(net.program(["relu1_1", "relu5_1"]), size, least)
    with pytest.raises(OptionError, match="tile_size is 0"):
        evaluate(net, (400, 400), 0, **DEEP)


def test_maps_of_different_scales_are_refused():
    layers = (
        LayerDef("half", "Pooling", ("data",), ("half",), {"kernel_size": 2, "stride": 2}),
        LayerDef("cut", "Crop", ("data", "half"), ("cut",), {"offset": [3]}),
    )
    net = Network(NetDef("net", {"data": None}, layers, source="net.prototxt"), Backend())
    with pytest.raises(OptionError, match=r"'cut'.*different scales"):
        evaluate(net, (64, 64), 40, style_layers=["cut"])


# Random graphs

_POINTWISE = {
    "ReLU": {}, "Sigmoid": {}, "TanH": {}, "AbsVal": {}, "BatchNorm": {}, "Scale": {},
    "LRN": {"local_size": 3, "alpha": 0.5}, "Softmax": {}, "PReLU": {},
}  # fmt: skip


@st.composite
def graphs(draw):
    """A net of windows with strides, pads and dilation, of enlarging and cutting, joined where maps fit."""
    layers, channels = [], {"data": 3}
    for number in range(draw(st.integers(1, 7))):
        name, blob = f"n{number}", draw(st.sampled_from(sorted(channels)))
        kind = draw(st.sampled_from([
            *_POINTWISE, *["Convolution", "Pooling"] * 4, *["Deconvolution", "LRNwithin", "Crop"] * 2,
            *["Eltwise", "Concat"] * 4,
        ]))  # fmt: skip
        bottoms, params = (blob,), dict(_POINTWISE.get(kind, {}))
        count = channels[blob]
        if kind in ("Convolution", "Deconvolution", "Pooling"):
            kernel = [draw(st.integers(1, 5)) for _ in "hw"]
            stride = [draw(st.integers(1, 3 if kind != "Deconvolution" else 2)) for _ in "hw"]
            pad = [draw(st.integers(0, k - 1 if kind != "Convolution" else k)) for k in kernel]
            params = {
                f"{what}_{axis}": value
                for what, values in (("kernel", kernel), ("stride", stride), ("pad", pad))
                for axis, value in zip("hw", values)
            }
            if kind == "Pooling":
                params["pool"] = draw(st.sampled_from(["MAX", "AVE"]))
                params["round_mode"] = draw(st.sampled_from(["CEIL", "FLOOR"]))
            else:
                count = params["num_output"] = draw(st.integers(1, 3))
                params["dilation"] = [draw(st.integers(1, 2)) for _ in "hw"]
        elif kind == "LRNwithin":
            kind, params = "LRN", {"norm_region": "WITHIN_CHANNEL", "local_size": draw(st.sampled_from([3, 5]))}
        elif kind in ("Crop", "Eltwise", "Concat"):
            other = draw(st.sampled_from(sorted(channels)))
            bottoms = (blob, other)
            if kind == "Crop":
                params = {"offset": [draw(st.integers(0, 3)) for _ in "hw"]}
            count = count + channels[other] if kind == "Concat" else count
            if kind == "Eltwise":
                params = {"operation": draw(st.sampled_from(["SUM", "PROD", "MAX"]))}
        layers.append(LayerDef(name, kind, bottoms, (name,), params))
        channels[name] = count
    taps = draw(st.lists(st.sampled_from([d.name for d in layers]), min_size=1, max_size=3, unique=True))
    return tuple(layers), taps


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    graphs(), st.tuples(st.integers(9, 60), st.integers(9, 60)), st.integers(0, 12), st.booleans(), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_random_graphs(case, size, more, average, normalize, shared):
    from cvstyle.errors import CvstyleError

    layers, taps = case
    try:
        definition = NetDef("net", {"data": (1, 3, *size)}, layers, source="net.prototxt")
        net = Network(nets.with_weights(definition, 0), Backend("float64"), "avg" if average else "max")
        program = net.program(taps)
        program.shapes(size)
    except CvstyleError:
        assume(False)
    assume(max(max(shape[1:]) for shape in net.shapes(size).values()) <= 150)
    try:
        split(program, size, 1)
        least = 1
    except OptionError as error:
        assume("different scales" not in str(error))
        least = int(str(error).rpartition("size of ")[2].split()[0])
    assume(least + more < max(size))
    devices = [Backend("float64", threads=1) for _ in range(2)] if shared else None
    tiled = assert_same(
        net, size, least + more, styles=[size], content_layers=taps[:1], style_layers=taps[-2:], tv_weight=0.1,
        normalize_gradients=normalize, pooling="avg" if average else "max", devices=devices,
    )  # fmt: skip
    assert len(tiled.tiles) > 1
