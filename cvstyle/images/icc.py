"""ICC profiles of a matrix or of curves, read and built here (ICC.1:2022; v2 and v4); others are for Little CMS.

Light is linear, with white at 1. Colours of the profile connection space are CIE XYZ under D50.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

D50 = np.array([63190, 65536, 54061]) / 65536  # as ICC rounds it
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_KINDS = (b"scnr", b"mntr", b"prtr", b"spac")  # device classes whose profiles describe pixels
_LUTS = (b"A2B0", b"A2B1", b"D2B0", b"D2B1")
_HEADER = 128
_DATE = (2026, 1, 1, 0, 0, 0)  # of the profiles built here


class ProfileError(ValueError):
    """A profile that cannot be used. The message continues "its colour profile"."""


@dataclass(frozen=True)
class Power:
    """y = (ax + b)^g + e from x = d on, cx + f below: ICC's parametric curve 4, of which the others are cases.

    Below 0 the curve is continued by symmetry about its point at 0, above 1 by its formula.
    """

    g: float
    a: float = 1
    b: float = 0
    c: float = 0
    d: float = 0
    e: float = 0
    f: float = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        zero = self._at_or_above(np.zeros(1))
        return zero + np.copysign(self._at_or_above(np.abs(x)) - zero, x)

    def inverse(self, y: np.ndarray) -> np.ndarray:
        """The x of each y."""
        zero = self._at_or_above(np.zeros(1))
        above = np.abs(y - zero) + zero
        x = (np.maximum(above - self.e, 0) ** (1 / self.g) - self.b) / self.a
        if self.d > 0:
            below = np.minimum((above - self.f) / self.c if self.c else 0 * above, self.d)
            x = np.where(above < self._upper(self.d), below, x)
        return np.copysign(np.maximum(x, 0), y - zero)

    def _at_or_above(self, x):
        upper = self._upper(x)
        return np.where(x >= self.d, upper, self.c * x + self.f) if self.d > 0 else upper

    def _upper(self, x):
        return np.maximum(self.a * x + self.b, 0) ** self.g + self.e


class Table:
    """Linear interpolation between values at equal distances from x = 0 to 1, and beyond with the slope at the end."""

    def __init__(self, values: np.ndarray):
        self.x = np.linspace(0, 1, len(values))
        self.y = values

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return _interpolated(x, self.x, self.y)

    def inverse(self, y: np.ndarray) -> np.ndarray:
        """The x of each y; of several, the lowest, or 1."""
        values, first = np.unique(self.y, return_index=True)
        x = self.x[first]
        x[-1] = 1
        return _interpolated(y, values, x)


def _interpolated(at, x, y):
    result = np.interp(at, x, y)
    for end, next_one in ((0, 1), (-1, -2)):
        slope = (y[end] - y[next_one]) / (x[end] - x[next_one])
        outside = at < x[0] if end == 0 else at > x[-1]
        result[outside] += slope * (at[outside] - x[end])
    return result


SRGB_CURVE = Power(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1
SRGB_WHITE = (0.3127, 0.3290)
SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))


def colorants(white, primaries) -> np.ndarray:
    """The matrix from linear RGB to XYZ under D50, by Bradford's adaptation; all as CIE x, y."""
    to_xyz = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (white, *primaries)]).T
    matrix = to_xyz[:, 1:] * np.linalg.solve(to_xyz[:, 1:], to_xyz[:, 0])
    scale = (_BRADFORD @ D50) / (_BRADFORD @ to_xyz[:, 0])
    return np.linalg.inv(_BRADFORD) @ (scale[:, None] * _BRADFORD) @ matrix


SRGB_MATRIX = colorants(SRGB_WHITE, SRGB_PRIMARIES)


def luminance(lightness):
    """The Y of L* (CIE 1976), as an array."""
    f = (lightness + 16) / 116
    return np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))


@dataclass(frozen=True, eq=False)
class Profile:
    """A profile. data: its bytes, without any that follow; space: the kind of its pixels, "RGB", "GRAY", "CMYK", ...

    curves: of each channel to linear light, or to L* / 100 where `lightness` is set; matrix: (3, 3), from linear RGB to
    XYZ. Without curves, only Little CMS can convert.
    """

    data: bytes
    space: str
    curves: tuple = ()
    matrix: np.ndarray | None = None
    lightness: bool = False

    @cached_property
    def to_linear_srgb(self) -> np.ndarray:
        """(3, 3), from linear RGB."""
        return np.linalg.solve(SRGB_MATRIX, self.matrix)

    @cached_property
    def black(self) -> float:
        """The Y of black, which black point compensation makes 0; at most that of L* = 50, as in Little CMS."""
        darkest = np.array([curve(np.zeros(1))[0] for curve in self.curves])
        y = self.matrix[1] @ darkest if self.matrix is not None else darkest[0]
        return float(np.clip(luminance(100 * y) if self.lightness else y, 0, luminance(50)))


