"""The interpreter of PTX: that it sees what kernels must not do; and the portable kernels as CUDA on the CPU.

The backend cuda makes its own launches, and each array has memory of its own. CVSTYLE_TEST_BACKEND=ptx runs all of
test_opencl and test_winograd so, in 24 minutes. Kernels for tensor cores are in test_tensor.
"""

from __future__ import annotations

import fake_cupy
import nets
import numpy as np
import ptx
import pytest
import test_opencl
from pictures import noise
from test_gathering import (
    test_axes_in_any_order,
    test_functions,
    test_interpolation,
    test_largest_elements,
    test_limits,
    test_positions_of_maxima,
    test_sums,
    test_unpooling,
)
from test_opencl import (
    EXACT,
    check_convolution,
    test_a_difference_is_added_and_its_squares_summed,
    test_copy_block,
    test_halving_and_doubling,
    test_layer,
    test_lbfgs_on_many_numbers,
    test_lbfgs_state_goes_through_the_host,
    test_max_pool_gives_a_plateau_to_the_first,
    test_optimizer,
    test_reductions,
    test_scalars_arrive_together,
    test_scalars_combine_with_numbers_on_the_device,
    test_total_variation,
)

from cvstyle import Objective, backends, optimize
from cvstyle.backends.device import compiler, conv_tensor_cores, mma
from cvstyle.backends.device.algorithms import GEMM_BLOCKS, Algorithm
from cvstyle.graph import Network

# Run here once more, on the device below.
__all__ = [
    "test_a_difference_is_added_and_its_squares_summed", "test_axes_in_any_order", "test_copy_block", "test_functions",
    "test_halving_and_doubling", "test_interpolation", "test_largest_elements", "test_layer",
    "test_lbfgs_on_many_numbers", "test_lbfgs_state_goes_through_the_host", "test_limits",
    "test_max_pool_gives_a_plateau_to_the_first", "test_optimizer", "test_positions_of_maxima", "test_reductions",
    "test_scalars_arrive_together", "test_scalars_combine_with_numbers_on_the_device", "test_sums",
    "test_total_variation", "test_unpooling",
]  # fmt: skip


@pytest.fixture(scope="module")
def device():
    """In place of that of conftest."""
    with pytest.MonkeyPatch.context() as patch:
        fake_cupy.install(patch, ptx.Device())
        backend = backends.get("cuda")
        backend.pool = ptx.Pool(backend.device)
        yield backend


@pytest.fixture
def ops(device):
    """In place of that of test_gathering."""
    return device


# What kernels must not do

