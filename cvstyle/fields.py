"""Declarative options: dataclass fields with help, type and range, from which the command line builds its parser.

`option(...)` declares a field, `options_of(cls)` returns the records, and a dataclass derived from `Settings` converts
its values at construction. Standard library only.
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
_MOST_COMMAS = 30  # parts of a name between commas
_MAX_SHOWN = 60  # characters of a rejected value in an error message

PICTURES = "pictures"
MODEL = "model files"
NETWORK = "network"
WEIGHTS = "weights"
CONTROL = "regions, colour and strength"
OPTIMISATION = "optimisation"
LARGE = "large pictures and long runs"
REPORTS = "reports"
GROUPS = (PICTURES, CONTROL, MODEL, NETWORK, WEIGHTS, OPTIMISATION, LARGE, REPORTS)


# Converters from command-line text or a Python object (NumPy's numbers and arrays included) to an option's value. They
# raise TypeError, ValueError or ArithmeticError. A bool does not count as a number.


def as_float(value: object) -> float:
    """3.5 from "3.5" or another kind of number."""
    if isinstance(value, bool) or not isinstance(value, str | Real):
        raise TypeError
    return float(value)


def as_int(value: object) -> int:
    """512 from 512.0, "512", "512.0" or "5.12e2", as Lua reads numbers."""
    try:
        if isinstance(value, str | Integral) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass  # a text such as "5.12e2"
    value = as_float(value)
    if not value.is_integer():
        raise ValueError
    return int(value)


def as_count(value: object) -> int:
    """4 from 4.0 or "4"; text must be digits only and above zero."""
    if isinstance(value, str) and not (value.isdecimal() and int(value)):
        raise ValueError
    return as_int(value)


def as_bool(value: object) -> bool:
    """True from 1 or "1"."""
    value = as_int(value) if isinstance(value, str) else value
    if value not in (0, 1):
        raise ValueError
    return bool(value)


def as_name(value: object) -> str:
    """A name as text; "2" from the device number 2."""
    return str(value) if isinstance(value, str) else str(as_int(value))


def as_word(value: object) -> str:
    """A name in small letters."""
    return as_name(value).lower()


def as_path(value: object) -> str:
    """A path as text: a first part ~ or ~user is the home directory, and file://... the path that it names.

    ./~ is a file of that name.
    """
    value = os.fspath(value)
    if isinstance(value, bytes):
        raise TypeError
    if value.lower().startswith("file://"):
        value = _path_of_address(value)
    if "\0" in value:
        raise ValueError
    os.fsencode(value)  # raises UnicodeEncodeError, a ValueError, for characters that no name has
    return os.path.expanduser(value)


def _path_of_address(address):
    """The path of file:///home/me/a%20b.png. Raises ValueError for another machine's."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    parts = urlsplit(address.replace("?", "%3F").replace("#", "%23"))
    if parts.netloc not in ("", "localhost"):
        raise ValueError
    return url2pathname(parts.path)


