"""The run: pictures in, the objective minimised, a picture out."""

from __future__ import annotations

import json
import math
import os
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise

import cv2
import numpy as np

from . import backends, checkpoint, images, optimize, placement, tiles, zoo
from .errors import CheckpointError, CheckpointWarning, NumericalError, OptionError
from .losses import parse_layer
from .network import Network, load_network
from .objective import Objective
from .plan import Plan, Planner, optimizer_pictures, refuse_what_cannot_fit

_LONGEST = 1 << 20  # pixels
_CHECK = 50  # iterations after which the losses of a device are looked at for NaN and infinity
_SHARES = (1, 1 / 2, 1 / 5, 1 / 10, 1 / 20)  # of num_iterations for each scale: those of the reference's recipe
_LARGE = 2_000_000  # pixels from which a plan is made without being asked for
_LARGEST_TILE = 2048  # what layers are balanced for before automatic tiles are found
_SMALLEST = 256  # the first of automatic scales is at least as large
_PICTURES = 4  # as large as the result: itself, its gradient, the last two good ones
_COMPAT_HISTORY = 100  # neural_style.lua's L-BFGS
_NOISE = 0.001  # neural_style.lua starts from noise of this standard deviation, in its 0..256 units


@dataclass
class Options:
    """The options of a style transfer; None takes the default of the network (`zoo`) or of the optimiser.

    Sizes are in pixels, weights as in `Objective`; learning_rate is in 0..255 units.
    compat: the numbers of neural_style.lua: values times 256, and its way of resizing.
    bounds: keep the pixels in 0..255 (optimizer lbfgsb only).
    margin: pixels on every side that are computed beyond the picture, beginning as its mirror image, and cut off.
    seed: None or a negative number draws one; it is reported in the result.
    lbfgs_smooth: by how much L-BFGS favours the picture's long waves (`optimize.pyramid`); 0: not at all, as the
        reference; None: by what is best for most pictures, or not at all under compat.
    scales: sizes to go through, ascending, each from the result of the one before; "auto": from 256 or more up to
        image_size by doubling; None: image_size alone. The last is the size of the result. The first has
        num_iterations, the later ones fewer.
    scale_iterations: iterations of each scale instead; a last number serves all scales that are left.
    tile_size: see `Objective`; "auto" takes the largest that fits into the free memory (see `plan`).
    split: what several devices share: "tiles", computed at the same time, or "layers", of which each has some: the
        memory is spread, but one works at a time. None: layers where multigpu_strategy is given, else tiles.
    multigpu_strategy: the layers after which the next device takes over (see `Network.across`); None: those that
        balance the memory.
    average_iterates: the result, and the start of the next scale, is the average of the scale's iterates in which each
        weighs this much less than the one after it: a_t = d a_{t-1} + (1 - d) x_t over 1 - d^t (Kingma and Ba 2015,
        section 7.2); 0: the last iterate.
    offload: keep the picture, the optimiser's state and the content's features in host memory ("") or in files in this
        folder, whatever the backend.
    checkpoint: a file to go on from, written every checkpoint_iter iterations, when the run is interrupted and when it
        ends; where it cannot be written, a CheckpointWarning says so and the run goes on. resume: go on from it if it
        is there.
    """

    image_size: int = 512
    style_scale: float = 1.0
    style_blend_weights: Sequence[float] | None = None
    content_weight: float | None = None
    style_weight: float | None = None
    tv_weight: float | None = None
    content_layers: Sequence | None = None
    style_layers: Sequence | None = None
    num_iterations: int | None = None
    optimizer: str = "lbfgs"
    learning_rate: float = 10.0
    lbfgs_num_correction: int = 0
    lbfgs_smooth: float | None = None
    bounds: bool = False
    init: str | None = None
    init_image: str | None = None
    normalize_gradients: bool = False
    pooling: str = "max"
    original_colors: bool = False
    seed: int | None = None
    compat: bool = False
    margin: int | None = None
    scales: Sequence[int] | str | None = None
    scale_iterations: Sequence[int] | None = None
    tile_size: int | str | None = None
    split: str | None = None
    multigpu_strategy: Sequence[int | str] | None = None
    average_iterates: float = 0.0
    offload: str | None = None
    checkpoint: str | None = None
    checkpoint_iter: int = 50
    resume: bool = False

    def check(self, styles: int) -> None:
        """Raises OptionError for values that make no sense, and for options that contradict each other."""
        for name in ("image_size", "style_scale", "num_iterations", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise OptionError(f"{name} is {value}; a number above zero is needed")
        self._check_scales()
        longest = self.stages(1)[-1][0]
        if longest * max(1, self.style_scale) > _LONGEST:
            sizes = f"image_size {longest} × style_scale {self.style_scale}"
            raise OptionError(f"{sizes} is more than {_LONGEST} pixels")
        for name in ("content_weight", "style_weight", "tv_weight"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise OptionError(f"{name} is {value}; a finite number that is not negative is needed")
        if self.margin is not None and not 0 <= self.margin <= longest:
            raise OptionError(f"margin is {self.margin}; a number from 0 to the picture's longest side is needed")
        if self.lbfgs_num_correction < 0:
            raise OptionError(f"lbfgs_num_correction is {self.lbfgs_num_correction}; it cannot be negative")
        if self.lbfgs_smooth is not None and not 0 <= self.lbfgs_smooth <= 2:
            raise OptionError(f"lbfgs_smooth is {self.lbfgs_smooth}; a number from 0 to 2 is needed")
        if self.init not in (None, "random", "image"):
            raise OptionError(f"init must be random or image, not '{self.init}'")
        if self.init == "random" and self.init_image:
            raise OptionError("init random starts from noise and init_image from a picture; leave one of them out")
        optimize.get(self.optimizer)
        if self.bounds and self.optimizer != "lbfgsb":
            raise OptionError(f"bounds need optimizer lbfgsb; {self.optimizer} has none")
        if self.style_blend_weights is not None and len(self.style_blend_weights) != styles:
            raise OptionError(f"{len(self.style_blend_weights)} style blend weights for {styles} style pictures")
        if not styles:
            raise OptionError("no style picture is given")
        if isinstance(self.tile_size, str) and self.tile_size != "auto":
            raise OptionError(f"tile_size is '{self.tile_size}'; auto, or a number of pixels, is needed")
        if isinstance(self.tile_size, int) and self.tile_size < 1:
            raise OptionError(f"tile_size is {self.tile_size}; a number of pixels above zero is needed")
        if not 0 <= self.average_iterates < 1:
            raise OptionError(f"average_iterates is {self.average_iterates}; a number from 0 to below 1 is needed")
        if self.split not in (None, "tiles", "layers"):
            raise OptionError(f"split must be tiles or layers, not '{self.split}'")
        if self.split == "tiles" and self.multigpu_strategy:
            raise OptionError("multigpu_strategy splits layers and split asks for tiles; leave one of them out")
        if self.offload and not os.path.isdir(self.offload):
            raise OptionError(f"{self.offload}: there is no such folder to offload to")
        if self.checkpoint_iter < 1:
            raise OptionError(f"checkpoint_iter is {self.checkpoint_iter}; a number above zero is needed")
        if self.resume and not self.checkpoint:
            raise OptionError("resume needs checkpoint, the file to go on from")
        if self.checkpoint:
            checkpoint.check_writable(self.checkpoint, self.resume)

    def _check_scales(self):
        if isinstance(self.scales, str) and self.scales != "auto":
            raise OptionError(f"scales is '{self.scales}'; auto, or sizes such as 256,512,1024, are needed")
        sizes = self.stages(1)
        if any(size < 1 for size, _ in sizes) or any(a >= b for (a, _), (b, _) in pairwise(sizes)):
            raise OptionError(f"scales {','.join(str(s) for s, _ in sizes)} must be above zero and ascend")
        if self.scale_iterations is not None:
            counts = list(self.scale_iterations)
            if not counts or min(counts) < 1 or len(counts) > len(sizes):
                counts = ",".join(map(str, counts))
                raise OptionError(f"iterations {counts} do not fit {len(sizes)} scales, one number above zero for each")

    def stages(self, count: int) -> list[tuple[int, int]]:
        """(size, iterations) of each scale; count: iterations of the first."""
        sizes = [self.image_size]
        if self.scales == "auto":
            while sizes[0] // 2 >= _SMALLEST:
                sizes.insert(0, sizes[0] // 2)
        elif self.scales:
            sizes = list(self.scales)
        counts = [max(1, round(count * share)) for share in _SHARES]
        if self.scale_iterations:
            counts = list(self.scale_iterations)
        return [(size, counts[min(i, len(counts) - 1)]) for i, size in enumerate(sizes)]


@dataclass
class Iterate:
    """What one iteration reports, to a callback while that runs."""

    iteration: int
    num_iterations: int
    asynchronous: bool
    """Whether a device goes on by itself: losses fetched now and read after the next iteration cost nothing."""
    _read: Callable = field(repr=False)
    _render: Callable = field(repr=False)

    def fetch(self) -> None:
        """Start to copy the losses from the device."""
        self._arriving  # noqa: B018

    @cached_property
    def _arriving(self):
        return self._read()

    @cached_property
    def losses(self) -> dict[str, float]:
        """The weighted parts, evaluated where the iteration began; a device is waited for when this is first read."""
        return self._arriving()

    @property
    def loss(self) -> float:
        """The sum of the losses."""
        return math.fsum(self.losses.values())

    def picture(self) -> images.Picture:
        """The picture that the iteration ended in, as the result would be."""
        return self._render()


@dataclass
class Result:
    """The outcome of a run. stopped: "" for a whole run, else why it ended early. checkpoint: the iteration that the
    checkpoint is at; None where there is none."""

    picture: images.Picture
    losses: dict[str, float]
    loss: float
    iterations: int
    seed: int
    stopped: str = ""
    checkpoint: int | None = None


def stylize(
    content: str,
    styles: Sequence[str],
    *,
    proto: str | None = None,
    model: str | None = None,
    backend="auto",
    network: Network | None = None,
    devices: Sequence | None = None,
    callback: Callable[[Iterate], None] | None = None,
    options: Options | None = None,
    planned: Callable[[Plan], None] | None = None,
    **settings,
) -> Result:
    """Give the content picture the look of the style pictures.

    content, styles: paths. proto, model: a Caffe network; the embedded one without them. network: one that is loaded
    already, instead. callback is called after every iteration and may raise `optimize.Stop`. Settings are the fields
    of `Options`, given by name or as one object. devices: backends that share the work (`Options.split`), the first of
    which is that of the network; for tiles without a tile size, one is chosen that gives each a tile. planned is called
    before the work starts where a plan is made: for large pictures and automatic tiles.

    Raises ImageError, ModelError or OptionError before the work starts. Ctrl-C, NaN and infinity end the run with the
    last good picture (`Result.stopped`); NumericalError where there is none.
    """
    run = _run(content, styles, proto, model, backend, network, devices, callback, options, settings)
    run.begin(planned)
    return run.run()


def plan(
    content, styles, *, proto=None, model=None, backend="auto", network=None, devices=None, options=None, **settings
) -> tuple[Plan, int]:
    """(what `stylize` with these arguments would need, the longest side that fits with automatic tiles)."""
    run = _run(content, styles, proto, model, backend, network, devices, None, options, settings)
    planner, arguments = run.planner()
    _, _, _, *rest = arguments
    return planner.plan(*arguments), planner.largest(run.sizes[-1], *rest)


def _run(content, styles, proto, model, backend, network, devices, callback, options, settings):
    """A run that has not begun."""
    try:
        options = options or Options(**settings)
    except TypeError as error:
        raise OptionError(str(error).replace("Options.__init__() got an ", "")) from None
    options.check(len(styles))
    if model and not proto:
        raise OptionError(f"{model}: a model needs the prototxt that belongs to it (--proto)")
    pictures = [images.read(path) for path in (content, *styles)]
    start = images.read(options.init_image) if options.init_image else None
    net = network or (load_network(proto, model, backend) if proto else embedded_network(backend))
    return _Run(net, devices, pictures[0], pictures[1:], start, options, callback)


def embedded_network(backend="auto") -> Network:
    """The network that comes with cvstyle: rectified wavelets, no training (see models/ and docs/)."""
    return load_network(*zoo.embedded_files(), backend)


class _Run:
    """The scales one after the other. Iterations are counted through all of them."""

    def __init__(self, net, devices, content, styles, start, options, callback):
        self.net, self.content, self.styles, self.start = net, content, styles, start
        self.options, self.callback = options, callback
        self.ops = net.ops if options.offload is None else backends.host(options.offload)
        self.units = 256.0 if options.compat else 255.0
        self.seed = options.seed if options.seed is not None and options.seed >= 0 else random.randrange(2**31)
        self.defaults = zoo.defaults(net.layer_names, options.compat)
        self.layers = {kind: self._layers(kind) for kind in ("content_layers", "style_layers")}
        self.stages = options.stages(self._setting("num_iterations"))
        self.count = sum(iterations for _, iterations in self.stages)
        self.sizes = [self._size(longest) for longest, _ in self.stages]
        self.margin = self._setting("margin")
        self.widened = [images.widened(size, self.margin) for size in self.sizes]
        self.tile_size, self.devices = options.tile_size, None
        if devices and len(devices) > 1:
            self._share(devices)
        self.good, self.done, self.report, self.state, self.ended = None, 0, ({}, math.nan), None, False
        self._unchecked = self.saved = None
        self.average, self.averaged = None, 0  # before its division, and of how many
        self.between = None  # the result of a scale, until the next one has its start

    def _share(self, devices):
        """Give each device layers or tiles."""
        cuts, split = self.options.multigpu_strategy, self.options.split
        if split == "tiles" or (split is None and not cuts):
            self.devices = devices
            return
        side = self.tile_size if isinstance(self.tile_size, int) else _LARGEST_TILE if self.tile_size else math.inf
        window = tuple(min(n, side) for n in self.widened[-1])
        cuts = cuts or placement.balanced(self._program(), window, len(devices), self._held())
        self.net = self.net.across(devices, cuts)
        idle = len(devices) - len(self._program().devices)
        if idle:
            raise OptionError(
                f"the split after layers {','.join(map(str, cuts))} leaves {idle} of {len(devices)} devices without a "
                "layer that is asked for; split earlier"
            )

    def _held(self):
        """About how many bytes the backend of picture and optimiser holds of them; none where the host has them."""
        if self.ops is not self.net.ops:
            return 0
        pairs = self._pairs(self.stages[-1][1]) if self.options.optimizer == "lbfgs" else 0
        pictures = _PICTURES + optimizer_pictures(self.options.optimizer, pairs, self.ops.history_itemsize)
        return pictures * 12 * math.prod(self.widened[-1])  # three channels of float32

    def _program(self):
        """What the layers of content and style need, on the devices that have them."""
        return self.net.with_pooling(self.options.pooling).program(dict.fromkeys(self._layer_names()))

    def _layer_names(self):
        return [parse_layer(entry)[0] for layers in self.layers.values() for entry in layers]

    def planner(self):
        """(a planner, the arguments of its `plan` for this run)."""
        options = self.options
        settings = {**self.layers, "pooling": options.pooling, "normalize_gradients": options.normalize_gradients}
        chosen, history = self._optimizer_options(), 0
        if options.optimizer == "lbfgsb":
            history = chosen["history"]
        elif options.optimizer == "lbfgs":  # that of the scale for which it is largest
            pairs = (self._pairs(count) * math.prod(size) for (_, count), size in zip(self.stages, self.widened))
            history = max(pairs) / math.prod(self.widened[-1])
        arguments = (self.stages, self.sizes, self.tile_size, options.optimizer, history, options.offload)
        chosen.pop("history", 0)
        averages = 2 if options.average_iterates else 0
        styles = self._style_sizes(self.stages[-1][0])
        return Planner(self.net, settings, styles, self.devices, averages, chosen, self.margin), arguments

    def begin(self, planned) -> None:
        """Plan where that is worth its time, refuse what cannot be done, and set up the first scale."""
        largest = max(map(math.prod, [self.widened[-1], *self._style_sizes(self.stages[-1][0])]))
        if self.tile_size == "auto" or largest >= _LARGE:
            planner, arguments = self.planner()
            found = planner.plan(*arguments)
            refuse_what_cannot_fit(planner, found, arguments)
            self.tile_size = found.tile_size if self.tile_size == "auto" else self.tile_size
            if planned:
                planned(found)
        if self.tile_size or self.devices:  # refuse what a scale cannot be cut into before the first is done
            for size in self.widened:
                tiles.split(self._program(), size, self.tile_size, len(self.devices or [None]))
        resumed = None
        if self.options.resume and os.path.exists(self.options.checkpoint):
            resumed = checkpoint.load(self.options.checkpoint)
            for ops in self._tuned:
                ops.choices.adopt(resumed[0].get("choices", {}))
        self._prepare(0)
        if resumed:
            self._resume(*resumed)
        else:
            self.x = self.ops.asarray(self._start(self.start)[None])
        self.start = None
        self.latest = self.ops.copy(self.x)

    def run(self) -> Result:
        stopped = ""
        try:
            self._minimize()
            while self.stage + 1 < len(self.stages) and not self.ended:
                self._enlarge()
                self._minimize()
            if self._evaluated:  # it may have ended between two checks
                losses, told = self.objective.losses, self.report
                self.report = (losses, math.fsum(losses.values()))
                if (self.saved, told) != (self.done, self.report):
                    self._save()
        except KeyboardInterrupt:
            if not self.done:
                raise
            stopped = "interrupted"
        except NumericalError as error:
            if self.done < 2:
                raise
            stopped, self.latest = str(error), self.good
        self.state = self.objective = self.x = None
        self.ops.trim()  # what follows works on the host, with some pictures more
        if self.latest is None:
            picture = self.between
        else:
            picture = self._render(self.good if stopped and self.latest is self.good else self._result())
        if not np.isfinite(picture.rgb).all():
            stopped = stopped or "the last step gave values that are not finite"
            picture = self._render(self.good)
        return Result(picture, *self.report, self.done, self.seed, stopped, self.saved)

    def _minimize(self):
        """Do what is left of the current scale."""
        module, settings = optimize.get(self.options.optimizer), self._optimizer_options()
        count = self.stages[self.stage][1]
        start = self.ends[self.stage] - count
        if self.done == start + count:
            return
        if hasattr(module, "init"):
            longest = [self._pairs(count)] if settings.pop("history", 0) else []
            self.state = settings["state"] = self.state or module.init(self.ops, self.x, *longest)
        optimize.minimize(
            self.options.optimizer, self.objective, self.x, count,
            lambda iteration, x: self._after(start + iteration, x), done=self.done - start, **settings,
        )  # fmt: skip
        if not self.ended:
            self.done = start + count  # SciPy may find nothing more to gain before that

    def _after(self, iteration, x):
        self._finish_check()  # of the iteration before: the device has gone on meanwhile
        iterate = Iterate(
            iteration, self.count, self.ops.asynchronous, self.objective.read_losses,
            lambda: self._render(self._result(at)),
        )  # fmt: skip
        last = iteration == self.ends[self.stage]
        if not self.ops.asynchronous or iteration < 3 or iteration % _CHECK == 0 or last:
            iterate.fetch()
            self._unchecked = iterate, self.latest
        if not self.ops.asynchronous or iteration < 3 or last:
            self._finish_check()
        average = self._averaged(x)
        self.latest, self.average, self.averaged = self.ops.copy(x), average, self.averaged + 1
        at = self.latest, average, self.averaged
        self.done, self._evaluated = iteration, True
        if iteration % self.options.checkpoint_iter == 0:
            self._save()
        if self.callback:
            try:
                self.callback(iterate)
            except (KeyboardInterrupt, optimize.Stop):
                self.ended = True
                self._save()
                raise

    def _averaged(self, x):
        """The average with one iterate more, or None where there is none."""
        decay = self.options.average_iterates
        if not decay:
            return None
        before = self.ops.zeros(x.shape) if self.average is None else self.ops.copy(self.average)
        return self.ops.add_scaled(self.ops.scale(before, decay), 1 - decay, x)

    def _result(self, at=None):
        """What the run has come to, or had at (latest, average, averaged): the last iterate, or the average."""
        latest, average, averaged = at or (self.latest, self.average, self.averaged)
        if average is None:
            return latest
        return self.ops.scale(self.ops.copy(average), 1 / (1 - self.options.average_iterates**averaged))

    def _finish_check(self):
        if self._unchecked is None:
            return
        (iterate, picture), self._unchecked = self._unchecked, None
        losses, loss = iterate.losses, iterate.loss
        if not math.isfinite(loss):
            bad = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
            raise NumericalError(
                f"the loss became {loss} at iteration {iterate.iteration} ({bad}); smaller weights, optimizer adam or "
                "lbfgsb, or normalize_gradients may help"
            )
        # The losses belong to the picture before this step, so that one is known to be good.
        self.good, self.report = picture, (losses, loss)

    # Scales

    def _prepare(self, stage):
        """Set up a scale: the content picture at its size, and the objective."""
        self.stage, self._evaluated = stage, False
        self.ends = [sum(n for _, n in self.stages[: i + 1]) for i in range(len(self.stages))]
        self.size = self.sizes[stage]
        self.content_rgb = self._resize(self.content.rgb, self.size)
        self.objective = None  # its memory is free before the next one's is taken
        self.objective = self._objective(self.stages[stage][0])

    def _enlarge(self):
        """Go to the next scale from the result of this one; Adam's moments go along, L-BFGS starts its history anew."""
        result = self._result()
        self.between = self._render(result)
        x, moments = self.ops.to_host(result), None
        if self.options.optimizer == "adam":
            moments = [self.ops.to_host(m) for m in (self.state.m, self.state.v)]
            step = self.state.step
        self.state = self.x = self.latest = self.good = self.average = result = None
        self.averaged = 0
        self._prepare(self.stage + 1)
        self.x = self.ops.asarray(self._enlarged(x))
        self.good = self.latest = self.ops.copy(self.x)
        self.between = None
        if moments:
            m, v = (self.ops.asarray(self._enlarged(moment)) for moment in moments)
            self.state = optimize.get("adam").State(m, v, step)

    def _enlarged(self, x):
        """A host array (1, 3, H, W) at the current size, with its margin made anew.

        Linear, so that Adam's second moments stay positive.
        """
        planes = np.ascontiguousarray(self._cropped(x[0]).transpose(1, 2, 0))
        height, width = self.size
        resized = cv2.resize(planes, (width, height), interpolation=cv2.INTER_LINEAR)
        return self._mirrored(resized.transpose(2, 0, 1))[None]

    def _size(self, longest):
        return images.target_size(*self.content.rgb.shape[:2], longest, compat=self.options.compat)

    # Checkpoints

    def _settings_kept(self):
        """What a run that goes on must have in common with the one that wrote the checkpoint."""
        options = self.options
        names = ("content_weight", "style_weight", "tv_weight", "init")
        kept = {name: self._setting(name) for name in names}
        kept |= {name: [str(entry) for entry in layers] for name, layers in self.layers.items()}
        names = (
            "style_scale", "style_blend_weights", "optimizer", "learning_rate", "lbfgs_num_correction", "bounds",
            "normalize_gradients", "pooling", "compat", "average_iterates",
        )  # fmt: skip
        kept |= {name: getattr(options, name) for name in names}
        if options.optimizer == "lbfgs":
            kept["lbfgs_smooth"] = self._optimizer_options().get("smooth") or None  # runs before there was one had none
            kept["backend, by the bytes of a value in its L-BFGS history"] = self.ops.history_itemsize
        kept["margin"] = self.margin or None  # runs before there were margins had none
        kept["scales"] = [size for size, _ in self.stages]
        kept["network"] = self.net.digest(self._layer_names())
        kept["content picture"] = checkpoint.digest(self.content.rgb)
        kept["style pictures"] = [checkpoint.digest(style.rgb) for style in self.styles]
        return kept

    def _save(self):
        if not self.options.checkpoint:
            return
        self._finish_check()
        if not math.isfinite(float(self.ops.dot(self.latest, self.latest))):
            return  # the next look at the losses ends the run; the checkpoint from before may go on otherwise
        header = {
            "settings": self._kept, "stage": self.stage, "iterations": [n for _, n in self.stages], "done": self.done,
            "seed": self.seed, "losses": self.report[0], "averaged": self.averaged, "numbers": {},
            "choices": {key: choice for ops in self._tuned for key, choice in ops.choices.kept.items()},
        }  # fmt: skip
        arrays = {"x": self.latest}
        if self.average is not None:
            arrays["average"] = self.average
        for entry in fields(self.state) if self.state else ():
            value = getattr(self.state, entry.name)
            if isinstance(value, (int, float)):
                header["numbers"][entry.name] = value
            else:
                arrays[f"state.{entry.name}"] = value
        to_host = np.asarray if backends.is_host(self.ops.name) else self.ops.to_host
        try:
            checkpoint.save(self.options.checkpoint, header, arrays, to_host)
            self.saved = self.done
        except CheckpointError as error:
            warnings.warn(f"{error}; the run goes on", CheckpointWarning, stacklevel=2)

    @cached_property
    def _kept(self):
        return self._settings_kept()

    @cached_property
    def _tuned(self):
        """The backends that measure which way of doing things is fastest: results depend on what they chose."""
        return [ops for ops in self.devices or self._program().devices if ops.autotune]

    def _resume(self, header, arrays):
        path = self.options.checkpoint
        checkpoint.check_same(path, header["settings"], json.loads(json.dumps(self._kept)))
        before, stage = header["iterations"], header["stage"]
        if before[:stage] != [n for _, n in self.stages[:stage]]:
            raise CheckpointError(f"{path}: the scales that it has done had {before[:stage]} iterations")
        self.done = self.saved = header["done"]
        self.seed = header["seed"]
        self.report = (header["losses"], math.fsum(header["losses"].values()))
        if self.done > self.ends[stage]:
            raise CheckpointError(f"{path}: it is at iteration {self.done} already, more than are asked for")
        if stage:
            self._prepare(stage)
        take = self.ops.asarray
        self.x = take(arrays["x"])
        if "average" in arrays:
            self.average, self.averaged = take(arrays["average"]), header["averaged"]
        module = optimize.get(self.options.optimizer)
        state = {name[len("state.") :]: array for name, array in arrays.items() if name.startswith("state.")}
        if self.options.optimizer == "lbfgs":  # more iterations may be asked for than the history was made for
            state = module.with_room(state, self._pairs(self.stages[stage][1]))
        if state:
            state = {name: take(array) for name, array in state.items()}
            self.state = module.State(**state, **header["numbers"])
        self.good = take(arrays["x"])

    def _objective(self, longest):
        options = self.options
        sizes = self._style_sizes(longest)
        prepared = [self._preprocess(self._resize(style.rgb, size)) for style, size in zip(self.styles, sizes)]
        weights = {name: self._setting(name) for name in ("content_weight", "style_weight", "tv_weight")}
        return Objective(
            self.net, self._mirrored(self._preprocess(self.content_rgb)), prepared, **weights, **self.layers,
            style_blend_weights=options.style_blend_weights, normalize_gradients=options.normalize_gradients,
            pooling=options.pooling, tile_size=self.tile_size, devices=self.devices,
            home=None if self.ops is self.net.ops else self.ops,
        )  # fmt: skip

    def _style_sizes(self, longest):
        """(height, width) of each style beside a picture of this longest side."""
        longest, compat = math.ceil(self.options.style_scale * longest), self.options.compat
        return [images.target_size(*style.rgb.shape[:2], longest, compat=compat) for style in self.styles]

    def _layers(self, kind):
        layers = self._setting(kind)
        if layers is None:
            raise OptionError(
                f"{self.net.definition.source} is not a network that cvstyle knows: say which layers to use with "
                f"--{kind.replace('_', '-')} ('cvstyle info' lists them)"
            )
        return layers

    def _setting(self, name):
        value = getattr(self.options, name)
        return self.defaults.get(name) if value is None else value

    def _pairs(self, count):
        """Pairs that L-BFGS keeps in so many iterations."""
        return min(self._optimizer_options()["history"], count)

    def _optimizer_options(self):
        options, module = self.options, optimize.get(self.options.optimizer)
        if options.optimizer == "adam":
            return {"learning_rate": options.learning_rate}
        chosen = {"history": module.HISTORY}
        if options.optimizer == "lbfgs":
            chosen |= {"history": _COMPAT_HISTORY} if options.compat else module.FOR_PICTURES
            if options.lbfgs_smooth is not None:
                chosen["smooth"] = options.lbfgs_smooth
        if options.lbfgs_num_correction:
            chosen["history"] = options.lbfgs_num_correction
        if options.bounds:
            ends = (np.full((1, 1, 3), value, np.float32) for value in (0, 255))
            chosen["bounds"] = tuple(self._preprocess(end)[None] for end in ends)
        return chosen

    def _start(self, start):
        if start is not None:
            return self._mirrored(self._preprocess(self._resize(start.rgb, self.size)))
        if self._setting("init") == "image":
            return self._mirrored(self._preprocess(self.content_rgb))
        size = self.widened[self.stage]
        noise = np.random.default_rng(self.seed).standard_normal((3, *size), dtype=np.float32)
        return noise * np.float32(_NOISE)

    def _resize(self, rgb, size):
        return images.resize(rgb, size, compat=self.options.compat)

    def _mirrored(self, x):
        """(C, H, W) with the margin around it."""
        ends = (self.margin, self.margin)
        return np.pad(x, ((0, 0), ends, ends), "symmetric") if self.margin else x

    def _cropped(self, x):
        """(C, H, W) without the margin."""
        rows, columns = (slice(self.margin, n - self.margin) for n in x.shape[1:])
        return x[:, rows, columns]

    def _preprocess(self, rgb):
        return images.preprocess(rgb, scale=self.units)

    def _render(self, x):
        rgb = images.deprocess(self._cropped(self.ops.to_host(x)[0]), scale=self.units)
        if self.options.original_colors:
            rgb = images.original_colors(self.content_rgb, rgb)
        alpha = self.content.alpha
        if alpha is not None:
            alpha = images.resize(alpha[..., None], self.size, compat=self.options.compat)[..., 0]
        return images.Picture(rgb, alpha, self.content.icc)
