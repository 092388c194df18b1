"""The report of `make gpu-bench`: cvstyle on a GPU in every precision, beside PyTorch, written to benchmarks/results/.

usage: python benchmarks/gpu_report.py [--sections ceilings,iterations,peers,layers,gradients,pictures]
       [--precisions fp32,tf32,...,cudnn] [--sizes 256,512,1024,2048] [--networks VGG-19,embedded]
       [--iterations 100] [--pictures 500]

Every precision and peer has a process of its own, with a time limit: one that hangs or breaks the GPU's context is a
line of the report, and the others go on. Lines are written as they come, to a file named after device and part.

Ceilings (a large copy, large matrix products) are measured in the same run. Iterations are L-BFGS with cvstyle's
history; each time is that of so many iterations between two synchronisations, after enough to compile, to fill the
history and to record the graph; the median of three. Kernels are those that were measured to be fastest. TFLOP/s are
those of direct convolutions. What is not installed or does not fit is left out and the reason is given. With
CVSTYLE_WGMMA=1 Hopper's own instruction is among the kernels, in a report of its own without peers. --narrow and
--dry-run are for trying the report out with a stand-in for the GPU: few iterations, small products.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import objective, problem, vgg19, where
from gpu import products, seconds_of

from cvstyle import Objective, backends, images, zoo
from cvstyle.backends.device import tensor
from cvstyle.backends.numpy import Backend as Reference
from cvstyle.errors import CvstyleError
from cvstyle.layers.convolution import Convolution
from cvstyle.network import Network, load_network
from cvstyle.optimize import lbfgs

PRECISIONS = ("fp32", *tensor.PRECISIONS)
CUDNN = ("fp32", "tf32-fast")
_WARM = lbfgs.HISTORY + 8
_FILE = "CVSTYLE_REPORT"  # names the file to the processes of one configuration
_COPY, _PRODUCTS = "device to device copy, read and written", "PyTorch"
_PLAIN = "plain fp32, eager, torch.optim.LBFGS"
_BEST = "best: channels_last, bf16 autocast, cudnn.benchmark, evaluation as one CUDA graph, history as cvstyle's"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device")
    parser.add_argument("--sections", default="")
    parser.add_argument("--precisions", default=",".join((*PRECISIONS, "cudnn")))
    parser.add_argument("--sizes", default="256,512,1024,2048")
    parser.add_argument("--networks", default="VGG-19,embedded")
    parser.add_argument("--limit", type=int, default=300, help="seconds that one configuration may take in a section")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=500, help="iterations after which pictures are compared")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # the configuration of this process
    parser.add_argument("--narrow", type=int, default=1, help="VGG-19 with so many times fewer channels, to try it out")
    parser.add_argument("--proto", help="of a VGG-19 with trained weights, instead of random ones")
    parser.add_argument("--model", help="that belongs to it")
    parser.add_argument("--part", help="a name for this part of the report, which has a file of its own")
    parser.add_argument("--output", default=str(Path(__file__).parent / "results"))
    args = parser.parse_args()
    sizes = [int(n) for n in args.sizes.split(",")]
    report = Report(args)
    if os.environ.get("CVSTYLE_WGMMA") == "1" and not report.wgmma:
        parser.exit(message="CVSTYLE_WGMMA=1 is for NVIDIA GPUs of compute capability 9.0: nothing to report\n")
    names = args.sections.split(",") if args.sections else _OF_WGMMA if report.wgmma else tuple(SECTIONS)
    if args.only:
        try:
            return SECTIONS[names[0]].run(report, args, sizes)
        except (CvstyleError, MemoryError, ImportError) as error:
            sys.exit(first_line(error))
    report.head()
    for name in names:
        title, columns, _, configurations = SECTIONS[name]
        report.header(title.format(size=second(sizes), first=sizes[0], pictures=args.pictures), *columns)
        for configuration in configurations(report):
            fault = alone(name, configuration, args.limit)
            if fault:
                report.table(configuration, f"left out: {fault}", *[""] * (len(columns) - 2))
    print(f"written to {report.path}")


def alone(section, configuration, limit):
    """Do a configuration of a section in a process of its own; what went wrong, or None."""
    command = [sys.executable, *sys.argv, "--sections", section, "--only", configuration]
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit} s"
    if done.returncode == 0:
        return None
    return f"exit status {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}"


class Report:
    """Lines that go to the terminal and to a Markdown file, written as they come."""

    def __init__(self, args):
        self.args = args
        device = backends.get("cuda", args.device).device
        self.name, self.wgmma = device.name, device.wgmma
        name = "".join(c if c.isalnum() else "-" for c in self.name.lower()).strip("-")
        parts = [name, *["wgmma"] * self.wgmma, *filter(None, [args.part])]
        self.path = Path(os.environ.get(_FILE) or Path(args.output) / f"gpu-{'-'.join(parts)}.md")
        if not args.only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("", "utf-8")
            os.environ[_FILE] = str(self.path)

    def configurations(self):
        """What is compared, by name."""
        wanted = self.args.precisions.split(",")
        found = [p for p in (tensor.PRECISIONS if self.wgmma else PRECISIONS) if p in wanted]
        if "cudnn" in wanted and not self.wgmma:
            found += [f"cuDNN {precision}, autotuned" for precision in CUDNN]
        return found

    def ops(self):
        """A new backend, as this process's configuration says."""
        if not self.args.only.startswith("cuDNN"):
            return backends.get("cuda", self.args.device, self.args.only)
        ops = backends.get("cudnn", self.args.device, self.args.only.split()[1].rstrip(","))
        ops.autotune = True
        return ops

    def line(self, text=""):
        print(text, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def table(self, *cells):
        self.line("| " + " | ".join(str(c) for c in cells) + " |")

    def header(self, title, *cells):
        self.line(f"\n## {title}\n")
        self.table(*cells)
        self.table(*["---"] * len(cells))

    def head(self):
        self.line(f"# {self.name}\n")
        if self.args.dry_run:
            self.line("**A dry run: no figure here is that of a GPU.**\n")
        self.line(where() + "\n")
        for command in (["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,power.limit", "--format=csv"],):
            try:
                self.line(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
            except (OSError, subprocess.CalledProcessError) as error:
                self.line(f"nvidia-smi: {first_line(error)}")
        for name in ("cupy", "cudnn", "torch"):
            try:
                self.line(f"\n{name} {__import__(name).__version__}")
            except ImportError as error:
                self.line(f"\n{name}: {first_line(error)}")


def ceilings(report, args, sizes):
    """What a large copy and large matrix products reach."""
    if args.only == _COPY:
        ops = backends.get("cuda", args.device)
        count = (1 << 20) if args.dry_run else (1 << 28)
        source = ops.zeros((count,))
        rate = 8 * count / seconds_of(ops, lambda: ops.copy(source))
        return report.table(_COPY, f"{rate / 1e9:.0f} GB/s")
    torch = torch_on_a_gpu(args)
    n = 256 if args.dry_run else 8192
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False), ("tf32", torch.float32, True), ("fp16", torch.float16, True),
        ("bf16", torch.bfloat16, True),
    ):  # fmt: skip
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(n, n, device=torch_device(torch)).to(dtype) for _ in range(2))
        seconds = torch_seconds(torch, lambda a=a, b=b: a @ b)
        report.table(f"matrix product {n}³, {name} ({_PRODUCTS})", f"{2 * n**3 / seconds / 1e12:.1f} TFLOP/s")


