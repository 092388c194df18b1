"""Odd GIF, WebP, BMP, ICO, PSD, TGA, Netpbm, JPEG 2000, HDR, AVIF and older files."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
from odd_jpeg import COLOURS, LOSS, blocks, jpeg, ycc
from odd_pictures import (
    ADOBE,
    Refused,
    Right,
    encode_srgb,
    exif,
    grey,
    icc,
    in_srgb,
    lab_in_srgb,
    odd,
    oriented,
    pack,
    packbits,
    ramp,
)  # fmt: skip
from odd_png import png
from PIL import Image, features


def saved(pixels, form, **how):
    """The bytes that Pillow writes."""
    out = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels.astype(np.uint8).squeeze())
    image.save(out, form, **how)
    return out.getvalue()


# GIF (GIF89a, CompuServe 1990)
def colour_table(colours):
    return colours.astype(np.uint8).tobytes()


def gif_frame(indices, left=0, top=0, local=None, transparent=None, interlaced=False, disposal=0):
    """A frame of 4-bit indices (H, W), its codes of 5 bits, with a clear code before each 8 of them."""
    height, width = indices.shape
    control = (
        b"\x21\xf9\4" + struct.pack("<BHB", disposal << 2 | (transparent is not None), 10, transparent or 0) + b"\0"
    )
    flags = (0x80 | 3 if local is not None else 0) | (0x40 if interlaced else 0)
    place = b"," + struct.pack("<HHHHB", left, top, width, height, flags)
    rows = indices
    if interlaced:
        rows = np.concatenate([indices[0::8], indices[4::8], indices[2::4], indices[1::2]])
    codes = []
    for i, index in enumerate(rows.reshape(-1)):
        codes += [16, index] if i % 8 == 0 else [index]
    bits = "".join(f"{code:05b}"[::-1] for code in [*codes, 17])  # lowest bits first
    bits += "0" * (-len(bits) % 8)
    data = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    parts = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
    return control + place + (b"" if local is None else colour_table(local)) + b"\4" + parts + b"\0"


def gif(frames, size, table=None, version=b"GIF89a", background=0, end=b";"):
    head = version + struct.pack("<HHBBB", size[1], size[0], (0x80 | 3 if table is not None else 0), background, 0)
    return head + (b"" if table is None else colour_table(table)) + b"".join(frames) + end


TABLE = np.random.default_rng(16).integers(0, 256, (16, 3))
INDICES = ramp(13, 21, 1, 15)[..., 0]


@odd("plain.gif", {})
@odd("interlaced.gif", {"interlaced": True})
@odd("named_gif.png", {})
def _(how):
    return gif([gif_frame(INDICES, **how)], (13, 21), TABLE), Right(TABLE[INDICES])


@odd("version_87.gif")
def _():
    frame = gif_frame(INDICES)[8:]
    return gif([frame], (13, 21), TABLE, b"GIF87a"), Right(TABLE[INDICES])


@odd("local_table.gif")
def _():
    return gif([gif_frame(INDICES, local=TABLE)], (13, 21), 255 - TABLE), Right(TABLE[INDICES])


@odd("only_local_table.gif")
def _():
    return gif([gif_frame(INDICES, local=TABLE)], (13, 21)), Right(TABLE[INDICES])


@odd("transparent.gif")
def _():
    return gif([gif_frame(INDICES, transparent=7)], (13, 21), TABLE), Right(
        TABLE[INDICES], (INDICES != 7).astype(float)
    )


def placed(rgb, alpha, size, top, left):
    """A frame on a transparent screen."""
    screen = np.zeros((*size, 3))
    opacity = np.zeros(size)
    screen[top : top + len(rgb), left : left + rgb.shape[1]] = rgb
    opacity[top : top + len(rgb), left : left + rgb.shape[1]] = alpha
    return Right(screen, opacity)


@odd("frame_smaller_than_screen.gif", None)
@odd("frame_smaller_transparent.gif", 7)
def _(transparent):
    """No frame covers all the screen: the rest is transparent in browsers, the background colour by the letter."""
    data = gif([gif_frame(INDICES, 5, 3, transparent=transparent)], (20, 30), TABLE, background=4)
    clear = placed(TABLE[INDICES], 1 if transparent is None else INDICES != 7, (20, 30), 3, 5)
    return data, clear, Right(np.where(clear.alpha[..., None] > 0, clear.rgb, TABLE[4]))


@odd("frame_beyond_screen.gif")
def _():
    """Browsers enlarge the screen or cut the frame."""
    data = gif([gif_frame(INDICES)], (10, 15), TABLE)
    return data, Right(TABLE[INDICES]), Right(TABLE[INDICES][:10, :15]), Refused("frame|damaged")


@odd("animated.gif")
def _():
    frames = [gif_frame(INDICES), gif_frame(15 - INDICES)]
    return gif(frames, (13, 21), TABLE), Right(TABLE[INDICES], remark="animat|frame")


@odd("animated_first_transparent.gif")
def _():
    frames = [gif_frame(INDICES, transparent=7, disposal=2), gif_frame(15 - INDICES)]
    return gif(frames, (13, 21), TABLE), Right(TABLE[INDICES], (INDICES != 7).astype(float), remark="animat|frame")


@odd("no_trailer.gif")
def _():
    return gif([gif_frame(INDICES)], (13, 21), TABLE, end=b""), Right(TABLE[INDICES]), Refused()


@odd("trailing.gif")
def _():
    return gif([gif_frame(INDICES)], (13, 21), TABLE, end=b";" + b"garbage" * 99), Right(TABLE[INDICES])


@odd("comment.gif")
def _():
    comment = b"\x21\xfe" + (b"\xff" + b"x" * 255) * 4000 + b"\0"
    return gif([comment, gif_frame(INDICES)], (13, 21), TABLE), Right(TABLE[INDICES])


@odd("half.gif")
def _():
    data = gif([gif_frame(INDICES)], (13, 21), TABLE)
    return data[: len(data) * 2 // 3], Refused()


@odd("no_frame.gif")
def _():
    return gif([], (13, 21), TABLE), Refused("damaged|truncated|no frame|no picture|empty")


@odd("no_table.gif")
def _():
    return (
        gif([gif_frame(INDICES)], (13, 21)),
        Refused("palette|table|damaged"),
        Right(grey(INDICES)),
        Right(grey(INDICES, 15)),
    )


# WebP
@odd("lossless.webp", 3, {"lossless": True}, 0.51)
@odd("lossy.webp", 3, {"quality": 95}, 14)
@odd("lossless_alpha.webp", 4, {"lossless": True, "exact": True}, 0.51)
@odd("lossy_alpha.webp", 4, {"quality": 95}, 30)
@odd("webp_named.jpg", 3, {"lossless": True}, 0.51)
def _(channels, how, tolerance):
    pixels = ramp(24, 32, channels)
    alpha = pixels[..., 3] / 255 if channels == 4 else None
    return saved(pixels, "WEBP", **how), Right(pixels[..., :3], alpha, tolerance)


@odd("animated.webp")
def _():
    pixels = ramp()
    other = Image.fromarray((255 - pixels).astype(np.uint8))
    data = saved(pixels, "WEBP", lossless=True, save_all=True, append_images=[other], duration=100)
    return data, Right(pixels, remark="animat|frame")


@odd("profile.webp")
def _():
    pixels = ramp()
    return saved(pixels, "WEBP", lossless=True, icc_profile=icc()), Right(
        in_srgb(pixels / 255, ADOBE, 563 / 256), tolerance=0.9
    )


@odd("profile_junk.webp")
def _():
    pixels = ramp()
    return saved(pixels, "WEBP", lossless=True, icc_profile=bytes(range(200))), Right(pixels, remark="profile")


@odd("orientation.webp")
def _():
    pixels = ramp()
    return saved(oriented(pixels, 6), "WEBP", lossless=True, exif=b"Exif\0\0" + exif(orientation=6)), Right(pixels)


@odd("half.webp", 0.5)
@odd("header_only.webp", 20)
def _(share):
    data = saved(np.random.default_rng(0).integers(0, 256, (24, 32, 3)), "WEBP", lossless=True)
    return data[: share if share > 1 else int(share * len(data))], Refused("damaged|truncated|incomplete|no picture")


@odd("trailing.webp")
def _():
    return saved(ramp(), "WEBP", lossless=True) + b"garbage" * 99, Right(ramp())


# BMP (Microsoft's BITMAPINFOHEADER, V4, V5; OS/2's BITMAPCOREHEADER)
def bmp(rows, bits, height, width, table=b"", compression=0, masks=b"", size=40, used=0, tail=b""):
    """rows: the pixels' bytes. masks: after a header of 40 bytes, or in a longer one."""
    info = struct.pack("<iiHHIIiiII", width, height, 1, bits, compression, len(rows), 2835, 2835, used, 0)
    header = struct.pack("<I", size) + info + (masks if size > 40 else b"")
    header = header.ljust(size, b"\0") + (masks if size == 40 else b"")
    offset = 14 + len(header) + len(table)
    return b"BM" + struct.pack("<IHHI", offset + len(rows) + len(tail), 0, 0, offset) + header + table + rows + tail


