"""V0 -> V1 -> V2: the only place that knows the older forms of a layer.

The rules are those of Caffe's own upgrade_net_proto_text.
"""

from __future__ import annotations

from .caffe_pb2 import LayerParameter, NetParameter, V1LayerParameter
from .fault import fault

# V1 enum name -> V2 type.
V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}

# V0 type -> V1 enum name.
V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# V0 type -> (V1 parameter message, {V0 field: V1 field}). Other fields of a V0 layer mean nothing to its type.
V0_FIELDS = {
    "conv": (
        "convolution_param",
        {
            "num_output": "num_output",
            "biasterm": "bias_term",
            "pad": "pad",
            "kernelsize": "kernel_size",
            "group": "group",
            "stride": "stride",
        },
    ),
    "innerproduct": ("inner_product_param", {"num_output": "num_output", "biasterm": "bias_term"}),
    "pool": ("pooling_param", {"pool": "pool", "pad": "pad", "kernelsize": "kernel_size", "stride": "stride"}),
    "dropout": ("dropout_param", {"dropout_ratio": "dropout_ratio"}),
    "lrn": ("lrn_param", {"local_size": "local_size", "alpha": "alpha", "beta": "beta", "k": "k"}),
    "concat": ("concat_param", {"concat_dim": "concat_dim"}),
}
_V0_REPEATED = {("conv", "pad"), ("conv", "kernelsize"), ("conv", "stride")}  # V1 allows one per axis


def upgraded_layers(net: NetParameter, source: str) -> list[LayerParameter]:
    """The layers of a net of any form as V2 messages, in file order. Raises ModelError for a mixture of forms."""
    if net.layer and net.layers:
        raise fault(f"{source}: mixes `layer` (V2) and `layers` (V1) entries; write all layers in one form")
    if net.layer:
        return list(net.layer)
    return [_from_v1(layer) for layer in _without_v0(net.layers, source)]


def _without_v0(layers, source: str) -> list[V1LayerParameter]:
    """V1 layers; V0 padding layers are folded into the convolutions and poolings that they feed."""
    result = []
    padded = {}  # blob -> the padding layer that makes it
    for old in layers:
        if not old.HasField("layer"):
            result.append(old)
        elif old.layer.type != "padding":
            result.append(_from_v0(old, padded, source))
        elif len(old.bottom) != 1 or len(old.top) != 1:
            raise fault(f"{source}: padding layer '{old.layer.name}' must have one bottom and one top")
        for top in old.top:
            padded.pop(top, None)
        if old.layer.type == "padding":
            padded[old.top[0]] = old
    return result


def _from_v0(old: V1LayerParameter, padded: dict[str, V1LayerParameter], source: str) -> V1LayerParameter:
    nested = old.layer
    new = V1LayerParameter(name=nested.name, bottom=old.bottom, top=old.top)
    if nested.type in V0_TYPES:
        new.type = V1LayerParameter.LayerType.Value(V0_TYPES[nested.type])
    else:
        new.cvstyle_foreign_type = nested.type
    message, names = V0_FIELDS.get(nested.type, ("", {}))
    for field, value in nested.ListFields():
        if field.name not in names:
            continue
        if (nested.type, field.name) in _V0_REPEATED:
            getattr(getattr(new, message), names[field.name]).append(value)
        else:
            setattr(getattr(new, message), names[field.name], value)
    for index, bottom in enumerate(old.bottom):
        if bottom not in padded:
            continue
        if nested.type not in ("conv", "pool") or len(old.bottom) != 1:
            raise fault(
                f"{source}: layer '{nested.name}' takes the padding layer '{padded[bottom].layer.name}' as input; "
                "only a convolution or pooling with one input can"
            )
        pad = padded[bottom].layer.pad
        if nested.type == "conv":
            new.convolution_param.pad[:] = [pad]
        else:
            new.pooling_param.pad = pad
        new.bottom[index] = padded[bottom].bottom[0]
    return new


def _from_v1(old: V1LayerParameter) -> LayerParameter:
    name = V1LayerParameter.LayerType.Name(old.type)
    new = LayerParameter(name=old.name, type=old.cvstyle_foreign_type or V1_TYPES[name], bottom=old.bottom, top=old.top)
    new.include.extend(old.include)
    new.exclude.extend(old.exclude)
    for field, value in old.ListFields():
        if field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
    return new
