"""Reduction of a picture strip by strip, in the samples of its file."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from .source import Source


class AreaAverage:
    """The average over each area of a grid of cells, computed from strips of rows.

    Cells need not be whole samples; a sample counts by its share in the cell, as in OpenCV's INTER_AREA, without its
    limits on width and on the number of samples.
    """

    def __init__(self, extent: tuple[float, float], size: tuple[int, int], channels: int):
        """extent: (height, width) of the picture in samples, at least `size`, the (height, width) of the grid."""
        self.step = tuple(n / cells for n, cells in zip(extent, size))
        self.sums = np.zeros((*size, channels), np.float32)
        self._row = 0

    def add(self, strip: np.ndarray) -> None:
        """Add the next rows, (n, W, C) float32."""
        height, width = self.sums.shape[:2]
        above = self._row
        below = self._row = above + len(strip)
        first = min(height - 1, int(above / self.step[0]))
        last = max(first + 1, min(height, math.ceil(below / self.step[0])))
        edges = (np.arange(first, last + 1) * self.step[0]).clip(above, below) - above
        rows = strip if self.step[0] == 1 else np.stack([_sum(strip, *ends) for ends in pairwise(edges)])
        area = self.step[0] * self.step[1]
        self.sums[first:last] += rows[: last - first, :width] if area == 1 else self._columns(rows) / np.float32(area)

    def _columns(self, rows):
        """(n, W, C) → sums (n, width of the grid, C)."""
        if self.step[1] == 1:
            return rows
        count, length, channels = rows.shape
        edges = np.minimum(np.arange(self.sums.shape[1] + 1) * self.step[1], length)
        whole = np.minimum(edges.astype(np.int64), length - 1)
        planes = np.ascontiguousarray(rows.transpose(0, 2, 1)).reshape(-1, length)  # sums are fastest along the memory
        parts = planes[:, whole] * (edges - whole).astype(np.float32)
        sums = np.add.reduceat(planes, whole, axis=1)[:, :-1] - parts[:, :-1] + parts[:, 1:]
        return sums.reshape(count, channels, -1).transpose(0, 2, 1)


def _sum(rows, start, end):
    """The sum of rows from a fraction of one to a fraction of another."""
    first = int(start)
    last = int(end)
    total = np.add.reduce(rows[first:last], axis=0)
    if start > first:
        total -= np.float32(start - first) * rows[first]
    if end > last:
        total += np.float32(end - last) * rows[last]
    return total


def reduced(source: Source, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None, tuple[float, float]]:
    """(samples of the colours (H, W, C) float32, alpha (H, W) 0..1 or None, the lowest and highest sample).

    size: (height, width) as stored, at most the source's. Colours are weighted by alpha, so those of invisible pixels
    do not count; where all are invisible, the reduced colour is 0. The source is used up.
    """
    extent, strips = source.strips(*size)
    area = None
    ends = (math.inf, -math.inf)
    weighted = source.alpha == "straight" and size != source.size
    for strip in strips:
        if strip.dtype != np.uint8:
            ends = _ends(ends, strip[..., :-1] if source.alpha else strip)
        samples = strip.astype(np.float32)
        if weighted:
            samples[..., :-1] *= samples[..., -1:] / np.float32(source.opaque)
        if area is None:
            area = AreaAverage(extent, size, strip.shape[2])
        area.add(samples)
    sums = area.sums
    source.strips = strips = strip = samples = None  # and with them the decoded picture
    if source.alpha is None:
        return sums, None, ends
    alpha = sums[..., -1] / np.float32(source.opaque)
    if weighted or source.alpha == "premultiplied":
        colours = np.zeros_like(sums[..., :-1])
        np.divide(sums[..., :-1], alpha[..., None], out=colours, where=alpha[..., None] > 0)
    else:
        colours = np.ascontiguousarray(sums[..., :-1])
    return colours, alpha, ends


def _ends(ends, samples):
    """The ends of the range so far with those of further samples; NaN if there is one."""
    return tuple(float(f([end, f(samples)])) for f, end in zip((np.min, np.max), ends))
