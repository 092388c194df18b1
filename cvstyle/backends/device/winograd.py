"""3×3 convolution by Winograd's F(4×4, 3×3) (kernels/winograd.cl): its filters, and its launches.

Interpolation is at 0, ±5/8, ±3/2 and ∞. These points leave less than half the error of the usual ±1 and ±2
(docs/performance-gpu.md), and all constants but the filters' are exact in float32.
"""

from __future__ import annotations

import numpy as np

from ..threads import Workers
from .algorithms import tile_batch

NEAR = 5 / 8
FAR = 3 / 2
_POINTS = (("NEAR", f"{NEAR}f"), ("FAR", f"{FAR}f"))
_GROUP = 256  # GROUP in portable.h
_MIN_CHANNELS = 16  # on either side
_CHUNK = 16  # channels whose filters a host thread transforms at a time: 3 MB of float64 for 512 outputs


def fits(weight, stride, dilation, group):
    """True if the algorithm applies to weights of this shape, and may pay.

    Its transforms move 88 floats per tile and channel where the direct kernel multiplies 144 times per channel and
    output, which breaks even at about 40 channels on GPUs; 16 leaves room for the direct kernel's waste on few.
    """
    applies = tuple(weight[2:]) == (3, 3) and stride == dilation == (1, 1)
    return applies and min(weight[0] // group, weight[1]) >= _MIN_CHANNELS


def tile_grid(size, offset=(0, 0)):
    """Numbers of rows and columns of 4×4 tiles on a map of this size, the first tile starting `offset` before it."""
    return tuple(-(-(n + s) // 4) for n, s in zip(size, offset))


def transform_filters(weight):
    """Filters (group, outputs, inputs, 9) as winograd.cl reads them, in both directions.

    (36, group, inputs, outputs), the last two rounded up to multiples of eight; computed in float64 and rounded once.
    """
    groups, outputs, inputs, _ = weight.shape
    host = np.zeros((36, groups, -(-inputs // 8) * 8, -(-outputs // 8) * 8), np.float32)
    both_axes = np.kron(evaluation(), evaluation())

    def fill(first):
        chunk = weight[:, :, first : first + _CHUNK].transpose(3, 0, 2, 1).astype(np.float64, order="C")
        transformed = (both_axes @ chunk.reshape(9, -1)).reshape(36, *chunk.shape[1:])
        host[:, :, first : first + chunk.shape[2], :outputs] = transformed

    Workers().run(fill, range(0, inputs, _CHUNK))
    return host


def evaluation(points=(0, NEAR, -NEAR, FAR, -FAR)):
    """The matrix of a filter's values at the points and ∞, divided by the product of a point's distances to others."""
    points = np.array(points, float)
    distances = points[:, None] - points + np.eye(len(points))
    values = points[:, None] ** np.arange(3) / distances.prod(axis=1)[:, None]
    return np.vstack([values, [0, 0, 1]])


def convolve(ops, algorithm, problem, operands, filters):
    """Compute operands.y, batch by batch of tiles. ops: the backend. filters: as `transform_filters` packs them."""
    block, splits, _, workspace = algorithm
    x, mask, bias, y, saved = operands
    channels = x.shape[1]
    outputs = y.shape[1]
    rows, columns = tile_grid(problem.size, problem.tile_offset)
    count = rows * columns
    batch = tile_batch(channels, outputs, splits, count, workspace)
    work = ops.empty((36 * (channels + splits * outputs) * batch,))
    start_of_m = 36 * channels * batch
    pooled = problem.pooled or (1, 1)
    starts = [p + s for p, s in zip(problem.pad, problem.tile_offset)]
    input_arguments = (channels, *problem.source, *starts, *problem.mask_offset, *pooled)
    product_arguments = (start_of_m, problem.channels, problem.outputs, batch, splits)
    output_arguments = (splits, outputs, *problem.size, *problem.tile_offset, problem.epilogue, *pooled)
    input_groups = (-(-channels * batch // _GROUP), 1, 1)
    product_groups = (-(-batch // block.bn), -(-problem.outputs // block.bm), splits * 36 * problem.groups)
    output_groups = (-(-outputs * batch // _GROUP), 1, 1)
    (_, of_input), (_, of_product), (_, of_output) = kernels(block, problem)
    for first in range(0, count, batch):
        tiles = first, min(batch, count - first), batch, columns, problem.backward
        ops.launch(
            "winograd", "winograd_input", input_groups, (x, mask, work, *tiles, *input_arguments), defines=of_input
        )
        ops.launch(
            "winograd", "winograd_product", product_groups, (work, filters, work, *product_arguments), block.threads,
            of_product,
        )  # fmt: skip
        ops.launch(
            "winograd", "winograd_output", output_groups,
            (work, start_of_m, bias, y, saved, *tiles, *output_arguments), defines=of_output,
        )  # fmt: skip


def kernels(block, problem):
    """(source, macros) of the transform of the input, the product and the transform of the output."""
    macros = input_macros(problem.prologue), product_macros(block, problem.backward), _POINTS
    return [("winograd", each) for each in macros]


def input_macros(prologue):
    """Macros of the transform of the input."""
    return (*_POINTS, ("PROLOGUE", int(prologue)))


def product_macros(block, backward):
    """Macros of the product."""
    return (*block.macros, ("TRANSPOSED", int(backward)))
