"""The picture of a run: refused where it would overwrite an input, and saved elsewhere where its disk is full."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import combinations

from ..errors import ImageError, OptionError


class Output:
    """Where a run writes its picture. bits: per channel; notes: the metadata of every picture."""

    def __init__(self, path: str, bits: int, notes: Mapping[str, str]):
        self.path = path
        self.bits = bits
        self.notes = notes

    def save_iterate(self, iterate) -> None:
        """Write the picture of an `Iterate` as out_N.png. Raises ImageError where it cannot be written."""
        self._write(numbered(self.path, iterate.iteration), iterate.picture(), iterate.iteration)

    def save_result(self, result) -> None:
        """Write the picture of a `Result`. Where its place does not take it, another does, since it may be the work of
        hours: then ImageError says which."""
        try:
            self._write(self.path, result.picture, result.iterations, result.seed)
        except ImageError as error:
            folders = [os.getcwd(), os.path.expanduser("~")]
            with suppress(OSError):  # where no folder for temporary files has room
                folders.insert(0, tempfile.gettempdir())
            for folder in folders:
                path = os.path.join(folder, f"cvstyle-{os.getpid()}-{os.path.basename(self.path)}")
                with suppress(ImageError):
                    self._write(path, result.picture, result.iterations, result.seed)
                    break
            else:
                raise
            raise ImageError(f"{error}; the picture is in {path}") from None

    def _write(self, path, picture, iteration, seed=None):
        from .. import images

        notes = {**self.notes, "Iterations": str(iteration)}
        if seed is not None:
            notes["Seed"] = str(seed)
        images.write(path, picture.rgb, picture.alpha, picture.icc, notes, bits=self.bits)


def numbered(path: str, iteration: int) -> str:
    """out_100.png from out.png."""
    stem, extension = os.path.splitext(path)
    return f"{stem}_{iteration}{extension}"


def check_nothing_overwritten(
    written: Mapping[str, str | None], read: Iterable[str | None], start: str | None, numbers: bool
) -> None:
    """Raises OptionError where a run would overwrite one of its inputs, or two of its outputs are one file.

    written: paths of output files by their purpose; "output" is the picture. read: paths of the inputs. start: path of
    the initial picture, which the output may overwrite, since it is read before. numbers: whether intermediate pictures
    are saved, as `numbered` names them.
    """
    written = {kind: path for kind, path in written.items() if path}
    stem, extension = os.path.splitext(written["output"])
    for path in filter(None, [*read, start]):
        name, ending = os.path.splitext(path)
        name, _, iteration = name.rpartition("_")
        is_numbered = numbers and ending == extension and iteration.isdecimal() and _same_file(name, stem)
        for kind, place in written.items():
            continued = kind == "output" and path == start
            if not continued and (_same_file(path, place) or (kind == "output" and is_numbered)):
                raise OptionError(f"{place}: the {kind} would overwrite the input {path}; choose another name")
    for (one, path), (other, same) in combinations(written.items(), 2):
        if _same_file(path, same):
            raise OptionError(f"{path}: the {other} and the {one} are one file; choose another name")


def _same_file(path, other):
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other)
    return os.path.realpath(path) == os.path.realpath(other)
