"""The device passes that share the tiles of a picture, and their sums."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import zip_longest

from .backends import reference
from .backends.threads import one_thread_each
from .graph import tiling
from .graph.periodic import Periodic
from .passes import DevicePass


class Workers:
    """A `DevicePass` for each of several devices, and for more than one a thread for each.

    passes: one per network of `nets`. accumulator: the backend on which the tiles' gradients are added up.
    """

    def __init__(self, nets, tiles, picture: Periodic, losses, normalize: bool, home):
        """tiles: of the extended picture. losses, normalize: see `DevicePass`. home: the picture's backend."""
        self.tiles = tiles
        self.losses = losses
        self.normalize = normalize
        self.home = home
        self.extension = picture.extension
        self.passes = [
            DevicePass(net, tiles[i :: len(nets)], picture.extended, losses, normalize, picture.shapes)
            for i, net in enumerate(nets)
        ]
        self._threads = [ThreadPoolExecutor(1) for _ in nets if len(nets) > 1]
        # Several devices read the picture at once, so they read it on the host.
        on_host = self._threads and not home.on_host
        self.accumulator = reference.Backend(home.dtype, threads=1) if on_host else home

    def computing(self):
        """A context for evaluations: with several devices, or losses that compute on the host, a thread has one thread
        for linear algebra."""
        on_host = any(loss.decides_on_host for loss in self.losses)
        return one_thread_each() if self._threads or on_host else nullcontext()

    def gradient(self, x, values):
        """The gradient of the layers' losses at x (1, 3, H, W), both of the picture's backend.

        Statistics are summed over the tiles first, then gradients. values: see `passes.Terms`.
        """
        accumulator = self.accumulator
        picture = self.extension.apply(accumulator, accumulator.receive(x))
        for each in self.passes:
            each.begin(values)
        if self.tiles[0].owned is None:
            return self.home.receive(self.passes[0].gradient(accumulator, picture, self.tiles[0]))
        if any(loss.has_statistic for loss in self.losses):
            totals = self.sum_statistics(picture)
            losses = [each.compare(total) for each, total in zip(self.passes, totals)]
            for name, value in losses[0].items():
                values[name].append(value)
        if self.normalize:
            norms = self._map(lambda each: each.sum_norms(accumulator, picture))
            for each in self.passes:
                each.terms.norms = {name: math.fsum(n[name] for n in norms) for name in norms[0]}
        gradient = accumulator.zeros(picture.shape)
        for tile, part in self._tile_gradients(picture):
            block = tiling.cut(accumulator, gradient, tile.window)
            tiling.paste(accumulator, gradient, tile.window, accumulator.add_scaled(block, 1, part))
            del block, part  # frees their memory before the next tile is computed
        return self.home.receive(self.extension.adjoint(accumulator, gradient))

    def sum_statistics(self, picture, keep: bool = True) -> list[dict]:
        """For each device, loss name → statistic, summed over the tiles of all.

        picture: of the accumulator. keep: see `DevicePass.sum_statistics`.
        """
        sums = self._map(lambda each: each.sum_statistics(self.accumulator, picture, keep))
        if len(sums) == 1:
            return sums
        names = dict.fromkeys(name for part in sums for name in part)
        backends = [{loss.name: each.backend_of(loss.layer) for loss in self.losses} for each in self.passes]
        on_host = [{n: ops[n].to_host(array) for n, array in part.items()} for ops, part in zip(backends, sums)]
        total = {name: sum(part[name] for part in on_host if name in part) for name in names}
        return [{name: ops[name].asarray(array) for name, array in total.items()} for ops in backends]

    def _tile_gradients(self, picture):
        """(tile, its gradient on the accumulator), in an order that does not depend on the threads, as sums would."""
        accumulator = self.accumulator
        jobs = [
            (each, tile)
            for row in zip_longest(*(each.tiles[::-1] for each in self.passes))
            for each, tile in zip(self.passes, row)
            if tile
        ]

        def compute(each, tile):
            return accumulator.receive(each.gradient(accumulator, picture, tile))

        if not self._threads:
            for each, tile in jobs:
                yield tile, compute(each, tile)
            return
        threads = dict(zip(self.passes, self._threads))
        futures = [(tile, threads[each].submit(compute, each, tile)) for each, tile in jobs]
        while futures:
            tile, future = futures.pop(0)
            yield tile, future.result()

    def _map(self, function):
        """[function(device pass) for each], computed at the same time."""
        if not self._threads:
            return [function(each) for each in self.passes]
        futures = [thread.submit(function, each) for thread, each in zip(self._threads, self.passes)]
        return [future.result() for future in futures]
