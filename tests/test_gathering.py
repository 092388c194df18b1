"""Operations that move, limit or map elements, on every backend at hand, against loops in float64.

On the device of conftest, which CVSTYLE_TEST_BACKEND names; `make gpu-quick` runs these tests on a GPU.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import fake_cupy
import numpy as np
import pytest
from pictures import noise

from cvstyle import backends
from cvstyle.backends import native
from cvstyle.backends.device.dry_run import DryRunBackend
from cvstyle.backends.reference import Backend

EXACT = Backend("float64")
VARIANTS = native.variants() if native.Backend.unavailable_because() is None else ()
HOSTS = ("float64", "numpy", "opencv", *(f"native {variant}" for variant in VARIANTS))
ODD = (np.nan, np.inf, -np.inf, 0.0, -0.0)


@pytest.fixture(params=[*HOSTS, pytest.param("device", marks=pytest.mark.gpu)])
def ops(request):
    """A backend of the host, or the device."""
    if request.param == "float64":
        return EXACT
    if request.param == "device":
        return request.getfixturevalue("device")
    name, _, variant = request.param.partition(" ")
    return native.Backend(variant=variant) if variant else backends.get(name)


def host(array):
    return np.array(array).astype(np.float64)


def close(ours, exact, tolerance=2e-6):
    """Equal where not finite, and within a tolerance relative to the largest number elsewhere."""
    ours, exact = host(ours), np.asarray(exact)
    assert ours.shape == exact.shape
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(ours[~finite], exact[~finite])
    largest = np.abs(exact[finite]).max(initial=0)
    assert np.abs(ours - exact)[finite].max(initial=0) <= tolerance * largest


def sprinkled(x, seed=0):
    """With numbers that are none, infinite or zero, each somewhere."""
    places = np.random.default_rng(seed).permutation(x.size)[: len(ODD)]
    x.reshape(-1)[places] = ODD[: len(places)]
    return x


# Axes


@pytest.mark.parametrize("shape", [
    (2, 3, 4, 5), (1, 40, 33, 65), (33, 2, 1, 70), (1, 1, 1, 1), (9, 1, 8, 1), (3, 34, 35), (64, 31), (7,),
], ids=str)  # fmt: skip
def test_axes_in_any_order(ops, shape):
    """Every one of them; tiles, narrow matrices and rows that stay whole are kernels of their own."""
    x = sprinkled(noise(*shape))
    array = ops.asarray(x)
    for axes in itertools.permutations(range(len(shape))):
        found = ops.transpose(array, axes)
        assert found.shape == tuple(shape[axis] for axis in axes)
        np.testing.assert_array_equal(np.array(found), x.transpose(axes), err_msg=str(axes))
    np.testing.assert_array_equal(np.array(array), x)


def test_channels_are_shuffled(ops):
    """As ShuffleChannel does with a transposition of (group, channels of a group): 6 channels in 2 groups."""
    x = ops.asarray(np.arange(6 * 5, dtype=np.float32).reshape(1, 2, 3, 5))
    shuffled = np.array(ops.transpose(x, (0, 2, 1, 3))).reshape(6, 5)
    np.testing.assert_array_equal(shuffled[:, 0] / 5, [0, 3, 1, 4, 2, 5])


def test_the_order_back_is_the_adjoint(ops):
    x, g = noise(2, 17, 9, 40), noise(9, 2, 40, 17, seed=1)
    y, gx = ops.transpose(ops.asarray(x), (2, 0, 3, 1)), ops.transpose(ops.asarray(g), (1, 3, 0, 2))
    assert np.vdot(host(y), g) == pytest.approx(np.vdot(x, host(gx)), rel=1e-6)


# Largest elements


def largest(line, count):
    """(value, index) pairs by the definition: falling, NaN last, where equal the larger index first."""
    order = sorted(range(len(line)), key=lambda i: (math.isnan(line[i]), -line[i] if line[i] == line[i] else 0, -i))
    return [(line[i], i) for i in order[:count]]


@pytest.mark.parametrize("shape, axis", [
    ((1, 7, 3, 5), 1), ((2, 3, 4, 6), 3), ((2, 3, 4, 6), 0), ((3, 40), 1), ((1, 1, 1, 1), 1), ((1, 5, 1, 1), 1),
    ((2, 700), 1), ((1, 3, 5, 300), 2), ((1, 5000), 1),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("kind", ["normal", "ties", "odd"])
def test_largest_elements(ops, shape, axis, kind):
    x = noise(*shape) if kind == "normal" else np.random.default_rng(1).integers(-2, 3, shape).astype(np.float32)
    if kind == "odd":
        pool = np.array([*ODD, 1, -1e-30, 1e-30, 3e38, -3e38], np.float32)
        x = pool[np.random.default_rng(2).integers(0, len(pool), shape)]
    for count in sorted({1, min(3, shape[axis]), min(shape[axis], 40)}):
        values, indices = ops.top_k(ops.asarray(x), axis, count)
        pairs = np.apply_along_axis(lambda line, n=count: np.array(largest(list(line), n)).T.ravel(), axis, x)
        wanted, places = np.split(pairs, 2, axis)
        np.testing.assert_array_equal(np.array(indices), places)
        np.testing.assert_array_equal(np.array(values), wanted.astype(np.float32))


# Positions of maxima


def first_winners(x, kernel, stride, pad, output):
    """The places of the largest numbers of the windows by loops, the first where several are equal."""
    places = np.empty((1, x.shape[1], *output))
    for c, i, j in np.ndindex(places.shape[1:]):
        inside = [
            (r, q)
            for r in range(i * stride[0] - pad[0], i * stride[0] - pad[0] + kernel[0])
            for q in range(j * stride[1] - pad[1], j * stride[1] - pad[1] + kernel[1])
            if 0 <= r < x.shape[2] and 0 <= q < x.shape[3]
        ]
        row, column = max(inside, key=lambda place, c=c: x[0, c, place[0], place[1]])
        places[0, c, i, j] = row * x.shape[3] + column
    return places


WINDOWS = [
    ((2, 2), (2, 2), (0, 0), (6, 10), (3, 5)), ((3, 2), (2, 1), (1, 0), (7, 5), (4, 4)),
    ((3, 3), (1, 2), (1, 1), (5, 9), (5, 5)), ((17, 16), (3, 5), (2, 1), (23, 30), (4, 4)),
    ((1, 1), (1, 1), (0, 0), (1, 1), (1, 1)), ((2, 2), (2, 2), (0, 0), (5, 5), (3, 3)),
]  # fmt: skip


@pytest.mark.parametrize("kernel, stride, pad, size, output", WINDOWS, ids=str)
def test_positions_of_maxima(ops, kernel, stride, pad, size, output):
    x = np.random.default_rng(0).integers(-9, 9, (1, 3, *size)).astype(np.float32)
    _, winner = ops.max_pool(ops.asarray(x), kernel, stride, pad, output)
    positions = ops.pool_positions(winner, x.shape, kernel, stride, pad)
    np.testing.assert_array_equal(np.array(positions), first_winners(x, kernel, stride, pad, output))


@pytest.mark.parametrize("size", [(1, 1), (4, 7), (30, 41)])
def test_unpooling(ops, size):
    """Where places meet, the last counts; places outside, and no places at all, are passed over."""
    rng = np.random.default_rng(3)
    x, plane = noise(1, 5, 9, 13), math.prod(size)
    places = rng.integers(-3, plane + 3, x.shape).astype(np.float32)
    places.reshape(-1)[rng.permutation(x.size)[:4]] = np.nan, np.inf, -np.inf, 3e9
    g, y, gx = noise(1, 5, *size, seed=1), np.zeros((1, 5, plane)), np.zeros(x.shape)
    for c, i, j in np.ndindex(x.shape[1:]):
        if 0 <= places[0, c, i, j] < plane:
            y[0, c, int(places[0, c, i, j])] = x[0, c, i, j]
            gx[0, c, i, j] = g.reshape(5, -1)[c, int(places[0, c, i, j])]
    with np.errstate(invalid="ignore"):
        for _ in range(2):
            up = ops.unpool(ops.asarray(x), ops.asarray(places), size)
            np.testing.assert_array_equal(np.array(up), y.reshape(g.shape))
        np.testing.assert_array_equal(np.array(ops.unpool_backward(ops.asarray(g), ops.asarray(places))), gx)


def test_unpooling_is_the_adjoint_of_its_backward(ops):
    """Where no two places meet; and it undoes a pool that found every element."""
    x = noise(1, 4, 8, 6)
    y, winner = ops.max_pool(ops.asarray(x), (2, 2), (2, 2), (0, 0), (4, 3))
    positions = ops.pool_positions(winner, x.shape, (2, 2), (2, 2), (0, 0))
    up = host(ops.unpool(y, positions, (8, 6)))
    assert np.count_nonzero(up) == y.size and (up[up != 0] == x[up != 0]).all()
    gx = ops.unpool_backward(ops.asarray(x), positions)
    np.testing.assert_array_equal(host(gx), host(y))
    g = noise(1, 4, 8, 6, seed=1)
    gx = ops.unpool_backward(ops.asarray(g), positions)
    assert np.vdot(up, g) == pytest.approx(np.vdot(host(y), host(gx)), rel=1e-5)


# Interpolation


def weights(extent, size):
    """The matrix (size, extent) of interpolation along an axis, corners on corners, from exact fractions."""
    matrix = np.zeros((size, extent))
    for i in range(size):
        place = Fraction(i * (extent - 1), max(size - 1, 1))
        low = math.floor(place)
        matrix[i, low] += float(1 - (place - low))
        if low + 1 < extent:
            matrix[i, low + 1] += float(place - low)
    return matrix


SIZES = [
    ((5, 7), (9, 13)), ((5, 7), (5, 7)), ((1, 1), (4, 3)), ((6, 5), (1, 1)), ((1, 8), (5, 1)), ((13, 9), (4, 5)),
    ((3, 50), (50, 3)), ((33, 2), (7, 65)), ((2, 2), (37, 41)), ((16, 31), (11, 100)),
]  # fmt: skip


@pytest.mark.parametrize("extent, size", SIZES, ids=str)
def test_interpolation(ops, extent, size):
    x, g = noise(1, 3, *extent), noise(1, 3, *size, seed=1)
    down, across = (weights(n, m) for n, m in zip(extent, size))
    array = ops.asarray(x)
    y, gx = ops.resize(array, size), ops.resize_backward(ops.asarray(g), x.shape)
    close(y, down @ x.astype(np.float64) @ across.T, 1e-6)
    close(gx, down.T @ g.astype(np.float64) @ across, 2e-6)
    assert np.vdot(host(y), g) == pytest.approx(np.vdot(x, host(gx)), rel=1e-4, abs=1e-4)
    np.testing.assert_array_equal(np.array(array), x)


def test_places_of_interpolation_are_exact(ops):
    """With 7 · 23 intervals every 23rd place is an element, whatever 23 · (7/161) rounds to; 65536 do not overflow."""
    x = np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8) ** 2
    found = np.array(ops.resize(ops.asarray(x), (1, 7 * 23 + 1)))
    np.testing.assert_array_equal(found[0, 0, 0, ::23], x.ravel())
    x = np.zeros((1, 1, 1, 65536), np.float32)
    x[..., -2:] = 3, 5
    found = np.array(ops.resize(ops.asarray(x), (1, 65535))).ravel()
    assert found[-1] == 5 and found[-2] == pytest.approx(3 - 3 / 65534, rel=1e-6) and not found[:-3].any()
    back = np.array(ops.resize_backward(ops.asarray(found.reshape(1, 1, 1, -1)), x.shape)).ravel()
    assert back[-1] == 5 and not back[:-5].any()


def test_interpolation_of_what_is_no_number(ops):
    """It stays where it counts."""
    x = noise(1, 1, 4, 4)
    x[0, 0, 1, 2] = np.nan
    y = host(ops.resize(ops.asarray(x), (7, 7)))
    assert np.isnan(y[0, 0, 1:4, 3:6]).all() and not np.isnan(y[0, 0, :, :2]).any()


# Limits and functions


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 5, 7), (1, 40, 33, 13)], ids=str)
@pytest.mark.parametrize("closed", [True, False])
def test_limits(ops, shape, closed):
    """The gradient passes between them, and on them if they are closed; in place as well."""
    x = sprinkled(np.random.default_rng(4).integers(-4, 9, shape).astype(np.float32))
    g = noise(*shape, seed=1)
    for low, high in ((0.0, 6.0), (-2.0, -2.0), (-np.inf, 3.0), (-1.5, np.inf)):
        wanted = np.array([v if v != v else min(max(v, low), high) for v in x.ravel()]).reshape(shape)
        inside = (x >= low) & (x <= high) if closed else (x > low) & (x < high)
        for own in (None, ops.asarray(x)):
            y, mask = ops.clip(ops.asarray(x) if own is None else own, low, high, closed, own)
            np.testing.assert_array_equal(np.array(y), wanted)
            np.testing.assert_array_equal(np.array(ops.relu_backward(ops.asarray(g), mask)), g * inside)


def bnll(x):
    return x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x))


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def swish_slope(x, beta):
    s = sigmoid(beta * x)
    return s + beta * x * s * (1 - s)


FUNCTIONS = {
    ("bnll", ()): (bnll, sigmoid),
    ("swish", (1.0,)): (lambda x: x * sigmoid(x), lambda x: swish_slope(x, 1.0)),
    ("swish", (-0.7,)): (lambda x: x * sigmoid(-0.7 * x), lambda x: swish_slope(x, -0.7)),
    ("step", (0.5,)): (lambda x: float(x > 0.5), lambda x: 0.0),
}


@pytest.mark.parametrize("function, parameters", FUNCTIONS, ids=str)
def test_functions(ops, function, parameters):
    """Near zero, far from it and where the exponential overflows float32; with out, as a layer that may overwrite."""
    f, slope = FUNCTIONS[function, parameters]
    x = np.concatenate([noise(61, scale=3), [0.0, -0.0, 0.5, 15, -15, 40, -40, 95, -95, 200, -200]]).astype(np.float32)
    x = x.reshape(1, 2, 4, 9)
    wanted, slopes = ([h(float(v)) for v in x.ravel()] for h in (f, slope))
    g = noise(*x.shape, seed=1)
    for overwrites in (False, True):
        array = ops.asarray(x)
        y, saved = ops.map(function, array, parameters, array if overwrites else None)
        np.testing.assert_allclose(host(y).ravel(), wanted, rtol=2e-6, atol=1e-37)
        gx = ops.map_backward(function, ops.asarray(g), saved, parameters)
        np.testing.assert_allclose(host(gx).ravel(), g.ravel() * np.array(slopes), rtol=2e-5, atol=1e-7)


def test_functions_of_what_is_no_number(ops):
    x = ops.asarray(np.array([np.nan, np.inf, -np.inf], np.float32).reshape(1, 1, 1, 3))
    np.testing.assert_array_equal(np.array(ops.map("bnll", x)[0]).ravel(), [np.nan, np.inf, 0])
    np.testing.assert_array_equal(np.array(ops.map("swish", x, (1.0,))[0]).ravel()[:2], [np.nan, np.inf])
    np.testing.assert_array_equal(np.array(ops.map("step", x, (0.5,))[0]).ravel(), [0, 1, 0])


# Sums


@pytest.mark.parametrize("shape, kept", [
    ((1, 5, 7, 9), (1, 5, 1, 1)), ((1, 5, 7, 9), (1, 1, 1, 1)), ((1, 5, 7, 9), (1, 1, 7, 9)), ((1, 70), (1, 1)),
    ((3, 40, 1, 1), (1, 40, 1, 1)), ((1, 70, 64, 65), (1, 1, 64, 65)), ((2, 3, 40, 50), (2, 1, 40, 1)),
    ((2, 3, 40, 50), (1, 3, 1, 50)), ((1, 3, 200, 130), (1, 3, 1, 1)), ((1, 3, 200, 130), (1, 1, 1, 1)),
    ((1, 3, 200, 130), (1, 1, 200, 1)), ((6, 1, 9), (6, 1, 9)), ((300, 3, 100), (300, 1, 100)), ((4, 33, 9), (4, 1, 9)),
], ids=str)  # fmt: skip
def test_sums(ops, shape, kept):
    """Of every kernel for them: alone, by a group, and in two stages. They are the adjoint of repetition."""
    x, y = noise(*shape), noise(*kept, seed=1)
    axes = tuple(i for i, n in enumerate(kept) if n == 1)
    found = ops.sum_over(ops.asarray(x), kept)
    close(found, x.astype(np.float64).sum(axes, keepdims=True), 1e-5)
    repeated = ops.multiply(ops.asarray(x), ops.asarray(y))
    assert host(repeated).sum() == pytest.approx(np.vdot(host(found), y), rel=1e-4, abs=1e-4)
    for bad in (np.nan, np.inf):
        x.reshape(-1)[x.size // 2] = bad
        found = ops.sum_over(ops.asarray(x), kept)
        np.testing.assert_array_equal(np.isfinite(host(found)), np.isfinite(x.sum(axes, keepdims=True)))


@pytest.mark.parametrize("kept", [(1, 2, 1, 1), (1, 1, 1, 1), (1, 2, 2000, 1)], ids=str)
def test_sums_of_many_numbers_are_near(ops, kept):
    """As a variance needs them: of 2000 × 2000 positive numbers, some of them far larger than the others."""
    x = np.abs(noise(1, 2, 2000, 2000)) + 1
    x[0, 0, ::100, ::100] *= 1000
    axes = tuple(i for i, n in enumerate(kept) if n == 1)
    exact = x.astype(np.float64).sum(axes, keepdims=True)
    found = host(ops.sum_over(ops.asarray(x), kept))
    assert (np.abs(found - exact) <= 1e-6 * exact).all()


# On devices


def everything(ops, x):
    """The results of all these operations on a map (1, 4, H, W)."""
    window = (2, 2), (2, 2), (0, 0)
    y, winner = ops.max_pool(x, *window, tuple(-(-n // 2) for n in x.shape[2:]))
    positions = ops.pool_positions(winner, x.shape, *window)
    limited, mask = ops.clip(x, -1.0, 1.0)
    function, saved = ops.map("swish", x, (1.0,))
    return [
        ops.transpose(x, (0, 2, 3, 1)), ops.transpose(x.reshape(2, 2, -1), (1, 0, 2)), *ops.top_k(x, 1, 2),
        *ops.top_k(x.reshape(1, -1), 1, 2), positions, ops.unpool(y, positions, x.shape[2:]),
        ops.unpool_backward(x, positions), ops.resize(x, (9, 50)), ops.resize_backward(x, (1, 4, 3, 70)),
        ops.relu_backward(limited, mask), ops.map_backward("swish", function, saved, (1.0,)),
        ops.sum_over(x, (1, 4, 1, 1)), ops.sum_over(x, (1, 1, 1, 1)), ops.sum_over(x, (1, 1, *x.shape[2:])),
    ]  # fmt: skip


def test_a_recording_replays_them(device, monkeypatch):
    """They wait for nothing and copy nothing to the host; a dry run counts their kernels and their memory."""
    if device.name != "opencl":
        pytest.skip("CuPy's stand-in computes on an OpenCL device")
    fake = fake_cupy.install(monkeypatch, device.device)
    ops = backends.get("cuda")
    x, found = ops.asarray(noise(1, 4, 64, 72)), []

    def work():
        found.clear()
        found.extend(everything(ops, x))

    repeated = ops.capture(work)
    for turn in range(5):
        ops.upload(x, noise(1, 4, 64, 72, seed=turn))
        repeated()
    assert fake.replays == 3 and not ops.capture_problem
    assert ops.downloads == 0
    for ours, exact in zip(found, everything(EXACT, noise(1, 4, 64, 72, seed=4).astype(np.float64)), strict=True):
        close(ours, exact, 1e-5)
    dry = DryRunBackend(ops)
    forecast = everything(dry, dry.empty(x.shape))
    assert [array.shape for array in forecast] == [array.shape for array in found]
    assert dry.requested_kernels == ops.requested_kernels
    assert dry.max_reserved >= sum(array.nbytes for array in forecast)
