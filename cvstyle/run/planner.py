"""Plans: the memory, tiles and time of a run before it starts.

A device's memory comes from a dry run: a few iterations of the run itself, on a backend that counts allocations and
computes nothing. The host's memory and the times are measured: the objective is evaluated on two small pictures, and
the difference of their peaks gives the cost of a pixel. The rest is arithmetic over the sizes of the run.
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
from ..formatting import byte_size, duration
from ..graph import tiling
from ..graph.periodic import periodic
from ..losses import create
from . import dry_run
from .probes import measure
from .setup import Setup
from .styles import picture_sizes

_TILES = (4096, 3072, 2048, 1536, 1280, 1024, 768, 640, 512, 448, 384, 320, 256, 192, 128, 96, 64)
_PICTURE = 12  # bytes per pixel: three channels of float32
_PROBED = 4  # pictures of the window's size within a probe's memory: x, its gradient, content and style
_STRIPS = 3  # strips at a time: of features, of the gradient, and of the result
_USABLE = 0.9  # the share of free memory that a plan may use
_SHORT = 5  # pairs of the short L-BFGS history in advice
_LARGE = 2_000_000  # pixels above which a run is planned before it starts


@dataclass(frozen=True)
class Need:
    """The memory that a run needs in one place: "memory" (the host's) or "device N". size, free: bytes; free is None
    where unknown."""

    place: str
    size: float
    free: float | None

    @property
    def fits(self) -> bool:
        return self.free is None or self.size <= self.free


@dataclass(frozen=True)
class Plan:
    """The plan of a run. size: (height, width). tile_size: None for the whole picture at once. windows: the number of
    tiles; window: their shape. needs: one per device, in order, and last the host's, CPU backends included. seconds:
    per iteration. total: seconds of the whole run. tileable: True where the network can be computed in tiles."""

    size: tuple[int, int]
    tile_size: int | None
    windows: int
    window: tuple[int, int]
    needs: tuple[Need, ...]
    seconds: float
    total: float
    tileable: bool = True

    @property
    def fits(self) -> bool:
        """True where there is enough memory, as far as known."""
        return all(need.fits for need in self.needs)

    @property
    def memory(self) -> float:
        """Bytes of all places together."""
        return sum(need.size for need in self.needs)

    def __str__(self):
        height, width = self.size
        cut = f"{self.windows} tiles of {self.window[1]}×{self.window[0]}" if self.tile_size else "no tiles"
        *devices, host = (f"{byte_size(need.size)} of {need.place}" for need in self.needs)
        where = ", ".join([*(text.replace(" of ", " on ") for text in devices), host])
        return f"{width}×{height}, {cut}: {where}, {self.seconds:.3g} s an iteration, about {duration(self.total)}"


class Planner:
    """Plans for a setup on its backends. Construction evaluates a few small pictures."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.program = setup.program()
        self.tile_devices = setup.devices or [setup.net.ops]
        self.devices = [ops for ops in setup.devices or self.program.devices if not ops.on_host]
        self.on_host = setup.net.ops.on_host
        self._tiles: dict[tuple, list[tiling.Tile]] = {}
        self._state_pictures_of: dict[str, float] = {}
        self.costs = measure(setup, self.program, self.devices)

    def plan(self, setup: Setup | None = None) -> Plan:
        """The plan of the run, or of a setup with other tiles, optimiser and picture backend; the last scale decides.

        A tile size of "auto" becomes the largest that fits.
        """
        setup = setup or self.setup
        if setup.tile_size != "auto":
            return self._plan(setup, setup.tile_size)
        size = setup.padded_sizes[-1]
        smallest = max(self._min_tile_size(self._seen(each).extended) for each in setup.padded_sizes)
        extended = self._seen(size).extended
        longest = max(extended)
        sides = [None, *(side for side in _TILES if smallest <= side < longest)]
        sides += [smallest] if smallest < longest else []
        trials = {}

        def fits(side):
            window = self._split(size, side)[0].window.shape if side is None else tuple(min(n, side) for n in extended)
            needs = self._needs(setup, side, window)
            trials[side] = window, needs
            return all(need.fits for need in needs)

        first = bisect_left(sides, True, key=fits)  # smaller tiles never need more memory
        if first < len(sides):
            return self._plan(setup, sides[first])
        return Plan(setup.sizes[-1], sides[-1], 0, *trials[sides[-1]], math.nan, math.nan, self.tileable)

    @property
    def tileable(self) -> bool:
        """True where the network can be computed in tiles."""
        return self._min_tile_size() < math.inf

    def _min_tile_size(self, size=(2048, 2048)):
        """The smallest tile size for a picture; infinite where the network cannot be computed in tiles."""
        try:
            return tiling.min_tile_size([self.program.footprint(size, axis) for axis in (0, 1)])
        except OptionError:
            return math.inf

    def largest(self) -> int:
        """The longest side of a picture of the same proportions that fits with the network's smallest tiles."""
        setup = self.setup
        smallest = self._min_tile_size()
        longest = max(setup.sizes[-1])

        def scaled(size, side):
            return tuple(max(1, round(n * side / longest)) for n in size)

        def padded(side):
            return images.padded_size(scaled(setup.sizes[-1], side), setup.margins)

        def styles(side):
            return [scaled(size, side) for size in picture_sizes(setup, len(setup.sizes) - 1)]

        def device_bytes(side):
            size = padded(side)
            tile_size = None if smallest == math.inf else max(smallest, self._min_tile_size(self._seen(size).extended))
            return np.array(self._device_bytes(setup.changed(tile_size=tile_size), size, styles(side)), float)

        # Devices' memory is linear in the pixels: with tiles, only resident pictures grow; without, everything does.
        base_side = max(2 * smallest, longest) if smallest < math.inf else longest
        base_pixels = math.prod(padded(base_side))
        base = device_bytes(base_side)
        if smallest < math.inf:
            slope = self._resident_per_pixel(padded(base_side))
        else:
            slope = (device_bytes(2 * base_side) - base) / (math.prod(padded(2 * base_side)) - base_pixels)

        def fits(side):
            size = padded(side)
            window = tuple(min(n, smallest) for n in self._seen(size).extended)
            host = self._host_need(setup, size, window, styles(side), smallest)
            devices = self._device_needs(base + slope * (math.prod(size) - base_pixels))
            return all(need.fits for need in (*devices, host))

        low = 64
        high = 1 << 17
        while high - low > 16:
            side = (low + high) // 2
            if fits(side):
                low = side
            else:
                high = side
        return low

    def advice(self, plan: Plan) -> str:
        """The end of an error message: options with which the run would fit."""
        fitting = []
        for text, setup in self._alternatives(plan).items():
            if not any(set(text.split()) >= set(shorter.split()) for shorter in fitting):
                try:
                    if self.plan(setup).fits:
                        fitting.append(text)
                except OptionError:
                    continue
        smaller = size_option(self.setup.texture, plan.size, self.largest())
        smaller += " --tile-size auto" if plan.tileable else ""
        return " or ".join([*fitting, smaller]) + " would fit"

    def _alternatives(self, plan):
        """{"--offload disk:FOLDER": the setup with that option, ...}."""
        settings = self.setup.optimizer_settings
        short = {**settings, "history": min(settings["history"], _SHORT)} if "history" in settings else settings
        offloaded = {
            "picture_backend": backends.host(), "options": dataclasses.replace(self.setup.options, offload="disk:."),
        }  # fmt: skip
        planned, auto = (self.setup.changed(tile_size=size) for size in (plan.tile_size, "auto"))
        return {
            "--tile-size auto": auto,
            f"--lbfgs-num-correction {_SHORT}": planned.changed(optimizer_settings=short),
            f"--tile-size auto --lbfgs-num-correction {_SHORT}": auto.changed(optimizer_settings=short),
            "--offload disk:FOLDER": planned.changed(**offloaded),
            "--tile-size auto --offload disk:FOLDER": auto.changed(**offloaded),
        }

    def _plan(self, setup, tile_size):
        split = self._split(setup.padded_sizes[-1], tile_size)
        window = split[0].window.shape
        needs = self._needs(setup, tile_size, window)
        seconds = [self._seconds(size, tile_size) for size in setup.padded_sizes]
        total = sum(s * count for s, (_, count) in zip(seconds, setup.schedule))
        tile_size = (tile_size or max(window)) if len(split) > 1 else None
        return Plan(setup.sizes[-1], tile_size, len(split), window, needs, seconds[-1], total, self.tileable)

    def _split(self, size, tile_size):
        if (size, tile_size) not in self._tiles:
            self._tiles[size, tile_size] = self._seen(size).tiles(self.program, tile_size, len(self.tile_devices))
        return self._tiles[size, tile_size]

    def _seen(self, size):
        """The picture of this size as layers see it."""
        return periodic(self.program, size, self.setup.options.wrap)

    def _needs(self, setup, tile_size, window):
        """The needs of the devices and the host. window: the (height, width) computed at a time."""
        size = setup.padded_sizes[-1]
        styles = picture_sizes(setup, len(setup.sizes) - 1)
        reserved = self._device_bytes(setup.changed(tile_size=tile_size), size, styles)
        side = max(window) if tile_size is None and window != self._seen(size).extended else tile_size
        host = self._host_need(setup, size, window, styles, side or math.inf)
        return (*self._device_needs(reserved), host)

    def _device_needs(self, reserved):
        names = [f"device {number}" if len(reserved) > 1 else "device" for number in range(len(reserved))]
        return map(Need, names, reserved, (_USABLE * ops.device.memory for ops in self.devices))

    def _device_bytes(self, setup, size, styles):
        """Bytes reserved on each device."""
        if not self.devices:
            return []
        reserved, computed = dry_run.device_memory(_with_most_memory(setup), self.devices, size, styles)
        if setup.picture_backend is not setup.net.ops:
            return reserved
        return [n + rest for n, rest in zip(reserved, self._content_bytes(size, computed)[:-1], strict=True)]

    def _host_need(self, setup, size, window, styles, side):
        """The host's need. side: the longest side of a style that is computed at a time.

        Style targets are measured before a scale's first iteration, when the optimiser has no state yet.
        """
        strip = self._strip_bytes(window) if window != tuple(size) else 0
        style_pixels = [math.prod(style) for style in styles]
        largest = max([math.prod(window), *(math.prod(min(n, side) for n in style) for style in styles)])
        picture = _PICTURE * math.prod(size)
        extended = _PICTURE * math.prod(self._seen(size).extended) if setup.options.wrap else 0
        optimizer = _optimizer_memory(setup).host
        *device_targets, host_targets = self._content_bytes(size)
        workers = len(self.tile_devices) if self.on_host else 1
        iterating = self.costs.baseline + workers * (self.costs.host_cost(math.prod(window)) + _STRIPS * strip)
        # The content twice, all styles at once, and the style being read a second time.
        measuring = 2 * picture + extended + _PICTURE * (sum(style_pixels) + max(style_pixels, default=0))
        measuring += self.costs.baseline + self.costs.target_cost(largest) + strip + host_targets
        if setup.options.offload:
            iterating += 2 * picture  # mapped files need only the pages in use
        elif self.on_host or setup.picture_backend is not setup.net.ops:
            iterating += (self._state_pictures(setup) + 2 + optimizer) * picture + host_targets + sum(device_targets)
            iterating += 2 * extended  # and its gradient
            # The window's measured cost includes pictures of its size.
            iterating -= _PROBED * _PICTURE * math.prod(window) if self.on_host else 0
        else:
            iterating += optimizer * picture
            # Devices that share the tiles read the picture from the host and add their gradients up there.
            iterating += (3 if len(self.tile_devices) == 1 else 6) * picture + host_targets
            iterating += 2 * extended if len(self.tile_devices) > 1 else 0
        needed = max(iterating, measuring, setup.reading_peak)
        return Need("memory", needed, (usable := process.usable()) and _USABLE * usable)

    def _state_pictures(self, setup):
        """The memory of a run's state on the picture backend, in pictures."""
        key = repr(setup.optimizer_settings.get("history"))
        if key not in self._state_pictures_of:
            pictures = dry_run.state_pictures(_with_most_memory(setup), setup.picture_backend.asynchronous)
            pictures += _optimizer_memory(setup).state
            pictures -= _optimizer_memory(setup, np.dtype(np.float32).itemsize).state  # in the dry run
            self._state_pictures_of[key] = pictures
        return self._state_pictures_of[key]

    def _resident_per_pixel(self, size):
        """Bytes per pixel that remain on each device from tile to tile of a large picture."""
        setup = self.setup
        if setup.picture_backend is not setup.net.ops:
            return np.zeros(len(self.devices))
        resident = np.array(self._content_bytes(size)[:-1]) / math.prod(size)
        if not self.on_host:
            # The gradient is on the host where several devices share the tiles.
            resident[0] += _PICTURE * (self._state_pictures(setup) - (len(self.tile_devices) > 1))
        return resident

    def _strip_bytes(self, window):
        """Bytes of the largest strip that is cut out of a window's map."""
        return 4 * min(tiling.STRIP, max(map(math.prod, self.program.shapes(window).values())))

    def _content_bytes(self, size, excluded=()):
        """Bytes of the content targets on each device and, last, on the host. excluded: tiles that do not count."""
        shapes = self._seen(size).shapes
        totals = dict.fromkeys(self.devices, 0)
        for loss in create(self.setup.loss_settings):
            if loss.target_from != "content":
                continue
            if loss.layer is None:
                ops = self.setup.picture_backend
                totals[ops] = totals.get(ops, 0) + 4 * loss.content_values((3, *size))
                continue
            positions = math.prod(shapes[loss.layer][2:])
            done = sum(math.prod(tile.owned[loss.layer].shape) if tile.owned else positions for tile in excluded)
            holders = self.tile_devices if len(self.tile_devices) > 1 else [self.program.backend_of(loss.layer)]
            for ops in holders:
                totals[ops] = totals.get(ops, 0) + 4 * shapes[loss.layer][1] * (positions - done) / len(holders)
        return [*(totals[ops] for ops in self.devices), sum(n for ops, n in totals.items() if ops not in self.devices)]

    def _seconds(self, size, tile_size):
        split = self._split(size, tile_size)
        per_device = -(-len(split) // len(self.tile_devices))
        return self.costs.seconds * math.prod(split[0].window.shape) * tiling.relative_cost(per_device)


def _optimizer_memory(setup, itemsize=None):
    """The optimiser's memory at the scale with the most, in pictures of the last scale."""
    count = _with_most_memory(setup).schedule[-1][1]
    itemsize = itemsize or setup.picture_backend.history_itemsize
    return setup.optimizer.memory(count, itemsize, **setup.optimizer_settings)


def size_option(texture: bool, size: tuple[int, int], longest: int) -> str:
    """The option that makes a picture with the proportions of (height, width) `size` so many pixels long."""
    height, width = images.target_size(*size, longest)
    return f"--size {width}x{height}" if texture else f"--image-size {longest}"


def plan_if_large(setup: Setup, planned: Callable[[Plan], None] | None = None) -> None:
    """Plan runs of large pictures or automatic tiles, set the setup's tile size, and call planned(plan).

    Raises OptionError for a run that does not fit, with options that would fit.
    """
    last = len(setup.sizes) - 1
    largest = max(map(math.prod, [setup.padded_sizes[last], *picture_sizes(setup, last)]))
    if setup.tile_size != "auto" and largest < _LARGE:
        return
    planner = Planner(setup)
    plan = planner.plan()
    if not plan.fits:
        need = next(need for need in plan.needs if not need.fits)
        where = "memory" if need.place == "memory" else f"the memory of {need.place}"
        height, width = plan.size
        raise OptionError(
            f"a picture of {width}×{height} needs about {byte_size(need.size)} of {where} and {byte_size(need.free)} "
            f"can be used; {planner.advice(plan)}"
        )
    setup.tile_size = plan.tile_size if setup.tile_size == "auto" else setup.tile_size
    if planned:
        planned(plan)


def _with_most_memory(setup):
    """The setup with enough iterations at the last scale for the optimiser's largest memory at any scale."""
    itemsize = setup.picture_backend.history_itemsize
    pixels = list(map(math.prod, setup.padded_sizes))

    def pictures(count):
        return setup.optimizer.memory(count, itemsize, **setup.optimizer_settings).state

    largest = max(pictures(count) * n for (_, count), n in zip(setup.schedule, pixels)) / pixels[-1]
    side, count = setup.schedule[-1]
    most = max(count for _, count in setup.schedule)
    count = next((n for n in range(count, most) if pictures(n) >= largest), most)
    return setup.changed(schedule=[*setup.schedule[:-1], (side, count)])
