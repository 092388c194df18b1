"""Optimisers as generators, and what else a run needs of them (the protocol in `cvstyle.optimize`)."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from dataclasses import dataclass
from pathlib import Path

import nets
import numpy as np
import pytest
import scipy.optimize
from test_optimize import MINIMUM, Function, quadratic, rosenbrock, run, start

from cvstyle import optimize
from cvstyle.backends.reference import Backend
from cvstyle.optimize import lbfgs

# Generators: the caller owns the loop


def threads_of_scipy():
    """The threads that lbfgsb has now."""
    return [t for t in threading.enumerate() if t.name == "cvstyle-lbfgsb"]


def begun(name, function=rosenbrock, count=30, **settings):
    """(the generator after two iterations, its objective)"""
    objective = Function(function)
    iterates = optimize.get(name).iterates(objective, start(objective.ops), count, **settings)
    next(iterates)
    next(iterates)
    return iterates, objective


@pytest.mark.parametrize("name", optimize.NAMES)
def test_a_generator_counts_on_from_what_is_done(name):
    objective = Function(quadratic)
    iterates = optimize.get(name).iterates(objective, start(objective.ops), 7, state=None, done=3)
    assert len(list(iterates)) == 4
    assert not list(optimize.get(name).iterates(objective, start(objective.ops), 7, done=7))
    counted = []
    optimize.minimize(name, objective, start(objective.ops), 7, lambda i, x: counted.append(i), done=4)
    assert counted == [5, 6, 7]
    assert not threads_of_scipy()


@pytest.mark.parametrize("name", optimize.NAMES)
def test_without_iterations_the_picture_is_the_result(name):
    objective = Function(quadratic)
    x = start(objective.ops)
    assert optimize.minimize(name, objective, x, 0) is x
    assert not objective.evaluations


def test_lbfgsb_has_scipys_bits():
    """SciPy's own loop, that calls back, visits the same points."""
    _, visited, objective = run("lbfgsb", rosenbrock, 25, history=5)
    expected = []
    found = scipy.optimize.minimize(
        rosenbrock, start(Backend("float64")).ravel(), jac=True, method="L-BFGS-B",
        callback=lambda x: expected.append(x.copy()), options={"maxiter": 25, "maxcor": 5, "ftol": 0, "gtol": 0},
    )  # fmt: skip
    np.testing.assert_array_equal([x.ravel() for x in visited], expected)
    assert objective.evaluations == found.nfev


def test_a_generator_that_is_closed_or_dropped_leaves_no_thread():
    iterates, objective = begun("lbfgsb")
    assert len(threads_of_scipy()) == 1
    evaluations = objective.evaluations
    iterates.close()
    assert not threads_of_scipy()
    assert objective.evaluations == evaluations
    iterates, _ = begun("lbfgsb")
    del iterates
    assert not threads_of_scipy()
    iterates = optimize.get("lbfgsb").iterates(objective, start(objective.ops), 5)
    assert not threads_of_scipy()  # it has not begun
    iterates.close()


def test_lbfgsb_evaluates_on_the_callers_thread():
    threads = set()

    def function(v):
        threads.add(threading.current_thread())
        return quadratic(v)

    run("lbfgsb", function, 5)
    assert threads == {threading.current_thread()}
    assert not threads_of_scipy()


@pytest.mark.parametrize("name", optimize.NAMES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_the_objective_raises_comes_out(name, error):
    iterates, objective = begun(name)
    raised = error("from within")

    def fail(_):
        raise raised

    objective.function = fail
    with pytest.raises(error) as caught:
        next(iterates)
    assert caught.value is raised
    assert not threads_of_scipy()
    assert not list(iterates)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to a thread here")
def test_ctrl_c_while_scipy_computes(monkeypatch):
    def minimize(function, x, **_):
        function(x)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.1)
        function(x)

    monkeypatch.setattr(scipy.optimize, "minimize", minimize)
    objective = Function(quadratic)
    with pytest.raises(KeyboardInterrupt):
        next(optimize.get("lbfgsb").iterates(objective, start(objective.ops), 5))
    assert objective.evaluations == 1
    assert not threads_of_scipy()


