"""The multi-scale schedule of a run: the sizes and the iterations at each size."""

from __future__ import annotations

from collections.abc import Sequence

_SHARES = (1, 1 / 2, 1 / 5, 1 / 10, 1 / 20)  # of the first scale's iterations, by the reference's recipe
_MIN_AUTO_SIZE = 256  # the first automatic scale is at least as large
# Iterations of each scale from the coarsest, of at least _MIN_QUALITY_SIZE pixels; the last number is for all later
# scales. Chosen by pictures, and by the distance from the style to an independent network (docs/performance.md).
_QUALITIES = {"draft": (40, 10, 3, 2, 1), "normal": (80, 40, 12, 6, 4), "best": (250, 120, 60, 30, 15)}
_MIN_QUALITY_SIZE = 128
QUALITIES = tuple(_QUALITIES)


def quality_schedule(quality: str | None, size: int) -> list[tuple[int, int]]:
    """(size, iterations) of each scale for a result of this size. quality: one of QUALITIES; None: normal."""
    return _with_counts(doubled(size, _MIN_QUALITY_SIZE), _QUALITIES[quality or "normal"])


def custom_schedule(
    sizes: Sequence[int] | str | None, size: int, first: int, counts: Sequence[int] | None
) -> list[tuple[int, int]]:
    """(size, iterations) of each scale. sizes: a list; "auto": by doubling up to `size`; None: `size` alone.

    counts: iterations, the last number being for all later scales; None: shares of `first`.
    """
    sizes = doubled(size, _MIN_AUTO_SIZE) if sizes == "auto" else sizes or [size]
    return _with_counts(sizes, counts or [max(1, round(first * share)) for share in _SHARES])


def _with_counts(sizes, counts):
    return [(size, counts[min(i, len(counts) - 1)]) for i, size in enumerate(sizes)]


def doubled(size: int, smallest: int) -> list[int]:
    """Sizes that double up to `size`, the first being at least `smallest` if possible."""
    sizes = [size]
    while sizes[0] // 2 >= smallest:
        sizes.insert(0, sizes[0] // 2)
    return sizes
