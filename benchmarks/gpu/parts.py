"""The parts of a report, their order and their limits: eight minutes' worth, or all."""

from __future__ import annotations

import sys
from pathlib import Path

from schedule import Part, Step

from cvstyle import paths

WORDS = ("fp16", "bf16", "tf32")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "tf32-fast", "fp16-fast", "bf16-fast")
CUDNN = ("cudnn fp32", "cudnn tf32-fast")
PLAIN, BEST, COMPILED = "plain", "best", "best, compiled"
_ROOT = Path(__file__).resolve().parents[2]
_NO_WGMMA = {"CVSTYLE_WGMMA": "0", "CVSTYLE_AUTOTUNE_SECONDS": "10"}
_WGMMA = {"CVSTYLE_WGMMA": "1", "CVSTYLE_AUTOTUNE_SECONDS": "10"}
_VGG = {"networks": ["VGG-19"]}
_START = "3 s to start Python, CuPy and a context"


def quick(dry: bool) -> list[Part]:
    """The parts of `make gpu-quick`, by worth; dry: small and few, to try the report out without a GPU."""
    order = ("fp32",) if dry else ("fp32", "fp16", "fp16-fast", "tf32", "bf16", "tf32-fast", "bf16-fast")
    parts = [
        Part(1, "Does anything run", 60, [
            Step("machine", "machine", 60, 6, _START, vital=True),
            Step("first", "fp32", 60, 8, f"{_START}; 20 kernels compiled at 0.2 s", vital=True),
        ]),
        Part(2, "VGG-19 at 512 and 1024, beside PyTorch", 205, _iterations(order)),
        Part(3, "Ceilings, and the share of them that layers reach", 30, [
            Step("ceilings", "copy", 10, 4, _START),
            Step("products", "by PyTorch", 25, 9, "5 s to start PyTorch; 12 products of 8192³ each"),
            *[Step("layers", p, 20, 6, f"{_START}; 26 timings", {"sizes": [512]}, _NO_WGMMA) for p in order[:2]],
        ]),
        Part(4, "Gradients and pictures", 55, _gradients(order)),
        Part(5, "Every kernel against NumPy", 65, _tests(dry)),
        Part(6, "The largest picture", 25, [
            Step("largest", "fp32" if dry else "fp16", 40, 16, f"{_START}; 2 s for the pictures, 4 evaluations of 2 s",
                 {"sizes": [8192], "tile": 2048}, _NO_WGMMA),
        ]),
        Part(7, "Hopper's own instruction", 40, [
            Step("wgmma", "self-check", 40, 15, "50 compilations of 3 s on 16 cores",
                 {"command": [sys.executable, "-m", "cvstyle.backends.device.wgmma_check", "0", *WORDS]}),
            *[Step("iterations", p, 25, 8, "as in part 2", {**_VGG, "sizes": [512, 1024]}, _WGMMA)
              for p in order[1:3] or ("fp16",)],
        ]),
    ]  # fmt: skip
    for part in parts if dry else ():  # a CPU is slower
        part.limit *= 10
    for step in (step for part in parts for step in part.steps if dry):
        step.limit *= 10
        sizes = {"iterations": [48, 64], "largest": [160]}.get(step.section, [64])
        step.settings = {**step.settings, "sizes": sizes, "tile": 112}
    return parts


def full(sections, precisions, sizes, networks, limit, **settings) -> list[Part]:
    """Parts of `make gpu-bench`: whole tables, a process with a limit for every precision."""
    wanted = [p for p in (*PRECISIONS, *CUDNN) if p in precisions]
    one, second = sizes[:1], sizes[:2][-1:]
    at = {"exact": one, "gradients": one, "layers": second, "pictures": second}
    configurations = {
        "ceilings": ("copy",), "products": ("by PyTorch",), "peers": (PLAIN, BEST, COMPILED),
        "pictures": [p for p in PRECISIONS if p in ("fp32", *wanted)],
        "gradients": wanted, "iterations": wanted, "layers": wanted,
    }  # fmt: skip
    first = Step("machine", "machine", 60, 6, _START, vital=True)
    chosen = [(s, c) for s in sections for c in configurations[s]]
    if "gradients" in sections:
        chosen.insert(0, ("exact", "float64"))
    common = {"networks": networks, **settings}
    steps = [Step(s, c, limit, limit / 4, settings={**common, "sizes": at.get(s, sizes)}) for s, c in chosen]
    return [Part(1, "What was asked for", sum(step.limit for step in (first, *steps)), [first, *steps])]


