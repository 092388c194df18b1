"""Transfers of values between backends, where one network's layers are on several devices."""

from __future__ import annotations

from .fusion import Step


class DeviceTransfer:
    """A copy of a value on another backend, whose gradient is copied back; a layer as far as `Program` is concerned."""

    names = ("transfer",)
    uses_grid = False
    saves_activations = True  # on the host both values may be one array

    def __init__(self, source, target):
        self.source = source
        self.ops = target

    def forward(self, bottoms, context):
        return [self.ops.receive(bottoms[0])], lambda g: [self.source.receive(g[0])]


def with_transfers(steps: list[Step], backends: dict) -> list[Step]:
    """The steps, with a transfer before the first that reads a value of another backend.

    backends: value → its backend; the copies, which have negative numbers, are added.
    """
    copies: dict[tuple, int] = {}
    found = []
    for step in steps:
        ops = step.layer.ops
        for value in dict.fromkeys(step.bottoms):
            source = backends[value]
            if source is not ops and (value, ops) not in copies:
                copy = -1 - len(copies)
                copies[value, ops] = copy
                backends[copy] = ops
                found.append(Step(DeviceTransfer(source, ops), (value,), (copy,), copy))
        bottoms = tuple(copies.get((value, ops), value) for value in step.bottoms)
        found.append(Step(step.layer, bottoms, step.tops, step.first_top))
    return found
