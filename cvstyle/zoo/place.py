"""The folder of a model's files: what is there already, and is there room for more."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from .cards import File


@dataclass(frozen=True)
class Fetched:
    """A file that is here now. checked: its digest is the published one; downloaded: it was not here before."""

    path: str
    digest: str
    checked: bool
    downloaded: bool


def kept(file: File, folder: str | os.PathLike) -> Fetched | None:
    """The file, where the folder has it already. Raises ModelError for another file of its name."""
    target = Path(folder) / file.name
    if not target.is_file():
        return None
    found = digest_of(target, file.digest)
    if found != (file.digest or found):
        raise ModelError(
            f"{target}: this is not the published file: its digest is {found}, not {file.digest}; move it away, or "
            "name another folder with --dir"
        )
    return Fetched(str(target), found, bool(file.digest), False)


def made(folder: str | os.PathLike) -> Path:
    """The folder, made where it was not there. Raises ModelError."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"{folder}: the folder cannot be made: {error.strerror}; name another with --dir or CVSTYLE_MODELS"
        ) from None
    return Path(folder)


def check_room(path: Path, needed: int) -> None:
    """Raises ModelError where the disk of a file has no room for this many bytes more."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise ModelError(
            f"{path}: {needed:,} bytes are still to come and the disk has room for {free:,}; make room, or name "
            "another folder with --dir"
        )


@contextlib.contextmanager
def disk(path: Path):
    """Turns an OSError of the disk into a ModelError, so that no source of the file is blamed for it."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; name another folder with --dir") from None


def digest_of(path: Path, like: str) -> str:
    """The digest of a file in the form of a known one ("sha1:..."); SHA-256 where none is known."""
    name = like.partition(":")[0] or "sha256"
    digest = hashlib.new(name, usedforsecurity=False)
    with disk(path), path.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return f"{name}:{digest.hexdigest()}"
