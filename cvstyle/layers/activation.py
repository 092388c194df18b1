"""Element-wise functions: ReLU, ReLU6, PReLU, Clip, ELU, SeLu, Sigmoid, Swish, Mish, TanH, BNLL and others."""

from __future__ import annotations

import math

from .base import Layer, register

_LOWEST = -3.4e38  # about the lowest float32

@register("ReLU")
class ReLU(Layer):
    """max(x, 0), or negative_slope · x below zero; keeps one bit per element."""

    saves_activations = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.slope = float(self.params.get("negative_slope", 0))

    def forward(self, bottoms, context):
        top, mask = self.ops.relu(bottoms[0], self.slope, out=bottoms[0] if context.overwrite else None)
        return [top], lambda g: [self.ops.relu_backward(g[0], mask, self.slope)]


@register("Clip")
class Clip(Layer):
    """x limited to min..max; the gradient passes between the limits and on them."""

    saves_activations = False
    closed = True

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.limits = self._limits()

    def _limits(self):
        if not self.params.keys() >= {"min", "max"}:
            raise self.fail("min or max is missing")
        low = float(self.params["min"])
        return low, max(low, float(self.params["max"]))  # min wins in Caffe

    def forward(self, bottoms, context):
        out = bottoms[0] if context.overwrite else None
        top, mask = self.ops.clip(bottoms[0], *self.limits, closed=self.closed, out=out)
        return [top], lambda g: [self.ops.relu_backward(g[0], mask)]


@register("ReLU6")
class ReLU6(Clip):
    """ReLU of at most 6 (Krizhevsky 2010), of several forks; no gradient passes at 0 and at 6.

    With a negative_slope, that factor below zero.
    """

    closed = False

    def _limits(self):
        self.slope = float(self.params.get("negative_slope", 0))
        return (_LOWEST if self.slope else 0.0), 6.0

    def forward(self, bottoms, context):
        tops, through_limit = super().forward(bottoms, context)
        if not self.slope:
            return tops, through_limit
        top, mask = self.ops.relu(tops[0], self.slope, out=tops[0])
        return [top], lambda g: through_limit([self.ops.relu_backward(g[0], mask, self.slope)])


@register("PReLU")
class PReLU(Layer):
    """ReLU with a learned slope below zero, per channel or shared."""

    saves_activations = False

    def blob_shapes(self, bottoms):
        return [(1,) if self.params.get("channel_shared", False) else (bottoms[0][1],)]

    def load(self, blobs, bottoms):
        self._slopes = self.ops.asarray(blobs[0].reshape(1, -1, *[1] * (len(bottoms[0]) - 2)))

    def forward(self, bottoms, context):
        top, mask = self.ops.relu(bottoms[0], self._slopes, out=bottoms[0] if context.overwrite else None)
        return [top], lambda g: [self.ops.relu_backward(g[0], mask, self._slopes)]


class _Mapped(Layer):
    """A function of the backend's table, `self.function` with `self.arguments`."""

    arguments: tuple[float, ...] = ()

    def forward(self, bottoms, context):
        out = bottoms[0] if context.overwrite else None
        top, saved = self.ops.map(self.function, bottoms[0], self.arguments, out=out)
        return [top], lambda g: [self.ops.map_backward(self.function, g[0], saved, self.arguments)]

    def _scale_and_shift(self):
        return float(self.params.get("scale", 1)), float(self.params.get("shift", 0))


@register("Sigmoid")
class Sigmoid(_Mapped):
    """1 / (1 + e^-x)."""

    function = "sigmoid"


@register("TanH")
class TanH(_Mapped):
    """tanh x."""

    function = "tanh"


@register("AbsVal")
class AbsVal(_Mapped):
    """|x|; its derivative at 0 is 0."""

    function = "abs"


@register("ELU")
class ELU(_Mapped):
    """x above zero, α (e^x − 1) below."""

    function = "elu"

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.arguments = (float(self.params.get("alpha", 1)),)


@register("SeLu")
class SeLu(ELU):
    """λ times ELU (Klambauer et al. 2017), of several forks."""

    saves_activations = True

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.arguments = (float(self.params.get("alpha", 1.6732632423543772)),)
        self.factor = float(self.params.get("lambda", 1.0507009873554805))

    def forward(self, bottoms, context):
        (inner,), backward = super().forward(bottoms, context)
        top = self.ops.scale(self.ops.copy(inner), self.factor)
        return [top], lambda g: backward([self.ops.scale(g[0], self.factor)])


@register("BNLL")
class BNLL(_Mapped):
    """log (1 + e^x)."""

    function = "bnll"


@register("Swish")
class Swish(_Mapped):
    """x / (1 + e^(−β x))."""

    function = "swish"

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.arguments = (float(self.params.get("beta", 1)),)


@register("Mish")
class Mish(Layer):
    """x · tanh (log (1 + e^x)) (Misra 2019), of several forks."""

    def forward(self, bottoms, context):
        ops = self.ops
        (x,) = bottoms
        inner, saved = ops.map("bnll", x)
        gate, saved_gate = ops.map("tanh", inner)
        top = ops.multiply(x, gate)

        def backward(g):
            (g,) = g
            for_inner = ops.map_backward("tanh", ops.multiply(g, x), saved_gate)
            for_x = ops.map_backward("bnll", for_inner, saved)
            return [ops.add_scaled(ops.multiply(g, gate, out=g), 1, for_x)]

        return [top], backward


@register("Threshold")
class Threshold(Layer):
    """1 where x > threshold, else 0. As in Caffe it has no backward pass."""

    saves_activations = False

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.threshold = float(self.params.get("threshold", 0))

    def passes_gradient(self, top, bottom):
        return False

    def forward(self, bottoms, context):
        top, _ = self.ops.map("step", bottoms[0], (self.threshold,), out=bottoms[0] if context.overwrite else None)
        return [top], lambda g: [None]


@register("Power")
class Power(_Mapped):
    """(scale · x + shift) ^ power."""

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        power = float(self.params.get("power", 1))
        scale, shift = self._scale_and_shift()
        if power in (0, 1):  # 0 to the power 0 is 1, and no gradient comes of it
            self.function = "linear"
            self.arguments = (scale, shift) if power else (0.0, 1.0)
            self.saves_activations = False
        else:
            self.function = "power"
            self.arguments = (power, scale, shift)


@register("Exp")
class Exp(_Mapped):
    """base ^ (scale · x + shift); base −1, the default, means e."""

    function = "exp"

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        log_base = _log_of_base(self)
        scale, shift = self._scale_and_shift()
        self.arguments = (log_base * scale, log_base * shift)


@register("Log")
class Log(_Mapped):
    """log (scale · x + shift) to the given base; base −1, the default, means e."""

    function = "log"

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        log_base = _log_of_base(self)
        if log_base == 0:
            raise self.fail("base 1 has no logarithm")
        self.arguments = (1 / log_base, *self._scale_and_shift())


def _log_of_base(layer):
    base = layer.params.get("base", -1)
    if base == -1:
        return 1.0
    if base <= 0:
        raise layer.fail(f"base {base} must be positive (or -1 for e)")
    return math.log(base)
