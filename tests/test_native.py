"""The native engine: every instruction set against NumPy in float64, whatever the threads, fusions and sizes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nets
import numpy as np
import pytest

import cvstyle
from cvstyle import backends
from cvstyle.backends import native
from cvstyle.backends.base import RELU, BlockGrid, Epilogue
from cvstyle.backends.native import library
from cvstyle.backends.reference import Backend
from cvstyle.errors import OptionError
from cvstyle.graph import Network

needs_engine = pytest.mark.skipif(
    native.Backend.unavailable_because() is not None,
    reason=f"the native backend does not work here: {native.Backend.unavailable_because()}",
)
VARIANTS = native.variants() if native.Backend.unavailable_because() is None else ()
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def test_an_installation_where_there_is_a_compiler_has_the_engine():
    compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])
    installed = cvstyle.__file__.startswith(sysconfig.get_path("purelib"))
    if compiler and installed:
        assert native.Backend.unavailable_because() is None
        assert backends.get("native").name == "native"
    else:  # a source tree that may not be built
        assert native.Backend.unavailable_because() is None or "library" in native.Backend.unavailable_because()


def test_without_the_library_another_backend_serves(monkeypatch):
    monkeypatch.setattr(library, "_path", lambda: None)
    assert "compiler" in native.Backend.unavailable_because()
    with pytest.raises(OptionError, match=r"backend 'native' cannot be used here.*compiler"):
        backends.get("native")
    assert backends.get("auto").name != "native"


def test_a_damaged_library_is_a_reason_not_a_crash(monkeypatch, tmp_path):
    path = tmp_path / "_engine.so"
    path.write_bytes(b"no library")
    monkeypatch.setattr(library, "_path", lambda: str(path))
    library._library.cache_clear()
    assert "cannot be loaded" in native.Backend.unavailable_because()
    assert backends.get("auto").name != "native"
    library._library.cache_clear()


@needs_engine
def test_instruction_set_by_environment(monkeypatch):
    monkeypatch.setenv("CVSTYLE_CPU", "portable")
    assert backends.get("native").variant == "portable"
    monkeypatch.setenv("CVSTYLE_CPU", "sse9")
    with pytest.raises(OptionError, match=r"CVSTYLE_CPU is sse9.*portable"):
        backends.get("native")


def close(a, b, tolerance=2e-5):
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@every_variant
@pytest.mark.parametrize("floor", [False, True])
@pytest.mark.parametrize("channels, outputs, size, pad", [
    (8, 8, (4, 4), (1, 1, 1, 1)), (13, 9, (5, 7), (0, 2, 1, 0)), (70, 130, (9, 14), (1, 1, 1, 1)),
    (16, 24, (40, 67), (1, 1, 1, 1)), (8, 20, (33, 210), (2, 2, 2, 2)),
])  # fmt: skip
def test_convolution_relu_and_pool_in_one(variant, channels, outputs, size, pad, floor):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(outputs, channels, 3, 3)), rng.normal(size=outputs)
    x = rng.normal(size=(1, channels, *size))
    exact = Backend("float64").convolution(weight, bias, (1, 1), (1, 1), 1)
    full, mask = exact.forward(x, pad, RELU)
    output = tuple((n if floor else n + 1) // 2 for n in full.shape[2:])
    cut = np.ascontiguousarray(full[:, :, : 2 * output[0], : 2 * output[1]])
    window = (2, 2), (2, 2), (0, 0)
    pooled, winner = exact.ops.max_pool(cut, *window, output)
    g = rng.normal(size=pooled.shape)
    inner = np.zeros(full.shape)
    inner[:, :, : cut.shape[2], : cut.shape[3]] = exact.ops.max_pool_backward(g, winner, cut.shape, *window)
    wanted = exact.backward(inner, size, pad, mask)

    ops = native.Backend(variant=variant)
    own = ops.convolution(weight.astype(np.float32), bias.astype(np.float32), (1, 1), (1, 1), 1)
    assert own.fuses_pool(*window)
    for offset in ((0, 0), (2, 0), (0, 2), (2, 2)):  # of its blocks
        y, winners = own.forward(ops.asarray(x), pad, Epilogue(True, True, output), BlockGrid(offset))
        close(y, pooled)
        close(own.backward(ops.asarray(g), size, pad, winners), wanted)
    assert own.forward(ops.asarray(x), pad, Epilogue(True, False, output))[1] is None


@every_variant
@pytest.mark.parametrize("kernel, stride, dilation, group, channels, outputs", [
    (3, 1, 1, 1, 12, 16), (3, 1, 1, 1, 3, 16), (3, 1, 1, 1, 16, 3), (7, 2, 1, 6, 6, 6), (7, 1, 1, 3, 3, 33),
    (5, 3, 1, 1, 4, 9), (3, 2, 2, 2, 6, 8), (1, 2, 1, 1, 5, 6), (4, 1, 1, 1, 3, 5), (3, 1, 1, 6, 6, 6),
    (5, 1, 1, 2, 8, 2),
])  # fmt: skip
def test_convolution_and_relu(variant, kernel, stride, dilation, group, channels, outputs):
    """Forward, backward and masks of each kernel, on a picture whose rows are no multiple of a vector."""
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(outputs, channels // group, kernel, kernel)), rng.normal(size=outputs)
    x, pad, size = rng.normal(size=(1, channels, 21, 45)), (2, 1, 0, 3), (21, 45)
    exact = Backend("float64").convolution(weight, bias, (stride,) * 2, (dilation,) * 2, group)
    ops = native.Backend(variant=variant)
    own = ops.convolution(weight.astype(np.float32), bias.astype(np.float32), (stride,) * 2, (dilation,) * 2, group)
    y, mask = exact.forward(x, pad, RELU)
    g = rng.normal(size=y.shape)
    wanted = exact.backward(g.copy(), size, pad, mask)
    shifts = ((0, 0), (2, 0), (0, 3), (1, 2)) if own.supports_offset else ((0, 0),)
    for offset in shifts:  # of its blocks
        z, own_mask = own.forward(ops.asarray(x), pad, RELU, BlockGrid(offset))
        close(z, y)
        close(own.backward(ops.asarray(g), size, pad, own_mask), wanted)


@every_variant
def test_nan_is_not_rectified(variant):
    """It must reach the losses, where a run ends by it."""
    ops, rng = native.Backend(variant=variant), np.random.default_rng(0)
    x = rng.normal(size=(1, 16, 12, 12)).astype(np.float32)
    x[0, 3, 5, 5] = np.nan
    assert np.isnan(ops.relu(ops.asarray(x))[0]).sum() == 1
    for side in (1, 3):  # by a product, and by Winograd's algorithm
        pad = (side // 2,) * 4
        filters = ops.convolution(rng.normal(size=(16, 16, side, side)).astype(np.float32), None, (1, 1), (1, 1), 1)
        for keep in (False, True):
            assert np.isnan(filters.forward(ops.asarray(x), pad, Epilogue(True, keep))[0][0, :, 5, 5]).all()
    assert np.isnan(filters.forward(ops.asarray(x), pad, Epilogue(True, True, (6, 6)))[0][0, :, 2, 2]).all()


def pool_shapes(kernel, stride, pad, size):
    """The output of a pool along each axis, rounded down and up, as layers/pooling.py has it."""
    for up in (0, stride - 1):
        output = tuple((n + 2 * pad - kernel + up) // stride + 1 for n in size)
        yield tuple(o - ((o - 1) * stride >= n + pad) for o, n in zip(output, size, strict=True))


def poolings():
    """(kernel, stride, pad, size, output) of what a layer may ask for, kernels as they are clipped."""
    for size in ((1, 1), (2, 5), (7, 6), (12, 33), (9, 70)):
        for kernel in (1, 2, 3, 4, 5):
            for stride, pad in itertools.product((1, 2, 3, 4), range(min(kernel, 3))):
                if kernel <= min(size) + 2 * pad:
                    for output in dict.fromkeys(pool_shapes(kernel, stride, pad, size)):
                        yield (kernel, kernel), (stride, stride), (pad, pad), size, output
    yield (2, 5), (3, 1), (1, 2), (11, 40), (4, 40)
    yield (3, 1), (1, 2), (0, 0), (11, 40), (9, 20)
    yield (17, 16), (1, 1), (0, 0), (17, 16), (1, 1)  # winners of two bytes
    yield (20, 30), (7, 9), (3, 4), (40, 70), (4, 6)
    yield (260, 257), (2, 2), (0, 0), (261, 260), (2, 3)  # and of four


def check_pooling(ops, window, output, x):
    """A maximum, its winners, a mean and both gradients: the reference's numbers, every one of them."""
    exact, g = Backend("float32"), np.random.default_rng(11).normal(size=(*x.shape[:2], *output)).astype(np.float32)
    wanted, winners = exact.max_pool(exact.asarray(x), *window, output)
    y, own = ops.max_pool(ops.asarray(x), *window, output)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(own, winners)
    assert own.dtype == winners.dtype
    given = ops.asarray(g)
    np.testing.assert_array_equal(
        ops.max_pool_backward(given, own, x.shape, *window), exact.max_pool_backward(g, winners, x.shape, *window)
    )
    np.testing.assert_array_equal(ops.avg_pool(ops.asarray(x), *window, output), exact.avg_pool(x, *window, output))
    np.testing.assert_array_equal(
        ops.avg_pool_backward(given, x.shape, *window), exact.avg_pool_backward(g, x.shape, *window)
    )


