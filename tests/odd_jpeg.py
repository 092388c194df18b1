"""Odd JPEG files (ITU-T T.81, JFIF 1.02, Adobe's technical note 5116, EXIF 2.3).

Most are made of flat blocks of 8×8 pixels, which a few lines encode without loss.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from odd_pictures import ADOBE, Refused, Right, exif, grey, icc, in_srgb, odd, oriented, ramp
from PIL import Image

_JFIF = b"JFIF\0\1\1\1\0\x48\0\x48\0\0"
_LOSSLESS = 0xC3


def segment(marker: int, data: bytes = b"") -> bytes:
    """A marker segment with its length."""
    return bytes([255, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(
    values, frame=0xC0, precision=8, ids=(1, 2, 3, 4), jfif=True, adobe=None, segments=b"", end=b"\xff\xd9", fill=0
):
    """JPEG of (rows, columns, C) integers: of blocks of 8×8 pixels, or of pixels for lossless frames.

    adobe: the transform in Adobe's segment; segments: more, before the frame; fill: FF bytes before markers.
    """
    height, width, channels = values.shape
    side = 1 if frame == _LOSSLESS else 8
    ids = ids[:channels]
    parts = [b"\xff\xd8"]
    if jfif:
        parts.append(segment(0xE0, _JFIF))
    if adobe is not None:
        parts.append(segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([adobe])))
    parts.append(segments)
    if side == 8:  # DC steps of 8 are steps of 1 of all the block's pixels
        parts.append(segment(0xDB, bytes([0]) + bytes([8] * 64)))
    components = b"".join(bytes([n, 0x11, 0]) for n in ids)
    parts.append(segment(frame, struct.pack(">BHHB", precision, height * side, width * side, channels) + components))
    # All 16 categories of DC differences have codes of 5 bits; AC has a single code, "0", the end of block.
    parts.append(segment(0xC4, bytes([0]) + bytes([0, 0, 0, 0, 16]) + bytes(11) + bytes(range(16))))
    parts.append(segment(0xC4, bytes([0x10]) + bytes([1]) + bytes(15) + bytes([0])))
    spectral = b"\1\0\0" if frame == _LOSSLESS else b"\0\x3f\0"
    parts.append(segment(0xDA, bytes([channels]) + b"".join(bytes([n, 0]) for n in ids) + spectral))
    parts.append(_scan(values, precision, lossless=frame == _LOSSLESS))
    data = b"".join(parts) + end
    return data if not fill else data.replace(b"\xff\xda", b"\xff" * fill + b"\xff\xda", 1)


def _scan(values, precision, lossless):
    """The entropy-coded data: differences to the block before (lossless: to the pixel to the left)."""
    middle = 1 << (precision - 1)
    if lossless:
        before = np.concatenate([np.zeros_like(values[:, :1]), values[:, :-1]], axis=1)
        before[1:, 0] = values[:-1, 0]
        before[0, 0] = middle
        differences = (values - before).reshape(-1)
    else:
        levels = (values - middle).reshape(-1, values.shape[2])
        differences = np.diff(levels, axis=0, prepend=0).reshape(-1)
    bits = []
    for difference in map(int, differences):
        size = abs(difference).bit_length()
        bits.append(f"{size:05b}")
        if size:
            bits.append(f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}")
        if not lossless:
            bits.append("0")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)).replace(b"\xff", b"\xff\0")


def blocks(values):
    """Blocks as pixels."""
    return np.repeat(np.repeat(values, 8, axis=0), 8, axis=1)


def ycc(rgb):
    """JFIF's YCbCr, rounded."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = np.stack([luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128], axis=-1)
    return np.rint(planes).clip(0, 255).astype(int)


COLOURS = ramp(3, 4)
LOSS = 2.5  # levels, of rounded YCbCr


def coloured(**how):
    """YCbCr of the coloured blocks."""
    return jpeg(ycc(COLOURS), **how), Right(blocks(COLOURS), tolerance=LOSS)


def doubtful(**how):
    data, expected = coloured(**how)
    return data, expected, Refused()


