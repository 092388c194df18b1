"""Operations of the engine on arrays of host memory."""

from __future__ import annotations

import ctypes
import math

import numpy as np

from .. import reference
from . import winograd
from .general import PANEL, GeneralConvolution
from .library import General, Pooling, address, chosen_variant, function, unavailable_because
from .winograd import SLACK, WinogradConvolution

_DOT_BLOCK = 1 << 14  # values that one partial sum of `dot` is over
_SUMS = 64  # partial sums over vectors of L-BFGS
_HALF = np.dtype("V2")  # bits of a bfloat16
_ZERO = np.zeros(1, np.int64)


class Backend(reference.Backend):
    """float32 only."""

    name = "native"
    priority = 15
    fuses_pooling = True
    history_itemsize = 2

    @classmethod
    def unavailable_because(cls):
        return unavailable_because()

    def __init__(self, threads=None, variant: str | None = None, pool=None):
        """variant: one of `variants()`; None: the best, or the one that CVSTYLE_CPU names."""
        super().__init__("float32", threads, pool)
        self.variant = variant or chosen_variant()
        self._products = {}

    def call(self, name: str, *arguments):
        """Run an operation of the engine. arguments: all but the last, the number of threads; arrays are contiguous."""
        return function(name, self.variant)(*map(address, arguments), self.workers.count)

    def copy(self, array):
        copy = self.empty(array.shape)
        if not array.flags.c_contiguous:
            copy[...] = array
            return copy
        self.call("copy", copy, array, array.size)
        return copy

    def copy_block(self, target, target_start, source, source_start, shape):
        whole = all(n == a.shape[axis] for a in (target, source) for axis, n in enumerate(shape) if axis > 1)
        if not (whole and shape[0] == 1 and target.flags.c_contiguous and source.flags.c_contiguous):
            return super().copy_block(target, target_start, source, source_start, shape)
        t, s = (a[start[0], start[1] :] for a, start in ((target, target_start), (source, source_start)))
        self.call("copy", t, s, math.prod(shape))

    def add_scaled(self, y, factor, x):
        if not (y.flags.c_contiguous and x.flags.c_contiguous and y.shape == x.shape):
            return super().add_scaled(y, factor, x)
        self.call("add_scaled", y, float(factor), x, y.size)
        return y

    def dot(self, x, y):
        work = self.pool.empty((-(-x.size // _DOT_BLOCK),), "float64")
        x = np.ascontiguousarray(x)
        y = np.ascontiguousarray(y)
        return self.call("dot", x, y, x.size, work)

    def relu(self, x, slope=0.0, out=None):
        if not (isinstance(slope, float) and slope == 0):
            return super().relu(x, slope, out)
        out = self.empty(x.shape) if out is None else out
        mask = self.bits(1, x.size)
        self.call("relu", x, out, mask, 1, x.size)
        return out, mask

    def relu_backward(self, g, mask, slope=0.0):
        if not (isinstance(slope, float) and slope == 0):
            return super().relu_backward(g, mask, slope)
        self.call("relu_backward", g, mask, 1, g.size)
        return g

    def clip(self, x, low, high, closed=True, out=None):
        out = self.empty(x.shape) if out is None else out
        mask = self.bits(1, x.size)
        self.call("clip", x, out, mask, float(low), float(high), int(closed), x.size)
        return out, mask

    def bits(self, planes, size):
        """Memory for a bit per element, each plane from a byte of its own on."""
        return self.pool.empty((planes * -(-size // 8) + SLACK,), np.uint8)

    def gram(self, x, factor):
        channels = x.shape[1]
        positions = x[0, 0].size
        g = self.empty((channels, channels))
        work = self.empty((self.call("gram_work", channels, positions),))
        self.call("gram", x, channels, positions, float(factor), g, work)
        return g

    def gram_backward(self, d, x, factor, out=None):
        positions = x[0, 0].size
        g = self.empty(x.shape) if out is None else out
        weight = self.empty((-(-len(d) // PANEL) * PANEL, len(d)))
        self.call("symmetric_panels", d, len(d), float(factor), weight)
        key = len(d), positions, out is not None
        if key not in self._products:
            self._products[key] = self.prepare(
                "product", General, channels=len(d), groups=1, outputs=len(d), height=1, width=positions, step_y=1,
                step_x=1, taps=1, dy=_ZERO, dx=_ZERO, out_height=1, out_width=positions, plane=positions,
                row=positions, column=1, accumulate=out is not None,
            )  # fmt: skip
        self._products[key](x=x, weight=weight, y=g)
        return g

    def total_variation(self, x, weight, out):
        work = self.pool.empty((x.shape[1] * x.shape[2],), "float64")
        return self.call("total_variation", x, *x.shape[1:], float(weight), out, work)

    def halve(self, x):
        half = self.empty((*x.shape[:2], *(-(-n // 2) for n in x.shape[2:])))
        self.call("halve", x, *x.shape[1:], half)
        return half

    def add_doubled(self, x, factor, half):
        self.call("add_doubled", x, *x.shape[1:], float(factor), half)
        return x

    def asarray(self, host):
        if getattr(host, "dtype", None) != _HALF:
            return super().asarray(host)
        array = self.pool.empty(host.shape, _HALF)
        array[...] = host
        return array

    # The history of L-BFGS is bfloat16: 20 pairs of it are worth 20 of float32 (docs/performance.md). Behind the rows
    # of changes there are two more, which hold the last gradient in float32.

    def lbfgs_history(self, rows, size):
        return self.pool.empty((rows, size), _HALF), self.pool.empty((rows + 2, size), _HALF)

    def lbfgs_products(self, g, steps, changes, ring, rows):
        slot = int(ring[0])
        capacity = len(steps)
        self._clear_skipped(steps, changes, ring, rows)
        products = np.empty((2, rows, 2))
        work = self.pool.empty((_SUMS * products.size,), "float64")
        self.call("lbfgs_products", g, steps, changes, slot, rows, capacity, g.size, products, work)
        return products

    def lbfgs_step(self, x, g, steps, changes, coefficients, ring, rows, max_norm):
        x = self.zeros(g.shape) if x is None else x
        work = self.pool.empty((_SUMS,), "float64")
        sizes = int(ring[0]), rows, len(steps), g.size
        self.call("lbfgs_step", x, g, steps, changes, coefficients, *sizes, float(max_norm), work)
        return x

    def convolution(self, weight, bias, stride, dilation, group):
        fits = winograd.fits(weight.shape, stride, dilation, group)
        kind = WinogradConvolution if fits else GeneralConvolution
        return kind(self, weight, bias, stride, dilation, group)

    def max_pool(self, x, kernel, stride, pad, output):
        y = self.empty((*x.shape[:2], *output))
        winner = self.pool.empty(y.shape, np.min_scalar_type(math.prod(kernel) - 1))
        self._pool("max_pool", x.shape, kernel, stride, pad, output, winner)(x=x, y=y)
        return y, winner

    def max_pool_backward(self, g, winner, shape, kernel, stride, pad):
        gx = self.empty(shape)
        self._pool("max_pool_backward", shape, kernel, stride, pad, g.shape[2:], winner)(x=g, y=gx)
        return gx

    def avg_pool(self, x, kernel, stride, pad, output):
        y = self.empty((*x.shape[:2], *output))
        self._pool("avg_pool", x.shape, kernel, stride, pad, output)(x=x, y=y)
        return y

    def avg_pool_backward(self, g, shape, kernel, stride, pad):
        gx = self.empty(shape)
        self._pool("avg_pool_backward", shape, kernel, stride, pad, g.shape[2:])(x=g, y=gx)
        return gx

    def _pool(self, name, shape, kernel, stride, pad, output, winner=None):
        return self.prepare(
            name, Pooling, planes=shape[0] * shape[1], height=shape[2], width=shape[3], kernel_y=kernel[0],
            kernel_x=kernel[1], step_y=stride[0], step_x=stride[1], pad_y=pad[0], pad_x=pad[1], out_height=output[0],
            out_width=output[1], winner=winner, winner_size=0 if winner is None else winner.itemsize,
        )  # fmt: skip

    def prepare(self, name: str, form: type, **fields):
        """An operation whose arguments are a structure, as a function of the arrays that change from call to call.

        fields: those that stay; a field that neither they nor the call give is 0.
        """
        prepared = form(threads=self.workers.count)
        for field, value in fields.items():
            setattr(prepared, field, address(value))
        call = function(name, self.variant)
        size = function(f"{name}_work", self.variant)(ctypes.byref(prepared))

        def run(fields=fields, **arrays):  # `fields` keeps their arrays alive: the structure has addresses only
            arguments = form.from_buffer_copy(prepared)
            for field, array in arrays.items():
                setattr(arguments, field, None if array is None else address(array))
            work = self.empty((size,))
            arguments.work = address(work)
            call(ctypes.byref(arguments))

        return run
