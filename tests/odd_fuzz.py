"""Damage to odd pictures: `python odd_fuzz.py SEED COUNT [PATTERN]` reads COUNT damaged copies of each file and prints
those of which it gets neither a picture nor an ImageError of one line, that print something, or take long.

A program of its own, so that a crash of a library is found and its file known: the last name on stderr.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator

import numpy as np
import odd_pictures
from odd_pictures import TooLong, little_time

from cvstyle import images
from cvstyle.errors import ImageError

LARGEST = 100_000  # bytes of a file that is damaged


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with one kind of damage that files suffer, or that an attacker would try."""
    out = bytearray(data)
    size = len(out)
    place = int(rng.integers(size))
    if rng.random() < 0.5:  # headers are where most is decided
        place = int(rng.integers(min(size, 200)))
    kind = rng.integers(7)
    if kind == 0:
        return bytes(out[:place])
    if kind == 1:
        for at in rng.integers(size, size=4):
            out[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        out[place : place + 4] = rng.choice(
            [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
        )
    elif kind == 3:
        out[place] = int(rng.integers(256))
    elif kind == 4:
        del out[place : place + int(rng.integers(1, 9))]
    elif kind == 5:
        out[place:place] = rng.bytes(int(rng.integers(1, 9)))
    else:
        out[place : place + 64] = bytes(len(out[place : place + 64]))
    return bytes(out)


def wrong(path: str) -> str:
    """What is wrong with how a file is read, or ""."""
    try:
        with warnings.catch_warnings(), little_time():
            warnings.simplefilter("error")
            picture = images.read(path)
    except TooLong:
        return "takes too long"
    except ImageError as error:
        line = error.command_line
        return f"not one line: {line!r}" if "\n" in line or not line.startswith(path) else ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    rgb = picture.rgb
    if rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size or rgb.dtype != np.float32:
        return f"a picture {rgb.shape} of {rgb.dtype}"
    if not np.isfinite(rgb).all():
        return "values that are not finite"
    alpha = picture.alpha
    if alpha is not None and not (alpha.shape == picture.size and 0 <= alpha.min() <= alpha.max() <= 1):
        return f"alpha {alpha.shape}, {alpha.min()} to {alpha.max()}"
    return ""


@contextlib.contextmanager
def printed() -> Iterator[list[str]]:
    """What C libraries write to stderr, as the list's items."""
    found: list[str] = []
    with tempfile.TemporaryFile() as file:
        keep = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield found
        finally:
            os.dup2(keep, 2)
            os.close(keep)
            file.seek(0)
            found.extend(file.read().decode(errors="replace").splitlines())


def main(seed: int, count: int, pattern: str = "") -> int:
    """Print a line for each damaged file that is read wrongly; returns their number."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    number = 0
    folder = tempfile.mkdtemp(prefix="odd")
    for name, make in odd_pictures.load().items():
        if not re.search(pattern, name) or name.startswith("bomb"):
            continue
        data = make()[0]
        if not 0 < len(data) <= LARGEST:
            continue
        rng = np.random.default_rng([seed, *name.encode()])
        for turn in range(count):
            path = os.path.join(folder, f"{turn}_{name}")
            with open(path, "wb") as file:
                file.write(damaged(data, rng))
            print(path, file=sys.stderr, flush=True)
            with printed() as lines:
                problem = wrong(path)
            if problem or lines:
                number += 1
                print(f"{path}: {problem or 'prints ' + lines[0]}", flush=True)
            else:
                os.remove(path)
    return number


if __name__ == "__main__":
    sys.exit(min(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]), 99))
