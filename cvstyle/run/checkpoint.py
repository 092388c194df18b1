"""The contents of a checkpoint: the state of a run, and the identity that a resumed run must share."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np

from .. import checkpoint, optimize
from ..errors import CheckpointError, CheckpointWarning
from ..options import identity

_STATE = "state."  # prefix of the optimiser's entries


def save(setup, state) -> None:
    """Write the state to the options' checkpoint file, if there is one and the picture is finite.

    Warns with a CheckpointWarning where writing fails. The losses of the state must have been checked.
    """
    path = setup.options.checkpoint
    ops = setup.picture_backend
    if not path or not math.isfinite(float(ops.dot(state.latest, state.latest))):
        return  # the next check ends the run; the previous checkpoint can be resumed with other settings
    numbers, arrays = optimize.state_entries(state.optimizer)
    header = {
        "settings": setup.identity, "stage": state.scale, "iterations": [count for _, count in setup.schedule],
        "done": state.done, "seed": setup.seed, "losses": state.losses, "averaged": state.averaged, "numbers": numbers,
        "choices": {key: choice for ops in _autotuned(setup) for key, choice in ops.choices.entries.items()},
    }  # fmt: skip
    entries = {"x": state.latest}
    if state.average is not None:
        entries["average"] = state.average
    entries |= {f"{_STATE}{name}": array for name, array in arrays.items()}
    try:
        checkpoint.save(path, header, entries, np.asarray if ops.on_host else ops.to_host)
        state.checkpointed_at = state.done
    except CheckpointError as error:
        warnings.warn(f"{error}; the run goes on", CheckpointWarning, stacklevel=2)


def adopt_choices(setup, header: dict) -> None:
    """Make autotuned backends choose the checkpoint's algorithms, since results depend on them."""
    for ops in _autotuned(setup):
        ops.choices.adopt(header.get("choices", {}))


def restore(setup, state, header: dict, arrays: dict[str, np.ndarray]) -> None:
    """Set a state from a checkpoint. Raises CheckpointError for a checkpoint of another run."""
    path = setup.options.checkpoint
    ops = setup.picture_backend
    scale = header["stage"]
    # Options that the checkpoint's version lacked had their defaults.
    settings = identity(type(setup.options)(), setup.defaults) | header["settings"]
    checkpoint.check_same(path, settings, json.loads(json.dumps(setup.identity)))
    iterations = header["iterations"][:scale]
    if iterations != [count for _, count in setup.schedule[:scale]]:
        raise CheckpointError(f"{path}: the scales that it has done had {iterations} iterations")
    if header["done"] > setup.last_iteration(scale):
        raise CheckpointError(f"{path}: it is at iteration {header['done']} already, more than are asked for")
    state.scale = scale
    state.done = state.checkpointed_at = header["done"]
    state.losses = header["losses"]
    setup.seed = header["seed"]
    setup.resumed = True
    state.x, state.latest, state.last_finite = (ops.asarray(arrays["x"]) for _ in range(3))
    if "average" in arrays:
        state.average = ops.asarray(arrays["average"])
        state.averaged = header["averaged"]
    arrays = {name.removeprefix(_STATE): array for name, array in arrays.items() if name.startswith(_STATE)}
    if arrays:
        count = setup.schedule[scale][1]
        state.optimizer = setup.optimizer.load_state(
            ops, arrays, header["numbers"], count, **setup.optimizer_settings
        )


def _autotuned(setup):
    """The backends that autotune."""
    return [ops for ops in setup.devices or setup.program().devices if ops.autotune]