def bmp_rows(samples, bits, upside_down=True):
    """Rows padded to four bytes, the lowest first."""
    data = pack(samples, bits, "<")
    size = len(data) // len(samples)
    rows = [data[i : i + size] + bytes(-size % 4) for i in range(0, len(data), size)]
    return b"".join(rows[::-1] if upside_down else rows)


def bmp_table(colours):
    return np.c_[colours[:, ::-1], np.zeros(len(colours))].astype(np.uint8).tobytes()


for _bits in (1, 4, 8):
    for _top_down in (False, True):

        @odd(f"bits_{_bits}{'_top_down' if _top_down else ''}.bmp", _bits, _top_down)
        def _(bits, top_down):
            colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3))
            indices = ramp(13, 21, 1, 2**bits - 1)
            data = bmp(bmp_rows(indices, bits, not top_down), bits, -13 if top_down else 13, 21, bmp_table(colours))
            return data, Right(colours[indices[..., 0]])


@odd("bits_24.bmp", False)
@odd("bits_24_top_down.bmp", True)
@odd("bmp_named.jpg", False)
def _(top_down):
    pixels = ramp(13, 21)
    return bmp(bmp_rows(pixels[..., ::-1], 8, not top_down), 24, -13 if top_down else 13, 21), Right(pixels)


