"""What evaluations cost on this machine, measured on two small pictures: memory of the host, and time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from .. import process
from ..objective import Objective

PROBES = (192, 384)  # sides of the small pictures


class Costs(NamedTuple):
    """seconds: of an evaluation, for each pixel of a window. base: bytes of the host's memory in any case; host: those
    of a window, by its pixels; host_before: likewise, while targets are computed."""

    seconds: float
    base: float
    host: Callable[[float], float]
    host_before: Callable[[float], float]


def measure(setup, program, devices) -> Costs:
    """The costs of a setup. Of devices that share the tiles the first one is measured."""
    with ExitStack() as stack:
        for ops in devices:
            stack.enter_context(ops.without_autotune())  # these shapes do not come again
        return _costs(setup, program)


def _costs(setup, program):
    peaks, before, seconds, base = [], [], [], process.resident()
    hosts = any(ops.on_host for ops in program.devices)
    # The first packs filters, which it need not do again; of the host's memory a line is found from two sizes.
    for side in (PROBES[0], *PROBES) if hosts else PROBES[1:]:
        gc.collect()
        for ops in program.devices:
            ops.trim()
        found = _probe(setup, side)
        before.append(found[0] - base)
        peaks.append(found[1] - base)
        seconds.append(found[2])
    for ops in program.devices:
        ops.trim()
    each = seconds[-1] / PROBES[1] ** 2
    if not hosts:
        return Costs(each, process.resident(), _nothing, _nothing)
    return Costs(each, base, _line(*peaks[1:]), _line(*before[1:]))


def _probe(setup, side):
    """(peak while the objective is made, peak of an evaluation, its seconds) on pictures of this side."""
    process.reset_peak()
    pictures = np.random.default_rng(0).uniform(-100, 100, (2, 3, side, side)).astype(np.float32)
    objective = Objective(
        setup.net, pictures[0], [pictures[1]], pooling=setup.options.pooling,
        normalize_gradients=setup.options.normalize_gradients, **setup.loss_settings,
    )  # fmt: skip
    before = process.peak()
    process.reset_peak()
    x = setup.net.ops.asarray(pictures[:1])
    for _ in range(2):
        begin = time.perf_counter()
        objective.evaluate(x)
        float(objective.loss)
        seconds = time.perf_counter() - begin
    return before, process.peak(), seconds


def _line(small, large):
    """Bytes by the number of pixels, from what two windows were measured to cost."""
    per_pixel = max(0.0, (large - small) / (PROBES[1] ** 2 - PROBES[0] ** 2))
    fixed = max(0.0, large - per_pixel * PROBES[1] ** 2)
    return lambda pixels: fixed + per_pixel * pixels


def _nothing(pixels):
    return 0
