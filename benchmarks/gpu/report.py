"""The report of a visit to a GPU: Markdown to read, JSON to compute with, a log of all that was printed.

Every row is in the files before the next one is measured, so a kill costs the current row alone.
"""

from __future__ import annotations

import json
import os
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

_CELL = 300  # characters; the JSON has the rest


@dataclass(frozen=True)
class Column:
    """name: its title, and its key in the JSON. form: how a number is written (a format specification)."""

    name: str
    form: str = ""

    def cell(self, value) -> str:
        """A value as text; None where there is none."""
        if value is None:
            return ""
        text = f"{value:{self.form}}" if self.form and isinstance(value, (int, float)) else str(value)
        return textwrap.shorten(text, _CELL, placeholder=" ...") if len(text) > _CELL else text


@dataclass(frozen=True)
class Section:
    """A table: its title and its columns."""

    title: str
    columns: tuple[Column, ...]


@dataclass
class Report:
    """folder: where the files are; name: theirs, without the ending.

    Rows go under the table that is open where they belong to it, else under a new one.
    """

    folder: Path
    name: str
    content: dict = field(default_factory=lambda: {"rows": [], "faults": [], "notes": [], "steps": []})

    def __post_init__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open = None
        for path in (self.path("md"), self.path("log")):
            path.write_text("", "utf-8")
        self._save()

    def path(self, ending: str) -> Path:
        """A file of the report."""
        return self.folder / f"{self.name}.{ending}"

    def line(self, text: str = "") -> None:
        """A line of Markdown, to the terminal too."""
        self._open = None
        self._print(text)

    def title(self, text: str) -> None:
        """A heading of the second level."""
        self.line()
        self.line(f"## {text}")

    def note(self, text: str) -> None:
        """A paragraph, which the JSON has as well."""
        self.content["notes"].append(text)
        self.line()
        self.line(text)
        self._save()

    def row(self, section: Section, values: dict) -> None:
        """A row of a table: values by the columns' names; values without a column are in the JSON alone."""
        self.content["rows"].append({"table": section.title, **values})
        self._save()
        if self._open is not section:
            self.line()
            self.line(f"**{section.title}**")
            self.line()
            self._cells([c.name for c in section.columns])
            self._cells(["---"] * len(section.columns))
        self._open = section
        self._cells([c.cell(values.get(c.name)) for c in section.columns])

    def fault(self, what: str, text: str) -> None:
        """A fault, with the end of the output."""
        self.content["faults"].append({"what": what, "text": text})
        self.line()
        self.line(f"**{what}**")
        if text:
            self.line()
            self.line("```")
            self.line(text)
            self.line("```")
        self._save()

    def rows(self, section: Section) -> list[dict]:
        """The rows of a table so far."""
        return [r for r in self.content["rows"] if r["table"] == section.title]

    def _cells(self, cells):
        self._print("| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |")

    def _print(self, text):
        print(text, flush=True)
        with self.path("md").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def _save(self):
        """In one step, so that the file can always be read."""
        new = self.path("json.new")
        new.write_text(json.dumps(self.content, indent=1, ensure_ascii=False) + "\n", "utf-8")
        os.replace(new, self.path("json"))
