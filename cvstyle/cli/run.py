"""`cvstyle run`: stylise a picture."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager, suppress
from itertools import combinations

from .. import __version__
from ..errors import CheckpointWarning, ImageError, OptionError
from .common import (
    add_network_arguments,
    add_threads_argument,
    comma_list,
    limit_threads,
    number,
    numbers,
    whole,
    whole_numbers,
)

_COMPAT = {"print_iter": 50, "save_iter": 100}
_MODERN = {"print_iter": 50, "save_iter": 0}
_BAR = "{n_fmt}/{total_fmt} |{bar}| {rate_fmt}, {remaining} left{postfix}"
_WIDE = 120  # columns in which bar, rate and all losses have room
_REFERENCE_BACKENDS = ("nn", "cudnn", "clnn")


def add_parser(subparsers):
    """Register the verb."""
    parser = subparsers.add_parser(
        "run", help="stylise a picture", allow_abbrev=False,
        description="Give the content picture the look of one or more style pictures. Every option of neural_style.lua "
        "is understood, in its own spelling too (-style_image ...).",
    )  # fmt: skip
    parser.set_defaults(execute=execute, parser=parser)
    add_arguments(parser)


def add_arguments(parser):
    """The options of a run."""
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
        "--style-blend-weights", type=_blend_weights, metavar="N,N", help="share of each style (default: equal)"
    )
    group.add_argument(
        "--image-size", type=whole, default=512, metavar="N", help="longest side of the result in pixels (default: 512)"
    )
    group.add_argument(
        "--style-scale",
        type=number,
        default=1.0,
        metavar="X",
        help="size of the styles relative to the result (default: 1)",
    )
    group.add_argument(
        "--original-colors",
        nargs="?",
        type=whole,
        const=1,
        default=0,
        choices=(0, 1),
        help="keep the colours of the content",
    )
    group.add_argument(
        "--bits", type=whole, choices=(8, 16), default=8, help="bits per channel of a TIFF or PNG (default: 8)"
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
        choices=("fp32", *(word + fast for fast in ("", "-fast") for word in ("tf32", "fp16", "bf16"))),
        default="fp32",
        metavar="NAME",
        help="of convolutions on an NVIDIA GPU: fp32 (default) uses no tensor cores; tf32, fp16 and bf16 keep the "
        "gradient within 1%%; tf32-fast, fp16-fast and bf16-fast, at half the arithmetic, within 2, 2 and 6%%",
    )
    group.add_argument("--device", metavar="N or NAME", help="which device of the backend (see 'cvstyle devices')")
    group.add_argument(
        "--gpu", metavar="N[,N]", help="the GPU of this number; several share the work; -1: the CPU. On a CPU backend "
        "a device is a share of the threads",
    )
    group.add_argument(
        "--split", choices=("tiles", "layers"),
        help="what several devices share: tiles (default; faster, and each needs the memory of one) or layers",
    )
    group.add_argument(
        "--no-autotune", action="store_true",
        help="take the GPU kernels that are estimated to be fastest, instead of trying out each shape once",
    )
    group.add_argument(
        "--cudnn-autotune", action="store_true", help="let backend cudnn time its plans for each shape once"
    )
    add_threads_argument(group)
    group.add_argument(
        "--multigpu-strategy", type=_cuts, metavar="A,B",
        help="split layers: the next device takes over after each of these, by name or counted from 1 (default of "
        "--split layers: as balances memory)",
    )

    group = parser.add_argument_group("weights")
    group.add_argument("--content-weight", type=number, metavar="W", help="default: that of the network")
    group.add_argument("--style-weight", type=number, metavar="W", help="default: that of the network")
    group.add_argument("--tv-weight", type=number, metavar="W", help="smoothness; default: that of the network")
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
    group.add_argument("--learning-rate", type=number, default=10.0, metavar="X", help="of adam (default: 10)")
    group.add_argument(
        "--lbfgs-num-correction", type=whole, default=0, metavar="N",
        help="L-BFGS history (default: 20; under --compat: 100)",
    )  # fmt: skip
    group.add_argument(
        "--lbfgs-smooth", type=number, metavar="X",
        help="by how much lbfgs favours the picture's long waves, 0 to 2 (default: 0.5; under --compat: 0, not at all)",
    )  # fmt: skip
    group.add_argument(
        "--average-iterates", type=number, nargs="?", const=0.99, default=0.0, metavar="D",
        help="the result is an average of the iterates, each weighing D (0.99) of the one after it: for adam",
    )
    group.add_argument("--bounds", action="store_true", help="keep pixels in range while optimising (lbfgsb)")
    group.add_argument(
        "--init",
        choices=("random", "image"),
        default=None,
        help="start from noise or from the content (default: that of the network)",
    )
    group.add_argument("--init-image", metavar="FILE", help="start from this picture")
    group.add_argument(
        "--margin", type=whole, metavar="N",
        help="pixels on every side that are computed and cut off (default: that of the network; of most, 0)",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=whole, default=-1, metavar="N", help="of the noise; negative: a new one each time (default)"
    )
    group.add_argument(
        "--compat", action="store_true", help="the exact numbers, defaults and file names of neural_style.lua"
    )

    group = parser.add_argument_group("large pictures and long runs")
    group.add_argument(
        "--tile-size", type=_tile_size, metavar="N|auto|off",
        help="compute windows of N×N pixels one after the other: the same result in the memory of one; auto: as large "
        "as the free memory allows (default: off)",
    )
    group.add_argument(
        "--offload", nargs="?", const="", metavar="FOLDER",
        help="keep picture, optimiser and content features in host memory, or in files in this folder",
    )
    group.add_argument("--checkpoint", metavar="FILE.npz", help="keep the state of the run in this file")
    group.add_argument(
        "--checkpoint-iter", type=whole, default=50, metavar="N", help="every N iterations (default: 50)"
    )
    group.add_argument("--resume", action="store_true", help="go on from the checkpoint, if it is there")

    group = parser.add_argument_group("reports")
    group.add_argument(
        "--print-iter", type=whole, metavar="N", help="a line every N iterations where no terminal is (default: 50)"
    )
    group.add_argument(
        "--save-iter", type=whole, metavar="N", help="save out_N.png every N iterations (default: 0, never)"
    )
    group.add_argument("--log", metavar="FILE.csv", help="write the losses of every iteration")
    group.add_argument("--quiet", action="store_true", help="say nothing unless something goes wrong")


def execute(args) -> int:
    """Carry out `cvstyle run`; returns the exit status."""
    from .. import images
    from ..transfer import stylize

    styles, options = run_options(args)
    for name, default in (_COMPAT if args.compat else _MODERN).items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    images.check_writable(args.output, args.bits, options.stages(1)[-1][0])
    _check_nothing_overwritten(args, styles)
    limit_threads(args)
    devices = chosen_backends(args)
    metadata = {"Software": f"cvstyle {__version__}", "Command": shlex.join(["cvstyle", *args.command_line])}

    if len(devices) == 1 and (args.split or args.multigpu_strategy) and not args.quiet:
        print("cvstyle: one device shares nothing: --split and --multigpu-strategy change nothing", file=sys.stderr)

    interrupted = _handle_signals(args)
    if args.resume and not args.quiet:
        _say_what_is_resumed(args)
    with _Reporter(args) as report, _told(report.say):

        def write(path, picture, iteration, seed=None):
            notes = dict(metadata, Iterations=str(iteration))
            if seed is not None:
                notes["Seed"] = str(seed)
            images.write(path, picture.rgb, picture.alpha, picture.icc, notes, bits=args.bits)

        def after(iterate):
            report(iterate)
            if (
                args.save_iter > 0
                and iterate.iteration % args.save_iter == 0
                and iterate.iteration < iterate.num_iterations
            ):
                try:
                    write(_numbered(args.output, iterate.iteration), iterate.picture(), iterate.iteration)
                except ImageError as error:  # the run goes on: its end may find room again
                    report.say(f"cvstyle: {error}")
            if interrupted():
                raise KeyboardInterrupt

        result = stylize(
            args.content, styles, proto=args.proto, model=args.model, backend=devices[0], devices=devices,
            callback=after, options=options,
            planned=None if args.quiet else lambda plan: print(plan, file=sys.stderr, flush=True),
        )  # fmt: skip
        _write_somewhere(args, lambda path: write(path, result.picture, result.iterations, result.seed))
    return _conclude(args, result, devices)


@contextmanager
def _told(say):
    """Within it, checkpoints that could not be written are a line each."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CheckpointWarning)
        show = warnings.showwarning

        def tell(message, category, *rest):
            if issubclass(category, CheckpointWarning):
                say(f"cvstyle: {message}")
            else:
                show(message, category, *rest)

        warnings.showwarning = tell
        yield


