"""What is decided of a run before its first iteration."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .. import backends, checkpoint, images, losses, optimize, placement, tiles, zoo
from ..errors import OptionError, ShapeError
from ..netdef import IMAGENET, imagenet_mean
from ..options import Options, identity
from .border import needed_margin

_LARGEST_TILE = 2048  # what layers are balanced for before automatic tiles are found
_SHORTEST = 64  # pixels of the shorter side, below which a quality does not begin
_PICTURES = 4  # as large as the result: itself, its gradient, the last two good ones


class Setup:
    """Network, devices, sizes, weights and optimiser of a run; options that are None have their values here.

    content, styles, start: `Picture`s as they were given. devices: None but for several that share the tiles. home: the
    backend of the picture and of the optimiser. sizes: (height, width) at each scale; padded_sizes: with the margin.
    schedule: (longest side, iterations) of each scale. pixel_range: white, in the network's units.
    """

    def __init__(self, net, content, styles, start, options: Options, devices: Sequence | None = None):
        self.net, self.content, self.styles, self.start, self.options = net, content, styles, start, options
        self.home = net.ops if options.offload is None else backends.host(options.offload.folder)
        self.pixel_range = 256.0 if options.compat else 255.0
        self.seed = options.seed if options.seed is not None and options.seed >= 0 else random.randrange(2**31)
        self._defaults = zoo.defaults(net.layer_names, options.compat)
        self.schedule = options.schedule(self.value("num_iterations"))
        self._begin_where(lambda longest: min(self._size(content, longest)) >= _SHORTEST)
        self._chosen = {} if self._defaults["style_layers"] else zoo.choose_layers(net, self._all_sizes())
        self._defaults |= self._chosen
        self.loss_settings = self._loss_settings()
        self._begin_where(self._fits)
        self.sizes = [self._size(content, longest) for longest, _ in self.schedule]
        self.margin = self._margin()
        self.padded_sizes = [images.padded_size(size, self.margin) for size in self.sizes]
        self.optimizer = optimize.get(options.optimizer)
        ends = (self.preprocess(np.full((1, 1, 3), n, np.float32))[None] for n in (0, 255))
        self.optimizer_settings = self.optimizer.settings(options, tuple(ends))
        self.tile_size: int | str | None = options.tile_size
        self.devices: list | None = None
        if devices and len(devices) > 1:
            self._assign_devices(list(devices))

    def preprocess(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) RGB 0..255 → (3, H, W) as the network takes it."""
        return images.preprocess(rgb, self.pixel_range, self.net.convention)

    def deprocess(self, x: np.ndarray) -> np.ndarray:
        """The inverse of `preprocess`."""
        return images.deprocess(x, self.pixel_range, self.net.convention)

    @property
    def remarks(self) -> list[str]:
        """A line for each thing that was decided and may surprise."""
        found, convention, chosen = [], self.net.convention, self.chosen_layers
        if convention != IMAGENET:
            colours = "; the colours stay the content's" if convention.luminance else ""
            found.append(f"pictures enter the network as {convention}{colours}")
        if chosen:
            sources = "; ".join(f"{name.removesuffix('_layers')} from {','.join(chosen[name])}" for name in chosen)
            others = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
            verb = "name" if len(chosen) > 1 else "names"
            found.append(f"{sources} (chosen from the network; {others} {verb} others)")
        return found

    @property
    def balance(self) -> str:
        """That of the objective (see `Objective`)."""
        return self._defaults["balance"] if self.options.balance == "auto" else self.options.balance

    def value(self, name: str) -> Any:
        """An option's value, or where it is None the network's."""
        found = getattr(self.options, name)
        return self._defaults.get(name) if found is None else found

    @property
    def chosen_layers(self) -> dict[str, list[str]]:
        """Option ("style_layers", "content_layers") → the layers that were chosen from the graph, where neither it nor
        the network's family names some."""
        return {name: layers for name, layers in self._chosen.items() if getattr(self.options, name) is None}

    @property
    def num_iterations(self) -> int:
        """Of all scales."""
        return sum(count for _, count in self.schedule)

    def end(self, scale: int) -> int:
        """Iterations until a scale has ended, counted through all of them."""
        return sum(count for _, count in self.schedule[: scale + 1])

    def share(self, scale: int, done: int) -> float:
        """Of the run's work, by iterations and pixels, that so many iterations are, of which the last is at a scale."""
        pixels = [math.prod(size) for size in self.padded_sizes]
        work = [count * n for (_, count), n in zip(self.schedule, pixels)]
        return (sum(work[: scale + 1]) - (self.end(scale) - done) * pixels[scale]) / sum(work)

    def style_sizes(self, scale: int) -> list[tuple[int, int]]:
        """(height, width) of each style beside the picture of a scale."""
        return self._style_sizes(self.schedule[scale][0])

    @cached_property
    def layer_names(self) -> list[str]:
        """The layers that are asked for, those of weight 0 as well."""
        return losses.layer_names(self.loss_settings)

    def program(self):
        """What those layers need, on the devices that have them."""
        return self.net.with_pooling(self.options.pooling).program(self.layer_names)

    @property
    def objective_settings(self) -> dict[str, Any]:
        """Keywords of `Objective` that are the same at every scale."""
        options = self.options
        return {
            **self.loss_settings, "style_blend_weights": options.style_blend_weights, "pooling": options.pooling,
            "normalize_gradients": options.normalize_gradients, "balance": self.balance, "tile_size": self.tile_size,
            "devices": self.devices, "home": None if self.home is self.net.ops else self.home,
        }  # fmt: skip

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a run must have in common with the one that wrote the checkpoint that it goes on from."""
        options = self.options
        found = identity(options, {name: self.value(name) for name in self._defaults})
        for name in (name for name in found if name.endswith("_layers")):
            found[name] = found[name] and [str(entry) for entry in found[name]]
        # Runs before there were these had none, or the default.
        convention = self.net.convention
        found["mean"] = None if convention.mean == imagenet_mean(convention.channels) else list(convention.mean)
        found["input_scale"] = None if convention.scale == 1 else convention.scale
        found["channels"] = None if convention.channels == IMAGENET.channels else convention.channels
        found["balance"] = self.balance if self.balance != "none" else None
        if options.optimizer == "lbfgs":
            found["lbfgs_smooth"] = self.optimizer_settings.get("smooth") or None
            found["backend, by the bytes of a value in its L-BFGS history"] = self.home.history_itemsize
        found["margin"] = self.margin or None
        found["scales"] = [longest for longest, _ in self.schedule]
        found["network"] = self.net.digest(self.layer_names)
        found["content picture"] = checkpoint.digest(self.content.rgb)
        found["style pictures"] = [checkpoint.digest(style.rgb) for style in self.styles]
        return found

    def check_tiles(self) -> None:
        """Raises OptionError where a scale cannot be cut into tiles, before the first is computed."""
        if self.tile_size or self.devices:
            program = self.program()
            for size in self.padded_sizes:
                tiles.split(program, size, self.tile_size, len(self.devices or [None]))

    def changed(self, **attributes) -> Setup:
        """A copy with other attributes."""
        found = copy.copy(self)
        vars(found).update(attributes)
        return found

    def on(self, replace: Callable[[Any], Any], home) -> Setup:
        """A copy on other backends: replace(ops) for each of the network's, and `home`."""
        devices = self.devices and [replace(ops) for ops in self.devices]
        return self.changed(net=self.net.mapped(replace), devices=devices, home=home)

    def _margin(self):
        """That of the option or the network's family; else what the style layers need, up to the smallest scale."""
        found = self.value("margin")
        if found is None:
            styles = losses.layer_names({"style_layers": self.loss_settings["style_layers"]})
            found = min(needed_margin(self.net, styles, self.sizes[-1]), *self.sizes[0])
        return found

    def _style_sizes(self, side):
        longest = math.ceil(self.options.style_scale * side)
        return [self._size(style, longest) for style in self.styles]

    def _all_sizes(self):
        """Of the result, then of all other pictures that the network sees."""
        sides = [side for side, _ in reversed(self.schedule)]
        styles = [size for side in sides for size in self._style_sizes(side)]
        return [*(self._size(self.content, side) for side in sides), *styles]

    def _begin_where(self, fits):
        """Leave out the first of a quality's scales, those whose longest side does not fit; the rest begin as they."""
        if self.options.uses_quality:
            sides, counts = zip(*self.schedule)
            first = next((i for i, side in enumerate(sides) if fits(side)), len(sides) - 1)
            self.schedule = list(zip(sides[first:], counts))

    def _fits(self, longest):
        """Whether pictures of a scale are large enough for the layers."""
        program = self.program()
        try:
            for size in (self._size(self.content, longest), *self._style_sizes(longest)):
                program.shapes(size)
        except ShapeError:
            return False
        return True

    def _size(self, picture, longest):
        return images.target_size(*picture.rgb.shape[:2], longest, compat=self.options.compat)

    def _loss_settings(self):
        """Those that the options, or else the network, have; a loss's own default stands for what both leave open."""
        found = {name: self.value(name) for name in losses.setting_names()}
        for name, value in found.items():
            if value is None and name in self._defaults:
                height, width = self._all_sizes()[0]
                raise OptionError(
                    f"{self.net.definition.source}: no layer makes a feature map of a picture of {width}×{height} and "
                    f"of the smaller scales and styles; say which layers to use with --{name.replace('_', '-')} "
                    "('cvstyle info' lists them)"
                )
        return {name: value for name, value in found.items() if value is not None}

    def _assign_devices(self, devices):
        """Give each device layers or tiles."""
        cuts = self.options.multigpu_strategy
        if self.options.shares_tiles:
            self.devices = devices
            return
        side = self.tile_size if isinstance(self.tile_size, int) else _LARGEST_TILE if self.tile_size else math.inf
        window = tuple(min(n, side) for n in self.padded_sizes[-1])
        cuts = cuts or placement.balanced(self.program(), window, len(devices), self._bytes_on_first_device())
        self.net = self.net.across(devices, cuts)
        idle = len(devices) - len(self.program().devices)
        if idle:
            raise OptionError(
                f"the split after layers {','.join(map(str, cuts))} leaves {idle} of {len(devices)} devices without a "
                "layer that is asked for; split earlier"
            )

    def _bytes_on_first_device(self):
        """About how much of the picture's kind the network's first backend holds; nothing where the host has it."""
        if self.home is not self.net.ops:
            return 0
        kept = self.optimizer.kept(self.schedule[-1][1], self.home.history_itemsize, **self.optimizer_settings)
        return (_PICTURES + kept.state) * 12 * math.prod(self.padded_sizes[-1])  # three channels of float32
