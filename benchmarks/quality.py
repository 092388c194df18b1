"""Seconds and distances of --quality's presets, other schedules and neural_style.lua's settings.

usage: python benchmarks/quality.py [--proto P --model M] [--pictures PICTURES --pairs photo.jpg:painting.jpg,...]
           [--sizes 256,512,1024,2048] [--judge PROTO MODEL] [--presets draft,normal,best] [--out quality] [--sheet]
           [--before "--scales SIZE --num-iterations 400"] [--reference 50] [--schedules "128x100,256x60,512x20;..."]
           [--curves]

Seconds are the wall time of the whole command, the median of --rounds; the processor's seconds, of all threads, are for
a busy machine. Distances are any_network.py's, by the --judge or else the embedded network, means over the pairs. SIZE
in --before is the size of the result. neural_style.lua's settings are 1000 iterations at one size from noise; with
--reference N only N iterations run, the seconds are extrapolated and distances are left out. A schedule is "size x
iterations" of each scale; --schedules takes several, separated by ;, and SIZE/4, SIZE/2, SIZE stand for parts of every
size. --curves lists distances by seconds during runs inside the benchmark's process, without the program's start: of
the intermediate picture, enlarged to the last size, with the loss of its own scale.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import time
from pathlib import Path

import numpy as np
from common import where
from painted import EMBEDDED, Files, Judge, paint, pairs, sheet, table

import cvstyle
from cvstyle.cli.run import Request, add_run_options

_ITERATIONS = 1000  # neural_style.lua's


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proto", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--pictures", help="folder of the pairs")
    parser.add_argument("--pairs", default="", help="photo.jpg:painting.jpg,...")
    parser.add_argument("--sizes", default="256,512,1024,2048")
    parser.add_argument("--judge", nargs=2, metavar=("PROTO", "MODEL"))
    parser.add_argument("--judge-layers", nargs=2, metavar=("CONTENT", "STYLE"))
    parser.add_argument("--presets", default="draft,normal,best", help="of --quality; empty: none")
    parser.add_argument("--before", default="", help="options of a run to compare with")
    parser.add_argument("--reference", type=int, default=0, metavar="N", help="iterations of neural_style.lua's to run")
    parser.add_argument("--schedules", default="", help="128x100,256x60,512x20;...")
    parser.add_argument("--options", default="", help="more options of every run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sheet", action="store_true", help="the pictures side by side, for each size")
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--out", default="quality")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    files = Files(Path(args.model).stem or EMBEDDED, args.proto, args.model)
    judged = Files(args.judge[1], *args.judge) if args.judge else Files(EMBEDDED)
    judge = Judge(judged, args.judge_layers and tuple(names.split(",") for names in args.judge_layers))
    couples = pairs(args.pairs, args.pictures)
    print(f"{where()}; {files.name}, judged by {Path(judged.name).stem}", flush=True)
    if args.curves:
        return curves(args, files, judge, couples)
    rows = []
    for size in map(int, args.sizes.split(",")):
        shown = []
        for name, options in runs(args, size).items():
            results = [run(args, files, pair, size, name, options, out / f"{files.name}-{size}-{number}")
                       for number, pair in enumerate(couples)]  # fmt: skip
            rows.append([name, str(size), *figures(results, couples, judge, args.reference if name == _LUA else 0)])
            shown.append((name, [(p.picture if not p.refusal else None, caption(p)) for p, _ in results]))
            print(f"  {' '.join(rows[-1])}", flush=True)
        if args.sheet:
            names = [f"{Path(content).stem} by {Path(style).stem}" for content, style in couples]
            sheet(out / f"sheet-{size}.png", f"{files.name}, {size} pixels", names, shown, 480)
    print(table(["run", "size", "seconds", "processor's seconds", "style distance", "content distance"], rows))


_LUA = "neural_style.lua's settings"


def runs(args, size):
    """Name -> options of every run at a size."""
    options = {name: ["--quality", name] for name in filter(None, args.presets.split(","))}
    for text in filter(None, args.schedules.split(";")):
        options[text] = schedule(text, size)
    if args.before:
        options["before"] = shlex.split(args.before.replace("SIZE", str(size)))
    if args.reference:
        options[_LUA] = ["--scales", str(size), "--num-iterations", str(args.reference), "--init", "random"]
    return options


def schedule(text, size):
    """The options of "128x100,256x60", where a size may be SIZE or a fraction such as SIZE/4."""
    scales = [entry.split("x") for entry in text.split(",")]
    sizes = [size // int(n.partition("/")[2] or 1) if n.startswith("SIZE") else int(n) for n, _ in scales]
    counts = [count for _, count in scales]
    return ["--scales", ",".join(map(str, sizes)), "--num-iterations", ",".join(counts)]


def run(args, files, pair, size, name, options, stem):
    """(result of the first round, median seconds of the rounds)."""
    label = "".join(c if c.isalnum() else "_" for c in name)
    rounds = [paint(files, *pair, size, [*options, *shlex.split(args.options)], Path(f"{stem}-{label}-{number}.png"))
              for number in range(args.rounds)]  # fmt: skip
    return rounds[0], statistics.median(p.seconds for p in rounds)


def figures(results, couples, judge, reference):
    """The cells of the table: seconds, the processor's seconds, style and content distance."""
    if any(p.refusal for p, _ in results):
        return ["refused", "", "", ""]
    seconds = np.mean([median for _, median in results])
    processor = np.mean([p.processor for p, _ in results])
    if reference and reference < _ITERATIONS:
        remaining = (_ITERATIONS - reference) * np.mean([p.per_iteration for p, _ in results])
        note = f"(from {reference} iterations)"
        return [f"{seconds + remaining:.0f} {note}", f"{processor * (1 + remaining / seconds):.0f} {note}", "", ""]
    distances = []
    for (painted, _), (content, style) in zip(results, couples, strict=True):
        x = cvstyle.preprocess(painted.picture)
        distances.append([judge.style(x, style), judge.content(x, content)])
    return [f"{seconds:.1f}", f"{processor:.1f}", *(f"{value:.3g}" for value in np.mean(distances, axis=0))]


