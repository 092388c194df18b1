"""Errors that a user can act on: one line that names the thing, the cause and the way out.

The command line prints the message of any `CvstyleError` without a traceback and exits with status 2.
"""


class CvstyleError(Exception):
    """Base of all errors that cvstyle raises on purpose."""


class ModelError(CvstyleError):
    """A network file that is missing, truncated, corrupt or mismatched, or a graph that cannot run."""


class ShapeError(ModelError):
    """A picture of a size, or blobs of shapes, that a layer cannot take."""


class ImageError(CvstyleError):
    """A picture that cannot be read, written or used."""


class OptionError(CvstyleError):
    """An option, or a combination of options, that makes no sense."""


class DeviceError(CvstyleError):
    """A device that failed, or a kernel that does not compile or run on it: names the operation and the device."""


class CheckpointError(CvstyleError):
    """A checkpoint that cannot be read or written, or that belongs to another run."""


class CheckpointWarning(UserWarning):
    """A checkpoint that could not be written; the run goes on."""


class NumericalError(CvstyleError):
    """A loss or gradient that became NaN or infinite."""


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """A phrase that suggests the known names most like `name`, for the end of an error message."""
    import difflib

    found = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if found:
        return "did you mean " + " or ".join(found) + "?"
    shown = ", ".join(list(known)[:12])
    return f"known: {shown}{', ...' if len(known) > 12 else ''}"
