"""PNG (ISO 15948): its chunks are sorted here; Pillow decodes 8 bits and 16-bit grey, OpenCV the rest.

Only what the pixels need is handed on: the decoders refuse sound files for large or damaged texts and profiles, and
OpenCV's libpng writes its warnings about them to the terminal.
"""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

from ...errors import ImageError
from .. import kinds, metadata, profiles
from ..source import Source
from . import pillow

_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_DESCRIBING = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"eXIf", b"pHYs")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_LARGEST_PROFILE = 64 << 20
_LARGEST_TEXT = 1 << 20
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # passes:
# the first row and column, and the steps to the next
_GREY = 0
_RGB = 2
_PALETTE = 3


def source_of(file, name: str) -> Source:
    """The source of a PNG file."""
    from PIL import Image

    chunks = _Chunks(file, name)
    width, height, depth, kind = chunks.header
    with_palette_alpha = (b"tRNS",) if kind == _PALETTE else ()
    if depth == 16 and kind != _GREY:
        source = _by_opencv(chunks, height, width, kind)
    else:
        image = Image.open(chunks.file((*_CRITICAL, *with_palette_alpha)), formats=["PNG"])
        image.info["exif"] = b""  # else Pillow looks for it behind the samples, and decodes them
        source = pillow.of_image(image, name)
        source.strips = _checked(chunks, source.strips)
        held = source.memory(height, width)[1] + chunks.length
        source.memory = lambda *_: (held, held)
    if chunks.key is not None and kind in (_GREY, _RGB):
        _make_transparent(source, chunks.key, depth)
    described = Image.open(chunks.file((b"IHDR", *_DESCRIBING), pixels=False), formats=["PNG"])
    described.info |= chunks.info
    described.info.setdefault("exif", b"")
    source.icc = profiles.of_image(described, name)
    source.orientation = pillow.orientation(described)
    source.metadata = metadata.of_image(described)
    source.remarks += chunks.remarks
    return source


