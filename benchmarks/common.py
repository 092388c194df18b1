"""What the benchmarks share: a VGG-19 with random weights, pictures, memory, and the line that says where it ran."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import numpy as np

from cvstyle.netdef import LayerDef, NetDef

CONTENT_LAYERS = ["relu4_2"]
STYLE_LAYERS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions per block


def vgg19(classifier: bool = False) -> NetDef:
    """VGG-19 (Simonyan and Zisserman 2015, configuration E) with He-scaled random weights of a fixed seed."""
    rng = np.random.default_rng(19)
    layers, weights = [], {}
    bottom, channels = "data", 3

    def add(name, kind, top, **params):
        nonlocal bottom
        layers.append(LayerDef(name, kind, (bottom,), (top,), params))
        bottom = top

    def fill(name, *shape):
        deviation = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        weight = rng.standard_normal(shape, dtype=np.float32) * deviation
        weights[name] = [weight, rng.standard_normal(shape[0], dtype=np.float32) * np.float32(0.1)]

    for block, (width, count) in enumerate(VGG19, 1):
        for index in range(1, count + 1):
            name = f"conv{block}_{index}"
            add(name, "Convolution", name, num_output=width, kernel_size=[3], pad=[1])
            add(f"relu{block}_{index}", "ReLU", name)
            fill(name, width, channels, 3, 3)
            channels = width
        add(f"pool{block}", "Pooling", f"pool{block}", pool="MAX", kernel_size=2, stride=2)
    if classifier:
        for name, inputs, outputs in (("fc6", 25088, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000)):
            add(name, "InnerProduct", name, num_output=outputs)
            fill(name, outputs, inputs)
            if name != "fc8":
                add(f"relu{name[-1]}", "ReLU", name)
    return NetDef("VGG-19, random weights", {"data": None}, tuple(layers), weights, "vgg19")


def picture(longest: int, seed: int) -> np.ndarray:
    """A smooth random picture (3, H, W) of 4:3, preprocessed as the networks want it."""
    import cv2

    height, width = longest * 3 // 4, longest
    noise = np.random.default_rng(seed).uniform(0, 255, (height // 8, width // 8, 3)).astype(np.float32)
    rgb = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)) - np.float32(115)


def memory_mb(key: str = "VmRSS") -> float:
    """Resident memory of this process now ("VmRSS") or at its peak ("VmHWM"), in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def where() -> str:
    """Machine, versions and commit, for the head of a table."""
    names = ["numpy", "scipy", "opencv-python-headless", "torch"]
    versions = [f"{n} {v}" for n in names if (v := _version(n))]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    ).stdout.strip()
    cpus = len(os.sched_getaffinity(0))
    return f"{_cpu()}, {cpus} cores, Python {platform.python_version()}, {', '.join(versions)}, commit {commit or '?'}"


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
