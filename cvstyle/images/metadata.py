"""The metadata that a result keeps of its photograph: date, camera, resolution, author, copyright and description.

Everything else is dropped: positions, thumbnails, notes of the maker, serial numbers, names of owners, XMP and IPTC.
Tags are those of Exif 2.32 (CIPA DC-008-2019), whose first directory is TIFF 6.0's.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

DESCRIPTION = 270
COMMENT = 37510  # UserComment, of the second directory
EXIF = 34665  # the tag that points to the second directory
_CODE = b"ASCII\0\0\0"  # before the characters of a comment
_ORIENTATION = 274
_RESOLUTION = (282, 283)  # horizontal, vertical
_UNIT = 296
_VERSION = 36864
_FIRST = (DESCRIPTION, 271, 272, 306, 315, 33432)  # description, make, model, date, artist, copyright
_SECOND = (36867, 36868, 36880, 36881, 36882, 42035, 42036)  # dates, offsets from UTC, make and model of the lens
_OF_TIFF = {*_FIRST, *_SECOND, _ORIENTATION, *_RESOLUTION, _UNIT, EXIF}
_NAMES = {  # of the second directory in tifffile
    "DateTimeOriginal": 36867, "DateTimeDigitized": 36868, "OffsetTime": 36880, "OffsetTimeOriginal": 36881,
    "OffsetTimeDigitized": 36882, "LensMake": 42035, "LensModel": 42036,
}  # fmt: skip
KEYWORDS = {"Description": DESCRIPTION, "Author": 315, "Copyright": 33432}  # texts of PNG
_LONGEST = 4000  # bytes of a text: all together fit into a JPEG's segment of 65533
_INCH = {2: 1, 3: 2.54}  # units of resolution, in inches
_MOST_DPI = 65535  # in a JPEG
_ASCII = 2  # types of TIFF
_SHORT = 3
_LONG = 4
_RATIONAL = 5
_UNDEFINED = 7
_LONG8 = 16


@dataclass(frozen=True)
class Metadata:
    """texts: by the number of their tag. dpi: resolution in dots per inch, (horizontal, vertical), or None."""

    texts: Mapping[int, str] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None


def of_image(image) -> Metadata | None:
    """The metadata of a Pillow image, before its orientation is applied; None without any. Raises nothing."""
    try:
        tags = image.getexif()
        values = {**tags, **tags.get_ifd(EXIF)}
    except Exception:  # Pillow's errors about damaged metadata have no common class
        values = {}
    for keyword, tag in KEYWORDS.items():
        values.setdefault(tag, image.info.get(keyword))
    stated = image.info.get("jfif_unit") or image.format not in ("JPEG", "MPO")  # otherwise Pillow guesses 72
    return _of(values, (stated and image.info.get("dpi")) or _resolution(values))


def of_tags(tags: Iterable) -> Metadata | None:
    """The metadata of a TIFF's page, from the tags that tifffile gives it; None without any. Raises nothing."""
    values = {}
    for tag in tags:
        if tag.code in _OF_TIFF:
            with suppress(Exception):  # tifffile's errors about damaged tags have no common class
                values[tag.code] = tag.value
    second = values.get(EXIF)
    if isinstance(second, Mapping):
        values |= {_NAMES[name]: value for name, value in second.items() if name in _NAMES}
    return _of(values, _resolution(values))


def exif(metadata: Metadata, comment: str = "") -> bytes:
    """The metadata, and a comment in ASCII, as the TIFF structure that Exif is, little-endian; b"" without any."""
    first = texts_of(metadata)
    second = _second(metadata, comment)
    if metadata.dpi:
        ratios = [Fraction(dpi).limit_denominator(10000).as_integer_ratio() for dpi in metadata.dpi]
        first += [(tag, _RATIONAL, 1, struct.pack("<II", *ratio)) for tag, ratio in zip(_RESOLUTION, ratios)]
        first.append((_UNIT, _SHORT, 1, struct.pack("<H", 2)))
    if not first and not second:
        return b""
    start = struct.pack("<2sHI", b"II", 42, 8)
    if not second:
        return start + _directory(first, 8)
    pointer = (EXIF, _LONG, 1, bytes(4))
    at = 8 + len(_directory([*first, pointer], 8))
    pointer = (EXIF, _LONG, 1, struct.pack("<I", at))
    return start + _directory([*first, pointer], 8) + _directory(second, at)


def texts_of(metadata: Metadata) -> list[tuple[int, int, int, bytes]]:
    """The texts of the first directory as (tag, TIFF's type, count, bytes)."""
    return _texts(metadata, _FIRST)