@every_variant
@pytest.mark.parametrize("threads", [1, 2])
def test_poolings_are_the_references(variant, threads):
    """With ties, values that are all negative, and zeros as a ReLU leaves them."""
    ops, rng = native.Backend(threads, variant), np.random.default_rng(10)
    for i, (*window, size, output) in enumerate(poolings()):
        x = rng.integers(-4, 4, size=(1, 3, *size)) if i % 2 else rng.normal(size=(1, 3, *size)) * 10
        x[:, 0] -= 20
        np.maximum(x[:, 1], 0, out=x[:, 1])
        check_pooling(ops, window, output, x.astype(np.float32))


@every_variant
@pytest.mark.filterwarnings("ignore:invalid value")
def test_poolings_of_what_is_no_number(variant):
    """NaN goes through, and the greatest before it wins; where all is −∞ the first place does, be it outside."""
    ops, rng = native.Backend(2, variant), np.random.default_rng(12)
    for kernel, stride, pad in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 2, 2)):
        for size in ((9, 40), (14, 7)):
            x = rng.normal(size=(1, 4, *size)).astype(np.float32)
            x[rng.random(x.shape) < 0.1] = np.nan
            x[:, 1][rng.random(x[:, 1].shape) < 0.2] = -np.inf
            x[:, 2] = -np.inf
            x[:, 3][rng.random(x[:, 3].shape) < 0.2] = np.inf
            for output in pool_shapes(kernel, stride, pad, size):
                check_pooling(ops, ((kernel,) * 2, (stride,) * 2, (pad,) * 2), output, x)


