"""What a run will need, before it starts: memory, tiles, time.

Nothing is assumed about a backend: the objective is evaluated on two small pictures, and what their peaks and times
differ by is what a pixel costs. The rest is arithmetic over the sizes of the run.
"""

from __future__ import annotations

import gc
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import tiles
from .backends import is_host, memory
from .errors import OptionError
from .objective import Objective, parse_layer

_PROBES = (192, 384)  # sides of the small pictures
_TILES = (4096, 3072, 2048, 1536, 1280, 1024, 768, 640, 512, 448, 384, 320, 256, 192, 128, 96, 64)
_PICTURE = 12  # bytes per pixel: three channels of float32
_COPIES = 7  # the picture, its gradient, the last two good ones, the content, and two that come and go
_DEVICE_COPIES = 2  # the last two good ones: the picture and its gradient are in what a window was measured to take
_STRIPS = 3  # of features, of the gradient, and what comes of them
_WASTE = 1.15  # what a device's pool takes for each byte in use
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
    the last scale. sharing: the backends that share the tiles, of one kind, if there are several. more: pictures that
    are kept beside the usual ones.
    """

    def __init__(self, net, settings: dict, styles=(), sharing=None, more: float = 0):
        self.net, self.settings, self.styles, self.more = net, settings, styles, more
        names = [n for kind in ("content_layers", "style_layers") for n in settings[kind]]
        names = dict.fromkeys(parse_layer(n)[0] for n in names)
        self.program = net.with_pooling(settings.get("pooling", "max")).program(names)
        self.sharing = sharing or [net.ops]
        self.devices = [ops for ops in sharing or self.program.devices if not is_host(ops.name)]
        self._known: dict[tuple, list[tiles.Tile]] = {}
        self._measure()

    def plan(self, stages, sizes, tile_size, optimizer, history, offload=None) -> Plan:
        """The plan of a run; the last scale decides what it needs.

        stages: (longest side, iterations) of each scale; sizes: (height, width) of each. tile_size: a number, None or
        "auto": the largest that fits. history: pairs of L-BFGS, of the last scale's size.
        """
        if tile_size != "auto":
            return self._plan(stages, sizes, tile_size, optimizer, history, offload)
        size, least = sizes[-1], self._least(sizes[-1])
        most = max(size)
        sides = [most, *(t for t in _TILES if t < most and t >= least), *([least] if least < most else [])]
        for side in sides:
            window = self._cut(size, most)[0].window.shape if side == most else size
            window = tuple(min(n, side) for n in window)
            tile_size = None if side == most else side
            needs = self._needs(size, window, self._style_windows(tile_size), optimizer, history, offload)
            if all(need.fits for need in needs):
                return self._plan(stages, sizes, tile_size, optimizer, history, offload)
        return Plan(size, side, 0, window, needs, math.nan, math.nan)

    def _least(self, size=(2048, 2048)):
        """The least tile size for a picture; infinite where the network cannot be computed in tiles."""
        try:
            return tiles.least([self.program.reach(size, axis) for axis in (0, 1)])
        except OptionError:
            return math.inf

    def largest(self, size, optimizer, history, offload=None) -> int:
        """The longest side of a picture of this shape that fits with the smallest tiles that the network allows."""
        least = self._least()
        low, high = 64, 1 << 17
        while high - low > 16:
            side = (low + high) // 2
            scaled = tuple(max(1, round(n * side / max(size))) for n in size)
            window = tuple(min(n, least) for n in scaled)
            grown = [[n * side / max(size) for n in style] for style in self.styles]
            styles = [(style, [min(n, least) for n in style]) for style in grown]
            fits = [need.fits for need in self._needs(scaled, window, styles, optimizer, history, offload)]
            low, high = (side, high) if all(fits) else (low, side)
        return low

    def _plan(self, stages, sizes, tile_size, optimizer, history, offload):
        size = sizes[-1]
        cut = self._cut(size, tile_size)
        window = cut[0].window.shape
        styles = self._style_windows((tile_size or max(window)) if len(cut) > 1 else tile_size)
        needs = self._needs(size, window, styles, optimizer, history, offload)
        seconds = [self._seconds(s, tile_size) for s in sizes]
        total = sum(s * count for s, (_, count) in zip(seconds, stages))
        tile_size = tile_size or max(window)
        return Plan(size, tile_size if len(cut) > 1 else None, len(cut), window, needs, seconds[-1], total)

    def _cut(self, size, tile_size):
        if (size, tile_size) not in self._known:
            self._known[size, tile_size] = tiles.split(self.program, size, tile_size, len(self.sharing))
        return self._known[size, tile_size]

    def _style_windows(self, tile_size):
        """(size, at most that of the windows in which it is computed) of every style."""
        return [(style, [min(n, tile_size or n) for n in style]) for style in self.styles]

    def _needs(self, size, window, styles, optimizer, history, offload):
        """What is needed of every device and of the host. window: what is computed at a time; styles: (size, window).

        The styles' targets are computed before a scale's first iteration, where the optimiser has nothing yet.
        """
        strip = self._strip(window) if window != tuple(size) else 0
        wholes, windows = ([math.prod(pair[i]) for pair in styles] for i in (0, 1))
        window = math.prod(window)
        first = max([window, *windows])
        picture = _PICTURE * math.prod(size)
        pairs = (2 * history + 2) * self.net.ops.history_itemsize / 4 + 1
        vectors = {"lbfgs": pairs, "lbfgsb": 4 * history + 10, "adam": 5}[optimizer]  # lbfgsb: float64
        pictures, (features, hosted) = (_COPIES + vectors + self.more) * picture, self._features(size)
        kept = _DEVICE_COPIES + self.more + {"lbfgs": vectors, "lbfgsb": 0, "adam": 2}[optimizer]
        workers = len(self.sharing) if is_host(self.net.ops.name) else 1
        host = self.base + workers * (self.host(window) + _STRIPS * strip)
        shares = 1 if is_host(self.net.ops.name) else len(self.sharing)
        needs = [cost(window) + strip for cost in self.costs * shares]
        # The content twice, all styles at once, and once more the one that is read.
        before = 2 * picture + _PICTURE * (sum(wholes) + max(wholes, default=0))
        before += self.base + self.host_before(first) + strip + hosted
        if offload:
            host += 2 * picture  # files need none, but for what comes and goes
        elif offload is not None or not needs or is_host(self.net.ops.name):
            host += pictures + hosted + sum(features)
        else:
            measured = window / math.prod(size)  # of picture, gradient and features, in what the window takes
            needs[0] += (kept + 2 * (1 - measured)) * picture
            needs = [need + held * (1 - measured) for need, held in zip(needs, features, strict=True)]
            host += vectors * picture if optimizer == "lbfgsb" else 0
            # Several devices that share the tiles read the picture from the host and add the gradients up there.
            host += (3 if len(self.sharing) == 1 else 6) * picture + hosted
        before += 0 if offload or needs else sum(features)
        host = max(host, before)
        looked = [first, *[window] * (shares - 1)] if shares > 1 else [first] * len(needs)  # the first has the styles
        needs = [max(need, cost(n) + strip) for need, cost, n in zip(needs, self.costs_before * shares, looked)]
        free = [_SPARE * ops.device.memory for ops in self.devices]
        names = [f"device {number}" if len(needs) > 1 else "device" for number in range(len(needs))]
        taken = (_WASTE * need for need in needs)
        return (*map(Need, names, taken, free), Need("memory", host, self._free_host()))

    def _strip(self, window):
        """Bytes of what a window cuts out of its largest map at a time."""
        return 4 * min(tiles.STRIP, max(map(math.prod, self.program.shapes(window).values())))

    def _features(self, size):
        """(bytes that the content's features take on every device, and on the host)."""
        shapes, found = self.program.shapes(size), dict.fromkeys(self.devices, 0)
        for entry in self.settings["content_layers"]:
            name = parse_layer(entry)[0]
            holders = self.sharing if len(self.sharing) > 1 else [self.program.ops_of(name)]
            for ops in holders:
                found[ops] = found.get(ops, 0) + 4 * math.prod(shapes[name]) / len(holders)
        return [found[ops] for ops in self.devices], sum(n for ops, n in found.items() if ops not in self.devices)

    def _seconds(self, size, tile_size):
        cut = self._cut(size, tile_size)
        return self.seconds * math.prod(cut[0].window.shape) * tiles.passes(-(-len(cut) // len(self.sharing)))

    def _free_host(self):
        free = [n for n in (memory.available(), _address_space()) if n is not None]
        return _SPARE * (min(free) + resident()) if free else None

    def _measure(self):
        """Find out what a window costs: `costs` of each device beside the host, `host` of the host, `seconds` a pixel;
        `costs_before` and `host_before` for the targets; and `base`, the host's bytes in any case. Of devices that
        share the tiles the first one is measured."""
        peaks, before, seconds, base = [], [], [], resident()
        apart = [ops for ops in self.program.devices if not is_host(ops.name)]
        tuned = [ops for ops in apart if ops.autotune]
        for ops in tuned:
            ops.autotune = False  # these shapes do not come again
        # The first packs filters, which it need not do again; on a device those of the larger one are another choice's.
        for side in (_PROBES[1 if apart else 0], *_PROBES):
            gc.collect()
            for ops in self.program.devices:
                ops.trim()
            self._forget_peaks(apart)
            pictures = np.random.default_rng(0).uniform(-100, 100, (2, 3, side, side)).astype(np.float32)
            objective = Objective(self.net, pictures[0], [pictures[1]], **self.settings)
            before.append([peak() - base, *(ops.pool.peak for ops in apart)])
            self._forget_peaks(apart)
            x = self.net.ops.asarray(pictures[:1])
            for _ in range(2):
                begin = time.perf_counter()
                objective.evaluate(x)
                float(objective.loss)
                taken = time.perf_counter() - begin
            seconds.append(taken)
            peaks.append([peak() - base, *(ops.pool.peak for ops in apart)])
            del objective, x, pictures
        for ops in self.program.devices:
            ops.trim()
        for ops in tuned:
            ops.autotune = True
        self.seconds = seconds[2] / _PROBES[1] ** 2
        self.host, *self.costs = (_line(*ends) for ends in zip(*peaks[1:]))
        self.host_before, *self.costs_before = (_line(*ends) for ends in zip(*before[1:]))
        self.base = base
        if len(apart) == len(self.program.devices):
            self.host, self.host_before, self.base = Cost(0, 0), Cost(0, 0), resident()

    @staticmethod
    def _forget_peaks(devices):
        for ops in devices:
            ops.pool.peak = ops.pool.used
        reset_peak()


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
        if not any(set(text.split("--")) >= set(known.split("--")) for known in good):
            try:
                if planner.plan(stages, sizes, tile_size, *rest).fits:
                    good.append(text)
            except OptionError:
                continue
    side = planner.largest(sizes[-1], optimizer, history, offload)
    return " or ".join([*good, f"--image-size {side}"]) + " would fit"


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
