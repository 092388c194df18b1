"""Which layers go to which device where several have the network's layers, one after the other."""

from __future__ import annotations

from functools import cache

from .errors import OptionError


def balanced(program, size: tuple[int, int], count: int, first_has: float = 0) -> list[str]:
    """The layers after which the next of `count` devices takes over, for windows of (height, width) `size`.

    The device that needs most memory needs as little as it can. Time is not balanced: one device works at a time.
    first_has: bytes that the first one holds beside its layers.
    Raises OptionError for more devices than there are steps.
    """
    names, kept, at_work = zip(*program.memory(size), strict=True)
    if count > len(names):
        raise OptionError(f"{count} devices cannot share the layers of a network of {len(names)}; take fewer devices")

    @cache
    def best(first, devices):
        """(bytes of the device that needs most, the ends of their parts) for the steps from `first` on."""
        if devices == 1:
            return sum(kept[first:]) + max(at_work[first:]), ()
        choices, stays, most = [], 0 if first else first_has, 0
        for end in range(first + 1, len(names) - devices + 2):
            stays, most = stays + kept[end - 1], max(most, at_work[end - 1])
            rest, ends = best(end, devices - 1)
            choices.append((max(stays + most, rest), (end, *ends)))
        return min(choices)

    return [names[end - 1] for end in best(0, count)[1]]
