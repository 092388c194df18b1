"""Blocks of the tensor-core convolution (kernels/cuda/convolution.cu), and an estimate of the fastest algorithm."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from .algorithms import Algorithm, worth_trying
from .operands import format_macros, numbers_per_word

PATCH_COLUMNS = 16  # columns of a patch of positions (PW in convolution.cu)


class MmaBlock(NamedTuple):
    """Block of outputs for one group: bm outputs at a patch of rows × 16 positions, by warps_m × warps_n warps.

    stages: buffers for weights. resident: groups on a multiprocessor at once (one less where side is 1, which takes
    more registers). efficiency: arithmetic per access to shared memory, relative to the largest block. wgmma: by
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
        return f"{self.bm}×{self.rows * PATCH_COLUMNS}{' by wgmma' if self.wgmma else ''}"

    @property
    def threads(self):
        """Threads of a group."""
        return self.warps_m * self.warps_n * 32

    def resident_groups(self, side):
        """Groups on a multiprocessor at once, for side² taps."""
        return self.resident if side == 3 else max(1, self.resident - 1)

    def count(self, height, columns, outputs):
        """Number of blocks that cover a map."""
        return -(-outputs // self.bm) * -(-height // self.rows) * -(-columns // PATCH_COLUMNS)


MMA_BLOCKS = (
    MmaBlock(128, 16, 2, 4, 2, 1, 1.0), MmaBlock(128, 8, 2, 4, 3, 2, 0.95), MmaBlock(64, 16, 1, 8, 3, 2, 0.9),
    MmaBlock(128, 12, 4, 2, 2, 1, 0.95), MmaBlock(64, 4, 2, 2, 3, 3, 0.7),
)  # fmt: skip
# A group of four warps keeps a multiprocessor's tensor cores busy alone, but not while it begins or ends.
WGMMA_BLOCKS = (
    MmaBlock(128, 16, 8, 1, 0, 1, 1.6, True), MmaBlock(64, 16, 4, 1, 0, 2, 1.5, True),
    MmaBlock(128, 8, 8, 1, 0, 1, 1.5, True), MmaBlock(128, 12, 8, 1, 0, 1, 1.55, True),
    MmaBlock(64, 8, 4, 1, 0, 2, 1.3, True),
)  # fmt: skip
_FULL = 8  # warps that keep a multiprocessor's tensor cores busy
_SPLITS = 16  # most splits of the channels
_SPLIT_WORKSPACE = 16 << 20  # most floats of partial sums: about the size of a large GPU's cache
# In multiply-adds of a multiprocessor with one number to a word: beginning and end of a group, and one float moved
# through that cache (predicted).
_BEGIN = 1.5e6
_MOVE = 100


def best_algorithm(*shape, **options):
    """The `Algorithm` of the least estimated time; see `ranked_algorithms`."""
    return ranked_algorithms(*shape, **options)[0]


@cache
def ranked_algorithms(
    channels, height, columns, outputs, side, operand_format, split_operands, multiprocessors, wgmma=False, order=None
):  # fmt: skip
    """The algorithms worth trying, by estimated time; some with mma.sync among them. order: a prescribed
    `Algorithm.reduction_order`, or None."""
    shape = channels, height, columns, outputs, side, operand_format, split_operands, multiprocessors, order
    by_mma, by_wgmma = (
        sorted(estimates(blocks, *shape), key=lambda pair: pair[0])
        for blocks in (blocks_for(side), WGMMA_BLOCKS if wgmma and side == 3 else ())
    )
    return list(dict.fromkeys(worth_trying(by_mma + by_wgmma) + worth_trying(by_mma[:2])))


def estimates(
    blocks, channels, height, columns, outputs, side, operand_format, split_operands, multiprocessors, order=None
):  # fmt: skip
    """(time, algorithm): multiply-adds of the busiest multiprocessor, and the beginning, the end and the traffic of
    partial sums of its groups, of which it runs as many at once as it holds."""
    per_word = numbers_per_word(operand_format)
    chunks = channels // ((8 if side == 3 else 16) * per_word)
    passes = 3 if split_operands else 1
    for block in blocks:
        count = block.count(height, columns, outputs)
        size = block.bm * block.rows * PATCH_COLUMNS
        for split in _splits(chunks) if order is None else order[:1]:
            algorithm = Algorithm(block, split)
            too_large = order is None and 1 < split > _SPLIT_WORKSPACE // (count * size)
            if order not in (None, algorithm.reduction_order) or too_large:
                continue
            busiest = -(-count * split // multiprocessors)
            at_once = min(block.resident_groups(side), busiest)
            products = size * -(-chunks // split) * (channels // chunks) * side**2 * passes
            time = busiest * products / (block.efficiency * min(1, at_once * block.threads / 32 / _FULL))
            time += per_word * -(-busiest // at_once) * (_BEGIN + (2 * size * _MOVE if split > 1 else 0))
            yield time, algorithm


def _splits(chunks):
    """Numbers of splits of the chunks of channels for which one split less would have more chunks each."""
    return [s for s in range(1, _SPLITS + 1) if s == -(-chunks // -(-chunks // s))]


def blocks_for(side):
    """The blocks of mma.sync whose buffers fit into 48 KB, which every device gives a group."""
    return MMA_BLOCKS if side == 3 else MMA_BLOCKS[1:]


@cache
def kernel_macros(block, side, operand_format, split_operands, prologue, adds_product=False):
    """Macros of the convolution kernel."""
    names = ("BM", "PH", "WM", "WN", "STAGES")
    return (
        *zip(names, block, strict=False), ("RESIDENT", block.resident_groups(side)), ("SIDE", side),
        ("SPLIT", int(split_operands)), ("PROLOGUE", int(prologue)), ("PLUS", int(adds_product)),
        ("WGMMA", int(block.wgmma)), *format_macros(operand_format),
    )  # fmt: skip
