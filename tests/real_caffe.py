"""Small nets that real Caffe has run: test_real_caffe.py holds cvstyle against the numbers in reference/real_caffe.npz.

A row of `NETS` is a net without its input "data", the shape of that input, and the shapes of the weights by layer.
Pictures, weights and gradients at the last layer follow from seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from cvstyle.caffe import caffe_pb2

WRONG = "Caffe's gradient is not that of its output"
"""A reason to hold the output alone: Caffe's backward pass reads what was overwritten, omits a factor, or stops."""
NONE = "Caffe has no backward pass"


class Net(NamedTuple):
    """name; text of the layers; shape of the picture; layer -> shapes of its blobs; why no gradient is compared; fork.

    low, high: bounds of the picture's values.
    """

    name: str
    layers: str
    shape: tuple[int, ...] = (1, 4, 5, 6)
    blobs: Mapping[str, list[tuple[int, ...]]] = MappingProxyType({})
    no_gradient: str = ""
    fork: str = ""
    low: float = -2
    high: float = 2

    @property
    def text(self) -> str:
        return 'input: "data"' + "".join(f" input_dim: {n}" for n in self.shape) + "\n" + self.layers

    def picture(self) -> np.ndarray:
        return np.random.RandomState(1).uniform(self.low, self.high, self.shape).astype("float32").astype("float64")

    def diff(self, shape) -> np.ndarray:
        return np.random.RandomState(2).uniform(-1, 1, shape)

    def weights(self) -> dict[str, list[np.ndarray]]:
        """Layer -> blobs in 0.25..1.25: variances, factors and slopes too."""
        rng = np.random.RandomState(3)
        return {name: [rng.uniform(0.25, 1.25, s).astype("float32") for s in of] for name, of in self.blobs.items()}

    def caffemodel(self) -> bytes:
        model = caffe_pb2.NetParameter()
        for name, blobs in self.weights().items():
            layer = model.layer.add(name=name)
            for values in blobs:
                blob = layer.blobs.add(data=values.ravel().tolist())
                blob.shape.dim.extend(values.shape)
        return model.SerializeToString()


def layer(kind, params="", bottoms="data", name="x", tops=None, **more):
    """The text of a V2 layer, whose top has its name. params: fields of the parameter message of its kind."""
    message = MESSAGES.get(kind, kind.lower() + "_param")
    ends = [f'bottom: "{b}"' for b in bottoms.split()] + [f'top: "{t}"' for t in (tops or name).split()]
    fields = "".join(f" {key}: {value}" for key, value in more.items())
    params = f" {message} {{ {params} }}" if params else ""
    return f'layer {{ name: "{name}" type: "{kind}" {" ".join(ends)}{params}{fields} }}\n'


MESSAGES = {
    "BatchNorm": "batch_norm_param", "DepthwiseConvolution": "convolution_param", "Deconvolution": "convolution_param",
    "InnerProduct": "inner_product_param", "Normalize": "norm_param", "ShuffleChannel": "shuffle_channel_param",
}  # fmt: skip
BN = [(4,), (4,), (1,)]
FILTERS = [(4, 4, 3, 3), (4,)]
BY_CHANNEL = [(1, 4, 1, 1)]
SIX = (1, 6, 4, 3)


def conv(name, bottoms="data", params="num_output: 4 kernel_size: 3 pad: 1", **more):
    return layer("Convolution", params, bottoms, name, **more)


GATE = layer("Pooling", "pool: AVE global_pooling: true", "data", "g")
FLAT_GATE = GATE + layer("Flatten", "", "g", "f")
TWO = conv("a") + layer("TanH", "", "data", "b")
MASKED = layer("Pooling", "kernel_size: 2 stride: 2", "data", "p", "p mask")
PADDING = 'layers { layer { name: "%s" type: "%s" %s } bottom: "%s" top: "%s" }\n'

