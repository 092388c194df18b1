"""The steps that measure, each in a process of its own: `function(settings, emit)`, emit(values) for every row."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common import VGG19, distance, objective, problem, versions, vgg19

from cvstyle import Objective, backends, images, optimize, zoo
from cvstyle.backends.base import RELU
from cvstyle.backends.device import dry_run
from cvstyle.backends.reference import Backend as Reference
from cvstyle.errors import CvstyleError
from cvstyle.graph import Network, load_network
from cvstyle.layers.convolution import Convolution
from cvstyle.optimize import lbfgs

WARM = lbfgs.HISTORY + 8  # iterations until everything is compiled, chosen, recorded, and the history full
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Settings:
    """configuration: the precision, or another variant. sizes: longest sides, of 4:3. scratch: a folder that the steps
    of a report share. narrow: divisor of VGG-19's channels. dry: try the report out, without a GPU.
    """

    configuration: str
    scratch: str = "."
    report: str = ""
    device: str | None = None
    sizes: list[int] = field(default_factory=lambda: [512])
    networks: list[str] = field(default_factory=lambda: ["VGG-19", "embedded"])
    iterations: int = 60
    pictures: int = 200
    tile: int = 2048
    narrow: int = 1
    dry: bool = False
    proto: str | None = None
    model: str | None = None
    command: list[str] = field(default_factory=list)

    def ops(self, precision: str | None = None):
        """A new backend, as the configuration says."""
        name, _, precision = (precision or self.configuration).rpartition(" ")
        ops = backends.get(name or "cuda", self.device, precision)
        ops.autotune = ops.autotune or name == "cudnn"
        return ops

    def nets(self):
        """(name, definition) of the networks that are asked for."""
        if "VGG-19" in self.networks:
            yield "VGG-19", self.vgg()
        if "embedded" in self.networks:
            yield "embedded", load_network(*zoo.embedded_files(), "numpy").definition

    def vgg(self):
        if self.proto:
            return load_network(self.proto, self.model, "numpy").definition
        return vgg19(divisor=self.narrow)

    def at(self, name: str) -> Path:
        return Path(self.scratch) / name


def machine(s: Settings, emit):
    """The machine and the versions, the device last: without a device the rest is known at least."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu"]
    for name, value in {**versions(), "nvidia-smi": said([*query, "--format=csv,noheader"])}.items():
        emit({"what": name, "found": value})
    device = backends.get("cuda", s.device).device
    emit({"what": "driver", "found": device.driver})
    size = f"{device.multiprocessors} multiprocessors, {device.memory >> 20} MB"
    emit({"what": "device", "found": f"{device.name}, {size}"})


def first(s: Settings, emit):
    """One small evaluation: VGG-19 of an eighth of the width, and whether an iteration is recorded and replayed."""
    start = time.perf_counter()
    definition = vgg19(divisor=max(8, s.narrow))
    p, x = evaluation(definition, 64 if s.dry else 128)
    loss, exact = objective(Network(definition, Reference("float64")), p)(x)
    ops = s.ops()
    ops.autotune = False
    function = objective(Network(definition, ops), p)
    ours, gradient = function(x)
    found = {
        "size": shape(p.content.shape[2]), "error of the gradient": distance(gradient, exact),
        "of the loss": abs(ours / loss - 1),
    }  # fmt: skip
    at, kept = ops.asarray(x[None]), ops.zeros((1, *x.shape))
    iteration = ops.capture(lambda: ops.add_scaled(ops.scale(kept, 0.0), 1.0, function.evaluate(at)))
    for _ in range(5):
        iteration()
    emit({
        **found, "replayed": distance(ops.to_host(kept)[0], exact), "recorded": ops.capture_problem or "yes",
        "seconds": time.perf_counter() - start,
    })  # fmt: skip
    refuse(found["error of the gradient"], 1e-2)


def iterations(s: Settings, emit):
    """Milliseconds and memory at every size."""
    for name, definition in s.nets():
        for size in s.sizes:
            values = {"network": name, "size": shape(size)}
            try:
                emit({**values, **iteration(s, definition, size)})
            except (CvstyleError, MemoryError) as error:
                emit({**values, "spread": f"left out: {first_line(error)}"})


