"""The interface of a backend: operations that take elements from other places."""

from __future__ import annotations

from abc import ABC, abstractmethod


class GatherOperations(ABC):
    """Axes in another order, largest elements, positions of pooling's maxima, and interpolation."""

    @abstractmethod
    def transpose(self, x, axes):
        """A copy with axis axes[i] as axis i, at most four axes."""

    @abstractmethod
    def top_k(self, x, axis: int, count: int):
        """(values, indices): the `count` largest along an axis in falling order; where equal, the larger index first.

        Both have x's shape but for `count` entries along the axis; indices are numbers of this backend's dtype.
        """

    @abstractmethod
    def pool_positions(self, winner, shape, kernel, stride, pad):
        """The places of `max_pool`'s winners, row · width + column, as numbers of this backend's dtype.

        shape: of the pool's input. In float32 places from 2^24 on are rounded, as Caffe's are.
        """

    @abstractmethod
    def unpool(self, x, positions, size):
        """Zeros (1, C, *size) with each element of x at its place (`pool_positions`) in its channel.

        Where several elements have one place, the last counts; places outside are passed over.
        """

    @abstractmethod
    def unpool_backward(self, g, positions):
        """The gradient g at each place, 0 for places outside."""

    @abstractmethod
    def resize(self, x, size):
        """Bilinear interpolation to (1, C, *size), corners on corners: place i is i · (n − 1) / (size − 1) of n."""

    @abstractmethod
    def resize_backward(self, g, shape):
        """The adjoint of `resize`; shape: of its input."""