NETS = [
    # Statistics
    Net("BatchNorm stored", layer("BatchNorm"), blobs={"x": BN}),
    Net("BatchNorm of the map", layer("BatchNorm", "use_global_stats: false")),
    Net("BatchNorm of the map eps", layer("BatchNorm", "use_global_stats: false eps: 0.5")),
    Net("BatchNorm of the map, blobs unread", layer("BatchNorm", "use_global_stats: false"), blobs={"x": BN}),
    Net("BatchNorm of the map in a chain",
        conv("a") + layer("BatchNorm", "use_global_stats: false", "a", "bn", "a")
        + layer("Scale", "bias_term: true", "a", "s", "a") + layer("ReLU", "", "a", "r", "a") + conv("x", "a"),
        blobs={"a": FILTERS, "s": [(4,), (4,)], "x": FILTERS}),
    Net("MVN", layer("MVN")),
    Net("MVN across channels", layer("MVN", "across_channels: true")),
    Net("MVN mean alone", layer("MVN", "normalize_variance: false")),
    Net("MVN mean alone across channels", layer("MVN", "normalize_variance: false across_channels: true")),
    Net("MVN eps", layer("MVN", "eps: 0.25"), no_gradient=WRONG),
    Net("BN of SegNet, of the map", layer("BN", "bn_mode: LEARN"), blobs={"x": BY_CHANNEL * 2}, fork="seg"),
    Net("BN of SegNet, mode unset", layer("BN"), blobs={"x": BY_CHANNEL * 2}, fork="seg"),
    Net("BN of SegNet, inference", layer("BN", "bn_mode: INFERENCE"), blobs={"x": BY_CHANNEL * 2}, fork="seg"),
    Net("BN of PSPNet", layer("BN", "frozen: true eps: 0.1"), blobs={"x": BY_CHANNEL * 4}, fork="psp"),
    Net("BN of PSPNet, not frozen", layer("BN", "momentum: 0.95"), blobs={"x": BY_CHANNEL * 4}, fork="psp",
        no_gradient=WRONG),
    Net("Normalize", layer("Normalize"), blobs={"x": [()]}),
    Net("Normalize by place", layer("Normalize", "across_spatial: false"), blobs={"x": [()]}),
    Net("Normalize by channel", layer("Normalize", "across_spatial: false channel_shared: false"),
        blobs={"x": [(4,)]}, no_gradient=WRONG),
    Net("LRN", layer("LRN", "local_size: 3 alpha: 2 k: 2"), SIX),
    Net("LRN within channel", layer("LRN", "norm_region: WITHIN_CHANNEL local_size: 3 alpha: 5 k: 3")),
    # Elements
    Net("BNLL", layer("BNLL")), Net("Swish", layer("Swish")), Net("Swish beta", layer("Swish", "beta: -0.5")),
    Net("Clip", layer("Clip", "min: -0.5 max: 0.75")),
    Net("Clip in place", conv("a") + layer("Clip", "min: 2 max: 4", "a", "c", "a") + conv("x", "a"),
        blobs={"a": FILTERS, "x": FILTERS}, no_gradient=WRONG),
    Net("Threshold", layer("Threshold", "threshold: 0.5"), no_gradient=NONE),
    Net("ReLU6", layer("ReLU6"), low=-4, high=9), Net("ReLU6 slope", layer("ReLU6", "negative_slope: 0.1"), high=8),
    Net("ELU", layer("ELU", "alpha: 0.5")), Net("Power", layer("Power", "power: 3 scale: 0.5 shift: 3")),
    Net("Exp", layer("Exp", "base: 2 scale: 0.5 shift: 1")), Net("Log", layer("Log", "base: 2 shift: 3")),
    Net("PReLU", layer("PReLU"), blobs={"x": [(4,)]}),
    # Poolings
    Net("mask", MASKED + layer("Power", "scale: 0.5", "mask"), (1, 3, 5, 6), no_gradient=NONE),
    Net("mask of ties", layer("ReLU", "", "data", "r") + layer("Pooling", "kernel_size: 3 stride: 2 pad: 1", "r", "p",
        "p mask") + layer("Power", "", "mask"), (1, 3, 7, 6), no_gradient=NONE),
    Net("pool beside its mask", layer("Pooling", "kernel_size: 3 stride: 2", "data", "x", "x mask")),
    Net("Upsample by a mask", MASKED + layer("Upsample", "scale: 2", "p mask"), (1, 3, 6, 4)),
    Net("Upsample to a size", MASKED + layer("Upsample", "upsample_h: 5 upsample_w: 6", "p mask"), (1, 3, 5, 6),
        no_gradient=WRONG),
    Net("Upsample pad_out", MASKED + layer("Upsample", "scale: 2 pad_out_h: true", "p mask"), (1, 2, 5, 4)),
    Net("Upsample without a mask", layer("Upsample", "scale: 2"), (1, 2, 3, 4), fork="yolo"),
    Net("Pooling AVE pad", layer("Pooling", "pool: AVE kernel_size: 3 stride: 2 pad: 1")),
    Net("Pooling round_mode", layer("Pooling", "kernel_size: 3 stride: 2 round_mode: FLOOR"), (1, 2, 6, 8)),
    Net("SPP", layer("SPP", "pyramid_height: 3"), (1, 2, 9, 13)),
    Net("SPP of means", layer("SPP", "pyramid_height: 2 pool: AVE"), (1, 3, 7, 6)),
    # Places
    Net("Permute", layer("Permute", "order: 0 order: 2 order: 3 order: 1")),
    Net("Permute, order of two", layer("Permute", "order: 0 order: 3")),
    Net("Tile", layer("Tile", "axis: 2 tiles: 2"), (1, 3, 4, 3)),
    Net("Tile along channels", layer("Tile", "tiles: 3"), (1, 3, 4, 3)),
    Net("ShuffleChannel", layer("ShuffleChannel", "group: 3"), SIX),
    Net("Interp to a size", layer("Interp", "height: 9 width: 4"), (1, 2, 5, 6)),
    Net("Interp zoom", layer("Interp", "zoom_factor: 2"), (1, 2, 5, 4)),
    Net("Interp shrink", layer("Interp", "shrink_factor: 2"), (1, 2, 7, 6)),
    Net("Interp shrink and zoom", layer("Interp", "shrink_factor: 2 zoom_factor: 3"), (1, 2, 5, 6)),
    Net("Interp cut", layer("Interp", "zoom_factor: 2 pad_beg: -1 pad_end: -2"), (1, 2, 7, 6)),
    Net("Interp to one", layer("Interp", "height: 1 width: 4"), (1, 2, 5, 6)),
    Net("Reshape", layer("Reshape", "axis: 1 num_axes: 2 shape { dim: 2 dim: -1 }")),
    Net("Slice", layer("Slice", "axis: 2 slice_point: 1 slice_point: 4", "data", "s", "p q r")
        + layer("Concat", "axis: 2", "q p")),
    Net("Crop", layer("Pooling", "kernel_size: 3", "data", "p")
        + layer("Crop", "axis: 2 offset: 1 offset: 2", "data p")),
    Net("Reorg", layer("Reorg", "stride: 2"), (1, 4, 4, 6), fork="yolo", no_gradient=WRONG),
    Net("Reorg in reverse", layer("Reorg", "stride: 2 reverse: true"), (1, 8, 3, 2), fork="yolo", no_gradient=WRONG),
    # Joins
    Net("Axpy", FLAT_GATE + conv("a") + layer("Axpy", "", "f a data"), blobs={"a": FILTERS}),
    Net("Axpy of maps", GATE + conv("a") + layer("Axpy", "", "g a data"), blobs={"a": FILTERS}),
    Net("Eltwise", TWO + layer("Eltwise", "coeff: 1 coeff: -2 coeff: 0.5", "a b data"), blobs={"a": FILTERS}),
    Net("Eltwise product", TWO + layer("Eltwise", "operation: PROD", "a b a"), blobs={"a": FILTERS}),
    Net("Scale by a bottom", FLAT_GATE + layer("Scale", "axis: 0 bias_term: true", "data f"), blobs={"x": [(1, 4)]}),
    Net("Bias along an axis", layer("Bias", "axis: 2 num_axes: 2"), blobs={"x": [(5, 6)]}),
    # Filters
    Net("Convolution of two", layer("TanH", "", "data", "b") + layer("Convolution", "num_output: 2 kernel_size: 3",
        "data b", "c", "p q") + layer("Eltwise", "operation: PROD", "p q"), blobs={"c": [(2, 4, 3, 3), (2,)]}),
    Net("Convolution of two, second read", layer("TanH", "", "data", "b") + layer("Convolution",
        "num_output: 2 kernel_size: 2 bias_term: false", "data b", "c", "p q") + layer("Sigmoid", "", "q"),
        blobs={"c": [(2, 4, 2, 2)]}),
    Net("Deconvolution of two", layer("TanH", "", "data", "b") + layer("Deconvolution",
        "num_output: 1 kernel_size: 3 stride: 2", "data b", "c", "p q") + layer("Eltwise", "operation: PROD", "p q"),
        (1, 4, 3, 4), {"c": [(4, 1, 3, 3), (1,)]}),
    Net("DepthwiseConvolution", layer("DepthwiseConvolution", "num_output: 4 kernel_size: 3 group: 4 pad: 1"),
        blobs={"x": [(4, 1, 3, 3), (4,)]}),
    Net("Convolution dilated, grouped", conv("x", params="num_output: 6 kernel_size: 3 dilation: 2 pad: 2 group: 2"),
        blobs={"x": [(6, 2, 3, 3), (6,)]}),
    Net("InnerProduct along the last axis", layer("InnerProduct", "num_output: 3 axis: -1"),
        blobs={"x": [(3, 6), (3,)]}),
    Net("InnerProduct transposed, axis 2", layer("InnerProduct", "num_output: 2 axis: 2 transpose: true"),
        blobs={"x": [(30, 2), (2,)]}),
    # Numbers of a map
    Net("Softmax of boxes", layer("Reshape", "shape { dim: 0 dim: -1 dim: 3 }", "data", "r") + layer("Softmax",
        "axis: 2", "r")),
    Net("Softmax along the last axis", layer("Softmax", "axis: -1")),
    Net("Reduction SUM", layer("Reduction", "axis: 2 coeff: 0.5")),
    Net("Reduction ASUM", layer("Reduction", "operation: ASUM axis: 3")),
    Net("Reduction SUMSQ", layer("Reduction", "operation: SUMSQ axis: -1")),
    Net("Reduction MEAN", layer("Reduction", "operation: MEAN axis: 2")),
    Net("Reduction before others", layer("Reduction", "operation: SUMSQ axis: 2", "data", "r")
        + layer("InnerProduct", "num_output: 3", "r"), blobs={"x": [(3, 4), (3,)]}),
    Net("ArgMax", layer("ArgMax", "axis: 1"), no_gradient=NONE),
    Net("ArgMax of all", layer("ArgMax", "top_k: 3"), no_gradient=NONE),
    Net("ArgMax with values", layer("ArgMax", "top_k: 2 out_max_val: true"), no_gradient=NONE),
    Net("ArgMax of ties", layer("ReLU", "", "data", "r") + layer("ArgMax", "axis: 2 top_k: 2", "r"), no_gradient=NONE),
    # Rules
    Net("two layers of one name", conv("a") + layer("Pooling", "kernel_size: 3", "data", "p")
        + layer("Crop", "axis: 2 offset: 1", "a p", "crop", "c1") + layer("Pooling", "kernel_size: 2", "c1", "q")
        + layer("Crop", "axis: 2", "c1 q", "crop", "c2") + layer("Eltwise", "", "c2 q"), blobs={"a": FILTERS}),
    Net("a second input of other channels",
        'input: "map" input_dim: 1 input_dim: 7 input_dim: 2 input_dim: 2\n' + conv("x"), blobs={"x": FILTERS}),
    Net("V0 padding", PADDING % ("pad", "padding", "pad: 2", "data", "pad")
        + PADDING % ("x", "conv", "num_output: 2 kernelsize: 3 stride: 2", "pad", "x"),
        blobs={"x": [(2, 4, 3, 3), (2,)]}),
    Net("V1", 'layers { name: "x" type: MVN bottom: "data" top: "x" mvn_param { across_channels: true } }\n'),
    Net("phases", conv("a", include="{ phase: TRAIN }", params="num_output: 9 kernel_size: 1")
        + conv("a", exclude="{ phase: TRAIN }") + layer("ReLU", "", "a", include="{ not_stage: 'deploy' }"),
        blobs={"a": FILTERS}),
]  # fmt: skip

