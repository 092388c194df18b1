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
from cvstyle.cli import main
from cvstyle.errors import ModelError, OptionError, ShapeError
from cvstyle.graph import Network
from cvstyle.layers import Context, layer_class, layer_types
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
    if len(inputs) == 2:
        out = inputs[1].shape[2:]
    elif shrink and not zoom:
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


def reorg(inputs, blobs, params):
    """reorg_layer.hpp, number by number."""
    x, s = inputs[0], params["stride"]
    channels, height, width = x.shape[1:]
    flat, y = x.reshape(-1), np.empty(x.size)
    for c, i, j in np.ndindex(channels, height, width):
        offset, map_ = divmod(c, channels // s**2)
        row, column = i * s + offset // s, j * s + offset % s
        small, large = j + width * (i + height * c), column + width * s * (row + height * s * map_)
        if params.get("reverse"):
            y[large] = flat[small]
        else:
            y[small] = flat[large]
    return [y]


def axpy(inputs, blobs, params):
    factors, x, y = inputs
    return [np.stack([float(factors[0, c].item()) * x[:, c] + y[:, c] for c in range(x.shape[1])], 1)]


def inner_product(inputs, blobs, params):
    x, weight = inputs[0].astype(np.float64), blobs[0].T if params.get("transpose") else blobs[0]
    axis = params["axis"] % x.ndim
    y = np.zeros((*x.shape[:axis], params["num_output"]))
    for *at, output in np.ndindex(y.shape):
        y[(*at, output)] = sum(map(float.__mul__, map(float, weight[output]), x[tuple(at)].reshape(-1).tolist()))
    return [y + blobs[1]]


def pooling(inputs, blobs, params):
    mode = "CEIL" if params["ceil_mode"] else "FLOOR"
    return test_layers.pooling(inputs, blobs, {**params, "round_mode": mode})


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
    Case("relu6", "ReLU6", [ODD], {}, each(relu6), low=4),
    Case("relu6 at 0", "ReLU6", [ODD], {}, each(relu6)),
    Case("relu6 slope", "ReLU6", [ODD], {"negative_slope": 0.25}, each(relu6), False),
    Case("relu6 slope at 6", "ReLU6", [ODD], {"negative_slope": 0.25}, each(relu6), low=4),
    Case("selu", "SeLu", [ODD], {}, each(selu), False),
    Case("selu alpha", "SeLu", [ODD], {"alpha": 0.5, "lambda": 3.0}, each(selu), False),
    Case("bnll", "BNLL", [ODD], {}, each(lambda x, p: math.log(1 + math.exp(x)))),
    Case("swish", "Swish", [ODD], {}, each(swish)),
    Case("swish beta", "Swish", [ODD], {"beta": -1.5}, each(swish), False),
    Case("mish", "Mish", [ODD], {}, each(mish)),
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
    Case("batchnorm own stored", "BatchNorm", [ODD], {"use_global_stats": False}, own_statistics(1e-5),
         blobs=STORED),
    Case("batchnorm own five", "BatchNorm", [ODD], {"use_global_stats": False}, own_statistics(1e-5), False,
         blobs=FIVE),
    Case("batchnorm five", "BatchNorm", [ODD], {}, channelwise(five_blobs), False, blobs=FIVE),
    Case("batchnorm nvcaffe", "BatchNorm", [ODD], {"scale_bias": True, "use_global_stats": False},
         channelwise(five_blobs), False, blobs=FIVE),
    Case("batchnorm fillers", "BatchNorm", [ODD], {"bias_filler": {}}, channelwise(five_blobs), False, blobs=FIVE),
    Case("batchnorm negative", "BatchNorm", [ODD], {"eps": 0.02},
         channelwise(lambda x, m, v, f: (x - m) / math.sqrt(v + 0.02)), blobs=NEGATIVE),
    Case("bn segnet inference", "BN", [ODD], {"bn_mode": "INFERENCE"}, channelwise(lambda x, a, b: a * x + b), False,
         blobs=FIVE[3:]),
    Case("bn segnet learn", "BN", [ODD], {"bn_mode": "LEARN"}, own_statistics(1e-9), False, blobs=FIVE[3:]),
    Case("bn segnet default", "BN", [ODD], {}, own_statistics(1e-9), False, blobs=FIVE[3:]),
    Case("bn pspnet", "BN", [ODD], {"frozen": True}, channelwise(pspnet), False, blobs=[*FIVE[3:], *FIVE[:2]]),
    Case("normalize", "Normalize", [ODD], {}, normalize),
    Case("normalize positions", "Normalize", [ODD], {"across_spatial": False, "channel_shared": False}, normalize),
    Case("normalize eps", "Normalize", [ODD], {"eps": 5.0, "channel_shared": False}, normalize, False),
    Case("permute", "Permute", [MAP], {"order": [0, 2, 3, 1]}, permute),
    Case("permute rest", "Permute", [MAP], {"order": [0, 3]}, permute, False),
    Case("permute none", "Permute", [MAP], {}, permute),
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
    Case("interp size", "Interp", [MAP], {"height": 7, "width": 5}, interp),
    Case("interp one", "Interp", [MAP], {"height": 1, "width": 1}, interp),
    Case("interp same", "Interp", [MAP], {"height": 3, "width": 4}, interp),
    Case("interp zoom", "Interp", [MAP], {"zoom_factor": 3}, interp),
    # OpenCV knows neither shrink_factor, pads, nor an order among the parameters.
    Case("interp shrink", "Interp", [ODD], {"shrink_factor": 2}, interp, False),
    Case("interp both", "Interp", [WIDE], {"shrink_factor": 2, "zoom_factor": 3}, interp, False),
    Case("interp size before both", "Interp", [ODD], {"shrink_factor": 2, "zoom_factor": 3, "height": 4, "width": 2},
         interp, False),
    Case("interp factor before size", "Interp", [ODD], {"shrink_factor": 2, "height": 9, "width": 9}, interp, False),
    Case("interp crop", "Interp", [WIDE], {"zoom_factor": 2, "pad_beg": -1, "pad_end": -2}, interp, False),
    Case("interp crop alone", "Interp", [ODD], {"zoom_factor": 1, "pad_beg": -1}, interp, False),
    Case("interp as another", "Interp", [MAP, (1, 5, 4, 6)], {}, interp, False, frozen=(1,)),
    Case("interp one pixel", "Interp", [(1, 2, 1, 1)], {"height": 3, "width": 4}, interp),
    Case("upsample nearest", "Upsample", [MAP], {"scale": 3}, nearest, False),
    Case("shuffle", "ShuffleChannel", [SIX], {"group": 3}, shuffled),
    Case("shuffle 2", "ShuffleChannel", [SIX], {"group": 2}, shuffled),
    Case("shuffle none", "ShuffleChannel", [SIX], {}, shuffled),
    Case("shuffle flat", "ShuffleChannel", [(1, 6)], {"group": 3}, shuffled, False),
    Case("reorg", "Reorg", [(1, 8, 4, 6)], {"stride": 2}, reorg, False),
    Case("reorg 3", "Reorg", [(1, 9, 3, 6)], {"stride": 3}, reorg, False),
    Case("reorg reverse", "Reorg", [(1, 8, 3, 5)], {"stride": 2, "reverse": True}, reorg, False),
    # OpenCV multiplies the third input and adds the second, other than SENet's axpy_layer.cpp.
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
    Case("pooling ceil_mode", "Pooling", [(1, 2, 8, 7)], {"kernel_size": 3, "stride": 2, "ceil_mode": False}, pooling),
    Case("softmax axis 2", "Softmax", [(1, 4, 5)], {"axis": 2}),
    Case("softmax axis -1", "Softmax", [MAP], {"axis": -1}),
    Case("softmax axis 0", "Softmax", [MAP], {"axis": 0}, formula(np.ones_like)),
    Case("inner product axis 2", "InnerProduct", [MAP], {"num_output": 5, "axis": 2}, inner_product),
    Case("inner product axis -1", "InnerProduct", [(1, 6, 4)], {"num_output": 3, "axis": -1, "transpose": True},
         inner_product, False),
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


# Rules of single layers


def layer_of(kind, shapes, params=(), tops=1, blobs=None, ops=None):
    """A bound layer with weights, as a network makes it."""
    case = Case("", kind, shapes, dict(params), tops=tops, blobs=blobs if blobs is not None else [])
    return case.layer(ops or Backend("float64"))


def test_larger_index_of_equal_values_first():
    """As std::greater orders Caffe's pairs of value and index."""
    layer = layer_of("ArgMax", [(1, 4)], {"top_k": 3})
    tops, _ = layer.forward([np.array([[1.0, 3, 3, 1]])], Context())
    assert tops[0].tolist() == [[[2, 1, 3]]]


def test_limits_of_clip_and_relu6():
    """Clip passes the gradient on its limits, ReLU6 does not."""
    g = np.ones((1, 5))
    x = np.array([[-1.0, 0, 3, 6, 7]])
    for kind, params, expected in (
        ("Clip", {"min": 0.0, "max": 6.0}, [0, 1, 1, 1, 0]),
        ("ReLU6", {}, [0, 0, 1, 0, 0]),
        ("ReLU6", {"negative_slope": 0.5}, [0.5, 0.5, 1, 0, 0]),
    ):
        _, backward = layer_of(kind, [(1, 5)], params).forward([x.copy()], Context())
        assert backward([g.copy()])[0].tolist() == [expected]


def test_unpooling_by_hand():
    """The last of several elements with one place counts; each gets the gradient of that place."""
    shapes = [(1, 1, 1, 3), (1, 1, 1, 3)]
    layer = layer_of("Upsample", shapes, {"upsample_h": 2, "upsample_w": 3})
    x, mask = np.array([[[[5.0, 6, 7]]]]), np.array([[[[4.0, 0, 4]]]])
    tops, backward = layer.forward([x, mask], Context())
    assert tops[0].tolist() == [[[[6, 0, 0], [0, 7, 0]]]]
    gradient, none = backward([np.arange(6.0).reshape(1, 1, 2, 3)])
    assert gradient.tolist() == [[[[4, 0, 4]]]]
    assert none is None


@pytest.mark.parametrize("params, size", [
    ({}, (6, 8)), ({"scale": 3}, (9, 12)), ({"scale_h": 2, "scale_w": 4}, (6, 16)),
    ({"scale": 2, "pad_out_h": True}, (5, 8)), ({"pad_out_w": True}, (6, 7)),
    ({"upsample_h": 5, "upsample_w": 9}, (5, 9)),
])  # fmt: skip
def test_size_of_unpooling(params, size):
    assert layer_of("Upsample", [MAP, MAP], params).top_shapes([MAP, MAP]) == [(1, 2, *size)]


def test_constant_map_has_finite_gradients():
    """Of a standard deviation of zero, in float32."""
    for kind, params in (("MVN", {}), ("BatchNorm", {"use_global_stats": False}), ("Normalize", {})):
        blobs_ = blobs([1]) if kind == "Normalize" else []
        layer = layer_of(kind, [(1, 2, 3, 4)], params, blobs=blobs_, ops=Backend())
        tops, backward = layer.forward([np.zeros((1, 2, 3, 4), np.float32)], Context())
        assert not tops[0].any()
        assert np.isfinite(backward([np.ones((1, 2, 3, 4), np.float32)])[0]).all()


@pytest.mark.parametrize("variance, fits", [(-0.01, True), (-0.03, False), (math.nan, False)])
def test_variance_plus_eps_must_be_positive(variance, fits):
    case = Case("", "BatchNorm", [ODD], {"eps": 0.02}, blobs=blobs([0] * 3, [1, variance, 1], [1]))
    if fits:
        assert np.isfinite(case.layer(Backend()).affine[0]).all()
    else:
        with pytest.raises(ModelError, match=r"layer 'layer' \(BatchNorm\).*variance"):
            case.layer(Backend())


@pytest.mark.parametrize("kind, shapes, params, message", [
    ("ArgMax", [MAP], {"axis": 1, "top_k": 3}, "top_k 3 is not within 1 to 2"),
    ("ArgMax", [MAP], {"top_k": 0}, "top_k 0"),
    ("ArgMax", [MAP], {"axis": 4}, "axis 4"),
    ("Clip", [MAP], {"min": 0.0}, "min or max"),
    ("Tile", [MAP], {}, "tiles"),
    ("Tile", [MAP], {"tiles": 2, "axis": 5}, "axis 5"),
    ("Permute", [MAP], {"order": [0, 1, 1]}, "order"),
    ("Permute", [MAP], {"order": [4]}, "order"),
    ("Permute", [(1, 2, 3, 4, 5)], {}, "four axes"),
    ("MVN", [(1, 2, 3, 4, 5)], {}, "four axes"),
    ("SPP", [MAP], {}, "pyramid_height"),
    ("SPP", [(1, 2, 5, 5)], {"pyramid_height": 3}, "pad"),
    ("SPP", [(1, 2)], {"pyramid_height": 1}, r"\(1, C, H, W\)"),
    ("SPP", [MAP], {"pyramid_height": 1, "pool": "STOCHASTIC"}, "STOCHASTIC"),
    ("Interp", [MAP], {}, "missing"),
    ("Interp", [MAP], {"height": 3}, "missing"),
    ("Interp", [MAP], {"height": 3, "width": 0}, "not positive"),
    ("Interp", [MAP], {"zoom_factor": 0}, "not positive"),
    ("Interp", [MAP], {"zoom_factor": 2, "pad_beg": 1}, "pad_beg"),
    ("Interp", [MAP], {"zoom_factor": 2, "pad_beg": -2, "pad_end": -1}, "too small"),
    ("ShuffleChannel", [SIX], {"group": 4}, "4 groups"),
    ("ShuffleChannel", [SIX], {"group": 0}, "group"),
    ("Reorg", [(1, 4, 3, 4)], {"stride": 2}, "does not divide"),
    ("Reorg", [MAP], {"stride": 2, "reverse": True}, "does not divide"),
    ("Reorg", [MAP], {}, "stride"),
    ("Axpy", [(1, 2), MAP, (1, 2, 3, 5)], {}, "equal shapes"),
    ("Axpy", [(1, 3), MAP, MAP], {}, "each channel"),
    ("Axpy", [(1, 2, 3, 1), MAP, MAP], {}, "each channel"),
    ("Axpy", [(1, 2), MAP], {}, "2 inputs; it takes 3"),
    ("Upsample", [MAP, (1, 2, 3, 3)], {}, "mask"),
    ("Upsample", [MAP, MAP], {"scale": 1}, "too small"),
    ("Upsample", [MAP, MAP], {"scale": 3, "pad_out_h": True}, "scale of 2"),
    ("Reduction", [MAP], {"axis": 4}, "axis 4"),
    ("Normalize", [(1, 3)], {}, r"\(1, C, H, W\)"),
    ("InnerProduct", [MAP], {"num_output": 1, "axis": 0}, "axis 0"),
    ("Convolution", [MAP, ODD], {"num_output": 1, "kernel_size": [1]}, "2 inputs but 1 tops"),
])  # fmt: skip
def test_bad_parameters_and_shapes_name_the_layer(kind, shapes, params, message):
    with pytest.raises(ModelError, match=rf"layer 'layer' \({kind}\).*{message}"):
        layer_class(kind)(Case("", kind, shapes, params).definition(), Backend()).top_shapes(shapes)


def test_inputs_of_one_convolution_have_one_shape():
    case = replace(conv("", kernel_size=[1]), shapes=[MAP, ODD], tops=2)
    with pytest.raises(ModelError, match="inputs differ in shape"):
        layer_class("Convolution")(case.definition(), Backend()).top_shapes(case.shapes)


def test_average_pooling_has_no_mask():
    case = Case("", "Pooling", [ODD], {"kernel_size": 2, "pool": "AVE"}, tops=2)
    with pytest.raises(ModelError, match="only max pooling has a mask"):
        layer_class("Pooling")(case.definition(), Backend()).top_shapes([ODD])


# In networks

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 16 dim: 24 } } }\n'
ENCODER = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "bn1" type: "BN" bottom: "conv1" top: "conv1" bn_param { bn_mode: INFERENCE } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" top: "pool1_mask"
        pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
