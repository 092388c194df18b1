"""Winograd convolution on an OpenCL device against numpy in float64, alone and mixed with the direct kernel."""

from __future__ import annotations

import nets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_network import Projection, picture
from test_opencl import EXACT, NETS, ON_GPU, check_convolution, noise, on_gpu
from test_tiles import check_features
from test_tuning import Clock, folder, ops  # fixtures

from cvstyle import images, plan, stylize
from cvstyle.backends import device as common
from cvstyle.backends import opencl
from cvstyle.backends.base import RELU
from cvstyle.backends.device import algorithms, convolution, winograd
from cvstyle.backends.device.algorithms import GEMM_BLOCKS, Algorithm
from cvstyle.graph import Network
from cvstyle.run import probes

__all__ = ["folder", "ops"]
_CALLS = (0, 0, 0, 1, 1, 0, 1, 0, 1)  # check_convolution's, 1: backward


def in_turn(forward, backward):
    """Ways for check_convolution: one forward, one backward."""
    return [backward if call else forward for call in _CALLS]


@pytest.mark.parametrize("tile, splits, shape, outputs", [
    (on_gpu if (tile, splits, shape) in ON_GPU else pytest.param)(tile, splits, shape, outputs)
    for tile in GEMM_BLOCKS for splits in (1, 3)
    for shape, outputs in (((20, 9, 16), 70), ((9, 17, 19), 133), ((130, 1, 1), 6))
], ids=str)  # fmt: skip
def test_every_tile(device, monkeypatch, tile, splits, shape, outputs):
    way = Algorithm(tile, splits, True)
    check_convolution(device, monkeypatch, [way], shape, outputs, 1, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 8), on_gpu((5, 7)), (33, 6)], ids=str)
@pytest.mark.parametrize("forward, backward", [(True, False), (False, True)])
def test_masks_go_from_one_kernel_to_the_other(device, monkeypatch, size, forward, backward):
    turns = in_turn(Algorithm(GEMM_BLOCKS[2], 1, forward), Algorithm(GEMM_BLOCKS[2], 1, backward))
    for shift in ((0, 0), (1, 2), (2, 3)):
        check_convolution(device, monkeypatch, turns, (5, *size), 6, 1, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), shift)


@settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.data())
def test_any_convolution(device, monkeypatch, data):
    """Any padding, size, number of groups and of slabs, and start of the tiles."""
    draw = data.draw
    group, pad = draw(st.sampled_from([1, 1, 2, 3])), draw(st.tuples(*[st.integers(0, 4)] * 4))
    size = [draw(st.integers(max(1, 3 - pad[i] - pad[i + 2]), 20)) for i in (0, 1)]
    channels, outputs = group * draw(st.integers(1, 11)), group * draw(st.integers(1, 9))
    room = 36 * (channels + outputs) * draw(st.sampled_from([4, 8, 132, 1 << 20]))
    kinds = [
        Algorithm(GEMM_BLOCKS[2], draw(st.sampled_from([1, 1, 2])), kind, room) for kind in (True, draw(st.booleans()))
    ]
    turns, shift = in_turn(*draw(st.permutations(kinds))), draw(st.tuples(*[st.integers(0, 3)] * 2))
    check_convolution(device, monkeypatch, turns, (channels, *size), outputs, group, (3, 3), (1, 1), (1, 1), pad, shift)


def bound(x, weight):
    """How far each output of F(4×4, 3×3) on one tile may be from the exact one in float32.

    x: (channels, 6, 6), weight: (outputs, channels, 3, 3). An expression of sums and products, each rounded by at most
    u = 2^-24 relative, is at most γ = n u / (1 − n u) of its value with all signs taken away from the exact one, n the
    longest chain of roundings (Higham 2002, section 3.1). Here: twice four in the input's transform and twice five in
    the output's, one for the filter's and two and the number of channels in the product.
    """
    channels = x.shape[0]
    n = (8 + 10 + 1 + 2 + channels) * 2.0**-24
    at_points = np.abs(winograd.evaluation())
    near, far = winograd.NEAR**2, winograd.FAR**2
    points = np.abs([0, winograd.NEAR, -winograd.NEAR, winograd.FAR, -winograd.FAR])
    inputs = np.zeros((6, 6))
    inputs[0, [0, 2, 4]] = inputs[5, [1, 3, 5]] = near * far, near + far, 1
    for rows, point, other in (((1, 2), winograd.NEAR, far), ((3, 4), winograd.FAR, near)):
        for row in rows:
            inputs[row, 1:5] = point * other, other, point, 1
    outputs = np.vstack([points**i for i in range(4)])
    outputs = np.hstack([outputs, [[0], [0], [0], [1]]])
    v = np.einsum("ia,cab,jb->cij", inputs, np.abs(x.astype(float)), inputs)
    u = np.einsum("ia,ocab,jb->ocij", at_points, np.abs(weight.astype(float)), at_points)
    return n / (1 - n) * np.einsum("ia,oab,jb->oij", outputs, np.einsum("cij,ocij->oij", v, u), outputs)


