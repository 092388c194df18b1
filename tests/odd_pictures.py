"""Odd picture files that people meet, each with the picture in it, or the words of its refusal.

The files are written here, most of them byte by byte; the expected colours follow from how a file is made and from the
standards named beside it, never from cvstyle.
"""

from __future__ import annotations

import contextlib
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Right:
    """The picture in a file. rgb: (H, W, 3) sRGB, 0..255; alpha: (H, W), 0..1, or None: opaque.

    tolerance: levels by which the colours may differ where the picture is visible. remark: a pattern found in one of
    the picture's remarks, "": any or none.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    tolerance: float = 0.51
    remark: str = ""


@dataclass(frozen=True)
class Refused:
    """An ImageError of one line that begins with the path. words: a pattern found in the rest of the line."""

    words: str = "damaged|truncated|incomplete"


Expected = Right | Refused
ODD: dict[str, Callable[[], tuple]] = {}
"""Name of a file → a function that returns the bytes, and each outcome (Right or Refused) that is accepted."""


def odd(name: str, *arguments) -> Callable:
    """Decorator: the function, called with these arguments, makes the file of this name."""

    def register(function):
        assert name not in ODD, name
        ODD[name] = lambda: function(*arguments)
        return function

    return register


SLOW = 10  # seconds to read any of the files


class TooLong(BaseException):
    """Not an Exception, which a reader may catch."""


@contextlib.contextmanager
def little_time() -> Iterator[None]:
    """TooLong after SLOW seconds (on POSIX, in the main thread)."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SLOW)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def load() -> dict[str, Callable[[], tuple]]:
    """All files, of all families."""
    import odd_jpeg  # noqa: F401
    import odd_others  # noqa: F401
    import odd_png  # noqa: F401
    import odd_refused  # noqa: F401
    import odd_tiff  # noqa: F401

    return ODD


def ramp(height: int = 24, width: int = 32, channels: int = 3, top: int = 255) -> np.ndarray:
    """(height, width, channels) integers 0..top that differ at all corners and in all channels, and are smooth."""
    y, x = np.mgrid[0:height, 0:width] / np.array([max(height - 1, 1), max(width - 1, 1)])[:, None, None]
    planes = [x, y, 1 - (x + y) / 2, 0.25 + x * y / 2, (x + 1 - y) / 2]
    return np.rint(np.stack(planes[:channels], axis=2) * top).astype(np.int64)


def grey(values: np.ndarray, top: float = 255) -> np.ndarray:
    """(H, W) or (H, W, 1) of 0..top as RGB 0..255."""
    return np.repeat(np.reshape(values, (*np.shape(values)[:2], 1)), 3, axis=2) * (255 / top)


