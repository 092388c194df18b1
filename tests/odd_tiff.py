"""Odd TIFF files (TIFF 6.0, Adobe's technical notes 1 to 3, BigTIFF, DNG 1.7)."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from odd_pictures import (
    ADOBE,
    Refused,
    Right,
    encode_srgb,
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
from PIL import Image

BYTE, TEXT, SHORT, LONG, RATIONAL, SIGNED, FLOAT, DOUBLE = 1, 2, 3, 4, 5, 8, 11, 12
_FORMS = {BYTE: "B", SHORT: "H", LONG: "I", SIGNED: "h", FLOAT: "f", DOUBLE: "d"}
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, CHANNELS, ROWS, COUNTS = (
    256,
    257,
    258,
    259,
    262,
    273,
    277,
    278,
    279,
)
SUBTYPE, FILL, ORIENTATION, PLANAR, PREDICTOR, COLORMAP = 254, 266, 274, 284, 317, 320
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS, SUB_IFDS, EXTRA, FORMAT = 322, 323, 324, 325, 330, 338, 339
LOWEST, HIGHEST, PROFILE = 340, 341, 34675
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 4, 5, 6, 8, 9


class Page:
    """A directory: tags, tag → values of a type; strips (or tiles); pages below (SubIFDs)."""

    def __init__(self, tags, pieces, below=(), tiled=False):
        self.tags = tags
        self.pieces = pieces
        self.below = below
        self.tiled = tiled


def page(samples, bits=8, photometric=RGB, order="<", data=None, rows=None, below=(), compress=None, code=1, **tags):
    """A directory of samples (H, W, C).

    data: the pieces, if not strips of `rows` rows of the samples; code: the compression; tags: more of them, as
    t123=(type, values); None removes one.
    """
    height, width, channels = samples.shape
    rows = rows or height
    if data is None:
        data = [pack(samples[i : i + rows], bits, order) for i in range(0, height, rows)]
    if compress:
        data = [compress(piece) for piece in data]
    known = {
        WIDTH: (LONG, [width]), LENGTH: (LONG, [height]), BITS: (SHORT, [bits] * channels),
        COMPRESSION: (SHORT, [code]), PHOTOMETRIC: (SHORT, [photometric]), CHANNELS: (SHORT, [channels]),
        ROWS: (LONG, [rows]),
    }  # fmt: skip
    for name, value in tags.items():
        known[int(name[1:])] = value
    tiled = TILE_WIDTH in known
    if tiled:
        del known[ROWS]
    return Page({k: v for k, v in known.items() if v is not None}, data, below, tiled)


def tiff(*pages, order="<", big=False, loop=False):
    """A file of these pages. loop: the last directory's next one is the first."""
    word, count_form = ("Q", "Q") if big else ("I", "H")
    size = struct.calcsize(word)
    start = struct.pack(order + "HHQ", 43, 8, 0)[:6] if big else struct.pack(order + "H", 42)
    out = bytearray((b"II" if order == "<" else b"MM") + start + bytes(size))
    root = len(out) - size

    def append(data):
        out.extend(bytes(-len(out) % 8))
        out.extend(data)
        return len(out) - len(data)

    def write(part):
        """The offset of a directory, and of its link to the next one."""
        tags = dict(part.tags)
        offsets, counts = (TILE_OFFSETS, TILE_COUNTS) if part.tiled else (OFFSETS, COUNTS)
        tags.setdefault(offsets, (LONG, [append(piece) for piece in part.pieces]))
        tags.setdefault(counts, (LONG, [len(piece) for piece in part.pieces]))
        if part.below:
            tags[SUB_IFDS] = LONG, [write(sub)[0] for sub in part.below]
        entries = b""
        tags = {tag: value for tag, value in tags.items() if value[1] is not None}
        for tag, (kind, values) in sorted(tags.items()):
            if isinstance(values, bytes):
                data = values
                number = len(values)
            elif kind == RATIONAL:
                data = struct.pack(order + "II" * len(values), *(n for pair in values for n in pair))
                number = len(values)
            else:
                data = struct.pack(f"{order}{len(values)}{_FORMS[kind]}", *values)
                number = len(values)
            if len(data) > size:
                data = struct.pack(order + word, append(data))
            entries += struct.pack(order + "HH" + word, tag, kind, number) + data.ljust(size, b"\0")
        where = append(struct.pack(order + count_form, len(tags)) + entries + bytes(size))
        return where, len(out) - size

    link = root
    first = None
    for part in pages:
        where, following = write(part)
        first = first or where
        struct.pack_into(order + word, out, link, where)
        link = following
    if loop:
        struct.pack_into(order + word, out, link, first)
    return bytes(out)


