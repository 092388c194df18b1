"""Odd PNG files (PNG specification, third edition, W3C 2025)."""

from __future__ import annotations

import struct
import zlib
from functools import cache

import numpy as np
from odd_pictures import (
    ADOBE,
    P3,
    Refused,
    Right,
    encode_srgb,
    exif,
    grey,
    icc,
    in_srgb,
    odd,
    oriented,
    pack,
    ramp,
)  # fmt: skip

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = {"grey": (0, 1), "rgb": (2, 3), "palette": (3, 1), "la": (4, 2), "rgba": (6, 4)}  # type, channels
_PASSES = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)  # y, x, dy, dx


def chunk(kind: bytes, data: bytes = b"", crc_error: int = 0) -> bytes:
    """A chunk with its frame."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ crc_error)


def header(height, width, bits, colour, interlaced=False):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, COLOURS[colour][0], 0, 0, interlaced))


def scanlines(samples, bits, interlaced=False):
    """Filtered rows (filter 0) of samples (H, W, C), in Adam7's passes where interlaced."""
    data = b""
    for y, x, dy, dx in _PASSES if interlaced else ((0, 0, 1, 1),):
        part = samples[y::dy, x::dx]
        if part.size:
            rows = pack(part, bits)
            size = len(rows) // len(part)
            data += b"".join(b"\0" + rows[i : i + size] for i in range(0, len(rows), size))
    return data


IEND = chunk(b"IEND")


def png(samples, bits=8, colour="rgb", interlaced=False, before=b"", after=b"", end=IEND, split=None):
    """PNG of samples (H, W, C). before, after: chunks before and after the pixels; split: bytes of a chunk."""
    data = zlib.compress(scanlines(samples, bits, interlaced))
    parts = [data] if split is None else [data[i : i + split] for i in range(0, len(data), split)]
    pixels = b"".join(chunk(b"IDAT", part) for part in parts)
    return SIGNATURE + header(*samples.shape[:2], bits, colour, interlaced) + before + pixels + after + end


def right(samples, bits, **more):
    """The expected picture of samples with 1 to 4 channels."""
    values = samples * (255 / (2**bits - 1))
    colour = values[..., :3] if values.shape[2] > 2 else grey(values[..., :1])
    return Right(colour, values[..., -1] / 255 if values.shape[2] in (2, 4) else None, **more)


def plain(colour, bits, interlaced):
    samples = ramp(13, 21, COLOURS[colour][1], 2**bits - 1)
    return png(samples, bits, colour, interlaced), right(samples, bits)


for _colour, _depths in (("grey", (1, 2, 4, 8, 16)), ("rgb", (8, 16)), ("la", (8, 16)), ("rgba", (8, 16))):
    for _bits in _depths:
        odd(f"{_colour}_{_bits}.png", _colour, _bits, False)(plain)
        odd(f"{_colour}_{_bits}_interlaced.png", _colour, _bits, True)(plain)


def palette(bits, interlaced, transparent):
    """All colours of a palette; with `transparent` the first two have alpha, as tRNS may be shorter than PLTE."""
    colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3))
    indices = ramp(13, 21, 1, 2**bits - 1)
    before = chunk(b"PLTE", colours.astype(np.uint8).tobytes())
    alpha = np.full(2**bits, 255)
    if transparent:
        alpha[:2] = 0, 100
        before += chunk(b"tRNS", bytes([0, 100]))
    expected = Right(colours[indices[..., 0]], alpha[indices[..., 0]] / 255 if transparent else None)
    return png(indices, bits, "palette", interlaced, before), expected


for _bits in (1, 2, 4, 8):
    odd(f"palette_{_bits}.png", _bits, False, False)(palette)
    odd(f"palette_{_bits}_interlaced.png", _bits, True, False)(palette)
    odd(f"palette_{_bits}_transparent.png", _bits, False, True)(palette)


def keyed(colour, bits):
    """One colour is transparent (tRNS), at all its bits: neighbours of 16 bits have the same upper byte."""
    samples = ramp(13, 21, COLOURS[colour][1], 2**bits - 1)
    key = samples[4, 5]
    if bits == 16:
        samples[:, 10:] = key
        samples[:, 12:] = key ^ 1
    before = chunk(b"tRNS", key.astype(">u2").tobytes())
    expected = right(samples, bits)
    return png(samples, bits, colour, before=before), Right(expected.rgb, (samples != key).any(axis=2).astype(float))


for _colour, _bits in (("grey", 1), ("grey", 2), ("grey", 4), ("grey", 8), ("grey", 16), ("rgb", 8), ("rgb", 16)):
    odd(f"key_{_colour}_{_bits}.png", _colour, _bits)(keyed)