"""
DECODER = """
layer { name: "upsample1" type: "Upsample" bottom: "conv2" bottom: "pool1_mask" top: "upsample1"
        upsample_param { scale: 2 } }
layer { name: "conv3" type: "Convolution" bottom: "upsample1" top: "conv3"
        convolution_param { num_output: 5 kernel_size: 3 pad: 1 } }
layer { name: "argmax" type: "ArgMax" bottom: "conv3" top: "argmax" argmax_param { axis: 1 } }
"""


def net_of(text, folder, weights=None):
    """A net read from a prototxt with the input above, with random weights or these."""
    path = folder / "net.prototxt"
    path.write_text(INPUT + text)
    net = read_net(str(path), None)
    if weights is None:
        return nets.with_weights(net)
    return replace(net, weights=weights, weights_source="net.caffemodel")


def picture(seed=0, size=(16, 24)):
    return np.random.default_rng(seed).normal(0, 30, (3, *size))


def check_objective(net, layers, **settings):
    """The gradient of an objective in float64 against finite differences, at a few pixels."""
    network = Network(net, Backend("float64"))
    objective = Objective(network, picture(), [picture(1)], content_layers=layers, style_layers=layers, **settings)
    x = picture(2)
    _, gradient = objective(x)
    assert np.abs(gradient).max() > 0
    for at in zip(*np.unravel_index(np.random.default_rng(3).integers(0, x.size, 6), x.shape)):
        sides = []
        for step in (1e-4, -1e-4):
            moved = x.copy()
            moved[at] += step
            sides.append(objective(moved)[0])
        expected = (sides[0] - sides[1]) / 2e-4
        assert gradient[at] == pytest.approx(expected, rel=1e-4, abs=1e-6 * np.abs(gradient).max())


def test_encoder_and_decoder_of_segnet(tmp_path):
    net = net_of(ENCODER + DECODER, tmp_path)
    network = Network(net, Backend("float64"))
    x = picture()[None]
    maps = network.program(["relu1", "relu2", "upsample1", "pool1"]).forward(x)
    expected = np.zeros(maps["upsample1"].shape)
    for c, i, j in np.ndindex(*maps["relu2"].shape[1:]):
        window = maps["relu1"][0, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = np.unravel_index(window.argmax(), (2, 2))
        expected[0, c, 2 * i + row, 2 * j + column] = maps["relu2"][0, c, i, j]
    np.testing.assert_array_equal(maps["upsample1"], expected)
    check_objective(net, ["conv3", "relu1"])


def test_a_mask_that_no_layer_reads_is_not_computed(tmp_path, monkeypatch):
    def fail(self, *arguments):
        raise AssertionError("the mask is computed")

    network = Network(net_of(ENCODER + DECODER, tmp_path), Backend("float64"))
    monkeypatch.setattr(Backend, "pool_positions", fail)
    features = network.program(["pool1", "relu2"]).forward(picture()[None])
    assert set(features) == {"pool1", "relu2"}
    assert features.backward(lambda name, g: features[name] if g is None else g).shape == (1, 3, 16, 24)
    with pytest.raises(AssertionError, match="is computed"):
        network.program(["conv3"]).forward(picture()[None])


def test_an_average_in_place_of_a_max_pool_with_a_mask(tmp_path):
    """The encoder runs; the decoder, which reads the mask, is refused before anything is computed."""
    network = Network(net_of(ENCODER + DECODER, tmp_path), Backend("float64")).with_pooling("avg")
    maps = network.program(["relu1", "pool1"]).forward(picture()[None])
    windows = maps["relu1"].reshape(1, 4, 8, 2, 12, 2)
    np.testing.assert_allclose(maps["pool1"], windows.mean((3, 5)), rtol=1e-12)
    with pytest.raises(ModelError, match=r"'pool1' \(Pooling\).*no mask; 'upsample1' \(Upsample\).*keep pooling max"):
        network.program(["conv3"])
    with pytest.raises(ModelError, match=r"'pool1' \(Pooling\): an average has no mask; keep"):
        network.program(["pool1_mask"])


def test_layers_below_a_mask_in_tiles_and_on_two_devices(tmp_path):
    net = net_of(ENCODER + DECODER, tmp_path)
    layers = {"content_layers": ["relu2"], "style_layers": ["relu1"]}
    network = Network(net, Backend("float64"))
    whole, tiled = (Objective(network, picture(), [picture(1)], tile_size=n, **layers) for n in (None, 12))
    assert len(tiled.tiles) > 1
    for a, b in zip(whole(picture(2)), tiled(picture(2))):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    with pytest.raises(OptionError, match=r"net.prototxt: layer 'upsample1' \(Upsample\).*tiles"):
        Objective(network, picture(), [picture(1)], tile_size=12, content_layers=["conv3"])
    first, second = Backend("float64", threads=1), Backend("float64", threads=1)
    split = network.partition([first, second], ["pool1"])
    alone, shared = (Objective(n, picture(), content_layers=["conv3"])(picture(2)) for n in (network, split))
    np.testing.assert_allclose(alone[1], shared[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer, stop", [
    ("argmax", "argmax"), ("step", "step"), ("above", "step"), ("pool1_mask", "pool1"), ("both", None),
])  # fmt: skip
def test_losses_without_a_gradient_are_refused(layer, stop, tmp_path):
    more = """
        layer { name: "step" type: "Threshold" bottom: "conv2" top: "step" }
        layer { name: "above" type: "Power" bottom: "step" top: "above" power_param { scale: 2 } }
        layer { name: "both" type: "Concat" bottom: "above" bottom: "conv2" top: "both" }
    """
    network = Network(net_of(ENCODER + DECODER + more, tmp_path), Backend())
    network.program([layer]).forward(picture().astype(np.float32)[None], needs_grad=False)
    if stop is None:
        assert Objective(network, picture(), content_layers=[layer])(picture(1))[1].any()
        return
    with pytest.raises(OptionError, match=f"no gradient.*from layer '{layer}'.*layer '{stop}'"):
        Objective(network, picture(), [picture(1)], content_layers=["relu1"], style_layers=[layer])


OWN = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" batch_norm_param { use_global_stats: false } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
"""


