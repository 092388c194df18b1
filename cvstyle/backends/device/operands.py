"""Operands of tensor cores: numbers rounded to a format and packed into 32-bit words.

fp16 does not overflow, because an array is multiplied by the power of two that fits its largest magnitude before it is
rounded. Split operands are sums of two numbers of the format, in two words; a format with "-fast" behind its name in a
precision takes one everywhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

FORMATS = ("tf32", "bf16", "fp16")  # in the order of PRECISION in tensor.h
PRECISIONS = (*FORMATS, *(f"{each}-fast" for each in FORMATS))


class PackedFilters(NamedTuple):
    """Filters as words in the kernel's order, an array of their largest magnitude, and whether remainders follow."""

    words: object
    abs_max: object
    split: bool = False


def numbers_per_word(operand_format):
    return 1 if operand_format == "tf32" else 2


def format_macros(operand_format):
    """Macros of kernels for a format."""
    return (("PRECISION", FORMATS.index(operand_format)),)


def pack_filters(weight, operand_format, split=False):
    """Weights (outputs, channels, side, side) as (words in the order of convolution.cu, the largest magnitude).

    split: the remainders of each chunk of channels follow its words.
    """
    outputs, _, side, _ = weight.shape
    abs_max = float(np.abs(weight).max(initial=0))
    parts = to_words(weight.transpose(0, 2, 3, 1), operand_format, abs_max, split)
    across = 8 if side == 3 else 16  # KW
    # outputs -> block, half, row; words of channels -> chunk, eighth, half, place
    words = np.stack(parts).reshape(len(parts), outputs // 16, 2, 8, side, side, -1, across // 8, 2, 4)
    return np.ascontiguousarray(words.transpose(6, 0, 4, 1, 5, 7, 3, 9, 8, 2)).reshape(-1), abs_max


def to_words(x, operand_format, abs_max, split=False):
    """[x as words of `numbers_per_word` neighbours on the last axis]; fp16 is multiplied by `fp16_scale(abs_max)`.

    split: a second array of words follows, of the remainders of the first.
    """
    x = np.ascontiguousarray(x, np.float32)
    if operand_format == "fp16":
        x = x * fp16_scale(abs_max)
        rounded = x.astype(np.float16)
        values = rounded.astype(np.float32)
    elif operand_format == "tf32":
        rounded = (x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
        values = rounded.view(np.float32)
    else:
        bits = x.view(np.uint32)
        rounded = ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        values = (rounded.astype(np.uint32) << 16).view(np.float32)
    # Of fp16 scaled already: fp16_scale(2^14) is 1.
    remainder = to_words(x - values, operand_format, 2.0**14) if split else []
    return [rounded.view(np.uint32), *remainder]


def fp16_scale(abs_max):
    """The power of two that brings `abs_max` to 2^14 up to 2^15, as in tensor.h."""
    exponent = math.frexp(abs_max)[1] - 1 if abs_max else -60
    return np.float32(2.0 ** (14 - min(60, max(-60, exponent))))