CASES = {
    "all is well": (
        "__shared__ float s[64]; s[t] = x[t]; __syncthreads(); if (t < 32) y[t] = s[63 - t]; else y[t] = 0;", None
    ),
    "past the end": ("y[t + 1] = 1;", "outside of a memory of 256 bytes, at 256: thread 63"),
    "before the start": ("y[t] = x[t - 1];", "outside of a memory of 256 bytes, at -4: thread 0"),
    "not aligned": ("*(float2 *)(y + t / 2 + 1) = make_float2(0, 0);", "not at a multiple of its size: thread 0"),
    "past shared memory": (
        "__shared__ float s[64]; s[t + n - 63] = 1; __syncthreads(); y[t] = s[t | 1];",
        "outside of 256 bytes, at 256: thread 63",
    ),
    "never written": ("__shared__ float s[64]; if (t) s[t] = 1; __syncthreads(); y[t] = s[t];", "nobody has written"),
    "read without a barrier": ("__shared__ float s[64]; s[t] = x[t]; y[t] = s[t ^ 1];", "another thread wrote"),
    "written without a barrier": (
        "__shared__ float s[64]; s[t] = 1; __syncthreads(); y[t] = s[t ^ 1]; s[t] = 0; __syncthreads(); y[t] = s[t];",
        "another thread has this place since the last barrier",
    ),
    "two writers": ("__shared__ float s[64]; s[t / 2] = x[t]; __syncthreads(); y[t] = s[t / 2];", "two threads write"),
    "a barrier for some": ("if (x[t] < 0) __syncthreads(); y[t] = 1;", "thread 0 of a group is .* thread .* is a"),
    "a shuffle for some": ("if (t < 3) y[t] = __shfl_xor_sync(~0u, x[t], 1);", "only some threads of a warp"),
    "a place of two groups": ("y[0] = t;", "another group"),
    "a place of two threads": ("y[t / 2] = t;", "two threads write"),
    "one array as two": ("y[t] = x[t];", "ld.global.nc, has this place"),
    "division by zero": ("y[t] = t / (n - 64);", "division by zero: thread 0"),
    "another memory": ("y[t] = x[t + (1ll << 45)];", "in no memory that was given"),
    "a copy not waited for": (
        "__shared__ float4 s[64]; COPY(&s[t], x + t / 16 * 4); __syncthreads(); y[t] = s[t].x;", "copy is on its way"
    ),
    "a copy waited for": (
        "__shared__ float4 s[64]; COPY(&s[t], x + t / 16 * 4); WAIT(0); __syncthreads(); y[t] = s[t ^ 1].x;", None
    ),
    "the older copy waited for": (
        "__shared__ float4 s[128]; COPY(&s[t], x); COPY(&s[t + 64], x); WAIT(1); y[t] = s[t].x;", None
    ),
    "the younger copy not waited for": (
        "__shared__ float4 s[128]; COPY(&s[t], x); COPY(&s[t + 64], x); WAIT(1); y[t] = s[t + 64].x;", "is on its way"
    ),
    "a copy not waited for by its thread's neighbour": (
        "__shared__ float4 s[64]; COPY(&s[t], x); WAIT(0); y[t] = s[t ^ 1].x;", "another thread wrote this"
    ),
    "not known": ('asm volatile("nanosleep.u32 5;"); y[t] = 1;', "nanosleep.u32.*is not known"),
}  # fmt: skip
# Three groups write their parts, and the last one that comes adds some of them.
LAST = (
    "__shared__ int last; if (t < 16) y[4 + blockIdx.x * 16 + t] = x[t]; __syncthreads(); "
    "if (t == 0) { __threadfence(); last = atomicInc((unsigned *)y, 2) == 2; __threadfence(); } __syncthreads(); "
    "if (last && t < 3) y[1 + t] = y[4 + t * 16] + __ldcg(y + 5 + t * 16);"
)
LARGEST = (
    "if (t == 0) { atomicMax((unsigned *)y + 1, 7 - blockIdx.x); __threadfence(); "
    "if (atomicInc((unsigned *)y, 2) == 2) { __threadfence(); y[2] = atomicExch((unsigned *)y + 1, 0); } }"
)
AGAIN = "if (t < 16) y[4 + blockIdx.x * 16 + t] = 0; __syncthreads(); if (last"
UNSEEN = "this launch writes what is read here"
CASES_OF_SEVERAL_GROUPS = {
    "the last of the groups": (LAST, "", "", None),
    "all fence": (LAST, "__syncthreads(); if (t == 0)", "__threadfence(); __syncthreads(); if (t == 0)", None),
    "no fence before the ticket": (LAST, "{ __threadfence(); last", "{ last", UNSEEN),
    "no fence after it": (LAST, "2; __threadfence(); }", "2; }", UNSEEN),
    "another's fence": (LAST, "if (t == 0) {", "if (t == 1) __threadfence(); if (t == 0) { if (n < 0)", UNSEEN),
    "a ticket before all have written": (LAST, "x[t]; __syncthreads();", "x[t];", UNSEEN),
    "a ticket before writing": (LAST, "__syncthreads(); if (last", AGAIN, UNSEEN),
    "a ticket before what is not read": (LAST, "__syncthreads(); if (last", AGAIN.replace("t <", "t > 7 && t <"), None),
    "all but the last": (LAST, "== 2", "!= 2", UNSEEN),
    "the last but one": (LAST, "== 2", "== 1", UNSEEN),
    "read by ld.global.nc": (LAST, "__ldcg", "__ldg", UNSEEN),
    "a counter each": (LAST, "y, 2) == 2", "y + blockIdx.x, 0) == 0", UNSEEN),
    "the largest of the groups": (LARGEST, "", "", None),
    "a write to it": (LARGEST, "atomicMax((unsigned *)y + 1, 7 - blockIdx.x)", "y[1] = 1", "another group"),
    "a read of it": (LARGEST, "__threadfence(); y[2] = atomicExch((unsigned *)y + 1, 0)", "y[2] = y[1]", UNSEEN),
}  # fmt: skip
PRELUDE = """
#define COPY(to, from) asm volatile("cp.async.cg.shared.global [%0], [%1], 16; cp.async.commit_group;" \\
    :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory")
#define WAIT(n) asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory")
extern "C" __global__ void kernel(const float *__restrict__ x, float *y, int n) { const int t = threadIdx.x;
"""


