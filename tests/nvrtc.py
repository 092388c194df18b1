"""CUDA's run-time compiler through ctypes: compiles a source for a GPU that is not there, and says what it uses.

What it makes is kept between runs in the folder that CVSTYLE_TEST_KEPT names, and removed after a month without use.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import re
import struct
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from cvstyle import paths


@dataclass
class Usage:
    """What a kernel uses (ptxas -v): registers, bytes of local memory that registers spill to, shared memory."""

    registers: int
    spills: int
    shared: int


NEWEST = 13
"""The second compiler that sources are tried with: of another generation, and what a driver of CUDA 13 comes with."""


@cache
def library(version=None):
    """The compiler of a wheel nvidia-cuda-nvrtc: of this version of CUDA, or the oldest there is. Or None."""
    spec = importlib.util.find_spec("nvidia")
    folders, name = spec.submodule_search_locations if spec else (), f"libnvrtc.so.{version or '1[2-9]'}"
    paths = sorted((path for folder in folders for path in Path(folder).glob(f"*/lib/{name}")), key=lambda p: p.name)
    return ctypes.CDLL(str(paths[0])) if paths else None


def in_turn(number: int) -> int | None:
    """The version of CUDA to compile job `number` with: the newest for every other one, where it is installed."""
    return NEWEST if number % 2 and library(NEWEST) else None


def compile_source(source: str, options: tuple[str, ...], architecture: str, version=None) -> dict[str, Usage]:
    """Usage by kernel. Raises ValueError with the compiler's log for a source that does not compile."""
    return dict(_parsed(_compiled(source, options, architecture, version=version)[0]))


def compile_to_instructions(source: str, options: tuple[str, ...], architecture: str, version=None):
    """(usage by kernel, the numbers of its instructions' operation codes by kernel); see `_instructions`."""
    log, image = _compiled(source, options, architecture, version=version)
    return dict(_parsed(log)), _instructions(image)


def compile_to_ptx(source: str, options: tuple[str, ...], architecture: str) -> str:
    """The text of the module for a virtual architecture ("compute_80")."""
    return _compiled(source, options, architecture, "PTX")[1].rstrip(b"\0").decode()


def _compiled(source, options, architecture, form="CUBIN", version=None):
    """(log, what was made: machine code as an ELF file), from an earlier run where it is kept."""
    nvrtc = library(version)
    if nvrtc is None:
        name = f"CUDA {version}'s compiler" if version else "CUDA's compiler"
        pytest.skip(f"{name} is not installed (it comes with the extra 'test' on Linux on x86-64)")
    kept, compiler = _kept(), os.stat(nvrtc._name)
    key = repr((nvrtc._name, compiler.st_size, compiler.st_mtime, source, options, architecture, form))
    path = kept and kept / hashlib.sha256(key.encode()).hexdigest()
    if path is None or not path.exists():
        log, image = _newly_compiled(nvrtc, source, options, architecture, form)
        if path:
            paths.write(path, log.encode() + _END + image)
        return log, image
    os.utime(path)
    log, _, image = path.read_bytes().partition(_END)
    return log.decode(), image


_END = b"\0end of the log\0"


@cache
def _kept():
    """The folder of what was made, without what has not been used for a month; None where nothing is kept."""
    if "CVSTYLE_TEST_KEPT" not in os.environ:
        return None
    folder = Path(os.environ["CVSTYLE_TEST_KEPT"], "nvrtc")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        with suppress(OSError):  # another worker may have been faster
            if path.stat().st_mtime < time.time() - 30 * 24 * 3600:
                path.unlink()
    return folder


def _newly_compiled(nvrtc, source, options, architecture, form):
    program = ctypes.c_void_p()
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    result = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    assert result == 0, nvrtc.nvrtcGetErrorString(result)
    options = (*options, f"--gpu-architecture={architecture}")
    if form == "CUBIN":
        options += ("--ptxas-options=-v",)
    array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    result = nvrtc.nvrtcCompileProgram(program, len(options), array)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, buffer)
    log = buffer.value.decode()
    assert "Potential Performance Loss" not in log, log  # of wgmma: products that cannot run beside other work
    assert not re.search('function ".*" was declared but never referenced', log), log
    if result:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        raise ValueError(f"{nvrtc.nvrtcGetErrorString(result).decode()}\n{log}")
    getattr(nvrtc, f"nvrtcGet{form}Size")(program, ctypes.byref(size))
    image = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{form}")(program, image)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return log, image.raw


def _instructions(image):
    """Counters of operation codes by kernel: the lowest 12 bits of an instruction, which has 16 bytes since Volta."""
    (start,), (entry, count, names) = struct.unpack_from("<40xQ", image), struct.unpack_from("<58xHHH", image)
    headers = [struct.unpack_from("<IIQQQQ", image, start + i * entry) for i in range(count)]
    table, found = headers[names][4], {}
    for name, _, _, _, offset, size in headers:
        text = image[table + name : image.index(b"\0", table + name)].decode()
        if text.startswith(".text."):
            words = struct.unpack_from(f"<{size // 8}Q", image, offset)[::2]
            found[text[6:]] = Counter(word & 0xFFF for word in words)
    return found


def _parsed(log):
    for part in log.split("Compiling entry function '")[1:]:
        name = part.partition("'")[0]
        find = lambda pattern, part=part: int((re.search(pattern, part) or [0, 0])[1])  # noqa: E731
        spills = find(r"(\d+) bytes spill stores") + find(r"(\d+) bytes spill loads") + find(r"(\d+) bytes stack frame")
        yield name, Usage(find(r"Used (\d+) registers"), spills, find(r"(\d+) bytes smem"))
