"""What callers may give for a picture, and the public functions for pictures, against NumPy, Pillow and plain sums."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import nets
import numpy as np
import pytest
from pictures import SRGB, random_pixels, write
from PIL import Image

import cvstyle
from cvstyle import images
from cvstyle.backends import threads
from cvstyle.backends.reference import Backend
from cvstyle.errors import ImageError, OptionError
from cvstyle.graph import Network

RNG = np.random.default_rng(0)


def test_as_picture_takes_paths_and_pictures(tmp_path):
    pixels = random_pixels()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert np.array_equal(images.as_picture(path).rgb, pixels)
    with pytest.raises(ImageError, match=r"absent\.png: there is no such file"):
        images.as_picture("absent.png")
    picture = images.read(tmp_path / "a.png")
    assert images.as_picture(picture) is picture


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)], ids=str)
def test_as_picture_takes_arrays(dtype, channels):
    """Against the same sums in float64; a caller who changes the array afterwards changes no picture."""
    dtype = np.dtype(dtype)
    whole = np.iinfo(dtype).max if dtype.kind == "u" else 255
    array = RNG.uniform(0, whole, (5, 7, *channels)).astype(dtype)
    expected = np.atleast_3d(array.astype(float) * 255 / whole)
    picture = images.as_picture(array)
    array[:] = 3
    assert picture.rgb.dtype == np.float32 and picture.rgb.flags.c_contiguous and picture.size == (5, 7)
    np.testing.assert_allclose(picture.rgb, np.broadcast_to(expected[..., :3], (5, 7, 3)), atol=1e-4)
    assert (picture.alpha is None) == (channels != (4,)) and picture.icc is None
    if channels == (4,):
        assert picture.alpha.dtype == np.float32
        np.testing.assert_allclose(picture.alpha, expected[..., 3] / 255, atol=1e-6)


def test_as_picture_keeps_floats_as_they_are_and_alpha_within_its_range():
    array = RNG.uniform(-50, 300, (5, 7, 4)).astype(np.float32)
    picture = images.as_picture(array)
    assert np.array_equal(picture.rgb, array[..., :3])
    assert np.allclose(picture.alpha, (array[..., 3] / 255).clip(0, 1))
    black = images.as_picture(np.zeros((2, 2, 4)))
    assert not black.rgb.any() and not black.alpha.any()
    readonly = random_pixels()[::-1, ::2]
    readonly.flags.writeable = False
    assert np.array_equal(images.as_picture(readonly).rgb, readonly)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_as_picture_takes_pillow_images(mode):
    image = Image.fromarray(random_pixels(channels=4))
    image = image.convert("RGBA" if mode in ("LA", "RGBA") else "RGB").convert(mode)
    image.info["icc_profile"] = SRGB
    picture = images.as_picture(image)
    assert np.array_equal(picture.rgb, np.asarray(image.convert("RGB")))
    assert picture.icc == (None if mode == "CMYK" else SRGB)
    if mode in ("LA", "RGBA"):
        assert np.allclose(picture.alpha, np.asarray(image.getchannel("A")) / 255)


def test_as_picture_turns_pillow_images_upright_as_files_are(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(random_pixels(6, 10)).save(tmp_path / "photo.png", exif=exif)
    grey = random_pixels(6, 10, 1, np.uint16)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png", exif=exif)
    for name in ("photo.png", "grey.png"):
        with Image.open(tmp_path / name) as image:
            picture = images.as_picture(image)
        assert picture.size == (10, 6)
        np.testing.assert_allclose(picture.rgb, images.read(tmp_path / name).rgb, atol=1e-4)


def truncated():
    whole = io.BytesIO()
    Image.fromarray(random_pixels(64, 64)).save(whole, "JPEG")
    return Image.open(io.BytesIO(whole.getvalue()[:-600]))


@pytest.mark.parametrize(
    "thing, message",
    [
        (np.zeros((3, 20, 30)), r"\(3, 20, 30\); it must be \(H, W, 3\) here: \(3, H, W\) is for Objective"),
        (np.zeros((20, 30, 2), np.uint8), r"the array is \(20, 30, 2\); it must be \(H, W, 3\), \(H, W, 4\)"),
        (np.zeros((1, 20, 30, 3), np.uint8), r"the array is \(1, 20, 30, 3\); it must"),
        (np.zeros(20, np.uint8), r"the array is \(20,\); it must"),
        (np.array(7.0), r"the array is \(\); it must"),
        (np.zeros((0, 30, 3), np.uint8), r"the array is empty; its shape is \(0, 30, 3\)"),
        (np.full((2, 2, 3), np.nan), "NaN or infinite; replace"),
        (np.full((2, 2), -np.inf, np.float32), "NaN or infinite; replace"),
        (np.full((2, 2, 3), 1e300), "NaN or infinite; replace"),
        (np.dstack([np.full((2, 2, 3), 9.0), np.full((2, 2), np.nan)]), "NaN or infinite; replace"),
        (np.full((2, 2, 3), 0.75), "ends at 0.75; multiply values of 0..1 by 255, or give them as uint8"),
        (np.linspace(-1, 1, 12).reshape(2, 2, 3), "ends at 1; multiply"),
        (np.dstack([np.full((2, 2, 3), 9.0), np.ones((2, 2))]), "ends at 1; multiply"),
        (np.zeros((2, 2, 3), np.int64), "an array of int64 is no picture; give uint8, uint16, or floats"),
        (np.zeros((2, 2, 3), np.uint32), "an array of uint32"),
        (np.zeros((2, 2, 3), bool), "an array of bool"),
        (np.zeros((2, 2, 3), complex), "an array of complex128"),
        (b"photo.jpg", "bytes is no picture; give a path, a Picture, a Pillow image or an array"),
        (None, "NoneType is no picture"),
        ([[[1, 2, 3]]], "list is no picture"),
        (Image.new("RGB", (0, 4)), "the Pillow image is empty; its size is 0×4"),
        (Image.new("F", (4, 4)), "Pillow's mode F does not say what is white; convert it to RGB"),
        (Image.new("I", (4, 4)), "Pillow's mode I does not"),
        (truncated(), "Pillow cannot decode its image .*truncated.*; open it again"),
    ],
)
def test_as_picture_refuses_in_one_line(thing, message):
    with pytest.raises(ImageError, match=rf"^the style: .*{message}") as caught:
        images.as_picture(thing, "the style")
    assert "\n" not in str(caught.value)


# The public functions


def test_preprocess_is_bgr_minus_the_mean(tmp_path):
    pixels = random_pixels()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.stack([pixels[..., c] - mean for c, mean in ((2, 103.939), (1, 116.779), (0, 123.68))])
    for given in (tmp_path / "a.png", images.read(tmp_path / "a.png"), Image.fromarray(pixels), pixels, pixels * 1.0):
        x = cvstyle.preprocess(given)
        assert x.dtype == np.float32 and x.flags.c_contiguous and x.shape == (3, 11, 17)
        np.testing.assert_allclose(x, expected, atol=1e-4)
    picture = cvstyle.deprocess(x.astype(np.float64))
    assert isinstance(picture, cvstyle.Picture) and picture.rgb.dtype == np.float32
    np.testing.assert_allclose(picture.rgb, pixels, atol=1e-4)


def test_preprocess_makes_the_longest_side_as_asked():
    """Halving is the mean of four, an enlarged plain colour stays one."""
    pixels = random_pixels(6, 10)
    x = cvstyle.preprocess(pixels, size=5)
    mean_of_four = pixels.reshape(3, 2, 5, 2, 3).mean((1, 3))
    np.testing.assert_allclose(cvstyle.deprocess(x).rgb, mean_of_four, atol=1e-3)
    plain = cvstyle.preprocess(np.full((6, 10, 3), 77, np.uint8), size=40)
    assert plain.shape == (3, 24, 40) and np.abs(cvstyle.deprocess(plain).rgb - 77).max() < 1e-3
    with pytest.raises(OptionError, match="size is 0; a number of pixels above zero"):
        cvstyle.preprocess(pixels, size=0)


def test_the_arrays_are_what_objective_takes():
    """At the content itself its loss is zero, and the style's is not."""
    content, style = cvstyle.preprocess(random_pixels(30, 40), size=48), cvstyle.preprocess(random_pixels(), size=32)
    objective = cvstyle.Objective(
        cvstyle.embedded_network("numpy"), content=content, styles=[style], content_layers=["relu2_1"],
        style_layers=["relu1"],
    )  # fmt: skip
    _, gradient = objective(content)
    assert gradient.shape == (3, 36, 48)
    assert objective.losses["content:relu2_1"] == 0 < objective.losses["style:relu1"]


