"""Checkpoint files: everything that a run needs to resume to the same bytes, in one .npz file.

`numpy.load` reads the file: arrays by name, and "header", JSON as bytes. A checkpoint is written to a temporary file
beside its path and renamed once it is complete and on disk, so a run killed at any moment leaves the previous one.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from .errors import CheckpointError
from .paths import atomic_write

_FORMAT = 1


def digest(*arrays) -> str:
    """16 hexadecimal digits of the SHA-256 of arrays, their shapes and dtypes."""
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(repr((array.shape, array.dtype.str)).encode())
        sha256.update(np.ascontiguousarray(array))
    return sha256.hexdigest()[:16]


def check_writable(path: str, resume: bool) -> None:
    """Raises CheckpointError where no checkpoint can be written, or where it would replace one without resuming it."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.isdir(folder):
        raise CheckpointError(f"{path}: this is no place for a checkpoint; name a file in a folder that exists")
    if not os.access(folder, os.W_OK):
        raise CheckpointError(f"{path}: the folder may not be written to; choose another")
    if os.path.exists(path) and not resume:
        raise CheckpointError(f"{path}: this checkpoint exists; add --resume to continue from it, or remove it")


def save(path: str, header: dict, arrays: dict[str, Any], to_host: Callable[[Any], np.ndarray] = np.asarray) -> None:
    """Write a checkpoint. Raises CheckpointError where writing fails.

    header: JSON values. to_host: converts an item of `arrays` to a NumPy array; called for one item at a time.
    """
    header = json.dumps({"format": _FORMAT, "arrays": list(arrays), **header}).encode()
    entries = {"header": lambda: np.frombuffer(header, np.uint8)}
    entries |= {name: partial(to_host, array) for name, array in arrays.items()}
    folder, name = os.path.split(os.path.abspath(path))
    prefix = f".{name}.part-"
    try:
        for left in glob.glob(os.path.join(glob.escape(folder), f"{glob.escape(prefix)}*")):
            os.remove(left)  # from a run killed while writing
        with atomic_write(os.path.abspath(path), prefix, "") as file:
            with zipfile.ZipFile(file, "w") as archive:  # the format of numpy.savez
                for name, array in entries.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array(), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        _fsync_folder(folder)
    except OSError as error:
        raise CheckpointError(
            f"{path}: the checkpoint cannot be written ({error.strerror or error}); one from before is untouched"
        ) from None


def load(path: str) -> tuple[dict, dict[str, np.ndarray]]:
    """(header, arrays) of a checkpoint. Raises CheckpointError for a damaged file or another kind of file."""
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:  # NumPy reads, and checks, only as far as a damaged shape says
                raise ValueError("its contents do not have their checksum")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        version = header["format"]
        if set(header.get("arrays", arrays)) != set(arrays):
            raise ValueError("some of its contents are missing")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint") from None
    except MemoryError:
        raise
    except Exception as error:  # the errors of zipfile and NumPy for damaged files have no common class
        cause = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: this is no checkpoint, or a truncated or damaged one ({cause}); give another, or start without "
            "--resume"
        ) from None
    if version != _FORMAT:
        raise CheckpointError(f"{path}: its format {version} is another version's; this one reads format {_FORMAT}")
    return header, arrays


def check_same(path: str, saved: dict, current: dict) -> None:
    """Raises CheckpointError naming the first setting in which the checkpoint's run differs from the current run."""
    for name, value in current.items():
        if saved.get(name) != value:
            raise CheckpointError(
                f"{path}: it belongs to a run with another {name} ({saved.get(name)}; here {value}); give the settings "
                "that it was started with, or another checkpoint"
            )


def _fsync_folder(folder):
    """Make the new file name durable, on systems that can sync a folder."""
    with suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
