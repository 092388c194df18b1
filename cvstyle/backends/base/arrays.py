"""The interface of a backend: arrays, arithmetic and reductions."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .scalars import Scalar


class ArrayOperations(ABC):
    """Memory, copies, element-wise arithmetic and reductions.

    Arrays are contiguous, feature maps (1, C, H, W). An operation "in place" changes and returns its first argument;
    `out` may be an input. A factor is a number or a `Scalar`.
    """

    # Memory

    @abstractmethod
    def empty(self, shape):
        """An array of this shape with undefined contents."""

    @abstractmethod
    def zeros(self, shape):
        """An array of zeros."""

    @abstractmethod
    def asarray(self, host):
        """A copy of a host array in this backend's dtype and memory."""

    @abstractmethod
    def to_host(self, array):
        """A copy of an array on the host (NumPy, this backend's dtype)."""

    @abstractmethod
    def copy(self, array):
        """A copy on the same device."""

    @abstractmethod
    def receive(self, array):
        """An array of any backend in this one's memory: itself, not to be changed then, where it is there already."""

    @abstractmethod
    def copy_block(self, target, target_start, source, source_start, shape) -> None:
        """Copy a block of `shape` from `source` at `source_start` to `target` at `target_start` (index per axis)."""

    @abstractmethod
    def cut(self, array, axis: int, shapes) -> list:
        """Parts of these shapes along an axis, which may share the memory of the array: its owner gives it up."""

    def materialize(self, array):
        """The array, computed from its inputs as they are now: a device may put a gradient off until it is read."""
        return array

    def finish(self, arrays) -> None:
        """Wait until arrays hold their values; None among them counts as none."""
        return None

    @abstractmethod
    def trim(self) -> None:
        """Give memory that no array uses back to the system, as after a change of picture size."""

    # Arithmetic

    @abstractmethod
    def scale(self, x, factor: Scalar):
        """x ← factor · x, in place."""

    @abstractmethod
    def add_scaled(self, y, factor: Scalar, x):
        """y ← y + factor · x, in place; x is unchanged."""

    @abstractmethod
    def multiply(self, x, y, out=None):
        """Element-wise product; y may have extent 1 along an axis (broadcast)."""

    @abstractmethod
    def affine(self, x, factor, shift, out=None):
        """factor · x + shift with arrays that broadcast against x; either may be None."""

    @abstractmethod
    def difference(self, x, y):
        """x − y as a new array."""

    @abstractmethod
    def maximum(self, x, y):
        """Element-wise maximum and a mask for `select`; where equal, y wins (Caffe's Eltwise MAX)."""

    @abstractmethod
    def select(self, g, mask):
        """Split a gradient between the two inputs of `maximum`: (gradient for x, gradient for y)."""

    # Reductions

    @abstractmethod
    def sum_over(self, x, shape):
        """x summed over the axes along which `shape` has extent 1: the adjoint of broadcasting."""

    @abstractmethod
    def dot(self, x, y) -> Scalar:
        """Σ x·y."""

    @abstractmethod
    def l1(self, x) -> Scalar:
        """Σ |x|."""

    @abstractmethod
    def abs_max(self, x) -> Scalar:
        """max |x|."""
