"""`cvstyle run`: stylise a picture."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time

from .. import __version__
from ..errors import OptionError
from .common import (
    add_network_arguments,
    add_threads_argument,
    comma_list,
    limit_threads,
    numbers,
    whole_numbers,
)

_COMPAT = {"print_iter": 50, "save_iter": 100}
_MODERN = {"print_iter": 50, "save_iter": 0}
_REFERENCE_BACKENDS = ("nn", "cudnn", "clnn")


def add_parser(subparsers):
    """Register the verb."""
    parser = subparsers.add_parser(
        "run", help="stylise a picture", allow_abbrev=False,
        description="Give the content picture the look of one or more style pictures. Every option of neural_style.lua "
        "is understood, in its own spelling too (-style_image ...).",
    )  # fmt: skip
    parser.set_defaults(execute=execute, parser=parser)

    group = parser.add_argument_group("pictures")
    group.add_argument("--content", "--content-image", required=True, metavar="FILE", help="the photograph")
    group.add_argument(
        "--style", "--style-image", required=True, metavar="FILE[,FILE]", help="the painting or paintings"
    )
    group.add_argument(
        "--output",
        "--output-image",
        default="out.png",
        metavar="FILE",
        help="PNG, JPEG, WebP or TIFF (default: out.png)",
    )
    group.add_argument(
        "--style-blend-weights", type=numbers, metavar="N,N", help="share of each style (default: equal)"
    )
    group.add_argument(
        "--image-size", type=int, default=512, metavar="N", help="longest side of the result in pixels (default: 512)"
    )
    group.add_argument(
        "--style-scale",
        type=float,
        default=1.0,
        metavar="X",
        help="size of the styles relative to the result (default: 1)",
    )
    group.add_argument(
        "--original-colors",
        nargs="?",
        type=int,
        const=1,
        default=0,
        choices=(0, 1),
        help="keep the colours of the content",
    )
    group.add_argument(
        "--bits", type=int, choices=(8, 16), default=8, help="bits per channel of a TIFF or PNG (default: 8)"
    )

    add_network_arguments(parser)
    group = parser.add_argument_group("network")
    group.add_argument(
        "--content-layers", type=comma_list, metavar="A,B:2", help="layers for content, each with an optional factor"
    )
    group.add_argument("--style-layers", type=comma_list, metavar="A,B:2", help="layers for style")
    group.add_argument(
        "--pooling", choices=("max", "avg"), default="max", help="max (default) or avg in place of max pooling"
    )
    group.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="auto (default: a GPU where one works), cpu, gpu, or one that 'cvstyle devices' lists",
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "tf32", "fp16", "bf16"),
        default="fp32",
        help="what an NVIDIA GPU's tensor cores round to; fp32 (default) rounds nothing",
    )
    group.add_argument("--device", metavar="N or NAME", help="which device of the backend (see 'cvstyle devices')")
    group.add_argument("--gpu", metavar="N", help="the GPU of this number; -1: the CPU (neural_style.lua's option)")
    add_threads_argument(group)

    group = parser.add_argument_group("weights")
    group.add_argument("--content-weight", type=float, metavar="W", help="default: that of the network")
    group.add_argument("--style-weight", type=float, metavar="W", help="default: that of the network")
    group.add_argument("--tv-weight", type=float, metavar="W", help="smoothness; default: that of the network")
    group.add_argument("--normalize-gradients", action="store_true", help="divide each layer's gradient by its L1 norm")

    group = parser.add_argument_group("optimisation")
    group.add_argument(
        "--num-iterations", type=whole_numbers, metavar="N[,N]",
        help="default: that of the network; several: one for each scale",
    )
    group.add_argument(
        "--scales", type=_scales, metavar="auto|N,N",
        help="sizes to go through, each from the result of the one before; auto: from 256 or more by doubling",
    )
    group.add_argument(
        "--optimizer",
        default="lbfgs",
        metavar="NAME",
        help="lbfgs (default), lbfgsb (SciPy, with a line search) or adam",
    )
    group.add_argument("--learning-rate", type=float, default=10.0, metavar="X", help="of adam (default: 10)")
    group.add_argument(
        "--lbfgs-num-correction", type=int, default=0, metavar="N",
        help="L-BFGS history (default: 12; lbfgsb: 20; --compat: 100)",
    )  # fmt: skip
    group.add_argument("--bounds", action="store_true", help="keep pixels in range while optimising (lbfgsb)")
    group.add_argument(
        "--init",
        choices=("random", "image"),
        default=None,
        help="start from noise or from the content (default: that of the network)",
    )
    group.add_argument("--init-image", metavar="FILE", help="start from this picture")
    group.add_argument(
        "--seed", type=int, default=-1, metavar="N", help="of the noise; negative: a new one each time (default)"
    )
    group.add_argument(
        "--compat", action="store_true", help="the exact numbers, defaults and file names of neural_style.lua"
    )

    group = parser.add_argument_group("large pictures and long runs")
    group.add_argument(
        "--tile-size", type=_tile_size, metavar="N|off",
        help="compute windows of N×N pixels one after the other: the same result in the memory of one (default: off)",
    )
    group.add_argument(
        "--offload", nargs="?", const="", metavar="FOLDER",
        help="keep picture, optimiser and content features in host memory, or in files in this folder",
    )
    group.add_argument("--checkpoint", metavar="FILE.npz", help="keep the state of the run in this file")
    group.add_argument("--checkpoint-iter", type=int, default=50, metavar="N", help="every N iterations (default: 50)")
    group.add_argument("--resume", action="store_true", help="go on from the checkpoint, if it is there")

    group = parser.add_argument_group("reports")
    group.add_argument(
        "--print-iter", type=int, metavar="N", help="a line every N iterations where there is no terminal (default: 50)"
    )
    group.add_argument(
        "--save-iter", type=int, metavar="N", help="save out_N.png every N iterations (default: 0, never)"
    )
    group.add_argument("--log", metavar="FILE.csv", help="write the losses of every iteration")
    group.add_argument("--quiet", action="store_true", help="say nothing unless something goes wrong")
    group.add_argument(
        "--cudnn-autotune", action="store_true", help="accepted for neural_style.lua's sake; has no effect"
    )


def execute(args) -> int:
    """Carry out `cvstyle run`; returns the exit status."""
    from .. import images
    from ..transfer import Options, stylize

    styles = _style_paths(args.style)
    names = Options.__dataclass_fields__
    counts = args.num_iterations
    if counts:
        args.num_iterations, args.scale_iterations = counts[0], counts if len(counts) > 1 else None
    settings = {name: value for name, value in vars(args).items() if name in names and value is not None}
    options = Options(**settings)
    options.check(len(styles))
    for name, default in (_COMPAT if args.compat else _MODERN).items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    images.check_writable(args.output, bits=args.bits)
    _check_nothing_overwritten(args.output, [args.content, *styles])
    limit_threads(args)
    backend = _backend(args)
    metadata = {"Software": f"cvstyle {__version__}", "Command": shlex.join(["cvstyle", *args.command_line])}

    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    interrupted = _between_iterations(args) if args.checkpoint else lambda: False
    if args.resume and not args.quiet:
        _say_what_is_resumed(args)
    with _Reporter(args) as report:

        def write(path, picture, iteration, seed=None):
            notes = dict(metadata, Iterations=str(iteration))
            if seed is not None:
                notes["Seed"] = str(seed)
            images.write(path, picture.rgb, picture.alpha, picture.icc, notes, bits=args.bits)

        def after(iterate):
            report(iterate)
            if (
                args.save_iter
                and iterate.iteration % args.save_iter == 0
                and iterate.iteration < iterate.num_iterations
            ):
                write(_numbered(args.output, iterate.iteration), iterate.picture(), iterate.iteration)
            if interrupted():
                raise KeyboardInterrupt

        result = stylize(
            args.content, styles, proto=args.proto, model=args.model, backend=backend, callback=after, options=options
        )
        write(args.output, result.picture, result.iterations, result.seed)
    return _conclude(args, result, backend)


def _between_iterations(args):
    """Let the first Ctrl-C or SIGTERM wait for the end of an iteration, where the state is whole; says if one came."""
    came = []

    def wait(*_):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        came.append(True)
        if not args.quiet:
            print("cvstyle: stopping after this iteration; once more to stop at once", file=sys.stderr)

    signal.signal(signal.SIGINT, wait)
    return lambda: bool(came)


def _say_what_is_resumed(args):
    if not os.path.exists(args.checkpoint):
        print(f"cvstyle: {args.checkpoint} is not there yet; starting from the beginning", file=sys.stderr)
    elif args.optimizer == "lbfgsb":
        print(
            "cvstyle: SciPy keeps lbfgsb's history to itself, so it starts anew from the checkpoint's picture",
            file=sys.stderr,
        )


def _conclude(args, result, backend):
    if result.stopped == "interrupted":
        kept = f", and {args.checkpoint} goes on from there with --resume" if args.checkpoint else ""
        print(
            f"cvstyle: interrupted after {result.iterations} iterations; the picture so far is in {args.output}{kept}",
            file=sys.stderr,
        )
        return 130
    if result.stopped:
        print(f"cvstyle: {result.stopped}; the last good picture is in {args.output}", file=sys.stderr)
        return 2
    if not args.quiet:
        print(f"{args.output}: {result.iterations} iterations, loss {result.loss:.6g}, seed {result.seed}")
        if hasattr(backend, "device"):
            print(f"{backend.device.name}: {backend.memory_used()}")
    return 0


def _style_paths(text):
    """Comma-separated paths, unless the whole is the name of one file."""
    paths = [text] if os.path.exists(text) else [part for part in text.split(",") if part]
    if not paths:
        raise OptionError("--style names no file")
    return paths


def _check_nothing_overwritten(output, inputs):
    for path in inputs:
        if os.path.exists(output) and os.path.exists(path) and os.path.samefile(path, output):
            raise OptionError(f"{output}: the output would overwrite an input picture; choose another name")


def _backend(args):
    """The backend to use; the reference's own names and its GPUs are mapped to what there is."""
    from .. import backends

    numbers = [n.strip() for n in (args.gpu or "").split(",") if n.strip()]
    if any(n != "-1" and not n.isdigit() for n in numbers):
        raise OptionError(f"--gpu {args.gpu}: a device number, or -1 for the CPU, is needed")
    wanted = [n for n in numbers if n != "-1"]
    if wanted and args.device:
        raise OptionError("--gpu and --device both choose a device; give one of them")
    name, device = args.backend, args.device or next(iter(wanted), None)
    if name in _REFERENCE_BACKENDS or (name == "auto" and numbers):
        gpus = {backend for backend, _, found in backends.survey() for d in found if d.kind == "gpu"}
        name = "opencl" if name == "clnn" and "opencl" in gpus else "gpu"
        if numbers and not wanted:
            name, device = "cpu", None
        elif not gpus:
            name, device = "cpu", None
            if wanted and not args.quiet:
                print("cvstyle: no GPU can be used ('cvstyle devices' says why); using the CPU", file=sys.stderr)
    if len(wanted) > 1 and name != "cpu" and not args.quiet:
        print(f"cvstyle: one GPU is used, number {wanted[0]}", file=sys.stderr)
    return backends.get(name, device, args.precision)