def right(samples, top, **more):
    """RGB or grey samples without alpha."""
    values = samples * (255 / top)
    return Right(values if values.shape[2] >= 3 else grey(values), **more)


def plain(kind, bits, order="<", big=False, rows=None, **how):
    samples = ramp(13, 21, 3 if kind == RGB else 1, 2**bits - 1)
    data = tiff(page(samples, bits, kind, order, rows=rows, **how), order=order, big=big)
    shown = 2**bits - 1 - samples if kind == WHITE_IS_ZERO else samples
    return data, right(shown, 2**bits - 1)


for _bits in (1, 2, 4, 8, 12, 16, 32):
    odd(f"grey_{_bits}.tif", BLACK_IS_ZERO, _bits)(plain)
    odd(f"white_is_zero_{_bits}.tif", WHITE_IS_ZERO, _bits)(plain)
for _bits in (8, 10, 12, 14, 16, 32):
    odd(f"rgb_{_bits}.tif", RGB, _bits)(plain)
odd("rgb_4.tif")(lambda: (*plain(RGB, 4), Refused("4 bits|4-bit")))
for _kind, _name in ((RGB, "rgb"), (BLACK_IS_ZERO, "grey")):
    for _bits in (8, 16):
        odd(f"{_name}_{_bits}_motorola.tif", _kind, _bits, ">")(plain)
        odd(f"{_name}_{_bits}_big.tif", _kind, _bits, "<", True)(plain)
        odd(f"{_name}_{_bits}_big_motorola.tif", _kind, _bits, ">", True)(plain)
        odd(f"{_name}_{_bits}_strips.tif", _kind, _bits, "<", False, 5)(plain)
odd("rgb_12_motorola.tif", RGB, 12, ">")(plain)
odd("grey_32_motorola.tif", BLACK_IS_ZERO, 32, ">")(plain)
for _bits in (8, 16):
    odd(f"rows_unlimited_{_bits}.tif", _bits)(lambda bits: plain(RGB, bits, t278=(LONG, [2**32 - 1])))
    odd(f"rows_missing_{_bits}.tif", _bits)(lambda bits: plain(RGB, bits, t278=None))
    odd(f"counts_zero_{_bits}.tif", _bits)(lambda bits: (*plain(RGB, bits, t279=(LONG, [0])), Refused()))
    odd(f"counts_missing_{_bits}.tif", _bits)(lambda bits: (*plain(RGB, bits, t279=(LONG, None)), Refused()))
    odd(f"resolution_zero_{_bits}.tif", _bits)(
        lambda bits: plain(RGB, bits, t282=(RATIONAL, [(0, 0)]), t283=(RATIONAL, [(72, 0)]))
    )
    odd(f"tags_private_{_bits}.tif", _bits)(
        lambda bits: plain(RGB, bits, t700=(BYTE, b"x" * 3_000_000), t65000=(TEXT, b"a\0b"), t37724=(7, b"y" * 999))
    )
    odd(f"text_not_latin_{_bits}.tif", _bits)(lambda bits: plain(RGB, bits, t270=(TEXT, b"\xff\xfe\x80\0")))
    odd(f"tiff_named_{_bits}.jpg", RGB, _bits)(plain)
    odd(f"date_wrong_{_bits}.tif", _bits)(lambda bits: plain(RGB, bits, t306=(TEXT, b"yesterday\0")))


def lzw(data):
    """TIFF's LZW with codes of 9 bits: a clear code before each 200 literals."""
    codes = []
    for i, byte in enumerate(data):
        if i % 200 == 0:
            codes.append(256)
        codes.append(byte)
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


for _bits in (8, 16):
    for _name, _code, _coder in (("lzw", 5, lzw), ("deflate", 8, zlib.compress), ("deflate_old", 32946, zlib.compress)):
        odd(f"{_name}_{_bits}.tif", _bits, _code, _coder)(
            lambda bits, code, coder: plain(RGB, bits, rows=4, compress=coder, code=code)
        )

        @odd(f"{_name}_predictor_{_bits}.tif", _bits, _code, _coder, "<")
        @odd(f"{_name}_predictor_{_bits}_motorola.tif", _bits, _code, _coder, ">")
        def _(bits, code, coder, order):
            samples = ramp(13, 21, 3, 2**bits - 1)
            differences = np.diff(samples, axis=1, prepend=0) % 2**bits
            parts = page(differences, bits, RGB, order, rows=4, compress=coder, code=code, t317=(SHORT, [2]))
            return tiff(parts, order=order), right(samples, 2**bits - 1)

    odd(f"packbits_{_bits}.tif", _bits)(lambda bits: plain(RGB, bits, rows=4, compress=packbits, code=32773))
