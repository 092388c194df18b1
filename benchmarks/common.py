"""Shared by the benchmarks: a VGG-19 with random weights, pictures, memory, and a line about the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvstyle import Objective, zoo
from cvstyle.caffe.write import write_caffemodel, write_prototxt
from cvstyle.netdef import LayerDef, NetDef

VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions per block


def vgg19(classifier: bool = False, divisor: int = 1) -> NetDef:
    """VGG-19 (Simonyan and Zisserman 2015, configuration E) with He-scaled random weights of a fixed seed.

    divisor: of the number of outputs of every convolution.
    """
    rng = np.random.default_rng(19)
    layers = []
    weights = {}
    bottom = "data"
    channels = 3

    def add(name, kind, top, **params):
        nonlocal bottom
        layers.append(LayerDef(name, kind, (bottom,), (top,), params))
        bottom = top

    def fill(name, *shape):
        deviation = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        weight = rng.standard_normal(shape, dtype=np.float32) * deviation
        weights[name] = [weight, rng.standard_normal(shape[0], dtype=np.float32) * np.float32(0.1)]

    for block, (width, count) in enumerate(VGG19, 1):
        width //= divisor
        for index in range(1, count + 1):
            name = f"conv{block}_{index}"
            add(name, "Convolution", name, num_output=width, kernel_size=[3], pad=[1])
            add(f"relu{block}_{index}", "ReLU", name)
            fill(name, width, channels, 3, 3)
            channels = width
        add(f"pool{block}", "Pooling", f"pool{block}", pool="MAX", kernel_size=2, stride=2)
    if classifier:
        for name, inputs, outputs in (("fc6", 25088 // divisor, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000)):
            add(name, "InnerProduct", name, num_output=outputs)
            fill(name, outputs, inputs)
            if name != "fc8":
                add(f"relu{name[-1]}", "ReLU", name)
    return NetDef("VGG-19, random weights", {"data": None}, tuple(layers), weights, "vgg19")


@dataclass
class Problem:
    """A style transfer: layers, weights, preprocessed pictures (3, H, W) and the initial picture."""

    content_layers: list[str]
    style_layers: list[str]
    content_weight: float
    style_weight: float
    tv_weight: float
    content: np.ndarray
    style: np.ndarray
    start: np.ndarray


def network_files(network: str, folder: Path, classifier: bool = True, divisor: int = 1) -> tuple[str, str]:
    """(prototxt, caffemodel) of a known model; "vgg19": random weights in V1 form, written to the folder."""
    if network != "vgg19":
        return zoo.files_of(model=network)
    net = vgg19(classifier, divisor)
    proto = folder / "vgg19.prototxt"
    model = folder / "vgg19.caffemodel"
    write_prototxt(proto, net, form="V1")
    write_caffemodel(model, net, form="V1")
    return str(proto), str(model)


def problem(layer_names: list[str], longest: int, square: bool = False) -> Problem:
    """Two pictures of a size on a known network, with the network's default layers, weights and initial picture."""
    defaults = zoo.defaults(layer_names)
    content = picture(longest, 1, square)
    noise = np.random.default_rng(0).standard_normal(content.shape, dtype=np.float32) * np.float32(1e-3)
    return Problem(
        defaults["content_layers"], defaults["style_layers"], defaults["content_weight"], defaults["style_weight"],
        defaults["tv_weight"], content, picture(longest, 2, square), content if defaults["init"] == "image" else noise,
    )  # fmt: skip


def objective(net, p: Problem, **options):
    """cvstyle's objective of a problem."""
    return Objective(
        net, p.content, [p.style], content_weight=p.content_weight, style_weight=p.style_weight, tv_weight=p.tv_weight,
        content_layers=p.content_layers, style_layers=p.style_layers, **options,
    )  # fmt: skip


def picture(longest: int, seed: int, square: bool = False) -> np.ndarray:
    """A smooth random picture (3, H, W), preprocessed; 4:3 unless square."""
    import cv2

    height = longest if square else longest * 3 // 4
    noise = np.random.default_rng(seed).uniform(0, 255, (height // 8, longest // 8, 3)).astype(np.float32)
    rgb = cv2.resize(noise, (longest, height), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)) - np.float32(115)


def distance(a, b) -> float:
    """‖a − b‖ / ‖b‖, in float64."""
    return float(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b))


def memory_mb(key: str = "VmRSS") -> float:
    """Resident memory of the process in MB, current ("VmRSS") or peak ("VmHWM")."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def where() -> str:
    """Machine, versions and commit in one line, for the head of a table."""
    return ", ".join(f"{value}" if name == "processor" else f"{name} {value}" for name, value in versions().items())


def versions() -> dict[str, str]:
    """Machine, versions of installed packages and commit, by name."""
    names = ["numpy", "scipy", "opencv-python-headless", "torch", "cupy-cuda13x", "cupy-cuda12x"]
    cpus = len(os.sched_getaffinity(0))
    processor = {"processor": f"{_cpu()}, {cpus} cores", "Python": platform.python_version()}
    return {**processor, **{n: v for n in names if (v := _version(n))}, "commit": _commit()}


def _commit():
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
        return done.stdout.strip() or "?"
    except OSError:  # a machine without git
        return "?"


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
