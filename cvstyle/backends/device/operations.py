"""The operations of `numpy.Backend` as kernels of a device."""

from __future__ import annotations

import math
import threading
from functools import cached_property

import numpy as np

from ...errors import DeviceError, OptionError, nearest
from .. import base
from . import picture, tensor, trust
from .array import Array, Scalar, ScalarFuture
from .compiler import Kernels, digest
from .convolution import Convolution
from .losses import GROUP, Losses
from .pool import DevicePool
from .recording import Repeated
from .tuning import Choices

_GATHERED = 8  # numbers that `gather` takes
_STEP_GROUPS = 1024  # that combine L-BFGS's history
_FUNCTIONS = {  # as in functions.cl; what map_backward needs as in numpy.py
    "sigmoid": (0, "y"), "tanh": (1, "y"), "elu": (2, "y"), "abs": (3, "x"), "power": (4, "x"), "linear": (5, None),
    "exp": (6, "y"), "log": (7, "x"),
}  # fmt: skip
_LARGEST_HISTORY = 2000  # the products of that many pairs with a gradient are held in local memory


class Backend(Losses, base.Backend):
    """The operations that `numpy.Backend` defines, in float32, on one device."""

    name = "device"
    fuses_pooling = True
    asynchronous = True
    history_itemsize = 4
    dtype = np.dtype(np.float32)

    def __init__(self, device, precision="fp32"):
        """precision: "fp32", or what convolutions and Gram matrices take their operands for (`tensor.PRECISIONS`).

        Raises OptionError where the device has no tensor cores for it.
        """
        if precision not in ("fp32", *tensor.PRECISIONS):
            raise OptionError(f"unknown precision '{precision}': {nearest(precision, ('fp32', *tensor.PRECISIONS))}")
        if precision != "fp32" and device.no_tensor_cores:
            raise OptionError(f"precision {precision} cannot be had: {device.no_tensor_cores}; use precision fp32")
        self.device, self.precision = device, precision
        self.word, self.split = precision.removesuffix("-fast"), precision in tensor.WORDS
        self.pool = DevicePool(device)
        self.lock = threading.RLock()
        self.downloads = 0
        """How often numbers were copied to the host, each time waiting for the device."""
        self.weights = 0
        """Bytes of packed filters."""
        self.recorded_peak, self.recording_problem = 0, ""
        """The most memory that `repeated` work took of its own, and why the device did not record it."""
        self.autotune = device.tunes
        """Whether convolutions take the fastest way that is measured, instead of the one estimated to be."""
        self._kernels = Kernels(device)
        self._constants, self._counters = {}, {}

    def __repr__(self):
        return f"<{self.name} backend on {self.device.name}>"

    @cached_property
    def choices(self):
        """What was measured to be fastest."""
        return Choices(self.device, digest(), seconds=self.seconds, prepare=self.prepare)

    @property
    def wgmma(self):
        """Whether Hopper's own instruction is among the ways of tensor cores: where it is right, and ways are timed."""
        wanted = self.device.wgmma
        return self.autotune and self._wgmma_is_right if wanted is None else wanted

    @cached_property
    def _wgmma_is_right(self):
        return trust.is_right(self.device, self.word)

    # Arrays

    def empty(self, shape, dtype=np.float32, lasting=False):
        dtype, shape = np.dtype(dtype), tuple(shape)
        size = math.prod(shape)
        if (shape[1] if len(shape) == 2 else size) >= 2**31:  # kernels count further along the first axis of matrices
            raise DeviceError(f"an array of shape {shape} has more elements than the kernels can count (2^31)")
        return Array(self, self._checked("allocate", self.pool.empty, size * dtype.itemsize, lasting), shape, dtype)

    def zeros(self, shape):
        array = self.empty(shape)
        self._each("elementwise", "fill", array.size, array, 0.0, array.size)
        return array

    def asarray(self, host):
        if isinstance(host, Array) and host.ops is self:
            return self.copy(host)
        array = self.empty(np.shape(host))
        if array.size:
            self.upload(array, np.ascontiguousarray(host, np.float32))
        return array

    def upload(self, array, host):
        """Fill an array from a contiguous host array of its size and dtype."""
        array.block.largest = None
        self._checked("upload", self.device.upload, array.block.view, host)

    def filters(self, host):
        """A copy of packed filters, which stay as long as their network."""
        array = self.empty(host.shape, host.dtype, lasting=True)
        self.upload(array, host)
        self.weights += array.nbytes
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
        arrived = self._checked("download", self.device.start_download, together.block.view, together.nbytes)
        return ScalarFuture(scalars, lambda: self._checked("download", arrived))

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

    def trim(self):
        self.pool.trim()

    def cut(self, array, axis, shapes):
        parts, start = [], [0] * len(array.shape)
        for shape in shapes:
            parts.append(self.empty(shape))
            self.copy_block(parts[-1], (0,) * len(shape), array, start, shape)
            start[axis] += shape[axis]
        return parts

    def copy_block(self, target, target_start, source, source_start, shape):
        shape, t, s = list(shape), list(target.shape), list(source.shape)
        t_start, s_start = list(target_start), list(source_start)
        for i in reversed(range(len(shape) - 1)):
            if shape[i + 1] == t[i + 1] == s[i + 1]:  # whole rows on both sides: one axis
                n = shape.pop(i + 1)
                shape[i] *= n
                for extents, start in ((t, t_start), (s, s_start)):
                    extents.pop(i + 1)
                    extents[i] *= n
                    start.pop(i + 1)
                    start[i] *= n
        n = _four(shape)
        t_strides, s_strides = strides_of(t), strides_of(s)
        starts = (sum(map(int.__mul__, *pair)) for pair in ((t_start, t_strides), (s_start, s_strides)))
        t_first, s_first = starts
        self._each(
            "copy", "copy_block", math.prod(n), target, source, math.prod(n), *n[1:],
            t_first, *_four(t_strides)[:3], s_first, *_four(s_strides)[:3],
        )  # fmt: skip

    def memory_used(self) -> str:
        """The most memory that was in use at once, in words."""
        peak = (self.pool.peak + self.recorded_peak) / 1e6
        notes = [self.recording_problem, self.choices.problem if self.autotune else ""]
        used = f"at most {peak:.0f} MB in use, {self.weights / 1e6:.0f} MB of it filters"
        return "; ".join([used, *filter(None, notes)])

    # Arithmetic

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

    def sum_over(self, x, shape):
        out = self.empty(shape)
        axes = {True: [], False: []}  # summed or kept -> [extent, stride], neighbouring axes of one kind joined
        last = None
        for n, kept, stride in reversed(list(zip(x.shape, shape, strides_of(x.shape), strict=True))):
            summed = kept == 1
            if n == 1:
                continue
            if summed is last:
                axes[summed][0][0] *= n
            else:
                axes[summed].insert(0, [n, stride])
            last = summed
        arguments = []
        for summed in (False, True):
            extents, strides = _four([n for n, _ in axes[summed]]), [s for _, s in axes[summed]]
            arguments.append((*extents[1:], *[0] * (4 - len(strides)), *strides))
        count = math.prod(n for n, _ in axes[True])
        self.launch("reduce", "sum_over", (out.size, 1, 1), (x, out, *arguments[0], count, *arguments[1]))
        return out

    def maximum(self, x, y):
        out, mask = self.empty(x.shape), self.bits(x.size)
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

    # Reductions

    def peak(self, x):
        """An array of max |x| where the kernels need it to make numbers fit fp16, else of any number.

        It is computed from x only where the kernel that wrote x has not left it behind (`Block.largest`).
        """
        if self.word != "fp16":
            return self.constant(1.0)
        found = x.block.largest
        if found is None:
            found = x.block.largest = self.abs_max(x).array
        return found

    def sum_of_scalars(self, u, v):
        """The sum of two scalars of the device, as one."""
        out = self.empty((1,))
        self.launch("reduce", "add_factors", (1, 1, 1), (*self.factor(u), *self.factor(v), out), threads=1)
        return Scalar(out)

    def factor(self, value):
        """A number or Scalar as kernels take it (FACTOR in portable.h)."""
        if isinstance(value, Scalar):
            return (value.array, *value.form)
        return (self.constant(0.0), 0.0, float(value), 0.0, 1.0)

    def constant(self, value):
        """An array of one number, made once."""
        if value not in self._constants:
            self._constants[value] = self.asarray([value])
        return self._constants[value]

    def counters(self, count):
        """Zeros, `count` or more of 32 bits each, made once: kernels count in them and leave zeros behind.

        All of them share these, since work is done in order."""
        size = 1 << max(8, (count - 1).bit_length())
        if size not in self._counters:
            self._counters[size] = self.zeros((size,))
        return self._counters[size]

    # Activations

    def relu(self, x, slope=0.0, out=None):
        out, mask = self.empty(x.shape) if out is None else out, self.bits(x.size)
        self._each("elementwise", "relu", x.size, x, out, mask, *self._slopes(x, slope), x.size)
        return out, mask

    def relu_backward(self, g, mask, slope=0.0):
        self._each("elementwise", "relu_backward", g.size, g, mask, *self._slopes(g, slope), g.size)
        return g

    def bits(self, count):
        """Room for so many bits."""
        return self.empty((-(-count // 32),), np.uint32)

    def map(self, function, x, parameters=(), out=None):
        number, saves = _FUNCTIONS[function]
        y = self.empty(x.shape) if out is None or saves == "x" else out
        self._map("map_forward", number, x, y, parameters)
        return y, {"x": x, "y": y, None: None}[saves]

    def map_backward(self, function, g, saved, parameters=()):
        self._map("map_backward", _FUNCTIONS[function][0], g, saved, parameters)
        return g

    def softmax(self, x):
        y = self.empty(x.shape)
        self._each("channels", "softmax", _plane(x), x, y, _plane(x), x.shape[1])
        return y

    def softmax_backward(self, g, y):
        self._each("channels", "softmax_backward", _plane(g), g, y, _plane(g), g.shape[1])
        return g

    # Convolution and pooling

    def convolution(self, weight, bias, stride, dilation, group):
        if self._tensor and tensor.fits(weight.shape, stride, dilation, group, self.word):
            return tensor.TensorConvolution(self, weight, bias, stride, dilation, group)
        if picture.fits(weight.shape, stride, dilation, group):
            return picture.PictureConvolution(self, weight, bias, stride, dilation, group)
        return Convolution(self, weight, bias, stride, dilation, group)

    def max_pool(self, x, kernel, stride, pad, output):
        y = self.empty((*x.shape[:2], *output))
        winner = self.empty(y.shape, np.uint8 if math.prod(kernel) <= 256 else np.uint32)
        geometry = (*x.shape[2:], *output, *kernel, *stride, *pad)
        self._each("pooling", "max_pool", y.size, x, y, winner, y.size, *geometry, defines=_index(winner))
        return y, winner

    def max_pool_backward(self, g, winner, shape, kernel, stride, pad):
        gx = self.empty(shape)
        geometry = (*shape[2:], *g.shape[2:], *kernel, *stride, *pad)
        self._each("pooling", "max_pool_backward", gx.size, g, winner, gx, gx.size, *geometry, defines=_index(winner))
        return gx

    def avg_pool(self, x, kernel, stride, pad, output):
        y = self.empty((*x.shape[:2], *output))
        self._each("pooling", "avg_pool", y.size, x, y, y.size, *x.shape[2:], *output, *kernel, *stride, *pad)
        return y

    def avg_pool_backward(self, g, shape, kernel, stride, pad):
        gx = self.empty(shape)
        geometry = (*shape[2:], *g.shape[2:], *kernel, *stride, *pad)
        self._each("pooling", "avg_pool_backward", gx.size, g, gx, gx.size, *geometry)
        return gx

    def lrn(self, x, size, alpha, beta, k):
        y, s = self.empty(x.shape), self.empty(x.shape)
        arguments = (_plane(x), x.shape[1], size, alpha / size, float(beta), float(k), x.size)
        self._each("channels", "lrn", x.size, x, y, s, *arguments)
        return y, s

    def lrn_backward(self, g, x, s, size, alpha, beta):
        out = self.empty(x.shape)
        arguments = (_plane(x), x.shape[1], size, alpha / size, float(beta), x.size)
        self._each("channels", "lrn_backward", x.size, g, x, s, out, *arguments)
        return out

    # Optimisers

    def halvings(self, x, count):
        sizes = [x.shape[2:]]
        for _ in range(count):
            sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
        halvings = [self.empty((*x.shape[:2], *size)) for size in sizes[1:]]
        if halvings:
            arguments = (x, *_three(halvings), count, *x.shape[2:])
            self.launch("pyramid", "halvings", _squares(x), arguments)
        return halvings

    def add_halvings(self, x, weights, halvings, onto=None):
        weights = (*map(float, weights), 0.0, 0.0, 0.0)[:4]
        arguments = (x, *_three(halvings), onto, int(onto is not None), len(halvings), *weights, *x.shape[2:])
        self.launch("pyramid", "add_halvings", _squares(x), arguments)
        return x if onto is None else onto

    def capture(self, function):
        if not self.device.records:
            return lambda steady=True: function()
        return Repeated(self, function)

    def adam_step(self, x, g, m, v, count, rate, beta1, beta2, epsilon):
        rates, logarithms = self.empty((2,)), (math.log(beta1), math.log(beta2))
        self.launch("adam", "adam_rates", (1, 1, 1), (count, rates, float(rate), *logarithms, epsilon), threads=1)
        self._each("adam", "adam_step", x.size, x, g, m, v, rates, beta1, 1 - beta1, beta2, 1 - beta2, x.size)
        return x

    def lbfgs_history(self, rows, size):
        return self.empty((rows, size)), self.empty((rows, size))

    def lbfgs_products(self, g, steps, changes, ring, rows):
        n = g.size
        self._each("lbfgs", "complete_pair", n, g, changes, ring, n)
        span = _rounded_up(max(-(-n // 64), 2048), GROUP)
        shares = -(-n // span)
        parts = self.empty((shares, 2, rows, 2))
        groups = (shares, -(-rows // 4), 2)
        self.launch("lbfgs", "products", groups, (g, steps, changes, ring, parts, rows, n, span))
        return parts

    def lbfgs_coefficients(self, measured, products, ring, curvature, rate):
        shares, _, rows, _ = measured.shape
        capacity = products.shape[1]
        if capacity > _LARGEST_HISTORY:
            raise OptionError(
                f"an L-BFGS history of {capacity - 1} is too long for a device; {_LARGEST_HISTORY - 1} is not"
            )
        total, coefficients = self.empty((2, rows, 2)), self.empty((2 * capacity + 1,))
        arguments = (measured, total, products, ring, coefficients, rows, shares, float(curvature), float(rate))
        self.launch("lbfgs", "coefficients", (1, 1, 1), arguments, defines=(("CAPACITY", capacity),))
        return coefficients

    def lbfgs_first_coefficients(self, l1, most, capacity, rate):
        coefficients = self.empty((2 * capacity + 1,))
        size = coefficients.size
        arguments = (coefficients, *self.factor(l1), 1 / most, float(rate), size)
        self._each("lbfgs", "first_coefficients", size, *arguments)
        return coefficients

    def lbfgs_step(self, x, g, steps, changes, coefficients, ring, rows, longest):
        moved, n = self.empty(g.shape) if x is None else x, g.size
        groups = max(1, min(_STEP_GROUPS, -(-n // GROUP)))
        span, parts, squares = -(-n // groups), self.empty((groups,)), self.empty((1,))
        sums = parts, squares, self.counters(1)
        arguments = (g, steps, changes, coefficients, ring, *sums, steps.shape[0], rows, n, span)
        self.launch("lbfgs", "combine", (groups, 1, 1), arguments)
        squares = self._finished("total", parts, squares, groups).array
        self._each("lbfgs", "advance", n, moved, int(x is not None), steps, ring, squares, float(longest), n)
        return moved

    # Launches

    @property
    def wanted(self):
        """What was compiled so far, as (source, defines)."""
        return self._kernels.wanted

    def seconds(self, function):
        """`Device.seconds`, which may record what the function does."""
        pool = self.pool
        pool.hold()
        try:
            return self.device.seconds(function)
        finally:
            pool.release()

    def prepare(self, wanted, threads=None):
        """Compile kernels before they are needed, side by side (see `Kernels.prepare` and `rehearsal`)."""
        return self._kernels.prepare(wanted, threads)

    @property
    def _tensor(self):
        return self.precision != "fp32"

    def launch(self, source, kernel, groups, arguments, threads=GROUP, defines=()):
        """Put a kernel on the queue. arguments: arrays, None for an unused one, ints (int32) and floats (float32).

        Any array may be written, so what is known of its numbers is forgotten; who knows better sets it afterwards.
        """
        nothing = self._nothing
        values = []
        for a in arguments:
            kind = type(a)
            if kind is Array:
                a.block.largest = None
                values.append(a.block.view)
            elif kind is int:
                values.append(np.int32(a))
            elif a is None:
                values.append(nothing)
            else:
                values.append(np.float32(a))
        function = self._kernels.get(source, kernel, defines)
        self._checked(kernel, self.device.launch, function, groups, threads, values)

    def _each(self, source, kernel, count, *arguments, defines=()):
        """A kernel with a work-item for each of `count` elements."""
        if count:
            self.launch(source, kernel, (-(-count // GROUP), 1, 1), arguments, defines=defines)

    def _checked(self, operation, function, *arguments):
        try:
            return function(*arguments)
        except self.device.errors as error:
            raise DeviceError(f"operation '{operation}' failed on {self.device.name}: {error}") from error

    @cached_property
    def _nothing(self):
        """What a kernel gets for an array that it does not use."""
        self._unused = self.pool.empty(4)
        return self._unused.view

    def _broadcast(self, kernel, x, operands, out):
        out = self.empty(x.shape) if out is None else out
        arguments = (x, *operands, out, x.size, *_repeated(x.shape, operands[0].shape))
        self._each("elementwise", kernel, x.size, *arguments)
        return out

    def _slopes(self, x, slope):
        """(slopes, elements per slope, number of slopes)"""
        if isinstance(slope, Array):
            return slope, _plane(x), slope.size
        return self.constant(float(slope)), x.size, 1

    def _map(self, kernel, number, first, second, parameters):
        parameters = (*map(float, parameters), 0.0, 0.0, 0.0)[:3]
        defines = (("FUNCTION", number),)
        self._each("functions", kernel, first.size, first, second, *parameters, first.size, defines=defines)


def _plane(x):
    """Elements of one channel."""
    return math.prod(x.shape[2:])


def _three(halvings):
    return (*halvings, None, None, None)[:3]


def _squares(x):
    """Groups of the kernels in pyramid.cl."""
    return math.prod(-(-n // 64) for n in x.shape[2:]), math.prod(x.shape[:2]), 1


def _index(winner):
    return (("INDEX", "uchar" if winner.dtype == np.uint8 else "uint"),)


def _rounded_up(n, unit):
    return -(-n // unit) * unit


def strides_of(shape):
    """Elements from one entry to the next, along each axis of a contiguous array."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def _four(extents):
    """Four extents, ones before those given."""
    if len(extents) > 4:
        raise DeviceError(f"arrays of {len(extents)} axes are not supported on a device")
    return [1] * (4 - len(extents)) + list(extents)


def _repeated(shape, operand):
    """Extents 1 to 3 of four, and the operand's strides along all four, 0 where it repeats (see elementwise.cl)."""
    groups = []  # [extent, whether the operand repeats], neighbouring axes of one kind joined
    for n, m in zip(shape, operand, strict=True):
        if n == 1:
            continue
        if groups and groups[-1][1] == (m == 1):
            groups[-1][0] *= n
        else:
            groups.append([n, m == 1])
    extents = _four([n for n, _ in groups])
    repeats = [True] * (4 - len(groups)) + [r for _, r in groups]
    strides = strides_of([1 if r else n for n, r in zip(extents, repeats, strict=True)])
    return (*extents[1:], *(0 if r else s for r, s in zip(repeats, strides, strict=True)))
