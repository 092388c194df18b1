"""The common part of device backends: arrays, memory, kernels and the operations; no device is named here.

A backend (`opencl`, `cuda`) adds a `Device`, an interface to memory, copies, the compiler and the launch:

    name, kind      for messages: "NVIDIA H100", "gpu" or "cpu"
    multiprocessors           number of groups that fill the device, at least
    memory, cache_size        bytes of the memory, and of the last cache before it
    no_tensor_cores           the reason why kernels/cuda cannot run, or None
    wgmma                     whether kernels may use the own instruction of Hopper's tensor cores; None: the verdict of
                              `wgmma_verdict`, which needs number (among its kind) and compiler (its version) as well
    single_pass_reductions    whether a launch's last group sees the writes of the others (comes_last in portable.h)
    allocate(size)            memory of this many bytes; freed when no reference is left
    view(memory, start, size) a part of the memory, as an argument of kernels
    upload(view, host), download(host, view)   a host array to and from a view; a download waits
    start_download(view, size)                 a function that waits for the copy and returns the bytes on the host
    copy(target, source, size)                 bytes from view to view
    compile(source, options)                   a function from a kernel's name to it; raises CompilerError with the log
    build(source, options)    where there is a cache on disk: (the binary, whether this call compiled it); thread-safe,
                              and without touching the device
    launch(kernel, groups, threads, arguments) arguments: views and NumPy scalars
    synchronize()             wait for all work
    seconds(function)         time that the device takes for the work that function() puts on the queue
    driver                    the driver's version
    autotunes                 whether algorithms are worth comparing by their time
    transfer(target, device, source, size)     where supported: bytes from a view of another device of this class,
                              after all work on either queue and before all later work
    captures                  whether there is capture(function): the work that function() puts on the queue, not
                              carried out, as a function that does it, any number of times
    errors          the exceptions that the driver's package raises

All work is put on one queue in order, so memory that is given back may be reused at once.
"""

from __future__ import annotations

from ...errors import OptionError
from .backend import Backend
from .compiler import CompilerError

__all__ = ["Backend", "CompilerError", "choose"]


def choose(devices: list, wanted: str | int | None, kind: str):
    """The device with this number, or with this text in its name; the first for None. Raises OptionError for others."""
    if wanted is None:
        return devices[0]
    if str(wanted).isdecimal():
        matches = devices[int(wanted) : int(wanted) + 1]
    else:
        matches = [d for d in devices if str(wanted).lower() in d.name.lower()]
    if not matches:
        listed = ", ".join(f"{i} ({d.name})" for i, d in enumerate(devices))
        raise OptionError(f"there is no {kind} '{wanted}'; there is {listed}")
    return matches[0]
