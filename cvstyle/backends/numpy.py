"""The reference backend: every operation in NumPy, readable, in float32 or float64.

Arrays are NumPy arrays from a pool (`memory.HostPool`); feature maps are (1, C, H, W) and contiguous. An operation
that says "in place" changes and returns its first argument; `out` may be an input. Scalars that an operation returns
are opaque to its callers (a device backend returns one that is still on the device): they may be combined with
numbers, passed back as a factor, and become a number through `float()`, which is the moment that waits.
"""

from __future__ import annotations

import math
import threading
from functools import cached_property

import numpy as np

from .base import BIAS, UNPLACED, ReluMask
from .memory import HostPool
from .threads import Workers

PRIORITY = 0

_COLUMN_BYTES = 4 << 20  # im2col works on strips of rows of about this size, so that they stay in cache
_HISTORY_COLUMNS = 4096  # L-BFGS reads so many columns of all rows at once: the second product finds them cached


def problem() -> str | None:
    """Why this backend cannot be used here: never."""
    return None


class Backend:
    """Operations on (1, C, H, W) arrays of one dtype."""

    name = "numpy"
    fuses_pooling = False
    """Whether convolutions may have a max pool in their epilogue (`Convolution.fuses_pool`)."""
    history_itemsize = 4
    """Bytes of a value in the history of L-BFGS."""
    autotune = False
    """Whether it measures which way of doing a convolution is fastest."""
    asynchronous = False
    """Whether `float()` of a scalar, like `to_host`, waits for work that is still under way."""

    def __init__(self, dtype="float32", threads=None):
        self.dtype = np.dtype(dtype)
        self.pool = HostPool()
        self.workers = Workers(threads)
        self.lock = threading.RLock()
        """Held by whoever evaluates an objective: layers keep where they are in the picture, and the engine's calls
        their arguments."""

    def __repr__(self):
        return f"<{self.name} backend, {self.dtype}>"

    # Arrays

    def empty(self, shape):
        """An array of this shape with undefined contents."""
        return self.pool.empty(shape, self.dtype)

    def zeros(self, shape):
        """An array of zeros."""
        array = self.empty(shape)
        array.fill(0)
        return array

    def asarray(self, host):
        """A copy of a host array in this backend's dtype and memory."""
        array = self.empty(np.shape(host))
        array[...] = host
        return array

    def to_host(self, array):
        """A host copy of an array (NumPy, this backend's dtype)."""
        return np.array(array)

    def copy(self, array):
        """A copy on the same device."""
        return self.asarray(array)

    def receive(self, array):
        """An array of any backend in this one's memory: itself where it is there already, not to be changed then."""
        shared = isinstance(array, np.ndarray) and array.dtype == self.dtype
        return array if shared else self.asarray(array)

    def materialize(self, array):
        """The array, once all that it is computed from may change: a device may put a gradient off until it is read."""
        return array

    def trim(self):
        """Give memory that no array uses back to the system, as after a change of picture size."""
        self.pool.trim()

    def copy_block(self, target, target_start, source, source_start, shape):
        """Copy a block of `shape` from `source` at `source_start` to `target` at `target_start` (index per axis)."""
        target[_block(target_start, shape)] = source[_block(source_start, shape)]

    def cut(self, array, axis, shapes):
        """Parts of these shapes along an axis; nobody else has the array, so they may be its memory."""
        ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
        return [p if p.flags.c_contiguous else self.copy(p) for p in np.split(array, ends, axis)]

    # Arithmetic

    def scale(self, x, factor):
        """x ← factor · x, in place."""
        return np.multiply(x, self._scalar(factor), out=x)

    def add_scaled(self, y, factor, x):
        """y ← y + factor · x, in place. x is unchanged."""
        if isinstance(factor, (int, float)) and factor == 1:
            return np.add(y, x, out=y)
        product = np.multiply(x, self._scalar(factor), out=self.empty(x.shape))
        return np.add(y, product, out=y)

    def multiply(self, x, y, out=None):
        """Element-wise product; y may have extent 1 along an axis (broadcast)."""
        return np.multiply(x, y, out=self.empty(x.shape) if out is None else out)

    def sum_over(self, x, shape):
        """x summed over the axes along which `shape` has extent 1: the adjoint of broadcasting."""
        axes = tuple(i for i, (a, b) in enumerate(zip(x.shape, shape, strict=True)) if b == 1 and a != 1)
        return self.asarray(x.sum(axis=axes, keepdims=True))

    def maximum(self, x, y):
        """Element-wise maximum and a mask for `select`; where equal, y wins (Caffe's Eltwise MAX)."""
        return np.maximum(x, y, out=self.empty(x.shape)), np.packbits(x > y)

    def select(self, g, mask):
        """Split a gradient between the two inputs of `maximum`: (gradient for x, gradient for y)."""
        chosen = np.unpackbits(mask, count=g.size).view(bool).reshape(g.shape)
        gx = np.multiply(g, chosen, out=self.empty(g.shape))
        return gx, np.subtract(g, gx, out=self.empty(g.shape))

    def affine(self, x, factor, shift, out=None):
        """factor · x + shift with arrays that broadcast against x; either may be None."""
        out = self.empty(x.shape) if out is None else out
        if factor is None:
            return np.add(x, shift, out=out)
        np.multiply(x, factor, out=out)
        return out if shift is None else np.add(out, shift, out=out)

    # Reductions

    def dot(self, x, y):
        """Σ x·y, a scalar."""
        return float(np.dot(x.reshape(-1), y.reshape(-1)))

    def l1(self, x):
        """Σ |x|, a scalar."""
        return float(np.abs(x, out=self.empty(x.shape)).sum())

    def abs_max(self, x):
        """max |x|, a scalar."""
        return float(max(x.max(), -x.min()))

    # Activations

    def relu(self, x, slope=0.0, out=None):
        """x where x > 0, else slope · x; and a mask for `relu_backward`. slope: a number, or an array per channel."""
        mask = np.packbits(x > 0)
        out = self.empty(x.shape) if out is None else out
        if isinstance(slope, float) and slope == 0:
            return np.maximum(x, 0, out=out), mask
        negative = np.minimum(x, 0, out=self.empty(x.shape))
        negative *= slope
        np.maximum(x, 0, out=out)
        return np.add(out, negative, out=out), mask

    def relu_backward(self, g, mask, slope=0.0):
        """g where the mask is set, else slope · g, in place."""
        positive = np.unpackbits(mask, count=g.size).view(bool).reshape(g.shape)
        if isinstance(slope, float) and slope == 0:
            return np.multiply(g, positive, out=g)
        factor = np.where(positive, self.dtype.type(1), np.asarray(slope, self.dtype))
        return np.multiply(g, factor, out=g)

    def map(self, function, x, parameters=(), out=None):
        """An element-wise function by name (see `_FUNCTIONS`), and what `map_backward` needs."""
        f, _, saves = _FUNCTIONS[function]
        y = self.empty(x.shape) if out is None or saves == "x" else out
        with np.errstate(all="ignore"):
            y[...] = f(x, *parameters)
        return y, {"x": x, "y": y, None: None}[saves]

    def map_backward(self, function, g, saved, parameters=()):
        """g · f'(x), in place."""
        _, derivative, _ = _FUNCTIONS[function]
        with np.errstate(all="ignore"):
            g *= derivative(saved, *parameters)
        return g

    def softmax(self, x):
        """Softmax over axis 1."""
        y = np.exp(x - x.max(axis=1, keepdims=True))
        y /= y.sum(axis=1, keepdims=True)
        return y

    def softmax_backward(self, g, y):
        """Vector-Jacobian product of `softmax`, in place."""
        g -= (g * y).sum(axis=1, keepdims=True)
        g *= y
        return g

    # Convolution

    def convolution(self, weight, bias, stride, dilation, group):
        """A convolution with fixed weights, ready to run in both directions; see `Convolution`."""
        return Convolution(self, weight, bias, stride, dilation, group)

    # Pooling: kernel, stride: (vertical, horizontal); pad: (top, left); windows are clipped at the border as in Caffe

    def max_pool(self, x, kernel, stride, pad, output):
        """Maximum over windows, (1, C, *output), and the winner's index in its window for `max_pool_backward`."""
        x = self._padded(x, kernel, stride, pad, output, -np.inf)
        y = winner = None
        index = np.min_scalar_type(math.prod(kernel) - 1)
        for k, window in enumerate(_windows(x, kernel, stride, output)):
            if y is None:
                y = self.copy(window)
                winner = self.pool.empty(y.shape, index)
                winner.fill(0)
            else:
                better = (window > y).view(np.uint8).astype(index, copy=False)
                better *= index.type(k)
                np.maximum(winner, better, out=winner)
                np.maximum(y, window, out=y)
        return y, winner

    def max_pool_backward(self, g, winner, shape, kernel, stride, pad):
        """Each output's gradient goes to the winner of its window; shape: that of the pool's input."""
        gx, inner = self._padded_zeros(shape, kernel, stride, pad, g.shape[2:])
        for k, window in enumerate(_windows(gx, kernel, stride, g.shape[2:])):
            window += g * (winner == k)
        return self._cropped(gx, inner)

    def avg_pool(self, x, kernel, stride, pad, output):
        """Mean over windows; a window counts its padding, but not what lies beyond it (Caffe)."""
        divisor = self._pool_divisor(x.shape, kernel, stride, pad, output)
        x = self._padded(x, kernel, stride, pad, output, 0)
        y = self.zeros((*x.shape[:2], *output))
        for window in _windows(x, kernel, stride, output):
            y += window
        y /= divisor
        return y

    def avg_pool_backward(self, g, shape, kernel, stride, pad):
        """Each output's gradient is spread evenly over its window; shape: that of the pool's input."""
        share = g / self._pool_divisor(shape, kernel, stride, pad, g.shape[2:])
        gx, inner = self._padded_zeros(shape, kernel, stride, pad, g.shape[2:])
        for window in _windows(gx, kernel, stride, g.shape[2:]):
            window += share
        return self._cropped(gx, inner)

    # Local response normalisation across channels

    def lrn(self, x, size, alpha, beta, k):
        """x · s^-β with s = k + α/size · Σ x² over `size` neighbouring channels; returns (y, s)."""
        s = self._channel_sum(x * x, size)
        s *= alpha / size
        s += k
        return np.multiply(x, s**-beta, out=self.empty(x.shape)), s

    def lrn_backward(self, g, x, s, size, alpha, beta):
        """Vector-Jacobian product of `lrn`: g s^-β − 2αβ/size · x · Σ (g x s^(-β-1))."""
        power = s**-beta
        coupled = self._channel_sum(g * x * power / s, size)
        coupled *= x
        coupled *= -2 * alpha * beta / size
        coupled += g * power
        return coupled

    # Losses

    def gram(self, x, factor):
        """factor · F Fᵀ for F = x as (C, H·W): shape (C, C)."""
        f = x.reshape(x.shape[1], -1)
        strips = [f[:, first:end] for first, end in self.workers.split(f.shape[1], 64)]
        parts = self.workers.run(lambda strip: np.matmul(strip, strip.T, out=self.empty((len(f), len(f)))), strips)
        for part in parts[1:]:
            parts[0] += part
        return self.scale(parts[0], factor)

    def gram_difference(self, x, factor, target):
        """(`gram` less a symmetric target, the sum of the squares of that, a scalar)."""
        difference = self.add_scaled(self.gram(x, factor), -1, target)
        return difference, self.dot(difference, difference)

    def gram_backward(self, d, x, factor, out=None):
        """factor · D F, D symmetric (C, C), shaped as x; added to `out` in place where one is given."""
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

    def difference(self, x, y):
        """x − y as a new array."""
        return np.subtract(x, y, out=self.empty(x.shape))

    def add_difference(self, y, factor, x, target):
        """y ← y + factor · (x − target), in place; Σ (x − target)², a scalar."""
        difference = self.difference(x, target)
        squares = self.dot(difference, difference)
        self.add_scaled(y, factor, difference)
        return squares

    def total_variation(self, x, weight, out):
        """w/2 · Σ (x[i,j]−x[i,j+1])² + (x[i,j]−x[i+1,j])² over the (H−1)×(W−1) block.

        Returns the value; the gradient is added to `out`.
        """
        block = x[..., :-1, :-1]
        right, below = block - x[..., :-1, 1:], block - x[..., 1:, :-1]
        value = weight / 2 * (self.dot(right, right) + self.dot(below, below))
        right *= weight
        below *= weight
        out[..., :-1, :-1] += right
        out[..., :-1, :-1] += below
        out[..., :-1, 1:] -= right
        out[..., 1:, :-1] -= below
        return value

    # Optimisers

    def halvings(self, x, count):
        """x (1, C, H, W) halved once, twice, and up to `count` times, at most three; a list (see `halve`)."""
        found = []
        for _ in range(count):
            x = self.halve(x)
            found.append(x)
        return found

    def add_halvings(self, x, weights, halvings, onto=None):
        """x ← weights[0] · x + half at twice the size, where `half` is the same of weights[1], halvings[0] and so on.

        That, or `onto` to which it is added in place; x and halvings may change in any case.
        """
        result = None
        for array, weight in zip([x, *halvings][::-1], weights[::-1], strict=True):
            result = self.scale(array, weight) if result is None else self.add_doubled(array, weight, result)
        return result if onto is None else self.add_scaled(onto, 1, result)

    def halve(self, x):
        """x (1, C, H, W) at half the size, ⌈H/2⌉ × ⌈W/2⌉: a quarter of the adjoint of what `add_doubled` adds.

        Along an axis ¼ x[2i−1] + ¾ x[2i] + ¾ x[2i+1] + ¼ x[2i+2] over 2; beyond an end lies the last value again where
        the length is even, and nothing behind an odd one.
        """
        for axis in (2, 3):
            x = np.moveaxis(x, axis, 0)
            even, odd = x[::2], x[1::2]
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
            before, after = np.concatenate([half[:1], half[:-1]]), np.concatenate([half[1:], half[-1:]])
            doubled = np.empty((2 * len(half), *half.shape[1:]), self.dtype)
            doubled[::2] = self._scalar(0.75) * half + self._scalar(0.25) * before
            doubled[1::2] = self._scalar(0.75) * half + self._scalar(0.25) * after
            half = np.moveaxis(doubled[: x.shape[axis]], 0, axis)
        np.multiply(x, self._scalar(factor), out=x)
        return np.add(x, half, out=x)

    def capture(self, function):
        """What `function()` does, as a function of `steady`: a device may replay what a steady call put on its queue.

        steady: this call does what the steady call before it did, with the same arrays and numbers.
        """
        return lambda steady=True: function()

    def adam_step(self, x, g, m, v, count, rate, beta1, beta2, epsilon):
        """One step of Adam (Kingma and Ba 2015, algorithm 1) in place on x and the moments m, v.

        count: (1,), the steps done, to which this one is added.
        """
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

    # L-BFGS (see optimize/lbfgs.py). steps, changes: (R, n), one pair s, y per row, used as a ring; products:
    # (2, R, R), s_i · y_j and y_i · y_j of rows i, j; ring: (3,), the row that takes the next pair, the number of pairs
    # before it, and the factor H₀ of the identity. Only the first `rows` rows have been written.

    def lbfgs_history(self, rows, size):
        """(steps, changes) with undefined contents."""
        return self.empty((rows, size)), self.empty((rows, size))

    def lbfgs_products(self, g, steps, changes, ring, rows):
        """Complete the newest pair, y ← g − y in its row; return (2, rows, 2): s and y of each row times y and g."""
        slot, g = int(ring[0]), g.reshape(-1)
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
        """Keep the newest pair if y · s > curvature; return what `lbfgs_step` multiplies vectors by for −rate · H g.

        The two-loop recursion on inner products alone: (2R + 1,), for the rows of steps, of changes, and for g.
        """
        slot, count, capacity, rows = int(ring[0]), int(ring[1]), products.shape[1], measured.shape[1]
        products[0, :rows, slot] = measured[0, :, 0]
        products[1, :rows, slot] = products[1, slot, :rows] = measured[1, :, 0]
        if products[0, slot, slot] > curvature:
            ring[2] = products[0, slot, slot] / products[1, slot, slot]
            slot, count = (slot + 1) % capacity, min(count + 1, capacity - 1)
            ring[:2] = slot, count
        order = (slot - count + np.arange(count)) % capacity  # oldest first
        sy, yy = (table[np.ix_(order, order)].astype(np.float64) for table in products)
        from_s, from_y = measured[:, order, 1]
        rate, scale, alpha, s = float(rate), float(ring[2]), np.empty(count), np.empty(count)
        along = -from_s  # s_i · q
        for i in reversed(range(count)):
            alpha[i] = along[i] / sy[i, i]
            along -= alpha[i] * sy[:, i]
        along = -scale * (from_y + yy @ alpha)  # y_i · r
        for i in range(count):
            s[i] = alpha[i] - along[i] / sy[i, i]
            along += s[i] * sy[i]
        coefficients = np.zeros(2 * capacity + 1)
        coefficients[order], coefficients[capacity + order] = rate * s, -rate * scale * alpha
        coefficients[-1] = -rate * scale
        return self.asarray(coefficients)

    def lbfgs_first_coefficients(self, l1, most, capacity, rate):
        """The same before there is a pair: a step of −rate · min(most, 1/l1) g; l1: a scalar."""
        coefficients = self.zeros((2 * capacity + 1,))
        coefficients[-1] = -rate / max(1 / most, float(l1))
        return coefficients

    def lbfgs_step(self, x, g, steps, changes, coefficients, ring, rows, longest):
        """x ← x + s with s the combination of rows and g, shortened to a norm of `longest` where it is longer.

        s and g go to the ring's next row. In place; x may be None for zeros. Returns x.
        """
        x = self.zeros(g.shape) if x is None else x
        slot, picture, g = int(ring[0]), x.reshape(-1), g.reshape(-1)
        of_steps, of_changes = coefficients[:rows], coefficients[len(steps) : len(steps) + rows]
        pieces = self.workers.split(len(g), 64)

        def combine(ends):
            squares = 0.0
            for first in range(*ends, _HISTORY_COLUMNS):
                part = slice(first, min(first + _HISTORY_COLUMNS, ends[1]))
                step = coefficients[-1] * g[part]
                step += of_steps @ steps[:rows, part]
                step += of_changes @ changes[:rows, part]
                steps[slot, part], changes[slot, part] = step, g[part]
                squares += float(step @ step)
            return squares

        norm = float(np.sqrt(sum(self.workers.run(combine, pieces))))
        share = longest / norm if norm > longest else 1.0

        def advance(ends):
            step = steps[slot, slice(*ends)]
            if share < 1:
                step *= share
            picture[slice(*ends)] += step

        self.workers.run(advance, pieces)
        return x

    # Helpers

    def _scalar(self, value):
        return self.dtype.type(value)

    def _padded(self, x, kernel, stride, pad, output, value):
        """x as it is where all windows lie inside, else a copy with a border of `value`."""
        bottom, right = (
            max(0, s * (o - 1) + k - p - n)
            for s, o, k, p, n in zip(stride, output, kernel, pad, x.shape[2:], strict=True)
        )
        if not (pad[0] or pad[1] or bottom or right):
            return x
        h, w = x.shape[2:]
        out = self.empty((*x.shape[:2], h + pad[0] + bottom, w + pad[1] + right))
        out.fill(value)
        out[..., pad[0] : pad[0] + h, pad[1] : pad[1] + w] = x
        return out

    def _padded_zeros(self, shape, kernel, stride, pad, output):
        """Zeros large enough for all windows, and the slices that hold the unpadded array."""
        h, w = shape[2:]
        size = (max(n + p, s * (o - 1) + k) for s, o, k, p, n in zip(stride, output, kernel, pad, (h, w), strict=True))
        inner = (..., slice(pad[0], pad[0] + h), slice(pad[1], pad[1] + w))
        return self.zeros((*shape[:2], *size)), inner

    def _cropped(self, x, inner):
        part = x[inner]
        return x if part.shape == x.shape else self.copy(part)

    def _pool_divisor(self, shape, kernel, stride, pad, output):
        """Elements that Caffe counts in each window, as an array (output height, output width)."""
        counts = []
        for n, k, s, p, o in zip(shape[2:], kernel, stride, pad, output, strict=True):
            start = np.arange(o) * s - p
            counts.append(np.minimum(start + k, n + p) - start)
        return np.multiply.outer(*counts).astype(self.dtype)

    def _channel_sum(self, x, size):
        """Sum over `size` channels centred on each, as a new array."""
        half = (size - 1) // 2
        out = self.copy(x)
        for shift in range(1, half + 1):
            out[:, shift:] += x[:, :-shift]
        for shift in range(1, size - half):
            out[:, :-shift] += x[:, shift:]
        return out