def tagged(chunks, expected, bits=8, colour="rgb", remark=""):
    """A ramp with chunks that say something of its colours. expected: values 0..1 → sRGB 0..255."""
    samples = ramp(13, 21, COLOURS[colour][1], 2**bits - 1)
    values = samples / (2**bits - 1)
    if colour == "grey":
        values = np.repeat(values, 3, axis=2)
    return png(samples, bits, colour, before=chunks), Right(expected(values), tolerance=0.9, remark=remark)


def gamma(value):
    return chunk(b"gAMA", struct.pack(">I", value))


def primaries(chromaticities):
    return chunk(b"cHRM", struct.pack(">8I", *(round(v * 100000) for point in chromaticities for v in point)))


def profile(data, compressed=None):
    return chunk(b"iCCP", b"odd\0\0" + (zlib.compress(data) if compressed is None else compressed))


_same = lambda values: values * 255  # noqa: E731
_adobe = lambda values: in_srgb(values, ADOBE, 563 / 256)  # noqa: E731
for _bits in (8, 16):
    _end = f"_{_bits}.png"
    odd(f"gamma_1{_end}", gamma(100000), encode_srgb, _bits)(tagged)
    odd(f"gamma_1_grey{_end}", gamma(100000), encode_srgb, _bits, "grey")(tagged)
    odd(f"gamma_usual{_end}", gamma(45455), _same, _bits)(tagged)
    odd(f"gamma_zero{_end}", gamma(0), _same, _bits)(tagged)
    odd(f"gamma_1_but_srgb{_end}", gamma(100000) + chunk(b"sRGB", b"\0"), _same, _bits)(tagged)
    odd(f"gamma_1_but_profile{_end}", gamma(100000) + profile(icc()), _adobe, _bits)(tagged)
    odd(
        f"primaries_adobe{_end}", gamma(45455) + primaries(ADOBE), lambda v: in_srgb(v, ADOBE, 1 / 0.45455), _bits,
    )(tagged)  # fmt: skip
    odd(f"primaries_zero{_end}", gamma(45455) + chunk(b"cHRM", bytes(32)), _same, _bits)(tagged)
    odd(f"profile_adobe{_end}", profile(icc()), _adobe, _bits)(tagged)
    odd(f"profile_large{_end}", profile(icc(padding=3 << 20)), _adobe, _bits)(tagged)
    odd(f"profile_junk{_end}", profile(bytes(range(200))), _same, _bits, "rgb", "profile")(tagged)
    odd(f"profile_bad_zlib{_end}", profile(b"", b"\x78\x9cjunk junk junk"), _same, _bits)(tagged)
    odd(f"profile_grey_in_rgb{_end}", profile(icc("GRAY")), _same, _bits, "rgb", "profile")(tagged)
    odd(f"profile_rgb_in_grey{_end}", _bits)(
        lambda bits: (
            *tagged(profile(icc()), _same, bits, "grey"), tagged(profile(icc()), _adobe, bits, "grey")[1],
        )
    )  # fmt: skip
    odd(f"profile_cmyk_in_rgb{_end}", profile(icc("CMYK")), _same, _bits, "rgb", "profile")(tagged)
    odd(f"profile_truncated{_end}", profile(icc()[:300]), _same, _bits, "rgb", "profile")(tagged)
    odd(
        f"profile_grey_gamma_1{_end}", profile(icc("GRAY", gamma=1)), encode_srgb, _bits, "grey",
    )(tagged)  # fmt: skip
    # cICP: primaries of P3 (12), sRGB's curve (13), RGB, full range.
    odd(
        f"cicp_p3{_end}", chunk(b"cICP", bytes([12, 13, 0, 1])),
        lambda v: in_srgb(np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4), P3, 1), _bits,
    )(tagged)  # fmt: skip


@odd("cicp_pq_16.png")
def _():
    """HDR as screenshots of Windows have it: BT.2020 primaries with the PQ curve; as sRGB it is grey and dull."""
    samples = ramp(13, 21, 3, 65535)
    return png(samples, 16, before=chunk(b"cICP", bytes([9, 16, 0, 1]))), Refused("HDR|PQ|cICP|BT.2100")


def metadata(chunks, bits):
    samples = ramp(13, 21, 3, 2**bits - 1)
    return png(samples, bits, before=chunks), right(samples, bits)


