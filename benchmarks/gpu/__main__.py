"""The report of a GPU: cvstyle in every precision beside PyTorch, written row by row.

usage: python benchmarks/gpu quick [--from PART] [--minutes 8] [--list]
       python benchmarks/gpu full [--sections iterations,layers,...] [--precisions fp32,tf32,...,"cudnn fp32"]
              [--sizes 256,512,1024,2048] [--networks VGG-19,embedded] [--limit 300] [--iterations 100] [--pictures 500]

Files gpu-DATE.md, .json, .log and pictures go to the folder that the variable OUT names, else to benchmarks/results/.
Every step is a process with a limit: a step that hangs or breaks the GPU's context is a line of the report. An
iteration's time is the median of three, each over many iterations between two waits for the device, after enough to
compile, choose kernels, capture the graph and fill the history. TFLOP/s count the products of direct convolutions.
--dry and --narrow try the report out with a stand-in for the GPU.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent), str(_HERE.parents[1])]

import parts  # noqa: E402
import summary  # noqa: E402
from report import Report  # noqa: E402
from schedule import MARK, Runner, Stop  # noqa: E402
from sections import MODULES, SECTIONS  # noqa: E402

_SECTIONS = ("ceilings", "products", "iterations", "peers", "layers", "gradients", "pictures")


def main():
    if sys.argv[1:2] == ["one"]:  # a step of a report
        return one(sys.argv[2], json.loads(sys.argv[3]))
    args = arguments()
    chosen = parts.quick(args.dry) if args.verb == "quick" else everything(args)
    if args.verb == "quick":
        chosen = [part for part in chosen if part.number >= args.first]
        room = 60 * args.minutes / sum(part.limit for part in chosen)
        for part in chosen:
            part.limit *= min(1, room)
    if args.list:
        return listed(chosen)
    kind = f"-{args.part}" if args.verb == "full" else f"-from-{args.first}" if args.first > 1 else ""
    name = unused(Path(args.output), f"gpu-{datetime.date.today()}{kind}")
    try:
        report = Report(Path(args.output), name)
    except OSError as error:
        sys.exit(f"no report can be written to {args.output}: {error.strerror}")
    return run(report, chosen, args)


def unused(folder, name):
    """The name, with a number where there is a report of that name."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([name], numbered) if not (folder / f"{n}.md").exists())


def one(section, settings):
    """Fill a table's rows, printed for the process that asked for them."""
    module = importlib.import_module(MODULES.get(section, "measure"))
    s = module.Settings(**settings)
    getattr(module, section)(s, lambda values: print(MARK + json.dumps(values, default=float), flush=True))


def run(report, chosen, args):
    """Run the parts and write the report; returns the exit status."""
    report.line("# A GPU, " + ("tried out without one: no figure here is that of a GPU" if args.dry else "measured"))
    report.line()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    start, status = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as scratch:
        if args.dry:  # what a stand-in compiles must not be found by a real compiler
            os.environ["XDG_CACHE_HOME"] = scratch
        common = {"scratch": scratch, "report": str(report.folder / report.name), "dry": args.dry}
        common |= {"narrow": args.narrow, "device": args.device, "proto": args.proto, "model": args.model}
        runner = Runner(report, SECTIONS, common, [sys.executable, str(_HERE)], lambda: summary.after(report))
        try:
            runner.run(chosen)
        except Stop as stop:
            report.note(f"**{stop}**")
        except (KeyboardInterrupt, SystemExit) as stop:
            status = getattr(stop, "code", 130)
            report.note("**Stopped before its end; what was known by then is here.**")
    summary.end(report, runner.left, time.monotonic() - start, args.verb)
    return status or int(bool(report.content["faults"] or runner.left))


def everything(args):
    sections, precisions = args.sections.split(","), args.precisions.split(",")
    known = (*_SECTIONS, *parts.PRECISIONS, *parts.CUDNN)
    unknown = [name for name in (*sections, *precisions) if name not in known]
    if unknown:
        sys.exit(f"not known: {', '.join(unknown)}; there are {', '.join(known)}")
    return parts.full(
        sections, precisions, [int(n) for n in args.sizes.split(",")], args.networks.split(","), args.limit,
        iterations=args.iterations, pictures=args.pictures,
    )  # fmt: skip


def listed(chosen):
    """List the steps, their limits, and the reasons for the expected times."""
    print("| part | step | limit, s | reckoned, s | from |\n| --- | --- | --- | --- | --- |")
    for part in chosen:
        print(f"| **{part.number}. {part.title}** | | **{part.limit:.0f}** | **{part.expected:.0f}** | |")
        for step in part.steps:
            print(f"| | {step.section}: {step.configuration} | {step.limit:.0f} | {step.expected:.0f} | {step.why} |")
    print(f"| all | | {sum(p.limit for p in chosen):.0f} | {sum(p.expected for p in chosen):.0f} | |")


def arguments():
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--output", default=os.environ.get("OUT") or str(_HERE.parent / "results"))
    common.add_argument("--device")
    common.add_argument("--dry", action="store_true", help=argparse.SUPPRESS)
    common.add_argument("--narrow", type=int, default=1, help=argparse.SUPPRESS)
    common.add_argument("--list", action="store_true", help="what would be done, with limits and expected times")
    common.add_argument("--proto", help="of a VGG-19 with trained weights, instead of random ones")
    common.add_argument("--model", help="that belongs to it")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    quick = verbs.add_parser("quick", help="the most valuable figures in eight minutes", parents=[common])
    quick.add_argument("--from", dest="first", type=int, default=1, choices=range(1, 8), help="the part to begin with")
    quick.add_argument("--minutes", type=float, default=8)
    full = verbs.add_parser("full", help="whole tables", parents=[common])
    full.add_argument("--sections", default=",".join(_SECTIONS))
    full.add_argument("--precisions", default=",".join((*parts.PRECISIONS, *parts.CUDNN)))
    full.add_argument("--sizes", default="256,512,1024,2048")
    full.add_argument("--networks", default="VGG-19,embedded")
    full.add_argument("--limit", type=int, default=300, help="seconds that a row may take")
    full.add_argument("--iterations", type=int, default=100)
    full.add_argument("--pictures", type=int, default=500, help="iterations after which pictures are compared")
    full.add_argument("--part", default="full", help="a name for the files")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
