"""The setup of a run: sizes, layers, weights, devices and margin, decided before the first iteration."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .. import backends, images, losses, optimize, zoo
from ..errors import OptionError, ShapeError
from ..graph.periodic import periodic, repeats
from ..graph.placement import balanced_cuts
from ..options import Options
from ..regions import StyleRegion
from . import styles as style_entries
from .border import needed_margin
from .colors import recoloured
from .identity import identity_of
from .remarks import remarks_on
from .style_layers import without_presets
from .texture import STYLE_LOSS, TV_SHARE, shown_side

_LARGEST_TILE = 2048  # the tile size for which layers are balanced before automatic tiles are chosen
_SHORTEST = 64  # pixels; no quality preset has a scale with a shorter side
_STATE_PICTURES = 4  # as large as the result: the picture, its gradient, the last two finite iterates


class Setup:
    """Network, devices, sizes, weights and optimiser of a run, with values for the options that are None.

    content, styles, start: the given `Picture`s, and `SavedStyle`s among the styles (see `styles`); the styles in the
    content's colours if the options say so. regions: `StyleRegion`s with masks of the pictures' sizes; [] for none.
    devices: the devices that share the tiles; None for a single one. picture_backend: the backend of the picture and
    the optimiser. defaults: option → the network's value. digests: of the given pictures, where styles are others.
    sizes: (height, width) at each scale; padded_sizes: the same with the margin. schedule: (longest side, iterations)
    of each scale. pixel_range: the value of white.
    reading_peak: the bytes that the process had while pictures were read, if that was its peak; else 0.
    resumed: True once the state is a checkpoint's. texture: True for a texture of the styles (`synthesize`).
    """

    def __init__(
        self, net, content, styles, start, options: Options, devices: Sequence | None = None,
        regions: Sequence[StyleRegion] = (), remarks: Sequence[str] = (), texture: bool = False,
    ):  # fmt: skip
        """regions, remarks: see `read_regions`."""
        self.net = net
        self.content = content
        self.regions = list(regions)
        self.styles = recoloured(styles, content, options.matching, self.regions)
        self.start = start
        self.digests = style_entries.digests(content, styles) if options.matching else None
        given = [content, *styles, *([start] if start else [])]
        self._picture_remarks = dict.fromkeys([*(line for picture in given for line in picture.remarks), *remarks])
        self.options = options
        self.texture = texture
        self.picture_backend = net.ops if options.offload is None else backends.host(options.offload.folder)
        self.pixel_range = 256.0 if options.compat else 255.0
        self.resumed = False
        self.seed = options.seed if options.seed is not None and options.seed >= 0 else random.randrange(2**31)
        self.defaults = zoo.defaults(net.layer_names, options.compat, zoo.has_reference_scale(net.definition))
        self.defaults["style_loss"] = STYLE_LOSS if texture else "gram"
        if texture:
            self.defaults["tv_weight"] *= TV_SHARE
        self.schedule = options.schedule(self.value("num_iterations"))
        self._drop_scales_until(lambda longest: self._shortest(longest) >= _SHORTEST)
        self._chosen = {} if self.defaults["style_layers"] else zoo.choose_layers(net, self._all_sizes())
        self._chosen = style_entries.kept_layers(self._chosen, styles)
        self.defaults |= self._chosen
        layers = self.defaults["style_layers"]
        self.options, remarks = without_presets(options, net, layers, self._all_sizes())
        self._picture_remarks |= dict.fromkeys(remarks)
        self.loss_settings = self._loss_settings()
        style_entries.check(self)
        self._drop_scales_until(self._fits)
        self.sizes = [self._size(content, longest) for longest, _ in self.schedule]
        self.margin = self._margin()
        self.padded_sizes = [images.padded_size(size, self.margins) for size in self.sizes]
        self.optimizer = optimize.get(options.optimizer)
        ends = (self.preprocess(np.full((1, 1, 3), n, np.float32))[None] for n in (0, 255))
        self.optimizer_settings = self.optimizer.settings(options, tuple(ends))
        self.tile_size: int | str | None = options.tile_size
        self.reading_peak = 0
        self.devices: list | None = None
        if devices and len(devices) > 1:
            _assign_devices(self, list(devices))

    def preprocess(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) RGB 0..255 → (3, H, W) in the network's convention."""
        return images.preprocess(rgb, self.pixel_range, self.net.convention)

    def deprocess(self, x: np.ndarray) -> np.ndarray:
        """The inverse of `preprocess`."""
        return images.deprocess(x, self.pixel_range, self.net.convention)

    @property
    def margins(self) -> tuple[int, int]:
        """The margin along each axis (0: vertical); none where the picture repeats."""
        return tuple(0 if on else self.margin for on in repeats(self.options.wrap))

    @property
    def remarks(self) -> list[str]:
        """One line for each decision that may surprise."""
        return [*self._picture_remarks, *remarks_on(self)]

    @property
    def balance(self) -> str:
        """The objective's balance (see `Objective`)."""
        return self.defaults["balance"] if self.options.balance == "auto" else self.options.balance

    def value(self, name: str) -> Any:
        """An option's value, or the network's default where the option is None."""
        value = getattr(self.options, name)
        return self.defaults.get(name) if value is None else value

    @property
    def chosen_layers(self) -> dict[str, list[str]]:
        """Option ("style_layers", "content_layers") → layers chosen from the graph, since neither the option nor the
        network's family names any."""
        return {name: layers for name, layers in self._chosen.items() if getattr(self.options, name) is None}

    @property
    def num_iterations(self) -> int:
        """The number of iterations of all scales together."""
        return sum(count for _, count in self.schedule)

    def last_iteration(self, scale: int) -> int:
        """The number of a scale's last iteration, counted through all scales."""
        return sum(count for _, count in self.schedule[: scale + 1])

    def work_share(self, scale: int, done: int) -> float:
        """The share of the run's work, by iterations and pixels, that is done after `done` iterations, at a scale."""
        pixels = [math.prod(size) for size in self.padded_sizes]
        work = [count * n for (_, count), n in zip(self.schedule, pixels)]
        return (sum(work[: scale + 1]) - (self.last_iteration(scale) - done) * pixels[scale]) / sum(work)

    def style_sizes(self, scale: int) -> list[tuple[int, int]]:
        """(height, width) of each style at a scale."""
        return self._style_sizes(self.schedule[scale][0])

    @cached_property
    def layer_names(self) -> list[str]:
        """The layers of the losses, including layers of weight 0."""
        return losses.layer_names(self.loss_settings)

    @property
    def style_layers(self) -> list[str]:
        """The layers named for style."""
        return losses.layer_names({"style_layers": self.loss_settings["style_layers"]})

    def program(self):
        """The program that computes the layers of the losses."""
        return self.net.with_pooling(self.options.pooling).program(self.layer_names)

    @property
    def objective_settings(self) -> dict[str, Any]:
        """The keywords of `Objective` that are the same at every scale."""
        options = self.options
        return {
            **self.loss_settings, "style_blend_weights": options.style_blend_weights, "pooling": options.pooling,
            "normalize_gradients": options.normalize_gradients, "balance": self.balance, "tile_size": self.tile_size,
            "strength": options.strength, "wrap": options.wrap,
            "devices": self.devices, "home": None if self.picture_backend is self.net.ops else self.picture_backend,
        }  # fmt: skip

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The values that a run must share with the run whose checkpoint it resumes."""
        return identity_of(self)

    def regions_at(
        self, size: tuple[int, int], style_sizes: Sequence, margins: tuple[int, int] = (0, 0)
    ) -> list[StyleRegion]:
        """The regions in a content of (height, width) `size` and margins, and in styles of these sizes."""
        return [region.resized(size, style_sizes, margins) for region in self.regions]

    def check_tiles(self) -> None:
        """Raises OptionError where a scale cannot be cut into tiles, before any scale is computed."""
        if self.tile_size or self.devices:
            program = self.program()
            for size in self.padded_sizes:
                picture = periodic(program, size, self.options.wrap)
                picture.tiles(program, self.tile_size, len(self.devices or [None]))

    def changed(self, **attributes) -> Setup:
        """A copy with other attributes."""
        copied = copy.copy(self)
        vars(copied).update(attributes)
        return copied

    def on(self, replace: Callable[[Any], Any], picture_backend) -> Setup:
        """A copy on other backends: replace(ops) instead of each of the network's, and a picture backend."""
        devices = self.devices and [replace(ops) for ops in self.devices]
        return self.changed(net=self.net.map_backends(replace), devices=devices, picture_backend=picture_backend)

    def _margin(self):
        """The margin of the option or the network's family; else the style layers' need, up to the smallest scale."""
        margin = self.value("margin")
        if margin is None:
            margin = min(needed_margin(self.net, self.style_layers, self.sizes[-1]), *self.sizes[0])
        return margin

    def _style_sizes(self, side):
        last = self.schedule[-1][0]
        shares = [shown_side(style.proportions, last) / last if self.texture else 1 for style in self.styles]
        longest = [math.ceil(self.options.style_scale * side * share) for share in shares]
        return [self._size(style, own) for style, own in zip(self.styles, longest)]

    def _shortest(self, side):
        """The shorter side of the result at a scale or, if less, the longer one of a source of a texture."""
        sources = self._style_sizes(side) if self.texture else []
        return min(*self._size(self.content, side), *map(max, sources))

    def _all_sizes(self):
        """The size of the result, then the sizes of all other pictures that enter the network."""
        sides = [side for side, _ in reversed(self.schedule)]
        styles = [size for side in sides for size in self._style_sizes(side)]
        return [*(self._size(self.content, side) for side in sides), *styles]

    def _drop_scales_until(self, fits):
        """Drop a quality preset's first scales until fits(longest side); the rest take the counts from the first on."""
        if self.options.uses_quality:
            sides, counts = zip(*self.schedule)
            first = next((i for i, side in enumerate(sides) if fits(side)), len(sides) - 1)
            self.schedule = list(zip(sides[first:], counts))

    def _fits(self, longest):
        """True where a scale's pictures are large enough for the layers."""
        program = self.program()
        try:
            for size in (self._size(self.content, longest), *self._style_sizes(longest)):
                program.shapes(size)
        except ShapeError:
            return False
        return True

    def _size(self, picture, longest):
        return images.target_size(*picture.proportions, longest, compat=self.options.compat)

    def _loss_settings(self):
        """The losses' settings from the options or the network; losses have defaults of their own for the rest."""
        settings = {name: self.value(name) for name in losses.setting_names()}
        for name, value in settings.items():
            if value is None and name in self.defaults:
                height, width = self._all_sizes()[0]
                raise OptionError(
                    f"{self.net.definition.source}: no layer makes a feature map of a picture of {width}×{height} and "
                    f"of the smaller scales and styles; say which layers to use with --{name.replace('_', '-')} "
                    "('cvstyle info' lists them)"
                )
        if not self.options.strength:
            settings |= {name: 0.0 for name in settings if name.endswith("_weight")}  # it is the photograph
        return {name: value for name, value in settings.items() if value is not None}


