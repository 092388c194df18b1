"""The loss of neural style transfer and its gradient for the picture (Gatys et al. 2015; neural_style.lua)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import zip_longest

import numpy as np

from . import tiles
from .backends import numpy as reference
from .backends.threads import one_thread_each
from .errors import ImageError, OptionError, ShapeError

_NORM_EPSILON = 1e-8  # neural_style.lua's guard against a gradient of zero


class Objective:
    """Content, Gram style and total variation as a function of a picture: `loss, gradient = objective(x)`.

    With F the features of a layer as (C, H·W), N = C·H·W of them:
    content `w · mean((F − T)²)`; style `w · mean((G − A)²)` with G = F Fᵀ / N and A = Σ b_i G_i over the styles;
    total variation `w/2 · Σ` of squared differences to the right and lower neighbour over the (H−1)×(W−1) block.

    net: a `Network`, whose layers may be on several backends (`Network.across`).
    content: (3, H, W), BGR, mean-subtracted, in 0..255 units. styles: the same, each of its own size.
    content_layers, style_layers: layer names in any order, each "name" or "name:factor" or (name, factor); every
        layer has the full weight times its factor.
    style_blend_weights: one number per style, normalised to sum 1 (equal if None).
    normalize_gradients: each layer's gradient is divided by its L1 norm before the weight multiplies it. The gradient
        is then not that of the loss: an optimiser with a line search may stop early.
    pooling: "max" (the network's own) or "avg".
    tile_size: the longest side, in pixels, of what is computed at a time; None: the whole picture. Loss and gradient
        are those of the whole picture (see `tiles`); memory, but for the picture's own, is that of one tile.
    devices: backends that share the tiles, of which there are then at least as many where the network allows it; None:
        the network's.
    home: the backend on which the picture, its gradient and the content's features live; None: the network's.
    most_tiles: of more tiles than these, the styles' included, the first alone are computed, to see what that takes;
        None: all.

    Raises OptionError for unknown layers, contradictory weights and tiles that the network cannot be computed in,
    ImageError for pictures of wrong shape, ModelError where a picture is too small for the network.
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
        tile_size: int | None = None,
        devices: Sequence | None = None,
        home=None,
        most_tiles: int | None = None,
    ):
        self.net = net.with_pooling(pooling)
        self.ops = home or self.net.ops
        self.shape = _checked(content, "content").shape
        self.normalize_gradients = normalize_gradients
        self.tv_weight = _weight(tv_weight, "tv_weight")
        self.content_weights = _layer_weights(content_layers, _weight(content_weight, "content_weight"))
        self.style_weights = _layer_weights(style_layers, _weight(style_weight, "style_weight"))
        if not styles:
            self.style_weights = {}
        blend = _blend(style_blend_weights, len(styles))
        if tile_size is not None and tile_size < 1:
            raise OptionError(f"tile_size is {tile_size}; a number of pixels above zero is needed")
        self.tile_size = tile_size
        self.tiles = [tiles.whole(self.shape[1:])]
        self._parts: dict[str, list] = {}
        self._workers: list[_Worker] = []
        self._threads: list[ThreadPoolExecutor] = []
        if not (self.content_weights or self.style_weights):
            return  # total variation alone
        program = self.net.program(dict.fromkeys([*self.content_weights, *self.style_weights]))
        _check_size(program, content, "content")
        self.tiles = tiles.split(program, self.shape[1:], tile_size, len(devices or [None]))
        if len(self.tiles) > 1:
            self.tile_size = tile_size or max(self.tiles[0].window.shape)  # for the styles
        self.tiles = self.tiles[:most_tiles]
        nets = [self.net] if devices is None else [self.net.on(ops) for ops in devices[: len(self.tiles)]]
        self._workers = [
            _Worker(
                net, self.tiles[number :: len(nets)], content, home, self.content_weights, self.style_weights,
                normalize_gradients,
            )
            for number, net in enumerate(nets)
        ]  # fmt: skip
        self._threads = [ThreadPoolExecutor(1) for _ in nets if len(nets) > 1]
        # Several devices read the picture at once, so they read it on the host.
        hosted = isinstance(self.ops, reference.Backend) or not self._threads
        self._table = self.ops if hosted else reference.Backend(self.ops.dtype, threads=1)
        if self.style_weights:
            self._set_style_targets(styles, blend, most_tiles)
        for ops in (ops for worker in self._workers for ops in worker.program.devices):
            ops.trim()  # the pictures may differ in size, and their buffers would lie idle

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
        """The gradient at x (1, 3, H, W), both arrays of the backend.

        Nothing waits for the device here, unless several devices share the tiles, or normalize_gradients meets several
        tiles: then sums pass through the host.
        """
        self._parts = defaultdict(list)
        with one_thread_each() if self._threads else nullcontext():
            gradient = self._gradient(x) if self._workers else self.ops.zeros(x.shape)
        if self.tv_weight and min(self.shape[1:]) > 1:
            self._add_total_variation(x, gradient)
        return gradient

    @property
    def repeats(self):
        """Whether evaluations at the same array are the same work on one device, with nothing decided on the host."""
        return len(self.tiles) == 1 and all(worker.program.devices == [self.ops] for worker in self._workers)

    @property
    def program(self):
        """What the first device runs; None for total variation alone."""
        return self._workers[0].program if self._workers else None

    @property
    def losses(self) -> dict[str, float]:
        """The weighted parts of the last evaluation: "content:LAYER", "style:LAYER", "tv"; their sum is the loss."""
        return self.read_losses()()

    def read_losses(self):
        """Start to copy the parts to the host; returns a function that waits for them alone and gives `losses`."""
        order = [f"content:{n}" for n in self.content_weights] + [f"style:{n}" for n in self.style_weights] + ["tv"]
        parts = {name: list(self._parts[name]) for name in order if name in self._parts}
        on_devices = defaultdict(list)
        for value in (value for values in parts.values() for value in values if hasattr(value, "ops")):
            on_devices[value.ops].append(value)
        arriving = [(values, ops.on_their_way(values)) for ops, values in on_devices.items()]

        def losses():
            known = {id(v): n for values, numbers in arriving for v, n in zip(values, numbers(), strict=True)}
            return {name: math.fsum(known.get(id(v), v) for v in values) for name, values in parts.items()}

        return losses

    @property
    def loss(self) -> float:
        """The loss of the last evaluation."""
        return math.fsum(self.losses.values())

    def _gradient(self, x):
        """That of content and style: the tiles are summed over for the Gram matrices, then for the gradient."""
        table, alone = self._table, len(self.tiles) == 1
        picture = table.receive(x)
        for worker in self._workers:
            worker.begin(self._parts)
        if self.style_weights and not alone:
            grams = self._each(lambda worker: worker.sum_grams(table, picture))
            self._share(grams, _Worker.compare_grams)
            for name, weight in self.style_weights.items():
                self._parts[f"style:{name}"] = [self._workers[0].style_loss(name, weight)]
        if self.normalize_gradients and not alone:
            norms = self._each(lambda worker: worker.sum_norms(table, picture))
            for worker in self._workers:
                worker.norms = {name: math.fsum(n[name] for n in norms) for name in norms[0]}
        if alone:
            return self.ops.receive(self._workers[0].gradient(table, picture, self.tiles[0]))
        gradient = table.zeros(x.shape)
        for tile, part in self._gradients(picture):
            block = _cut(table, gradient, tile.window)
            _paste(table, gradient, tile.window, table.add_scaled(block, 1, part))
            del block, part  # else they would lie there while the next tile is computed
        return self.ops.receive(gradient)

    def _gradients(self, picture):
        """(tile, its gradient on the table), in one order whatever the threads do, since sums depend on it."""
        table = self._table
        jobs = [
            (worker, tile)
            for row in zip_longest(*(worker.tiles[::-1] for worker in self._workers))
            for worker, tile in zip(self._workers, row)
            if tile
        ]
        if not self._threads:
            for worker, tile in jobs:
                yield tile, table.receive(worker.gradient(table, picture, tile))
            return
        threads = dict(zip(self._workers, self._threads))

        def compute(worker, tile):
            return table.receive(worker.gradient(table, picture, tile))

        done = [(tile, threads[worker].submit(compute, worker, tile)) for worker, tile in jobs]
        while done:
            tile, future = done.pop(0)
            yield tile, future.result()

    def _each(self, function):
        """[function(worker) for every worker], at the same time."""
        if not self._threads:
            return [function(worker) for worker in self._workers]
        futures = [thread.submit(function, worker) for thread, worker in zip(self._threads, self._workers)]
        return [future.result() for future in futures]

    def _share(self, sums, receive):
        """Add up what every worker summed, layer → array of its backend, and give each the result."""
        workers = self._workers
        if len(workers) == 1:
            return receive(workers[0], sums[0])
        names = dict.fromkeys(name for part in sums for name in part)
        hosted = [{n: w.ops_of(n).to_host(array) for n, array in part.items()} for w, part in zip(workers, sums)]
        total = {name: sum(part[name] for part in hosted if name in part) for name in names}
        for worker in workers:
            receive(worker, {name: worker.ops_of(name).asarray(array) for name, array in total.items()})

    def _set_style_targets(self, styles, blend, most_tiles):
        """One blended Gram matrix per layer, computed by the first device."""
        first, targets = self._workers[0], {}
        for number, (style, share) in enumerate(zip(styles, blend, strict=True), 1):
            role = f"style {number}"
            program = first.net.program(self.style_weights)
            _check_size(program, _checked(style, role), role)
            size, tile_size = style.shape[1:], self.tile_size
            if tile_size and tile_size < max(size):  # it was chosen for the content; a style may need a little more
                tile_size = max(tile_size, tiles.least([program.reach(size, axis) for axis in (0, 1)]))
            cut = tiles.split(program, size, tile_size)[:most_tiles]
            worker = _Worker(first.net, cut, style, None, {}, self.style_weights, False)
            for name, gram in worker.sum_grams(first.ops, first.ops.asarray(style[None]), keep=False).items():
                ops = first.ops_of(name)
                if name in targets:
                    ops.add_scaled(targets[name], share, gram)
                else:
                    targets[name] = ops.scale(gram, share)
        for worker in self._workers:
            # Copied, now that the style's maps are gone: what stays lies together and leaves the rest of a heap whole.
            worker.style_targets = {n: worker.ops_of(n).asarray(target) for n, target in targets.items()}

    def _add_total_variation(self, x, gradient):
        """Of the whole picture at once, or in strips of rows no larger than the tiles."""
        ops, (channels, height, width) = self.ops, self.shape
        if len(self.tiles) == 1:
            self._parts["tv"] = [ops.total_variation(x, self.tv_weight, gradient)]
            return
        for strip in tiles.Part((0, 0), (height - 1, width)).strips(8 * channels):  # eight temporaries at most
            block = tiles.Part(strip.start, (strip.shape[0] + 1, width))
            own = _cut(ops, gradient, block)
            self._parts["tv"].append(ops.total_variation(_cut(ops, x, block), self.tv_weight, own))
            _paste(ops, gradient, block, own)


