"""Every operation of the device backends on an OpenCL device (PoCL in CI) against the numpy backend in float64.

With CVSTYLE_TEST_BACKEND=cuda the same tests run on an NVIDIA GPU (`make gpu-test`).
"""

from __future__ import annotations

import itertools
import math
import re
import weakref

import nets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import noise
from reference import make_reference
from test_layer_types import ALL
from test_network import GRAPHS, Projection, graph, picture
from test_objective import reference_objective
from test_optimize import Function, quadratic, rosenbrock

from cvstyle import Objective, optimize
from cvstyle import backends as all_backends
from cvstyle.backends import device as common
from cvstyle.backends.base import RELU, BlockGrid, Epilogue
from cvstyle.backends.device import algorithms, convolution
from cvstyle.backends.device.algorithms import Algorithm
from cvstyle.backends.device.conv_few_channels import FewChannelsConvolution
from cvstyle.backends.reference import Backend
from cvstyle.errors import DeviceError, OptionError
from cvstyle.graph import Network
from cvstyle.layers import Context
from cvstyle.optimize import lbfgs

EXACT = Backend("float64")


def on_gpu(*values):
    """A case that `make gpu-quick` tries out on a GPU (the marker `gpu`)."""
    return pytest.param(*values, marks=pytest.mark.gpu)


def close(ours, exact, tolerance=3e-6):
    """Whether arrays agree: the norm of the difference relative to that of the exact one."""
    for a, b in zip(ours, exact, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b)
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b) + 1e-7


# Layers and convolutions


@pytest.mark.gpu
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_layer(case, device):
    inputs, _ = case.data()
    rng, results = np.random.default_rng(2), []
    weights = [rng.normal(size=s) for s in case.layer(EXACT).top_shapes(case.shapes)]
    for ops, overwrite in ((EXACT, False), (device, False), (device, True)):
        layer = case.layer(ops)
        own = [ops.asarray(x) for x in inputs]
        tops, backward = layer.forward(own, Context(overwrite=overwrite and not layer.saves_activations))
        if not overwrite:
            close(own, inputs, 0)
        copies = [np.array(t) for t in tops]
        gradients = backward([ops.asarray(w) for w in weights])
        results.append([*copies, *[np.array(g) for g in gradients if g is not None]])
    close(results[1], results[0])
    close(results[2], results[0])


# Cases of `test_every_tile` for a GPU; the tile left out has the same numbers per work-item as those beside it.
ON_GPU = [(algorithms.GEMM_BLOCKS[i], split, (20, 9, 16)) for i, split in ((0, 1), (2, 3), (3, 1), (4, 3))]
ON_GPU += [(algorithms.GEMM_BLOCKS[0], 3, (3, 31, 33))]


