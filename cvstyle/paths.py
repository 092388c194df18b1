"""The user's cache folder, and atomic writes of files."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def cache() -> Path:
    """cvstyle's folder in the user's cache; it may not exist yet."""
    if sys.platform == "win32":
        found = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    else:
        found = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(found) / "cvstyle"


@contextmanager
def atomic_write(path: str | os.PathLike, prefix: str = "", suffix: str = ".tmp") -> Iterator[BinaryIO]:
    """A temporary file beside `path` that replaces it when the context ends without an exception. Raises OSError."""
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
    """Write a file atomically, creating its folder if necessary; returns True on success."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(content)
    except OSError:
        return False
    return True
