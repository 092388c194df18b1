"""What the benchmarks of pictures share: networks in folders, runs of the command, an independent judge, and sheets."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import cvstyle
from cvstyle import zoo

EMBEDDED = "embedded"
_TILE = 1024  # pixels a side that the judge computes at once
_LINE = 16  # pixels of a line of text


@dataclass(frozen=True)
class Files:
    """A network as the command line names it; both are "" for the embedded one."""

    name: str
    proto: str = ""
    model: str = ""

    @property
    def options(self) -> list[str]:
        return ["--proto", self.proto, "--model", self.model] if self.proto else []

    def load(self):
        return cvstyle.load_network(*(self.proto, self.model) if self.proto else zoo.embedded_files())

    @cache  # noqa: B019 (a few networks, which live as long as the program)
    def default_layers(self) -> tuple[list[str], list[str]]:
        """(content, style) as `cvstyle info` prints them; empty where it knows none."""
        lines = _cvstyle("info", *self.options).stdout.splitlines()
        found = {kind: line.partition(": ")[2].partition(" (")[0] for kind in ("content", "style") for line in lines
                 if line.startswith(f"default {kind} layers")}  # fmt: skip
        return tuple([entry.partition(":")[0] for entry in found.get(kind, "").split(",") if entry]
                     for kind in ("content", "style"))  # fmt: skip


def networks(folder: str | None, names: str | None = None) -> list[Files]:
    """The embedded network, and those of a folder's subfolders NAME with deploy.prototxt and one .caffemodel each.

    names: of these alone, in this order.
    """
    found = {EMBEDDED: Files(EMBEDDED)}
    for proto in sorted(Path(folder).glob("*/deploy.prototxt")) if folder else ():
        model = next(proto.parent.glob("*.caffemodel"))
        found[proto.parent.name] = Files(proto.parent.name, str(proto), str(model))
    return [found[name] for name in names.split(",")] if names else list(found.values())


def pairs(text: str, folder: str | None) -> list[tuple[str, str]]:
    """(content, style) paths from "photo.jpg:painting.jpg,..."; the demo's pair from an empty text."""
    demo = Path(__file__).resolve().parents[1] / "models" / "demo"
    if not text:
        return [(str(demo / "content.jpg"), str(demo / "style.jpg"))]
    return [tuple(str(Path(folder or ".", name)) for name in pair.split(":")) for pair in text.split(",")]


@dataclass
class Painted:
    """A run of the command: its picture, seconds of the whole program (by the clock, and of all its threads), the log's
    last row, mean seconds of an iteration, or what refused it."""

    picture: Path
    seconds: float
    processor: float
    losses: dict[str, float]
    per_iteration: float
    refusal: str = ""

    def share(self, kind: str) -> float:
        """Of the loss: that of "content", "style" or "tv"."""
        return sum(v for name, v in self.losses.items() if name.partition(":")[0] == kind) / sum(self.losses.values())

    @property
    def style_layers(self) -> list[str]:
        return [name.partition(":")[2] for name in self.losses if name.startswith("style:")]


def paint(files: Files, content: str, style: str, size: int, options: list[str], picture: Path) -> Painted:
    """`cvstyle run`, unless the folder of the picture has what it made before."""
    kept = picture.with_suffix(".json")
    if kept.is_file():
        return Painted(picture, **json.loads(kept.read_text(encoding="utf-8")))
    log = picture.with_suffix(".csv")
    began, before = time.perf_counter(), _processor_time()
    done = _cvstyle(
        "run", *files.options, "--content", content, "--style", style, "--image-size", str(size), "--output",
        str(picture), "--log", str(log), "--quiet", *options,
    )  # fmt: skip
    told = {
        "seconds": time.perf_counter() - began, "processor": _processor_time() - before, "losses": {},
        "per_iteration": 0.0, "refusal": "",
    }  # fmt: skip
    if done.returncode:
        told["refusal"] = done.stderr.strip().splitlines()[-1].removeprefix("cvstyle: ")
    else:
        told["losses"], told["per_iteration"] = _read(log)
    kept.write_text(json.dumps(told), encoding="utf-8")
    return Painted(picture, **told)


