"""Helpers of the verbs: parsing of options, messages and tables."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from ..fields import BOOL, GROUPS, INT, REQUIRED, Option, options_of


def add_options(parser, classes, groups=GROUPS) -> None:
    """Add the options of dataclasses (see `fields`) to a parser, by group."""
    for title in groups:
        group = parser.add_argument_group(title)
        for cls in classes:
            for entry in options_of(cls).values():
                if entry.group == title:
                    add_option(group, entry)


def add_option(group, entry: Option) -> None:
    """Add one option to a parser or one of its groups."""
    settings = {"help": entry.help, "default": entry.default, "required": entry.default is REQUIRED}
    if entry.kind is BOOL and entry.const is None:
        settings["action"] = "store_true"
    else:
        settings |= {"type": partial(_parse, entry.kind), "metavar": entry.metavar, "choices": entry.choices}
    if entry.const is not None:
        settings |= {"nargs": "?", "const": entry.const}
    group.add_argument(*entry.spellings, **settings)
    for switch, value in entry.switches.items():
        group.add_argument(switch, action="store_const", dest=entry.name, const=value, help=argparse.SUPPRESS)


def _parse(kind, text):
    """The value of an option's text; argparse adds the option's name to the error."""
    try:
        return (INT if kind is BOOL else kind).convert(text)  # a bool is 0 or 1, like its choices
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' {kind.parse_error}") from None


def settings_of(cls, args):
    """An object of a dataclass of options from parsed arguments."""
    return cls(**{name: value for name, value in vars(args).items() if name in options_of(cls)})


def say(line: str) -> None:
    """Print a message of the program to standard error."""
    print(f"cvstyle: {line}", file=sys.stderr, flush=True)


def table(rows) -> str:
    """Rows of cells as a text table."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
