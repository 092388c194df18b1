"""Operations of the optimisers on a device: steps of Adam and L-BFGS, and the pyramid of the preconditioner."""

from __future__ import annotations

import math

from ...errors import OptionError
from .reductions import GROUP

_STEP_GROUPS = 1024  # most groups that combine L-BFGS's history
_LARGEST_HISTORY = 2000  # pairs whose products with a gradient fit into local memory


class Optimizers:
    """A part of `backend.Backend`."""

    def halvings(self, x, count):
        sizes = [x.shape[2:]]
        for _ in range(count):
            sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
        halvings = [self.empty((*x.shape[:2], *size)) for size in sizes[1:]]
        if halvings:
            arguments = (x, *_three(halvings), count, *x.shape[2:])
            self.launch("pyramid", "halvings", _pyramid_groups(x), arguments)
        return halvings

    def add_halvings(self, x, weights, halvings, onto=None):
        weights = (*map(float, weights), 0.0, 0.0, 0.0)[:4]
        arguments = (x, *_three(halvings), onto, onto is not None, len(halvings), *weights, *x.shape[2:])
        self.launch("pyramid", "add_halvings", _pyramid_groups(x), arguments)
        return x if onto is None else onto

    def adam_step(self, x, g, m, v, count, rate, beta1, beta2, epsilon):
        rates = self.empty((2,))
        arguments = (count, rates, float(rate), math.log(beta1), math.log(beta2), epsilon)
        self.launch("adam", "adam_rates", (1, 1, 1), arguments, threads=1)
        self._each("adam", "adam_step", x.size, x, g, m, v, rates, beta1, 1 - beta1, beta2, 1 - beta2, x.size)
        return x

    def lbfgs_products(self, g, steps, changes, ring, rows):
        n = g.size
        self._each("lbfgs", "complete_pair", n, g, changes, ring, n)
        span = -(-max(-(-n // 64), 2048) // GROUP) * GROUP
        count = -(-n // span)
        parts = self.empty((count, 2, rows, 2))
        groups = (count, -(-rows // 4), 2)
        self.launch("lbfgs", "products", groups, (g, steps, changes, ring, parts, rows, n, span))
        return parts

    def lbfgs_coefficients(self, measured, products, ring, curvature, rate):
        count, _, rows, _ = measured.shape
        capacity = products.shape[1]
        if capacity > _LARGEST_HISTORY:
            raise OptionError(
                f"an L-BFGS history of {capacity - 1} is too long for a device; {_LARGEST_HISTORY - 1} is not"
            )
        total = self.empty((2, rows, 2))
        coefficients = self.empty((2 * capacity + 1,))
        arguments = (measured, total, products, ring, coefficients, rows, count, float(curvature), float(rate))
        self.launch("lbfgs", "coefficients", (1, 1, 1), arguments, defines=(("CAPACITY", capacity),))
        return coefficients

    def lbfgs_first_coefficients(self, l1, most, capacity, rate):
        coefficients = self.empty((2 * capacity + 1,))
        size = coefficients.size
        arguments = (coefficients, *self.factor(l1), 1 / most, float(rate), size)
        self._each("lbfgs", "first_coefficients", size, *arguments)
        return coefficients

    def lbfgs_step(self, x, g, steps, changes, coefficients, ring, rows, longest):
        moved = self.empty(g.shape) if x is None else x
        n = g.size
        groups = max(1, min(_STEP_GROUPS, -(-n // GROUP)))
        span = -(-n // groups)
        parts = self.empty((groups,))
        squares = self.empty((1,))
        arguments = (
            g, steps, changes, coefficients, ring, parts, squares, self.counters(1), steps.shape[0], rows, n, span
        )  # fmt: skip
        self.launch("lbfgs", "combine", (groups, 1, 1), arguments)
        squares = self._second_stage("total", parts, squares, groups).array
        self._each("lbfgs", "advance", n, moved, x is not None, steps, ring, squares, float(longest), n)
        return moved


def _three(halvings):
    return (*halvings, None, None, None)[:3]


def _pyramid_groups(x):
    """Groups of the kernels in pyramid.cl."""
    return math.prod(-(-n // 64) for n in x.shape[2:]), math.prod(x.shape[:2]), 1
