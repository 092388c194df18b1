"""Kernels by name, compiled at their first use from the sources in kernels/."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from ...errors import DeviceError
from ..threads import cpu_count

_THREADS = 16  # most threads that compile

_HEADERS = {  # beside portable.h
    "convolution": ("product.h",), "winograd": ("product.h",), "gram": ("reduction.h", "gram.h"),
    "cuda/gram": ("reduction.h", "gram.h"),
    "reduce": ("reduction.h",), "variation": ("reduction.h",), "lbfgs": ("reduction.h",),
}  # fmt: skip


class CompilerError(Exception):
    """A source that does not compile; the text is the compiler's log."""


@cache
def source(name: str) -> str:
    """The text of a file in kernels/ behind portable.h, which maps the dialects, and its other headers.

    name: NAME for NAME.cl; cuda/NAME for cuda/NAME.cu, behind tensor.h and wgmma.h as well.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "kernels", package.parent / "kernels"):
        path = folder / file_name(name)
        if path.is_file():
            cuda = ("cuda/tensor.h", "cuda/wgmma.h")
            headers = ["portable.h", *(cuda if path.suffix == ".cu" else ()), *_HEADERS.get(name, ())]
            parts = [(folder / h).read_text("utf-8") for h in headers]
            return "\n".join([*parts, f'#line 1 "{path.name}"', path.read_text("utf-8")])
    raise DeviceError(f"{package / 'kernels' / file_name(name)} is missing from this installation; reinstall cvstyle")


@cache
def digest() -> str:
    """A hash of the sources of the kernels that algorithms choose among."""
    names = ("convolution", "finish", "gram", "winograd", "cuda/convolution", "cuda/gram")
    return hashlib.sha256("".join(map(source, names)).encode()).hexdigest()[:16]


def file_name(name: str) -> str:
    """The file of a source, relative to kernels/."""
    return f"{name}.cu" if name.startswith("cuda/") else f"{name}.cl"


class Kernels:
    """The kernels of one device. `defines` are pairs of a macro's name and its value."""

    def __init__(self, device):
        self._device = device
        self._modules = {}
        self._kernels = {}

    def get(self, source_name: str, kernel: str, defines: tuple[tuple[str, object], ...] = ()):
        """One kernel. Raises DeviceError with the operation, the device and the compiler's log."""
        key = source_name, kernel, defines
        if key not in self._kernels:
            self._kernels[key] = self._module(source_name, kernel, defines)(kernel)
        return self._kernels[key]

    def _module(self, source_name, kernel, defines):
        if (source_name, defines) not in self._modules:
            options = _options(defines)
            try:
                module = self._device.compile(source(source_name), options)
            except (CompilerError, *self._device.errors) as error:  # a driver's error: it cannot load the binary
                where = " ".join((f"kernels/{file_name(source_name)}", *options))
                raise DeviceError(
                    f"operation '{kernel}' ({where}) does not compile for {self._device.name}:\n{error}"
                ) from None
            self._modules[source_name, defines] = module
        return self._modules[source_name, defines]

    @property
    def requested(self) -> list[tuple[str, tuple]]:
        """(source, defines) of all kernels requested so far, in order."""
        return list(self._modules)

    def prepare(self, requested, threads: int | None = None) -> int:
        """Compile kernels in parallel, as another object's `requested` lists them, where the device has a cache of
        compiled kernels; returns the number of new ones. Errors are left to `get`."""
        if not hasattr(self._device, "build"):
            return 0

        def build(each):
            name, defines = each
            try:
                return self._device.build(source(name), _options(defines))[1]
            except (CompilerError, DeviceError):
                return False

        missing = [each for each in dict.fromkeys(requested) if each not in self._modules]
        with ThreadPoolExecutor(threads or min(_THREADS, cpu_count())) as executor:
            return sum(executor.map(build, missing))


def _options(defines):
    return tuple(f"-D{name}={value}" for name, value in defines)