@every_variant
@pytest.mark.parametrize("channels, positions", [(1, 1), (3, 50), (64, 2100), (130, 17)])
def test_gram_and_its_backward(variant, channels, positions):
    rng = np.random.default_rng(2)
    exact, ops = Backend("float64"), native.Backend(variant=variant)
    x, d = rng.normal(size=(1, channels, 1, positions)), rng.normal(size=(channels, channels))
    d += d.T
    close(ops.gram(ops.asarray(x), 0.5), exact.gram(x, 0.5), 1e-5)
    out = rng.normal(size=x.shape)
    close(ops.gram_backward(ops.asarray(d), ops.asarray(x), 0.3), exact.gram_backward(d, x, 0.3), 1e-5)
    added = ops.gram_backward(ops.asarray(d), ops.asarray(x), 0.3, out=ops.asarray(out))
    close(added, exact.gram_backward(d, x, 0.3, out=out), 1e-5)


@every_variant
@pytest.mark.parametrize("size", [1, 7, 40_001])
def test_whole_arrays(variant, size):
    rng = np.random.default_rng(3)
    exact, ops = Backend("float64"), native.Backend(variant=variant)
    x, y = rng.normal(size=(1, 1, 1, size)), rng.normal(size=(1, 1, 1, size))
    rectified, mask = ops.relu(ops.asarray(x))
    close(rectified, np.maximum(x, 0), 1e-6)
    close(ops.relu_backward(ops.asarray(y), mask), y * (x > 0), 1e-6)
    close(ops.add_scaled(ops.asarray(y), 0.3, ops.asarray(x)), y + 0.3 * x, 1e-6)
    assert ops.dot(ops.asarray(x), ops.asarray(y)) == pytest.approx(exact.dot(x, y), abs=1e-6 * size)


