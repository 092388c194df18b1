"""The tables of the report. A module has a function of each one's name, which fills it: measure.py, or another."""

from __future__ import annotations

from report import Column, Section

_MS = ".2f"
_CEILINGS = Section("Ceilings of this run", (Column("what"), Column("reached", ".1f"), Column("unit")))

SECTIONS = {
    "machine": Section("Machine", (Column("what"), Column("found"))),
    "first": Section(
        "One evaluation against NumPy in float64",
        (Column("precision"), Column("size"), Column("error of the gradient", ".1e"), Column("of the loss", ".1e"),
         Column("replayed", ".1e"), Column("recorded"), Column("seconds", ".1f")),
    ),
    "compile": Section(
        "Kernels compiled before they are needed",
        (Column("for"), Column("sources", "d"), Column("compiled anew", "d"), Column("dry run, s", ".1f"),
         Column("seconds", ".1f")),
    ),
    "files": Section("A VGG-19 with random weights, as files", (Column("what"), Column("seconds", ".1f"))),
    "iterations": Section(
        "Iterations of L-BFGS",
        (Column("precision"), Column("network"), Column("size"), Column("ms", _MS), Column("spread"),
         Column("evaluation, launched, ms", _MS), Column("TFLOP/s", ".1f"), Column("MB", ".0f"),
         Column("filters, MB", ".0f"), Column("history, MB", ".0f"), Column("recorded"), Column("not tried", "d")),
    ),
    "runs": Section(
        "A whole `cvstyle run` of 500 iterations at 512, start of the program included",
        (Column("precision"), Column("seconds", ".2f"), Column("said")),
    ),
    "peers": Section(
        "PyTorch",
        (Column("configuration"), Column("network"), Column("size"), Column("ms", _MS),
         Column("evaluation, ms", _MS), Column("MB", ".0f"), Column("ready after, s", ".1f")),
    ),
    "ratios": Section(
        "How many times PyTorch's speed (ms of PyTorch over ms of cvstyle)",
        (Column("precision"), Column("network"), Column("size"), Column("ms", _MS), Column("plain", ".2f"),
         Column("best", ".2f"), Column("best, compiled", ".2f")),
    ),
    "ceilings": _CEILINGS,
    "products": _CEILINGS,
    "layers": Section(
        "Layers of VGG-19",
        (Column("precision"), Column("layer"), Column("forward, ms", ".3f"), Column("TFLOP/s", ".1f"),
         Column("share of the ceiling", ".0%"), Column("by"), Column("backward, ms", ".3f"),
         Column("TFLOP/s back", ".1f"), Column("share of the ceiling, back", ".0%"), Column("back by")),
    ),
    "exact": Section(
        "The gradient in float64 on the CPU",
        (Column("by"), Column("network"), Column("size"), Column("seconds", ".1f")),
    ),
    "gradients": Section(
        "Gradients against float64",
        (Column("precision"), Column("network"), Column("size"), Column("error", ".1e"), Column("of the loss", ".1e")),
    ),
    "pictures": Section(
        "Pictures, how far from that in fp32",
        (Column("precision"), Column("iterations", "d"), Column("loss", ".6g"), Column("PSNR, dB", ".1f"),
         Column("largest difference of a mean of 16×16, in 255ths", ".2f")),
    ),
    "tests": Section("Tests of the kernels against NumPy", (Column("what"), Column("result"))),
    "largest": Section(
        "One evaluation of a large picture, in tiles",
        (Column("precision"), Column("size"), Column("tile", "d"), Column("tiles", "d"), Column("seconds", ".2f"),
         Column("planned, MB", ".0f"), Column("taken, MB", ".0f"), Column("of the device, MB", ".0f")),
    ),
    "wgmma": Section("Hopper's wgmma, multiplied exactly", (Column("what"), Column("result"))),
}  # fmt: skip
MODULES = {
    **dict.fromkeys(("peers", "products"), "peers"),
    **dict.fromkeys(("compile", "files", "runs", "tests", "wgmma"), "programs"),
}