def test_filters_are_float64_rounded_once():
    """Whatever the threads and pieces that they are made in: groups, and channels that are no multiples of either."""
    weight = noise(3, 37, 53, 9)
    points = winograd.evaluation()
    exact = np.einsum("ia,jb,gokab->ijgko", points, points, weight.reshape(3, 37, 53, 3, 3).astype(float))
    exact = exact.reshape(36, 3, 53, 37)
    found = winograd.transform_filters(weight)
    assert found.shape == (36, 3, 56, 40) and not found[:, :, 53:].any() and not found[..., 37:].any()
    assert np.all(np.abs(found[:, :, :53, :37] - exact) <= np.abs(exact) * 2.0**-24 + 1e-14)


@pytest.mark.parametrize("channels", [1, 8, on_gpu(100)])
def test_each_number_is_within_the_proven_bound(device, monkeypatch, channels):
    monkeypatch.setattr(convolution, "best_algorithm", lambda *_, blocks=0, **__: Algorithm(GEMM_BLOCKS[2], 1, True))
    x, weight = noise(1, channels, 6, 6), noise(7, channels, 3, 3, seed=1)
    ours, exact = (b.convolution(weight, None, (1, 1), (1, 1), 1) for b in (device, EXACT))
    y, reference = (np.array(c.forward(c.ops.asarray(x), (0,) * 4)[0], float)[0] for c in (ours, exact))
    assert np.all(np.abs(y - reference) <= bound(x[0], weight))
    assert bound(x[0], weight).max() < 1e-2 * np.abs(reference).max()  # it says something


def test_512_channels_are_within_three_times_the_direct_kernels_error(device, monkeypatch):
    x, weight = np.maximum(noise(1, 512, 8, 8), 0), noise(64, 512, 3, 3, seed=1)
    exact = EXACT.convolution(weight, None, (1, 1), (1, 1), 1).forward(EXACT.asarray(x), (1,) * 4)[0]
    errors = []
    for by_winograd in (False, True):
        way = Algorithm(GEMM_BLOCKS[2], 1, by_winograd)
        monkeypatch.setattr(convolution, "best_algorithm", lambda *_, way=way, **__: way)
        y = device.convolution(weight, None, (1, 1), (1, 1), 1).forward(device.asarray(x), (1,) * 4)[0]
        errors.append(np.linalg.norm(np.array(y, float) - exact) / np.linalg.norm(exact))
    assert errors[1] <= 3 * errors[0] and errors[1] < 3e-6


@pytest.mark.parametrize("kinds", [(True, True), (False, True), (True, False)])
def test_gradient_of_vgg19(device, monkeypatch, kinds):
    """Within 1e-4 at an eighth of the width, by Winograd in both directions and in one."""
    net = NETS["vgg19"]()
    taps = ["relu1_1", "relu3_1", "conv5_1"]
    exact = Projection(net, taps, EXACT).gradient(picture(net))

    def chosen(outputs, positions, channels, *_, blocks=0, **__):
        return Algorithm(GEMM_BLOCKS[2], 1, bool(blocks) and kinds[channels >= outputs])

    monkeypatch.setattr(convolution, "best_algorithm", chosen)
    gradient = Projection(net, taps, device).gradient(picture(net))
    assert np.linalg.norm(gradient - exact) <= 1e-4 * np.linalg.norm(exact)


