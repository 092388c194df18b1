"""Sums and maxima on a device, in two stages of fixed order."""

from __future__ import annotations

import math

from .array import Scalar
from .arrays import four_extents, strides_of

GROUP = 256  # work-items of a group (GROUP in portable.h)
_SPAN = 8192  # least number of elements for one group
_ALONE = 32  # most elements of a sum for which a work-item is enough
_MANY = 4096  # outputs for which a work-item each fills the device


class Reductions:
    """A part of `backend.Backend`."""

    def dot(self, x, y):
        return self._reduce("sum_of_products", "total", x, y)

    def l1(self, x):
        return self._reduce("sum_of_magnitudes", "total", x, x)

    def abs_max(self, x):
        return self._reduce("largest_magnitude", "largest", x, x)

    def cached_abs_max(self, x):
        """An array of max |x| where kernels scale operands to fp16, else of any number.

        It is computed only where the kernel that wrote x has not left it in `Block.abs_max`.
        """
        if self.operand_format != "fp16":
            return self.constant(1.0)
        if x.block.abs_max is None:
            x.block.abs_max = self.abs_max(x).array
        return x.block.abs_max

    def sum_of_scalars(self, u, v):
        """The sum of two scalars of the device, as one."""
        out = self.empty((1,))
        self.launch("reduce", "add_factors", (1, 1, 1), (*self.factor(u), *self.factor(v), out), threads=1)
        return Scalar(out)

    def sum_over(self, x, shape):
        out = self.empty(shape)
        axes = {True: [], False: []}  # summed or not -> [extent, stride], neighbouring axes of one kind joined
        last = None
        for n, m, stride in reversed(list(zip(x.shape, shape, strides_of(x.shape), strict=True))):
            summed = m == 1
            if n == 1:
                continue
            if summed is last:
                axes[summed][0][0] *= n
            else:
                axes[summed].insert(0, [n, stride])
            last = summed
        arguments = []
        for summed in (False, True):
            extents = four_extents([n for n, _ in axes[summed]])
            strides = [s for _, s in axes[summed]]
            arguments.append((*extents[1:], *[0] * (4 - len(strides)), *strides))
        count = math.prod(n for n, _ in axes[True])
        blocks = (out.size, *arguments[0], count, *arguments[1])
        neighbours = arguments[0][-1] == 1  # outputs that lie together in x
        if count <= _ALONE or (neighbours and out.size >= _MANY):
            self._each("reduce", "sum_over_alone", out.size, x, out, *blocks)
            return out
        spans, span = reduction_groups(count)
        parts = out if spans == 1 else self.empty((out.size, spans))
        self.launch("reduce", "sum_over", (out.size, spans, 1), (x, parts, span, *blocks))
        return out if spans == 1 else self.sum_over(parts, (out.size, 1)).reshape(shape)

    def _reduce(self, kernel, second, x, y):
        groups, span = reduction_groups(x.size)
        parts = self.empty((groups,))
        result = self.empty((1,))
        self.launch("reduce", kernel, (groups, 1, 1), (x, y, parts, result, self.counters(1), x.size, span))
        return self._second_stage(second, parts, result, groups)

    def _second_stage(self, kernel, parts, result, groups):
        """The Scalar of a reduction; the kernel joins the groups' parts where the first launch cannot."""
        if groups > 1 and not self.device.single_pass_reductions:
            self.launch("reduce", kernel, (1, 1, 1), (parts, result, groups))
        return Scalar(result)


def reduction_groups(size):
    """(groups of a reduction, elements for each)"""
    groups = max(1, min(GROUP, size // _SPAN))
    return groups, -(-size // groups)
