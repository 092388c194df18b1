"""What a run will need, before it starts: memory, tiles, time.

A device's memory is known by a dry run: a few iterations of the run itself, on a backend that computes nothing and
counts what is allocated. Of the host's memory and of times nothing is assumed: the objective is evaluated on two small
pictures, and what their peaks differ by is what a pixel costs. The rest is arithmetic over the sizes of the run.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import backends, images, process
from ..errors import OptionError
from ..graph import tiling
from ..losses import made
from ..words import duration, gigabytes
from . import dry_run
from .probes import measure
from .setup import Setup

_TILES = (4096, 3072, 2048, 1536, 1280, 1024, 768, 640, 512, 448, 384, 320, 256, 192, 128, 96, 64)
_PICTURE = 12  # bytes per pixel: three channels of float32
_PROBED = 4  # pictures that a window was measured to take, of its own size: x, its gradient, content and style
_STRIPS = 3  # of features, of the gradient, and what comes of them
_SPARE = 0.9  # of what is free is planned for
_SHORT = 5  # pairs of an L-BFGS history that is advised
_LARGE = 2_000_000  # pixels from which a plan is made without being asked for


@dataclass(frozen=True)
class Need:
    """place: "memory" (the host's) or "device N". size, free: bytes; free is None where nobody knows."""

    place: str
    size: float
    free: float | None

    @property
    def fits(self) -> bool:
        return self.free is None or self.size <= self.free


@dataclass(frozen=True)
class Plan:
    """size: (height, width). tile_size: None for the whole picture at once. windows: number of tiles; window: their
    shape. needs: of every device beside the host, in their order, and of the host, where CPU backends compute as well.
    seconds: of an iteration. total: of the whole run."""

    size: tuple[int, int]
    tile_size: int | None
    windows: int
    window: tuple[int, int]
    needs: tuple[Need, ...]
    seconds: float
    total: float

    @property
    def fits(self) -> bool:
        """Whether there is enough memory, as far as that is known."""
        return all(need.fits for need in self.needs)

    @property
    def memory(self) -> float:
        """Bytes in all places together."""
        return sum(need.size for need in self.needs)

    def __str__(self):
        height, width = self.size
        cut = f"{self.windows} tiles of {self.window[1]}×{self.window[0]}" if self.tile_size else "no tiles"
        *devices, host = (f"{gigabytes(need.size)} of {need.place}" for need in self.needs)
        where = ", ".join([*(text.replace(" of ", " on ") for text in devices), host])
        return f"{width}×{height}, {cut}: {where}, {self.seconds:.3g} s an iteration, about {duration(self.total)}"


class Planner:
    """Plans for a setup on its backends. Making one takes a few evaluations of small pictures."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.program = setup.program()
        self.sharing = setup.devices or [setup.net.ops]
        self.devices = [ops for ops in setup.devices or self.program.devices if not ops.on_host]
        self.on_host = setup.net.ops.on_host
        self._cuts: dict[tuple, list[tiling.Tile]] = {}
        self._pictures_kept: dict[str, float] = {}
        self.costs = measure(setup, self.program, self.devices)

    def plan(self, setup: Setup | None = None) -> Plan:
        """The plan of the run, or of a setup that differs in tiles, optimiser and home; the last scale decides.

        A tile size of "auto" becomes the largest that fits.
        """
        setup = setup or self.setup
        if setup.tile_size != "auto":
            return self._plan(setup, setup.tile_size)
        size, least = setup.padded_sizes[-1], max(map(self._least, setup.padded_sizes))
        most = max(size)
        sides = [None, *(t for t in _TILES if t < most and t >= least), *([least] if least < most else [])]
        found = {}

        def fits(side):
            window = self._cut(size, side)[0].window.shape if side is None else tuple(min(n, side) for n in size)
            found[side] = window, self._needs(setup, side, window)
            return all(need.fits for need in found[side][1])

        first = bisect_left(sides, True, key=fits)  # smaller tiles never need more
        if first < len(sides):
            return self._plan(setup, sides[first])
        return Plan(images.widened(size, -setup.margin), sides[-1], 0, *found[sides[-1]], math.nan, math.nan)

    @property
    def tiled(self) -> bool:
        """Whether the network can be computed in tiles."""
        return self._least() < math.inf

    def _least(self, size=(2048, 2048)):
        """The least tile size for a picture; infinite where the network cannot be computed in tiles."""
        try:
            return tiling.min_tile_size([self.program.footprint(size, axis) for axis in (0, 1)])
        except OptionError:
            return math.inf

    def largest(self) -> int:
        """The longest side of a picture of this shape that fits with the smallest tiles that the network allows."""
        setup, least = self.setup, self._least()
        size, all_styles = setup.sizes[-1], setup.style_sizes(len(setup.sizes) - 1)

        def scaled(side, sizes):
            return [tuple(max(1, round(n * side / max(size))) for n in each) for each in sizes]

        def widened(side):
            return images.widened(*scaled(side, [size]), setup.margin)

        def on_devices(side):
            at = widened(side)
            tile_size = None if least == math.inf else max(least, self._least(at))
            return np.array(self._on_devices(setup.changed(tile_size=tile_size), at, scaled(side, all_styles)), float)

        # What devices need grows by so much for each pixel: of what is kept, or of all where there can be no tiles.
        known = max(2 * least, max(size)) if least < math.inf else max(size)
        pixels, needed = math.prod(widened(known)), on_devices(known)
        if least < math.inf:
            more = self._kept_per_pixel(widened(known))
        else:
            more = (on_devices(2 * known) - needed) / (math.prod(widened(2 * known)) - pixels)
        low, high = 64, 1 << 17
        while high - low > 16:
            side = (low + high) // 2
            at = widened(side)
            window = tuple(min(n, least) for n in at)
            host = self._host_need(setup, at, window, scaled(side, all_styles), least)
            devices = self._device_needs(needed + more * (math.prod(at) - pixels))
            low, high = (side, high) if all(need.fits for need in (*devices, host)) else (low, side)
        return low

    def advice(self, plan: Plan) -> str:
        """The options with which a run that does not fit would, for the end of an error message."""
        good = []
        for text, setup in self._alternatives(plan).items():
            if not any(set(text.split()) >= set(known.split()) for known in good):
                try:
                    if self.plan(setup).fits:
                        good.append(text)
                except OptionError:
                    continue
        smaller = f"--image-size {self.largest()}" + (" --tile-size auto" if self.tiled else "")
        return " or ".join([*good, smaller]) + " would fit"

    def _alternatives(self, plan):
        """{"--offload FOLDER": the setup with that option, ...}."""
        settings = self.setup.optimizer_settings
        short = {**settings, "history": min(settings["history"], _SHORT)} if "history" in settings else settings
        files = {"home": backends.host(), "options": dataclasses.replace(self.setup.options, offload=".")}
        cut, auto = (self.setup.changed(tile_size=size) for size in (plan.tile_size, "auto"))
        return {
            "--tile-size auto": auto,
            f"--lbfgs-num-correction {_SHORT}": cut.changed(optimizer_settings=short),
            f"--tile-size auto --lbfgs-num-correction {_SHORT}": auto.changed(optimizer_settings=short),
            "--offload FOLDER": cut.changed(**files),
            "--tile-size auto --offload FOLDER": auto.changed(**files),
        }

    def _plan(self, setup, tile_size):
        size = setup.padded_sizes[-1]
        cut = self._cut(size, tile_size)
        window = cut[0].window.shape
        needs = self._needs(setup, tile_size, window)
        seconds = [self._seconds(s, tile_size) for s in setup.padded_sizes]
        total = sum(s * count for s, (_, count) in zip(seconds, setup.schedule))
        tile_size = (tile_size or max(window)) if len(cut) > 1 else None
        return Plan(setup.sizes[-1], tile_size, len(cut), window, needs, seconds[-1], total)

    def _cut(self, size, tile_size):
        if (size, tile_size) not in self._cuts:
            self._cuts[size, tile_size] = tiling.split(self.program, size, tile_size, len(self.sharing))
        return self._cuts[size, tile_size]

    def _needs(self, setup, tile_size, window):
        """What is needed of every device and of the host. window: what is computed at a time."""
        size, styles = setup.padded_sizes[-1], setup.style_sizes(len(setup.sizes) - 1)
        taken = self._on_devices(setup.changed(tile_size=tile_size), size, styles)
        side = max(window) if tile_size is None and window != tuple(size) else tile_size
        host = self._host_need(setup, size, window, styles, side or math.inf)
        return (*self._device_needs(taken), host)

    def _device_needs(self, taken):
        names = [f"device {number}" if len(taken) > 1 else "device" for number in range(len(taken))]
        return map(Need, names, taken, (_SPARE * ops.device.memory for ops in self.devices))

    def _on_devices(self, setup, size, styles):
        """Bytes that every device is asked for."""
        if not self.devices:
            return []
        taken, computed = dry_run.device_memory(_deciding(setup), self.devices, size, styles)
        if setup.home is not setup.net.ops:
            return taken
        return [n + more for n, more in zip(taken, self._content_bytes(size, computed)[:-1], strict=True)]

    def _host_need(self, setup, size, window, styles, side):
        """side: the most that is computed of a style at a time.

        The styles' targets are computed before a scale's first iteration, where the optimiser has nothing yet.
        """
        strip = self._strip(window) if window != tuple(size) else 0
        wholes = [math.prod(style) for style in styles]
        first = max([math.prod(window), *(math.prod(min(n, side) for n in style) for style in styles)])
        picture = _PICTURE * math.prod(size)
        scipy = self._kept(setup).host
        *features, hosted = self._content_bytes(size)
        workers = len(self.sharing) if self.on_host else 1
        host = self.costs.base + workers * (self.costs.host(math.prod(window)) + _STRIPS * strip)
        # The content twice, all styles at once, and once more the one that is read.
        before = 2 * picture + _PICTURE * (sum(wholes) + max(wholes, default=0))
        before += self.costs.base + self.costs.host_before(first) + strip + hosted
        if setup.options.offload:
            host += 2 * picture  # files need none, but for what comes and goes
        elif self.on_host or setup.home is not setup.net.ops:
            # What a window was measured to take had four pictures of its own size.
            host += (self._pictures(setup) + 2 + scipy) * picture + hosted + sum(features)
            host -= _PROBED * _PICTURE * math.prod(window) if self.on_host else 0
        else:
            host += scipy * picture
            # Several devices that share the tiles read the picture from the host and add the gradients up there.
            host += (3 if len(self.sharing) == 1 else 6) * picture + hosted
        return Need("memory", max(host, before), (usable := process.usable()) and _SPARE * usable)

    @staticmethod
    def _kept(setup, itemsize=None):
        """What the optimiser keeps, in pictures of the last scale, where it keeps most."""
        count = _deciding(setup).schedule[-1][1]
        return setup.optimizer.kept(count, itemsize or setup.home.history_itemsize, **setup.optimizer_settings)

    def _pictures(self, setup):
        """What a run keeps where the picture is, in pictures."""
        key = repr(setup.optimizer_settings.get("history"))
        if key not in self._pictures_kept:
            found = dry_run.pictures_kept(_deciding(setup), setup.home.asynchronous)
            itemsize = np.dtype(np.float32).itemsize  # of the history in the dry run
            self._pictures_kept[key] = found + self._kept(setup).state - self._kept(setup, itemsize).state
        return self._pictures_kept[key]

    def _kept_per_pixel(self, size):
        """Bytes per pixel that stay on every device while tiles of a large picture come and go."""
        setup = self.setup
        if setup.home is not setup.net.ops:
            return np.zeros(len(self.devices))
        kept = np.array(self._content_bytes(size)[:-1]) / math.prod(size)
        if not self.on_host:
            # The gradient is on the host where several devices share the tiles.
            kept[0] += _PICTURE * (self._pictures(setup) - (len(self.sharing) > 1))
        return kept

    def _strip(self, window):
        """Bytes of what a window cuts out of its largest map at a time."""
        return 4 * min(tiling.STRIP, max(map(math.prod, self.program.shapes(window).values())))

    def _content_bytes(self, size, but=()):
        """Bytes of what losses keep of the content on every device, and at last on the host; without some tiles'."""
        shapes, found = self.program.shapes(size), dict.fromkeys(self.devices, 0)
        for loss in made(self.setup.loss_settings):
            if loss.target_from != "content" or loss.layer is None:
                continue
            positions = math.prod(shapes[loss.layer][2:])
            done = sum(math.prod(tile.owned[loss.layer].shape) if tile.owned else positions for tile in but)
            holders = self.sharing if len(self.sharing) > 1 else [self.program.backend_of(loss.layer)]
            for ops in holders:
                found[ops] = found.get(ops, 0) + 4 * shapes[loss.layer][1] * (positions - done) / len(holders)
        return [*(found[ops] for ops in self.devices), sum(n for ops, n in found.items() if ops not in self.devices)]

    def _seconds(self, size, tile_size):
        cut = self._cut(size, tile_size)
        relative_cost = tiling.relative_cost(-(-len(cut) // len(self.sharing)))
        return self.costs.seconds * math.prod(cut[0].window.shape) * relative_cost


def plan_where_worth_it(setup: Setup, planned: Callable[[Plan], None] | None = None) -> None:
    """Plan large pictures and automatic tiles, whose size the setup then has. planned is called with the plan.

    Raises OptionError for a run that does not fit, naming options that would.
    """
    last = len(setup.sizes) - 1
    largest = max(map(math.prod, [setup.padded_sizes[last], *setup.style_sizes(last)]))
    if setup.tile_size != "auto" and largest < _LARGE:
        return
    planner = Planner(setup)
    plan = planner.plan()
    if not plan.fits:
        need = next(need for need in plan.needs if not need.fits)
        where = "memory" if need.place == "memory" else f"the memory of {need.place}"
        height, width = plan.size
        raise OptionError(
            f"a picture of {width}×{height} needs about {gigabytes(need.size)} of {where} and {gigabytes(need.free)} "
            f"can be used; {planner.advice(plan)}"
        )
    setup.tile_size = plan.tile_size if setup.tile_size == "auto" else setup.tile_size
    if planned:
        planned(plan)


def _deciding(setup):
    """The setup with so many iterations at its last scale that the optimiser keeps as much as at any scale."""
    pixels = list(map(math.prod, setup.padded_sizes))

    def kept(count):
        return setup.optimizer.kept(count, setup.home.history_itemsize, **setup.optimizer_settings).state

    needed = max(kept(count) * n for (_, count), n in zip(setup.schedule, pixels)) / pixels[-1]
    longest, count = setup.schedule[-1]
    most = max(count for _, count in setup.schedule)
    count = next((n for n in range(count, most) if kept(n) >= needed), most)
    return setup.changed(schedule=[*setup.schedule[:-1], (longest, count)])
