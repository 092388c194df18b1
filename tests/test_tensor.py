"""The tensor-core kernels without a GPU: what CUDA's compiler makes of them, run on the CPU (ptx.py) and read."""

from __future__ import annotations

import os

import fake_cupy
import nets
import numpy as np
import nvrtc
import ptx
import pytest
from pictures import noise
from test_opencl import EXACT, check_recording, close, on_gpu
from test_tiles import check_features

from cvstyle import Objective
from cvstyle import backends as all_backends
from cvstyle.backends import device as common
from cvstyle.backends import opencl
from cvstyle.backends.base import RELU, Epilogue
from cvstyle.backends.device import compiler, conv_tensor_cores, mma, operands
from cvstyle.backends.device.algorithms import Algorithm
from cvstyle.errors import OptionError
from cvstyle.graph import Network
from cvstyle.netdef import LayerDef, NetDef

BACKEND = os.environ.get("CVSTYLE_TEST_BACKEND")
ON_GPU = BACKEND in ("cuda", "nothing")
PADS = (1, 1, 1, 1)
# A GPU's tensor cores cut off what a sum has beyond float32 where the interpreter rounds it, so errors add up on one
# side. Emulated for steps of 4 to 16 products and 0 to 2 more bits: up to 1.4e-6 in one word; in two, with three times
# as many products, 4.6e-6, and 4.9e-6 in bf16, whose two words leave out 4.5e-6 by themselves.
TRUNCATED, TRUNCATED_TWO_WORDS = 3e-6, 1e-5
SHAPES = [((16, 9, 17), 16), ((32, 5, 33), 48), ((32, 17, 16), 80), ((16, 1, 1), 32), ((16, 2, 40), 64)]


@pytest.fixture(scope="module")
def backends():
    """Backends by precision: on a GPU (CVSTYLE_TEST_BACKEND=cuda), or on the CPU, each array in memory of its own.

    On a GPU, Hopper's own instruction is tried where CVSTYLE_WGMMA=1 makes the backend use it (`make gpu-wgmma`).
    """
    with pytest.MonkeyPatch.context() as patch:
        if BACKEND not in ("cuda", "nothing", "ptx"):  # for which conftest has done it
            fake_cupy.install(patch, ptx.Device())
        found = {precision: all_backends.get("cuda", precision=precision) for precision in operands.PRECISIONS}
        for backend in found.values():
            backend.autotune = False
            if not ON_GPU:
                backend.pool = ptx.Pool(backend.device)
        yield found


@pytest.fixture(params=[on_gpu(p) if p in ("tf32", "fp16") else p for p in operands.PRECISIONS])
def ops(request, backends):
    return backends[request.param]


def word(ops):
    return ops.precision.removesuffix("-fast")


def integers(*shape, seed=0, most=8):
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype(np.float32)


