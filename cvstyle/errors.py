"""Errors that a user can act on: one line with the subject, the cause and the way out.

The command line prints the message of a `CvstyleError` without a traceback and exits with status 2.
"""

import re

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


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """The end of an error message that suggests the known names most similar to `name`."""
    import difflib

    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if matches:
        return "did you mean " + " or ".join(matches) + "?"
    shown = ", ".join(list(known)[:12])
    return f"known: {shown}{', ...' if len(known) > 12 else ''}"