def _tile_size(text):
    if text == "off":
        return None
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of pixels such as 1024, or off")
    return int(text)


def _scales(text):
    return text if text == "auto" else whole_numbers(text)


def _numbered(path, iteration):
    stem, extension = os.path.splitext(path)
    return f"{stem}_{iteration}{extension}"


class _Reporter:
    """A progress bar on a terminal, plain lines elsewhere, and the log file."""

    def __init__(self, args):
        self.args, self.bar, self.log, self.columns = args, None, None, None
        self.started = self.drawn = None

    def __enter__(self):
        if self.args.log:
            try:
                self.log = open(self.args.log, "w", encoding="utf-8", newline="")
            except OSError as error:
                raise OptionError(f"{self.args.log}: the log cannot be written: {error.strerror}") from None
        self.started = time.monotonic()
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()
        if self.log is not None:
            self.log.close()

    def __call__(self, iterate):
        seconds = time.monotonic() - self.started
        if self.log is not None:
            self._write_log(iterate, seconds)
        if self.args.quiet:
            return
        if sys.stderr.isatty():
            self._draw_bar(iterate)
        elif self.args.print_iter and (
            iterate.iteration % self.args.print_iter == 0 or iterate.iteration == iterate.num_iterations
        ):
            rate = iterate.iteration / seconds
            left = (iterate.num_iterations - iterate.iteration) / rate
            print(
                f"iteration {iterate.iteration}/{iterate.num_iterations}: {_summary(iterate)}; "
                f"{rate:.2f} iterations/s, {left:.0f} s left",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    def _draw_bar(self, iterate):
        if self.bar is None:
            from tqdm import tqdm

            self.bar, self.drawn = tqdm(total=iterate.num_iterations, unit="it", dynamic_ncols=True, smoothing=0.1), 0
        now = time.monotonic()
        if now - self.drawn >= self.bar.mininterval or iterate.iteration == iterate.num_iterations:
            self.bar.set_postfix_str(_summary(iterate), refresh=False)  # reads the losses, so not at every iteration
            self.bar.update(iterate.iteration - self.bar.n)
            self.drawn = now

    def _write_log(self, iterate, seconds):
        import csv

        writer = csv.writer(self.log)
        if self.columns is None:
            self.columns = list(iterate.losses)
            writer.writerow(["iteration", "seconds", "loss", *self.columns])
        values = [iterate.losses[name] for name in self.columns]
        writer.writerow([iterate.iteration, f"{seconds:.3f}", *(f"{v:.9g}" for v in (iterate.loss, *values))])
        self.log.flush()


def _summary(iterate):
    """The loss and its three kinds: "loss 1.2e+05 (content 3e+04, style 9e+04, tv 120)"."""
    kinds = {}
    for name, value in iterate.losses.items():
        kind = name.partition(":")[0]
        kinds[kind] = kinds.get(kind, 0) + value
    return f"loss {iterate.loss:.4g} (" + ", ".join(f"{kind} {value:.3g}" for kind, value in kinds.items()) + ")"
