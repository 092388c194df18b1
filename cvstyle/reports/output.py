"""Output pictures of a run: checks before it, protection of the inputs, and other places if writing fails."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, suppress
from itertools import combinations

from .. import paths
from ..errors import ImageError, OptionError

_LONGEST_STEM = 40  # characters, of up to four bytes, kept of a name that need not be a name elsewhere


class Output:
    """The output file of a run.

    bits: per channel. texts: by keyword, written to every picture, with its iteration and the seed. every: iterations
    between intermediate pictures; below 1: none. strip: write no metadata at all. background: the colour (RGB, 0..255)
    on which transparent pictures lie; None: they stay transparent, or lie on white in JPEG. Raises ImageError where it
    is known that a picture of `longest` pixels cannot be written.
    """

    def __init__(
        self, path: str, bits: int, texts: Mapping[str, str], longest: int, every: int = 0, strip: bool = False,
        background: tuple[int, int, int] | None = None,
    ):  # fmt: skip
        from .. import images

        self.path = path
        self.background = background
        self.bits = bits
        self.texts = texts
        self.every = every
        self.strip = strip
        self._seed: int | None = None
        images.check_writable(path, bits, longest)
        if every > 0 and paths.is_stream(path):
            raise OptionError(f"{path}: pictures of --save-iter need a file's name; name one, or add --save-iter 0")

    def begin(self, seed: int, iterations: int, size: tuple[int, int], has_alpha: bool, profile: int) -> None:
        """Set the seed, and check what is known when a run is prepared.

        iterations: of the whole run. size: (height, width) of the picture. profile: bytes of its colour profile. Raises
        ImageError if the picture, or one of `save_iterate`, would not fit.
        """
        from .. import images

        self._seed = seed
        channels = 4 if has_alpha and self.background is None else 3
        images.check_fits(self.path, size, channels, self.bits, profile)
        if 0 < self.every < iterations:
            last = (iterations - 1) // self.every * self.every
            images.check_writable(numbered(self.path, last), self.bits, max(size))

    def is_due(self, iterate) -> bool:
        """True if an `Iterate`'s picture is to be saved; the last one is the result."""
        return self.every > 0 and iterate.iteration % self.every == 0 and iterate.iteration < iterate.num_iterations

    def save_iterate(self, iterate) -> None:
        """Write the picture of an `Iterate` as out_N.png. Raises ImageError if it cannot be written."""
        path = numbered(self.path, iterate.iteration)
        with _lack_of_memory_named(path):
            picture = iterate.picture()
        self._write(path, picture, iterate.iteration)

    def save_result(self, result) -> None:
        """Write the picture of a `Result`. On failure, write it to another folder or in another format, since it may be
        the work of hours, and raise ImageError with its path."""
        try:
            self._write(self.path, result.picture, result.iterations)
        except ImageError as error:
            for path in self._resorts():
                with suppress(ImageError):
                    self._write(path, result.picture, result.iterations)
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

    def _resorts(self):
        """Paths for a picture that `path` does not take: other folders, then formats that take any picture."""
        from .. import images

        stem, extension = os.path.splitext(os.path.basename(self.path))
        folders = [os.path.dirname(self.path) or "."]
        if paths.is_stream(self.path):
            stem = ""
            folders = []
        for folder in (tempfile.gettempdir, os.getcwd, lambda: os.path.expanduser("~")):
            with suppress(OSError):  # no temporary folder has space, or the current one is gone
                folders.append(folder())
        name = "-".join(filter(None, ("cvstyle", str(os.getpid()), stem[:_LONGEST_STEM])))
        for ending in dict.fromkeys([extension or images.RESORTS[0], *images.RESORTS]):
            for folder in folders:
                yield _unused(os.path.join(folder, name), ending)

    def _write(self, path, picture, iteration):
        from .. import images

        if self.background is not None:
            with _lack_of_memory_named(path):
                picture = images.composited(picture, self.background)
        texts = {**self.texts, "Iterations": str(iteration)}
        if self._seed is not None:
            texts["Seed"] = str(self._seed)
        metadata = picture.metadata
        if self.strip:
            texts = metadata = None
        images.write(path, picture.rgb, picture.alpha, picture.icc, texts, bits=self.bits, metadata=metadata)


def numbered(path: str, iteration: int) -> str:
    """out_100.png from out.png."""
    stem, extension = os.path.splitext(path)
    return f"{stem}_{iteration}{extension}"


@contextmanager
def _lack_of_memory_named(path):
    try:
        yield
    except MemoryError:
        raise ImageError(f"{path}: it could not be written: not enough memory") from None


def _unused(stem, ending):
    """A path that is not there yet."""
    path = stem + ending
    number = 1
    while os.path.lexists(path):
        number += 1
        path = f"{stem}-{number}{ending}"
    return path


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
    numbers = {paths.descriptor(path), paths.descriptor(other)}
    if numbers != {None}:
        return len(numbers) == 1
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other) and not stat.S_ISCHR(os.stat(path).st_mode)  # such as /dev/null
    return os.path.realpath(path) == os.path.realpath(other)
