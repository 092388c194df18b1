"""Colour profiles against Little CMS (Pillow's ImageCms), formulas of the specifications, and one another."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from pictures import SRGB, random_pixels
from PIL import Image, ImageCms, PngImagePlugin

import cvstyle
from cvstyle import images
from cvstyle.errors import ImageError
from cvstyle.images import profiles

D65 = (0.3127, 0.3290)
D50 = (0.3457, 0.3585)
ADOBE = (D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06), 563 / 256)
PROPHOTO = (D50, (0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), 1.8)
P3 = (D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
REC709 = (D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))


def curve(kind, *numbers):
    """A tag of type `curv` (16-bit numbers) or `para` (function type, then its parameters)."""
    if kind == "curv":
        return struct.pack(f">4sII{len(numbers)}H", b"curv", 0, len(numbers), *numbers)
    fixed = [round(n * 65536) for n in numbers[1:]]
    return struct.pack(f">4sIHH{len(fixed)}i", b"para", 0, numbers[0], 0, *fixed)


def profile(space="RGB ", version=2, kind=b"mntr", pcs=b"XYZ ", **tags):
    """An ICC profile with these tags; those of RGB have the colorants of sRGB, unless given."""
    xyz = {"rXYZ": (0.43607, 0.22249, 0.01392), "gXYZ": (0.38515, 0.71687, 0.09708), "bXYZ": (0.14307, 0.06061, 0.7141)}
    found = {"wtpt": (0.9642, 1, 0.8249), **(xyz if space == "RGB " else {}), **tags}
    packed = {
        name: tag if isinstance(tag, bytes) else b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(n * 65536) for n in tag))
        for name, tag in found.items()
    }
    offset = 132 + 12 * len(packed)
    table = struct.pack(">I", len(packed))
    for name, tag in packed.items():
        table += struct.pack(">4sII", name.encode(), offset, len(tag))
        offset += len(tag)
    header = struct.pack(">II4s4s4s", offset, 0, struct.pack(">I", version << 24), kind, space.encode()) + pcs
    header = header.ljust(36, b"\0") + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + b"".join(packed.values())


def rgb_profile(tag, **more):
    return profile(**dict.fromkeys(("rTRC", "gTRC", "bTRC"), tag), **more)


def little_cms(data, samples, mode):
    """sRGB of uint8 samples, relative colorimetric with black point compensation."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(data)), ImageCms.createProfile("sRGB"), mode, "RGB", 1,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )  # fmt: skip
    return np.asarray(transform.apply(Image.fromarray(samples)))


TABLE = [round(65535 * (i / 63) ** 2.1) for i in range(64)]
CURVES = {
    "linear": curve("curv"),
    "gamma": curve("curv", 461),
    "table": curve("curv", *TABLE),
    "flat at its ends": curve("curv", 0, 0, *TABLE[2:-2], 65535, 65535),
    "para 0": curve("para", 0, 2.2),
    "para 1": curve("para", 1, 2.4, 1 / 1.055, 0.055 / 1.055),
    "para 2": curve("para", 2, 2.4, 0.99 ** (1 / 2.4) - 0.03, 0.03, 0.01),
    "para 3": curve("para", 3, 1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081),
    "para 4": curve("para", 4, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0, 0),
}
REAL = {
    "sRGB": SRGB,
    "Adobe RGB": profiles.from_chromaticities(*ADOBE),
    "ProPhoto": profiles.from_chromaticities(*PROPHOTO),
    "Display P3": profiles.from_chromaticities(*P3),
}


@pytest.mark.parametrize("name", [*CURVES, *REAL])
def test_rgb_by_matrix_and_curves(name):
    data = REAL.get(name) or rgb_profile(CURVES[name], version=4 if "para" in name else 2)
    samples = random_pixels(40, 50)
    rgb, kept, remark = profiles.to_srgb(samples.astype(np.float32), "RGB", data)
    assert rgb.dtype == np.float32 and kept == data and remark == ""
    assert np.abs(rgb.clip(0, 255) - little_cms(data, samples, "RGB")).max() <= 1