def _assign_devices(setup, devices):
    """Assign layers or tiles to each device."""
    if setup.options.shares_tiles:
        setup.devices = devices
        return
    side = setup.tile_size if isinstance(setup.tile_size, int) else _LARGEST_TILE if setup.tile_size else math.inf
    extended = periodic(setup.program(), setup.padded_sizes[-1], setup.options.wrap).extended
    window = tuple(min(n, side) for n in extended)
    cuts = setup.options.multigpu_strategy
    cuts = cuts or balanced_cuts(setup.program(), window, len(devices), _bytes_on_first_device(setup))
    setup.net = setup.net.partition(devices, cuts)
    idle = len(devices) - len(setup.program().devices)
    if idle:
        raise OptionError(
            f"the split after layers {','.join(map(str, cuts))} leaves {idle} of {len(devices)} devices without a "
            "layer that is asked for; split earlier"
        )


def _bytes_on_first_device(setup):
    """An estimate of the bytes of pictures on the network's first backend; 0 where the host holds the pictures."""
    ops = setup.picture_backend
    if ops is not setup.net.ops:
        return 0
    memory = setup.optimizer.memory(setup.schedule[-1][1], ops.history_itemsize, **setup.optimizer_settings)
    return (_STATE_PICTURES + memory.state) * 12 * math.prod(setup.padded_sizes[-1])  # three channels of float32
