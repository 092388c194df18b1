"""Memory use of this process."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import machine

_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def resident() -> int:
    """Resident set size in bytes; 0 if unknown."""
    return _status("VmRSS")


def peak() -> int:
    """Peak resident set size in bytes since `reset_peak`; 0 if unknown."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Reset the peak (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Context for measurements of memory, in which freed arrays leave the process, also those freed before (glibc).

    Otherwise glibc keeps what is smaller than the largest that was ever freed, up to 32 MB, for later arrays. Even so,
    arrays that find room between others in the heap stay there.
    """
    allocator = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if not hasattr(allocator, "mallopt") or not hasattr(allocator, "malloc_trim"):  # another C library
        yield
        return
    allocator.mallopt(_MMAP_THRESHOLD, 1 << 20)
    allocator.malloc_trim(0)
    try:
        yield
    finally:
        allocator.mallopt(_MMAP_THRESHOLD, 32 << 20)  # as after the largest that glibc keeps


def usable() -> int | None:
    """Maximum bytes that this process can have in memory; None if unknown."""
    free = machine.free()
    return None if free is None else free + resident()


def _status(key):
    return machine.field_bytes("/proc/self/status", key) or 0
