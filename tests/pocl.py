"""PoCL from a wheel on a processor that is newer than its compiler.

PoCL 3.0, the version on PyPI, asks LLVM 14 for the processor's name; for one made after 2022 that is "generic", which
its own compiler then refuses ("unknown target CPU 'generic'", pocl issue 1049). `prepare` makes PoCL name the
instruction set instead. It must run before PyOpenCL looks for devices. Only tests use it.

PoCL's compiler takes up to 20 seconds for a kernel with optimisations and one second without. The small pictures of
tests do not make up for that, so tests compile without, and keep those kernels between runs in a cache of their own:
PoCL's key of a compiled kernel does not contain the options.

It also asks for PoCL's driver of one thread, twice, for tests of two devices: with the other driver's threads, one
kernel in some 1000 (10 in 10,000 runs of `finish`, none with one thread) gave a work-group whose local memory read as
zeros.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import platform
from pathlib import Path


def prepare(tests: str | None = None) -> None:
    """Choose PoCL's devices, its compiler's options and its cache, and name a processor that it does not know.

    tests: the folder for kernels that are compiled without optimisations; None: with them, to where PoCL keeps others.
    """
    os.environ.setdefault("POCL_DEVICES", "basic basic")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    os.environ.setdefault("POCL_CACHE_DIR", tests or os.path.join(cache, "pocl", "kcache"))
    if tests:
        os.environ.setdefault("POCL_EXTRA_BUILD_FLAGS", "-cl-opt-disable")
    spec = importlib.util.find_spec("pyopencl")
    found = sorted(Path(spec.origin).parent.glob(".libs/libpocl*.so*")) if spec else []
    if not found or platform.machine() != "x86_64":
        return
    name_of_cpu = ctypes.CDLL(str(found[0])).pocl_get_llvm_cpu_name
    name_of_cpu.restype = ctypes.c_char_p
    if name_of_cpu() != b"generic":
        return
    flags = Path("/proc/cpuinfo").read_text("utf-8").partition("\nflags")[2].partition("\n")[0].split()
    known = b"x86-64-v3" if {"avx2", "fma", "bmi2", "f16c", "movbe"} <= set(flags) else b"x86-64"
    libc = ctypes.CDLL(None)
    libc.strdup.restype = ctypes.c_void_p
    address = ctypes.cast(name_of_cpu, ctypes.c_void_p).value
    # The function becomes: return strdup(known)
    code = b"\x48\xbf" + libc.strdup(known).to_bytes(8, "little")
    code += b"\x48\xb8" + ctypes.cast(libc.strdup, ctypes.c_void_p).value.to_bytes(8, "little") + b"\xff\xe0"
    page = address & -mmap.PAGESIZE
    span = ctypes.c_size_t(2 * mmap.PAGESIZE)
    if libc.mprotect(ctypes.c_void_p(page), span, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) == 0:
        ctypes.memmove(address, code, len(code))
        libc.mprotect(ctypes.c_void_p(page), span, mmap.PROT_READ | mmap.PROT_EXEC)
