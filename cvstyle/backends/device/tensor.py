"""Convolution and Gram matrices on tensor cores (kernels/cuda): weights in the kernels' order, and the choice of tiles.

Arrays stay float32; numbers are rounded where a kernel reads them, and sums are float32. fp16 does not overflow,
because whatever is rounded to it is first multiplied by the power of two that fits its largest magnitude.

The forward convolutions take every number as the sum of two words, at three times the products, since a ReLU or a
max-pool winner that rounding switches costs the gradient far more than the rounding itself (docs/performance-gpu.md).
"tf32-fast" and the like take one word everywhere.
"""

from __future__ import annotations

import math
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from ..base import BIAS, RELU, UNPLACED, PoolWinners, ReluMask
from .array import Array
from .convolution import Convolution, fused_code
from .ways import Way, best_of

WORDS = ("tf32", "bf16", "fp16")  # what a word holds, in the order of PRECISION in tensor.h
PRECISIONS = (*WORDS, *(f"{word}-fast" for word in WORDS))
COLUMNS = 16  # of a patch of positions (PW in convolution.cu)


class Tile(NamedTuple):
    """What one group computes (see convolution.cu): bm outputs at rows × 16 positions, by warps_m × warps_n warps.

    stages: buffers for weights. resident: groups that a multiprocessor holds (one less where side is 1, which takes
    more registers). efficiency: arithmetic per access to shared memory, relative to the largest tile. wgmma: by
    Hopper's own instruction (wgmma.h), of which four warps do 64 outputs at all positions; stages has no meaning then.
    """

    bm: int
    rows: int
    warps_m: int
    warps_n: int
    stages: int
    resident: int
    efficiency: float
    wgmma: bool = False

    def __str__(self):
        return f"{self.bm}×{self.rows * COLUMNS}{' by wgmma' if self.wgmma else ''}"

    @property
    def threads(self):
        return self.warps_m * self.warps_n * 32


TILES = (
    Tile(128, 16, 2, 4, 2, 1, 1.0), Tile(128, 8, 2, 4, 3, 2, 0.95), Tile(64, 16, 1, 8, 3, 2, 0.9),
    Tile(128, 12, 4, 2, 2, 1, 0.95), Tile(64, 4, 2, 2, 3, 3, 0.7),
)  # fmt: skip
# A group of four warps keeps a multiprocessor's tensor cores busy alone, but not while it begins or ends.
HOPPER_TILES = (
    Tile(128, 16, 8, 1, 0, 1, 1.6, True), Tile(64, 16, 4, 1, 0, 2, 1.5, True), Tile(128, 8, 8, 1, 0, 1, 1.5, True),
    Tile(128, 12, 8, 1, 0, 1, 1.55, True), Tile(64, 8, 4, 1, 0, 2, 1.3, True),
)  # fmt: skip
_PAD = (1, 1, 1, 1)  # of what the kernels do
_FULL = 8  # warps that keep a multiprocessor's tensor cores busy
_SHARES = 16  # of a tile's channels, at most
_WORKSPACE = 16 << 20  # floats that the sums of shares may take together: about what a large GPU's cache holds
# Multiply-adds of a multiprocessor, with one number to a word, that take as long as a group to begin and to end, and as
# moving one float through that cache (predicted).
_BEGIN, _MOVE = 1.5e6, 100


def width(word):
    """Numbers in a word."""
    return 1 if word == "tf32" else 2


def fits(weight, stride, dilation, group, word):
    """Whether a convolution of this weight shape is one for the tensor cores."""
    unit = 8 * width(word)
    channels = math.lcm(unit, 16)
    return (
        tuple(weight[2:]) == (3, 3) and stride == dilation == (1, 1) and group == 1
        and weight[0] % channels == 0 and weight[1] % channels == 0
    )  # fmt: skip