@pytest.mark.parametrize("name", CASES)
def test_what_kernels_must_not_do(device, name):
    code, problem = CASES[name]
    kernel = device.device.compile(PRELUDE + code + "}", ())("kernel")
    x, y = (device.asarray(noise(64, seed=i)) for i in (1, 2))
    arguments = [x.block.view, (x if name == "one array as two" else y).block.view, np.int32(64)]
    launch = lambda: device.device.launch(kernel, (2 if "groups" in name else 1, 1, 1), 64, arguments)  # noqa: E731
    if problem is None:
        launch()
    else:
        with pytest.raises(ptx.Fault, match=problem):
            launch()


@pytest.mark.parametrize("name", CASES_OF_SEVERAL_GROUPS)
def test_what_groups_may_read_of_each_other(device, name):
    code, old, new, problem = CASES_OF_SEVERAL_GROUPS[name]
    assert old in code
    kernel = device.device.compile(PRELUDE + code.replace(old, new) + "}", ())("kernel")
    x, y = device.asarray(np.arange(64)), device.zeros((64,))
    for _ in range(2):  # the counters are as before
        arguments = [x.block.view, y.block.view, np.int32(64)]
        if problem is None:
            device.device.launch(kernel, (3, 1, 1), 64, arguments)
            results = np.array(y)
            assert not results[0]
            np.testing.assert_array_equal(results[1:4], [1] * 3 if code is LAST else [0, 7, 0])
        else:
            with pytest.raises(ptx.Fault, match=problem):
                for _ in range(20):  # groups come in any order, and one that comes last of all reads its own number
                    device.device.launch(kernel, (3, 1, 1), 64, arguments)
            break


def test_arguments_fit_the_parameters(device):
    kernel = device.device.compile(PRELUDE + "}", ())("kernel")
    x = device.zeros((3,)).block.view
    for arguments in ([x, x], [x, x, np.float32(1)], [x, np.int32(1), np.int32(1)]):
        with pytest.raises(ptx.Fault, match=r"takes 3 arguments|is of type"):
            device.device.launch(kernel, (1, 1, 1), 64, arguments)


MMA, WGMMA = mma.MMA_BLOCKS[-1], mma.WGMMA_BLOCKS[-1]
MISTAKES = {
    "no wait": ("ASYNC_WAIT(STAGES - 2);", "", "copy is on its way"),
    "a wait too short": ("ASYNC_WAIT(STAGES - 2);", "ASYNC_WAIT(STAGES - 1);", "copy is on its way"),
    "no barrier": ("BARRIER; /* this step's words", "/*", "another thread|copy is on its way"),
    "a stage in use": ("stage == 0 ? STAGES - 1 : stage - 1", "stage", "another thread|copy is on its way"),
    "a buffer too few": ("STORE(tap_row, buffer ^ 1)", "STORE(tap_row, buffer)", "another thread"),
    "a fragment's neighbour": ("b[j].y = at[4 * PLANE];", "b[j].y = at[5 * PLANE];", "nobody has written"),
    "registers of a in another order": ('"r"(a.y), "r"(a.z)', '"r"(a.z), "r"(a.y)', None),
    "halves of a word": ('"=r"(result) : "f"(second), "f"(first)', '"=r"(result) : "f"(first), "f"(second)', None),
}


