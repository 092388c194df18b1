"""The run: pictures in, the objective minimised, a picture out."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from . import images, optimize, zoo
from .errors import NumericalError, OptionError
from .network import Network, load_network
from .objective import Objective

_LONGEST = 1 << 20  # pixels
_CHECK = 50  # iterations after which the losses of a device are looked at for NaN and infinity
_NOISE = 0.001  # neural_style.lua starts from noise of this standard deviation, in its 0..256 units


@dataclass
class Options:
    """The options of a style transfer; None takes the default of the network (`zoo`) or of the optimiser.

    Sizes are in pixels, weights as in `Objective`; learning_rate is in 0..255 units.
    compat: the numbers of neural_style.lua: values times 256, and its way of resizing.
    bounds: keep the pixels in 0..255 (optimizer lbfgsb only).
    seed: None or a negative number draws one; it is reported in the result.
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
    bounds: bool = False
    init: str | None = None
    init_image: str | None = None
    normalize_gradients: bool = False
    pooling: str = "max"
    original_colors: bool = False
    seed: int | None = None
    compat: bool = False

    def check(self, styles: int) -> None:
        """Raises OptionError for values that make no sense, and for options that contradict each other."""
        for name in ("image_size", "style_scale", "num_iterations", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise OptionError(f"{name} is {value}; a number above zero is needed")
        if self.image_size * max(1, self.style_scale) > _LONGEST:
            sizes = f"image_size {self.image_size} × style_scale {self.style_scale}"
            raise OptionError(f"{sizes} is more than {_LONGEST} pixels")
        for name in ("content_weight", "style_weight", "tv_weight"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise OptionError(f"{name} is {value}; a finite number that is not negative is needed")
        if self.lbfgs_num_correction < 0:
            raise OptionError(f"lbfgs_num_correction is {self.lbfgs_num_correction}; it cannot be negative")
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


@dataclass
class Iterate:
    """What one iteration reports, to a callback while that runs."""

    iteration: int
    num_iterations: int
    _losses: Callable = field(repr=False)
    _render: Callable = field(repr=False)

    @cached_property
    def losses(self) -> dict[str, float]:
        """The weighted parts, evaluated where the iteration began; a device is waited for when this is first read."""
        return self._losses()

    @property
    def loss(self) -> float:
        """The sum of the losses."""
        return math.fsum(self.losses.values())

    def picture(self) -> images.Picture:
        """The picture that the iteration ended in, as the result would be."""
        return self._render()


@dataclass
class Result:
    """The outcome of a run. stopped: "" for a whole run, else why it ended early."""

    picture: images.Picture
    losses: dict[str, float]
    loss: float
    iterations: int
    seed: int
    stopped: str = ""


def stylize(
    content: str,
    styles: Sequence[str],
    *,
    proto: str | None = None,
    model: str | None = None,
    backend="auto",
    network: Network | None = None,
    callback: Callable[[Iterate], None] | None = None,
    options: Options | None = None,
    **settings,
) -> Result:
    """Give the content picture the look of the style pictures.

    content, styles: paths. proto, model: a Caffe network; the embedded one without them. network: one that is loaded
    already, instead. callback is called after every iteration and may raise `optimize.Stop`. Settings are the fields
    of `Options`, given by name or as one object.

    Raises ImageError, ModelError or OptionError before the work starts. Ctrl-C, NaN and infinity end the run with the
    last good picture (`Result.stopped`); NumericalError where there is none.
    """
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
    return _Run(net, pictures[0], pictures[1:], start, options, callback).run()


def embedded_network(backend="auto") -> Network:
    """The network that comes with cvstyle: rectified wavelets, no training (see models/ and docs/)."""
    return load_network(*zoo.embedded_files(), backend)


class _Run:
    def __init__(self, net, content, styles, start, options, callback):
        self.net, self.content, self.options, self.callback = net, content, options, callback
        self.ops = net.ops
        self.units = 256.0 if options.compat else 255.0
        self.seed = options.seed if options.seed is not None and options.seed >= 0 else random.randrange(2**31)
        self.defaults = zoo.defaults(net.layer_names)
        self.size = images.target_size(*content.rgb.shape[:2], options.image_size, compat=options.compat)
        self.content_rgb = self._resize(content.rgb, self.size)
        self.objective = self._objective(styles)
        self.x = self.ops.asarray(self._start(start)[None])

    def run(self) -> Result:
        options, count = self.options, self._setting("num_iterations")
        self.count = count
        self.good, self.latest, self.done, self.report = None, self.ops.copy(self.x), 0, ({}, math.nan)
        stopped = ""
        try:
            optimize.get(options.optimizer).minimize(
                self.objective, self.x, count, self._after, **self._optimizer_options()
            )
            if self.done:  # it may have ended between two checks
                losses = self.objective.losses
                self.report = (losses, math.fsum(losses.values()))
        except KeyboardInterrupt:
            if not self.done:
                raise
            stopped = "interrupted"
        except NumericalError as error:
            if self.done < 2:
                raise
            stopped, self.latest = str(error), self.good
        picture = self._render(self.latest)
        if not np.isfinite(picture.rgb).all():
            stopped = stopped or "the last step gave values that are not finite"
            picture = self._render(self.good)
        return Result(picture, *self.report, self.done, self.seed, stopped)

    def _after(self, iteration, x):
        iterate = Iterate(iteration, self.count, lambda: self.objective.losses, lambda: self._render(picture))
        if not self.ops.asynchronous or iteration % _CHECK == 0 or iteration == self.count:
            self._check(iterate)
        self.latest = picture = self.ops.copy(x)
        self.done = iteration
        if self.callback:
            self.callback(iterate)

    def _check(self, iterate):
        losses, loss = iterate.losses, iterate.loss
        if not math.isfinite(loss):
            bad = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
            raise NumericalError(
                f"the loss became {loss} at iteration {iterate.iteration} ({bad}); smaller weights, optimizer adam or "
                "lbfgsb, or normalize_gradients may help"
            )
        # The losses belong to the picture before this step, so that one is known to be good.
        self.good, self.report = self.latest, (losses, loss)

    def _objective(self, styles):
        options = self.options
        layers = {kind: self._layers(kind) for kind in ("content_layers", "style_layers")}
        longest = math.ceil(options.style_scale * options.image_size)
        prepared = []
        for style in styles:
            size = images.target_size(*style.rgb.shape[:2], longest, compat=options.compat)
            prepared.append(self._preprocess(self._resize(style.rgb, size)))
        weights = {name: self._setting(name) for name in ("content_weight", "style_weight", "tv_weight")}
        return Objective(
            self.net, self._preprocess(self.content_rgb), prepared, **weights, **layers,
            style_blend_weights=options.style_blend_weights, normalize_gradients=options.normalize_gradients,
            pooling=options.pooling,
        )  # fmt: skip

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

    def _optimizer_options(self):
        options = self.options
        if options.optimizer == "adam":
            return {"learning_rate": options.learning_rate}
        chosen = {"history": options.lbfgs_num_correction} if options.lbfgs_num_correction else {}
        if options.bounds:
            ends = (np.full((1, 1, 3), value, np.float32) for value in (0, 255))
            chosen["bounds"] = tuple(self._preprocess(end)[None] for end in ends)
        return chosen

    def _start(self, start):
        if start is not None:
            return self._preprocess(self._resize(start.rgb, self.size))
        if self._setting("init") == "image":
            return self._preprocess(self.content_rgb)
        noise = np.random.default_rng(self.seed).standard_normal((3, *self.size), dtype=np.float32)
        return noise * np.float32(_NOISE)

    def _resize(self, rgb, size):
        return images.resize(rgb, size, compat=self.options.compat)

    def _preprocess(self, rgb):
        return images.preprocess(rgb, scale=self.units)

    def _render(self, x):
        rgb = images.deprocess(self.ops.to_host(x)[0], scale=self.units)
        if self.options.original_colors:
            rgb = images.original_colors(self.content_rgb, rgb)
        alpha = self.content.alpha
        if alpha is not None:
            alpha = images.resize(alpha[..., None], self.size, compat=self.options.compat)[..., 0]
        return images.Picture(rgb, alpha, self.content.icc)
