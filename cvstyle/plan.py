"""What a run will need, before it starts: memory, tiles, time.

A device's memory is known by rehearsal: a few iterations of the run itself, on a backend that computes nothing and
counts what is allocated. Of the host's memory and of times nothing is assumed: the objective is evaluated on two small
pictures, and what their peaks differ by is what a pixel costs. The rest is arithmetic over the sizes of the run.
"""

from __future__ import annotations

import gc
import math
import time
from bisect import bisect_left
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import images, optimize, tiles
from .backends import is_host, memory
from .backends.device.rehearsal import Rehearsal
from .errors import OptionError
from .losses import parse_layer
from .objective import Objective
from .optimize import pyramid

_PROBES = (192, 384)  # sides of the small pictures
_TILES = (4096, 3072, 2048, 1536, 1280, 1024, 768, 640, 512, 448, 384, 320, 256, 192, 128, 96, 64)
_PICTURE = 12  # bytes per pixel: three channels of float32
_COPIES = 2  # the last two good pictures
_PROBED = 4  # pictures that a window was measured to take, of its own size: x, its gradient, content and style
_LATEST = 3  # pictures: the last two good ones, and the one whose losses are on their way
_STRIPS = 3  # of features, of the gradient, and what comes of them
_REHEARSED, _ITERATIONS = 16, 3  # tiles for each device, and how often: what is asked for repeats itself
_SPARE = 0.9  # of what is free is planned for


@dataclass(frozen=True)
class Cost:
    """What a window was measured to cost on a backend: bytes in any case, and bytes per pixel."""

    fixed: float
    per_pixel: float

    def __call__(self, pixels: float) -> float:
        return self.fixed + self.per_pixel * pixels


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
        *devices, host = (f"{_gb(need.size)} of {need.place}" for need in self.needs)
        where = ", ".join([*(text.replace(" of ", " on ") for text in devices), host])
        return f"{width}×{height}, {cut}: {where}, {self.seconds:.3g} s an iteration, about {duration(self.total)}"


