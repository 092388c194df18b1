"""What every device backend has in common: arrays, memory, kernels and the operations; no device is named here.

A backend (`opencl`, `cuda`) adds a `Device`, which knows memory, copies, the compiler and the launch:

    name, kind      for messages: "NVIDIA H100", "gpu" or "cpu"
    units           multiprocessors: how many groups it takes to fill the device
    memory, cache   bytes in all, and of the last cache before it
    no_tensor_cores           why kernels/cuda cannot run, or None
    wgmma                     whether kernels may use Hopper's tensor cores' own instruction; None: where `trust` says
                              so, which takes number (among its kind) and compiler (its version) as well
    finishes                  whether a launch's last group sees what the others wrote (comes_last in portable.h)
    allocate(size)            memory of so many bytes; dropped when no reference is left
    view(memory, start, size) a part of it, as kernels take it
    upload(view, host), download(host, view)   a host array to and from a view; a download waits
    start_download(view, size)                 a function that waits for the copy and returns so many bytes on the host
    copy(target, source, size)                 bytes from view to view
    compile(source, options)                   a function from a kernel's name to it; raises CompilerError with the log
    build(source, options)    where kernels are kept on disk: (what is kept, whether it was compiled anew); from any
                              thread, and without touching the device
    launch(kernel, groups, threads, arguments) arguments: views and NumPy scalars
    synchronize()             wait for all work
    seconds(function)         how long the device takes for what function() puts on the queue
    driver                    its version
    tunes                     whether ways to do the same are worth comparing by their time
    transfer(target, device, source, size)     where there is one: bytes from a view of another device of this class,
                              after all that was put on either's queue and before all that will be
    records                   whether there is record(function): what function() puts on the queue, not carried out, as
                              a function that does it, any number of times
    errors          the exceptions that the driver's package raises

Everything is put on one queue in order, so memory that is given back may be reused at once.
"""

from __future__ import annotations

from ...errors import OptionError
from .compiler import CompilerError
from .operations import Backend

__all__ = ["Backend", "CompilerError", "choose"]


def choose(devices: list, wanted: str | int | None, kind: str):
    """The device of this number or with this in its name; the first one for None. Raises OptionError for any other."""
    if wanted is None:
        return devices[0]
    if str(wanted).isdecimal():
        found = devices[int(wanted) : int(wanted) + 1]
    else:
        found = [d for d in devices if str(wanted).lower() in d.name.lower()]
    if not found:
        listed = ", ".join(f"{i} ({d.name})" for i, d in enumerate(devices))
        raise OptionError(f"there is no {kind} '{wanted}'; there is {listed}")
    return found[0]
