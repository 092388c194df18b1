"""Pictures by any network with the default options: a sheet for each size, and how far the networks' figures agree.

usage: python benchmarks/any_network.py --folder NETWORKS --pictures PICTURES --pairs photo.jpg:painting.jpg,...
           [--sizes 256,512,1024] [--networks embedded,vgg16] [--judge PROTO MODEL] [--out sheets] [--options "..."]

NETWORKS has a folder for each network, with deploy.prototxt and a .caffemodel; the embedded network comes first. Every
run is a separate process whose results stay in --out, so a second call continues. The table has, for each network and
size, means over the pairs: the shares of content, style and total variation in the last loss; the style error by the
network's own layers, mean ‖G − A‖² / ‖A‖²; and the distances by a network that did not paint the picture: the first
suitable --judge (the option may be repeated), or else the embedded network. --layers FILE, with lines
"NAME content,layers style,layers", sets networks' layers by hand.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import numpy as np
from common import where
from painted import EMBEDDED, Files, Judge, networks, paint, pairs, sheet, table

import cvstyle

_FIGURES = ("content", "style", "TV", "own style error", "judge's style", "judge's content", "seconds")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="folder of networks")
    parser.add_argument("--networks", help="names of networks (default: all)")
    parser.add_argument("--pictures", help="folder of the pairs")
    parser.add_argument("--pairs", default="", help="photo.jpg:painting.jpg,...")
    parser.add_argument("--sizes", default="256,512,1024")
    parser.add_argument("--judge", nargs=2, action="append", default=[], metavar=("PROTO", "MODEL"))
    parser.add_argument("--judge-layers", nargs=2, metavar=("CONTENT", "STYLE"), help="layers of the first judge")
    parser.add_argument("--layers", help="a file of networks' layers")
    parser.add_argument("--options", default="", help="more options of every run")
    parser.add_argument("--out", default="sheets")
    parser.add_argument("--cell", type=int, default=320, help="pixels of a picture in the sheets")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    couples = pairs(args.pairs, args.pictures)
    judge_layers = args.judge_layers and tuple(names.split(",") for names in args.judge_layers)
    judges = [Judge(Files(proto, proto, model), judge_layers if n == 0 else None)
              for n, (proto, model) in enumerate(args.judge)]  # fmt: skip
    judges.append(Judge(Files(EMBEDDED)))
    layers = named_layers(args.layers)
    rows = []
    for size in map(int, args.sizes.split(",")):
        shown = [("", [(content, "") for content, _ in couples]), ("", [(style, "") for _, style in couples])]
        for files in networks(args.folder, args.networks):
            options = [*layers.get(files.name, []), *shlex.split(args.options)]
            painted = [paint(files, *pair, size, options, out / f"{files.name}-{size}-{n}.png")
                       for n, pair in enumerate(couples)]  # fmt: skip
            judge = next(j for j in judges if j.files.model != files.model or j is judges[-1])
            figures = [measure(files, p, *pair, size, judge) for p, pair in zip(painted, couples, strict=True)]
            shown.append((files.name, [cell(p, f) for p, f in zip(painted, figures, strict=True)]))
            if all(figures):
                rows.append((files.name, size, judge.files.name, np.mean(figures, axis=0)))
        title = f"cvstyle run, {'default options' if not args.options else args.options}, {size} pixels"
        names = [f"{Path(content).stem} by {Path(style).stem}" for content, style in couples]
        sheet(out / f"sheet-{size}.png", title, names, shown, args.cell)
        print(f"{out}/sheet-{size}.png", flush=True)
    print(where())
    report(rows)


def named_layers(path):
    """Network name -> options, from the lines of a file."""
    lines = Path(path).read_text(encoding="utf-8").splitlines() if path else []
    entries = [line.split() for line in lines if line and not line.startswith("#")]
    return {name: ["--content-layers", content, "--style-layers", style] for name, content, style in entries}


def measure(files, painted, content, style, size, judge):
    """The figures of one picture; None for a refused run."""
    if painted.refusal:
        return None
    x = cvstyle.preprocess(painted.picture)
    own = Judge(files, ([], painted.style_layers)) if painted.style_layers else None
    return [
        *(painted.share(kind) for kind in ("content", "style", "tv")), own.style(x, style) if own else np.nan,
        judge.style(x, style), judge.content(x, content), painted.seconds,
    ]  # fmt: skip


def cell(painted, figures):
    """(picture, text) for the sheet."""
    if not figures:
        return None, painted.refusal
    content, style, tv, own, judged, *_, seconds = figures
    return painted.picture, (
        f"{seconds:.1f} s; c {content:.0%} s {style:.0%} tv {tv:.0%}; own error {own:.3g}, judge's {judged:.3g}"
    )


def report(rows):
    """Print the table and the range of each figure."""
    print(table(
        ["network", "size", *_FIGURES, "judge"],
        [[name, str(size), *formatted(figures), Path(judge).parent.name or judge]
         for name, size, judge, figures in rows],
    ))  # fmt: skip
    for name, values in zip(_FIGURES[:6], np.array([figures for *_, figures in rows]).T[:6], strict=True):
        if len(values) and values.min() > 0:
            print(f"{name}: {values.min():.3g} to {values.max():.3g}, a factor of {values.max() / values.min():.3g}")


def formatted(figures):
    """The cells of a row."""
    *figures, seconds = figures
    return [*(f"{100 * n:.3g} %" for n in figures[:3]), *(f"{n:.3g}" for n in figures[3:]), f"{seconds:.1f}"]


if __name__ == "__main__":
    main()
