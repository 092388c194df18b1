"""The convolutional part of a known network from another framework's file of weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..containers import Container
from ..errors import ModelError
from .architectures import ARCHITECTURES, convolutions
from .cards import CARDS, Card
from .conversion import Conversion, LazyWeights, border_remark
from .fingerprint import fingerprint_of
from .known import check_stated, published
from .modules import statistics, values, vector
from .norms import eps_of, folding_remark
from .recognise import Recognised, axes_of, recognise
from .training import CAFFE, Training, fold_input, fold_normalisation


def convert(container: Container, wanted: str | None = None, training: Training | None = None) -> Conversion:
    """The convolutional part of a known network, for pictures BGR 0..255 minus Caffe's mean.

    wanted: see `recognise`. training: of the weights, where the file does not say it. Raises ModelError for unknown
    weights and for an unknown training, OptionError for an unknown architecture.
    """
    found = recognise(container, wanted)
    readers = _readers(container, found)
    first = convolutions(found.architecture.net)[0].name
    known_by = "as stated"
    if training is None:
        training, known_by = _training(container, found, readers[first]())
    elif not found.before:
        check_stated(training, container, readers[first]())
    makers = {**readers, first: lambda: list(fold_input(*readers[first](), training))}
    net = replace(
        found.architecture.net, weights=LazyWeights(makers), weights_source=container.path, source=container.path
    )
    fingerprint = fingerprint_of(net)
    return Conversion(
        net, found.architecture.title, fingerprint, training, known_by, found.left_out,
        _remarks(container, found, training), card=_card(found, training, fingerprint),
    )  # fmt: skip


def _readers(container, found: Recognised):
    """Layer name → function that reads its filters (outputs, inputs, height, width) and bias, float32."""
    layers = convolutions(found.architecture.net)
    flipped = _is_flipped(container, found)
    return {
        layer.name: lambda pair=pair: _blobs(container, pair, found.layout, flipped)
        for layer, pair in zip(layers, found.convolutions, strict=True)
    }


def _is_flipped(container, found):
    """True for files of Keras for Theano, whose convolution turned filters around."""
    return container.kind == "Keras" and found.layout == "oihw"


def _blobs(container, pair, layout, flipped):
    module, norm = pair
    filters = values(module.weight, container.path).transpose(axes_of(layout))
    filters = filters[:, :, ::-1, ::-1] if flipped else filters
    bias = None
    if "bias" in module.tensors:
        bias = vector(module.tensors["bias"], len(filters), container.path)
    if norm:
        found = statistics(norm, len(filters), container.path)
        filters, bias = fold_normalisation(filters, bias, found, eps_of(container.kind))
    return [filters, np.zeros(len(filters), np.float32) if bias is None else bias]


def _training(container, found, first):
    """(training, how it is known) of a file with this first layer."""
    if found.before:
        return _training_by_filters(container, found), "by the filters before its first layer"
    found_published = published(container, first)
    if found_published:
        return found_published
    if container.channels:
        return replace(CAFFE, channels=container.channels, mean=container.mean), "as the file says"
    if container.kind.startswith("Caffe"):
        return CAFFE, "as for Caffe's files"
    if container.kind == "Keras":
        return CAFFE, "as for Keras's files, which have Caffe's weights"
    if found.architecture.name == "nin":
        return CAFFE, "the only published training"
    raise ModelError(
        f"{container.path}: how these weights of {found.architecture.title} were trained is not known; say --training "
        "caffe (pictures BGR 0..255 minus a mean, the weights of 2014), --training torchvision (RGB 0..1 minus a mean, "
        "divided by σ), or give --channels, --mean and --std"
    )


def _training_by_filters(container, found):
    """Caffe's, if the filters of one pixel make its pictures of RGB 0..1, as in the encoder of AdaIN (Huang 2017)."""
    module = found.before
    matrix = values(module.weight, container.path).transpose(axes_of(found.layout)).reshape(3, 3)
    shift = vector(module.tensors["bias"], 3, container.path) if "bias" in module.tensors else np.zeros(3)
    if np.allclose(matrix, 255 * np.eye(3)[::-1], atol=0.01) and np.allclose(shift, np.negative(CAFFE.mean), atol=0.01):
        return CAFFE
    raise ModelError(
        f"{container.path}: the filters {module.weight.name} change the pictures before the first layer, in another "
        "way than to Caffe's; say --training for the pictures after them"
    )


def _card(found, training, fingerprint) -> Card | None:
    """The known model that these weights are; None for another training, other filters, or other values if known."""
    architecture = found.architecture
    if found.before or any(norm for _, norm in found.convolutions) or architecture != ARCHITECTURES[architecture.name]:
        return None
    name = CAFFE.name if training.is_of_caffe else training.name
    for card in CARDS.values():
        if (card.architecture, card.training) == (architecture.name, name):
            return card if card.fingerprint in ("", fingerprint) else None
    return None


def _remarks(container, found, training):
    remarks = list(container.remarks)
    if _is_flipped(container, found):
        remarks.append("the filters are turned around: Keras wrote them for Theano")
    if found.before:
        remarks.append(f"{found.before.weight.name}, which changes the channels of pictures before, is left out")
    if any(norm for _, norm in found.convolutions):
        remarks.append(folding_remark(container.kind))
    return (*remarks, *border_remark(training))