def test_statistics_of_the_map(tmp_path):
    """No weights are needed for them, those of the file have no effect, and tiles are refused."""
    net = net_of(OWN, tmp_path)
    assert "bn1" not in net.weights
    check_objective(net, ["relu1"])
    stored = [np.full(4, 9, np.float32), np.full(4, -1, np.float32), np.ones(1, np.float32)]
    maps = []
    for weights in (net.weights, {**net.weights, "bn1": stored}):
        network = Network(replace(net, weights=weights), Backend("float64"))
        maps.append(network.program(["conv1", "bn1"]).forward(picture()[None], needs_grad=False))
    np.testing.assert_array_equal(maps[0]["bn1"], maps[1]["bn1"])
    np.testing.assert_allclose(maps[0]["bn1"].mean((0, 2, 3)), 0, atol=1e-12)
    variance = maps[0]["conv1"].var((0, 2, 3))
    np.testing.assert_allclose(maps[0]["bn1"].var((0, 2, 3)), variance / (variance + 1e-5), rtol=1e-12)
    with pytest.raises(OptionError, match=r"layer 'bn1' \(BatchNorm\).*tiles"):
        Objective(Network(net, Backend()), picture(), [picture(1)], style_layers=["relu1"], tile_size=12)


def test_choice_sees_the_map_that_a_layer_normalises():
    """A network whose layers normalise by the map's own statistics has the same layers as one with stored ones."""
    stored = nets.resnet50(16, (256, 256))
    own = replace(stored, layers=tuple(
        replace(layer, params={"use_global_stats": False}) if layer.type == "BatchNorm" else layer
        for layer in stored.layers
    ))  # fmt: skip
    chosen = [choose_layers(Network(net, Backend()), [(256, 256)]) for net in (stored, own)]
    assert len(chosen[0]["style_layers"]) > 2
    assert chosen[0] == chosen[1]


