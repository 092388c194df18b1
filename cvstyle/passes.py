"""The passes of an evaluation: one device's over its tiles, and the pass over the picture itself."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from itertools import repeat

from .errors import OptionError
from .graph import Region, tiling
from .graph.periodic import Extension, repeats
from .losses import Loss, View
from .losses.base import accumulate

_NORM_EPSILON = 1e-8  # neural_style.lua's guard against a gradient of zero
_TEMPORARIES = 8  # at most so many copies of a strip of the picture exist while a loss of the picture is computed


class Terms:
    """The losses of one evaluation on one device: their contexts, the norms of their gradients, and their values.

    values: loss name → scalars whose sum is the weighted loss; devices share the lists. targets: loss name → statistic
    of the styles, on the backend of the loss. Without `compare` and `norms` of the whole map, contexts and norms are
    those of the view at hand.
    """

    def __init__(self, values, targets: dict, normalize: bool):
        self.values = values
        self.targets = targets
        self.normalize = normalize
        self.contexts: dict[str, object] = {}
        self.norms: dict[str, float] = {}

    def compare(self, loss: Loss, ops, total):
        """Set the loss's context from the statistic of the whole map; returns the loss."""
        value, self.contexts[loss.name] = loss.compare(ops, total, self.targets.get(loss.name))
        return value

    def add(self, loss: Loss, view: View, content_target, out):
        """Add the loss's gradient for a view to `out` (None: zeros) and return `out`."""
        context = self.contexts.get(loss.name, content_target)
        map_loss = None
        if loss.has_statistic and loss.name not in self.contexts:  # the view is the whole map
            map_loss, context = loss.compare_view(view, self.targets.get(loss.name))
        if not (self.normalize and loss.normalized):
            out, view_loss = loss.add_gradient(view, context, loss.weight, out)
        elif self.norms:
            weight = loss.weight / (self.norms[loss.name] + _NORM_EPSILON)
            out, view_loss = loss.add_gradient(view, context, weight, out)
        else:
            gradient, factor, view_loss = loss.gradient(view, context)
            weight = loss.weight / (factor * view.ops.l1(gradient) + _NORM_EPSILON) * factor
            out = accumulate(view.ops, out, weight, gradient)
        self.values[loss.name] += [value for value in (map_loss, view_loss) if value is not None]
        return out

    def norm(self, loss: Loss, view: View, content_target):
        """The L1 norm of the unweighted gradient for a view."""
        gradient, factor, _ = loss.gradient(view, self.contexts.get(loss.name, content_target))
        return factor * view.ops.l1(gradient)


