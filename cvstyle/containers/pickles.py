"""Interpreter of Python's pickles that builds a description and runs nothing.

A global is a name and never imported, a call is an `Object` with the function's name and its arguments, and bytes are
views of the file, so that an operation allocates a few words at most. The operations are those of pickletools.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import NamedTuple

_MOST_OPERATIONS = 300_000  # a checkpoint of 1,000 tensors with Adam's state has 120,000, without histories of losses
_LONGEST_TEXT = 4096  # bytes of a text that becomes a str; a longer one stays a view
_LONGEST_NUMBER = 255
_SHORT_STRING = 255
_BLOCK = 1 << 16  # bytes searched at a time, and of a text of protocol 0

# No file of weights names these. Nothing is imported here; a file that does is meant to attack whoever loads it.
_ATTACKS = frozenset((
    "os", "posix", "nt", "posixpath", "ntpath", "subprocess", "sys", "shutil", "socket", "pty", "runpy", "importlib",
    "ctypes", "webbrowser", "builtins", "__builtin__", "asyncio", "multiprocessing", "pip",
    "timeit", "urllib", "urllib2", "requests", "cProfile", "pdb", "bdb", "operator", "marshal", "tempfile",
))  # fmt: skip
_HARMLESS = frozenset((
    "set", "frozenset", "list", "dict", "tuple", "bytearray", "bytes", "complex", "slice", "object", "range", "xrange",
    "int", "long", "float", "str", "unicode", "bool", "type", "NoneType", "Ellipsis", "getattr",
))  # fmt: skip
_MAPPINGS = frozenset(("collections.OrderedDict", "collections.defaultdict", "collections.Counter"))
_SEQUENCES = frozenset(
    ("torch.Size", "builtins.set", "builtins.frozenset", "builtins.list", "builtins.tuple", "__builtin__.set")
)


class PickleError(ValueError):
    """A pickle that cannot be interpreted. hostile: the global that only an attack names, or ""."""

    def __init__(self, cause: str, hostile: str = ""):
        super().__init__(cause)
        self.hostile = hostile


class Global(NamedTuple):
    """The name of a class or function."""

    module: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"


class Text(NamedTuple):
    """A long text, in UTF-8."""

    data: memoryview


class Object:
    """A call that was not made: function, arguments, and the state and items given to the result."""

    __slots__ = ("arguments", "function", "items", "state")

    def __init__(self, function, arguments=()):
        self.function = function
        self.arguments = arguments if isinstance(arguments, tuple) else ()
        self.state = None
        self.items: dict = {}

    @property
    def path(self) -> str:
        """The name of the function, or "" where the pickle calls something else."""
        return self.function.path if isinstance(self.function, Global) else ""


def interpret(data: memoryview, persistent: Callable[[object], object] | None = None) -> tuple[object, int]:
    """The object that a pickle describes, and the position after the pickle.

    persistent: the object of a persistent id. Lists, dicts and tuples are Python's (an OrderedDict and its like is a
    dict, a set a list), numbers and short texts too; bytes are memoryviews, the rest is Object, Global and Text.
    Raises PickleError.
    """
    machine = _Machine(data, persistent)
    try:
        return machine.run(), machine.at
    except PickleError:
        raise
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error, OverflowError):
        raise PickleError(f"the pickle has an invalid operation before byte {machine.at}") from None


class _Machine:
    def __init__(self, data: memoryview, persistent):
        self.data = data
        self.at = 0
        self.persistent = persistent
        self.stack: list = []
        self.outer: list[list] = []  # stacks below the marks
        self.memo: dict[int, object] = {}

    def run(self):
        left = _MOST_OPERATIONS
        while left:
            code = self.data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.stack.pop()
            left -= code != 0x47  # BINFLOAT
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise PickleError(f"the pickle has the operation {code:#04x}, which no file of weights needs")
            operation(self)
        raise PickleError(f"the pickle has more than {_MOST_OPERATIONS} operations")

    def take(self, count: int) -> memoryview:
        stop = self.at + count
        if stop > len(self.data):
            raise PickleError(f"the pickle ends inside an operation at byte {self.at}")
        part = self.data[self.at : stop]
        self.at = stop
        return part

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self, longest=_LONGEST_TEXT) -> bytes:
        start = self.at
        for at in range(start, start + longest, _BLOCK):
            found = bytes(self.data[at : min(at + _BLOCK, start + longest)]).find(b"\n")
            if found >= 0:
                self.at = at + found + 1
                return bytes(self.data[start : at + found])
        raise PickleError(f"the pickle has a line without an end at byte {start}")

    def push(self, value) -> None:
        self.stack.append(value)

    def to_mark(self) -> list:
        items = self.stack
        self.stack = self.outer.pop()
        return items

    # Marks, the stack and the memo

    def mark(self):
        self.outer.append(self.stack)
        self.stack = []

    def pop(self):
        if self.stack:
            self.stack.pop()
        else:
            self.to_mark()

    def put(self, index: int):
        self.memo[index] = self.stack[-1]

    def get(self, index: int):
        self.push(self.memo[index])

    # Numbers and texts

    def integer(self):
        line = self.line(_LONGEST_NUMBER)
        self.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.rstrip(b"L")))

    def long(self, size: int):
        if not 0 <= size <= _LONGEST_NUMBER:
            raise PickleError(f"the pickle has a number of {size} bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def text(self, size: int):
        data = self.take(size)
        self.push(str(data, "utf-8", "surrogatepass") if size <= _LONGEST_TEXT else Text(data))

    def string(self, size: int):
        """Python 2's str: a text where it is short, else the bytes of an array."""
        data = self.take(size) if size >= 0 else self.line(-1)
        self.push(str(data, "latin-1") if size <= _SHORT_STRING else data)

    def quoted(self):
        line = self.line(len(self.data)).strip()
        if len(line) < 2 or line[0] not in b"'\"" or line[-1] != line[0]:
            raise PickleError(f"the pickle has a string without quotes before byte {self.at}")
        data = codecs.escape_decode(line[1:-1])[0]
        self.push(data.decode("latin-1") if len(data) <= _SHORT_STRING else memoryview(data))

    # Containers

    def tuple_of(self, count: int):
        if len(self.stack) < count:
            raise IndexError
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def extend(self, items: list):
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Object):
            raise TypeError

    def assign(self, items: list):
        target = self.stack[-1]
        target = target.items if isinstance(target, Object) else target
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError
        _fill(target, zip(items[::2], items[1::2]))

    def dictionary(self):
        items = self.to_mark()
        self.push({})
        self.assign(items)

    # Globals and calls

    def name(self, module: str, name: str):
        root = module.partition(".")[0]
        if root in _ATTACKS and not (root in ("builtins", "__builtin__") and name in _HARMLESS):
            raise PickleError("", f"{module}.{name}")
        self.push(Global(module, name))

    def stack_global(self):
        name = self.stack.pop()
        module = self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError
        self.name(module, name)

    def reduce(self):
        arguments = self.stack.pop()
        self.push(_called(self.stack.pop(), arguments))

    def new_with_keywords(self):
        self.stack.pop()
        self.reduce()

    def inst(self):
        self.name(self.line().decode(), self.line().decode())
        function = self.stack.pop()
        self.push(Object(function, tuple(self.to_mark())))

    def obj(self):
        function, *arguments = self.to_mark()
        self.push(Object(function, tuple(arguments)))

    def build(self):
        state = self.stack.pop()
        if isinstance(self.stack[-1], Object):
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], (dict, list)):  # the attributes of an OrderedDict, such as _metadata
            raise TypeError

    def persistent_id(self, value):
        if self.persistent is None:
            raise PickleError("the pickle refers to objects outside it")
        self.push(self.persistent(value))


