"""Entries of layer lists: a layer with a weight and, for style, a kind of loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import OptionError, nearest

KINDS: Mapping[str, str] = {
    "gram": "Gram", "covariance": "Covariance", "shifted": "Shifted", "wasserstein": "Wasserstein",
}  # fmt: skip
"""The kinds of style losses: each is the class of this name in the file of `losses/style/` that is called like it."""


class Entry(NamedTuple):
    """An entry of a layer list. kind: one of `KINDS`, or None for the kind of the whole list."""

    name: str
    factor: float = 1.0
    kind: str | None = None


def parse_entry(entry) -> Entry:
    """The entry "relu1_1:2@covariance", ("relu1_1", 2.0, "covariance"), or either without kind or factor.

    In a text only a known kind after the last "@" counts as one, since names of layers may have "@" too, and kind and
    factor may stand in either order. Raises OptionError for an unknown kind in a tuple.
    """
    if not isinstance(entry, str):
        name, factor, kind = (*entry, None)[:3]
        return Entry(name, factor, kind if kind is None else checked_kind(kind, f"the style loss of layer '{name}'"))
    text, kind = _split_kind(entry)
    name, factor = _split_factor(text)
    if kind is None:
        name, kind = _split_kind(name)
    return Entry(name, factor, kind)


def parse_layer(entry) -> tuple[str, float]:
    """("relu1_1", 2.0) from "relu1_1:2" or from that pair, with a kind or without; the default factor is 1."""
    return parse_entry(entry)[:2]


def checked_kind(kind: str, name: str) -> str:
    """The kind of style loss in small letters. Raises OptionError for an unknown one."""
    if str(kind).lower() not in KINDS:
        raise OptionError(f"{name} is '{kind}'; there are {', '.join(KINDS)}{nearest(str(kind).lower(), list(KINDS))}")
    return str(kind).lower()


def checked_weight(value: float, name: str) -> float:
    """The weight as a float. Raises OptionError for a negative, infinite or NaN weight."""
    if not (math.isfinite(value) and value >= 0):
        raise OptionError(f"{name} is {value}; a finite number that is not negative is needed")
    return float(value)


def weighted_layers(layers: Iterable, weight: float) -> list[Entry]:
    """The entries with the weight times their factors, without those of weight 0.

    Raises OptionError for a layer that is listed twice.
    """
    entries = [parse_entry(entry) for entry in layers]
    names = [entry.name for entry in entries]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise OptionError(f"layer '{repeated}' is listed twice")
    factors = [checked_weight(entry.factor, f"the weight of layer '{entry.name}'") for entry in entries]
    return [entry._replace(factor=weight * factor) for entry, factor in zip(entries, factors) if weight * factor]


def _split_kind(text):
    name, at, kind = text.rpartition("@")
    known = bool(at) and kind.strip().lower() in KINDS
    return (name.strip(), kind.strip().lower()) if known else (text, None)


def _split_factor(text):
    name, colon, factor = text.rpartition(":")
    try:
        return (name, float(factor)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0
