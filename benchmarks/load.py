"""Time and memory until a 574 MB VGG-19 (V1 form) is ready: cvstyle beside cv2.dnn.readNetFromCaffe.

usage: python benchmarks/load.py [--rounds 5] [--file vgg19.caffemodel --proto vgg19.prototxt]

Without --file, a model with random weights is written to a temporary folder first. Each reading is a separate process,
with the file in the page cache; memory does not include the interpreter and its imports. A network is ready when the
shapes of relu5_1 are known and the weights of its layers are loaded.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import memory_mb, network_files, where


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--file")
    parser.add_argument("--proto")
    parser.add_argument("--worker", choices=("cvstyle", "opencv"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return {"cvstyle": work_cvstyle, "opencv": work_opencv}[args.worker](args.proto, args.file)
    with tempfile.TemporaryDirectory() as folder:
        if not args.file:
            args.proto, args.file = network_files("vgg19", Path(folder))
        print(where())
        print(f"{Path(args.file).stat().st_size / 1e6:.0f} MB model, {args.rounds} processes each, warm")
        readings = {"cvstyle": [], "opencv": []}
        for _ in range(args.rounds):
            for reader, results in readings.items():
                command = [sys.executable, __file__, "--worker", reader, "--proto", args.proto, "--file", args.file]
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                results.append([float(n) for n in output.split()])
        names = {"cvstyle": "cvstyle.load_network", "opencv": "cv2.dnn.readNetFromCaffe"}
        print(f"\n{'':<26}{'seconds':>9}{'resident':>12}{'peak':>12}")
        for reader, results in readings.items():
            seconds, resident, peak = (statistics.median(column) for column in zip(*results))
            print(f"{names[reader]:<26}{seconds:>9.3f}{resident:>9.0f} MB{peak:>9.0f} MB")


def work_cvstyle(proto, model):
    from cvstyle import load_network

    before = memory_mb()
    start = time.perf_counter()
    net = load_network(proto, model)
    net.program(["relu5_1"]).shapes((512, 512))
    report(start, before)


def work_opencv(proto, model):
    import cv2

    before = memory_mb()
    start = time.perf_counter()
    net = cv2.dnn.readNetFromCaffe(proto, model)
    assert net.getLayerId("relu5_1") > 0
    report(start, before)


def report(start, before):
    print(time.perf_counter() - start, memory_mb() - before, memory_mb("VmHWM") - before)


if __name__ == "__main__":
    main()