@pytest.mark.parametrize(
    "x, message",
    [
        ([[[0.0]]] * 3, "list is no array"),
        (np.zeros((5, 7, 3)), r"the array is \(5, 7, 3\) of float64; it must be \(3, H, W\)"),
        (np.zeros((1, 3, 5, 7)), r"it must be \(3, H, W\)"),
        (np.zeros((3, 0, 7)), r"it must be \(3, H, W\)"),
        (np.zeros((3, 5, 7), np.uint8), "of uint8; .* of floats"),
        (np.full((3, 5, 7), np.nan), "NaN or infinite"),
        (np.full((3, 5, 7), 1e300), "NaN or infinite"),
    ],
)
def test_deprocess_refuses_what_is_no_such_array(x, message):
    with pytest.raises(ImageError, match=f"^deprocess: .*{message}"):
        cvstyle.deprocess(x)


def test_pictures_are_written_and_read_again(tmp_path):
    rgb, alpha = random_pixels().astype(np.float32), random_pixels(channels=1)[..., 0] / np.float32(255)
    picture = cvstyle.Picture(rgb, alpha, SRGB)
    cvstyle.write_picture(tmp_path / "a.tiff", picture, metadata={"Seed": "7"}, bits=16)
    again = cvstyle.read_picture(tmp_path / "a.tiff")
    np.testing.assert_allclose(again.rgb, picture.rgb, atol=1e-2)
    np.testing.assert_allclose(again.alpha, picture.alpha, atol=1e-4)
    assert again.icc == SRGB and images.read_metadata(tmp_path / "a.tiff") == {"Seed": "7"}
    pixels = random_pixels()
    cvstyle.write_picture(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), pixels)
    with pytest.raises(ImageError, match="picture: NoneType is no picture"):
        cvstyle.write_picture(tmp_path / "b.png", None)
    assert not (tmp_path / "b.png").exists()


