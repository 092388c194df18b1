"""Words of a command line as people type, copy and paste them, put in order for argparse."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import OptionError
from ..fields import as_paths
from .common import shown

_DASHES = "-‐‑‒–—―−﹘﹣－"
"""The hyphen, and what editors, web pages and messengers put in its place."""
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"
"""Characters without width that come along when text is copied."""
_HYPHENS = str.maketrans(dict.fromkeys(_DASHES[1:], "-"))
_OPTION = re.compile(rf"[\{_DASHES}]+([^\W\d_][\w\{_DASHES}]*)(?:=(.*))?", re.DOTALL)  # not a negative number
_QUOTES = "“”„‟«»‘’‚\"'"
_QUOTED = re.compile(rf"(?:^|(?<=,)) *[{_QUOTES}]([^{_QUOTES}]*)[{_QUOTES}] *(?=,|$)")
_ALIKE = 0.7  # of difflib's ratio, from which a known option is suggested
_MOST_PARTS = 20  # words of a name with spaces
_SYNONYMS = {
    "input": "--content", "i": "--content", "target": "--content", "source": "--content", "iter": "--num-iterations",
    "steps": "--num-iterations", "n": "--num-iterations", "lr": "--learning-rate", "cpu": "--backend cpu",
    "cuda": "--backend cuda", "resolution": "--image-size", "width": "--image-size", "v": "--version",
    "q": "--quiet", "verbose": "--print-iter 1", "silent": "--quiet",
    "preserve-color": "--color content", "preserve-colors": "--color content", "keep-colors": "--color content",
}  # fmt: skip


@dataclass
class Line:
    """The words of one verb in order. words: for argparse, every value joined to its option by "=". given: the names
    (`dest`) of the options that are there. remarks: sentences for the user."""

    words: list[str] = field(default_factory=list)
    given: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)


def arranged(words: Sequence[str], actions: Mapping[str, argparse.Action], operands: bool = False) -> Line:
    """The words of one verb, for argparse.

    actions: argparse's actions by spelling. operands: True if the verb takes words without an option. Dashes of other
    kinds, capital letters and underscores in options, "=" with spaces, quotes that the shell did not take away, values
    that begin with a dash, and several values of one option (for options that are repeated, and after a comma) are
    accepted. Raises OptionError for an unknown option, for a missing value and for a word that belongs nowhere.
    """
    return _Arrangement(list(words), actions, operands).line


def option_of(
    word: str, actions: Mapping[str, argparse.Action], attached: bool = True
) -> tuple[str, str | None] | None:
    """(known option as its action spells it, its value after "=" or None) of a word; None for any other word.

    attached: False if the word is a value where it can be one, such as -old.png, which is otherwise -o ld.png.
    """
    if word in actions:
        return actions[word].option_strings[0], None
    text, space, rest = word.strip(_INVISIBLE).partition("\u00a0")  # pasted between an option and its value
    match = _OPTION.fullmatch(text)
    if not match:
        action = actions.get(word[:2]) if attached and not os.path.exists(word) else None
        return (action.option_strings[0], word[2:]) if action and action.nargs != 0 else None
    name = match[1].translate(_HYPHENS).replace("_", "-")
    for spelling in (f"--{name}", f"--{name.lower()}", f"-{name}"):
        if spelling in actions and (len(spelling) == 2 or len(name) > 1):
            return actions[spelling].option_strings[0], rest if space and match[2] is None else match[2]
    return None


class _Arrangement:
    """One pass over the words, which leaves the result in `line`."""

    def __init__(self, words, actions, operands):
        self.words = words
        self.actions = actions
        self.operands = operands
        self.line = Line()
        self.values: dict[str, list[str]] = {}  # dest → the texts given
        own = []
        while self.words:
            word = self.words.pop(0)
            found = option_of(word, actions)
            if found:
                self._take(*found)
            elif word != "--" and _is_option(word):
                raise _unknown(word, actions)
            elif word != "--" and not operands:
                raise self._unexpected(word, None, [])
            elif word != "--":
                own.append(word)
        self.line.words += own

    def _take(self, option, value):
        action = self.actions[option]
        self.line.given.add(action.dest)
        if action.nargs == 0:
            if value is not None:
                raise OptionError(f"{option} takes no value, and {shown(value)} is given; leave it out")
            self.line.words.append(option)
            if action.dest in ("help", "version"):
                self.words.clear()
            elif self._value_follows() and not self.operands:
                raise self._unexpected(self.words[0], option, [])
            return
        values = self._values(option, action, value)
        for text in values:
            self.line.words.append(option if text is None else f"{option}={text}")
        earlier = self.values.setdefault(action.dest, [])
        if earlier and not _makes_list(action) and earlier[-1] != values[-1]:
            self.line.remarks.append(f"{option} is given more than once; the last one, {values[-1]}, counts")
        earlier += values

    def _values(self, option, action, value):
        """The texts of an option from here on; None for an optional value that is missing."""
        if not value and self._value_follows(True) and self.words[0].startswith("="):  # --content = a.jpg
            self.words[:1] = filter(None, [self.words[0][1:]])
        if not value and self._value_follows(True) and (value is None or action.nargs is None):
            value = self.words.pop(0)
        if value is None:
            if action.nargs == "?":
                return [None]
            raise self._without_value(option, action)
        while self._value_follows() and (value.rstrip().endswith(",") or self.words[0].startswith(",")):
            value += self.words.pop(0)
        more = []
        while self._value_follows() and not self.operands:
            more.append(self.words.pop(0))
        name = _divided_name([value, *more])
        if name:
            raise OptionError(f"{option}: a name with spaces in it needs quotes around it: {option} {_quoted(name)}")
        if more and not _makes_list(action):
            raise self._unexpected(more[0], option, [value])
        return [_unquoted(text) for text in (value, *more)]

    def _value_follows(self, first=False):
        """True if the next word is no option. first: the option before it has no value yet, so it may look like one."""
        if not self.words or self.words[0] == "--" or option_of(self.words[0], self.actions, attached=not first):
            return False
        word = self.words[0]
        return not _is_option(word) or (first and ("." in word or "/" in word))

    def _without_value(self, option, action):
        follows = f", and {self.words[0]} follows" if self.words else ""
        if self.words and self.words[0] != "--" and not option_of(self.words[0], self.actions):
            return _unknown(self.words[0], self.actions)
        return OptionError(f"{option} needs a value{follows}: {option} {action.metavar}")

    def _unexpected(self, word, option, values):
        """The error of a word after an option and its values."""
        if not self.line.words and not option:
            other = next((word for word in self.words if not _is_option(word)), "painting.jpg")
            return OptionError(
                f"{shown(word)} has no option before it; say which picture is which: --content {_quoted(word)} "
                f"--style {_quoted(other)}"
            )
        if option == "--resume":
            return OptionError(f"{option} takes no value; the file is given as --checkpoint {_quoted(word)} {option}")
        if values and os.path.exists(values[0]) and os.path.exists(word):
            return OptionError(
                f"{option} takes one file, and {shown(values[0])} and {shown(word)} are given; name one of them, and "
                "start a run for each of the others"
            )
        after = f" after {' '.join([option, *values])}" if option else ""
        return OptionError(f"unexpected word {shown(word)}{after}; a name with spaces in it needs quotes around it")


def _makes_list(action):
    """True if an option can be repeated."""
    return isinstance(action, argparse._AppendAction)


def _is_option(word):
    """True if a word looks like an option, known or not."""
    return bool(_OPTION.fullmatch(word.strip(_INVISIBLE))) and not os.path.exists(word)


def _unknown(word, actions):
    """The error of an unknown option, with known ones that are alike."""
    option = word.partition("=")[0]
    name = option.lstrip(_DASHES).translate(_HYPHENS).replace("_", "-").lower()
    known = [spelling for spelling in actions if spelling.startswith("--")]
    if name in _SYNONYMS:
        return OptionError(f"unknown option {option}; did you mean {_SYNONYMS[name]}?")
    alike = [spelling for spelling in known if spelling.startswith(f"--{name}") or spelling.endswith(f"-{name}")]
    if alike:
        return OptionError(f"unknown option {option}; did you mean {' or '.join(alike[:4])}?")
    alike = difflib.get_close_matches(f"--{name}", known, cutoff=_ALIKE)
    way_out = f"did you mean {' or '.join(alike)}?" if alike else "--help lists all options"
    return OptionError(f"unknown option {option}; {way_out}")


def _divided_name(words):
    """The name of a file with spaces that the shell divided into several of these words, or ""."""
    if all(map(os.path.exists, words)):
        return ""
    for first in range(len(words)):
        for last in range(min(len(words), first + _MOST_PARTS), first + 1, -1):
            name = " ".join(words[first:last])
            if _exist(name) and not all(map(os.path.exists, words[first:last])):
                return name
    return ""


def _exist(names):
    """True if all of a list of paths exist."""
    try:
        paths = as_paths(names)
    except ValueError:
        return False
    return bool(paths) and all(map(os.path.exists, paths))


def _unquoted(text):
    """A value without the quotes that a web page or another shell left around it or around the names of its list.

    A name of a file that exists stays as it is.
    """
    return text if os.path.exists(text) else _QUOTED.sub(lambda match: match[1], text.strip(_INVISIBLE))


def _quoted(text):
    return shlex.quote(" ".join(text.split()))
