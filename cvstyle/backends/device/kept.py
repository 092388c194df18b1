"""What was found out about a device and is kept in a file of the user's cache: texts by text.

A file is for one device in one state, its identity. One that is missing, damaged or of another one counts as empty.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ... import paths


def path(kind: str, identity: dict, folder: Path | None = None) -> Path:
    """Where what is of this kind is kept; folder: the user's cache by default."""
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return (folder or paths.cache()) / f"{kind}-{name}.json"


def read(file: Path, name: str, identity: dict) -> dict[str, str]:
    """What is kept under this name."""
    try:
        content = json.loads(file.read_text("utf-8"))
        found = content[name] if content["for"] == identity else {}
        return {str(key): str(value) for key, value in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def add(file: Path, name: str, identity: dict, found: dict[str, str]) -> None:
    """Keep this too, beside what other processes found meanwhile; where nothing can be written, nothing is."""
    content = {"for": identity, name: {**read(file, name, identity), **found}}
    paths.write(file, json.dumps(content, indent=0).encode())
