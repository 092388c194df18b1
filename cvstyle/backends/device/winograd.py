"""3×3 convolution by Winograd's F(4×4, 3×3) (kernels/winograd.cl): its filters, and its launches.

Interpolation is at 0, ±5/8, ±3/2 and ∞. These points leave less than half the error of the usual ±1 and ±2
(docs/performance-gpu.md), and all constants but the filters' are exact in float32.
"""

from __future__ import annotations

import math

import numpy as np

from ..threads import Workers
from .ways import slab

NEAR, FAR = 5 / 8, 3 / 2
_POINTS = (("NEAR", f"{NEAR}f"), ("FAR", f"{FAR}f"))
_GROUP = 256  # GROUP in portable.h
_LEAST = 16  # channels on either side
_AT_ONCE = 16  # channels whose filters a host thread transforms at a time: 3 MB of float64 for 512 outputs


def fits(weight, stride, dilation, group):
    """Whether the algorithm applies to weights of this shape, and may pay.

    Its transforms move 88 floats per tile and channel where the direct kernel multiplies 144 times per channel and
    output, which breaks even at about 40 channels on GPUs; 16 leaves room for what the direct kernel wastes on few.
    """
    return (
        tuple(weight[2:]) == (3, 3) and stride == dilation == (1, 1) and min(weight[0] // group, weight[1]) >= _LEAST
    )  # fmt: skip


def blocks(size, shift=(0, 0)):
    """Rows and columns of tiles of 4×4 on a map of this size, where they start so many positions before it."""
    return tuple(-(-(n + s) // 4) for n, s in zip(size, shift))


def transformed(weight):
    """Filters (group, outputs, inputs, 9) as winograd.cl reads them, in both directions.

    (36, group, inputs, outputs), the last two rounded up to eights; computed in float64 and rounded once.
    """
    groups, outputs, inputs, _ = weight.shape
    host = np.zeros((36, groups, -(-inputs // 8) * 8, -(-outputs // 8) * 8), np.float32)
    both = np.kron(evaluation(), evaluation())

    def fill(first):
        part = weight[:, :, first : first + _AT_ONCE].transpose(3, 0, 2, 1).astype(np.float64, order="C")
        found = (both @ part.reshape(9, -1)).reshape(36, *part.shape[1:])
        host[:, :, first : first + part.shape[2], :outputs] = found

    Workers().run(fill, range(0, inputs, _AT_ONCE))
    return host


def evaluation(points=(0, NEAR, -NEAR, FAR, -FAR)):
    """The matrix of a filter's values at the points and ∞, divided by the product of a point's distances to others."""
    points = np.array(points, float)
    distances = points[:, None] - points + np.eye(len(points))
    values = points[:, None] ** np.arange(3) / distances.prod(axis=1)[:, None]
    return np.vstack([values, [0, 0, 1]])


def convolve(
    ops, way, x, source, filters, bias, y, size, shift, pad, group, adjoint, relu, masked, mask, saved, bits, pooled
):
    """y ← filters ⋆ x + bias on a map of this size, by `way`; arguments as in `Convolution._run`.

    source: the size of the map that x is, or stands for. bits: for each tile 16 of them, or the winners of a pool.
    shift, saved: where tiles start, and where those of the mask do.
    """
    channels, outputs, (tile, splits, _, room) = x.shape[1], y.shape[1], way
    count, across = math.prod(blocks(size, shift)), blocks(size, shift)[1]
    width = slab(channels, outputs, splits, count, room)
    work, start_of_m = ops.empty((36 * (channels + splits * outputs) * width,)), 36 * channels * width
    window = tuple(pooled or (1, 1))
    for first in range(0, count, width):
        place = first, min(width, count - first), width, across, adjoint
        grid = (-(-channels * width // _GROUP), 1, 1)
        starts = [p + s for p, s in zip(pad, shift)]
        arguments = (x, mask, work, *place, channels, *source, *starts, *saved, *window)
        ops.launch("winograd", "winograd_input", grid, arguments, defines=input_macros(masked))
        grid = (-(-width // tile.bn), -(-(outputs // group) // tile.bm), splits * 36 * group)
        arguments = (work, filters, work, start_of_m, channels // group, outputs // group, width, splits)
        ops.launch("winograd", "winograd_product", grid, arguments, tile.threads, product_macros(tile, adjoint))
        grid = (-(-outputs * width // _GROUP), 1, 1)
        arguments = (work, start_of_m, bias, y, bits, *place, splits, outputs, *size, *shift, relu, *window)
        ops.launch("winograd", "winograd_output", grid, arguments, defines=_POINTS)


def input_macros(masked):
    """The first kernel's macros; the last one has only the points."""
    return (*_POINTS, ("MASKED", masked))


def product_macros(tile, adjoint):
    """Those of the product between them."""
    return (*tile.macros, ("TRANSPOSED", adjoint))


def kernels(tile, adjoint, masked):
    """What `convolve` launches, as (source, defines)."""
    return [("winograd", macros) for macros in (input_macros(masked), product_macros(tile, adjoint), _POINTS)]
