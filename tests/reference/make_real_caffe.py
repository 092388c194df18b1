"""Writes real_caffe.npz: what BVLC's Caffe, in double precision on a CPU, makes of the nets in tests/real_caffe.py.

usage: PYTHONPATH=.:tests python tests/reference/make_real_caffe.py PROGRAM

PROGRAM is real_caffe.cpp, built as its head says from Caffe at 9b89154 with the layers that forks added: Permute and
Normalize (weiliu89/caffe, branch ssd), Axpy (hujie-frank/SENet), ShuffleChannel (farmingyard/ShuffleNet), Interp and BN
(hszhao/PSPNet), BN and Upsample (alexgkendall/caffe-segnet), ReLU6, DepthwiseConvolution and Upsample
(eric612/MobileNet-YOLO), Reorg too. Where two forks have a type, CAFFE_FORK in the environment says whose: seg, psp or
yolo. Tests read the numbers and never run this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from real_caffe import NETS, REFUSED


def run(program, net):
    """(output, gradient or None) of a net, or Caffe's message where it refuses the net."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.prototxt").write_text(net.text)
        (folder / "model").write_bytes(net.caffemodel())
        net.picture().tofile(folder / "input")
        command = [program, folder / "net.prototxt", folder / "model" if net.blobs else "-", folder]
        environment = {**os.environ, "CAFFE_FORK": net.fork}
        for _ in range(1 if net.no_gradient else 2):  # the first run gives the shape of the gradient to start from
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                return next((line for line in done.stderr.splitlines() if line.startswith("F")), "without a message")
            shape = tuple(map(int, (folder / "shape").read_text().split()))
            net.diff(shape).tofile(folder / "diff")
        gradient = None if net.no_gradient else np.fromfile(folder / "gradient").reshape(net.shape)
        return np.fromfile(folder / "top").reshape(shape), gradient


def main(program):
    """Run every net: of each the shape of its output, and the numbers, output then gradient, one net after another."""
    found = {net.name: run(program, net) for net in NETS}
    for name, numbers in found.items():
        if isinstance(numbers, str):
            sys.exit(f"{name}: {numbers}")
    for net in REFUSED:
        message = run(program, net)
        if not isinstance(message, str):
            sys.exit(f"{net.name}: Caffe takes it")
        print(f"{net.name}: {message.split('] ')[-1][:110]}")
    numbers = [a.ravel() for pair in found.values() for a in pair if a is not None]
    np.savez_compressed(
        Path(__file__).with_name("real_caffe.npz"),
        names=list(found),
        shapes=[(*top.shape, *[0] * 6)[:6] for top, _ in found.values()],
        numbers=np.concatenate(numbers).astype("float32"),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