class TensorConvolution(Convolution):
    """A 3×3 convolution on tensor cores; an ordinary one with another padding than 1, or a pool that rounds down."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.winograd = False  # the ordinary one: it would have blocks, which windows know before they know the padding

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        if not _same(pad) or tuple(epilogue.pool or ()) not in ((), _halves(x.shape[2:])):
            return super().forward(x, pad, epilogue, grid)
        return self._multiplied(x, epilogue, grid.full_map)[:2]

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        pooled = isinstance(prologue, PoolWinners)
        if not _same(pad) or (pooled and tuple(g.shape[2:]) != _halves(size)):
            return super().backward(g, size, pad, prologue, grid)
        return self._gradient(g, prologue and prologue[0], size if pooled else None)

    @cached_property
    def _words(self):
        return self._uploaded(self._source, self.ops.split)

    @cached_property
    def _adjoint_words(self):
        return self._uploaded(np.flip(self._source, (2, 3)).transpose(1, 0, 2, 3), False)

    def _uploaded(self, weight, split):
        """The filters on the device, as `multiply` takes them."""
        words, peak = packed(weight, self.ops.word, split)
        return Words(self.ops.filters(words), self.ops.constant(peak), split)

    def _multiplied(self, x, epilogue=BIAS, full_map=None):
        """(y, the prologue of its gradient or None, the `Way`)"""
        ops, words, size, prologue = self.ops, self._words, x.shape[2:], None
        order = self._order(size, _PAD, epilogue, 0, full_map)
        if epilogue.pool:
            prologue = PoolWinners(ops.empty((self.outputs, *epilogue.pool), np.uint8))
        elif epilogue.saves:
            prologue = ReluMask(ops.empty((self.outputs, size[0], -(-size[1] // COLUMNS)), np.uint16))
        y = ops.empty((1, self.outputs, *(epilogue.pool or size)))
        bias = self._no_bias if self._bias is None else self._bias
        relu, bits = fused_code(epilogue), prologue and prologue[0]
        way = multiply(ops, x, words, bias, y, size, side=3, relu=relu, bits=bits, order=order)
        self._taken[0] = f"{ops.word}{' + rest' if words.split else ''}, {way}"
        return y, prologue, way

    def _estimated(self, size, pad, adjoint):
        if not _same(pad):
            return super()._estimated(size, pad, adjoint)
        return plan(*_shape(self.ops, self.inputs, size, self.outputs, 3, self._words))

    def _timed(self, size, pad, adjoint):
        if not _same(pad):
            return super()._timed(size, pad, adjoint)
        return self._multiplied(self.ops.empty((1, self.inputs, *size)), RELU)[2]

    def _gradient(self, g, mask=None, size=None):
        """size: that of the map, where g is the pooled one's gradient."""
        self.ops.materialize(g)  # else what fills it, and all that it needs, would be put off as well
        size = size or g.shape[2:]
        shape = 1, self.inputs, *size
        return Array(self.ops, None, shape, self.ops.dtype, pending=_Sum(self, g, mask, shape))


class _Sum:
    """The work of a gradient, put off until somebody reads it: a product that is added before becomes part of its sum.

    That saves a reading and a writing of the gradient. plus: the `Product`, or None.
    """

    def __init__(self, filters, g, mask, shape):
        self.filters, self.g, self.mask, self.shape, self.plus = filters, g, mask, shape, None

    def __call__(self):
        filters, ops = self.filters, self.filters.ops
        words, bias, y = filters._adjoint_words, filters._no_bias, ops.empty(self.shape)
        way = multiply(ops, self.g, words, bias, y, self.shape[2:], side=3, mask=self.mask, plus=self.plus)
        filters._taken[1] = f"{ops.word}, {way}"
        return y


class Product(NamedTuple):
    """factor · (words ⋆ x) with words of one tap."""

    x: object
    words: Words
    factor: object


class Words(NamedTuple):
    """Filters as words in the kernel's order, an array of their largest magnitude, and whether rests follow them."""

    array: object
    peak: object
    split: bool = False


