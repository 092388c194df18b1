"""The interface of a backend: losses and their gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .scalars import Scalar


class LossOperations(ABC):
    """Gram matrices, squared differences and total variation. A backend may compute two results in one pass."""

    @abstractmethod
    def gram(self, x, factor):
        """factor · F Fᵀ for F = x as (C, H·W): shape (C, C)."""

    def gram_difference(self, x, factor, target) -> tuple:
        """(`gram` less a symmetric target; the sum of squares of the difference, a scalar)."""
        difference = self.add_scaled(self.gram(x, factor), -1, target)
        return difference, self.dot(difference, difference)

    @abstractmethod
    def gram_backward(self, d, x, factor, out=None):
        """factor · D F, D symmetric (C, C), shaped as x; added to `out` in place where one is given."""

    def add_difference(self, y, factor, x, target) -> Scalar:
        """y ← y + factor · (x − target), in place; Σ (x − target)², a scalar."""
        difference = self.difference(x, target)
        squares = self.dot(difference, difference)
        self.add_scaled(y, factor, difference)
        return squares

    @abstractmethod
    def total_variation(self, x, weight, out) -> Scalar:
        """w/2 · Σ (x[i,j]−x[i,j+1])² + (x[i,j]−x[i+1,j])² over the (H−1)×(W−1) block.

        Returns the value; the gradient is added to `out`.
        """
