"""The samples of a TIFF page, a band of rows at a time: strips or tiles, in planes or not, of any depth.

Deflate is decoded here row by row; libtiff in Pillow decodes the rest, for which a segment is made a TIFF of its own.
"""

from __future__ import annotations

import ctypes.util
import glob
import io
import os
import struct
import zlib
from contextlib import suppress
from functools import cache

import numpy as np

from ...errors import ImageError
from ..source import STRIP, rows_of

_PIECE = 1 << 18  # bytes
_NONE = 1
_DEFLATE = (8, 32946)
_BYTES = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard: whatever the bytes mean
_FAX = (2, 3, 4, 32771)
_JPEG = 7
_WHOLE = {34712: "JPEG2000", 33005: "JPEG2000", 50001: "WEBP"}  # a segment is a file of this format
_KINDS = {0: "u", 1: "u", 2: "i", 3: "f", 4: "u"}  # by SampleFormat; 4 is undefined
_FAX_OPTIONS = (292, 293)
_TABLES = 347
_SUBSAMPLING = 530
_HORIZONTAL = 2  # predictors
_FLOATING = 3
_REVERSED = np.array([int(f"{n:08b}"[::-1], 2) for n in range(256)], np.uint8)


class Samples:
    """The way to a page's samples.

    size: (height, width). kind: "u", "i" or "f" as in NumPy, with `bits`. full: the largest number of the type, 1 for
    floats.
    """

    def __init__(self, file, page, name):
        self._file = file
        self._page = page
        self.size = (page.imagelength, page.imagewidth)
        self.bits = page.bitspersample if isinstance(page.bitspersample, int) else 0
        formats = page.sampleformat if isinstance(page.sampleformat, tuple) else (page.sampleformat,)
        self.kind = _KINDS.get(int(formats[0]), "") if len({*formats}) == 1 else ""
        self._predictor = int(page.predictor)
        self._compression = int(page.compression)
        self._check(name)
        self.full = 1.0 if self.kind == "f" else float((1 << self.bits) - 1)
        self._planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
        self._channels = page.samplesperpixel // self._planes
        self._tiled = bool(page.is_tiled)
        if self._tiled:
            self._segment = (page.tilelength, page.tilewidth)
        else:
            self._segment = (min(page.rowsperstrip or self.size[0], self.size[0]), self.size[1])
        self._down, self._across = (-(-n // side) for n, side in zip(self.size, self._segment))

    def _check(self, name):
        """Raises ImageError for numbers and compressions that are not decoded."""
        page = self._page
        type_ = {"u": "uint", "i": "int", "f": "float"}.get(self.kind, "complex or mixed numbers of ") + str(self.bits)
        known = self.bits in {"f": (16, 32, 64), "i": (8, 16, 32, 64)}.get(self.kind, (*range(1, 17), 32))
        if not self.kind or not known:
            kind = getattr(page.photometric, "name", page.photometric)
            raise ImageError(f"{name}: a TIFF of {kind} in {type_} cannot be read; save it as 16-bit TIFF")
        whole = self._compression in (*_FAX, _JPEG, *_WHOLE)
        if not whole and self._compression not in (_NONE, *_DEFLATE, *_BYTES):
            kind = getattr(page.compression, "name", self._compression)
            raise ImageError(f"{name}: a TIFF with the compression {kind} cannot be read; save it without compression")
        if (self._compression == _JPEG or self._compression in _WHOLE) and self.bits != 8:
            raise ImageError(f"{name}: a TIFF of {self.bits}-bit JPEG cannot be read; save it without compression")
        if self._predictor not in (1, _HORIZONTAL, _FLOATING) or (self._predictor == _FLOATING) > (self.kind == "f"):
            kind = f"predictor {self._predictor}"
            raise ImageError(f"{name}: a TIFF with {kind} cannot be read; save it without compression")

    def memory(self, *_) -> tuple[float, float]:
        """(peak bytes of decoding before a strip, bytes held while strips are taken)."""
        height, width = self._segment
        decoded = height * width * self._page.samplesperpixel * self.bits / 8
        if self._tiled:
            decoded *= self._across * 2
        elif self._compression in (_NONE, *_DEFLATE):
            return 0.0, 0.0
        elif self._compression in (_JPEG, *_WHOLE) and self._channels == 3:
            decoded *= 4 / 3
        coded = 2 * max(self._page.databytecounts, default=0)
        return 2 * decoded + coded, decoded  # libtiff decodes into a buffer of its own

    def strips(self):
        """Arrays (rows, width, channels), from the top."""
        for band in range(self._down):
            rows = min(self._segment[0], self.size[0] - band * self._segment[0])
            if self._tiled:
                yield from self._cut(self._tiles(band, rows))
            else:
                segments = [plane * self._down + band for plane in range(self._planes)]
                for parts in zip(*(self._rows(segment, rows) for segment in segments)):
                    yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _cut(self, pixels):
        rows = rows_of(pixels.shape[1])
        return (pixels[top : top + rows] for top in range(0, len(pixels), rows))

    def _tiles(self, band, rows):
        """A row of tiles as one array."""
        tiles = []
        width = self.size[1]
        for plane in range(self._planes):
            first = (plane * self._down + band) * self._across
            row = [np.concatenate(list(self._rows(first + n, self._segment[0]))) for n in range(self._across)]
            tiles.append(np.concatenate([tile[:rows] for tile in row], axis=1)[:, :width])
        return tiles[0] if len(tiles) == 1 else np.concatenate(tiles, axis=2)

    def _rows(self, segment, rows):
        """The rows of a strip or tile in parts, (n, width, channels)."""
        if not self._page.databytecounts[segment] or not self._page.dataoffsets[segment]:
            raise ValueError(f"strip or tile {segment} is missing")
        if self._compression in (*_FAX, _JPEG) or self._compression in _WHOLE:
            yield from self._cut(self._by_pillow(segment, rows))
        else:
            read = self._reader(segment, rows)
            length = -(-self._segment[1] * self._channels * self.bits // 8)
            for count in self._counts(rows):
                data = read(count * length)
                if len(data) < count * length:
                    raise ValueError(f"strip or tile {segment} is too short")
                yield self._numbers(np.frombuffer(data, np.uint8, count * length).reshape(count, length))

    def _counts(self, rows):
        """The rows of each part, so that parts of all planes together are a strip."""
        each = max(1, STRIP // max(1, self._segment[1] * self._page.samplesperpixel))
        return [min(each, rows - top) for top in range(0, rows, each)]

    def _raw(self, segment):
        """The bytes of a segment as stored, the bits of each byte from the highest."""
        self._file.seek(self._page.dataoffsets[segment])
        data = self._file.read(self._page.databytecounts[segment])
        return _reversed(data) if int(self._page.fillorder) == 2 else data

    def _pieces(self, segment):
        """The bytes of a segment as stored, a piece at a time."""
        start = self._page.dataoffsets[segment]
        end = start + self._page.databytecounts[segment]
        for offset in range(start, end, _PIECE):
            self._file.seek(offset)
            data = self._file.read(min(_PIECE, end - offset))
            yield _reversed(data) if int(self._page.fillorder) == 2 else data

    def _reader(self, segment, rows):
        """A function of a number of bytes that gives the next ones of a segment."""
        if self._compression == _NONE:
            self._file.seek(self._page.dataoffsets[segment])
            position = [self._page.dataoffsets[segment]]

            def read(count):  # other planes are read in between
                self._file.seek(position[0])
                position[0] += count
                data = self._file.read(count)
                return _reversed(data) if int(self._page.fillorder) == 2 else data

            return read
        if self._compression in _DEFLATE:
            return _inflating(self._pieces(segment))
        length = -(-self._segment[1] * self._channels * self.bits // 8)
        tags = {256: length, 257: rows, 258: 8, 259: self._compression, 262: 1, 277: 1}
        image = _by_libtiff(self._raw(segment), tags, b"")  # grey pixels are the bytes
        top = [0]

        def read_rows(count):
            above = top[0]
            below = top[0] = above + count // length
            return image.crop((0, above, length, below)).tobytes()

        return read_rows

    def _dtype(self):
        size = 1 if self.kind == "u" and self.bits <= 8 else 2 if self.bits <= 16 else self.bits // 8
        return np.dtype(f"{self.kind}{size}")

    def _numbers(self, rows):
        """Bytes (rows, length) → numbers (rows, width, channels), in the machine's order."""
        shape = (len(rows), -1, self._channels)
        width = self._segment[1]
        if self._predictor == _FLOATING:
            return _undo_floating(rows, shape, self.bits // 8)
        if self.bits in (8, 16, 32, 64):
            order = "<" if self._page.parent.byteorder == "<" else ">"
            numbers = rows.view(np.dtype(f"{order}{self.kind}{self.bits // 8}")).astype(self._dtype(), copy=False)
        else:
            bits = np.unpackbits(rows, axis=1)[:, : width * self._channels * self.bits]
            powers = (1 << np.arange(self.bits)[::-1]).astype(np.float32)
            numbers = (bits.reshape(len(rows), -1, self.bits) @ powers).astype(self._dtype())
        numbers = numbers.reshape(shape)
        if self._predictor == _HORIZONTAL:
            numbers = np.cumsum(numbers.view(f"u{numbers.itemsize}"), axis=1, dtype=f"u{numbers.itemsize}")
            numbers = numbers.view(self._dtype())
        return numbers

    def _by_pillow(self, segment, rows):
        """Pixels (rows, width, channels) of a segment that is a picture of its own."""
        from PIL import Image

        width = self._segment[1]
        if self._compression in _WHOLE:
            with Image.open(io.BytesIO(self._raw(segment)), formats=[_WHOLE[self._compression]]) as image:
                pixels = np.asarray(image)
        else:
            photometric = int(self._page.photometric)
            if self._planes > 1 or (self._compression in _FAX):
                photometric = 1
            tags = {256: width, 257: rows, 258: self.bits, 259: self._compression, 262: photometric}
            tags[277] = self._channels
            for code in (*_FAX_OPTIONS, _SUBSAMPLING):
                if code in self._page.tags:
                    tags[code] = self._page.tags[code].value
            pixels = np.asarray(_by_libtiff(self._raw(segment), tags, self._page.jpegtables or b""))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if pixels.shape != (rows, width, self._channels):
            raise ValueError(f"strip or tile {segment} decodes to {pixels.shape}")
        return pixels.astype(np.uint8, copy=False)  # of bool for fax


def _reversed(data):
    return _REVERSED[np.frombuffer(data, np.uint8)].tobytes()


def _inflating(pieces):
    """A function of a number of bytes that gives the next ones of a zlib stream, fewer at its end."""
    stream = zlib.decompressobj()

    def read(count):
        found = []
        while count and not stream.eof:
            data = stream.unconsumed_tail or next(pieces, b"")
            part = stream.decompress(data, count)
            if not data and not part:
                break
            count -= len(part)
            found.append(part)
        return b"".join(found)

    return read


def _undo_floating(rows, shape, size):
    """Undo predictor 3: differences of bytes, a row's highest bytes first (Adobe's TIFF technical note 3)."""
    count, length = rows.shape
    channels = shape[2]
    summed = np.cumsum(rows.reshape(count, -1, channels), axis=1, dtype=np.uint8)
    numbers = summed.reshape(count, size, length // size).transpose(0, 2, 1)
    return np.ascontiguousarray(numbers).view(f">f{size}").reshape(shape).astype(f"f{size}")


@cache
def _silence_libtiff():
    """Let Pillow's libtiff print nothing, which it does about damaged segments, besides returning an error."""
    import PIL

    package = os.path.dirname(PIL.__file__)
    libraries = glob.glob(os.path.join(glob.escape(package), ".dylibs", "libtiff*"))
    libraries += glob.glob(os.path.join(glob.escape(os.path.dirname(package)), "pillow.libs", "libtiff*"))
    for path in libraries or filter(None, [ctypes.util.find_library("tiff")]):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)


def _by_libtiff(data, tags, tables):
    """The Pillow image of the only strip of a TIFF that is made of these data and tags."""
    from PIL import Image

    _silence_libtiff()
    with io.BytesIO(_tiff_of(data, tags, tables)) as file:
        image = Image.open(file, formats=["TIFF"])
        image.load()
    return image


def _tiff_of(data, tags, tables):
    tags = dict(tags)
    bits = tags[258]
    channels = tags[277]
    start = 8
    at = start + len(data) + len(data) % 2
    entries = []
    extra = b""

    def add(code, kind, count, value):
        nonlocal extra
        packed = value if isinstance(value, bytes) else struct.pack("<I" if kind == 4 else "<H", value)
        if len(packed) > 4:
            place = struct.pack("<I", at + len(extra))
            extra += packed + b"\0" * (len(packed) % 2)
            packed = place
        entries.append((code, struct.pack("<HHI", code, kind, count) + packed.ljust(4, b"\0")))

    tags.pop(258)
    add(258, 3, channels, struct.pack(f"<{channels}H", *[bits] * channels))
    for code, value in tags.items():
        if isinstance(value, (tuple, list)):
            add(code, 3, len(value), struct.pack(f"<{len(value)}H", *value))
        else:
            add(code, 4, 1, int(value))
    add(273, 4, 1, start)
    add(278, 4, 1, tags[257])
    add(279, 4, 1, len(data))
    if tables:
        add(_TABLES, 7, len(tables), bytes(tables))
    directory = struct.pack("<H", len(entries)) + b"".join(entry for _, entry in sorted(entries)) + b"\0\0\0\0"
    header = b"II*\0" + struct.pack("<I", at + len(extra))
    return b"".join([header, data, b"\0" * (len(data) % 2), extra, directory])
