"""Upgrade of layers from V0 to V1 to V2, by the rules of Caffe's upgrade_net_proto_text."""

from __future__ import annotations

from .caffe_pb2 import LayerParameter, NetParameter, V1LayerParameter
from .errors import model_error

_IRREGULAR = {  # V1 types; all others follow the pattern of CONTRASTIVE_LOSS, ContrastiveLoss
    "NONE": "", "ABSVAL": "AbsVal", "ARGMAX": "ArgMax", "BNLL": "BNLL", "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output", "LRN": "LRN", "MVN": "MVN", "RELU": "ReLU", "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}  # fmt: skip
V1_TYPES = {
    name: _IRREGULAR.get(name, "".join(word.capitalize() for word in name.split("_")))
    for name in V1LayerParameter.LayerType.keys()  # noqa: SIM118 (protobuf's enum, no dict)
}
"""V1 enum name -> V2 type."""

_FOREIGN_TYPES = {
    "BATCH_NORM": "BatchNorm", "CROP": "Crop", "INTERP": "Interp", "NORMALIZE": "Normalize", "PERMUTE": "Permute",
    "PRELU": "PReLU", "RELU6": "ReLU6", "RESHAPE": "Reshape", "SCALE": "Scale", "UPSAMPLE": "Upsample",
}  # fmt: skip
"""V1 names of forks -> V2 type; all others keep theirs, as BN, ELU and SPP do."""

V0_TYPES = {
    "conv": "CONVOLUTION", "images": "IMAGE_DATA", "innerproduct": "INNER_PRODUCT", "pool": "POOLING",
    **{
        name: name.upper()
        for name in (
            "accuracy", "bnll", "concat", "data", "dropout", "euclidean_loss", "flatten", "hdf5_data", "hdf5_output",
            "im2col", "infogain_loss", "lrn", "multinomial_logistic_loss", "relu", "sigmoid", "softmax", "softmax_loss",
            "split", "tanh", "window_data",
        )
    },
}  # fmt: skip
"""V0 type -> V1 enum name."""

V0_FIELDS = {
    "conv": ("convolution_param", ("num_output", "biasterm", "pad", "kernelsize", "group", "stride")),
    "innerproduct": ("inner_product_param", ("num_output", "biasterm")),
    "pool": ("pooling_param", ("pool", "pad", "kernelsize", "stride")),
    "dropout": ("dropout_param", ("dropout_ratio",)),
    "lrn": ("lrn_param", ("local_size", "alpha", "beta", "k")),
    "concat": ("concat_param", ("concat_dim",)),
    **dict.fromkeys(("data", "images", "window_data"), ("transform_param", ("scale", "meanfile"))),
}
"""V0 type -> (V1 parameter message, its fields by their V0 names). Other fields of a V0 layer have no effect."""

V1_FIELDS = {"biasterm": "bias_term", "kernelsize": "kernel_size", "meanfile": "mean_file"}
"""V0 field -> V1 field, if the names differ."""

_OLD_TRANSFORMATIONS = ("data_param", "image_data_param", "window_data_param")  # now transform_param
_V0_REPEATED = {("conv", "pad"), ("conv", "kernelsize"), ("conv", "stride")}  # V1 has one per axis


def upgraded_layers(net: NetParameter, source: str) -> list[LayerParameter]:
    """The layers of a net of any form as V2 messages, in file order. Raises ModelError for a mixture of forms."""
    if net.layer and net.layers:
        raise model_error(f"{source}: mixes `layer` (V2) and `layers` (V1) entries; write all layers in one form")
    if net.layer:
        return list(net.layer)
    return [_from_v1(layer) for layer in _without_v0(net.layers, source)]


def _without_v0(layers, source: str) -> list[V1LayerParameter]:
    """V1 layers; V0 padding layers are folded into the convolutions and poolings that they feed."""
    result = []
    padded = {}  # output blob -> padding layer
    for old in layers:
        if not old.HasField("layer"):
            result.append(old)
        elif old.layer.type != "padding":
            result.append(_from_v0(old, padded, source))
        elif len(old.bottom) != 1 or len(old.top) != 1:
            raise model_error(f"{source}: padding layer '{old.layer.name}' must have one bottom and one top")
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
    message, names = V0_FIELDS.get(nested.type, ("", ()))
    for field, value in nested.ListFields():
        if field.name not in names:
            continue
        params = getattr(new, message)
        name = V1_FIELDS.get(field.name, field.name)
        if (nested.type, field.name) in _V0_REPEATED:
            getattr(params, name).append(value)
        else:
            setattr(params, name, value)
    for index, bottom in enumerate(old.bottom):
        if bottom not in padded:
            continue
        if nested.type not in ("conv", "pool") or len(old.bottom) != 1:
            raise model_error(
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
    foreign = old.cvstyle_foreign_type
    layer_type = _FOREIGN_TYPES.get(foreign, foreign) or V1_TYPES[V1LayerParameter.LayerType.Name(old.type)]
    new = LayerParameter(name=old.name, type=layer_type, bottom=old.bottom, top=old.top)
    new.include.extend(old.include)
    new.exclude.extend(old.exclude)
    for shared in old.param:
        new.param.add(name=shared)
    old_fields = []
    for field, value in old.ListFields():
        if field.name in _OLD_TRANSFORMATIONS:
            old_fields += value.ListFields()
        elif field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
    for field, value in old_fields:
        setattr(new.transform_param, field.name, value)
    return new
