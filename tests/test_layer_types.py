"""The layer types that came after those of test_layers.py, of BVLC's Caffe and of forks, by the same tests.

References: loops in float64 written from Caffe's definition, and OpenCV's importer where it has the layer and agrees.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import nets
import numpy as np
import pytest
import test_layers
from test_layers import MAP, ODD, WIDE, Case, conv, deconv, formula

from cvstyle import Objective
from cvstyle.backends.reference import Backend
from cvstyle.caffe import read_net
from cvstyle.caffe.prototxt import parse_text
from cvstyle.errors import ModelError, OptionError, ShapeError
from cvstyle.graph import Network
from cvstyle.layers import Context, layer_class, layer_types
from cvstyle.netdef import LayerDef, NetDef
from cvstyle.zoo.choose import choose_layers

# References, one number at a time


def each(f):
    """A reference that takes every number of the first input through f(number, params)."""

    def reference(inputs, blobs, params):
        x = inputs[0].astype(np.float64)
        y = np.empty_like(x)
        for at in np.ndindex(x.shape):
            y[at] = f(float(x[at]), params)
        return [y]

    return reference


def clip(x, params):
    return max(params["min"], min(x, params["max"]))


def relu6(x, params):
    return min(max(x, 0) + params.get("negative_slope", 0) * min(x, 0), 6)


def selu(x, params):
    alpha, factor = params.get("alpha", 1.6732632423543772), params.get("lambda", 1.0507009873554805)
    return factor * (x if x > 0 else alpha * (math.exp(x) - 1))


def swish(x, params):
    return x / (1 + math.exp(-params.get("beta", 1) * x))


def mish(x, params):
    return x * math.tanh(math.log(1 + math.exp(x)))


def threshold(x, params):
    return float(x > params.get("threshold", 0))


def argmax(inputs, blobs, params):
    """argmax_layer.cpp: pairs of value and index in falling order."""
    x = inputs[0]
    count = params.get("top_k", 1)

    def largest(numbers):
        return sorted(((float(n), i) for i, n in enumerate(numbers)), reverse=True)[:count]

    if "axis" not in params:
        pairs = largest(x.reshape(-1))
        rows = [[i for _, i in pairs], [n for n, _ in pairs]][: 1 + params.get("out_max_val", False)]
        return [np.array(rows, float).reshape(1, len(rows), count, *[1] * (x.ndim - 3))]
    moved = np.moveaxis(x, params["axis"], -1)
    y = np.empty((*moved.shape[:-1], count))
    for at in np.ndindex(moved.shape[:-1]):
        y[at] = [n if params.get("out_max_val") else i for n, i in largest(moved[at])]
    return [np.moveaxis(y, -1, params["axis"])]


def mvn(inputs, blobs, params):
    """mvn_layer.cpp: ε is added to the standard deviation."""
    x = inputs[0].astype(np.float64)
    x = x.reshape(*x.shape, *[1] * (4 - x.ndim))
    groups = [x] if params.get("across_channels") else [x[:, c : c + 1] for c in range(x.shape[1])]
    done = []
    for group in groups:
        mean = sum(map(float, group.reshape(-1))) / group.size
        deviation = math.sqrt(sum((float(n) - mean) ** 2 for n in group.reshape(-1)) / group.size)
        divisor = deviation + params.get("eps", 1e-9) if params.get("normalize_variance", True) else 1
        done.append((group - mean) / divisor)
    return [np.concatenate(done, 1)]


def own_statistics(eps):
    """BatchNorm by the map's own mean and variance, then scale and shift by the last two of more than three blobs."""

    def reference(inputs, blobs, params):
        x = inputs[0].astype(np.float64)
        y = np.empty_like(x)
        scaled = blobs[-2:] if len(blobs) in (2, 5) else ()
        for c in range(x.shape[1]):
            numbers = [float(n) for n in x[0, c].reshape(-1)]
            mean = sum(numbers) / len(numbers)
            variance = sum((n - mean) ** 2 for n in numbers) / len(numbers)
            y[0, c] = (x[0, c] - mean) / math.sqrt(variance + params.get("eps", eps))
            if scaled:
                y[0, c] = y[0, c] * float(scaled[0][c]) + float(scaled[1][c])
        return [y]

    return reference