odd("ycc_jfif.jpg")(coloured)
odd("ycc_without_jfif.jpg")(lambda: coloured(jfif=False))
odd("ycc_adobe.jpg")(lambda: coloured(jfif=False, adobe=1))
odd("ycc_extended.jpg")(lambda: coloured(frame=0xC1))
odd("fill_bytes.jpg")(lambda: coloured(fill=5))
odd("trailing_garbage.jpg")(lambda: coloured(end=b"\xff\xd9" + b"garbage" * 99))
odd("trailing_zeros.jpg")(lambda: coloured(end=b"\xff\xd9" + bytes(9999)))
odd("trailing_jpeg.jpg")(lambda: coloured(end=b"\xff\xd9" + jpeg(255 - ycc(ramp(9, 9)))))
odd("comments_long.jpg")(lambda: coloured(segments=segment(0xFE, b"x" * 65533) * 40))
odd("app_segments_long.jpg")(
    lambda: coloured(segments=b"".join(segment(0xE0 + n, b"x" * 65533) * 5 for n in range(3, 13)))
)
odd("xmp_long.jpg")(
    lambda: coloured(segments=segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"x" * 65000) * 60)
)
odd("iptc_junk.jpg")(lambda: coloured(segments=segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff")))
odd("mpf_junk.jpg")(lambda: coloured(segments=segment(0xE2, b"MPF\0II*\0\xff\xff\xff\x7f")))
odd("jfif_thumbnail.jpg")(lambda: coloured(jfif=False, segments=segment(0xE0, _JFIF[:-2] + b"\2\2" + bytes(12))))
odd("exif_before_jfif.jpg")(
    lambda: coloured(jfif=False, segments=segment(0xE1, b"Exif\0\0" + exif(orientation=1)) + segment(0xE0, _JFIF))
)
odd("ycc_named.png")(coloured)
odd("ycc_named.webp")(coloured)
odd("jpeg_without_ending")(coloured)
odd("PHOTO.JPE")(coloured)
odd("no_eoi.jpg")(lambda: doubtful(end=b""))
odd("half_eoi.jpg")(lambda: doubtful(end=b"\xff"))
odd("leading_newline.jpg")(lambda: (b"\n" + coloured()[0], coloured()[1], Refused("no picture|damaged|cannot")))


def rgb(**how):
    return jpeg(COLOURS, **how), Right(blocks(COLOURS), tolerance=1)


odd("rgb_adobe.jpg")(lambda: rgb(jfif=False, adobe=0))


@odd("rgb_adobe_and_jfif.jpg")
def _():
    """Contradictory: JFIF is always YCbCr, and Adobe's segment says RGB. libjpeg believes JFIF."""
    data, expected = rgb(adobe=0)
    values = (COLOURS - [0, 128, 128]) @ np.array([[1, 1, 1], [0, -0.344136, 1.772], [1.402, -0.714136, 0]])
    return data, expected, Right(blocks(values.clip(0, 255)), tolerance=1.5)


odd("rgb_by_names.jpg")(lambda: rgb(jfif=False, ids=b"RGB"))


@odd("grey.jpg", 1, {})
@odd("grey_extended.jpg", 1, {"frame": 0xC1})
@odd("grey_adobe.jpg", 1, {"jfif": False, "adobe": 0})
@odd("grey_id_0.jpg", 1, {"ids": (0,)})
def _(channels, how):
    values = ramp(3, 4, channels)
    return jpeg(values, **how), Right(grey(blocks(values)), tolerance=1)


@odd("grey_with_rgb_profile.jpg")
def _():
    values = ramp(3, 4, 1)
    data = jpeg(values, segments=segment(0xE2, b"ICC_PROFILE\0\1\1" + icc()))
    # Viewers either pass over the profile or take it for R = G = B.
    shown = grey(blocks(values))
    return data, Right(shown, tolerance=1, remark="profile"), Right(in_srgb(shown / 255, ADOBE, 563 / 256), tolerance=1)


def inks():
    """Photoshop's CMYK: stored inverted; RGB by (1 - ink) (1 - black)."""
    stored = ramp(3, 4, 4)
    stored[..., 3] = 255 - stored[..., 3] // 2
    return stored, Right(blocks(stored[..., :3] * stored[..., 3:] / 255), tolerance=2)


@odd("cmyk_adobe.jpg")
def _():
    stored, expected = inks()
    return jpeg(stored, jfif=False, adobe=0), expected


@odd("cmyk_rgb_profile.jpg")
def _():
    """The profile is not of the pixels' kind."""
    stored, expected = inks()
    data = jpeg(stored, jfif=False, adobe=0, segments=segment(0xE2, b"ICC_PROFILE\0\1\1" + icc()))
    return data, Right(expected.rgb, tolerance=2, remark="profile")


@odd("ycck.jpg")
def _():
    """Adobe's transform 2: YCbCr of the inverted inks (1 - C, 1 - M, 1 - Y), beside the inverted black."""
    stored, expected = inks()
    values = np.concatenate([ycc(255 - stored[..., :3]), stored[..., 3:]], axis=-1)
    return jpeg(values, jfif=False, adobe=2), Right(expected.rgb, tolerance=3.5)


@odd("two_components.jpg")
def _():
    return jpeg(ramp(3, 4, 2)), Refused("2|components|channels|no picture|damaged")


@odd("bits_12.jpg")
def _():
    """Medical pictures; few viewers open them."""
    values = ramp(3, 4, 1, 4095)
    return jpeg(values, frame=0xC1, precision=12), Refused("12"), Right(grey(blocks(values), 4095), tolerance=1)


@odd("lossless.jpg")
def _():
    values = ramp(13, 21, 1)
    return jpeg(values, frame=_LOSSLESS), Refused("lossless|no picture"), Right(grey(values))


@odd("jpeg_ls.jpg")
def _():
    return jpeg(ramp(3, 4, 1), frame=0xF7), Refused("JPEG-LS|damaged|no picture|cannot")


for _turn in range(1, 9):

    @odd(f"exif_orientation_{_turn}.jpg", _turn)
    def _(turn):
        turned = segment(0xE1, b"Exif\0\0" + exif(orientation=turn))
        return jpeg(ycc(oriented(COLOURS, turn)), jfif=False, segments=turned), coloured()[1]


_wrong = {
    "orientation_0": exif(orientation=0),
    "orientation_9": exif(orientation=9),
    "orientation_65535": exif(orientation=65535),
    "orientation_in_rational": exif({274: (5, struct.pack("<I", 9999))}),
    "orientation_in_text": exif({274: (2, b"6\0\0\0")}),
    "junk": b"junk that is no TIFF at all",
    "empty": b"",
    "directory_beyond": b"II*\0\xff\xff\xff\x7f",
    "directory_of_itself": b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0",
    "many_entries": b"II*\0\x08\0\0\0\xff\xff" + bytes(99),
    "resolution_of_nothing": exif({282: (5, b"\xff\xff\xff\x7f"), 296: (3, b"\2\0\0\0")}),
    "size_other": exif({256: (4, struct.pack("<I", 9999)), 257: (4, struct.pack("<I", 7777))}),
    "strips": exif({273: (4, struct.pack("<I", 8)), 259: (3, b"\7\0\0\0")}),
}
for _name, _data in _wrong.items():
    odd(f"exif_{_name}.jpg", _data)(lambda data: coloured(jfif=False, segments=segment(0xE1, b"Exif\0\0" + data)))


@odd("exif_orientation_in_long.jpg")
def _():
    """An orientation of the wrong integer type is taken by exiftool, libexif and browsers alike."""
    turned = segment(0xE1, b"Exif\0\0" + exif({274: (4, struct.pack("<I", 6))}))
    return jpeg(ycc(oriented(COLOURS, 6)), jfif=False, segments=turned), coloured()[1]


@odd("exif_big_endian.jpg")
def _():
    data = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, 6, 0, 0)
    return jpeg(ycc(oriented(COLOURS, 6)), segments=segment(0xE1, b"Exif\0\0" + data)), coloured()[1]


@odd("exif_thumbnail.jpg")
def _():
    thumbnail = jpeg(255 - ycc(ramp(1, 2)))
    first = b"II*\0" + struct.pack("<IH", 8, 0) + struct.pack("<I", 14)
    second = struct.pack("<HHHIIHHIIHHIII", 3, 259, 3, 1, 6, 513, 4, 1, 56, 514, 4, 1, len(thumbnail), 0)
    return coloured(segments=segment(0xE1, b"Exif\0\0" + (first + second).ljust(56, b"\0") + thumbnail))


def profile_segments(profile, size=65519):
    parts = [profile[i : i + size] for i in range(0, len(profile), size)]
    return [segment(0xE2, b"ICC_PROFILE\0" + bytes([n + 1, len(parts)]) + part) for n, part in enumerate(parts)]


def adobe_profile(change, remark="", used=True, **how):
    colours = COLOURS // 2 + 60  # inside sRGB too
    segments = change(profile_segments(icc(padding=200_000)))
    values = in_srgb(blocks(colours) / 255, ADOBE, 563 / 256) if used else blocks(colours)
    return jpeg(ycc(colours), segments=b"".join(segments), **how), Right(values, tolerance=LOSS + 0.5, remark=remark)


odd("profile_of_4_segments.jpg")(lambda: adobe_profile(lambda s: s))
odd("profile_out_of_order.jpg")(lambda: adobe_profile(lambda s: s[::-1]))
odd("profile_segment_missing.jpg")(lambda: adobe_profile(lambda s: s[:1] + s[2:], "profile", used=False))
odd("profile_first_missing.jpg")(lambda: adobe_profile(lambda s: s[1:], used=False))
odd("profile_cut.jpg")(lambda: _cut_profile())
odd("profile_small.jpg")(lambda: adobe_profile(lambda s: profile_segments(icc())))
odd("profile_in_pieces.jpg")(lambda: adobe_profile(lambda s: profile_segments(icc(), 8)))


def _cut_profile():
    return adobe_profile(lambda s: [segment(0xE2, b"ICC_PROFILE\0\1\1" + icc()[:200])], "profile", used=False)


@odd("interoperability_adobe.jpg")
def _():
    """A camera's Adobe RGB without a profile: ColorSpace 65535 and interoperability index R03 (DCF 2.0)."""
    colours = COLOURS // 2 + 60
    data = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 34665, 4, 1, 26) + bytes(4)
    data += struct.pack("<HHHIHHHHIII", 2, 40961, 3, 1, 65535, 0, 40965, 4, 1, 56, 0)
    data += struct.pack("<HHHI4s", 1, 1, 2, 4, b"R03\0") + bytes(4)
    values = in_srgb(blocks(colours) / 255, ADOBE, 563 / 256)
    file = jpeg(ycc(colours), jfif=False, segments=segment(0xE1, b"Exif\0\0" + data))
    return file, Right(values, tolerance=LOSS + 0.5), Right(blocks(colours), tolerance=LOSS, remark="Adobe RGB")


