"""Reading of pictures: numbers, pages, kinds of files, limits and memory, against pixels known by construction."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from pictures import random_pixels
from PIL import Image

from cvstyle import images
from cvstyle.errors import ImageError

RNG = np.random.default_rng(7)
RGB8 = random_pixels(40, 52)
RGB16 = random_pixels(40, 52, dtype=np.uint16)
UNITS = RNG.random((40, 52, 3)).astype(np.float32)


def refusal(path):
    """The one line that refuses a file, without its path."""
    with pytest.raises(ImageError) as caught:
        images.read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and len(line) < 400 + len(str(path))
    return line.removeprefix(f"{path}: ")


def grey(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=2)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bit_rows(values, bits):
    """Rows (H, n) of numbers as bytes, the highest bit first, each row padded to a byte."""
    texts = ["".join(f"{int(value):0{bits}b}" for value in row) for row in values]
    return [int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big") for text in texts]


def png(values, colour, depth, before=b"", width=None, height=None):
    """A PNG of numbers (H, W[, C])."""
    rows = bit_rows(values.reshape(len(values), -1), depth)
    header = struct.pack(">IIBBBBB", width or values.shape[1], height or len(values), depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), before, chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def tiff(values, bits, **more):
    """A little-endian TIFF of one strip of numbers (H, W, C) of any number of bits; more: tags by number."""
    height, width, channels = values.shape
    data = b"".join(bit_rows(values.reshape(height, -1), bits))
    data += b"\0" * (len(data) % 2)
    depths = struct.pack(f"<{channels}H", *[bits] * channels)
    at = 8 + len(data)
    tags = {256: width, 257: height, 258: at if channels > 2 else bits, 259: 1, 262: 2 if channels > 2 else 1, 273: 8}
    tags |= {277: channels, 278: height, 279: len(data)} | {int(code[1:]): value for code, value in more.items()}
    entries = [
        struct.pack("<HHII", code, 3 if code == 258 else 4, channels if code == 258 else 1, tags[code])
        for code in sorted(tags)
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", at + len(depths)) + data + depths + directory


def assert_picture(picture, rgb, alpha=None, atol=0.01):
    assert (picture.alpha is None) == (alpha is None)
    visible = 1 if alpha is None else (alpha > 0)[..., None]
    np.testing.assert_allclose(picture.rgb * visible, rgb * visible, atol=atol)
    if alpha is not None:
        np.testing.assert_allclose(picture.alpha, alpha, atol=1e-5)


# Numbers


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiffs_of_any_number_of_bits(tmp_path, bits, channels):
    values = RNG.integers(0, 1 << bits, (9, 13, channels))
    (tmp_path / "a.tif").write_bytes(tiff(values, bits))
    expected = values * (255 / ((1 << bits) - 1))
    assert_picture(images.read(tmp_path / "a.tif"), expected if channels == 3 else grey(expected[..., 0]))


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 7}])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("more", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}])
@pytest.mark.parametrize("pixels, scale", [(RGB8, 1), (RGB16, 1 / 257)])
def test_tiffs_in_every_layout(tmp_path, layout, planar, more, pixels, scale):
    stored = pixels if planar == "contig" else pixels.transpose(2, 0, 1).copy()
    order = ">" if more else "<"
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, byteorder=order, **layout, **more
    )
    assert_picture(images.read(tmp_path / "a.tif"), pixels * np.float64(scale))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd", "lzma", "jpeg"])
def test_tiffs_by_libtiff(tmp_path, compression):
    smooth = cv2.GaussianBlur(RGB8, (0, 0), 5)
    Image.fromarray(smooth).save(tmp_path / "a.tif", compression=compression)
    with Image.open(tmp_path / "a.tif") as image:
        assert_picture(images.read(tmp_path / "a.tif"), np.asarray(image))


def test_fax_and_palette_tiffs(tmp_path):
    black = RGB8[..., 0] > 128
    for compression in ("group3", "group4", "tiff_ccitt", None):
        Image.fromarray(black).save(tmp_path / "a.tif", compression=compression)
        assert_picture(images.read(tmp_path / "a.tif"), grey(black * 255))
    palette = Image.fromarray(RGB8).quantize(37)
    palette.save(tmp_path / "a.tif")
    assert_picture(images.read(tmp_path / "a.tif"), np.asarray(palette.convert("RGB")))


def test_the_floating_point_predictor(tmp_path):
    """Differences of the bytes of a row, the highest bytes first: written here by the rule."""
    data = b""
    for row in UNITS:
        planes = row.reshape(-1).astype(">f4").view(np.uint8).reshape(-1, 4).T.reshape(-1).astype(np.int64)
        data += (np.concatenate([planes[:3], planes[3:] - planes[:-3]]) % 256).astype(np.uint8).tobytes()
    words = np.frombuffer(data, ">u4").reshape(40, 52, 3)
    (tmp_path / "a.tif").write_bytes(tiff(words, 32, t317=3, t339=3))
    assert_picture(images.read(tmp_path / "a.tif"), UNITS * 255.0)


def test_floats_by_the_range_that_is_stated_or_not_at_all(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, UNITS.astype(np.float64), photometric="rgb")
    assert_picture(images.read(path), UNITS * 255.0)
    tifffile.imwrite(path, UNITS * 1000 - 200, photometric="rgb")
    assert "its values are -199" in refusal(path) and "16-bit TIFF" in refusal(path)
    stated = [(340, "f", 3, (-200.0,) * 3), (341, "f", 3, (800.0,) * 3)]
    tifffile.imwrite(path, UNITS * 1000 - 200, photometric="rgb", extratags=stated)
    assert_picture(images.read(path), UNITS * 255.0)
    tifffile.imwrite(path, UNITS[..., 0] * 255, imagej=True, metadata={"min": 0.0, "max": 255.0})
    assert_picture(images.read(path), grey(UNITS[..., 0] * 255.0))
    white = UNITS.copy()
    white[3, 4] = np.inf
    tifffile.imwrite(path, white, photometric="rgb")
    assert "NaN or infinite" in refusal(path)


def test_integers_that_do_not_say_what_is_white(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, (RGB16.astype(int) - 32768).astype(np.int16), photometric="rgb")
    assert "int16" in refusal(path)
    stated = [(340, "h", 3, (-32768,) * 3), (341, "h", 3, (32767,) * 3)]
    tifffile.imwrite(path, (RGB16.astype(int) - 32768).astype(np.int16), photometric="rgb", extratags=stated)
    assert_picture(images.read(path), RGB16 / 257)
    tifffile.imwrite(path, RGB16 // 400, photometric="rgb")
    assert "it would be black" in refusal(path)
    tifffile.imwrite(path, RGB16 // 16, photometric="rgb")
    assert "to 4095, where 0 is black and 65535 is white, so it is dark" in images.read(path).remarks[0]
    tifffile.imwrite(path, RGB16 * 0, photometric="rgb")
    assert_picture(images.read(path), RGB16 * 0)


@pytest.mark.parametrize("kind, largest", [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_the_fourth_channel_is_what_extrasamples_says(tmp_path, kind, largest, extra):
    alpha = RNG.integers(0, 4, (40, 52, 1)) / 3
    stored = np.concatenate([UNITS * alpha if extra == 1 else UNITS, alpha], axis=2) * largest
    stored = stored.astype(kind) if kind == np.float32 else np.rint(stored).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=[extra])
    picture = images.read(tmp_path / "a.tif")
    atol = 2 if kind == np.uint8 else 0.02
    assert_picture(picture, UNITS * 255.0, None if extra == 0 else stored[..., 3] / largest, atol)
    assert bool(picture.remarks) == (extra == 0)


def test_cielab_and_cmyk_tiffs(tmp_path):
    """The a-channel of Lab is no alpha; signed and offset encodings mean the same colours."""
    path = tmp_path / "a.tif"
    lab = np.array([[[50.0, -20, 30], [80, 10, -40], [100, 0, 0]]] * 2, np.float32)
    expected = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255
    lightness = lab[..., :1] / 100
    for name, stored in {
        "cielab8": np.concatenate([lightness * 255, lab[..., 1:] % 256], 2),
        "icclab8": np.concatenate([lightness * 255, lab[..., 1:] + 128], 2),
        "cielab16": np.concatenate([lightness * 65535, lab[..., 1:] * 256 % 65536], 2),
        "icclab16": np.concatenate([lightness * 65280, lab[..., 1:] * 256 + 32768], 2),
    }.items():
        kind = np.uint8 if name.endswith("8") else np.uint16
        tifffile.imwrite(path, np.rint(stored).astype(kind), photometric=name[:6])
        # The reference's white is D65 and that of profiles D50: only neutral and lightness are compared closely.
        assert_picture(images.read(path), expected, atol=25)
        assert np.abs(images.read(path).rgb[0, 2] - 255).max() < 1.5
    inks = random_pixels(8, 9, 4, np.uint16)
    tifffile.imwrite(path, inks, photometric="separated")
    Image.fromarray((inks >> 8).astype(np.uint8), "CMYK").save(tmp_path / "b.tif")
    assert np.abs(images.read(path).rgb - images.read(tmp_path / "b.tif").rgb).max() < 2


@pytest.mark.parametrize("pixels, named, words", [
    (np.zeros((8, 9, 5), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}, "5 channels"),
    (np.zeros((8, 9, 2), np.uint16), {"photometric": "minisblack", "planarconfig": "contig"}, "2 channels"),
    (np.zeros((4, 16, 16), np.uint8), {"photometric": "minisblack", "volumetric": True}, "volume of 4"),
    (np.zeros((8, 9), np.complex64), {"photometric": "minisblack"}, "complex"),
])  # fmt: skip
def test_measurements_are_no_pictures(tmp_path, pixels, named, words):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **named)
    assert words in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_colour_of_a_png(tmp_path, depth):
    path = tmp_path / "a.png"
    largest = (1 << depth) - 1
    values = RNG.integers(0, largest + 1, (9, 13))
    key = int(values[3, 4])
    path.write_bytes(png(values, 0, depth, chunk(b"tRNS", struct.pack(">H", key))))
    assert_picture(images.read(path), grey(values * (255 / largest)), (values != key) * 1.0)
    if depth >= 8:
        values = RNG.integers(0, largest + 1, (9, 13, 3))
        key = values[3, 4]
        path.write_bytes(png(values, 2, depth, chunk(b"tRNS", struct.pack(">3H", *map(int, key)))))
        assert_picture(images.read(path), values * (255 / largest), (values != key).any(axis=2) * 1.0)
        for colour, channels in ((4, 2), (6, 4)):
            values = RNG.integers(0, largest + 1, (9, 13, channels))
            path.write_bytes(png(values, colour, depth))
            rgb = values[..., :3] if channels == 4 else grey(values[..., 0])
            assert_picture(images.read(path), rgb * (255 / largest), values[..., -1] / largest)


def test_netpbm_of_any_maximum(tmp_path):
    values = RNG.integers(0, 1024, (9, 13, 3))
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 # a comment\n13 9\n1023\n" + values.astype(">u2").tobytes())
    assert_picture(images.read(path), values * (255 / 1023))
    four = random_pixels(9, 13, 4)
    path.write_bytes(b"P7\nWIDTH 13\nHEIGHT 9\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n" + four.tobytes())
    assert_picture(images.read(path), four[..., :3], four[..., 3] / 255)
    for scale, order in ((b"-1.0", "<f4"), (b"1.0", ">f4")):
        path.write_bytes(b"PF\n52 40\n" + scale + b"\n" + UNITS[::-1].astype(order).tobytes())
        assert_picture(images.read(path), UNITS * 255.0)
    path.write_bytes(b"PF\n52 40\n-1.0\n" + (UNITS * 3).tobytes())
    assert "its values are" in refusal(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_pillow_images_of_every_mode(mode):
    image = Image.fromarray(np.concatenate([RGB8, RGB8[..., :1] | 64], 2)).convert("LA" if mode == "PA" else "RGBA")
    image = image.convert(mode) if mode in ("RGBA", "RGBa", "LA", "PA") else image.convert("RGB").convert(mode)
    expected = np.asarray(image.convert("RGBA"))
    alpha = expected[..., 3] / 255 if "A" in mode or "a" in mode else None
    assert_picture(images.as_picture(image), expected[..., :3], alpha, atol=1)


# Pages, frames, kinds


def test_the_largest_page_of_a_tiff_is_used(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:  # as in DNG: a preview, and the picture below it
        file.write(RGB8[:8, :12], photometric="rgb", subfiletype=1, subifds=1)
        file.write(RGB8, photometric="rgb", subfiletype=0)
    picture = images.read(path)
    assert_picture(picture, RGB8)
    assert picture.remarks == ()
    with tifffile.TiffWriter(path) as file:
        file.write(RGB8[:8, :12], photometric="rgb")
        file.write(RGB16, photometric="rgb")
        file.write(RGB16[::-1], photometric="rgb")
    picture = images.read(path)
    assert_picture(picture, RGB16 / 257)
    assert picture.remarks == (f"{path}: page 2 of 3, the largest, is used",)
    with tifffile.TiffWriter(path) as file:
        file.write(RGB8[:8, :12], photometric="rgb", subfiletype=1, subifds=1, extratags=[(271, "s", 0, "Maker", True)])
        file.write(RGB16[..., 0], photometric="cfa", subfiletype=0)
    assert "a camera raw file (Maker)" in refusal(path)


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_an_animation_says_so(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    first, *others = (Image.fromarray(np.roll(RGB8, n, axis=0)) for n in range(3))
    first.save(path, save_all=True, append_images=others, **({"lossless": True} if ending == "webp" else {}))
    picture = images.read(path)
    with Image.open(path) as image:
        assert_picture(picture, np.asarray(image.convert("RGB")))
    assert picture.remarks == (f"{path}: the first of 3 frames is used",)


def box(brand, *others):
    return struct.pack(">I", 16 + 4 * len(others)) + b"ftyp" + brand + bytes(4) + b"".join(others) + bytes(64)


@pytest.mark.parametrize("data, words", [
    (b"", "empty"), (bytes(5000), "only zeros"), (b"hello", "a text file"), (b"<html><body>", "a web page"),
    (b"\n<!DOCTYPE html>\n<html>", "a web page"), (b'<?xml version="1.0"?>\n<svg width="1"/>', "SVG"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"), (b"%PDF-1.7\n", "PDF"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"), (b"gimp xcf v011\0", "GIMP"),
    (b"II*\0\x10\0\0\0CR\x02\0" + bytes(99), "Canon CR2"), (box(b"crx ", b"isom"), "Canon CR3"),
    (b"FUJIFILMCCD-RAW 0201", "Fujifilm"), (b"IIRO\x08\0\0\0", "Olympus"), (b"IIU\0\x18\0\0\0", "Panasonic"),
    (b"FOVb" + bytes(9), "Sigma"), (b"\0MRM" + bytes(9), "Minolta"), (box(b"isom", b"mp42"), "video"),
    (box(b"qt  "), "video"), (b"\xff\x0a\xfa\x7f", "JPEG XL"), (b"#?RADIANCE\n", "Radiance"),
    (b"\x76\x2f\x31\x01\2\0\0\0", "OpenEXR"), (b"PK\x03\x04\x14\0", "zip"), (b"8BPS\0\x02" + bytes(40), "PSB"),
    (b"8BPS\0\x01" + bytes(6) + b"\0\x03\0\0\0\x01\0\0\0\x01\0\x10\0\x03" + bytes(12), "16 bits per channel"),
    (b"\x99\x01" + bytes(range(64, 128)) + b"\x02", "no picture"),
])  # fmt: skip
def test_other_files_are_refused_by_their_names(tmp_path, capfd, data, words):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    assert words in refusal(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("turned", [1, 6])
def test_heic_is_read_by_its_package(tmp_path, turned):
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif, of the extra 'test', is not installed")
    pixels = np.full((48, 64, 3), (200, 120, 40), np.uint8)
    pixels[:24, :32] = (10, 60, 220)
    exif = Image.Exif()
    exif[274] = turned
    encoded = pillow_heif.from_pillow(Image.fromarray(pixels))
    encoded.save(tmp_path / "photo.jpg", quality=100, chroma=444, exif=exif.tobytes(), format="HEIF")
    picture = images.read(tmp_path / "photo.jpg")  # whatever the ending
    wanted = pixels if turned == 1 else np.rot90(pixels, -1)
    assert picture.size == wanted.shape[:2] and picture.alpha is None
    assert np.abs(picture.rgb - wanted).mean() < 3
    small = images.read(tmp_path / "photo.jpg", lambda height, width: (height // 4, width // 4))
    assert np.abs(small.rgb - wanted[2::4, 2::4]).mean() < 4


def test_heic_is_refused_by_its_name_without_its_package(tmp_path, monkeypatch):
    path = tmp_path / "photo.jpg"
    path.write_bytes(box(b"heic", b"mif1", b"heic"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "HEIC" in refusal(path) and "pip install pillow-heif" in refusal(path)


def test_rare_kinds_of_jpeg_are_named(tmp_path):
    file = io.BytesIO()
    Image.fromarray(RGB8).save(file, "JPEG")
    data = bytearray(file.getvalue())
    frame = data.index(b"\xff\xc0")
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:frame + 4] + b"\x0c" + data[frame + 5 :])
    assert "12-bit JPEG" in refusal(path)
    path.write_bytes(data[:frame + 1] + b"\xc3" + data[frame + 2 :])
    assert "lossless" in refusal(path)


# Metadata and limits


def segment(marker, data):
    return bytes([255, marker]) + struct.pack(">H", len(data) + 2) + data


def test_large_metadata_are_no_damage(tmp_path, capfd):
    """Texts, XMP and profiles of megabytes, and ancillary chunks that are damaged, in files with sound pixels."""
    path = tmp_path / "a"
    texts = b"".join(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 << 20))) for _ in range(40))
    texts += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"x" * (70 << 20))
    wrong = chunk(b"tEXt", b"a\0b")[:-1] + b"\0"
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(np.random.default_rng(0).bytes(3 << 20)))
    for depth, before in ((8, texts), (8, wrong), (8, profile), (16, profile), (16, texts)):
        values = RNG.integers(0, 1 << depth, (9, 13, 3))
        path.write_bytes(png(values, 2, depth, before))
        assert_picture(images.read(path), values * (255 / ((1 << depth) - 1)), atol=0.01)
    file = io.BytesIO()
    Image.fromarray(RGB8).save(file, "JPEG")
    plain = file.getvalue()
    xmp = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"x" * 60000) * 1200
    path.write_bytes(plain[:2] + xmp + segment(0xFE, b"c" * 65000) * 9 + plain[2:])
    assert_picture(images.read(path), np.asarray(Image.open(io.BytesIO(plain))))
    tifffile.imwrite(path, RGB8, photometric="rgb", extratags=[(700, 1, 70 << 20, b"x" * (70 << 20), True)])
    assert_picture(images.read(path), RGB8)
    assert capfd.readouterr() == ("", "")


def test_a_png_without_its_end_or_with_more_behind_it(tmp_path):
    whole = png(RGB8, 2, 8)
    path = tmp_path / "a.png"
    for data in (whole[:-12], whole + b"garbage" * 99):
        path.write_bytes(data)
        assert_picture(images.read(path), RGB8)
    for data in (whole[:-40], whole[: len(whole) // 2], whole[:40]):
        path.write_bytes(data)
        assert "damaged" in refusal(path)


def test_bombs_are_refused_before_they_are_decoded(tmp_path):
    path = tmp_path / "a"
    blank = np.zeros((1, 8), np.uint8)
    gif = b"GIF89a" + struct.pack("<HH", 46000, 46000) + b"\x80\0\0" + bytes(6)
    gif += b"," + struct.pack("<4H", 0, 0, 46000, 46000) + b"\0\x02\x02\x4c\x01\0;"
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    jpeg = bytearray(file.getvalue())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    one_bit = png(blank, 0, 1, width=225000, height=225000)
    for data in (one_bit, png(blank, 2, 16, width=60000, height=60000), gif, jpeg):
        path.write_bytes(data)
        assert "megapixels in" in refusal(path)
    bomb = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(200 << 20)))
    path.write_bytes(png(RGB8, 2, 8, bomb))
    assert_picture(images.read(path), RGB8)
    assert "its colour profile is damaged" in images.read(path).remarks[0]


@pytest.mark.parametrize("free", ["available", "address_space"])
def test_a_picture_that_does_not_fit_in_memory_says_so(tmp_path, monkeypatch, free):
    Image.fromarray(RGB8).save(tmp_path / "a.bmp")
    monkeypatch.setattr(f"cvstyle.machine.{free}", lambda: 1000)
    assert "GB of memory" in refusal(tmp_path / "a.bmp")


def test_pipes_are_read_once(tmp_path):
    Image.fromarray(RGB8).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(data))
        writer.start()
        assert_picture(images.read(tmp_path / "pipe"), RGB8)
        writer.join()


# Reduction and memory


@pytest.mark.parametrize("size, needed", [
    ((301, 457), (100, 77)), ((64, 64), (63, 64)), ((64, 64), (64, 13)), ((1000, 1), (7, 1)), ((97, 500), (1, 1)),
    ((700, 900), (699, 899)),
])  # fmt: skip
def test_reduction_is_opencv_s_area_average(tmp_path, size, needed):
    pixels = random_pixels(*size)
    Image.fromarray(pixels).save(tmp_path / "a.bmp")
    picture = images.read(tmp_path / "a.bmp", lambda *_: needed)
    expected = cv2.resize(pixels.astype(np.float32), needed[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(picture.rgb, expected.reshape(picture.rgb.shape), atol=2e-3)
    assert picture.full_size == size


def test_colours_are_weighted_by_alpha(tmp_path):
    """Hidden colours do not bleed into a reduced picture, and premultiplied ones come out the same."""
    rgba = random_pixels(30, 40, 4)
    rgba[::2, :, 3] = 0
    other = rgba.copy()
    other[::2, :, :3] = 255 - other[::2, :, :3]
    found = []
    for pixels in (rgba, other):
        Image.fromarray(pixels).save(tmp_path / "a.png")
        found.append(images.read(tmp_path / "a.png", lambda *_: (7, 9)))
    assert np.array_equal(found[0].rgb, found[1].rgb) and np.array_equal(found[0].alpha, found[1].alpha)
    weights = cv2.resize(rgba[..., 3].astype(np.float64), (9, 7), interpolation=cv2.INTER_AREA)[..., None]
    paint = cv2.resize(rgba[..., :3] * rgba[..., 3:].astype(np.float64), (9, 7), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(found[0].rgb, paint / weights, atol=0.01)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_decoded_at_a_reduced_scale_is_close_to_the_exact_average(tmp_path, orientation):
    small = cv2.GaussianBlur(random_pixels(90, 131), (0, 0), 1)
    large = cv2.resize(small, (1003, 717), interpolation=cv2.INTER_CUBIC)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(large).save(tmp_path / "a.jpg", quality=90, exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        decoded = np.asarray(image).astype(np.float32)
    for width, height in ((201, 143), (125, 89), (31, 22)):
        upright = (height, width) if orientation == 1 else (width, height)
        picture = images.read(tmp_path / "a.jpg", lambda *_, size=upright: size)
        expected = cv2.resize(decoded, (width, height), interpolation=cv2.INTER_AREA)
        expected = np.rot90(expected, -1) if orientation == 6 else expected
        assert np.abs(picture.rgb - expected).mean() < 0.6
        assert np.abs(picture.rgb - expected).max() < 8
        assert picture.full_size == ((717, 1003) if orientation == 1 else (1003, 717))


_PEAK = """
import sys
from cvstyle import images, process
path, small, longest = sys.argv[1], sys.argv[2], int(sys.argv[3])
fit = lambda height, width: images.target_size(height, width, longest)
images.read(small, lambda height, width: (height // 2, width // 2))
process.reset_peak()
before = process.resident()
picture = images.read(path, fit)
result = picture.rgb.nbytes + (0 if picture.alpha is None else picture.alpha.nbytes)
print(process.peak() - before - result, images.reading_memory(path, fit))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is measured on Linux")
@pytest.mark.parametrize("name, most", [
    ("a.jpg", 0.5), ("progressive.jpg", 3.5), ("a.png", 4 + 2), ("deep.png", 12 + 2), ("a.tif", 0.5), ("deep.tif", 0.5),
    ("a.webp", 6.5), ("a.bmp", 4.5),
])  # fmt: skip
def test_reading_takes_the_memory_that_is_stated(tmp_path, name, most):
    """Peak bytes per pixel of reading 12 megapixels for a small picture."""
    height, width = 3000, 4000
    pixels = cv2.resize(random_pixels(40, 60), (width, height), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / name
    if name == "deep.png":
        cv2.imwrite(str(path), pixels.astype(np.uint16) * 257, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    elif path.suffix == ".tif":
        deep = pixels.astype(np.uint16) * 257 if name == "deep.tif" else pixels
        fast = {"compression": "zlib", "compressionargs": {"level": 1}}
        tifffile.imwrite(path, deep, photometric="rgb", rowsperstrip=height, **fast)
    else:
        more = {"progressive.jpg": {"progressive": True}, "a.webp": {"method": 0}, "a.png": {"compress_level": 1}}
        Image.fromarray(pixels).save(path, **more.get(name, {}))
    Image.fromarray(pixels[:64, :64]).save(tmp_path / f"small{path.suffix}")
    command = [sys.executable, "-c", _PEAK, str(path), str(tmp_path / f"small{path.suffix}"), "256"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    measured, stated = map(int, ran.stdout.split())
    assert measured < most * height * width + (20 << 20)
    assert abs(measured - stated) < 0.15 * measured + (20 << 20)