def _write_somewhere(args, write):
    """Write the result. Where its place does not take it, another does, since it may be the work of hours."""
    try:
        write(args.output)
    except ImageError as error:
        folders = [os.getcwd(), os.path.expanduser("~")]
        with suppress(OSError):  # where no folder for temporary files has room
            folders.insert(0, tempfile.gettempdir())
        for folder in folders:
            path = os.path.join(folder, f"cvstyle-{os.getpid()}-{os.path.basename(args.output)}")
            with suppress(ImageError):
                write(path)
                break
        else:
            raise
        raise ImageError(f"{error}; the picture is in {path}") from None


def run_options(args):
    """(paths of the styles, `transfer.Options`) of a command line."""
    from ..transfer import Options

    styles = _style_paths(args.style)
    names = Options.__dataclass_fields__
    counts = args.num_iterations
    if counts:
        args.num_iterations, args.scale_iterations = counts[0], counts if len(counts) > 1 else None
    options = Options(**{name: value for name, value in vars(args).items() if name in names and value is not None})
    options.check(len(styles))
    return styles, options


def _say_what_is_resumed(args):
    if not os.path.exists(args.checkpoint):
        print(f"cvstyle: {args.checkpoint} is not there yet; starting from the beginning", file=sys.stderr)
    elif args.optimizer == "lbfgsb":
        print(
            "cvstyle: SciPy keeps lbfgsb's history to itself, so it starts anew from the checkpoint's picture",
            file=sys.stderr,
        )