def iteration(s, definition, size):
    ops = s.ops()
    net = Network(definition, ops)
    p = problem(net.layer_names, size)
    function, x = objective(net, p), ops.asarray(p.start[None])
    state, marks = lbfgs.init(ops, x), []
    each, warm = (2, 5) if s.dry else (max(20, s.iterations * min(512, size) // size), WARM)

    def callback(number, x):
        if number >= warm and (number - warm) % each == 0:
            ops.device.synchronize()
            marks.append(time.perf_counter())

    optimize.minimize("lbfgs", function, x, warm + 3 * each, callback, state=state, **lbfgs.FOR_PICTURES)
    times = [(b - a) / each * 1e3 for a, b in itertools.pairwise(marks)]
    ms = statistics.median(times)
    found = {
        "ms": ms, "spread": f"{min(times):.2f} to {max(times):.2f}",
        "evaluation, launched, ms": seconds_of(ops, lambda: function.evaluate(x)) * 1e3,
        "MB": (ops.pool.max_allocated + ops.captured_peak) / 1e6, "filters, MB": ops.filter_bytes / 1e6,
        "history, MB": (state.steps.nbytes + state.changes.nbytes) / 1e6,
        "recorded": ops.capture_problem or ("yes" if ops.captured_peak else "no"),
        "not tried": len(ops.choices.untried), "untried": ops.choices.untried, "loss": float(function.loss),
    }  # fmt: skip
    if s.narrow == 1 and "conv1_1" in net.layer_names:
        found["TFLOP/s"] = 2 * products(size, size * 3 // 4) / ms / 1e9
    return found


def ceilings(s: Settings, emit):
    """Bandwidth of a large copy, reads and writes."""
    ops = s.ops("fp32")
    count = (1 << 20) if s.dry else (1 << 29)
    source = ops.zeros((count,))
    target = ops.empty((count,))
    copy = lambda: ops.device.copy(target.block.view, source.block.view, source.nbytes)  # noqa: E731
    emit({"what": "copy, read and written", "reached": 8 * count / seconds_of(ops, copy) / 1e9, "unit": "GB/s"})


def layers(s: Settings, emit):
    """Each convolution of VGG-19 alone, and its algorithm."""
    ops, size = s.ops(), s.sizes[0]
    net, ceiling = Network(s.vgg(), ops), ceiling_of(s)
    shapes = net.shapes((size * 3 // 4, size))
    net.program(["relu5_1"]).shapes((size * 3 // 4, size))  # which makes the filters
    for index, node in enumerate(net.nodes):
        layer = net.layer(index)
        if isinstance(layer, Convolution) and hasattr(layer, "filters"):
            inner, outer = shapes[node.bottoms[0]], shapes[node.tops[0]]
            try:
                emit({"layer": layer.name, "size": shape(size), **timed(ops, layer, inner, outer, ceiling)})
            except (CvstyleError, MemoryError) as error:
                emit({"layer": layer.name, "by": f"left out: {first_line(error)}"})


def timed(ops, layer, inner, outer, ceiling):
    """A layer's times with its ReLU. ceiling: TFLOP/s, None where they are not known."""
    rng = np.random.default_rng(0)
    x, g = (ops.asarray(rng.standard_normal(s, dtype=np.float32)) for s in (inner, outer))
    filters, pad = layer.filters, layer.pad
    _, mask = filters.forward(x, pad, RELU)
    ops.materialize(filters.backward(g, inner[2:], pad, mask))
    forward = ops.seconds(lambda: filters.forward(x, pad, RELU))
    backward = ops.seconds(lambda: ops.materialize(filters.backward(g, inner[2:], pad, mask)))
    rates = [2 * 9 * inner[1] * math.prod(outer[1:]) / 1e12 / seconds for seconds in (forward, backward)]
    words = 3 if ops.split_operands and inner[1] > 4 else 1  # products for each that counts
    found = {
        "forward, ms": forward * 1e3, "TFLOP/s": rates[0], "by": filters.engine(),
        "backward, ms": backward * 1e3, "TFLOP/s back": rates[1], "back by": filters.engine(backward=True),
    }  # fmt: skip
    if ceiling:
        found["share of the ceiling"] = words * rates[0] / ceiling
        found["share of the ceiling, back"] = rates[1] / ceiling
    return found


def exact(s: Settings, emit):
    """Gradients in float64, for the steps that compare with them."""
    for name, definition in s.nets():
        start = time.perf_counter()
        p, x = evaluation(definition, s.sizes[0])
        loss, gradient = objective(Network(definition, Reference("float64")), p)(x)
        np.savez(s.at(f"exact-{name}.npz"), loss=loss, gradient=gradient)
        emit({"network": name, "size": shape(s.sizes[0]), "seconds": time.perf_counter() - start})


def gradients(s: Settings, emit):
    """The gradient's error, at the content with noise on it."""
    for name, definition in s.nets():
        p, x = evaluation(definition, s.sizes[0])
        with np.load(s.at(f"exact-{name}.npz")) as known:
            ours, gradient = objective(Network(definition, s.ops()), p)(x)
            error, off = distance(gradient, known["gradient"]), abs(ours / float(known["loss"]) - 1)
        emit({"network": name, "size": shape(s.sizes[0]), "error": error, "of the loss": off})
        refuse(error, 0.2 if s.configuration.endswith("-fast") else 2e-2)


def pictures(s: Settings, emit):
    """The demo's pictures through VGG-19, the fp32 picture first; a JPEG shows them side by side."""
    size = 64 if s.dry else s.sizes[-1]
    content, style = (images.preprocess(shrunk(ROOT / f"models/demo/{n}.jpg", size)) for n in ("content", "style"))
    net = Network(s.vgg(), s.ops())
    known = zoo.defaults(net.layer_names)
    names = ("content_weight", "style_weight", "tv_weight", "content_layers", "style_layers")
    function = Objective(net, content, [style], **{name: known[name] for name in names})
    count = 5 if s.dry else s.pictures
    x = optimize.minimize("lbfgs", function, net.ops.asarray(content[None]), count, **lbfgs.FOR_PICTURES)
    rgb = images.deprocess(net.ops.to_host(x)[0])
    np.save(s.at(f"picture-{s.configuration}.npy"), rgb)
    made = sorted(Path(s.scratch).glob("picture-*.npy"), key=lambda path: path.stat().st_mtime)
    images.write(f"{s.report}-pictures.jpg", np.hstack([np.load(path) for path in made]))  # fp32 on the left
    a, b = (np.load(s.at(f"picture-{p}.npy")) / 255.0 for p in (s.configuration, "fp32"))
    error = np.mean((a - b) ** 2)
    emit({
        "iterations": count, "loss": float(function.loss), "PSNR, dB": -10 * math.log10(error) if error else "same",
        "largest difference of a mean of 16×16, in 255ths": np.abs(mean_blocks(a) - mean_blocks(b)).max() * 255.0,
    })  # fmt: skip


def largest(s: Settings, emit):
    """One evaluation after another, which compiles, and the memory that a dry run of it takes."""
    size, definition = s.sizes[0], s.vgg()
    net = Network(definition, s.ops())
    p = problem(net.layer_names, size, square=True)
    p.style = problem(net.layer_names, min(size, 1024)).style
    if s.dry:  # windows for the deeper layers would take a CPU a minute
        p.content_layers, p.style_layers = ["relu2_2"], ["relu1_1", "relu3_1"]
    planned = dry_run.DryRunBackend(net.ops)
    dry = objective(Network(definition, planned), p, tile_size=s.tile)
    dry.evaluate(planned.zeros((1, *p.content.shape)))
    function, x = objective(net, p, tile_size=s.tile), net.ops.asarray(p.content[None])
    function.evaluate(x)
    seconds = seconds_of(net.ops, lambda: function.evaluate(x), 1)
    emit({
        "size": f"{size}×{size}", "tile": s.tile, "tiles": len(function.tiles), "seconds": seconds,
        "planned, MB": planned.max_reserved / 1e6, "taken, MB": net.ops.pool.max_reserved / 1e6,
        "of the device, MB": net.ops.device.memory / 1e6, "loss": float(function.loss),
    })  # fmt: skip


def evaluation(definition, size):
    """(problem, picture to evaluate at): the content with noise on it."""
    p = problem([d.name for d in definition.layers], size)
    return p, p.content + np.random.default_rng(1).standard_normal(p.content.shape) * 20


def ceiling_of(s):
    """TFLOP/s that a matrix product of the configuration's type reached in this report, or None."""
    word = s.configuration.rpartition(" ")[2].removesuffix("-fast")
    try:
        return json.loads(s.at("ceilings.json").read_text("utf-8")).get(word)
    except OSError:
        return None


def seconds_of(ops, run, repeats=10):
    """Median seconds of a call, with the wait for the device."""
    times = []
    for _ in range(repeats):
        ops.device.synchronize()
        start = time.perf_counter()
        run()
        ops.device.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def products(width, height):
    """Multiply-adds of one forward and backward pass up to relu5_1."""
    total, channels, positions = 0, 3, width * height
    for outputs, count in VGG19[:-1]:
        for _ in range(count):
            total += 2 * 9 * channels * outputs * positions
            channels = outputs
        positions = math.ceil(positions / 4)
    return total + 2 * 9 * channels * VGG19[-1][0] * positions


def refuse(error, most):
    """End where a gradient is wrong, and not only rounded."""
    if not error < most:
        sys.exit(f"the gradient is off by {error:.1e}; rounding explains {most:.0e}")


def mean_blocks(rgb, side=16):
    height, width = (n // side for n in rgb.shape[:2])
    return rgb[: height * side, : width * side].reshape(height, side, width, side, 3).mean((1, 3))


def shrunk(path, longest):
    rgb = images.read(str(path)).rgb
    return images.resize(rgb, images.target_size(*rgb.shape[:2], longest))


def shape(size):
    return f"{size}×{size * 3 // 4}"


def said(command):
    """The first line of a program's output, or why there is none."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        return first_line(error)


def first_line(error):
    """With the next one, where it only announces a compiler's log."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join((first, *more[: first.endswith(":")]))
