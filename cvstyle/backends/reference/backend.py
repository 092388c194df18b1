"""The backend "numpy", and the common part of all backends on the host."""

from __future__ import annotations

import numpy as np

from .. import base
from ..memory import HostPool
from ..threads import Workers
from .activations import Activations
from .arrays import Arrays
from .convolution import Convolution
from .gathering import Gathering
from .losses import Losses
from .normalization import Normalization
from .optimizers import Optimizers
from .pooling import Pooling


class Backend(Arrays, Activations, Gathering, Pooling, Normalization, Losses, Optimizers, base.Backend):
    """Operations on NumPy arrays of one dtype, from a pool of host memory; any number of threads may call them."""

    name = "numpy"
    on_host = True

    def __init__(self, dtype="float32", threads: int | None = None, pool: HostPool | None = None):
        """threads: of the operations; None: one per processor. pool: the source of arrays; None: a new one."""
        self.dtype = np.dtype(dtype)
        self.pool = HostPool() if pool is None else pool
        self.workers = Workers(threads)

    def __repr__(self):
        return f"<{self.name} backend, {self.dtype}>"

    def convolution(self, weight, bias, stride, dilation, group):
        return Convolution(self, weight, bias, stride, dilation, group)