@pytest.mark.parametrize("name", [*CURVES, *REAL])
def test_the_way_back_is_exact(name):
    data = REAL.get(name) or rgb_profile(CURVES[name], version=4)
    samples = np.random.default_rng(0).uniform(12, 255, (30, 30, 3)).astype(np.float32)  # above the flat beginning
    samples = samples.clip(12, 235)
    rgb, kept, _ = profiles.to_srgb(samples, "RGB", data)
    assert np.abs(profiles.from_srgb(rgb, kept) - samples).max() < 1e-2


@pytest.mark.parametrize("name", [*CURVES, *REAL])
def test_black_and_white_stay(name):
    data = REAL.get(name) or rgb_profile(CURVES[name], version=4)
    ends = np.float32([[[0, 0, 0], [255, 255, 255]]])
    rgb, kept, _ = profiles.to_srgb(ends, "RGB", data)
    tolerance = 0.2
    assert np.abs(rgb - ends).max() < tolerance
    assert np.abs(profiles.from_srgb(ends, kept) - ends).max() < tolerance


def test_a_wide_gamut_is_kept_outside_the_range():
    green = np.float32([[[0, 255, 0]]])
    rgb, kept, _ = profiles.to_srgb(green, "RGB", REAL["Display P3"])
    # Of CSS Color 4's color(display-p3 0 1 0) in sRGB: -0.5116, 1.0183, -0.3107.
    np.testing.assert_allclose(rgb[0, 0] / 255, [-0.5116, 1.0183, -0.3107], atol=2e-3)
    assert np.abs(profiles.from_srgb(rgb, kept) - green).max() < 0.05


