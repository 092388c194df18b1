"""Errors that a user can act on: one line with the subject, the cause and the way out.

The command line prints the message of a `CvstyleError` without a traceback and exits with status 2.
"""

import re
from collections.abc import Sequence

_QUOTED_OR_OPTION = re.compile(r"(?<!\w)'[^']*'|(?<![^\s(])--([a-z][a-z-]*)")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class CvstyleError(Exception):
    """Base of all errors that cvstyle raises on purpose.

    Messages are written with options as on the command line (--image-size); `str` gives the keywords of Python
    (image_size).
    """

    def __str__(self) -> str:
        return _QUOTED_OR_OPTION.sub(lambda m: m[1].replace("-", "_") if m[1] else m[0], self.command_line)

    @property
    def command_line(self) -> str:
        """The message with options as on the command line, on one line whatever the names of files in it contain."""
        return _CONTROL.sub(lambda m: repr(m[0])[1:-1], super().__str__())


class ModelError(CvstyleError):
    """A network file that is missing, truncated, corrupt or mismatched, or a graph that cannot run."""


class ShapeError(ModelError):
    """A picture size or blob shapes that a layer does not accept."""


class ImageError(CvstyleError):
    """A picture that cannot be read, written or used."""


class OptionError(CvstyleError):
    """An invalid option or combination of options."""


class DeviceError(CvstyleError):
    """A device failure, or a kernel that does not compile or run: names the operation and the device."""


class CheckpointError(CvstyleError):
    """A checkpoint that cannot be read or written, or that belongs to another run."""


class CheckpointWarning(UserWarning):
    """A checkpoint that could not be written; the run continues."""


class NumericalError(CvstyleError):
    """A loss or gradient that became NaN or infinite."""


_SHORT_LIST = 12  # names that an error message lists
_SHORT_NAME = 5  # letters and digits of a name in which another one is another word (ELU, ReLU, RReLU), not a typo


def nearest(name: str, known: Sequence[str], lead: str = "; ", otherwise: str = "") -> str:
    """The end of an error message, after `lead`: the known names from which `name` differs by a slip alone.

    A slip is case, separators, one wrong, missing or surplus character, or two that changed places (Damerau 1964).
    Without such a name: all known ones where they are few, else `otherwise`, or "" without any.
    """
    plain = _plain(name)
    matches = [other for other in known if _plain(other) == plain]
    if not matches:
        import difflib

        slips = [other for other in known if _slipped(plain, _plain(other))]
        matches = difflib.get_close_matches(name, slips, cutoff=0)
    if matches:
        return f"{lead}did you mean {' or '.join(matches[:3])}?"
    if 0 < len(known) <= _SHORT_LIST:
        return f"{lead}known: {', '.join(known)}"
    return f"{lead}{otherwise}" if otherwise else ""


def _plain(name):
    return re.sub(r"[\W_]", "", name.lower())


def _slipped(a, b):
    """True where one slip makes a of b."""
    if sorted(a) == sorted(b):
        different = [i for i, (x, y) in enumerate(zip(a, b)) if x != y]
        return len(different) == 2 and different[1] == different[0] + 1
    if max(len(a), len(b)) <= _SHORT_NAME or abs(len(a) - len(b)) > 1:
        return False
    same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    rest = {0: (a[same + 1 :], b[same + 1 :]), 1: (a[same + 1 :], b[same:]), -1: (a[same:], b[same + 1 :])}
    return len(set(rest[len(a) - len(b)])) == 1
