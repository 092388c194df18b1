"""Pictures, checkpoints and losses over the options that matter, to compare two versions byte for byte.

usage: python benchmarks/same_bytes.py make FOLDER [--only PATTERN]
       python benchmarks/same_bytes.py compare FOLDER OTHER

`make` runs every case with the cvstyle beside it and FOLDER as the working directory, so that a picture's metadata does
not depend on the path. `compare` compares pictures as files, checkpoints by entry (the archive has a date), and logs
without the column of seconds. Backends choose their kernels without measuring. Without OpenCL its cases are skipped,
with a message; two devices need POCL_DEVICES="pthread pthread".
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from common import vgg19

from cvstyle import images
from cvstyle.backends import opencl
from cvstyle.caffe.write import write_caffemodel, write_prototxt

_VGG = "--proto net.prototxt --model net.caffemodel --style-weight 20 --init image"
_SMALL = "--image-size 96 --num-iterations 6 --threads 2"
_RUNS = {  # case: options
    "native": f"{_SMALL} --backend native",
    "numpy": f"{_SMALL} --backend numpy",
    "opencv": f"{_SMALL} --backend opencv",
    "vgg": f"{_SMALL} --backend native {_VGG}",
    "vgg-random": f"{_SMALL} --backend native {_VGG} --init random --seed 7 --num-iterations 12",
    "adam": f"{_SMALL} --backend native --optimizer adam",
    "lbfgsb": f"{_SMALL} --backend native --optimizer lbfgsb --bounds",
    "compat": f"{_SMALL} --backend numpy {_VGG} --compat --seed 3 --image-size 101",
    "no-smoothing": f"{_SMALL} --backend native --lbfgs-smooth 0 --lbfgs-num-correction 3",
    "scales": f"{_SMALL} --backend native --scales 48,72,96 --num-iterations 6,4,3",
    "scales-adam": f"{_SMALL} --backend numpy --scales 48,96 --optimizer adam --average-iterates 0.8",
    "scales-auto": "--threads 2 --backend native --scales auto --image-size 513 --num-iterations 3",
    "tiles": "--threads 2 --backend native --image-size 520 --tile-size 400 --num-iterations 3",
    "tiles-vgg": f"--threads 2 --backend native {_VGG} --image-size 460 --tile-size 320 --num-iterations 3",
    "tiles-normalized": "--threads 2 --backend numpy --image-size 500 --tile-size 400 --num-iterations 3"
    " --normalize-gradients",
    "tiles-two-devices": "--threads 2 --backend native --gpu 0,1 --image-size 480 --tile-size 400 --num-iterations 3",
    "tiles-offload": f"--threads 2 --backend native {_VGG} --image-size 440 --tile-size 320 --num-iterations 3"
    " --offload .",
    "layers": f"{_SMALL} --backend native {_VGG} --gpu 0,1 --split layers",
    "layers-named": f"{_SMALL} --backend numpy {_VGG} --gpu 0,1,2 --multigpu-strategy pool1,relu4_1",
    "normalized": f"{_SMALL} --backend native {_VGG} --normalize-gradients --optimizer adam",
    "average": f"{_SMALL} --backend native --optimizer adam --average-iterates 0.9",
    "two-styles": f"{_SMALL} --backend native {_VGG} --style style.png,other.png --style-blend-weights 3,7",
    "style-scale": f"{_SMALL} --backend numpy --style-scale 1.7 --original-colors --tv-weight 0.01",
    "alpha": f"{_SMALL} --backend native --content transparent.png",
    "16-bit": f"{_SMALL} --backend native --content transparent.png --bits 16",
    "tiff": f"{_SMALL} --backend native --bits 16 --output tiff.tiff",
    "jpeg": f"{_SMALL} --backend native --output jpeg.jpg --save-iter 4",
    "layer-weights": f"{_SMALL} --backend native {_VGG} --content-layers relu2_2:0.5,relu4_2 --pooling avg"
    " --style-layers relu3_1:2,relu1_1,relu2_2:0.3",
    "tv-alone": f"{_SMALL} --backend native --content-weight 0 --style-weight 0 --tv-weight 1",
    "init-image": f"{_SMALL} --backend native --init-image other.png --margin 3",
    "resumed": f"{_SMALL} --backend native --scales 48,96 --num-iterations 5,4 --checkpoint-iter 2",
    "resumed-adam": f"{_SMALL} --backend numpy --optimizer adam --average-iterates 0.5",
    "opencl": f"{_SMALL} --backend opencl",
    "opencl-vgg": f"{_SMALL} --backend opencl {_VGG} --normalize-gradients --optimizer adam",
    "opencl-tiles": f"--backend opencl {_VGG} --image-size 400 --tile-size 320 --num-iterations 2",
    "opencl-layers": f"{_SMALL} --backend opencl {_VGG} --gpu 0,1 --split layers",
    "opencl-shared": f"--backend opencl {_VGG} --image-size 400 --gpu 0,1 --num-iterations 2",
}
_PRELUDE = {  # case: options of an earlier run with the same checkpoint
    "resumed": f"{_SMALL} --backend native --scales 48,96 --num-iterations 5,2 --checkpoint-iter 2",
    "resumed-adam": f"{_SMALL} --backend numpy --optimizer adam --average-iterates 0.5 --num-iterations 3",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "compare"))
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--only", default="*")
    args = parser.parse_args()
    if args.what == "make":
        return make(args.folders[0], args.only)
    return compare(*args.folders)


def make(folder: Path, only: str) -> int:
    """Write the results of every case; returns the number of cases that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[1]), CVSTYLE_MODELS="models")
    environment.setdefault("POCL_DEVICES", "pthread pthread")
    write_inputs(folder)
    failed = 0
    for name, options in _RUNS.items():
        if not fnmatch(name, only):
            continue
        if "opencl" in options and opencl.Backend.unavailable_because():
            print(f"{name}: left out: {opencl.Backend.unavailable_because()}")
            continue
        for old in folder.glob(f"{name}.*"):
            old.unlink()
        for run_options in ([_PRELUDE[name]] if name in _PRELUDE else []) + [options]:
            words = ["--content", "content.png", "--style", "style.png", "--output", f"{name}.png", "--quiet",
                     "--log", f"{name}.csv", "--checkpoint", f"{name}.npz", "--resume", "--seed", "1",
                     "--no-autotune", *run_options.split()]  # fmt: skip
            process = subprocess.run([sys.executable, "-m", "cvstyle", "run", *words], env=environment, cwd=folder)
        failed += process.returncode != 0
        print(f"{name}: {'done' if process.returncode == 0 else f'failed ({process.returncode})'}", flush=True)
    return failed