def check_convolution(
    device, monkeypatch, ways, shape, outputs, group, kernel, stride, dilation, pad, shift=(0, 0)
):  # fmt: skip
    """All methods of one convolution against numpy, by these ways in turn; the calls are in the order of `turns`.

    shift: where Winograd's tiles start; where a pool follows, the even number below.
    """
    turns = itertools.cycle(ways)
    monkeypatch.setattr(convolution, "best_algorithm", lambda *_, **__: next(turns))
    x, weight = noise(1, *shape), noise(outputs, shape[0] // group, *kernel, seed=1)
    bias, size, results = noise(outputs, seed=2), shape[1:], []
    for ops in (EXACT, device):
        filters = ops.convolution(weight, bias, stride, dilation, group)
        grid = BlockGrid(shift)
        y, _ = filters.forward(ops.asarray(x), pad, grid=grid)
        rectified, mask = filters.forward(ops.asarray(x), pad, RELU, grid)
        alone, _ = filters.forward(ops.asarray(x), pad, Epilogue(relu=True), grid)
        g = ops.asarray(noise(*y.shape, seed=3))
        results.append([
            y, rectified, alone, filters.backward(g, size, pad), filters.backward(ops.copy(g), size, pad, mask)
        ])  # fmt: skip
        window = (2, 2), (2, 2), (0, 0)
        for output in {tuple(n // 2 for n in y.shape[2:]), tuple(-(-n // 2) for n in y.shape[2:])}:
            if min(output) < 1:
                continue
            g = ops.asarray(noise(1, outputs, *output, seed=4))
            if ops is device:
                even = BlockGrid(tuple(s // 2 * 2 for s in shift))
                pooled, winners = filters.forward(ops.asarray(x), pad, Epilogue(True, True, output), even)
                results[-1] += [pooled, filters.backward(g, size, pad, winners)]
            else:
                pooled, winner = ops.max_pool(rectified, *window, output)
                g = ops.max_pool_backward(g, winner, y.shape, *window)
                results[-1] += [pooled, filters.backward(g, size, pad, mask)]
    close(results[1], results[0])


@pytest.mark.parametrize("shape, outputs, side, pad", [
    on_gpu((3, 17, 36), 32, 3, (1, 1, 1, 1)), ((4, 5, 33), 16, 5, (0, 2, 1, 4)), ((1, 34, 9), 16, 7, (3, 3, 3, 3)),
], ids=str)  # fmt: skip
def test_convolution_of_a_picture(device, monkeypatch, shape, outputs, side, pad):
    filters = device.convolution(np.ones((outputs, shape[0], side, side)), None, (1, 1), (1, 1), 1)
    assert isinstance(filters, FewChannelsConvolution)
    direct = [Algorithm(algorithms.GEMM_BLOCKS[-1], 1)]
    check_convolution(device, monkeypatch, direct, shape, outputs, 1, (side, side), (1, 1), (1, 1), pad)


@pytest.mark.parametrize("tile, split, shape, outputs, kernel, stride", [
    (on_gpu if (tile, split, shape) in ON_GPU else pytest.param)(tile, split, shape, *more)
    for tile in algorithms.GEMM_BLOCKS for split in (1, 3) for shape, *more in (
        ((20, 9, 16), 70, (3, 3), (1, 1)), ((9, 17, 19), 133, (3, 3), (1, 1)), ((3, 31, 33), 5, (7, 5), (3, 2)),
        ((130, 1, 1), 40, (1, 1), (1, 1)),
    )
], ids=str)  # fmt: skip
def test_every_tile(device, monkeypatch, tile, split, shape, outputs, kernel, stride):
    pad = tuple(k // 2 for k in kernel) * 2
    check_convolution(device, monkeypatch, [Algorithm(tile, split)], shape, outputs, 1, kernel, stride, (1, 1), pad)


@settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.data())
def test_any_convolution(device, monkeypatch, data):
    draw = data.draw
    pair = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    group = draw(st.sampled_from([1, 1, 2, 3]))
    kernel, stride, dilation = pair(1, 4), pair(1, 3), pair(1, 3)
    pad = (*pair(0, 4), *pair(0, 4))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    size = [draw(st.integers(max(1, extent[i] - pad[i] - pad[i + 2]), 20)) for i in (0, 1)]
    shape = (group * draw(st.integers(1, 11)), *size)
    way = Algorithm(draw(st.sampled_from(algorithms.GEMM_BLOCKS)), draw(st.sampled_from([1, 1, 2])))
    outputs = group * draw(st.integers(1, 9))
    check_convolution(device, monkeypatch, [way], shape, outputs, group, kernel, stride, dilation, pad)


def test_plans_fill_the_device():
    """The estimate at work: large tiles where there is much to do, shares where there is little."""
    assert algorithms.best_algorithm(512, 96 * 128, 512, 9, 1, 132).block.bm == 128
    assert algorithms.best_algorithm(3, 512 * 384, 64, 9, 1, 132) == Algorithm(algorithms.GEMM_BLOCKS[-1], 1)
    tile, split, *_ = algorithms.best_algorithm(512, 16 * 12, 512, 9, 1, 132)
    assert -(-512 // tile.bm) * -(-192 // tile.bn) * split >= 100
    assert algorithms.best_algorithm(512, 16 * 12, 512, 9, 1, 2).splits == 1
    for blocks in (0, 96 * 128 // 16):  # on a CPU, what was fastest there
        assert str(algorithms.best_algorithm(512, 96 * 128, 512, 9, 1, 2, blocks=blocks, cpu=True).block) == "64×64"


@pytest.mark.gpu
def test_relu_keeps_nan_and_counts_zero_as_flat(device):
    values = np.array([np.nan, -1, 0, 2, np.inf, -np.inf], np.float32).reshape(1, 1, 2, 3)
    filters = device.convolution(np.ones((1, 1, 1, 1), np.float32), None, (1, 1), (1, 1), 1)
    for y, mask in (device.relu(device.asarray(values)), filters.forward(device.asarray(values), (0,) * 4, RELU)):
        np.testing.assert_array_equal(np.array(y).ravel()[1:], [0, 0, 2, np.inf, 0])
        assert np.isnan(np.array(y).ravel()[0])
        assert np.array(getattr(mask, "bits", mask)).ravel()[0] == 0b011000


@pytest.mark.gpu
@pytest.mark.parametrize("kernel, winner", [(2, np.uint8), (17, np.uint32)])
def test_max_pool_gives_a_plateau_to_the_first(device, kernel, winner):
    x = device.asarray(np.ones((1, 1, kernel, 2 * kernel)))
    geometry = ((kernel, kernel), (kernel, kernel), (0, 0))
    y, index = device.max_pool(x, *geometry, (1, 2))
    assert index.dtype == winner
    g = np.array(device.max_pool_backward(device.asarray([[[[3.0, 5.0]]]]), index, x.shape, *geometry))
    assert g[0, 0, 0, 0] == 3 and g[0, 0, 0, kernel] == 5 and g.sum() == 8
    assert np.array(y).tolist() == [[[[1, 1]]]]


# Losses


@pytest.mark.gpu
@pytest.mark.parametrize("channels, size", [
    (1, (1, 1)), (3, (5, 7)), (64, (33, 20)), (65, (1, 300)), (130, (40, 51)), (200, (2, 2)), (5, (90, 61)),
])  # fmt: skip
@pytest.mark.parametrize("units", [2, 132])
def test_gram(device, monkeypatch, channels, size, units):
    monkeypatch.setattr(device.device, "multiprocessors", units)
    x = noise(1, channels, *size)
    exact = EXACT.gram(EXACT.asarray(x), 0.25)
    gram = device.gram(device.asarray(x), 0.25)
    close([gram], [exact])
    target = EXACT.gram(EXACT.asarray(noise(1, channels, *size, seed=2)), 0.25)
    difference, squares = device.gram_difference(device.asarray(x), 0.25, device.asarray(target))
    close([difference, [float(squares)]], [exact - target, [np.sum((exact - target) ** 2)]], 2e-5)  # they are near
    for host in (np.array(gram), np.array(difference)):
        np.testing.assert_array_equal(host, host.T)
    assert np.array(difference).tobytes() == np.subtract(np.array(gram), np.float32(target)).tobytes()
    base = noise(1, channels, *size, seed=1)
    for factor in (0.5, 3 / (device.l1(device.asarray(base)) + 1)):
        number = float(factor)
        ours = [
            device.gram_backward(gram, device.asarray(x), factor),
            device.gram_backward(gram, device.asarray(x), factor, out=device.asarray(base)),
        ]
        product = EXACT.gram_backward(exact, EXACT.asarray(x), number)
        close(ours, [product, product + base])


@pytest.mark.parametrize("size", [(2, 2), (1, 9), (7, 5), on_gpu((64, 65)), (300, 200)])
def test_total_variation(device, size):
    x, out = noise(1, 3, *size), noise(1, 3, *size, seed=1)
    results = []
    for ops in (EXACT, device):
        gradient = ops.asarray(out)
        value = ops.total_variation(ops.asarray(x), 0.75, gradient)
        results.append([gradient, np.array([float(value)])])
    close(results[1], results[0])


@pytest.mark.parametrize("size, count", [
    ((1, 9), 0), ((1, 9), 1), ((2, 4), 1), on_gpu((31, 17), 2), ((64, 65), 3), on_gpu((67, 196), 3), ((131, 70), 3),
])  # fmt: skip
def test_halving_and_doubling(device, size, count):
    x, onto, weights = noise(1, 2, *size), noise(1, 2, *size, seed=1), [0.7, -0.3, 0.2, 1.5][: count + 1]
    results = []
    for ops in (EXACT, device):
        halvings = ops.halvings(ops.asarray(x), count)
        results.append([np.array(half) for half in halvings])
        results[-1].append(ops.add_halvings(ops.asarray(x), weights, [ops.copy(half) for half in halvings]))
        results[-1].append(ops.add_halvings(ops.asarray(x), weights, halvings, ops.asarray(onto)))
    close(*results[::-1])


@pytest.mark.parametrize("n", [on_gpu(1), 255, 256, 257, 8192, on_gpu(100_003)])
def test_reductions(device, n):
    x, y = noise(n), noise(n, seed=1)
    ours, exact = ([f(ops.asarray(x), ops.asarray(y)) for f in (
        ops.dot, lambda a, b, ops=ops: ops.l1(a), lambda a, b, ops=ops: ops.abs_max(b),
    )] for ops in (device, EXACT))  # fmt: skip
    np.testing.assert_allclose([float(v) for v in ours], exact, rtol=3e-6, atol=1e-5 * math.sqrt(n))
    for bad in (np.nan, np.inf):
        x[n // 2] = bad
        a = device.asarray(x)
        results = [device.dot(a, a), device.l1(a), device.abs_max(a)]
        np.testing.assert_array_equal([float(v) for v in results], [bad] * 3)


@pytest.mark.parametrize("n", [1, 255, 8192, on_gpu(20_000), 100_003])
def test_a_difference_is_added_and_its_squares_summed(device, n):
    """As the content's loss takes it, in one group and in several."""
    x, target, y = (noise(n, seed=i) for i in range(3))
    factor = 3 / (device.l1(device.asarray(y)) + 1)
    results = []
    for ops, number in ((EXACT, float(factor)), (device, factor), (device, factor)):
        added = ops.asarray(y)
        squares = ops.add_difference(added, number, ops.asarray(x), ops.asarray(target))
        results.append([added, np.array([float(squares)])])
    close(results[1], results[0])
    for first, second in zip(*results[1:]):
        assert np.array(first).tobytes() == np.array(second).tobytes()


@pytest.mark.gpu
def test_scalars_combine_with_numbers_on_the_device(device):
    s = device.dot(device.asarray([2.0, 3.0]), device.asarray([2.0, 1.0]))  # 7
    before = device.downloads
    terms = [3 * s, s + 1, 1 - s, -s / 2, 21 / s, 2 / (0.5 * s + 0.5) - 1, s + 2 * s, (s - 1) * 2 + 1 / s]
    x = device.scale(device.asarray([1.0, -2.0]), 14 / (s + 7))
    device.add_scaled(x, s - 6, device.asarray([10.0, 10.0]))
    assert device.downloads == before
    np.testing.assert_allclose([float(t) for t in terms], [21, 8, -6, -3.5, 3, -0.5, 21, 12 + 1 / 7], rtol=1e-6)
    np.testing.assert_allclose(np.array(x), [11, 8], rtol=1e-6)


@pytest.mark.parametrize("count", [1, 8, 19])
def test_scalars_arrive_together(device, count):
    numbers = noise(count)
    arriving = device.copy_to_host_async([2 * device.dot(device.asarray([n]), device.asarray([1.0])) for n in numbers])
    np.testing.assert_array_equal(np.array(arriving.result(), np.float32), 2 * numbers)


# Arrays


@pytest.mark.gpu
def test_arrays(device):
    host = noise(2, 3, 4)
    a = device.asarray(host)
    assert (a.shape, a.size, a.ndim, a.nbytes) == ((2, 3, 4), 24, 3, 96)
    assert a.reshape(-1, 4).shape == (6, 4) and a.reshape((4, -1)).shape == (4, 6)
    with pytest.raises(ValueError, match="cannot take"):
        a.reshape(5, 5)
    b = device.copy(a)
    device.scale(a.reshape(24), 2)  # views share memory, copies do not
    np.testing.assert_array_equal(np.array(a), 2 * host)
    np.testing.assert_array_equal(np.array(b), host)
    assert not np.array(device.zeros((3, 5))).any()
    np.testing.assert_array_equal(np.asarray(device.asarray(a), np.float64), 2 * host)


@pytest.mark.gpu
@pytest.mark.parametrize("shapes", [
    ((2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5)), ((2, 8, 4, 5), (2, 3, 4, 5), (2, 2, 4, 5)),
    ((1, 4, 9, 7), (1, 4, 5, 8), (1, 3, 4, 6)), ((7,), (9,), (5,)), ((2, 3, 4, 5, 6), (1, 3, 4, 5, 6), (1, 2, 4, 5, 6)),
], ids=str)  # fmt: skip
def test_copy_block(device, shapes):
    target, source, block = shapes
    rng = np.random.default_rng(0)
    starts = [[int(rng.integers(0, n - b + 1)) for n, b in zip(s, block)] for s in (target, source)]
    results = []
    for ops in (EXACT, device):
        a, b = ops.asarray(noise(*target)), ops.asarray(noise(*source, seed=1))
        ops.copy_block(a, starts[0], b, starts[1], block)
        results.append([a])
    close(results[1], results[0], 0)


@pytest.mark.gpu
def test_arrays_go_from_one_backend_to_another(device):
    """To the second device where there is one; without the host where the devices can, and in the order of the work."""
    number = min(1, len({name: found for name, _, found in all_backends.list_backends()}[device.name]) - 1)
    other, host = all_backends.get(device.name, number), noise(3, 50_000)
    array = device.asarray(host)
    before = device.downloads + other.downloads
    device.scale(array, 2)
    there = other.receive(array)
    device.scale(array, 3)
    back = device.receive(other.scale(there, 2))
    other.scale(there, 3)
    if hasattr(device.device, "transfer"):
        assert device.downloads + other.downloads == before
    for found, factor in ((array, 6), (there, 12), (back, 4)):
        np.testing.assert_array_equal(np.array(found), factor * host)


@pytest.mark.gpu
def test_memory_is_reused_and_holes_join(device):
    from cvstyle.backends.device.pool import DevicePool

    pool, mb = DevicePool(device.device), 1 << 20
    a, b, c = (pool.empty(n * mb) for n in (4, 8, 4))
    assert pool.reserved == pool.allocated == 16 * mb
    del b
    d, e = pool.empty(3 * mb), pool.empty(5 * mb)  # cut from the hole that b left
    assert (pool.reserved, pool.allocated) == (16 * mb, 16 * mb)
    del d, e
    f = pool.empty(8 * mb)  # one hole again
    assert pool.reserved == 16 * mb
    del a, c, f
    assert pool.allocated == 0
    g = pool.empty(16 * mb)  # larger than any hole: takes the place of the free chunks
    assert pool.reserved == 16 * mb
    small = [pool.empty(100) for _ in range(3)]
    del small
    kept = [pool.empty(200) for _ in range(3)]
    assert pool.reserved == 16 * mb + 3 * 256
    assert pool.max_allocated == 28 * mb or pool.max_allocated == 16 * mb + 3 * 256
    del g, kept
    pool.trim()
    assert pool.reserved == 0


def test_chunks_become_one_though_something_stays(device):
    """As between iterations, where picture and moments stay: what shapes of several sizes left is not kept for good."""
    from cvstyle.backends.device.pool import DevicePool

    pool, mb = DevicePool(device.device), 1 << 20
    stays = pool.empty(2 * mb)
    for _ in range(4):
        maps = [pool.empty(n * mb) for n in (3, 4, 5)]
        del maps
        a, b = pool.empty(6 * mb), pool.empty(1 << 17)
        del a, b
    assert pool.max_allocated == 14 * mb
    assert pool.reserved == 14 * mb
    del stays


class SmallDevice:
    """Memory of 20 MB that only counts, at most 8 MB of it in one piece."""

    def __init__(self):
        self.free = 20 << 20

    def allocate(self, size):
        if size > min(self.free, 8 << 20):
            raise MemoryError
        self.free -= size
        memory = type("Memory", (), {})()
        weakref.finalize(memory, self._give_back, size)
        return memory

    def _give_back(self, size):
        self.free += size

    def view(self, memory, start, size):
        return memory, start, size

    def synchronize(self):
        pass


def test_what_is_free_is_given_back_where_the_device_has_no_more():
    from cvstyle.backends.device.pool import DevicePool

    pool, mb = DevicePool(SmallDevice()), 1 << 20
    arrays = [pool.empty(n * mb) for n in (7, 7, 4)]
    del arrays[:2]
    lasting = pool.empty(8 * mb, persistent=True)  # nothing that is free is used for these
    assert (pool.reserved, pool.allocated, pool.max_reserved) == (12 * mb, 12 * mb, 18 * mb)
    with pytest.raises(MemoryError):
        pool.empty(9 * mb)
    del arrays, lasting
    assert pool.allocated == 0


def test_chunks_that_would_be_too_large_as_one_stay_several():
    from cvstyle.backends.device.pool import DevicePool

    pool, mb = DevicePool(SmallDevice()), 1 << 20
    for _ in range(4):  # without the limit one chunk of 12 MB serves from the third time on
        maps = [pool.empty(n * mb) for n in (3, 4, 5)]
        del maps
    assert pool.max_allocated == 12 * mb
    assert pool.reserved == 12 * mb


# Whole nets and the objective


@pytest.mark.parametrize("name", GRAPHS)
def test_graph(name, device):
    net = graph(*GRAPHS[name])
    names = [d.name for d in net.layers]
    x = noise(1, 3, 7, 6)
    for taps in ([names[-1]], names):
        exact = Projection(net, taps, EXACT).gradient(x)
        gradient = Projection(net, taps, device).gradient(x)
        assert np.linalg.norm(gradient - exact) <= 1e-5 * np.linalg.norm(exact) + 1e-7


NETS = {
    "vgg19": lambda: nets.vgg(19, 8, (40, 56), classifier=False),
    "nin": lambda: nets.nin(16, (96, 67)),
    "caffenet": lambda: nets.caffenet(16, (99, 99)),
    "googlenet": lambda: nets.googlenet(8, (64, 97)),
    "squeezenet": lambda: nets.squeezenet(8, (64, 49)),
    "resnet50": lambda: nets.resnet50(16, (64, 64)),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_whole_net(name, pooling, device):
    net = NETS[name]()
    names = [d.name for d in net.layers if d.type != "InnerProduct" and d.name != "prob"]
    taps = [names[1], names[len(names) // 2], names[-3]]
    exact = Projection(net, taps, EXACT, pooling=pooling).gradient(picture(net))
    gradient = Projection(net, taps, device, pooling=pooling).gradient(picture(net))
    assert np.linalg.norm(gradient - exact) <= 1e-4 * np.linalg.norm(exact)


@pytest.mark.parametrize("case", [on_gpu(case) if case == "all" else case for case in make_reference.CASES])
def test_objective(case, device):
    """Losses and gradient against the float64 ones, which equal PyTorch's (test_objective)."""
    objective, x = reference_objective(case, device)
    exact, _ = reference_objective(case, EXACT)
    loss, gradient = objective(x)
    exact_loss, exact_gradient = exact(x)
    assert objective.losses == pytest.approx(exact.losses, rel=1e-4)
    assert loss == pytest.approx(exact_loss, rel=1e-4)
    assert np.linalg.norm(gradient - exact_gradient) <= 1e-4 * np.linalg.norm(exact_gradient)


def test_the_same_bytes_each_time(device):
    objective, x = reference_objective("all", device)
    gradients = [objective(x)[1].tobytes() for _ in range(3)]
    assert len(set(gradients)) == 1


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_an_iteration_stays_on_the_device(device, optimizer):
    """Nothing is copied to the host, and after a few iterations no memory is allocated."""
    net = Network(NETS["vgg19"](), device)
    objective = Objective(
        net, noise(3, 40, 56) * 50, [noise(3, 30, 50, seed=1) * 50], content_layers=["relu4_2"],
        style_layers=["relu1_1", "relu2_1", "relu3_1"], normalize_gradients=optimizer == "adam",
    )  # fmt: skip
    downloads, allocated = [], []

    def callback(iteration, x):
        downloads.append(device.downloads)
        allocated.append(device.pool.reserved)

    x = device.asarray(noise(1, 3, 40, 56, seed=2))
    optimize.minimize(optimizer, objective, x, 8, callback)
    assert len(set(downloads)) == 1
    assert len(set(allocated[3:])) == 1
    assert np.isfinite(objective.loss)


def check_recording(ops, monkeypatch, optimizer):
    """Six iterations put on the queue one kernel at a time, and replayed from a recording where the device makes one.

    Same picture and losses to the last bit, the losses fresh ones: they are read while the next iteration is under way.
    """
    net, options = nets.vgg(16, 4, (32, 32), classifier=False), {"history": 1} if optimizer == "lbfgs" else {}
    records, capture, made, results = ops.device.captures, ops.capture, [], []
    monkeypatch.setattr(ops, "capture", lambda function: made.append(capture(function)) or made[-1])
    for recording in (False, records):
        monkeypatch.setattr(ops.device, "captures", recording)
        objective = Objective(
            Network(net, ops), noise(3, 5, 16) * 50, [noise(3, 5, 16, seed=1) * 50], content_layers=["relu2_2"],
            style_layers=["relu1_1", "relu2_1"],
        )  # fmt: skip
        x, losses = ops.asarray(noise(1, 3, 5, 16, seed=2)), []
        optimize.minimize(optimizer, objective, x, 6, lambda i, x: losses.append(objective.loss), **options)
        results.append((np.array(x).tobytes(), losses))
    assert results[0] == results[1] and len(set(results[0][1])) == 6
    if records:
        assert not ops.capture_problem and made[-1].replays == (2 if optimizer == "lbfgs" else 4)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_recorded_iteration_has_the_bits_of_its_launches(device, monkeypatch, optimizer):
    check_recording(device, monkeypatch, optimizer)


@pytest.mark.parametrize("units", [2, 132])
def test_memory_of_vgg19_at_512(device, monkeypatch, units):
    """At most 200 MB beside the filters for 512×384, counted in a fresh pool; the kernels need not run for that."""
    ops = common.Backend(device.device)
    ops.autotune = False  # which would time launches that do nothing
    monkeypatch.setattr(device.device, "multiprocessors", units)
    monkeypatch.setattr(device.device, "memory", 8 << 30)  # with more, slabs of Winograd tiles may take more
    monkeypatch.setattr(ops.device, "launch", lambda *_: None)
    net = Network(nets.vgg(19, 1, (32, 32), classifier=False), ops)
    picture = np.zeros((3, 384, 512), np.float32)
    objective = Objective(
        net, picture, [picture], content_layers=["relu4_2"],
        style_layers=["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"],
    )  # fmt: skip
    x = ops.asarray(picture[None])
    for _ in range(4):
        objective.evaluate(x)
    # Up to conv5_1, 12.9 million: transformed filters are four times as large, and serve both directions.
    assert ops.filter_bytes == pytest.approx(4 * 12.9e6 * 4, rel=0.02)
    assert ops.pool.max_allocated <= ops.pool.reserved <= ops.filter_bytes + 200e6


# Optimisers


@pytest.mark.parametrize("name, function, options", [
    on_gpu("adam", quadratic, {"learning_rate": 1.0}), ("lbfgs", quadratic, {}),
    on_gpu("lbfgs", quadratic, {"history": 3}), ("lbfgs", rosenbrock, {"history": 1, "learning_rate": 0.01}),
    on_gpu("lbfgs", quadratic, {"history": 3, "initial_step": 0.3, "max_step_rms": 0.2, "precondition": 0.5}),
], ids=lambda value: getattr(value, "__name__", str(value)))  # fmt: skip
def test_optimizer(device, name, function, options):
    results = []
    for ops in (EXACT, device):
        x = ops.asarray(np.random.default_rng(1).uniform(-1, 1, (1, 3, 2, 2)))
        optimize.minimize(name, Function(function, ops), x, 12, **options)
        results.append([x])
    close(results[1], results[0], 1e-3)


@pytest.mark.gpu
def test_lbfgs_on_many_numbers(device):
    """Histories of several rows at a time, more numbers than one group sums; pairs are rejected on the way."""
    scales, results = np.geomspace(0.5, 2, 3 * 70 * 90).reshape(1, 3, 70, 90), []
    for ops in (Backend(), device):  # in float32 both: the first y is a small difference of large gradients
        x = ops.asarray(noise(1, 3, 70, 90))
        state = lbfgs.init(ops, x, 6)
        for i in range(12):
            if i not in (3, 4, 9):  # there the gradient is that of the iteration before
                gradient = ops.asarray(np.asarray(x) * scales)
            lbfgs.update(ops, x, gradient, state, 0.5, initial_step=0.1, max_step_rms=0.4)
        results.append([x, state.ring, np.asarray(state.products)])
    close(results[1][:1], results[0][:1], 1e-4)
    np.testing.assert_array_equal(np.asarray(results[1][1])[:2], results[0][1][:2])


@pytest.mark.gpu
def test_lbfgs_state_goes_through_the_host(device):
    x = device.asarray(noise(1, 3, 20, 20))
    states = [lbfgs.init(device, x, 3)]
    for _ in range(7):
        lbfgs.update(device, x, device.copy(x), states[0], 0.5)
    arrays = {k: device.to_host(v) for k, v in vars(states[0]).items() if k != "iteration"}
    states.append(lbfgs.State(**{k: device.asarray(v) for k, v in arrays.items()}, iteration=states[0].iteration))
    results = []
    for state in states:
        y = device.copy(x)
        for _ in range(3):
            lbfgs.update(device, y, device.copy(y), state, 0.5)
        results.append(np.array(y))
    np.testing.assert_array_equal(*results)


def test_a_history_that_is_too_long_is_refused(device):
    x = device.zeros((1, 3, 1, 1))
    state = lbfgs.init(device, x, 2000)
    lbfgs.update(device, x, device.copy(x), state, 1.0)
    with pytest.raises(OptionError, match="history of 2000"):
        lbfgs.update(device, x, device.copy(x), state, 1.0)


# Failures


@pytest.mark.gpu
def test_a_kernel_that_does_not_compile_shows_the_log(device, monkeypatch):
    from cvstyle.backends.device import compiler

    monkeypatch.setattr(compiler, "source", lambda name: "this is no kernel")
    fresh = common.Backend(device.device)
    with pytest.raises(DeviceError, match=r"(?s)operation 'scale' \(kernels/elementwise.cl\).*does not compile.*this"):
        fresh.scale(fresh.empty((3,)), 2)


@pytest.mark.gpu
def test_a_launch_that_fails_names_operation_and_device(device):
    x = device.asarray(noise(5))
    with pytest.raises(DeviceError, match=r"operation 'scale' failed on .*"):
        device.launch("elementwise", "scale", (1, 1, 1), (x, *device.factor(1), x.size), threads=1 << 20)


@pytest.mark.parametrize("method, operation", [("allocate", "allocate"), ("synchronize", "wait"), ("compile", "scale")])
def test_what_the_driver_refuses_names_operation_and_device(device, monkeypatch, method, operation):
    def refuse(*arguments):
        raise KeyError("lost")

    fresh, x = common.Backend(device.device), device.asarray(noise(5))
    monkeypatch.setattr(device.device, "errors", (KeyError,))
    monkeypatch.setattr(device.device, method, refuse)
    with pytest.raises(DeviceError, match=rf"(?s)operation '{operation}' .* {re.escape(device.device.name)}.*lost"):
        fresh.scale(x, 2) if method == "compile" else fresh.finish([fresh.empty((1 << 20,))])


@pytest.mark.gpu
def test_memory_that_cannot_be_had(device):
    with pytest.raises(MemoryError):
        device.device.allocate(1 << 50)
    for shape in [(1, 1 << 16, 1 << 15), (2, 1 << 16, 1 << 14), (1 << 31,), (3, 1 << 31)]:  # shares of a sum as well
        with pytest.raises(DeviceError, match="2\\^31"):
            device.empty(shape)
