"""Any file of weights as named tensors: Caffe's own too."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .. import containers
from ..caffe.caffemodel import Weights
from ..containers import Container, Tensor
from .store import digest_of

_ROLES = ("weight", "bias")


def read_weights(path: str | os.PathLike) -> Container:
    """The tensors of a .caffemodel, by its name, or of another framework's file. Raises ModelError."""
    path = os.fspath(path)
    if not path.lower().endswith(".caffemodel"):
        return containers.read(path)
    tensors = {}
    for layer, blobs in Weights(path).items():
        for role, blob in zip(_ROLES, blobs, strict=False):
            blob = blob.reshape(-1) if role == "bias" else blob
            name = f"{layer}/{role}"
            tensors[name] = Tensor(name, blob.shape, np.dtype(blob.dtype.newbyteorder("=")), lambda blob=blob: blob)
    return Container(path, "Caffe", tensors, "oihw", lambda: digest_of(Path(path), "sha256").removeprefix("sha256:"))
