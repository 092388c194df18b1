"""Compiled kernels on disk, each in a file named after everything that it was compiled from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from ... import paths

_MAGIC = b"cvstyle kernel 1\n"  # before a binary's SHA-256 and the binary


class KernelCache:
    """Binaries of kernels in cvstyle's folder of the user's cache; thread-safe.

    Where nothing can be written, binaries last as long as this object. A file that is damaged is made again.
    """

    def __init__(self):
        self._unwritten: dict[str, bytes] = {}

    def get(self, key: Sequence[str], make: Callable[[], bytes]) -> tuple[bytes, bool]:
        """(the binary of this key, whether this call made it).

        key: everything that the binary depends on: source, options, architecture, the compiler's version.
        """
        name = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:40]
        path = paths.cache() / "kernels" / name
        binary = self._unwritten.get(name) or _read(path)
        if binary is not None:
            return binary, False
        binary = make()
        if not paths.write(path, _MAGIC + hashlib.sha256(binary).digest() + binary):
            self._unwritten[name] = binary
        return binary, True


def _read(path):
    """The binary in a file; None where the file is missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + hashlib.sha256().digest_size
    binary = content[start:]
    return binary if content[:start] == _MAGIC + hashlib.sha256(binary).digest() else None
