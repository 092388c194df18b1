"""Optimisers in NumPy."""

from __future__ import annotations

import numpy as np

from ..base.optimizers import OptimizerOperations

_HISTORY_COLUMNS = 4096  # L-BFGS reads so many columns of all rows at once: the second product finds them cached


class Optimizers(OptimizerOperations):
    """Adam, the pyramid one level at a time, and L-BFGS with the inner products of its history in float64."""

    def adam_step(self, x, g, m, v, count, rate, beta1, beta2, epsilon):
        count += 1
        step = float(count[0])
        m *= beta1
        self.add_scaled(m, 1 - beta1, g)
        v *= beta2
        self.add_scaled(v, 1 - beta2, self.multiply(g, g))
        root = np.sqrt(v, out=self.empty(v.shape))
        root += epsilon * np.sqrt(1 - beta2**step)
        np.divide(m, root, out=root)
        return self.add_scaled(x, -rate * float(np.sqrt(1 - beta2**step)) / (1 - beta1**step), root)

    def halvings(self, x, count):
        found = []
        for _ in range(count):
            x = self.halve(x)
            found.append(x)
        return found

    def add_halvings(self, x, weights, halvings, onto=None):
        result = None
        for array, weight in zip([x, *halvings][::-1], weights[::-1], strict=True):
            result = self.scale(array, weight) if result is None else self.add_doubled(array, weight, result)
        return result if onto is None else self.add_scaled(onto, 1, result)

    def halve(self, x):
        """x (1, C, H, W) at half the size, ⌈H/2⌉ × ⌈W/2⌉: a quarter of the adjoint of enlarging in `add_doubled`.

        Along an axis ¼ x[2i−1] + ¾ x[2i] + ¾ x[2i+1] + ¼ x[2i+2] over 2; beyond an end lies the last value again where
        the length is even, and nothing behind an odd one.
        """
        for axis in (2, 3):
            x = np.moveaxis(x, axis, 0)
            even = x[::2]
            odd = x[1::2]
            half = np.multiply(even, self._scalar(0.375))
            half[: len(odd)] += self._scalar(0.375) * odd
            half[0] += self._scalar(0.125) * x[0]
            half[1:] += self._scalar(0.125) * odd[: len(even) - 1]
            half[:-1] += self._scalar(0.125) * even[1:]
            if len(odd) == len(even):
                half[-1] += self._scalar(0.125) * odd[-1]
            x = np.moveaxis(half, 0, axis)
        return self.asarray(x)

    def add_doubled(self, x, factor, half):
        """x ← factor · x + half at twice the size, in place, for a half of ⌈H/2⌉ × ⌈W/2⌉.

        Bilinear: along an axis position 2i gets ¾ half[i] + ¼ half[i−1] and 2i + 1 gets ¾ half[i] + ¼ half[i+1], with
        the last value again beyond an end.
        """
        for axis in (2, 3):
            half = np.moveaxis(half, axis, 0)
            before = np.concatenate([half[:1], half[:-1]])
            after = np.concatenate([half[1:], half[-1:]])
            doubled = np.empty((2 * len(half), *half.shape[1:]), self.dtype)
            doubled[::2] = self._scalar(0.75) * half + self._scalar(0.25) * before
            doubled[1::2] = self._scalar(0.75) * half + self._scalar(0.25) * after
            half = np.moveaxis(doubled[: x.shape[axis]], 0, axis)
        np.multiply(x, self._scalar(factor), out=x)
        return np.add(x, half, out=x)

    def lbfgs_products(self, g, steps, changes, ring, rows):
        slot = int(ring[0])
        g = g.reshape(-1)
        self._clear_skipped(steps, changes, ring, rows)
        y = np.subtract(g, changes[slot], out=changes[slot])

        def piece(ends):
            sums = np.zeros((2, rows, 2))
            for first in range(*ends, _HISTORY_COLUMNS):
                part = slice(first, min(first + _HISTORY_COLUMNS, ends[1]))
                for i, vectors in enumerate((steps, changes)):
                    block = vectors[:rows, part]
                    sums[i, :, 0] += block @ y[part]
                    sums[i, :, 1] += block @ g[part]
            return sums

        return sum(self.workers.run(piece, self.workers.split(len(g), 64)))

    @staticmethod
    def _clear_skipped(steps, changes, ring, rows):
        """Zero the rows that were skipped after a pair was rejected and hold nothing yet."""
        if int(ring[1]) < len(steps) - 1:
            for array in (steps, changes):
                array[int(ring[0]) + 1 : rows].view(np.uint8)[...] = 0

    def lbfgs_coefficients(self, measured, products, ring, curvature, rate):
        slot = int(ring[0])
        count = int(ring[1])
        capacity = products.shape[1]
        rows = measured.shape[1]
        products[0, :rows, slot] = measured[0, :, 0]
        products[1, :rows, slot] = products[1, slot, :rows] = measured[1, :, 0]
        if products[0, slot, slot] > curvature:
            ring[2] = products[0, slot, slot] / products[1, slot, slot]
            slot = (slot + 1) % capacity
            count = min(count + 1, capacity - 1)
            ring[:2] = slot, count
        order = (slot - count + np.arange(count)) % capacity  # oldest first
        sy, yy = (table[np.ix_(order, order)].astype(np.float64) for table in products)
        from_s, from_y = measured[:, order, 1]
        rate = float(rate)
        scale = float(ring[2])
        alpha = np.empty(count)
        s = np.empty(count)
        along = -from_s  # s_i · q
        for i in reversed(range(count)):
            alpha[i] = along[i] / sy[i, i]
            along -= alpha[i] * sy[:, i]
        along = -scale * (from_y + yy @ alpha)  # y_i · r
        for i in range(count):
            s[i] = alpha[i] - along[i] / sy[i, i]
            along += s[i] * sy[i]
        coefficients = np.zeros(2 * capacity + 1)
        coefficients[order] = rate * s
        coefficients[capacity + order] = -rate * scale * alpha
        coefficients[-1] = -rate * scale
        return self.asarray(coefficients)

    def lbfgs_first_coefficients(self, l1, max_factor, capacity, rate):
        coefficients = self.zeros((2 * capacity + 1,))
        coefficients[-1] = -rate / max(1 / max_factor, float(l1))
        return coefficients

    def lbfgs_step(self, x, g, steps, changes, coefficients, ring, rows, max_norm):
        x = self.zeros(g.shape) if x is None else x
        slot = int(ring[0])
        picture = x.reshape(-1)
        g = g.reshape(-1)
        step_factors = coefficients[:rows]
        change_factors = coefficients[len(steps) : len(steps) + rows]
        pieces = self.workers.split(len(g), 64)

        def combine(ends):
            squares = 0.0
            for first in range(*ends, _HISTORY_COLUMNS):
                part = slice(first, min(first + _HISTORY_COLUMNS, ends[1]))
                step = coefficients[-1] * g[part]
                step += step_factors @ steps[:rows, part]
                step += change_factors @ changes[:rows, part]
                steps[slot, part] = step
                changes[slot, part] = g[part]
                squares += float(step @ step)
            return squares

        norm = float(np.sqrt(sum(self.workers.run(combine, pieces))))
        share = max_norm / norm if norm > max_norm else 1.0

        def advance(ends):
            step = steps[slot, slice(*ends)]
            if share < 1:
                step *= share
            picture[slice(*ends)] += step

        self.workers.run(advance, pieces)
        return x