def channelwise(f):
    """A reference f(map of a channel, *the blobs' numbers for it)."""

    def reference(inputs, blobs, params):
        x = inputs[0].astype(np.float64)
        numbers = [[float(b[c if b.size > 1 else 0]) for b in blobs] for c in range(x.shape[1])]
        return [np.stack([f(x[:, c], *numbers[c]) for c in range(x.shape[1])], 1)]

    return reference


def five_blobs(x, mean, variance, factor, scale, shift):
    return (x - mean / factor) / math.sqrt(variance / factor + 1e-5) * scale + shift


def pspnet(x, slope, bias, mean, variance):
    return slope * (x - mean) / math.sqrt(variance + 1e-5) + bias


def normalize(inputs, blobs, params):
    x = inputs[0].astype(np.float64)
    y = np.empty_like(x)
    for _, c, i, j in np.ndindex(x.shape):
        seen = x if params.get("across_spatial", True) else x[0, :, i, j]
        y[0, c, i, j] = x[0, c, i, j] / math.sqrt((seen**2).sum() + params.get("eps", 1e-10))
        y[0, c, i, j] *= blobs[0][0 if params.get("channel_shared", True) else c]
    return [y]


def permute(inputs, blobs, params):
    x, order = inputs[0], list(params.get("order", []))
    order += [axis for axis in range(x.ndim) if axis not in order]
    y = np.empty([x.shape[axis] for axis in order])
    for at in np.ndindex(y.shape):
        source = [0] * x.ndim
        for place, axis in zip(at, order):
            source[axis] = place
        y[at] = x[tuple(source)]
    return [y]


def reduction(inputs, blobs, params):
    x = inputs[0].astype(np.float64)
    axis = params.get("axis", 0) % x.ndim
    y = np.zeros(x.shape[:axis])
    for at in np.ndindex(y.shape):
        numbers = [float(n) for n in x[at].reshape(-1)]
        kind = params.get("operation", "SUM")
        total = sum({"ASUM": abs(n), "SUMSQ": n * n}.get(kind, n) for n in numbers)
        y[at] = params.get("coeff", 1) * total / (len(numbers) if kind == "MEAN" else 1)
    return [y]


