"""The memory that is free on this machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def free() -> int | None:
    """Bytes that this process can still take: free in the system and within its address space; None if unknown."""
    return min((n for n in (available(), address_space()) if n is not None), default=None)


def available() -> int | None:
    """Bytes that are free in the system, or in the container of this process; None where that is unknown."""
    return min((n for n in (_meminfo(), _control_group()) if n is not None), default=None)


def address_space() -> int | None:
    """Bytes that are free in a limited address space (ulimit -v); None without a limit, or if unknown."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = field_bytes("/proc/self/status", "VmSize")
    return None if limit == resource.RLIM_INFINITY or not used else max(0, limit - used)


def field_bytes(path: str, key: str) -> int | None:
    """The bytes that a file like /proc/meminfo states for a key; None where it states none."""
    with suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) << 10
    return None


def _meminfo():
    return field_bytes("/proc/meminfo", "MemAvailable")


def _control_group():
    """Bytes below a container's limit (control groups, version 2); None without a limit."""
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        return None if limit == "max" else int(limit) - int(used)
    except (OSError, ValueError):
        return None
