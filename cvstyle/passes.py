"""The parts of an evaluation: one device's, over its tiles and their layers, and that of the picture itself."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import repeat

from .errors import OptionError
from .graph import Region, tiling
from .losses import Loss, View
from .losses.base import added

_NORM_EPSILON = 1e-8  # neural_style.lua's guard against a gradient of zero
_TEMPORARIES = 8  # of a strip of the picture, at most, while a loss of the picture is computed


class Terms:
    """Losses in one evaluation on one device: what they aim at, the norms of their gradients, and their values.

    values: name → scalars whose sum is the weighted loss; several devices add to one. targets: name → the statistic of
    the styles, on the backend of the loss. Aims and norms are those of the tiles at hand until `decide` and `norms` are
    given the whole's.
    """

    def __init__(self, values, targets: dict, normalize: bool):
        self.values, self.targets, self.normalize = values, targets, normalize
        self.aims: dict[str, object] = {}
        self.norms: dict[str, float] = {}

    def decide(self, loss: Loss, ops, total):
        """Take the statistic of the whole map; returns the loss."""
        value, self.aims[loss.name] = loss.compare(ops, total, self.targets.get(loss.name))
        return value

    def add(self, loss: Loss, view: View, kept, out):
        """out (or None for zeros) with the loss's gradient for a view added. kept: what `Loss.keep` gave there."""
        aim, value = self.aims.get(loss.name, kept), None
        if loss.has_statistic and loss.name not in self.aims:  # the view is the whole map
            value, aim = loss.compare_view(view, self.targets.get(loss.name))
        if not (self.normalize and loss.normalized):
            out, own = loss.add_gradient(view, aim, loss.weight, out)
        elif self.norms:
            out, own = loss.add_gradient(view, aim, loss.weight / (self.norms[loss.name] + _NORM_EPSILON), out)
        else:
            gradient, factor, own = loss.gradient(view, aim)
            weight = loss.weight / (factor * view.ops.l1(gradient) + _NORM_EPSILON) * factor
            out = added(view.ops, out, weight, gradient)
        self.values[loss.name] += [v for v in (value, own) if v is not None]
        return out

    def norm(self, loss: Loss, view: View, kept):
        """The L1 norm of the gradient of a view, unweighted."""
        gradient, factor, _ = loss.gradient(view, self.aims.get(loss.name, kept))
        return factor * view.ops.l1(gradient)


