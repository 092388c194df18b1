"""The loss of neural style transfer and its gradient for the picture (Gatys et al. 2015; neural_style.lua)."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import chain, islice, zip_longest

import numpy as np

from . import losses
from .backends import reference
from .backends.base import copy_to_host_async
from .backends.threads import one_thread_each
from .errors import ImageError, OptionError
from .fields import INT, PIXELS, argument
from .graph import tiling
from .passes import DevicePass, PicturePass
from .style import StyleTargets, check_size, checked_picture, listed, measure_styles

BALANCES = ("none", "targets")


class Objective:
    """A sum of losses as a function of a picture: `loss, gradient = objective(x)`.

    With the N = C·H·W features F of a layer as a matrix (C, H·W):
    content `w · mean((F − T)²)`; style `w · mean((G − A)²)` with G = F Fᵀ / N and A = Σ b_i G_i over the styles;
    total variation `w/2 · Σ` of squared differences to the right and lower neighbour over the (H−1)×(W−1) block.

    net: a `Network`, whose layers may be on several backends (`Network.partition`).
    content: the picture (3, H, W), BGR, mean-subtracted, in 0..255 units. styles: pictures of the same form and any
        sizes, or one picture, or the `StyleTargets` of `measure_styles`. Without styles, style losses are left out.
    settings: settings of the losses (`losses`): content_weight=5, content_layers=(), style_weight=100, style_layers=(),
        tv_weight=1e-3. Layers are names in any order, each "name" or "name:factor" or (name, factor), or a mapping
        name → factor, or the comma list of the command line; every layer has the full weight times its factor.
    more_losses: `Loss` objects beside the losses of the settings.
    balance: "none" for the losses above, as in neural_style.lua; "targets" to divide each loss by the mean square of
        its target, T or A, and total variation by the root of the number of pixels, so that weights mean the same for
        every network, layer and size (`Loss.balance`).
    style_blend_weights: one number per style, normalised to sum 1; None: equal weights.
    style_masks: for each style the weights of its pixels (H, W), such as its alpha; None: equal weights.
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
        style_masks: Sequence[np.ndarray | None] | None = None, normalize_gradients: bool = False, pooling: str = "max",
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
        self._names = [t.name for t in sorted(terms, key=lambda t: t.layer is None)]
        repeated = next((name for name in self._names if self._names.count(name) > 1), None)
        if repeated is not None:
            raise OptionError(f"two losses are called '{repeated}'; each needs a name of its own")
        self._losses = [t for t in terms if t.layer is not None]
        picture_losses = [t for t in terms if t.layer is None and min(self.shape[1:]) > t.overlap]
        self.normalize_gradients = normalize_gradients
        self.tile_size = argument("tile_size", tile_size, INT, PIXELS)
        self.tiles = [tiling.whole(self.shape[1:])]
        self._values: dict[str, list] = {}
        self._passes: list[DevicePass] = []
        self._threads: list[ThreadPoolExecutor] = []
        self._accumulator = self.ops  # the backend on which the tiles' gradients are added up
        self._style_statistics: dict[str, np.ndarray] = {}
        if self._losses:
            with self.net.ops.lock:
                self._prepare(content, styles, devices, style_blend_weights, style_masks, most_tiles)
        whole = len(self.tiles) == 1
        self._picture_pass = PicturePass(self.ops, content, picture_losses, normalize_gradients, whole)
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
        check_size(program, content, "content")
        self.tiles = tiling.split(program, self.shape[1:], self.tile_size, len(devices or [None]))
        if len(self.tiles) > 1:
            self.tile_size = self.tile_size or max(self.tiles[0].window.shape)  # for the styles
        self.tiles = self.tiles[:most_tiles]
        nets = [self.net] if devices is None else [self.net.to(ops) for ops in devices[: len(self.tiles)]]
        self._passes = [
            DevicePass(net, self.tiles[i :: len(nets)], self.shape[1:], self._losses, self.normalize_gradients)
            for i, net in enumerate(nets)
        ]
        for each in self._passes:
            each.measure_content(content, None if self.ops is self.net.ops else self.ops)
        self._threads = [ThreadPoolExecutor(1) for _ in nets if len(nets) > 1]
        # Several devices read the picture at once, so they read it on the host.
        if self._threads and not self.ops.on_host:
            self._accumulator = reference.Backend(self.ops.dtype, threads=1)
        if not isinstance(styles, StyleTargets):
            net = self._passes[0].net
            styles = measure_styles(net, self._losses, styles, blend_weights, self.tile_size, most_tiles, masks)
        for each in self._passes:
            each.set_style_targets(styles.statistics)
        self._style_statistics = styles.statistics

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
        with self.net.ops.lock, one_thread_each() if self._threads else nullcontext():
            gradient = self._gradient(x) if self._passes else self.ops.zeros(x.shape)
            self._picture_pass.add(x, gradient, self._values)
        return gradient

    @property
    def capturable(self):
        """True where every evaluation at an array launches the same work on one device, so that a graph can hold it."""
        on_one_device = len(self.tiles) == 1 and all(each.program.devices == [self.ops] for each in self._passes)
        return on_one_device and not any(loss.decides_on_host for loss in (*self._losses, *self._picture_pass.losses))

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

    def _gradient(self, x):
        """The gradient of the layers' losses: statistics are summed over the tiles first, then gradients."""
        accumulator = self._accumulator
        picture = accumulator.receive(x)
        for each in self._passes:
            each.begin(self._values)
        if len(self.tiles) == 1:
            return self.ops.receive(self._passes[0].gradient(accumulator, picture, self.tiles[0]))
        if any(loss.has_statistic for loss in self._losses):
            totals = self._all_reduce(self._map_passes(lambda each: each.sum_statistics(accumulator, picture)))
            values = [each.compare(total) for each, total in zip(self._passes, totals)]
            for name, value in values[0].items():
                self._values[name].append(value)
        if self.normalize_gradients:
            norms = self._map_passes(lambda each: each.sum_norms(accumulator, picture))
            for each in self._passes:
                each.terms.norms = {name: math.fsum(n[name] for n in norms) for name in norms[0]}
        gradient = accumulator.zeros(x.shape)
        for tile, part in self._tile_gradients(picture):
            block = tiling.cut(accumulator, gradient, tile.window)
            tiling.paste(accumulator, gradient, tile.window, accumulator.add_scaled(block, 1, part))
            del block, part  # frees their memory before the next tile is computed
        return self.ops.receive(gradient)

    def _tile_gradients(self, picture):
        """(tile, its gradient on the accumulator), in an order that does not depend on the threads, as sums would."""
        accumulator = self._accumulator
        jobs = [
            (each, tile)
            for row in zip_longest(*(each.tiles[::-1] for each in self._passes))
            for each, tile in zip(self._passes, row)
            if tile
        ]

        def compute(each, tile):
            return accumulator.receive(each.gradient(accumulator, picture, tile))

        if not self._threads:
            for each, tile in jobs:
                yield tile, compute(each, tile)
            return
        threads = dict(zip(self._passes, self._threads))
        futures = [(tile, threads[each].submit(compute, each, tile)) for each, tile in jobs]
        while futures:
            tile, future = futures.pop(0)
            yield tile, future.result()

    def _map_passes(self, function):
        """[function(device pass) for each], computed at the same time."""
        if not self._threads:
            return [function(each) for each in self._passes]
        futures = [thread.submit(function, each) for thread, each in zip(self._threads, self._passes)]
        return [future.result() for future in futures]

    def _all_reduce(self, sums):
        """Per device, the devices' sums (loss name → array of its backend) added up."""
        if len(sums) == 1:
            return sums
        names = dict.fromkeys(name for part in sums for name in part)
        backends = [{loss.name: each.backend_of(loss.layer) for loss in self._losses} for each in self._passes]
        on_host = [{n: ops[n].to_host(array) for n, array in part.items()} for ops, part in zip(backends, sums)]
        total = {name: sum(part[name] for part in on_host if name in part) for name in names}
        return [{name: ops[name].asarray(array) for name, array in total.items()} for ops in backends]
