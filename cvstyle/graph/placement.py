"""Placement: the cuts between devices that have the network's layers one after the other."""

from __future__ import annotations

from functools import cache

from ..errors import OptionError


def balanced_cuts(program, size: tuple[int, int], count: int, bytes_on_first: float = 0) -> list[str]:
    """The layers after which the next of `count` devices takes over, for windows of (height, width) `size`.

    The device that needs most memory needs as little as possible. Time is not balanced: one device works at a time.
    bytes_on_first: bytes that the first device holds beside its layers.
    Raises OptionError for more devices than there are steps.
    """
    names, resident, at_work = zip(*program.memory(size), strict=True)
    if count > len(names):
        raise OptionError(f"{count} devices cannot share the layers of a network of {len(names)}; take fewer devices")

    @cache
    def best(first, devices):
        """(bytes of the device that needs most, the ends of all parts but the last) for the steps from `first` on."""
        if devices == 1:
            return sum(resident[first:]) + max(at_work[first:]), ()
        choices = []
        own = 0 if first else bytes_on_first
        largest = 0
        for end in range(first + 1, len(names) - devices + 2):
            own += resident[end - 1]
            largest = max(largest, at_work[end - 1])
            rest, ends = best(end, devices - 1)
            choices.append((max(own + largest, rest), (end, *ends)))
        return min(choices)

    return [names[end - 1] for end in best(0, count)[1]]
