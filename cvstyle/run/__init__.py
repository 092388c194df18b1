"""A run: pictures in, the objective minimised, a picture out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import OptionError
from ..network import Network
from ..options import Compute, Options
from .job import Job, embedded_network
from .loop import Iterate
from .planner import Plan
from .run import Result, Run

__all__ = ["Iterate", "Job", "Plan", "Result", "Run", "embedded_network", "plan", "stylize"]


def stylize(
    content, styles, *, proto: str | None = None, model: str | None = None, backend="auto",
    network: Network | None = None, devices: Sequence | None = None,
    callback: Callable[[Iterate], None] | None = None, options: Options | None = None,
    planned: Callable[[Plan], None] | None = None, **settings,
) -> Result:  # fmt: skip
    """Give the content picture the look of the style pictures.

    content, styles: paths, `Picture`s, Pillow images or arrays (H, W, 3), RGB; one style need not be in a list.
    proto, model: a Caffe network, see `load_network`; the embedded one without them. network: one that is loaded
    already, instead. callback is called after every iteration and may raise `cvstyle.Stop`. Settings are the fields of
    `Options`, given by name or as one object. devices: backends that share the work (`Options.split`), the first of
    which is that of the network; for tiles without a tile size, one is chosen that gives each a tile. planned is called
    before the work starts where a plan is made: for large pictures and automatic tiles.

    Raises ImageError, ModelError or OptionError before the work starts. Ctrl-C, NaN and infinity end the run with the
    last good picture (`Result.stopped`); NumericalError where there is none.
    """
    return job(content, styles, proto, model, backend, network, devices, options, settings).run(callback, planned)


def plan(
    content, styles, *, proto=None, model=None, backend="auto", network=None, devices=None, options=None, **settings
) -> tuple[Plan, int]:
    """(what `stylize` with these arguments would need, the longest side that fits with automatic tiles)."""
    return job(content, styles, proto, model, backend, network, devices, options, settings).plan()


def job(content, styles, proto, model, backend, network, devices, options, settings) -> Job:
    """The job of `stylize`'s arguments. Raises OptionError where settings are given beside options."""
    if options is not None and settings:
        raise OptionError(f"options and {', '.join(settings)} are both given; put all settings into the options")
    compute = Compute(backend=backend) if isinstance(backend, str) else Compute()
    if devices is None and not isinstance(backend, str):
        devices = [backend]
    options = Options.from_dict(settings) if options is None else options
    return Job(content, styles, proto, model, options, compute, network, devices)