def as_items(value: object) -> list:
    """["a", "b"] from "a,b"; the items of any iterable."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, bytes | Mapping):  # their items are bytes and keys
        raise TypeError
    return list(value)


def as_paths(value: object) -> list[str]:
    """["a.png", "b.png"] from "a.png, b.png".

    A comma within the name of a file that exists does not separate: of all such readings the longest names count.
    """
    if isinstance(value, str):
        return list(_split_paths(value.split(",")))
    return [as_path(item) for item in ([value] if isinstance(value, os.PathLike) else as_items(value))]


def _split_paths(parts):
    while parts:
        for count in range(min(len(parts), _MOST_COMMAS), 0, -1):
            text = ",".join(parts[:count])
            names = [path for path in map(as_path, (text, text.strip())) if os.path.exists(path)]
            if names or count == 1:
                break
        path = names[0] if names else as_path(text.strip())
        if path:
            yield path
        parts = parts[count:]


def as_floats(value: object) -> list[float]:
    """[3.0, 7.0] from "3,7"."""
    return [as_float(item) for item in as_items(value)]


def as_mean(value: object) -> list[float]:
    """[104.0, 117.0, 123.0] from "104,117,123"; one number, "127.5" or 127.5, counts for all three."""
    values = [as_float(value)] if isinstance(value, Real) else as_floats(value)
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise ValueError
    return values * (3 // len(values))


def as_ints(value: object) -> list[int]:
    """[256, 512] from "256,512"."""
    values = [as_int(item) for item in as_items(value)]
    if isinstance(value, str) and not values:
        raise ValueError
    return values


def as_counts(value: object) -> int | list[int]:
    """400 from 400; [6, 4] from "6,4"; ValueError for an empty list."""
    counts = as_int(value) if isinstance(value, Real) else as_ints(value)
    if counts == []:
        raise ValueError
    return counts


def as_layers(value: object) -> list:
    """["relu1_1", ("relu2_1", 2.0)] from names, pairs or a mapping; ["relu1_1", "relu2_1:2"] from text.

    A third item of a pair, or a pair (factor, kind) in a mapping, is the kind of the layer's loss.
    """
    return [_layer(entry) for entry in (_flat(value) if isinstance(value, Mapping) else as_items(value))]


def _flat(mapping):
    return [(name, *(value if isinstance(value, tuple | list) else [value])) for name, value in mapping.items()]


def _layer(entry):
    """An int factor stays an int, since checkpoints store the text of the pair."""
    if isinstance(entry, str):
        return str(entry)
    name, factor, *kind = entry
    if not all(isinstance(text, str) for text in (name, *kind)) or isinstance(factor, str) or len(kind) > 1:
        raise TypeError
    return str(name), factor if type(factor) is int else as_float(factor), *map(str, kind)


class Offload(NamedTuple):
    """Storage of a run's large arrays outside the device: files in `folder`, or host memory if it is None."""

    folder: str | None = None


def as_offload(value: object) -> Offload:
    """Offload() from "host" or ""; Offload("DIR") from "disk:DIR" or "DIR"."""
    if isinstance(value, Offload):
        return value
    value = as_path(value)
    return Offload(None if value in ("", "host") else as_path(value.removeprefix("disk:")))


def as_cuts(value: object) -> list[int | str]:
    """[3, "pool2"] from "3,pool2": layers by number or name; numbers in text must ascend, from 1 or more."""
    if not isinstance(value, str):
        return [str(item) if isinstance(item, str) else as_int(item) for item in as_items(value)]
    cuts = [int(part) if part.lstrip("+-").isdecimal() else part for part in as_items(value)]
    numbers = [part for part in cuts if isinstance(part, int)]
    if numbers != sorted(set(numbers)) or min(numbers, default=1) < 1 or (value and not cuts):
        raise ValueError
    return cuts


class Kind(NamedTuple):
    """The type of an option's values.

    converter: one of the functions above. expected: the clause of an error message that names the expected values.
    parse_error: the clause after a rejected text on the command line. keywords: texts with a special value.
    """

    converter: Callable[[object], object]
    expected: str
    parse_error: str = ""
    keywords: Mapping[str, object] = {}

    def convert(self, value: object) -> object:
        """The option's value for a text or a Python object. Keywords count in small and capital letters."""
        if isinstance(value, str) and value.lower() in self.keywords:
            return self.keywords[value.lower()]
        return self.converter(value)


