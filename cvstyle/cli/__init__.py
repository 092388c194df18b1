"""Command line: one module per verb, whose `add_arguments(parser)` sets the function to `execute`.

For a fast `--help`, verbs import NumPy, OpenCV and SciPy only when executed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from contextlib import contextmanager, suppress

from .. import __version__
from ..errors import CvstyleError, OptionError, nearest

_VERBS = {
    "run": "stylise a picture",
    "plan": "predict memory, tiles and time of a run",
    "info": "list the layers of a network",
    "models": "list, show and download known models",
    "devices": "list backends and devices",
}
_OPTION = re.compile(r"-+([^\W\d_][\w-]+)(=.*)?", re.DOTALL)  # not a negative number


class _Parser(argparse.ArgumentParser):
    """argparse with suggestions for unknown options."""

    def parse_args(self, args=None, namespace=None):
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unexpected word '{unknown[0]}'; a name with spaces in it needs quotes around it")
        return namespace

    def parse_known_args(self, args=None, namespace=None):
        # First, since argparse would report a misspelt option as a missing required one.
        if self._subparsers is None:
            for word in args:
                option = word.partition("=")[0]
                if option.startswith("--") and len(option) > 2 and option not in self._option_string_actions:
                    known = [o for o in self._option_string_actions if o.startswith("--")]
                    self.error(f"unknown option {option}; {nearest(option, known)}")
        return super().parse_known_args(args, namespace)

    def error(self, message):
        raise OptionError(message)


def main(argv: list[str] | None = None) -> int:
    """Run a command line (without the program's name); returns the exit status.

    Signal handlers and streams are restored, so it can be called repeatedly and in any thread.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version"):
        argv.insert(0, "run")  # the reference's command line has no verb
    with _unencodable_replaced():
        return _run(argv)


def _run(argv):
    try:
        parser = _parser(argv[:1])
        arguments = parser.parse_args(_modern_spelling(argv))
        if not arguments.command:
            parser.print_help()
            return 0
        arguments.command_line = argv
        return arguments.execute(arguments) or 0
    except CvstyleError as error:
        print(f"cvstyle: {error.command_line}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("cvstyle: interrupted; nothing was written", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        detail = f" ({' '.join(str(error).split())})" if str(error) else ""
        way_out = "--tile-size auto or a smaller --image-size needs less"
        print(f"cvstyle: not enough memory{detail}; {way_out}", file=sys.stderr)
        return 2


def _parser(wanted):
    """The parser, with arguments for the wanted verbs only."""
    parser = _Parser(
        prog="cvstyle", description="Neural style transfer with Caffe models, without a deep-learning framework.",
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"cvstyle {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", parser_class=_Parser)
    for verb, help in _VERBS.items():
        added = subparsers.add_parser(verb, help=help, allow_abbrev=False)
        if verb in wanted:
            importlib.import_module(f"{__name__}.{verb}").add_arguments(added)
    return parser


@contextmanager
def _unencodable_replaced():
    """Context in which output replaces characters that the terminal's encoding lacks, such as the × of a size."""
    changed = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    for stream, _ in changed:
        stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream, errors in changed:
            with suppress(OSError, ValueError):  # the stream is closed
                stream.reconfigure(errors=errors)


def _is_out_of_memory(error):
    """True if Python, OpenCV (error -4), the dynamic loader or the start of a thread ran out of memory."""
    in_system = "can't start new thread" in str(error) or "failed to map segment" in str(error)
    return isinstance(error, MemoryError) or getattr(error, "code", None) == -4 or in_system


def _modern_spelling(argv):
    """-style_image and --style_image become --style-image; values are unchanged."""
    matches = [(word, _OPTION.fullmatch(word)) for word in argv]
    return [f"--{option[1].replace('_', '-')}{option[2] or ''}" if option else word for word, option in matches]
