"""The margin: what is computed around the picture is its mirror image at first, and is cut off in the end."""

from __future__ import annotations

from pathlib import Path

import nets
import numpy as np
import pytest
from pictures import write
from PIL import Image

from cvstyle import Job, Options, checkpoint, images, stylize, zoo
from cvstyle.cli import main
from cvstyle.errors import CheckpointError, OptionError
from cvstyle.graph import Network
from cvstyle.netdef import NetDef
from cvstyle.optimize import Stop
from cvstyle.run.border import needed_margin

DEMO = Path(__file__).resolve().parent.parent / "models" / "demo"
LAYERS = {"content_layers": ["relu2_2"], "style_layers": ["relu1_1", "relu2_1"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write(folder, content=(48, 35), style=(40, 48))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    proto, model = nets.write(nets.vgg(16, 16, (64, 64), classifier=False), folder)

    def run(content="content.png", **settings):
        return stylize(
            folder / content, [folder / "style.png"], proto=proto, model=model,
            **{"backend": "numpy", "image_size": 48, "num_iterations": 4, "seed": 3, **LAYERS, **settings},
        )  # fmt: skip

    return run


@pytest.mark.parametrize("more", [
    {"init": "image"}, {"init": "random"}, {"init_image": "style.png", "optimizer": "adam", "original_colors": True},
], ids=str)  # fmt: skip
def test_it_is_a_larger_picture_cut(run, folder, more):
    """The run of a file that holds the mirror image around the picture, its result cut, is the same to the bit."""
    content, start = (np.asarray(Image.open(folder / f"{name}.png")) for name in ("content", "style"))
    start = np.asarray(Image.fromarray(start).resize((48, 35)))
    for name, pixels in (("content", content), ("start", start)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
        rows, columns = (np.r_[5:-1:-1, 0:n, n - 1 : n - 7 : -1] for n in pixels.shape[:2])
        Image.fromarray(pixels[rows][:, columns]).save(folder / f"large_{name}.png")
    if "init_image" in more:
        more = {**more, "init_image": folder / "start.png"}
    cut = []
    found = run(margin=6, callback=lambda i: cut.append(i.picture().rgb), **more)
    if "init_image" in more:
        more = {**more, "init_image": folder / "large_start.png"}
    whole = run("large_content.png", margin=0, image_size=60, style_scale=0.8, **more)
    assert found.losses == whole.losses
    assert found.picture.rgb.shape == (35, 48, 3)
    np.testing.assert_array_equal(found.picture.rgb, whole.picture.rgb[6:-6, 6:-6])
    np.testing.assert_array_equal(cut[-1], found.picture.rgb)
    assert np.abs(run(margin=0, **{**more, "init_image": None}).picture.rgb - found.picture.rgb).max() > 1


def test_a_margin_as_wide_as_the_picture(run):
    assert run(image_size=5, margin=5, num_iterations=1).picture.rgb.shape == (4, 5, 3)
    with pytest.raises(OptionError, match="margin is 6; a number from 0 to the picture's longest side is needed"):
        run(image_size=5, margin=6)


def test_each_scale_makes_it_anew(run, tmp_path):
    """Of the picture and of Adam's moments, whatever the margin has become in the scale before."""
    arrays = {}

    def look(iterate):
        arrays[iterate.iteration] = checkpoint.load(path)[1]

    path = str(tmp_path / "run.npz")
    run(
        margin=5, scales=[24, 48], scale_iterations=[6, 1], optimizer="adam", learning_rate=1e-5, checkpoint=path,
        checkpoint_iter=1, callback=look, average_iterates=0.5,
    )  # fmt: skip
    assert arrays[6]["x"].shape == (1, 3, 28, 34) and arrays[7]["x"].shape == (1, 3, 45, 58)
    inside = arrays[7]["x"][0][:, 5:-5, 5:-5]
    mirrored = np.pad(inside, ((0, 0), (5, 5), (5, 5)), "symmetric")
    np.testing.assert_allclose(arrays[7]["x"][0], mirrored, atol=1e-3)


def test_a_run_goes_on_with_its_margin(run, tmp_path):
    """To the same bytes, from the midst of the second scale."""
    settings = {"margin": 5, "scales": [24, 48], "scale_iterations": [3, 5], "checkpoint_iter": 100}
    whole = run(**settings)
    path = str(tmp_path / "run.npz")

    def stop(iterate):
        if iterate.iteration == 5:
            raise Stop

    assert run(checkpoint=path, callback=stop, **settings).iterations == 5
    for margin in (0, 6):
        with pytest.raises(CheckpointError, match=rf"another margin \(5; here {margin or None}\)"):
            run(checkpoint=path, resume=True, **{**settings, "margin": margin})
    rest = run(checkpoint=path, resume=True, **settings)
    assert rest.picture.rgb.tobytes() == whole.picture.rgb.tobytes() and rest.losses == whole.losses


def test_a_checkpoint_from_before_there_were_margins(run, tmp_path):
    """Its settings say nothing of them: that is a run without."""
    path = str(tmp_path / "run.npz")
    run(checkpoint=path, num_iterations=2, margin=0)
    header, arrays = checkpoint.load(path)
    del header["settings"]["margin"]
    checkpoint.save(path, header, arrays)
    with pytest.raises(CheckpointError, match=r"another margin \(None; here 1\)"):
        run(checkpoint=path, resume=True, num_iterations=3)
    assert run(checkpoint=path, resume=True, num_iterations=3, margin=0).iterations == 3


def test_which_networks_have_one_by_hand():
    """Those that come with it; of the others it is reckoned, but under --compat, which has none."""
    families = {card.name: card.family for card in zoo.CARDS.values() if card.family}
    names = {name: [sign.replace("*", "1") for sign in family.layer_patterns] for name, family in families.items()}
    found = {name: zoo.defaults(layers)["margin"] for name, layers in names.items()}
    assert (found.pop("distilled"), found.pop("wavelet")) == (4, 6) and set(found.values()) == {None}
    assert zoo.defaults(["odd"])["margin"] is None
    assert {zoo.defaults(layers, compat=True)["margin"] for layers in [*names.values(), ["odd"]]} == {0}


def chain(*windows):
    """A network of convolutions a, b, ... of so many (kernel, stride, pad)."""
    b = nets.Builder("chain", (64, 64))
    for name, (kernel, stride, pad) in zip("abcde", windows):
        b.conv(name, 2, kernel, stride=[stride], pad=[pad])
    return Network(NetDef(b.name, {"data": (1, 3, 64, 64)}, tuple(b.layers)), ops=None)


@pytest.mark.parametrize(("windows", "layers", "size", "margin"), [
    ([(1, 1, 0)], "a", (64, 64), 0),
    # 2, 3, 3 windows hold the pixels from the border on, and 3 inside.
    ([(3, 1, 1)], "a", (64, 64), 1),
    # 1, 2, 3.
    ([(3, 1, 0)], "a", (64, 64), 2),
    # 1 1 1 1 2 2 2 2 3 3 3 2 3 3 3 2 ...: of four from the sixth on 2.5, and inside 2.75.
    ([(11, 4, 0)], "a", (227, 227), 6),
    # The last three pixels are in no window: 9, and whole positions on both sides together are an even number.
    ([(11, 4, 0)], "a", (227, 230), 10),
    ([(11, 4, 0)], "a", (230, 227), 10),
    # At the right 1 1 2 1 2 ..., at the left 1 2 1 2 ...; where the side is odd, at both.
    ([(3, 2, 1)], "a", (64, 64), 1),
    ([(3, 2, 1)], "a", (63, 63), 0),
    # 1, 2, 3 of 3 for the finest; 1, 4, 10, 17 of 27 for the middle one.
    ([(3, 1, 0)] * 5, "ace", (64, 64), 3),
    ([(3, 1, 0)] * 5, "eca", (64, 64), 3),
    # 1, and half a position of the coarsest.
    ([(3, 1, 1), (2, 2, 0), (2, 2, 0), (2, 2, 0)], "ad", (64, 64), 4),
], ids=str)  # fmt: skip
def test_how_many_pixels_are_half_made(windows, layers, size, margin):
    assert needed_margin(chain(*windows), list(layers), size) == margin


def test_of_layers_without_maps_there_is_none():
    assert needed_margin(Network(nets.caffenet(16), ops=None), ["relu1", "fc6"], (227, 227)) == 0
    assert needed_margin(chain((3, 1, 0)), [], (64, 64)) == 0


def test_an_unknown_network_has_the_one_that_it_needs(folder):
    """conv1, of 3 by 3 in steps of 2 without padding, leaves out the last pixel: 0 1 1 2 1 2, so 2 of them."""
    proto, model = nets.write(nets.squeezenet(16), folder)

    def margin(**options):
        job = Job(folder / "content.png", [folder / "style.png"], proto, model, Options(image_size=48, **options))
        return job.setup().margin

    assert margin(style_layers=["relu_conv1", "fire3/concat"]) == 2
    assert margin(style_layers=["relu_conv1", "fire3/concat"], margin=5) == 5
    assert margin(style_layers=["relu_conv1", "fire3/concat"], margin=0) == 0
    assert margin(style_layers=["relu_conv1", "fire3/concat"], compat=True) == 0
    assert margin(style_layers=[], content_layers=["relu_conv1"]) == 0
    content = folder / "content.png"
    wavelets = Job(content, [content], model="wavelet", options=Options(image_size=48)).setup()
    assert wavelets.margin == 6 and wavelets.padded_sizes[-1] == (35 + 12, 48 + 12)


def detail(rgb):
    """(the energy of each pixel's differences along the nearest side, how far that side is; -1 at the corners)."""
    height, width = rgb.shape[:2]
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in (height, width))
    down, across = ((np.diff(rgb, axis=axis, append=rgb.take([-1], axis)) ** 2).sum(axis=2) for axis in (0, 1))
    energy = np.where(rows[:, None] < columns, across, down)
    return energy, np.where(np.abs(rows[:, None] - columns) < 3, -1, np.minimum(rows[:, None], columns))


@pytest.mark.parametrize("scales", [None, [48, 96]])
@pytest.mark.parametrize("model", ["distilled", "wavelet"])
def test_the_networks_that_come_with_it_leave_no_frame(model, scales):
    """The outermost two pixels have as much detail as those well inside; of wavelets, less without the margin."""
    shares = {}
    for margin in (None, 0):
        result = stylize(
            DEMO / "content.jpg", [DEMO / "style.jpg"], image_size=96, num_iterations=40, seed=1, margin=margin,
            scales=scales, model=model,
        )  # fmt: skip
        energy, distance = detail(result.picture.rgb)
        outermost, inside = (distance >= 0) & (distance < 2), (distance >= 8) & (distance < 20)
        shares[margin] = energy[outermost].mean() / energy[inside].mean()
    assert 0.75 < shares[None] < 1.5, shares
    if model == "wavelet":
        assert shares[0] < 0.75 * shares[None], shares


def test_from_the_command_line(folder, tmp_path, capsys):
    out = tmp_path / "out.png"
    files = ["--content", str(folder / "content.png"), "--style", str(folder / "style.png"), "--output", str(out)]
    small = ["--image-size", "40", "--num-iterations", "2", "--seed", "1", "--backend", "numpy", "--quiet"]
    pictures = []
    for more in ([], ["--margin", "0"], ["--compat"], ["--compat", "--margin", "0"]):
        assert main(["run", *files, *small, *more]) == 0
        pictures.append(images.read(out).rgb)
    assert all(picture.shape == (29, 40, 3) for picture in pictures)
    assert (pictures[0] != pictures[1]).any() and (pictures[2] == pictures[3]).all()
    assert main(["run", *files, *small, "--margin", "-1"]) == 2
    message = "cvstyle: --margin is -1; a number from 0 to the picture's longest side is needed\n"
    assert capsys.readouterr().err == message
