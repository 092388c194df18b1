"""Arrays and scalars in a device's memory."""

from __future__ import annotations

import math

import numpy as np


class Array:
    """A contiguous array in device memory; its memory returns to the pool with the last array that shares it.

    pending: in place of memory, a function that puts the array's work on the queue and returns an array with the
    numbers. It is called when the memory is first used, if ever.
    """

    __slots__ = ("_block", "dtype", "ops", "pending", "shape", "size")

    def __init__(self, ops, block, shape: tuple[int, ...], dtype: np.dtype, pending=None):
        self.ops = ops
        self._block = block
        self.shape = shape
        self.dtype = dtype
        self.pending = pending
        self.size = math.prod(shape)

    @property
    def block(self):
        """The memory."""
        if self.pending is not None:
            work = self.pending
            self.pending = None
            self._block = work().block
        return self._block

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def nbytes(self):
        return self.size * self.dtype.itemsize

    def reshape(self, *shape):
        """The same numbers in another shape; one extent may be −1."""
        shape = list(shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)
        if -1 in shape:
            axis = shape.index(-1)
            shape[axis] = self.size // math.prod(n for n in shape if n != -1)
        if math.prod(shape) != self.size:
            raise ValueError(f"an array of shape {self.shape} cannot take the shape {tuple(shape)}")
        return Array(self.ops, self.block, tuple(shape), self.dtype)

    def __array__(self, dtype=None, copy=None):
        host = self.ops.to_host(self)
        return host if dtype is None else host.astype(dtype)

    def __repr__(self):
        return f"<array {self.shape} of {self.dtype} on {self.ops.device.name}>"


class Scalar:
    """(a·v + b) / (c·v + d) with v on the device and numbers a, b, c, d on the host.

    Sums, products and quotients with numbers keep that form and cost nothing; only `float()` waits for the device.
    """

    __slots__ = ("array", "form")

    def __init__(self, array: Array, form=(1.0, 0.0, 0.0, 1.0)):
        self.array = array
        self.form = form

    @property
    def ops(self):
        """The backend of the array."""
        return self.array.ops

    def __float__(self):
        return self.value_at(float(self.ops.to_host(self.array).ravel()[0]))

    def value_at(self, v):
        """The scalar's number if the array's is v."""
        a, b, c, d = self.form
        with np.errstate(all="ignore"):
            return float(np.divide(a * v + b if a else b, c * v + d if c else d))

    def __add__(self, other):
        if isinstance(other, Scalar):
            return self.array.ops.sum_of_scalars(self, other)
        a, b, c, d = self.form
        return Scalar(self.array, (a + other * c, b + other * d, c, d))

    def __mul__(self, number):
        a, b, c, d = self.form
        return Scalar(self.array, (a * number, b * number, c, d))

    def __rtruediv__(self, number):
        a, b, c, d = self.form
        return Scalar(self.array, (number * c, number * d, a, b))

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -other

    def __rsub__(self, other):
        return -self + other

    def __truediv__(self, number):
        return self * (1 / number)

    def __repr__(self):
        return f"<scalar {self.form} on {self.array.ops.device.name}>"


class ScalarFuture:
    """Scalars that are being copied to the host."""

    def __init__(self, scalars, wait):
        """wait: a function that waits for the copy and returns the bytes of the scalars' arrays."""
        self._scalars = scalars
        self._wait = wait

    def result(self) -> list[float]:
        """The scalars' numbers."""
        values = np.frombuffer(self._wait(), np.float32, len(self._scalars))
        return [scalar.value_at(float(v)) for scalar, v in zip(self._scalars, values, strict=True)]