REFUSED = [
    Net("fewer blobs", layer("BatchNorm"), blobs={"x": BN[:2]}),
    Net("more blobs", conv("x"), blobs={"x": [*FILTERS, (4,)]}),
    Net("blobs of a layer without any", conv("x") + layer("ReLU", "", "x", "r", "x"),
        blobs={"x": FILTERS, "r": [(4,)]}),
    Net("a bias without a bias_term", conv("x", params="num_output: 4 kernel_size: 3 bias_term: false"),
        blobs={"x": FILTERS}),
    Net("a blob of two layers", layer("ReLU", "", "data", "a", "x") + layer("TanH")),
    Net("an unknown bottom", layer("ReLU", "", "nothing")),
    Net("a circle", layer("ReLU", "", "x")),
    Net("ArgMax of more than there are", layer("ArgMax", "axis: 1 top_k: 5")),
    Net("ArgMax of none", layer("ArgMax", "top_k: 0")),
    Net("Permute twice the same", layer("Permute", "order: 0 order: 0")),
    Net("Permute an unknown axis", layer("Permute", "order: 0 order: 4")),
    Net("Tile without tiles", layer("Tile", "axis: 1")),
    Net("Interp without a size", layer("Interp", "height: 5")),
    Net("Interp padded", layer("Interp", "zoom_factor: 2 pad_beg: 1")),
    Net("Axpy of two", layer("Axpy", "", "data data")),
    Net("Axpy of wrong factors", layer("Axpy", "", "data data data")),
    Net("Convolution of two, one top", conv("x", "data data")),
    Net("Pooling AVE with a mask", layer("Pooling", "pool: AVE kernel_size: 2", tops="x mask")),
    Net("Reduction of an unknown axis", layer("Reduction", "axis: 4")),
    Net("ShuffleChannel of no divisor", layer("ShuffleChannel", "group: 3")),
    Net("Crop beyond the end", layer("Pooling", "kernel_size: 2", "data", "p") + layer("Crop", "offset: 3", "data p")),
    Net("a layer of an unknown type", layer("Unheard")),
]  # fmt: skip
"""Nets that Caffe does not take: net or weights."""
