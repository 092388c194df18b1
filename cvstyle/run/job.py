"""A job: the inputs of a run as plain values, which can be sent to another thread, process or machine."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from .. import backends, images, process, zoo
from ..control import Canvas
from ..errors import OptionError
from ..graph import Network, load_network
from ..optimize import Stop
from ..options import CONVENTION, Compute, Options, style_paths
from ..saved_style import style_of
from ..style import listed
from . import texture
from .loop import Iterate
from .planner import Plan, Planner
from .regions import read_regions
from .run import Result, Run
from .setup import Setup


@dataclass
class Job:
    """Pictures, a network, options and devices: see `stylize`. With a `Canvas` as content, see `synthesize`.

    A job holds no state, so it can be run any number of times. It can be pickled, unless it has a `network` or
    `devices`, which cannot leave their process (OptionError); paths and `compute` name the same. proto, model: see
    `load_network`.
    """

    content: Any
    styles: Sequence  # of pictures, and of saved styles or their paths
    proto: str | None = None
    model: str | None = None
    options: Options = field(default_factory=Options)
    compute: Compute = field(default_factory=Compute)
    network: Network | None = None
    devices: Sequence | None = None

    def __getstate__(self):
        if self.network is not None or self.devices is not None:
            raise OptionError("a Job with a network or devices stays in its process; give it proto, model and compute")
        return self.__dict__

    def start(self, planned: Callable[[Plan], None] | None = None) -> Run:
        """A prepared run before its first iteration. Raises ImageError, ModelError or OptionError."""
        return Run(self.setup(), planned)

    def run(self, callback: Callable[[Iterate], None] | None = None, planned=None, prepared=None) -> Result:
        """The result of the whole run. prepared: called with the `Setup` before the first iteration."""
        with closing(self.start(planned)) as run:
            if prepared:
                prepared(run.setup)
            try:
                for iterate in run:
                    if callback:
                        callback(iterate)
            except Stop:
                run.stop()
            except KeyboardInterrupt:
                if not run.state.done:
                    raise
                run.stop("interrupted")
            return run.result()

    def plan(self) -> tuple[Plan, int]:
        """(the plan of the run, the longest side that fits with automatic tiles)."""
        planner = Planner(self.setup())
        return planner.plan(), planner.largest()

    def setup(self) -> Setup:
        """The setup of the run. Raises ImageError, ModelError or OptionError."""
        styles = self._styles()
        for name, kind in {"options": Options, "compute": Compute, "network": Network | None}.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                needed = name.capitalize()
                raise OptionError(f"{name} is of the type {type(value).__name__}; give an object of cvstyle's {needed}")
        is_texture = isinstance(self.content, Canvas)
        options = texture.of_texture(self.options, self.content) if is_texture else self.options
        options.check(len(styles))
        options.check_masks(len(styles))
        if self.network is not None and (self.proto or self.model or self.compute != Compute()):
            raise OptionError("a network has its files and its backend already; leave out proto, model and backend")
        given = [name for name in CONVENTION if getattr(self.options, name) is not None]
        if self.network is not None and given:
            raise OptionError(
                f"a network knows its pictures already; give {' and '.join(given)} to load_network instead"
            )
        files = None if self.network is not None else zoo.files_of(self.proto, self.model)
        peak = process.peak()
        names = [
            os.path.basename(style) if isinstance(style, (str, os.PathLike)) else f"style {number}"
            for number, style in enumerate(styles, 1)
        ]
        read = self._texture_pictures if is_texture else self._pictures
        options, content, styles, start = read(styles, options)
        regions, remarks = read_regions(options, content, styles, names)
        reading_peak = process.peak()
        devices = [backends.get(device) for device in listed(self.devices or [])]
        if not devices and self.network is None:
            devices = self.compute.devices(options)
        net = load_network(*files, devices[0], **options.convention) if files else self.network
        setup = Setup(net, content, styles, start, options, devices, regions, remarks, is_texture)
        setup.reading_peak = reading_peak if reading_peak > peak else 0
        return setup

    def _pictures(self, styles, options):
        """(the options for the content's size, content, styles, picture to start from), each picture at the largest
        size that the run needs of it."""

        def side(height, width):
            return options.for_content((height, width)).schedule(1)[-1][0]

        def style_side(height, width):
            return options.style_scale * side(height, width)

        content = _read(self.content, "content", side, options)
        if not options.image_size:
            options = options.for_content(content.proportions)
            options.check(len(styles))
        styles = [
            style_of(style) or _read(style, f"style {number}", style_side, options)
            for number, style in enumerate(styles, 1)
        ]
        return options, content, styles, _read(options.init_image or None, "init_image", side, options)

    def _texture_pictures(self, sources, options):
        """`_pictures` of a texture, whose first source gives the size where the canvas states none."""

        def own_side(height, width):
            return options.style_scale * texture.shown_side((height, width), options.image_size)

        sources = list(sources)
        for index, source in enumerate(sources):
            sources[index] = style_of(source) or _read(source, f"source {index + 1}", own_side, options)
            longest = options.image_size or texture.shown_side(sources[0].proportions)
            options = dataclasses.replace(options, image_size=longest)
        options.check(len(sources))
        canvas = texture.canvas_picture(self.content, options, sources)
        start = _read(options.init_image or None, "init_image", lambda height, width: options.image_size, options)
        return options, canvas, sources, start

    def _styles(self):
        """The styles as a list, from a list, one style, or a comma list of paths."""
        if isinstance(self.styles, str):
            return style_paths(self.styles)
        return listed(self.styles)


def _read(thing, role, side, options):
    """The picture, reduced to side(height, width) on its longest side, with other colours where it is transparent; None
    for None."""
    if thing is None:
        return None

    def fit(height, width):
        return images.target_size(height, width, math.ceil(side(height, width)), options.compat)

    name = thing if isinstance(thing, (str, os.PathLike)) else role
    return images.filled(images.as_picture(thing, role, fit), name)


def embedded_network(backend="auto") -> Network:
    """The small network that comes with cvstyle, distilled from a trained network (docs/embedded-network.md)."""
    return load_network(*zoo.embedded_files(), backend)
