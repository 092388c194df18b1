"""Compiled kernels on disk: images as a compiler makes them, each in a file named after what it was compiled from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from ... import paths

_MAGIC = b"cvstyle kernel 1\n"  # before an image's SHA-256 and the image


class Images:
    """Images of kernels in cvstyle's folder of the user's cache; may be asked from several threads.

    Where nothing can be written, images last as long as this object. A file that is damaged is made again.
    """

    def __init__(self):
        self._unwritten: dict[str, bytes] = {}

    def get(self, key: Sequence[str], make: Callable[[], bytes]) -> tuple[bytes, bool]:
        """(the image of this key, whether it was made for that).

        key: all that the image depends on: source, options, architecture, the compiler's version.
        """
        name = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:40]
        path = paths.cache() / "kernels" / name
        image = self._unwritten.get(name) or _read(path)
        if image is not None:
            return image, False
        image = make()
        if not paths.write(path, _MAGIC + hashlib.sha256(image).digest() + image):
            self._unwritten[name] = image
        return image, True


def _read(path):
    """The image in a file; None where there is none, or where it is not what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + hashlib.sha256().digest_size
    image = content[start:]
    return image if content[:start] == _MAGIC + hashlib.sha256(image).digest() else None
