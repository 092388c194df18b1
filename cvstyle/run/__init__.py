"""Runs: from pictures, by minimising the objective, to a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..control import Canvas
from ..errors import OptionError
from ..graph import Network
from ..options import Compute, Options
from .job import Job, embedded_network
from .loop import Iterate
from .planner import Plan
from .run import Result, Run
from .saving import save_style

__all__ = ["Iterate", "Job", "Plan", "Result", "Run", "embedded_network", "plan", "save_style", "stylize", "synthesize"]


def stylize(
    content, styles, *, proto: str | None = None, model: str | None = None, backend="auto",
    network: Network | None = None, devices: Sequence | None = None,
    callback: Callable[[Iterate], None] | None = None, options: Options | None = None,
    planned: Callable[[Plan], None] | None = None, **settings,
) -> Result:  # fmt: skip
    """Give the content picture the look of the style pictures.

    content, styles: paths, `Picture`s, Pillow images or arrays (H, W, 3), RGB; a single style needs no list. Styles may
    also be saved ones, as `SavedStyle` or path (see `save_style`).
    proto, model: the files of a Caffe network, see `load_network`; default: the embedded network. network: a loaded
    network instead. callback: called after every iteration; may raise `cvstyle.Stop`. settings: the fields of
    `Options`, by name or as one `options` object. devices: backends that share the work (`Options.split`), the first
    being the network's; for tiles without a tile size, each device gets a tile. planned: called with the plan before
    the work starts, for large pictures and automatic tiles.

    Raises ImageError, ModelError or OptionError before the work starts. Ctrl-C, NaN and infinity end the run with the
    last good picture (`Result.stopped`), or with NumericalError where there is none.
    """
    return job(content, styles, proto, model, backend, network, devices, options, settings).run(callback, planned)


def synthesize(
    sources, size=None, *, proto: str | None = None, model: str | None = None, backend="auto",
    network: Network | None = None, devices: Sequence | None = None,
    callback: Callable[[Iterate], None] | None = None, options: Options | None = None,
    planned: Callable[[Plan], None] | None = None, **settings,
) -> Result:  # fmt: skip
    """Make a texture of the sources from noise (Gatys, Ecker and Bethge 2015, arXiv:1505.07376).

    sources: paths, `Picture`s, Pillow images or arrays (H, W, 3), RGB, or one of these; several are blended
    (style_blend_weights). They keep their own size in pixels, times style_scale, but where they are larger than the
    result, they are reduced to its longest side. size: (height, width), one number for both, or text such as
    "2048x1024", width first; None: that of the first source, with at most 1024 pixels on the longest side. The rest is
    as for `stylize`, without the options of the photograph; wrap="x", "y" or "xy" makes a texture that repeats without
    a seam along these axes.

        cvstyle.synthesize("bricks.jpg", (1024, 2048), wrap="xy").picture

    The job of such a run is Job(cvstyle.Canvas(size=size), sources, ...).
    """
    canvas = Canvas(size=size)
    return job(canvas, sources, proto, model, backend, network, devices, options, settings).run(callback, planned)


def plan(
    content, styles, *, proto=None, model=None, backend="auto", network=None, devices=None, options=None, **settings
) -> tuple[Plan, int]:
    """(the plan of `stylize` with these arguments, the longest side that fits with automatic tiles)."""
    return job(content, styles, proto, model, backend, network, devices, options, settings).plan()


def job(content, styles, proto, model, backend, network, devices, options, settings) -> Job:
    """The job for `stylize`'s arguments. Raises OptionError for settings beside options."""
    if options is not None and settings:
        raise OptionError(f"options and {', '.join(settings)} are both given; put all settings into the options")
    compute = Compute(backend=backend) if isinstance(backend, str) else Compute()
    if devices is None and not isinstance(backend, str):
        devices = [backend]
    options = Options.from_dict(settings) if options is None else options
    return Job(content, styles, proto, model, options, compute, network, devices)
