"""An engine of our own in C: Winograd and direct convolutions with what surrounds them in the same pass.

It is a plain shared library (no Python API), built by setup.py where a compiler is found and loaded by ctypes, with one
variant per instruction set, the best of which is chosen at run time; CVSTYLE_CPU=portable, avx2 or avx512 asks for one.
What it does not do (local response normalisation, ...) is the reference's NumPy.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from functools import cache, cached_property
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np

from ...errors import OptionError
from .. import numpy as reference
from ..base import BIAS, UNPLACED, PoolWinners, ReluMask

PRIORITY = 15

_VARIANTS = ("portable", "avx2", "avx512")
_LEAST = 8  # channels from which on Winograd's transforms pay
_FEW = 4  # outputs of a group up to which `few` is faster than `product` (and the most that it can do)
_PANEL = 8
_BLOCK = 1 << 14
_MATRIX = 16  # positions below which a convolution is a product with a vector: NumPy, without packing the filters
_HALF = np.dtype("V2")  # bits of a bfloat16
_PARTS = 64  # of a sum over vectors of L-BFGS
_SOURCES = {type(None): 0, ReluMask: 1, PoolWinners: 2}  # as in engine.h: what the gradient's numbers stand for
_SLACK = 64  # bytes that the engine may read beyond the bits and bytes that it keeps


def problem() -> str | None:
    """Why this backend cannot be used here, or None."""
    if sys.byteorder != "little":
        return "the engine is for little-endian processors"
    if _path() is None:
        return "its library was not built (no C compiler at installation): reinstall with gcc or clang present"
    try:
        _library()
    except OSError as error:
        return f"its library cannot be loaded: {error}"
    return None


def variants() -> tuple[str, ...]:
    """The instruction sets that this processor has, the best last."""
    return _VARIANTS[: _library().cvstyle_variant() + 1]


def _chosen():
    """The instruction set to use. Raises OptionError where CVSTYLE_CPU asks for one that is not there."""
    asked = os.environ.get("CVSTYLE_CPU") or variants()[-1]
    if asked not in variants():
        raise OptionError(f"CVSTYLE_CPU is {asked}; this processor has {', '.join(variants())}")
    return asked


class Backend(reference.Backend):
    """float32 only. variant: one of `variants()`, by default the best or what CVSTYLE_CPU says."""

    name = "native"
    fuses_pooling = True
    history_itemsize = 2

    def __init__(self, threads=None, variant=None):
        super().__init__("float32", threads)
        self.variant = variant or _chosen()
        self._products = {}

    def call(self, name, *arguments):
        """Run an operation of the engine; arrays, which must be contiguous, go as pointers."""
        return _function(name, self.variant)(*map(_plain, arguments))

    def copy(self, array):
        copy = self.empty(array.shape)
        if not array.flags.c_contiguous:
            copy[...] = array
            return copy
        self.call("copy", copy, array, array.size, self.workers.count)
        return copy

    def copy_block(self, target, target_start, source, source_start, shape):
        whole = all(n == a.shape[axis] for a in (target, source) for axis, n in enumerate(shape) if axis > 1)
        if not (whole and shape[0] == 1 and target.flags.c_contiguous and source.flags.c_contiguous):
            return super().copy_block(target, target_start, source, source_start, shape)
        t, s = (a[start[0], start[1] :] for a, start in ((target, target_start), (source, source_start)))
        self.call("copy", t, s, math.prod(shape), self.workers.count)

    def add_scaled(self, y, factor, x):
        if not (y.flags.c_contiguous and x.flags.c_contiguous and y.shape == x.shape):
            return super().add_scaled(y, factor, x)
        self.call("add_scaled", y, float(factor), x, y.size, self.workers.count)
        return y

    def dot(self, x, y):
        work = self.pool.empty((-(-x.size // _BLOCK),), "float64")
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        return self.call("dot", x, y, x.size, work, self.workers.count)

    def relu(self, x, slope=0.0, out=None):
        if not (isinstance(slope, float) and slope == 0):
            return super().relu(x, slope, out)
        out = self.empty(x.shape) if out is None else out
        mask = self.bits(1, x.size)
        self.call("relu", x, out, mask, 1, x.size, self.workers.count)
        return out, mask

    def relu_backward(self, g, mask, slope=0.0):
        if not (isinstance(slope, float) and slope == 0):
            return super().relu_backward(g, mask, slope)
        self.call("relu_backward", g, mask, 1, g.size, self.workers.count)
        return g

    def bits(self, planes, size):
        """Memory for a bit per element, each plane from a byte of its own on."""
        return self.pool.empty((planes * -(-size // 8) + _SLACK,), np.uint8)

    def gram(self, x, factor):
        channels, positions = x.shape[1], x[0, 0].size
        g = self.empty((channels, channels))
        work = self.empty((self.call("gram_work", channels, positions, self.workers.count),))
        self.call("gram", x, channels, positions, float(factor), g, work, self.workers.count)
        return g

    def gram_backward(self, d, x, factor, out=None):
        positions = x[0, 0].size
        g = self.empty(x.shape) if out is None else out
        weight = self.empty((-(-len(d) // _PANEL) * _PANEL, len(d)))
        self.call("symmetric_panels", d, len(d), float(factor), weight, self.workers.count)
        key = len(d), positions, out is not None
        if key not in self._products:
            self._products[key] = self.prepared(
                "product", General, channels=len(d), groups=1, outputs=len(d), height=1, width=positions, step_y=1,
                step_x=1, taps=1, dy=_ZERO, dx=_ZERO, out_height=1, out_width=positions, plane=positions,
                row=positions, column=1, accumulate=out is not None,
            )  # fmt: skip
        self._products[key](x=x, weight=weight, y=g)
        return g

    def total_variation(self, x, weight, out):
        work = self.pool.empty((x.shape[1] * x.shape[2],), "float64")
        return self.call("total_variation", x, *x.shape[1:], float(weight), out, work, self.workers.count)

    def halve(self, x):
        half = self.empty((*x.shape[:2], *(-(-n // 2) for n in x.shape[2:])))
        self.call("halve", x, *x.shape[1:], half, self.workers.count)
        return half

    def add_doubled(self, x, factor, half):
        self.call("add_doubled", x, *x.shape[1:], float(factor), half, self.workers.count)
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
        slot, capacity = int(ring[0]), len(steps)
        self._clear_skipped(steps, changes, ring, rows)
        products = np.empty((2, rows, 2))
        work = self.pool.empty((_PARTS * products.size,), "float64")
        self.call(
            "lbfgs_products", g, steps, changes, slot, rows, capacity, g.size, products, work, self.workers.count
        )
        return products

    def lbfgs_step(self, x, g, steps, changes, coefficients, ring, rows, longest):
        x, work = self.zeros(g.shape) if x is None else x, self.pool.empty((_PARTS,), "float64")
        self.call(
            "lbfgs_step", x, g, steps, changes, coefficients, int(ring[0]), rows, len(steps), g.size, float(longest),
            work, self.workers.count,
        )  # fmt: skip
        return x

    def convolution(self, weight, bias, stride, dilation, group):
        return Convolution(self, weight, bias, stride, dilation, group)

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
        return self.prepared(
            name, Pooling, planes=shape[0] * shape[1], height=shape[2], width=shape[3], kernel_y=kernel[0],
            kernel_x=kernel[1], step_y=stride[0], step_x=stride[1], pad_y=pad[0], pad_x=pad[1], out_height=output[0],
            out_width=output[1], winner=winner, winner_size=0 if winner is None else winner.itemsize,
        )  # fmt: skip

    def prepared(self, name, form, **fields):
        """An operation whose arguments are a structure, as a function of the arrays that change from call to call.

        fields: those that stay; a field that neither they nor the call give is 0.
        """
        prepared = form(threads=self.workers.count)
        for field, value in fields.items():
            setattr(prepared, field, _plain(value))
        function = _function(name, self.variant)
        size = _function(f"{name}_work", self.variant)(ctypes.byref(prepared))

        def run(fields=fields, **arrays):  # `fields` keeps their arrays alive: the structure has addresses only
            arguments = form.from_buffer_copy(prepared)
            for field, array in arrays.items():
                setattr(arguments, field, None if array is None else _plain(array))
            work = self.empty((size,))
            arguments.work = _plain(work)
            function(ctypes.byref(arguments))

        return run


class Convolution(reference.Convolution):
    """Convolution by the engine. Masks of the Winograd kernel are bits of its blocks."""

    def __init__(self, ops, weight, bias, stride, dilation, group):
        super().__init__(ops, weight, bias, stride, dilation, group)
        self._source = np.asarray(weight)
        self.outputs, self.channels = self._source.shape[0] // group, self._source.shape[1]
        self.winograd = (
            self.kernel == (3, 3)
            and (*stride, *dilation, group) == (1, 1, 1, 1, 1)
            and min(self.outputs, self.channels) >= _LEAST
        )
        self.block_size, self.supports_offset = (4, True) if self.winograd else (1, False)
        self._directions, self._calls = {}, {}  # what was made for a pad, and for a size

    def engine(self, backward=False):
        if self.winograd:
            name = "Winograd 4×4"
        else:
            name = "few outputs" if (self.channels if backward else self.outputs) <= _FEW else "gathered product"
        return f"{name}, {self.ops.variant}"

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        if self.winograd:
            return self._winograd_forward(x, pad, epilogue, grid.offset)
        return self._general_forward(x, pad, epilogue)

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        if self.winograd:
            return self._winograd_backward(g, size, pad, prologue)
        return self._general_backward(g, size, pad, prologue and prologue.bits)

    def fuses_pool(self, kernel, stride, pad):
        return self.winograd and kernel == stride == (2, 2) and pad == (0, 0)

    def _general_forward(self, x, pad, epilogue):
        ops = self.ops
        height, width = self.output_size(x.shape[2:], pad)
        outputs = self.outputs * self.group
        # First, so that large maps lie side by side and leave large holes.
        bits = ops.bits(outputs, height * width) if epilogue.saves else None
        prologue = None if bits is None else ReluMask(bits)
        y = ops.empty((1, outputs, height, width))
        few = self.outputs <= _FEW
        if height * width < _MATRIX:
            y = self._correlate(x, pad)
        else:
            after = {} if few else {"relu": epilogue.relu, "keep": bits}
            self._forward_part(pad).run(ops, x, y, height, width, 0, bias=self.bias, **after)
            if not few:
                return y, prologue
        if bits is not None:
            ops.call("relu", y, y, bits, outputs, height * width, ops.workers.count)
        elif epilogue.relu:
            np.maximum(y, 0, out=y)
        return y, prologue

    def _general_backward(self, g, size, pad, mask):
        ops = self.ops
        if mask is not None and not (self.channels <= _FEW and g[0, 0].size >= _MATRIX):
            ops.call("relu_backward", g, mask, g.shape[1], g[0, 0].size, ops.workers.count)
            mask = None
        if g[0, 0].size < _MATRIX:
            return self._transpose(g, size, pad)
        parts = self._backward_parts(pad)
        make = ops.empty if all(part for _, _, part in parts) else ops.zeros
        gx = make((1, self.channels * self.group, *size))
        for top, left, part in parts:
            height, width = (-(-(n - at) // s) for n, at, s in zip(size, (top, left), self.stride, strict=True))
            if part and height > 0 and width > 0:
                part.run(ops, g, gx, height, width, top * size[1] + left, self.stride, mask=mask)
        return gx

    def _forward_part(self, pad):
        """The sum over taps that `forward` is."""
        if pad not in self._directions:
            offsets = [[k * d - p for k in range(n)] for n, d, p in zip(self.kernel, self.dilation, pad)]
            weight = self._weight.reshape(self.group, self.outputs, self.channels, *self.kernel)
            self._directions[pad] = _Part(weight, offsets, self.stride)
        return self._directions[pad]

    def _backward_parts(self, pad):
        """(top, left, sum over taps or None) for every phase of the input's positions under the stride.

        Input i gets what output (i + pad − k · dilation) / stride was given, where that is whole.
        """
        if ("backward", pad) not in self._directions:
            weight = self._weight.reshape(self.group, self.outputs, self.channels, *self.kernel).swapaxes(1, 2)
            parts = []
            for phase in np.ndindex(self.stride):
                taps, offsets = [], []
                for i, p, n, d, s in zip(phase, pad, self.kernel, self.dilation, self.stride):
                    taps.append([k for k in range(n) if (i + p - k * d) % s == 0])
                    offsets.append([(i + p - k * d) // s for k in taps[-1]])
                some = weight[..., taps[0], :][..., taps[1]]
                parts.append((*phase, _Part(some, offsets, (1, 1)) if some.size else None))
            self._directions["backward", pad] = parts
        return self._directions["backward", pad]

    @cached_property
    def _weight(self):
        """The filters, contiguous; the engine reads them at any alignment, so the file's are not copied."""
        return np.require(self._source, np.float32, ["C"])

    def _winograd_forward(self, x, pad, epilogue, offset):
        size, (relu, saves, pool) = x.shape[2:], epilogue
        height, width = self.output_size(size, pad)
        saved = None  # made first, so that large maps lie side by side and leave large holes
        if saves and pool:
            saved = self.ops.pool.empty((self.outputs * math.prod(pool) + _SLACK,), np.uint8)
        elif saves:
            blocks = math.prod(-(-(n + o) // 4) for n, o in zip((height, width), offset))
            saved = self.ops.bits(self.outputs, 16 * 48 * -(-blocks // 48))
        y = self.ops.empty((1, self.outputs, *(pool or (height, width))))
        key = size, pad, relu, pool, offset
        if key not in self._calls:
            pooled = pool or (0, 0)
            self._calls[key] = self.ops.prepared(
                "winograd", Winograd, channels=self.channels, height=size[0], width=size[1], weight=self._weight,
                outputs=self.outputs, output_step=9 * self.channels, input_step=9, bias=self.bias, pad_top=pad[0],
                pad_left=pad[1], out_height=height, out_width=width, shift_y=offset[0], shift_x=offset[1],
                relu=relu, pool_height=pooled[0], pool_width=pooled[1],
            )  # fmt: skip
        self._calls[key](x=x, y=y, keep=saved)
        if saved is None:
            return y, None
        return y, PoolWinners(saved) if pool else ReluMask(saved, offset)

    def _winograd_backward(self, g, size, pad, prologue):
        pooled = isinstance(prologue, PoolWinners)
        source = _SOURCES[type(prologue)]
        saved, saved_shift = (*(prologue or (None,)), (0, 0))[:2]
        key = size, pad, source, g.shape[2:], saved_shift
        if key not in self._calls:
            map_size = self.output_size(size, pad) if pooled else g.shape[2:]
            self._calls[key] = self.ops.prepared(
                "winograd", Winograd, channels=self.outputs, height=map_size[0], width=map_size[1], source=source,
                saved_y=saved_shift[0], saved_x=saved_shift[1], pooled_height=g.shape[2], pooled_width=g.shape[3],
                weight=self._weight, outputs=self.channels, output_step=9, input_step=9 * self.channels, flip=True,
                pad_top=2 - pad[0], pad_left=2 - pad[1], out_height=size[0], out_width=size[1],
            )  # fmt: skip
        gx = self.ops.empty((1, self.channels, *size))
        self._calls[key](x=g, saved=saved, y=gx)
        return gx


def _plain(value):
    """The address of an array; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    assert value.flags.c_contiguous
    return value.__array_interface__["data"][0]  # `ctypes.data` takes twice as long


class _Part:
    """A sum over shifted inputs: weight (groups, outputs, channels, *taps), the offset of each tap along each axis."""

    def __init__(self, weight, offsets, step):
        self.groups, self.outputs, self.channels = weight.shape[:3]
        flat = weight.reshape(*weight.shape[:3], -1)
        self.few = self.outputs <= _FEW
        self.weight = np.require(flat.transpose(0, 2, 3, 1), None, ["C", "A"]) if self.few else _panels(flat)
        self.dy, self.dx = (np.array(d, np.int64).ravel() for d in np.meshgrid(*offsets, indexing="ij"))
        self.step, self._calls = step, {}

    def run(self, ops, x, y, height, width, start, stride=(1, 1), bias=None, relu=False, mask=None, keep=None):
        """y[start + i · stride] over a grid of (height, width) from x; y and x whole maps."""
        key = x.shape, y.shape, height, width, relu
        if key not in self._calls:
            self._calls[key] = ops.prepared(
                "few" if self.few else "product", General, channels=self.channels, groups=self.groups,
                height=x.shape[2], width=x.shape[3], step_y=self.step[0], step_x=self.step[1], taps=self.dy.size,
                dy=self.dy, dx=self.dx, weight=self.weight, outputs=self.outputs, plane=y[0, 0].size,
                row=stride[0] * y.shape[3], column=stride[1], out_height=height, out_width=width, bias=bias,
                relu=relu,
            )  # fmt: skip
        self._calls[key](x=x, y=y.reshape(-1)[start:], mask=mask, keep=keep)


def _panels(weight):
    """(groups, outputs, channels, taps) → (groups, ⌈outputs / 8⌉, channels, taps, 8), zeros beyond the last output."""
    groups, outputs, channels, taps = weight.shape
    padded = np.zeros((groups, -(-outputs // _PANEL) * _PANEL, channels, taps), np.float32)
    padded[:, :outputs] = weight
    return np.ascontiguousarray(padded.reshape(groups, -1, _PANEL, channels, taps).transpose(0, 1, 3, 4, 2))


def _structure(pointers, names):
    """ctypes fields of a structure of 64-bit integers and the pointers that are named."""
    return [(name, ctypes.c_void_p if name in pointers else ctypes.c_int64) for name in names.split()]


_POINTERS = {"x", "saved", "weight", "bias", "y", "keep", "mask", "dy", "dx", "winner", "work"}


class Winograd(ctypes.Structure):
    """`struct winograd` of engine.h."""

    _fields_ = _structure(
        _POINTERS,
        "x channels height width source saved saved_y saved_x pooled_height pooled_width weight outputs output_step "
        "input_step flip bias pad_top pad_left out_height out_width shift_y shift_x y relu pool_height pool_width keep "
        "work threads",
    )


class General(ctypes.Structure):
    """`struct general` of engine.h."""

    _fields_ = _structure(
        _POINTERS,
        "x channels groups height width step_y step_x taps dy dx weight outputs bias y plane row column out_height "
        "out_width relu accumulate keep mask work threads",
    )


class Pooling(ctypes.Structure):
    """`struct pooling` of engine.h."""

    _fields_ = _structure(
        _POINTERS,
        "x planes height width kernel_y kernel_x step_y step_x pad_y pad_x y out_height out_width winner winner_size "
        "work threads",
    )


_ZERO = np.zeros(1, np.int64)
_int, _pointer, _float, _double = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float, ctypes.c_double
_PREPARED = ("winograd", "product", "few", "max_pool", "max_pool_backward", "avg_pool", "avg_pool_backward")
_SIGNATURES = {
    **dict.fromkeys(_PREPARED, (None, (_pointer,))),
    **{f"{name}_work": (_int, (_pointer,)) for name in _PREPARED},
    "gram": (None, (_pointer, _int, _int, _float, _pointer, _pointer, _int)),
    "gram_work": (_int, (_int, _int, _int)),
    "symmetric_panels": (None, (_pointer, _int, _float, _pointer, _int)),
    "relu": (None, (_pointer, _pointer, _pointer, _int, _int, _int)),
    "relu_backward": (None, (_pointer, _pointer, _int, _int, _int)),
    "copy": (None, (_pointer, _pointer, _int, _int)),
    "add_scaled": (None, (_pointer, _float, _pointer, _int, _int)),
    "dot": (_double, (_pointer, _pointer, _int, _pointer, _int)),
    "lbfgs_products": (None, (*[_pointer] * 3, *[_int] * 4, _pointer, _pointer, _int)),
    "lbfgs_step": (None, (*[_pointer] * 5, *[_int] * 4, _double, _pointer, _int)),
    "halve": (None, (_pointer, _int, _int, _int, _pointer, _int)),
    "add_doubled": (None, (_pointer, _int, _int, _int, _float, _pointer, _int)),
    "total_variation": (_double, (_pointer, _int, _int, _int, _float, _pointer, _pointer, _int)),
}


@cache
def _function(name, instructions):
    function = getattr(_library(), f"{name}_{instructions}")
    function.restype, function.argtypes = _SIGNATURES[name]
    return function


@cache
def _library():
    library = ctypes.CDLL(_path())
    library.cvstyle_variant.restype = ctypes.c_int64
    return library


@cache
def _path():
    """The library that setup.py built, or None."""
    paths = (Path(__file__).with_name("_engine" + suffix) for suffix in reversed(EXTENSION_SUFFIXES))
    return next((str(path) for path in paths if path.exists()), None)