def _processor_time():
    """Of the programs that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _read(log):
    """(losses of the last row, mean seconds of an iteration after the first)."""
    with log.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    fixed = ("iteration", "seconds", "loss")
    each = (float(rows[-1]["seconds"]) - float(rows[0]["seconds"])) / max(1, len(rows) - 1)
    return {name: float(value) for name, value in rows[-1].items() if name not in fixed}, each


def _cvstyle(*arguments):
    return subprocess.run([sys.executable, "-m", "cvstyle", *arguments], capture_output=True, text=True)


class Judge:
    """How far a picture is from its style and its content by a network, which painted none of them if it is to judge.

    layers: (content, style); None: those that `cvstyle info` prints. Style is the mean over its layers of
    ‖G − A‖² / ‖A‖² with Gram matrices G of the picture and A of the painting, content that of Σ(F − T)² / ΣT².
    """

    def __init__(self, files: Files, layers: tuple[list[str], list[str]] | None = None):
        self.files = files
        self.content_layers, self.style_layers = layers or files.default_layers()
        self.net = files.load()
        self._known = {}

    def style(self, picture, style: str) -> float:
        """picture: an array of `cvstyle.preprocess`; the painting is taken at its size."""
        own, aim = self._grams(picture), self._of(self._grams, style, max(picture.shape))
        return float(np.mean([_relative(own[name], aim[name]) for name in own]))

    def content(self, picture, content: str) -> float:
        own, aim = self._features(picture), self._of(self._features, content, max(picture.shape))
        return float(np.mean([_relative(own[name], aim[name]) for name in own]))

    def _grams(self, picture):
        settings = {"style_layers": self.style_layers}
        return cvstyle.measure_styles(self.net, settings, [picture], tile_size=_TILE).statistics

    def _features(self, picture):
        return cvstyle.features(self.net, picture, self.content_layers)

    def _of(self, measure, path, size):
        key = measure.__name__, path, size
        if key not in self._known:
            self._known[key] = measure(cvstyle.preprocess(path, size))
        return self._known[key]


def _relative(a, b):
    b = b.astype(np.float64)
    return ((a - b) ** 2).sum() / (b**2).sum()


def sheet(path: str | Path, title: str, columns: list[str], rows: list[tuple[str, list]], cell: int = 320) -> None:
    """A labelled PNG. rows: (label, cells); a cell is (picture's path, text below it), its path None for text alone."""
    font = ImageFont.load_default(13)
    left, gap = 130, 8
    tops, drawn = [2 * _LINE], []
    for label, cells in rows:
        images = [_fitted(picture, cell) for picture, _ in cells]
        texts = [_wrapped(text, cell, font) for _, text in cells]
        under = [(image.height if image else 0) + _LINE * (1 + text.count("\n")) for image, text in zip(images, texts)]
        drawn.append((label, images, texts))
        tops.append(tops[-1] + max(under) + gap)
    canvas = Image.new("RGB", (left + len(columns) * (cell + gap), tops[-1]), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((4, 2), title, "black", font)
    for number, name in enumerate(columns):
        draw.text((left + number * (cell + gap), _LINE), _wrapped(name, cell, font), "black", font)
    for top, (label, images, texts) in zip(tops, drawn):
        draw.text((4, top), _wrapped(label, left - gap, font), "black", font)
        for number, (image, text) in enumerate(zip(images, texts, strict=True)):
            at = left + number * (cell + gap)
            if image:
                canvas.paste(image, (at, top))
            draw.text((at, top + (image.height if image else 0)), text, "black", font)
    canvas.save(path)


def _fitted(path, cell):
    """The picture, its longest side that of a cell."""
    if not path:
        return None
    with Image.open(path) as image:
        factor = cell / max(image.size)
        size = tuple(max(1, round(n * factor)) for n in image.size)
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _wrapped(text, width, font):
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
