"""What the tests of cvstyle.caffe share: small nets in text, and protobuf's wire format by hand."""

from __future__ import annotations

import struct

import numpy as np

from cvstyle.netdef import LayerDef, NetDef

# The same net in all three forms. V0 had no padding field of its own at first: a padding layer stands before.
V2_TEXT = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 10 dim: 12 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } engine: CAFFE } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 3 alpha: 0.5 } }
layer { name: "fc" type: "InnerProduct" bottom: "norm1" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""
V1_TEXT = """
name: "small"
input: "data" input_dim: 1 input_dim: 3 input_dim: 10 input_dim: 12
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1 weight_decay: 0
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } engine: CAFFE } }
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers { name: "pool1" type: POOLING bottom: "conv1" top: "pool1"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layers { name: "norm1" type: LRN bottom: "pool1" top: "norm1" lrn_param { local_size: 3 alpha: 0.5 } }
layers { name: "fc" type: INNER_PRODUCT bottom: "norm1" top: "fc" inner_product_param { num_output: 5 } }
layers { name: "prob" type: SOFTMAX bottom: "fc" top: "prob" }
"""
V0_TEXT = """
name: "small"
input: "data" input_dim: 1 input_dim: 3 input_dim: 10 input_dim: 12
layers { layer { name: "pad1" type: "padding" pad: 1 } bottom: "data" top: "pad1" }
layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 3 weight_filler { type: "xavier" } }
  bottom: "pad1" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.5 } bottom: "pool1" top: "norm1" }
layers { layer { name: "fc" type: "innerproduct" num_output: 5 } bottom: "norm1" top: "fc" }
layers { layer { name: "prob" type: "softmax" } bottom: "fc" top: "prob" }
"""
SMALL = NetDef(
    name="small",
    inputs={"data": (1, 3, 10, 12)},
    layers=(
        LayerDef("conv1", "Convolution", ("data",), ("conv1",), {"num_output": 4, "kernel_size": [3], "pad": [1]}),
        LayerDef("relu1", "ReLU", ("conv1",), ("conv1",)),
        LayerDef("pool1", "Pooling", ("conv1",), ("pool1",), {"pool": "AVE", "kernel_size": 3, "stride": 2}),
        LayerDef("norm1", "LRN", ("pool1",), ("norm1",), {"local_size": 3, "alpha": 0.5}),
        LayerDef("fc", "InnerProduct", ("norm1",), ("fc",), {"num_output": 5}),
        LayerDef("prob", "Softmax", ("fc",), ("prob",)),
    ),
)


def small_weights(seed: int = 0) -> dict[str, list[np.ndarray]]:
    shapes = {"conv1": [(4, 3, 3, 3), (4,)], "fc": [(5, 4 * 5 * 6), (5,)]}
    rng = np.random.default_rng(seed)
    return {name: [rng.standard_normal(s).astype("f4") for s in each] for name, each in shapes.items()}


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = []
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, payload: bytes | str) -> bytes:
    payload = payload.encode() if isinstance(payload, str) else payload
    return varint(field << 3 | 2) + varint(len(payload)) + payload


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def doubles(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def shape(*dims: int) -> bytes:
    """The `shape` field of a BlobProto."""
    return block(7, block(1, b"".join(map(varint, dims))))


def v2_layer(name: str, *blobs: bytes) -> bytes:
    return block(100, block(1, name) + b"".join(block(7, blob) for blob in blobs))


def by_expectation(value: object) -> str:
    """Names of parametrised refusals: the first part of the message expected, not the damaged file."""
    return value[0] if isinstance(value, list) else ""
