"""Scalars that operations return: numbers of the host, or values that are still on a device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Protocol


class Scalar(Protocol):
    """The result of a reduction: a float, or a device's scalar, for which nothing waits until `float()` asks.

    Sums, differences, products and quotients with a number on either side, and sums of two scalars of a backend, are
    scalars. An operation takes one as a factor. A scalar of a device has an attribute `ops` as well, its backend.
    """

    def __float__(self) -> float: ...
    def __add__(self, other) -> Scalar: ...
    def __mul__(self, number) -> Scalar: ...
    def __truediv__(self, number) -> Scalar: ...
    def __rtruediv__(self, number) -> Scalar: ...


def copy_to_host_async(scalars: Iterable[Scalar]) -> Callable[[], list[float]]:
    """Start to copy scalars of any backends to the host; returns a function that waits for the copies alone.

    The function returns the floats, in the order of the scalars.
    """
    scalars = list(scalars)
    places = defaultdict(list)  # backend → places of its scalars
    for place, scalar in enumerate(scalars):
        if not isinstance(scalar, Real):
            places[scalar.ops].append(place)
    futures = [(own, ops.copy_to_host_async([scalars[place] for place in own])) for ops, own in places.items()]

    def wait():
        for own, future in futures:
            for place, number in zip(own, future.result(), strict=True):
                scalars[place] = number
        return list(map(float, scalars))

    return wait
