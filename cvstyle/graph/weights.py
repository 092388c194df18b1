"""Weights of layers: their check against the prototxt's shapes, and the digest that identifies a trained network."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from ..errors import ModelError, ShapeError, nearest


def load_weights(layer, definition, bottoms, loaded=None) -> list[tuple[int, ...]]:
    """Give a layer its weights, unless that is done, checked against the shapes that it expects; returns the shapes.

    definition: the `NetDef`. bottoms: shapes of the layer's bottoms. loaded: the shapes of weights that the layer has.
    Raises ModelError naming the file and layer where weights are missing or of another number or size, ShapeError where
    only the picture's size does not fit them.
    """
    if loaded is not None:
        expected = [tuple(shape) for shape in layer.blob_shapes(bottoms)]
        for present, shape in zip(loaded, expected, strict=True):
            if present != shape:
                raise _misfit(layer, definition, present, shape)
        return loaded
    blobs, expected = check_weights(layer, definition, bottoms)
    if not expected:
        return expected
    if not blobs:
        raise ModelError(f"{_where(layer.definition, definition)} {_absent(layer.definition, definition)}")
    layer.load([np.reshape(b, s) for b, s in zip(blobs, expected, strict=True)], bottoms)
    return expected


def check_weights(layer, definition, bottoms) -> tuple[list[np.ndarray], list[tuple[int, ...]]]:
    """(a layer's blobs, none if the model has none; the shapes that it expects). Raises errors as `load_weights`.

    As Caffe does (Net::CopyTrainedLayersFrom): a layer takes as many blobs as the model holds for it, no more or fewer.
    """
    blobs = _blobs(layer.definition, definition)
    layer.blob_count = len(blobs) if _has_model(definition) else None
    expected = [tuple(shape) for shape in layer.blob_shapes(bottoms)]
    _check_count(layer.definition, definition, len(blobs), len(expected))
    for blob, shape in zip(blobs, expected, strict=False):
        if blob.size != math.prod(shape) or not _same_extents(blob.shape, shape):
            raise _misfit(layer, definition, tuple(blob.shape), shape)
    return blobs, expected


def count_blobs(layer_definition, definition) -> int | None:
    """The number of blobs that the model holds for a layer; None without a model."""
    return len(_blobs(layer_definition, definition)) if _has_model(definition) else None


def check_names(definition) -> None:
    """Raises ModelError where a model is given and holds nothing for any layer of the prototxt."""
    if definition.weights_source and not any(layer.name in definition.weights for layer in _own_layers(definition)):
        raise ModelError(
            f"{definition.weights_source}: holds no weights for any layer of {definition.source}: do these two files "
            "belong together?"
        )


def check_without_weights(layer_definition, definition) -> None:
    """Raises ModelError where the model holds weights for a layer that takes none."""
    _check_count(layer_definition, definition, len(_blobs(layer_definition, definition)), 0)


def _check_count(layer_definition, definition, found, expected):
    if found not in (0, expected):
        raise ModelError(
            f"{_where(layer_definition, definition)} has {found} weight blobs in the model; the prototxt asks for "
            f"{expected or 'none'}: do these two files belong together?"
        )


def _blobs(layer_definition, definition):
    """The blobs that the model holds for a layer.

    A blob that layers share under a name (Net::AppendParam) is that of the last of them in the model, which need not
    hold it for each: Caffe copies all that it holds to one place.
    """
    blobs = list(definition.weights.get(layer_definition.name, ()))
    for place, name in enumerate(layer_definition.shared):
        sharers = {d.name: d.shared.index(name) for d in definition.layers if name and name in d.shared}
        held = [definition.weights[layer][sharers[layer]:] for layer in definition.weights if layer in sharers]
        if any(held) and place <= len(blobs):
            blobs[place : place + 1] = [blob for blob, *_ in filter(None, held)][-1:]
    return blobs


def _has_model(definition):
    """True with a model, even with one that holds nothing for the file's layers."""
    return bool(definition.weights_source) or any(layer.name in definition.weights for layer in _own_layers(definition))


def _own_layers(definition):
    """The layers that are the file's."""
    return definition.layers[definition.added :]


def _absent(layer_definition, definition):
    """The cause and the way out where the model holds no weights for a layer that takes some."""
    if not _has_model(definition):
        return "needs weights: give the .caffemodel that belongs to this prototxt"
    if layer_definition.repeats:
        return (
            f"has no weights: an earlier layer is named '{layer_definition.repeats}' too, and as in Caffe the first "
            "layer of a name has the model's; give this one its own name in both files"
        )
    added = {layer.name for layer in definition.layers[: definition.added]}
    known = [name for name in definition.weights if name not in added]
    return f"has no weights in the model{nearest(layer_definition.name, known)}"


def _where(layer_definition, definition):
    source = definition.weights_source or definition.source
    return f"{source}: layer '{layer_definition.name}' ({layer_definition.type})"


def digest(definition, layers) -> str:
    """A short name for layers of a `NetDef` and their weights: 16 hexadecimal digits."""
    found = hashlib.sha256()
    for layer in layers:
        parts = (layer.type, layer.name, layer.bottoms, layer.tops, sorted(layer.params.items()))
        found.update(repr(parts).encode())
        for blob in _blobs(layer, definition):
            found.update(np.ascontiguousarray(blob))
    return found.hexdigest()[:16]


_NEUTRAL = {
    "pad": ([0], 0), "stride": ([1], 1), "dilation": ([1], 1), "group": (1,), "bias_term": (True,), "axis": (1,),
    "pool": ("MAX",), "negative_slope": (0.0,),
}  # fmt: skip
"""Parameters that a file may leave out: their defaults."""
_FOR_TRAINING = ("weight_filler", "bias_filler", "engine")


def fingerprint(definition, layer, bottoms) -> str:
    """A short name for a layer's function: 32 hexadecimal digits, the same whatever file, names and spelling it has.

    bottoms: those of its inputs. Parameters count without defaults and those of training, weights as float32.
    """
    params = {name: value for name, value in layer.params.items() if name not in _FOR_TRAINING}
    params = {name: _shortened(value) for name, value in params.items() if value not in _NEUTRAL.get(name, ())}
    if layer.name not in definition.digests:
        weights = hashlib.sha256()
        for blob in _blobs(layer, definition):
            weights.update(repr([n for n in blob.shape if n != 1]).encode())
            weights.update(np.ascontiguousarray(blob, "<f4"))
        definition.digests[layer.name] = weights.hexdigest()
    parts = (layer.type, sorted(params.items()), definition.digests[layer.name], list(bottoms))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _shortened(value):
    """[3] from [3, 3]."""
    return value[:1] if isinstance(value, list) and len(value) == 2 and value[0] == value[1] else value


def _misfit(layer, definition, found, expected):
    """The error for weights of another shape than the layer expects on this picture."""
    where = _where(layer.definition, definition)
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
