"""The Gram matrix's loss (Gatys et al. 2015)."""

from __future__ import annotations

from .moments import Moments, Slope


class Gram(Moments):
    """w · mean((G − A)²) over the C² entries, A the blended style matrix; the gradient is w · 4/(C² N) · (G − A) F."""

    def compare(self, ops, total, target):
        difference = ops.add_scaled(total, -1, target)
        return self._loss_and_slope(difference, ops.dot(difference, difference))

    def compare_view(self, view, target):
        if self.weights is not None:
            return super().compare_view(view, target)
        return self._loss_and_slope(*view.ops.gram_difference(view.x, self._factor(view), target))

    def _loss_and_slope(self, difference, squares):
        entries = difference.shape[0] ** 2
        return self.weight / entries * squares, Slope(difference, 4 / entries)