class _Worker:
    """Content and style losses of some tiles of a picture, on one device or those of the network's layers.

    Gram matrices and norms are those of the tiles' sum until `compare_grams` and `norms` are given the whole's.
    """

    def __init__(self, net, share, content, store, content_weights, style_weights, normalize):
        self.net, self.ops, self.tiles, self.store, self.normalize = net, net.ops, share, store, normalize
        self.content_weights, self.style_weights, self.size = content_weights, style_weights, content.shape[1:]
        self.program = net.program(dict.fromkeys([*content_weights, *style_weights]))
        self.ops_of = self.program.ops_of
        self._counts = {name: math.prod(s) for name, s in self.program.shapes(tuple(self.size)).items()}
        self.style_targets: dict[str, object] = {}
        self.norms: dict[str, float] = {}
        self._differences: dict[str, object] = {}
        self._held = None
        self._content_targets = {}
        if content_weights:
            program = net.program(content_weights, like=self.program)
            for tile in share:
                whole = tiles.Part((0, 0), content.shape[1:])
                rows, columns = _slices(tile.window if tile.owned else whole)
                features = program.forward(
                    self.ops.asarray(content[None, :, rows, columns]), keep=False, of=self.size, at=tile.window.start
                )
                self._content_targets[tile] = {
                    name: [self._stored(part, name, part is f) for part in self._parts_of(tile, name, f)]
                    for name, f in features.items()
                }

    def _stored(self, part, name, shared):
        """A target where targets are kept, in memory of its own."""
        store = self.store or self.ops_of(name)
        return part if store is self.ops_of(name) and not shared else store.asarray(part)

    def _target(self, tile, name, number):
        return self.ops_of(name).receive(self._content_targets[tile][name][number])

    def begin(self, parts):
        """Start an evaluation, whose losses are appended to parts[name]."""
        self._losses, self.norms, self._differences, self._held = parts, {}, {}, None

    def sum_grams(self, table, picture, keep=True):
        """Style layer → Gram matrix, divided by the whole map's number of elements, summed over the tiles.

        The last tile's forward pass is kept for `gradient`, unless another pass comes between.
        """
        sums = {}

        def add(tile, features):
            for name in self.style_weights:
                ops = self.ops_of(name)
                for part in self._parts_of(tile, name, features[name]):
                    gram = ops.gram(part, 1 / self._counts[name])
                    sums[name] = ops.add_scaled(sums[name], 1, gram) if name in sums else gram

        self._look_at_all(table, picture, keep and not self._needs_norms, add)
        return sums

    def compare_grams(self, grams):
        """Take the whole picture's Gram matrices."""
        for name, gram in grams.items():
            self._differences[name] = self.ops_of(name).add_scaled(gram, -1, self.style_targets[name])

    def style_loss(self, name, weight):
        """A layer's style loss."""
        difference = self._differences[name]
        return weight / difference.shape[0] ** 2 * self.ops_of(name).dot(difference, difference)

    def sum_norms(self, table, picture):
        """("content" or "style", layer) → L1 norm of the layer's own gradient, summed over the tiles."""
        norms = {(k, n): [] for k, w in (("content", self.content_weights), ("style", self.style_weights)) for n in w}

        def add(tile, features):
            for name, f in features.items():
                ops = self.ops_of(name)
                for number, part in enumerate(self._parts_of(tile, name, f)):
                    if name in self.content_weights:
                        difference = ops.difference(part, self._target(tile, name, number))
                        norms["content", name].append(self._content_factor(name) * ops.l1(difference))
                    if name in self.style_weights:
                        own = ops.gram_backward(self._differences[name], part, self._style_factor(name))
                        norms["style", name].append(ops.l1(own))

        self._look_at_all(table, picture, True, add)
        return {key: math.fsum(map(float, values)) for key, values in norms.items()}

    def gradient(self, table, picture, tile):
        """The gradient for a tile's window (1, 3, h, w), from what the tile owns."""
        held, self._held = self._held, None
        if held is not None and held[0] is tile:
            features = held[1]
        else:
            del held
            window = self._window(table, picture, tile)
            features = self.program.forward(window, again=True, of=self.size, at=tile.window.start)
            del window
        return self.program.backward(lambda name, gradient: self._add(tile, name, features.pop(name), gradient))

    @property
    def _needs_norms(self):
        return self.normalize and any(tile.owned for tile in self.tiles)

    def _look_at_all(self, table, picture, keep, look):
        """look(tile, features) for every tile, of whose features nothing may stay; the last tile's forward pass is kept
        for a backward pass if asked for."""
        for tile in self.tiles:
            last = keep and tile is self.tiles[-1]
            window = self._window(table, picture, tile)
            features = self.program.forward(window, keep=last, again=True, of=self.size, at=tile.window.start)
            look(tile, features)
            self._held = (tile, features) if last else None
            del features

    def _window(self, table, picture, tile):
        return self.ops.receive(_cut(table, picture, tile.window) if tile.owned else picture)

    def _parts_of(self, tile, name, features):
        """What the tile owns of a feature map, a strip at a time; the map itself where that is all."""
        if not tile.owned:
            yield features
            return
        for part in tile.owned[name].strips(features.shape[1]):
            yield _cut(self.ops_of(name), features, part)

    def _add(self, tile, name, features, gradient):
        """Add a layer's own gradients to the one that comes from above (see Program.backward)."""
        ops, has_target = self.ops_of(name), name in self.content_weights
        if not tile.owned:
            return self._add_own(name, features, gradient, self._target(tile, name, 0) if has_target else None)
        for number, part in enumerate(tile.owned[name].strips(features.shape[1])):
            gradient = ops.zeros(features.shape) if gradient is None else gradient
            target = self._target(tile, name, number) if has_target else None
            own = self._add_own(name, _cut(ops, features, part), _cut(ops, gradient, part), target)
            _paste(ops, gradient, part, own)
        return gradient

    def _add_own(self, name, features, gradient, target):
        """The same for a part of the map whose gradient (or None) is at hand."""
        if name in self.content_weights:
            gradient = self._add_content(name, features, gradient, target)
        if name in self.style_weights:
            gradient = self._add_style(name, features, gradient)
        return gradient

    def _add_content(self, name, features, gradient, target):
        ops, weight, factor = self.ops_of(name), self.content_weights[name], self._content_factor(name)
        losses, share = self._losses[f"content:{name}"], weight / self._counts[name]
        if gradient is not None and not self.normalize:
            losses.append(share * ops.add_difference(gradient, weight * factor, features, target))
            return gradient
        difference = ops.difference(features, target)
        losses.append(share * ops.dot(difference, difference))
        if self.normalize:
            norm = self.norms["content", name] if self.norms else factor * ops.l1(difference)
            factor = factor / (norm + _NORM_EPSILON)
        if gradient is None:
            return ops.scale(difference, weight * factor)
        return ops.add_scaled(gradient, weight * factor, difference)

    def _add_style(self, name, features, gradient):
        ops, weight = self.ops_of(name), self.style_weights[name]
        alone = name not in self._differences  # the only tile: its Gram matrix is the whole picture's
        if alone:
            difference, squares = ops.gram_difference(features, 1 / self._counts[name], self.style_targets[name])
            self._differences[name] = difference
            self._losses[f"style:{name}"].append(weight / difference.shape[0] ** 2 * squares)
        difference, factor = self._differences[name], self._style_factor(name)
        if alone:
            del self._differences[name]  # nobody else asks; kept, they would lie amid the heap
        if self.normalize and not self.norms:
            own = ops.gram_backward(difference, features, factor)
            factor = weight / (ops.l1(own) + _NORM_EPSILON)
            return ops.scale(own, factor) if gradient is None else ops.add_scaled(gradient, factor, own)
        if self.normalize:
            weight = weight / (self.norms["style", name] + _NORM_EPSILON)
        return ops.gram_backward(difference, features, weight * factor, out=gradient)

    def _content_factor(self, name):
        return 2 / self._counts[name]

    def _style_factor(self, name):
        return 4 / (self._differences[name].shape[0] ** 2 * self._counts[name])


