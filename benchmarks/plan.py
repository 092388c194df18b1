"""The memory forecast of `cvstyle plan` beside the memory of the run.

usage: python benchmarks/plan.py [--cases cpu,opencl] [--divisor 4]

On CPU backends: VGG-19 of an eighth of its width, where the picture counts most, and the embedded network; each plan
and each run is a separate process, measured by its peak resident memory. On OpenCL: VGG-19 with --divisor times fewer
channels, measured by the devices' pools. Weights are random. Two OpenCL devices need POCL_DEVICES="pthread pthread".
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import vgg19, where

from cvstyle import images, plan, stylize
from cvstyle.backends import opencl
from cvstyle.caffe.write import write_caffemodel, write_prototxt
from cvstyle.graph import Network

_CPU = (  # options; "vgg19" becomes the files of the narrow network
    "vgg19 --backend native --optimizer adam --image-size 1500 --num-iterations 6",
    "vgg19 --backend numpy --optimizer adam --image-size 1500 --num-iterations 3",
    "vgg19 --backend opencv --optimizer adam --image-size 1500 --num-iterations 4",
    "vgg19 --backend native --image-size 1500 --num-iterations 22",
    "vgg19 --backend native --image-size 1500 --num-iterations 22 --tile-size 640",
    "vgg19 --backend native --optimizer adam --image-size 2400 --num-iterations 3 --tile-size 640",
    "vgg19 --backend native --optimizer adam --scales 300,600,1200 --num-iterations 6",
    "vgg19 --backend native --optimizer lbfgsb --image-size 800 --num-iterations 22",
    "--backend native --image-size 1024 --num-iterations 22",
)
_OPENCL = (  # longest side, tile size, optimizer, how devices share
    (640, None, "lbfgs", None), (640, 384, "lbfgs", None), (640, 448, "lbfgs", None), (640, 512, "lbfgs", None),
    (640, 448, "adam", None), (640, None, "lbfgs", "layers"), (640, None, "lbfgs", "tiles"), (640, 320, "lbfgs", None),
)  # fmt: skip
_RUN = """
import sys
from cvstyle.cli import main
from cvstyle.process import peak
assert main(sys.argv[1:]) == 0
print(peak())
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="cpu,opencl")
    parser.add_argument("--divisor", type=int, default=4)
    args = parser.parse_args()
    print(where())
    print("planned MB  taken MB  planned/taken")
    with tempfile.TemporaryDirectory() as folder:
        pictures = [str(Path(folder, name)) for name in ("content.png", "style.png")]
        rng = np.random.default_rng(0)
        for path in pictures:
            images.write(path, rng.random((48, 64, 3), np.float32))
        if "cpu" in args.cases:
            _on_cpu(Path(folder), pictures)
        if "opencl" in args.cases:
            for case in _OPENCL:
                _on_opencl(args.divisor, pictures, *case)


def _on_cpu(folder, pictures):
    proto = folder / "vgg19.prototxt"
    model = folder / "vgg19.caffemodel"
    write_prototxt(proto, vgg19(divisor=8))
    write_caffemodel(model, vgg19(divisor=8))
    network = ["--proto", proto, "--model", model]
    for case in _CPU:
        options = ["--content", pictures[0], "--style", pictures[1]]
        options += [n for word in case.split() for n in (network if word == "vgg19" else [word])]
        planned = _output("-m", "cvstyle", "plan", *options)
        taken = _output("-c", _RUN, "run", *options, "--quiet", "--output", folder / "out.png")
        megabytes = int(re.search(r"memory +([\d,]+) MB", planned).group(1).replace(",", ""))
        _row(megabytes * 1e6, int(taken), case)


def _output(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def _on_opencl(divisor, pictures, size, tile_size, optimizer, split):
    devices = [opencl.Backend(number) for number in range(2 if split else 1)]
    options = {
        "network": Network(vgg19(divisor=divisor), devices[0]), "devices": devices, "split": split, "init": "image",
        "image_size": size, "tile_size": tile_size, "optimizer": optimizer, "num_iterations": 6,
    }  # fmt: skip
    forecast, _ = plan(pictures[0], pictures[1:], **options)
    stylize(pictures[0], pictures[1:], **options)
    height, width = forecast.window
    tiles = f"{forecast.windows} tiles of {width}×{height}" if forecast.tile_size else "no tiles"
    for ops, need in zip(devices, forecast.needs):
        case = f"opencl, {need.place}, {optimizer}, {forecast.size[1]}×{forecast.size[0]}, {tiles}"
        _row(need.size, ops.pool.max_reserved, case)


def _row(planned, taken, case):
    print(f"{planned / 1e6:10.0f} {taken / 1e6:9.0f} {planned / taken:14.2f}  {case}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    main()
