"""Controls together: regions, style losses, edges of the photograph, pictures that repeat, saved styles and colours."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from pictures import noise, write
from PIL import Image
from test_tiles import vgg

import cvstyle
from cvstyle.backends.reference import Backend
from cvstyle.cli import main
from cvstyle.errors import OptionError
from cvstyle.images import masks
from cvstyle.regions import StyleRegion

LAYERS = ["relu1_1", "relu2_1@covariance", "relu3_1:2@wasserstein"]
STEP = 4  # pixels from one position of the deepest layer to the next
SIZE = (48, 64)
ALL = {
    "style_layers": LAYERS, "style_weight": 1e3, "content_layers": ["relu2_1"], "content_weight": 3, "tv_weight": 1e-2,
    "tv_per_pixel": True, "laplacian": 2.0, "laplacian_pool": [4], "balance": "targets",
}  # fmt: skip
RUN = {"image_size": 64, "num_iterations": 3, "seed": 1, "backend": "cpu"}


@pytest.fixture(scope="module")
def net():
    return vgg(Backend(np.float64, threads=1))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Paths of a photograph and two paintings, and saved styles of the first, whole and of the sizes of a run."""
    folder = tmp_path_factory.mktemp("control")
    photo, one, two = write(folder, photo=(64, 48), one=(60, 50), two=(50, 60))
    saved = str(folder / "one.cvstyle")
    cvstyle.save_style(saved, one, sizes=[64], backend="cpu")
    return {"photo": photo, "one": one, "two": two, "saved": saved, "folder": folder}