def caption(painted):
    return painted.refusal or f"{painted.seconds:.1f} s"


def curves(args, files, judge, couples):
    """Print rows of schedule, pair, scale, iteration, seconds, loss and distances."""
    rows = []
    for size in map(int, args.sizes.split(",")):
        for name, options in runs(args, size).items():
            for content, style in couples:
                rows += curve(files, content, style, size, name, [*options, *shlex.split(args.options)], judge)
    head = ["run", "pair", "scale", "iteration", "seconds", "processor's", "loss", "style distance", "content distance"]
    print(table(head, rows))


def curve(files, content, style, size, name, options, judge):
    """The rows of one run: after 5, 10, 20, 30, 40, 60, 80 … iterations of each scale, and at the end of a scale."""
    job = create_job(files, content, style, size, options)
    pair = f"{Path(content).stem} by {Path(style).stem}"
    rows = []
    seconds = np.zeros(2)
    clocks = time.perf_counter, time.process_time
    start = np.array([clock() for clock in clocks])
    run = job.start()
    last_iterations = np.cumsum([0, *(count for _, count in run.setup.schedule)])
    while iterate := next(run, None):
        loss = iterate.loss
        seconds += [clock() for clock in clocks] - start
        scale = int(np.searchsorted(last_iterations, iterate.iteration)) - 1
        iteration = iterate.iteration - last_iterations[scale]
        if iteration in (5, 10, 30) or iteration % 20 == 0 or iterate.iteration in last_iterations:
            x = cvstyle.preprocess(iterate.picture(), size)
            rows.append([
                name, pair, str(run.setup.schedule[scale][0]), str(iterate.iteration), *(f"{t:.2f}" for t in seconds),
                f"{loss:.4g}", f"{judge.style(x, style):.4g}", f"{judge.content(x, content):.4g}",
            ])  # fmt: skip
        start = np.array([clock() for clock in clocks])
    return rows


def create_job(files, content, style, size, options):
    """The job of a command line."""
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    line = [*files.options, "--content", content, "--style", style, "--image-size", str(size), *options]
    request = Request.of(parser.parse_args(line))
    return cvstyle.Job(content, [style], files.proto or None, files.model or None, request.options, request.compute)


if __name__ == "__main__":
    main()
