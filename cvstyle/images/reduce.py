"""Reduction of a picture strip by strip, in the samples of its file."""

from __future__ import annotations

import math

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
        step = self.step[0]
        height = len(self.sums)
        above = self._row
        below = self._row = above + len(strip)
        first = min(height - 1, int(above / step))
        last = max(first + 1, min(height, math.ceil(below / step)))
        if step != 1:
            tops = np.maximum(np.arange(first, last)[:, None] * step, np.arange(above, below))
            bottoms = np.minimum(np.arange(first + 1, last + 1)[:, None] * step, np.arange(above + 1, below + 1))
            weights = ((bottoms - tops).clip(0) / step).astype(np.float32)
            strip = (weights @ strip.reshape(len(strip), -1)).reshape(last - first, *strip.shape[1:])
        self.sums[first:last] += self._columns(strip[: last - first])

    def _columns(self, rows):
        """(n, W, C) → (n, width of the grid, C)."""
        step = self.step[1]
        width = self.sums.shape[1]
        if step == 1:
            return rows[:, :width]
        edges = np.minimum(np.arange(width + 1) * step, rows.shape[1])
        whole = np.minimum(edges.astype(np.int64), rows.shape[1] - 1)
        share = (edges - whole)[:, None]
        integral = np.zeros((len(rows), rows.shape[1] + 1, rows.shape[2]))  # of the samples to the left
        np.cumsum(rows, axis=1, out=integral[:, 1:])
        at_edges = integral[:, whole] + share * rows[:, whole]
        return np.diff(at_edges, axis=1) / step


def reduced(source: Source, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None, tuple[float, float]]:
    """(samples of the colours (H, W, C) float32, alpha (H, W) 0..1 or None, the lowest and highest sample).

    size: (height, width) as stored, at most the source's. Colours are weighted by alpha, so those of invisible pixels
    do not count; where all are invisible, the reduced colour is 0.
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
    del strips, area
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