def _conclude(args, result, devices):
    if result.stopped == "interrupted":
        kept = f", and {args.checkpoint} goes on from iteration {result.checkpoint} with --resume"
        kept = kept if result.checkpoint is not None else ""
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
        for backend in devices:
            if hasattr(backend, "device"):
                print(f"{backend.device.name}: {backend.memory_used()}")
    return 0


def _style_paths(text):
    """Comma-separated paths, unless the whole is the name of one file."""
    paths = [text] if os.path.exists(text) else [part for part in text.split(",") if part]
    if not paths:
        raise OptionError("--style names no file")
    return paths


def _check_nothing_overwritten(args, styles):
    written = {"output": args.output, "log": args.log, "checkpoint": args.checkpoint}
    written = {kind: path for kind, path in written.items() if path}
    stem, extension = os.path.splitext(args.output)
    for path in filter(None, [args.content, *styles, args.proto, args.model, args.init_image]):
        name, ending = os.path.splitext(path)
        name, _, iteration = name.rpartition("_")
        numbered = args.save_iter > 0 and ending == extension and iteration.isdecimal() and _same_file(name, stem)
        for kind, place in written.items():
            # A run may go on from its own output: that is read before it is written.
            continued = kind == "output" and path == args.init_image
            if not continued and (_same_file(path, place) or (kind == "output" and numbered)):
                raise OptionError(f"{place}: the {kind} would overwrite the input {path}; choose another name")
    for (one, path), (other, same) in combinations(written.items(), 2):
        if _same_file(path, same):
            raise OptionError(f"{path}: the {other} and the {one} are one file; choose another name")


