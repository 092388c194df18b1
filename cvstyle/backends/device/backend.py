"""The backend of a device: operations as kernels, launched on one queue."""

from __future__ import annotations

import threading
from functools import cached_property

import numpy as np

from ...errors import DeviceError, OptionError, nearest
from .. import base
from . import operands, wgmma_verdict
from .array import Array, Scalar
from .arrays import Arrays
from .compiler import Kernels, digest
from .gathering import Gathering
from .graph_capture import CapturedFunction
from .layers import Layers
from .losses import Losses
from .optimizers import Optimizers
from .pool import DevicePool
from .reductions import GROUP, Reductions
from .tuning import Choices


class Backend(Arrays, Gathering, Reductions, Layers, Losses, Optimizers, base.Backend):
    """Operations in float32 on one device."""

    name = "device"
    fuses_pooling = True
    asynchronous = True
    dtype = np.dtype(np.float32)

    def __init__(self, device, precision="fp32"):
        """precision: "fp32", or a format of the operands of convolutions and Gram matrices (`operands.PRECISIONS`).

        Raises OptionError where the device has no tensor cores for it.
        """
        known = ("fp32", *operands.PRECISIONS)
        if precision not in known:
            raise OptionError(f"unknown precision '{precision}'{nearest(precision, known, ': ')}")
        if precision != "fp32" and device.no_tensor_cores:
            raise OptionError(f"precision {precision} cannot be had: {device.no_tensor_cores}; use precision fp32")
        self.device = device
        self.precision = precision
        self.uses_tensor_cores = precision != "fp32"
        self.operand_format = precision.removesuffix("-fast")
        self.split_operands = precision in operands.FORMATS
        self.pool = DevicePool(device)
        self.lock = threading.RLock()
        self.downloads = 0
        """Number of copies to the host, each of which waits for the device."""
        self.filter_bytes = 0
        """Bytes of packed filters."""
        self.captured_peak = 0
        """The most memory that captured functions used from pools of their own."""
        self.capture_problem = ""
        """The reason why the device did not capture a function, or ""."""
        self.autotune = device.autotunes
        """True if convolutions take the algorithm measured as fastest, False for the one estimated as fastest."""
        self._kernels = Kernels(device)
        self._constants = {}
        self._counters = {}

    def __repr__(self):
        return f"<{self.name} backend on {self.device.name}>"

    @cached_property
    def choices(self):
        """The algorithms measured as fastest."""
        return Choices(self.device, digest(), seconds=self.seconds, prepare=self.prepare)

    @property
    def wgmma(self):
        """True if Hopper's own instruction is a candidate: it is correct, and algorithms are timed."""
        wanted = self.device.wgmma
        return self.autotune and self._wgmma_is_correct if wanted is None else wanted

    @cached_property
    def _wgmma_is_correct(self):
        return wgmma_verdict.is_correct(self.device, self.operand_format)

    def trim(self):
        self.pool.trim()

    def memory_used(self) -> str:
        """The most memory that was in use at once, in words."""
        peak = (self.pool.max_allocated + self.captured_peak) / 1e6
        notes = [self.capture_problem, self.choices.problem if self.autotune else ""]
        used = f"at most {peak:.0f} MB in use, {self.filter_bytes / 1e6:.0f} MB of it filters"
        return "; ".join([used, *filter(None, notes)])

    def capture(self, function):
        return CapturedFunction(self, function) if self.device.captures else super().capture(function)

    # Arguments that kernels share

    def factor(self, value):
        """A number or Scalar as kernels take it (FACTOR in portable.h)."""
        if isinstance(value, Scalar):
            return (value.array, *value.form)
        return (self.constant(0.0), 0.0, float(value), 0.0, 1.0)

    def constant(self, value):
        """An array of one number, made once."""
        if value not in self._constants:
            self._constants[value] = self.asarray([value])
        return self._constants[value]

    def counters(self, count):
        """`count` or more 32-bit zeros, made once: kernels count in them and leave zeros behind.

        All launches share them, since work is done in order."""
        size = 1 << max(8, (count - 1).bit_length())
        if size not in self._counters:
            self._counters[size] = self.zeros((size,))
        return self._counters[size]

    # Launches

    def launch(self, source, kernel, groups, arguments, threads=GROUP, defines=()):
        """Put a kernel on the queue. arguments: arrays, None for an unused one, ints (int32) and floats (float32).

        Any array may be written, so `Block.abs_max` is dropped; a caller may set it afterwards.
        """
        unused = self._unused.view
        values = []
        for argument in arguments:
            if type(argument) is Array:
                argument.block.abs_max = None
                values.append(argument.block.view)
            elif isinstance(argument, int):
                values.append(np.int32(argument))
            elif argument is None:
                values.append(unused)
            else:
                values.append(np.float32(argument))
        function = self._kernels.get(source, kernel, defines)
        self._checked(kernel, self.device.launch, function, groups, threads, values)

    def _each(self, source, kernel, count, *arguments, defines=()):
        """Launch a kernel with a work-item for each of `count` elements."""
        if count:
            self.launch(source, kernel, (-(-count // GROUP), 1, 1), arguments, defines=defines)

    def _checked(self, operation, function, *arguments):
        """The result of a function of the device. Raises DeviceError for the errors of the device's package."""
        try:
            return function(*arguments)
        except self.device.errors as error:
            raise DeviceError(f"operation '{operation}' failed on {self.device.name}: {error}") from error

    @cached_property
    def _unused(self):
        """Memory that a kernel gets for an array that it does not use."""
        return self.pool.empty(4)

    @property
    def requested_kernels(self):
        """The kernels requested so far, as (source, defines)."""
        return self._kernels.requested

    def prepare(self, kernels, threads=None):
        """Compile kernels before they are needed, in parallel (see `Kernels.prepare` and `dry_run`)."""
        return self._kernels.prepare(kernels, threads)

    def seconds(self, function):
        """`Device.seconds`, which may capture the function's work."""
        pool = self.pool
        pool.hold()
        try:
            return self.device.seconds(function)
        finally:
            pool.release()