@odd("few_colours.bmp")
def _():
    """A table of only three of 256 colours."""
    indices = ramp(13, 21, 1, 2)
    return bmp(bmp_rows(indices, 8), 8, 13, 21, bmp_table(TABLE[:3]), used=3), Right(TABLE[indices[..., 0]])


@odd("core_header.bmp")
def _():
    pixels = ramp(13, 21)
    header = struct.pack("<IHHHH", 12, 21, 13, 1, 24)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 26) + header + bmp_rows(pixels[..., ::-1], 8), Right(pixels)


@odd("bits_16.bmp")
def _():
    """5 bits a channel."""
    values = ramp(13, 21, 3, 31)
    words = values[..., 0] << 10 | values[..., 1] << 5 | values[..., 2]
    return bmp(bmp_rows(words, 16), 16, 13, 21), Right(values * 255 / 31, tolerance=1)


@odd("bits_565.bmp")
def _():
    red, green, blue = ramp(13, 21, 1, 31)[..., 0], ramp(13, 21, 2, 63)[..., 1], ramp(13, 21, 3, 31)[..., 2]
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    expected = np.stack([red * 255 / 31, green * 255 / 63, blue * 255 / 31], axis=-1)
    return bmp(bmp_rows(red << 11 | green << 5 | blue, 16), 16, 13, 21, compression=3, masks=masks), Right(
        expected, tolerance=1
    )


@odd("bits_32.bmp", 0)
@odd("bits_32_unused_255.bmp", 255)
@odd("bits_32_unused_junk.bmp", 77)
def _(fourth):
    """Without masks the fourth byte is unused; viewers show the picture opaque."""
    pixels = ramp(13, 21)
    samples = np.dstack([pixels[..., ::-1], np.full((13, 21), fourth)])
    return bmp(bmp_rows(samples, 8), 32, 13, 21), Right(pixels)


_MASKS = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)


@odd("alpha_v4.bmp", 108)
@odd("alpha_v5.bmp", 124)
@odd("alpha_v3.bmp", 56)
def _(size):
    pixels = ramp(13, 21, 4)
    data = bmp(bmp_rows(pixels[..., [2, 1, 0, 3]], 8), 32, 13, 21, compression=3, masks=_MASKS, size=size)
    return data, Right(pixels[..., :3], pixels[..., 3] / 255)


@odd("masks_rgba.bmp")
def _():
    """Channels in an unusual order."""
    pixels = ramp(13, 21)
    masks = struct.pack("<III", 0xFF, 0xFF00, 0xFF0000)
    data = bmp(bmp_rows(np.dstack([pixels, np.zeros((13, 21))]).astype(int), 8), 32, 13, 21, compression=3, masks=masks)
    return data, Right(pixels), Refused("mask|damaged|bitfields")


@odd("masks_10_bits.bmp")
def _():
    values = ramp(13, 21, 3, 1023)
    words = values[..., 0] << 20 | values[..., 1] << 10 | values[..., 2]
    masks = struct.pack("<III", 0x3FF << 20, 0x3FF << 10, 0x3FF)
    data = bmp(bmp_rows(words, 32), 32, 13, 21, compression=3, masks=masks)
    return data, Right(values * 255 / 1023, tolerance=1), Refused("mask|damaged|bitfields|BMP")