@pytest.mark.parametrize("shape, stride, dilation, group", [
    ((64, 64, 3, 3), (1, 2), (1, 1), 1), ((64, 64, 3, 3), (1, 1), (2, 2), 1), ((64, 64, 3, 1), (1, 1), (1, 1), 1),
    ((64, 3, 3, 3), (1, 1), (1, 1), 1), ((64, 8, 3, 3), (1, 1), (1, 1), 8),
], ids=str)  # fmt: skip
def test_what_is_done_without(device, monkeypatch, shape, stride, dilation, group):
    """All but 3×3 of stride 1, and few channels."""
    asked = []
    direct = Algorithm(GEMM_BLOCKS[2], 1)
    monkeypatch.setattr(convolution, "best_algorithm", lambda *_, blocks, **__: asked.append(blocks) or direct)
    filters = device.convolution(noise(*shape), None, stride, dilation, group)
    y, _ = filters.forward(device.asarray(noise(1, shape[1] * group, 20, 20)), (1,) * 4)
    filters.backward(y, (20, 20), (1,) * 4)
    assert filters.block_size == 1 and not any(asked)


@pytest.mark.parametrize("size, tile, taps", [
    ((327, 50), 300, ("relu1_1", "relu2_2", "relu3_1", "relu5_1")),
    ((158, 301), 126, ("relu1_1", "relu2_2", "relu3_1", "relu3_2")), on_gpu((61, 21), 44, ("relu1_1", "relu2_2")),
], ids=str)  # fmt: skip
def test_features_that_count_have_the_bits_of_the_whole_picture(device, monkeypatch, size, tile, taps):
    """By Winograd's algorithm, whose tiles start where the picture's do; all but one are shallow, on short axes."""
    monkeypatch.setattr(
        convolution, "best_algorithm",
        lambda outputs, positions, *_, blocks=0, **__: Algorithm(GEMM_BLOCKS[positions % 3], 1, bool(blocks)),
    )  # fmt: skip
    check_features(Network(nets.vgg(19, 4, (64, 64), classifier=False), device), taps, size, tile)


def test_predicted_memory(device, monkeypatch, tmp_path):
    """What was taken in a run of which every layer but the first is done by Winograd's algorithm, within 15 %."""
    files = [str(tmp_path / f"{name}.png") for name in "ab"]
    for name in files:
        images.write(name, np.random.default_rng(0).uniform(0, 1, (48, 64, 3)).astype(np.float32))
    monkeypatch.setattr(probes, "PROBES", (96, 192))
    block = GEMM_BLOCKS[2]
    monkeypatch.setattr(convolution, "best_algorithm", lambda *_, blocks=0, **__: Algorithm(block, 1, bool(blocks)))
    monkeypatch.setattr(device.device, "captures", False)  # what is recorded has a pool of its own
    ops = common.Backend(device.device)
    ops.autotune = False
    options = {
        "network": Network(nets.vgg(16, 4, (64, 64), classifier=False), ops), "image_size": 256,
        "content_layers": ["relu2_2"], "style_layers": ["relu1_1", "relu3_2"], "optimizer": "adam",
        "num_iterations": 2, "init": "image",
    }  # fmt: skip
    found, _ = plan(files[0], files[1:], **options)
    stylize(files[0], files[1:], **options)
    assert ops.pool.max_allocated > 8e6
    assert found.needs[0].size == pytest.approx(ops.pool.max_reserved, rel=0.15)