def upper(height=SIZE[0], width=SIZE[1]):
    mask = np.zeros((height, width), np.float32)
    mask[: height // 2 + 3] = 1
    return mask


def objective(net, content=None, mask=None, inside=False, **more):
    """With two regions that leave something out, of the masks that are given or not."""
    content = noise(3, *SIZE, scale=50, dtype=np.float64) if content is None else content
    mask = masks.feathered(upper(), 6) if mask is None else mask
    left = np.zeros((40, 52), np.float32)
    left[:, :30] = 1
    regions = [
        StyleRegion("a", mask, {0: left, 1: None}, 0.8, 0.5, inside),
        StyleRegion("b", 0.7 * (1 - mask), {1: None}, content=3, inside=inside),
    ]
    styles = [noise(3, *size, seed=5, scale=60, dtype=np.float64) for size in ((40, 52), (44, 40))]
    return cvstyle.Objective(net, content, styles, regions=regions, **ALL, **more)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("more", [
    {}, {"tile_size": 40}, {"wrap": "x"}, {"wrap": "xy", "strength": 0.4}, {"wrap": "y", "tile_size": 64},
], ids=str)  # fmt: skip
def test_gradients_are_finite_differences(net, more, inside):
    function = objective(net, inside=inside, **more)
    assert (len(function.tiles) > 1) is ("tile_size" in more)
    x = noise(3, *SIZE, seed=3, scale=50, dtype=np.float64)
    _, gradient = function(x)
    assert {"laplacian", "tv", "style:relu1_1@a", "style:relu3_1@b"} < set(function.losses)
    for seed in range(2):
        direction = noise(3, *SIZE, seed=10 + seed, dtype=np.float64)
        step = 1e-5
        difference = (function(x + step * direction)[0] - function(x - step * direction)[0]) / (2 * step)
        assert difference == pytest.approx(float((gradient * direction).sum()), rel=5e-5)


@pytest.mark.parametrize("more", [{}, {"wrap": "xy"}, {"strength": 0.5}], ids=str)
def test_tiles_change_nothing(net, more):
    x = noise(3, *SIZE, seed=3, scale=50, dtype=np.float64)
    whole, tiled = objective(net, **more), objective(net, tile_size=64 if more.get("wrap") else 40, **more)
    loss, gradient = whole(x)
    tiled_loss, tiled_gradient = tiled(x)
    assert len(tiled.tiles) > 1
    assert tiled_loss == pytest.approx(loss, rel=1e-9)
    assert np.linalg.norm(tiled_gradient - gradient) <= 1e-8 * np.linalg.norm(gradient)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("wrap, axes", [("x", (0, 1)), ("y", (1, 0)), ("xy", (1, 1))])
def test_regions_of_shifted_pictures_are_shifted(net, wrap, axes, inside):
    """Nothing knows where a picture that repeats begins: its regions, the edges that it keeps, its variation."""
    shift = [axis * STEP * n for axis, n in zip(axes, (3, -5))]
    content, x = (noise(3, *SIZE, seed=seed, scale=50, dtype=np.float64) for seed in (0, 1))
    mask = masks.feathered(upper(), 6)
    loss, gradient = objective(net, content, mask, inside, wrap=wrap)(x)
    moved = partial(np.roll, shift=shift, axis=(-2, -1))
    other_loss, other_gradient = objective(net, moved(content), moved(mask), inside, wrap=wrap)(moved(x))
    assert other_loss == pytest.approx(loss, rel=1e-10)
    np.testing.assert_allclose(other_gradient, moved(gradient), atol=1e-9 * np.abs(gradient).max())


def test_an_edge_across_the_seam_counts(net):
    """The Laplacian of squares at the edges has those at the opposite ones as neighbours."""
    content = np.zeros((3, *SIZE))
    x = content.copy()
    x[:, :, :4] = 30  # a column of squares at the left edge
    settings = {"laplacian": 1.0, "tv_weight": 0}
    for wrap, columns in ((None, [-1, 0, 0, 0]), ("x", [2, -1, 0, -1])):
        loss, _ = cvstyle.Objective(net, content, wrap=wrap, **settings)(x)
        squares = np.float64([columns[0], *columns[1:3], *[0] * 11, columns[3]])
        if wrap is None:
            squares = squares[:14]
        assert loss == pytest.approx(((90 * squares) ** 2).mean() * (1 if wrap is None else 15 / 16), rel=1e-12)


def test_a_saved_style_in_a_region_is_its_painting(pictures):
    """With losses of several kinds, at every strength: the same bytes as with the picture."""
    mask = [upper(48, 64), 1 - upper(48, 64)]
    settings = {**RUN, "mask": mask, "style_loss": "covariance", "style_layers": "relu1@wasserstein,relu2_1"}
    for strength in (1, 0.5):
        found = [
            cvstyle.stylize(pictures["photo"], [first, pictures["two"]], strength=strength, **settings).picture.rgb
            for first in (pictures["one"], pictures["saved"])
        ]
        np.testing.assert_array_equal(*found)


def test_parts_of_a_saved_style_cannot_be(pictures, capsys):
    folder = pictures["folder"]
    Image.fromarray(np.uint8(np.stack([255 * upper(48, 64)] * 3, -1))).save(folder / "parts.png")
    words = ["--content", pictures["photo"], "--style", pictures["saved"], "--image-size", "64"]
    both = ["--mask", f"{folder}/parts.png", "--style-mask", f"{folder}/parts.png"]
    assert main(["run", *words, *both]) == 2
    assert "a saved style is of all of it" in capsys.readouterr().err
    with pytest.raises(OptionError, match="a saved style has none; give the picture"):
        cvstyle.stylize(pictures["photo"], pictures["saved"], color="match", **RUN)


def test_a_texture_of_a_saved_style(pictures):
    """The colours that it begins with are those of the saved picture's preview; then it is a texture as any other."""
    settings = {"seed": 1, "backend": "cpu", "num_iterations": 40}
    size = (64, 64)
    by_picture, by_style = (
        cvstyle.synthesize(source, size, **settings).picture.rgb for source in (pictures["one"], pictures["saved"])
    )
    assert by_style.shape == (64, 64, 3)
    np.testing.assert_allclose(by_style.mean((0, 1)), by_picture.mean((0, 1)), atol=10)
    np.testing.assert_allclose(by_style.std((0, 1)), by_picture.std((0, 1)), rtol=0.15)
    assert cvstyle.synthesize(pictures["saved"], num_iterations=1, backend="cpu", seed=1).picture.size == (50, 60)


@pytest.mark.parametrize("more", [
    {"laplacian": 50}, {"style_loss": "wasserstein"}, {"color": "match"}, {"wrap": "xy"}, {"style_layers": "all"},
    {"optimizer": "adam", "laplacian": 50}, {"init": "random", "laplacian": 50, "tv_per_pixel": True},
], ids=str)  # fmt: skip
def test_strength_0_is_the_photograph(pictures, more):
    found = cvstyle.stylize(pictures["photo"], pictures["one"], strength=0, **RUN, **more).picture.rgb
    np.testing.assert_allclose(found, np.asarray(Image.open(pictures["photo"]).convert("RGB")), atol=1e-3)


def test_all_together_resumes_to_the_same_bytes(pictures, tmp_path):
    """Regions in recoloured styles, several losses, edges, a wrapped axis and less strength, in tiles and scales."""
    for name, mask in zip("ab", (upper(48, 64), 1 - upper(48, 64))):
        Image.fromarray(np.uint8(255 * mask)).save(tmp_path / f"{name}.png")
    words = ["run", "--content", pictures["photo"], "--style", f"{pictures['one']},{pictures['two']}", "--seed", "1"]
    words += ["--mask", f"{tmp_path}/a.png,{tmp_path}/b.png", "--color", "match", "--laplacian", "5", "--wrap", "x"]
    words += ["--style-layers", "relu1@shifted,relu2_1@wasserstein", "--strength", "0.8", "--mask-mode", "inside"]
    words += ["--backend", "cpu", "--scales", "64,96", "--tile-size", "80", "--quiet", "--content-layers", "relu2_1"]
    whole, parts, checkpoint = (str(tmp_path / name) for name in ("whole.png", "parts.png", "state"))
    assert main([*words, "--scale-iterations", "3,4", "--output", whole]) == 0
    kept = [*words, "--checkpoint", checkpoint, "--output", parts]
    assert main([*kept, "--scale-iterations", "3,2"]) == 0
    assert main([*kept, "--scale-iterations", "3,4", "--resume"]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(whole)), np.asarray(Image.open(parts)))
    other = [*words, "--checkpoint", checkpoint, "--output", parts, "--scale-iterations", "3,5", "--resume"]
    other[other.index("match")] = "match:chol"
    assert main(other) == 2
