"""Where cvstyle keeps things for a user, and files that are written whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def cache() -> Path:
    """cvstyle's folder in the user's cache; it need not exist."""
    if sys.platform == "win32":
        found = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    else:
        found = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(found) / "cvstyle"


@contextmanager
def replacing(path: str | os.PathLike, prefix: str = "", suffix: str = ".tmp") -> Iterator[BinaryIO]:
    """A new file beside `path` that takes its place when the context ends: whole, or not at all. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=prefix, suffix=suffix)
    try:
        os.close(handle)
        with open(name, "wb") as file:
            yield file
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def write(path: Path, content: bytes) -> bool:
    """Write a file in one step, and make its folder if need be; returns whether that succeeded."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content)
    except OSError:
        return False
    return True