def _iterations(order):
    both = {**_VGG, "sizes": [512, 1024]}

    def ours(p):
        expected = 14 if p == "fp32" else 10 if p == "tf32" else 8
        why = f"{_START}; tuning 2 s a size; 180 iterations of 3 to 4 ms, 100 of 8 to 15 ms"
        return Step("iterations", p, 30, expected, why, both, _NO_WGMMA)

    def run(p):
        return Step("runs", p, 20, 6, f"{_START}; filters 1 s; 500 iterations of 1.5 to 4 ms", {}, _NO_WGMMA)

    peers = [Step("peers", c, 45, 12, "5 s to start PyTorch; 40 iterations of each size", both) for c in (PLAIN, BEST)]
    later = [step for p in order[3:] for step in (ours(p), run(p))]
    compiling = "130 s of compiling on 16 cores; 4 s of dry runs"
    return [
        Step("compile", ",".join(order), 60, 20, compiling, both, _NO_WGMMA),
        Step("files", "VGG-19", 20, 3, "80 MB"), ours("fp32"), *peers, *map(ours, order[1:3]), *map(run, order[:3]),
        *later,
        Step("peers", COMPILED, 45, 25, "Inductor takes 15 s", {**both, "sizes": [512]}),
    ]  # fmt: skip


def _gradients(order):
    small = {**_VGG, "sizes": [256]}
    return [
        Step("exact", "float64", 30, 6, "70 GFLOP in float64 at 100 GFLOP/s, twice", small),
        *[Step("gradients", p, 15, 5, _START, small, _NO_WGMMA) for p in order],
        *[Step("pictures", p, 20, 6, f"{_START}; 200 iterations", {"sizes": [512]}, _NO_WGMMA) for p in order[:2]],
    ]


def _tests(dry):
    """On a device that does nothing first, which lists the kernels of the chosen tests: these are compiled in parallel,
    and stay in a cache of their own, for memcheck and for a second call."""
    sources = ("opencl", "gathering", "winograd", "tensor")
    marked = ["-m", "gpu", *(f"tests/test_{name}.py" for name in sources)]
    chosen = ["tests/test_opencl.py", "-k", "relu"] if dry else marked
    pytest = ["-m", "pytest", "-p", "no:cacheprovider", "-rfs", *chosen]
    listing, memcheck = ["-O", *pytest, "--assert=plain"], [str(_ROOT / "tests/memcheck.py")]
    environment, kept = {"CVSTYLE_TEST_BACKEND": "cuda", "CVSTYLE_WGMMA": "0"}, paths.cache() / "tests"
    if not dry:  # a stand-in's binaries are of no use to a GPU
        environment |= {"CVSTYLE_TEST_CACHE": str(kept), "CVSTYLE_TEST_VARIANTS": str(kept / "variants.json")}
    steps = [
        ("listing", 30, 8, "NumPy's results alone", listing, {**environment, "CVSTYLE_TEST_BACKEND": "nothing"}),
        ("kernels", 90, 25, "90 sources at 0.6 s on 16 cores; 300 tests, as many waits", pytest, environment),
        ("memcheck", 45, 20, "three evaluations, 20 times slower than without", memcheck, environment),
    ]
    return [
        Step("tests", name, limit, expected, why, {"command": [sys.executable, *command]}, variables)
        for name, limit, expected, why, command, variables in (steps[1:] if dry else steps)
    ]