def spp(inputs, blobs, params):
    """spp_layer.cpp: the pads and kernels of each level, and Pooling with them."""
    tops = []
    for level in range(params["pyramid_height"]):
        bins = 2**level
        kernel = [math.ceil(n / bins) for n in inputs[0].shape[2:]]
        pad = [(k * bins - n + 1) // 2 for k, n in zip(kernel, inputs[0].shape[2:])]
        names = {"kernel": kernel, "stride": kernel, "pad": pad}
        pooled = {f"{name}_{'hw'[i]}": pair[i] for name, pair in names.items() for i in (0, 1)}
        tops += test_layers.pooling(inputs, [], {"pool": params.get("pool", "MAX"), **pooled})
    return tops if len(tops) == 1 else [np.concatenate([t.reshape(1, -1) for t in tops], 1)]


def tile(inputs, blobs, params):
    return [np.concatenate([inputs[0]] * params["tiles"], params.get("axis", 1))]


def interp(inputs, blobs, params):
    """interp.cpp of DeepLab, one output at a time."""
    x = inputs[0].astype(np.float64)
    begin, end = -params.get("pad_beg", 0), -params.get("pad_end", 0)
    x = x[:, :, begin : x.shape[2] - end, begin : x.shape[3] - end]
    sizes = x.shape[2:]
    shrink, zoom = params.get("shrink_factor"), params.get("zoom_factor")
    if shrink and not zoom:
        out = [(n - 1) // shrink + 1 for n in sizes]
    elif zoom and not shrink:
        out = [n + (n - 1) * (zoom - 1) for n in sizes]
    elif "height" in params:
        out = [params["height"], params["width"]]
    else:
        out = [(n - 1) // shrink + 1 for n in sizes]
        out = [n + (n - 1) * (zoom - 1) for n in out]
    y = np.zeros((*x.shape[:2], *out))
    for c, i, j in np.ndindex(*y.shape[1:]):
        at = [k * (n - 1) / (m - 1) if m > 1 else 0 for k, n, m in zip((i, j), sizes, out)]
        for di, dj in itertools.product((0, 1), (0, 1)):
            row, column = min(int(at[0]) + di, sizes[0] - 1), min(int(at[1]) + dj, sizes[1] - 1)
            share = [abs(1 - d - (a - int(a))) for d, a in zip((di, dj), at)]
            y[0, c, i, j] += share[0] * share[1] * x[0, c, row, column]
    return [y]


def nearest(inputs, blobs, params):
    x, scale = inputs[0], params["scale"]
    y = np.empty((*x.shape[:2], x.shape[2] * scale, x.shape[3] * scale))
    for _, c, i, j in np.ndindex(y.shape):
        y[0, c, i, j] = x[0, c, i // scale, j // scale]
    return [y]


def shuffled(inputs, blobs, params):
    x, group = inputs[0], params.get("group", 1)
    column = x.shape[1] // group
    y = np.empty_like(x)
    for i, j in np.ndindex(group, column):
        y[:, j * group + i] = x[:, i * column + j]
    return [y]


def axpy(inputs, blobs, params):
    factors, x, y = inputs
    return [np.stack([float(factors[0, c].item()) * x[:, c] + y[:, c] for c in range(x.shape[1])], 1)]


def masked_pooling(inputs, blobs, params):
    """Max pooling, and the place of each maximum in its channel's plane, the first of equal ones."""
    (x,) = inputs
    (maximum,) = test_layers.pooling(inputs, blobs, params)
    mask = np.zeros(maximum.shape)
    for c, i, j in np.ndindex(*maximum.shape[1:]):
        (k,), (s,), (p,) = ([params.get(name, d)] for name, d in (("kernel_size", 0), ("stride", 1), ("pad", 0)))
        best = -math.inf
        for row, column in itertools.product(range(i * s - p, i * s - p + k), range(j * s - p, j * s - p + k)):
            inside = 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
            if inside and x[0, c, row, column] > best:
                best = x[0, c, row, column]
                mask[0, c, i, j] = row * x.shape[3] + column
    return [maximum, mask]


def several(reference):
    """A reference that treats each input alike."""
    return lambda inputs, blobs, params: [reference([x], blobs, params)[0] for x in inputs]


def blobs(*rows):
    return [np.array(row, np.float32) for row in rows]


FIVE = blobs([1, 0.5, -2], [2, 4, 6], [2], [0.5, -1, 2], [1, 2, -3])
STORED = blobs([1, 0.5, -2], [2, 4, 6], [2])
NEGATIVE = blobs([1, 0.5, -2], [-0.01, 4, 6], [1])
SIX = (1, 6, 3, 4)

CASES = [
    Case("clip", "Clip", [ODD], {"min": -0.5, "max": 1.25}, each(clip), False),
    Case("clip below", "Clip", [ODD], {"min": 3.0, "max": 1.0}, each(clip), False),
    # OpenCV calls its layer ReLU6 as well but reads no file with that type.
    Case("relu6", "ReLU6", [ODD], {}, each(relu6), False, low=4),
    Case("relu6 at 0", "ReLU6", [ODD], {}, each(relu6), False),
    Case("relu6 slope", "ReLU6", [ODD], {"negative_slope": 0.25}, each(relu6), False),
    Case("relu6 slope at 6", "ReLU6", [ODD], {"negative_slope": 0.25}, each(relu6), False, low=4),
    Case("selu", "SeLu", [ODD], {}, each(selu), False),
    Case("selu alpha", "SeLu", [ODD], {"alpha": 0.5, "lambda": 3.0}, each(selu), False),
    Case("bnll", "BNLL", [ODD], {}, each(lambda x, p: math.log(1 + math.exp(x)))),
    Case("swish", "Swish", [ODD], {}, each(swish), False),
    Case("swish beta", "Swish", [ODD], {"beta": -1.5}, each(swish), False),
    Case("mish", "Mish", [ODD], {}, each(mish), False),
    Case("threshold", "Threshold", [ODD], {}, each(threshold), False, frozen=(0,)),
    Case("threshold 1", "Threshold", [ODD], {"threshold": 1.0}, each(threshold), False, frozen=(0,)),
    Case("argmax", "ArgMax", [MAP], {}, argmax, False, frozen=(0,)),
    Case("argmax axis", "ArgMax", [MAP], {"axis": 1}, argmax, False, frozen=(0,)),
    Case("argmax top", "ArgMax", [MAP], {"axis": -1, "top_k": 3}, argmax, False, frozen=(0,)),
    Case("argmax values", "ArgMax", [MAP], {"axis": 2, "top_k": 2, "out_max_val": True}, argmax, False, frozen=(0,)),
    Case("argmax both", "ArgMax", [MAP], {"top_k": 4, "out_max_val": True}, argmax, False, frozen=(0,)),
    Case("argmax flat", "ArgMax", [(1, 9)], {"top_k": 9}, argmax, False, frozen=(0,)),
    Case("mvn", "MVN", [ODD], {}, mvn),
    Case("mvn across", "MVN", [ODD], {"across_channels": True}, mvn),
    Case("mvn mean", "MVN", [ODD], {"normalize_variance": False}, mvn),
    Case("mvn mean across", "MVN", [ODD], {"normalize_variance": False, "across_channels": True}, mvn),
    # OpenCV adds eps to the variance.
    Case("mvn eps", "MVN", [ODD], {"eps": 0.5}, mvn, False),
    Case("mvn flat", "MVN", [(1, 7)], {"across_channels": True}, mvn, False),
    Case("batchnorm own", "BatchNorm", [ODD], {"use_global_stats": False}, own_statistics(1e-5), False, blobs=[]),
    Case("batchnorm own eps", "BatchNorm", [ODD], {"use_global_stats": False, "eps": 0.5}, own_statistics(0), False,
         blobs=[]),
    Case("batchnorm own flat", "BatchNorm", [(1, 4)], {"use_global_stats": False}, formula(np.zeros_like), False,
         blobs=[]),
    Case("batchnorm own stored", "BatchNorm", [ODD], {"use_global_stats": False}, own_statistics(1e-5), False,
         blobs=STORED),
    Case("batchnorm own five", "BatchNorm", [ODD], {"use_global_stats": False}, own_statistics(1e-5), False,
         blobs=FIVE),
    Case("batchnorm five", "BatchNorm", [ODD], {}, channelwise(five_blobs), False, blobs=FIVE),
    Case("batchnorm nvcaffe", "BatchNorm", [ODD], {"scale_bias": True, "use_global_stats": False},
         channelwise(five_blobs), False, blobs=FIVE),
    Case("batchnorm fillers", "BatchNorm", [ODD], {"bias_filler": {}}, channelwise(five_blobs), False, blobs=FIVE),
    Case("batchnorm negative", "BatchNorm", [ODD], {"eps": 0.02},
         channelwise(lambda x, m, v, f: (x - m) / math.sqrt(v + 0.02)), False, blobs=NEGATIVE),
    Case("bn segnet inference", "BN", [ODD], {"bn_mode": "INFERENCE"}, channelwise(lambda x, a, b: a * x + b), False,
         blobs=FIVE[3:]),
    Case("bn segnet learn", "BN", [ODD], {"bn_mode": "LEARN"}, own_statistics(1e-9), False, blobs=FIVE[3:]),
    Case("bn segnet default", "BN", [ODD], {}, own_statistics(1e-9), False, blobs=FIVE[3:]),
    Case("bn pspnet", "BN", [ODD], {"frozen": True}, channelwise(pspnet), False, blobs=[*FIVE[3:], *FIVE[:2]]),
    Case("normalize", "Normalize", [ODD], {}, normalize, False),
    Case("normalize positions", "Normalize", [ODD], {"across_spatial": False, "channel_shared": False}, normalize),
    Case("normalize eps", "Normalize", [ODD], {"eps": 5.0, "channel_shared": False}, normalize, False),
    Case("permute", "Permute", [MAP], {"order": [0, 2, 3, 1]}, permute),
    Case("permute rest", "Permute", [MAP], {"order": [0, 3]}, permute, False),
    Case("permute none", "Permute", [MAP], {}, permute, False),
    Case("permute flat", "Permute", [(1, 4, 5)], {"order": [0, 2, 1]}, permute),
    *(Case(f"reduction {kind} {axis}", "Reduction", [MAP], {"operation": kind, "axis": axis, "coeff": 0.5}, reduction,
           False)
      for kind in ("SUM", "ASUM", "SUMSQ", "MEAN") for axis in (1, -2)),
    Case("reduction", "Reduction", [MAP], {}, reduction, False),
    Case("spp 1", "SPP", [ODD], {"pyramid_height": 1}, spp, False),
    Case("spp", "SPP", [(1, 2, 8, 9)], {"pyramid_height": 3}, spp, False),
    Case("spp ave", "SPP", [(1, 2, 9, 6)], {"pyramid_height": 2, "pool": "AVE"}, spp, False),
    # OpenCV does not read Caffe's parameters of Tile.
    Case("tile", "Tile", [MAP], {"tiles": 3}, tile, False),
    Case("tile axis 2", "Tile", [MAP], {"tiles": 2, "axis": 2}, tile, False),
    Case("tile axis -1", "Tile", [MAP], {"tiles": 2, "axis": -1}, tile, False),
    Case("tile flat", "Tile", [(1, 5)], {"tiles": 2}, tile, False),
    Case("interp size", "Interp", [MAP], {"height": 7, "width": 5}, interp, False),
    Case("interp one", "Interp", [MAP], {"height": 1, "width": 1}, interp, False),
    Case("interp same", "Interp", [MAP], {"height": 3, "width": 4}, interp, False),
    Case("interp zoom", "Interp", [MAP], {"zoom_factor": 3}, interp, False),
    Case("interp shrink", "Interp", [ODD], {"shrink_factor": 2}, interp, False),
    Case("interp both", "Interp", [WIDE], {"shrink_factor": 2, "zoom_factor": 3}, interp, False),
    Case("interp size before both", "Interp", [ODD], {"shrink_factor": 2, "zoom_factor": 3, "height": 4, "width": 2},
         interp, False),
    Case("interp factor before size", "Interp", [ODD], {"shrink_factor": 2, "height": 9, "width": 9}, interp, False),
    Case("interp crop", "Interp", [WIDE], {"zoom_factor": 2, "pad_beg": -1, "pad_end": -2}, interp, False),
    Case("interp crop alone", "Interp", [ODD], {"zoom_factor": 1, "pad_beg": -1}, interp, False),
    Case("interp one pixel", "Interp", [(1, 2, 1, 1)], {"height": 3, "width": 4}, interp, False),
    Case("upsample nearest", "Upsample", [MAP], {"scale": 3}, nearest, False),
    Case("shuffle", "ShuffleChannel", [SIX], {"group": 3}, shuffled),
    Case("shuffle 2", "ShuffleChannel", [SIX], {"group": 2}, shuffled),
    Case("shuffle none", "ShuffleChannel", [SIX], {}, shuffled, False),
    Case("shuffle flat", "ShuffleChannel", [(1, 6)], {"group": 3}, shuffled, False),
    Case("axpy", "Axpy", [(1, 3), ODD, ODD], {}, axpy, False),
    Case("axpy map", "Axpy", [(1, 3, 1, 1), ODD, ODD], {}, axpy, False),
    *(Case(f"pooling mask {name}", "Pooling", [shape], {"pool": "MAX", **params}, masked_pooling, False, tops=2)
      for name, shape, params in (
          ("2x2", (1, 2, 6, 8), {"kernel_size": 2, "stride": 2}),
          ("odd", ODD, {"kernel_size": 2, "stride": 2}),
          ("overlapping", ODD, {"kernel_size": 3, "stride": 2, "pad": 1}),
      )),
    replace(conv("of two", kernel_size=[3], pad=[1]), shapes=[ODD] * 2, tops=2, expect=several(test_layers.convolution),
            opencv=False),
    replace(deconv("of three", kernel_size=[2], stride=[2]), shapes=[MAP] * 3, tops=3,
            expect=several(test_layers.deconvolution), opencv=False),
    conv("DepthwiseConvolution", WIDE, kernel_size=[3], group=4, pad=[1]),
]  # fmt: skip


ALL = [*test_layers.CASES, *CASES]
"""The cases of both files."""

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_names_are_unique_and_every_type_has_a_case():
    assert len({case.name for case in ALL}) == len(ALL)
    identities = {"Dropout", "SpatialDropout", "Split"}  # never run: see test_network
    aliases = {"ConvolutionDepthwise", "DepthwiseConvolution"}
    assert {case.type for case in ALL} | identities | aliases == set(layer_types())


@every_case
def test_forward(case, tmp_path):
    test_layers.check_forward(case, tmp_path)


@every_case
def test_gradient(case):
    test_layers.check_gradient(case)


@every_case
def test_backends_agree(case):
    test_layers.check_backends(case)