def _same_file(path, other):
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other)
    return os.path.realpath(path) == os.path.realpath(other)


def _handle_signals(args):
    """Let Ctrl-C and SIGTERM end the run with its picture; returns what says if an iteration that ended was the last.

    The first raises KeyboardInterrupt, or with a checkpoint waits for the end of the iteration, where the state is
    whole. One more while the picture is saved changes nothing, and the next ends the process.
    """
    waits = 1 if args.checkpoint else 0
    received = []

    def handle(_, frame):
        received.append(True)
        if len(received) <= waits:
            if not args.quiet:
                print("cvstyle: stopping after this iteration; once more to stop at once", file=sys.stderr)
        elif len(received) == waits + 1:
            if frame.f_code.co_name != "__del__":  # Python ignores what is raised there; this iteration is the last
                raise KeyboardInterrupt
        else:
            for kind in (signal.SIGINT, signal.SIGTERM):
                signal.signal(kind, signal.SIG_DFL)

    def ended():
        if received:
            received.extend([True] * waits)  # the wait is over, so the next one finds the picture being saved
        return bool(received)

    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, handle)
    return ended


def _blend_weights(text):
    """None from "nil", neural_style.lua's default."""
    return None if text == "nil" else numbers(text)


def _cuts(text):
    """[3, "pool2"] from "3,pool2": layers by number or name; numbers ascend from 1 on."""
    found = [int(part) if part.lstrip("+-").isdecimal() else part for part in comma_list(text)]
    counted = [part for part in found if isinstance(part, int)]
    if counted != sorted(set(counted)) or min(counted, default=1) < 1 or (text and not found):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of ascending positions such as 3,6,12")
    return found


def chosen_backends(args):
    """The backends to use, one per device; the reference's own names and its GPUs are mapped to what there is.

    On the CPU a device is a share of the threads.
    """
    found = _found_backends(args)
    for backend in found:
        if args.no_autotune:
            backend.autotune = False
        elif backend.name == "cudnn":
            backend.autotune = args.cudnn_autotune
    return found


