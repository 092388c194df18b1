"""Weights of another framework for the layers of any prototxt: by name where names agree, else in order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ..caffe import read_net
from ..containers import Container
from ..errors import ModelError
from ..netdef import LayerDef, NetDef
from .blobs import FILTERS, MATRIX, NORM, VECTOR, Misfit, blobs_of, kind_of_layer, kind_of_module
from .channels import channels_of
from .conversion import Conversion, LazyWeights, border_remark
from .fingerprint import fingerprint_of
from .known import check_stated
from .modules import Module, names_of
from .norms import TYPES, eps_of, folding_remark, needs_tensors, takes_factor, with_moved_input
from .recognise import LAYOUTS, orders_of
from .training import Training, fold_input

# Kinds in one row: a fully connected layer may be a convolution in the other framework.
_ROWS = ((FILTERS, MATRIX), (NORM,), (VECTOR,))
_MOST_SHOWN = 6
_AS_TRAINED = (
    "the weights stay as they are: pictures other than Caffe's (BGR 0..255 minus its mean) are stated here with "
    "--training, or in 'cvstyle run' with --channels, --mean and --input-scale"
)


def assign(container: Container, proto: str | os.PathLike, training: Training | None = None) -> Conversion:
    """The network of a prototxt with a file's weights.

    training: if given, the first convolution takes up the difference to pictures BGR 0..255 minus Caffe's mean; None:
    the weights as they are. Raises ModelError naming the tensor and the layer that do not belong together, the layer
    without a tensor, or the first layer that cannot take up another training.
    """
    net = read_net(proto)
    first = None
    for order in orders_of(container):
        for layout in sorted(LAYOUTS, key=lambda layout: layout != container.layout):
            try:
                found = _Assignment(container, net, order, layout)
                return _conversion(found, training)
            except Misfit as misfit:
                first = first or ModelError(f"{container.path}: {misfit}")
    raise first


class _Assignment:
    """Modules for the layers of a net. Raises Misfit.

    makers: functions that make the blobs, by layer name. left_out: names of tensors without a layer.
    """

    def __init__(self, container, net, order, layout):
        self.container = container
        self.net = net
        self.order = order
        self.layers = [layer for layer in net.layers if kind_of_layer(layer)]
        self.pairs = _by_name(self.layers, order)
        self._add_by_order()
        self.folded = self._to_fold()
        self.missing = [layer for layer in self.layers if layer.name not in self.pairs]
        self._check_missing()
        channels = channels_of(net)
        self.makers = {
            layer.name: blobs_of(
                layer, self.pairs[layer.name], layout, channels[layer.name], self.folded.get(layer.name),
                eps_of(container.kind), container.path,
            )
            for layer in self.layers if layer.name in self.pairs
        }  # fmt: skip
        used = {id(module) for module in (*self.pairs.values(), *self.folded.values())}
        self.left_out = names_of(module for module in order if id(module) not in used)

    def _add_by_order(self):
        """The layers without a module get the modules without a layer, each kind in its own order."""
        used = {id(module) for module in self.pairs.values()}
        scales = {scale.name: norm.name for norm, scale in _scaled(self.net) if scale.name not in self.pairs}
        for kinds in _ROWS:
            modules = [m for m in self.order if kind_of_module(m) in kinds and id(m) not in used]
            layers = [layer for layer in self.layers if kind_of_layer(layer) in kinds]
            layers = [layer for layer in layers if layer.name not in self.pairs and layer.name not in scales]
            self.pairs |= {layer.name: module for layer, module in zip(layers, modules, strict=False)}
        self.pairs |= {scale: self.pairs[norm] for scale, norm in scales.items() if norm in self.pairs}

    def _to_fold(self):
        """Batch normalisations without a layer, by the convolution before them in the file."""
        users: dict[int, list[LayerDef]] = {}
        for layer in self.layers:
            if layer.name in self.pairs:
                users.setdefault(id(self.pairs[layer.name]), []).append(layer)
        folded = {}
        for before, module in zip([None, *self.order], self.order, strict=False):
            if kind_of_module(module) != NORM:
                continue
            here = users.get(id(module), [])
            above = users.get(id(before), [])
            surplus = [module.tensors[role] for role in ("weight", "bias") if role in module.tensors]
            after_filters = before is not None and kind_of_module(before) == FILTERS
            if not here and not after_filters:
                raise Misfit(f"there is no BatchNorm in the prototxt for the tensors of {module.name}")
            if not here and above:  # else its filters are left out, too
                folded[above[0].name] = module
            elif here and surplus and not any(layer.type == "Scale" or takes_factor(layer) for layer in here):
                raise Misfit(f"the tensor {surplus[0].name} needs a Scale after the layer '{here[0].name}'")
        return folded

    def _check_missing(self):
        for layer in self.missing:
            if kind_of_layer(layer) != MATRIX and needs_tensors(layer):
                shapes = [f"{m.weight.name} {m.weight.shape}" for m in self.order if m.weight]
                seen = ", ".join(shapes[:_MOST_SHOWN]) + ", ..." * (len(shapes) > _MOST_SHOWN)
                raise Misfit(f"there is no tensor for the layer '{layer.name}' ({layer.type}); the file has {seen}")

    def remarks(self):
        """Sentences for the user."""
        remarks = []
        missing = [layer.name for layer in self.missing if needs_tensors(layer)]
        if missing:
            remarks.append(f"the file has no weights for {', '.join(missing)}")
        if self.folded:
            remarks.append(folding_remark(self.container.kind))
        return remarks


def _by_name(layers: list[LayerDef], order: list[Module]) -> dict[str, Module]:
    """Modules by layer name: those of the whole name, then those whose last parts agree with one layer's alone."""
    named: dict[str, list[Module]] = {}
    for module in order:
        for name in _endings(module.name):
            named.setdefault(name, []).append(module)
    pairs = {}
    for whole in (True, False):
        used = {id(module) for module in pairs.values()}
        free = [layer for layer in layers if layer.name not in pairs]
        claims: dict[int, list[tuple[LayerDef, Module]]] = {}
        for layer in free:
            for name in _endings(layer.name)[: 1 if whole else None]:
                found = [module for module in named.get(name, ()) if id(module) not in used and _agree(layer, module)]
                found = [module for module in found if not whole or _endings(module.name)[0] == name]
                if len(found) == 1:
                    claims.setdefault(id(found[0]), []).append((layer, found[0]))
                    break
        pairs |= {layer.name: module for ((layer, module), *others) in claims.values() if not others}
    return pairs


