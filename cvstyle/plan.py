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
from .backends import memory
from .errors import OptionError
from .objective import Objective, parse_layer

_PROBES = (192, 384)  # sides of the small pictures
_TILES = (4096, 3072, 2048, 1536, 1280, 1024, 768, 640, 512, 448, 384, 320, 256, 192, 128, 96, 64)
_PICTURE = 12  # bytes per pixel: three channels of float32
_COPIES = 7  # the picture, its gradient, the last two good ones, the content, and two that come and go
_SPARE = 0.9  # of what is free is planned for


@dataclass(frozen=True)
class Cost:
    """What a backend was measured to cost: bytes in any case, bytes per pixel of a window, seconds per pixel."""

    fixed: float
    per_pixel: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """size: (height, width). tile_size: None for the whole picture at once. windows: number of tiles; window: their
    shape. device: bytes where the network is computed; host: bytes in host memory, those too where that is the host.
    free_device, free_host: what there is (None: unknown). seconds: of an iteration. total: of the whole run."""

    size: tuple[int, int]
    tile_size: int | None
    windows: int
    window: tuple[int, int]
    device: float | None
    host: float
    free_device: float | None
    free_host: float | None
    seconds: float
    total: float

    @property
    def fits(self) -> bool:
        """Whether there is enough memory, as far as that is known."""
        needs = ((self.device, self.free_device), (self.host, self.free_host))
        return all(need is None or free is None or need <= free for need, free in needs)

    def __str__(self):
        height, width = self.size
        cut = f"{self.windows} tiles of {self.window[1]}×{self.window[0]}" if self.tile_size else "no tiles"
        device = f"{_gb(self.device)} on the device, " if self.device is not None else ""
        return (
            f"{width}×{height}, {cut}: {device}{_gb(self.host)} of memory, {self.seconds:.3g} s an iteration, about "
            f"{_duration(self.total)}"
        )


