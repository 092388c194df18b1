"""Members of a ZIP archive (APPNOTE 6.3): stored ones are views of the map, deflated ones are read within limits."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from .source import Source, expansion_limit

_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_LOCATOR64 = b"PK\x06\x07"
_ENTRY = b"PK\x01\x02"
_LOCAL = b"PK\x03\x04"
_END_SIZE = 22
_ENTRY_SIZE = 46
_LOCAL_SIZE = 30
_LONGEST_COMMENT = 65535
_MOST_MEMBERS = 20_000
_FULL = 0xFFFFFFFF  # the value is in the ZIP64 field
_STORED = 0
_DEFLATED = 8
_MORE = 1 << 20  # bytes; deflated data are longer than the file by less


@dataclass(frozen=True)
class Member:
    """A file in an archive. data: its bytes as they are stored. size: when expanded."""

    name: str
    data: memoryview
    size: int
    deflated: bool

    def read(self, most: int | None = None) -> memoryview:
        """The first bytes of the file, or all of them. Raises zlib.error, or ValueError for fewer than are stated."""
        wanted = self.size if most is None else min(most, self.size)
        if not self.deflated:
            return self.data[:wanted]
        packed = self.data[: wanted + _MORE]
        found = memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, wanted) if wanted else b"")
        if len(found) != wanted:
            raise ValueError
        return found


class _Entry(NamedTuple):
    name: str
    flags: int
    method: int
    packed: int
    size: int
    at: int  # of the local header


def members(source: Source) -> dict[str, Member]:
    """Members by name. Raises ModelError for an archive that is damaged or in which members overlap."""
    try:
        found = {}
        reached = 0
        for entry in sorted(_entries(source), key=lambda entry: entry.at):
            start = _start(source, entry)
            if entry.at < reached:
                raise source.damaged(f"member '{entry.name}' of the archive overlaps another")
            reached = start + entry.packed
            found[entry.name] = _member(source, entry, start)
        return found
    except (struct.error, OverflowError):
        raise source.damaged("the directory of the archive ends early") from None


def _entries(source: Source) -> list[_Entry]:
    count, at, end = _directory(source)
    entries = {}
    for _ in range(count):
        if source.map[at : at + 4] != _ENTRY or at + _ENTRY_SIZE > end:
            raise source.damaged(f"the directory of the archive has no entry at byte {at}")
        flags, method, packed, size, name, extra, comment, start = struct.unpack_from("<8xHH8xIIHHH8xI", source.map, at)
        after = at + _ENTRY_SIZE + name
        text = source.map[after - name : after].decode("utf-8", "replace")
        size, packed, start = _wide(source, after, extra, (size, packed, start))
        if text in entries:
            raise source.damaged(f"member '{text}' is twice in the archive")
        entries[text] = _Entry(text, flags, method, packed, size, start)
        at = after + extra + comment
    return list(entries.values())


def _directory(source: Source) -> tuple[int, int, int]:
    """Number of members, and begin and end of the directory."""
    end = source.map.rfind(_END, max(0, source.size - _END_SIZE - _LONGEST_COMMENT))
    if end < 0:
        raise source.damaged("it begins as a ZIP archive and has no directory at its end")
    count, _, start = struct.unpack_from("<10xHII", source.map, end)
    if end >= 20 and source.map[end - 20 : end - 16] == _LOCATOR64:
        (end64,) = struct.unpack_from("<8xQ", source.map, end - 20)
        if source.map[end64 : end64 + 4] != _END64:
            raise source.damaged("the directory of the archive is not at its place")
        count, _, start = struct.unpack_from("<32xQQQ", source.map, end64)
        end = end64
    if count > _MOST_MEMBERS or start > end:
        raise source.damaged(f"the directory of the archive states {count} members at byte {start}")
    return count, start, end


def _wide(source: Source, at: int, extra: int, values: tuple[int, ...]) -> list[int]:
    """Size, packed size and place, from the ZIP64 field where they are there."""
    values = list(values)
    end = at + extra
    while _FULL in values and at + 4 <= end:
        kind, length = struct.unpack_from("<HH", source.map, at)
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{min(length, end - at - 4) // 8}Q", source.map, at + 4))
            return [next(numbers, value) if value == _FULL else value for value in values]
        at += 4 + length
    return values


def _start(source: Source, entry: _Entry) -> int:
    """The place of a member's data, after its local header."""
    if entry.at + _LOCAL_SIZE > source.size or source.map[entry.at : entry.at + 4] != _LOCAL:
        raise source.damaged(f"member '{entry.name}' of the archive is not at byte {entry.at}")
    name, extra = struct.unpack_from("<26xHH", source.map, entry.at)
    after = entry.at + _LOCAL_SIZE + name
    if source.map[after - name : after].decode("utf-8", "replace") != entry.name:
        raise source.damaged(f"member '{entry.name}' of the archive has another name at byte {entry.at}")
    return after + extra


def _member(source: Source, entry: _Entry, start: int) -> Member:
    where = f"member '{entry.name}' of the archive"
    if start + entry.packed > source.size:
        raise source.damaged(f"{where} has {entry.packed} bytes where {max(0, source.size - start)} are left")
    if entry.flags & 1:
        raise source.error(f"{where} is encrypted; unpack the archive and pack it again without a password")
    if entry.method not in (_STORED, _DEFLATED):
        raise source.error(f"{where} is packed by method {entry.method}; unpack the archive and pack it uncompressed")
    if entry.method == _STORED and entry.size != entry.packed:
        raise source.damaged(f"{where} has {entry.packed} bytes and states {entry.size}")
    if entry.size > expansion_limit(entry.packed):
        raise source.error(
            f"{where} would expand from {entry.packed} bytes to {entry.size}, which no weights do; "
            "if they are yours, save them uncompressed"
        )
    return Member(entry.name, source.view[start : start + entry.packed], entry.size, entry.method == _DEFLATED)