class DevicePass:
    """The losses of layers over some tiles of a picture of `size` (height, width), on the backends of a network.

    losses: losses of layers, in the order in which their gradients are added. shapes: layer → (1, C, h, w) of the map
    that counts, where a picture is extended (`graph.periodic`); None: the picture's.
    """

    def __init__(self, net, tiles, size, losses, normalize: bool = False, shapes: Mapping | None = None):
        self.net = net
        self.ops = net.ops
        self.tiles = tiles
        self.size = tuple(size)
        self.losses = losses
        self.normalize = normalize
        self._losses_at = defaultdict(list)
        for loss in losses:
            self._losses_at[loss.layer].append(loss)
        self.program = net.program(self._losses_at)
        self.backend_of = self.program.backend_of
        self.targets: dict[str, object] = {}
        self._shapes = shapes or self.program.shapes(self.size)
        self._content_targets: dict[tuple, list] = {}
        self._target_backend = None
        self._cached_forward = None
        self.begin(defaultdict(list))

    def measure_content(self, content, target_backend) -> None:
        """Keep the content targets of a host picture (3, H, W) on a backend; None: the backend of each layer."""
        self._target_backend = target_backend
        layers = {loss.layer for loss in self.losses if loss.target_from == "content"}
        if not layers:
            return
        program = self.net.program([name for name in self._losses_at if name in layers], same_blocks_as=self.program)
        for tile in self.tiles:
            rows, columns = (slice(a, a + n) for a, n in zip(tile.window.start, tile.window.shape))
            region = Region(tile.window.start, self.size)
            # No name for the window, which would keep its memory.
            features = program.forward(self.ops.asarray(content[None, :, rows, columns]), False, region=region)
            for name, feature_map in features.items():
                for _, view in self._views(tile, name, feature_map):
                    for loss in self._losses_at[name]:
                        if loss.target_from == "content":
                            target = loss.content_target(view)
                            ops = target_backend or view.ops
                            if ops is not view.ops or target is feature_map:  # a target has memory of its own
                                target = ops.asarray(target)
                            self._content_targets.setdefault((tile, loss.name), []).append(target)

    def content_squares(self) -> dict[str, list]:
        """Loss name → (sum of squares, number of values) of each part of the content target."""
        squares = defaultdict(list)
        for loss in self.losses:
            ops = self._target_backend or self.backend_of(loss.layer)
            for tile in self.tiles:
                squares[loss.name] += [_squares(ops, part) for part in self._content_targets.get((tile, loss.name), ())]
        return squares

    def set_style_targets(self, statistics: dict) -> None:
        """Make the targets from the styles' statistics (loss name → host array).

        Raises OptionError where one is missing.
        """
        losses = [loss for loss in self.losses if loss.target_from == "styles"]
        missing = next((loss.name for loss in losses if loss.name not in statistics), None)
        if missing is not None:
            raise OptionError(f"these style targets were measured without '{missing}'; measure them with its loss")
        self.targets = {
            loss.name: loss.style_target(self.backend_of(loss.layer), statistics[loss.name]) for loss in losses
        }

    def begin(self, values) -> None:
        """Start an evaluation that appends its losses to values[name]."""
        self.terms = Terms(values, self.targets, self.normalize)
        self._cached_forward = None

    def sum_statistics(self, picture_backend, picture, keep: bool = True) -> dict:
        """Loss name → statistic, summed over the tiles.

        keep: cache the last tile's forward pass for `gradient`, unless a pass for the norms follows.
        """
        sums = {}

        def add(tile, features):
            for name, losses in self._losses_at.items():
                losses = [loss for loss in losses if loss.has_statistic]
                for _, view in self._views(tile, name, features[name]) if losses else ():
                    for loss in losses:
                        statistic = loss.statistic(view)
                        total = sums.get(loss.name)
                        if statistic is not None:
                            sums[loss.name] = statistic if total is None else view.ops.add_scaled(total, 1, statistic)

        self._for_each_tile(picture_backend, picture, keep and not self._needs_norms, add)
        return sums

    def compare(self, totals: dict) -> dict:
        """Take the statistics of the whole picture; returns loss name → loss."""
        by_name = {loss.name: loss for loss in self.losses}
        return {
            name: self.terms.compare(by_name[name], self.backend_of(by_name[name].layer), total)
            for name, total in totals.items()
        }  # fmt: skip

    def sum_norms(self, picture_backend, picture) -> dict[str, float]:
        """Loss name → L1 norm of the gradient, summed over the tiles."""
        norms = defaultdict(list)

        def add(tile, features):
            for name, feature_map in features.items():
                for number, (_, view) in enumerate(self._views(tile, name, feature_map)):
                    for loss in self._losses_at[name]:
                        norm = self.terms.norm(loss, view, self._content_target(tile, loss, number))
                        norms[loss.name].append(norm)

        self._for_each_tile(picture_backend, picture, True, add)
        return {loss.name: math.fsum(map(float, norms[loss.name])) for loss in self.losses}

    def gradient(self, picture_backend, picture, tile):
        """The gradient for a tile's window (1, 3, h, w), of the losses over the rectangles that the tile owns."""
        cached = self._cached_forward
        self._cached_forward = None
        if cached is not None and cached[0] is tile:
            features = cached[1]
        else:
            del cached
            window = self._window(picture_backend, picture, tile)
            features = self.program.forward(window, recompute=True, region=Region(tile.window.start, self.size))
            del window
        return features.backward(lambda name, gradient: self._add(tile, name, features.pop(name), gradient))

    @property
    def _needs_norms(self):
        return self.normalize and any(tile.owned for tile in self.tiles)

    def _for_each_tile(self, picture_backend, picture, keep, visit):
        """Call visit(tile, features) for every tile; visit must not keep features.

        keep: cache the last tile's forward pass for a backward pass.
        """
        for tile in self.tiles:
            last = keep and tile is self.tiles[-1]
            window = self._window(picture_backend, picture, tile)
            region = Region(tile.window.start, self.size)
            features = self.program.forward(window, needs_grad=last, recompute=True, region=region)
            visit(tile, features)
            self._cached_forward = (tile, features) if last else None
            del features

    def _window(self, picture_backend, picture, tile):
        whole = tile.window.shape == tuple(picture.shape[2:])
        return self.ops.receive(picture if whole else tiling.cut(picture_backend, picture, tile.window))

    def _views(self, tile, name, features):
        """(rectangle of the window's map, view) of each strip that the tile owns; (None, view) of the whole map."""
        ops = self.backend_of(name)
        whole = self._shapes[name][1:]
        if not tile.owned:
            yield None, View(ops, features, whole)
            return
        for part in tile.owned[name].strips(features.shape[1]):
            start = tuple(a + b for a, b in zip(tile.origins[name], part.start))
            yield part, View(ops, tiling.cut(ops, features, part), whole, start)

    def _add(self, tile, name, features, gradient):
        """Add the gradients of a layer's losses to the gradient from above (see Program.backward)."""
        ops = self.backend_of(name)
        for number, (part, view) in enumerate(self._views(tile, name, features)):
            if part is None:
                return self._add_view(tile, view, name, number, gradient)
            gradient = ops.zeros(features.shape) if gradient is None else gradient
            block = self._add_view(tile, view, name, number, tiling.cut(ops, gradient, part))
            tiling.paste(ops, gradient, part, block)
        return gradient

    def _add_view(self, tile, view, name, number, gradient):
        for loss in self._losses_at[name]:
            gradient = self.terms.add(loss, view, self._content_target(tile, loss, number), gradient)
        return gradient

    def _content_target(self, tile, loss, number):
        targets = self._content_targets.get((tile, loss.name))
        return None if targets is None else self.backend_of(loss.layer).receive(targets[number])


