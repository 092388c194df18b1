"""What an option is: a field of a dataclass that carries its help, kind, limits and spelling for whoever shows it.

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


# Parsers: text, as on the command line, to a value. They raise OptionError.


def comma_list(text: str) -> list[str]:
    """["a", "b"] from "a,b"."""
    return [part.strip() for part in text.split(",") if part.strip()]


def number(text: str) -> float:
    """3.5 from "3.5"."""
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"'{text}' is not a number") from None


def numbers(text: str) -> list[float]:
    """[3.0, 7.0] from "3,7"."""
    try:
        return [float(part) for part in comma_list(text)]
    except ValueError:
        raise OptionError(f"'{text}' is not a list of numbers such as 3,7") from None


def whole(text: str) -> int:
    """512 from "512", "512.0" or "5.12e2", as Lua reads numbers."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
        if value.is_integer():
            return int(value)
    except ValueError:
        pass
    raise OptionError(f"'{text}' is not a whole number")


def whole_numbers(text: str) -> list[int]:
    """[256, 512] from "256,512"."""
    try:
        found = [whole(part) for part in comma_list(text)]
    except OptionError:
        found = []
    if not found:
        raise OptionError(f"'{text}' is not a list of whole numbers such as 256,512")
    return found


def blend_weights(text: str) -> list[float] | None:
    """[3.0, 7.0] from "3,7"; None from "nil", neural_style.lua's default."""
    return None if text == "nil" else numbers(text)


def scales(text: str) -> list[int] | str:
    """[256, 512] from "256,512", or "auto"."""
    return text if text == "auto" else whole_numbers(text)


def tile_size(text: str) -> int | str | None:
    """1024 from "1024"; "auto"; None from "off"."""
    if text in ("auto", "off"):
        return text if text == "auto" else None
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"'{text}' is not a number of pixels such as 1024, nor auto or off")
    return int(text)


def cuts(text: str) -> list[int | str]:
    """[3, "pool2"] from "3,pool2": layers by number or name; numbers ascend from 1 on."""
    found = [int(part) if part.lstrip("+-").isdecimal() else part for part in comma_list(text)]
    counted = [part for part in found if isinstance(part, int)]
    if counted != sorted(set(counted)) or min(counted, default=1) < 1 or (text and not found):
        raise OptionError(f"'{text}' is not a list of ascending positions such as 3,6,12")
    return found


def thread_count(text: str) -> int:
    """4 from "4"."""
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"'{text}' is not a number of threads")
    return int(text)


def paths(text: str) -> list[str]:
    """["a.png", "b.png"] from "a.png,b.png", unless the whole is the name of one file."""
    return [text] if os.path.exists(text) else [part for part in text.split(",") if part]


# Converters: a value that Python code gives, NumPy's numbers and arrays included, to the one that is kept. They raise
# TypeError or ValueError. bool is an int to Python, but no number here.


def _a_whole(value):
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    value = _a_number(value)
    if not value.is_integer():
        raise ValueError
    return int(value)


def _a_number(value):
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError
    return float(value)


def _a_switch(value):
    if value not in (0, 1):
        raise ValueError
    return bool(value)


def _a_name(value):
    if isinstance(value, Integral) and not isinstance(value, bool):  # the number of a device
        return str(int(value))
    if not isinstance(value, str):
        raise TypeError
    return str(value)


def _a_path(value):
    value = os.fspath(value)
    if not isinstance(value, str):
        raise TypeError
    return value


def _list_of(convert):
    def converted(value):
        if isinstance(value, bytes | Mapping):  # whose items are not what is meant
            raise TypeError
        return [convert(item) for item in value]

    return converted


def _some_paths(value):
    return [_a_path(value)] if isinstance(value, os.PathLike) else _list_of(_a_path)(value)


def _a_layer(entry):
    """A layer's name or (name, factor); a factor that is an int stays one, since checkpoints hold the pair's text."""
    if isinstance(entry, str):
        return str(entry)
    name, factor = entry
    if not isinstance(name, str):
        raise TypeError
    return str(name), factor if type(factor) is int else _a_number(factor)


def _some_layers(value):
    return _list_of(_a_layer)(value.items() if isinstance(value, Mapping) else value)


def _some_cuts(value):
    return [str(item) if isinstance(item, str) else _a_whole(item) for item in _list_of(lambda item: item)(value)]


def _some_counts(value):
    counts = _a_whole(value) if isinstance(value, Real) else _list_of(_a_whole)(value)
    if counts == []:
        raise ValueError
    return counts


def _some_scales(value):
    return value if isinstance(value, str) else _list_of(_a_whole)(value)


