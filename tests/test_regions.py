"""Regions: parts of a picture in styles of their own, against Gram matrices of cropped features and hand-made masks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from pictures import noise, random_pixels
from PIL import Image, ImageDraw
from scipy import ndimage
from test_tiles import vgg

import cvstyle
from cvstyle import backends, images
from cvstyle.backends.reference import Backend
from cvstyle.cli import main
from cvstyle.errors import CheckpointError, ImageError, OptionError
from cvstyle.graph import Network
from cvstyle.graph.periodic import periodic
from cvstyle.images import masks
from cvstyle.netdef import LayerDef, NetDef
from cvstyle.options import Compute, Options
from cvstyle.regions import StyleRegion, regional, shares
from cvstyle.run.regions import read_regions

LAYERS = ["relu1_1", "relu2_1", "relu3_1"]
STRIDES = (1, 2, 4)
STYLE = {"style_layers": LAYERS, "style_weight": 1e3}
SIZE = (64, 48)
ALL = {"content_layers": ["relu3_1"], "content_weight": 3, "tv_weight": 1e-3, **STYLE}
RUN = {"image_size": 64, "num_iterations": 3, "seed": 1, "backend": "cpu"}


TILED = {"tile_size": 176, "scales": [64, 208], "content_layers": "relu2_2", "style_layers": "relu1,relu2_1"}


@pytest.fixture(scope="module")
def net():
    return vgg(Backend(np.float64, threads=1))


def halves(height=64, width=48, rows=32):
    """1 in the upper rows, else 0."""
    mask = np.zeros((height, width), np.float32)
    mask[:rows] = 1
    return mask


def whole(program, size):
    """A picture without repetition, as layers see it."""
    return periodic(program, size, None)


def pair(**more):
    """Two regions, each with a style of its own, that share the picture."""
    upper = halves()
    return [StyleRegion("sky", upper, {0: None}, **more), StyleRegion("houses", 1 - upper, {1: None}, **more)]


def soft_pair():
    """Two random masks of sum 1; the first style's part is the left of it."""
    mask = np.random.default_rng(5).random(SIZE).astype(np.float32)
    mask[:20, :30] = 1
    left = np.zeros((40, 50), np.float32)
    left[:, :25] = 1
    return [StyleRegion("a", mask, {0: left, 1: None}), StyleRegion("b", 1 - mask, {1: None}, 0.7, 0.5)]


def objective(net, regions, size=SIZE, styles=2, **settings):
    pictures = [noise(3, 40, 50, seed=7 + n, scale=50, dtype=np.float64) for n in range(styles)]
    return cvstyle.Objective(
        net, noise(3, *size, scale=50, dtype=np.float64), pictures, regions=regions, **{**ALL, **settings}
    )


def gram(features):
    rows = features.reshape(len(features), -1)
    return rows @ rows.T / rows.size


def weighted_gram(features, weights):
    rows = features.reshape(len(features), -1)
    return (rows * (weights / weights.sum()).ravel()) @ rows.T / len(rows)


def test_a_region_is_the_gram_matrix_of_cropped_features(net):
    """A mask on the grid of all strides: the loss of each half is Gram's on the features cut out there."""
    content = noise(3, *SIZE, seed=3, scale=50, dtype=np.float64)
    function = objective(net, pair(), content_weight=0, tv_weight=0)
    function(content)
    found = function.losses
    styles = [noise(3, 40, 50, seed=7 + n, scale=50, dtype=np.float64) for n in range(2)]
    maps = cvstyle.features(net, content, LAYERS)
    goals = [cvstyle.features(net, style, LAYERS) for style in styles]
    for layer, stride in zip(LAYERS, STRIDES):
        rows = 32 // stride
        for name, part, goal in (("sky", maps[layer][:, :rows], goals[0]), ("houses", maps[layer][:, rows:], goals[1])):
            expected = 0.5 * 1e3 * ((gram(part) - gram(goal[layer])) ** 2).mean()
            assert found[f"style:{layer}@{name}"] == pytest.approx(expected, rel=1e-6)
    assert len(found) == 2 * len(LAYERS)


def test_the_gradient_at_a_layer_is_that_of_cropped_features():
    """g · 4/(C³ n) · (G − A) F on the n positions of the region, 0 outside, of a network whose layer is the picture."""
    layer = LayerDef("same", "Pooling", ("data",), ("same",), {"kernel_size": 1, "stride": 1})
    net = Network(NetDef("same", {"data": None}, (layer,)), Backend(np.float64, threads=1))
    mask = np.zeros((8, 10), np.float32)
    mask[2:6, 3:9] = 1
    x = noise(3, 8, 10, seed=1, dtype=np.float64)
    style = noise(3, 7, 7, seed=2, dtype=np.float64)
    function = cvstyle.Objective(
        net, x, [style], regions=[StyleRegion("r", mask, {0: None})], style_layers=["same"], style_weight=5,
        content_weight=0, tv_weight=0,
    )  # fmt: skip
    _, gradient = function(x)
    part = x[:, 2:6, 3:9]
    rows = part.reshape(3, -1)
    expected = np.zeros_like(x)
    factor = 5 * mask.mean() * 4 / (9 * 3 * 24)
    expected[:, 2:6, 3:9] = (factor * (gram(part) - gram(style)) @ rows).reshape(part.shape)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-12)