def _squares(ops, array):
    """(sum of squares, number of values)."""
    return float(ops.dot(array, array)), math.prod(array.shape)


class PicturePass:
    """The losses of the picture itself, over the whole picture at once or in strips no larger than tiles."""

    def __init__(self, ops, content, losses, normalize: bool, whole: bool, wrap: str | None = None):
        """content: the host picture (3, H, W) that gives the content targets. wrap: the axes along which it repeats."""
        self.ops = ops
        self.losses = losses
        self.normalize = normalize
        self.whole = whole
        self._extensions = {loss.name: _overlapping(content.shape[1:], loss.overlap, wrap) for loss in losses}
        targeted = [loss for loss in losses if loss.target_from == "content"]
        x = ops.asarray(content[None]) if targeted else None
        self._content_targets = {}
        for loss in targeted:
            views = self._views(loss, self._extensions[loss.name].apply(ops, x))
            self._content_targets[loss.name] = [loss.content_target(view) for _, view in views]

    def content_squares(self) -> dict[str, list]:
        """Loss name → (sum of squares, number of values) of each part of the content target."""
        targets = self._content_targets.items()
        return {name: [_squares(self.ops, part) for part in parts] for name, parts in targets}

    def add(self, x, gradient, values) -> None:
        """Add the losses' gradients at x (1, 3, H, W) to `gradient` in place, and the losses to values[name]."""
        ops = self.ops
        terms = Terms(values, {}, self.normalize)
        for loss in self.losses:
            extension = self._extensions[loss.name]
            extended = extension.apply(ops, x)
            own = gradient if extended is x else ops.zeros(extended.shape)
            if not self.whole:
                self._reduce_strips(loss, extended, terms)
            for (part, view), target in self._strips(loss, extended):
                block = own if part is None else tiling.cut(ops, own, part)
                block = terms.add(loss, view, target, block)
                if part is not None:
                    tiling.paste(ops, own, part, block)
            if own is not gradient:
                ops.add_scaled(gradient, 1, extension.adjoint(ops, own))

    def _reduce_strips(self, loss, x, terms):
        """Sum the loss's statistic and gradient norm over all strips."""
        if loss.has_statistic:
            total = None
            for _, view in self._views(loss, x):
                statistic = loss.statistic(view)
                if statistic is not None:
                    total = statistic if total is None else self.ops.add_scaled(total, 1, statistic)
            terms.values[loss.name].append(terms.compare(loss, self.ops, total))
        if self.normalize and loss.normalized:
            norms = (float(terms.norm(loss, view, target)) for (_, view), target in self._strips(loss, x))
            terms.norms[loss.name] = math.fsum(norms)

    def _strips(self, loss, x):
        """((rectangle or None, view), content target or None) of each strip."""
        return zip(self._views(loss, x), self._content_targets.get(loss.name) or repeat(None))

    def _views(self, loss, x):
        """(rectangle, view) of each strip; (None, view) of the whole picture."""
        shape = tuple(x.shape[1:])
        if self.whole:
            yield None, View(self.ops, x, shape)
            return
        channels, height, width = shape
        rows = (height - loss.overlap) // loss.step * loss.step
        for strip in tiling.Rect((0, 0), (rows, width)).strips(_TEMPORARIES * channels, loss.step):
            part = tiling.Rect(strip.start, (strip.shape[0] + loss.overlap, width))
            yield part, View(self.ops, tiling.cut(self.ops, x, part), shape, part.start)


def _overlapping(size, overlap, wrap):
    """The extension of a picture that repeats by the rows and columns that a loss compares its last ones with."""
    return Extension(size, after=tuple(overlap * on for on in repeats(wrap)))