def append_exif(file: BinaryIO, metadata: Metadata, comment: str) -> None:
    """Give a little-endian TIFF file of one page the second directory, by a first one that takes the place of its own.

    tifffile writes no such directory.
    """
    second = _second(metadata, comment)
    if not second:
        return
    file.seek(0)
    start = file.read(16)
    big = start[2] == 43
    count, entry, word = ("<Q", "<HHQQ", "<Q") if big else ("<H", "<HHII", "<I")
    (first,) = struct.unpack(word, start[8:16] if big else start[4:8])
    file.seek(first)
    (number,) = struct.unpack(count, file.read(struct.calcsize(count)))
    entries = [file.read(struct.calcsize(entry)) for _ in range(number)]
    at = file.seek(0, 2)
    at += file.write(bytes(at % 2))  # directories begin at even places
    after = at + struct.calcsize(count) + struct.calcsize(entry) * (number + 1) + struct.calcsize(word)
    entries.append(struct.pack(entry, EXIF, _LONG8 if big else _LONG, 1, after))
    entries.sort(key=lambda entry: struct.unpack("<H", entry[:2]))
    file.write(struct.pack(count, len(entries)) + b"".join(entries) + bytes(struct.calcsize(word)))
    file.write(_directory(second, after, big))
    file.seek(8 if big else 4)
    file.write(struct.pack(word, at))


def comment_in(second: Mapping[int, object]) -> str:
    """The comment in a second directory that Pillow has read."""
    value = second.get(COMMENT, b"")
    return value.removeprefix(_CODE).decode("ascii", "replace") if isinstance(value, bytes) else ""


def _texts(metadata, tags):
    values = {tag: metadata.texts[tag].encode("utf-8", "replace") + b"\0" for tag in tags if tag in metadata.texts}
    return [(tag, _ASCII, len(value), value) for tag, value in values.items()]


def _second(metadata, comment):
    """The entries of the second directory; [] if it has none to hold."""
    entries = _texts(metadata, _SECOND)
    if comment:
        value = _CODE + comment.encode("ascii")
        entries.append((COMMENT, _UNDEFINED, len(value), value))
    return [*entries, (_VERSION, _UNDEFINED, 4, b"0232")] if entries else []


def _of(values, dpi):
    texts = {tag: _text(values.get(tag)) for tag in (*_FIRST, *_SECOND)}
    if texts[DESCRIPTION].startswith('{"Software": "cvstyle '):  # the program's own, in files of earlier versions
        texts[DESCRIPTION] = ""
    texts = {tag: text for tag, text in texts.items() if text}
    try:
        dpi = tuple(float(number) for number in dpi)
    except (TypeError, ValueError, ArithmeticError):
        dpi = ()
    if len(dpi) != 2 or not all(1 <= number <= _MOST_DPI for number in dpi):
        dpi = None
    elif _number(values.get(_ORIENTATION)) in (5, 6, 7, 8):  # rows and columns change places
        dpi = dpi[::-1]
    return Metadata(texts, dpi) if texts or dpi else None


def _resolution(values):
    """Dots per inch by the tags; numbers that are none count as NaN."""
    inch = _INCH.get(_number(values.get(_UNIT, 2)), 0)
    return [_number(values.get(tag)) * inch for tag in _RESOLUTION]


def _text(value):
    """The text of a tag, which Pillow decodes as Latin-1 whatever its encoding."""
    if isinstance(value, str):
        try:
            value = value.encode("latin-1")
        except UnicodeEncodeError:  # of a PNG, or decoded already
            value = value.encode("utf-8", "replace")
    if not isinstance(value, bytes):
        return ""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    text = " ".join(part.strip() for part in text.split("\0") if part.strip())
    return text.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")


def _number(value):
    """A float from a number or from (numerator, denominator); NaN from anything else."""
    try:
        return float(value[0]) / float(value[1]) if isinstance(value, tuple) else float(value)
    except (TypeError, ValueError, ArithmeticError, IndexError):
        return math.nan


def _directory(entries, at, big=False):
    """The bytes of a directory that begins at `at`, with the values that do not fit into its entries.

    big: with the wider numbers of BigTIFF.
    """
    count, entry, word = ("<Q", "<HHQ", 8) if big else ("<H", "<HHI", 4)
    end = at + struct.calcsize(count) + (struct.calcsize(entry) + word) * len(entries) + word
    fields = b""
    values = b""
    for tag, kind, number, value in sorted(entries):
        fields += struct.pack(entry, tag, kind, number)
        if len(value) > word:
            fields += struct.pack("<Q" if big else "<I", end + len(values))
            values += value + bytes(len(value) % 2)  # values begin at even places
        else:
            fields += value.ljust(word, b"\0")
    return struct.pack(count, len(entries)) + fields + bytes(word) + values
