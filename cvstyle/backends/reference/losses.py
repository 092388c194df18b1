"""Losses in NumPy."""

from __future__ import annotations

import numpy as np

from ..base.losses import LossOperations


class Losses(LossOperations):
    """Gram matrices by strips of positions, one per thread, and total variation."""

    def gram(self, x, factor):
        f = x.reshape(x.shape[1], -1)
        strips = [f[:, first:end] for first, end in self.workers.split(f.shape[1], 64)]
        parts = self.workers.run(lambda strip: np.matmul(strip, strip.T, out=self.empty((len(f), len(f)))), strips)
        for part in parts[1:]:
            parts[0] += part
        return self.scale(parts[0], factor)

    def gram_backward(self, d, x, factor, out=None):
        f = x.reshape(x.shape[1], -1)
        d = d * self._scalar(factor)
        g = self.empty(f.shape) if out is None else out.reshape(f.shape)

        def strip(ends):
            part = slice(*ends)
            if out is None:
                np.matmul(d, f[:, part], out=g[:, part])
            else:
                g[:, part] += np.matmul(d, f[:, part], out=self.empty((len(d), f[:, part].shape[1])))

        self.workers.run(strip, self.workers.split(f.shape[1], 64))
        return g.reshape(x.shape)

    def total_variation(self, x, weight, out):
        block = x[..., :-1, :-1]
        right = block - x[..., :-1, 1:]
        below = block - x[..., 1:, :-1]
        value = weight / 2 * (self.dot(right, right) + self.dot(below, below))
        right *= weight
        below *= weight
        out[..., :-1, :-1] += right
        out[..., :-1, :-1] += below
        out[..., :-1, 1:] -= right
        out[..., 1:, :-1] -= below
        return value