odd("lzw_grey_16.tif")(lambda: plain(BLACK_IS_ZERO, 16, rows=4, compress=lzw, code=5))
odd("lzw_grey_1.tif")(lambda: plain(BLACK_IS_ZERO, 1, rows=4, compress=lzw, code=5))


RANGE = "range|between|beyond|outside|values are"


def floats(samples, kind, order="<", photometric=RGB, **tags):
    """A page of floats: float16, 32 or 64."""
    array = samples.astype(kind)
    data = [array.astype(array.dtype.newbyteorder(order)).tobytes()]
    more = {"t339": (SHORT, [3] * samples.shape[2]), **tags}
    return page(samples, array.itemsize * 8, photometric, order, data, **more)


for _type in ("float16", "float32", "float64"):
    for _order, _end in (("<", ""), (">", "_motorola")):

        @odd(f"{_type}{_end}.tif", _type, _order)
        def _(kind, order):
            samples = ramp(13, 21) / 255
            return tiff(floats(samples, kind, order), order=order), right(samples, 1)

    odd(f"{_type}_grey.tif", _type)(
        lambda kind: (
            tiff(floats(ramp(13, 21, 1) / 255, kind, photometric=BLACK_IS_ZERO)), right(ramp(13, 21, 1), 255),
        )
    )  # fmt: skip


@odd("float_white_is_zero.tif")
def _():
    samples = ramp(13, 21, 1) / 255
    return tiff(floats(samples, "float32", photometric=WHITE_IS_ZERO)), right(1 - samples, 1)


@odd("float_of_255.tif", 255)
@odd("float_of_65535.tif", 65535)
@odd("float_of_2.tif", 2)
@odd("float_negative.tif", -1)
@odd("float_tiny_overshoot.tif", 1.3)
def _(top):
    """No range is stated; 0..1 is a guess that the values contradict."""
    samples = ramp(13, 21) / 255 * top
    return tiff(floats(samples, "float32")), Refused(RANGE)


for _low, _high in ((0, 255), (0, 65535), (-1, 1), (10, 20)):

    @odd(f"float_range_{_low}_{_high}.tif", _low, _high)
    def _(low, high):
        """SMinSampleValue and SMaxSampleValue state the range."""
        samples = ramp(13, 21) / 255
        tags = {"t340": (FLOAT, [low] * 3), "t341": (FLOAT, [high] * 3)}
        return tiff(floats(samples * (high - low) + low, "float32", **tags)), right(samples, 1)


@odd("float_nan.tif", np.nan)
@odd("float_infinite.tif", np.inf)
def _(value):
    samples = ramp(13, 21) / 255
    samples[3, 4] = value
    return tiff(floats(samples, "float32")), Refused("NaN|inf|not finite|no numbers?")


@odd("float_predictor.tif")
def _():
    """Predictor 3: bytes of equal weight of a row together, then differences (Adobe's technical note 3)."""
    samples = ramp(13, 21).astype(np.float32) / 255
    planes = samples.astype(">f4").view(np.uint8).reshape(13, 63, 4).swapaxes(1, 2).reshape(13, -1, 3)
    data = [zlib.compress(np.diff(planes, axis=1, prepend=np.uint8(0)).tobytes())]
    parts = page(samples, 32, data=data, code=8, t339=(SHORT, [3] * 3), t317=(SHORT, [3]))
    return tiff(parts), right(samples, 1)


@odd("signed_8.tif", 8)
@odd("signed_16.tif", 16)
@odd("signed_32.tif", 32)
def _(bits):
    """Negative numbers: below black, or not said; a viewer that takes them for unsigned shows a wrapped picture."""
    samples = ramp(13, 21, 3, 2**bits - 1) - 2 ** (bits - 1)
    data = [samples.astype(f"<i{bits // 8}").tobytes()]
    shown = Right((samples.clip(0) * (255 / (2 ** (bits - 1) - 1))), tolerance=1)
    return tiff(page(samples, bits, data=data, t339=(SHORT, [2] * 3))), Refused("signed|int|negative"), shown


@odd("complex.tif")
def _():
    data = [ramp(13, 21, 1).astype("<c8").tobytes()]
    return tiff(page(ramp(13, 21, 1), 64, BLACK_IS_ZERO, data=data, t339=(SHORT, [6]))), Refused(
        "complex|cannot be read"
    )


def colormap(bits, scale):
    samples = ramp(13, 21, 1, 2**bits - 1)
    colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3))
    values = (colours.T * scale).reshape(-1).tolist()
    return tiff(page(samples, bits, PALETTE, t320=(SHORT, values))), Right(colours[samples[..., 0]], tolerance=1)


