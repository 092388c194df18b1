"""The loss of neural style transfer and its gradient for the picture (Gatys et al. 2015; neural_style.lua)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .errors import ImageError, OptionError, ShapeError

_NORM_EPSILON = 1e-8  # neural_style.lua's guard against a gradient of zero


class Objective:
    """Content, Gram style and total variation as a function of a picture: `loss, gradient = objective(x)`.

    With F the features of a layer as (C, H·W), N = C·H·W of them:
    content `w · mean((F − T)²)`; style `w · mean((G − A)²)` with G = F Fᵀ / N and A = Σ b_i G_i over the styles;
    total variation `w/2 · Σ` of squared differences to the right and lower neighbour over the (H−1)×(W−1) block.

    net: a `Network`. content: (3, H, W), BGR, mean-subtracted, in 0..255 units. styles: the same, each of its own size.
    content_layers, style_layers: layer names in any order, each "name" or "name:factor" or (name, factor); every
        layer has the full weight times its factor.
    style_blend_weights: one number per style, normalised to sum 1 (equal if None).
    normalize_gradients: each layer's gradient is divided by its L1 norm before the weight multiplies it. The gradient
        is then not that of the loss: an optimiser with a line search may stop early.
    pooling: "max" (the network's own) or "avg".

    Raises OptionError for unknown layers and contradictory weights, ImageError for pictures of wrong shape, ModelError
    where a picture is too small for the network.
    """

    def __init__(
        self,
        net,
        content: np.ndarray,
        styles: Sequence[np.ndarray],
        content_weight: float = 5,
        style_weight: float = 100,
        tv_weight: float = 1e-3,
        content_layers: Iterable = (),
        style_layers: Iterable = (),
        style_blend_weights: Sequence[float] | None = None,
        normalize_gradients: bool = False,
        pooling: str = "max",
    ):
        self.net = net.with_pooling(pooling)
        self.ops = self.net.ops
        self.shape = _checked(content, "content").shape
        self.normalize_gradients = normalize_gradients
        self.tv_weight = _weight(tv_weight, "tv_weight")
        self.content_weights = _layer_weights(content_layers, _weight(content_weight, "content_weight"))
        self.style_weights = _layer_weights(style_layers, _weight(style_weight, "style_weight"))
        if not styles:
            self.style_weights = {}
        blend = _blend(style_blend_weights, len(styles))
        self._parts: dict[str, object] = {}
        self._program = None
        if not (self.content_weights or self.style_weights):
            return  # total variation alone
        self._program = self.net.program(dict.fromkeys([*self.content_weights, *self.style_weights]))
        _check_size(self._program, content, "content")
        self._content_targets = self._targets(content, "content", self.content_weights, self.ops.copy)
        self._style_targets: dict[str, object] = {}
        for number, (style, share) in enumerate(zip(styles, blend, strict=True), 1):
            role = f"style {number}"
            _checked(style, role)
            for name, gram in self._targets(style, role, self.style_weights, self._gram).items():
                if name in self._style_targets:
                    self.ops.add_scaled(self._style_targets[name], share, gram)
                else:
                    self._style_targets[name] = self.ops.scale(gram, share)
        self.ops.trim()  # the pictures may differ in size, and their buffers would lie idle

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """(loss, gradient) at a host picture x of the content's shape, or that shape ravelled.

        The gradient has x's shape and dtype. `losses` holds the parts afterwards.
        """
        x = np.asarray(x)
        if x.size != math.prod(self.shape):
            raise ImageError(f"the picture has shape {x.shape}; the content has {self.shape}")
        gradient = self.evaluate(self.ops.asarray(x.reshape(1, *self.shape)))
        dtype = x.dtype if x.dtype.kind == "f" else self.ops.dtype
        return self.loss, self.ops.to_host(gradient).reshape(x.shape).astype(dtype, copy=False)

    def evaluate(self, x):
        """The gradient at x (1, 3, H, W), both arrays of the backend. Nothing waits for the device here."""
        self._parts = {}
        if self._program is None:
            gradient = self.ops.zeros(x.shape)
        else:
            self._features = self._program.forward(x, again=True)
            gradient = self._program.backward(self._add)
        if self.tv_weight and min(self.shape[1:]) > 1:
            self._parts["tv"] = self.ops.total_variation(x, self.tv_weight, gradient)
        return gradient

    @property
    def losses(self) -> dict[str, float]:
        """The weighted parts of the last evaluation: "content:LAYER", "style:LAYER", "tv"; their sum is the loss."""
        order = [f"content:{n}" for n in self.content_weights] + [f"style:{n}" for n in self.style_weights] + ["tv"]
        return {name: float(self._parts[name]) for name in order if name in self._parts}

    @property
    def loss(self) -> float:
        """The loss of the last evaluation."""
        return math.fsum(self.losses.values())

    def _add(self, name, gradient):
        """Add a layer's content and style gradients to the one that comes from above (see Program.backward)."""
        features = self._features.pop(name)
        if name in self.content_weights:
            gradient = self._add_content(name, features, gradient)
        if name in self.style_weights:
            gradient = self._add_style(name, features, gradient)
        return gradient

    def _add_content(self, name, features, gradient):
        ops, weight = self.ops, self.content_weights[name]
        count = math.prod(features.shape)
        difference = ops.difference(features, self._content_targets[name])
        self._parts[f"content:{name}"] = weight / count * ops.dot(difference, difference)
        factor = 2 / count
        if self.normalize_gradients:
            factor = factor / (factor * ops.l1(difference) + _NORM_EPSILON)
        if gradient is None:
            return ops.scale(difference, weight * factor)
        return ops.add_scaled(gradient, weight * factor, difference)

    def _add_style(self, name, features, gradient):
        ops, weight = self.ops, self.style_weights[name]
        count = math.prod(features.shape)
        gram = self._gram(features)
        channels = gram.shape[0]
        difference = ops.add_scaled(gram, -1, self._style_targets[name])
        self._parts[f"style:{name}"] = weight / channels**2 * ops.dot(difference, difference)
        factor = 4 / (channels**2 * count)
        if not self.normalize_gradients:
            return ops.gram_backward(difference, features, weight * factor, out=gradient)
        own = ops.gram_backward(difference, features, factor)
        factor = weight / (ops.l1(own) + _NORM_EPSILON)
        return ops.scale(own, factor) if gradient is None else ops.add_scaled(gradient, factor, own)

    def _gram(self, features):
        return self.ops.gram(features, 1 / math.prod(features.shape))

    def _targets(self, picture, role, names, reduce):
        if not names:
            return {}
        program = self.net.program(names)
        _check_size(program, picture, role)
        features = program.forward(self.ops.asarray(picture[None]), keep=False, again=True)
        return {name: reduce(features.pop(name)) for name in names}


def _checked(picture, role):
    if getattr(picture, "ndim", 0) != 3 or picture.shape[0] != 3:
        raise ImageError(f"the {role} has shape {np.shape(picture)}; an array (3, height, width) is needed")
    return picture


def _check_size(program, picture, role):
    try:
        program.shapes(tuple(picture.shape[1:]))
    except ShapeError as error:
        height, width = picture.shape[1:]
        raise ImageError(f"the {role} picture of {width}×{height} does not fit this network: {error}") from None


def _weight(value, name):
    if not (math.isfinite(value) and value >= 0):
        raise OptionError(f"{name} is {value}; a finite number that is not negative is needed")
    return float(value)


def _layer_weights(layers, weight) -> dict[str, float]:
    """Layer name -> weight, from names, "name:factor" strings, (name, factor) pairs or a mapping."""
    result = {}
    for entry in layers.items() if isinstance(layers, Mapping) else layers:
        name, factor = parse_layer(entry) if isinstance(entry, str) else entry
        if name in result:
            raise OptionError(f"layer '{name}' is listed twice")
        result[name] = weight * _weight(factor, f"the weight of layer '{name}'")
    return {name: w for name, w in result.items() if w}


def parse_layer(text: str) -> tuple[str, float]:
    """("relu1_1", 2.0) from "relu1_1:2"; the factor is 1 where none is given."""
    name, colon, factor = text.rpartition(":")
    if not colon:
        return text, 1.0
    try:
        return name, float(factor)
    except ValueError:
        return text, 1.0


def _blend(weights, count):
    if weights is None:
        return [1 / count] * count if count else []
    weights = [_weight(w, "a style blend weight") for w in weights]
    if len(weights) != count:
        raise OptionError(f"{len(weights)} style blend weights for {count} style pictures")
    if count and not sum(weights):
        raise OptionError("the style blend weights are all zero")
    return [w / sum(weights) for w in weights]
