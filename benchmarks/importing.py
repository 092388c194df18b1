"""Time and memory of `cvstyle models import` for a VGG-19's convolutional part (80 MB) in each container.

usage: python benchmarks/importing.py [--rounds 3]

The files have random weights and are written by PyTorch, safetensors, h5py, SciPy, NumPy and ONNX; a library that is
not installed is left out, which a line says. Each import is a separate process with the file in the page cache; its
seconds and its peak memory include the interpreter, its imports, and the pages of the mapped file.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import vgg19, where

# Ends with the seconds of CPU time, those of other processes included, and the peak memory in KB.
IMPORT = """
import os, sys
from pathlib import Path
from cvstyle.cli import main
assert main(["models", "import", *sys.argv[1:]]) == 0
status = Path("/proc/self/status").read_text()
print(sum(os.times()[:4]), status.partition("VmHWM:")[2].split()[0])
"""
COUNTS = (2, 2, 4, 4, 4)
BLOCKS = [(b, i) for b, count in enumerate(COUNTS, 1) for i in range(1, count + 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    weights = list(vgg19().weights.values())
    print(where())
    print(f"\n{'file':<24}{'written by':<22}{'seconds':>9}{'CPU':>9}{'peak':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name, (library, write) in WRITERS.items():
            try:
                version = importlib.import_module(library).__version__
            except ImportError:
                print(f"{name:<24}{library} is not installed")
                continue
            path = Path(folder) / name
            write(path, weights)
            readings = [measured(path, Path(folder) / "models") for _ in range(args.rounds)]
            seconds, cpu, peak = (statistics.median(column) for column in zip(*readings))
            print(f"{name:<24}{f'{library} {version}':<22}{seconds:>9.2f}{cpu:>9.2f}{peak:>7.0f} MB")
            path.unlink()


def measured(path, folder):
    """(seconds, seconds of CPU time, peak memory in MB) of an import in a process of its own."""
    path.read_bytes()
    command = [sys.executable, "-c", IMPORT, str(path), "--training", "torchvision", "--dir", str(folder)]
    start = time.perf_counter()
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    cpu, peak = output.split()[-2:]
    return seconds, float(cpu), int(peak) / 1024


def by_torch_name(weights):
    """features.N.weight and features.N.bias, as torchvision names them."""
    names = []
    number = 0
    for count in COUNTS:
        for _ in range(count):
            names.append(f"features.{number}")
            number += 2
        number += 1
    return {f"{n}.{role}": a for n, pair in zip(names, weights) for role, a in zip(("weight", "bias"), pair)}


def write_torch(path, weights, zipped=True):
    import torch

    state = {name: torch.from_numpy(array) for name, array in by_torch_name(weights).items()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)


def write_safetensors(path, weights):
    from safetensors.numpy import save_file

    save_file(by_torch_name(weights), path)


def write_keras(path, weights):
    import h5py

    names = [f"block{b}_conv{i}" for b, i in BLOCKS]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in names]
        file.attrs["backend"] = b"tensorflow"
        for name, (filters, bias) in zip(names, weights):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
            group[f"{name}/kernel:0"] = filters.transpose(2, 3, 1, 0)
            group[f"{name}/bias:0"] = bias


def write_matconvnet(path, weights):
    from scipy.io import savemat

    layers = np.empty((1, len(weights)), object)
    for at, ((block, i), (filters, bias)) in enumerate(zip(BLOCKS, weights)):
        both = np.empty((1, 2), object)
        both[0, 0] = np.asfortranarray(filters.transpose(2, 3, 1, 0))
        both[0, 1] = bias.reshape(-1, 1)
        layers[0, at] = {"type": "conv", "name": f"conv{block}_{i}", "weights": both}
    mean = np.float32([123.68, 116.779, 103.939]).reshape(1, 1, 3)
    savemat(path, {"layers": layers, "meta": {"normalization": {"averageImage": mean}}})


def write_onnx(path, weights):
    import onnx
    from onnx import helper, numpy_helper

    initializers = [numpy_helper.from_array(array, name) for name, array in by_torch_name(weights).items()]
    nodes = []
    last = "input"
    for name in dict.fromkeys(tensor.name.rpartition(".")[0] for tensor in initializers):
        nodes.append(helper.make_node("Conv", [last, f"{name}.weight", f"{name}.bias"], [name], pads=[1, 1, 1, 1]))
        last = name
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("input", last)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "vgg19", ends[:1], ends[1:], initializers)), path)


WRITERS = {
    "zip.pth": ("torch", write_torch),
    "legacy.pth": ("torch", lambda path, weights: write_torch(path, weights, zipped=False)),
    "vgg19.safetensors": ("safetensors", write_safetensors),
    "vgg19.h5": ("h5py", write_keras),
    "vgg19.mat": ("scipy", write_matconvnet),
    "vgg19.npz": ("numpy", lambda path, weights: np.savez(path, **by_torch_name(weights))),
    "vgg19.onnx": ("onnx", write_onnx),
}

if __name__ == "__main__":
    main()