def test_features_are_what_layers_give():
    """Against a convolution by sums in float64."""
    net, x = Network(nets.vgg(16, 16, (64, 64), classifier=False), Backend()), cvstyle.preprocess(random_pixels(24, 22))
    found = cvstyle.features(net, x, ["relu1_1", "conv1_1", "relu3_1"])
    weight, bias = (np.asarray(blob, np.float64) for blob in net.definition.weights["conv1_1"])
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    wanted = np.einsum("chwij,ocij->ohw", windows, weight.reshape(-1, 3, 3, 3)) + bias.reshape(-1, 1, 1)
    assert list(found) == ["relu1_1", "conv1_1", "relu3_1"] and found["conv1_1"].dtype == np.float32
    np.testing.assert_allclose(found["conv1_1"], wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_array_equal(found["relu1_1"], found["conv1_1"].clip(0))
    assert found["relu3_1"].shape[1:] == (6, 6)
    np.testing.assert_array_equal(cvstyle.features(net, x, "relu1_1, relu3_1")["relu3_1"], found["relu3_1"])


@pytest.mark.parametrize("picture, layers, error, message", [
    (cvstyle.preprocess(random_pixels()), ["relu3_11"], OptionError, "no layer 'relu3_11'; did you mean relu3_1"),
    (cvstyle.preprocess(random_pixels()), [], OptionError, "no layer is named"),
    (random_pixels(), ["relu3_1"], ImageError, r"the input has shape \(11, 17, 3\); .*as cvstyle.preprocess makes"),
], ids=["layer", "none", "array"])  # fmt: skip
def test_features_that_cannot_be(picture, layers, error, message):
    with pytest.raises(error, match=message):
        cvstyle.features(Network(nets.vgg(16, 16, (64, 64), classifier=False), Backend()), picture, layers)


def test_features_of_too_small_a_picture():
    net = Network(nets.nin(32, (96, 96)), Backend())
    with pytest.raises(ImageError, match=r"the input picture of 30×9 does not fit this network: .*'conv1'"):
        cvstyle.features(net, cvstyle.preprocess(random_pixels(9, 30)), ["relu3"])


def test_type_checkers_see_every_public_name():
    tree = ast.parse((Path(cvstyle.__file__).parent / "__init__.pyi").read_text(encoding="utf-8"))
    imported = {a.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert imported == cvstyle._PUBLIC
    assert all(getattr(cvstyle, name) for name in cvstyle.__all__)


@pytest.mark.parametrize("wrong, message", [
    ({"devices": ["numpy", 3]}, "3 is no backend"), ({"devices": [None]}, "None is no backend"),
    ({"backend": 3}, "3 is no backend"), ({"backend": None}, "None is no backend"),
    ({"devices": "nump"}, "unknown backend 'nump'.*numpy"), ({"network": "vgg"}, "network is of the type str"),
], ids=str)  # fmt: skip
def test_what_is_no_backend_or_network_is_refused(tmp_path, wrong, message):
    with pytest.raises(OptionError, match=message):
        cvstyle.stylize(*write(tmp_path, content=(32, 24), style=(32, 32)), image_size=32, num_iterations=1, **wrong)


def test_a_limit_of_threads_stays(tmp_path, monkeypatch):
    """Unless a job has its own."""
    monkeypatch.setattr(threads, "_limit", 1)
    cvstyle.stylize(*write(tmp_path, content=(32, 24), style=(32, 32)), image_size=32, num_iterations=1)
    assert threads.cpu_count() == 1