@every_variant
@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (1, 3, 9, 5), (1, 1, 3, 1100)])
def test_total_variation(variant, shape):
    rng = np.random.default_rng(4)
    exact, ops = Backend("float64"), native.Backend(variant=variant)
    x, out = rng.normal(size=shape), rng.normal(size=shape)
    own = ops.asarray(out)
    assert ops.total_variation(ops.asarray(x), 0.7, own) == pytest.approx(exact.total_variation(x, 0.7, out), rel=1e-5)
    close(own, out, 1e-6)


def halves(array):
    """bfloat16 bits as numbers."""
    return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def close_half(a, b, roundings=1):
    assert (np.abs(a - b) <= roundings * 2.0**-8 * np.abs(b) + 1e-5 * np.abs(b).max()).all()


@every_variant
@pytest.mark.parametrize("size", [3, 5001, 140_001])
def test_lbfgs_keeps_its_history_in_bfloat16(variant, size):
    """Pairs are the rounded ones, products are of what is stored, and x moves by the step that is stored."""
    rng = np.random.default_rng(8)
    results = []
    for threads in (1, 3):
        ops = native.Backend(threads, variant)
        x, ring = ops.asarray(np.zeros(size)), ops.asarray([0.0, 0.0, 1.0])
        steps, changes = ops.lbfgs_history(3, size)
        g = last = None
        for iteration in range(7):
            g, last = ops.asarray(rng.normal(size=size) + 1000), g
            slot, rows = iteration % 3, min(iteration, 3)
            ring[:2] = slot, min(rows, 2)
            if rows:
                products = ops.lbfgs_products(g, steps, changes, ring, rows)
                y = halves(changes[slot])
                close_half(y, np.float64(g) - np.float64(last))
                kept = np.stack([halves(steps[:rows]), halves(changes[:rows])])
                exact = np.stack([kept @ y, kept @ np.float64(g)], 2)
                scale = np.stack([abs(kept) @ abs(y), abs(kept) @ np.float64(g)], 2)
                assert (np.abs(products - exact) <= 1e-6 * scale).all()
            coefficients = rng.normal(size=7)
            coefficients[[slot, 3 + slot]] = 0
            wanted = coefficients[6] * np.float64(g)
            if rows:
                wanted += coefficients[:rows] @ kept[0] + coefficients[3 : 3 + rows] @ kept[1]
            longest = 0.5 * np.linalg.norm(wanted) if iteration == 4 else np.inf
            before = x.copy()
            ops.lbfgs_step(x, g, steps, changes, ops.asarray(coefficients), ring, rows, longest)
            step = halves(steps[slot])
            close_half(step, *((wanted / 2, 2) if iteration == 4 else (wanted, 1)))
            assert np.array_equal(x, before + np.float32(step))
            if rows:
                assert np.array_equal(halves(changes[slot]), y)
        results.append(x)
        rng = np.random.default_rng(8)
    assert np.array_equal(*results)


def evaluate(net, ops, x):
    """Features of a few layers and the gradient of their sum."""
    program = Network(net, ops).program(["relu1_1", "pool2", "relu3_2"])
    found = program.forward(ops.asarray(x))
    features = {name: f.copy() for name, f in found.items()}

    def add(name, g):
        one = ops.asarray(np.ones(features[name].shape))
        return one if g is None else ops.add_scaled(g, 1, one)

    return [*features.values(), np.array(found.backward(add))]


@needs_engine
def test_same_bytes_whatever_the_threads():
    net = nets.vgg(19, 4, (70, 99), classifier=False)
    x = np.random.default_rng(5).normal(size=(1, 3, 70, 99)) * 50
    results = [evaluate(net, native.Backend(threads=n), x) for n in (1, 2, 2, 5)]
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert np.array_equal(a, b)


