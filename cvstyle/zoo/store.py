"""The local folder of a model's files: existing files, digests and free space."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from .files import File


@dataclass(frozen=True)
class LocalFile:
    """A local file. checked: the digest is compared with a published one; downloaded: the file is new.

    origin: the name of the file that it was made from, whose digest `checked` is about; "" for one as it was published.
    """

    path: str
    digest: str
    checked: bool
    downloaded: bool
    origin: str = ""


def find_local(file: File, folder: str | os.PathLike) -> LocalFile | None:
    """The file if it is in the folder, else None. Raises ModelError for a different file of the same name."""
    target = Path(folder) / file.name
    if not target.is_file():
        return None
    digest = digest_of(target, file.algorithm)
    if not file.has_digest(digest):
        raise ModelError(
            f"{target}: this is not the published file: its digest is {digest}, not {file.digest}; move it away, or "
            "name another folder with --dir"
        )
    return LocalFile(str(target), digest, bool(file.digest), False)


def make_folder(folder: str | os.PathLike) -> Path:
    """Create the folder if necessary, and return it. Raises ModelError."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"{folder}: the folder cannot be made: {error.strerror}; name another with --dir or CVSTYLE_MODELS"
        ) from None
    return Path(folder)


@contextlib.contextmanager
def removed_if_empty(folder: Path):
    """Context that, ending in an exception, removes the folder and those above it if they are new and empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in new:
                path.rmdir()
        raise


def check_free_space(path: Path, needed: int) -> None:
    """Raises ModelError if the disk has not enough free space for a file."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise ModelError(
            f"{path}: {needed:,} bytes are still to come and the disk has room for {free:,}; make room, or name "
            "another folder with --dir"
        )


@contextlib.contextmanager
def disk_errors(path: Path):
    """Turns an OSError of the disk into a ModelError, so that it does not count as a failed download."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; name another folder with --dir") from None


def digest_of(path: Path, algorithm: str) -> str:
    """The digest of a file, such as "sha256:..."."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with disk_errors(path), path.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return f"{algorithm}:{digest.hexdigest()}"