@odd("run_lengths_8.bmp")
def _():
    indices = ramp(13, 21, 1, 15)[..., 0]
    rows = b"".join(b"".join(bytes([1, v]) for v in row) + b"\0\0" for row in indices[::-1].tolist()) + b"\0\1"
    return bmp(rows, 8, 13, 21, bmp_table(TABLE), compression=1, used=16), Right(TABLE[indices])


@odd("run_lengths_4.bmp")
def _():
    indices = ramp(13, 21, 1, 15)[..., 0]
    rows = b"".join(b"".join(bytes([1, v << 4]) for v in row) + b"\0\0" for row in indices[::-1].tolist()) + b"\0\1"
    return bmp(rows, 4, 13, 21, bmp_table(TABLE), compression=2, used=16), Right(TABLE[indices])


@odd("run_lengths_with_jumps.bmp")
def _():
    """A delta leaves pixels of colour 0 (or transparent ones)."""
    indices = np.zeros((4, 4), int)
    indices[0, 1] = 5
    indices[3] = 2
    rows = b"\4\2\0\0" + b"\0\2\1\2" + b"\1\5\0\1"
    expected = Right(TABLE[indices])
    return bmp(rows, 8, 4, 4, bmp_table(TABLE), compression=1, used=16), expected, Refused()


@odd("jpeg_in.bmp")
def _():
    return bmp(jpeg(ycc(COLOURS)), 0, 24, 32, compression=4), Refused("BMP|compress|damaged|cannot")