def test_what_scipy_raises_comes_out(monkeypatch):
    def minimize(function, x, **_):
        large = np.zeros(100)
        arrays.append(weakref.ref(large))
        function(x)
        raise MemoryError(f"no room for {len(large)} numbers")

    arrays = []
    monkeypatch.setattr(scipy.optimize, "minimize", minimize)
    with pytest.raises(MemoryError, match="no room for 100 numbers"):
        run("lbfgsb", quadratic, 5)
    assert not threads_of_scipy()
    assert arrays[0]() is None  # without the garbage collector


def test_lbfgsb_ends_where_nothing_more_is_gained():
    result, visited, objective = run("lbfgsb", quadratic, 10_000)
    assert 3 < len(visited) < 1000
    np.testing.assert_array_equal(result, visited[-1])
    np.testing.assert_allclose(result.ravel(), MINIMUM, atol=1e-6)
    x = objective.ops.asarray(MINIMUM.reshape(1, 3, 2, 2))
    assert optimize.minimize("lbfgsb", objective, x, 9) is x  # the gradient is zero
    assert not threads_of_scipy()


@pytest.mark.parametrize("name", optimize.NAMES)
def test_generators_side_by_side_in_threads(name):
    seeds, results = (1, 2), {}
    together = threading.Barrier(2)

    def work(seed):
        objective = Function(rosenbrock)
        for x in optimize.get(name).iterates(objective, start(objective.ops, seed), 15):
            together.wait(20)
            results[seed] = np.array(x)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in seeds]
    for step in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            step(thread)
    for seed in seeds:
        alone = Function(rosenbrock)
        expected = optimize.minimize(name, alone, start(alone.ops, seed), 15)
        np.testing.assert_array_equal(results[seed], expected)


def test_generators_take_turns_in_one_thread():
    pairs = [begun("lbfgsb", function)[0] for function in (rosenbrock, quadratic)]
    results = [[np.array(x) for x in both] for both in zip(*(itertools.islice(g, 10) for g in pairs))]
    for one, function in zip(zip(*results), (rosenbrock, quadratic)):
        np.testing.assert_array_equal(one, run("lbfgsb", function, 12)[1][2:])


