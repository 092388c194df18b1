"""Host memory backed by files: the state of a picture and its optimiser may be larger than the memory."""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np

from .memory import HostPool

_MIN_SIZE = 1 << 20  # bytes of an array from which on a file is worth it


class MappedPool(HostPool):
    """Large arrays are nameless temporary files in a folder, mapped into memory; the system keeps as much as fits."""

    def __init__(self, folder: str):
        super().__init__()
        self.folder = folder

    def empty(self, shape, dtype):
        """An array as `HostPool.empty` gives. Raises MemoryError where the folder has less room."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < _MIN_SIZE:
            return super().empty(shape, dtype)
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                if hasattr(os, "posix_fallocate"):  # a page without room behind it would end the process when written
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
                return np.frombuffer(mmap.mmap(file.fileno(), size), dtype).reshape(shape)
        except OSError as error:
            raise MemoryError(f"{self.folder}: {size >> 20} MB: {error.strerror}") from None
