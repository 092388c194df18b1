"""Files of measurements on a device, in the user's cache: texts by text.

A file is for one device in one state, its identity. A file that is missing, damaged or of another identity counts as
empty.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ... import paths


def path(kind: str, identity: dict, folder: Path | None = None) -> Path:
    """The file of this kind ("tuning", "wgmma") for an identity; folder: the user's cache by default."""
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return (folder or paths.cache()) / f"{kind}-{name}.json"


def read(file: Path, name: str, identity: dict) -> dict[str, str]:
    """The entries under this name."""
    try:
        content = json.loads(file.read_text("utf-8"))
        entries = content[name] if content["for"] == identity else {}
        return {str(key): str(value) for key, value in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def add(file: Path, name: str, identity: dict, entries: dict[str, str]) -> None:
    """Add entries to the file, which keeps those of other processes; a file that cannot be written is left."""
    content = {"for": identity, name: {**read(file, name, identity), **entries}}
    paths.write(file, json.dumps(content, indent=0).encode())