odd("palette_1.tif", 1, 257)(colormap)
odd("palette_4.tif", 4, 257)(colormap)
odd("palette_8.tif", 8, 257)(colormap)
odd("palette_8_shifted.tif", 8, 256)(colormap)
odd("palette_8_of_8_bits.tif", 8, 1)(lambda bits, scale: (*colormap(bits, scale), Refused("palette|colour")))


@odd("palette_16.tif")
def _():
    samples = ramp(13, 21, 1, 65535)
    colours = np.random.default_rng(0).integers(0, 65536, (65536, 3))
    data = tiff(page(samples, 16, PALETTE, t320=(SHORT, colours.T.reshape(-1).tolist())))
    return data, right(colours[samples[..., 0]], 65535, tolerance=1), Refused("PALETTE|palette|16")


def with_alpha(kind, channels, extra, order="<", planar=False):
    """kind: uint8, uint16 or float32; extra: the values of ExtraSamples, or None: the tag is missing."""
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[kind]
    straight = ramp(13, 21, channels, 60000) / 60000
    straight[..., -1] = 0.2 + 0.8 * straight[..., -1]
    values = straight.copy()
    if extra == [1]:
        values[..., :-1] *= values[..., -1:]
    stored = (np.rint(values * top) if top > 1 else values).astype(kind)
    if planar:
        data = [stored[..., n].astype(stored.dtype.newbyteorder(order)).tobytes() for n in range(channels)]
    else:
        data = [stored.astype(stored.dtype.newbyteorder(order)).tobytes()]
    tags = {"t338": (SHORT, extra) if extra else None, "t339": (SHORT, [3] * channels) if top == 1 else None}
    tags["t284"] = (SHORT, [2]) if planar else None
    colour = straight[..., :-1] * 255
    expected = colour if channels == 4 else grey(colour)
    file = tiff(
        page(values, 8 * stored.itemsize, RGB if channels == 4 else BLACK_IS_ZERO, order, data, **tags), order=order
    )
    return file, Right(expected, straight[..., -1], tolerance=3 if top == 255 else 0.51)


for _type in ("uint8", "uint16", "float32"):
    for _channels, _name in ((4, "rgba"), (2, "la")):
        odd(f"{_name}_{_type}_unassociated.tif", _type, _channels, [2])(with_alpha)
        odd(f"{_name}_{_type}_associated.tif", _type, _channels, [1])(with_alpha)
    odd(f"rgba_{_type}_associated_motorola.tif", _type, 4, [1], ">")(with_alpha)
    odd(f"rgba_{_type}_unassociated_planar.tif", _type, 4, [2], "<", True)(with_alpha)
    odd(f"rgba_{_type}_associated_planar.tif", _type, 4, [1], "<", True)(with_alpha)

    @odd(f"rgbx_{_type}_unspecified.tif", _type, [0])
    @odd(f"rgbx_{_type}_without_extrasamples.tif", _type, None)
    def _(kind, extra):
        """A fourth channel of unsaid meaning: viewers take it for opacity, or leave it out."""
        data, expected = with_alpha(kind, 4, extra)
        return data, expected, Right(expected.rgb, tolerance=expected.tolerance)


@odd("rgba_and_more_8.tif", 8)
@odd("rgba_and_more_16.tif", 16)
def _(bits):
    """Photoshop's transparency and a saved selection."""
    samples = ramp(13, 21, 5, 2**bits - 1)
    top = 2**bits - 1
    data = tiff(page(samples, bits, t338=(SHORT, [2, 0])))
    return data, Right(samples[..., :3] * 255 / top, samples[..., 3] / top), Refused("channels|5|samples")


@odd("rgb_and_selection_8.tif", 8)
@odd("rgb_and_selection_16.tif", 16)
def _(bits):
    """Two channels of unsaid meaning beyond the colours."""
    samples = ramp(13, 21, 5, 2**bits - 1)
    return (
        tiff(page(samples, bits, t338=(SHORT, [0, 0]))),
        right(samples[..., :3], 2**bits - 1),
        Refused("channels|5|samples"),
    )


@odd("bands_5_8.tif", 8)
@odd("bands_5_16.tif", 16)
def _(bits):
    """A satellite's five bands as grey with four more."""
    samples = ramp(13, 21, 5, 2**bits - 1)
    return tiff(page(samples, bits, BLACK_IS_ZERO, t338=(SHORT, [0] * 4))), Refused("channels|bands|5|samples")


@odd("planar_8.tif", 8, None)
@odd("planar_16.tif", 16, None)
@odd("planar_strips_8.tif", 8, 4)
@odd("planar_strips_16.tif", 16, 4)
def _(bits, rows):
    samples = ramp(13, 21, 3, 2**bits - 1)
    step = rows or 13
    data = [pack(samples[i : i + step, :, n : n + 1], bits, "<") for n in range(3) for i in range(0, 13, step)]
    return tiff(page(samples, bits, data=data, rows=rows, t284=(SHORT, [2]))), right(samples, 2**bits - 1)