class Planner:
    """Plans for one network on its backend. Making one takes a few evaluations of small pictures.

    settings: weights, layers and the like, as `Objective` takes them.
    """

    def __init__(self, net, settings: dict):
        self.net, self.settings = net, settings
        self.on_host = isinstance(net.ops.empty((1,)), np.ndarray)
        names = [n for kind in ("content_layers", "style_layers") for n in settings[kind]]
        names = dict.fromkeys(parse_layer(n)[0] if isinstance(n, str) else n[0] for n in names)
        self.program = net.with_pooling(settings.get("pooling", "max")).program(names)
        self._known: dict[tuple, list[tiles.Tile]] = {}
        self.cost, self.base = self._measure()

    def plan(self, stages, sizes, tile_size, optimizer, history, offload=None) -> Plan:
        """The plan of a run; the last scale decides what it needs.

        stages: (longest side, iterations) of each scale; sizes: (height, width) of each. tile_size: a number, None or
        "auto": the largest that fits.
        """
        if tile_size != "auto":
            return self._plan(stages, sizes, tile_size, optimizer, history, offload)
        size, least = sizes[-1], self._least()
        sides = [None, *(t for t in _TILES if t < max(size) and t >= least), *([least] if least < max(size) else [])]
        for side in sides:
            window = tuple(min(n, side or n) for n in size)
            needs = self._memory(size, math.prod(window), optimizer, history, offload)
            if self._fits(*needs):
                return self._plan(stages, sizes, side, optimizer, history, offload)
        free = None if self.on_host else self._free_device()
        return Plan(size, side, 0, window, *needs, free, self._free_host(), math.nan, math.nan)

    def _least(self):
        """The least tile size of the network; infinite where it cannot be computed in tiles."""
        try:
            return tiles.least([self.program.reach((2048, 2048), axis) for axis in (0, 1)])
        except OptionError:
            return math.inf

    def _fits(self, device, host):
        free_device = math.inf if self.on_host else self._free_device()
        return (device or 0) <= free_device and host <= (self._free_host() or math.inf)

    def largest(self, size, optimizer, history, offload=None) -> int:
        """The longest side of a picture of this shape that fits with the smallest tiles that the network allows."""
        least = self._least()
        low, high = 64, 1 << 17
        while high - low > 16:
            side = (low + high) // 2
            scaled = tuple(max(1, round(n * side / max(size))) for n in size)
            window = math.prod(min(n, least) for n in scaled)
            fits = self._fits(*self._memory(scaled, window, optimizer, history, offload))
            low, high = (side, high) if fits else (low, side)
        return low

    def _plan(self, stages, sizes, tile_size, optimizer, history, offload):
        size = sizes[-1]
        cut = self._cut(size, tile_size)
        window = cut[0].window.shape
        device, host = self._memory(size, math.prod(window), optimizer, history, offload)
        seconds = [self._seconds(s, tile_size) for s in sizes]
        return Plan(
            size, tile_size if len(cut) > 1 else None, len(cut), window, device, host,
            None if self.on_host else self._free_device(), self._free_host(), seconds[-1],
            sum(s * count for s, (_, count) in zip(seconds, stages)),
        )  # fmt: skip

    def _cut(self, size, tile_size):
        if (size, tile_size) not in self._known:
            self._known[size, tile_size] = tiles.split(self.program, size, tile_size)
        return self._known[size, tile_size]

    def _memory(self, size, window, optimizer, history, offload):
        """(bytes on the device, or None where that is the host; bytes on the host). window: in pixels."""
        pixels, pictures = math.prod(size), self._pictures(size, optimizer, history)
        work = self.cost.fixed + self.cost.per_pixel * window
        device, host = (None, self.base + work) if self.on_host else (work, self.base)
        if offload:
            return device, host + 2 * _PICTURE * pixels  # files need none, but for what comes and goes
        if offload is not None or self.on_host:
            return device, host + pictures
        return device + pictures, host + 3 * _PICTURE * pixels

    def _pictures(self, size, optimizer, history):
        """Bytes of what has the picture's size, and of the content's features."""
        pairs = (2 * history + 2) * self.net.ops.history_itemsize / 4 + 1
        vectors = {"lbfgs": pairs, "lbfgsb": 4 * history + 10, "adam": 5}[optimizer]  # lbfgsb: float64
        shapes = self.program.shapes(size)
        names = [parse_layer(n)[0] if isinstance(n, str) else n[0] for n in self.settings["content_layers"]]
        return (_COPIES + vectors) * _PICTURE * math.prod(size) + sum(4 * math.prod(shapes[n]) for n in names)

    def _seconds(self, size, tile_size):
        cut = self._cut(size, tile_size)
        pixels = sum(math.prod(tile.window.shape) for tile in cut)
        # With tiles the forward pass runs twice: for the Gram matrices, and for the gradient.
        return self.cost.seconds * pixels * (1.5 - 0.5 / len(cut))

    def _free_host(self):
        free = memory.available()
        return None if free is None else _SPARE * (free + resident())

    def _free_device(self):
        return _SPARE * self.net.ops.device.memory

    def _measure(self):
        """(cost, host bytes that the process has in any case)."""
        peaks, seconds = [], []
        base = resident()
        ops, tuned = self.net.ops, getattr(self.net.ops, "autotune", False)
        if tuned:
            ops.autotune = False  # these shapes do not come again
        for side in (_PROBES[0], *_PROBES):  # the first packs filters, which it need not do again
            gc.collect()
            self.net.ops.trim()
            reset_peak()
            pictures = np.random.default_rng(0).uniform(-100, 100, (2, 3, side, side)).astype(np.float32)
            objective = Objective(self.net, pictures[0], [pictures[1]], **self.settings)
            x = self.net.ops.asarray(pictures[:1])
            for _ in range(2):
                begin = time.perf_counter()
                objective.evaluate(x)
                float(objective.loss)
                taken = time.perf_counter() - begin
            seconds.append(taken)
            peaks.append(peak() - base if self.on_host else self.net.ops.pool.allocated)
            del objective, x, pictures
        self.net.ops.trim()
        if tuned:
            ops.autotune = True
        small, large = (side**2 for side in _PROBES)
        per_pixel = max(0.0, (peaks[2] - peaks[1]) / (large - small))
        fixed = max(0.0, peaks[2] - per_pixel * large)
        return Cost(fixed, per_pixel, seconds[2] / large), base if self.on_host else resident()


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
    place, need, free = "memory", plan.host, plan.free_host
    if plan.device is not None and plan.free_device is not None and plan.device > plan.free_device:
        place, need, free = "device memory", plan.device, plan.free_device
    height, width = plan.size
    raise OptionError(
        f"a picture of {width}×{height} needs about {_gb(need)} of {place} and {_gb(free)} can be used; "
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


def _status(key):
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) << 10
    return 0


def _gb(size):
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