@lru_cache(16)
def parse(data: bytes) -> Profile:
    """Read a profile. Raises ProfileError where it is damaged or describes no pixels."""
    if len(data) < _HEADER + 4 or data[36:40] != b"acsp":
        raise ProfileError("is no ICC profile")
    size = int.from_bytes(data[:4], "big")
    if not _HEADER + 4 <= size <= len(data):
        raise ProfileError("is truncated")
    data = data[:size]
    if data[12:16] not in _KINDS or data[20:24] not in (b"XYZ ", b"Lab "):
        raise ProfileError("describes no pixels")
    tags = _tags(data)
    space = data[16:20].decode("latin-1").strip()
    names = {"RGB": (b"rTRC", b"gTRC", b"bTRC"), "GRAY": (b"kTRC",)}.get(space, ())
    if any(name in tags for name in _LUTS) or not names:
        return Profile(data, space)
    try:
        curves = tuple(_curve(tags[name]) for name in names)
        if None in curves:
            return Profile(data, space)
        if space == "GRAY":
            return Profile(data, space, curves, lightness=data[20:24] == b"Lab ")
        matrix = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
    except (KeyError, struct.error):
        raise ProfileError("is damaged") from None
    if data[20:24] != b"XYZ " or abs(np.linalg.det(matrix)) < 1e-4:
        raise ProfileError("is damaged")
    return Profile(data, space, curves, matrix)


def _tags(data):
    """Signature → bytes."""
    count = int.from_bytes(data[_HEADER : _HEADER + 4], "big")
    if _HEADER + 4 + 12 * count > len(data):
        raise ProfileError("is damaged")
    tags = {}
    for signature, offset, size in struct.iter_unpack(">4sII", data[_HEADER + 4 : _HEADER + 4 + 12 * count]):
        if offset + size > len(data):
            raise ProfileError("is truncated")
        tags[signature] = data[offset : offset + size]
    return tags


def _xyz(tag):
    if tag[:4] != b"XYZ ":
        raise ProfileError("is damaged")
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag):
    """The curve of a tag of type `curv` or `para`; None for one that falls."""
    if tag[:4] == b"curv":
        count = struct.unpack_from(">I", tag, 8)[0]
        if count < 2:
            curve = Power(struct.unpack_from(">H", tag, 12)[0] / 256 if count else 1)
        elif 12 + 2 * count > len(tag):
            raise ProfileError("is truncated")
        else:
            curve = Table(np.frombuffer(tag, ">u2", count, 12) / 65535)
    elif tag[:4] == b"para":
        curve = _parametric(tag)
    else:
        raise ProfileError("is damaged")
    if isinstance(curve, Power) and not (curve.g > 0 and curve.a > 0):
        raise ProfileError("is damaged")
    values = curve.y if isinstance(curve, Table) else curve(np.linspace(0, 1, 257))
    if np.diff(values).min() < -1e-4 or values[-1] <= values[0]:
        return None
    return Table(np.maximum.accumulate(values)) if isinstance(curve, Table) else curve


def _parametric(tag):
    kind = struct.unpack_from(">H", tag, 8)[0]
    if kind > 4:
        raise ProfileError("is damaged")
    count = (1, 3, 4, 5, 7)[kind]
    values = [n / 65536 for n in struct.unpack_from(f">{count}i", tag, 12)]
    if kind in (1, 2):  # constant below -b/a
        g, a, b, *offset = values
        end = offset[0] if offset else 0
        return Power(g, a, b, 0, -b / a if a else 0, end, end)
    return Power(*values)


def build(white, primaries, gamma: float | None) -> bytes:
    """A v4 profile of primaries (CIE x, y of red, green and blue) and a gamma; None: the curve of sRGB."""
    matrix = colorants(white, primaries)
    x, y = white
    scale = (_BRADFORD @ D50) / (_BRADFORD @ [x / y, 1, (1 - x - y) / y])
    adaptation = np.linalg.inv(_BRADFORD) @ (scale[:, None] * _BRADFORD)
    numbers = [gamma] if gamma else [SRGB_CURVE.g, SRGB_CURVE.a, SRGB_CURVE.b, SRGB_CURVE.c, SRGB_CURVE.d]
    curve = struct.pack(">4sIHH", b"para", 0, 0 if gamma else 3, 0) + _fixed(numbers)
    tags = {b"desc": _text("RGB"), b"cprt": _text("CC0"), b"wtpt": b"XYZ \0\0\0\0" + _fixed(D50)}
    tags[b"chad"] = b"sf32\0\0\0\0" + _fixed(adaptation.ravel())
    for name, column in zip("rgb", matrix.T):
        tags[f"{name}XYZ".encode()] = b"XYZ \0\0\0\0" + _fixed(column)
        tags[f"{name}TRC".encode()] = curve
    offset = _HEADER + 4 + 12 * len(tags)
    table = struct.pack(">I", len(tags))
    for name, tag in tags.items():
        table += struct.pack(">4sII", name, offset, len(tag))
        offset += len(tag)
    header = struct.pack(
        ">I4sI4s4s4s6H4s4s8s8s8s8s4s", offset, b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ", *_DATE, b"acsp", b"",
        b"", b"", b"", b"", b"",
    )  # fmt: skip
    header = header[:68] + _fixed(D50)
    return header.ljust(_HEADER, b"\0") + table + b"".join(tags.values())


def _fixed(numbers):
    """As s15Fixed16Number."""
    return b"".join(struct.pack(">i", round(float(n) * 65536)) for n in numbers)


def _text(text):
    """As multiLocalizedUnicodeType of one language, padded to four bytes."""
    encoded = text.encode("utf-16-be")
    record = struct.pack(">4sIII2s2sII", b"mluc", 0, 1, 12, b"en", b"US", len(encoded), 28) + encoded
    return record + b"\0" * (-len(record) % 4)