def test_soft_weights_and_parts_of_styles_by_the_formula(net):
    regions = soft_pair()
    x = noise(3, *SIZE, seed=3, scale=50, dtype=np.float64)
    function = objective(net, regions, content_weight=0, tv_weight=0, style_blend_weights=[1, 3])
    function(x)
    maps = cvstyle.features(net, x, LAYERS)
    goals = [
        cvstyle.features(net, noise(3, 40, 50, seed=7 + n, scale=50, dtype=np.float64), LAYERS) for n in range(2)
    ]
    mask = regions[0].mask.astype(float)

    def cells(values, stride):
        height, width = (n // stride for n in values.shape)
        values = values[: height * stride, : width * stride]
        return values.reshape(height, stride, width, stride).mean((1, 3))

    for layer, stride in zip(LAYERS, STRIDES):
        left = np.arange(goals[0][layer].shape[2]) * stride
        own = np.clip((25 - left) / stride, 0, 1) * np.ones((goals[0][layer].shape[1], 1))
        goal = 0.25 * weighted_gram(goals[0][layer], own) + 0.75 * gram(goals[1][layer])
        expected = 1e3 * mask.mean() * ((weighted_gram(maps[layer], cells(mask, stride)) - goal) ** 2).mean()
        if 50 % stride == 0:  # else the cells of a style of 50 columns are a little wider than the stride
            assert function.losses[f"style:{layer}@a"] == pytest.approx(expected, rel=1e-5)
        goal = gram(goals[1][layer])
        expected = 1e3 * 0.7 * ((weighted_gram(maps[layer], cells(1 - mask, stride)) - goal) ** 2).mean()
        assert function.losses[f"style:{layer}@b"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("more", [
    {}, {"tile_size": 40}, {"balance": "targets"}, {"strength": 0.4}, {"inside": True},
], ids=str)  # fmt: skip
def test_gradients_are_finite_differences(net, more):
    """In float64 with feathered masks of sum 1, weights, content factors and a part of a style, whole and in tiles."""
    settings = dict(more)
    inside = settings.pop("inside", False)
    mask = masks.feathered(halves(rows=27), 6)
    left = np.zeros((40, 50), np.float32)
    left[:, :25] = 1
    regions = [
        StyleRegion("a", mask, {0: left, 1: None}, 0.8, 0.5, inside),
        StyleRegion("b", 1 - mask, {1: None}, content=3, inside=inside),
    ]
    function = objective(net, regions, **settings)
    assert (len(function.tiles) > 1) is ("tile_size" in settings)
    x = noise(3, *SIZE, seed=3, scale=50, dtype=np.float64)
    _, gradient = function(x)
    for seed in range(3):
        direction = noise(3, *SIZE, seed=10 + seed, dtype=np.float64)
        step = 1e-5
        difference = (function(x + step * direction)[0] - function(x - step * direction)[0]) / (2 * step)
        assert difference == pytest.approx(float((gradient * direction).sum()), rel=2e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_tiles_and_devices(devices):
    """Regions that some tiles do not touch, in float64 against the whole picture."""
    net = vgg(Backend(np.float64, threads=1))
    mask = np.zeros((120, 130), np.float32)
    mask[10:30, 15:50] = 1
    regions = [StyleRegion("a", mask, {0: None}), StyleRegion("b", 1 - masks.feathered(mask, 5), {1: None}, content=0)]
    x = noise(3, 120, 130, seed=3, scale=50, dtype=np.float64)
    whole = objective(net, regions, (120, 130))
    loss, gradient = whole(x)
    others = [Backend(np.float64, threads=1) for _ in range(devices)] if devices > 1 else None
    tiled = objective(net, regions, (120, 130), tile_size=64, devices=others)
    assert len(tiled.tiles) > 4
    tiled_loss, tiled_gradient = tiled(x)
    assert tiled_loss == pytest.approx(loss, rel=1e-10)
    assert tiled.losses == pytest.approx(whole.losses, rel=1e-9)
    assert np.linalg.norm(tiled_gradient - gradient) <= 1e-9 * np.linalg.norm(gradient)


def test_normalised_gradients_of_regions(net):
    """Each region's gradient has the L1 norm of its weight, on each layer's map, whole and in tiles."""
    x = noise(3, *SIZE, seed=3, scale=50, dtype=np.float64)
    settings = {"normalize_gradients": True, "content_weight": 0, "tv_weight": 0}
    _, gradient = objective(net, pair(), **settings)(x)
    _, tiled = objective(net, pair(), tile_size=40, **settings)(x)
    np.testing.assert_allclose(tiled, gradient, rtol=1e-6, atol=1e-9)


def test_masks_of_sum_1_share_the_gradient_of_one(net):
    """Two equal halves of one style: the weights of a position sum to those of the whole picture."""
    shapes = net.program(LAYERS).shapes(SIZE)
    regions = [StyleRegion("a", masks.feathered(halves(rows=30), 8), {0: None})]
    regions.append(StyleRegion("b", 1 - regions[0].mask, {0: None}))
    losses = regional(cvstyle.losses.create(STYLE), regions, net.program(LAYERS), whole(net.program(LAYERS), SIZE))
    for layer in LAYERS:
        found = sum(loss.weights.values * loss.weight for loss in losses if loss.layer == layer)
        positions = np.prod(shapes[layer][2:])
        np.testing.assert_allclose(found, np.full(shapes[layer][2:], 1e3 / positions), rtol=1e-5)


@pytest.mark.parametrize("name", ["numpy", "opencv", "native", "opencl"])
def test_backends_agree(name, request):
    if name == "opencl":
        ops = request.getfixturevalue("device")
    elif backends.backend_class(name).unavailable_because():
        pytest.skip(f"{name}: {backends.backend_class(name).unavailable_because()}")
    else:
        ops = backends.get(name)
    x = noise(3, *SIZE, seed=3, scale=50)
    expected = objective(vgg(Backend(np.float64, threads=1)), soft_pair())
    loss, gradient = expected(x.astype(np.float64))
    content = noise(3, *SIZE, scale=50)
    styles = [noise(3, 40, 50, seed=7 + n, scale=50) for n in range(2)]
    found = cvstyle.Objective(vgg(ops), content, styles, regions=soft_pair(), **ALL)
    own_loss, own_gradient = found(x)
    assert own_loss == pytest.approx(loss, rel=1e-4)
    assert np.linalg.norm(own_gradient - gradient) <= 1e-3 * np.linalg.norm(gradient)


def test_a_region_of_weight_0_has_no_losses(net):
    regions = pair()
    function = objective(net, [regions[0], StyleRegion("houses", regions[1].mask, {1: None}, 0)])
    function(noise(3, *SIZE, dtype=np.float64))
    assert not any(name.endswith("@houses") for name in function.losses)


def test_content_factors_of_regions(net):
    """Each position's part of the content loss, times the factor of its region."""
    x = noise(3, *SIZE, seed=3, scale=50, dtype=np.float64)
    regions = [StyleRegion("a", halves(), {0: None}, content=0), StyleRegion("b", 1 - halves(), {1: None}, content=5)]
    function = objective(net, regions, style_weight=0, tv_weight=0)
    function(x)
    content = noise(3, *SIZE, scale=50, dtype=np.float64)
    maps = [cvstyle.features(net, picture, ["relu3_1"])["relu3_1"] for picture in (x, content)]
    expected = 3 * 5 * ((maps[0] - maps[1])[:, 8:] ** 2).sum() / maps[0].size
    assert function.loss == pytest.approx(expected, rel=1e-9)


# inside


def test_inside_is_a_region_that_a_position_sees_alone(net):
    """Against the gradient of each position for the pixels: it sees those where that is not zero."""
    mask = np.zeros((24, 24), np.float32)
    mask[:, 9:] = 1
    net = net.with_pooling("avg")  # of a maximum's window, one position alone has a gradient
    program = net.program(LAYERS)
    for layer, stride in zip(LAYERS, STRIDES):
        found = shares(mask, layer, program, whole(program, mask.shape), inside=True)
        columns = []
        for column in range(24 // stride):
            seen = 0
            for seed in range(8):  # of a few channels, all may be at ReLU's zero
                features = net.program([layer]).forward(noise(1, 3, 24, 24, seed=seed, scale=50, dtype=np.float64))
                probe = np.zeros(features[layer].shape)
                probe[0, :, 12 // stride, column] = np.abs(noise(probe.shape[1], seed=1, dtype=np.float64)) + 1
                seen += np.abs(features.backward(lambda name, g, probe=probe: probe)[0, :, :, :9]).sum()
            columns.append(seen == 0)
        assert found[12 // stride].astype(bool).tolist() == columns


def test_inside_falls_back_to_simple_where_nothing_is_inside(net):
    mask = np.zeros((64, 64), np.float32)
    mask[20:30, 20:30] = 1
    program = net.program([*LAYERS, "relu5_1"])
    seen = whole(program, mask.shape)
    assert np.array_equal(shares(mask, "relu5_1", program, seen, True), shares(mask, "relu5_1", program, seen))
    assert shares(mask, "relu1_1", program, seen, True).sum() == 64  # a convolution of 3×3 takes a pixel off each side


def test_inside_is_said_where_it_cannot_be(capsys, tmp_path):
    mask = np.zeros((48, 64), np.uint8)
    mask[20:24, 20:24] = 255
    content, style, path = (str(tmp_path / name) for name in ("c.png", "s.png", "eye.png"))
    for name, pixels in ((content, random_pixels(48, 64)), (style, random_pixels(48, 64)), (path, mask)):
        Image.fromarray(pixels).save(name)
    line = ["--content", content, "--style", style, "--mask", path, "--mask-mode", "inside", "--image-size", "64"]
    assert main([*line, "--num-iterations", "2", "--output", str(tmp_path / "o.png")]) == 0
    said = capsys.readouterr().err
    assert "sees region 'eye' of the content alone, so there it counts as with simple" in said
    assert "99% of the picture is in none and stays the photograph" in said


# today's bytes


@pytest.mark.parametrize("backend", ["numpy", "native", "opencv"])
@pytest.mark.parametrize("more", [{}, TILED, {"balance": "targets", "compat": True}])
def test_one_region_of_all_gives_todays_bytes(backend, more):
    if backends.backend_class(backend).unavailable_because():
        pytest.skip(f"{backend}: {backends.backend_class(backend).unavailable_because()}")
    content, style = random_pixels(48, 64), random_pixels(40, 50)
    settings = RUN | {"backend": backend} | more
    settings |= {"image_size": 208} if more is TILED else {}
    expected = cvstyle.stylize(content, style, **settings).picture.rgb
    white = np.full((48, 64), 255, np.uint8)
    red = np.full((48, 64, 3), (255, 0, 0), np.uint8)
    for masking in ({"mask": white}, {"mask": red, "style_mask": red[:40, :50]}):
        assert np.array_equal(cvstyle.stylize(content, style, **settings, **masking).picture.rgb, expected)


def test_one_region_of_all_gives_todays_bytes_on_a_device(device):
    net = vgg(device)
    x, content, style = noise(3, 3, *SIZE, seed=3, scale=50)
    region = StyleRegion("all", np.ones(SIZE, np.float32), {0: np.ones(SIZE, np.float32)})
    plain, own = (cvstyle.Objective(net, content, [style], regions=r, **ALL)(x) for r in ([], [region]))
    assert plain[0] == own[0] and np.array_equal(plain[1], own[1])


# masks as people make them

RED, GREEN, BLUE, PURPLE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 0, 128)


def drawn(size=(60, 80), *colours, mode="RGB", scale=1):
    """A mask of vertical stripes of colours, with a disc of the last; scale: anti-aliased from so much larger."""
    height, width = (n * scale for n in size)
    image = Image.new(mode, (width, height), colours[0])
    pen = ImageDraw.Draw(image)
    for number, colour in enumerate(colours):
        pen.rectangle((number * width // len(colours), 0, width, height), fill=colour)
    pen.ellipse((scale * 10, scale * 10, scale * 30, scale * 30), fill=colours[-1])
    return image.resize((size[1], size[0]), Image.BOX) if scale > 1 else image


def regions_of(image, size=(60, 80)):
    return masks.colour_regions(masks.as_mask(image), "m.png", size)


def test_colours_of_an_exact_mask():
    found = regions_of(drawn((60, 80), RED, BLUE, (18, 52, 86)))
    pixels = np.asarray(drawn((60, 80), RED, BLUE, (18, 52, 86)))
    assert sorted(region.name for region in found) == ["#123456", "blue", "red"]
    assert [region.share for region in found] == sorted((region.share for region in found), reverse=True)
    for region in found:
        assert np.array_equal(region.mask, (pixels == region.rgb).all(axis=-1))


@pytest.mark.parametrize("quality", [30, 60, 95])
@pytest.mark.parametrize("scale", [1, 3])
def test_jpeg_and_anti_aliasing_make_no_regions(quality, scale, tmp_path):
    """Borders of red and blue have pixels of purple, which is another region's colour."""
    exact = drawn((240, 320), RED, PURPLE, BLUE)
    drawn((240, 320), RED, PURPLE, BLUE, scale=scale).save(tmp_path / "m.jpg", quality=quality)
    found = {region.name: region.mask for region in regions_of(str(tmp_path / "m.jpg"), (240, 320))}
    assert set(found) == {"red", "purple", "blue"}
    np.testing.assert_allclose(sum(found.values()), 1)
    pixels = np.asarray(exact)
    wrong = sum((found[name] != (pixels == rgb).all(-1)).mean() for name, rgb in
                {"red": RED, "purple": PURPLE, "blue": BLUE}.items())  # fmt: skip
    assert wrong < 0.05
    disc = found["purple"][5:35, 5:35]
    assert disc.mean() < 0.02 or quality < 90  # the border of the blue disc in red is not purple


@pytest.mark.parametrize("side", [5, 12])
def test_a_small_region_of_an_exact_mask_counts(side):
    """Eyes in a portrait are less than a thousandth of it; among JPEG's noise they could not be told."""
    mask = np.zeros((400, 600, 3), np.uint8)
    mask[:150] = RED
    mask[200:][:side, 300:][:, :side] = GREEN
    found = {region.name: region for region in regions_of(mask, mask.shape[:2])}
    assert set(found) == {"black", "red", "lime"}
    assert np.array_equal(found["lime"].mask, (mask == GREEN).all(-1))


def test_numbers_of_regions():
    """Labels as programs write them, 0, 1, 2, as integers or as a dark picture."""
    labels = np.repeat([[0, 1, 2, 2]], 8, axis=0).repeat(4, axis=1)
    for thing in (labels, labels.astype(np.uint8), labels.astype(np.int32)):
        found = regions_of(thing, labels.shape)
        assert [region.name for region in found] == ["#020202", "black", "#010101"]
        assert all(np.array_equal(region.mask, labels == region.rgb[0]) for region in found)
    with pytest.raises(ImageError, match="its numbers are -1 to 2; regions have 0 to 255"):
        masks.as_mask(np.array([[-1, 2]]))


def test_transparent_pixels_are_in_no_region():
    image = drawn((60, 80), RED, BLUE).convert("RGBA")
    image.paste((0, 255, 0, 0), (0, 0, 80, 20))
    found = {region.name: region for region in regions_of(image)}
    assert set(found) == {"red", "blue"}
    assert not sum(region.mask for region in found.values())[:20].any()
    assert (sum(region.mask for region in found.values())[20:] == 1).all()


def test_a_large_mask_of_colours_is_averaged_as_shares_not_as_colours():
    image = drawn((240, 320), RED, BLUE, GREEN)
    whole = {r.name: r.mask for r in regions_of(image, (240, 320))}
    small = {r.name: r.mask for r in regions_of(image, (60, 80))}
    for name, mask in small.items():
        np.testing.assert_allclose(mask, whole[name].reshape(60, 4, 80, 4).mean((1, 3)), atol=1e-6)


@pytest.mark.parametrize("picture", ["noise", "photograph"])
def test_a_photograph_is_no_mask_of_colours(picture):
    pixels = random_pixels(120, 160)
    if picture == "photograph":
        y, x = np.mgrid[:120, :160]
        pixels = np.dstack([x + y * 0.3, 200 - y, 60 + 0.5 * x]).clip(0, 255) + noise(120, 160, 1, scale=6)
        pixels = pixels.clip(0, 255).astype(np.uint8)
    with pytest.raises(ImageError, match=r"m\.png: this is no mask of colours but like a photograph"):
        regions_of(pixels)


@pytest.mark.parametrize("thing", ["L", "1", "RGB", "bool", "float", "LA", "flat", "16", "jpeg"])
def test_grey_masks_of_every_form(thing, tmp_path):
    """The same half from greys, bits, alpha and arrays."""
    left = np.zeros((30, 40), np.uint8)
    left[:, :20] = 255
    image = Image.fromarray(left)
    if thing == "LA":  # grey with transparency: both count
        image = Image.merge("LA", (Image.fromarray(np.full((30, 40), 255, np.uint8)), image))
    elif thing == "flat":  # red on nothing: the opacity is meant
        image = Image.fromarray(np.dstack([left, 0 * left, 0 * left, left]))
    elif thing == "16":
        image = (left.astype(np.uint16) * 257)[..., None]
    elif thing == "jpeg":
        image.convert("RGB").save(tmp_path / "m.jpg", quality=95)
        image = str(tmp_path / "m.jpg")
    elif thing in ("L", "1", "RGB"):
        image = image.convert(thing)
    else:
        image = left > 0 if thing == "bool" else left / 255
    found = masks.weights(masks.as_mask(image), "m.png", (30, 40))
    np.testing.assert_allclose(found, left / 255, atol=0.05 if thing == "jpeg" else 1e-6)


def test_a_grey_mask_with_colours_is_refused():
    with pytest.raises(ImageError, match=r"m\.png: 100% of the mask is coloured.*as style_mask"):
        masks.weights(masks.as_mask(drawn((60, 80), RED, BLUE)), "m.png", (60, 80))


def test_a_cut_out_photograph_is_refused_with_a_way_out():
    cut_out = Image.fromarray(random_pixels(60, 80))
    cut_out.putalpha(Image.fromarray(np.tile(np.uint8([255, 0]), (60, 40))))
    with pytest.raises(ImageError, match=r"is coloured.*painted; fill what is not transparent with white"):
        masks.weights(masks.as_mask(cut_out), "m.png", (60, 80))


def test_numbers_0_and_1_are_no_black_and_white():
    """As programs write labels: hardly any style, which would be a surprise."""
    with pytest.raises(ImageError, match=r"m\.png: the mask is almost black, 1 of 255 where .* an array of bools"):
        masks.weights(masks.as_mask((SKY > 0).astype(np.uint8)), "m.png", (48, 64))


@pytest.mark.parametrize("pixels, said", [
    (np.zeros((9, 12, 4), np.uint8), "transparent everywhere"),
    (np.zeros((9, 12), np.uint8), "black everywhere"),
    (np.zeros((9, 12), bool), "black everywhere"),
    (np.concatenate([np.full((9, 12, 3), 255), np.zeros((9, 12, 1))], -1).astype(np.uint8), "transparent everywhere"),
])  # fmt: skip
def test_a_mask_of_nothing_is_refused(pixels, said):
    """As a style's mask, and where it can be one, as a mask of colours."""
    with pytest.raises(ImageError, match=f"^m: the mask is {said}, so nothing is painted; make its region white"):
        masks.weights(masks.as_mask(pixels, "m", (9, 12)), "m", (9, 12))
    if pixels.shape[-1] == 4:
        with pytest.raises(ImageError, match=r"^m: the mask is transparent everywhere"):
            masks.colour_regions(masks.as_mask(pixels, "m", (9, 12), colours=True), "m", (9, 12))


def test_masks_of_sum_1_keep_it():
    """Enlarged, reduced by a fraction, and feathered."""
    mask = (np.random.default_rng(0).random((30, 41)) > 0.5).astype(np.float32)
    for size in ((30, 41), (17, 19), (64, 90), (30, 80)):
        both = [masks.feathered(masks.resized(part, size), 5) for part in (mask, 1 - mask)]
        assert all(part.shape == size and part.min() >= 0 and part.max() <= 1 for part in both)
        np.testing.assert_allclose(sum(both), 1, atol=1e-5)


def test_feathering_is_as_wide_as_asked():
    """From 16 % to 84 %, the standard deviations of a blurred step on either side."""
    step = np.repeat(halves(100, 8, 50)[:, :1], 100, axis=1)
    soft = masks.feathered(step, 8)[:, 50]
    rising = np.interp([0.159, 0.841], soft[::-1], np.arange(100))
    assert rising[1] - rising[0] == pytest.approx(8, abs=0.3)


@pytest.mark.parametrize("width", [6, 33, 60, 150])
def test_feathering_is_a_gaussian(width):
    """Wide ones are computed on smaller masks, so they take no minutes and are within 0.2 %."""
    mask = np.zeros((190, 233), np.float32)
    mask[:70, 30:] = 1
    found = masks.feathered(mask, width)
    np.testing.assert_allclose(found, ndimage.gaussian_filter(mask.astype(float), width / 2, mode="reflect"), atol=2e-3)
    np.testing.assert_allclose(found + masks.feathered(1 - mask, width), 1, atol=1e-6)


def test_feathering_wider_than_the_picture_is_even():
    mask = halves(rows=16)
    np.testing.assert_allclose(masks.feathered(mask, 1e9), mask.mean(), atol=1e-3)


@pytest.mark.parametrize("width", [4, 9, 40])
@pytest.mark.parametrize("wrap, shift", [("x", (0, 20)), ("y", (20, 0)), ("xy", (20, 20))])
def test_feathering_of_a_picture_that_repeats(wrap, shift, width):
    """A border at the seam is as soft as any other: a shifted mask has the shifted borders."""
    mask = np.zeros((48, 64), np.uint8)
    mask[:24, :32] = 255
    (region,), _ = found_regions(STYLES[:1], mask=mask, mask_feather=width, wrap=wrap)
    (shifted,), _ = found_regions(STYLES[:1], mask=np.roll(mask, shift, (0, 1)), mask_feather=width, wrap=wrap)
    np.testing.assert_allclose(np.roll(region.mask, shift, (0, 1)), shifted.mask, atol=1e-3 if width > 32 else 1e-6)


# options

CONTENT = images.as_picture(random_pixels(48, 64))
STYLES = [images.as_picture(random_pixels(40, 50)), images.as_picture(random_pixels(50, 40))]
SKY = np.zeros((48, 64), np.uint8)
SKY[:24] = 255


def found_regions(styles=STYLES, **settings):
    options = Options(image_size=64, **settings)
    options.check_masks(len(styles))
    return read_regions(options, CONTENT, styles, [f"s{n}.png" for n in range(len(styles))])


def test_a_mask_for_each_style():
    regions, remarks = found_regions(mask=[SKY, 255 - SKY], mask_feather=0)
    assert [region.name for region in regions] == ["region1", "region2"]
    assert [region.styles for region in regions] == [{0: None}, {1: None}]
    assert np.array_equal(regions[0].mask, SKY / 255) and np.array_equal(regions[1].mask, 1 - SKY / 255)
    assert [region.factor for region in regions] == [0.5, 0.5]
    assert remarks == ["regions: region1 50% (s0.png), region2 50% (s1.png)"]


def test_regions_paired_by_colour():
    content = drawn((48, 64), RED, BLUE)
    first, second = drawn((40, 50), RED, BLUE), drawn((50, 40), BLUE, GREEN)
    regions, remarks = found_regions(mask=content, style_mask=[first, second], mask_feather=0)
    found = {region.name: region for region in regions}
    assert set(found) == {"red", "blue"}
    assert set(found["red"].styles) == {0} and set(found["blue"].styles) == {0, 1}
    assert np.array_equal(found["red"].mask, (np.asarray(content) == RED).all(-1))
    assert np.array_equal(found["blue"].styles[1], (np.asarray(second) == BLUE).all(-1))
    assert any("style mask 2: lime" in line and "is not in mask and has no effect" in line for line in remarks)


@pytest.mark.parametrize("text, weights", [
    ("area", [0.5, 0.25]), ("equal", [0.375, 0.375]), ("2,0", [1, 0]), ("region2:4", [0.5, 1]),
    (" region2 : 4", [0.5, 1]),
    ({"region1": 2}, [1, 0.25]), ([1, 3], [0.5, 0.75]), ([("region2", 2)], [0.5, 0.5]),
], ids=str)  # fmt: skip
def test_weights_of_regions(text, weights):
    quarter = SKY.copy()
    quarter[:, 32:] = 0
    regions, _ = found_regions(mask=[SKY, quarter], region_weights=text, mask_feather=0)
    assert [region.factor for region in regions] == pytest.approx(weights)


def test_regions_by_the_name_of_a_file_or_a_colour(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(SKY).save(tmp_path / folder / "sky.png")
    paths = [str(tmp_path / folder / "sky.png") for folder in ("a", "b")]
    regions, _ = found_regions(mask=paths, region_content="sky-2:0")
    assert [(region.name, region.content) for region in regions] == [("sky", 1), ("sky-2", 0)]
    pair = {"mask": drawn((48, 64), RED, BLUE), "style_mask": [drawn((40, 50), RED, BLUE)]}
    for spelling in ("blue", "#0000ff", "#00F", "Blue"):
        regions, _ = found_regions(STYLES[:1], region_content=f"{spelling}:0", **pair)
        assert {region.name: region.content for region in regions} == {"red": 1, "blue": 0}


@pytest.mark.parametrize("settings, message", [
    ({"mask": [SKY, SKY, SKY]}, "mask is 3 pictures for 2 styles; give one for each style, or one with a colour"),
    ({"mask": SKY}, "mask is 1 picture for 2 styles"),
    ({"style_mask": [SKY, SKY]}, "whose picture is missing: give it as mask"),
    ({"mask": [SKY, SKY], "style_mask": [SKY, SKY]}, "mask is 2 pictures; with style_mask it is one"),
    ({"mask": SKY, "style_mask": SKY}, "style_mask is 1 picture for 2 styles; give one for each"),
    ({"mask": [SKY, SKY], "region_weights": "ski:2"}, r"there is no region 'ski'; known: region1, region2"),
    ({"mask": [SKY, SKY], "region_content": "regio1:2"}, r"no region 'regio1'; did you mean region1"),
    ({"mask": [SKY, SKY], "region_weights": "1,2,3"}, r"3 numbers for 2 regions \(region1, region2\)"),
    ({"mask": [SKY, SKY], "region_weights": "1"}, r"1 number for 2 regions \(region1, region2\)"),
    ({"mask": [SKY, SKY], "region_weights": "1,sky:2"}, "region_weights is '1,sky:2'; area, equal, or numbers"),
    ({"mask": [SKY, SKY], "region_content": "-1,2"}, "region_content is '-1,2'; numbers that are not negative"),
    ({"mask": [SKY, SKY], "region_content": "nan,2"}, "region_content"),
    ({"mask": [SKY, SKY], "mask_feather": -1}, "mask_feather is -1"),
    ({"mask": [SKY, SKY], "mask_mode": "inner"}, "mask_mode must be simple or inside, not 'inner'"),
])  # fmt: skip
def test_options_that_do_not_fit(settings, message):
    with pytest.raises(OptionError, match=message):
        cvstyle.stylize(CONTENT, STYLES, **RUN, **settings)


@pytest.mark.parametrize("settings, message", [
    ({"mask": [SKY, SKY.T]}, "mask 2: the mask is 48×64 and the content picture is 64×48; a mask needs the aspect"),
    ({"mask": [SKY, SKY[:47]]}, None),
    ({"mask": [SKY, SKY[:44]]}, "mask 2: the mask is 64×44 and the content picture is 64×48"),
    ({"mask": [SKY, 0 * SKY]}, "mask 2: the mask is black everywhere, so nothing is painted; make its region white"),
    ({"mask": [SKY, random_pixels(48, 64)]}, "mask 2: .* of the mask is coloured"),
    ({"mask": random_pixels(48, 64), "style_mask": [SKY, SKY]}, "mask: this is no mask of colours"),
    ({"mask": drawn((48, 64), RED, BLUE), "style_mask": [drawn((40, 50), RED), drawn((50, 40), RED)]},
     r"mask: the colour blue, .*% of the mask, is in no style's mask, or in too few .* transparent"),
    ({"mask": drawn((48, 64), RED, BLUE), "style_mask": [drawn((40, 50), RED), drawn((48, 64), BLUE)]},
     "style mask 2: the mask is 64×48 and style 2 is 40×50"),
    ({"mask": [SKY, "nothing.png"]}, "nothing.png: there is no such file"),
    ({"mask": [SKY, __file__]}, "test_regions.py"),
])  # fmt: skip
def test_masks_that_do_not_fit(settings, message):
    if message is None:  # rounding of the size
        found_regions(**settings)
        return
    with pytest.raises(ImageError, match=message):
        cvstyle.stylize(CONTENT, STYLES, **RUN, **settings)


def test_a_style_region_that_a_layer_does_not_see():
    """It names the style, the region and the layer, and says what helps."""
    dot = np.zeros((64, 48), np.float32)
    dot[5, 5] = 1
    with pytest.raises(ImageError, match=r"style 1, region 'a': too little .* layer 'relu4_1'; make the region larger"):
        cvstyle.Objective(
            vgg(Backend(threads=1)), noise(3, *SIZE), [noise(3, *SIZE)], style_layers=["relu4_1"],
            regions=[StyleRegion("a", halves(), {0: dot})],
        )  # fmt: skip
    with pytest.raises(ImageError, match="region 'a' of the content is empty at layer 'relu4_1'; paint it"):
        cvstyle.Objective(
            vgg(Backend(threads=1)), noise(3, *SIZE), [noise(3, *SIZE)], style_layers=["relu4_1"],
            regions=[StyleRegion("a", 0 * halves(), {0: None}, 1.0)],
        )  # fmt: skip


def test_exif_orientation_of_a_mask(tmp_path):
    """A mask that a camera's program has turned is turned back, as pictures are."""
    exif = Image.Exif()
    exif[274] = 6
    turned = Image.fromarray(np.rot90(SKY, 1))
    turned.save(tmp_path / "m.png", exif=exif)
    picture = masks.as_mask(str(tmp_path / "m.png"), "m", (48, 64))
    assert picture.size == (48, 64)
    np.testing.assert_allclose(masks.weights(picture, "m", (48, 64)), SKY / 255)


# runs


def files(folder, **pictures):
    paths = {}
    for name, pixels in pictures.items():
        paths[name] = str(folder / f"{name}.png")
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(paths[name])
    return paths


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return files(
        tmp_path_factory.mktemp("pictures"), content=random_pixels(48, 64), one=random_pixels(40, 50),
        two=random_pixels(50, 40), sky=SKY, houses=255 - SKY, colours=drawn((48, 64), RED, BLUE),
        first=drawn((40, 50), RED), second=drawn((50, 40), BLUE),
    )  # fmt: skip


def line(pictures, *more):
    content, styles = pictures["content"], f"{pictures['one']},{pictures['two']}"
    options = ["--image-size", "64", "--num-iterations", "2", "--seed", "1", "--backend", "numpy"]
    return ["run", "--content", content, "--style", styles, *options, *map(str, more)]


def test_the_command_line_and_python_give_the_same_bytes(pictures, tmp_path, capsys):
    out = str(tmp_path / "o.png")
    more = ["--mask", f"{pictures['sky']},{pictures['houses']}", "--region-content", "sky:0", "--output", out]
    log = tmp_path / "l.csv"
    assert main(line(pictures, *more, "--log", log)) == 0
    said = capsys.readouterr().err
    assert "regions: sky 50% (one.png), houses 50% (two.png)" in said
    assert "style:relu1@sky" in log.read_text().splitlines()[0]
    result = cvstyle.stylize(
        pictures["content"], [pictures["one"], pictures["two"]], image_size=64, num_iterations=2, seed=1,
        backend="numpy", mask=[pictures["sky"], pictures["houses"]], region_content={"sky": 0},
    )  # fmt: skip
    assert np.array_equal(np.asarray(Image.open(out)), np.rint(result.picture.rgb.clip(0, 255)).astype(np.uint8))


def test_patterns_and_lists_of_masks(pictures, tmp_path):
    """As for styles: a pattern in quotes, several words, the option twice, and masks with a mask of colours."""
    folder = tmp_path / "masks"
    folder.mkdir()
    files(folder, a=SKY, b=255 - SKY)
    given = [["--mask", str(folder / "*.png")], ["--mask", f"{folder}/a.png", f"{folder}/b.png"],
             ["--mask", f"{folder}/a.png", "--mask", f"{folder}/b.png"]]  # fmt: skip
    results = []
    for number, words in enumerate(given):
        out = tmp_path / f"{number}.png"
        assert main(line(pictures, *words, "--output", out)) == 0
        results.append(np.asarray(Image.open(out)))
    assert all(np.array_equal(result, results[0]) for result in results)
    pairs = ["--mask", pictures["colours"], "--style-mask", f"{pictures['first']},{pictures['second']}"]
    assert main(line(pictures, *pairs, "--output", tmp_path / "p.png")) == 0


@pytest.mark.parametrize("words, message", [
    (["--mask", "sky.pgn,houses.png"], "--mask sky.pgn: there is no such file; is sky.png meant?"),
    (["--mask", "sky.png,houses.png", "--output", "sky.png"], "sky.png: the output would overwrite the input sky.png"),
    (["--mask", "sky.png,houses.png", "--log", "houses.png"], "the log would overwrite the input houses.png"),
    (["--mask", "colours.png", "--style-mask", "first.png,second.png", "--output", "first.png"], "overwrite the input"),
    (["--mask", "sky.png"], "--mask is 1 picture for 2 styles; give one for each style, or one with a colour"),
    (["--mask", "sky.png,*.gif"], "no file fits this pattern"),
    (["--mask", "-,-"], "standard input"),
    (["--mask", "sky.png,houses.png", "--region-weights", "sky=2"], "'sky=2' is neither area nor equal"),
    (["--mask", "sky.png,houses.png", "--mask-mode", "insde"], "did you mean inside"),
    (["--masks", "sky.png"], "did you mean --mask"),
])  # fmt: skip
def test_command_lines_that_do_not_fit(words, message, pictures, tmp_path, capsys, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(Path(pictures["sky"]).parent)
    assert main(line(pictures, *words)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words, message", [
    (["--mask-feather", 3], "--mask-feather has no effect without --mask"),
    (["--mask-mode", "inside"], "--mask-mode has no effect without --mask"),
    (["--region-weights", "equal"], "--region-weights has no effect without --mask"),
    (["--region-content", "1,2"], "--region-content has no effect without --mask"),
    (["--mask", "SKY,HOUSES", "--style-blend-weights", "1,2"], "--style-blend-weights has no effect with a mask for"),
])  # fmt: skip
def test_options_without_effect_are_said(words, message, pictures, tmp_path, capsys):
    words = [str(word).replace("SKY", pictures["sky"]).replace("HOUSES", pictures["houses"]) for word in words]
    assert main(line(pictures, *words, "--output", tmp_path / "o.png")) == 0
    assert message in capsys.readouterr().err


def test_a_checkpoint_belongs_to_its_masks(pictures, tmp_path):
    settings = RUN | {"checkpoint": str(tmp_path / "c.npz"), "mask": [SKY, 255 - SKY], "num_iterations": 4}
    whole = cvstyle.stylize(CONTENT, STYLES, **settings | {"checkpoint": None}).picture.rgb
    cvstyle.stylize(CONTENT, STYLES, **settings | {"num_iterations": 2})
    resumed = cvstyle.stylize(CONTENT, STYLES, **settings, resume=True).picture.rgb
    assert np.array_equal(resumed, whole)
    other = SKY.copy()
    other[:, :8] = 255
    for changed, said in (
        ({"mask": [other, 255 - other]}, "other masks; give"), ({"mask": None}, "other masks; give"),
        ({"region_weights": "equal"}, r"other region_weights \(area; here equal\)"),
        ({"mask_feather": 9}, r"another mask_feather \(4.0; here 9.0\)"),
        ({"style_loss": "shifted"}, r"another style_loss \(gram; here shifted\)"),
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match=f"it belongs to a run with {said}"):
            cvstyle.stylize(CONTENT, STYLES, **settings | changed, resume=True)
    settings["checkpoint"] = str(tmp_path / "d.npz")
    cvstyle.stylize(CONTENT, STYLES, **settings | {"mask": None, "num_iterations": 2})
    with pytest.raises(CheckpointError, match="it belongs to a run with other masks"):
        cvstyle.stylize(CONTENT, STYLES, **settings, resume=True)


def test_a_job_with_masks_can_be_pickled():
    options = Options(mask=[SKY, 255 - SKY], image_size=64, num_iterations=2, seed=1)
    job = cvstyle.Job(CONTENT, STYLES, options=options, compute=cvstyle.Compute(backend="numpy"))
    assert np.array_equal(pickle.loads(pickle.dumps(job)).run().picture.rgb, job.run().picture.rgb)


@pytest.mark.parametrize("more", [
    {}, {"scales": [64, 128], "num_iterations": 2}, {"optimizer": "lbfgsb"}, {"wrap": "xy"}, {"init": "random"},
    {"color": "luminance"}, {"color": "content"}, {"margin": 0}, {"region_weights": "0"},
], ids=str)  # fmt: skip
def test_what_is_in_no_region_stays_the_photograph(more):
    """To the pixel, though layers see beyond a border; within the region there is style, up to its border."""
    photograph = random_pixels(96, 128)
    result = cvstyle.stylize(
        photograph, STYLES[:1], mask=SKY, mask_feather=0, **RUN | {"image_size": 128, "num_iterations": 8} | more
    ).picture.rgb
    np.testing.assert_allclose(result[50:], photograph[50:], atol=1e-3)
    if "region_weights" not in more:
        assert np.abs(result[40:48] - photograph[40:48]).mean() > 1


def test_a_soft_border_is_a_soft_edge_of_the_style():
    """The photograph and the picture that the losses see, in proportion to the mask."""
    options = Options(image_size=64, mask=SKY, mask_feather=8, seed=1, num_iterations=1)
    job = cvstyle.Job(CONTENT, STYLES[:1], options=options, compute=Compute(backend="cpu"))
    scale = job.start().scale
    x = noise(1, 3, *scale.content.shape[1:], scale=20)
    full = scale.setup.deprocess(scale._without_margin(x[0]))
    covered = masks.feathered(SKY / np.float32(255), 8)[..., None]
    assert 0.1 < covered.min() + covered.mean() < 0.9
    np.testing.assert_allclose(scale.render(x).rgb, covered * full + (1 - covered) * CONTENT.rgb, atol=0.3)


def test_a_mask_of_another_size(pictures):
    small = images.resize(np.float32(SKY)[..., None], (24, 32))[..., 0].astype(np.uint8)
    large = np.kron(SKY, np.ones((3, 3), np.uint8))
    masked = [found_regions(mask=[m, 255 - m], mask_feather=0)[0][0].mask for m in (SKY, small, large)]
    assert np.array_equal(masked[0], masked[2])
    assert np.abs(masked[0] - masked[1]).mean() < 0.02


def test_a_margin_mirrors_the_masks():
    region = StyleRegion("a", halves(4, 6, 1), {0: None}).resized((4, 6), [(4, 6)], (2, 2))
    assert np.array_equal(region.mask, np.pad(halves(4, 6, 1), 2, "symmetric"))


@pytest.mark.parametrize("tile_size", [None, 40])
def test_total_variation_acts_where_there_is_a_style(net, tile_size):
    """Against the sum by NumPy, and its gradient against finite differences."""
    mask = masks.feathered(halves(rows=20), 6)
    function = objective(
        net, [StyleRegion("a", mask, {0: None})], tv_weight=2, style_weight=1e-9, content_weight=0, tile_size=tile_size
    )
    x = noise(3, *SIZE, seed=3, dtype=np.float64)
    _, gradient = function(x)
    squares = (x[:, :-1, 1:] - x[:, :-1, :-1]) ** 2 + (x[:, 1:, :-1] - x[:, :-1, :-1]) ** 2
    assert function.losses["tv"] == pytest.approx((mask[:-1, :-1] * squares).sum(), rel=2e-4)
    direction = noise(3, *SIZE, seed=4, dtype=np.float64)
    difference = (function(x + 1e-4 * direction)[0] - function(x - 1e-4 * direction)[0]) / 2e-4
    assert difference == pytest.approx(float((gradient * direction).sum()), rel=1e-6)
    assert not np.abs(gradient[:, 50:]).max() > 1e-6
