"""The interface of a backend: layers, forward and as vector-Jacobian products."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .convolution import Convolution


class LayerOperations(ABC):
    """Activations, convolution, pooling and normalisation.

    kernel, stride: (vertical, horizontal). pad: (top, left). Windows of a pool are clipped at the border as in Caffe.
    """

    # Activations

    @abstractmethod
    def relu(self, x, slope=0.0, out=None):
        """x where x > 0, else slope · x; and a mask for `relu_backward`. slope: a number, or an array per channel."""

    @abstractmethod
    def relu_backward(self, g, mask, slope=0.0):
        """g where the mask is set, else slope · g, in place."""

    @abstractmethod
    def clip(self, x, low, high, closed=True, out=None):
        """x limited to low..high, and a mask for `relu_backward`: set between the limits, and on them if `closed`."""

    @abstractmethod
    def map(self, function: str, x, parameters=(), out=None):
        """An element-wise function by name, and an array for `map_backward` or None.

        Functions and their parameters: "sigmoid", "tanh", "elu" (alpha), "abs", "power" (power, scale, shift), "linear"
        (factor, shift), "exp" (factor, shift), "log" (factor outside, factor, shift), "bnll" (log (1 + e^x)), "swish"
        (beta), "step" (threshold; its derivative is 0).
        """

    @abstractmethod
    def map_backward(self, function: str, g, saved, parameters=()):
        """g · f'(x), in place."""

    @abstractmethod
    def softmax(self, x):
        """Softmax over axis 1."""

    @abstractmethod
    def softmax_backward(self, g, y):
        """Vector-Jacobian product of `softmax`, in place."""

    # Convolution and pooling

    @abstractmethod
    def convolution(self, weight, bias, stride, dilation, group) -> Convolution:
        """A convolution with fixed weights; see `Convolution` for the arguments."""

    @abstractmethod
    def max_pool(self, x, kernel, stride, pad, output):
        """Maximum over windows, (1, C, *output), and the winner's index in its window for `max_pool_backward`."""

    @abstractmethod
    def max_pool_backward(self, g, winner, shape, kernel, stride, pad):
        """Each output's gradient goes to the winner of its window; shape: of the pool's input."""

    @abstractmethod
    def avg_pool(self, x, kernel, stride, pad, output):
        """Mean over windows; a window counts its padding, but nothing beyond the padding (Caffe)."""

    @abstractmethod
    def avg_pool_backward(self, g, shape, kernel, stride, pad):
        """Each output's gradient is spread evenly over its window; shape: of the pool's input."""

    # Local response normalisation across channels

    @abstractmethod
    def lrn(self, x, size, alpha, beta, k):
        """x · s^-β with s = k + α/size · Σ x² over `size` neighbouring channels; returns (y, s)."""

    @abstractmethod
    def lrn_backward(self, g, x, s, size, alpha, beta):
        """Vector-Jacobian product of `lrn`: g s^-β − 2αβ/size · x · Σ (g x s^(-β-1))."""
