"""The size and the picture that a run starts with: the photograph's own size, and faint noise."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import runs
from PIL import Image

from cvstyle import Job, Options, process, stylize
from cvstyle.cli import main
from cvstyle.errors import ImageError, OptionError
from cvstyle.run import scale

LAYERS = {"content_layers": ["relu2_1"], "style_layers": ["relu1_1", "relu2_1"]}
FEW = ["--num-iterations", 1, "--content-layers", "relu2_1", "--style-layers", "relu1_1", "--backend", "numpy"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    net = nets.vgg(16, 16, (64, 64), classifier=False)
    return runs.files(tmp_path_factory.mktemp("start"), net, content=(76, 52), style=(40, 44))


def shape(path):
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("size", ["original", "0"])
def test_the_photographs_own_size(files, tmp_path, size):
    out = tmp_path / "out.png"
    assert main(runs.command(files, out, "--image-size", size, *FEW)) == 0
    assert shape(out) == (76, 52)


def test_the_own_size_of_a_turned_photograph_and_of_an_array(files, tmp_path):
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(files["content"]) as image:
        image.save(turned, exif=exif)
        array = np.asarray(image)
    out = tmp_path / "out.png"
    assert main(runs.command({**files, "content": str(turned)}, out, "--image-size", "original", *FEW)) == 0
    assert shape(out) == (52, 76)
    settings = {"proto": files["proto"], "model": files["model"], "backend": "numpy", "num_iterations": 1, **LAYERS}
    result = stylize(array, files["style"], image_size="original", **settings)
    assert result.picture.size == (52, 76)


def test_the_schedule_and_the_styles_follow_from_the_own_size(files):
    job = Job(files["content"], [files["style"]], files["proto"], files["model"], Options(image_size=0, scales="auto"))
    setup = job.setup()
    assert setup.sizes[-1] == (52, 76)
    assert setup.style_sizes(len(setup.sizes) - 1) == [(76, 69)]


def test_an_own_size_that_does_not_fit_is_refused_with_a_way_out(files, monkeypatch, tmp_path, capsys):
    content = str(tmp_path / "large.png")
    Image.new("RGB", (2000, 1500)).save(content)
    monkeypatch.setattr(process, "usable", lambda: process.resident() + (300 << 20))
    line = runs.command({**files, "content": content}, tmp_path / "out.png", "--image-size", "original", *FEW)
    assert main(line) == 2
    error = capsys.readouterr().err
    assert "2000×1500" in error and "--tile-size auto" in error


def test_an_own_size_beyond_the_format_is_refused_before_the_first_iteration(files, tmp_path, capsys):
    content = str(tmp_path / "wide.png")
    Image.new("RGB", (16500, 32)).save(content)
    style = ["--tile-size", 64, "--style-scale", 0.01]
    line = runs.command({**files, "content": content}, tmp_path / "out.webp", "--image-size", "original", *style, *FEW)
    assert main(line) == 2
    error = capsys.readouterr().err
    assert "16383" in error and "iteration" not in error


@pytest.mark.parametrize("given", ["big", "-3", "original,512"])
def test_other_words_and_numbers_are_no_sizes(files, tmp_path, capsys, given):
    assert main(runs.command(files, tmp_path / "out.png", f"--image-size={given}")) == 2
    assert "original" in capsys.readouterr().err
    with pytest.raises(OptionError):
        stylize(files["content"], files["style"], image_size=given)


def start(files, **settings):
    options = Options(image_size=76, num_iterations=1, **LAYERS, **settings)
    setup = Job(files["content"], [files["style"]], files["proto"], files["model"], options).setup()
    return scale.Scale(setup, 0).start(), setup.preprocess(setup.content.rgb)


def test_a_start_from_a_picture_has_faint_noise_by_the_seed(files):
    x, content = start(files, seed=1, margin=0)
    noise = x[0] - content
    assert noise.std() == pytest.approx(2, rel=0.03) and abs(noise.mean()) < 0.1
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.03  # white
    np.testing.assert_array_equal(x, start(files, seed=1, margin=0)[0])
    assert np.abs(x - start(files, seed=2, margin=0)[0]).max() > 1
    given = start(files, seed=1, margin=0, init_image=files["content"])[0]
    np.testing.assert_array_equal(x, given)


def test_the_references_start_has_none(files):
    x, content = start(files, seed=1, compat=True, init="image")
    np.testing.assert_array_equal(x[0], content)


def share_of_lines(rgb):
    """The root mean square of the differences of rows' means, relative to that of all vertical differences."""
    grey = rgb.mean(axis=2)
    differences = np.diff(grey, axis=0)
    return np.sqrt(np.mean(differences.mean(axis=1) ** 2) / np.mean(differences**2))


def test_a_white_page_gets_strokes_instead_of_ruled_lines(monkeypatch):
    demo = runs.Path(__file__).parent.parent / "models/demo/style.jpg"
    page = np.full((72, 96, 3), 255, np.uint8)
    settings = {"model": "wavelet", "image_size": 96, "num_iterations": 60, "optimizer": "adam", "seed": 1, "margin": 0}

    def lines():
        return share_of_lines(stylize(page, demo, **settings).picture.rgb)

    with_noise = lines()
    monkeypatch.setattr(scale, "_GRAIN", 0)
    assert with_noise < 0.6 * lines()


def test_a_photograph_whose_size_cannot_be_read_is_named(files, tmp_path):
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        stylize(tmp_path / "gone.jpg", files["style"], image_size="original")
