"""The loss of neural style transfer and its gradient for the picture (Gatys et al. 2015; neural_style.lua)."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import chain, islice

import numpy as np

from . import losses
from .backends.base import copy_to_host_async
from .errors import ImageError, OptionError
from .fields import FLOAT, INT, PIXELS, SHARE, argument
from .graph import tiling
from .graph.periodic import AXES, Extension, periodic, repeats
from .passes import DevicePass, PicturePass
from .regions import StyleRegion, painted, regional
from .style import StyleTargets, check_size, checked_mask, checked_picture, listed, measure_styles
from .workers import Workers

BALANCES = ("none", "targets")


class Objective:
    """A sum of losses as a function of a picture: `loss, gradient = objective(x)`.

    With the N = C·H·W features F of a layer as a matrix (C, H·W):
    content `w · mean((F − T)²)`; style `w · mean((G − A)²)` with G = F Fᵀ / N and A = Σ b_i G_i over the styles;
    total variation `w/2 · Σ` of squared differences to the right and lower neighbour over the (H−1)×(W−1) block.

    net: a `Network`, whose layers may be on several backends (`Network.partition`).
    content: the picture (3, H, W), BGR, mean-subtracted, in 0..255 units. styles: pictures of the same form and any
        sizes, or one picture, or the `StyleTargets` of `measure_styles`; saved styles at a size (`SavedStyle.at`) are
        styles as well. Without styles, style losses are left out.
    settings: settings of the losses (`losses`): content_weight=5, content_layers=(), style_weight=100, style_layers=(),
        tv_weight=1e-3, style_loss="gram", laplacian=0 and others. Layers are names in any order, each "name" or
        "name:factor" or (name, factor), or a mapping name → factor, or the comma list of the command line; every layer
        has the full weight times its factor. Style layers may have a loss of their own, "name:factor@covariance" or
        (name, factor, "covariance").
    more_losses: `Loss` objects beside the losses of the settings.
    balance: "none" for the losses above, as in neural_style.lua; "targets" to divide each loss by the mean square of
        its target, T or A, and total variation by the root of the number of pixels, so that weights mean the same for
        every network, layer and size (`Loss.balance`).
    style_blend_weights: one number per style, normalised to sum 1; None: equal weights.
    style_masks: for each style the weights of its pixels (H, W), such as its alpha; None: equal weights.
    regions: `StyleRegion`s, by each of which every style loss becomes one, "style:LAYER@NAME". Pixels in none of them
        have content losses alone.
    wrap: "x", "y" or "xy": the picture repeats along these axes, so that opposite edges meet without a seam: layers and
        losses of the picture see beyond an edge what is at the opposite one (`graph.periodic`). None: it has borders.
    strength: 0 to 1: the targets are this share of the styles' statistics and, for the rest, the content's own; losses
        without a target count by it too. With 0 the content is the minimum.
    normalize_gradients: divide each layer's gradient by its L1 norm before multiplying by the weight. The result is not
        the gradient of the loss, so an optimiser with a line search may stop early.
    pooling: "max" (the network's own) or "avg".
    tile_size: the longest side, in pixels, of the window computed at a time; None: the whole picture. Loss and gradient
        do not depend on it (see `graph.tiling`). Apart from the picture, only one tile at a time takes memory.
    devices: backends that share the tiles, which are then at least as many where the network allows; None: the
        network's backend.
    home: the backend of the picture, its gradient and the content targets; None: the network's.
    most_tiles: compute only the first tiles, of the styles too, for a measurement of memory; None: all.

    Objectives on one network may be evaluated in several threads at once; on a device they take turns.

    Raises OptionError for unknown layers and settings, contradictory weights, and networks that cannot be computed in
    tiles; ImageError for pictures of the wrong shape or too small for the network.
    """

    def __init__(
        self, net, content: np.ndarray, styles: Sequence[np.ndarray] | StyleTargets = (), *,
        more_losses: Sequence[losses.Loss] = (), balance: str = "none",
        style_blend_weights: Sequence[float] | None = None,
        style_masks: Sequence[np.ndarray | None] | None = None, regions: Sequence[StyleRegion] = (),
        wrap: str | None = None, strength: float = 1.0, normalize_gradients: bool = False, pooling: str = "max",
        tile_size: int | None = None, devices: Sequence | None = None, home=None, most_tiles: int | None = None,
        **settings,
    ):  # fmt: skip
        if balance not in BALANCES:
            raise OptionError(f"balance must be {' or '.join(BALANCES)}, not '{balance}'")
        self.net = net.with_pooling(pooling)
        self.ops = home or self.net.ops
        self.shape = checked_picture(content, "content").shape
        styles = styles if isinstance(styles, StyleTargets) else listed(styles)
        styled = bool(styles.statistics if isinstance(styles, StyleTargets) else styles)
        terms = [*losses.create(settings), *map(copy.copy, more_losses)]  # copies, since balancing sets their weights
        terms = [t for t in terms if styled or t.target_from != "styles"]
        names = [t.name for t in terms]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise OptionError(f"two losses are called '{repeated}'; each needs a name of its own")
        if wrap not in (None, *AXES):
            raise OptionError(f"wrap must be {', '.join(AXES)} or None, not '{wrap}'")
        self.wrap = wrap
        self.regions = list(regions)
        self.strength = argument("strength", strength, FLOAT, SHARE)
        self._losses = [t for t in terms if t.layer is not None]
        picture_losses = [t for t in terms if t.layer is None and fits(t, self.shape[1:], wrap)]
        for loss in (*self._losses, *picture_losses):
            loss.weight *= self.strength if loss.target_from is None else 1
        self.normalize_gradients = normalize_gradients
        self.tile_size = argument("tile_size", tile_size, INT, PIXELS)
        self.tiles = [tiling.whole(self.shape[1:])]
        self._values: dict[str, list] = {}
        self._workers: Workers | None = None
        self._style_statistics: dict[str, np.ndarray] = {}
        if self._losses:
            with self.net.ops.lock:
                self._prepare(content, styles, devices, style_blend_weights, style_masks, most_tiles)
            if self.regions:
                picture_losses = painted(picture_losses, self.regions)
        self._names = [loss.name for loss in (*self._losses, *picture_losses)]
        whole = len(self.tiles) == 1
        self._picture_pass = PicturePass(self.ops, content, picture_losses, normalize_gradients, whole, wrap)
        if balance == "targets":
            self._balance()
        for ops in (ops for each in self._passes for ops in each.program.devices):
            ops.trim()  # the buffers of styles of other sizes would lie idle

    def _prepare(self, content, styles, devices, blend_weights, masks, most_tiles):
        """Cut the picture into tiles, and measure the targets of the layers' losses."""
        program = self.net.program(dict.fromkeys(loss.layer for loss in self._losses))
        stops = self.net.gradient_stops()
        for name, value in program.outputs.items():
            if value in stops:
                raise OptionError(
                    f"no gradient reaches the picture from layer '{name}', since layer '{stops[value].name}' "
                    f"({stops[value].type}) has none; use layers before that one"
                )
        if self.wrap is None:
            check_size(program, content, "content")
        picture = periodic(program, self.shape[1:], self.wrap)
        content = picture.extension.of_host(content)
        whole_losses = self._losses
        if self.regions:
            for region in self.regions:
                checked_mask(region.mask, self.shape[1:], f"region '{region.name}'")
            self._losses = regional(self._losses, self.regions, program, picture)
        self.tiles = picture.tiles(program, self.tile_size, len(devices or [None]))
        if len(self.tiles) > 1:
            self.tile_size = self.tile_size or max(self.tiles[0].window.shape)  # for the styles
        self.tiles = self.tiles[:most_tiles]
        nets = [self.net] if devices is None else [self.net.to(ops) for ops in devices[: len(self.tiles)]]
        self._workers = Workers(nets, self.tiles, picture, self._losses, self.normalize_gradients, self.ops)
        for each in self._passes:
            each.measure_content(content, None if self.ops is self.net.ops else self.ops)
        if not isinstance(styles, StyleTargets):
            net = self._passes[0].net
            styles = measure_styles(
                net, whole_losses, styles, blend_weights, self.tile_size, most_tiles, masks, self.regions, self.wrap
            )
        self._style_statistics = styles.statistics
        if self.strength < 1:
            self._style_statistics = self._weakened(content)
        with self._workers.computing():
            for each in self._passes:
                each.set_style_targets(self._style_statistics)

    def _weakened(self, content):
        """The styles' statistics blended with those of the content, as layers see it."""
        own = self._workers.sum_statistics(self._workers.accumulator.asarray(content[None]), keep=False)[0]
        result = dict(self._style_statistics)
        for loss in self._losses:
            if loss.target_from == "styles" and loss.name in result:
                share = self._passes[0].backend_of(loss.layer).to_host(own[loss.name])
                result[loss.name] = self.strength * result[loss.name] + (1 - self.strength) * share
        return result

    def _balance(self):
        """Multiply every loss's weight by its factor (`Loss.balance`)."""
        squares = defaultdict(list)
        for each in (*self._passes, self._picture_pass):
            for name, parts in each.content_squares().items():
                squares[name] += parts
        for loss in (*self._losses, *self._picture_pass.losses):
            target = None
            if loss.target_from == "styles":
                target = loss.mean_squares(self._style_statistics[loss.name])
            elif loss.target_from == "content":
                sums, counts = zip(*squares[loss.name])
                target = losses.MeanSquares(*[math.fsum(sums) / sum(counts)] * 2)
            normalized = self.normalize_gradients and loss.normalized
            loss.weight *= loss.balance(target, self.shape, normalized)

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """(loss, gradient) at a host picture x of the content's shape, possibly ravelled.

        The gradient has x's shape and dtype. `losses` gives the parts afterwards.
        """
        x = np.asarray(x)
        if x.size != math.prod(self.shape) or (x.ndim > 1 and x.shape[-3:] != self.shape):
            raise ImageError(f"the picture has shape {x.shape}; the content has {self.shape}")
        gradient = self.evaluate(self.ops.asarray(x.reshape(1, *self.shape)))
        dtype = x.dtype if x.dtype.kind == "f" else self.ops.dtype
        return self.loss, self.ops.to_host(gradient).reshape(x.shape).astype(dtype, copy=False)

    def evaluate(self, x):
        """The gradient at x (1, 3, H, W), both arrays of the backend.

        The host does not wait for the device, unless several devices share the tiles, or gradients over several tiles
        are normalised: their sums pass through the host.
        """
        self._values = defaultdict(list)
        with self.net.ops.lock, self._workers.computing() if self._workers else nullcontext():
            gradient = self._workers.gradient(x, self._values) if self._workers else self.ops.zeros(x.shape)
            self._picture_pass.add(x, gradient, self._values)
        return gradient

    def extension(self, pixels: int) -> Extension | None:
        """The picture's, by so many pixels beyond its edges along the axes of `wrap`; None where it does not repeat."""
        if self.wrap is None:
            return None
        added = tuple(pixels * on for on in repeats(self.wrap))
        return Extension(self.shape[1:], added, added)

    @property
    def capturable(self):
        """True where every evaluation at an array launches the same work on one device, so that a graph can hold it."""
        through_host = len(self.tiles) > 1 or (self.tiles[0].owned and self.normalize_gradients)
        on_one_device = not through_host and all(each.program.devices == [self.ops] for each in self._passes)
        return on_one_device and not any(loss.decides_on_host for loss in (*self._losses, *self._picture_pass.losses))

    @property
    def _passes(self) -> list[DevicePass]:
        return self._workers.passes if self._workers else []

    @property
    def program(self):
        """The program of the first device; None without losses of layers."""
        return self._passes[0].program if self._passes else None

    @property
    def losses(self) -> dict[str, float]:
        """The weighted parts of the last evaluation: "content:LAYER", "style:LAYER", "tv"; their sum is the loss."""
        return self.losses_async()()

    def losses_async(self):
        """Start copying the parts to the host; returns a function that waits for the copies and returns `losses`."""
        parts = {name: list(self._values[name]) for name in self._names if name in self._values}
        future = copy_to_host_async(chain.from_iterable(parts.values()))

        def wait():
            numbers = iter(future())
            return {name: math.fsum(islice(numbers, len(values))) for name, values in parts.items()}

        return wait

    @property
    def loss(self) -> float:
        """The loss of the last evaluation."""
        return math.fsum(self.losses.values())


def fits(loss: losses.Loss, size: tuple[int, int], wrap: str | None) -> bool:
    """True where a loss of the picture has at least one view of a picture of (height, width) `size`; others do not act.

    wrap: see `Objective`."""
    return all(n >= loss.step + (0 if on else loss.overlap) for n, on in zip(size, repeats(wrap)))
