"""The memory of this process, as the system tells it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from .backends import memory


def resident() -> int:
    """Bytes of this process in memory now; 0 where the system does not say."""
    return _status("VmRSS")


def peak() -> int:
    """The most bytes in memory since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Forget the peak so far (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def usable() -> int | None:
    """Bytes that this process may have in memory in all; None where that is unknown."""
    free = [n for n in (memory.available(), _address_space()) if n is not None]
    return min(free) + resident() if free else None


def _address_space():
    """Bytes that a limit on this process (ulimit -v) leaves; None without a limit, or where it is unknown."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit, taken = resource.getrlimit(resource.RLIMIT_AS)[0], _status("VmSize")
    return None if limit == resource.RLIM_INFINITY or not taken else max(0, limit - taken)


def _status(key):
    return memory.field_bytes("/proc/self/status", key) or 0