def tiled(bits, planar, compress=None, code=1, size=(40, 50), kind=RGB):
    channels = 3 if kind == RGB else 1
    samples = ramp(*size, channels, 2**bits - 1)
    height, width = (-(-n // 16) * 16 for n in size)
    padded = np.zeros((height, width, channels), int)
    padded[: size[0], : size[1]] = samples
    planes = [padded[..., n : n + 1] for n in range(channels)] if planar else [padded]
    data = [
        pack(plane[y : y + 16, x : x + 16], bits, "<")
        for plane in planes for y in range(0, height, 16) for x in range(0, width, 16)
    ]  # fmt: skip
    tags = {"t322": (SHORT, [16]), "t323": (SHORT, [16]), "t284": (SHORT, [2 if planar else 1])}
    return tiff(page(samples, bits, kind, data=data, compress=compress, code=code, **tags)), right(samples, 2**bits - 1)


for _bits in (8, 16):
    odd(f"tiles_{_bits}.tif", _bits, False)(tiled)
    odd(f"tiles_planar_{_bits}.tif", _bits, True)(tiled)
    odd(f"tiles_deflate_{_bits}.tif", _bits, False, zlib.compress, 8)(tiled)
    odd(f"tiles_lzw_{_bits}.tif", _bits, False, lzw, 5)(tiled)
    odd(f"tile_larger_than_picture_{_bits}.tif", _bits, False, None, 1, (5, 7))(tiled)
odd("tiles_grey_1.tif", 1, False, None, 1, (40, 48), BLACK_IS_ZERO)(tiled)
odd("tiles_12.tif", 12, False)(tiled)

for _turn in range(2, 9):

    @odd(f"orientation_{_turn}_8.tif", _turn, 8)
    @odd(f"orientation_{_turn}_16.tif", _turn, 16)
    def _(turn, bits):
        samples = ramp(13, 21, 3, 2**bits - 1)
        return tiff(page(oriented(samples, turn), bits, t274=(SHORT, [turn]))), right(samples, 2**bits - 1)


@odd("orientation_6_palette.tif")
def _():
    samples = ramp(13, 21, 1, 15)
    colours = np.random.default_rng(4).integers(0, 256, (16, 3))
    values = (colours.T * 257).reshape(-1).tolist()
    data = tiff(page(oriented(samples, 6), 4, PALETTE, t274=(SHORT, [6]), t320=(SHORT, values)))
    return data, Right(colours[samples[..., 0]], tolerance=1)


def inks(bits, channels=4, extra=None):
    """CMYK, not inverted in TIFF; without a profile, RGB is (1 - ink) (1 - black)."""
    top = 2**bits - 1
    samples = ramp(13, 21, channels, top)
    samples[..., 3] //= 2
    shown = (1 - samples[..., :3] / top) * (1 - samples[..., 3:4] / top) * 255
    alpha = samples[..., 4] / top if extra else None
    tags = {"t332": (SHORT, [1]), "t338": (SHORT, extra) if extra else None}
    return tiff(page(samples, bits, CMYK, **tags)), Right(shown, alpha, tolerance=2)


odd("cmyk_8.tif", 8)(inks)
odd("cmyk_16.tif", 16)(lambda bits: (*inks(bits), Refused("CMYK|SEPARATED")))
odd("cmyk_alpha_8.tif", 8, 5, [2])(lambda *a: (*inks(*a), Refused("CMYK|SEPARATED|channels|5")))
odd("cmyk_alpha_16.tif", 16, 5, [2])(lambda *a: (*inks(*a), Refused("CMYK|SEPARATED|channels|5")))


def lab(bits, photometric, channels=3):
    """CIELAB (8): a and b signed; ICCLAB (9): a and b plus half of the range. L is 0..100 over the range."""
    rng = np.random.default_rng(0)
    values = np.stack([ramp(13, 21, 1)[..., 0] / 2.55, *rng.uniform(-1, 1, (2, 13, 21))], axis=-1)
    values[..., 1:] *= np.minimum(values[..., :1], 100 - values[..., :1]) / 2.5  # colours inside sRGB
    top = 2**bits - 1
    unit = 1 if bits == 8 else 256
    lightness = 100 / top if photometric == CIELAB or bits == 8 else 100 / 0xFF00
    stored = np.rint(
        np.stack([values[..., 0] / lightness, values[..., 1] * unit, values[..., 2] * unit], axis=-1)
    ).astype(int)
    back = np.stack([stored[..., 0] * lightness, stored[..., 1] / unit, stored[..., 2] / unit], axis=-1)
    if photometric == CIELAB:
        stored[..., 1:] %= top + 1
    else:
        stored[..., 1:] += (top + 1) // 2
    if channels == 1:
        return tiff(page(stored[..., :1], bits, photometric)), Right(lab_in_srgb(back * [1, 0, 0]), tolerance=2)
    return tiff(page(stored, bits, photometric)), Right(lab_in_srgb(back), tolerance=2)


odd("cielab_8.tif", 8, CIELAB)(lab)
odd("icclab_8.tif", 8, ICCLAB)(lambda *a: (*lab(*a), Refused("LAB")))
odd("cielab_16.tif", 16, CIELAB)(lambda *a: (*lab(*a), Refused("LAB")))
odd("icclab_16.tif", 16, ICCLAB)(lambda *a: (*lab(*a), Refused("LAB")))
odd("cielab_8_lightness.tif", 8, CIELAB, 1)(lambda *a: (*lab(*a), Refused("LAB|channels")))


def ycbcr(subsampling, code=1, compress=None):
    """YCbCr of CCIR 601 with its full range stated, in data units of h × v luma and two chroma samples."""
    colours = np.kron(ramp(3, 4), np.ones((4, 4, 1), int))
    luma = colours @ [0.299, 0.587, 0.114]
    planes = np.stack([luma, (colours[..., 2] - luma) / 1.772 + 128, (colours[..., 0] - luma) / 1.402 + 128], axis=-1)
    planes = np.rint(planes).clip(0, 255).astype(np.uint8)
    v, h = subsampling
    units = []
    for y in range(0, 12, v):
        for x in range(0, 16, h):
            units.append(planes[y : y + v, x : x + h, 0].tobytes() + planes[y, x, 1:].tobytes())
    black_white = [(0, 1), (255, 1), (128, 1), (255, 1), (128, 1), (255, 1)]
    tags = {"t530": (SHORT, [h, v]), "t532": (RATIONAL, black_white), "t531": (SHORT, [1])}
    parts = page(colours, 8, YCBCR, data=[b"".join(units)], compress=compress, code=code, **tags)
    return tiff(parts), Right(colours, tolerance=2.5)


odd("ycbcr.tif", (1, 1))(lambda *a: (*ycbcr(*a), Refused("YCBCR|YCbCr")))
odd("ycbcr_2_2.tif", (2, 2))(lambda *a: (*ycbcr(*a), Refused("YCBCR|YCbCr")))
odd("ycbcr_2_1_deflate.tif", (1, 2), 8, zlib.compress)(lambda *a: (*ycbcr(*a), Refused("YCBCR|YCbCr")))


def encoded(compression, mode="RGB", tolerance=0.51, **how):
    """By libtiff, through Pillow."""
    pixels = ramp(48, 64)
    image = Image.fromarray(pixels.astype(np.uint8))
    if mode == "1":
        pixels = (ramp(48, 64, 1) > 100) * 255
        image = Image.fromarray(pixels[..., 0].astype(np.uint8)).convert("1")
        pixels = grey(pixels)
    out = io.BytesIO()
    image.convert(mode).save(out, "TIFF", compression=compression, **how)
    return out.getvalue(), Right(pixels, tolerance=tolerance)


odd("jpeg_in_tiff.tif", "jpeg", "RGB", 10)(encoded)
odd("jpeg_ycbcr_in_tiff.tif", "jpeg", "YCbCr", 10)(encoded)
odd("fax_4.tif", "group4", "1")(encoded)
odd("fax_3.tif", "group3", "1")(encoded)
odd("fax_rle.tif", "tiff_ccitt", "1")(encoded)
for _coder in ("lzma", "zstd"):
    odd(f"{_coder}_in_tiff.tif", _coder)(lambda coder: (*encoded(coder), Refused("compress|cannot|no picture")))


def full(height=24, width=32, bits=8, **how):
    return page(ramp(height, width, 3, 2**bits - 1), bits, **how)


def small(bits=8, **how):
    return page(2**bits - 1 - ramp(6, 8, 3, 2**bits - 1), bits, **how)


def pages(bits, *parts, remark="", refused=False, loop=False):
    expected = right(ramp(24, 32, 3, 2**bits - 1), 2**bits - 1, remark=remark)
    return (tiff(*parts, loop=loop), expected, *([Refused()] if refused else []))


_reduced = {"t254": (LONG, [1])}
for _bits in (8, 16):
    _end = f"_{_bits}.tif"
    odd(f"pages_equal{_end}", _bits)(
        lambda b: pages(b, full(bits=b), page(2**b - 1 - ramp(24, 32, 3, 2**b - 1), b), remark="page")
    )
    odd(f"thumbnail_first{_end}", _bits)(lambda b: pages(b, small(b), full(bits=b), remark="page|largest"))
    odd(f"thumbnail_flagged{_end}", _bits)(lambda b: pages(b, small(b, **_reduced), full(bits=b)))
    odd(f"thumbnail_last{_end}", _bits)(lambda b: pages(b, full(bits=b), small(b, **_reduced)))
    odd(f"full_in_subifd{_end}", _bits)(lambda b: pages(b, small(b, below=[full(bits=b)], **_reduced)))
    odd(f"full_in_second_subifd{_end}", _bits)(
        lambda b: pages(b, small(b, below=[small(b, **_reduced), full(bits=b)], **_reduced))
    )
    odd(f"pyramid_in_subifds{_end}", _bits)(lambda b: pages(b, full(bits=b, below=[small(b, **_reduced)])))
    odd(f"mask_page{_end}", _bits)(
        lambda b: pages(b, page(ramp(99, 99, 1, 1), 1, MASK, t254=(LONG, [4])), full(bits=b))
    )
    odd(f"mask_page_after{_end}", _bits)(
        lambda b: pages(b, full(bits=b), page(ramp(99, 99, 1, 1), 1, MASK, t254=(LONG, [4])))
    )
    odd(f"pages_loop{_end}", _bits)(lambda b: pages(b, full(bits=b), small(b), refused=True, loop=True))
    odd(f"page_itself_loop{_end}", _bits)(lambda b: pages(b, full(bits=b), refused=True, loop=True))
    odd(f"thumbnail_wide{_end}", _bits)(
        lambda b: pages(b, page(2**b - 1 - ramp(1, 64, 3, 2**b - 1), b), full(bits=b), remark="page|largest")
    )


@odd("thumbnail_8_full_16.tif")
def _():
    return pages(16, small(8), full(bits=16), remark="page|largest")


@odd("thumbnail_16_full_8.tif")
def _():
    return pages(8, small(16), full(bits=8), remark="page|largest")


def raw(make, *more, preview=None, **tags):
    """A camera's raw file: a small picture, and the sensor's mosaic (photometric 32803) as the full one."""
    mosaic = page(
        ramp(96, 128, 1, 4095), 16, 32803, t254=(LONG, [0]), t33421=(SHORT, [2, 2]), t33422=(BYTE, b"\0\1\1\2")
    )
    text = (TEXT, make.encode() + b"\0")
    first = preview or small(**_reduced, below=[mosaic], t271=text, **tags)
    return tiff(first, *more), Refused("raw|DNG|NEF|ARW|PEF")


_dng = {"t50706": (BYTE, b"\1\4\0\0"), "t50708": (TEXT, b"Odd\0")}
odd("camera.dng")(lambda: raw("Odd", **_dng))
odd("dng_named.tif")(lambda: raw("Odd", **_dng))
odd("camera.nef")(lambda: raw("NIKON CORPORATION"))
odd("nef_named.jpg")(lambda: raw("NIKON CORPORATION"))
odd("camera.arw")(lambda: raw("SONY"))
odd("camera.pef")(lambda: raw("PENTAX"))
odd("camera.srw")(lambda: raw("SAMSUNG"))


@odd("mosaic_only.dng")
def _():
    mosaic = page(ramp(96, 128, 1, 4095), 16, 32803, t33421=(SHORT, [2, 2]), t33422=(BYTE, b"\0\1\1\2"), **_dng)
    return tiff(mosaic), Refused("raw|DNG")


@odd("linear.dng")
def _():
    """Linear raw: demosaiced, but in the camera's own colours (photometric 34892)."""
    return tiff(small(**_reduced, below=[page(ramp(24, 32, 3, 65535), 16, 34892)], **_dng)), Refused("raw|DNG")


def profiled(profile, bits, expected, kind=RGB, remark=""):
    samples = ramp(13, 21, 3 if kind == RGB else 1, 2**bits - 1)
    values = samples / (2**bits - 1)
    values = values if kind == RGB else np.repeat(values, 3, axis=2)
    return tiff(page(samples, bits, kind, t34675=(7, profile))), Right(expected(values), tolerance=0.9, remark=remark)


for _bits in (8, 16):
    _end = f"_{_bits}.tif"
    odd(f"profile_adobe{_end}", icc(), _bits, lambda v: in_srgb(v, ADOBE, 563 / 256))(profiled)
    odd(f"profile_grey_in_rgb{_end}", icc("GRAY"), _bits, lambda v: v * 255, RGB, "profile")(profiled)
    odd(f"profile_grey_gamma_1{_end}", icc("GRAY", gamma=1), _bits, encode_srgb, BLACK_IS_ZERO)(profiled)
    odd(f"profile_junk{_end}", bytes(range(200)), _bits, lambda v: v * 255, RGB, "profile")(profiled)
    odd(f"profile_large{_end}", icc(padding=3 << 20), _bits, lambda v: in_srgb(v, ADOBE, 563 / 256))(profiled)


@odd("float_profile_gamma_1.tif")
def _():
    """Scene-linear floats that say so."""
    samples = ramp(13, 21) / 255
    return tiff(floats(samples, "float32", t34675=(7, icc(gamma=1)))), Right(in_srgb(samples, ADOBE, 1), tolerance=0.9)


@odd("half_8.tif", 8, None)
@odd("half_16.tif", 16, None)
@odd("half_lzw_16.tif", 16, lzw)
@odd("half_deflate_8.tif", 8, zlib.compress)
def _(bits, compress):
    """The directory is before the pixels, whose second half is missing."""
    code = {None: 1, lzw: 5}.get(compress, 8)
    body = pack(np.random.default_rng(0).integers(0, 2**bits, (24, 32, 3)), bits, "<")
    body = compress(body) if compress else body
    tags = {"t273": (LONG, [600]), "t279": (LONG, [len(body)])}
    data = tiff(page(ramp(24, 32, 3), bits, data=[], code=code, **tags))
    return data.ljust(600, b"\0") + body[: len(body) // 2], Refused()


@odd("directory_missing.tif")
def _():
    """Half-downloaded where the directory is at the end."""
    return b"II*\0" + struct.pack("<I", 99999) + bytes(999), Refused("damaged|truncated|incomplete|no picture")


@odd("no_directory.tif")
def _():
    return b"II*\0" + bytes(4), Refused("damaged|truncated|incomplete|no picture")


@odd("strip_beyond.tif", 8)
@odd("strip_beyond_16.tif", 16)
def _(bits):
    return tiff(page(ramp(13, 21, 3), bits, t273=(LONG, [10**9]))), Refused()


@odd("strip_missing.tif", 8)
@odd("strip_missing_16.tif", 16)
def _(bits):
    """One of three strips has no length: viewers find it none the less, fill it with zeros, or fail."""
    samples = ramp(12, 21, 3, 2**bits - 1)
    filled = samples.copy()
    filled[4:8] = 0
    data = [pack(samples[i : i + 4], bits, "<") for i in (0, 4, 8)]
    file = tiff(page(samples, bits, data=data, rows=4))
    plain_counts = struct.pack("<III", *[len(data[0])] * 3)
    data = file.replace(plain_counts, struct.pack("<III", len(data[0]), 0, len(data[0])))
    return data, Refused(), right(filled, 2**bits - 1), right(samples, 2**bits - 1)


@odd("size_zero.tif", 8)
@odd("size_zero_16.tif", 16)
def _(bits):
    return tiff(page(ramp(13, 21, 3), bits, t257=(LONG, [0]))), Refused("damaged|size|empty|0|truncated|dimensions")


@odd("fill_order_2.tif")
def _():
    """The lowest bit of a byte is the left pixel."""
    samples = ramp(13, 24, 1, 1)
    turned = samples.reshape(13, 3, 8)[..., ::-1].reshape(13, 24, 1)
    return tiff(page(turned, 1, BLACK_IS_ZERO, t266=(SHORT, [2]))), right(samples, 1)


@odd("bits_unequal.tif")
def _():
    """5, 6 and 5 bits."""
    data = tiff(page(ramp(13, 21), 8, t258=(SHORT, [5, 6, 5])))
    return data, Refused("bits|damaged|cannot|no picture")


@odd("compression_unknown.tif", 8)
@odd("compression_unknown_16.tif", 16)
def _(bits):
    return tiff(page(ramp(13, 21), bits, code=65000)), Refused("compress|65000|cannot|damaged|no picture")


@odd("logluv.tif")
def _():
    """SGI's LogLuv, scene-linear."""
    return tiff(page(ramp(13, 21), 16, 32845, code=34676)), Refused("LOGLUV|LogLuv|cannot|no picture|damaged")


@odd("volume.tif")
def _():
    """ImageJ's stack of nine slices: a movie or a volume, of which one slice is shown."""
    slices = [page(ramp(13, 21, 1, 255) * (n == 0), 8, BLACK_IS_ZERO) for n in range(9)]
    slices[0].tags[270] = (TEXT, b"ImageJ=1.53\nimages=9\nslices=9\n\0")
    return tiff(*slices), right(ramp(13, 21, 1), 255, remark="page")


@odd("depth_volume.tif")
def _():
    """ImageDepth (32997) of 4: one page with four slices."""
    data = [pack(ramp(13, 21, 1), 16, "<") * 4]
    return tiff(page(ramp(13, 21, 1), 16, BLACK_IS_ZERO, data=data, t32997=(LONG, [4]))), Refused(
        "dimension|depth|slices|volume"
    )
