"""A backend that does nothing and counts the memory that a device would be asked for, and notes the kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .operations import Backend


class Rehearsal(Backend):
    """Like another device backend in what it allocates, filters included, and when: what that would take is known
    before it is taken. Arrays hold nothing, and every number that is read from the device is 1.

    Its convolutions are the common ones and go the way that is estimated to be fastest: what cuDNN would take, or what
    measurements on the device would choose, may differ.
    """

    def __init__(self, like: Backend):
        super().__init__(_Counter(like.device), like.precision)
        self.name, self.autotune = like.name, False

    @property
    def taken(self) -> int:
        """The most bytes that were taken from the device at once, in use or not, by all pools together."""
        return self.device.most


def kernels_needed(backend: Backend, work: Callable[[Backend], object]) -> list[tuple[str, tuple]]:
    """What work(ops) compiles on this backend, as (source, defines), about in the order in which it is asked for; where
    it autotunes, with the kernels of all that it would try out. Only the host works for it, which packs filters."""
    found = {}
    for turn in range(2):
        ops = Rehearsal(backend)
        ops.autotune = backend.autotune
        if ops.autotune:
            ops.choices = _Trials(backend.choices, turn)
        work(ops)
        found.update(dict.fromkeys(ops.wanted))
        if not (ops.autotune and ops.choices.other):
            break
    return list(found)


class _Trials:
    """Stands in for a device's `Choices`: runs what they would compare, and keeps nothing.

    What a convolution leaves for its gradient depends on whether it went by Winograd's algorithm, and so does what the
    gradient compiles: in another turn, all convolutions go the other way. other: whether there is one for any.
    """

    adopted = 0

    def __init__(self, choices, turn):
        self._choices, self._turn, self.other = choices, turn, False

    def pick(self, key, candidates, run, kernels=None):
        tried = self._choices.to_try(key, candidates)
        for candidate in tried:
            run(candidate)
        best = self._choices.expected(key, candidates)
        others = [c for c in tried if getattr(c, "winograd", None) != getattr(best, "winograd", None)]
        self.other = self.other or bool(others)
        return others[0] if others and self._turn else best


class _Memory:
    def __init__(self, counter, size):
        self._counter, self._size = counter, size
        counter.taken += size
        counter.most = max(counter.most, counter.taken)

    def __del__(self):
        self._counter.taken -= self._size


class _Counter:
    """The device of a rehearsal: another one's properties, and no work."""

    def __init__(self, device):
        self._device = device
        self.taken = self.most = 0

    def __getattr__(self, name):
        return getattr(self._device, name)

    def allocate(self, size):
        return _Memory(self, size)

    def view(self, memory, start, size):
        return memory

    def start_download(self, view, size):
        return lambda: np.ones(size // 4, np.float32).view(np.uint8)

    def download(self, host, view):
        host.fill(1)

    def compile(self, source, options):
        return str

    def record(self, function):
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
