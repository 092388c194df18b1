"""Pictures against Pillow, tifffile and hand-computed pixels."""

from __future__ import annotations

import importlib
import io
import pickle

import cv2
import numpy as np
import pytest
import tifffile
from pictures import SRGB, random_pixels
from PIL import Image

from cvstyle import images
from cvstyle.errors import ImageError

RNG = np.random.default_rng(0)


def test_grey_palette_and_alpha_are_read(tmp_path):
    grey = random_pixels(channels=1)[..., 0]
    rgba = random_pixels(channels=4)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey, 255 - grey], axis=2), "LA").save(tmp_path / "la.png")
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    Image.fromarray(rgba[..., :3]).quantize(8).save(tmp_path / "palette.png")
    assert np.array_equal(images.read(tmp_path / "grey.png").rgb, np.repeat(grey[..., None], 3, 2))
    both = images.read(tmp_path / "la.png")
    assert np.array_equal(both.rgb[..., 1], grey)
    assert np.allclose(both.alpha, (255 - grey) / 255)
    picture = images.read(tmp_path / "rgba.png")
    assert picture.rgb.dtype == picture.alpha.dtype == np.float32
    assert np.array_equal(picture.rgb, rgba[..., :3])
    assert np.allclose(picture.alpha, rgba[..., 3] / 255)
    with Image.open(tmp_path / "palette.png") as image:
        assert np.array_equal(images.read(tmp_path / "palette.png").rgb, np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    rgb = images.read(tmp_path / "cmyk.jpg").rgb
    assert rgb[..., 0].min() > 240
    assert rgb[..., 1:].max() < 15


@pytest.mark.parametrize("name", ["deep.png", "deep.tiff"])
def test_sixteen_bits_are_not_cut_down(tmp_path, name):
    pixels = random_pixels(channels=3, dtype=np.uint16)
    assert cv2.imwrite(str(tmp_path / name), pixels[..., ::-1])
    assert np.abs(images.read(tmp_path / name).rgb - pixels * (255 / 65535)).max() < 1e-4


def test_grey_sixteen_bit_and_float_tiff(tmp_path):
    grey = random_pixels(channels=1, dtype=np.uint16)[..., 0]
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    assert np.abs(images.read(tmp_path / "grey.png").rgb[..., 2] - grey * (255 / 65535)).max() < 1e-4
    values = RNG.random((9, 12, 3), dtype=np.float32)
    tifffile.imwrite(tmp_path / "float.tiff", values, photometric="rgb")
    assert np.allclose(images.read(tmp_path / "float.tiff").rgb, values * 255, atol=1e-4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path, orientation):
    """The eight ways to store one upright picture, each written with the pixels that its tag undoes."""
    upright = random_pixels(6, 10)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.ascontiguousarray(stored)
    Image.fromarray(stored).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(images.read(tmp_path / "photo.png").rgb, upright)
    Image.fromarray(stored[..., 0]).save(tmp_path / "grey.tif", exif=exif)
    assert np.array_equal(images.read(tmp_path / "grey.tif").rgb[..., 1], upright[..., 0])


def test_damaged_pictures_are_refused_with_one_line(tmp_path, capfd):
    whole = io.BytesIO()
    Image.fromarray(random_pixels(64, 64)).save(whole, "JPEG")
    cases = {
        "empty.jpg": b"",
        "truncated.jpg": whole.getvalue()[:-600],
        "text.png": b"this is not a picture",
        "page.jpg": b"<!DOCTYPE html><html></html>",
    }
    deep = cv2.imencode(".png", random_pixels(64, 64, 3, np.uint16))[1].tobytes()
    cases["truncated16.png"] = deep[: len(deep) // 2]
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError) as caught:
            images.read(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    for missing in (tmp_path / "absent.jpg", tmp_path):
        with pytest.raises(ImageError, match=missing.name):
            images.read(missing)
    assert capfd.readouterr().err == ""


def test_target_size_keeps_proportions():
    assert images.target_size(768, 1024, 512) == (384, 512)
    assert images.target_size(1024, 768, 512) == (512, 384)
    assert images.target_size(100, 301, 512) == (170, 512)
    assert images.target_size(3, 2, 50) == (50, 33)
    assert images.target_size(1, 5000, 100) == (1, 100)


def test_shrinking_is_an_area_average_with_fractional_coverage():
    line = np.array([0, 10, 20, 30, 40], np.float32).reshape(1, 5, 1)
    # Two output pixels cover 2.5 input pixels each.
    expected = [(0 + 10 + 20 / 2) / 2.5, (20 / 2 + 30 + 40) / 2.5]
    assert np.allclose(images.resize(line, (1, 2))[0, :, 0], expected, atol=1e-4)


def test_compat_enlarging_keeps_corners_and_is_linear_between():
    line = np.array([0, 30, 90], np.float32).reshape(1, 3, 1)
    assert np.allclose(images.resize(line, (1, 5), compat=True)[0, :, 0], [0, 15, 30, 60, 90], atol=1e-3)


def test_enlarging_does_not_ring_beyond_the_range():
    edge = np.zeros((8, 8, 3), np.float32)
    edge[:, 4:] = 255
    large = images.resize(edge, (31, 31))
    assert large.min() >= 0 and large.max() <= 255


def test_preprocess_by_hand_and_back():
    rgb = np.float32([[[10, 20, 30]]])
    x = images.preprocess(rgb)
    assert x.shape == (3, 1, 1)
    assert np.allclose(x.ravel(), [30 - 103.939, 20 - 116.779, 10 - 123.68], atol=1e-4)
    x = images.preprocess(rgb, pixel_range=256)
    assert np.allclose(
        x.ravel(), [30 * 256 / 255 - 103.939, 20 * 256 / 255 - 116.779, 10 * 256 / 255 - 123.68], atol=1e-4
    )
    assert np.allclose(images.deprocess(x, pixel_range=256), rgb, atol=1e-4)


def test_original_colors_take_brightness_from_the_result():
    content, result = (random_pixels(5, 6).astype(np.float32) for _ in range(2))
    luma = np.float32([0.299, 0.587, 0.114])
    mixed = images.original_colors(content, result)
    assert np.allclose(mixed @ luma, result @ luma, atol=0.02)
    # U and V are multiples of B − Y and R − Y.
    for channel in (0, 2):
        assert np.allclose(mixed[..., channel] - mixed @ luma, content[..., channel] - content @ luma, atol=0.05)


@pytest.mark.parametrize("name, bits", [("a.png", 8), ("a.png", 16), ("a.tif", 8), ("a.tiff", 16), ("a.webp", 8)])
def test_lossless_round_trip_with_alpha_profile_and_texts(tmp_path, name, bits):
    rgb = RNG.uniform(0, 255, (13, 9, 3)).astype(np.float32)
    alpha = RNG.uniform(0, 1, (13, 9)).astype(np.float32)
    texts = {"Software": "cvstyle", "Command": "cvstyle run --content 'Tübingen ✓.jpg'"}
    path = tmp_path / name
    images.write(path, rgb, alpha, SRGB, texts, bits=bits)
    again = images.read(path)
    step = 1 / ((1 << bits) - 1)
    assert np.abs(again.rgb - rgb).max() <= 255 * step / 2 + 1e-3
    assert np.abs(again.alpha - alpha).max() <= step / 2 + 1e-6
    assert images.read_metadata(path) == texts
    if not (bits == 16 and name.startswith("a.tif")):  # Pillow cannot open that one to look
        with Image.open(path) as image:
            assert image.info["icc_profile"] == SRGB
    first = path.read_bytes()
    images.write(path, rgb, alpha, SRGB, texts, bits=bits)
    assert path.read_bytes() == first


def test_jpeg_has_full_colour_resolution_and_texts(tmp_path):
    path = tmp_path / "a.jpg"
    images.write(path, random_pixels(40, 40).astype(np.float32), np.ones((40, 40), np.float32), None, {"Seed": "7"})
    assert images.read_metadata(path) == {"Seed": "7"}
    with Image.open(path) as image:
        assert [part[1:3] for part in image.layer] == [(1, 1)] * 3  # sampling factors of Y, Cb, Cr
    smooth = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.float32)[:, None, None], (64, 64, 3))
    images.write(path, smooth)
    assert np.abs(images.read(path).rgb - smooth).max() < 4


