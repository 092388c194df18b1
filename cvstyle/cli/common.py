"""Helpers of the verbs: parsing of options, messages and tables."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import suppress
from functools import partial

from ..errors import OptionError, nearest
from ..fields import BOOL, GROUPS, REQUIRED, Option, options_of

_MOST_SHOWN = 200  # characters of a word in a message


def add_options(parser, classes, groups=GROUPS, leave_out=lambda entry: False) -> None:
    """Add the options of dataclasses (see `fields`) to a parser, by group, without those to leave out."""
    for title in groups:
        group = parser.add_argument_group(title)
        for cls in classes:
            for entry in options_of(cls).values():
                if entry.group == title and not leave_out(entry):
                    add_option(group, entry)


def add_option(group, entry: Option) -> None:
    """Add one option to a parser or one of its groups."""
    required = entry.default is REQUIRED
    settings = {"help": entry.help, "default": None if required else entry.default, "required": required}
    if entry.kind is BOOL and entry.const is None:
        settings["action"] = "store_true"
    else:
        metavar = entry.metavar or "{" + ",".join(map(str, entry.choices)) + "}"
        settings |= {"type": partial(_parse, entry), "metavar": metavar}
    if entry.repeated:
        settings["action"] = "extend"
    if entry.const is not None:
        settings |= {"nargs": "?", "const": entry.const}
    group.add_argument(*entry.spellings, **settings)
    for switch, value in entry.switches.items():
        group.add_argument(switch, action="store_const", dest=entry.name, const=value, help=argparse.SUPPRESS)


def _parse(entry, text):
    """The value of an option's text. Raises OptionError."""
    name = entry.spellings[0]
    try:
        value = entry.convert(text)
    except OptionError:
        if not entry.kind.parse_error:
            raise
        raise OptionError(f"{name}: {shown(text)} {entry.kind.parse_error}{meant(entry, text)}") from None
    if entry.choices and value not in entry.choices:
        choices = list(map(str, entry.choices))
        raise OptionError(f"{name}: {shown(text)} is not one of {', '.join(choices)}{nearest(text, choices)}")
    return value


def meant(entry: Option, text: str) -> str:
    """The end of a message with the number that a text may stand for, such as 0.5 for "0,5", or ""."""
    number = text.strip().rstrip(",;.").replace(",", ".").removesuffix("%")
    size = re.fullmatch(r"(\d+) *[x×*] *(\d+)", text.strip().lower())
    try:
        if size:
            number = str(max(map(int, size.groups())))
        elif text.strip().endswith("%"):
            number = str(float(number) / 100)
        entry.check(entry.convert(number))
    except (OptionError, ValueError):
        return ""
    return f"; is {number} meant?"


def shown(text: str) -> str:
    """A word of the command line on one line of a message, in quotes."""
    text = " ".join(text.split())
    return f"'{text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + '...'}'"


def settings_of(cls, args):
    """An object of a dataclass of options from parsed arguments."""
    return cls(**{name: value for name, value in vars(args).items() if name in options_of(cls)})


def say(line: str) -> None:
    """Print a message of the program to standard error, in one line."""
    note(f"cvstyle: {' '.join(line.splitlines())}")


def note(text: str) -> None:
    """Print a text to standard error, if that still takes any."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def table(rows) -> str:
    """Rows of cells as a text table."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
