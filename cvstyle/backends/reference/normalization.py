"""Local response normalisation in NumPy."""

from __future__ import annotations

import numpy as np

from ..base.layers import LayerOperations


class Normalization(LayerOperations):
    """Local response normalisation across channels."""

    def lrn(self, x, size, alpha, beta, k):
        s = self._channel_sum(x * x, size)
        s *= alpha / size
        s += k
        return np.multiply(x, s**-beta, out=self.empty(x.shape)), s

    def lrn_backward(self, g, x, s, size, alpha, beta):
        power = s**-beta
        coupled = self._channel_sum(g * x * power / s, size)
        coupled *= x
        coupled *= -2 * alpha * beta / size
        coupled += g * power
        return coupled

    def _channel_sum(self, x, size):
        """Sum over `size` channels centred on each, as a new array."""
        half = (size - 1) // 2
        out = self.copy(x)
        for shift in range(1, half + 1):
            out[:, shift:] += x[:, :-shift]
        for shift in range(1, size - half):
            out[:, :-shift] += x[:, shift:]
        return out
