"""A module's tensors as the blobs of one of Caffe's layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from ..netdef import LayerDef
from .modules import Module, statistics, values
from .norms import TYPES, norm_blobs
from .recognise import axes_of, in_oihw
from .training import fold_normalisation

FILTERS = "filters"
MATRIX = "matrix"
NORM = "norm"
VECTOR = "vector"
_CONVOLUTIONS = ("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution")
_KINDS = {
    **dict.fromkeys((*_CONVOLUTIONS, "Deconvolution"), FILTERS), "InnerProduct": MATRIX, **dict.fromkeys(TYPES, NORM),
    **dict.fromkeys(("Scale", "Bias", "PReLU", "Normalize"), VECTOR),
}  # fmt: skip


_SHARED = {"PReLU": False, "Normalize": True}  # whether all channels have one number, unless channel_shared says it


class Misfit(Exception):
    """Tensors that do not belong to a layer; the message says which."""


def kind_of_layer(layer: LayerDef) -> str | None:
    """The kind of a layer's weights; None for a layer without."""
    kind = _KINDS.get(layer.type)
    return None if kind == VECTOR and len(layer.bottoms) > 1 else kind


def kind_of_module(module: Module) -> str | None:
    """The kind of a module's weights; None for other tensors."""
    if module.normalises:
        return NORM
    if module.weight is None:
        return None
    shape = module.weight.shape
    if len(shape) in (2, 4):
        return {2: MATRIX, 4: FILTERS}[len(shape)]
    return VECTOR if math.prod(shape) == max(shape, default=1) else None


def blobs_of(
    layer: LayerDef, module: Module, layout: str, inputs: int | None, norm: Module | None, eps: float, where: str
) -> Callable[[], list[np.ndarray]]:
    """A function that reads a layer's blobs, float32; shapes are checked here. Raises Misfit.

    layout: axes of the file's filters, "oihw" or "hwio", which has matrices (inputs, outputs). inputs: channels of the
    layer's input, None if unknown. norm: a batch normalisation to fold into a convolution. eps: that of
    normalisations in the file. where: the file.
    """
    kind = kind_of_layer(layer)
    if kind == NORM:
        channels = math.prod(module.tensors["mean"].shape)
        if inputs not in (None, channels):
            raise _misfit(module.tensors["mean"], layer, f"its input has {inputs} channels")
        return partial(norm_blobs, layer, module, channels, eps, where)
    if kind == VECTOR:
        return _vectors(layer, module, inputs, where)
    read = _filters(layer, module, layout, inputs, where) if kind == FILTERS else _matrix(
        layer, module, layout, inputs, where)  # fmt: skip
    bias = module.tensors.get("bias")
    outputs = layer.params.get("num_output", 0)
    if bias is not None and math.prod(bias.shape) != outputs:
        raise _misfit(bias, layer, f"num_output is {outputs}")
    if (bias is not None or norm) and not layer.params.get("bias_term", True):
        raise Misfit(
            f"the layer '{layer.name}' ({layer.type}) has bias_term: false, and "
            f"{bias.name if bias is not None else norm.name} needs a bias; take this line out of the prototxt"
        )
    return partial(_with_bias, layer, read, bias, norm, eps, where)


def _with_bias(layer, read, bias, norm, eps, where):
    weight = read()
    shift = None if bias is None else values(bias, where).reshape(-1)
    if norm:
        return list(fold_normalisation(weight, shift, statistics(norm, len(weight), where), eps))
    if not layer.params.get("bias_term", True):
        return [weight]
    return [weight, np.zeros(layer.params["num_output"], np.float32) if shift is None else shift]


def _vectors(layer, module, inputs, where):
    """Blobs of Scale, Bias, PReLU and Normalize; a Scale after a BatchNorm gets scale and shift of its module."""
    wanted = {"Scale": ["weight", "bias"] if layer.params.get("bias_term", False) else ["weight"],
              "Bias": ["bias" if "bias" in module.tensors else "weight"], "PReLU": ["weight"],
              "Normalize": ["weight"]}[layer.type]  # fmt: skip
    surplus = [module.tensors[role] for role in ("weight", "bias") if role in module.tensors and role not in wanted]
    if surplus and (layer.type != "Scale" or not module.normalises):
        raise _misfit(surplus[0], layer, "it has no place for it")
    if surplus:
        raise Misfit(
            f"the layer '{layer.name}' (Scale) has no bias_term, and {surplus[0].name} needs one; write bias_term: true"
        )
    tensor = next(iter(module.tensors.values()))
    found = math.prod(tensor.shape)
    size = _size_of_vector(layer, inputs) or found
    repeats = found == 1 and layer.type in _SHARED  # PyTorch's PReLU has one number unless told otherwise
    if size != found and not repeats:
        raise _misfit(tensor, layer, f"it takes {size} values")
    plain = {"weight": 1.0, "bias": 0.0}

    def read():
        return [
            np.resize(values(module.tensors[role], where), size) if role in module.tensors
            else np.full(size, plain[role], np.float32)
            for role in wanted
        ]  # fmt: skip

    return read