class DevicePass:
    """The losses of some tiles of a picture of (height, width) `size`, on the devices that have the network's layers.

    losses: those of layers, in the order in which their gradients are added.
    """

    def __init__(self, net, share, size, losses, normalize: bool = False):
        self.net, self.ops, self.tiles, self.size, self.normalize = net, net.ops, share, tuple(size), normalize
        self.losses = losses
        self._at = defaultdict(list)
        for loss in losses:
            self._at[loss.layer].append(loss)
        self.program = net.program(self._at)
        self.backend_of = self.program.backend_of
        self.targets: dict[str, object] = {}
        self._shapes = self.program.shapes(self.size)
        self._kept: dict[tuple, list] = {}
        self._store = None
        self._held = None
        self.begin(defaultdict(list))

    def keep_content(self, content, store) -> None:
        """Keep what losses ask for of a host picture (3, H, W), on the backend `store`; None: that of each layer."""
        self._store = store
        asking = {loss.layer for loss in self.losses if loss.target_from == "content"}
        if not asking:
            return
        program = self.net.program([name for name in self._at if name in asking], same_blocks_as=self.program)
        for tile in self.tiles:
            rows, columns = (slice(a, a + n) for a, n in zip(tile.window.start, tile.window.shape))
            window = self.ops.asarray(content[None, :, rows, columns])
            features = program.forward(window, needs_grad=False, region=Region(tile.window.start, self.size))
            for name, whole in features.items():
                for _, view in self._views(tile, name, whole):
                    for loss in self._at[name]:
                        if loss.target_from == "content":
                            own = self._stored(loss.keep(view), view.ops, store, whole)
                            self._kept.setdefault((tile, loss.name), []).append(own)

    def squares_kept(self) -> dict[str, list]:
        """Loss name → (sum of squares, number of values) of each part of what is kept of the content."""
        found = defaultdict(list)
        for loss in self.losses:
            ops = self._store or self.backend_of(loss.layer)
            for tile in self.tiles:
                found[loss.name] += [_squares(ops, own) for own in self._kept.get((tile, loss.name), ())]
        return found

    @staticmethod
    def _stored(array, ops, store, shared):
        """An array where it is kept, in memory of its own."""
        store = store or ops
        return array if store is ops and array is not shared else store.asarray(array)

    def aim_at(self, statistics: dict) -> None:
        """Take the styles' statistics (loss name → host array)."""
        missing = next((t.name for t in self.losses if t.target_from == "styles" and t.name not in statistics), None)
        if missing is not None:
            raise OptionError(f"these style targets were measured without '{missing}'; measure them with its loss")
        asking = [loss for loss in self.losses if loss.target_from == "styles"]
        self.targets = {loss.name: self.backend_of(loss.layer).asarray(statistics[loss.name]) for loss in asking}

    def begin(self, values) -> None:
        """Start an evaluation, whose losses are added to values[name]."""
        self.terms = Terms(values, self.targets, self.normalize)
        self._held = None

    def sum_statistics(self, table, picture, keep: bool = True) -> dict:
        """Loss name → its statistic, summed over the tiles.

        The last tile's forward pass is kept for `gradient`, unless another pass comes between.
        """
        sums = {}

        def add(tile, features):
            for name, losses in self._at.items():
                asking = [loss for loss in losses if loss.has_statistic]
                for _, view in self._views(tile, name, features[name]) if asking else ():
                    for loss in asking:
                        own = loss.statistic(view)
                        known = sums.get(loss.name)
                        sums[loss.name] = own if known is None else view.ops.add_scaled(known, 1, own)

        self._for_each_tile(table, picture, keep and not self._needs_norms, add)
        return sums

    def decide(self, totals: dict) -> dict:
        """Take the whole picture's statistics; returns loss name → loss."""
        by_name = {loss.name: loss for loss in self.losses}
        return {
            name: self.terms.decide(by_name[name], self.backend_of(by_name[name].layer), total)
            for name, total in totals.items()
        }  # fmt: skip

    def sum_norms(self, table, picture) -> dict[str, float]:
        """Loss name → L1 norm of its gradient, summed over the tiles."""
        norms = defaultdict(list)

        def add(tile, features):
            for name, whole in features.items():
                for number, (_, view) in enumerate(self._views(tile, name, whole)):
                    for loss in self._at[name]:
                        norms[loss.name].append(self.terms.norm(loss, view, self._kept_at(tile, loss, number)))

        self._for_each_tile(table, picture, True, add)
        return {loss.name: math.fsum(map(float, norms[loss.name])) for loss in self.losses}

    def gradient(self, table, picture, tile):
        """The gradient for a tile's window (1, 3, h, w), from what the tile owns."""
        held, self._held = self._held, None
        if held is not None and held[0] is tile:
            features = held[1]
        else:
            del held
            window = self._window(table, picture, tile)
            features = self.program.forward(window, recompute=True, region=Region(tile.window.start, self.size))
            del window
        return features.backward(lambda name, gradient: self._add(tile, name, features.pop(name), gradient))

    @property
    def _needs_norms(self):
        return self.normalize and any(tile.owned for tile in self.tiles)

    def _for_each_tile(self, table, picture, keep, look):
        """look(tile, features) for every tile, of whose features nothing may stay.

        keep: the last tile's forward pass is kept for a backward pass.
        """
        for tile in self.tiles:
            last = keep and tile is self.tiles[-1]
            window = self._window(table, picture, tile)
            region = Region(tile.window.start, self.size)
            features = self.program.forward(window, needs_grad=last, recompute=True, region=region)
            look(tile, features)
            self._held = (tile, features) if last else None
            del features

    def _window(self, table, picture, tile):
        return self.ops.receive(tiling.cut(table, picture, tile.window) if tile.owned else picture)

    def _views(self, tile, name, features):
        """(rectangle of the window's map or None, view) of what the tile owns, a strip at a time; or of all of it."""
        ops, whole = self.backend_of(name), self._shapes[name][1:]
        if not tile.owned:
            yield None, View(ops, features, whole)
            return
        for part in tile.owned[name].strips(features.shape[1]):
            start = tuple(a + b for a, b in zip(tile.origins[name], part.start))
            yield part, View(ops, tiling.cut(ops, features, part), whole, start)

    def _add(self, tile, name, features, gradient):
        """Add a layer's own gradients to the one that comes from above (see Program.backward)."""
        ops = self.backend_of(name)
        for number, (part, view) in enumerate(self._views(tile, name, features)):
            if part is None:
                return self._add_view(tile, view, name, number, gradient)
            gradient = ops.zeros(features.shape) if gradient is None else gradient
            own = self._add_view(tile, view, name, number, tiling.cut(ops, gradient, part))
            tiling.paste(ops, gradient, part, own)
        return gradient

    def _add_view(self, tile, view, name, number, gradient):
        for loss in self._at[name]:
            gradient = self.terms.add(loss, view, self._kept_at(tile, loss, number), gradient)
        return gradient

    def _kept_at(self, tile, loss, number):
        kept = self._kept.get((tile, loss.name))
        return None if kept is None else self.backend_of(loss.layer).receive(kept[number])


