"""Every option of a run, once: its files, style transfer, devices and reports.

Each field is an `option(...)` (see `fields`): the command line and the checkpoints go by these records.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from . import fields, losses, schedule
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
    Settings,
    option,
    options_of,
)  # fmt: skip

if TYPE_CHECKING:
    from .images import Picture

_LONGEST = 1 << 20  # pixels
CONVENTION = ("mean", "input_scale", "channels")
"""The options that are keywords of `load_network`."""
_SAID_BY_HAND = ("scales", "num_iterations", "scale_iterations", "compat")
_PRECISIONS = ("fp32", *(word + fast for fast in ("", "-fast") for word in ("tf32", "fp16", "bf16")))


def _a_path_or_picture(value):
    if isinstance(value, (str, os.PathLike)):
        return fields.PATH.convert(value)
    from . import images  # late, for NumPy

    return images.as_picture(value, "init_image")


_PICTURE = fields.Kind(_a_path_or_picture, "a path or a picture is needed")


@dataclass(kw_only=True)
class Files(Settings):
    """The files of a run."""

    content: str = option(
        REQUIRED, "the photograph", group=PICTURES, kind=fields.PATH, metavar="FILE", flags=("--content-image",)
    )
    style: Sequence[str] = option(
        REQUIRED, "the painting or paintings", group=PICTURES, kind=fields.PATHS, metavar="FILE[,FILE]",
        flags=("--style-image",),
    )  # fmt: skip
    output: str = option(
        "out.png", "PNG, JPEG, WebP or TIFF (default: %(default)s)", group=PICTURES, kind=fields.PATH, metavar="FILE",
        flags=("--output-image",),
    )  # fmt: skip
    bits: int = option(8, "bits per channel of a TIFF or PNG (default: %(default)s)", group=PICTURES, choices=(8, 16))
    proto: str | None = option(
        None, "deploy.prototxt (default: the embedded network, or what --model names)", group=MODEL, kind=fields.PATH,
        metavar="FILE", flags=("--proto-file",),
    )  # fmt: skip
    model: str | None = option(
        None, "the .caffemodel that belongs to it, or the name of a known model (see 'cvstyle models')", group=MODEL,
        kind=fields.PATH, metavar="FILE or NAME",
        flags=("--model-file",),
    )  # fmt: skip


@dataclass(kw_only=True)
class Compute(Settings):
    """The devices of a run (see `backends.choose`)."""

    backend: str = option(
        "auto", "%(default)s (default: a GPU where one works), cpu, gpu, or one that 'cvstyle devices' lists",
        group=NETWORK, metavar="NAME",
    )  # fmt: skip
    precision: str = option(
        "fp32",
        "of convolutions on an NVIDIA GPU: %(default)s (default) uses no tensor cores; tf32, fp16 and bf16 keep "
        "the gradient within 1%%; tf32-fast, fp16-fast and bf16-fast, at half the arithmetic, within 2, 2 and 6%%",
        group=NETWORK, metavar="NAME", choices=_PRECISIONS,
    )  # fmt: skip
    device: str | None = option(
        None, "which device of the backend (see 'cvstyle devices')", group=NETWORK, metavar="N or NAME"
    )
    gpu: str | None = option(
        None, "the GPU of this number; several share the work; -1: the CPU. On a CPU backend a device is a share of "
        "the threads", group=NETWORK, metavar="N[,N]",
    )  # fmt: skip
    no_autotune: bool = option(
        False, "take the GPU kernels that are estimated to be fastest, instead of trying out each shape once",
        group=NETWORK,
    )  # fmt: skip
    cudnn_autotune: bool = option(False, "let backend cudnn time its plans for each shape once", group=NETWORK)
    threads: int | None = option(
        None, "threads on the CPU (default: one for each processor)", group=NETWORK, kind=fields.THREADS, metavar="N",
        limits=POSITIVE,
    )  # fmt: skip

    def devices(self, options: Options, say: Callable[[str], None] = lambda line: None) -> list:
        """New backend objects, one per device (see `backends.choose`).

        Where `threads` are given, backends of the CPU that this process makes from now on keep to them.
        """
        from .backends import threads
        from .backends.choose import choose

        if self.threads is not None:
            threads.limit(self.threads)
        found = choose(self.backend, self.device, self.gpu, self.precision, options.shares_tiles, say)
        for ops in found:
            if self.no_autotune:
                ops.autotune = False
            elif ops.name == "cudnn":
                ops.autotune = self.cudnn_autotune
        return found


@dataclass(kw_only=True)
class Reports(Settings):
    """Messages, log and intermediate pictures of a run."""

    print_iter: int = option(
        50, "a line every N iterations where no terminal is (default: %(default)s)", group=REPORTS, metavar="N",
        unit="iterations",
    )  # fmt: skip
    save_iter: int | None = option(
        None, "save out_N.png every N iterations (default: 0, never)", group=REPORTS, metavar="N", unit="iterations"
    )
    log: str | None = option(
        None, "write the losses of every iteration", group=REPORTS, kind=fields.PATH, metavar="FILE.csv"
    )
    quiet: bool = option(False, "say nothing unless something goes wrong", group=REPORTS)

    def saves_every(self, compat: bool) -> int:
        """Iterations between the pictures that are saved on the way; below 1: none is."""
        if self.save_iter is None:
            return 100 if compat else 0
        return self.save_iter


@dataclass(kw_only=True)
class Options(*reversed(losses.options())):
    """The options of a style transfer; None takes the default of the network (`zoo`) or of the optimiser.

    Sizes are in pixels, weights as in `Objective`; learning_rate is in 0..255 units. A list may be given as the comma
    list of the command line, layers as a mapping to their factors too. Raises OptionError for a value of a wrong kind;
    limits, and options that contradict each other, are for `check`.
    """

    image_size: int = option(
        512, "longest side of the result in pixels (default: %(default)s)", group=PICTURES, metavar="N",
        limits=POSITIVE, unit="pixels",
    )  # fmt: skip
    style_scale: float = option(
        1, "size of the styles relative to the result (default: %(default)s)", group=PICTURES, metavar="X",
        limits=POSITIVE, identity=True,
    )  # fmt: skip
    style_blend_weights: Sequence[float] | None = option(
        None, "share of each style (default: equal)", group=PICTURES, kind=fields.BLEND, metavar="N,N", identity=True
    )
    mean: Sequence[float] | None = option(
        None, "of the network's input, in the order of its channels, or one number for all (default: what the "
        "prototxt's transform_param says, else ImageNet's)", group=MODEL, kind=fields.MEAN, metavar="B,G,R",
        unit="levels of 255", identity=True,
    )  # fmt: skip
    input_scale: float | None = option(
        None, "what pixels less the mean are multiplied with (default: as the prototxt says, else 1)", group=MODEL,
        metavar="X", limits=POSITIVE, identity=True,
    )  # fmt: skip
    channels: str | None = option(
        None, "the order of the network's channels (default: bgr)", group=MODEL, choices=("bgr", "rgb"), identity=True
    )
    original_colors: bool = option(False, "keep the colours of the content", group=PICTURES, choices=(0, 1), const=1)
    pooling: str = option(
        "max", "%(default)s (default) or avg in place of max pooling", group=NETWORK, choices=("max", "avg"),
        identity=True,
    )  # fmt: skip

    split: str | None = option(
        None, "what several devices share: tiles (default; faster, and each needs the memory of one) or layers",
        group=NETWORK, choices=("tiles", "layers"),
    )  # fmt: skip
    """Tiles are computed at the same time; of layers each device has some: the memory is spread, but one works at a
    time. None: layers where multigpu_strategy is given, else tiles."""
    multigpu_strategy: Sequence[int | str] | None = option(
        None, "split layers: the next device takes over after each of these, by name or counted from 1 (default of "
        "--split layers: as balances memory)", group=NETWORK, kind=fields.CUTS, metavar="A,B",
    )  # fmt: skip
    balance: str = option(
        "auto", "targets: every loss is divided by the mean square of what it aims at, so that weights mean the same "
        "for any network and size; none: the reference's numbers; auto (default): none for VGG, NIN and under --compat",
        group=WEIGHTS, choices=("auto", "targets", "none"),
    )  # fmt: skip
    normalize_gradients: bool = option(
        False, "divide each layer's gradient by its L1 norm", group=WEIGHTS, identity=True
    )

    quality: str | None = option(
        None, "draft, normal (default) or best: sizes to go through and iterations; not with options that say them",
        group=OPTIMISATION, choices=schedule.QUALITIES,
    )  # fmt: skip
    """From a coarse scale to image_size by doubling. Without effect where scales, num_iterations or compat are given:
    then it must be None."""
    num_iterations: int | None = option(
        None, "of the first scale (default: by the quality; with --scales 400, under --compat 1000); several: one for "
        "each scale", group=OPTIMISATION, kind=fields.COUNTS, metavar="N[,N]", limits=POSITIVE, unit="iterations",
    )  # fmt: skip
    """Of the first scale; the later ones have fewer. Several numbers become `scale_iterations`."""
    scale_iterations: Sequence[int] | None = option(
        None, "iterations of each scale; a last number serves all scales that are left", group=None, kind=fields.INTS
    )
    scales: Sequence[int] | str | None = option(
        None, "sizes to go through, each from the result of the one before; auto: from 256 or more by doubling",
        group=OPTIMISATION, kind=fields.SCALES, metavar="auto|N,N", unit="pixels",
    )  # fmt: skip
    """Ascending; the last is the size of the result. "auto" ends with image_size; None is image_size alone."""
    optimizer: str = option(
        "lbfgs", "%(default)s (default), lbfgsb (SciPy, with a line search) or adam", group=OPTIMISATION,
        metavar="NAME", identity=True,
    )  # fmt: skip
    learning_rate: float = option(
        10, "of adam (default: %(default)s)", group=OPTIMISATION, metavar="X", limits=POSITIVE,
        unit="levels of 255", identity=True,
    )  # fmt: skip
    lbfgs_num_correction: int = option(
        0, "L-BFGS history (default: 20; under --compat: 100)", group=OPTIMISATION, metavar="N",
        limits=Limits("it cannot be negative", low=0), identity=True,
    )  # fmt: skip
    lbfgs_smooth: float | None = option(
        None, "by how much lbfgs favours the picture's long waves, 0 to 2 (default: 0.5; under --compat: 0, not at "
        "all)", group=OPTIMISATION, metavar="X", limits=Limits("a number from 0 to 2 is needed", low=0, high=2),
    )  # fmt: skip
    """See `optimize.pyramid`; 0: not at all, as the reference. A checkpoint of lbfgs must agree on the smoothing
    that the optimiser derives from it."""
    average_iterates: float = option(
        0, "the result is an average of the iterates, each weighing D (0.99) of the one after it: for adam",
        group=OPTIMISATION, metavar="D", const=0.99, identity=True,
        limits=Limits("a number from 0 to below 1 is needed", low=0, high=1, excluded=(1,)),
    )  # fmt: skip
    """The result, and the start of the next scale, is a_t / (1 - d^t) with a_t = d a_{t-1} + (1 - d) x_t over the
    iterates of the scale (Kingma and Ba 2015, section 7.2); 0: the last iterate."""
    bounds: bool = option(False, "keep pixels in range while optimising (lbfgsb)", group=OPTIMISATION, identity=True)
    init: str | None = option(
        None, "start from noise (default under --compat) or from the content (default)", group=OPTIMISATION,
        choices=("random", "image"), identity=True,
    )  # fmt: skip
    init_image: str | Picture | None = option(  # noqa: RUF009
        None, "start from this picture", group=OPTIMISATION, kind=_PICTURE, metavar="FILE"
    )
    """A path, or what else may be given for a picture; that becomes a `Picture`."""
    margin: int | None = option(
        None, "pixels on every side that are computed and cut off (default: what the network needs, mostly 8; under "
        "--compat: 0)",
        group=OPTIMISATION, metavar="N", unit="pixels",
        limits=Limits("a number from 0 to the picture's longest side is needed", low=0),
    )  # fmt: skip
    """They begin as the picture's mirror image. A checkpoint must agree on the margin that the run has in the end."""
    seed: int | None = option(
        None, "of the noise; negative: a new one each time (default)", group=OPTIMISATION, metavar="N"
    )
    """None or a negative number draws one; it is reported in the result."""
    compat: bool = option(
        False, "the exact numbers, defaults and file names of neural_style.lua", group=OPTIMISATION, identity=True
    )
    """Values times 256 instead of 255, and its way of resizing, are part of it."""

    tile_size: int | str | None = option(
        None, "compute windows of N×N pixels one after the other: the same result in the memory of one; auto: as large "
        "as the free memory allows (default: off)", group=LARGE, kind=fields.TILE, metavar="N|auto|off", unit="pixels",
        limits=PIXELS,
    )  # fmt: skip
    offload: str | None = option(
        None, "keep picture, optimiser and content features in host memory, or in files in this folder", group=LARGE,
        kind=fields.PATH, metavar="FOLDER", const="",
    )  # fmt: skip
    """Empty: host memory, whatever the backend."""
    checkpoint: str | None = option(
        None, "keep the state of the run in this file", group=LARGE, kind=fields.PATH, metavar="FILE.npz"
    )
    """Written every checkpoint_iter iterations, when the run is interrupted and when it ends; where it cannot be
    written, a CheckpointWarning says so and the run goes on."""
    checkpoint_iter: int = option(
        50, "every N iterations (default: %(default)s)", group=LARGE, metavar="N", limits=POSITIVE,
        unit="iterations",
    )  # fmt: skip
    resume: bool = option(False, "go on from the checkpoint, if it is there", group=LARGE)

    def __post_init__(self):
        super().__post_init__()
        counts = self.num_iterations
        if isinstance(counts, list):
            if len(counts) > 1 and self.scale_iterations not in (None, counts):
                raise OptionError("num_iterations and scale_iterations both count iterations; leave one of them out")
            self.num_iterations = counts[0]
            self.scale_iterations = counts if len(counts) > 1 else self.scale_iterations

    def check(self, styles: int) -> None:
        """Raises OptionError for values that make no sense, and for options that contradict each other; CheckpointError
        for a checkpoint that cannot be written. styles: the number of style pictures."""
        from . import checkpoint, optimize  # late, for NumPy

        self.check_values()
        self._check_sizes()
        self._check_styles(styles)
        optimize.get(self.optimizer)
        if self.quality and not self.by_quality:
            given = next(name for name in _SAID_BY_HAND if getattr(self, name))
            raise OptionError(f"quality chooses sizes and iterations, and so does {given}; leave one of them out")
        if self.bounds and self.optimizer != "lbfgsb":
            raise OptionError(f"bounds need optimizer lbfgsb; {self.optimizer} has none")
        if self.init == "random" and self.init_image:
            raise OptionError("init random starts from noise and init_image from a picture; leave one of them out")
        if self.split == "tiles" and self.multigpu_strategy:
            raise OptionError("multigpu_strategy splits layers and split asks for tiles; leave one of them out")
        if self.offload and not os.path.isdir(self.offload):
            raise OptionError(f"{self.offload}: there is no such folder to offload to")
        if self.resume and not self.checkpoint:
            raise OptionError("resume needs checkpoint, the file to go on from")
        if self.checkpoint:
            checkpoint.check_writable(self.checkpoint, self.resume)

    def _check_sizes(self):
        sizes = self.stages(1)
        if any(size < 1 for size, _ in sizes) or any(a >= b for (a, _), (b, _) in pairwise(sizes)):
            raise OptionError(f"scales {','.join(str(s) for s, _ in sizes)} must be above zero and ascend")
        if self.scale_iterations is not None:
            counts = self.scale_iterations
            if not counts or min(counts) < 1 or len(counts) > len(sizes):
                counts = ",".join(map(str, counts))
                raise OptionError(f"iterations {counts} do not fit {len(sizes)} scales, one number above zero for each")
        longest = sizes[-1][0]
        if longest > _LONGEST or longest * self.style_scale > _LONGEST:
            sizes = f"image_size {longest} × style_scale {self.style_scale}"
            raise OptionError(f"{sizes} is more than {_LONGEST} pixels")
        if self.margin is not None and self.margin > longest:
            raise OptionError(f"margin is {self.margin}; {options_of(Options)['margin'].limits.expected}")

    def _check_styles(self, styles):
        if self.style_blend_weights is not None and len(self.style_blend_weights) != styles:
            raise OptionError(f"{len(self.style_blend_weights)} style blend weights for {styles} style pictures")
        if not styles:
            raise OptionError("no style picture is given")

    @property
    def convention(self) -> dict[str, object]:
        """Keywords of `load_network`; under compat what a prototxt says is not asked, since the reference does not."""
        from .netdef import imagenet_mean  # late, for NumPy

        mean, scale = self.mean, self.input_scale
        if self.compat:
            mean, scale = mean or imagenet_mean(self.channels or "bgr"), scale or 1.0
        return {"mean": mean, "input_scale": scale, "channels": self.channels}

    @property
    def shares_tiles(self) -> bool:
        """Whether several devices share the tiles; else the layers."""
        return self.split == "tiles" or not (self.split or self.multigpu_strategy)

    @property
    def by_quality(self) -> bool:
        """Whether sizes and iterations are those of the quality."""
        return not any(getattr(self, name) for name in _SAID_BY_HAND)

    def stages(self, count: int) -> list[tuple[int, int]]:
        """(size, iterations) of each scale; count: iterations of the first where nothing else says them."""
        if self.by_quality:
            return schedule.by_quality(self.quality, self.image_size)
        return schedule.by_hand(self.scales, self.image_size, count, self.scale_iterations)


def style_paths(styles: str | os.PathLike | Iterable[str]) -> list[str]:
    """Paths of the styles, from a list or from the comma list of the command line."""
    return options_of(Files)["style"].convert(styles)


def identity(options: Settings, resolved: Mapping[str, object]) -> dict[str, object]:
    """name -> value of the options that a run must share with the checkpoint that it goes on from.

    resolved: values by name that replace the None of options which the network decides. The run adds lbfgs_smooth and
    margin, whose values depend on the optimiser and the network.
    """
    names = (name for name, entry in options_of(type(options)).items() if entry.identity)
    return {name: resolved.get(name, getattr(options, name)) for name in names}
