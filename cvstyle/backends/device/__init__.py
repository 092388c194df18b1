"""What every device backend has in common: arrays, memory, kernels and the operations; no device is named here.

A backend (`opencl`, `cuda`) adds a `Device`, which knows memory, copies, the compiler and the launch:

    name, kind      for messages: "NVIDIA H100", "gpu" or "cpu"
    units           multiprocessors: how many groups it takes to fill the device
    memory          bytes in all
    allocate(size)            memory of so many bytes; dropped when no reference is left
    view(memory, start, size) a part of it, as kernels take it
    upload(view, host), download(host, view)   a host array to and from a view; a download waits
    copy(target, source, size)                 bytes from view to view
    compile(source, options)                   kernels by name from one source; raises CompilerError with the log
    launch(kernel, groups, threads, arguments) arguments: views and NumPy scalars
    synchronize()             wait for all work

Everything is put on one queue in order, so memory that is given back may be reused at once.
"""

from .compiler import CompilerError
from .operations import Backend

__all__ = ["Backend", "CompilerError"]
