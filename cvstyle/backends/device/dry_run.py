"""A backend that computes nothing and counts the memory and the kernels that a device would be asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .backend import Backend


class DryRunBackend(Backend):
    """Allocates as another device backend would, filters included, without a device's memory: a forecast of the need.

    Arrays hold nothing, and every number that is read from the device is 1. Convolutions take the algorithm estimated
    as fastest: cuDNN, or measurements on the device, may choose otherwise.
    """

    def __init__(self, template: Backend):
        super().__init__(CountingDevice(template.device), template.precision)
        self.name = template.name
        self.autotune = False

    @property
    def max_reserved(self) -> int:
        """The most bytes reserved at once, in use or not, by all pools together."""
        return self.device.max_reserved


def kernels_needed(backend: Backend, work: Callable[[Backend], object]) -> list[tuple[str, tuple]]:
    """The kernels that work(ops) compiles on this backend, as (source, defines), about in the order of their requests;
    with autotune, also the kernels of all candidates. Only the host works, which packs filters."""
    kernels = {}
    for alternative in (False, True):
        ops = DryRunBackend(backend)
        ops.autotune = backend.autotune
        if ops.autotune:
            ops.choices = _AllCandidates(backend.choices, alternative)
        work(ops)
        kernels.update(dict.fromkeys(ops.requested_kernels))
        if not (ops.autotune and ops.choices.has_alternative):
            break
    return list(kernels)


class _AllCandidates:
    """Stands in for a device's `Choices`: runs every candidate of a comparison, and records nothing.

    A convolution's prologue, and so the kernels of its gradient, depend on whether its algorithm is Winograd's; with
    `alternative`, each convolution takes the other kind. has_alternative: whether any convolution has one.
    """

    adoptions = 0

    def __init__(self, choices, alternative):
        self._choices = choices
        self._alternative = alternative
        self.has_alternative = False

    def pick(self, key, candidates, run, kernels=None):
        tried = self._choices.to_try(key, candidates)
        for candidate in tried:
            run(candidate)
        best = self._choices.expected(key, candidates)
        others = [c for c in tried if getattr(c, "winograd", None) != getattr(best, "winograd", None)]
        self.has_alternative = self.has_alternative or bool(others)
        return others[0] if others and self._alternative else best


class _Allocation:
    def __init__(self, counter, size):
        self._counter = counter
        self._size = size
        counter.reserved += size
        counter.max_reserved = max(counter.max_reserved, counter.reserved)

    def __del__(self):
        self._counter.reserved -= self._size


class CountingDevice:
    """The device of a dry run: another device's properties, and no work."""

    def __init__(self, device):
        self._device = device
        self.reserved = 0
        self.max_reserved = 0

    def __getattr__(self, name):
        return getattr(self._device, name)

    def allocate(self, size):
        return _Allocation(self, size)

    def view(self, memory, start, size):
        return memory

    def start_download(self, view, size):
        return lambda: np.ones(size // 4, np.float32).view(np.uint8)

    def download(self, host, view):
        host.fill(1)

    def compile(self, source, options):
        return str

    def capture(self, function):
        function()
        return self.synchronize

    def transfer(self, target, device, source, size):
        pass

    def upload(self, view, host):
        pass

    def copy(self, target, source, size):
        pass

    def launch(self, kernel, groups, threads, arguments):
        pass

    def synchronize(self):
        pass