def as_rounded(x, precision):
    """x rounded as the kernels round it, in float64."""
    x = np.asarray(x, np.float32)
    if precision == "fp16":
        factor = operands.fp16_scale(np.abs(x).max())
        return (x * factor).astype(np.float16).astype(np.float64) / factor
    bits = x.view(np.uint32).astype(np.uint64)
    if precision == "tf32":
        bits = (bits + 0x1000) & 0xFFFFE000
    else:
        bits = (bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def set_plan(monkeypatch, tile, split, ops=None):
    if tile.wgmma and ON_GPU and not ops.device.wgmma:
        pytest.skip("wgmma is tried on a GPU of compute capability 9.0 with CVSTYLE_WGMMA=1")
    monkeypatch.setattr(conv_tensor_cores, "best_algorithm", lambda *_, **__: Algorithm(tile, split))


LONG = 4095  # needs two words of every kind


@pytest.mark.parametrize("tile, split, shape, outputs", [
    (on_gpu if i in (0, 3, 4) and j == 0 else pytest.param)(*way, *SHAPES[(i + j) % 5])
    for i, way in enumerate([*zip(mma.MMA_BLOCKS, (1, 2, 1, 2, 2)), (mma.MMA_BLOCKS[1], 1)]) for j in (0, 2)
    if i < 2 or j == 0
], ids=str)  # fmt: skip
def test_convolution_is_exact_on_integers(backends, monkeypatch, tile, split, shape, outputs):
    check_integers(backends["tf32-fast"], monkeypatch, tile, split, shape, outputs)


@pytest.mark.parametrize("precision, tile, split", [
    ("bf16-fast", mma.MMA_BLOCKS[1], 1), on_gpu("fp16-fast", mma.MMA_BLOCKS[1], 1),
    ("bf16-fast", mma.MMA_BLOCKS[-1], 2), on_gpu("fp16-fast", mma.MMA_BLOCKS[-1], 2),
], ids=str)  # fmt: skip
def test_words_of_two_are_exact_on_integers(backends, monkeypatch, precision, tile, split):
    """The types differ in rounding and in the product alone, so here two tiles suffice."""
    for shape, outputs in SHAPES[1::3]:
        check_integers(backends[precision], monkeypatch, tile, split, shape, outputs)


@pytest.mark.parametrize("precision, tile, split, shape", [
    ("tf32-fast", mma.MMA_BLOCKS[1], 7, (80, 9, 17)), on_gpu("fp16-fast", mma.MMA_BLOCKS[-1], 4, (80, 5, 19)),
    ("bf16", mma.MMA_BLOCKS[2], 3, (64, 2, 33)), ("fp16-fast", mma.WGMMA_BLOCKS[1], 3, (80, 17, 16)),
], ids=str)  # fmt: skip
def test_shares_may_be_uneven_or_empty(backends, monkeypatch, precision, tile, split, shape):
    """10 chunks by seven groups, which take two each or none; 5 by four, two each, one or none; 4 and 5 by three."""
    check_integers(backends[precision], monkeypatch, tile, split, shape, 48)


@pytest.mark.gpu
@pytest.mark.parametrize("precision, tile", [("fp16", mma.MMA_BLOCKS[1]), ("tf32-fast", mma.MMA_BLOCKS[-1])])
def test_whoever_comes_last_the_bytes_are_the_same(backends, monkeypatch, precision, tile):
    """Shares are added in one order (here they arrive in one that is drawn by chance), and the counters stay zero."""
    set_plan(monkeypatch, tile, 4)
    ops = backends[precision]
    filters = ops.convolution(noise(32, 64, 3, 3), noise(32, seed=1), (1, 1), (1, 1), 1)
    x, g = ops.asarray(noise(1, 64, 9, 20, seed=2)), ops.asarray(noise(1, 32, 9, 20, seed=3))
    runs = []
    for _ in range(4):
        y, mask = filters.forward(x, PADS, RELU)
        results = y, mask.bits, ops.cached_abs_max(y), filters.backward(g, (9, 20), PADS)
        runs.append([np.array(a).tobytes() for a in results])
    assert all(run == runs[0] for run in runs)
    assert not any(np.array(counters).any() for counters in ops._counters.values())


@pytest.mark.parametrize("precision, tile, split", [
    ("fp16-fast", 1, 2), ("tf32-fast", 2, 1), ("fp16-fast", 3, 1),
    *([(p, t, 1) for p in ("tf32-fast", "fp16-fast", "bf16-fast") for t in (0, 4)] if ON_GPU else []),
])  # fmt: skip
def test_hoppers_instruction_is_exact_on_integers(backends, monkeypatch, precision, tile, split):
    """Descriptors, fragments, stages and fences of wgmma; tiles differ in their sizes alone, so here two suffice."""
    for shape, outputs in SHAPES[1::3]:
        check_integers(backends[precision], monkeypatch, mma.WGMMA_BLOCKS[tile], split, shape, outputs)


def pooled(ops, filters, x, size, g=None):
    """A convolution, its ReLU and a 2×2 max pool, and the gradient of that, fused where the backend fuses.

    g: the pool's gradient, of whose size it is; by default it rounds up.
    """
    if g is None:
        output = tuple(-(-n // 2) for n in size)
        g = ops.asarray(integers(1, filters.forward(x, PADS)[0].shape[1], *output, seed=4))
    output = g.shape[2:]
    if ops is not EXACT:
        y, winners = filters.forward(x, PADS, Epilogue(True, True, output))
        return y, filters.backward(g, size, PADS, winners)
    rectified, mask = filters.forward(x, PADS, RELU)
    geometry = ((2, 2), (2, 2), (0, 0))
    y, winners = ops.max_pool(rectified, *geometry, output)
    return y, filters.backward(ops.max_pool_backward(g, winners, rectified.shape, *geometry), size, PADS, mask)


def check_integers(ops, monkeypatch, tile, split, shape, outputs):
    """Sums of small whole numbers are exact in every precision, so one wrong index shows."""
    set_plan(monkeypatch, tile, split, ops)
    weight, bias, results = integers(outputs, shape[0], 3, 3, seed=1), integers(outputs, seed=2), []
    for backend in (EXACT, ops):
        filters = backend.convolution(weight, bias, (1, 1), (1, 1), 1)
        x = backend.asarray(integers(1, *shape))
        rectified, mask = filters.forward(x, PADS, RELU)
        g = integers(1, outputs, *shape[1:], seed=3)
        results.append([
            filters.forward(x, PADS)[0], rectified, filters.forward(x, PADS, Epilogue(relu=True))[0],
            filters.backward(backend.asarray(g), shape[1:], PADS),
            filters.backward(backend.asarray(g), shape[1:], PADS, mask), *pooled(backend, filters, x, shape[1:]),
        ])  # fmt: skip
    for ours, exact in zip(results[1], results[0], strict=True):
        np.testing.assert_array_equal(np.array(ours), exact)


def test_a_pool_that_rounds_down(backends):
    """Its windows leave out the last row and column of an odd map, so its size is another one."""
    ops = backends["fp16-fast"]
    weight, bias, results = integers(32, 16, 3, 3, seed=1), integers(32, seed=2), []
    for backend in (EXACT, ops):
        x = backend.asarray(integers(1, 16, 7, 9))
        g = backend.asarray(integers(1, 32, 3, 4, seed=3))
        results.append(pooled(backend, backend.convolution(weight, bias, (1, 1), (1, 1), 1), x, (7, 9), g))
    for ours, exact in zip(results[1], results[0], strict=True):
        np.testing.assert_array_equal(np.array(ours), exact)


def test_other_paddings_have_no_blocks(backends):
    """What windows know of the filters says nothing of the padding, so Winograd's algorithm would round otherwise."""
    ops, weight, x = backends["fp16-fast"], integers(16, 16, 3, 3, seed=1), integers(1, 16, 9, 12)
    filters = ops.convolution(weight, None, (1, 1), (1, 1), 1)
    y, _ = filters.forward(ops.asarray(x), (0, 0, 0, 0))
    np.testing.assert_array_equal(
        np.array(y), EXACT.convolution(weight, None, (1, 1), (1, 1), 1).forward(x, (0, 0, 0, 0))[0]
    )
    assert filters.block_size == 1 and "Winograd" not in filters.engine()


def test_a_deconvolution_is_computed_before_its_input_is_overwritten(backends):
    layers = (
        LayerDef("first", "Convolution", ("data",), ("first",), {"num_output": 16, "kernel_size": [1]}),
        LayerDef("up", "Deconvolution", ("first",), ("up",), {
            "num_output": 16, "kernel_size": [3], "pad": [1], "bias_term": False,
        }),
        LayerDef("relu", "ReLU", ("first",), ("relu",)),
        LayerDef("sum", "Eltwise", ("up", "relu"), ("sum",)),
    )  # fmt: skip
    weights = {"first": [integers(16, 3, 1, 1), integers(16)], "up": [integers(16, 16, 3, 3)]}
    net, x, found = NetDef("net", {"data": None}, layers, weights), integers(1, 3, 6, 7), []
    for ops in (EXACT, backends["tf32-fast"]):
        features = Network(net, ops).program(["sum"]).forward(ops.asarray(x), needs_grad=False)
        found.append(np.array(ops.to_host(features["sum"])))
    np.testing.assert_array_equal(found[1], found[0])


TWO_WORDS = [
    (on_gpu if (precision, way[1]) in (("tf32", 1), ("fp16", 2)) else pytest.param)(precision, *way)
    for way in ((mma.MMA_BLOCKS[0], 1), (mma.MMA_BLOCKS[-1], 2)) for precision in operands.FORMATS
]  # fmt: skip
TWO_WORDS += [(precision, mma.WGMMA_BLOCKS[-1], 1) for precision in (operands.FORMATS if ON_GPU else ("fp16",))]


@pytest.mark.parametrize("precision, tile, split", TWO_WORDS)
@pytest.mark.parametrize("most_x, most_weight", [(LONG, 2), (2, LONG)])
def test_two_words_hold_long_integers(backends, monkeypatch, precision, most_x, most_weight, tile, split):
    """The forward pass takes numbers of twice a word's bits: words, rests and passes each in their place."""
    set_plan(monkeypatch, tile, split, backends[precision])
    shape, outputs, results = (48, 6, 19), 32, []
    weight, bias = integers(outputs, shape[0], 3, 3, seed=1, most=most_weight), integers(outputs, seed=2)
    for backend in (EXACT, backends[precision]):
        filters = backend.convolution(weight, bias, (1, 1), (1, 1), 1)
        x = backend.asarray(integers(1, *shape, most=most_x))
        rectified = filters.forward(x, PADS, RELU)[0]
        results.append([filters.forward(x, PADS)[0], rectified, pooled(backend, filters, x, shape[1:])[0]])
    for ours, exact in zip(results[1], results[0], strict=True):
        np.testing.assert_array_equal(np.array(ours), exact)


def test_convolution_rounds_its_operands_and_nothing_else(ops):
    x, weight, bias = noise(1, 32, 12, 19) * 3e4, noise(32, 32, 3, 3, seed=1) * 1e-3, noise(32, seed=2)
    filters = ops.convolution(weight, bias, (1, 1), (1, 1), 1)
    assert isinstance(filters, conv_tensor_cores.TensorCoreConvolution)
    rounded = [as_rounded(a, word(ops)) for a in (x, weight)]
    convolve = lambda x, w, b=None: EXACT.convolution(w, b, (1, 1), (1, 1), 1).forward(x, PADS)[0]  # noqa: E731
    y, exact = convolve(*rounded, bias), EXACT.convolution(rounded[1], bias, (1, 1), (1, 1), 1)
    if ops.split_operands:
        y = convolve(x, weight, bias)
        assert as_rounded(x - rounded[0], word(ops)).any()
    close([filters.forward(ops.asarray(x), PADS)[0]], [y], TRUNCATED_TWO_WORDS if ops.split_operands else TRUNCATED)
    g = noise(1, 32, 12, 19, seed=4) * 1e-9  # below the least number of fp16
    close(
        [filters.backward(ops.asarray(g), (12, 19), PADS)],
        [exact.backward(as_rounded(g, word(ops)), (12, 19), PADS)], TRUNCATED,
    )  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("precision", operands.FORMATS)
@pytest.mark.parametrize("shape", [(64, 5, 7), (128, 3, 30)], ids=str)
def test_gram(backends, precision, shape):
    ops = backends[precision]
    x = integers(1, *shape)
    gram = ops.gram(ops.asarray(x), 0.5)
    np.testing.assert_array_equal(np.array(gram), EXACT.gram(EXACT.asarray(x), 0.5))
    d = integers(shape[0], shape[0], seed=1)
    d += d.T
    base = integers(1, *shape, seed=2)
    for out in (None, base):
        results = []
        for backend in (EXACT, ops):
            target = None if out is None else backend.asarray(out)
            results.append(backend.gram_backward(backend.asarray(d), backend.asarray(x), 0.25, out=target))
        np.testing.assert_array_equal(np.array(results[1]), results[0])


def gradient_and_style(ops, weight, g, kind, d, x, factor, additions=1):
    """A convolution's gradient, plain or through a ReLU or a pool after it, with factor · D X added to it."""
    size = x.shape[2:]
    filters = ops.convolution(weight, None, (1, 1), (1, 1), 1)
    g, x = ops.asarray(g), ops.asarray(x)
    if kind == "plain":
        gradient = filters.backward(g, size, PADS)
    elif kind == "relu" or ops is EXACT:
        rectified, mask = filters.forward(x, PADS, RELU)
        if kind == "pool":
            geometry = ((2, 2), (2, 2), (0, 0))
            _, winners = ops.max_pool(rectified, *geometry, g.shape[2:])
            g = ops.max_pool_backward(g, winners, rectified.shape, *geometry)
        gradient = filters.backward(g, size, PADS, mask)
    else:
        gradient = filters.backward(g, size, PADS, filters.forward(x, PADS, Epilogue(True, True, g.shape[2:]))[1])
    for _ in range(additions):
        gradient = ops.gram_backward(ops.asarray(d), x, factor, out=gradient)
    return gradient


@pytest.mark.gpu
@pytest.mark.parametrize("precision, kind, tile, split", [
    ("fp16-fast", "plain", mma.MMA_BLOCKS[1], 2), ("tf32-fast", "plain", mma.MMA_BLOCKS[2], 3),
    ("fp16-fast", "pool", mma.MMA_BLOCKS[-1], 2), ("bf16-fast", "relu", mma.MMA_BLOCKS[3], 2),
    ("fp16-fast", "relu", mma.WGMMA_BLOCKS[1], 2), ("tf32-fast", "plain", mma.WGMMA_BLOCKS[3], 1),
])  # fmt: skip
def test_a_style_gradient_is_part_of_the_sum_it_is_added_to(backends, monkeypatch, precision, kind, tile, split):
    ops, launched, launch = backends[precision], [], common.Backend.launch
    set_plan(monkeypatch, tile, split, ops)
    monkeypatch.setattr(ops, "launch", lambda *all, **more: launched.append(all[:2]) or launch(ops, *all, **more))
    x, weight, d = integers(1, 64, 5, 19), integers(32, 64, 3, 3, seed=1, most=3), integers(64, 64, seed=2, most=3)
    d += d.T
    g = integers(1, 32, *((3, 10) if kind == "pool" else (5, 19)), seed=3)
    ours = gradient_and_style(ops, weight, g, kind, d, x, 0.25)
    exact = gradient_and_style(EXACT, weight, g, kind, d, x, 0.25)
    np.testing.assert_array_equal(np.array(ours), exact)
    assert launched.count(("cuda/convolution", "convolution")) == (1 if kind == "plain" else 2)  # with the forward one
    assert np.array(ops.cached_abs_max(ours))[0] == (np.abs(exact).max() if "fp16" in precision else 1)
    if kind == "pool":  # a second product is added in the usual way
        twice = gradient_and_style(ops, weight, g, kind, d, x, 0.25, additions=2)
        alone = gradient_and_style(EXACT, weight, g, kind, d, x, 0.25, additions=0)
        np.testing.assert_array_equal(np.array(twice), 2 * exact - alone)
        assert launched.count(("cuda/convolution", "convolution")) == 2 + 3


@pytest.mark.gpu
def test_a_sum_of_two_products_keeps_the_scale_of_each(backends, monkeypatch):
    """fp16's powers of two for the gradient and the filters differ by far from those for features and matrix."""
    set_plan(monkeypatch, mma.MMA_BLOCKS[1], 1)
    ops = backends["fp16-fast"]
    x, weight, d = noise(1, 64, 6, 17) * 2e4, noise(32, 64, 3, 3, seed=1) * 1e-3, noise(64, 64, seed=2) * 1e-15
    d, g = (d + d.T).astype(np.float32), noise(1, 32, 6, 17, seed=3) * 1e-9
    arrays = [as_rounded(a, "fp16") for a in (weight, g, d, x)]
    exact = gradient_and_style(EXACT, arrays[0], arrays[1], "plain", arrays[2], arrays[3], 0.3)
    alone = gradient_and_style(EXACT, arrays[0], arrays[1], "plain", arrays[2], arrays[3], 0.0)
    assert 0.1 < np.linalg.norm(alone) / np.linalg.norm(exact) < 0.9  # neither is lost in the other
    close([gradient_and_style(ops, weight, g, "plain", d, x, 0.3)], [exact], TRUNCATED)
    nothing = np.zeros_like(g)
    exact = gradient_and_style(EXACT, arrays[0], nothing, "plain", arrays[2], arrays[3], 0.3)
    close([gradient_and_style(ops, weight, nothing, "plain", d, x, 0.3)], [exact], TRUNCATED)


@pytest.mark.parametrize("tile, split", [(mma.MMA_BLOCKS[1], 1), on_gpu(mma.MMA_BLOCKS[-1], 2)])
def test_kernels_leave_the_largest_magnitude_behind(backends, monkeypatch, tile, split):
    """fp16's scale comes from who wrote the array, and from the array itself once somebody else has changed it."""
    set_plan(monkeypatch, tile, split)
    ops, read = backends["fp16"], []
    monkeypatch.setattr(ops, "abs_max", lambda x: read.append(1) or common.Backend.abs_max(ops, x))
    filters = ops.convolution(noise(64, 32, 3, 3), noise(64, seed=1), (1, 1), (1, 1), 1)
    x = ops.asarray(noise(1, 32, 9, 21, seed=2))
    y, mask = filters.forward(x, PADS, RELU)
    assert len(read) == 1  # that of x
    small, winners = filters.forward(x, PADS, Epilogue(True, True, (5, 11)))
    gram = ops.gram(y, 1.0)
    g = ops.gram_backward(gram, y, 1.0)
    count = len(read)
    assert count == 2  # the Gram matrix comes from a kernel of the portable ones
    ops.gram_backward(gram, y, 0.5, out=g)
    results = [y, small, g, filters.forward(x, PADS)[0], filters.backward(g, (9, 21), PADS, mask),
               filters.backward(small, (9, 21), PADS, winners)]  # fmt: skip
    for array in results:
        assert array.block.abs_max.size == 1  # with nothing left to do
        assert np.array(ops.cached_abs_max(array))[0] == np.abs(np.array(array)).max() > 0
    assert len(read) <= count + 1
    first = ops.convolution(noise(32, 3, 3, 3), noise(32, seed=1), (1, 1), (1, 1), 1)
    y = first.forward(ops.asarray(noise(1, 3, 17, 33, seed=2)), PADS, RELU)[0]
    count = len(read)
    assert np.array(ops.cached_abs_max(y))[0] == np.array(y).max() and len(read) == count
    ones = np.ones(y.shape, np.float32)
    for change in (lambda: ops.scale(y, 3), lambda: ops.add_scaled(y, 2, y), lambda: ops.upload(y, ones)):
        change()
        assert np.array(ops.cached_abs_max(y))[0] == np.abs(np.array(y)).max()
    x = np.array(x)
    x[0, 3, 4, 5] = np.nan
    assert np.isnan(np.array(ops.cached_abs_max(filters.forward(ops.asarray(x), PADS)[0]))[0])


def test_shares_fill_the_multiprocessors():
    """VGG-19's layers from conv3_2 on at 512 and 1024: at least 0.9 of 132 multiprocessors' time, forward."""
    for channels, *size in ((256, 96, 128), (512, 48, 64), (256, 192, 256), (512, 96, 128), (512, 24, 32)):
        ways = mma.ranked_algorithms(channels, *size, channels, 3, "fp16", True, 132)
        assert 1 < len(ways) == len(set(map(str, ways))) <= 8
        tile, shares, *_ = ways[0]
        groups = shares * -(-channels // tile.bm) * -(-size[0] // tile.rows) * -(-size[1] // 16)
        assert groups / 132 / -(-groups // 132) > 0.9
        order = ways[-1].reduction_order
        found = mma.ranked_algorithms(channels, *size, channels, 3, "fp16", True, 132, order=order)
        assert {way.reduction_order for way in found} == {order}
    assert mma._splits(5) == [1, 2, 3, 5] and mma._splits(32) == [1, 2, 3, 4, 5, 6, 7, 8, 11, 16]
    both = mma.ranked_algorithms(256, 96, 128, 256, 3, "fp16", True, 132, wgmma=True)
    assert {way.block.wgmma for way in both} == {False, True}  # what has never run must not be all that is tried


@pytest.mark.parametrize("precision", ["tf32", on_gpu("fp16"), "bf16-fast"])
def test_windows_have_the_bits_of_the_picture(backends, monkeypatch, precision):
    """Their sums are taken in its order, by whatever tile, though fp16 scales a window by its own largest number."""
    ways = mma.ranked_algorithms

    def chosen(*shape, order=None, **_):
        found = ways(*shape, order=order)
        return found[-1] if order else max(found, key=lambda way: way.splits)  # by size the picture would have fewer

    monkeypatch.setattr(conv_tensor_cores, "best_algorithm", chosen)
    net = Network(nets.vgg(19, 4, (64, 64), classifier=False), backends[precision])
    check_features(net, ["relu1_2", "relu2_1"], (56, 21), 40)


@pytest.mark.gpu
def test_a_recorded_iteration_has_the_bits_of_its_launches(backends, monkeypatch):
    set_plan(monkeypatch, mma.MMA_BLOCKS[-1], 1)
    check_recording(backends["fp16-fast"], monkeypatch, "lbfgs")


# What CUDA's compiler makes of the sources

# Operation codes of a tensor-core product, an asynchronous copy, a product of a warpgroup, beginning such products or
# waiting for them, the fence between stores and them, a barrier, and a branch (nvdisasm 13.5).
HMMA, LDGSTS, HGMMA, WARPGROUP, FENCE, BARRIER, BRANCH = 0x23C, 0xFAE, 0xDF0, 0x9C5, 0x3C6, 0xB1D, 0x947
KERNELS = [
    *(("cuda/convolution", mma.kernel_macros(tile, 3, word, split, masked))
      for tile in mma.MMA_BLOCKS
      for word, split, masked in (("tf32", 0, 1), ("tf32", 1, 0), ("fp16", 1, 0), ("fp16", 0, 1), ("fp16", 0, 2))),
    *(("cuda/convolution", mma.kernel_macros(tile, 1, "fp16", 0, 0)) for tile in mma.blocks_for(1)),
    *(("cuda/convolution", mma.kernel_macros(tile, 3, word, 0, masked, True))
      for tile in mma.MMA_BLOCKS for word, masked in (("tf32", 0), ("tf32", 1), ("fp16", 1), ("fp16", 2))),
    ("cuda/convolution", mma.kernel_macros(mma.MMA_BLOCKS[1], 3, "bf16", 1, 0)),
    *((f"cuda/{name}", operands.format_macros(word)) for name in ("gram", "pack") for word in operands.FORMATS),
]  # fmt: skip


def name_of(value):
    return "-".join(str(number) for _, number in value) if isinstance(value, tuple) else None


HOPPER_KERNELS = [
    mma.kernel_macros(mma.WGMMA_BLOCKS[tile], 3, word, split, masked, plus)
    for tile, word, split, masked, plus in (
        (0, "fp16", 1, 0, 0), (0, "bf16", 0, 1, 0), (1, "fp16", 1, 0, 0), (1, "fp16", 0, 2, 0), (1, "tf32", 0, 2, 0),
        (2, "bf16", 1, 0, 0), (3, "fp16", 1, 0, 0), (3, "fp16", 0, 2, 0), (4, "fp16", 0, 1, 0),
        (0, "tf32", 0, 2, 1), (1, "fp16", 0, 2, 1), (3, "bf16", 0, 1, 1),
    )
]  # fmt: skip


def check_compiled(name, defines, architecture, version=None):
    options = tuple(f"-D{k}={v}" for k, v in defines)
    usages, codes = nvrtc.compile_to_instructions(compiler.source(name), options, architecture, version)
    for kernel, usage in usages.items():
        assert usage.spills == 0, (kernel, defines)
        if kernel == "convolution":
            values = dict(defines)
            threads = values["WM"] * values["WN"] * 32
            assert usage.registers * threads * values["RESIDENT"] <= 65536
            assert usage.shared <= 48 << 10 and usage.shared * values["RESIDENT"] <= 100 << 10
            products = values["BM"] // values["WM"] // 16 * (values["PH"] * 2 // values["WN"])
            assert codes[kernel][HMMA] == products * ((3 if values["SIDE"] == 3 else 2) + values["PLUS"])
            assert codes[kernel][LDGSTS]
        elif kernel == "gram_parts":
            assert codes[kernel][HMMA] == 16
            assert usage.registers * 128 * 4 <= 65536


@pytest.mark.parametrize("turn, name, defines", [
    (number, *kernel) for number, kernel in enumerate(KERNELS)
], ids=name_of)  # fmt: skip
def test_hopper_runs_every_kernel_on_tensor_cores(turn, name, defines):
    """By one compiler; every third kernel for Ampere by the other."""
    check_compiled(name, defines, "sm_90", nvrtc.in_turn(turn))
    if turn % 3 == 0:
        check_compiled(name, defines, "sm_80", nvrtc.in_turn(turn + 1))


def check_wgmma(defines, version=None):
    """A step's products go together, none serialised (see `nvrtc`), nothing spilt, barriers and fences in place."""
    options, values = tuple(f"-D{k}={v}" for k, v in defines), dict(defines)
    usages, codes = nvrtc.compile_to_instructions(compiler.source("cuda/convolution"), options, "sm_90a", version)
    usage, codes = usages["convolution"], codes["convolution"]
    parts = 1 + values["SPLIT"]
    assert usage.spills == 0 and usage.registers * values["BM"] * 2 * values["RESIDENT"] <= 65536
    area = (values["PH"] + 2) * 18
    assert 2 * parts * 2 * area * 16 <= usage.shared <= min(2 * parts * 2 * area * 16 + 16, 48 << 10)  # and scales
    assert codes[HGMMA] == 9 * 2 * (3 if values["SPLIT"] else 1)  # taps, halves of the columns, products of two words
    assert codes[WARPGROUP] == 2 * 3 * parts + 1  # steps of a chunk: begun and waited for; the last wait
    assert codes[FENCE] == 2 and codes[LDGSTS] == 0
    assert codes[HMMA] == (2 * values["PH"] if values["PLUS"] else 0)  # a warp's positions, by eight
    reduction = (values["BM"] * 2).bit_length() if values["PRECISION"] == 2 else 0  # of the largest magnitude
    # Scales, the first patch, two a chunk, before a ticket, after it; one a chunk of the other product, and after it.
    assert codes[BARRIER] == 6 + reduction + 2 * values["PLUS"]


@pytest.mark.parametrize("turn, defines", list(enumerate(HOPPER_KERNELS)), ids=name_of)
def test_hoppers_instruction_is_what_the_compiler_makes(turn, defines):
    check_wgmma(defines, nvrtc.in_turn(turn))


def test_marks_are_not_waited_for_one_by_one():
    """A branch on each mark makes a wait of every read of memory; there are hardly more of them than without a mask."""
    branches = []
    for masked in (0, 1, 2):
        options = tuple(f"-D{k}={v}" for k, v in mma.kernel_macros(mma.MMA_BLOCKS[1], 3, "fp16", 0, masked))
        codes = nvrtc.compile_to_instructions(compiler.source("cuda/convolution"), options, "sm_90")[1]
        branches.append(codes["convolution"][BRANCH])
    assert max(branches[1:]) <= branches[0] + 8  # 14 and 33 more once


@pytest.mark.parametrize("backend, precision, message", [
    ("opencl", "tf32", "precision tf32 cannot be had: .* backend cuda"),
    ("numpy", "fp16", "precision fp16 cannot be had with backend 'numpy'.*compute capability 8.0"),
    ("opencl", "fp8", "unknown precision 'fp8'.*fp16"),
])  # fmt: skip
def test_precisions_that_cannot_be_had_are_refused(backend, precision, message):
    if backend == "opencl" and opencl.Backend.unavailable_because():
        pytest.skip(opencl.Backend.unavailable_because())
    with pytest.raises(OptionError, match=message):
        all_backends.get(backend, None, precision)


# Whole nets


def test_half_precision_does_not_overflow(backends, monkeypatch):
    """A VGG whose activations pass 65504, fp16's largest: loss and gradient are those of float64 up to rounding."""
    set_plan(monkeypatch, mma.MMA_BLOCKS[-1], 1)
    net = nets.vgg(19, 4, (40, 56), classifier=False)
    net.weights["conv1_1"][0] = net.weights["conv1_1"][0] * np.float32(1e3)
    pictures = [noise(3, *size, seed=i) * 60 for i, size in enumerate([(40, 56), (33, 50), (40, 56)])]
    layers = {"content_layers": ["relu2_1"], "style_layers": ["relu1_1", "relu2_1"]}
    results = {}
    for name, ops in (("exact", EXACT), *((word, backends[word]) for word in operands.FORMATS)):
        objective = Objective(Network(net, ops), pictures[0], pictures[1:2], tv_weight=0, **layers)
        results[name] = objective(pictures[2].astype(np.float64))
        if name == "exact":
            features = Network(net, ops).program(["relu2_1"]).forward(ops.asarray(pictures[2][None]), needs_grad=False)
            assert np.max(features["relu2_1"]) > 65504
    loss, exact = results.pop("exact")
    for ours, gradient in results.values():
        assert ours == pytest.approx(loss, rel=2e-3)
        assert np.linalg.norm(gradient - exact) <= 1e-2 * np.linalg.norm(exact)
