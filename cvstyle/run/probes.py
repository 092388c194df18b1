"""The host memory and time of evaluations on the machine, measured on two small pictures."""

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
    """seconds: per evaluation and pixel of a window. baseline: bytes of host memory before any evaluation. host_cost:
    pixels of a window → additional bytes of an evaluation. target_cost: the same for the computation of targets."""

    seconds: float
    baseline: float
    host_cost: Callable[[float], float]
    target_cost: Callable[[float], float]


def measure(setup, program, devices) -> Costs:
    """The costs of a setup; where devices share the tiles, the first device's."""
    with ExitStack() as stack:
        for ops in devices:
            stack.enter_context(ops.without_autotune())  # the shapes of probes do not recur
        stack.enter_context(process.freed_at_once())
        return _costs(setup, program)


def _costs(setup, program):
    target_peaks = []
    peaks = []
    baseline = process.resident()
    on_host = any(ops.on_host for ops in program.devices)
    # The first probe packs filters once and for all; a line through two sizes gives the host memory.
    for side in (PROBES[0], *PROBES) if on_host else PROBES[1:]:
        gc.collect()
        for ops in program.devices:
            ops.trim()
        target_peak, peak, seconds = _probe(setup, side)
        target_peaks.append(target_peak - baseline)
        peaks.append(peak - baseline)
    for ops in program.devices:
        ops.trim()
    seconds /= PROBES[1] ** 2
    if not on_host:
        return Costs(seconds, process.resident(), _zero, _zero)
    return Costs(seconds, baseline, _line(*peaks[1:]), _line(*target_peaks[1:]))


def _probe(setup, side):
    """(peak memory while the objective is made, peak and seconds of an evaluation) on square pictures."""
    process.reset_peak()
    pictures = np.random.default_rng(0).uniform(-100, 100, (2, 3, side, side)).astype(np.float32)
    sizes = [(side, side)] * len(setup.styles)
    styles = [pictures[1]] * (len(setup.styles) if setup.regions else 1)
    objective = Objective(
        setup.net, pictures[0], styles, regions=setup.regions_at(sizes[0], sizes), pooling=setup.options.pooling,
        normalize_gradients=setup.options.normalize_gradients, **setup.loss_settings,
    )  # fmt: skip
    target_peak = process.peak()
    process.reset_peak()
    x = setup.net.ops.asarray(pictures[:1])
    for _ in range(2):
        start = time.perf_counter()
        objective.evaluate(x)
        float(objective.loss)
        seconds = time.perf_counter() - start
    return target_peak, process.peak(), seconds


def _line(small, large):
    """The function pixels → bytes through the measurements of two windows."""
    per_pixel = max(0.0, (large - small) / (PROBES[1] ** 2 - PROBES[0] ** 2))
    fixed = max(0.0, large - per_pixel * PROBES[1] ** 2)
    return lambda pixels: fixed + per_pixel * pixels


def _zero(pixels):
    return 0