def _slices(part):
    return tuple(slice(start, start + n) for start, n in zip(part.start, part.shape))


def _cut(ops, array, part):
    """A copy of a rectangle of maps (1, C, H, W)."""
    out = ops.empty((*array.shape[:2], *part.shape))
    ops.copy_block(out, (0, 0, 0, 0), array, (0, 0, *part.start), out.shape)
    return out


def _paste(ops, array, part, block):
    """Put back a rectangle that `_cut` gave."""
    ops.copy_block(array, (0, 0, *part.start), block, (0, 0, 0, 0), block.shape)


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
        name, factor = parse_layer(entry)
        if name in result:
            raise OptionError(f"layer '{name}' is listed twice")
        result[name] = weight * _weight(factor, f"the weight of layer '{name}'")
    return {name: w for name, w in result.items() if w}


def parse_layer(entry) -> tuple[str, float]:
    """("relu1_1", 2.0) from "relu1_1:2" or from that pair; the factor is 1 where none is given."""
    if not isinstance(entry, str):
        name, factor = entry
        return name, factor
    name, colon, factor = entry.rpartition(":")
    if not colon:
        return entry, 1.0
    try:
        return name, float(factor)
    except ValueError:
        return entry, 1.0


def _blend(weights, count):
    if weights is None:
        return [1 / count] * count if count else []
    weights = [_weight(w, "a style blend weight") for w in weights]
    if len(weights) != count:
        raise OptionError(f"{len(weights)} style blend weights for {count} style pictures")
    if count and not sum(weights):
        raise OptionError("the style blend weights are all zero")
    return [w / sum(weights) for w in weights]
