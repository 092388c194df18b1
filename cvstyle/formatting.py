"""Numbers as text: byte counts and durations with a suitable unit, counts of things, shares."""

from __future__ import annotations


def byte_size(size: float) -> str:
    """A number of bytes in MB or GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def counted(number: int, word: str = "picture") -> str:
    """A number of things, as "1 picture" or "2 pictures"."""
    return f"{number} {word}" + "s" * (number != 1)


def share(part: float) -> str:
    """A part of 1 in percent, with decimals where it is small."""
    return f"{part:.0%}" if part >= 0.01 else f"{part:.2%}"
