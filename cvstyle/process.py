"""Memory use of this process."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

from . import machine


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


def trim() -> None:
    """Return freed memory to the system (glibc)."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def usable() -> int | None:
    """Maximum bytes that this process can have in memory; None if unknown."""
    free = [n for n in (machine.available(), machine.address_space()) if n is not None]
    return min(free) + resident() if free else None


def _status(key):
    return machine.field_bytes("/proc/self/status", key) or 0