def encoded(mode="RGB", size=(48, 64), **how):
    """By libjpeg, through Pillow."""
    pixels = ramp(*size)
    image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
    out = io.BytesIO()
    image.save(out, **{"format": "JPEG", "quality": 96, "subsampling": 0, **how})
    expected = grey(np.rint(pixels @ [0.299, 0.587, 0.114])) if mode == "L" else pixels
    return out.getvalue(), Right(expected, tolerance=8)


odd("progressive.jpg")(lambda: encoded(progressive=True))
odd("progressive_grey.jpg")(lambda: encoded("L", progressive=True))
odd("subsampled.jpg")(lambda: encoded(subsampling=2))
odd("restart_markers.jpg")(lambda: encoded(restart_marker_blocks=1))
odd("odd_size.jpg")(lambda: encoded(size=(17, 33)))
odd("one_pixel.jpg")(lambda: (encoded(size=(1, 1))[0], Right(ramp(1, 1), tolerance=8)))
odd("stereo.mpo")(lambda: encoded(format="MPO", save_all=True, append_images=[Image.new("RGB", (64, 48), "red")]))
odd("mpo_named.jpg")(lambda: encoded(format="MPO", save_all=True, append_images=[Image.new("RGB", (16, 12), "red")]))


@odd("half.jpg", {}, 0.5)
@odd("half_progressive.jpg", {"progressive": True}, 0.5)
@odd("nearly_whole.jpg", {}, 0.9)
@odd("headers_only.jpg", {}, 300)
@odd("start_only.jpg", {}, 2)
def _(how, share):
    data = encoded(**how)[0]
    return data[: share if share > 1 else int(share * len(data))], Refused("damaged|truncated|incomplete|no picture")


@odd("truncated_by_5.jpg")
def _():
    data, expected = encoded()
    return data[:-5], expected, Refused()


@odd("holes.jpg", {})
@odd("holes_progressive.jpg", {"progressive": True})
def _(how):
    """A download whose second half is still zeros; viewers show it grey or smeared from there."""
    data = encoded(**how)[0]
    return data[: len(data) // 2].ljust(len(data), b"\0"), Refused("damaged|truncated|incomplete")


@odd("size_zero.jpg")
def _():
    data = encoded()[0]
    where = data.index(b"\xff\xc0") + 5
    return data[:where] + b"\0\0" + data[where + 2 :], Refused("damaged|size|empty|no picture|cannot")