def _size_of_vector(layer, inputs):
    """The number of values in a layer's blob; None where unknown."""
    if layer.type in _SHARED:
        return 1 if layer.params.get("channel_shared", _SHARED[layer.type]) else inputs
    one_per_channel = layer.params.get("axis", 1) == 1 and layer.params.get("num_axes", 1) == 1
    return inputs if one_per_channel else None


def _filters(layer, module, layout, inputs, where):
    tensor = module.weight
    outputs = layer.params.get("num_output", 0)
    kernel = _kernel(layer)
    group = layer.params.get("group", outputs if layer.type == "ConvolutionDepthwise" else 1)
    if len(tensor.shape) == 2:  # fully connected elsewhere
        matrix = _matrix(layer, module, layout, inputs, where)
        shape = (outputs, math.prod(tensor.shape) // max(outputs, 1) // math.prod(kernel), *kernel)
        if math.prod(shape) != math.prod(tensor.shape):
            raise _misfit(tensor, layer, f"its filters are {_size(kernel)}")
        return lambda: matrix().reshape(shape)
    by_depth = layout == "hwio" and group > 1 and tensor.shape[2:] == (group, outputs // group)  # Keras 3: any name
    if "depthwise" in module.tensors or by_depth:  # (height, width, inputs, multiplier)
        height, width, channels, multiplier = tensor.shape
        if (height, width) != kernel or channels * multiplier != outputs or group != channels:
            raise _misfit(tensor, layer, f"it has {outputs} filters of {_size(kernel)} in {group} groups")
        return lambda: values(tensor, where).transpose(2, 3, 0, 1).reshape(outputs, 1, height, width)
    shape = in_oihw(tensor.shape, layout)
    # A transposed convolution has its inputs first, here and in Caffe.
    expected = (outputs, None if inputs is None else inputs // group)
    if layer.type == "Deconvolution":
        expected = (inputs, outputs // group)
    if shape[2:] != kernel or any(n not in (None, m) for n, m in zip(expected, shape)):
        wanted = "×".join("?" if n is None else str(n) for n in (*expected, *kernel))
        raise _misfit(tensor, layer, f"it has filters of {wanted} (outputs, inputs, height, width)")
    return lambda: values(tensor, where).transpose(axes_of(layout))


def _matrix(layer, module, layout, inputs, where):
    """The matrix (outputs, inputs) of a fully connected layer; hwio files have its inputs in the order HWC."""
    tensor = module.weight
    outputs = layer.params.get("num_output", 0)
    if len(tensor.shape) == 4:  # a convolution elsewhere
        if in_oihw(tensor.shape, layout)[0] != outputs:
            raise _misfit(tensor, layer, f"num_output is {outputs}")
        return lambda: _maybe_turned(values(tensor, where).transpose(axes_of(layout)).reshape(outputs, -1), layer)
    rows = tensor.shape[1 if layout == "hwio" else 0]
    columns = math.prod(tensor.shape) // max(rows, 1)
    if rows != outputs:
        raise _misfit(tensor, layer, f"num_output is {outputs}")
    side = 1
    if layout == "hwio" and inputs and columns != inputs:
        side = math.isqrt(columns // inputs)
        if side * side * inputs != columns:
            raise _misfit(tensor, layer, f"{inputs} channels of a square map come before it")

    def read():
        matrix = values(tensor, where)
        if layout == "hwio":
            matrix = matrix.T
            if side > 1:
                matrix = matrix.reshape(outputs, side, side, inputs).transpose(0, 3, 1, 2).reshape(outputs, -1)
        return _maybe_turned(matrix, layer)

    return read


def _maybe_turned(matrix, layer):
    """Caffe's blob is (inputs, outputs) where a layer says transpose."""
    return matrix.T if layer.type == "InnerProduct" and layer.params.get("transpose", False) else matrix


def _kernel(layer):
    """(height, width) of a layer's filters."""
    size = layer.params.get("kernel_size", 0)
    sizes = list(size) if isinstance(size, (list, tuple)) else [size]
    height, width = (sizes * 2)[:2] if len(sizes) == 1 else (*sizes, 0, 0)[:2]
    return layer.params.get("kernel_h", height), layer.params.get("kernel_w", width)


def _misfit(tensor, layer, cause):
    shape = "×".join(map(str, tensor.shape))
    return Misfit(
        f"the tensor {tensor.name} ({shape}) does not fit the layer '{layer.name}' ({layer.type}): {cause}; if the "
        "file has its modules in another order than the prototxt its layers, give the layers the modules' names"
    )


def _size(kernel):
    return "×".join(map(str, kernel))