def test_slabs_are_even_and_their_memory_is_bounded():
    for channels, outputs, splits, blocks in (
        (64, 64, 1, 12288), (512, 512, 16, 192), (3, 64, 1, 7), (9000, 9000, 4, 50)
    ):  # fmt: skip
        for room in (8 << 20, 32 << 20):
            size = algorithms.tile_batch(channels, outputs, splits, blocks, room)
            assert size % 4 == 0 and 36 * size * (channels + splits * outputs) <= room
            count = -(-blocks // size)
            assert size * (count - 1) < blocks <= size * count < blocks + 128 * count
    assert algorithms.tile_batch(1 << 20, 1 << 20, 1, 50) == 4


def test_the_size_of_slabs_does_not_change_the_bits(device, monkeypatch):
    """Nor the order of sums that windows must share."""
    x, weight, results = noise(1, 20, 30, 37), noise(33, 20, 3, 3, seed=1), []
    for tiles in (4, 36, 80):
        way = Algorithm(GEMM_BLOCKS[2], 2, True, 36 * (20 + 2 * 33) * tiles)
        assert way.reduction_order == Algorithm(GEMM_BLOCKS[2], 2, True).reduction_order
        monkeypatch.setattr(convolution, "best_algorithm", lambda *_, way=way, **__: way)
        filters = device.convolution(weight, None, (1, 1), (1, 1), 1)
        y, bits = filters.forward(device.asarray(x), (1,) * 4, RELU)
        g = filters.backward(y, (30, 37), (1,) * 4, bits)
        results.append(np.array(y).tobytes() + np.array(g).tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("memory, cache, size, launches, room", [
    (141 << 30, 60 << 20, 512, 100, 128), (141 << 30, 60 << 20, 1024, 150, 512), (8 << 30, 4 << 20, 512, 200, 32),
], ids=str)  # fmt: skip
def test_slabs_on_gpus(memory, cache, size, launches, room):
    """VGG-19's convolutions: few launches where there is memory for it, of which slabs take no more than a 256th; those
    of a small device stay as they are."""
    total, shapes = 0, [(64, 64, 1), (64, 128, 2), (128, 128, 2), (128, 256, 4), *3 * [(256, 256, 4)], (256, 512, 8)]
    for channels, outputs, scale in (*shapes, *3 * [(512, 512, 8)], (512, 512, 16)):
        blocks = size * size * 3 // 4 // (4 * scale) ** 2
        for pair in ((channels, outputs), (outputs, channels)):
            shape = pair[1], 16 * blocks, pair[0], 9, 1, 132
            found = algorithms.ranked_algorithms(*shape, blocks=blocks, memory=memory, cache_size=cache)
            way = found[0]
            assert way.winograd and 4 * way.workspace <= min(max(32 << 20, memory / 256), room << 20)
            width = algorithms.tile_batch(*pair, way.splits, blocks, way.workspace)
            total += 3 * -(-blocks // width)
            assert len({str(w) for w in found}) == len(found)
            sizes = {w.workspace for w in found if w[:3] == way[:3]}
            assert (len(sizes) > 1) == (memory > 8 << 30 and blocks > algorithms.tile_batch(*pair, way.splits, blocks))
            alone = algorithms.ranked_algorithms(*shape, blocks=blocks, cpu=True, memory=memory, cache_size=cache)
            assert {w.workspace for w in alone} == {8 << 20}
    assert total <= launches


@pytest.mark.skipif(opencl.Backend.unavailable_because() is not None, reason=str(opencl.Backend.unavailable_because()))
def test_what_was_tried_and_not_taken_is_forgotten(ops, monkeypatch):
    """Both directions share one copy of transformed filters; the direct kernel's are given back, and the other way."""
    weight, x, pads = noise(128, 128, 3, 3), ops.asarray(noise(1, 128, 16, 16)), (1, 1, 1, 1)
    pair = Algorithm(GEMM_BLOCKS[2], 1, True), Algorithm(GEMM_BLOCKS[2], 1)
    monkeypatch.setattr(convolution, "ranked_algorithms", lambda *_, **__: pair)
    for fastest, size in ((0, 36), (1, 2 * 9)):
        Clock(monkeypatch, ops.device, lambda n, fastest=fastest: float((n - 1) // 3 % 2 != fastest))
        ops.__dict__.pop("choices", None)
        ops.choices.entries.clear()
        before = ops.filter_bytes
        filters = ops.convolution(weight, None, (1, 1), (1, 1), 1)
        y, bits = filters.forward(x, pads, RELU)
        filters.backward(y, (16, 16), pads, bits)
        assert [filters.engine(d) for d in (False, True)] == [str(pair[fastest])] * 2
        assert ops.filter_bytes - before == pytest.approx(size * 4 * 128 * 128, rel=1e-2)
        assert not any(chunk.persistent and chunk.is_free for chunk in ops.pool._chunks)


def test_an_iteration_allocates_nothing(device, monkeypatch):
    """With slabs and shares, after the first."""
    monkeypatch.setattr(convolution, "best_algorithm", lambda *_, blocks=0, **__: Algorithm(GEMM_BLOCKS[2], 2, True))
    ops = common.Backend(device.device)
    ops.autotune = False
    filters = ops.convolution(noise(64, 64, 3, 3), None, (1, 1), (1, 1), 1)
    x, taken = ops.asarray(noise(1, 64, 130, 130)), []
    for _ in range(4):
        y, bits = filters.forward(x, (1,) * 4, RELU)
        g = filters.backward(y, (130, 130), (1,) * 4, bits)
        taken.append(ops.pool.reserved)
        del y, bits, g
    assert taken[1] == taken[2] == taken[3]