@pytest.mark.parametrize("channels", [3, 4])
def test_the_png_of_a_picture_has_the_rounded_pixels(tmp_path, channels):
    rgb = RNG.uniform(-20, 280, (7, 9, 3)).astype(np.float32)
    alpha = RNG.uniform(0, 1, (7, 9)).astype(np.float32) if channels == 4 else None
    picture = images.Picture(rgb, alpha, SRGB)
    expected = rgb.clip(0, 255) if alpha is None else np.dstack([rgb.clip(0, 255), alpha * 255])
    with Image.open(io.BytesIO(picture._repr_png_())) as image:
        assert np.array_equal(np.asarray(image), np.rint(expected)) and image.info["icc_profile"] == SRGB
    images.write(tmp_path / "a.png", rgb, alpha, SRGB)
    assert (tmp_path / "a.png").read_bytes() == picture._repr_png_() == images.png(picture)


def test_a_picture_is_a_value_that_can_be_sent_and_compared():
    picture = images.Picture(random_pixels().astype(np.float32), np.ones((11, 17), np.float32), SRGB)
    again = pickle.loads(pickle.dumps(picture))
    assert np.array_equal(again.rgb, picture.rgb) and np.array_equal(again.alpha, picture.alpha)
    assert again.icc == SRGB and again.size == (11, 17)
    assert picture == picture and picture != again and len({picture, again, picture}) == 2


