"""A job: the inputs of a run as plain values, which can be sent to another thread, process or machine."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from .. import backends, images, process, zoo
from ..errors import OptionError
from ..graph import Network, load_network
from ..optimize import Stop
from ..options import CONVENTION, Compute, Options, style_paths
from ..saved_style import style_of
from ..style import listed
from .loop import Iterate
from .planner import Plan, Planner
from .regions import read_regions
from .run import Result, Run
from .setup import Setup


@dataclass
class Job:
    """Pictures, a network, options and devices: see `stylize`.

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
        self.options.check(len(styles))
        self.options.check_masks(len(styles))
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
        options, content, styles, start = self._pictures(styles)
        regions, remarks = read_regions(options, content, styles, names)
        reading_peak = process.peak()
        devices = [backends.get(device) for device in listed(self.devices or [])]
        if not devices and self.network is None:
            devices = self.compute.devices(options)
        net = load_network(*files, devices[0], **options.convention) if files else self.network
        setup = Setup(net, content, styles, start, options, devices, regions, remarks)
        setup.reading_peak = reading_peak if reading_peak > peak else 0
        return setup

    def _pictures(self, styles):
        """(the options for the content's size, content, styles, picture to start from), each picture at the largest
        size that the run needs of it."""
        options = self.options

        def read(thing, role, factor=1):
            def fit(height, width):
                side = options.for_content((height, width)).schedule(1)[-1][0]
                return images.target_size(height, width, math.ceil(factor * side), options.compat)

            name = thing if isinstance(thing, (str, os.PathLike)) else role
            return images.filled(images.as_picture(thing, role, fit), name)

        content = read(self.content, "content")
        if not options.image_size:
            options = options.for_content(content.proportions)
            options.check(len(styles))
        styles = [
            style_of(style) or read(style, f"style {number}", options.style_scale)
            for number, style in enumerate(styles, 1)
        ]
        return options, content, styles, read(options.init_image, "init_image") if options.init_image else None

    def _styles(self):
        """The styles as a list, from a list, one style, or a comma list of paths."""
        if isinstance(self.styles, str):
            return style_paths(self.styles)
        return listed(self.styles)


def embedded_network(backend="auto") -> Network:
    """The small network that comes with cvstyle, distilled from a trained network (docs/embedded-network.md)."""
    return load_network(*zoo.embedded_files(), backend)