def test_a_generator_between_two_iterates_does_not_keep_the_interpreter():
    code = (
        "from test_iterates import *\niterates, _ = begun('lbfgsb')\n"
        "assert len(threads_of_scipy()) == 1\nprint('the end', flush=True)"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")


# What a run needs to know of an optimiser


@dataclass
class Options:
    learning_rate: float = 3.0
    strength: float = 1.0
    lbfgs_num_correction: int = 0
    lbfgs_smooth: float | None = None
    bounds: bool = False
    compat: bool = False


@pytest.mark.parametrize("name, options, expected", [
    ("adam", Options(), {"learning_rate": 3.0}), ("adam", Options(strength=0.5), {"learning_rate": 1.5}),
    ("lbfgs", Options(), {"history": 20, "initial_step": 1.0, "max_step_rms": 10.0, "precondition": 0.5}),
    ("lbfgs", Options(compat=True), {"history": 100}),
    ("lbfgs", Options(compat=True, lbfgs_num_correction=7, lbfgs_smooth=0.25), {"history": 7, "precondition": 0.25}),
    ("lbfgs", Options(lbfgs_smooth=0), {"history": 20, "initial_step": 1.0, "max_step_rms": 10.0, "precondition": 0}),
    ("lbfgsb", Options(compat=True), {"history": 20}),
    ("lbfgsb", Options(lbfgs_num_correction=5, bounds=True), {"history": 5, "bounds": ("lower", "upper")}),
])  # fmt: skip
def test_settings_come_from_options(name, options, expected):
    assert optimize.get(name).settings(options, ("lower", "upper")) == expected


class Bowl:
    """½ ‖x − target‖² on any backend, by its own operations."""

    capturable = False

    def __init__(self, ops, shape):
        self.ops, self.target = ops, ops.asarray(np.random.default_rng(0).normal(size=shape))

    def evaluate(self, x):
        return self.ops.add_scaled(self.ops.copy(x), -1.0, self.target)

    @staticmethod
    def extension(pixels):
        return None


def in_use(pool):
    """Bytes of a host pool's arrays."""
    for memory in pool._ranges:
        memory.collect()
    return sum(memory.top - sum(size for _, size in memory.holes) for memory in pool._ranges)


@pytest.mark.parametrize("engine", nets.ENGINES)
@pytest.mark.parametrize("name, settings", [
    ("adam", {}), ("lbfgs", {"history": 3}), ("lbfgs", {"history": 50, "initial_step": 1.0, "precondition": 0.5}),
], ids=str)  # fmt: skip
def test_what_an_optimizer_keeps_is_what_it_says(engine, name, settings):
    ops, shape, module = nets.ENGINES[engine](), (1, 3, 200, 240), optimize.get(name)
    picture = 4 * np.prod(shape)
    objective, x = Bowl(ops, shape), ops.zeros(shape)
    before = in_use(ops.pool)
    state = module.initial_state(ops, x, 7, **settings)
    for _ in module.iterates(objective, x, 7, state=state, **settings):
        pass
    memory = module.memory(7, ops.history_itemsize, **settings)
    assert (in_use(ops.pool) - before) / picture == pytest.approx(memory.state, abs=0.02)
    assert memory.host == 0
    if name == "lbfgs":  # at most: x, the target and the gradient are the run's
        assert (ops.pool.reserved - 3 * picture) / picture == pytest.approx(memory.state + memory.step, abs=0.02)


@pytest.mark.parametrize("bounded", [False, True])
def test_what_scipy_keeps_is_what_it_says(bounded):
    """As Python's own count has it, within what evaluations take for a moment."""
    shape, history = (1, 3, 90, 110), 5
    objective = Function(lambda v: ((v**2).sum(), 2 * v), Backend())
    x = objective.ops.asarray(np.random.default_rng(0).normal(size=shape))
    settings = {"history": history, "bounds": (np.full((1, 3, 1, 1), -2.0), np.full((1, 3, 1, 1), 1.0))}
    if not bounded:
        del settings["bounds"]
    tracemalloc.start()
    try:
        optimize.minimize("lbfgsb", objective, x, 4, **settings)
        pictures = tracemalloc.get_traced_memory()[1] / x.nbytes
    finally:
        tracemalloc.stop()
    module = optimize.get("lbfgsb")
    memory = module.memory(4, 4, **settings)
    assert memory[:2] == (0, 0)
    assert memory.host <= pictures <= memory.host + 15
    assert module.initial_state(objective.ops, x, 4, **settings) is None


@pytest.mark.parametrize("engine", nets.ENGINES)
@pytest.mark.parametrize("name, settings", [
    ("adam", {"learning_rate": 0.1}), ("lbfgs", {"history": 3}), ("lbfgs", {"history": 6, "precondition": 0.5}),
], ids=str)  # fmt: skip
def test_a_state_that_is_saved_and_restored_goes_on_bit_for_bit(engine, name, settings):
    """Also where it was made for fewer iterations than the run then has."""
    ops, shape, module = nets.ENGINES[engine](), (1, 3, 9, 11), optimize.get(name)
    objective, x = Bowl(ops, shape), ops.zeros(shape)
    state = module.initial_state(ops, x, 5, **settings)
    for _ in module.iterates(objective, x, 5, state=state, **settings):
        pass
    numbers, arrays = optimize.state_entries(state)
    arrays = {name: np.array(ops.to_host(array)) for name, array in arrays.items()}
    assert set(numbers.values()) == {5}
    middle = np.array(ops.to_host(x))
    other, y = module.load_state(ops, arrays, numbers, 12, **settings), ops.asarray(middle)
    resumed = optimize.minimize(name, objective, y, 12, state=other, done=5, **settings)
    whole = optimize.minimize(name, objective, ops.zeros(shape), 12, **settings)
    np.testing.assert_array_equal(ops.to_host(resumed), ops.to_host(whole))
    assert optimize.state_entries(other)[0] == dict.fromkeys(numbers, 12)


def test_what_goes_along_to_a_larger_scale():
    ops = Backend()
    x = ops.zeros((1, 3, 2, 2))
    adam = optimize.get("adam")
    state = adam.State(ops.asarray(np.full(x.shape, 2.0)), ops.asarray(np.full(x.shape, 3.0)), 4)
    carried = adam.resize_state(state, lambda m: m[..., :1])
    assert (carried.m == 2).all() and (carried.v == 3).all() and carried.step == 4
    assert carried.m.shape == carried.v.shape == (1, 3, 2, 1)
    assert optimize.get("lbfgs").resize_state(lbfgs.init(ops, x), None) is None
    assert optimize.get("lbfgsb").resize_state(None, None) is None
    assert optimize.state_entries(None) == ({}, {})
