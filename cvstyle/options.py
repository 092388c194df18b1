"""All options of a run: files, style transfer, devices and reports.

Each field is an `option(...)` (see `fields`), the record from which parser, checks and checkpoints are derived.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from . import fields, losses
from .control import Control
from .errors import OptionError
from .fields import (
    LARGE,
    MODEL,
    NETWORK,
    OPTIMISATION,
    PICTURES,
    PIXELS,
    POSITIVE,
    REPORTS,
    REQUIRED,
    WEIGHTS,
    Limits,
    Offload,
    Settings,
    option,
    options_of,
)  # fmt: skip
from .schedule import QUALITIES, custom_schedule, quality_schedule

if TYPE_CHECKING:
    from .images import Picture

_MAX_SIDE = 1 << 20  # pixels
CONVENTION = ("mean", "input_scale", "channels")
"""The options that are arguments of `load_network`."""
_SCHEDULE_OPTIONS = ("scales", "num_iterations", "scale_iterations", "compat")
_PRECISIONS = ("fp32", *(word + fast for fast in ("", "-fast") for word in ("tf32", "fp16", "bf16")))


def _as_path_or_picture(value):
    if isinstance(value, (str, os.PathLike)):
        return fields.PATH.convert(value)
    from . import images  # imported late: it needs NumPy

    return images.as_picture(value, "init_image")


def _as_colour(value):
    """(255, 0, 0) from "red", "#ff0000" or another form that Pillow knows; numbers are RGB of 0..255."""
    if isinstance(value, str):
        from PIL import ImageColor

        value = ImageColor.getrgb(value.strip())
    red, green, blue = map(fields.as_int, value)
    if not all(0 <= number <= 255 for number in (red, green, blue)):
        raise ValueError
    return red, green, blue


_COLOUR = fields.Kind(
    _as_colour, "a colour such as white or #ffeedd is needed", "is no colour such as white or #ffeedd"
)
_PICTURE = fields.Kind(_as_path_or_picture, "a path or a picture is needed")


@dataclass(kw_only=True)
class Files(Settings):
    """The files of a run."""

    content: str = option(
        REQUIRED, "the photograph", PICTURES, kind=fields.PATH, metavar="FILE", flags=("--content-image", "-c"),
        of_content=True,
    )  # fmt: skip
    style: Sequence[str] = option(
        REQUIRED, "the painting, or a saved style; several with commas or spaces between them, or --style for each",
        PICTURES, kind=fields.PATHS, metavar="FILE[,FILE]", flags=("--style-image", "-s"), repeated=True,
    )  # fmt: skip
    output: str = option(
        "out.png", "PNG, JPEG, WebP or TIFF (default: %(default)s)", PICTURES, kind=fields.PATH, metavar="FILE",
        flags=("--output-image", "-o"),
    )  # fmt: skip
    bits: int = option(8, "bits per channel of a TIFF or PNG (default: %(default)s)", PICTURES, choices=(8, 16))
    background: tuple[int, int, int] | str | None = option(
        None, "colour behind what is transparent, by name or as #rrggbb (default: white in JPEG, else none)", PICTURES,
        kind=_COLOUR, metavar="COLOUR", of_content=True,
    )  # fmt: skip
    strip: bool = option(
        False, "write no metadata: neither the photograph's date, camera, resolution, copyright and description, nor "
        "the command line", PICTURES,
    )  # fmt: skip
    proto: str | None = option(
        None, "deploy.prototxt (default: the embedded network, or the one that --model names)", MODEL,
        kind=fields.PATH, metavar="FILE", flags=("--proto-file",),
    )  # fmt: skip
    model: str | None = option(
        None, "its .caffemodel, or the name of a known model (see 'cvstyle models')", MODEL, kind=fields.PATH,
        metavar="FILE or NAME", flags=("--model-file",),
    )  # fmt: skip


@dataclass(kw_only=True)
class Compute(Settings):
    """The devices of a run (see `backends.choose`)."""

    backend: str = option(
        "auto", "%(default)s (default: a GPU if one works), cpu, gpu, or a backend that 'cvstyle devices' lists",
        NETWORK, metavar="NAME",
    )  # fmt: skip
    precision: str = option(
        "fp32",
        "precision of convolutions on an NVIDIA GPU: %(default)s (default) uses no tensor cores; tf32, fp16 and bf16 "
        "keep the gradient within 1%%; tf32-fast, fp16-fast and bf16-fast, at half the arithmetic, within 2, 2 and 6%%",
        NETWORK, metavar="NAME", choices=_PRECISIONS,
    )  # fmt: skip
    device: str | None = option(None, "device of the backend (see 'cvstyle devices')", NETWORK, metavar="N or NAME")
    gpu: str | None = option(
        None, "number of the GPU; several share the work; -1: the CPU. On a CPU backend, each device is a share of the "
        "threads", NETWORK, metavar="N[,N]",
    )  # fmt: skip
    autotune: str = option(
        "auto", "time the GPU kernels once for each shape and take the fastest: on; off: choose by an estimate; "
        "%(default)s (default): on, but off for the plans of backend cudnn",
        NETWORK, metavar="on|off", choices=("auto", "on", "off"),
        switches={"--cudnn-autotune": "on", "--no-autotune": "off"},
    )  # fmt: skip
    threads: int | None = option(
        None, "threads on the CPU (default: one per processor)", NETWORK, kind=fields.THREADS, metavar="N",
        limits=POSITIVE,
    )  # fmt: skip

    def devices(self, options: Options, say: Callable[[str], None] = lambda line: None) -> list:
        """New backend objects, one per device (see `backends.choose`). Raises OptionError.

        `threads` also limits all CPU backends that this process creates later. say: called with a line of text if
        another backend than the requested one is used.
        """
        from .backends import threads
        from .backends.choose import choose

        options_of(Compute)["autotune"].check(self.autotune)
        if self.threads is not None:
            threads.limit(self.threads)
        devices = choose(self.backend, self.device, self.gpu, self.precision, options.shares_tiles, say)
        for ops in devices:
            if self.autotune == "off" or (ops.name == "cudnn" and self.autotune == "auto"):
                ops.autotune = False
            elif ops.name == "cudnn":
                ops.autotune = True
        return devices


@dataclass(kw_only=True)
class Reports(Settings):
    """Messages, log and intermediate pictures of a run."""

    print_iter: int = option(
        50, "without a terminal, print a line every N iterations (default: %(default)s)", REPORTS, metavar="N",
        unit="iterations",
    )  # fmt: skip
    save_iter: int | None = option(
        None, "save out_N.png every N iterations (default: 0, never)", REPORTS, metavar="N", unit="iterations"
    )
    log: str | None = option(
        None, "write the losses of every iteration to this file", REPORTS, kind=fields.PATH, metavar="FILE.csv"
    )
    quiet: bool = option(False, "print nothing but errors", REPORTS)

    def save_interval(self, compat: bool) -> int:
        """Iterations between saved intermediate pictures; below 1: never."""
        if self.save_iter is None:
            return 100 if compat else 0
        return self.save_iter


@dataclass(kw_only=True)
class Options(Control, *reversed(losses.options())):
    """The options of a style transfer; None: the default of the network (`zoo`) or of the optimiser.

    Sizes are in pixels, weights as in `Objective`, learning_rate in levels of 0..255. Lists may be comma-separated
    text, and layers also a mapping to their factors. Raises OptionError for a value of the wrong type; `check`
    validates ranges and combinations.
    """

    image_size: int = option(
        512, "longest side of the result in pixels (default: %(default)s), or original: the photograph's own", PICTURES,
        kind=fields.SIZE, metavar="N|original", limits=Limits("a number of pixels, or original, is needed", low=0),
        unit="pixels", of_content=True,
    )  # fmt: skip
    """0, or "original": that of the content, which `for_content` sets."""
    style_scale: float = option(
        1, "size of the styles relative to the result (default: %(default)s)", PICTURES, metavar="X",
        limits=POSITIVE, identity=True,
    )  # fmt: skip
    style_blend_weights: Sequence[float] | None = option(
        None, "weight of each style (default: equal)", PICTURES, kind=fields.BLEND, metavar="N,N",
        flags=("--blend-weights",), identity=True,
    )  # fmt: skip
    mean: Sequence[float] | None = option(
        None, "mean of the network's input, in the order of its channels, or one number for all (default: from the "
        "prototxt's transform_param, else ImageNet's)", MODEL, kind=fields.MEAN, metavar="B,G,R",
        unit="levels of 255", identity=True,
    )  # fmt: skip
    input_scale: float | None = option(
        None, "factor of the pixels after subtraction of the mean (default: from the prototxt, else 1)",
        MODEL, metavar="X", limits=POSITIVE, identity=True,
    )  # fmt: skip
    channels: str | None = option(
        None, "order of the network's channels (default: bgr)", MODEL, choices=("bgr", "rgb"), identity=True
    )
    pooling: str = option(
        "max", "%(default)s (default), or avg instead of max pooling", NETWORK, choices=("max", "avg"),
        identity=True,
    )  # fmt: skip

    split: str | None = option(
        None, "how devices share the work: by tiles (default; faster, but each needs the memory of one) or by layers",
        NETWORK, choices=("tiles", "layers"),
    )  # fmt: skip
    """Tiles are computed concurrently. With layers, each device has some of them: the memory is divided, but only one
    device works at a time. None: layers if multigpu_strategy is given, else tiles."""
    multigpu_strategy: Sequence[int | str] | None = option(
        None, "split layers: the layers after which the next device takes over, by name or number from 1 (default of "
        "--split layers: balanced memory)", NETWORK, kind=fields.CUTS, metavar="A,B",
    )  # fmt: skip
    balance: str = option(
        "auto", "targets: divide every loss by the mean square of its target, so that weights mean the same for any "
        "network and size; none: the reference's losses; auto (default): none for VGG, NIN and under --compat",
        WEIGHTS, choices=("auto", "targets", "none"),
    )  # fmt: skip
    normalize_gradients: bool = option(False, "divide each layer's gradient by its L1 norm", WEIGHTS, identity=True)

    quality: str | None = option(
        None, "draft, normal (default) or best: a schedule of sizes and iterations; not with options that set these",
        OPTIMISATION, choices=QUALITIES,
    )  # fmt: skip
    """From a coarse scale to image_size by doubling. It must be None if scales, iterations or compat are given."""
    num_iterations: int | None = option(
        None, "iterations of the first scale (default: by the quality; with --scales 400, under --compat 1000); a list "
        "is taken as --scale-iterations", OPTIMISATION, kind=fields.COUNTS, metavar="N", limits=POSITIVE,
        unit="iterations",
    )  # fmt: skip
    """Later scales have fewer. A list becomes `scale_iterations`."""
    scale_iterations: Sequence[int] | None = option(
        None, "iterations of each scale; the last number is for all later scales", OPTIMISATION,
        kind=fields.INTS, metavar="N,N", unit="iterations",
    )  # fmt: skip
    scales: Sequence[int] | str | None = option(
        None, "sizes of a coarse-to-fine run, each started from the previous result; auto: doubling from 256 or more",
        OPTIMISATION, kind=fields.SCALES, metavar="auto|N,N", unit="pixels",
    )  # fmt: skip
    """Ascending; the last is the size of the result. "auto" ends with image_size; None: image_size alone."""
    optimizer: str = option(
        "lbfgs", "%(default)s (default), lbfgsb (SciPy, with a line search) or adam", OPTIMISATION,
        kind=fields.WORD, metavar="NAME", identity=True,
    )  # fmt: skip
    learning_rate: float = option(
        10, "step size of adam (default: %(default)s)", OPTIMISATION, metavar="X", limits=POSITIVE,
        unit="levels of 255", identity=True,
    )  # fmt: skip
    lbfgs_num_correction: int = option(
        0, "length of the L-BFGS history (default: 20; under --compat: 100)", OPTIMISATION, metavar="N",
        limits=Limits("it cannot be negative", low=0), identity=True,
    )  # fmt: skip
    lbfgs_smooth: float | None = option(
        None, "preference of lbfgs for low frequencies of the picture, 0 to 2 (default: 0.5; under --compat: 0, none)",
        OPTIMISATION, metavar="X", limits=Limits("a number from 0 to 2 is needed", low=0, high=2),
    )  # fmt: skip
    """The strength of `optimize.preconditioner`; 0: none, as in the reference. A resumed run of lbfgs must have the
    smoothing of its checkpoint."""
    avg_decay: float = option(
        0, "result: the exponential moving average of the iterates with decay D (0.99); for adam", OPTIMISATION,
        metavar="D", flags=("--average-iterates",), const=0.99, identity=True, checkpoint_name="average_iterates",
        limits=Limits("a number from 0 to below 1 is needed", low=0, high=1, excluded=(1,)),
    )  # fmt: skip
    """The result, and the start of the next scale, is a_t / (1 - d^t) with a_t = d a_{t-1} + (1 - d) x_t over the
    iterates of the scale (Kingma and Ba 2015, section 7.2); 0: the last iterate."""
    bounds: bool = option(False, "keep pixels within 0..255 (lbfgsb)", OPTIMISATION, identity=True)
    init: str | None = option(
        None, "start from noise (random; default under --compat) or from the content (image; default)",
        OPTIMISATION, choices=("random", "image"), of_content=True, identity=True,
    )  # fmt: skip
    init_image: str | Picture | None = option(  # noqa: RUF009
        None, "start from this picture", OPTIMISATION, kind=_PICTURE, metavar="FILE"
    )
    """A path or any other form of a picture, which becomes a `Picture`."""
    margin: int | None = option(
        None, "extra pixels on every side, cut off from the result (default: as the network needs, mostly 8; under "
        "--compat: 0)", OPTIMISATION, metavar="N", unit="pixels",
        limits=Limits("a number from 0 to the picture's longest side is needed", low=0),
    )  # fmt: skip
    """The extra pixels start as a reflection of the picture. A resumed run must have the margin of its checkpoint."""
    seed: int | None = option(None, "seed of the noise; negative: a random one (default)", OPTIMISATION, metavar="N")
    """None or a negative number: a random seed, which is reported in the result."""
    compat: bool = option(
        False, "use the exact numbers, defaults and file names of neural_style.lua", OPTIMISATION, of_content=True,
        identity=True,
    )  # fmt: skip
    """Includes values times 256 instead of 255, and its interpolation."""

    tile_size: int | str | None = option(
        None, "compute windows of N×N pixels one by one: the same result in the memory of a single window; auto: the "
        "largest that fit into the free memory (default: off)", LARGE, kind=fields.TILE, metavar="N|auto|off",
        unit="pixels", limits=PIXELS,
    )  # fmt: skip
    offload: Offload | str | None = option(  # noqa: RUF009
        None, "keep picture, optimiser state and content features in host memory (host, the default of --offload), or "
        "in files in a folder", LARGE, kind=fields.OFFLOAD, metavar="host|disk:FOLDER", const="host",
    )  # fmt: skip
    """An `Offload`, or its text "host" or "disk:FOLDER"; None: on the device."""
    checkpoint: str | None = option(
        None, "save the state of the run in this file", LARGE, kind=fields.PATH, metavar="FILE.npz"
    )
    """Written every checkpoint_iter iterations, on interruption and at the end. A write failure issues a
    CheckpointWarning, and the run continues."""
    checkpoint_iter: int = option(
        50, "save it every N iterations (default: %(default)s)", LARGE, metavar="N", limits=POSITIVE,
        unit="iterations",
    )  # fmt: skip
    resume: bool = option(False, "continue from the checkpoint, if it exists", LARGE)

    def __post_init__(self):
        super().__post_init__()
        counts = self.num_iterations
        if isinstance(counts, list):
            if len(counts) > 1 and self.scale_iterations not in (None, counts):
                raise OptionError("--num-iterations and --scale-iterations both set iterations; leave one of them out")
            self.num_iterations = counts[0]
            self.scale_iterations = counts if len(counts) > 1 else self.scale_iterations

    def check(self, styles: int) -> None:
        """Raises OptionError for invalid values and contradictory options, CheckpointError if the checkpoint cannot be
        written. styles: the number of style pictures."""
        from . import checkpoint, optimize  # imported late: they need NumPy

        self.check_values()
        self._check_sizes()
        self._check_styles(styles)
        optimize.get(self.optimizer)
        if self.quality and not self.uses_quality:
            given = next(name for name in _SCHEDULE_OPTIONS if getattr(self, name)).replace("_", "-")
            raise OptionError(f"--quality sets sizes and iterations, and so does --{given}; leave one of them out")
        self.check_colors()
        if self.bounds and self.optimizer != "lbfgsb":
            raise OptionError(f"--bounds needs --optimizer lbfgsb; {self.optimizer} has no bounds")
        if self.init == "random" and self.init_image:
            raise OptionError("--init random starts from noise and --init-image from a picture; leave one of them out")
        if self.split == "tiles" and self.multigpu_strategy:
            raise OptionError("--multigpu-strategy splits layers, but --split is tiles; leave one of them out")
        if self.offload and self.offload.folder is not None and not os.path.isdir(self.offload.folder):
            raise OptionError(f"{self.offload.folder}: there is no such folder to offload to")
        if self.resume and not self.checkpoint:
            raise OptionError("--resume needs --checkpoint, the file to continue from")
        if self.checkpoint:
            checkpoint.check_writable(self.checkpoint, self.resume)

    def for_content(self, size: tuple[int, int]) -> Options:
        """These options, with the content's (height, width) for an image_size of 0."""
        return self if self.image_size else dataclasses.replace(self, image_size=max(size))

    def _check_sizes(self):
        if not self.image_size:  # not known yet
            return
        sizes = self.schedule(1)
        if any(size < 1 for size, _ in sizes) or any(a >= b for (a, _), (b, _) in pairwise(sizes)):
            raise OptionError(f"--scales {','.join(str(s) for s, _ in sizes)} must be above zero and ascend")
        if self.scale_iterations is not None:
            counts = self.scale_iterations
            if not counts or min(counts) < 1 or len(counts) > len(sizes):
                counts = ",".join(map(str, counts))
                raise OptionError(f"iterations {counts} do not fit {len(sizes)} scales, one number above zero for each")
        longest = sizes[-1][0]
        if longest > _MAX_SIDE or longest * self.style_scale > _MAX_SIDE:
            sizes = f"--image-size {longest} × --style-scale {self.style_scale}"
            raise OptionError(f"{sizes} is more than {_MAX_SIDE} pixels")
        if self.margin is not None and self.margin > longest:
            raise OptionError(f"--margin is {self.margin}; {options_of(Options)['margin'].limits.expected}")

    def _check_styles(self, styles):
        weights = self.style_blend_weights
        if weights is not None and len(weights) != styles:
            count = f"{len(weights)} style blend weights for {styles} style pictures"
            raise OptionError(f"--style-blend-weights: {count}; give one for each")
        if weights and not any(weights):
            raise OptionError("--style-blend-weights: all are 0; give a number above zero for at least one style")
        if not styles:
            raise OptionError("no style picture is given")

    @property
    def convention(self) -> dict[str, object]:
        """Keyword arguments of `load_network`; under compat the prototxt's are ignored, as in the reference."""
        from .netdef import imagenet_mean  # imported late: it needs NumPy

        mean = self.mean
        scale = self.input_scale
        if self.compat:
            mean = mean or imagenet_mean(self.channels or "bgr")
            scale = scale or 1.0
        return {"mean": mean, "input_scale": scale, "channels": self.channels}

    @property
    def shares_tiles(self) -> bool:
        """True if several devices share the tiles, False if they share the layers."""
        return self.split == "tiles" or not (self.split or self.multigpu_strategy)

    @property
    def uses_quality(self) -> bool:
        """True if sizes and iterations are determined by the quality."""
        return not any(getattr(self, name) for name in _SCHEDULE_OPTIONS)

    def schedule(self, iterations: int) -> list[tuple[int, int]]:
        """(size, iterations) of each scale. iterations: number for the first scale, unless the options determine it."""
        if self.uses_quality:
            return quality_schedule(self.quality, self.image_size)
        return custom_schedule(self.scales, self.image_size, iterations, self.scale_iterations)


def style_paths(styles: str | os.PathLike | Iterable[str]) -> list[str]:
    """Paths of the styles, from a list or from comma-separated text."""
    return options_of(Files)["style"].convert(styles)


def identity(options: Settings, resolved: Mapping[str, object]) -> dict[str, object]:
    """The options that a resumed run must share with its checkpoint: values by the names in the checkpoint.

    resolved: values by name that replace the None of options that the network decides. The run adds lbfgs_smooth and
    margin, whose values depend on the optimiser and the network.
    """
    entries = (entry for entry in options_of(type(options)).values() if entry.identity)
    return {e.checkpoint_name or e.name: resolved.get(e.name, getattr(options, e.name)) for e in entries}
