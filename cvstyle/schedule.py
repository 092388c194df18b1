"""The scales of a run: sizes to go through, and the iterations at each."""

from __future__ import annotations

from collections.abc import Sequence

_SHARES = (1, 1 / 2, 1 / 5, 1 / 10, 1 / 20)  # of the first scale's iterations: those of the reference's recipe
_SMALLEST = 256  # the first of automatic scales is at least as large
# Iterations of each scale from the coarsest, of at least _COARSEST pixels; the last number serves all that are left.
# Chosen by pictures, and by the distance from the style to an independent network (docs/performance.md).
_QUALITIES = {"draft": (40, 10, 3, 2, 1), "normal": (80, 40, 12, 6, 4), "best": (250, 120, 60, 30, 15)}
_COARSEST = 128
QUALITIES = tuple(_QUALITIES)


def by_quality(quality: str | None, size: int) -> list[tuple[int, int]]:
    """(size, iterations) of each scale to a result of this size; None: normal."""
    return _with_counts(_doubled(size, _COARSEST), _QUALITIES[quality or "normal"])


def by_hand(
    sizes: Sequence[int] | str | None, size: int, first: int, counts: Sequence[int] | None
) -> list[tuple[int, int]]:
    """(size, iterations) of each scale of sizes: "auto" doubles up to the result's, None is that alone.

    counts: the last number serves all scales that are left; None: by shares of `first`.
    """
    sizes = _doubled(size, _SMALLEST) if sizes == "auto" else sizes or [size]
    return _with_counts(sizes, counts or [max(1, round(first * share)) for share in _SHARES])


def _with_counts(sizes, counts):
    return [(size, counts[min(i, len(counts) - 1)]) for i, size in enumerate(sizes)]


def _doubled(size, smallest):
    """Sizes up to the last one, of which the first is at least the smallest."""
    sizes = [size]
    while sizes[0] // 2 >= smallest:
        sizes.insert(0, sizes[0] // 2)
    return sizes