def write_inputs(folder: Path) -> None:
    """Three pictures, one with transparency, and VGG-19 at an eighth of its width."""
    rng = np.random.default_rng(5)
    for name, (height, width) in {"content": (150, 200), "style": (128, 128), "other": (90, 140)}.items():
        images.write(str(folder / f"{name}.png"), smooth(rng, height, width, 3))
    alpha = smooth(rng, 150, 200, 1)[..., 0] / 255
    images.write(str(folder / "transparent.png"), smooth(rng, 150, 200, 3), alpha, bits=16)
    net = vgg19(divisor=8)
    write_prototxt(folder / "net.prototxt", net)
    write_caffemodel(folder / "net.caffemodel", net)


def smooth(rng, height, width, channels):
    """Noise with a scale of a few pixels, 0..255."""
    import cv2

    noise = rng.uniform(0, 255, (height // 10, width // 10, channels)).astype(np.float32)
    resized = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    return resized.clip(0, 255)


def compare(folder: Path, other: Path) -> int:
    """Print every difference between two folders; returns the number of files that differ or lack a counterpart."""
    names = [{p.name for p in f.iterdir() if p.is_file() and not p.name.startswith("net.")} for f in (folder, other)]
    different = sorted(names[0] ^ names[1])
    for name in different:
        print(f"{name}: in one folder alone")
    for name in sorted(names[0] & names[1]):
        text = difference(folder / name, other / name)
        if text:
            different.append(name)
            print(f"{name}: {text}")
    print(f"{len(names[0] & names[1])} files in both, {len(different)} differ or are missing")
    return len(different)


def difference(path: Path, other: Path) -> str:
    """The difference between two files in words; "" for equal files."""
    if path.suffix == ".npz":
        entries = different_entries(path, other)
        return f"entries {', '.join(sorted(entries))}" if entries else ""
    if path.suffix == ".csv":
        tables = [[row[:1] + row[2:] for row in csv.reader(p.open(encoding="utf-8"))] for p in (path, other)]
        rows = sum(a != b for a, b in zip(*tables)) + abs(len(tables[0]) - len(tables[1]))
        return f"{rows} rows" if rows else ""
    if path.read_bytes() == other.read_bytes():
        return ""
    if path.suffix in (".png", ".jpg", ".tiff"):
        one, two = (images.read(str(p)).rgb for p in (path, other))
        if one.shape == two.shape:
            return f"at most {np.abs(one - two).max():.3g} of 255 in the pixels"
    return "the bytes"


def different_entries(path: Path, other: Path) -> set[str]:
    """The entries in which two checkpoints differ."""
    with zipfile.ZipFile(path) as one, zipfile.ZipFile(other) as two:
        names = [set(one.namelist()), set(two.namelist())]
        different = {n for n in names[0] & names[1] if one.read(n) != two.read(n)}
    for name in different & {"state.steps.npy", "state.changes.npy"}:  # L-BFGS: rows after the last pair are undefined
        arrays = [np.load(p) for p in (path, other)]
        rows = json.loads(arrays[0]["header"].tobytes())["numbers"]["iteration"]
        if np.array_equal(*(a[name[:-4]][:rows] for a in arrays)):
            different = different - {name}
    if "header.npy" in different:  # JSON, in which the order of keys has no meaning
        headers = [json.loads(np.load(p)["header"].tobytes()) for p in (path, other)]
        different = different - {"header.npy"} if headers[0] == headers[1] else different
    return different | names[0] ^ names[1]


if __name__ == "__main__":
    sys.exit(main())