INT = Kind(as_int, "a whole number is needed", "is not a whole number")
SIZE = Kind(
    as_int, "a number of pixels, or original, is needed", "is neither a number of pixels nor original", {"original": 0}
)
FLOAT = Kind(as_float, "a number is needed", "is not a number")
BOOL = Kind(as_bool, "True or False is needed", "is neither 1 nor 0")
NAME = Kind(as_name, "a name is needed")
WORD = Kind(as_word, "a name is needed")
_NO_PATH = "can be no file on this machine; give the path of one"
PATH = Kind(as_path, "a path is needed", _NO_PATH)
PATHS = Kind(as_paths, "paths such as a.png,b.png are needed", _NO_PATH)
LAYERS = Kind(as_layers, "layers such as relu1_1,relu2_1:2 are needed")
_SIZES = "is not a list of whole numbers such as 256,512"
BLEND = Kind(as_floats, "numbers such as 3,7 are needed", "is not a list of numbers such as 3,7", {"nil": None})
MEAN = Kind(
    as_mean, "three numbers such as 104,117,123, or one for all channels, are needed",
    "is not three numbers such as 104,117,123, nor one for all channels",
)  # fmt: skip
INTS = Kind(as_ints, "whole numbers such as 256,512 are needed", _SIZES)
COUNTS = Kind(as_counts, "a whole number, or one for each scale, is needed", _SIZES)
SCALES = Kind(as_ints, "auto, or sizes such as 256,512,1024, are needed", _SIZES, {"auto": "auto"})
TILE = Kind(
    as_count, "auto, or a number of pixels, is needed", "is not a number of pixels such as 1024, nor auto or off",
    {"auto": "auto", "off": None},
)  # fmt: skip
OFFLOAD = Kind(as_offload, "host, or disk:FOLDER, is needed", _NO_PATH)
CUTS = Kind(as_cuts, "layers such as 3,pool2 are needed", "is not a list of ascending positions such as 3,6,12")
THREADS = Kind(as_count, "a number of threads is needed", "is not a number of threads")
_KIND_OF_ANNOTATION = {"int": INT, "float": FLOAT, "bool": BOOL, "str": NAME}


class Limits(NamedTuple):
    """The finite numbers from `low` to `high` without the excluded ones.

    expected: the clause of an error message that names them.
    """

    expected: str
    low: float = -math.inf
    high: float = math.inf
    excluded: tuple[float, ...] = ()

    def contains(self, value: float) -> bool:
        """True for a number within the limits."""
        return -math.inf < value < math.inf and self.low <= value <= self.high and value not in self.excluded


POSITIVE = Limits("a number above zero is needed", low=0, excluded=(0,))
PIXELS = Limits("a number of pixels above zero is needed", low=0, excluded=(0,))
SHARE = Limits("a number from 0 to 1 is needed", low=0, high=1)
NONNEGATIVE = Limits("a finite number that is not negative is needed", low=0)


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a run.

    default: `REQUIRED` if there is none; None if the network, the optimiser or the machine decides.
    help: text with argparse's placeholders, "%(default)s" and "%%".
    group: one of `GROUPS`.
    metavar: the form of its text. unit: the unit of a number. limits, choices: the valid values.
    flags: further spellings: short ones, the reference's or those of earlier versions. const: the value if given
    without text. repeated: True if further uses add to a list; else the last counts.
    switches: spellings without text, and the value that each stands for.
    of_content: True if it concerns the photograph alone, which a texture has not.
    identity: True if a resumed run must have the same value as its checkpoint. checkpoint_name: the name of the value
    in checkpoints, if it is not the option's.
    """

    name: str
    default: object
    kind: Kind
    help: str
    group: str
    metavar: str | None = None
    flags: tuple[str, ...] = ()
    choices: tuple | None = None
    const: object = None
    repeated: bool = False
    limits: Limits | None = None
    unit: str = ""
    switches: Mapping[str, object] = dataclasses.field(default_factory=dict)
    of_content: bool = False
    identity: bool = False
    checkpoint_name: str = ""

    @property
    def spellings(self) -> tuple[str, ...]:
        """The spellings on the command line, the proper one first."""
        return (f"--{self.name.replace('_', '-')}", *self.flags)

    def convert(self, value: object) -> object:
        """The option's value for a text or a Python object. Raises OptionError for a value of the wrong type."""
        if value is None and self.default is None:
            return None
        if isinstance(value, str) and self.choices and value.lower() in self.choices:
            return value.lower()
        if isinstance(value, str) and self.unit == "pixels":
            value = value.strip().removesuffix("px").rstrip()
        try:
            return self.kind.convert(value)
        except (ArithmeticError, TypeError, ValueError):
            raise OptionError(f"{self.spellings[0]} is {_shown(value)}; {self.kind.expected}") from None

    def check(self, value: object) -> None:
        """Raises OptionError for a converted value out of range or not among the choices."""
        if self.choices and value is not None and value not in self.choices:
            choices = f"{', '.join(map(str, self.choices[:-1]))} or {self.choices[-1]}"
            raise OptionError(f"{self.spellings[0]} must be {choices}, not '{value}'")
        if self.limits and isinstance(value, Real) and not self.limits.contains(value):
            raise OptionError(f"{self.spellings[0]} is {value}; {self.limits.expected}")