def pack(samples: np.ndarray, bits: int, order: str = ">") -> bytes:
    """Rows of unsigned samples (H, W, C) of `bits` bits, the first in the highest bits; a row is of whole bytes."""
    rows = np.reshape(samples, (len(samples), -1))
    if bits in (8, 16, 32):
        return rows.astype(f"{order}u{bits // 8}").tobytes()
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits((rows[..., None] >> shifts & 1).reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def packbits(data: bytes) -> bytes:
    """Apple's PackBits with literals only."""
    return b"".join(bytes([len(part) - 1]) + part for part in (data[i : i + 128] for i in range(0, len(data), 128)))


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels that are stored of an upright picture with an EXIF orientation (1 to 8): the table of EXIF 2.3."""
    stored = {
        1: lambda p: p, 2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, 1), 7: lambda p: np.rot90(p, 2).swapaxes(0, 1), 8: lambda p: np.rot90(p, -1),
    }  # fmt: skip
    return np.ascontiguousarray(stored[orientation](pixels))


# Colour: chromaticities (x, y) of white, red, green and blue.
D65 = (0.3127, 0.329)
SRGB = (D65, (0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
ADOBE = (D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3 = (D65, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
PROPHOTO = ((0.3457, 0.3585), (0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50_XYZ = np.array([0.9642, 1.0, 0.8249])  # ICC.1:2010, 7.2.16


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear 0..1 → sRGB 0..255 (IEC 61966-2-1), negative values by odd symmetry."""
    size = np.abs(linear)
    return np.sign(linear) * np.where(size <= 0.0031308, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055) * 255


def to_xyz(chromaticities: tuple) -> np.ndarray:
    """The matrix from linear RGB to XYZ, white of Y = 1, adapted to D50 by Bradford's matrix."""
    xyz = np.array([(x / y, 1, (1 - x - y) / y) for x, y in chromaticities])
    matrix = xyz[1:].T * np.linalg.solve(xyz[1:].T, xyz[0])
    return adaptation(xyz[0], D50_XYZ) @ matrix


def adaptation(source: np.ndarray, destination: np.ndarray) -> np.ndarray:
    """Bradford's matrix between XYZ of two white points."""
    gains = (_BRADFORD @ destination) / (_BRADFORD @ source)
    return np.linalg.inv(_BRADFORD) @ (gains[:, None] * _BRADFORD)


def from_xyz(xyz: np.ndarray) -> np.ndarray:
    """XYZ (..., 3) with D50 white → sRGB 0..255, not clipped."""
    return encode_srgb(xyz @ np.linalg.inv(to_xyz(SRGB)).T)


def in_srgb(values: np.ndarray, chromaticities: tuple, gamma: float) -> np.ndarray:
    """0..1 in a space of these primaries and a power of `gamma` → sRGB 0..255, not clipped."""
    return from_xyz(np.asarray(values, float) ** gamma @ to_xyz(chromaticities).T)


def lab_in_srgb(lab: np.ndarray) -> np.ndarray:
    """CIE L*a*b* with D50 white → sRGB 0..255, not clipped."""
    lightness = (lab[..., 0] + 16) / 116
    f = np.stack([lightness + lab[..., 1] / 500, lightness, lightness - lab[..., 2] / 200], axis=-1)
    return from_xyz(np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50_XYZ)


def icc(space: str = "RGB ", chromaticities: tuple = ADOBE, gamma: float = 563 / 256, padding: int = 0) -> bytes:
    """An ICC profile of version 2 (ICC.1:2001-04): a display's with matrix and curves, or grey with a curve.

    padding: bytes of an unknown private tag.
    """
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"
    point = lambda v: b"XYZ " + struct.pack(">I3i", 0, *np.rint(np.asarray(v) * 65536).astype(int))  # noqa: E731
    text = b"odd\0"
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, len(text)) + text + bytes(4 + 4 + 2 + 1 + 67 + 1),
        b"cprt": b"text" + bytes(4) + text, b"wtpt": point(D50_XYZ),
    }  # fmt: skip
    if space == "GRAY":
        tags[b"kTRC"] = curve
    else:
        for name, column in zip(b"rgb", to_xyz(chromaticities).T):
            tags[bytes([name]) + b"XYZ"] = point(column)
            tags[bytes([name]) + b"TRC"] = curve
    if padding:
        tags[b"odd "] = b"data" + bytes(4) + np.random.default_rng(0).bytes(padding)
    table = []
    body = b""
    for name, data in tags.items():
        table.append(name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data)))
        body += data + bytes(-len(data) % 4)
    size = 132 + 12 * len(tags) + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, b"mntr", space.encode(), b"XYZ ")
    header += struct.pack(">6H4s4sIIIII", 2020, 1, 1, 0, 0, 0, b"acsp", bytes(4), 0, 0, 0, 0, 0)
    header += struct.pack(">I3i", 0, *np.rint(D50_XYZ * 65536).astype(int))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + b"".join(table) + body


def exif(tags: dict[int, tuple[int, bytes]] | None = None, orientation: int | None = None) -> bytes:
    """EXIF without its "Exif" header: a little-endian TIFF of one directory of short values: tag → (type, 4 bytes)."""
    tags = dict(tags or {})
    if orientation is not None:
        tags[274] = 3, struct.pack("<HH", orientation, 0)
    entries = b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, (kind, value) in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
