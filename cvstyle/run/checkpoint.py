"""What a checkpoint holds: the state of a run, and what the run that goes on must have in common with it."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np

from .. import backends, checkpoint, optimize
from ..errors import CheckpointError, CheckpointWarning
from ..options import identity


def save(setup, state) -> None:
    """Write the state to the file of the setup's options, if they name one and the picture is finite.

    Where it cannot be written a CheckpointWarning says so. The losses of the state must have been looked at.
    """
    path, ops = setup.options.checkpoint, setup.home
    if not path or not math.isfinite(float(ops.dot(state.latest, state.latest))):
        return  # the next look at the losses ends the run; the checkpoint from before may go on otherwise
    numbers, arrays = optimize.saved(state.optimizer)
    header = {
        "settings": setup.identity, "stage": state.scale, "iterations": [count for _, count in setup.schedule],
        "done": state.done, "seed": setup.seed, "losses": state.losses, "averaged": state.averaged,
        "numbers": numbers, "choices": {key: c for each in _tuned(setup) for key, c in each.choices.entries.items()},
    }  # fmt: skip
    found = {"x": state.latest}
    if state.average is not None:
        found["average"] = state.average
    found |= {f"state.{name}": array for name, array in arrays.items()}
    try:
        checkpoint.save(path, header, found, np.asarray if backends.is_host(ops.name) else ops.to_host)
        state.checkpointed_at = state.done
    except CheckpointError as error:
        warnings.warn(f"{error}; the run goes on", CheckpointWarning, stacklevel=2)


def adopt_choices(setup, header: dict) -> None:
    """Let backends that measure which way of doing things is fastest choose as in the run before: results differ."""
    for ops in _tuned(setup):
        ops.choices.adopt(header.get("choices", {}))


def restore(setup, state, header: dict, arrays: dict[str, np.ndarray]) -> None:
    """Set a state to a checkpoint's. Raises CheckpointError where it belongs to another run."""
    path, ops, scale = setup.options.checkpoint, setup.home, header["stage"]
    # A version without an option had what is its default.
    known = identity(type(setup.options)(), {}) | header["settings"]
    checkpoint.check_same(path, known, json.loads(json.dumps(setup.identity)))
    before = header["iterations"]
    if before[:scale] != [count for _, count in setup.schedule[:scale]]:
        raise CheckpointError(f"{path}: the scales that it has done had {before[:scale]} iterations")
    if header["done"] > setup.end(scale):
        raise CheckpointError(f"{path}: it is at iteration {header['done']} already, more than are asked for")
    state.scale = scale
    state.done = state.checkpointed_at = header["done"]
    state.losses = header["losses"]
    setup.seed = header["seed"]
    state.x, state.latest, state.last_finite = (ops.asarray(arrays["x"]) for _ in range(3))
    if "average" in arrays:
        state.average, state.averaged = ops.asarray(arrays["average"]), header["averaged"]
    prefix = "state."
    kept = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
    if kept:
        count, settings = setup.schedule[scale][1], setup.optimizer_settings
        state.optimizer = setup.optimizer.restored(ops, kept, header["numbers"], count, **settings)


def _tuned(setup):
    """The backends that autotune."""
    return [ops for ops in setup.devices or setup.program().devices if ops.autotune]