def _a_tile(value):
    return value if isinstance(value, str) else _a_whole(value)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What values an option takes. parse: from text; convert: from a Python object that is no text; needed: a clause
    for the end of the message that refuses one."""

    name: str
    parse: Callable[[str], object]
    convert: Callable[[object], object]
    needed: str


WHOLE = Kind("whole", whole, _a_whole, "a whole number is needed")
NUMBER = Kind("number", number, _a_number, "a number is needed")
SWITCH = Kind("switch", whole, _a_switch, "True or False is needed")
NAME = Kind("name", str, _a_name, "a name is needed")
FILE = Kind("file", str, _a_path, "a path is needed")
FILES = Kind("files", paths, _some_paths, "paths such as a.png,b.png are needed")
LAYERS = Kind("layers", comma_list, _some_layers, "layers such as relu1_1,relu2_1:2 are needed")
BLEND = Kind("numbers", blend_weights, _list_of(_a_number), "numbers such as 3,7 are needed")
WHOLES = Kind("wholes", whole_numbers, _list_of(_a_whole), "whole numbers such as 256,512 are needed")
COUNTS = Kind("wholes", whole_numbers, _some_counts, "a whole number, or one for each scale, is needed")
SCALES = Kind("scales", scales, _some_scales, "auto, or sizes such as 256,512,1024, are needed")
TILE = Kind("tile", tile_size, _a_tile, "auto, or a number of pixels, is needed")
CUTS = Kind("cuts", cuts, _some_cuts, "layers such as 3,pool2 are needed")
THREADS = Kind("whole", thread_count, _a_whole, "a number of threads is needed")


@dataclasses.dataclass(frozen=True)
class Limits:
    """The numbers that an option takes: finite ones from `low` to `high`, without an end that is open; needed: a clause
    for the message that refuses another."""

    needed: str
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def admit(self, value: float) -> bool:
        """Whether a number is within the limits."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and -math.inf < value < math.inf


ABOVE_ZERO = Limits("a number above zero is needed", low=0, open_low=True)
PIXELS = Limits("a number of pixels above zero is needed", low=0, open_low=True)
NOT_NEGATIVE = Limits("a finite number that is not negative is needed", low=0)


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a run, as plain data for the command line, a form and a table.

    default: `REQUIRED` where there is none; None where the network, the optimiser or the machine decides.
    group: one of `GROUPS`; None for an option that another one's text sets.
    metavar: the form of its text. unit: of its number. limits, choices: what its value must keep to.
    flags: the reference's spellings beside the name's own. const: the value of the spelling without a text.
    identity: whether a run must have the value of the checkpoint that it goes on from; before: what the checkpoints of
        versions without this option had.
    compat: the value that None stands for under compat, where a report decides and not the run.
    """

    name: str
    default: object
    help: str
    group: str | None
    kind: Kind
    metavar: str | None = None
    flags: tuple[str, ...] = ()
    choices: tuple | None = None
    const: object = None
    limits: Limits | None = None
    unit: str = ""
    identity: bool = False
    before: object = None
    compat: object = None

    @property
    def spellings(self) -> tuple[str, ...]:
        """The name as the command line has it, then the reference's."""
        return (f"--{self.name.replace('_', '-')}", *self.flags)

    def converted(self, value: object) -> object:
        """The value as a run keeps it, from a Python object or a text. Raises OptionError for one of another kind."""
        try:
            found = self.kind.parse(value) if isinstance(value, str) else value
            if found is None and self.default is None:
                return None
            return self.kind.convert(found)
        except (ArithmeticError, OptionError, TypeError, ValueError):
            raise OptionError(f"{self.name} is {_shown(value)}; {self.kind.needed}") from None

    def check(self, value: object) -> None:
        """Raises OptionError for a converted value that is beyond the limits, or is no choice."""
        if self.choices and value is not None and value not in self.choices:
            known = f"{', '.join(map(str, self.choices[:-1]))} or {self.choices[-1]}"
            raise OptionError(f"{self.name} must be {known}, not '{value}'")
        if self.limits and isinstance(value, Real) and not self.limits.admit(value):
            raise OptionError(f"{self.name} is {value}; {self.limits.needed}")


def option(default: object, help: str, *, group: str | None, kind: Kind, before: object = REQUIRED, **record) -> object:
    """A dataclass field that is an option; the arguments are those of `Option`. "{default}" in help is filled in.

    before: the default unless given.
    """
    before = default if before is REQUIRED else before
    help = help.replace("{default}", text_of(default))
    entry = Option("", default, help, group, kind, before=before, **record)
    return dataclasses.field(default=default, metadata={"option": entry})


def argument(name: str, value: object, kind: Kind, limits: Limits | None = None) -> object:
    """A function's argument, taken as an option of this kind would take it; None stays. Raises OptionError."""
    entry = Option(name, None, "", None, kind, limits=limits)
    found = entry.converted(value)
    entry.check(found)
    return found


@cache
def options_of(cls: type) -> dict[str, Option]:
    """name -> record of every option of a dataclass, in the order of its fields."""
    found = ((entry.name, entry.metadata.get("option")) for entry in dataclasses.fields(cls))
    return {name: dataclasses.replace(record, name=name) for name, record in found if record is not None}


def text_of(value: object) -> str:
    """The text from which an option's parser makes this value: "relu1_1,relu2_1:2"; "" for None."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list | tuple):
        return ",".join(":".join(map(text_of, item)) if isinstance(item, tuple) else text_of(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(int(value)) if isinstance(value, bool) else str(value)


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
