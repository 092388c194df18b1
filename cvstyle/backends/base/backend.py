"""The interface of a backend."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np

from .arrays import ArrayOperations
from .gathering import GatherOperations
from .layers import LayerOperations
from .losses import LossOperations
from .optimizers import OptimizerOperations


class Backend(ArrayOperations, GatherOperations, LayerOperations, LossOperations, OptimizerOperations):
    """Arrays on one device, and the operations in which layers, losses and optimisers are written.

    A backend on the host inherits `reference.Backend` and overrides operations; its constructor takes `threads` and
    `pool` (see there). A backend for devices inherits `device.Backend`; its constructor takes a device and a precision.
    """

    name: str
    """The name on the command line."""

    priority = 0
    """The order of choice: "auto" takes the backend of highest priority."""

    on_host = False
    """Arrays are NumPy's, and a device is a share of the CPU's threads."""

    asynchronous = False
    """Operations return before their work is done: `float()` of a scalar and `to_host` wait for it."""

    fuses_pooling = False
    """A convolution may have a max pool in its epilogue (`Convolution.fuses_pool`)."""

    history_itemsize = 4
    """Bytes of a value in the history of L-BFGS."""

    autotune = False
    """The fastest of several algorithms for a convolution is measured; `choices` has the measurements. It may be
    switched at any time."""

    dtype: np.dtype
    """The type of arrays."""

    lock: AbstractContextManager = nullcontext()
    """Held during an evaluation of an objective: the memory pool of a device serves one thread at a time."""

    @classmethod
    def unavailable_because(cls) -> str | None:
        """The reason in one line why this machine cannot run the backend, or None."""
        return None

    @classmethod
    def list_devices(cls) -> list:
        """The devices of this machine, in the order of `--device N`; none on the host or where it is unavailable."""
        return []

    @classmethod
    def auto_selectable(cls) -> bool:
        """Permission for "auto" to take this backend where it is available."""
        return True

    @contextmanager
    def without_autotune(self):
        """A context in which no algorithms are measured, for shapes that will not come again."""
        before = self.autotune
        self.autotune = False
        try:
            yield
        finally:
            self.autotune = before