_text = zlib.compress(bytes([65]) * (3 << 20))
_itxt = b"XML:com.adobe.xmp\0\0\0\0\0" + b" " * (2 << 20)
_sound = {
    "text_long": chunk(b"zTXt", b"Comment\0\0" + _text),
    "text_many": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes([65]) * (1 << 20))) * 70,
    "text_plain_long": chunk(b"tEXt", b"Comment\0" + bytes([65]) * (2 << 20)),
    "text_compressed_utf8": chunk(b"iTXt", b"Comment\0\1\0\0\0" + _text),
    "xmp_long": chunk(b"iTXt", _itxt),
    "text_not_latin": chunk(b"tEXt", b"\xff\xfe\0\x80\x81") + chunk(b"iTXt", b"a\0\0\0\0\0\xff\xff"),
    "text_bad_zlib": chunk(b"zTXt", b"Comment\0\0junk"),
    "exif_junk": chunk(b"eXIf", b"junk that is no TIFF"),
    "exif_long": chunk(b"eXIf", exif(orientation=1) + bytes(5 << 20)),
    "resolution_zero": chunk(b"pHYs", struct.pack(">IIB", 0, 0, 1)),
    "resolution_oblong": chunk(b"pHYs", struct.pack(">IIB", 2, 1, 0)),
    "time_wrong": chunk(b"tIME", struct.pack(">HBBBBB", 0, 99, 99, 99, 99, 99)),
    "background": chunk(b"bKGD", bytes(6)),
    "significant_bits": chunk(b"sBIT", bytes([5, 6, 5])),
    "suggested_palette": chunk(b"PLTE", bytes(range(30))),
    "private_chunks": chunk(b"vpAg", bytes(9)) + chunk(b"prVW", bytes(70000)) + chunk(b"caBX", bytes(70000)),
}
for _name, _chunks in _sound.items():
    for _bits in (8, 16):
        odd(f"{_name}_{_bits}.png", _chunks, _bits)(metadata)


@cache
def bomb():
    """400 MB of zeros in 400 kB."""
    packer = zlib.compressobj()
    megabyte = bytes(1 << 20)
    return b"".join(packer.compress(megabyte) for _ in range(400)) + packer.flush()


@odd("text_bomb_8.png", 8)
@odd("text_bomb_16.png", 16)
def _(bits):
    samples = ramp(13, 21, 3, 2**bits - 1)
    data = png(samples, bits, before=chunk(b"zTXt", b"Comment\0\0" + bomb()))
    return data, right(samples, bits), Refused("text|metadata")


@odd("profile_bomb_8.png", 8)
@odd("profile_bomb_16.png", 16)
def _(bits):
    samples = ramp(13, 21, 3, 2**bits - 1)
    return png(samples, bits, before=profile(b"", bomb())), right(samples, bits), Refused("profile")


def around(bits, **where):
    samples = ramp(13, 21, 3, 2**bits - 1)
    end = where.pop("trailing", b"")
    return png(samples, bits, **where) + end, right(samples, bits)


for _bits in (8, 16):
    odd(f"trailing_garbage_{_bits}.png", _bits)(lambda bits: around(bits, trailing=b"garbage" * 99))
    odd(f"trailing_zeros_{_bits}.png", _bits)(lambda bits: around(bits, trailing=bytes(4096)))
    odd(f"split_{_bits}.png", _bits)(lambda bits: around(bits, split=1))
    odd(f"empty_idat_{_bits}.png", _bits)(lambda bits: around(bits, before=chunk(b"IDAT")))
    odd(f"text_after_{_bits}.png", _bits)(lambda bits: around(bits, after=chunk(b"tEXt", b"a\0b")))


def doubtful(bits, **how):
    """Viewers show it; to refuse it is as good."""
    data, expected = around(bits, **how)
    return data, expected, Refused()


for _bits in (8, 16):
    odd(f"no_iend_{_bits}.png", _bits)(lambda bits: doubtful(bits, end=b""))
    odd(f"crc_of_text_{_bits}.png", _bits)(lambda bits: doubtful(bits, before=chunk(b"tEXt", b"a\0b", 1)))
    odd(f"crc_of_iend_{_bits}.png", _bits)(lambda bits: doubtful(bits, end=chunk(b"IEND", crc_error=1)))
    odd(f"unknown_critical_{_bits}.png", _bits)(lambda bits: doubtful(bits, before=chunk(b"ODDX", b"a")))


@odd("half.png", 8, 0.5)
@odd("half_16.png", 16, 0.5)
@odd("header_only.png", 8, 33)
@odd("signature_only.png", 8, 8)
def _(bits, share):
    data = png(np.random.default_rng(0).integers(0, 2**bits, (24, 32, 3)), bits)
    return data[: share if share > 1 else int(share * len(data))], Refused()


