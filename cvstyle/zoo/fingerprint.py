"""A short name for trained weights, the same whatever file they are in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from ..caffe import read_net
from ..netdef import NetDef
from .architectures import convolutions

Blobs = Sequence[np.ndarray]


def fingerprint(layers: Iterable[Blobs]) -> str:
    """16 hexadecimal digits of the SHA-256 of filters and biases.

    layers: in the network's order, each as filters (outputs, inputs, height, width) and, if there is one, the bias,
    both as Caffe has them (inputs of the first layer BGR). Hashed are each array's shape, as text, and its values as
    little endian float32; a bias has one axis.
    """
    found = hashlib.sha256()
    for filters, *bias in layers:
        for array in (filters, *(b.reshape(-1) for b in bias[:1])):
            found.update(repr(tuple(map(int, array.shape))).encode())
            found.update(np.ascontiguousarray(array, "<f4"))
    return found.hexdigest()[:16]


def fingerprint_of(net: NetDef) -> str:
    """The fingerprint of a net's convolutions, those without weights in the file left out."""
    blobs = (net.weights.get(layer.name, ()) for layer in convolutions(net))
    return fingerprint(b for b in blobs if b)


def fingerprint_of_files(proto: str, model: str) -> str:
    """The fingerprint of the weights in a .prototxt and a .caffemodel. Raises ModelError."""
    return fingerprint_of(read_net(proto, model))
