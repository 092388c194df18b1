"""Any OpenCL device, through PyOpenCL: GPUs of every make, and CPUs with PoCL or Intel's runtime."""

from __future__ import annotations

import importlib.util
import time
from functools import cache

import numpy as np

from . import device as devices_in_common

_ROUNDS = 10  # of a timed function


class Backend(devices_in_common.Backend):
    """Operations on one OpenCL device."""

    name = "opencl"
    priority = 20

    @classmethod
    def unavailable_because(cls):
        if importlib.util.find_spec("pyopencl") is None:
            return "PyOpenCL is not installed (pip install 'cvstyle[opencl]')"
        found, reason = _platforms()
        if reason:
            return reason
        if not any(devices for _, devices in found):
            return "no OpenCL device was found (a driver of the GPU's maker, or PoCL for a CPU, provides one)"
        return None

    @classmethod
    def list_devices(cls):
        """All devices, GPUs first; `--device N` counts in this order."""
        if cls.unavailable_because():
            return []
        found = [Device(d) for _, devices in _platforms()[0] for d in devices]
        return sorted(found, key=lambda d: d.kind != "gpu")

    @classmethod
    def auto_selectable(cls):
        """Not for a CPU, where others are faster."""
        return any(d.kind == "gpu" for d in cls.list_devices())

    def __init__(self, device: str | int | None = None, precision: str = "fp32"):
        """device: a number from `list_devices()` or part of a name; the first one without it."""
        super().__init__(devices_in_common.choose(self.list_devices(), device, "OpenCL device"), precision)


class Device:
    """An OpenCL device; the package `device` documents the interface."""

    captures = False
    wgmma = False
    single_pass_reductions = False
    no_tensor_cores = "tensor cores are used through the backend cuda, on NVIDIA GPUs"

    def __init__(self, handle):
        import pyopencl as cl

        self._cl = cl
        self._handle = handle
        self.errors = (cl.Error,)
        self.name = f"{handle.name.strip()} ({handle.platform.name.strip()})"
        types = {"gpu": cl.device_type.GPU, "cpu": cl.device_type.CPU}
        self.kind = next((kind for kind, bit in types.items() if handle.type & bit), "accelerator")
        self.multiprocessors = handle.max_compute_units
        self.memory = handle.global_mem_size
        self.cache_size = handle.global_mem_cache_size
        self.driver = handle.driver_version.strip()
        self.autotunes = self.kind == "gpu"
        self._queue = None

    def allocate(self, size):
        self._open()
        try:
            return self._cl.Buffer(self._context, self._cl.mem_flags.READ_WRITE, size)
        except self._cl.Error as error:  # also for a size above what the device gives in one piece
            raise MemoryError(f"{self.name}: {size >> 20} MB: {error}") from None

    def view(self, memory, start, size):
        return memory if (start, size) == (0, memory.size) else memory.get_sub_region(start, size)

    def upload(self, view, host):
        if host.size:
            self._cl.enqueue_copy(self._queue, view, host)

    def download(self, host, view):
        self._cl.enqueue_copy(self._queue, host, view)

    def start_download(self, view, size):
        host = np.empty(size, np.uint8)
        arrival = self._cl.enqueue_copy(self._queue, host, view, is_blocking=False)
        self._queue.flush()
        return lambda: arrival.wait() or host

    def copy(self, target, source, size):
        if size:
            self._cl.enqueue_copy(self._queue, target, source, byte_count=size)

    def compile(self, source, options):
        self._open()
        try:
            program = self._cl.Program(self._context, source).build(list(options))
        except self._cl.RuntimeError as error:
            raise devices_in_common.CompilerError(str(error)) from None
        return {kernel.function_name: kernel for kernel in program.all_kernels()}.__getitem__

    def launch(self, kernel, groups, threads, arguments):
        try:
            kernel(self._queue, (groups[0] * threads, groups[1], groups[2]), (threads, 1, 1), *arguments)
        except self._cl.MemoryError as error:
            raise MemoryError(f"{self.name}: {error}") from None

    def seconds(self, function):
        self._queue.finish()
        start = time.perf_counter()
        for _ in range(_ROUNDS):
            function()
        self._queue.finish()
        return (time.perf_counter() - start) / _ROUNDS

    def synchronize(self):
        self._open()
        self._queue.finish()

    def _open(self):
        """The context, made when first needed, so that listing devices opens none."""
        if self._queue is None:
            self._context = self._cl.Context([self._handle])
            self._queue = self._cl.CommandQueue(self._context)


@cache
def _platforms():
    """([(platform, devices)], why there are none)."""
    try:
        import pyopencl as cl
    except ImportError as error:
        return [], f"PyOpenCL cannot be loaded: {error}"
    try:
        platforms = cl.get_platforms()
    except cl.Error as error:
        return [], f"no OpenCL driver is installed ({error}); PoCL gives one for the CPU: pip install 'pyopencl[pocl]'"
    found = []
    for platform in platforms:
        try:
            found.append((platform, platform.get_devices()))
        except cl.Error:  # a platform without a device says so by an error
            found.append((platform, []))
    return found, None