def multiply(
    ops, x, words, bias, y, size, side, relu=0, bits=None, mask=None, factor=1.0, accumulate=False, plus=None,
    order=None,
):  # fmt: skip
    """y ← factor · (words ⋆ x) + bias on a map of this size, with `side`² taps; returns the `Way` that was taken.

    accumulate: y is added to. plus: a `Product` that is added, where there are nine taps and the factor is 1. order:
    see `ways.ranked`.
    """
    masked = 0 if mask is None else 2 if mask.dtype == np.uint8 else 1
    channels, outputs = x.shape[1], y.shape[1]
    shape, options = _shape(ops, channels, size, outputs, side, words), {"order": order} if order else {}
    peak, added = ops.peak(x), (None, None, None, None)
    peaks = {x: peak}
    if plus is not None:
        factor, peaks[plus.x] = plus.factor, ops.peak(plus.x)
        added = plus.x, plus.words.array, peaks[plus.x], plus.words.peak

    def run(way, y=y):
        """Returns the largest magnitude of y, where that is known."""
        tile, splits = way[:2]
        grid = (-(-size[0] // tile.rows) * -(-size[1] // COLUMNS), -(-outputs // tile.bm), splits)
        parts = None if splits == 1 else ops.empty((math.prod(grid), tile.bm * tile.rows * COLUMNS))
        scratch = ops.counters(2 + math.prod(grid[:2]))
        largest = ops.empty((1,)) if ops.word == "fp16" else None
        ops.launch(
            "cuda/convolution", "convolution", grid,
            (x, words.array, bias, y, mask, bits, peak, words.peak, largest, *added, parts, scratch,
             *ops.factor(factor), channels, *size, outputs, splits, relu, int(accumulate)),
            tile.threads, macros(tile),
        )  # fmt: skip
        return largest

    def macros(tile):
        return _macros(tile, side, ops.word, words.split, masked, plus is not None)

    if ops.autotune:
        key = "cuda/convolution", *shape, masked, relu, int(plus is not None), int(accumulate), *(order or ())
        # What is added to is tried out on an array that nobody reads.
        trial = (lambda way: run(way, ops.empty(y.shape))) if accumulate else run
        way = ops.choices.pick(
            key, ranked(*shape, **options), trial, lambda way: [("cuda/convolution", macros(way.tile))]
        )
    else:
        way = plan(*shape, **options)
    remember(y, run(way))
    for array, largest in peaks.items():
        remember(array, largest)
    return way


def _shape(ops, channels, size, outputs, side, words):
    """What `plan` and `ranked` ask for."""
    wgmma = side == 3 and ops.wgmma
    return channels, *size, outputs, side, ops.word, words.split, ops.device.units, wgmma


def remember(x, largest):
    """Note the largest magnitude of x for `peak`."""
    if largest is not None:
        x.block.largest = largest


def packed(weight, word, split=False):
    """Weights (outputs, channels, side, side) as (words in the order of convolution.cu, the largest magnitude).

    split: each chunk of channels is followed by what its words leave out.
    """
    outputs, _, side, _ = weight.shape
    peak = float(np.abs(weight).max(initial=0))
    parts = rounded(weight.transpose(0, 2, 3, 1), word, peak, split)
    across = 8 if side == 3 else 16  # KW
    # outputs -> block, half, row; words of channels -> chunk, eighth, half, place
    words = np.stack(parts).reshape(len(parts), outputs // 16, 2, 8, side, side, -1, across // 8, 2, 4)
    return np.ascontiguousarray(words.transpose(6, 0, 4, 1, 5, 7, 3, 9, 8, 2)).reshape(-1), peak


def rounded(x, word, peak, split=False):
    """[x as words, `width` neighbours of the last axis in each]; fp16 after multiplication by `fitting(peak)`.

    split: and a second array of words, of what the first leave out.
    """
    x = np.ascontiguousarray(x, np.float32)
    if word == "fp16":
        x = x * fitting(peak)
        found = x.astype(np.float16)
        values = found.astype(np.float32)
    elif word == "tf32":
        found = (x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
        values = found.view(np.float32)
    else:
        bits = x.view(np.uint32)
        found = ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        values = (found.astype(np.uint32) << 16).view(np.float32)
    rest = rounded(x - values, word, 2.0**14) if split else []  # of fp16 scaled already: fitting(2^14) is 1
    return [found.view(np.uint32), *rest]


def fitting(peak):
    """As in tensor.h: the power of two that brings `peak` to 2^14 up to 2^15."""
    exponent = math.frexp(peak)[1] - 1 if peak else -60
    return np.float32(2.0 ** (14 - min(60, max(-60, exponent))))


def plan(*shape, **options):
    """The `Way` of the least estimated time."""
    return ranked(*shape, **options)[0]


@cache
def ranked(channels, height, columns, outputs, side, word, split_words, units, wgmma=False, order=None):
    """The ways that are worth trying, by their estimated time, as `ways.ranked`; some with mma.sync among them."""
    shape = channels, height, columns, outputs, side, word, split_words, units, order
    usual, hoppers = (
        sorted(estimates(kind, *shape), key=lambda pair: pair[0])
        for kind in (tiles(side), HOPPER_TILES if wgmma and side == 3 else ())
    )
    return list(dict.fromkeys(best_of(usual + hoppers) + best_of(usual[:2])))


def estimates(kinds, channels, height, columns, outputs, side, word, split_words, units, order=None):
    """(time, way): the busiest multiprocessor's multiply-adds; how its groups, as many at once as it holds, begin, end
    and move the sums of shares there and back."""
    chunks = channels // ((8 if side == 3 else 16) * width(word))
    for tile in kinds:
        count, size = groups(tile, height, columns, outputs), tile.bm * tile.rows * COLUMNS
        for split in _splits(chunks) if order is None else order[:1]:
            way = Way(tile, split)
            if order not in (None, way.order) or (order is None and 1 < split > _WORKSPACE // (count * size)):
                continue
            busiest, passes = -(-count * split // units), 3 if split_words else 1
            at_once = min(resident(tile, side), busiest)
            products = size * -(-chunks // split) * (channels // chunks) * side**2 * passes
            time = busiest * products / (tile.efficiency * min(1, at_once * tile.threads / 32 / _FULL))
            time += width(word) * -(-busiest // at_once) * (_BEGIN + (2 * size * _MOVE if split > 1 else 0))
            yield time, way


def groups(tile, height, columns, outputs):
    """How many groups of this tile a map takes."""
    return -(-outputs // tile.bm) * -(-height // tile.rows) * -(-columns // COLUMNS)


def _splits(chunks):
    """Into how many shares chunks of channels can be divided, so that one share less would make them longer."""
    return [s for s in range(1, _SHARES + 1) if s == -(-chunks // -(-chunks // s))]


def resident(tile, side):
    """Groups of this tile on a multiprocessor."""
    return tile.resident if side == 3 else max(1, tile.resident - 1)


def tiles(side):
    """Those whose buffers fit into 48 KB, which every device gives a group."""
    return TILES if side == 3 else TILES[1:]


@cache
def _macros(tile, side, word, split, masked, plus=False):
    names = ("BM", "PH", "WM", "WN", "STAGES")
    return (
        *zip(names, tile, strict=False), ("RESIDENT", resident(tile, side)), ("SIDE", side), ("SPLIT", int(split)),
        ("MASKED", masked), ("PLUS", int(plus)), ("WGMMA", int(tile.wgmma)), *defines(word),
    )  # fmt: skip


def defines(word):
    """What kernels know of a precision."""
    return (("PRECISION", WORDS.index(word)),)


def _same(pad):
    return tuple(pad) == _PAD


def _halves(size):
    """The size of a 2×2 max pool as the kernels do it, rounded up."""
    return tuple(-(-n // 2) for n in size)


def gram_fits(channels):
    """Whether feature maps of so many channels have their Gram matrix on tensor cores."""
    return channels % 64 == 0


def gram_backward(ops, d, x, factor, target, accumulate):
    """target ← factor · D F (+ target) for D symmetric (C, C) and F = x as (C, positions)."""
    size = d.shape[0]
    words = Words(ops.empty((size * size // width(ops.word),), np.uint32), ops.peak(d))
    groups = (-(-words.array.size // 256), 1, 1)
    ops.launch("cuda/pack", "pack", groups, (d, *words[:2], size), defines=defines(ops.word))
    if isinstance(target.pending, _Sum) and target.pending.plus is None:
        target.pending.plus = Product(x, words, factor)
    else:
        multiply(ops, x, words, None, target, x.shape[2:], side=1, factor=factor, accumulate=accumulate)
