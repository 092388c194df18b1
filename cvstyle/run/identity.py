"""The identity of a run, which a checkpoint keeps."""

from __future__ import annotations

from typing import Any

from .. import checkpoint
from ..netdef import IMAGENET, imagenet_mean
from ..options import identity
from . import styles


def identity_of(setup) -> dict[str, Any]:
    """The values that a run must share with the run whose checkpoint it resumes."""
    options = setup.options
    values = identity(options, {name: setup.value(name) for name in setup.defaults})
    for name in (name for name in values if name.endswith("_layers")):
        values[name] = values[name] and [str(entry) for entry in values[name]]
    # None stands for the default, as in checkpoints of versions without the value.
    convention = setup.net.convention
    values["mean"] = None if convention.mean == imagenet_mean(convention.channels) else list(convention.mean)
    values["input_scale"] = None if convention.scale == 1 else convention.scale
    values["channels"] = None if convention.channels == IMAGENET.channels else convention.channels
    values["balance"] = setup.balance if setup.balance != "none" else None
    if options.optimizer == "lbfgs":
        values["lbfgs_smooth"] = setup.optimizer_settings.get("precondition") or None
        values["backend, by the bytes of a value in its L-BFGS history"] = setup.picture_backend.history_itemsize
    values["margin"] = setup.margin or None
    values["scales"] = [longest for longest, _ in setup.schedule]
    values["texture"] = list(setup.sizes[-1]) if setup.texture else None
    values["network"] = setup.net.digest(setup.layer_names)
    values["content picture"], *values["style pictures"] = setup.digests or styles.digests(setup.content, setup.styles)
    values["masks"] = [
        checkpoint.digest(region.mask, *(part for part in region.styles.values() if part is not None))
        for region in setup.regions
    ] or None
    values["color"] = options.colors if options.matching else None  # others change the result alone
    return values
