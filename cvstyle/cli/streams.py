"""Standard streams that are closed, full, without a reader, or of an encoding that lacks characters."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from .common import say

_STREAMS = ("stdin", "stdout", "stderr")  # by the number of their descriptor
_LOST = 1  # exit status


class OutputLost(Exception):
    """Standard output took no text. otherwise: the end of the message for the user."""

    def __init__(self, cause: OSError | ValueError, otherwise: str = ""):
        super().__init__(str(cause))
        self.cause = cause
        self.otherwise = otherwise

    def report(self) -> int:
        """Say it, unless the reader went away on purpose; returns the exit status."""
        _discard(sys.stdout)
        if not isinstance(self.cause, BrokenPipeError):
            cause = getattr(self.cause, "strerror", None) or self.cause
            say(f"standard output cannot be written: {cause}{self.otherwise}")
        return _LOST


def show(text: str, otherwise: str = "") -> None:
    """Print a result to standard output. Raises OutputLost, with the end of its message."""
    try:
        print(text, flush=True)
    except (OSError, ValueError) as error:
        raise OutputLost(error, otherwise) from None


def finished(status: int) -> int:
    """The exit status of a command that would have ended with `status`, after its last output was written."""
    try:
        if hasattr(sys.stdout, "flush"):
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        status = OutputLost(error).report() or status
    try:
        if hasattr(sys.stderr, "flush"):
            sys.stderr.flush()
    except (OSError, ValueError):
        _discard(sys.stderr)
    return status


def _discard(stream):
    """Send the text that a stream holds nowhere, so that Python does not fail on it at its end."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def usable_streams() -> Iterator[None]:
    """Context in which the standard streams exist and take every text.

    A closed one leads nowhere. Its descriptor is occupied, or the next file opened would get the number, and with it
    what C libraries write; that of standard output takes nothing, so that a picture is not lost in it. Characters that
    the encoding lacks, such as the × of a size, are replaced.
    """
    with ExitStack() as stack:
        for number, name in enumerate(_STREAMS):
            try:
                os.fstat(number)
            except OSError:
                with suppress(OSError):
                    os.set_inheritable(os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_RDWR), True)
            stream = getattr(sys, name)
            if name != "stdin" and (stream is None or getattr(stream, "closed", False)):
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.callback(setattr, sys, name, stream)
                setattr(sys, name, nowhere)
            elif hasattr(stream, "reconfigure") and name != "stdin":
                stack.callback(_reconfigure, stream, stream.errors)
                _reconfigure(stream, "replace")
        yield


def _reconfigure(stream, errors):
    with suppress(OSError, ValueError):  # closed meanwhile, or with text that cannot be written
        stream.reconfigure(errors=errors)


@contextmanager
def only_errors(quiet: bool) -> Iterator[None]:
    """Context in which libraries say nothing: no Python warnings, and nothing that C code writes to standard error.

    Text that Python writes to sys.stderr arrives. Outside the main thread only warnings are silent, since the
    descriptor is the process's.
    """
    if not quiet:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if threading.current_thread() is threading.main_thread():
            with suppress(OSError):
                _divert_libraries(stack)
        yield


def _divert_libraries(stack):
    """Let descriptor 2 lead nowhere, and sys.stderr, if it writes there, to where it led."""
    stream = sys.stderr
    kept = os.dup(2)
    stack.callback(os.close, kept)
    if _descriptor(stream) == 2:
        with suppress(OSError, ValueError):
            stream.flush()
        own = open(os.dup(kept), "w", encoding=stream.encoding, errors="replace", buffering=1)  # noqa: SIM115
        stack.callback(_close, own)
        stack.callback(setattr, sys, "stderr", stream)
        sys.stderr = own
    stack.callback(os.dup2, kept, 2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _descriptor(stream):
    """The number of a stream's descriptor; None for one without."""
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _close(stream):
    with suppress(OSError):
        stream.close()
