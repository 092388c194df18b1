"""Optimisers against plain implementations of their own."""

from __future__ import annotations

import itertools

import cv2
import nets
import numpy as np
import pytest
import scipy.optimize

from cvstyle import optimize
from cvstyle.backends.reference import Backend
from cvstyle.errors import OptionError
from cvstyle.graph.periodic import Extension
from cvstyle.optimize import lbfgs, preconditioner


class Function:
    """A function of a picture in the place of an `Objective`."""

    capturable = False  # it is computed on the host
    repeats = None  # (height, width) of a picture that repeats along both axes

    def __init__(self, function, ops=None):
        self.function, self.ops = function, ops or Backend("float64")
        self.evaluations = 0

    def extension(self, pixels):
        return self.repeats and Extension(self.repeats, (pixels, pixels), (pixels, pixels))

    def evaluate(self, x):
        self.evaluations += 1
        self.loss, gradient = self.function(np.asarray(x, np.float64).ravel())
        self.losses = {"all": self.loss}
        return self.ops.asarray(gradient.reshape(x.shape))

    def __call__(self, x):
        gradient = self.evaluate(x)
        return self.loss, np.asarray(gradient)


_RNG = np.random.default_rng(0)
_BASIS = np.linalg.qr(_RNG.normal(size=(12, 12)))[0]
HESSIAN = _BASIS @ np.diag(np.geomspace(0.1, 10, 12)) @ _BASIS.T
MINIMUM = _RNG.normal(size=12) * 3


def quadratic(v):
    d = v - MINIMUM
    return d @ HESSIAN @ d / 2, HESSIAN @ d


def rosenbrock(v):
    return scipy.optimize.rosen(v), scipy.optimize.rosen_der(v)


def start(ops, seed=1):
    return ops.asarray(np.random.default_rng(seed).uniform(-1, 1, (1, 3, 2, 2)))


def run(name, function, count, ops=None, **options):
    """(result, [x after each iteration], the Function)."""
    objective, visited = Function(function, ops), []
    callback = lambda i, x: visited.append(np.array(x))  # noqa: E731
    result = optimize.minimize(name, objective, start(objective.ops), count, callback, **options)
    return result, visited, objective


# Adam


@pytest.mark.parametrize("function", [quadratic, rosenbrock])
@pytest.mark.parametrize("rate", [10.0, 0.01])
def test_adam_is_algorithm_1(function, rate):
    _, visited, _ = run("adam", function, 30, learning_rate=rate)
    theta = start(Backend("float64")).ravel().tolist()
    m, v = [0.0] * 12, [0.0] * 12
    for t in range(1, 31):
        g = function(np.array(theta))[1]
        for i in range(12):
            m[i] = 0.9 * m[i] + 0.1 * g[i]
            v[i] = 0.999 * v[i] + 0.001 * g[i] ** 2
            theta[i] -= rate * (m[i] / (1 - 0.9**t)) / ((v[i] / (1 - 0.999**t)) ** 0.5 + 1e-8)
        np.testing.assert_allclose(visited[t - 1].ravel(), theta, rtol=1e-9)


def test_adam_in_float32():
    exact = run("adam", quadratic, 25, learning_rate=1.0)[0]
    for ops in (make() for make in nets.ENGINES.values()):
        np.testing.assert_allclose(run("adam", quadratic, 25, ops, learning_rate=1.0)[0], exact, rtol=1e-3, atol=1e-4)


def test_adam_epsilon_counts_where_gradients_vanish():
    result, _, _ = run("adam", lambda v: (0.0, np.full(12, 1e-8)), 1, learning_rate=1.0)
    np.testing.assert_allclose(start(Backend("float64")) - result, 0.5, rtol=1e-6)


# The preconditioner