class _Chunks:
    """The chunks of a file by kind, without ancillary ones that are damaged.

    header: width, height, depth, colour type. key: of tRNS for grey and RGB, or None. length: the bytes of the chunks
    that are kept. info: the profile and the EXIF text as Pillow names them.
    """

    def __init__(self, file, name):
        self.key = None
        self.info = {}
        self.remarks = []
        self._kept = []
        self._places = []  # of samples: offset, length
        self._file = file
        self._name = name
        file.seek(len(kinds.PNG))
        while self._read(file):
            pass
        if not self._kept or self._kept[0][0] != b"IHDR" or len(self._kept[0][1]) != 13:
            raise kinds.damaged(name, "no header")
        width, height, depth, kind = struct.unpack(">IIBB", self._kept[0][1][:10])
        self.header = (width, height, depth, kind)
        self.length = sum(length for _, length in self._places)
        if not width or not height or kind not in _CHANNELS:
            raise kinds.damaged(name, "an impossible header")
        self._interlaced = self._kept[0][1][12] == 1
        if kind == _PALETTE and not any(chunk == b"PLTE" for chunk, _ in self._kept):
            raise kinds.damaged(name, "no palette")
        transparent = [data for chunk, data in self._kept if chunk == b"tRNS"]
        if transparent and len(transparent[0]) >= 2 and kind in (_GREY, _RGB):
            values = struct.unpack(f">{len(transparent[0]) // 2}H", transparent[0][: len(transparent[0]) // 2 * 2])
            self.key = values[: _CHANNELS[kind]] if len(values) >= _CHANNELS[kind] else None

    def file(self, kept, pixels=True):
        """A PNG file of these kinds of chunks; pixels: with the samples."""
        file = io.BytesIO()
        file.write(kinds.PNG)
        for kind, data in self._kept:
            if kind in kept:
                _write(file, kind, data)
        for data in self.samples if pixels else [b""]:
            _write(file, b"IDAT", data)
        _write(file, b"IEND", b"")
        file.seek(0)
        return file

    @property
    def samples(self):
        """The compressed samples, a chunk at a time."""
        for offset, length in self._places:
            self._file.seek(offset)
            yield self._file.read(length)

    def check_length(self, exactly=False):
        """Raises ValueError where samples are missing, which decoders would fill with grey or black.

        exactly: also for further samples, and for unknown filters of rows, of which libpng writes to the terminal.
        """
        width, height, depth, kind = self.header
        bits = depth * _CHANNELS[kind]
        passes = _ADAM7 if self._interlaced else ((0, 0, 1, 1),)
        sizes = [(-((top - height) // down), -((left - width) // right)) for top, left, down, right in passes]
        needed = sum(rows * (1 - (-columns * bits // 8)) for rows, columns in sizes if rows > 0 and columns > 0)
        row = needed if self._interlaced else needed // height
        found = 0
        for part in self._inflated_samples():
            if exactly and max(part[-found % row :: row], default=0) > 4:
                raise ValueError("a row has an unknown filter")
            found += len(part)
        if found < needed or (exactly and found > needed):
            raise ValueError(f"{found} bytes of samples instead of {needed}")

    def _inflated_samples(self):
        stream = zlib.decompressobj()
        for data in self.samples:
            while data and not stream.eof:
                yield stream.decompress(data, 1 << 20)
                data = stream.unconsumed_tail
        yield stream.flush()

    def _read(self, file):
        """Read a chunk and keep it where it is of use. False at the end."""
        frame = file.read(8)
        if len(frame) < 8:
            return False
        length = int.from_bytes(frame[:4], "big")
        kind = frame[4:]
        needed = kind in _CRITICAL
        if kind == b"CgBI":
            raise ImageError(f"{self._name}: this PNG is made for iOS apps only; save it as PNG again")
        if not (needed or kind in (*_DESCRIBING, b"tRNS", b"iCCP", b"acTL", *_TEXTS)):
            file.seek(length + 4, 1)
            return True
        if kind == b"IDAT":
            self._places.append((file.tell(), length))
        data = file.read(length)
        checksum = file.read(4)
        if needed and len(data) < length:
            raise kinds.damaged(self._name, f"it ends within {kind.decode()}")
        sound = int.from_bytes(checksum, "big") == zlib.crc32(data, zlib.crc32(kind))
        if needed and not sound and len(checksum) == 4:
            raise kinds.damaged(self._name, f"the checksum of {kind.decode()} is wrong")
        if needed or sound:
            self._keep(kind, data)
        return kind != b"IEND"

    def _keep(self, kind, data):
        if kind == b"iCCP":
            profile = _inflated(data[data.find(b"\0") + 2 :], _LARGEST_PROFILE)
            if profile is None:
                self.remarks.append(f"{self._name}: its colour profile is damaged and was ignored")
            else:
                self.info["icc_profile"] = profile
        elif kind in _TEXTS:
            keyword, text = _text(kind, data)
            if keyword == "Raw profile type exif":
                lines = text.decode("latin-1").split("\n")[3:]  # after a blank line, the name and the length
                with suppress(ValueError):
                    self.info["exif"] = bytes.fromhex("".join(lines))
            elif keyword in metadata.KEYWORDS:
                self.info[keyword] = text.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")
        elif kind == b"acTL":
            frames = int.from_bytes(data[:4], "big")
            if frames > 1:
                self.remarks.append(f"{self._name}: the first of {frames} frames is used")
        elif kind not in (b"IDAT", b"IEND"):
            self._kept.append((kind, data))


def _write(file, kind, data):
    file.write(struct.pack(">I", len(data)) + kind)
    file.write(data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _inflated(data, most):
    """The bytes of a zlib stream; None where it is damaged or has more than `most`."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, most)
    except zlib.error:
        return None
    return text if stream.eof else None


def _text(kind, data):
    """(keyword, bytes of the text) of a chunk; b"" where it is damaged or too large."""
    keyword, _, text = data.partition(b"\0")
    compressed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\1")
    if kind == b"zTXt":
        text = text[1:]
    elif kind == b"iTXt":  # two flags, the language and the keyword in it
        text = text[2:].split(b"\0", 2)[-1]
    return keyword.decode("latin-1"), (_inflated(text, _LARGEST_TEXT) or b"") if compressed else text


def _checked(chunks, strips):
    def checked(*size):
        chunks.check_length()
        return strips(*size)

    return checked


def _by_opencv(chunks, height, width, kind):
    channels = _CHANNELS[kind]
    has_alpha = channels in (2, 4)

    def strips(*_):
        chunks.check_length(exactly=True)
        pixels = pillow.decoded_by_opencv(chunks.file(_CRITICAL).getbuffer())
        rgb = pillow.cut_rgb(pixels)
        return (height, width), (strip[..., 2:] for strip in rgb) if channels == 2 else rgb

    held = (8 if has_alpha else 6) * height * width
    decoding = 2 * held + chunks.length  # OpenCV decodes into a buffer of its own
    return Source(
        (height, width), "L" if channels == 2 else "RGB", strips, lambda *_: (decoding, held),
        "straight" if has_alpha else None, white=65535.0, opaque=65535.0,
    )  # fmt: skip


def _make_transparent(source, key, depth):
    """Give a source without alpha that of a colour (tRNS), in samples of `depth` bits."""
    factor = 1 if depth == 16 else 255 // ((1 << depth) - 1)
    key = [value * factor for value in key]
    source.map_strips(lambda parts: (pillow.with_key(strip, key) for strip in parts), "straight")
    source.opaque = source.white
