"""The first iterations of a run on backends that count memory and compute nothing, or next to nothing."""

from __future__ import annotations

import gc
from itertools import islice
from types import SimpleNamespace

import numpy as np

from ..backends import is_host
from ..backends import numpy as reference
from ..backends.device.dry_run import DryRunBackend
from ..objective import Objective
from .loop import Loop, RunState
from .scale import Scale
from .setup import Setup

_ITERATIONS, _CHECK = 4, 3  # what is asked for repeats itself; during the fourth the third's losses are on their way
_TILES = 16  # for each device
_SMALL = (48, 64)


def device_memory(setup: Setup, devices: list, size, styles) -> tuple[list[int], list]:
    """(bytes that each device is asked for, the tiles that were computed) for the setup's last scale at another size.

    Of many tiles the first alone are computed. size: (height, width) with the margin; styles: those of the styles.
    """
    gc.collect()
    used = {setup.net.ops, *(setup.devices or ()), *setup.program().devices}
    counting = {ops: DryRunBackend(devices[0] if is_host(ops.name) else ops) for ops in used}
    home = counting[setup.net.ops] if setup.home is setup.net.ops else DryRunBackend(devices[0])
    found = _resized(setup.on(counting.get, home), size)
    # Memory that is not touched is not taken.
    content, *styles = (np.zeros((3, *each), np.float32) for each in (size, *styles))
    most_tiles = _TILES * len(setup.devices or [None])
    objective = Objective(found.net, content, styles, most_tiles=most_tiles, **found.objective_settings)
    _iterate(found, objective, content)
    return [counting[ops].max_reserved for ops in devices], objective.tiles


def pictures_kept(setup: Setup, asynchronous: bool = False) -> float:
    """What the loop and the optimiser keep at the last scale, in pictures, the picture and its gradient included.

    What SciPy has to itself is not. asynchronous: on a backend that goes on by itself.
    """
    home = reference.Backend(threads=1)
    home.asynchronous = asynchronous
    found = _resized(setup.on(lambda ops: home, home), _SMALL)
    content = np.zeros((3, *_SMALL), np.float32)
    _iterate(found, _Nothing(home), content)
    return home.pool.reserved / content.nbytes


class _Nothing:
    """The objective of a sum without terms."""

    repeats = False

    def __init__(self, ops):
        self.ops = ops

    def evaluate(self, x):
        return self.ops.zeros(x.shape)

    @staticmethod
    def read_losses():
        return dict


def _resized(setup, size):
    """The last scale of a setup alone, at another size."""
    found = setup.changed(sizes=[size], schedule=setup.schedule[-1:], margin=0)
    if setup.optimizer.kept(1, setup.home.history_itemsize, **setup.optimizer_settings).host:
        # Its own arrays are the host's.
        stand_in = SimpleNamespace(start=_nothing, iterates=_evaluations)
        found = found.changed(optimizer=stand_in, optimizer_settings={})
    return found


def _iterate(setup, objective, content):
    ops = objective.ops
    state = RunState(ops.asarray(content[None]))
    state.latest = ops.copy(state.x)
    for _ in islice(Loop(Scale(setup, 0, objective), state, _CHECK), _ITERATIONS):
        pass


def _nothing(ops, x, num_iterations):
    return None


def _evaluations(objective, x, num_iterations, *, state, done):
    """What an optimiser on the host asks of the backend."""
    for _ in range(done, num_iterations):
        x = objective.ops.copy(x)
        objective.evaluate(x)
        yield x
