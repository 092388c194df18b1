"""Small evaluations and L-BFGS steps on the backend cuda, each array in memory of its own, for

    compute-sanitizer --tool memcheck --error-exitcode 9 python3 tests/memcheck.py

which then sees every access outside of an array; results are compared with NumPy's in float64. Nothing is tuned and
nothing recorded. From the repository's root, with PYTHONPATH=. where cvstyle is not installed. CVSTYLE_TEST_BACKEND=ptx
runs it on the CPU (ptx.py), which sees the same without a GPU.
"""

from __future__ import annotations

import time

import nets
import numpy as np
import ptx

from cvstyle import Objective, backends, optimize
from cvstyle.backends.device import conv_tensor_cores, convolution, mma
from cvstyle.backends.device.algorithms import GEMM_BLOCKS, Algorithm
from cvstyle.backends.reference import Backend
from cvstyle.graph import Network

# Precision, height and width, tile size, deepest layer, how far losses and gradients may be from those of float64.
CASES = [
    ("fp32", (10, 18), None, "relu3_1", 1e-4), ("fp16", (9, 17), None, "relu2_2", 1e-2),
    ("fp32", (33, 11), 26, "relu2_1", 1e-4),
]  # fmt: skip


def choose_few_ways():
    """Kernels that the tests compile as well: by Winograd's algorithm where it applies, shares where there can be."""

    def chosen(*_, blocks=0, splits=None, **__):
        if splits:  # the Gram gradient
            return Algorithm(GEMM_BLOCKS[3], 1)
        return Algorithm(GEMM_BLOCKS[2], 2, bool(blocks))

    block = mma.MMA_BLOCKS[-1]
    convolution.best_algorithm = chosen
    conv_tensor_cores.best_algorithm = lambda channels, *_, **__: Algorithm(block, 2 if channels > 16 else 1)


def results(ops, size, tile, deepest):
    """(losses, gradient, what one step and what two steps of L-BFGS change)"""
    content, style, start = (np.random.default_rng(i).normal(size=(3, *size)).astype(np.float32) * 60 for i in range(3))
    layers = {"content_layers": ["relu2_1"], "style_layers": ["relu1_1", deepest]}
    net = Network(nets.vgg(16, 4, (32, 32), classifier=False), ops)
    objective = Objective(net, content, [style], tile_size=tile, **layers)
    x = ops.asarray(start[None])
    gradient = np.array(objective.evaluate(x), np.float64)
    losses, pictures = dict(objective.losses), [np.array(x, np.float64)]
    optimize.minimize("lbfgs", objective, x, 2, lambda *_: pictures.append(np.array(x, np.float64)), learning_rate=1e4)
    return losses, gradient, pictures[1] - pictures[0], pictures[2] - pictures[0]


def main():
    choose_few_ways()
    for precision, size, tile, deepest, tolerance in CASES:
        begun = time.perf_counter()
        ops = backends.get("cuda", precision=precision)
        ops.autotune = ops.device.captures = False
        ops.pool = ptx.Pool(ops.device)
        ours, exact = (results(backend, size, tile, deepest) for backend in (ops, Backend("float64")))
        for name, value in exact[0].items():
            assert abs(ours[0][name] - value) <= tolerance * abs(value), (precision, name, ours[0][name], value)
        errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(ours[1:], exact[1:], strict=True)]
        print(
            f"{precision} {size[1]}×{size[0]}{f' in tiles of {tile}' if tile else ''}: gradient off by {errors[0]:.1e},"
            f" steps by {errors[1]:.1e} and {errors[2]:.1e}, {time.perf_counter() - begun:.1f} s", flush=True,
        )  # fmt: skip
        assert max(errors[:2]) <= tolerance and errors[2] <= 10 * tolerance, errors
    print("all is well")


if __name__ == "__main__":
    import conftest  # noqa: F401  a cache of its own, and the stand-in for a GPU

    main()