def doubling(height, width):
    """What doubles a map of ⌈height/2⌉ × ⌈width/2⌉, as a matrix, by OpenCV."""
    small = (-(-height // 2), -(-width // 2))
    unit = np.eye(small[0] * small[1]).reshape(-1, *small)
    size = (2 * small[1], 2 * small[0])
    return np.stack([cv2.resize(u, size, interpolation=cv2.INTER_LINEAR)[:height, :width].ravel() for u in unit], 1)


def dense_preconditioner(height, width, exponent, levels):
    """P as a matrix, from its definition."""
    total, product, weight = np.eye(height * width), np.eye(height * width), 1.0
    for level in range(1, levels + 1):
        product = product @ doubling(height, width) / 2
        height, width = -(-height // 2), -(-width // 2)
        weight = 2 ** (exponent * level) - 2 ** (exponent * (level - 1))
        total = total + weight * product @ product.T
    return total


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 3), (8, 6), (7, 12), (5, 17)])
def test_halving_is_the_adjoint_of_doubling(size):
    ops, rng = Backend("float64"), np.random.default_rng(0)
    matrix = doubling(*size)
    half = rng.normal(size=(1, 2, *(-(-n // 2) for n in size)))
    x = rng.normal(size=(1, 2, *size))
    doubled = (half.reshape(2, -1) @ matrix.T).reshape(x.shape)
    np.testing.assert_allclose(ops.add_doubled(ops.asarray(x), 0.3, ops.asarray(half)), 0.3 * x + doubled, atol=1e-6)
    np.testing.assert_allclose(ops.halve(ops.asarray(x)).reshape(2, -1), x.reshape(2, -1) @ matrix / 4, atol=1e-6)


@pytest.mark.parametrize("name", nets.ENGINES)
@pytest.mark.parametrize("size", [(1, 9), (2, 4), (31, 17), (8, 1023), (9, 1024), (3, 2051)])
def test_halving_and_doubling_of_every_engine(name, size):
    rng = np.random.default_rng(0)
    x, half = rng.normal(size=(1, 2, *size)), rng.normal(size=(1, 2, *(-(-n // 2) for n in size)))
    results = []
    for ops in (nets.ENGINES[name](), Backend("float64")):
        results.append([ops.halve(ops.asarray(x)), ops.add_doubled(ops.asarray(x), 0.7, ops.asarray(half))])
    for ours, exact in zip(*results, strict=True):
        np.testing.assert_allclose(ours, exact, atol=1e-6)


@pytest.mark.parametrize("size, levels", [((24, 17), preconditioner.LEVELS), ((6, 5), 3), ((1, 8), 0)])
def test_the_preconditioner_is_its_definition(size, levels):
    ops, exponent = Backend("float64"), 0.5
    matrix = dense_preconditioner(*size, exponent, levels)  # few rows: down to one alone
    x = np.random.default_rng(0).normal(size=(1, 3, *size))
    expected = (x.reshape(3, -1) @ matrix).reshape(x.shape)
    np.testing.assert_allclose(preconditioner.to_gradient(ops, ops.asarray(x), exponent), expected, atol=1e-6)
    moved = np.ones_like(x)
    preconditioner.to_step(ops, ops.asarray(x), exponent, moved)
    np.testing.assert_allclose(moved - 1, expected, atol=1e-6)
    assert np.linalg.eigvalsh(matrix).min() >= 1 - 1e-6


@pytest.mark.parametrize("size", [(24, 16), (9, 21), (5, 3)])
def test_the_preconditioner_of_a_picture_that_repeats(size):
    """It is that of the infinite picture, which knows no edges; the gradient's is its transpose."""
    ops, (height, width), rng = Backend("float64"), size, np.random.default_rng(0)
    extension = Extension(size, (preconditioner.REACH,) * 2, (preconditioner.REACH,) * 2)
    x, g = rng.normal(size=(2, 1, 3, *size))
    repeats, start = 80 // min(size) // 2 * 2 + 1, [80 // min(size) // 2 * n for n in size]
    start = [-(-first // 8) * 8 for first in start]  # where the levels' grid is that of the picture
    places = [np.arange(repeats * n + 16) - first for n, first in zip(size, start)]
    many = np.ascontiguousarray(x[..., places[0][:, None] % height, places[1] % width])
    rows, columns = (slice(first, first + n) for first, n in zip(start, size))
    stepped = np.zeros_like(x)
    preconditioner.to_step(ops, x.copy(), 0.5, stepped, extension)
    np.testing.assert_allclose(stepped, preconditioner.to_gradient(ops, many, 0.5)[..., rows, columns], atol=1e-6)
    gradient = preconditioner.to_gradient(ops, g.copy(), 0.5, extension)
    assert (g * stepped).sum() == pytest.approx((gradient * x).sum(), rel=1e-6)
    if not any(n % 8 for n in size):
        moved = np.zeros_like(x)
        preconditioner.to_step(ops, np.roll(x, (8, 8), (2, 3)), 0.5, moved, extension)
        np.testing.assert_allclose(moved, np.roll(stepped, (8, 8), (2, 3)), atol=1e-6)


def test_long_waves_come_out_larger():
    ops, length = Backend("float64"), 256
    gains = []
    for period in (2, 4, 8, 16, 32, 128):
        wave = np.cos(2 * np.pi * np.arange(length) / period)
        x = np.broadcast_to(wave, (1, 1, 64, length))
        out = preconditioner.to_gradient(ops, ops.asarray(x), 0.5)[0, 0, 32]
        gains.append(float(out @ wave / (wave @ wave)))
    assert gains[0] == pytest.approx(1, abs=0.01) and gains[-1] == pytest.approx(preconditioner.gain(0.5), rel=0.06)
    assert all(b > 1.03 * a for a, b in itertools.pairwise(gains)), gains


def test_smooth_lbfgs_is_lbfgs_in_the_smooth_space():
    """x = P z where L-BFGS minimises f(P z) over z."""
    height, width, count, rng = 6, 5, 25, np.random.default_rng(3)
    single = dense_preconditioner(height, width, 0.5, 3)
    matrix = np.kron(np.eye(3), single)
    basis = np.linalg.qr(rng.normal(size=(90, 90)))[0]
    hessian, minimum = basis @ np.diag(np.geomspace(0.1, 10, 90)) @ basis.T, rng.normal(size=90)

    def bowl(v):
        return (v - minimum) @ hessian @ (v - minimum) / 2, hessian @ (v - minimum)

    def in_z(z):
        loss, gradient = bowl(matrix @ z)
        return loss, matrix @ gradient

    ours, x = [], np.zeros((1, 3, height, width))
    optimize.minimize(
        "lbfgs", Function(bowl), x, count, lambda i, x: ours.append(x.copy().ravel()), history=4, initial_step=0.1,
        max_step_rms=0.2, precondition=0.5,
    )  # fmt: skip
    longest = 0.2 / preconditioner.gain(0.5) ** 0.5
    expected = dense_lbfgs(in_z, np.zeros(90), count, 4, 1.0, initial_step=0.1, max_step_rms=longest)
    np.testing.assert_allclose(ours, [matrix @ z for z in expected], atol=1e-5)
    assert bowl(ours[-1])[0] < 1e-2 * bowl(np.zeros(90))[0]


# L-BFGS of the reference


def dense_lbfgs(function, x, count, history, rate, initial_step=None, max_step_rms=np.inf):
    """The same iteration through explicit matrices (Nocedal and Wright 2006, equation 7.19)."""
    pairs, previous, visited, scale = [], None, [], 1.0
    for _ in range(count):
        g = function(x)[1]
        if previous is None:
            step = -(initial_step / np.abs(g).mean() if initial_step else min(1, 1 / np.abs(g).sum())) * rate * g
        else:
            y = g - previous[0]
            s = previous[1]
            if y @ s > 1e-10:
                pairs.append((s, y))
                scale = (y @ s) / (y @ y)
            inverse = scale * np.eye(len(x))
            for s, y in pairs[-history:]:
                v = np.eye(len(x)) - np.outer(y, s) / (y @ s)
                inverse = v.T @ inverse @ v + np.outer(s, s) / (y @ s)
            step = -rate * inverse @ g
        step = step * min(1, max_step_rms / np.sqrt((step**2).mean()))
        previous = g, step
        x = x + step
        visited.append(x)
    return visited


@pytest.mark.parametrize("function, history, rate, count", [
    (quadratic, 100, 1.0, 25), (quadratic, 3, 1.0, 25), (quadratic, 1, 0.5, 20), (rosenbrock, 5, 0.05, 25),
])  # fmt: skip
def test_lbfgs_equals_explicit_matrices(function, history, rate, count):
    _, visited, objective = run("lbfgs", function, count, history=history, learning_rate=rate)
    expected = dense_lbfgs(function, start(Backend("float64")).ravel(), count, history, rate)
    assert objective.evaluations == count  # one evaluation for each iteration
    for ours, theirs in zip(visited, expected, strict=True):
        np.testing.assert_allclose(ours.ravel(), theirs, rtol=1e-5, atol=1e-7)


def test_lbfgs_reaches_the_minimum():
    result, _, _ = run("lbfgs", quadratic, 60, history=100)
    np.testing.assert_allclose(result.ravel(), MINIMUM, atol=1e-6)


def test_lbfgs_first_step():
    x = start(Backend("float64")).ravel()
    g = quadratic(x)[1]
    _, visited, _ = run("lbfgs", quadratic, 1)
    np.testing.assert_allclose(visited[0].ravel(), x - g * min(1, 1 / np.abs(g).sum()), rtol=1e-12)
    _, visited, _ = run("lbfgs", lambda v: (0.0, np.full(12, 1e-3)), 1)
    np.testing.assert_allclose(visited[0].ravel(), x - 1e-3, rtol=1e-12)  # 1/‖g‖₁ > 1


def test_lbfgs_skips_pairs_without_curvature():
    """Where the gradient is constant y is 0: no pair is kept, and the steps go on along the gradient."""
    ops, g = Backend("float64"), np.full((1, 3, 2, 2), 0.25)
    x = start(ops)
    before, state = x.copy(), lbfgs.init(ops, x, 5)
    for _ in range(3):
        lbfgs.update(ops, x, g.copy(), state, 1.0)
    assert state.ring[1] == 0
    np.testing.assert_allclose(before - x, (1 / 3 + 1 + 1) * g, rtol=1e-12)


@pytest.mark.parametrize("history", [1, 3, 50])
def test_lbfgs_goes_on_after_a_rejected_pair(history):
    """A gradient that repeats now and then: its pair is neither kept nor does it displace an older one."""
    gradients = [quadratic(v)[1] for v in np.random.default_rng(7).normal(size=(14, 12))]
    for at in (1, 4, 5, 9, 13):
        gradients[at] = gradients[at - 1]
    sequence = iter(gradients)
    _, visited, _ = run("lbfgs", lambda v: (0.0, next(sequence)), 14, history=history)
    sequence = iter(gradients)
    expected = dense_lbfgs(lambda v: (0.0, next(sequence)), start(Backend("float64")).ravel(), 14, history, 1.0)
    np.testing.assert_allclose([v.ravel() for v in visited], expected, rtol=1e-6, atol=1e-8)


def test_lbfgs_keeps_up_with_two_loops_in_float32():
    """Directions from stored products lose no more to rounding than those from vectors (quadratic, condition 1e4)."""
    scales = np.geomspace(0.01, 100, 300)
    minimum = np.random.default_rng(3).normal(size=300)
    distance = {}
    for dtype in ("float32", "float64"):
        ops = Backend(dtype)
        x, target = ops.zeros((1, 3, 10, 10)), ops.asarray(minimum.reshape(1, 3, 10, 10))
        state = lbfgs.init(ops, x, 20)
        for _ in range(150):
            gradient = (x - target) * scales.reshape(x.shape).astype(dtype)
            lbfgs.update(ops, x, gradient, state, 1.0)
        distance[dtype] = np.linalg.norm((x - target).ravel() * np.sqrt(scales))
    assert distance["float32"] < 1.2 * distance["float64"]


def test_lbfgs_keeps_as_many_pairs_as_asked():
    ops = Backend("float64")
    x, objective = start(ops), Function(quadratic)
    state = lbfgs.init(ops, x, 4)
    for i in range(10):
        lbfgs.update(ops, x, objective.evaluate(x), state, 1.0)
        assert state.ring[1] == min(i, 4)


def test_lbfgs_of_a_gradient_of_zero_stays():
    result, _, _ = run("lbfgs", lambda v: (0.0, np.zeros(12)), 4)
    np.testing.assert_array_equal(result, start(Backend("float64")))


# L-BFGS-B


def test_lbfgsb_reaches_the_minimum():
    result, visited, objective = run("lbfgsb", quadratic, 50)
    assert result.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(result.ravel(), MINIMUM, atol=1e-5)
    values = [quadratic(v.ravel())[0] for v in visited]
    assert all(b <= a for a, b in itertools.pairwise(values))
    assert len(visited) <= objective.evaluations


def test_lbfgsb_honours_bounds():
    lower, upper = np.full((1, 3, 1, 1), -0.5), np.array([0.25, 1.0, 2.0]).reshape(1, 3, 1, 1)
    assert (MINIMUM.max() > 2) or (MINIMUM.min() < -0.5)
    result, visited, _ = run("lbfgsb", quadratic, 100, bounds=(lower, upper))
    for x in [*visited, result]:
        assert (x >= lower - 1e-12).all()
        assert (x <= upper + 1e-12).all()
    # The conditions of Karush, Kuhn and Tucker: at a bound the gradient points out of the box, elsewhere it is 0.
    g = quadratic(result.ravel())[1].reshape(result.shape)
    low, high = np.broadcast_to(lower, g.shape), np.broadcast_to(upper, g.shape)
    assert (g[result <= low] >= -1e-5).all()
    assert (g[result >= high] <= 1e-5).all()
    inside = (result > low) & (result < high)
    assert np.abs(g[inside]).max() < 1e-4
    assert inside.any()
    assert not inside.all()


def test_lbfgsb_history_is_used():
    few, many = (run("lbfgsb", rosenbrock, 12, history=h)[0] for h in (1, 12))
    assert not np.allclose(few, many, rtol=1e-3)


# All of them


@pytest.mark.parametrize("name", optimize.NAMES)
def test_callback_counts(name):
    counted, losses = [], []
    objective = Function(quadratic)

    def callback(iteration, x):
        counted.append(iteration)
        losses.append(objective.losses["all"])
        assert x.shape == (1, 3, 2, 2)

    optimize.minimize(name, objective, start(objective.ops), 7, callback)
    assert counted == [1, 2, 3, 4, 5, 6, 7]
    assert all(np.isfinite(losses))


@pytest.mark.parametrize("name", optimize.NAMES)
def test_stop_ends_the_run_there(name):
    objective, seen = Function(quadratic), []

    def callback(iteration, x):
        seen.append(np.array(x))
        if iteration == 3:
            raise optimize.Stop

    result = optimize.minimize(name, objective, start(objective.ops), 50, callback)
    assert len(seen) == 3
    np.testing.assert_array_equal(result, seen[-1])


@pytest.mark.parametrize("name", optimize.NAMES)
def test_other_exceptions_pass(name):
    def callback(iteration, x):
        raise ZeroDivisionError

    objective = Function(quadratic)
    with pytest.raises(ZeroDivisionError):
        optimize.minimize(name, objective, start(objective.ops), 5, callback)


@pytest.mark.parametrize("name", optimize.NAMES)
def test_last_callback_sees_the_result(name):
    result, visited, _ = run(name, quadratic, 6)
    np.testing.assert_array_equal(result, visited[-1])


@pytest.mark.parametrize("name", ["adam", "lbfgs"])
def test_runs_are_repeatable_and_split(name):
    """A run that is continued with its state equals one in a piece."""
    module, ops = optimize.get(name), Backend("float64")
    whole = run(name, quadratic, 9, learning_rate=0.5)[0]
    np.testing.assert_array_equal(whole, run(name, quadratic, 9, learning_rate=0.5)[0])
    x, objective = start(ops), Function(quadratic)
    state = module.init(ops, x)
    for iteration in range(9):
        module.update(ops, x, objective.evaluate(x), state, 0.5)
        if iteration == 4:
            saved = {k: v if isinstance(v, int) else ops.to_host(v) for k, v in vars(state).items()}
            state = module.State(**{k: v if isinstance(v, int) else ops.asarray(v) for k, v in saved.items()})
    np.testing.assert_array_equal(x, whole)


def test_unknown_optimizer():
    with pytest.raises(OptionError, match=r"unknown optimizer 'lbgfs'.*lbfgs"):
        optimize.get("lbgfs")


def test_a_first_step_that_does_not_vanish_in_rounding():
    """At values about 100 the reference's first step over many pixels is lost, and the second is far too long."""
    count, ops = 300_000, Backend()
    target = np.random.default_rng(1).normal(100, 20, count)
    function = Function(lambda x: (5 * ((x - target) ** 2).sum(), 10 * (x - target)), ops)
    errors = {}
    for initial_step in (None, 1.0):
        x = ops.asarray(np.full((1, 3, 100, 1000), 100.0))
        x = optimize.minimize("lbfgs", function, x, 3, initial_step=initial_step)
        errors[initial_step] = float(np.abs(x.ravel() - target).max())
    assert errors[1.0] < 1e-2 < 1 < errors[None]


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_first_step_of_a_given_size_whatever_the_gradient(scale):
    before = start(Backend("float64"))
    _, visited, _ = run("lbfgs", lambda v: (0.0, scale * quadratic(v)[1]), 1, initial_step=0.25)
    step = visited[0] - before
    assert np.abs(step).mean() == pytest.approx(0.25)
    np.testing.assert_allclose(step / np.abs(step).sum(), -_direction(quadratic(before.ravel())[1]), rtol=1e-9)


def _direction(gradient):
    return gradient.reshape(1, 3, 2, 2) / np.abs(gradient).sum()


def test_steps_are_no_longer_than_allowed():
    def bowl(v):
        return (v**4).sum() / 4 + v.sum(), v**3 + 1

    result, visited, _ = run("lbfgs", bowl, 60, initial_step=1e-3, max_step_rms=0.05)
    at = [start(Backend("float64")), *visited]
    steps = [b - a for a, b in itertools.pairwise(at)]
    norms = np.array([np.sqrt((s**2).mean()) for s in steps])
    assert norms.max() == pytest.approx(0.05)
    assert (norms < 0.049).any()
    np.testing.assert_allclose(result, -1, atol=1e-6)
    # The history holds the steps as they were taken.
    expected = dense_lbfgs(bowl, at[0].ravel(), 20, 100, 1.0, initial_step=1e-3, max_step_rms=0.05)
    np.testing.assert_allclose([x.ravel() for x in visited[:20]], expected, rtol=1e-6)
