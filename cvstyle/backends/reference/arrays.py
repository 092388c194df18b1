"""Arrays, arithmetic and reductions in NumPy."""

from __future__ import annotations

import numpy as np

from ..base.arrays import ArrayOperations
from ..threads import one_thread_each


class Arrays(ArrayOperations):
    """Arrays of one dtype from a pool of host memory; scalars are floats."""

    def empty(self, shape):
        return self.pool.empty(shape, self.dtype)

    def zeros(self, shape):
        array = self.empty(shape)
        array.fill(0)
        return array

    def asarray(self, host):
        array = self.empty(np.shape(host))
        array[...] = host
        return array

    def to_host(self, array):
        return np.array(array)

    def copy(self, array):
        return self.asarray(array)

    def receive(self, array):
        shared = isinstance(array, np.ndarray) and array.dtype == self.dtype
        return array if shared else self.asarray(array)

    def trim(self):
        self.pool.trim()

    def copy_block(self, target, target_start, source, source_start, shape):
        target[_block(target_start, shape)] = source[_block(source_start, shape)]

    def cut(self, array, axis, shapes):
        ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
        return [p if p.flags.c_contiguous else self.copy(p) for p in np.split(array, ends, axis)]

    def scale(self, x, factor):
        return np.multiply(x, self._scalar(factor), out=x)

    def add_scaled(self, y, factor, x):
        if isinstance(factor, (int, float)) and factor == 1:
            return np.add(y, x, out=y)
        product = np.multiply(x, self._scalar(factor), out=self.empty(x.shape))
        return np.add(y, product, out=y)

    def multiply(self, x, y, out=None):
        return np.multiply(x, y, out=self.empty(x.shape) if out is None else out)

    def sum_over(self, x, shape):
        axes = tuple(i for i, (a, b) in enumerate(zip(x.shape, shape, strict=True)) if b == 1 and a != 1)
        return self.asarray(x.sum(axis=axes, keepdims=True))

    def maximum(self, x, y):
        return np.maximum(x, y, out=self.empty(x.shape)), np.packbits(x > y)

    def select(self, g, mask):
        chosen = np.unpackbits(mask, count=g.size).view(bool).reshape(g.shape)
        gx = np.multiply(g, chosen, out=self.empty(g.shape))
        return gx, np.subtract(g, gx, out=self.empty(g.shape))

    def affine(self, x, factor, shift, out=None):
        out = self.empty(x.shape) if out is None else out
        if factor is None:
            return np.add(x, shift, out=out)
        np.multiply(x, factor, out=out)
        return out if shift is None else np.add(out, shift, out=out)

    def dot(self, x, y):
        with one_thread_each():  # the order of the sum depends on the threads that BLAS has
            return float(np.dot(x.reshape(-1), y.reshape(-1)))

    def l1(self, x):
        return float(np.abs(x, out=self.empty(x.shape)).sum())

    def abs_max(self, x):
        return float(max(x.max(), -x.min()))

    def difference(self, x, y):
        return np.subtract(x, y, out=self.empty(x.shape))

    def _scalar(self, value):
        return self.dtype.type(value)


def _block(start, shape):
    return tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
