"""Where cvstyle keeps things for a user."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache() -> Path:
    """cvstyle's folder in the user's cache; it need not exist."""
    if sys.platform == "win32":
        found = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    else:
        found = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(found) / "cvstyle"