class Convolution:
    """Convolution (cross-correlation, as in Caffe) by im2col and GEMM, a strip of rows at a time.

    weight: (output channels, input channels / group, kernel height, kernel width); bias: (output channels,) or None.
    stride, dilation: (vertical, horizontal). pad is given per call: (top, left, bottom, right).
    """

    block_size = 1
    """Outputs along an axis of the blocks in which they are computed: rounding depends on all that is in a block."""

    supports_offset = False
    """Whether blocks can start any number of positions before the map (`BlockGrid.offset`)."""

    def __init__(self, ops, weight, bias, stride, dilation, group):
        self.ops, self.stride, self.dilation, self.group = ops, stride, dilation, group
        self._source = weight
        self.bias = None if bias is None else np.array(bias, ops.dtype)
        self.kernel = weight.shape[2:]
        self.extent = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, dilation, strict=True))

    @cached_property
    def weight(self):
        """The filters, contiguous and aligned; made when first needed, since the file's may be neither."""
        return np.require(self._source, self.ops.dtype, ["C", "A"])

    def engine(self, backward=False):
        """What does the work in this direction, for `cvstyle info --timings`."""
        return "im2col, BLAS"

    def output_size(self, size, pad):
        """(height, width) of the output for an input of this (height, width)."""
        return tuple((n + pad[i] + pad[i + 2] - self.extent[i]) // self.stride[i] + 1 for i, n in enumerate(size))

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        """(1, C, H, W) → ((1, output channels, *output_size), bias added; the prologue of its gradient or None).

        grid: see `BlockGrid`; without blocks it has no meaning. A pool in the epilogue needs `fuses_pool`.
        """
        y = self._correlate(x, pad)
        if not epilogue.relu:
            return y, None
        if not epilogue.saves:
            return np.maximum(y, 0, out=y), None
        y, bits = self.ops.relu(y, out=y)
        return y, ReluMask(bits)

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        """Gradient for the input of (height, width) `size`, given that of the output; the bias plays no part.

        prologue: that of `forward`, whose epilogue the gradient passes first; g may be overwritten then. grid: that of
        the gradient's map, where a transposed convolution is computed.
        """
        return self._transpose(g if prologue is None else self.ops.relu_backward(g, prologue.bits), size, pad)

    def fuses_pool(self, kernel, stride, pad):
        """Whether an epilogue can have this max pool."""
        return False

    def _correlate(self, x, pad):
        ops = self.ops
        out_h, out_w = self.output_size(x.shape[2:], pad)
        y = ops.empty((1, self.weight.shape[0], out_h, out_w))
        if self._is_pointwise(pad):
            padded = x[0]
        else:
            padded = ops.zeros((x.shape[1], x.shape[2] + pad[0] + pad[2], x.shape[3] + pad[1] + pad[3]))
            padded[:, pad[0] : pad[0] + x.shape[2], pad[1] : pad[1] + x.shape[3]] = x[0]
        sources, targets = self._groups(padded), self._groups(y[0].reshape(y.shape[1], -1))

        def strip(piece):
            group, first, last = piece
            columns = self._columns(sources[group], first, last, out_w, pad)
            np.matmul(self._matrices[group], columns, out=targets[group][:, first * out_w : last * out_w])

        ops.workers.run(strip, [(i, *ends) for i in range(self.group) for ends in self._strips(out_h, out_w)])
        if self.bias is not None:
            y += self.bias[:, None, None]
        return y

    def _transpose(self, g, size, pad):
        ops = self.ops
        out_h, out_w = g.shape[2:]
        channels = self.weight.shape[1] * self.group
        pointwise = self._is_pointwise(pad)
        padded = (ops.empty if pointwise else ops.zeros)(
            (channels, size[0] + pad[0] + pad[2], size[1] + pad[1] + pad[3])
        )
        sources, targets = self._groups(g[0].reshape(g.shape[1], -1)), self._groups(padded)

        def share(piece):
            """The gradient for some of the input channels of a group, so that no two pieces add to one place."""
            group, start, end = piece
            source, target = sources[group], targets[group][start:end]
            taps = math.prod(self.kernel)
            weight = self._matrices[group][:, start * taps : end * taps].T
            if pointwise:
                np.matmul(weight, source, out=target.reshape(end - start, -1))
                return
            for first, last in self._strips(out_h, out_w):
                columns = ops.empty((len(weight), (last - first) * out_w))
                np.matmul(weight, source[:, first * out_w : last * out_w], out=columns)
                columns = columns.reshape(end - start, *self.kernel, last - first, out_w)
                for (ky, kx), rows, cols in self._taps(first, last, out_w):
                    target[:, rows, cols] += columns[:, ky, kx]

        parts = (
            ops.workers.split(channels // self.group)
            if self.group < ops.workers.count
            else [(0, channels // self.group)]
        )
        ops.workers.run(share, [(i, *ends) for i in range(self.group) for ends in parts])
        inner = padded[:, pad[0] : pad[0] + size[0], pad[1] : pad[1] + size[1]]
        if inner.shape == padded.shape:
            return padded[None]
        gx = ops.empty((1, *inner.shape))
        gx[0] = inner
        return gx

    def _is_pointwise(self, pad):
        return self.kernel == (1, 1) and self.stride == (1, 1) and not any(pad)

    @cached_property
    def _matrices(self):
        return self.weight.reshape(self.group, self.weight.shape[0] // self.group, -1)

    def _groups(self, x):
        return x.reshape(self.group, x.shape[0] // self.group, *x.shape[1:])

    def _strips(self, out_h, out_w):
        row = self.weight[0].size * out_w * self.ops.dtype.itemsize
        rows = max(1, min(_COLUMN_BYTES // row, -(-out_h // self.ops.workers.count)))
        return [(first, min(first + rows, out_h)) for first in range(0, out_h, rows)]

    def _taps(self, first, last, out_w):
        """For each kernel position, the rows and columns of the padded input that output rows first..last meet."""
        (sy, sx), (dy, dx) = self.stride, self.dilation
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                top, left = first * sy + ky * dy, kx * dx
                yield (
                    (ky, kx),
                    slice(top, top + (last - first - 1) * sy + 1, sy),
                    slice(left, left + (out_w - 1) * sx + 1, sx),
                )

    def _columns(self, padded, first, last, out_w, pad):
        """im2col of output rows first..last: (channels · kernel, rows · out_w)."""
        if self._is_pointwise(pad):
            return padded.reshape(padded.shape[0], -1)[:, first * out_w : last * out_w]
        columns = self.ops.empty((padded.shape[0], *self.kernel, last - first, out_w))
        for (ky, kx), rows, cols in self._taps(first, last, out_w):
            columns[:, ky, kx] = padded[:, rows, cols]
        return columns.reshape(-1, (last - first) * out_w)


def _block(start, shape):
    return tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))


def _windows(x, kernel, stride, output):
    """Strided views of x, one for each position in the window, each of the output's height and width."""
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            yield x[
                ...,
                ky : ky + stride[0] * (output[0] - 1) + 1 : stride[0],
                kx : kx + stride[1] * (output[1] - 1) + 1 : stride[1],
            ]


def _power(x, power, scale, shift):
    return (scale * x + shift) ** power


# name -> (f(x, *parameters), derivative(saved, *parameters), what the derivative is computed from)
_FUNCTIONS = {
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), lambda y: y * (1 - y), "y"),
    "tanh": (np.tanh, lambda y: 1 - y * y, "y"),
    "elu": (lambda x, a: np.where(x > 0, x, a * np.expm1(x)), lambda y, a: np.where(y > 0, 1, y + a), "y"),
    "abs": (np.abs, np.sign, "x"),
    "power": (_power, lambda x, p, a, b: p * a * (a * x + b) ** (p - 1), "x"),
    "linear": (lambda x, a, b: a * x + b, lambda _, a, b: a, None),
    "exp": (lambda x, a, b: np.exp(a * x + b), lambda y, a, b: a * y, "y"),
    "log": (lambda x, c, a, b: c * np.log(a * x + b), lambda x, c, a, b: c * a / (a * x + b), "x"),
}
