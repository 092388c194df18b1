"""The interface of a backend: optimisers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable


class OptimizerOperations(ABC):
    """Steps of Adam and L-BFGS, and the pyramid of L-BFGS's preconditioner.

    L-BFGS (see optimize/lbfgs.py): steps, changes: (R, n), one pair s, y per row, used as a ring; products: (2, R, R),
    s_i · y_j and y_i · y_j of rows i, j; ring: (3,), the row that takes the next pair, the number of pairs before it,
    and the factor H₀ of the identity. Only the first `rows` rows have been written.
    """

    def capture(self, function: Callable) -> Callable:
        """`function` as a function of `steady`; a device may replay the work that a steady call put on its queue.

        steady: this call does the work of the steady call before, with the same arrays and numbers.
        """
        return lambda steady=True: function()

    @abstractmethod
    def adam_step(self, x, g, m, v, count, rate, beta1, beta2, epsilon):
        """One step of Adam (Kingma and Ba 2015, algorithm 1) in place on x and the moments m, v.

        count: (1,), the number of steps before, which grows by one.
        """

    # Pyramid

    @abstractmethod
    def halvings(self, x, count: int) -> list:
        """x (1, C, H, W) halved once, twice, and up to `count` times, at most three (see `reference.Backend.halve`)."""

    @abstractmethod
    def add_halvings(self, x, weights, halvings, onto=None):
        """x ← weights[0] · x + half at twice the size, where `half` is the same of weights[1], halvings[0] and so on.

        The sum, or `onto` to which it is added in place; x and halvings may change in any case.
        """

    # L-BFGS

    def lbfgs_history(self, rows: int, size: int) -> tuple:
        """(steps, changes) with undefined contents."""
        return self.empty((rows, size)), self.empty((rows, size))

    @abstractmethod
    def lbfgs_products(self, g, steps, changes, ring, rows):
        """Complete the newest pair, y ← g − y in its row; return the products of s and y of each row with y and g.

        Their layout is the backend's own, for `lbfgs_coefficients`.
        """

    @abstractmethod
    def lbfgs_coefficients(self, measured, products, ring, curvature, rate):
        """Keep the newest pair if y · s > curvature; return the factors of the vectors in −rate · H g.

        The two-loop recursion on inner products alone: (2R + 1,), for the rows of steps, of changes, and for g.
        """

    @abstractmethod
    def lbfgs_first_coefficients(self, l1, max_factor, capacity, rate):
        """The same before there is a pair: a step of −rate · min(max_factor, 1/l1) g; l1: a scalar."""

    @abstractmethod
    def lbfgs_step(self, x, g, steps, changes, coefficients, ring, rows, max_norm):
        """x ← x + s with s the combination of rows and g, shortened to a norm of `max_norm` where it is longer.

        s and g go to the ring's next row. In place; x may be None for zeros. Returns x.
        """