def _squares(ops, array):
    """(sum of squares, number of values)."""
    return float(ops.dot(array, array)), math.prod(array.shape)


class PicturePass:
    """The losses of the picture itself, all of it at once (whole) or in strips no larger than tiles."""

    def __init__(self, ops, content, losses, normalize: bool, whole: bool):
        """content: a host picture (3, H, W), of which losses may keep something."""
        self.ops, self.shape, self.losses, self.normalize, self.whole = ops, content.shape, losses, normalize, whole
        asking = [loss for loss in losses if loss.target_from == "content"]
        picture = ops.asarray(content[None]) if asking else None
        self._kept = {loss.name: [loss.keep(view) for _, view in self._views(loss, picture)] for loss in asking}

    def squares_kept(self) -> dict[str, list]:
        """As `DevicePass.squares_kept`."""
        return {name: [_squares(self.ops, own) for own in kept] for name, kept in self._kept.items()}

    def add(self, x, gradient, values) -> None:
        """Add the losses' gradients at x (1, 3, H, W) to one, in place, and the losses to values[name]."""
        terms = Terms(values, {}, self.normalize)
        for loss in self.losses:
            if not self.whole:
                self._look_first(loss, x, terms)
            for (part, view), kept in zip(self._views(loss, x), self._kept_of(loss)):
                own = gradient if part is None else tiling.cut(self.ops, gradient, part)
                own = terms.add(loss, view, kept, own)
                if part is not None:
                    tiling.paste(self.ops, gradient, part, own)

    def _look_first(self, loss, x, terms):
        """Find what must be known of all strips."""
        if loss.has_statistic:
            total = None
            for _, view in self._views(loss, x):
                own = loss.statistic(view)
                total = own if total is None else self.ops.add_scaled(total, 1, own)
            terms.values[loss.name].append(terms.decide(loss, self.ops, total))
        if self.normalize and loss.normalized:
            strips = zip(self._views(loss, x), self._kept_of(loss))
            terms.norms[loss.name] = math.fsum(float(terms.norm(loss, view, kept)) for (_, view), kept in strips)

    def _kept_of(self, loss):
        return self._kept.get(loss.name) or repeat(None)

    def _views(self, loss, x):
        """(rectangle or None, view) of the picture."""
        if self.whole:
            yield None, View(self.ops, x, self.shape)
            return
        channels, height, width = self.shape
        for strip in tiling.Rect((0, 0), (height - loss.overlap, width)).strips(_TEMPORARIES * channels):
            part = tiling.Rect(strip.start, (strip.shape[0] + loss.overlap, width))
            yield part, View(self.ops, tiling.cut(self.ops, x, part), self.shape, part.start)