def iterations(report, args, sizes):
    """Milliseconds and memory, every size, VGG-19 and the embedded network."""
    for name, definition in networks(args):
        for size in sizes:
            try:
                row = iteration(report.ops(), definition, size, args)
            except (CvstyleError, MemoryError) as error:
                row = [f"left out: {first_line(error)}", *[""] * 6]
            report.table(args.only, name, f"{size}×{size * 3 // 4}", *row)


def iteration(ops, definition, size, args):
    net = Network(definition, ops)
    p = problem(net.layer_names, size)
    function, x = objective(net, p), ops.asarray(p.start[None])
    state = lbfgs.init(ops, x)
    marks, warm = [], 5 if args.dry_run else _WARM

    def callback(number, x):
        if number >= warm and (number - warm) % args.iterations == 0:
            ops.device.synchronize()
            marks.append(time.perf_counter())

    lbfgs.minimize(function, x, warm + 3 * args.iterations, callback, state=state, **lbfgs.FOR_PICTURES)
    times = [(b - a) / args.iterations * 1e3 for a, b in itertools.pairwise(marks)]
    recorded = "no" if ops.recording_problem or not ops.recorded_peak else "yes"
    history = state.steps.nbytes + state.changes.nbytes
    memory = ops.pool.peak + ops.recorded_peak - ops.weights
    seconds = seconds_of(ops, lambda: function.evaluate(x))
    flops = ""
    if args.narrow == 1 and "conv1_1" in net.layer_names:
        flops = f"{2 * products(size, size * 3 // 4) / statistics.median(times) / 1e9:.1f}"
    return [
        f"{statistics.median(times):.2f}", f"{min(times):.2f} to {max(times):.2f}", f"{seconds * 1e3:.2f}", flops,
        f"{memory / 1e6:.0f}", f"{history / 1e6:.0f}", recorded,
    ]  # fmt: skip


