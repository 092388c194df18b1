"""Command line: one module per verb, whose `add_arguments(parser)` sets the function to `execute`.

For a fast `--help`, verbs import NumPy, OpenCV and SciPy only when executed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from .. import __version__
from ..errors import CvstyleError, OptionError, nearest
from .common import say, shown
from .streams import OutputLost, finished, show, usable_streams
from .words import arranged, option_of

_VERBS = {
    "run": "stylise a picture",
    "texture": "make a texture of pictures",
    "plan": "predict memory, tiles and time of a run",
    "info": "list the layers of a network",
    "models": "list, show, download and convert models",
    "style": "save the styles of paintings, show and blend them",
    "devices": "list backends and devices",
}
_ACTIONS = {
    "models": ("show", "fetch", "import", "normalise", "normalize"),
    "style": ("save", "info", "blend"),
}
_SIZES = {"texture": "--size", "style": "--sizes"}
_WORDS = {
    "help": "--help", "--help": "--help", "-h": "--help", "-?": "--help", "/?": "--help", "version": "--version",
    "--version": "--version", "-V": "--version",
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """argparse with the words of a verb in order (see `words`), and suggestions for unknown ones."""

    def parse_known_args(self, args=None, namespace=None):
        if self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        operands = any(not action.option_strings for action in self._actions)
        line = arranged(args, self._option_string_actions, operands)
        wanted = [action for action in self._actions if action.required and action.option_strings]
        missing = [action for action in wanted if action.dest not in line.given]
        if missing and not line.given & {"help", "version"}:
            needed = " and ".join(f"{action.option_strings[0]} {action.metavar}" for action in missing)
            raise OptionError(f"{needed} must be given; '{self.prog} --help' lists all options")
        namespace, unknown = super().parse_known_args(line.words, namespace)
        if unknown:
            self.error(f"unexpected word {shown(unknown[0])}")
        namespace.given = line.given
        namespace.remarks = line.remarks
        return namespace, unknown

    def _print_message(self, message, file=None):
        show(message.rstrip("\n"))  # help and version; argparse would ignore that they cannot be written

    def error(self, message):
        raise OptionError(f"{message}; see '{self.prog} --help'")


def main(argv: list[str] | None = None) -> int:
    """Run a command line (without the program's name); returns the exit status.

    Signal handlers and streams are restored, so it can be called repeatedly and in any thread.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    with usable_streams():
        try:
            return finished(_run(argv))
        except SystemExit as end:  # after --help and --version
            raise SystemExit(finished(end.code or 0)) from None


def _run(argv):
    words = argv
    try:
        words = _verb_first(argv)
        parser = _parser(words[:1])
        arguments = parser.parse_args(words)
        if not arguments.command:
            parser.print_help()
            return 0
        arguments.command_line = argv
        return arguments.execute(arguments) or 0
    except CvstyleError as error:
        say(error.command_line)
        return 2
    except KeyboardInterrupt:
        say("interrupted; nothing was written")
        return 130
    except OutputLost as error:
        return error.report()
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        detail = f" ({' '.join(str(error).split())})" if str(error) else ""
        size = _SIZES.get("".join(words[:1]), "--image-size")
        say(f"not enough memory{detail}; --tile-size auto or a smaller {size} needs less")
        return 2


def _verb_first(argv):
    """The words with the verb first. Raises OptionError if the first word is neither a verb nor an option."""
    if not argv:
        return argv
    first = argv[0]
    if first.lower() in _VERBS:
        return _action_first(first.lower(), argv[1:])
    if first in _WORDS:
        return [*(word.lower() for word in argv[1:2] if word.lower() in _VERBS), _WORDS[first]]
    actions = _run_options()
    if not option_of(first, actions) and (first[:1].isalnum() or not first.strip()):
        if os.path.exists(first) or os.path.splitext(first)[1]:
            raise OptionError(f"{shown(first)} is no command; cvstyle run --content photo.jpg --style painting.jpg")
        raise OptionError(f"unknown command {shown(first)}{nearest(first.lower(), tuple(_VERBS))}")
    position = 0
    while position < len(argv):
        word = argv[position]
        found = option_of(word, actions)
        if not found and word.lower() in _VERBS:
            return _action_first(word.lower(), [*argv[:position], *argv[position + 1 :]])
        has_value_next = found and found[1] is None and actions[found[0]].nargs is None
        position += 2 if has_value_next else 1
    return ["run", *argv]  # the reference's command line has no verb


def _action_first(verb, words):
    """A verb and its words, with the verb's action, if it has any, before them."""
    actions = [word for word in words if word.lower() in _ACTIONS.get(verb, ())]
    if actions:
        words.remove(actions[0])
    return [verb, *(action.lower() for action in actions[:1]), *words]


def _run_options():
    """argparse's actions of `cvstyle run` by spelling."""
    parser = _Parser(allow_abbrev=False)
    importlib.import_module(f"{__name__}.run").add_arguments(parser)
    return parser._option_string_actions


def _parser(wanted):
    """The parser, with arguments for the wanted verbs only."""
    parser = _Parser(
        prog="cvstyle", description="Neural style transfer with Caffe models, without a deep-learning framework.",
        allow_abbrev=False,
    )  # fmt: skip
    version = {"action": "version", "version": f"cvstyle {__version__}"}
    parser.add_argument("--version", **version)
    subparsers = parser.add_subparsers(title="commands", dest="command", parser_class=_Parser)
    for verb, help in _VERBS.items():
        added = subparsers.add_parser(verb, help=help, allow_abbrev=False)
        if verb in wanted:
            added.add_argument("--version", **version, help=argparse.SUPPRESS)
            importlib.import_module(f"{__name__}.{verb}").add_arguments(added)
    return parser


def _is_out_of_memory(error):
    """True if Python, OpenCV (error -4), the dynamic loader or the start of a thread ran out of memory."""
    in_system = "can't start new thread" in str(error) or "failed to map segment" in str(error)
    return isinstance(error, MemoryError) or getattr(error, "code", None) == -4 or in_system
