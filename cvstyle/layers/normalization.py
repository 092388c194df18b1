"""LRN, BatchNorm, BN, Scale and Bias."""

from __future__ import annotations

from .base import Layer, Window, register
from .statistics import OwnStatistics, standardized


@register("LRN")
class LRN(Layer):
    """Local response normalisation (Krizhevsky et al. 2012), across or within channels."""

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        p = self.params
        self.size = p.get("local_size", 5)
        self.alpha = p.get("alpha", 1.0)
        self.beta = p.get("beta", 0.75)
        self.k = p.get("k", 1.0)
        self.within = p.get("norm_region", "ACROSS_CHANNELS") == "WITHIN_CHANNEL"
        if self.size % 2 == 0:
            raise self.fail(f"local_size {self.size} must be odd")

    def top_shapes(self, bottoms):
        self.map_size(bottoms[0])
        return [bottoms[0]]

    def window(self):
        if not self.within:
            return Window()
        half = (self.size - 1) // 2
        return Window((self.size, self.size), (1, 1), (half, half))

    def forward(self, bottoms, context):
        return self._within_channel(bottoms[0]) if self.within else self._across_channels(bottoms[0])

    def _across_channels(self, x):
        arguments = (self.size, self.alpha, self.beta)
        top, s = self.ops.lrn(x, *arguments, self.k)
        return [top], lambda g: [self.ops.lrn_backward(g[0], x, s, *arguments)]

    def _within_channel(self, x):
        """x · (1 + α · mean x²)^-β over a square window; Caffe ignores k here."""
        ops = self.ops
        kernel = (self.size,) * 2
        pad = ((self.size - 1) // 2,) * 2
        geometry = (kernel, (1, 1), pad)
        mean = ops.avg_pool(ops.multiply(x, x), *geometry, x.shape[2:])
        factor, _ = ops.map("power", mean, (-self.beta, self.alpha, 1.0))
        top = ops.multiply(x, factor)

        def backward(g):
            (g,) = g
            through_mean = ops.map_backward("power", ops.multiply(g, x), mean, (-self.beta, self.alpha, 1.0))
            spread = ops.avg_pool_backward(through_mean, x.shape, *geometry)
            spread = ops.scale(ops.multiply(spread, x, out=spread), 2)
            return [ops.add_scaled(ops.multiply(g, factor, out=g), 1, spread)]

        return [top], backward


class _BatchNormalization(OwnStatistics):
    """Base of BatchNorm and BN: (x − mean) / √(variance + ε) with stored statistics or, if `own`, with the map's.

    Then times a factor and plus a shift for each channel where there are some.
    """

    own = False

    eps = 1e-5

    _factor = _shift = None

    @property
    def saves_activations(self):
        return self.own

    @property
    def by_channel(self):
        return not self.own

    def window(self):
        return None if self.own else Window()

    def _take(self, shape, statistics, factor=1.0, shift=0.0):
        """Take float64 arrays (C,): statistics (mean, variance), None for those of the map or none at all."""
        if statistics is not None:
            mean, variance = statistics
            if not (variance + self.eps > 0).all():
                raise self.fail(f"a stored variance of {variance.min():g} plus eps {self.eps:g} is not positive")
            factor = factor / (variance + self.eps) ** 0.5
            shift = shift - factor * mean
        self.affine = factor, shift
        self._factor, self._shift = (_along(self.ops, n, 1, shape) for n in self.affine)

    def forward(self, bottoms, context):
        ops = self.ops
        x = bottoms[0]
        if not self.own:
            top = ops.affine(x, self._factor, self._shift, out=x if context.overwrite else None)
            return [top], lambda g: [ops.multiply(g[0], self._factor, out=g[0])]
        top, backward = standardized(ops, x, (*x.shape[:2], *[1] * (len(x.shape) - 2)), self.eps)
        if self._factor is None:
            return [top], lambda g: [backward(g[0])]
        scaled = ops.affine(top, self._factor, self._shift)
        return [scaled], lambda g: [backward(ops.multiply(g[0], self._factor, out=g[0]))]


@register("BatchNorm")
class BatchNorm(_BatchNormalization):
    """Batch normalisation (Ioffe and Szegedy 2015); blobs: mean, variance, and the factor they are times.

    With use_global_stats false the statistics are the map's own, and the blobs have no effect. NVCaffe (scale_bias) and
    Intel's Caffe have two blobs more, a factor and a shift for each channel; NVCaffe always takes stored statistics.
    """

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        p = self.params
        self.eps = p.get("eps", 1e-5)
        self._states_scale = p.get("scale_bias", False) or not p.keys().isdisjoint(("scale_filler", "bias_filler"))
        self.own = not p.get("use_global_stats", True) and not self._states_scale

    def blob_shapes(self, bottoms):
        channels = bottoms[0][1]
        if self.own and not self.blob_count:
            return []
        scaled = self._states_scale if self.blob_count is None else self.blob_count >= 5
        return [(channels,), (channels,), (1,), *[(channels,)] * (2 * scaled)]

    def load(self, blobs, bottoms):
        mean, variance, factor, *rest = (blob.astype("float64") for blob in blobs)
        if not self.own:
            self._take(bottoms[0], [s / factor[0] if factor[0] else 0 * s for s in (mean, variance)], *rest)
        elif rest:
            self._take(bottoms[0], None, *rest)


@register("BN")
class BN(_BatchNormalization):
    """Batch normalisation of two forks, by the number of blobs.

    SegNet's has two, factor and shift: with bn_mode INFERENCE they are all, with LEARN, the default, the map's own
    statistics come first (ε 10⁻⁹). PSPNet's has factor, shift, mean and variance.
    """

    blobs_decide = True

    @property
    def stored(self):
        """True for PSPNet's."""
        return "bn_mode" not in self.params if self.blob_count is None else self.blob_count > 2

    @property
    def own(self):
        return not self.stored and self.params.get("bn_mode", "LEARN") == "LEARN"

    @property
    def eps(self):
        return self.params.get("eps", 1e-5) if self.stored else 1e-9

    def blob_shapes(self, bottoms):
        return [(bottoms[0][1],)] * (4 if self.stored else 2)

    def load(self, blobs, bottoms):
        factor, shift, *statistics = (blob.astype("float64") for blob in blobs)
        self._take(bottoms[0], statistics or None, factor, shift)


class _Broadcast(Layer):
    """A blob, or a second bottom, that broadcasts along `axis` and the axes after it (Caffe's Scale and Bias)."""

    inputs = (1, 2)
    _blobs = ()

    def __init__(self, definition, ops):
        super().__init__(definition, ops)
        self.saves_activations = len(definition.bottoms) > 1

    @property
    def by_channel(self):
        one = len(self.definition.bottoms) == 1 and self.params.get("num_axes", 1) == 1
        return one and self.params.get("axis", 1) == 1

    def blob_shapes(self, bottoms):
        if len(bottoms) > 1:
            return []
        return [self._operand_shape(bottoms[0])]

    def top_shapes(self, bottoms):
        first = self.axis(len(bottoms[0]))
        if len(bottoms) > 1:
            operand = bottoms[1]
            if bottoms[0][first : first + len(operand)] != tuple(operand):
                raise self.fail(f"the second input {operand} does not match {bottoms[0]} from axis {first}")
        return [bottoms[0]]

    def window(self):
        spatial = len(self.definition.bottoms) == 1 and len(self._operand_shape((1,) * 4)) + self.axis(4) > 2
        return None if spatial else Window()

    def load(self, blobs, bottoms):
        first = self.axis(len(bottoms[0]))
        self._blobs = [_along(self.ops, blob, first, bottoms[0]) for blob in blobs]
        self._numbers = [blob.astype("float64") for blob in blobs] if self.by_channel else []

    def _operand_shape(self, shape):
        first = self.axis(len(shape))
        count = self.params.get("num_axes", 1)
        return shape[first:] if count == -1 else shape[first : first + count]

    def _second_bottom(self, bottoms):
        return bottoms[1].reshape(_aligned(bottoms[1].shape, self.axis(len(bottoms[0].shape)), bottoms[0].shape))


@register("Scale")
class Scale(_Broadcast):
    """Product with a broadcast factor, plus a bias blob if there is one."""

    def blob_shapes(self, bottoms):
        shapes = super().blob_shapes(bottoms)
        if self.params.get("bias_term", False):
            shapes.append(self._operand_shape(bottoms[0]) if len(bottoms) == 1 else tuple(bottoms[1]))
        return shapes

    @property
    def affine(self):
        return (*self._numbers, 0.0)[:2]

    def forward(self, bottoms, context):
        ops = self.ops
        x = bottoms[0]
        if len(bottoms) == 1:
            factor, shift = (*self._blobs, None)[:2]
            top = ops.affine(x, factor, shift, out=x if context.overwrite else None)
            return [top], lambda g: [ops.multiply(g[0], factor, out=g[0])]
        factor = self._second_bottom(bottoms)
        top = ops.affine(x, factor, self._blobs[0] if self._blobs else None)
        shape = bottoms[1].shape

        def backward(g):
            (g,) = g
            for_factor = ops.sum_over(ops.multiply(g, x), factor.shape).reshape(shape)
            return [ops.multiply(g, factor, out=g), for_factor]

        return [top], backward


@register("Bias")
class Bias(_Broadcast):
    """Sum with a broadcast blob or second bottom."""

    @property
    def affine(self):
        return 1.0, self._numbers[0]

    def forward(self, bottoms, context):
        ops = self.ops
        x = bottoms[0]
        out = x if context.overwrite else None
        if len(bottoms) == 1:
            return [ops.affine(x, None, self._blobs[0], out=out)], lambda g: g
        shift = self._second_bottom(bottoms)
        shape = bottoms[1].shape
        top = ops.affine(x, None, shift, out=out)
        return [top], lambda g: [g[0], ops.sum_over(g[0], shift.shape).reshape(shape)]


def _aligned(operand, axis, shape):
    """The operand's shape with ones around it, so that it broadcasts against `shape` from `axis` on."""
    return (1,) * axis + tuple(operand) + (1,) * (len(shape) - axis - len(operand))


def _along(ops, blob, axis, shape):
    return ops.asarray(blob.reshape(_aligned(blob.shape, axis, shape)))