def _endings(name):
    """The whole name, and what is after each point and slash of it: "a/b.c" → a_b_c, b_c, c."""
    parts = [re.sub(r"[^0-9a-z]+", "_", part) for part in re.split(r"[./]", name.lower()) if part]
    return ["_".join(parts[start:]) for start in range(len(parts))]


def _agree(layer, module):
    return any(kind_of_layer(layer) in row and kind_of_module(module) in row for row in _ROWS)


def _scaled(net: NetDef) -> Iterator[tuple[LayerDef, LayerDef]]:
    """Pairs of a BatchNorm and the Scale that reads it."""
    last: dict[str, LayerDef] = {}
    for layer in net.layers:
        before = last.get(layer.bottoms[0]) if layer.bottoms else None
        if layer.type == "Scale" and len(layer.bottoms) == 1 and before is not None and before.type == "BatchNorm":
            yield before, layer
        last.update(dict.fromkeys(layer.tops, layer))


def _conversion(found, training):
    net = found.net
    makers = _folded(net, found, training) if training else found.makers
    path = found.container.path
    net = replace(net, weights=LazyWeights(makers), weights_source=path)
    of_pictures = border_remark(training) if training else [_AS_TRAINED] * (found.container.kind != "Caffe")
    remarks = (*found.container.remarks, *found.remarks(), *of_pictures)
    return Conversion(
        net, f"the network of {net.source}", fingerprint_of(net), training, "as stated", found.left_out, remarks,
        proto=None if training else net.source,
    )  # fmt: skip


def _folded(net, found, training: Training):
    """The functions with those of the first layers changed for Caffe's pictures."""
    makers = found.makers
    changed = {}
    for layer in net.layers:
        if not set(layer.bottoms) & set(net.inputs):
            continue
        if layer.type != "Convolution" or layer.params.get("group", 1) != 1:
            raise ModelError(
                f"{net.source}: the layer '{layer.name}' ({layer.type}) reads the picture, and only a Convolution "
                "takes up another training; leave --training, --channels, --mean and --std to 'cvstyle run'"
            )
        first = makers[layer.name]()
        if first[0].shape[1] != len(training.mean):
            raise ModelError(
                f"{net.source}: the layer '{layer.name}' reads pictures of {first[0].shape[1]} channels, and a "
                "training is of three; leave --training, --channels, --mean and --std to 'cvstyle run'"
            )
        check_stated(training, found.container, (*first, None)[:2])
        read = lambda name=layer.name: fold_input(*(*makers[name](), None)[:2], training)  # noqa: E731
        if layer.params.get("bias_term", True):
            changed[layer.name] = lambda read=read: list(read())
        else:
            norm = _norm_after(net, layer)
            changed[layer.name] = lambda read=read: [read()[0]]
            if norm.name in makers:
                changed[norm.name] = partial(_moved, norm, makers[norm.name], read)
    return {**makers, **changed}


def _moved(norm, blobs, read):
    return with_moved_input(norm, blobs(), read()[1])


def _norm_after(net, layer):
    """The batch normalisation that reads a convolution without a bias, which takes up the shift instead."""
    for other in net.layers:
        if other.type in TYPES and other.bottoms == layer.tops:
            return other
    raise ModelError(
        f"{net.source}: the layer '{layer.name}' needs a bias for another mean; take its bias_term: false out"
    )
