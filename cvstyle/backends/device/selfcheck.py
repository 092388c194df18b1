"""Whether Hopper's own instruction computes what it should: `python -m cvstyle.backends.device.selfcheck 0 fp16`.

For each word that is named it multiplies whole numbers by every tile of wgmma, in all forms that a run uses, on the GPU
of that number, compares with float64, and prints one line: "fp16: right", or what was wrong. Sums of whole numbers are
exact on tensor cores, so every number must be equal. The exit status is 0 where all were right. It may hang, or break
the context, where the instruction is not what the kernel takes it for: `trust` runs it in a process of its own.
"""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...errors import DeviceError
from .. import get
from ..base import RELU, Epilogue
from ..numpy import Backend as Exact
from ..threads import cpu_count
from . import tensor
from .ways import Way

# (channels, height, width), and outputs: borders of every tile; long sums; groups enough to fill a device.
CASES = (((48, 19, 35), 144), ((512, 14, 20), 64), ((64, 150, 170), 256))
_ROUNDS = 3  # for what goes wrong at times only
_SPLITS = (1, 2)
_SMALL, _LONG = 4, 4095  # whole numbers up to these: one word suffices, or it takes two of every kind
_PADS = (1, 1, 1, 1)


def main(arguments) -> int:
    """arguments: the number of the GPU and words, as text."""
    number, *words = arguments
    failed = 0
    for word in words:
        try:
            verdict = examine(*(get("cuda", number, precision) for precision in (f"{word}-fast", word)))
        except DeviceError as error:
            verdict = f"failed: {' '.join(str(error).split())}"
        print(f"{word}: {verdict}", flush=True)
        failed += verdict != "right"
    return int(failed > 0)


def examine(one, two, tiles=tensor.HOPPER_TILES, cases=CASES, rounds=_ROUNDS) -> str:
    """ "right", or what was wrong. one, two: backends of a precision that takes one word, or two, for a number."""
    for ops in (one, two):
        ops.device.wgmma, ops.autotune, ops.choices = True, True, _Chosen()
    _compile(one, two, tiles)
    for (shape, outputs), ops in itertools.product(cases, (one, two)):
        expected, run = (_layer(o, shape, outputs, ops is two) for o in (Exact("float64"), ops))
        expected = expected()
        for tile, splits, _ in itertools.product(tiles, _SPLITS, range(rounds)):
            way = ops.choices.way = Way(tile, splits)
            for name, found in run().items():
                wrong = found != expected[name]
                if wrong.any():
                    first = f"{found[wrong][0]:g} instead of {expected[name][wrong][0]:g}"
                    count = f"{np.count_nonzero(wrong)} of {wrong.size} numbers"
                    return f"wrong: {way}, {name}, {ops.precision}: {count}, the first {first}"
    return "right"


class _Chosen:
    """In place of `tuning.Choices`: the same way for all."""

    adopted, way = 0, None

    def pick(self, key, candidates, run, kernels=None):
        return self.way


def _compile(one, two, tiles):
    """All kernels at once, since each takes seconds."""

    def compiled(variant):
        tile, ops, masked, plus = variant
        ops._kernels.get("cuda/convolution", "convolution", tensor._macros(tile, 3, ops.word, ops.split, masked, plus))

    # Of gradients, which take one word, there are masked ones, and one that a style's is added to.
    variants = ((one, 0, False), (one, 1, False), (one, 2, False), (one, 1, True), (two, 0, False))
    with ThreadPoolExecutor(cpu_count()) as threads:
        list(threads.map(compiled, [(tile, *variant) for tile in tiles for variant in variants]))


def _layer(ops, shape, outputs, long):
    """A function that gives what layers ask of a convolution, by name.

    long: numbers need two words, of every second channel those of x and of the others the weights, for the product of
    two rests is left out; gradients take one word, and are not asked for.
    """
    random = np.random.default_rng(0)

    def whole(*size):
        return random.integers(-_SMALL, _SMALL + 1, size).astype(np.float32)

    x, weight, bias, g = whole(1, *shape), whole(outputs, shape[0], 3, 3), whole(outputs), whole(1, outputs, *shape[1:])
    style = whole(shape[0], shape[0])
    style += style.T
    if long:
        x[:, ::2] = random.integers(-_LONG, _LONG + 1, x[:, ::2].shape)
        weight[:, 1::2] = random.integers(-_LONG, _LONG + 1, weight[:, 1::2].shape)
    size, half = shape[1:], tuple(-(-n // 2) for n in shape[1:])
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
            if tensor.gram_fits(shape[0]):
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