def _fill(target: dict, pairs) -> None:
    for key, value in pairs:
        # Hashing a tuple recurses into it; such keys are none of a tensor's.
        target[key if isinstance(key, (str, int, float)) else Object(None)] = value


def _called(function, arguments):
    path = function.path if isinstance(function, Global) else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else ()
    if path in _MAPPINGS:
        made: dict = {}
        if isinstance(first, list):  # as Python 2 wrote it
            _fill(made, first)
        elif isinstance(first, dict):
            made.update(first)
        return made
    if path in _SEQUENCES and isinstance(first, (tuple, list)):
        return tuple(first) if path == "torch.Size" else list(first)
    return Object(function, arguments)


_O = _Machine
_OPERATIONS: dict[int, Callable[[_Machine], object]] = {
    ord(code): operation for code, operation in {
        "(": _O.mark, "0": _O.pop, "1": _O.to_mark, "2": lambda m: m.push(m.stack[-1]),
        "p": lambda m: m.put(int(m.line(_LONGEST_NUMBER))), "q": lambda m: m.put(m.number("B")),
        "r": lambda m: m.put(m.number("<I")), "\x94": lambda m: m.put(len(m.memo)),
        "g": lambda m: m.get(int(m.line(_LONGEST_NUMBER))), "h": lambda m: m.get(m.number("B")),
        "j": lambda m: m.get(m.number("<I")),
        "\x80": lambda m: m.take(1), "\x95": lambda m: m.take(8),  # PROTO, FRAME
        "N": lambda m: m.push(None), "\x88": lambda m: m.push(True), "\x89": lambda m: m.push(False),
        "I": _O.integer, "L": _O.integer, "J": lambda m: m.push(m.number("<i")), "K": lambda m: m.push(m.number("B")),
        "M": lambda m: m.push(m.number("<H")), "\x8a": lambda m: m.long(m.number("B")),
        "\x8b": lambda m: m.long(m.number("<i")), "F": lambda m: m.push(float(m.line(_LONGEST_NUMBER))),
        "G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        "X": lambda m: m.text(m.number("<I")), "\x8c": lambda m: m.text(m.number("B")),
        "\x8d": lambda m: m.text(m.number("<Q")), "V": lambda m: m.push(m.line(_BLOCK).decode("raw-unicode-escape")),
        "S": _O.quoted, "T": lambda m: m.string(m.number("<i")), "U": lambda m: m.string(m.number("B")),
        "B": lambda m: m.push(m.take(m.number("<I"))), "C": lambda m: m.push(m.take(m.number("B"))),
        "\x8e": lambda m: m.push(m.take(m.number("<Q"))), "\x96": lambda m: m.push(m.take(m.number("<Q"))),
        ")": lambda m: m.push(()), "t": lambda m: m.push(tuple(m.to_mark())), "\x85": lambda m: m.tuple_of(1),
        "\x86": lambda m: m.tuple_of(2), "\x87": lambda m: m.tuple_of(3),
        "]": lambda m: m.push([]), "l": lambda m: m.push(m.to_mark()), "a": lambda m: m.extend([m.stack.pop()]),
        "e": lambda m: m.extend(m.to_mark()), "}": lambda m: m.push({}), "d": _O.dictionary,
        "s": lambda m: m.assign([m.stack.pop(-2), m.stack.pop()]), "u": lambda m: m.assign(m.to_mark()),
        "\x8f": lambda m: m.push([]), "\x90": lambda m: m.extend(m.to_mark()),  # sets
        "\x91": lambda m: m.push(m.to_mark()),
        "c": lambda m: m.name(m.line().decode(), m.line().decode()), "\x93": _O.stack_global, "R": _O.reduce,
        "\x81": _O.reduce, "\x92": _O.new_with_keywords, "i": _O.inst, "o": _O.obj, "b": _O.build,
        "P": lambda m: m.persistent_id(m.line().decode()), "Q": lambda m: m.persistent_id(m.stack.pop()),
    }.items()
}  # fmt: skip
