"""Checkpoint files: everything that a run needs to resume to the same bytes, in one .npz file.

`numpy.load` reads the file: arrays by name, and "header", JSON as bytes. A checkpoint is written to a temporary file
beside its path and renamed once it is complete and on disk, so a run killed at any moment leaves the previous one.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from . import paths
from .errors import CheckpointError

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
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder) or paths.is_stream(path):
        raise CheckpointError(f"{path}: this is no place for a checkpoint; name a file in a folder that exists")
    try:
        paths.check_writable(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: no checkpoint can be written there ({error.strerror}); choose another name or folder"
        ) from None
    if os.path.exists(path) and not resume:
        raise CheckpointError(f"{path}: this checkpoint exists; add --resume to continue from it, or remove it")


def save(path: str, header: dict, arrays: dict[str, Any], to_host: Callable[[Any], np.ndarray] = np.asarray) -> None:
    """Write a checkpoint. Raises CheckpointError where writing fails.

    header: JSON values. to_host: converts an item of `arrays` to a NumPy array; called for one item at a time.
    """
    header = json.dumps({"format": _FORMAT, "arrays": list(arrays), **header}).encode()
    entries = {"header": lambda: np.frombuffer(header, np.uint8)}
    entries |= {name: partial(to_host, array) for name, array in arrays.items()}
    try:
        paths.remove_left(path)
        with paths.atomic_write(path, durable=True) as file, zipfile.ZipFile(file, "w") as archive:
            for name, array in entries.items():  # the format of numpy.savez
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array(), allow_pickle=False)
    except (OSError, MemoryError) as error:
        cause = getattr(error, "strerror", None) or error or "not enough memory"
        raise CheckpointError(
            f"{path}: the checkpoint cannot be written ({cause}); one from before is untouched"
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
            plural = name.endswith("s") and not name.endswith("ss")
            raise CheckpointError(
                f"{path}: it belongs to a run with {'other' if plural else 'another'} {name}"
                f"{_values(name, saved.get(name), value)}; give the settings that it was started with, or another "
                "checkpoint"
            )


def _values(name, saved, current):
    """The two values in brackets; nothing for pictures, masks and networks, of which there are digests."""
    digests = any(name.endswith(word) for word in ("picture", "pictures", "masks", "network"))
    return "" if digests else f" ({saved}; here {current})"
