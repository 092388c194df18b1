"""Output pictures of a run: protection of the inputs, and a fallback location if the disk is full."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import combinations

from ..errors import ImageError, OptionError


class Output:
    """The output file of a run.

    bits: per channel; metadata: texts by keyword, written to every picture; background: the colour (RGB, 0..255) on
    which transparent pictures lie; None: they stay transparent, or lie on white in JPEG.
    """

    def __init__(
        self, path: str, bits: int, metadata: Mapping[str, str], background: tuple[int, int, int] | None = None
    ):
        self.path = path
        self.background = background
        self.bits = bits
        self.metadata = metadata

    def save_iterate(self, iterate) -> None:
        """Write the picture of an `Iterate` as out_N.png. Raises ImageError if it cannot be written."""
        self._write(numbered(self.path, iterate.iteration), iterate.picture(), iterate.iteration)

    def save_result(self, result) -> None:
        """Write the picture of a `Result`. On failure, write it to another folder, since it may be the work of hours,
        and raise ImageError with its path."""
        try:
            self._write(self.path, result.picture, result.iterations, result.seed)
        except ImageError as error:
            folders = [os.getcwd(), os.path.expanduser("~")]
            with suppress(OSError):  # no temporary folder has space
                folders.insert(0, tempfile.gettempdir())
            for folder in folders:
                path = os.path.join(folder, f"cvstyle-{os.getpid()}-{os.path.basename(self.path)}")
                with suppress(ImageError):
                    self._write(path, result.picture, result.iterations, result.seed)
                    break
            else:
                raise
            raise ImageError(f"{error}; the picture is in {path}") from None

    def remark(self, picture) -> str:
        """A sentence for the user about what the file shows of the picture's transparency; "" where it keeps it."""
        from .. import images

        if images.is_opaque(picture.alpha):
            return "--background has no effect, as nothing of the picture is transparent" if self.background else ""
        if self.background is not None:
            colour = "#{:02x}{:02x}{:02x}".format(*self.background)
            return f"{self.path}: transparent parts of the picture show the background, {colour}"
        if not images.keeps_alpha(self.path):
            return (
                f"{self.path}: transparent parts of the picture are white, as JPEG has no transparency; --background "
                "chooses another colour, and .png keeps them"
            )
        return ""

    def _write(self, path, picture, iteration, seed=None):
        from .. import images

        if self.background is not None:
            picture = images.composited(picture, self.background)
        metadata = {**self.metadata, "Iterations": str(iteration)}
        if seed is not None:
            metadata["Seed"] = str(seed)
        images.write(path, picture.rgb, picture.alpha, picture.icc, metadata, bits=self.bits)


def numbered(path: str, iteration: int) -> str:
    """out_100.png from out.png."""
    stem, extension = os.path.splitext(path)
    return f"{stem}_{iteration}{extension}"


def check_nothing_overwritten(
    written: Mapping[str, str | None], read: Iterable[str | None], start: str | None, numbers: bool
) -> None:
    """Raises OptionError if a run would overwrite one of its inputs, or if two of its outputs are the same file.

    written: paths of output files by purpose; "output" is the picture. read: paths of the inputs. start: path of the
    initial picture, which the output may overwrite. numbers: True if intermediate pictures are saved (see `numbered`).
    """
    written = {kind: path for kind, path in written.items() if path}
    stem, extension = os.path.splitext(written["output"])
    for path in filter(None, [*read, start]):
        name, ending = os.path.splitext(path)
        name, _, iteration = name.rpartition("_")
        is_numbered = numbers and ending == extension and iteration.isdecimal() and _same_file(name, stem)
        for kind, target in written.items():
            allowed = kind == "output" and path == start
            if not allowed and (_same_file(path, target) or (kind == "output" and is_numbered)):
                raise OptionError(f"{target}: the {kind} would overwrite the input {path}; choose another name")
    for (one, path), (other, same) in combinations(written.items(), 2):
        if _same_file(path, same):
            raise OptionError(f"{path}: the {other} and the {one} are one file; choose another name")


def _same_file(path, other):
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other)
    return os.path.realpath(path) == os.path.realpath(other)
