"""Where cvstyle keeps things for a user."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path


def cache() -> Path:
    """cvstyle's folder in the user's cache; it need not exist."""
    if sys.platform == "win32":
        found = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    else:
        found = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(found) / "cvstyle"


def write(path: Path, content: bytes) -> bool:
    """Write a file in one step, its folder too where there is none; False where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(name, path)
        except OSError:
            with suppress(OSError):
                os.unlink(name)
            return False
    except OSError:
        return False
    return True