MISTAKES_WITH_WGMMA = {
    "no fence": ('asm volatile("fence.proxy.async.shared::cta;" ::: "memory");', "", "no fence"),
    "no wait": ("PRODUCT_WAIT(sums[0], 1, r == 0)", "if (r == 0) BARRIER;", "under way reads this"),
    "a wait too weak": ("PRODUCT_WAIT(sums[0], 1, r == 0)", "PRODUCT_WAIT(sums[0], 2, r == 0)", "under way reads this"),
    "a buffer in use": ("STORE(r, buffer ^ 1)", "STORE(r, buffer)", "under way reads this"),
    "no barrier": ("        PUBLISH\n        buffer ^= 1;", "        buffer ^= 1;", "no fence|before the last barrier"),
    "strides swapped": ("AREA, PITCH);", "PITCH, AREA);", "outside|nobody has written"),
    "a stride in bytes": ("AREA, PITCH);", "AREA, 16 * PITCH);", "outside|nobody has written"),
    "another tap": ("+ t / 2 + t % 2 * 8;", "+ (t + 1) / 2 + t % 2 * 8;", "nobody has written"),
}


MISTAKES_OF_SHARES = {
    "no fence before the ticket": ("__threadfence();\n        place[0]", "place[0]", UNSEEN),
    "no fence after it": ("groups - 1);\n        __threadfence();\n    }", "groups - 1);\n    }", UNSEEN),
    "no barrier before it": ("*place) {\n    BARRIER;", "*place) {", UNSEEN),
    "the first instead of the last": ("return place[0] == (uint)groups - 1;", "return place[0] == 0;", UNSEEN),
    "one counter for all tiles": ("scratch + 2 + tile", "scratch + 2", UNSEEN),
    "one place for all tiles": ("parts += tile * splits *", "parts += 0 * splits *", "another group"),
    "one place for all shares": ("GROUP_ID(2) * (MT * NT)", "0 * (MT * NT)", "another group"),
    "a share left out": ("share = 1; share < splits", "share = 2; share < splits", None),
}


@pytest.mark.parametrize("tile, shares, name, mistake", [
    (tile, shares, name, mistake)
    for tile, shares, all_ in ((MMA, 1, MISTAKES), (MMA, 2, MISTAKES_OF_SHARES), (WGMMA, 1, MISTAKES_WITH_WGMMA))
    for name, mistake in all_.items()
], ids=lambda value: value if isinstance(value, (str, int)) else "")  # fmt: skip
def test_mistakes_in_the_tensor_kernel_are_seen(device, monkeypatch, tile, shares, name, mistake):
    """Each of them by a fault, or by wrong numbers where all that is done is allowed."""
    old, new, problem = mistake
    sources = compiler.source
    assert sources("cuda/convolution").count(old) >= 1
    monkeypatch.setattr(compiler, "source", lambda name: sources(name).replace(old, new))
    monkeypatch.setattr(conv_tensor_cores, "best_algorithm", lambda *_: (tile, shares))
    ops = backends.get("cuda", precision="fp16-fast")
    ops.autotune = False
    x, weight = (np.round(noise(*shape) * 4) for shape in ((1, 64, 6, 17), (16, 64, 3, 3)))
    exact = EXACT.convolution(weight, None, (1, 1), (1, 1), 1).forward(EXACT.asarray(x), (1,) * 4)[0]
    run = lambda: ops.convolution(weight, None, (1, 1), (1, 1), 1).forward(ops.asarray(x), (1,) * 4)[0]  # noqa: E731
    if problem:
        with pytest.raises(ptx.Fault, match=problem):
            run()
    else:
        assert np.abs(np.array(run()) - exact).max() > 1