def test_values_beyond_the_range_are_clipped(tmp_path):
    images.write(tmp_path / "a.png", np.float32([[[-50, 127.4, 300]]]))
    assert images.read(tmp_path / "a.png").rgb.tolist() == [[[0, 127, 255]]]


def test_a_path_that_cannot_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    for path, reason in (
        (tmp_path / "a.gif", "cannot write '.gif'"),
        (tmp_path / "a", "the name has no ending"),
        (tmp_path / "no" / "a.png", "no folder"),
        (tmp_path / "file" / "a.png", "no folder"),
    ):
        with pytest.raises(ImageError, match=reason):
            images.check_writable(path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="folder"):
        images.check_writable(tmp_path / "folder.png")
    with pytest.raises(ImageError, match="16 bits"):
        images.check_writable(tmp_path / "a.jpg", bits=16)
    images.check_writable(tmp_path / "fine.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    images.write(path, np.zeros((2, 2, 3), np.float32))
    before = path.read_bytes()

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importlib.import_module("cvstyle.images.picture"), "encode", disk_full)
    with pytest.raises(ImageError, match="No space left"):
        images.write(path, np.ones((2, 2, 3), np.float32))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_resize_without_memory_or_beyond_opencv_says_so(monkeypatch):
    def fail(*_, **__):
        error = cv2.error("")
        error.code, error.err = code, "!limits"
        raise error

    monkeypatch.setattr(cv2, "resize", fail)
    code = cv2.Error.StsNoMem
    with pytest.raises(MemoryError, match="7×5"):
        images.resize(np.zeros((2, 2, 3), np.float32), (5, 7))
    code = cv2.Error.StsAssert
    with pytest.raises(ImageError, match="2×2 cannot be resized to 7×5: !limits"):
        images.resize(np.zeros((2, 2, 3), np.float32), (5, 7))


@pytest.mark.parametrize("kind", ["planar", "white", "grey and alpha", "half", "long", "lzw", "profile"])
def test_deep_tiffs_of_every_arrangement(tmp_path, kind):
    """Arrangements that OpenCV reads wrongly or not at all, each against the numbers that went in."""
    path, rng = tmp_path / "deep.tif", np.random.default_rng(3)
    pixels = rng.integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    expected, alpha = pixels / 257, None
    if kind == "planar":
        tifffile.imwrite(path, pixels.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate")
    elif kind == "white":
        tifffile.imwrite(path, pixels[..., 0], photometric="miniswhite")
        expected = np.repeat(255 - pixels[..., :1] / 257, 3, axis=2)
    elif kind == "grey and alpha":
        tifffile.imwrite(path, pixels[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=[2])
        expected, alpha = np.repeat(pixels[..., :1] / 257, 3, axis=2), pixels[..., 1] / 65535
    elif kind == "half":
        tifffile.imwrite(path, (pixels / 65535).astype(np.float16), photometric="rgb")
    elif kind == "long":
        tifffile.imwrite(path, pixels.astype(np.uint32) * 65537, photometric="rgb")
    elif kind == "lzw":
        cv2.imwrite(str(path), pixels[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    else:
        images.write(path, pixels / 257, icc=SRGB, bits=16)
        assert images.read(path).icc == SRGB
    picture = images.read(path)
    np.testing.assert_allclose(picture.rgb, expected, atol=0.1 if kind == "half" else 1e-3)
    assert (picture.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_allclose(picture.alpha, alpha, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_tiffs_that_are_no_pictures_are_refused(tmp_path):
    path = tmp_path / "odd.tif"
    for pixels, named, message in (
        (np.full((4, 4, 3), np.nan, np.float32), {"photometric": "rgb"}, "NaN"),
        (np.zeros((4, 4, 3), np.complex64), {"photometric": "rgb"}, "complex"),
        (np.zeros((4, 4), np.int16), {"photometric": "minisblack"}, "int16"),
    ):
        tifffile.imwrite(path, pixels, **named)
        with pytest.raises(ImageError, match=rf"odd.tif: .*{message}"):
            images.read(path)
    good = io.BytesIO()
    tifffile.imwrite(good, np.zeros((40, 40, 3), np.uint16), photometric="rgb")
    for size in (5, 60, 150, 300, 3000):
        path.write_bytes(good.getvalue()[:size])
        with pytest.raises(ImageError, match=r"odd.tif: .*damaged"):
            images.read(path)
