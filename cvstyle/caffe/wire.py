"""Iterator over protobuf's wire format that locates fields without reading their payload.

protobuf's own parser copies everything, and a model of 574 MB may be read for 50 MB of its weights.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

VARINT = 0
FIXED64 = 1
LENGTH = 2
FIXED32 = 5
_SIZE = {FIXED64: 8, FIXED32: 4}
_MOST_FIELDS = 1_000_000  # in one message; a limit for damaged files


class WireError(ValueError):
    """Invalid protobuf. offset: position in the file."""

    def __init__(self, offset: int, cause: str):
        super().__init__(cause)
        self.offset = offset


class Field(NamedTuple):
    """A field. number, wire: field number and wire type. at: position of the tag. [start, stop): the payload.

    A run of `count` fixed-size fields of the same number (an unpacked repeated field) is one Field: its records of
    1 + size bytes, tag and value, are in [at, stop).
    """

    number: int
    wire: int
    at: int
    start: int
    stop: int
    count: int = 1


def varint(buffer, at: int, end: int) -> tuple[int, int]:
    """Decode a varint: (value, position after it). buffer: bytes or mmap."""
    value = 0
    for position in range(at, min(at + 10, end)):
        byte = buffer[position]
        value |= (byte & 0x7F) << (7 * (position - at))
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + 1
    if end - at < 10:
        raise WireError(at, "ends in the middle of a number")
    raise WireError(at, "has a number of more than 10 bytes")


def fields(buffer, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in [at, end), in file order. Raises WireError."""
    for _ in range(_MOST_FIELDS):
        if at >= end:
            return
        tag, start = varint(buffer, at, end)
        number = tag >> 3
        wire = tag & 7
        if not 0 < number < 1 << 29:
            raise WireError(at, f"has the impossible field number {number}")
        count = 1
        if wire == VARINT:
            _, stop = varint(buffer, start, end)
        elif wire == LENGTH:
            length, start = varint(buffer, start, end)
            stop = start + length
        elif wire in _SIZE:
            if start - at == 1:
                count = _run(buffer, at, end, 1 + _SIZE[wire])
            stop = at + count * (start - at + _SIZE[wire])
        else:
            raise WireError(at, f"has the wire type {wire}, which Caffe never writes")
        if stop > end:
            raise WireError(at, f"has a field of {stop - start} bytes where only {end - start} are left")
        yield Field(number, wire, at, start, stop, count)
        at = stop
    raise WireError(at, f"has a message of more than {_MOST_FIELDS} fields")


def _run(buffer, at: int, end: int, stride: int) -> int:
    """The number of consecutive records of `stride` bytes with the same tag byte, at least 1."""
    limit = (end - at) // stride
    data = np.frombuffer(buffer, np.uint8)
    count = 1
    block = 64
    while count < limit:
        block = min(block, limit - count)
        same = data[at + count * stride : at + (count + block) * stride : stride] == buffer[at]
        if not same.all():
            return count + int(same.argmin())
        count += block
        block = min(2 * block, 1 << 20)
    return count
