"""A check of Hopper's own instruction: `python -m cvstyle.backends.device.wgmma_check 0 fp16`.

On the GPU of that number, for each of the formats, every block of wgmma multiplies whole numbers in all forms that a
run uses. One line compares the results with float64: "fp16: right", or the fault. Sums of whole numbers are exact on
tensor cores, so every number must be equal. The exit status is 0 where all were right. The check may hang, or break the
context, where the instruction differs from the kernel's assumptions: `wgmma_verdict` runs it in a process of its own.
"""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...errors import DeviceError
from .. import get
from ..base import RELU, Epilogue
from ..reference import Backend as Exact
from ..threads import cpu_count
from .algorithms import Algorithm
from .conv_problem import PrologueCode
from .conv_tensor_cores import gram_fits
from .mma import WGMMA_BLOCKS, kernel_macros

# (channels, height, width), and outputs: borders of every block; long sums; groups enough to fill a device.
CASES = (((48, 19, 35), 144), ((512, 14, 20), 64), ((64, 150, 170), 256))
_ROUNDS = 3  # for faults that show at times only
_SPLITS = (1, 2)
_SMALL = 4  # whole numbers up to this fit into one word of every format
_LONG = 4095  # whole numbers up to this take two
_PADS = (1, 1, 1, 1)


def main(arguments) -> int:
    """arguments: the number of the GPU and formats, as text."""
    number, *formats = arguments
    failed = 0
    for each in formats:
        try:
            verdict = examine(*(get("cuda", number, precision) for precision in (f"{each}-fast", each)))
        except DeviceError as error:
            verdict = f"failed: {' '.join(str(error).split())}"
        print(f"{each}: {verdict}", flush=True)
        failed += verdict != "right"
    return int(failed > 0)


def examine(one, two, blocks=WGMMA_BLOCKS, cases=CASES, rounds=_ROUNDS) -> str:
    """ "right", or the fault. one, two: backends of a precision with one word, or two, for a number."""
    for ops in (one, two):
        ops.device.wgmma = True
        ops.autotune = True
        ops.choices = _FixedChoice()
    _compile(one, two, blocks)
    for (shape, outputs), ops in itertools.product(cases, (one, two)):
        expected, run = (_layer(o, shape, outputs, ops is two) for o in (Exact("float64"), ops))
        expected = expected()
        for block, splits, _ in itertools.product(blocks, _SPLITS, range(rounds)):
            algorithm = ops.choices.algorithm = Algorithm(block, splits)
            for name, found in run().items():
                wrong = found != expected[name]
                if wrong.any():
                    first = f"{found[wrong][0]:g} instead of {expected[name][wrong][0]:g}"
                    count = f"{np.count_nonzero(wrong)} of {wrong.size} numbers"
                    return f"wrong: {algorithm}, {name}, {ops.precision}: {count}, the first {first}"
    return "right"


class _FixedChoice:
    """In place of `tuning.Choices`: the same algorithm for all."""

    adoptions = 0
    algorithm = None

    def pick(self, key, candidates, run, kernels=None):
        return self.algorithm


def _compile(one, two, blocks):
    """Compile all kernels in parallel, since each takes seconds."""

    def compiled(variant):
        block, ops, prologue, adds_product = variant
        macros = kernel_macros(block, 3, ops.operand_format, ops.split_operands, prologue, adds_product)
        ops._kernels.get("cuda/convolution", "convolution", macros)

    # Gradients, which take one word, may be masked, and one has a style's gradient as its addend.
    bits = PrologueCode.MASK_BITS
    variants = (
        (one, PrologueCode.NONE, False), (one, bits, False), (one, PrologueCode.POOL_WINNERS, False), (one, bits, True),
        (two, PrologueCode.NONE, False),
    )  # fmt: skip
    with ThreadPoolExecutor(cpu_count()) as threads:
        list(threads.map(compiled, [(block, *variant) for block in blocks for variant in variants]))


def _layer(ops, shape, outputs, long):
    """A function that returns the results of a convolution's operations by name.

    long: numbers need two words: x's in every second channel and the weights' in the others, since the product of two
    remainders is left out; gradients, which take one word, are left out too.
    """
    random = np.random.default_rng(0)

    def whole(*size):
        return random.integers(-_SMALL, _SMALL + 1, size).astype(np.float32)

    x = whole(1, *shape)
    weight = whole(outputs, shape[0], 3, 3)
    bias = whole(outputs)
    g = whole(1, outputs, *shape[1:])
    style = whole(shape[0], shape[0])
    style += style.T
    if long:
        x[:, ::2] = random.integers(-_LONG, _LONG + 1, x[:, ::2].shape)
        weight[:, 1::2] = random.integers(-_LONG, _LONG + 1, weight[:, 1::2].shape)
    size = shape[1:]
    half = tuple(-(-n // 2) for n in size)
    pooled_g = np.ascontiguousarray(g[..., : half[0], : half[1]])
    filters = ops.convolution(weight, bias, (1, 1), (1, 1), 1)
    x, g, pooled_g, style = map(ops.asarray, (x, g, pooled_g, style))

    def run():
        rectified, mask = filters.forward(x, _PADS, RELU)
        fused = filters.fuses_pool((2, 2), (2, 2), (0, 0))
        found = {
            "a product": filters.forward(x, _PADS)[0], "a ReLU": filters.forward(x, _PADS, Epilogue(relu=True))[0],
            "a ReLU with bits": rectified,
        }  # fmt: skip
        if fused:
            found["a pool"], winners = filters.forward(x, _PADS, Epilogue(True, True, half))
        else:
            pool = (2, 2), (2, 2), (0, 0)
            found["a pool"], winners = ops.max_pool(rectified, *pool, half)
        if not long:
            found["a gradient"] = filters.backward(g, size, _PADS)
            found["a ReLU's gradient"] = filters.backward(g, size, _PADS, mask)
            if gram_fits(shape[0]):
                gradient = filters.backward(g, size, _PADS, mask)
                found["a style's gradient with it"] = ops.gram_backward(style, x, 1.0, out=gradient)
            if fused:
                found["a pool's gradient"] = filters.backward(pooled_g, size, _PADS, winners)
            else:
                spread = ops.max_pool_backward(pooled_g, winners, (1, outputs, *size), *pool)
                found["a pool's gradient"] = filters.backward(spread, size, _PADS, mask)
        return {name: np.array(array) for name, array in found.items()}

    return run


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
