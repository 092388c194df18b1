"""Weights of layers: their check against the prototxt's shapes, and the digest that identifies a trained network."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from ..errors import ModelError, ShapeError, nearest


def load_weights(layer, definition, bottoms, loaded=None) -> list[tuple[int, ...]]:
    """Give a layer its weights, unless that is done, checked against the shapes that it expects; returns the shapes.

    definition: the `NetDef`. bottoms: shapes of the layer's bottoms. loaded: the shapes of weights that the layer has.
    Raises ModelError naming the file and layer where weights are missing or of another size, ShapeError where only the
    picture's size does not fit them.
    """
    if loaded is None and definition.weights:
        layer.blob_count = len(definition.weights.get(layer.name, ()))
    expected = [tuple(shape) for shape in layer.blob_shapes(bottoms)]
    where = f"{definition.weights_source or definition.source}: layer '{layer.name}' ({layer.definition.type})"
    if loaded is not None:
        for present, shape in zip(loaded, expected, strict=True):
            if present != shape:
                raise _misfit(where, layer, present, shape)
        return loaded
    if not expected:
        return expected
    blobs = definition.weights.get(layer.name, ())
    if not blobs:
        raise ModelError(
            f"{where} has no weights in the model; {nearest(layer.name, list(definition.weights))}"
            if definition.weights
            else f"{where} needs weights: give the .caffemodel that belongs to this prototxt"
        )
    if len(blobs) < len(expected):
        raise ModelError(f"{where} has {len(blobs)} weight blobs in the model; the prototxt asks for {len(expected)}")
    for blob, shape in zip(blobs, expected, strict=False):
        if blob.size != math.prod(shape) or not _same_extents(blob.shape, shape):
            raise _misfit(where, layer, tuple(blob.shape), shape)
    layer.load([np.reshape(b, s) for b, s in zip(blobs, expected, strict=False)], bottoms)
    return expected


def digest(definition, layers) -> str:
    """A short name for layers of a `NetDef` and their weights: 16 hexadecimal digits."""
    found = hashlib.sha256()
    for layer in layers:
        parts = (layer.type, layer.name, layer.bottoms, layer.tops, sorted(layer.params.items()))
        found.update(repr(parts).encode())
        for blob in definition.weights.get(layer.name, ()):
            found.update(np.ascontiguousarray(blob))
    return found.hexdigest()[:16]


def _misfit(where, layer, found, expected):
    """The error for weights of another shape than the layer expects on this picture."""
    outputs = getattr(layer, "num_output", None)  # of a fully connected layer; else the weights are those of a map
    if layer.window() is None and (outputs is None or outputs in found):
        return ShapeError(
            f"{where} has weights of shape {found}; a picture of this size asks for {expected}: such a layer takes one "
            "picture size, so use layers below it"
        )
    return ModelError(
        f"{where} has weights of shape {found}; the prototxt asks for {expected}: do these two files belong together?"
    )


def _same_extents(a, b):
    """True for shapes of one size that agree but for ones: Caffe's older files write a bias as (1, 1, 1, N)."""
    without_ones = [tuple(n for n in shape if n != 1) for shape in (a, b)]
    return without_ones[0] == without_ones[1]