BN = OWN.replace('"BatchNorm"', '"BN"').replace("batch_norm_param { use_global_stats: false }", "")


@pytest.mark.parametrize("count", [2, 4])
def test_blobs_say_which_bn_it_is(count, tmp_path):
    """Before a convolution takes up the layer as well."""
    rows = [np.arange(1, 5, dtype=np.float32) * (i + 1) for i in range(count)]
    weights = {**net_of(OWN, tmp_path).weights, "bn1": rows}
    network = Network(net_of(BN, tmp_path, weights), Backend("float64"))
    x = picture()[None]
    (ours,) = network.program(["relu1"]).forward(x, needs_grad=False).values()
    conv1 = network.program(["conv1"]).forward(x, needs_grad=False)["conv1"]
    numbers = [*(row.astype(float) for row in rows), conv1.mean((0, 2, 3)), conv1.var((0, 2, 3))]
    f, shift, mean, variance = (n.reshape(1, 4, 1, 1) for n in numbers[:4])
    expected = np.maximum(f * (conv1 - mean) / np.sqrt(variance + (1e-5 if count == 4 else 1e-9)) + shift, 0)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


SHARED = """
layer { name: "half" type: "Power" bottom: "data" top: "half" power_param { scale: 0.5 } }
layer { name: "conv1" type: "Convolution" bottom: "data" bottom: "half" top: "a" top: "b"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 bias_term: false } }
layer { name: "relu1" type: "ReLU" bottom: "a" top: "a" }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" eltwise_param { coeff: 1 coeff: -2 } }
"""


