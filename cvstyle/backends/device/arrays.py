"""Arrays of a device: creation, copies and arithmetic by element."""

from __future__ import annotations

import math

import numpy as np

from ...errors import DeviceError
from .array import Array, ScalarFuture

_GATHERED = 8  # most numbers that `gather` in copy.cl takes


class Arrays:
    """A part of `backend.Backend`."""

    # Creation and copies

    def empty(self, shape, dtype=np.float32, persistent=False):
        """persistent: see `DevicePool.empty`."""
        dtype = np.dtype(dtype)
        shape = tuple(shape)
        size = math.prod(shape)
        if (shape[1] if len(shape) == 2 else size) >= 2**31:  # kernels count further along the first axis of matrices
            raise DeviceError(f"an array of shape {shape} has more elements than the kernels can count (2^31)")
        block = self._checked("allocate", self.pool.empty, size * dtype.itemsize, persistent)
        return Array(self, block, shape, dtype)

    def zeros(self, shape):
        array = self.empty(shape)
        self._each("elementwise", "fill", array.size, array, 0.0, array.size)
        return array

    def bits(self, count):
        """An array with room for this many bits."""
        return self.empty((-(-count // 32),), np.uint32)

    def asarray(self, host):
        if isinstance(host, Array) and host.ops is self:
            return self.copy(host)
        array = self.empty(np.shape(host))
        if array.size:
            self.upload(array, np.ascontiguousarray(host, np.float32))
        return array

    def upload(self, array, host):
        """Fill an array from a contiguous host array of its size and dtype."""
        array.block.abs_max = None
        self._checked("upload", self.device.upload, array.block.view, host)

    def upload_filters(self, host):
        """A copy of packed filters, which stay as long as their network."""
        array = self.empty(host.shape, host.dtype, persistent=True)
        self.upload(array, host)
        self.filter_bytes += array.nbytes
        return array

    def to_host(self, array):
        host = np.empty(array.shape, array.dtype)
        if host.size:
            self.downloads += 1
            self._checked("download", self.device.download, host, array.block.view)
        return host

    def copy_to_host_async(self, scalars):
        """Start to copy scalars to the host; returns a `ScalarFuture`, whose result waits for them alone."""
        together = self.empty((len(scalars),))
        for place in range(0, len(scalars), _GATHERED):
            arrays = [scalar.array for scalar in scalars[place : place + _GATHERED]]
            unused = [None] * (_GATHERED - len(arrays))
            self.launch("copy", "gather", (1, 1, 1), (together, place, len(arrays), *arrays, *unused), _GATHERED)
        self.downloads += 1
        wait = self._checked("download", self.device.start_download, together.block.view, together.nbytes)
        return ScalarFuture(scalars, lambda: self._checked("download", wait))

    def copy(self, array):
        result = self.empty(array.shape, array.dtype)
        self._checked("copy", self.device.copy, result.block.view, array.block.view, array.nbytes)
        return result

    def receive(self, array):
        if not isinstance(array, Array):
            return self.asarray(array)
        if array.ops is self:
            return array
        transfer = getattr(self.device, "transfer", None)
        if transfer is None or type(array.ops.device) is not type(self.device):
            return self.asarray(array.ops.to_host(array))
        result = self.empty(array.shape, array.dtype)
        self._checked("transfer", transfer, result.block.view, array.ops.device, array.block.view, array.nbytes)
        return result

    def materialize(self, array):
        _ = array.block  # puts the work that fills it on the queue (`Array.pending`)
        return array

    def finish(self, arrays):
        """Wait until these arrays hold their numbers; None counts as none."""
        for array in arrays:
            if array is not None:
                self.materialize(array)
        self._checked("wait", self.device.synchronize)

    def cut(self, array, axis, shapes):
        parts = []
        start = [0] * len(array.shape)
        for shape in shapes:
            parts.append(self.empty(shape))
            self.copy_block(parts[-1], (0,) * len(shape), array, start, shape)
            start[axis] += shape[axis]
        return parts

    def copy_block(self, target, target_start, source, source_start, shape):
        shape = list(shape)
        t = list(target.shape)
        s = list(source.shape)
        t_start = list(target_start)
        s_start = list(source_start)
        for i in reversed(range(len(shape) - 1)):
            if shape[i + 1] == t[i + 1] == s[i + 1]:  # whole rows on both sides: one axis
                n = shape.pop(i + 1)
                shape[i] *= n
                for extents, start in ((t, t_start), (s, s_start)):
                    extents.pop(i + 1)
                    extents[i] *= n
                    start.pop(i + 1)
                    start[i] *= n
        n = four_extents(shape)
        t_strides = strides_of(t)
        s_strides = strides_of(s)
        t_first = sum(map(int.__mul__, t_start, t_strides))
        s_first = sum(map(int.__mul__, s_start, s_strides))
        self._each(
            "copy", "copy_block", math.prod(n), target, source, math.prod(n), *n[1:],
            t_first, *four_extents(t_strides)[:3], s_first, *four_extents(s_strides)[:3],
        )  # fmt: skip

    # Arithmetic by element

    def scale(self, x, factor):
        self._each("elementwise", "scale", x.size, x, *self.factor(factor), x.size)
        return x

    def add_scaled(self, y, factor, x):
        self._each("elementwise", "add_scaled", y.size, y, *self.factor(factor), x, y.size)
        return y

    def multiply(self, x, y, out=None):
        return self._broadcast("multiply", x, (y,), out)

    def affine(self, x, factor, shift, out=None):
        if factor is None:
            return self._broadcast("add", x, (shift,), out)
        if shift is None:
            return self._broadcast("multiply", x, (factor,), out)
        if factor.shape == shift.shape:
            return self._broadcast("multiply_add", x, (factor, shift), out)
        product = self._broadcast("multiply", x, (factor,), out)
        return self._broadcast("add", product, (shift,), product)

    def maximum(self, x, y):
        out = self.empty(x.shape)
        mask = self.bits(x.size)
        self._each("elementwise", "maximum", x.size, x, y, out, mask, x.size)
        return out, mask

    def select(self, g, mask):
        parts = self.empty(g.shape), self.empty(g.shape)
        self._each("elementwise", "select_parts", g.size, g, mask, *parts, g.size)
        return parts

    def difference(self, x, y):
        out = self.empty(x.shape)
        self._each("elementwise", "difference", x.size, x, y, out, x.size)
        return out

    def _broadcast(self, kernel, x, operands, out):
        out = self.empty(x.shape) if out is None else out
        arguments = (x, *operands, out, x.size, *_broadcast_strides(x.shape, operands[0].shape))
        self._each("elementwise", kernel, x.size, *arguments)
        return out


def strides_of(shape):
    """Elements from one entry to the next, along each axis of a contiguous array."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def four_extents(extents):
    """Four extents, ones before those given."""
    if len(extents) > 4:
        raise DeviceError(f"arrays of {len(extents)} axes are not supported on a device")
    return [1] * (4 - len(extents)) + list(extents)


def _broadcast_strides(shape, operand):
    """STRIDES of elementwise.cl: extents 1 to 3 of four, and the operand's four strides, 0 where it repeats."""
    groups = []  # [extent, whether the operand repeats], neighbouring axes of one kind joined
    for n, m in zip(shape, operand, strict=True):
        if n == 1:
            continue
        if groups and groups[-1][1] == (m == 1):
            groups[-1][0] *= n
        else:
            groups.append([n, m == 1])
    extents = four_extents([n for n, _ in groups])
    repeats = [True] * (4 - len(groups)) + [r for _, r in groups]
    strides = strides_of([1 if r else n for n, r in zip(extents, repeats, strict=True)])
    return (*extents[1:], *(0 if r else s for r, s in zip(repeats, strides, strict=True)))
