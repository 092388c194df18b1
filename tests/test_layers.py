"""Layer types with their parameters, against references that share no code with cvstyle; more in test_layer_types.py.

Forward: OpenCV's own Caffe importer, or a plain loop written from Caffe's definition where OpenCV differs from Caffe
or has no such layer. Backward: central finite differences in float64. The other CPU
engines: against numpy.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import nets
import numpy as np
import pytest

from cvstyle.backends.reference import Backend
from cvstyle.errors import ModelError
from cvstyle.layers import Context, layer_class
from cvstyle.netdef import LayerDef, NetDef


@dataclass
class Case:
    """One layer on inputs of these shapes.

    expect: a reference, a function of (inputs, blobs, params) -> outputs. opencv: whether OpenCV is another one; False
    where it has no such layer or differs from Caffe (as the comments say).
    """

    name: str
    type: str
    shapes: list[tuple[int, ...]]
    params: dict[str, Any] = field(default_factory=dict)
    expect: Any = None
    opencv: bool = True
    tops: int = 1
    low: float = -2
    blobs: list | None = None
    replace_max: str = ""
    frozen: tuple[int, ...] = ()

    def definition(self):
        bottoms = tuple(f"bottom{i}" for i in range(len(self.shapes)))
        tops = ("layer", *(f"top{i}" for i in range(1, self.tops)))
        return LayerDef("layer", self.type, bottoms, tops, self.params)

    def data(self):
        """(inputs, blobs): float32 numbers from low to low + 4; layers with kinks get no two equal ones."""
        rng = np.random.default_rng(sum(map(ord, self.name)))
        inputs = [rng.uniform(self.low, self.low + 4, s).astype(np.float32) for s in self.shapes]
        blobs = self.blobs if self.blobs is not None else nets.blobs_for(self.definition(), self.shapes, rng)
        return inputs, blobs

    def layer(self, ops):
        layer = layer_class(self.type)(self.definition(), ops)
        if self.replace_max:
            layer.replace_max_pooling(self.replace_max)
        _, blobs = self.data()
        layer.blob_count = len(blobs)
        if blobs:
            layer.load(blobs, self.shapes)
        return layer


# References for what OpenCV does not do as Caffe does


def _pair(params, name, default):
    if f"{name}_h" in params:
        return params[f"{name}_h"], params[f"{name}_w"]
    value = params.get(name, default)
    return (value * 2)[:2] if isinstance(value, list) else (value, value)


def _pooled(size, kernel, stride, pad, round_up=True):
    """Caffe's output size (pooling_layer.cpp, Reshape); pad is that of this axis."""
    n = (math.ceil if round_up else math.floor)((size + 2 * pad - kernel) / stride) + 1
    return n - 1 if pad and (n - 1) * stride >= size + pad else n