@odd("holes.png", 8)
@odd("holes_16.png", 16)
def _(bits):
    """A download whose second half is still zeros."""
    data = png(np.random.default_rng(0).integers(0, 2**bits, (24, 32, 3)), bits)
    return data[: len(data) // 2].ljust(len(data), b"\0"), Refused()


@odd("idat_short.png", 8)
@odd("idat_short_16.png", 16)
def _(bits):
    """A sound zlib stream with half of the rows."""
    samples = ramp(13, 21, 3, 2**bits - 1)
    return png(samples, bits)[:8] + header(26, 21, bits, "rgb") + png(samples, bits)[33:], Refused()


@odd("no_palette.png")
def _():
    return png(ramp(13, 21, 1, 15), 8, "palette"), Refused()


@odd("palette_short.png")
def _():
    """Indices beyond the palette: black in libpng's viewers."""
    indices = ramp(13, 21, 1, 5)
    colours = np.array([(9, 9, 9), (200, 0, 0), (0, 200, 0), (0, 0, 200), (0, 0, 0), (0, 0, 0)])
    data = png(indices, 8, "palette", before=chunk(b"PLTE", colours[:4].astype(np.uint8).tobytes()))
    return data, Right(colours[indices[..., 0]]), Refused("palette|damaged")


for _turn in range(1, 9):

    @odd(f"exif_orientation_{_turn}_8.png", _turn, 8)
    @odd(f"exif_orientation_{_turn}_16.png", _turn, 16)
    def _(turn, bits):
        samples = ramp(13, 21, 3, 2**bits - 1)
        data = png(oriented(samples, turn), bits, before=chunk(b"eXIf", exif(orientation=turn)))
        return data, right(samples, bits)


def animated(first_in_animation):
    """APNG. The picture of viewers without animation need not be part of it."""
    pixels = ramp(13, 21)
    frame = lambda n, h, w: chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, w, h, 0, 0, 1, 10, 0, 0))  # noqa: E731
    second = chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(scanlines(255 - pixels, 8)))
    before = chunk(b"acTL", struct.pack(">II", 2 if first_in_animation else 1, 0))
    before += frame(0, 13, 21) if first_in_animation else b""
    after = frame(1, 13, 21) + second if first_in_animation else frame(0, 13, 21) + second.replace(b"\2", b"\1", 1)
    if not first_in_animation:
        after = frame(0, 13, 21) + chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(scanlines(255 - pixels, 8)))
    return png(pixels, before=before, after=after), Right(pixels, remark="animat|frame" if first_in_animation else "")


odd("animated.png", True)(animated)
odd("animated_with_still.png", False)(animated)


@odd("iphone.png")
def _():
    """Xcode's CgBI: raw deflate, BGRA with associated alpha."""
    samples = ramp(13, 21, 4)
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(scanlines(samples[..., [2, 1, 0, 3]], 8)) + packer.flush()
    parts = (chunk(b"CgBI", b"\x50\0\x20\x02"), header(13, 21, 8, "rgba"), chunk(b"IDAT", data), chunk(b"IEND"))
    return SIGNATURE + b"".join(parts), Refused("CgBI|iPhone|iOS|Apple|Xcode")


@odd("hidden_colours.png", 8)
@odd("hidden_colours_16.png", 16)
def _(bits):
    samples = ramp(16, 16, 4, 2**bits - 1)
    samples[4:12, 4:12] = 2**bits - 1, 0, 2**bits - 1, 0
    return png(samples, bits, "rgba"), right(samples, bits)


@odd("png_named.jpg", 8)
@odd("png_16_named.tif", 16)
@odd("png_without_ending", 8)
@odd("PNG.PNG", 8)
def _(bits):
    samples = ramp(13, 21, 3, 2**bits - 1)
    return png(samples, bits), right(samples, bits)


@odd("one_pixel.png")
def _():
    return png(np.array([[[1, 2, 3]]])), Right(np.array([[[1, 2, 3]]]))


@odd("line_wide.png", (1, 3000))
@odd("line_high.png", (3000, 1))
def _(size):
    samples = ramp(*size)
    return png(samples), Right(samples)


@odd("size_zero.png", 0, 21)
@odd("size_negative.png", 0x80000001, 21)
def _(height, width):
    return SIGNATURE + header(height, width, 8, "rgb") + png(ramp(13, 21))[33:], Refused(
        "damaged|size|empty|truncated|megapixels"
    )


@odd("bits_3.png")
def _():
    return SIGNATURE + header(13, 21, 3, "rgb") + png(ramp(13, 21))[33:], Refused("damaged|cannot read|no picture")


@odd("text_lines_end.png")
def _():
    """Sent through FTP in text mode."""
    return png(ramp(13, 21)).replace(b"\r\n", b"\n"), Refused("damaged|no picture|text mode|cannot")


@odd("mng.png")
def _():
    return b"\x8aMNG\r\n\x1a\n" + chunk(b"MHDR", bytes(28)) + chunk(b"MEND"), Refused("MNG|no picture")
