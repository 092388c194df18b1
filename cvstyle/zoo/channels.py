"""Numbers of channels in a net, as far as they follow without the layers' code."""

from __future__ import annotations

from ..netdef import NetDef

_FILTERED = ("Convolution", "Deconvolution", "ConvolutionDepthwise", "DepthwiseConvolution", "InnerProduct")
_SAME = (
    "ReLU", "ReLU6", "PReLU", "ELU", "Sigmoid", "TanH", "AbsVal", "Power", "Exp", "Log", "BNLL", "Swish", "Clip",
    "Pooling", "LRN", "MVN", "BatchNorm", "BN", "Normalize", "Scale", "Bias", "Dropout", "SpatialDropout", "Split",
    "Eltwise", "Crop", "Softmax", "Interp", "Upsample", "ShuffleChannel", "Threshold", "Flatten", "Mish", "SeLu",
)  # fmt: skip


def channels_of(net: NetDef) -> dict[str, int | None]:
    """Channels of each layer's first input, by layer name; None where unknown. A flattened map keeps its own."""
    blobs = {name: shape[1] if shape and len(shape) > 1 else 3 for name, shape in net.inputs.items()}
    found = {}
    for layer in net.layers:
        inputs = [blobs.get(bottom) for bottom in layer.bottoms]
        found[layer.name] = inputs[0] if inputs else None
        outputs = None
        if layer.type in _FILTERED:
            outputs = layer.params.get("num_output")
        elif layer.type in _SAME:
            outputs = found[layer.name]
        elif layer.type == "Concat" and layer.params.get("axis", 1) == 1 and None not in inputs:
            outputs = sum(inputs)
        blobs.update(dict.fromkeys(layer.tops, outputs))
    return found