def pooling(inputs, blobs, params, round_up=True):
    """Max or average pooling, one output at a time."""
    (x,) = inputs
    kernel = _pair(params, "kernel", params.get("kernel_size"))
    (kh, kw), (sh, sw), (ph, pw) = kernel, _pair(params, "stride", 1), _pair(params, "pad", 0)
    if params.get("global_pooling"):
        kh, kw = x.shape[2:]
    round_up = round_up and params.get("round_mode", "CEIL") == "CEIL"
    height, width = x.shape[2:]
    y = np.zeros((*x.shape[:2], _pooled(height, kh, sh, ph, round_up), _pooled(width, kw, sw, pw, round_up)))
    for c, i, j in np.ndindex(*y.shape[1:]):
        top, left = i * sh - ph, j * sw - pw
        bottom, right = min(top + kh, height + ph), min(left + kw, width + pw)
        area = (bottom - top) * (right - left)
        window = x[0, c, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        y[0, c, i, j] = window.max() if params.get("pool", "MAX") == "MAX" else window.sum() / area
    return [y]


def average_instead(inputs, blobs, params):
    """What neural_style.lua puts in place of max pooling."""
    return pooling(inputs, blobs, {**params, "pool": "AVE"}, round_up=False)


def convolution(inputs, blobs, params):
    """Convolution, one output at a time."""
    (x,), weight = inputs, blobs[0]
    stride, pad, dilation = (_pair(params, n, d) for n, d in (("stride", 1), ("pad", 0), ("dilation", 1)))
    group = params.get("group", 1)
    padded = np.pad(x, ((0, 0), (0, 0), (pad[0],) * 2, (pad[1],) * 2)).astype(np.float64)
    size = [(padded.shape[2 + i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    y = np.zeros((1, len(weight), *size))
    for o, i, j in np.ndindex(*y.shape[1:]):
        first = o // (len(weight) // group) * weight.shape[1]
        for c, u, v in np.ndindex(*weight.shape[1:]):
            at = padded[0, first + c, i * stride[0] + u * dilation[0], j * stride[1] + v * dilation[1]]
            y[0, o, i, j] += weight[o, c, u, v] * at
    return [y + blobs[1].reshape(1, -1, 1, 1) if len(blobs) > 1 else y]


def deconvolution(inputs, blobs, params):
    """Every input spreads its filters over the output."""
    (x,), weight = inputs, blobs[0]
    stride, pad, dilation = (_pair(params, n, d) for n, d in (("stride", 1), ("pad", 0), ("dilation", 1)))
    group, per_group = params.get("group", 1), weight.shape[1]
    size = [stride[i] * (x.shape[2 + i] - 1) + dilation[i] * (weight.shape[2 + i] - 1) + 1 for i in (0, 1)]
    y = np.zeros((1, per_group * group, *size))
    for c, i, j in np.ndindex(*x.shape[1:]):
        first = c // (x.shape[1] // group) * per_group
        for o, u, v in np.ndindex(*weight.shape[1:]):
            at = (0, first + o, i * stride[0] + u * dilation[0], j * stride[1] + v * dilation[1])
            y[at] += x[0, c, i, j] * weight[c, o, u, v]
    y = y[:, :, pad[0] : size[0] - pad[0], pad[1] : size[1] - pad[1]]
    return [y + blobs[1].reshape(1, -1, 1, 1) if len(blobs) > 1 else y]


def lrn(inputs, blobs, params):
    """Both regions of local response normalisation, one position at a time (lrn_layer.cpp)."""
    x = inputs[0].astype(np.float64)
    size, alpha, beta = params.get("local_size", 5), params.get("alpha", 1.0), params.get("beta", 0.75)
    half, y = (size - 1) // 2, np.empty_like(x)
    for c, i, j in np.ndindex(*x.shape[1:]):
        if params.get("norm_region") == "WITHIN_CHANNEL":
            window = x[0, c, max(i - half, 0) : i + half + 1, max(j - half, 0) : j + half + 1]
            y[0, c, i, j] = x[0, c, i, j] * (1 + alpha * (window**2).sum() / size**2) ** -beta
        else:
            window = x[0, max(c - half, 0) : c + half + 1, i, j]
            y[0, c, i, j] = x[0, c, i, j] * (params.get("k", 1.0) + alpha / size * (window**2).sum()) ** -beta
    return [y]


def formula(f):
    """A reference for one input and no weights."""
    return lambda inputs, blobs, params: [f(inputs[0].astype(np.float64))]


def broadcast(f, axis, rank=4):
    """f(first, second) with the second, a bottom or a blob, aligned at an axis of the first."""

    def reference(inputs, blobs, params):
        first, second, *rest = [*inputs, *blobs]
        after = lambda b: b.reshape((1,) * axis + b.shape + (1,) * (rank - axis - b.ndim))  # noqa: E731
        return [f(first, after(second), *map(after, rest))]

    return reference


def times(x, factor, shift=0):
    return x * factor + shift


ODD, WIDE, ONE, MAP = (1, 3, 7, 6), (1, 4, 5, 9), (1, 3, 1, 1), (1, 2, 3, 4)


def conv(name, shape=ODD, kind="Convolution", opencv=True, **params):
    params = {"num_output": 4, **params}
    expect = convolution if kind == "Convolution" else deconvolution
    return Case(f"{kind.lower()} {name}", kind, [shape], params, expect, opencv)


def deconv(name, shape=MAP, **params):
    return conv(name, shape, "Deconvolution", **params)


def pool(name, shape=ODD, opencv=True, **params):
    return Case(f"pooling {name}", "Pooling", [shape], params, pooling, opencv)


CASES = [
    conv("3x3", kernel_size=[3], pad=[1]),
    conv("axis from the end", kernel_size=[2], axis=-3),
    conv("1x1", kernel_size=[1]),
    conv("1x1 stride", kernel_size=[1], stride=[2]),
    conv("1x1 pad", kernel_size=[1], pad=[1]),
    conv("no bias", kernel_size=[3], bias_term=False),
    conv("rectangular by _h and _w", kernel_h=3, kernel_w=2, stride_h=2, stride_w=1, pad_h=0, pad_w=1),
    conv("rectangular by lists", kernel_size=[3, 2], stride=[2, 1], pad=[0, 1]),
    conv("only kernel_h and _w", kernel_h=1, kernel_w=5, pad=[2]),
    conv("stride", kernel_size=[3], stride=[2], pad=[1]),
    conv("stride larger than kernel", kernel_size=[2], stride=[3]),
    conv("pad larger than kernel", kernel_size=[2], pad=[3]),
    conv("dilation", kernel_size=[3], dilation=[2], pad=[2]),
    conv("dilation and stride", kernel_size=[2], dilation=[3], stride=[2], pad=[1]),
    conv("dilation per axis", kernel_size=[2, 3], dilation=[3, 1], pad=[1]),
    conv("group", WIDE, kernel_size=[3], group=2, pad=[1], num_output=6),
    conv("depthwise", WIDE, kernel_size=[3], group=4, pad=[1]),
    conv("depthwise with multiplier", WIDE, kernel_size=[3], group=4, num_output=8, stride=[2]),
    conv("one pixel", ONE, kernel_size=[3], pad=[1]),
    conv("whole input", (1, 3, 3, 3), kernel_size=[3]),
    conv("large kernel", (1, 3, 23, 19), kernel_size=[11], stride=[4]),
    conv("one output", num_output=1, kernel_size=[3]),
    deconv("2x2 stride 2", kernel_size=[2], stride=[2]),
    deconv("bilinear form", kernel_size=[4], stride=[2], pad=[1]),
    deconv("stride 1", kernel_size=[3], pad=[1]),
    deconv("no bias", kernel_size=[3], stride=[2], bias_term=False),
    deconv("rectangular", kernel_size=[3, 2], stride=[1, 3], pad=[2, 0]),
    deconv("group", WIDE, kernel_size=[3], stride=[2], pad=[1], group=2, num_output=6),
    # OpenCV forgets the dilation in the output size.
    deconv("dilation", kernel_size=[2], dilation=[2], stride=[2], opencv=False),
    deconv("one pixel", ONE, kernel_size=[4], stride=[2], pad=[1]),
    Case("relu", "ReLU", [ODD]),
    Case("relu slope", "ReLU", [ODD], {"negative_slope": 0.25}),
    Case("relu flat", "ReLU", [(1, 7)]),
    Case("prelu", "PReLU", [ODD]),
    Case("prelu shared", "PReLU", [ODD], {"channel_shared": True},
         lambda x, b, p: [np.where(x[0] > 0, x[0], b[0] * x[0])]),
    Case("elu", "ELU", [ODD]),
    Case("elu alpha", "ELU", [ODD], {"alpha": 0.5}, formula(lambda x: np.where(x > 0, x, 0.5 * np.expm1(x)))),
    Case("sigmoid", "Sigmoid", [ODD]),
    Case("tanh", "TanH", [ODD]),
    Case("absval", "AbsVal", [ODD]),
    Case("power default", "Power", [ODD]),
    Case("power linear", "Power", [ODD], {"scale": -2.0, "shift": 3.0}),
    Case("power 2", "Power", [ODD], {"power": 2.0, "scale": 0.5, "shift": -0.25}),
    Case("power 3", "Power", [ODD], {"power": 3.0}),
    Case("power 0.5", "Power", [ODD], {"power": 0.5, "shift": 0.5}, low=0),
    Case("power -1", "Power", [ODD], {"power": -1.0, "shift": 0.5}, low=0),
    Case("power 0", "Power", [ODD], {"power": 0.0}, formula(np.ones_like)),
    Case("exp", "Exp", [ODD], {}),
    Case("exp e", "Exp", [ODD], {"scale": 0.5, "shift": 0.25}),
    Case("exp base", "Exp", [ODD], {"base": 2.0, "scale": 0.5, "shift": 1.0}),
    Case("exp base 1", "Exp", [ODD], {"base": 1.0, "scale": 2.0}, formula(np.ones_like)),
    # OpenCV ignores base, scale and shift.
    Case("log", "Log", [ODD], {"shift": 0.5}, formula(lambda x: np.log(x + 0.5)), False, low=0),
    Case("log base", "Log", [ODD], {"base": 10.0, "scale": 2.0, "shift": 0.5},
         formula(lambda x: np.log10(2 * x + 0.5)), False, low=0),
    *(pool(f"{method} {name}", *shape, pool=method, **params)
      for method in ("MAX", "AVE")
      for name, shape, params in (
          ("2x2", [], {"kernel_size": 2, "stride": 2}),
          ("3x3 stride 2", [], {"kernel_size": 3, "stride": 2}),
          ("3x3 stride 2 even", [(1, 2, 8, 10)], {"kernel_size": 3, "stride": 2}),
          ("overlapping", [], {"kernel_size": 3, "stride": 1}),
          ("same size", [], {"kernel_size": 3, "stride": 1, "pad": 1}),
          ("pad and clip", [(1, 2, 5, 8)], {"kernel_size": 2, "stride": 2, "pad": 1}),
          ("pad 2", [(1, 2, 6, 9)], {"kernel_size": 5, "stride": 3, "pad": 2}),
          ("rectangular", [(1, 3, 7, 7)], {"kernel_h": 3, "kernel_w": 2, "stride_h": 1, "stride_w": 3}),
          ("rectangular pad", [], {"kernel_h": 3, "kernel_w": 2, "stride_h": 2, "stride_w": 1, "pad_h": 1, "pad_w": 0}),
          ("global", [WIDE], {"global_pooling": True}),
          ("one pixel", [ONE], {"kernel_size": 2, "stride": 2, "pad": 1}),
          ("input smaller than window", [(1, 2, 2, 3)], {"kernel_size": 3, "stride": 2, "pad": 1}),
          # OpenCV does not know round_mode.
          ("floor", [(1, 2, 8, 7)], {"kernel_size": 3, "stride": 2, "round_mode": "FLOOR", "opencv": False}),
          ("17x17", [(1, 1, 18, 17)], {"kernel_size": 17, "stride": 1}),
          ("global large", [(1, 1, 20, 19)], {"global_pooling": True}),
      )),
    *(replace(pool(f"replaced {name}", shape, False, pool="MAX", **params), expect=average_instead, replace_max="avg")
      for name, shape, params in (
          ("even", (1, 2, 6, 8), {"kernel_size": 2, "stride": 2}),
          ("odd", ODD, {"kernel_size": 2, "stride": 2}),
          ("3x3", (1, 2, 8, 9), {"kernel_size": 3, "stride": 2}),
      )),
    Case("lrn", "LRN", [(1, 7, 3, 4)], {"alpha": 0.5}),
    # OpenCV takes k as 1, and other windows where one is larger than the picture.
    Case("lrn size 3 k 2", "LRN", [(1, 5, 3, 4)], {"local_size": 3, "alpha": 0.5, "beta": 0.5, "k": 2.0}, lrn, False),
    Case("lrn few channels", "LRN", [(1, 2, 3, 4)], {"alpha": 2.0}, lrn),
    Case("lrn within", "LRN", [(1, 2, 6, 5)],
         {"norm_region": "WITHIN_CHANNEL", "local_size": 3, "alpha": 0.7, "beta": 0.6}, lrn),
    Case("lrn within large", "LRN", [(1, 2, 3, 4)], {"norm_region": "WITHIN_CHANNEL", "k": 5.0}, lrn, False),
    Case("batchnorm", "BatchNorm", [ODD], {"use_global_stats": True}),
    Case("batchnorm eps", "BatchNorm", [ODD], {"use_global_stats": True, "eps": 0.1}),
    Case("batchnorm factor 0", "BatchNorm", [ODD], {"eps": 0.25}, formula(lambda x: x / 0.5),
         blobs=[np.array(b, np.float32) for b in ([1, 2, 3], [4, 5, 6], [0])]),
    Case("scale", "Scale", [ODD]),
    Case("scale bias", "Scale", [ODD], {"bias_term": True}),
    Case("scale whole", "Scale", [MAP], {"num_axes": -1, "bias_term": True}, broadcast(times, 1)),
    Case("scale two axes", "Scale", [MAP], {"num_axes": 2}, broadcast(times, 1)),
    # OpenCV has no scale by one number, no negative axis, and no bias beside a second input.
    Case("scale one number", "Scale", [MAP], {"num_axes": 0}, broadcast(times, 0), False),
    Case("scale axis 2", "Scale", [MAP], {"axis": 2, "bias_term": True}, broadcast(times, 2)),
    Case("scale axis -1", "Scale", [MAP], {"axis": -1}, broadcast(times, 3), False),
    Case("scale flat", "Scale", [(1, 5)], {"bias_term": True}, broadcast(times, 1, 2)),
    Case("scale by input", "Scale", [MAP, (2, 3)], {}, broadcast(times, 1)),
    Case("scale by channel gate", "Scale", [MAP, (1, 2)], {"axis": 0}, broadcast(times, 0)),
    Case("scale by input and bias", "Scale", [MAP, (2,)], {"bias_term": True}, broadcast(times, 1), False),
    Case("scale by same shape", "Scale", [MAP, MAP], {"axis": 0}, broadcast(times, 0)),
    # OpenCV has no Bias.
    Case("bias", "Bias", [ODD], {}, broadcast(np.add, 1), False),
    Case("bias whole", "Bias", [MAP], {"num_axes": -1}, broadcast(np.add, 1), False),
    Case("bias axis 2", "Bias", [MAP], {"axis": 2, "num_axes": 2}, broadcast(np.add, 2), False),
    Case("bias by input", "Bias", [MAP, (2, 3)], {}, broadcast(np.add, 1), False),
    Case("bias by gate", "Bias", [MAP, (1, 2)], {"axis": 0}, broadcast(np.add, 0), False),
    Case("bias by same shape", "Bias", [MAP, MAP], {"axis": 0}, broadcast(np.add, 0), False),
    Case("concat", "Concat", [ODD, (1, 2, 7, 6), (1, 1, 7, 6)]),
    Case("concat one", "Concat", [ODD]),
    Case("concat axis 2", "Concat", [MAP, (1, 2, 5, 4)], {"axis": 2}),
    Case("concat axis -1", "Concat", [MAP, (1, 2, 3, 1)], {"axis": -1}),
    # OpenCV does not know the old names of axis.
    Case("concat concat_dim", "Concat", [MAP, (1, 2, 5, 4)], {"concat_dim": 2},
         lambda x, b, p: [np.concatenate(x, 2)], False),
    Case("concat flat", "Concat", [(1, 3), (1, 4)]),
    # OpenCV counts the tops that are read, so equal parts need a larger net (see test_network).
    Case("slice equal", "Slice", [(1, 6, 3, 2)], {}, lambda x, b, p: np.split(x[0], 3, 1), False, tops=3),
    Case("slice points", "Slice", [(1, 6, 3, 2)], {"slice_point": [1, 4]},
         lambda x, b, p: np.split(x[0], [1, 4], 1), tops=3),
    Case("slice axis", "Slice", [MAP], {"axis": 3, "slice_point": [3]}, lambda x, b, p: np.split(x[0], [3], 3), tops=2),
    Case("slice slice_dim", "Slice", [MAP], {"slice_dim": 2, "slice_point": [2]},
         lambda x, b, p: np.split(x[0], [2], 2), False, tops=2),
    Case("slice one", "Slice", [MAP], {}, lambda x, b, p: x, False),
    Case("crop", "Crop", [ODD, (1, 2, 4, 3)], {"offset": [2]}, lambda x, b, p: [x[0][:, :, 2:6, 2:5]], frozen=(1,)),
    Case("crop default", "Crop", [ODD, (1, 2, 4, 3)], {}, lambda x, b, p: [x[0][:, :, :4, :3]], frozen=(1,)),
    Case("crop offsets", "Crop", [ODD, (1, 2, 4, 3)], {"offset": [1, 3]}, lambda x, b, p: [x[0][:, :, 1:5, 3:]],
         frozen=(1,)),
    Case("crop axis 1", "Crop", [ODD, (1, 2, 4, 3)], {"axis": 1, "offset": [1, 0, 2]},
         lambda x, b, p: [x[0][:, 1:, :4, 2:5]], frozen=(1,)),
    Case("crop axis -1", "Crop", [ODD, (1, 2, 4, 3)], {"axis": -1}, lambda x, b, p: [x[0][..., :3]], frozen=(1,)),
    Case("eltwise sum", "Eltwise", [ODD, ODD]),
    Case("eltwise coeff", "Eltwise", [ODD] * 3, {"coeff": [1.0, -1.0, 0.5]}),
    Case("eltwise first coeff", "Eltwise", [ODD] * 2, {"operation": "SUM", "coeff": [0.25, 2.0]}),
    Case("eltwise prod", "Eltwise", [ODD] * 2, {"operation": "PROD"}),
    Case("eltwise prod of 3", "Eltwise", [ODD] * 3, {"operation": "PROD"}),
    Case("eltwise max", "Eltwise", [ODD] * 2, {"operation": "MAX"}),
    Case("eltwise max of 4", "Eltwise", [ODD] * 4, {"operation": "MAX"}),
    Case("inner product", "InnerProduct", [MAP], {"num_output": 5}),
    Case("inner product no bias", "InnerProduct", [(1, 7)], {"num_output": 3, "bias_term": False}),
    # OpenCV ignores transpose.
    Case("inner product transposed", "InnerProduct", [MAP], {"num_output": 5, "transpose": True},
         lambda x, b, p: [x[0].reshape(1, -1) @ b[0] + b[1]], False),
    Case("softmax", "Softmax", [MAP]),
    Case("softmax flat", "Softmax", [(1, 9)]),
    Case("flatten", "Flatten", [MAP]),
    Case("flatten axes", "Flatten", [MAP], {"axis": 2, "end_axis": 3}, lambda x, b, p: [x[0].reshape(1, 2, 12)]),
    Case("flatten from 0", "Flatten", [MAP], {"axis": 0, "end_axis": -2}, lambda x, b, p: [x[0].reshape(6, 4)]),
    Case("reshape", "Reshape", [MAP], {"shape": {"dim": [0, 4, -1, 2]}}),
    Case("reshape axis", "Reshape", [MAP], {"shape": {"dim": [6, -1]}, "axis": 1, "num_axes": 3},
         lambda x, b, p: [x[0].reshape(1, 6, 4)]),
    Case("reshape axis 2", "Reshape", [MAP], {"shape": {"dim": [0, 2, 2]}, "axis": 2},
         lambda x, b, p: [x[0].reshape(1, 2, 3, 2, 2)]),
    # OpenCV takes axis −1 as the last one; in Caffe's Reshape it is the place after that.
    Case("reshape adds an axis", "Reshape", [MAP], {"shape": {"dim": [1]}, "axis": -1},
         lambda x, b, p: [x[0][..., None]], False),
]  # fmt: skip


def engines():
    return [make() for make in nets.ENGINES.values()]


every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_case
def test_forward(case, tmp_path):
    check_forward(case, tmp_path)


@every_case
def test_gradient(case):
    check_gradient(case)


@every_case
def test_backends_agree(case):
    check_backends(case)


def check_forward(case, folder):
    """The tops of a case on every engine, in place and not, against its references."""
    inputs, blobs = case.data()
    shapes = case.layer(Backend()).top_shapes(case.shapes)
    references = [case.expect(inputs, blobs, case.params)] if case.expect else []
    if case.opencv:
        references.append([_opencv(case, inputs, blobs, folder)])
    assert references
    for ops, overwrite in itertools.product((Backend("float64"), *engines()), (False, True)):
        own = [ops.asarray(x) for x in inputs]
        layer = case.layer(ops)
        tops, _ = layer.forward(own, Context(overwrite=overwrite and not layer.saves_activations))
        assert len(tops) == len(shapes)
        assert [top.shape for top in tops] == [tuple(s) for s in shapes]
        assert all(top.dtype == ops.dtype for top in tops)
        for expected in references:
            for top, wanted in zip(tops, expected):
                np.testing.assert_allclose(top, np.reshape(wanted, top.shape), rtol=2e-5, atol=2e-5, err_msg=f"{ops}")
        if not overwrite:
            for x, after in zip(inputs, own):
                np.testing.assert_array_equal(x, after)


def check_gradient(case):
    """The gradients of a case against central finite differences in float64."""
    ops = Backend("float64")
    inputs = [x.astype(np.float64) for x in case.data()[0]]
    layer = case.layer(ops)
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=s) for s in layer.top_shapes(case.shapes)]

    def value():
        tops, _ = layer.forward([ops.asarray(x) for x in inputs], Context())
        return sum((w * t).sum() for w, t in zip(weights, tops))

    _, backward = layer.forward([ops.asarray(x) for x in inputs], Context(overwrite=not layer.saves_activations))
    gradients = backward([ops.asarray(w) for w in weights])
    assert len(gradients) == len(inputs)
    given = [g for g in gradients if g is not None]
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(given, 2))
    for i, (x, gradient) in enumerate(zip(inputs, gradients)):
        if i in case.frozen:
            assert gradient is None
            continue
        expected = np.empty_like(x)
        for at in np.ndindex(x.shape):
            centre, sides = x[at], []
            for step in (1e-5, -1e-5):
                x[at] = centre + step
                sides.append(value())
            x[at], expected[at] = centre, (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


def check_backends(case):
    """Tops and gradients of a case on every engine against those of numpy in float64."""
    inputs, _ = case.data()
    rng, results = np.random.default_rng(2), []
    weights = [rng.normal(size=s) for s in case.layer(Backend()).top_shapes(case.shapes)]
    for ops in (Backend("float64"), *engines()):
        layer = case.layer(ops)
        tops, backward = layer.forward([ops.asarray(x) for x in inputs], Context())
        results.append([np.array(a) for a in [*tops, *backward([ops.asarray(w) for w in weights])] if a is not None])
    exact, *others = results
    for other in others:
        for a, b in zip(other, exact, strict=True):
            assert a.dtype == np.float32
            assert np.linalg.norm(a - b) <= 2e-6 * np.linalg.norm(b) + 1e-7


@pytest.mark.parametrize("channels, outputs", [(3, 16), (16, 3), (16, 16), (9, 40), (64, 32)])
@pytest.mark.parametrize("size", [(1, 1), (2, 17), (13, 11), (32, 33)])
@pytest.mark.parametrize(
    "params",
    [
        {"kernel_size": [3], "pad": [1]},
        {"kernel_size": [5], "pad": [2]},
        {"kernel_size": [3, 1], "pad": [1, 0]},
        {"kernel_size": [3], "pad": [2], "stride": [2]},
        {"kernel_size": [3], "pad": [2], "dilation": [2]},
        {"kernel_size": [3], "pad": [4], "dilation": [3]},
        {"kernel_size": [1]},
    ],
    ids=str,
)
def test_convolution_of_every_engine(channels, outputs, size, params):
    """Shapes for which the engines take different routes: Winograd, depthwise, few channels, tiny pictures."""
    for group in {1, math.gcd(channels, outputs)}:
        case = conv("", (1, channels, *size), num_output=outputs, group=group, **params)
        _agree(case)
        if min(size) > 2:
            _agree(replace(case, type="Deconvolution"))


@pytest.mark.parametrize("pad", [(0, 0, 0, 0), (0, 1, 2, 3), (2, 0, 1, 1), (3, 3, 0, 0)], ids=str)
@pytest.mark.parametrize("stride, dilation", [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (1, 2))], ids=str)
def test_asymmetric_padding(pad, stride, dilation):
    """Backend convolutions pad each side by its own amount (tiles need it)."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(1, 12, 9, 8)), rng.normal(size=(10, 12, 3, 3))
    padded = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[2]), (pad[1], pad[3])))
    wanted = convolution([padded], [weight], {"stride": list(stride), "dilation": list(dilation)})[0]
    g = rng.normal(size=wanted.shape)
    # The adjoint, without its border: <g, conv(x)> = <adjoint(g), x>, all of it through the loop above.
    spread = deconvolution([g], [weight], {"stride": list(stride), "dilation": list(dilation)})[0]
    full = np.zeros_like(padded)
    full[:, :, : spread.shape[2], : spread.shape[3]] = spread
    adjoint = full[:, :, pad[0] : pad[0] + 9, pad[1] : pad[1] + 8]
    for ops in (Backend("float64"), *engines()):
        filters = ops.convolution(weight, None, stride, dilation, 1)
        assert filters.output_size((9, 8), pad) == wanted.shape[2:]
        np.testing.assert_allclose(filters.forward(ops.asarray(x), pad)[0], wanted, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(filters.backward(ops.asarray(g), (9, 8), pad), adjoint, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind, stated", [
    ("ConvolutionDepthwise", {}), ("ConvolutionDepthwise", {"group": 4}), ("DepthwiseConvolution", {"group": 4}),
])  # fmt: skip
def test_each_channel_of_a_depthwise_convolution_is_a_group(kind, stated):
    case = Case(kind, kind, [WIDE], {"num_output": 4, "kernel_size": [3], "pad": [1], **stated})
    shapes = [(4, 1, 3, 3), (4,)]
    case.blobs = [np.random.default_rng(0).normal(size=s).astype(np.float32) for s in shapes]
    layer, (inputs, blobs) = case.layer(Backend("float64")), case.data()
    assert layer.blob_shapes([WIDE]) == shapes
    expected = convolution(inputs, blobs, {**case.params, "group": 4})
    np.testing.assert_allclose(layer.forward(inputs, Context())[0], expected, rtol=1e-5)


def test_first_of_equal_maxima_wins():
    """As in Caffe: the gradient of a plateau goes to one place, the first of the window."""
    layer = pool("", (1, 1, 2, 4), kernel_size=2, stride=2).layer(Backend())
    _, backward = layer.forward([np.ones((1, 1, 2, 4), np.float32)], Context())
    assert backward([np.array([[[[3.0, 5]]]], np.float32)])[0].tolist() == [[[[3, 0, 5, 0], [0, 0, 0, 0]]]]


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("pad", [0, 2])
def test_a_window_larger_than_the_map(method, pad):
    """It takes the time and memory of the map, not those of a window whose size may be a damaged file's."""
    case = pool("", ODD, pool=method, kernel_size=1 << 30, stride=1 << 30, pad=pad)
    layer, (inputs, _) = case.layer(Backend("float64")), case.data()
    tops, backward = layer.forward(inputs, Context())
    np.testing.assert_allclose(tops[0], pooling(inputs, [], case.params)[0], rtol=1e-6)
    assert backward([np.ones(tops[0].shape)])[0].sum() == pytest.approx(
        3 if method == "MAX" else 3 * 7 * 6 / (7 + 2 * pad) / (6 + 2 * pad)
    )


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_window_beyond_the_input_is_dropped(method):
    """Caffe keeps such a window where nothing is padded; it holds -FLT_MAX (MAX) or 0/0 (AVE)."""
    layer = pool("", (1, 1, 6, 2), pool=method, kernel_h=2, kernel_w=1, stride_h=3, stride_w=2).layer(Backend())
    x = np.arange(12, dtype=np.float32).reshape(1, 1, 6, 2)
    tops, backward = layer.forward([x], Context())
    assert tops[0].tolist() == ([[[[2], [8]]]] if method == "MAX" else [[[[1], [7]]]])
    gradient = backward([np.ones((1, 1, 2, 1), np.float32)])[0]
    assert gradient.shape == x.shape
    assert gradient.sum() == 2


def test_which_of_equal_inputs_wins():
    """As in Caffe: the second of the first two, and a further one only where it is larger than those before."""
    layer = Case("", "Eltwise", [(1, 4)] * 3, {"operation": "MAX"}).layer(Backend())
    inputs = [np.array([row], np.float32) for row in ([0, 2, 1, 0], [0, 0, 1, 0], [0, 2, 0, 3])]
    tops, backward = layer.forward(inputs, Context())
    assert tops[0].tolist() == [[0, 2, 1, 3]]
    gradients = backward([np.ones((1, 4), np.float32)])
    assert [g[0].tolist() for g in gradients] == [[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


def test_power_0_has_no_gradient_at_0():
    layer = Case("", "Power", [(1, 3)], {"power": 0.0}).layer(Backend())
    tops, backward = layer.forward([np.array([[-1, 0, 2.0]], np.float32)], Context(overwrite=True))
    assert tops[0].tolist() == [[1, 1, 1]]
    assert not backward([np.ones((1, 3), np.float32)])[0].any()


def test_relu_is_flat_at_zero():
    layer = Case("", "ReLU", [(1, 3)]).layer(Backend())
    _, backward = layer.forward([np.array([[-1, 0, 1.0]], np.float32)], Context())
    assert backward([np.ones((1, 3), np.float32)])[0].tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("kind, shapes, params, message", [
    ("Convolution", [ODD], {"kernel_size": [3]}, "num_output"),
    ("Convolution", [ODD], {"num_output": 4}, "kernel_size"),
    ("Convolution", [ODD], {"num_output": 4, "kernel_size": [3], "group": 2}, "2 groups"),
    ("Convolution", [ODD], {"num_output": 4, "kernel_size": [9]}, "too small"),
    ("Convolution", [ODD], {"num_output": 4, "kernel_size": [3, 3, 3]}, "two spatial axes"),
    ("Convolution", [ODD], {"num_output": 4, "kernel_size": [3], "stride": [0]}, "stride"),
    ("Convolution", [(1, 3)], {"num_output": 4, "kernel_size": [3]}, r"\(1, C, H, W\)"),
    ("Deconvolution", [ONE], {"num_output": 4, "kernel_size": [2], "pad": [1]}, "too small"),
    ("Pooling", [ODD], {"kernel_size": 2, "pad": 2}, "pad"),
    ("Pooling", [ODD], {"stride": 2}, "kernel_size is missing or zero"),
    ("Pooling", [ODD], {"kernel_size": 2, "stride": 0}, r"stride \(0, 0\)"),
    ("Pooling", [ODD], {"kernel_size": 2, "pool": "STOCHASTIC"}, "STOCHASTIC"),
    ("Pooling", [(1, 3, 1, 1)], {"kernel_size": 3, "stride": 1}, "too small"),
    ("LRN", [ODD], {"local_size": 4}, "odd"),
    ("LRN", [(1, 3)], {"norm_region": "WITHIN_CHANNEL"}, r"\(1, C, H, W\)"),
    ("Exp", [ODD], {"base": -2.0}, "base"),
    ("Log", [ODD], {"base": 1.0}, "base"),
    ("Concat", [ODD, MAP], {}, "differ"),
    ("Concat", [ODD, ODD], {"axis": 4}, "axis 4"),
    ("Slice", [ODD], {"axis": 2}, "equal parts"),
    ("Slice", [ODD], {"slice_point": [3]}, "slice points"),
    ("Slice", [ODD], {"slice_point": [1, 2]}, "slice points"),
    ("Crop", [MAP, ODD], {}, "does not fit"),
    ("Crop", [ODD, MAP], {"offset": [1, 2, 3]}, "offsets"),
    ("Crop", [ODD, (1, 3)], {}, "number of axes"),
    ("Eltwise", [ODD], {}, "has 1 inputs; it takes 2 or more"),
    ("ReLU", [], {}, "has 0 inputs; it takes 1"),
    ("Pooling", [ODD, ODD], {"kernel_size": 2}, "has 2 inputs; it takes 1"),
    ("Crop", [ODD], {}, "has 1 inputs; it takes 2"),
    ("Scale", [ODD, ODD, ODD], {}, "has 3 inputs; it takes 1 or 2"),
    ("Eltwise", [ODD, MAP], {}, "differ in shape"),
    ("Eltwise", [ODD, ODD], {"coeff": [1.0]}, "coefficients"),
    ("InnerProduct", [ODD], {}, "num_output"),
    ("Scale", [ODD, (4,)], {}, "does not match"),
    ("Scale", [ODD, ONE], {}, "does not match"),
    ("Bias", [ODD, (1, 1, 1, 1)], {}, "does not match"),
    ("Scale", [ODD], {"axis": 7}, "axis 7"),
    ("Flatten", [ODD], {"axis": 3, "end_axis": 1}, "end_axis"),
    ("Flatten", [ODD], {"end_axis": 7}, "end_axis 7"),
    ("Reshape", [ODD], {"shape": {"dim": [5, -1]}}, "cannot take"),
    ("Reshape", [ODD], {"shape": {"dim": [-1]}, "axis": 5}, "axis 5"),
    ("Reshape", [ODD], {"shape": {"dim": [-1]}, "axis": 2, "num_axes": 5}, "num_axes 5"),
])  # fmt: skip
def test_bad_parameters_and_shapes_name_the_layer(kind, shapes, params, message):
    case = Case("", kind, shapes, params, tops=2 if kind == "Slice" else 1)
    with pytest.raises(ModelError, match=rf"layer 'layer' \({kind}\).*{message}"):
        layer_class(kind)(case.definition(), Backend()).top_shapes(shapes)


def _agree(case):
    inputs, _ = case.data()
    g = np.random.default_rng(0).normal(size=case.layer(Backend()).top_shapes(case.shapes)[0]).astype(np.float32)
    results = []
    for ops in engines():
        layer = case.layer(ops)
        tops, backward = layer.forward([ops.asarray(x) for x in inputs], Context())
        results.append([np.array(tops[0]), np.array(backward([ops.asarray(g)])[0])])
    exact, *others = results
    for a, b in ((a, b) for other in others for a, b in zip(exact, other)):
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= 5e-6 * np.linalg.norm(a) + 1e-6


def _opencv(case, inputs, blobs, folder):
    """The first output of a net of this one layer by OpenCV's own importer."""
    shapes = {f"bottom{i}": s for i, s in enumerate(case.shapes)}
    net = NetDef("net", shapes, (case.definition(),), {"layer": blobs} if blobs else {})
    net = cv2.dnn.readNetFromCaffe(*nets.write(net, folder))
    net.enableFusion(False)
    for i, x in enumerate(inputs):
        net.setInput(x, f"bottom{i}")
    return net.forward("layer")