def option(default: object, help: str, group: str, *, kind: Kind | None = None, **record) -> object:
    """Declare an option as a dataclass field; for the arguments see `Option`.

    kind: by default the kind of the field's annotation (int, float, bool or str).
    """
    return dataclasses.field(default=default, metadata={"help": help, "group": group, "kind": kind, **record})


def argument(name: str, value: object, kind: Kind, limits: Limits | None = None) -> object:
    """Convert and check an argument of a function like an option; None stays None. Raises OptionError."""
    entry = Option(name, None, kind, "", "", limits=limits)
    value = entry.convert(value)
    entry.check(value)
    return value


@cache
def options_of(cls: type) -> dict[str, Option]:
    """The options of a dataclass by name, in the order of its fields."""
    options = {}
    for entry in dataclasses.fields(cls):
        kind = entry.metadata["kind"] or _KIND_OF_ANNOTATION[entry.type.removesuffix(" | None")]
        options[entry.name] = Option(entry.name, entry.default, **{**entry.metadata, "kind": kind})
    return options


@cache
def _aliases(cls: type) -> dict[str, tuple[str, object]]:
    """Keyword -> (option, value or None) of every further spelling; None: the keyword has the option's values."""
    entries = options_of(cls).values()
    spellings = {flag: (entry.name, None) for entry in entries for flag in entry.flags if flag.startswith("--")}
    spellings |= {switch: (entry.name, value) for entry in entries for switch, value in entry.switches.items()}
    return {spelling.strip("-").replace("-", "_"): target for spelling, target in spellings.items()}


class _Aliased(type):
    """Metaclass by which every spelling of an option is a keyword argument, and replaces the option."""

    def __call__(cls, **values):
        for alias, (name, value) in _aliases(cls).items():
            if alias in values:
                given = values.pop(alias)
                if value is None:
                    values[name] = given
                elif given:
                    values[name] = value
        return super().__call__(**values)


class Settings(metaclass=_Aliased):
    """Base of dataclasses of options, which converts the values at construction. Raises OptionError."""

    def __post_init__(self):
        for name, entry in options_of(type(self)).items():
            setattr(self, name, entry.convert(getattr(self, name)))

    @classmethod
    def from_dict(cls, values: Mapping[str, object]):
        """An object with these values by name. Raises OptionError for an unknown name."""
        options = options_of(cls)
        for name in values:
            if name not in options and name not in _aliases(cls):
                raise OptionError(f"there is no option '{name}'{nearest(name, tuple(options))}")
        return cls(**values)

    def check_values(self) -> None:
        """Raises OptionError for the first value of the wrong type or out of range."""
        self.__post_init__()  # attributes may have been assigned
        for name, entry in options_of(type(self)).items():
            entry.check(getattr(self, name))


def _shown(value):
    """A rejected value on one line."""
    text = " ".join((repr(value) if isinstance(value, str) else str(value)).split())
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
