"""The file format of saved styles (.cvstyle): numbers only, read where they are needed.

A file is, in this order: the 8 bytes of `MAGIC`; the version of the format and the length of the header (little endian,
4 bytes each); the SHA-256 of these 16 bytes and the header; the header, JSON in UTF-8; then blobs, each at a multiple
of 64 bytes, with zeros between them. The header has "bytes", the length of the file, and "blobs", for each of them its
[offset, length, first 32 hexadecimal digits of its SHA-256]. `saved_style` says what else is in it.

Nothing in a file is executed, and a number counts only within limits that the file's own length sets, so a hostile file
takes no more memory than its size. A checkpoint (.npz) is read whole; of this file only what a run wants.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import stat
import struct
from collections.abc import Sequence
from typing import NoReturn

from . import paths
from .errors import ImageError

MAGIC = b"\x93CVSTYLE"
VERSION = 1
_PROLOGUE = struct.Struct("<8sII32s")
_MOST_HEADER = 1 << 22
_MOST_BLOBS = 1 << 14
_ALIGNMENT = 64
_DIGITS = 32


class StyleFile:
    """A file's bytes and header. path: its name in messages.

    Raises ImageError for a file that is cut short, damaged, of another version or of another kind. Blobs are checked
    when they are read.
    """

    def __init__(self, data, path: str):
        self.path = path
        self.view = memoryview(data)
        if len(self.view) < _PROLOGUE.size or self.view[: len(MAGIC)] != MAGIC:
            self.fail("it is cut short" if self.view[: len(MAGIC)] == MAGIC else "it does not begin as one")
        _, version, length, digest = _PROLOGUE.unpack_from(self.view)
        if version != VERSION:
            raise ImageError(
                f"{path}: this saved style has format {version}, and this version of cvstyle reads format {VERSION}; "
                "save the painting again, or use the version that saved it"
            )
        if length > min(_MOST_HEADER, len(self.view) - _PROLOGUE.size):
            self.fail("it is cut short within its header")
        header = bytes(self.view[_PROLOGUE.size : _PROLOGUE.size + length])
        if _header_digest(self.view[: _PROLOGUE.size - 32], header) != digest:
            self.fail("its header does not have its digest")
        self.digest = digest.hex()[:16]
        try:
            self.header = json.loads(header)
        except (ValueError, RecursionError):
            self.fail("its header is no JSON")
        if not isinstance(self.header, dict):
            self.fail("its header is no object")
        if self.header.get("bytes") != len(self.view):
            self.fail(f"its {len(self.view)} bytes are not as many as it should have")
        self._blobs = self._checked_blobs(self.header.get("blobs"), _PROLOGUE.size + length)

    def _checked_blobs(self, blobs, first):
        """The blobs' places, none before the end of the header or overlapping another."""
        if not isinstance(blobs, list) or len(blobs) > _MOST_BLOBS:
            self.fail("its list of blobs is none")
        for blob in blobs:
            if not (isinstance(blob, list) and [type(part) for part in blob] == [int, int, str]):
                self.fail("its list of blobs is none")
            offset, length, _ = blob
            if offset % _ALIGNMENT or not first <= offset <= offset + length <= len(self.view):
                self.fail("a blob is not inside the file")
            first = offset + length
        return blobs

    def fail(self, cause: str) -> NoReturn:
        """Raises ImageError for a damaged file."""
        raise ImageError(
            f"{self.path}: this saved style is truncated or damaged ({cause}); get a fresh copy, or save the painting "
            "again"
        )

    def length(self, number: int) -> int:
        """The bytes of a blob."""
        return self._blobs[number][1] if 0 <= number < len(self._blobs) else self.fail("a blob is missing")

    def blob(self, number: int) -> memoryview:
        """The contents of a blob, checked by its digest."""
        length = self.length(number)
        offset, _, digest = self._blobs[number]
        found = self.view[offset : offset + length]
        if hashlib.sha256(found).hexdigest()[:_DIGITS] != digest:
            self.fail("its numbers do not have their digest")
        return found


def read(path: str) -> StyleFile:
    """The file, mapped. Raises ImageError, also for a file of another kind."""
    try:
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ImageError(f"{path}: a saved style is read from a file, not from a pipe; save it to one first")
            if file.read(len(MAGIC)) != MAGIC:
                raise ImageError(
                    f"{path}: this is no saved style; 'cvstyle style save PICTURE --as {_example(path)}' makes one of "
                    "a picture"
                )
            return StyleFile(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), path)
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: this saved style cannot be read: {cause}; check its permissions") from None


def is_saved_style(path: str) -> bool:
    """True for a file that begins as a saved style, whatever its name."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def packed(header: dict, blobs: Sequence[bytes]) -> bytes:
    """The bytes of a file. header: JSON values, to which "bytes" and "blobs" are added."""
    digests = [hashlib.sha256(blob).hexdigest()[:_DIGITS] for blob in blobs]
    room = 0  # for the header; its length depends on the offsets, which depend on it
    while True:
        places = []
        end = _aligned(_PROLOGUE.size + room)
        for blob, digest in zip(blobs, digests, strict=True):
            offset = _aligned(end)
            places.append([offset, len(blob), digest])
            end = offset + len(blob)
        text = json.dumps({**header, "bytes": end, "blobs": places}, ensure_ascii=False).encode("utf-8", "replace")
        if len(text) <= room:
            break
        room = len(text) + 64
    text = text.ljust(room)  # JSON takes spaces at its end
    start = _PROLOGUE.pack(MAGIC, VERSION, len(text), bytes(32))[:-32]
    data = bytearray(end)
    data[: _PROLOGUE.size + len(text)] = start + _header_digest(start, text) + text
    for (offset, length, _), blob in zip(places, blobs):
        data[offset : offset + length] = blob
    return bytes(data)


def check_writable(path: str) -> None:
    """Raises ImageError where `write` would fail, as far as a trial can tell."""
    try:
        if paths.is_stream(path):
            raise OSError(errno.EINVAL, "it is no file")
        paths.check_writable(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def write(path: str, data) -> None:
    """Write a file's bytes atomically. Raises ImageError."""
    try:
        paths.remove_left(path)
        with paths.atomic_write(path) as file:
            file.write(data)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path, error):
    cause = error.strerror or error
    return ImageError(f"{path}: the saved style cannot be written ({cause}); choose another name or folder")


def _header_digest(start, header):
    return hashlib.sha256(bytes(start) + header).digest()


def _aligned(offset):
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _example(path):
    return f"{os.path.splitext(os.path.basename(path))[0] or 'painting'}.cvstyle"