@odd("half.bmp")
def _():
    data = bmp(bmp_rows(ramp(24, 32)[..., ::-1], 8), 24, 24, 32)
    return data[: len(data) // 2], Refused()


@odd("offset_beyond.bmp")
def _():
    data = bytearray(bmp(bmp_rows(ramp(13, 21)[..., ::-1], 8), 24, 13, 21))
    data[10:14] = struct.pack("<I", 10**9)
    return bytes(data), Refused()


@odd("size_zero.bmp", 0, 21)
@odd("width_negative.bmp", 13, -21)
def _(height, width):
    return bmp(bmp_rows(ramp(13, 21)[..., ::-1], 8), 24, height, width), Refused(
        "damaged|size|empty|no picture|megapixels"
    )


# ICO, CUR, ICNS
def icon(images, kind=1):
    """images: (side, bits, bytes)."""
    entries = b""
    body = b""
    for side, bits, data in images:
        entries += struct.pack(
            "<BBBBHHII", side % 256, side % 256, 0, 0, 1, bits, len(data), 6 + 16 * len(images) + len(body)
        )
        body += data
    return struct.pack("<HHH", 0, kind, len(images)) + entries + body


def icon_bitmap(pixels, hidden=None):
    """A bitmap of 24 or 32 bits with its mask of 1 bit."""
    side = len(pixels)
    bits = 8 * pixels.shape[2]
    mask = np.zeros((side, side, 1), int) if hidden is None else hidden[..., None].astype(int)
    info = struct.pack("<IiiHHIIiiII", 40, side, 2 * side, 1, bits, 0, 0, 0, 0, 0, 0)
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return info + bmp_rows(pixels[..., order], 8) + bmp_rows(mask, 1)


@odd("sizes.ico")
def _():
    small = icon_bitmap(255 - ramp(16, 16, 4))
    large = ramp(32, 32, 4)
    return icon([(16, 32, small), (32, 32, icon_bitmap(large))]), Right(large[..., :3], large[..., 3] / 255)


@odd("png_in.ico")
def _():
    pixels = ramp(48, 48, 4)
    images = [(16, 32, icon_bitmap(255 - ramp(16, 16, 4))), (48, 32, png(pixels, 8, "rgba"))]
    return icon(images), Right(pixels[..., :3], pixels[..., 3] / 255)


@odd("mask.ico")
def _():
    pixels = ramp(16, 16)
    hidden = np.hypot(*np.mgrid[-8:8, -8:8]) > 7
    return icon([(16, 24, icon_bitmap(pixels, hidden))]), Right(pixels, (~hidden).astype(float))


@odd("pointer.cur")
def _():
    pixels = ramp(32, 32, 4)
    return icon([(32, 32, icon_bitmap(pixels))], 2), Right(pixels[..., :3], pixels[..., 3] / 255)


@odd("no_images.ico")
def _():
    return icon([]), Refused("damaged|empty|no picture|no image")


@odd("apple.icns")
def _():
    pixels = ramp(128, 128, 4)
    image = Image.fromarray(pixels.astype(np.uint8))
    data = png(pixels, 8, "rgba")
    small = png(255 - ramp(32, 32, 4), 8, "rgba")
    body = b"ic11" + struct.pack(">I", 8 + len(small)) + small + b"ic07" + struct.pack(">I", 8 + len(data)) + data
    return b"icns" + struct.pack(">I", 8 + len(body)) + body, Right(pixels[..., :3], np.asarray(image)[..., 3] / 255)


# PSD (Adobe Photoshop File Formats Specification, 2019)
PSD_BITMAP, PSD_GREY, PSD_INDEXED, PSD_RGB, PSD_CMYK, PSD_LAB = 0, 1, 2, 3, 4, 9


def psd(samples, mode=PSD_RGB, bits=8, rle=False, table=b"", resources=b"", version=1):
    height, width, channels = samples.shape
    head = b"8BPS" + struct.pack(">H6xHIIHH", version, channels, height, width, bits, mode)
    head += struct.pack(">I", len(table)) + table + struct.pack(">I", len(resources)) + resources
    head += bytes(8 if version == 2 else 4)
    planes = [pack(samples[..., n : n + 1], bits) for n in range(channels)]
    if not rle:
        return head + b"\0\0" + b"".join(planes)
    size = len(planes[0]) // height
    rows = [packbits(plane[i : i + size]) for plane in planes for i in range(0, len(plane), size)]
    return head + b"\0\1" + struct.pack(f">{len(rows)}H", *map(len, rows)) + b"".join(rows)


@odd("rgb_8.psd", 8, False)
@odd("rgb_8_rle.psd", 8, True)
@odd("rgb_16.psd", 16, False)
@odd("rgb_16_rle.psd", 16, True)
@odd("psd_named.jpg", 8, True)
def _(bits, rle):
    samples = ramp(13, 21, 3, 2**bits - 1)
    expected = Right(samples * (255 / (2**bits - 1)))
    return (psd(samples, bits=bits, rle=rle), expected, *([Refused("16|PSD|Photoshop")] if bits == 16 else []))


@odd("large_document.psb")
def _():
    return psd(ramp(13, 21), version=2), Right(ramp(13, 21)), Refused("PSB|Photoshop|no picture")


@odd("grey_8.psd")
def _():
    samples = ramp(13, 21, 1)
    return psd(samples, PSD_GREY), Right(grey(samples))


@odd("cmyk_8.psd")
def _():
    """Stored inverted."""
    samples = ramp(13, 21, 4)
    samples[..., 3] = 255 - samples[..., 3] // 2
    return psd(samples, PSD_CMYK), Right(samples[..., :3] * samples[..., 3:] / 255, tolerance=2)


@odd("lab_8.psd")
def _():
    stored = np.dstack(
        [ramp(13, 21, 1), np.clip(np.random.default_rng(0).normal(128, 12, (13, 21, 2)), 90, 166).astype(int)]
    )
    expected = lab_in_srgb((stored - [0, 128, 128]) * [100 / 255, 1, 1])
    return psd(stored, PSD_LAB), Right(expected, tolerance=2), Refused("Lab|LAB|Photoshop|PSD")


@odd("indexed.psd")
def _():
    indices = ramp(13, 21, 1, 15)
    table = np.zeros((256, 3), int)
    table[:16] = TABLE
    return psd(indices, PSD_INDEXED, table=table.T.astype(np.uint8).tobytes()), Right(TABLE[indices[..., 0]])


@odd("bitmap.psd")
def _():
    samples = ramp(13, 21, 1, 1)
    return psd(samples, PSD_BITMAP, 1), Right(grey(1 - samples, 1)), Refused("PSD|Photoshop|bit")


@odd("alpha_channel.psd")
def _():
    """A saved selection: the picture itself is opaque, though some viewers take it for transparency."""
    pixels = ramp(13, 21, 4)
    return psd(pixels), Right(pixels[..., :3]), Right(pixels[..., :3], pixels[..., 3] / 255)


@odd("profile.psd")
def _():
    data = icc()
    resources = b"8BIM\x04\x0f\0\0" + struct.pack(">I", len(data)) + data + bytes(len(data) % 2)
    return psd(ramp(13, 21), resources=resources), Right(in_srgb(ramp(13, 21) / 255, ADOBE, 563 / 256), tolerance=0.9)


@odd("half.psd")
def _():
    data = psd(ramp(24, 32))
    return data[: len(data) // 2], Refused()


# TGA (Truevision TGA 2.0)
def tga(data, kind, bits, descriptor=0, table=None, comment=b"", footer=b""):
    """descriptor: number of alpha bits; 16: from the right; 32: from the top."""
    mapped = (1, 0, len(table), 24) if table is not None else (0, 0, 0, 0)
    head = struct.pack("<BBBHHBHHHHBB", len(comment), mapped[0], kind, *mapped[1:], 0, 0, 21, 13, bits, descriptor)
    colours = b"" if table is None else table[:, ::-1].astype(np.uint8).tobytes()
    return head + comment + colours + data + footer


def tga_order(pixels, descriptor):
    pixels = pixels[:, ::-1] if descriptor & 16 else pixels
    return pixels if descriptor & 32 else pixels[::-1]


for _descriptor in (0, 16, 32, 48):

    @odd(f"corner_{_descriptor}.tga", _descriptor, False)
    @odd(f"corner_{_descriptor}_rle.tga", _descriptor, True)
    def _(descriptor, rle):
        data = tga_order(ramp(13, 21)[..., ::-1], descriptor).astype(np.uint8).reshape(-1, 3)
        body = b"".join(b"\0" + pixel.tobytes() for pixel in data) if rle else data.tobytes()
        return tga(body, 10 if rle else 2, 24, descriptor), Right(ramp(13, 21))


@odd("alpha.tga")
def _():
    pixels = ramp(13, 21, 4)
    data = tga(pack(pixels[..., [2, 1, 0, 3]], 8), 2, 32, 32 + 8)
    return data, Right(pixels[..., :3], pixels[..., 3] / 255)


@odd("grey.tga")
def _():
    return tga(pack(ramp(13, 21, 1), 8), 3, 8, 32), Right(grey(ramp(13, 21, 1)))


@odd("palette.tga")
def _():
    return tga(pack(INDICES, 8), 1, 8, 32, TABLE, b"a comment"), Right(TABLE[INDICES])


@odd("bits_16.tga")
def _():
    values = ramp(13, 21, 3, 31)
    words = values[..., 0] << 10 | values[..., 1] << 5 | values[..., 2]
    return tga(pack(words, 16, "<"), 2, 16, 32), Right(values * 255 / 31, tolerance=1)


@odd("version_2.tga")
def _():
    return tga(pack(ramp(13, 21)[..., ::-1], 8), 2, 24, 32, footer=bytes(8) + b"TRUEVISION-XFILE.\0"), Right(
        ramp(13, 21)
    )


# Netpbm
def netpbm(magic, samples, top, raw=True, comment=b""):
    height, width = samples.shape[:2]
    head = b"%s\n%s%d %d\n%d\n" % (magic, comment, width, height, top)
    if not raw:
        return head + b"\n".join(b" ".join(b"%d" % v for v in row) for row in samples.reshape(height, -1))
    return head + pack(samples, 16 if top > 255 else 8)


for _top in (1, 15, 100, 255, 1023, 4095, 65535):
    for _magic, _channels in ((b"P5", 1), (b"P6", 3)):

        @odd(f"{_magic.decode()}_{_top}.pnm", _magic, _channels, _top, True)
        @odd(f"{_magic.decode()}_{_top}_text.pnm", {b"P5": b"P2", b"P6": b"P3"}[_magic], _channels, _top, False)
        def _(magic, channels, top, raw):
            samples = ramp(13, 21, channels, top)
            expected = samples * 255 / top if channels == 3 else grey(samples, top)
            return netpbm(magic, samples, top, raw), Right(expected)


@odd("comments.ppm")
def _():
    return netpbm(b"P6", ramp(13, 21), 255, comment=b"# made by hand\n# twice\n"), Right(ramp(13, 21))


@odd("bits.pbm", True)
@odd("bits_text.pbm", False)
def _(raw):
    """1 is black."""
    samples = ramp(13, 21, 1, 1)
    body = pack(samples, 1) if raw else b"\n".join(b"".join(b"%d" % v for v in row) for row in samples[..., 0])
    return (b"P4\n21 13\n" if raw else b"P1\n21 13\n") + body, Right(grey(1 - samples, 1))


for _top in (255, 65535):
    for _kind, _channels in (("GRAYSCALE", 1), ("RGB", 3), ("GRAYSCALE_ALPHA", 2), ("RGB_ALPHA", 4)):

        @odd(f"{_kind.lower()}_{_top}.pam", _kind, _channels, _top)
        def _(kind, channels, top):
            samples = ramp(13, 21, channels, top)
            head = b"P7\nWIDTH 21\nHEIGHT 13\nDEPTH %d\nMAXVAL %d\nTUPLTYPE %s\nENDHDR\n" % (
                channels,
                top,
                kind.encode(),
            )
            colour = samples[..., :3] * (255 / top) if channels > 2 else grey(samples[..., :1], top)
            alpha = samples[..., -1] / top if channels in (2, 4) else None
            return head + pack(samples, 16 if top > 255 else 8), Right(colour, alpha), Refused("PAM")


@odd("half.ppm")
def _():
    data = netpbm(b"P6", ramp(24, 32), 255)
    return data[: len(data) // 2], Refused()


@odd("value_beyond.pgm")
def _():
    return netpbm(b"P2", ramp(13, 21, 1, 200), 100, raw=False), Refused("damaged|beyond|range")


def pfm(samples, order="<", scale=1.0):
    height, width, channels = samples.shape
    head = b"%s\n%d %d\n%g\n" % (b"PF" if channels == 3 else b"Pf", width, height, -scale if order == "<" else scale)
    return head + samples[::-1].astype(f"{order}f4").tobytes()


@odd("colour.pfm", 3, "<")
@odd("colour_motorola.pfm", 3, ">")
@odd("grey.pfm", 1, "<")
@odd("grey_motorola.pfm", 1, ">")
def _(channels, order):
    """Rows from the bottom. Values are linear by custom, which the format does not say."""
    samples = ramp(13, 21, channels) / 255
    values = samples if channels == 3 else grey(samples, 1) / 255
    return pfm(samples, order), Right(values * 255), Right(encode_srgb(values)), Refused("PFM")


@odd("values_to_7.pfm")
def _():
    return pfm(ramp(13, 21) / 255 * 7), Refused("range|between|beyond|outside|values are|linear|PFM")


@odd("scale_255.pfm")
def _():
    """The scale is the range that the file states."""
    samples = ramp(13, 21) / 255
    return (
        pfm(samples * 255, scale=255),
        Right(samples * 255),
        Right(encode_srgb(samples)),
        Refused("range|PFM|values are"),
    )


# JPEG 2000
@odd("rgb.jp2", 3)
@odd("rgba.jp2", 4)
@odd("grey.jp2", 1)
def _(channels):
    pixels = ramp(32, 48, channels)
    alpha = pixels[..., 3] / 255 if channels == 4 else None
    return saved(pixels, "JPEG2000"), Right(pixels[..., :3] if channels > 1 else grey(pixels), alpha)


@odd("codestream.j2k")
def _():
    return saved(ramp(32, 48), "JPEG2000", no_jp2=True), Right(ramp(32, 48))


@odd("rgb_16.jp2", 3)
@odd("grey_16.jp2", 1)
def _(channels):
    samples = ramp(32, 48, channels, 65535)
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    data = cv2.imencode(".jp2", samples[..., ::-1].astype(np.uint16), lossless)[1]
    return data.tobytes(), Right(samples * (255 / 65535) if channels == 3 else grey(samples, 65535), tolerance=1)


@odd("half.jp2")
def _():
    data = saved(np.random.default_rng(0).integers(0, 256, (64, 64, 3)), "JPEG2000")
    return data[: len(data) // 2], Refused()


# Scene-linear
@odd("radiance.hdr", 1)
@odd("radiance_bright.hdr", 9)
def _(top):
    linear = ramp(13, 21) / 255 * top
    data = cv2.imencode(".hdr", linear[..., ::-1].astype(np.float32))[1].tobytes()
    exact = Right(encode_srgb(linear), tolerance=3)
    return (data, Refused("HDR|Radiance|linear"), *([exact] if top == 1 else []))


@odd("scene.exr")
def _():
    """The header of an OpenEXR file; that a reader lacks the format it should say by name."""
    return b"\x76\x2f\x31\x01\2\0\0\0channels\0chlist\0" + bytes(200), Refused("EXR")


# AVIF and HEIC
def box(kind, data):
    return struct.pack(">I", 8 + len(data)) + kind + data


if features.check("avif"):

    @odd("rgb.avif", 3)
    @odd("rgba.avif", 4)
    @odd("avif_named.jpg", 3)
    def _(channels):
        pixels = ramp(32, 48, channels)
        alpha = pixels[..., 3] / 255 if channels == 4 else None
        data = saved(pixels, "AVIF", quality=100, subsampling="4:4:4")
        return data, Right(pixels[..., :3], alpha, tolerance=4), Refused("AVIF")

    @odd("orientation.avif")
    def _():
        pixels = ramp(32, 48)
        data = saved(
            oriented(pixels, 6), "AVIF", quality=100, subsampling="4:4:4", exif=b"Exif\0\0" + exif(orientation=6)
        )
        return data, Right(pixels, tolerance=4), Refused("AVIF")

    @odd("profile.avif")
    def _():
        pixels = ramp(32, 48) // 4 + 100
        data = saved(pixels, "AVIF", quality=100, subsampling="4:4:4", icc_profile=icc())
        return data, Right(in_srgb(pixels / 255, ADOBE, 563 / 256), tolerance=8), Refused("AVIF")

    @odd("animated.avif")
    def _():
        other = Image.fromarray((255 - ramp(32, 48)).astype(np.uint8))
        data = saved(ramp(32, 48), "AVIF", quality=100, subsampling="4:4:4", save_all=True, append_images=[other])
        return data, Right(ramp(32, 48), tolerance=4, remark="animat|frame"), Refused("AVIF")

    @odd("half.avif")
    def _():
        data = saved(np.random.default_rng(0).integers(0, 256, (64, 64, 3)), "AVIF")
        return data[: len(data) // 2], Refused("AVIF|damaged|truncated")


for _brand, _name in (
    (b"heic", "photo.heic"),
    (b"heic", "heic_named.jpg"),
    (b"mif1", "photo.heif"),
    (b"heix", "deep.heic"),
):
    odd(_name, _brand)(
        lambda brand: (
            box(b"ftyp", brand + bytes(4) + b"mif1heic") + box(b"meta", bytes(99)) + box(b"mdat", bytes(99)),
            Refused("HEIC|HEIF"),
        )
    )  # fmt: skip


# Older formats
@odd("paintbrush.pcx", "RGB")
@odd("paintbrush_grey.pcx", "L")
def _(mode):
    pixels = ramp(13, 20)
    image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
    return saved(image, "PCX"), Right(pixels if mode == "RGB" else grey(np.asarray(image)))


@odd("silicon.sgi", 8, 3)
@odd("silicon_16.sgi", 16, 3)
@odd("silicon_alpha.sgi", 8, 4)
def _(bits, channels):
    samples = ramp(13, 21, channels, 2**bits - 1)
    head = struct.pack(">HBBHHHHII", 474, 0, bits // 8, 3, 21, 13, channels, 0, 2**bits - 1).ljust(512, b"\0")
    data = head + b"".join(pack(samples[::-1, :, n], bits) for n in range(channels))
    expected = Right(
        samples[..., :3] * (255 / (2**bits - 1)), samples[..., 3] / 255 if channels == 4 else None, tolerance=1
    )
    return (data, expected, *([Refused("SGI|16")] if bits == 16 else []))


@odd("sun.ras", 1)
@odd("sun_rgb.ras", 3)
def _(kind):
    """Standard Sun rasters are BGR; those of type 3 RGB. Rows are of even length."""
    pixels = ramp(13, 20)
    body = pack(pixels[..., ::-1] if kind == 1 else pixels, 8)
    return struct.pack(">8I", 0x59A66A95, 20, 13, 24, len(body), kind, 0, 0) + body, Right(pixels)


@odd("quite_ok.qoi", 3)
@odd("quite_ok_alpha.qoi", 4)
def _(channels):
    pixels = ramp(13, 21, channels).reshape(-1, channels).astype(np.uint8)
    head = b"qoif" + struct.pack(">IIBB", 21, 13, channels, 0)
    body = b"".join((b"\xff" if channels == 4 else b"\xfe") + p.tobytes() for p in pixels)
    shown = ramp(13, 21, channels)
    return head + body + bytes(7) + b"\1", Right(shown[..., :3], shown[..., 3] / 255 if channels == 4 else None)


@odd("surface.dds")
def _():
    """Uncompressed, 32 bits, with alpha."""
    pixels = ramp(12, 20, 4)
    form = struct.pack("<IIIIIIII", 32, 0x41, 0, 32, 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = (
        b"DDS "
        + struct.pack("<IIIIIII", 124, 0x100F, 12, 20, 80, 0, 0)
        + bytes(44)
        + form
        + struct.pack("<IIIII", 0x1000, 0, 0, 0, 0)
    )
    return head + pack(pixels[..., [2, 1, 0, 3]], 8), Right(pixels[..., :3], pixels[..., 3] / 255)


@odd("gzipped.png")
def _():
    import gzip

    return gzip.compress(png(ramp(13, 21)), mtime=0), Refused("gzip|compressed|no picture")


@odd("zlib.png")
def _():
    return zlib.compress(png(ramp(13, 21))), Refused("no picture|damaged|cannot")


@odd("tiny_of_blocks.jpg")
def _():
    return jpeg(ycc(COLOURS)), Right(blocks(COLOURS), tolerance=LOSS)
