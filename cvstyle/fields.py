"""Options: fields of dataclasses that carry their help, kind and limits.

`option(...)` declares a field, `options_of(cls)` reads the records, and a dataclass that inherits `Settings` converts
its values, or refuses them, as it is made. The command line makes its parser from the records. Standard library only.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Integral, Real
from typing import NamedTuple

from .errors import OptionError, nearest

REQUIRED = dataclasses.MISSING
_SHOWN = 60  # characters of a refused value

PICTURES = "pictures"
MODEL = "model files"
NETWORK = "network"
WEIGHTS = "weights"
OPTIMISATION = "optimisation"
LARGE = "large pictures and long runs"
REPORTS = "reports"
GROUPS = (PICTURES, MODEL, NETWORK, WEIGHTS, OPTIMISATION, LARGE, REPORTS)


# Conversions: from a text of the command line or a Python object, NumPy's numbers and arrays included, to the value
# that an option keeps. They raise TypeError, ValueError or ArithmeticError. bool is an int to Python, but no number
# here.


def as_number(value: object) -> float:
    """3.5 from "3.5" or another kind of number."""
    if isinstance(value, bool) or not isinstance(value, str | Real):
        raise TypeError
    return float(value)


def as_whole(value: object) -> int:
    """512 from 512.0, "512", "512.0" or "5.12e2", as Lua reads numbers."""
    try:
        if isinstance(value, str | Integral) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass  # a text such as "5.12e2"
    value = as_number(value)
    if not value.is_integer():
        raise ValueError
    return int(value)


def as_count(value: object) -> int:
    """4 from 4.0 or "4"; a text has nothing but digits and is above zero."""
    if isinstance(value, str) and not (value.isdecimal() and int(value)):
        raise ValueError
    return as_whole(value)


def as_switch(value: object) -> bool:
    """True from 1 or "1"."""
    value = as_whole(value) if isinstance(value, str) else value
    if value not in (0, 1):
        raise ValueError
    return bool(value)


def as_name(value: object) -> str:
    """A name; "2" from 2, the number of a device."""
    return str(value) if isinstance(value, str) else str(as_whole(value))


def as_path(value: object) -> str:
    """A path as text."""
    value = os.fspath(value)
    if isinstance(value, bytes):
        raise TypeError
    return value


def as_items(value: object) -> list:
    """["a", "b"] from "a,b"; the items of a list, an array or anything else that has some."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, bytes | Mapping):  # their items are bytes and keys
        raise TypeError
    return list(value)


def as_paths(value: object) -> list[str]:
    """["a.png", "b.png"] from "a.png,b.png", unless the whole is the name of one file."""
    if isinstance(value, str) and not os.path.exists(value):
        return [part for part in value.split(",") if part]
    return [as_path(item) for item in ([value] if isinstance(value, str | os.PathLike) else as_items(value))]


def as_numbers(value: object) -> list[float]:
    """[3.0, 7.0] from "3,7"."""
    return [as_number(item) for item in as_items(value)]