def peers(report, args, sizes):
    """The same objective in PyTorch: plain, and as fast as it can be made."""
    torch = torch_on_a_gpu(args)
    from peer_torch import TorchStyle

    device, build = torch_device(torch), args.only == _BEST
    for name, definition in networks(args):
        for size in sizes:
            p = problem([d.name for d in definition.layers], size)
            try:
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = build
                torch.backends.cudnn.benchmark = build
                style = TorchStyle(definition, p, device, lbfgs.HISTORY if build else 100)
                evaluate, step = fast(torch, style) if build else (style.closure, style.step)
                for _ in range(3):
                    step()
                each, evaluation = torch_seconds(torch, step), torch_seconds(torch, evaluate)
                peak = f"{torch.cuda.max_memory_allocated() / 1e6:.0f}" if device == "cuda" else ""
                row = [f"{each * 1e3:.2f}", f"{evaluation * 1e3:.2f}", peak]
            except RuntimeError as error:  # also for too little memory
                row = [f"left out: {first_line(error)}", "", ""]
            report.table(args.only, name, f"{size}×{size * 3 // 4}", *row)


def fast(torch, style):
    """(evaluation, iteration) of a TorchStyle in the best configuration."""
    device = style.x.device.type
    style.layers = [
        (d, [w.to(memory_format=torch.channels_last) if w.ndim == 4 else w for w in weights])
        for d, weights in style.layers
    ]
    style.x.grad = torch.zeros_like(style.x)

    def compute():
        style.x.grad.zero_()
        with torch.autocast(device, torch.bfloat16):
            loss = style.total()
        loss.backward()
        return loss.detach()

    evaluate = compute
    if device == "cuda":
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = compute()

        def evaluate():
            graph.replay()
            return loss

    return evaluate, lambda: style.optimizer.step(evaluate)