def test_one_convolution_of_two_inputs(tmp_path):
    """Without a bias the map of half the picture is half the map; in tiles as well."""
    net = net_of(SHARED, tmp_path)
    network = Network(net, Backend("float64"))
    maps = network.program(["conv1", "sum"]).forward(picture()[None], needs_grad=False)
    np.testing.assert_allclose(maps["sum"], np.maximum(maps["conv1"], 0) - maps["conv1"], atol=1e-10)
    check_objective(net, ["sum"])
    settings = {"content_layers": ["sum"], "style_layers": ["conv1"]}
    for ops in [Backend(), *(make() for make in nets.ENGINES.values())]:
        network = Network(net, ops)
        whole, tiled = (Objective(network, picture(), [picture(1)], tile_size=n, **settings) for n in (None, 12))
        assert len(tiled.tiles) > 1
        expected = whole(picture(2))[1]
        np.testing.assert_allclose(tiled(picture(2))[1], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_reduction_to_a_number(tmp_path):
    text = ENCODER + 'layer { name: "mean" type: "Reduction" bottom: "conv2" top: "mean" %s }'
    net = net_of(text % "reduction_param { operation: MEAN }", tmp_path)
    network = Network(net, Backend("float64"))
    maps = network.program(["relu2", "mean"]).forward(picture()[None], needs_grad=False)
    assert maps["mean"].shape == ()
    assert maps["mean"] == pytest.approx(maps["relu2"].mean())
    above = net_of(text % "" + 'layer { name: "scale" type: "Scale" bottom: "mean" top: "scale" }', tmp_path, {})
    with pytest.raises(ShapeError, match=r"layer 'scale'.*shape \(\)"):
        Network(above, Backend()).shapes((16, 24))


@pytest.mark.parametrize("text, kind, params", [
    ("permute_param { order: 0 order: 2 }", "Permute", {"order": [0, 2]}),
    ("interp_param { height: 3 width: 4 pad_beg: -1 }", "Interp", {"height": 3, "width": 4, "pad_beg": -1}),
    ("shuffle_channel_param { group: 3 }", "ShuffleChannel", {"group": 3}),
    ("norm_param { across_spatial: false scale_filler { type: 'constant' value: 20 } }", "Normalize",
     {"across_spatial": False}),
    ("bn_param { scale_filler { value: 1 } bn_mode: INFERENCE }", "BN", {"bn_mode": "INFERENCE"}),
    ("bn_param { frozen: true momentum: 0.95 eps: 0.5 }", "BN", {"frozen": True, "eps": 0.5}),
    ("upsample_param { scale: 2 pad_out_w: true upsample_h: 5 }", "Upsample",
     {"scale": 2, "pad_out_w": True, "upsample_h": 5}),
    ("relu6_param { negative_slope: 0.5 }", "ReLU6", {"negative_slope": 0.5}),
    ("reorg_param { stride: 2 reverse: true }", "Reorg", {"stride": 2, "reverse": True}),
    ("selu_param { lambda: 2 }", "SeLu", {"lambda": 2.0}),
    ("batch_norm_param { scale_bias: true bias_filler { type: 'constant' } }", "BatchNorm",
     {"scale_bias": True, "bias_filler": {}}),
    ("pooling_param { ceil_mode: false }", "Pooling", {"ceil_mode": False}),
    ("swish_param { beta: 2 }", "Swish", {"beta": 2.0}),
    ("convolution_param { num_output: 3 }", "DepthwiseConvolution", {"num_output": 3}),
])  # fmt: skip
def test_parameters_are_read_and_written(text, kind, params, tmp_path):
    net = net_of(f'layer {{ name: "a" type: "{kind}" bottom: "data" top: "a" {text} }}', tmp_path, {})
    assert net.layers[0].params == params
    path, _ = nets.write(net, tmp_path)
    assert read_net(path, None).layers == net.layers


@pytest.mark.parametrize("text, kind, params", [
    ("INTERP interp_param { zoom_factor: 8 }", "Interp", {"zoom_factor": 8}),
    ("BN bn_param { bn_mode: INFERENCE }", "BN", {"bn_mode": "INFERENCE"}),
    ("PRELU prelu_param { channel_shared: true }", "PReLU", {"channel_shared": True}),
    ("BATCH_NORM batch_norm_param { use_global_stats: false }", "BatchNorm", {"use_global_stats": False}),
    ("UPSAMPLE upsample_param { scale: 2 }", "Upsample", {"scale": 2}),
    ("RESHAPE reshape_param { shape { dim: 0 } }", "Reshape", {"shape": {"dim": [0]}}),
    ("MVN mvn_param { eps: 1 }", "MVN", {"eps": 1.0}),
    ("THRESHOLD threshold_param { threshold: 2 }", "Threshold", {"threshold": 2.0}),
    ("ARGMAX argmax_param { top_k: 2 }", "ArgMax", {"top_k": 2}),
    ("VOODOO", "VOODOO", {}),
])  # fmt: skip
def test_types_of_forks_of_2014(text, kind, params, tmp_path):
    """DeepLab's first networks have INTERP in the old form."""
    path = tmp_path / "net.prototxt"
    path.write_text(f'input: "data" layers {{ name: "a" bottom: "data" top: "a" type: {text} }}')
    (layer,) = read_net(str(path), None).layers
    assert (layer.type, layer.params) == (kind, params)


def test_info_says_where_a_loss_can_be(tmp_path, capsys):
    net_of(ENCODER + DECODER, tmp_path)
    assert main(["info", "--proto", str(tmp_path / "net.prototxt"), "--image-size", "24x16"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["conv3"].endswith("c s")
    assert not rows["argmax"].rstrip().endswith(("c", "s"))


def test_dropout_of_whole_maps_is_passed_on(tmp_path):
    text = ENCODER.replace('"ReLU" bottom: "conv2"', '"SpatialDropout" bottom: "conv2"')
    network = Network(net_of(text, tmp_path), Backend())
    assert network.value("relu2") == network.value("conv2")