def as_mean(value: object) -> list[float]:
    """[104.0, 117.0, 123.0] from "104,117,123"; three times the one from "127.5" or 127.5."""
    found = [as_number(value)] if isinstance(value, Real) else as_numbers(value)
    if len(found) not in (1, 3) or not all(map(math.isfinite, found)):
        raise ValueError
    return found * (3 // len(found))


def as_whole_numbers(value: object) -> list[int]:
    """[256, 512] from "256,512"."""
    found = [as_whole(item) for item in as_items(value)]
    if isinstance(value, str) and not found:
        raise ValueError
    return found


def as_counts(value: object) -> int | list[int]:
    """400 from 400; [6, 4] from "6,4", but an int where a list has nothing."""
    found = as_whole(value) if isinstance(value, Real) else as_whole_numbers(value)
    if found == []:
        raise ValueError
    return found


def as_layers(value: object) -> list:
    """["relu1_1", ("relu2_1", 2.0)] from names, pairs, a mapping or "relu1_1,relu2_1:2", whose parts stay texts."""
    return [_layer(entry) for entry in (value.items() if isinstance(value, Mapping) else as_items(value))]


def _layer(entry):
    """A factor that is an int stays one, since checkpoints hold the pair's text."""
    if isinstance(entry, str):
        return str(entry)
    name, factor = entry
    if not isinstance(name, str) or isinstance(factor, str):
        raise TypeError
    return str(name), factor if type(factor) is int else as_number(factor)


def as_cuts(value: object) -> list[int | str]:
    """[3, "pool2"] from "3,pool2": layers by number or name; the numbers of a text ascend from 1 on."""
    if not isinstance(value, str):
        return [str(item) if isinstance(item, str) else as_whole(item) for item in as_items(value)]
    found = [int(part) if part.lstrip("+-").isdecimal() else part for part in as_items(value)]
    counted = [part for part in found if isinstance(part, int)]
    if counted != sorted(set(counted)) or min(counted, default=1) < 1 or (value and not found):
        raise ValueError
    return found


class Kind(NamedTuple):
    """The values that an option takes.

    convert: a conversion (see above). needed: a clause for the end of the message that refuses a value. refusal: the
    clause after a refused text on the command line. words: texts with a value of their own.
    """

    convert: Callable[[object], object]
    needed: str
    refusal: str = ""
    words: Mapping[str, object] = {}

    def read(self, value: object) -> object:
        """The value that is kept."""
        return self.words[value] if isinstance(value, str) and value in self.words else self.convert(value)


WHOLE = Kind(as_whole, "a whole number is needed", "is not a whole number")
NUMBER = Kind(as_number, "a number is needed", "is not a number")
SWITCH = Kind(as_switch, "True or False is needed", "is not a whole number")
NAME = Kind(as_name, "a name is needed")
FILE = Kind(as_path, "a path is needed")
FILES = Kind(as_paths, "paths such as a.png,b.png are needed")
LAYERS = Kind(as_layers, "layers such as relu1_1,relu2_1:2 are needed")
_SIZES = "is not a list of whole numbers such as 256,512"
BLEND = Kind(as_numbers, "numbers such as 3,7 are needed", "is not a list of numbers such as 3,7", {"nil": None})
MEAN = Kind(
    as_mean, "three numbers such as 104,117,123, or one for all channels, are needed",
    "is not three numbers such as 104,117,123, nor one for all channels",
)  # fmt: skip
WHOLES = Kind(as_whole_numbers, "whole numbers such as 256,512 are needed")
COUNTS = Kind(as_counts, "a whole number, or one for each scale, is needed", _SIZES)
SCALES = Kind(as_whole_numbers, "auto, or sizes such as 256,512,1024, are needed", _SIZES, {"auto": "auto"})
TILE = Kind(
    as_count, "auto, or a number of pixels, is needed", "is not a number of pixels such as 1024, nor auto or off",
    {"auto": "auto", "off": None},
)  # fmt: skip
CUTS = Kind(as_cuts, "layers such as 3,pool2 are needed", "is not a list of ascending positions such as 3,6,12")
THREADS = Kind(as_count, "a number of threads is needed", "is not a number of threads")
_OF_ANNOTATION = {"int": WHOLE, "float": NUMBER, "bool": SWITCH, "str": NAME}


class Limits(NamedTuple):
    """The finite numbers that an option takes, from `low` to `high` but for the excluded ones.

    needed: a clause for the message that refuses another.
    """

    needed: str
    low: float = -math.inf
    high: float = math.inf
    excluded: tuple[float, ...] = ()

    def admit(self, value: float) -> bool:
        """Whether a number is within the limits."""
        return -math.inf < value < math.inf and self.low <= value <= self.high and value not in self.excluded


ABOVE_ZERO = Limits("a number above zero is needed", low=0, excluded=(0,))
PIXELS = Limits("a number of pixels above zero is needed", low=0, excluded=(0,))
NOT_NEGATIVE = Limits("a finite number that is not negative is needed", low=0)


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a run.

    default: `REQUIRED` where there is none; None where the network, the optimiser or the machine decides.
    help: "%(default)s" in it stands for the default, "%%" for a percent sign, as argparse has it.
    group: one of `GROUPS`; None for an option that another option's text sets.
    metavar: the form of its text. unit: that of its number. limits, choices: restrictions of its value.
    flags: the reference's spellings beside the name's own. const: the value of the spelling without a text.
    identity: whether a run must have the value of the checkpoint that it goes on from.
    """

    name: str
    default: object
    kind: Kind
    help: str
    group: str | None
    metavar: str | None = None
    flags: tuple[str, ...] = ()
    choices: tuple | None = None
    const: object = None
    limits: Limits | None = None
    unit: str = ""
    identity: bool = False

    @property
    def spellings(self) -> tuple[str, ...]:
        """The name as the command line has it, then the reference's."""
        return (f"--{self.name.replace('_', '-')}", *self.flags)

    def converted(self, value: object) -> object:
        """The value as a run keeps it, from a Python object or a text. Raises OptionError for one of another kind."""
        if value is None and self.default is None:
            return None
        try:
            return self.kind.read(value)
        except (ArithmeticError, TypeError, ValueError):
            raise OptionError(f"{self.name} is {_shown(value)}; {self.kind.needed}") from None

    def check(self, value: object) -> None:
        """Raises OptionError for a converted value that is beyond the limits, or is no choice."""
        if self.choices and value is not None and value not in self.choices:
            known = f"{', '.join(map(str, self.choices[:-1]))} or {self.choices[-1]}"
            raise OptionError(f"{self.name} must be {known}, not '{value}'")
        if self.limits and isinstance(value, Real) and not self.limits.admit(value):
            raise OptionError(f"{self.name} is {value}; {self.limits.needed}")


def option(default: object, help: str, *, group: str | None, kind: Kind | None = None, **record) -> object:
    """A dataclass field that is an option; the arguments are those of `Option`.

    kind: that of the field's annotation (int, float, bool or str) unless given.
    """
    return dataclasses.field(default=default, metadata={"help": help, "group": group, "kind": kind, **record})


def argument(name: str, value: object, kind: Kind, limits: Limits | None = None) -> object:
    """A function's argument, taken as an option of this kind would take it; None stays. Raises OptionError."""
    entry = Option(name, None, kind, "", None, limits=limits)
    found = entry.converted(value)
    entry.check(found)
    return found


@cache
def options_of(cls: type) -> dict[str, Option]:
    """name -> record of every option of a dataclass, in the order of its fields."""
    found = {}
    for entry in dataclasses.fields(cls):
        kind = entry.metadata["kind"] or _OF_ANNOTATION[entry.type.removesuffix(" | None")]
        found[entry.name] = Option(entry.name, entry.default, **{**entry.metadata, "kind": kind})
    return found


class Settings:
    """Base of the dataclasses whose fields are options: values are converted, or refused, where an object is made."""

    def __post_init__(self):
        for name, entry in options_of(type(self)).items():
            setattr(self, name, entry.converted(getattr(self, name)))

    @classmethod
    def of(cls, values: Mapping[str, object]):
        """An object with these values by name. Raises OptionError for a name that is no option's."""
        known = options_of(cls)
        for name in values:
            if name not in known:
                raise OptionError(f"there is no option '{name}'; {nearest(name, tuple(known))}")
        return cls(**values)

    def check_each(self) -> None:
        """Raises OptionError for the first value of a wrong kind or beyond its limits."""
        self.__post_init__()  # a value may have been set since
        for name, entry in options_of(type(self)).items():
            entry.check(getattr(self, name))


def _shown(value):
    """A refused value on one line."""
    text = " ".join((repr(value) if isinstance(value, str) else str(value)).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