def layers(report, args, sizes):
    """Each convolution of VGG-19 alone at the second size, and what was chosen for it."""
    ops, size = report.ops(), second(sizes)
    net = Network(vgg(args), ops)
    shapes = net.shapes((size * 3 // 4, size))
    net.program(["relu5_1"]).shapes((size * 3 // 4, size))  # which makes the filters
    for index, node in enumerate(net.nodes):
        layer = net.layer(index)
        if not isinstance(layer, Convolution) or not hasattr(layer, "filters"):
            continue
        inner, outer = shapes[node.bottoms[0]], shapes[node.tops[0]]
        rng = np.random.default_rng(0)
        x, g = (ops.asarray(rng.standard_normal(s, dtype=np.float32)) for s in (inner, outer))
        filters, pad = layer.filters, layer.pad
        try:
            _, mask = filters.forward_relu(x, pad, True)
            ops.settled(filters.backward_relu(g, mask, inner[2:], pad))
            forward = ops.device.seconds(lambda: filters.forward_relu(x, pad, True))
            backward = ops.device.seconds(lambda: ops.settled(filters.backward_relu(g, mask, inner[2:], pad)))
        except (CvstyleError, MemoryError) as error:
            report.table(args.only, layer.name, f"left out: {first_line(error)}", *[""] * 5)
            continue
        flops = 2 * 9 * inner[1] * math.prod(outer[1:]) / 1e12
        report.table(
            args.only, layer.name, f"{forward * 1e3:.3f}", f"{flops / forward:.1f}", filters.engine(),
            f"{backward * 1e3:.3f}", f"{flops / backward:.1f}", filters.engine(backward=True),
        )  # fmt: skip


def gradients(report, args, sizes):
    """The gradient's error against float64, at the first size."""
    for name, definition in networks(args):
        net = Network(definition, Reference("float64"))
        p = problem(net.layer_names, sizes[0])
        x = p.content + np.random.default_rng(1).standard_normal(p.content.shape) * 20
        loss, exact = objective(net, p)(x)
        ours, gradient = objective(Network(definition, report.ops()), p)(x)
        error = np.linalg.norm(gradient - exact) / np.linalg.norm(exact)
        report.table(args.only, name, f"{error:.2e}", f"{abs(ours / loss - 1):.2e}")


def pictures(report, args, sizes):
    """The demo's pictures through VGG-19: how far the result is from that of fp32, which is the first to be made."""
    folder = Path(__file__).resolve().parents[1] / "models" / "demo"
    content, style = (images.preprocess(shrunk(folder / f"{n}.jpg", second(sizes))) for n in ("content", "style"))
    net = Network(vgg(args), report.ops())
    known = zoo.defaults(net.layer_names)
    names = ("content_weight", "style_weight", "tv_weight", "content_layers", "style_layers")
    function = Objective(net, content, [style], **{name: known[name] for name in names})
    x = net.ops.asarray(content[None])
    x = lbfgs.minimize(function, x, args.pictures, lambda i, x: None, **lbfgs.FOR_PICTURES)
    files = {p: str(report.path.with_name(f"{report.path.stem}-{p}.png")) for p in ("fp32", args.only)}
    images.write(files[args.only], images.deprocess(net.ops.to_host(x)[0]))
    rgb, base = (images.read(files[p]).rgb / 255.0 for p in (args.only, "fp32"))
    error = np.mean((rgb - base) ** 2)
    blocks = np.abs(mean_blocks(rgb) - mean_blocks(base)).max() * 255
    decibels = f"{-10 * math.log10(error):.1f}" if error else "same"
    report.table(args.only, f"{function.loss:.6g}", decibels, f"{blocks:.2f}")


class Section(NamedTuple):
    """A table: its title and columns, what fills it for one configuration, and a function that lists those."""

    title: str
    columns: tuple
    run: object
    configurations: object


SECTIONS = {
    "ceilings": Section("Ceilings of this run", ("what", "reached"), ceilings, lambda _: (_COPY, _PRODUCTS)),
    "iterations": Section(
        "Iterations",
        ("precision", "network", "size", "ms", "spread", "objective, launched, ms", "TFLOP/s", "MB beside filters",
         "of it history", "recorded"),
        iterations, Report.configurations,
    ),
    "peers": Section(
        "PyTorch", ("configuration", "network", "size", "ms per iteration", "evaluation, ms", "MB at most"), peers,
        lambda _: (_PLAIN, _BEST),
    ),
    "layers": Section(
        "Layers of VGG-19 at longest side {size}",
        ("precision", "layer", "forward, ms", "TFLOP/s", "by", "backward, ms", "TFLOP/s", "by"), layers,
        Report.configurations,
    ),
    "gradients": Section(
        "Gradients at {first} against float64", ("precision", "network", "relative error", "of the loss"), gradients,
        Report.configurations,
    ),
    "pictures": Section(
        "Pictures after {pictures} iterations of VGG-19",
        ("precision", "loss", "PSNR to fp32, dB", "largest difference of a mean of 16×16, in 255ths"), pictures,
        lambda _: PRECISIONS,
    ),
}  # fmt: skip
_OF_WGMMA = ("iterations", "layers", "gradients")


def second(sizes):
    return sizes[min(1, len(sizes) - 1)]


def mean_blocks(rgb, side=16):
    height, width = (n // side for n in rgb.shape[:2])
    return rgb[: height * side, : width * side].reshape(height, side, width, side, 3).mean((1, 3))


def shrunk(path, longest):
    rgb = images.read(str(path)).rgb
    return images.resize(rgb, images.target_size(*rgb.shape[:2], longest))


def networks(args):
    """(name, definition) of those that are asked for."""
    wanted = args.networks.split(",")
    if "VGG-19" in wanted:
        yield "VGG-19", vgg(args)
    if "embedded" in wanted:
        yield "embedded", load_network(*zoo.embedded_files(), "numpy").definition


def vgg(args):
    if args.proto:
        return load_network(args.proto, args.model, "numpy").definition
    if args.narrow == 1:
        return vgg19()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import nets

    return nets.vgg(19, args.narrow, (64, 64), classifier=False)


def torch_on_a_gpu(args):
    import torch

    if not torch.cuda.is_available() and not args.dry_run:
        raise ImportError(f"PyTorch {torch.__version__} finds no GPU")
    return torch


def torch_device(torch):
    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_seconds(torch, run, repeats=10):
    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    times = []
    for _ in range(repeats + 2):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def first_line(error):
    """With the next one, where it only announces a compiler's log."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join((first, *more[: first.endswith(":")]))


if __name__ == "__main__":
    main()
