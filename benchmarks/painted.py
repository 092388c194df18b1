"""Shared by the benchmarks of pictures: networks in folders, runs of the command, an independent judge, and sheets."""

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
_TILE = 1024  # the judge's tile size in pixels
_LINE = 16  # height of a line of text in pixels


@dataclass(frozen=True)
class Files:
    """A network's files; both paths are "" for the embedded network."""

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
        """(content layers, style layers) as `cvstyle info` prints them; empty without defaults."""
        lines = _cvstyle("info", *self.options).stdout.splitlines()
        layers = {kind: line.partition(": ")[2].partition(" (")[0] for kind in ("content", "style") for line in lines
                  if line.startswith(f"default {kind} layers")}  # fmt: skip
        return tuple([entry.partition(":")[0] for entry in layers.get(kind, "").split(",") if entry]
                     for kind in ("content", "style"))  # fmt: skip


def networks(folder: str | None, names: str | None = None) -> list[Files]:
    """The embedded network, and the networks in a folder's subfolders NAME (deploy.prototxt and one .caffemodel each).

    names: comma list of the wanted networks, in order; None: all.
    """
    files = {EMBEDDED: Files(EMBEDDED)}
    for proto in sorted(Path(folder).glob("*/deploy.prototxt")) if folder else ():
        model = next(proto.parent.glob("*.caffemodel"))
        files[proto.parent.name] = Files(proto.parent.name, str(proto), str(model))
    return [files[name] for name in names.split(",")] if names else list(files.values())


def pairs(text: str, folder: str | None) -> list[tuple[str, str]]:
    """(content, style) paths from "photo.jpg:painting.jpg,..."; the demo's pair for an empty text."""
    demo = Path(__file__).resolve().parents[1] / "models" / "demo"
    if not text:
        return [(str(demo / "content.jpg"), str(demo / "style.jpg"))]
    return [tuple(str(Path(folder or ".", name)) for name in pair.split(":")) for pair in text.split(",")]


@dataclass
class Painted:
    """A run of the command. seconds: wall time of the program; processor: processor time of all its threads. losses:
    the log's last row. per_iteration: mean seconds. refusal: the error message of a run that was refused."""

    picture: Path
    seconds: float
    processor: float
    losses: dict[str, float]
    per_iteration: float
    refusal: str = ""

    def share(self, kind: str) -> float:
        """The share of "content", "style" or "tv" in the loss."""
        return sum(v for name, v in self.losses.items() if name.partition(":")[0] == kind) / sum(self.losses.values())

    @property
    def style_layers(self) -> list[str]:
        return [name.partition(":")[2] for name in self.losses if name.startswith("style:")]


def paint(files: Files, content: str, style: str, size: int, options: list[str], picture: Path) -> Painted:
    """The result of `cvstyle run`, read from the picture's folder where an earlier call left it."""
    cache = picture.with_suffix(".json")
    if cache.is_file():
        return Painted(picture, **json.loads(cache.read_text(encoding="utf-8")))
    log = picture.with_suffix(".csv")
    start = time.perf_counter()
    processor_start = _processor_time()
    process = _cvstyle(
        "run", *files.options, "--content", content, "--style", style, "--image-size", str(size), "--output",
        str(picture), "--log", str(log), "--quiet", *options,
    )  # fmt: skip
    report = {
        "seconds": time.perf_counter() - start, "processor": _processor_time() - processor_start, "losses": {},
        "per_iteration": 0.0, "refusal": "",
    }  # fmt: skip
    if process.returncode:
        report["refusal"] = process.stderr.strip().splitlines()[-1].removeprefix("cvstyle: ")
    else:
        report["losses"], report["per_iteration"] = _read_log(log)
    cache.write_text(json.dumps(report), encoding="utf-8")
    return Painted(picture, **report)


def _processor_time():
    """Processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _read_log(log):
    """(losses of the last row, mean seconds of an iteration after the first)."""
    with log.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    per_iteration = (float(rows[-1]["seconds"]) - float(rows[0]["seconds"])) / max(1, len(rows) - 1)
    losses = {name: float(value) for name, value in rows[-1].items() if name not in ("iteration", "seconds", "loss")}
    return losses, per_iteration


def _cvstyle(*arguments):
    return subprocess.run([sys.executable, "-m", "cvstyle", *arguments], capture_output=True, text=True)


class Judge:
    """Distances of pictures from style and content by a network, which should not have painted the pictures.

    layers: (content, style); None: the layers that `cvstyle info` prints. The style distance is the mean over the style
    layers of ‖G − A‖² / ‖A‖², with Gram matrices G of the picture and A of the painting; the content distance is the
    mean over the content layers of Σ(F − T)² / ΣT².
    """

    def __init__(self, files: Files, layers: tuple[list[str], list[str]] | None = None):
        self.files = files
        self.content_layers, self.style_layers = layers or files.default_layers()
        self.net = files.load()
        self._targets = {}

    def style(self, picture, style: str) -> float:
        """The style distance of an array of `cvstyle.preprocess` from a painting, resized to the same longest side."""
        return self._distance(self._grams, picture, style)

    def content(self, picture, content: str) -> float:
        """The content distance of an array of `cvstyle.preprocess` from a photograph, resized likewise."""
        return self._distance(self._features, picture, content)

    def _distance(self, measure, picture, path):
        size = max(picture.shape)
        key = measure.__name__, path, size
        if key not in self._targets:
            self._targets[key] = measure(cvstyle.preprocess(path, size))
        target = self._targets[key]
        own = measure(picture)
        return float(np.mean([_relative(own[name], target[name]) for name in own]))

    def _grams(self, picture):
        settings = {"style_layers": self.style_layers}
        return cvstyle.measure_styles(self.net, settings, [picture], tile_size=_TILE).statistics

    def _features(self, picture):
        return cvstyle.features(self.net, picture, self.content_layers)


def _relative(a, b):
    b = b.astype(np.float64)
    return ((a - b) ** 2).sum() / (b**2).sum()


def sheet(path: str | Path, title: str, columns: list[str], rows: list[tuple[str, list]], cell: int = 320) -> None:
    """Write a labelled PNG. rows: (label, cells); a cell is (path of a picture or None, text below the picture)."""
    font = ImageFont.load_default(13)
    left = 130
    gap = 8
    tops = [2 * _LINE]
    drawn = []
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
            x = left + number * (cell + gap)
            if image:
                canvas.paste(image, (x, top))
            draw.text((x, top + (image.height if image else 0)), text, "black", font)
    canvas.save(path)


def _fitted(path, cell):
    """The picture with its longest side as long as a cell."""
    if not path:
        return None
    with Image.open(path) as image:
        factor = cell / max(image.size)
        size = tuple(max(1, round(n * factor)) for n in image.size)
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _wrapped(text, width, font):
    """The text in lines of at most `width` pixels."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
