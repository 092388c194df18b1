"""Which kernels the tests marked `gpu` launch, beside all that kernels/ has: what a minute on a GPU tries out."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path

import fake_cupy
import numpy as np

from cvstyle.backends.device import compiler, dry_run, operands

SOURCES = Path(__file__).resolve().parents[1] / "kernels"
WORDS = ("tf32", "fp16")  # in which the kernels for tensor cores are tried out; those of bf16 differ in one instruction
# What a kernel is compiled for that makes another way through it, beside the sizes of tiles.
VARIANTS = {
    ("convolution", "PROLOGUE"): (0, 1, 2, 3), ("convolution", "MATRIX"): (0, 1),
    ("winograd", "PROLOGUE"): (0, 1, 2, 3), ("winograd", "TRANSPOSED"): (0, 1), ("few_channels", "PROLOGUE"): (0, 1),
    ("cuda/convolution", "PROLOGUE"): (0, 1, 2),
    ("cuda/convolution", "SPLIT"): (0, 1), ("cuda/convolution", "PLUS"): (0, 1), ("cuda/convolution", "SIDE"): (1, 3),
}  # fmt: skip
# Second launches, of devices without reductions in a single pass (opencl.Device.single_pass_reductions).
SECOND = {("reduce", "total"), ("reduce", "largest"), ("gram", "gram_total")}


class Launches:
    """Kernels that were launched as (source, kernel, defines), and how many times any was."""

    def __init__(self):
        self.kernels, self.count, self.beforehand = set(), 0, ""

    @contextmanager
    def watched(self):
        """Count what is launched meanwhile, but for what a dry run leaves out."""
        get = compiler.Kernels.get

        def counted(kernels, source, kernel, defines=()):
            if not isinstance(kernels._device, dry_run.CountingDevice):
                self.kernels.add((source, kernel, tuple(defines)))
                self.count += 1
            return get(kernels, source, kernel, defines)

        compiler.Kernels.get = counted
        try:
            yield
        finally:
            compiler.Kernels.get = get

    @property
    def variants(self):
        """What was compiled for that: pairs of a source and defines."""
        return {(source, defines) for source, _, defines in self.kernels}

    @property
    def names(self):
        """What was launched: pairs of a source and a kernel."""
        return {(source, kernel) for source, kernel, _ in self.kernels}

    def missing(self):
        """What there is and was not launched, in words."""
        assert self.names <= kernels(), f"not found in the sources: {self.names - kernels()}"
        words = {(source, kernel, dict(defines).get("PRECISION")) for source, kernel, defines in self.kernels}
        values = {(source, name, value) for source, defines in self.variants for name, value in defines}
        return [
            *(f"{source}: {kernel}" for source, kernel in sorted(kernels() - self.names - SECOND)),
            *(f"{source}: {kernel} in {word}" for source, kernel in sorted(self.names) for word in WORDS
              if source.startswith("cuda/") and (source, kernel, operands.FORMATS.index(word)) not in words),
            *(f"{source}: {name}={value}" for (source, name), wanted in VARIANTS.items() for value in wanted
              if (source, name, value) not in values),
        ]  # fmt: skip

    def __str__(self):
        return "\n".join([
            f"{len(self.names)} of {len(kernels())} kernels in {len(self.variants)} variants, {self.count} launches"
            + self.beforehand,
            *(f"not launched: {each}" for each in self.missing()),
        ])  # fmt: skip


def install(patch):
    """A `cupy` with GPUs like an H200 that compute nothing; what tests compare is not looked at.

    With `python -O` and pytest's --assert=plain tests then go on to their ends, whatever they computed.
    """
    fake_cupy.install(patch, fake_cupy.Idle(), **fake_cupy.H200)
    for name in ("assert_array_equal", "assert_allclose"):
        patch.setattr(np.testing, name, lambda *_, **__: None)


def kernels():
    """(source, kernel) of all kernels in kernels/, those included that a macro makes."""
    return {
        (path.relative_to(SOURCES).with_suffix("").as_posix(), name)
        for path in SOURCES.rglob("*") if path.suffix in (".cl", ".cu") for name in _names(path.read_text("utf-8"))
    }  # fmt: skip


def _names(text):
    text = text.replace("\\\n", " ")
    for line in text.splitlines():
        for name in re.findall(r"\bKERNEL(?:_RESIDENT)?\(.*?\)\s+(\w+)\(", line):
            macro = re.match(r"#define (\w+)\(([^)]*)\)", line)
            if macro is None:
                yield name
                continue
            place = [parameter.strip() for parameter in macro[2].split(",")].index(name)
            for use in re.findall(rf"^{macro[1]}\(([^)]*)", text, re.MULTILINE):
                yield use.split(",")[place].strip()