SRGB_ALIKE = {
    "Little CMS": SRGB,
    "built": profiles.from_chromaticities(*REC709),
    "1024 entries": rgb_profile(
        curve("curv", *(round(65535 * (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4))
                        for x in np.linspace(0, 1, 1024)))
    ),
    "26 entries": rgb_profile(
        curve("curv", *(round(65535 * (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4))
                        for x in np.linspace(0, 1, 26)))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SRGB_ALIKE)
def test_srgb_in_any_variant_changes_no_bit(name):
    data = SRGB_ALIKE[name]
    samples = random_pixels().astype(np.float32)
    rgb, kept, remark = profiles.to_srgb(samples, "RGB", data)
    assert np.array_equal(rgb, samples) and kept == data and remark == ""
    assert np.array_equal(profiles.from_srgb(rgb, kept), samples)


def test_gamma_2_2_is_not_srgb():
    samples = np.full((1, 1, 3), 20, np.float32)
    assert abs(profiles.to_srgb(samples, "RGB", rgb_profile(curve("curv", 563)))[0] - samples).min() > 2


@pytest.mark.parametrize("pcs", [b"XYZ ", b"Lab "])
def test_grey_by_its_curve(pcs):
    """A table of dot gain: 20 % more ink at half the tone."""
    x = np.linspace(0, 1, 256)
    ink = 1 - x
    dots = ink + 0.8 * ink * (1 - ink)
    values = np.maximum(1 - dots, 0) if pcs == b"XYZ " else x**0.9
    data = profile("GRAY", kTRC=curve("curv", *np.rint(values * 65535).astype(int)), pcs=pcs)
    samples = random_pixels(channels=1)[..., 0]
    rgb, kept, remark = profiles.to_srgb(samples[..., None].astype(np.float32), "L", data)
    assert kept is None and remark == "" and rgb.shape == (11, 17, 3)
    assert np.abs(rgb - little_cms(data, samples, "L")).max() < 1


def test_grey_pixels_with_a_profile_of_rgb_are_rgb():
    grey = random_pixels(channels=1).astype(np.float32)
    expected = profiles.to_srgb(np.repeat(grey, 3, 2), "RGB", REAL["Adobe RGB"])
    rgb, kept, _ = profiles.to_srgb(grey, "L", REAL["Adobe RGB"])
    assert np.array_equal(rgb, expected[0]) and kept == REAL["Adobe RGB"]


def test_lab_by_formula():
    """CIE 1976 and IEC 61966-2-1 against the numbers of CSS Color 4."""
    lab = np.float32([[[100, 0, 0], [0, 0, 0], [54.29, 80.81, 69.89], [50, 0, 0]]])
    rgb, kept, remark = profiles.to_srgb(lab, "LAB", None)
    assert kept is None and remark == ""
    np.testing.assert_allclose(rgb[0], [[255] * 3, [0] * 3, [255, 0, 0], [118.9] * 3], atol=0.6)


def test_cmyk_without_a_profile_says_so():
    ink = random_pixels(channels=4)
    rgb, kept, remark = profiles.to_srgb(ink.astype(np.float32), "CMYK", None)
    assert np.abs(rgb - np.asarray(Image.fromarray(ink, "CMYK").convert("RGB"))).max() <= 1
    assert kept is None and "no colour profile" in remark and "simple formula" in remark


BAD = {
    "junk": bytes(range(200)),
    "short": b"\0" * 20,
    "truncated": REAL["Adobe RGB"][:-40],
    "a tag beyond its end": REAL["Adobe RGB"][:140] + b"\xff\xff\xff\xff" + REAL["Adobe RGB"][144:],
    "more tags than fit": REAL["Adobe RGB"][:128] + b"\xff\xff\xff\xff" + REAL["Adobe RGB"][132:],
    "no curve": profile(),
    "an unknown curve": rgb_profile(b"wave\0\0\0\0\0\0\0\0"),
    "a curve that ends": rgb_profile(struct.pack(">4sII", b"curv", 0, 900)),
    "no colour": rgb_profile(curve("curv", 461), rXYZ=(0, 0, 0)),
    "gamma zero": rgb_profile(curve("curv", 0)),
    "for grey": profile("GRAY", kTRC=curve("curv", 461)),
    "for Lab": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    "a link": rgb_profile(curve("curv", 461), kind=b"link"),
    "tables that are none": rgb_profile(curve("curv", 461), A2B0=b"mft2" + b"\0" * 60),
}


@pytest.mark.parametrize("name", BAD)
def test_a_profile_of_no_use_is_ignored_with_a_remark(name, tmp_path, capfd):
    samples = random_pixels()
    path = tmp_path / "a.png"
    Image.fromarray(samples).save(path, icc_profile=BAD[name])
    picture = images.read(path)
    assert np.array_equal(picture.rgb, samples) and picture.icc is None
    assert len(picture.remarks) == 1
    assert picture.remarks[0].startswith(f"{path}: its colour profile ")
    assert picture.remarks[0].endswith(" and was ignored")
    cvstyle.write_picture(tmp_path / "b.png", picture)
    with Image.open(tmp_path / "b.png") as image:
        assert "icc_profile" not in image.info
    assert capfd.readouterr() == ("", "")


def test_bytes_after_a_profile_are_left_out():
    kept = profiles.to_srgb(random_pixels().astype(np.float32), "RGB", REAL["Adobe RGB"] + b"\0" * 9)[1]
    assert kept == REAL["Adobe RGB"]


@pytest.mark.filterwarnings("error")
def test_changed_bytes_never_crash(capfd):
    rng = np.random.default_rng(0)
    pixels = random_pixels().astype(np.float32)
    corners = [(100 * (i == 7), 0, 0) for i in range(8)]
    for data in (SRGB, REAL["Display P3"], rgb_profile(CURVES["table"]), tables("RGB ", corners)):
        for _ in range(75):
            changed = bytearray(data)
            for place in rng.integers(0, len(data), 3):
                changed[place] = rng.integers(256)
            rgb, kept, _ = profiles.to_srgb(pixels, "RGB", bytes(changed))
            assert np.isfinite(rgb).all() and rgb.shape == pixels.shape
            assert kept is None or np.isfinite(profiles.from_srgb(rgb, kept)).all()
    assert capfd.readouterr() == ("", "")


def test_a_picture_has_no_other_profile():
    with pytest.raises(ImageError, match="RGB by a matrix and curves"):
        images.Picture(np.zeros((2, 2, 3), np.float32), icc=BAD["for grey"])


@pytest.mark.parametrize("name, bits", [("a.png", 8), ("a.png", 16), ("a.tif", 16), ("a.webp", 8)])
@pytest.mark.parametrize("space", ["Adobe RGB", "ProPhoto", "Display P3"])
def test_files_come_back_in_their_own_profile(tmp_path, name, bits, space):
    """Read and written again, a file's samples are the same; 16 bits to a few steps of the darkest."""
    samples = random_pixels(dtype=np.uint16 if bits == 16 else np.uint8)
    path = tmp_path / name
    if name == "a.tif":
        icc = REAL[space]
        tifffile.imwrite(path, samples, photometric="rgb", extratags=[(34675, 7, len(icc), icc, True)])
    elif bits == 16:
        images.write(path, samples / 257, bits=16)
        path.write_bytes(_with_profile(path.read_bytes(), REAL[space]))
    else:
        Image.fromarray(samples).save(path, icc_profile=REAL[space], lossless=True)
    picture = images.read(path)
    assert picture.icc == REAL[space]
    again = images.picture.to_samples(picture, bits)
    assert np.abs(again.astype(int) - samples).max() <= (20 if bits == 16 else 0)
    assert np.abs(again.astype(int) - samples).mean() < 0.1


def _with_profile(png, icc):
    data = b"x\0\0" + zlib.compress(icc)
    chunk = struct.pack(">I", len(data)) + b"iCCP" + data + struct.pack(">I", zlib.crc32(b"iCCP" + data))
    return png[:33] + chunk + png[33:]


def in_profile(srgb, icc):
    """uint8 samples of sRGB colours (H, W, 3) in a profile."""
    return np.rint(profiles.from_srgb(srgb, icc)).clip(0, 255).astype(np.uint8)


def png_with(path, samples, *chunks):
    """A PNG with more chunks (name, data) before its pixels."""
    info = PngImagePlugin.PngInfo()
    for name, data in chunks:
        info.add(name, data)
    Image.fromarray(samples).save(path, pnginfo=info)


def chromaticities(*pairs):
    return struct.pack(">8I", *(round(n * 100000) for pair in pairs for n in pair))


def test_chunks_of_png_state_colours(tmp_path):
    samples = random_pixels()
    path = tmp_path / "a.png"
    gamma = struct.pack(">I", 45455)
    for chunks in (
        [(b"gAMA", gamma)],
        [(b"gAMA", gamma), (b"cHRM", chromaticities(*REC709))],
        [(b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\0")],  # sRGB precedes
        [(b"gAMA", b"\0\0\0\0")],
        [(b"cHRM", chromaticities((0, 0), (0, 0), (0, 0), (0, 0)))],
        [(b"cICP", bytes([1, 13, 0, 1]))],
    ):
        png_with(path, samples, *chunks)
        picture = images.read(path)
        assert np.array_equal(picture.rgb, samples) and picture.icc is None, chunks
    for chunks, stated in (
        ([(b"gAMA", struct.pack(">I", 100000))], (*REC709, 1.0)),
        ([(b"gAMA", struct.pack(">I", 55556))], (*REC709, 1.8)),
        ([(b"gAMA", gamma), (b"cHRM", chromaticities(*P3))], (*P3, 2.2)),
        ([(b"cHRM", chromaticities(*P3))], P3),
        ([(b"cHRM", chromaticities(*[(0, 0)] * 4)), (b"gAMA", struct.pack(">I", 100000))], (*REC709, 1.0)),
        ([(b"cICP", bytes([12, 13, 0, 1]))], P3),
    ):
        png_with(path, samples, *chunks)
        icc = profiles.from_chromaticities(*stated)
        expected = profiles.to_srgb(samples.astype(np.float32), "RGB", icc)[0]
        assert np.abs(images.read(path).rgb - expected).max() < 0.05, chunks


@pytest.mark.parametrize("code", [(9, 16, 0, 1), (9, 18, 0, 1), (1, 13, 1, 1), (1, 13, 0, 0)])
def test_the_codes_of_hdr_and_video_are_refused(code, tmp_path):
    png_with(tmp_path / "a.png", random_pixels(), (b"cICP", bytes(code)))
    with pytest.raises(ImageError, match=r"/a.png: .* HDR or video .* in sRGB"):
        images.read(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore")  # Pillow, as it opens the file
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"junk" * 9])
def test_damaged_exif_says_nothing_about_colours(exif, tmp_path):
    Image.fromarray(random_pixels()).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        assert profiles.of_image(image) is None


def test_adobe_rgb_of_cameras_without_a_profile(tmp_path):
    samples = np.full((16, 16, 3), (60, 200, 90), np.uint8)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[40961] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    Image.fromarray(samples).save(tmp_path / "_DSC1.jpg", exif=exif, quality=100, subsampling=0)
    picture = images.read(tmp_path / "_DSC1.jpg")
    assert picture.icc == REAL["Adobe RGB"]
    expected = little_cms(REAL["Adobe RGB"], samples, "RGB")
    assert np.abs(picture.rgb.clip(0, 255) - expected).max() < 3


def _with_box(data, method, icc):
    """JPEG 2000 with a profile, in a box "colr" (ISO 15444-1, I.5.3.3), in place of its own of 15 bytes."""
    at, colour = (data.index(name) - 4 for name in (b"jp2h", b"colr"))
    box = struct.pack(">I", 11 + len(icc)) + b"colr" + bytes([method, 0, 0]) + icc
    size = int.from_bytes(data[at : at + 4], "big") - 15 + len(box)
    return data[:at] + struct.pack(">I", size) + data[at + 4 : colour] + box + data[colour + 15 :]


@pytest.mark.parametrize("method", [1, 2, 3])
def test_the_profile_of_jpeg_2000(tmp_path, method):
    """Pillow itself writes method 1, sRGB."""
    icc = REAL["Adobe RGB"]
    samples = random_pixels(32, 32)
    with io.BytesIO() as file:
        Image.fromarray(samples).save(file, "JPEG2000", irreversible=False)
        data = file.getvalue()
    if method > 1:
        data = _with_box(data, method, icc)
    (tmp_path / "a.jp2").write_bytes(data)
    picture = images.read(tmp_path / "a.jp2")
    assert picture.icc == (icc if method > 1 else None)
    expected = profiles.to_srgb(samples.astype(np.float32), "RGB", picture.icc)[0]
    assert np.abs(picture.rgb - expected).max() < 0.05


def test_jpeg_2000_keeps_16_bits_behind_a_long_profile(tmp_path):
    samples = random_pixels(32, 32, dtype=np.uint16)
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    data = cv2.imencode(".jp2", samples[..., ::-1], lossless)[1].tobytes()
    (tmp_path / "a.jp2").write_bytes(_with_box(data, 2, REAL["Adobe RGB"] + bytes(10000)))
    picture = images.read(tmp_path / "a.jp2")
    expected = profiles.to_srgb(samples / np.float32(257), "RGB", REAL["Adobe RGB"])[0]
    assert picture.icc == REAL["Adobe RGB"] and np.abs(picture.rgb - expected).max() < 0.01


def test_a_run_does_not_depend_on_how_colours_are_encoded(tmp_path):
    """The same painting and photograph, tagged sRGB, Adobe RGB and ProPhoto, in 16 bits, so that they are the same."""
    rng = np.random.default_rng(5)
    content, style = rng.uniform(30, 220, (2, 48, 64, 3)).astype(np.float32)
    results = {}
    for name, icc in REAL.items():
        paths = []
        for kind, rgb in (("content", content), ("style", style)):
            path = tmp_path / f"{kind} {name}.tif"
            samples = np.rint(profiles.from_srgb(rgb, icc) * 257).astype(np.uint16)
            tifffile.imwrite(path, samples, photometric="rgb", extratags=[(34675, 7, len(icc), icc, True)])
            paths.append(path)
        picture = cvstyle.stylize(*paths, image_size=64, num_iterations=3, seed=1, backend="cpu").picture
        assert picture.icc == icc
        results[name] = picture.rgb
    for name in REAL:
        assert np.abs(results[name] - results["sRGB"]).max() < 1, name


def tables(space, nodes):
    """A profile of tables of 16 bits: nodes, the Lab colours of pixels on a grid, the last channel fastest."""
    channels = {"RGB ": 3, "CMYK": 4}[space]
    points = round(len(nodes) ** (1 / channels))
    lab = np.rint(np.add(nodes, [0, 128, 128]) * [652.8, 256, 256]).clip(0, 65535).astype(">u2")
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    tag = struct.pack(">4sI4B", b"mft2", 0, channels, 3, points, 0) + matrix + struct.pack(">2H", 2, 2)
    ends = struct.pack(">2H", 0, 65535)
    return profile(space, pcs=b"Lab ", kind=b"prtr", A2B0=tag + ends * channels + lab.tobytes() + ends * 3)


def lab_of(rgb):
    """CIE 1976 L*, a*, b* under D50 of sRGB colours (n, 3), 0..255."""
    light = np.where(rgb <= 10.31475, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    xyz = (light @ matrix.T / [0.9642, 1, 0.8249]).T
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@pytest.mark.parametrize("space", ["CMYK", "RGB "])
def test_tables_by_little_cms(space):
    """Corners against the colours that went into the table."""
    count = 16 if space == "CMYK" else 8
    colours = np.random.default_rng(4).uniform(60, 200, (count, 3))
    white, black = (0, count - 1) if space == "CMYK" else (count - 1, 0)
    colours[white] = 255
    labs = lab_of(colours)
    labs[black] = 0
    colours[black] = 0
    bits = reversed(range(count.bit_length() - 1))
    corners = 255 * np.stack([np.arange(count) >> bit & 1 for bit in bits], axis=-1).astype(np.float32)
    rgb, kept, remark = profiles.to_srgb(corners[None], space.strip(), tables(space, labs))
    assert kept is None and remark == ""
    assert np.abs(rgb[0] - colours).max() <= 3


def test_a_table_of_srgb_changes_no_bit():
    """As the profiles of sRGB v4 by the ICC, which have tables only."""
    levels = np.linspace(0, 255, 33)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    data = tables("RGB ", lab_of(grid))
    samples = random_pixels().astype(np.float32)
    rgb, kept, _ = profiles.to_srgb(samples, "RGB", data)
    assert np.array_equal(rgb, samples) and kept == data and images.Picture(rgb, icc=data).icc == data


def test_cmyk_files_by_their_profile(tmp_path):
    """Against Little CMS; the result has no profile, since its pixels are sRGB."""
    corners = [np.array([100 * (1 - k) * (1 - (c + m + y) / 4), 60 * (m - c) * (1 - k), 60 * (y - c) * (1 - k)])
               for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]  # fmt: skip
    ink = np.full((16, 16, 4), (40, 200, 90, 30), np.uint8)
    icc = tables("CMYK", corners)
    for name in ("a.tif", "a.jpg"):
        Image.frombytes("CMYK", (16, 16), ink.tobytes()).save(tmp_path / name, icc_profile=icc, quality=100)
        with Image.open(tmp_path / name) as image:
            transform = ImageCms.buildTransform(
                io.BytesIO(icc), ImageCms.createProfile("sRGB"), "CMYK", "RGB", 1, ImageCms.Flags.BLACKPOINTCOMPENSATION
            )
            expected = np.asarray(transform.apply(image))
        picture = images.read(tmp_path / name)
        assert np.array_equal(picture.rgb, expected) and picture.icc is None and not picture.remarks


def test_grey_results_are_srgb(tmp_path):
    data = profile("GRAY", kTRC=curve("curv", 461))
    Image.fromarray(random_pixels(40, 40, 1)[..., 0]).save(tmp_path / "grey.png", icc_profile=data)
    photo = images.read(tmp_path / "grey.png")
    result = cvstyle.stylize(photo, random_pixels(40, 40), image_size=40, num_iterations=1, backend="cpu").picture
    assert photo.icc is None and result.icc is None and not photo.remarks