@needs_engine
def test_many_small_jobs_from_several_callers():
    """More threads than processors, most of them late for jobs that are over when they come."""
    x = np.random.default_rng(9).normal(size=40_000).astype(np.float32)
    expected = native.Backend(threads=1).dot(x, x)

    def call(threads):
        ops = native.Backend(threads=threads)
        return {ops.dot(x, x) for _ in range(1500)}

    with ThreadPoolExecutor(3) as executor:
        assert list(executor.map(call, (2, 3, 7))) == [{expected}] * 3


@needs_engine
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only: a process is kept to one processor")
def test_a_poor_machine(tmp_path):
    """One processor, no instruction set beyond the least, 1 GB of address space."""
    import resource

    def limit():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    folder = Path(__file__).parents[1] / "models" / "demo"
    command = [
        sys.executable, "-m", "cvstyle", "run", "--content", folder / "content.jpg", "--style", folder / "style.jpg",
        "--output", "out.png", "--backend", "native", "--image-size", "96", "--num-iterations", "2",
    ]  # fmt: skip
    done = subprocess.run(
        command, preexec_fn=limit, env=os.environ | {"CVSTYLE_CPU": "portable"}, cwd=tmp_path, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.png").exists()


@needs_engine
def test_filters_of_few_outputs_are_read_where_floats_may_lie():
    """Those for one output are in the engine's order already; they are copied where the file has them elsewhere."""
    memory = np.zeros(4 * 9 * 8 + 3, np.uint8)[3:]
    weight = memory.view(np.float32).reshape(1, 8, 3, 3)
    part = native.Backend().convolution(weight, None, (1, 1), (1, 1), 1)._forward_sum((1, 1, 1, 1))
    assert part.few and not weight.flags.aligned and part.weight.flags.aligned


@needs_engine
def test_weights_at_any_address():
    """A model file's floats need not be aligned; the engine reads them where they are."""
    net = nets.vgg(19, 8, (32, 32), classifier=False)
    x = np.random.default_rng(6).normal(size=(1, 3, 32, 32)) * 50
    expected = evaluate(net, native.Backend(), x)
    for blobs in net.weights.values():
        for i, blob in enumerate(blobs):
            memory = np.zeros(blob.nbytes + 3, np.uint8)[3:]
            blobs[i] = memory.view(np.float32).reshape(blob.shape)
            blobs[i][...] = blob
            assert not blobs[i].flags.aligned
    for a, b in zip(evaluate(net, native.Backend(), x), expected, strict=True):
        assert np.array_equal(a, b)


@needs_engine
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here, so nothing to survive")
def test_threads_after_a_fork():
    ops = native.Backend(threads=2)
    x = ops.asarray(np.ones((1, 1, 1, 100_000)))
    assert ops.dot(x, x) == 100_000
    process = multiprocessing.get_context("fork").Process(target=_dot_in_child, args=(ops, x))
    process.start()
    process.join(30)
    assert process.exitcode == 0


def _dot_in_child(ops, x):
    os._exit(0 if ops.dot(x, x) == 100_000 else 1)


def test_maps_next_to_the_picture_are_computed_again_when_popped():
    """One layer's map is dropped and made anew: same numbers, less memory."""
    net = nets.vgg(19, 4, (64, 80), classifier=False)
    x = np.random.default_rng(7).normal(size=(1, 3, 64, 80)) * 50
    peaks, results = [], []
    for again in (False, True):
        ops = Backend(threads=1)  # what is held at once is otherwise up to the scheduler
        program = Network(net, ops).program(["relu1_1", "relu2_1"])
        features = program.forward(ops.asarray(x), recompute=again)
        assert list(features) == ["relu1_1", "relu2_1"]
        peaks.append(ops.pool.reserved)
        gradient = features.backward(lambda name, g, f=features: f.pop(name) if g is None else g + f.pop(name))
        assert not features
        results.append(gradient)
    assert np.array_equal(*results)
    assert peaks[1] <= peaks[0]