def _found_backends(args):
    from .. import backends

    numbers = [n.strip() for n in (args.gpu or "").split(",") if n.strip()]
    if any(n != "-1" and not n.isdecimal() for n in numbers):
        raise OptionError(f"--gpu {args.gpu}: a device number, or -1 for the CPU, is needed")
    wanted = [n for n in numbers if n != "-1"]
    if wanted and args.device:
        raise OptionError("--gpu and --device both choose a device; give one of them")
    name, device = args.backend, args.device or next(iter(wanted), None)
    if name in _REFERENCE_BACKENDS or (name == "auto" and numbers):
        surveyed = backends.survey()
        gpus = {backend for backend, _, found in surveyed for d in found if d.kind == "gpu"}
        own = {"clnn": "opencl"}.get(name, name)
        name = own if own in gpus else "gpu"
        if own == "cudnn" and gpus and name != own and (wanted or not numbers) and not args.quiet:
            reason = next(problem for backend, problem, _ in surveyed if backend == own)
            best = backends.best("gpu").Backend.name
            print(f"cvstyle: backend 'cudnn' cannot be used: {reason}; using {best}", file=sys.stderr)
        if numbers and not wanted:
            name, device = "cpu", None
        elif not gpus:
            name, device = "cpu", None
            if wanted and not args.quiet:
                print("cvstyle: no GPU can be used ('cvstyle devices' says why); using the CPU", file=sys.stderr)
    if len(set(wanted)) < len(wanted):
        raise OptionError(f"--gpu {args.gpu}: each device can be named once")
    if len(wanted) < 2 or (name == "cpu" and args.backend != "cpu"):
        whole = len(wanted) == 1 and backends.is_host(name)  # all of the threads
        return [backends.get(name, None if whole else device, args.precision)]
    if backends.is_host(name):
        first = backends.get(name, None, args.precision)
        threads = first.workers.count  # of layers one device works at a time
        if args.split == "tiles" or not (args.split or args.multigpu_strategy):
            threads = max(1, threads // len(wanted))
        return [type(first)(threads=threads) for _ in wanted]
    first = backends.get(name, device, args.precision)
    return [first, *(backends.get(name, number, args.precision) for number in wanted[1:])]


def _tile_size(text):
    if text in ("auto", "off"):
        return text if text == "auto" else None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of pixels such as 1024, nor auto or off")
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
        self.started = self.first = self.drawn = self.pending = None
        self.silent = args.quiet

    def __enter__(self):
        if self.args.log:
            try:
                self.log = open(self.args.log, "w", encoding="utf-8", newline="")
            except OSError as error:
                raise OptionError(f"{self.args.log}: the log cannot be written: {error.strerror}") from None
        self.started = time.monotonic()
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self._report_pending()
        if self.bar is not None:
            self.bar.close()
        if self.log is not None:
            self.log.close()

    def __call__(self, iterate):
        now = time.monotonic()
        self.first = self.first or now
        self._report_pending()
        if self.log is not None or self._is_due(iterate, now):
            iterate.fetch()
            self.pending = iterate, now
        if not iterate.asynchronous or iterate.iteration == iterate.num_iterations:
            self._report_pending()

    def _is_due(self, iterate, now):
        """Whether something is to be shown of it."""
        if self.silent:
            return False
        last = iterate.iteration == iterate.num_iterations
        if sys.stderr.isatty():
            return last or self.bar is None or now - self.drawn >= self.bar.mininterval
        return self.args.print_iter > 0 and (iterate.iteration % self.args.print_iter == 0 or last)

    def _report_pending(self):
        """Log and show the iteration whose losses were fetched; on a device, the next one has begun by now."""
        if self.pending is None:
            return
        (iterate, now), self.pending = self.pending, None
        if self.log is not None:
            self._write_log(iterate, now - self.started)
        if not self._is_due(iterate, now):
            return
        if sys.stderr.isatty():
            self._draw_bar(iterate, now)
        else:
            from ..plan import duration

            # The first iteration waits for files and kernels, so it says nothing about the others.
            steps, seconds = iterate.iteration - 1, now - self.first
            rate = steps / seconds if steps and seconds else 1 / (now - self.started)
            left = (iterate.num_iterations - iterate.iteration) / rate
            self.say(
                f"iteration {iterate.iteration}/{iterate.num_iterations}: {_summary(iterate)}; "
                f"{rate:.2f} iterations/s, {duration(left)} left"
            )

    def say(self, line):
        """Print a line; a reader that went away does not end the run."""
        try:
            if self.bar is not None:
                self.bar.clear()
            print(line, file=sys.stderr, flush=True)
        except OSError:
            self.silent = True

    def _draw_bar(self, iterate, now):
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=iterate.num_iterations, unit="it", dynamic_ncols=True, smoothing=0.1, bar_format=_BAR)
        short = shutil.get_terminal_size().columns < _WIDE
        self.bar.set_postfix_str(_summary(iterate, short), refresh=False)
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
        try:
            self.log.flush()
        except OSError as error:
            self.say(f"cvstyle: {self.args.log}: the log ends here: {error.strerror}")
            with suppress(OSError):
                self.log.close()
            self.log = None


def _summary(iterate, short=False):
    """The loss and its three kinds: "loss 1.2e+05 (content 3e+04, style 9e+04, tv 120)"; short: the kinds alone."""
    kinds = {}
    for name, value in iterate.losses.items():
        kind = name.partition(":")[0]
        kinds[kind] = kinds.get(kind, 0) + value
    if short:
        return ", ".join(f"{kind} {value:.2g}" for kind, value in kinds.items())
    return f"loss {iterate.loss:.4g} (" + ", ".join(f"{kind} {value:.3g}" for kind, value in kinds.items()) + ")"
