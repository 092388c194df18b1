"""The first iterations of a run, on backends that count memory and compute (almost) nothing."""

from __future__ import annotations

import gc
from itertools import islice
from types import SimpleNamespace

import numpy as np

from ..backends import reference
from ..backends.device.dry_run import DryRunBackend
from ..objective import Objective
from .loop import Loop, RunState
from .scale import Scale
from .setup import Setup
from .styles import entries

_ITERATIONS = 4  # later iterations allocate nothing new; during the fourth, the losses of the third are copied
_CHECK = 3
_TILES = 16  # at most, per device
_SMALL = (48, 64)


def device_memory(setup: Setup, devices: list, size, styles) -> tuple[list[int], list]:
    """(bytes reserved on each device, the computed tiles) for the setup's last scale at another size.

    Only the first tiles are computed. size: (height, width) with the margin; styles: the sizes of the styles that are
    pictures.
    """
    gc.collect()
    used = {setup.net.ops, *(setup.devices or ()), *setup.program().devices}
    counting = {ops: DryRunBackend(devices[0] if ops.on_host else ops) for ops in used}
    on_network = setup.picture_backend is setup.net.ops
    picture_backend = counting[setup.net.ops] if on_network else DryRunBackend(devices[0])
    regions = setup.regions_at(size, styles)
    setup = _resized(setup.on(counting.get, picture_backend), size)
    # Untouched zeros take no memory.
    content, *pictures = (np.zeros((3, *each), np.float32) for each in (size, *styles))
    styles = [style for style, _ in entries(setup, len(setup.schedule) - 1, lambda *_: (pictures.pop(0), None))]
    most_tiles = _TILES * len(setup.devices or [None])
    objective = Objective(
        setup.net, content, styles, regions=regions, most_tiles=most_tiles, **setup.objective_settings
    )
    _iterate(setup, objective, content)
    return [counting[ops].max_reserved for ops in devices], objective.tiles


def state_pictures(setup: Setup, asynchronous: bool = False) -> float:
    """The memory of the loop and the optimiser at the last scale, in pictures, with the picture and its gradient.

    SciPy's own memory does not count. asynchronous: for a backend that computes ahead of the host.
    """
    ops = reference.Backend(threads=1)
    ops.asynchronous = asynchronous
    content = np.zeros((3, *_SMALL), np.float32)
    _iterate(_resized(setup.on(lambda _: ops, ops), _SMALL), _EmptyObjective(ops), content)
    return ops.pool.reserved / content.nbytes


class _EmptyObjective:
    """An objective without losses."""

    capturable = False

    def __init__(self, ops):
        self.ops = ops

    def evaluate(self, x):
        return self.ops.zeros(x.shape)

    @staticmethod
    def extension(pixels):
        return None

    @staticmethod
    def losses_async():
        return dict


def _resized(setup, size):
    """A setup with only the last scale, at another size."""
    resized = setup.changed(sizes=[size], schedule=setup.schedule[-1:])
    if setup.optimizer.memory(1, setup.picture_backend.history_itemsize, **setup.optimizer_settings).host:
        # An optimiser with arrays of its own in host memory.
        optimizer = SimpleNamespace(initial_state=lambda ops, x, num_iterations: None, iterates=_evaluations)
        resized = resized.changed(optimizer=optimizer, optimizer_settings={})
    return resized


def _iterate(setup, objective, content):
    ops = objective.ops
    state = RunState(ops.asarray(content[None]))
    state.latest = ops.copy(state.x)
    for _ in islice(Loop(Scale(setup, 0, objective), state, _CHECK), _ITERATIONS):
        pass


def _evaluations(objective, x, num_iterations, *, state, done):
    """The pictures and evaluations of an optimiser on the host, without its own work."""
    for _ in range(done, num_iterations):
        x = objective.ops.copy(x)
        objective.evaluate(x)
        yield x
