"""The networks that come with cvstyle beside the teacher of one of them: style gradients, and judged pictures.

usage: python benchmarks/embedded.py --teacher PROTO MODEL [--judge PROTO MODEL] --pictures PICTURES
           --pairs photo.jpg:painting.jpg,... [--networks distilled,wavelet] [--more NAME PROTO MODEL]
           [--size 512] [--options "--quality normal"] [--factors 0.25,1,4] [--at 0.7] [--out embedded]

First, at 256 pixels, 1 − the cosine of each network's style gradient with the teacher's, at the photograph and at the
photograph with noise of deviation 8. The teacher has --teacher-layers (default: the layers that `cvstyle info` prints),
the network its default layers; each loss is relative to its target.

Then pictures by each network, with default options but content weights of --factors times the default, judged by a
network that neither painted the pictures nor taught the painter: its style distance ‖G − A‖²/‖A‖² where its content
distance is --at, interpolated between the nearest runs, since a network that keeps less of the photograph comes nearer
to any painting. Runs stay in --out, so a second call continues.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import numpy as np
from common import where
from painted import Files, Judge, paint, pairs, table

import cvstyle
from cvstyle import zoo

_NOISE = 8.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", nargs=2, required=True, metavar=("PROTO", "MODEL"))
    parser.add_argument("--teacher-layers", help="the teacher's style layers")
    parser.add_argument("--judge", nargs=2, metavar=("PROTO", "MODEL"), help="default: no pictures are painted")
    parser.add_argument("--judge-layers", nargs=2, metavar=("CONTENT", "STYLE"))
    parser.add_argument("--networks", default="distilled,wavelet", help="names of known models")
    parser.add_argument("--more", nargs=3, action="append", default=[], metavar=("NAME", "PROTO", "MODEL"))
    parser.add_argument("--pictures", help="folder of the pairs")
    parser.add_argument("--pairs", default="", help="photo.jpg:painting.jpg,...")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--options", default="", help="more options of every run")
    parser.add_argument("--factors", default="0.25,1,4")
    parser.add_argument("--at", type=float, default=0.7, help="the judge's content distance")
    parser.add_argument("--out", default="embedded")
    args = parser.parse_args()
    couples = pairs(args.pairs, args.pictures)
    teacher = Files("teacher", *args.teacher)
    students = [Files(name, *zoo.files_of(model=name)) for name in args.networks.split(",")]
    students += [Files(*more) for more in args.more]
    layers = args.teacher_layers and args.teacher_layers.split(",")
    print(where(), "\n\n1 − cosine of style gradients with the teacher's, 256 pixels\n")
    cosines(students, teacher, layers, couples)
    if args.judge:
        judge = Judge(Files("judge", *args.judge), args.judge_layers and tuple(n.split(",") for n in args.judge_layers))
        at_equal_content([*students, teacher], couples, judge, args)


def cosines(students, teacher, layers, couples):
    """Print a row for each network: means over the pairs, and the pairs' values."""
    net = teacher.load()
    layers = layers or teacher.default_layers()[1]
    rows = []
    for files in students:
        own = files.load()
        style = zoo.defaults(own.layer_names)["style_layers"] or files.default_layers()[1]
        distances = np.array([[_one_minus_cosine(own, style, net, layers, *pair, noise) for pair in couples]
                              for noise in (0.0, _NOISE)])  # fmt: skip
        by_pair = [f"{clean:.2f}/{noisy:.2f}" for clean, noisy in distances.T]
        rows.append([files.name, *(f"{n:.3f}" for n in distances.mean(axis=1)), " ".join(by_pair)])
    print(table(["network", "clean", f"noise {_NOISE:g}", "each pair"], rows))


def _one_minus_cosine(own, own_layers, other, other_layers, content, style, noise):
    x = cvstyle.preprocess(content, 256)
    x = x + noise * np.random.default_rng(0).standard_normal(x.shape, np.float32)
    a, b = (_gradient(net, layers, x, style) for net, layers in ((own, own_layers), (other, other_layers)))
    return 1 - (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)


def _gradient(net, layers, x, style):
    """The gradient of the style loss alone, relative to its targets."""
    style = cvstyle.preprocess(style, 256)
    objective = cvstyle.Objective(net, x, [style], style_layers=layers, content_layers=[], tv_weight=0.0,
                                  balance="targets")  # fmt: skip
    return objective(x)[1].astype(np.float64)


def at_equal_content(painters, couples, judge, args):
    """Print a row for each network: the style distance at the content distance --at, mean over the pairs."""
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    factors = [float(factor) for factor in args.factors.split(",")]
    for files in painters:
        weight = zoo.defaults(files.load().layer_names)["content_weight"]
        distances = []
        seconds = []
        for n, (content, style) in enumerate(couples):
            points = []
            for factor in factors:
                options = [*shlex.split(args.options), "--content-weight", f"{weight * factor:g}"]
                done = paint(files, content, style, args.size, options, out / f"{files.name}-{n}-{factor:g}.png")
                x = cvstyle.preprocess(str(done.picture))
                points.append((judge.content(x, content), judge.style(x, style)))
                seconds.append(done.seconds)
            distances.append(_style_at(args.at, points))
        rows.append([files.name, f"{np.nanmean(distances):.4f}", " ".join(f"{d:.3f}" for d in distances),
                     f"{np.median(seconds):.1f}"])  # fmt: skip
    print(f"\nStyle distance by the judge at a content distance of {args.at:g}, {args.size} pixels {args.options}\n")
    print(table(["network", "mean", "each pair", "seconds"], rows), flush=True)


def _style_at(content, points):
    """The style distance at a content distance, on the line through the logarithms of the two nearest points."""
    points = sorted(points, key=lambda point: abs(np.log(point[0] / content)))[:2]
    (c1, s1), (c2, s2) = np.log(points)
    slope = (s2 - s1) / (c2 - c1) if abs(c2 - c1) > 1e-6 else 0.0
    return float(np.exp(s1 + slope * (np.log(content) - c1)))


if __name__ == "__main__":
    main()