MISTAKES_AT_THE_END = {
    "no fence before the ticket": ("__threadfence();\n        place[0]", "place[0]", "this launch writes"),
    "no fence after it": ("groups - 1);\n        __threadfence();", "groups - 1);", "this launch writes"),
    "a ticket before all have written": ("*place) {\n    BARRIER;", "*place) {", "this launch writes|another thread"),
    "a counter that is not zero again": ("(uint)groups - 1);", "(uint)groups);", "differs"),
    "a set too few": ("parts + shares * stride, sets,", "parts + shares * stride, sets - 1,", "differs"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES_AT_THE_END)
def test_mistakes_of_the_last_group_are_seen(device, monkeypatch, name):
    """In a Gram matrix of several sets of parts."""
    old, new, problem = MISTAKES_AT_THE_END[name]
    sources = compiler.source
    assert old in sources("gram")
    monkeypatch.setattr(compiler, "source", lambda name: sources(name).replace(old, new))
    ops, x = backends.get("cuda"), noise(1, 3, 90, 61)
    ops.autotune, ops.pool = False, ptx.Pool(ops.device)
    monkeypatch.setattr(ops.device, "multiprocessors", 132)
    with pytest.raises((ptx.Fault, AssertionError), match=problem):
        for _ in range(2):
            difference = np.abs(np.array(ops.gram(ops.asarray(x), 1.0)) - EXACT.gram(EXACT.asarray(x), 1.0)).max()
            assert difference < 0.1, "the matrix differs"


# Kernels by the backend's launches


@pytest.mark.parametrize("way, shape, outputs, stride", [
    (Algorithm(GEMM_BLOCKS[0], 1), (9, 7, 11), 13, (1, 1)), (Algorithm(GEMM_BLOCKS[2], 3), (20, 9, 16), 33, (2, 1)),
    (Algorithm(GEMM_BLOCKS[4], 1), (8, 9, 17), 5, (1, 1)),
    (Algorithm(GEMM_BLOCKS[2], 1, True), (20, 9, 16), 33, (1, 1)),
    (Algorithm(GEMM_BLOCKS[1], 3, True), (16, 5, 6), 17, (1, 1)),
    (Algorithm(GEMM_BLOCKS[4], 1), (3, 17, 20), 32, (1, 1)),
], ids=str)  # fmt: skip
def test_convolution(device, monkeypatch, way, shape, outputs, stride):
    """Direct, by Winograd's algorithm, and of a picture, with and without ReLU and pool, both directions."""
    check_convolution(device, monkeypatch, [way], shape, outputs, 1, (3, 3), stride, (1, 1), (1, 1, 1, 1))


@pytest.mark.parametrize("shape", [(65, (1, 300)), (5, (90, 61)), (1, (1, 1))])
def test_gram(device, monkeypatch, shape):
    """In one and several shares, and in more of them than one group adds."""
    test_opencl.test_gram(device, monkeypatch, *shape, 132)


def test_replays_find_the_counters_as_they_were(device, monkeypatch):
    """Launches whose last group finishes: the bytes of a second launch for the rest, also when they are replayed."""
    x, y, target = (device.asarray(noise(*shape)) for shape in ((1, 3, 90, 101), (1, 3, 90, 101), (3, 3)))
    monkeypatch.setattr(device.device, "multiprocessors", 132)
    results = []

    def work():
        z = device.copy(x)
        results[:] = device.dot(x, y), device.l1(x), device.abs_max(x), device.add_difference(z, 0.5, x, y), z
        results.append(device.total_variation(x, 1.0, z))

    def read():
        return [np.array(getattr(r, "array", r)).tobytes() for r in results]

    with monkeypatch.context() as patch:
        patch.setattr(device.device, "single_pass_reductions", False)
        work()
        expected, grams = read(), set()
    more = lambda: (work(), results.extend(device.gram_difference(x, 0.5, target)))  # noqa: E731
    repeated = device.capture(more)
    for _ in range(5):
        repeated()
        assert read()[:-2] == expected
        grams.add(tuple(read()[-2:]))
    assert repeated.replays == 3 and len(grams) == 1


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16-fast"])
def test_an_iteration(device, precision):
    """Losses, gradient and L-BFGS's first step of a small VGG against float64."""
    net, size = nets.vgg(16, 4, (32, 32), classifier=False), (18, 27)
    pictures = [noise(3, *size, seed=i) * 60 for i in range(3)]
    layers = {"content_layers": ["relu2_1"], "style_layers": ["relu1_1", "relu2_2"]}
    ops, results = backends.get("cuda", precision=precision), []
    ops.autotune = False
    for backend in (EXACT, ops):
        objective = Objective(Network(net, backend), pictures[0], pictures[1:2], pooling="avg", **layers)
        x = backend.asarray(pictures[2][None])
        gradient = np.array(objective.evaluate(x), np.float64)
        before = np.array(x, np.float64)
        optimize.minimize("lbfgs", objective, x, 1, learning_rate=1e4)
        results.append((objective.losses, gradient, np.array(x, np.float64) - before))
    bound = 1e-4 if precision == "fp32" else 1e-2
    assert results[1][0] == pytest.approx(results[0][0], rel=bound)
    for ours, exact in zip(results[1][1:], results[0][1:]):
        assert np.linalg.norm(ours - exact) <= bound * np.linalg.norm(exact)