class Planner:
    """Plans for one network on its backend or backends. Making one takes a few evaluations of small pictures.

    settings: weights, layers and the like, as `Objective` takes them. styles: (height, width) of the style pictures at
    the last scale. sharing: the backends that share the tiles, of one kind, if there are several. averages: pictures
    that averaging iterates keeps. chosen: what else the optimiser is given. margin: pixels that are
    computed around a picture, beside its own size.
    """

    def __init__(
        self, net, settings: dict, styles=(), sharing=None, averages: int = 0, chosen: dict | None = None,
        margin: int = 0,
    ):  # fmt: skip
        self.net, self.settings, self.styles = net.with_pooling(settings.get("pooling", "max")), settings, styles
        self.chosen, self.margin, self.averages = chosen or {}, margin, averages
        self.more = averages + (pyramid.PICTURES if self.chosen.get("smooth") else 0)  # pictures beside the usual ones
        names = [n for kind in ("content_layers", "style_layers") for n in settings[kind]]
        self.program = self.net.program(dict.fromkeys(parse_layer(n)[0] for n in names))
        self.sharing = sharing or [net.ops]
        self.devices = [ops for ops in sharing or self.program.devices if not is_host(ops.name)]
        self.on_host = is_host(net.ops.name)
        self._known: dict[tuple, list[tiles.Tile]] = {}
        self._measure()

    def plan(self, stages, sizes, tile_size, optimizer, history, offload=None) -> Plan:
        """The plan of a run; the last scale decides what it needs.

        stages: (longest side, iterations) of each scale; sizes: (height, width) of each. tile_size: a number, None or
        "auto": the largest that fits. history: pairs of L-BFGS, of the last scale's size.
        """
        sizes = [images.widened(size, self.margin) for size in sizes]
        if tile_size != "auto":
            return self._plan(stages, sizes, tile_size, optimizer, history, offload)
        size, least = sizes[-1], max(map(self._least, sizes))
        most = max(size)
        sides = [None, *(t for t in _TILES if t < most and t >= least), *([least] if least < most else [])]
        found = {}

        def fits(side):
            window = self._cut(size, side)[0].window.shape if side is None else tuple(min(n, side) for n in size)
            found[side] = window, self._needs(size, side, window, optimizer, history, offload)
            return all(need.fits for need in found[side][1])

        first = bisect_left(sides, True, key=fits)  # smaller tiles never need more
        if first < len(sides):
            return self._plan(stages, sizes, sides[first], optimizer, history, offload)
        return Plan(images.widened(size, -self.margin), sides[-1], 0, *found[sides[-1]], math.nan, math.nan)

    @property
    def tiled(self) -> bool:
        """Whether the network can be computed in tiles."""
        return self._least() < math.inf

    def _least(self, size=(2048, 2048)):
        """The least tile size for a picture; infinite where the network cannot be computed in tiles."""
        try:
            return tiles.least([self.program.reach(size, axis) for axis in (0, 1)])
        except OptionError:
            return math.inf

    def largest(self, size, optimizer, history, offload=None) -> int:
        """The longest side of a picture of this shape that fits with the smallest tiles that the network allows."""
        least = self._least()

        def scaled(side, sizes):
            return [tuple(max(1, round(n * side / max(size))) for n in each) for each in sizes]

        def widened(side):
            return images.widened(*scaled(side, [size]), self.margin)

        def on_devices(side):
            at = widened(side)
            tile_size = None if least == math.inf else max(least, self._least(at))
            return np.array(self._rehearse(at, tile_size, scaled(side, self.styles), *rest), float)

        rest = optimizer, history, offload
        # What devices need grows by so much for each pixel: of what is kept, or of all where there can be no tiles.
        known = max(2 * least, max(size)) if least < math.inf else max(size)
        pixels, needed = math.prod(widened(known)), on_devices(known)
        if least < math.inf:
            more = self._kept(widened(known), *rest)
        else:
            more = (on_devices(2 * known) - needed) / (math.prod(widened(2 * known)) - pixels)
        low, high = 64, 1 << 17
        while high - low > 16:
            side = (low + high) // 2
            at, styles = widened(side), scaled(side, self.styles)
            window = tuple(min(n, least) for n in at)
            host = self._host_need(at, window, styles, least, *rest)
            devices = self._device_needs(needed + more * (math.prod(at) - pixels))
            low, high = (side, high) if all(need.fits for need in (*devices, host)) else (low, side)
        return low

    def _plan(self, stages, sizes, tile_size, optimizer, history, offload):
        size = sizes[-1]
        cut = self._cut(size, tile_size)
        window = cut[0].window.shape
        needs = self._needs(size, tile_size, window, optimizer, history, offload)
        seconds = [self._seconds(s, tile_size) for s in sizes]
        total = sum(s * count for s, (_, count) in zip(seconds, stages))
        size, tile_size = images.widened(size, -self.margin), (tile_size or max(window)) if len(cut) > 1 else None
        return Plan(size, tile_size, len(cut), window, needs, seconds[-1], total)

    def _cut(self, size, tile_size):
        if (size, tile_size) not in self._known:
            self._known[size, tile_size] = tiles.split(self.program, size, tile_size, len(self.sharing))
        return self._known[size, tile_size]

    def _needs(self, size, tile_size, window, optimizer, history, offload):
        """What is needed of every device and of the host. window: what is computed at a time."""
        taken = self._rehearse(size, tile_size, self.styles, optimizer, history, offload)
        side = max(window) if tile_size is None and window != tuple(size) else tile_size
        host = self._host_need(size, window, self.styles, side or math.inf, optimizer, history, offload)
        return (*self._device_needs(taken), host)

    def _device_needs(self, taken):
        names = [f"device {number}" if len(taken) > 1 else "device" for number in range(len(taken))]
        return map(Need, names, taken, (_SPARE * ops.device.memory for ops in self.devices))

    def _host_need(self, size, window, styles, side, optimizer, history, offload):
        """side: the most that is computed of a style at a time.

        The styles' targets are computed before a scale's first iteration, where the optimiser has nothing yet.
        """
        strip = self._strip(window) if window != tuple(size) else 0
        wholes = [math.prod(style) for style in styles]
        first = max([math.prod(window), *(math.prod(min(n, side) for n in style) for style in styles)])
        picture, held = _PICTURE * math.prod(size), self._held(optimizer, history)
        scipy = 4 * history + 30 if optimizer == "lbfgsb" else 0  # in pictures; it computes in float64, on the host
        *features, hosted = self._features(size)
        workers = len(self.sharing) if self.on_host else 1
        host = self.base + workers * (self.host(math.prod(window)) + _STRIPS * strip)
        # The content twice, all styles at once, and once more the one that is read.
        before = 2 * picture + _PICTURE * (sum(wholes) + max(wholes, default=0))
        before += self.base + self.host_before(first) + strip + hosted
        if offload:
            host += 2 * picture  # files need none, but for what comes and goes
        elif self.on_host or offload is not None:
            host += (_COPIES + held + scipy + self.more) * picture + hosted + sum(features)
            host += _PROBED * (picture - (_PICTURE * math.prod(window) if self.on_host else 0))
        else:
            host += scipy * picture
            # Several devices that share the tiles read the picture from the host and add the gradients up there.
            host += (3 if len(self.sharing) == 1 else 6) * picture + hosted
        return Need("memory", max(host, before), self._free_host())

    def _held(self, optimizer, history):
        """What an optimiser keeps, in pictures, and L-BFGS's step, which it has beside its pairs."""
        return optimizer_pictures(optimizer, history, self.net.ops.history_itemsize) + (optimizer == "lbfgs")

    def _kept(self, size, optimizer, history, offload):
        """Bytes per pixel that stay on every device while tiles of a large picture come and go."""
        if offload is not None:
            return np.zeros(len(self.devices))
        kept = np.array(self._features(size)[:-1]) / math.prod(size)
        if not self.on_host:
            summed = 2 if len(self.sharing) == 1 else 1  # the picture, and the gradient unless it is on the host
            kept[0] += _PICTURE * (_LATEST + summed + self._held(optimizer, history) + self.more)
        return kept

    def _rehearse(self, size, tile_size, styles, optimizer, history, offload):
        """Bytes that every device is asked for, by a few iterations of which nothing is computed, over the first tiles
        of many."""
        if not self.devices:
            return []
        gc.collect()
        used = {self.net.ops, *self.sharing, *self.program.devices}
        backends = {ops: Rehearsal(self.devices[0] if is_host(ops.name) else ops) for ops in used}
        sharing = [backends[ops] for ops in self.sharing]
        content = np.zeros((3, *size), np.float32)  # memory that is not touched is not taken
        objective = Objective(
            self.net.mapped(backends.get), content, [np.zeros((3, *style), np.float32) for style in styles],
            **self.settings, tile_size=tile_size, devices=sharing if len(sharing) > 1 else None,
            home=None if offload is None else Rehearsal(self.devices[0]), most_tiles=_REHEARSED * len(sharing),
        )  # fmt: skip
        ops = objective.ops
        x = ops.asarray(content[None])
        copies = deque(ops.copy(x) for _ in range(1 + self.averages))

        def after(_, x):
            if len(copies) == _LATEST + self.averages:
                copies.popleft()
            objective.read_losses()()
            copies.append(ops.copy(x))

        module, settings = optimize.get(optimizer), self.chosen
        if optimizer == "lbfgsb":  # its own arrays are the host's
            for _ in range(_ITERATIONS):
                objective.evaluate(x)
        else:
            pairs = [math.ceil(history)] if optimizer == "lbfgs" else []
            settings = {**settings, "state": module.init(ops, x, *pairs)}
            optimize.minimize(optimizer, objective, x, _ITERATIONS, after, **settings)
        more = [0] * len(self.devices) if offload is not None else self._features(size, objective.tiles)[:-1]
        return [backends[ops].taken + rest for ops, rest in zip(self.devices, more, strict=True)]

    def _strip(self, window):
        """Bytes of what a window cuts out of its largest map at a time."""
        return 4 * min(tiles.STRIP, max(map(math.prod, self.program.shapes(window).values())))

    def _features(self, size, but=()):
        """Bytes of the content's features on every device, and at last on the host; those of some tiles left out."""
        shapes, found = self.program.shapes(size), dict.fromkeys(self.devices, 0)
        for entry in self.settings["content_layers"]:
            name = parse_layer(entry)[0]
            positions = math.prod(shapes[name][2:])
            done = sum(math.prod(tile.owned[name].shape) if tile.owned else positions for tile in but)
            holders = self.sharing if len(self.sharing) > 1 else [self.program.ops_of(name)]
            for ops in holders:
                found[ops] = found.get(ops, 0) + 4 * shapes[name][1] * (positions - done) / len(holders)
        return [*(found[ops] for ops in self.devices), sum(n for ops, n in found.items() if ops not in self.devices)]

    def _seconds(self, size, tile_size):
        cut = self._cut(size, tile_size)
        return self.seconds * math.prod(cut[0].window.shape) * tiles.passes(-(-len(cut) // len(self.sharing)))

    def _free_host(self):
        free = [n for n in (memory.available(), _address_space()) if n is not None]
        return _SPARE * (min(free) + resident()) if free else None

    def _measure(self):
        """Find out what a window costs: `host` bytes of the host's memory, `host_before` for the targets, and `base` in
        any case; `seconds` a pixel. Of devices that share the tiles the first one is measured."""
        peaks, before, seconds, base = [], [], [], resident()
        tuned = [ops for ops in self.devices if ops.autotune]
        for ops in tuned:
            ops.autotune = False  # these shapes do not come again
        hosts = any(is_host(ops.name) for ops in self.program.devices)
        # The first packs filters, which it need not do again; of the host's memory a line is found from two sizes.
        for side in (_PROBES[0], *_PROBES) if hosts else _PROBES[1:]:
            gc.collect()
            for ops in self.program.devices:
                ops.trim()
            reset_peak()
            pictures = np.random.default_rng(0).uniform(-100, 100, (2, 3, side, side)).astype(np.float32)
            objective = Objective(self.net, pictures[0], [pictures[1]], **self.settings)
            before.append(peak() - base)
            reset_peak()
            x = self.net.ops.asarray(pictures[:1])
            for _ in range(2):
                begin = time.perf_counter()
                objective.evaluate(x)
                float(objective.loss)
                taken = time.perf_counter() - begin
            seconds.append(taken)
            peaks.append(peak() - base)
            del objective, x, pictures
        for ops in self.program.devices:
            ops.trim()
        for ops in tuned:
            ops.autotune = True
        self.seconds = seconds[-1] / _PROBES[1] ** 2
        self.host, self.host_before, self.base = Cost(0, 0), Cost(0, 0), resident()
        if hosts:
            self.host, self.host_before, self.base = _line(*peaks[1:]), _line(*before[1:]), base


def optimizer_pictures(optimizer: str, history: float, itemsize: int) -> float:
    """What an optimiser keeps on the backend of the picture, in pictures.

    history: pairs of L-BFGS; itemsize: bytes of a value in them.
    """
    return {"lbfgs": (2 * history + 2) * itemsize / 4, "lbfgsb": 0, "adam": 2}[optimizer]


def _line(small, large):
    """The cost of a window from what two windows cost."""
    per_pixel = max(0.0, (large - small) / (_PROBES[1] ** 2 - _PROBES[0] ** 2))
    return Cost(max(0.0, large - per_pixel * _PROBES[1] ** 2), per_pixel)


def _advice(planner, plan, arguments):
    """The options with which a run that does not fit would, for the end of an error message."""
    stages, sizes, _, optimizer, history, offload = arguments
    tries = {
        "--tile-size auto": ("auto", optimizer, history, offload),
        "--lbfgs-num-correction 5": (plan.tile_size, optimizer, min(history, 5), offload),
        "--tile-size auto --lbfgs-num-correction 5": ("auto", optimizer, min(history, 5), offload),
        "--offload FOLDER": (plan.tile_size, optimizer, history, "FOLDER"),
        "--tile-size auto --offload FOLDER": ("auto", optimizer, history, "FOLDER"),
    }
    good = []
    for text, (tile_size, *rest) in tries.items():
        if not any(set(text.split()) >= set(known.split()) for known in good):
            try:
                if planner.plan(stages, sizes, tile_size, *rest).fits:
                    good.append(text)
            except OptionError:
                continue
    side = planner.largest(sizes[-1], optimizer, history, offload)
    smaller = f"--image-size {side}" + (" --tile-size auto" if planner.tiled else "")
    return " or ".join([*good, smaller]) + " would fit"


def refuse_what_cannot_fit(planner: Planner, plan: Plan, arguments: tuple) -> None:
    """Raises OptionError for a plan that does not fit, naming options that would. arguments: `Planner.plan`'s."""
    if plan.fits:
        return
    need = next(need for need in plan.needs if not need.fits)
    where = "memory" if need.place == "memory" else f"the memory of {need.place}"
    height, width = plan.size
    raise OptionError(
        f"a picture of {width}×{height} needs about {_gb(need.size)} of {where} and {_gb(need.free)} can be used; "
        + _advice(planner, plan, arguments)
    )


def resident() -> int:
    """Bytes of this process in memory now; 0 where the system does not say."""
    return _status("VmRSS")


def peak() -> int:
    """The most that were, since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Forget the peak so far (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _address_space():
    """Bytes that a limit on this process (ulimit -v) leaves; None where there is none, or nobody says."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit, taken = resource.getrlimit(resource.RLIMIT_AS)[0], _status("VmSize")
    return None if limit == resource.RLIM_INFINITY or not taken else max(0, limit - taken)


def _status(key):
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) << 10
    return 0


def _gb(size):
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
