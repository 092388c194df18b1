"""The CUDA backend without a GPU: the compiler's verdict on every kernel, and the CuPy wrapper over a stand-in."""

from __future__ import annotations

import gc
import re
import sys
import threading

import fake_cupy
import nets
import numpy as np
import nvrtc
import ptx
import pytest
from test_objective import reference_objective

from cvstyle import backends, images, optimize, paths
from cvstyle.backends import cuda
from cvstyle.backends.base import RELU
from cvstyle.backends.device import CompilerError, compiler, conv_few_channels, convolution, dry_run, mma, winograd
from cvstyle.backends.device.algorithms import GEMM_BLOCKS
from cvstyle.backends.device.conv_problem import EpilogueCode, PrologueCode
from cvstyle.backends.device.pool import DevicePool
from cvstyle.backends.reference import Backend
from cvstyle.errors import DeviceError, OptionError
from cvstyle.graph import Network
from cvstyle.objective import Objective

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")  # Turing, Ampere, Hopper
KINDS = ({}, {"prologue": 1}, {"prologue": 2}, {"prologue": 3}, {"matrix": 1})
PRODUCTS = [("convolution", convolution._macros(tile, **kind)) for tile in GEMM_BLOCKS for kind in KINDS]
PRODUCTS += [("winograd", winograd.product_macros(tile, adjoint)) for tile in GEMM_BLOCKS for adjoint in (0, 1)]
OTHERS = [
    ("adam", ()), ("channels", ()), ("copy", ()), ("elementwise", ()), ("finish", ()), ("gathering", ()), ("gram", ()),
    ("reduce", ()),
    *(("lbfgs", (("CAPACITY", n),)) for n in (21, 101)), ("pooling", ()), ("pooling", (("INDEX", "uchar"),)),
    ("pooling", (("INDEX", "uint"),)), ("pyramid", ()), ("variation", ()), ("winograd", winograd._POINTS),
    *(("winograd", winograd.input_macros(masked)) for masked in range(4)),
    *(("few_channels", conv_few_channels.kernel_macros(side, 3, masked)) for side, masked in ((3, 0), (3, 1), (7, 1))),
    *(("functions", (("FUNCTION", i),)) for i in range(11)),
]  # fmt: skip


def test_fused_operations_have_the_same_codes_in_kernels():
    found = dict(re.findall(r"^#define (\w+) (\d+)$", compiler.source("copy"), re.MULTILINE))
    for code in (*EpilogueCode, *PrologueCode):
        assert found[code.name] == str(int(code))


def compiled(name, defines, architecture, version=None):
    return nvrtc.compile_source(compiler.source(name), tuple(f"-D{k}={v}" for k, v in defines), architecture, version)


def check_product(name, defines, architecture, version=None):
    (usage,) = compiled(name, defines, architecture, version).values()
    values = dict(defines)
    threads = values["BM"] // values["TM"] * (values["BN"] // values["TN"])
    assert usage.spills == 0, (name, defines)
    # Two groups of 256 on a multiprocessor of 64 K registers, or about as many work-items in smaller ones.
    resident = 384 if values.get("MATRIX") or threads == 64 else 512
    assert usage.registers * resident <= 64 << 10, (name, defines)
    assert usage.shared * (resident // threads) <= (64 << 10 if threads > 64 else 128 << 10)


def check_other(name, defines, architecture, version=None):
    for kernel, usage in compiled(name, defines, architecture, version).items():
        assert usage.spills == 0, (name, kernel, usage)
        # A tile's 36 numbers in registers, and three groups on a multiprocessor to hide the memory's latency.
        assert name != "winograd" or usage.registers <= 80, (kernel, usage)


def named(value):
    return "-".join(str(number) for _, number in value) if isinstance(value, tuple) else None


@pytest.mark.parametrize("name, defines, architecture, turn", [
    (*product, architecture, number // 2 + (architecture == "sm_90")) for number, product in enumerate(PRODUCTS)
    for architecture in (ARCHITECTURES[number % 2], "sm_90")
], ids=named)  # fmt: skip
def test_convolution_compiles_without_spills(name, defines, architecture, turn):
    """Every variant for Hopper, by one compiler, and for one of Turing and Ampere, by the other."""
    check_product(name, defines, architecture, nvrtc.in_turn(turn))


@pytest.mark.parametrize("turn, name, defines", [(number, *other) for number, other in enumerate(OTHERS)], ids=named)
def test_other_kernels_compile_without_spills(turn, name, defines):
    """Each for three architectures, by both compilers in turn."""
    for number, architecture in enumerate(ARCHITECTURES):
        check_other(name, defines, architecture, nvrtc.in_turn(turn + number))


def test_every_source_is_tried():
    folder = next(f for f in (compiler.Path(compiler.__file__).parents[i] / "kernels" for i in (2, 3)) if f.is_dir())
    assert {path.stem for path in folder.glob("*.cl")} == {"convolution", *(name for name, _ in OTHERS)}


def test_an_error_shows_the_log():
    with pytest.raises(ValueError, match="nonsense"):
        nvrtc.compile_source("nonsense", (), "sm_75")


# The wrapper


@pytest.fixture
def fake(device, monkeypatch):
    """A `cupy` that works, on a machine with a driver of CUDA 13."""
    return fake_cupy.install(monkeypatch, device.device)


@pytest.mark.parametrize("case", ["max", "normalized"])
def test_objective_and_optimizers_through_the_wrapper(fake, case):
    gradients, losses = [], []
    for ops in (Backend("float64"), backends.get("cuda")):
        objective, x = reference_objective(case, ops)
        gradients.append(objective(x)[1])
        for name in ("lbfgs", "adam"):
            run = lambda i, _, objective=objective: losses.append(objective.loss)  # noqa: E731
            optimize.minimize(name, objective, ops.asarray(x[None]), 3, run)
    assert np.linalg.norm(gradients[1] - gradients[0]) <= 1e-4 * np.linalg.norm(gradients[0])
    assert losses[6:] == pytest.approx(losses[:6], rel=0.03)  # lbfgs amplifies float32's rounding, here by 1e4


@pytest.mark.parametrize("name, options, recorded", [("lbfgs", {"history": 3}, 4 + 2), ("adam", {}, 2)])
def test_an_iteration_is_recorded_once_and_replayed(fake, monkeypatch, name, options, recorded):
    """Replays give the bytes that launches give, through copies of the picture made in between, and fresh losses."""
    results, copies = [], []
    for records in (False, True):
        monkeypatch.setattr(cuda.Device, "captures", records)
        ops = backends.get("cuda")
        objective, x = reference_objective("max", ops)
        calls, losses = [], []
        evaluate = objective.evaluate
        monkeypatch.setattr(objective, "evaluate", lambda x: calls.append(1) or evaluate(x))

        def callback(iteration, x):
            copies.append(ops.copy(x))
            losses.append(objective.loss)

        picture = ops.asarray(x[None])
        optimize.minimize(name, objective, picture, 10, callback, **options)
        results.append((np.array(picture).tobytes(), losses))
    assert results[0] == results[1]
    assert len(calls) == recorded + 1  # the recording itself is one
    assert fake.replays == 10 - recorded
    assert not fake.launched.allocations
    assert ops.captured_peak and not ops.capture_problem


def test_tuning_records_with_memory_that_stays(monkeypatch, tmp_path):
    """On an H200 that does nothing, with VGG-19 of a quarter of its channels on a picture so large that Winograd's
    algorithm takes several slabs: no node of a graph points into memory that is gone (see fake_cupy)."""
    fake = fake_cupy.install(monkeypatch, fake_cupy.Idle(), **fake_cupy.H200)
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    times = np.random.default_rng(0)
    monkeypatch.setattr(fake.cuda, "get_elapsed_time", lambda start, end: times.random())
    ops = backends.get("cuda")
    ops.autotune = True
    picture = np.zeros((3, 1536, 2048), np.float32)
    net = Network(nets.vgg(19, 4, (32, 32), classifier=False), ops)
    styles = ["relu1_1", "relu2_1", "relu3_1"]
    objective = Objective(net, picture, [picture], content_layers=["relu3_1"], style_layers=styles)
    optimize.minimize("adam", objective, ops.asarray(picture[None]), 4)
    assert ops.choices.entries and not ops.capture_problem
    assert not fake.launched.allocations


def test_memory_that_settles_late_does_not_change_under_a_recording(fake):
    """As much is in use again for the first time while the third call is recorded: one chunk would take the place of
    three, with the same bytes in all, while what is recorded already points into those."""
    ops, calls, mb = backends.get("cuda"), [], 1 << 18
    total, one = ops.zeros((1,)), ops.constant(1.0)

    def work():
        calls.append(1)
        for sizes in ((4,),) if len(calls) < 2 else ((1, 3, 4), (3,)):
            arrays = [ops.zeros((n * mb,)) for n in sizes]
            for array in arrays:
                ops.launch("elementwise", "fill", (1, 1, 1), (array, 1.0, 1))
                ops.add_scaled(total, ops.dot(array, array), one)
            del arrays, array

    repeated = ops.capture(work)
    for _ in range(6):
        repeated()
    assert not ops.capture_problem and fake.replays == 4 and len(calls) < 6
    assert float(np.array(total)[0]) == 1 + 5 * 4


@pytest.mark.parametrize("grows, replays", [(False, 4), (True, 0)])
def test_a_recording_that_took_memory_is_made_again(fake, grows, replays):
    ops, kept, calls = backends.get("cuda"), [], []
    total, one = ops.zeros((1,)), ops.constant(1.0)

    def work():
        calls.append(1)
        arrays = [ops.zeros((1 << 20,)) for _ in range(1 + (len(calls) > 2))]
        kept.extend(arrays if grows else [])
        ops.add_scaled(total, 1, one)

    repeated = ops.capture(work)
    for _ in range(6):
        repeated()
    assert float(np.array(total)[0]) == 6
    assert fake.replays == replays
    assert len(calls) == (2 + 3 + 4 if grows else 2 + 2)
    assert ("it takes more memory each time" in ops.capture_problem) == grows
    assert grows or not fake.launched.allocations


def test_a_replay_that_fails_is_an_error_of_the_device(fake, monkeypatch):
    ops = backends.get("cuda")
    x = ops.zeros((3,))
    repeated = ops.capture(lambda: ops.scale(x, 2))
    for _ in range(3):
        repeated()

    def fail(self, stream=None):
        raise fake_cupy.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    monkeypatch.setattr(type(fake.launched), "launch", fail)
    with pytest.raises(DeviceError, match="the recorded iteration failed on Fake GPU 0: cudaErrorIllegalAddress"):
        repeated()


def test_the_collector_rests_while_work_is_recorded(fake):
    """What it finds may hold memory, which is not given back in the middle of a recording."""

    class Holder:
        def __init__(self):
            self.me, self.memory = self, ops.device.allocate(256)

    def work():
        for _ in range(30):
            Holder()

    ops, thresholds = backends.get("cuda"), gc.get_threshold()
    gc.collect()
    gc.set_threshold(1, 1, 1)
    try:
        ops.device.capture(work)
        assert gc.isenabled()
        gc.disable()
        ops.device.capture(lambda: None)
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.set_threshold(*thresholds)


def test_a_pool_that_is_held_gives_nothing_back():
    pool, mb = DevicePool(fake_cupy.Idle()), 1 << 20
    pool.empty(4 * mb)
    small, lasting = pool.empty(100), pool.empty(4 * mb, persistent=True)
    del small, lasting
    pool.hold()
    pool.empty(8 * mb)  # would take the others' place
    pool.trim()
    pool.trim_persistent()
    assert (pool.reserved, pool.allocations) == (16 * mb + 256, 4)
    pool.release()
    pool.trim()
    assert (pool.reserved, pool.max_reserved) == (0, 16 * mb + 256)


def test_a_device_that_cannot_record_goes_on_without(fake, monkeypatch):
    def refuse(self, mode=None):
        raise fake_cupy.CUDARuntimeError("cudaErrorNotSupported: operation not supported")

    monkeypatch.setattr(fake.cuda.Stream, "begin_capture", refuse)
    monkeypatch.setattr(fake.cuda.Stream, "end_capture", lambda self: None)
    ops, done = backends.get("cuda"), []
    objective, x = reference_objective("max", ops)
    optimize.minimize("adam", objective, ops.asarray(x[None]), 5, lambda i, x: done.append(objective.loss))
    assert len(set(done)) == 5
    assert "not recorded as one launch: cudaErrorNotSupported" in ops.memory_used()
    assert ops.device.seconds(lambda: done.append(1)) > 0  # which autotune needs
    assert len(done) == 5 + 2 * 3


def test_what_cupy_refuses_to_record_is_done_without(fake):
    """It raises a RuntimeError of its own for a copy from the host."""
    ops = backends.get("cuda")
    x, host = ops.zeros((3,)), np.arange(3, dtype=np.float32)
    repeated = ops.capture(lambda: ops.upload(x, host))
    for _ in range(4):
        host += 1
        repeated()
    np.testing.assert_array_equal(np.array(x), host)
    assert "not recorded as one launch: cudaErrorStreamCaptureUnsupported" in ops.capture_problem


def test_tensor_cores_need_their_generation(fake, monkeypatch):
    assert backends.get("cuda", precision="tf32").precision == "tf32"
    old = fake_cupy.make(fake.cl_device, capability=(7, 5))
    monkeypatch.setitem(sys.modules, "cupy", old)
    with pytest.raises(OptionError, match=r"fp16 cannot be had: Fake GPU 0 has compute capability 7.5, and 8.0"):
        backends.get("cuda", precision="fp16")


def test_hoppers_instruction_is_used_when_asked_for(fake, monkeypatch):
    """With CVSTYLE_WGMMA=1, on compute capability 9.0; then it is compiled for sm_90a and launched."""
    for wanted, capability, expected in (("0", (9, 0), False), ("1", (10, 0), False), ("1", (9, 0), True)):
        monkeypatch.setenv("CVSTYLE_WGMMA", wanted)
        monkeypatch.setitem(sys.modules, "cupy", fake_cupy.make(ptx.Device(), capability=capability))
        ops = backends.get("cuda", precision="tf32-fast")
        assert ops.wgmma is ops.device.wgmma is expected
        found = mma.ranked_algorithms(16, 4, 5, 16, 3, "tf32", False, 4, ops.wgmma)
        assert any(way.block.wgmma for way in found) == expected
    ops.autotune = False
    weight, x, pads = np.ones((16, 16, 3, 3), np.float32), np.ones((1, 16, 4, 5), np.float32), (1, 1, 1, 1)
    results = []
    for backend in (Backend(), ops):
        filters = backend.convolution(weight, None, (1, 1), (1, 1), 1)
        results.append(np.array(filters.forward(backend.asarray(x), pads)[0]))
    assert "by wgmma" in filters.engine()
    np.testing.assert_array_equal(*results)
    with pytest.raises(CompilerError, match="nonsense"):
        ops.device.compile("nonsense", ("-DWGMMA=1",))


def test_auto_prefers_cuda_and_devices_are_chosen_by_number_or_name(fake):
    assert backends.get("auto").name == "cuda"
    assert backends.get("cuda", "1").device.name == "Fake GPU 1"
    assert backends.get("auto", "gpu 1").device.name == "Fake GPU 1"
    first, second = backends.get("cuda", 0), backends.get("cuda", 1)
    a, b = first.asarray([1.0, 2.0]), second.asarray([3.0])  # each call selects its own device
    assert float(first.dot(a, a)) == 5
    assert float(second.dot(b, b)) == 9
    with pytest.raises(OptionError, match=r"no NVIDIA GPU '7'; there is 0 \(Fake GPU 0\), 1 \(Fake GPU 1\)"):
        backends.get("cuda", 7)


def test_failures_are_told_apart(fake, monkeypatch):
    ops = backends.get("cuda")
    with pytest.raises(MemoryError, match="Fake GPU 0"):
        ops.device.allocate(1 << 50)
    with pytest.raises(CompilerError, match="nonsense"):
        ops.device.compile("nonsense", ())
    x = ops.asarray([1.0])
    with pytest.raises(DeviceError, match="operation 'scale' failed on Fake GPU 0: CUDA_ERROR_INVALID_VALUE"):
        ops.launch("elementwise", "scale", (1, 1, 1), (x, *ops.factor(1), 1), threads=4096)


def test_a_gpu_that_the_compiler_no_longer_knows(fake, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.make(fake.cl_device, capability=(7, 0)))
    with pytest.raises(DeviceError) as caught:
        backends.get("cuda").zeros((3,))
    assert str(caught.value).startswith("Fake GPU 0 has compute capability 7.0, which this CUDA's compiler no longer")
    assert "cvstyle[cuda12]" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("capability, target", [((8, 6), "sm_86"), ((12, 9), "compute_121"), ((8, 1), "compute_80")])
def test_what_kernels_are_compiled_for(fake, monkeypatch, capability, target):
    """The GPU's own code; for one that the compiler does not know, PTX of the nearest before it."""
    monkeypatch.setitem(sys.modules, "cupy", cupy := fake_cupy.make(fake.cl_device, capability=capability))
    assert not np.array(backends.get("cuda").zeros((3,))).any()
    assert cupy.compiled == [f"--gpu-architecture={target}"]


# Kernels that are kept


def another_process(monkeypatch, **properties):
    """(its `cupy`, its backend); on an H200 that does nothing."""
    cupy = fake_cupy.install(monkeypatch, fake_cupy.Idle(), **properties)
    return cupy, backends.get("cuda")


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "kernels"


def test_kernels_are_compiled_once_for_all_processes(monkeypatch, folder):
    cupy, ops = another_process(monkeypatch)
    ops.zeros((3,))
    assert len(cupy.compiled) == len(list(folder.iterdir())) == 1
    cupy, ops = another_process(monkeypatch)
    ops.zeros((3,))
    assert not cupy.compiled
    ops.device.compile(compiler.source("elementwise"), ("-DMORE=1",))
    cupy, ops = another_process(monkeypatch, capability=(8, 0))
    ops.zeros((3,))
    monkeypatch.setattr(cupy.cuda.nvrtc, "getVersion", lambda: (13, 1))
    backends.get("cuda").zeros((3,))
    assert len(cupy.compiled) == 2 and len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:-1], lambda content: content + b"\0",
    lambda content: content[:60] + b"?" + content[61:], lambda content: b"?" + content[1:],
    lambda content: content[: content.index(b"\n") + 1],
])  # fmt: skip
def test_a_kernel_whose_file_is_damaged_is_compiled_again(monkeypatch, folder, damage):
    another_process(monkeypatch)[1].zeros((3,))
    (path,) = folder.iterdir()
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    cupy, ops = another_process(monkeypatch)
    ops.zeros((3,))
    assert len(cupy.compiled) == 1
    assert [p.read_bytes() for p in folder.iterdir()] == [content]


def test_kernels_that_cannot_be_kept(monkeypatch, folder):
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be", "utf-8")
    cupy, ops = another_process(monkeypatch)
    assert ops.prepare([("elementwise", ())]) == 1
    ops.zeros((3,))
    assert len(cupy.compiled) == 1


def test_kernels_are_compiled_side_by_side(monkeypatch, folder):
    cupy, ops = another_process(monkeypatch)
    both, compile_program = threading.Barrier(2, timeout=60), cupy.cuda.nvrtc.compileProgram

    def compiled(program, options):
        both.wait()  # until another thread compiles
        compile_program(program, options)

    monkeypatch.setattr(cupy.cuda.nvrtc, "compileProgram", compiled)
    wanted = [("elementwise", ()), ("reduce", ()), ("elementwise", ())]
    assert ops.prepare(wanted, threads=2) == 2
    ops.zeros((3,))
    assert len(cupy.compiled) == 2
    assert ops.prepare(wanted, threads=2) == 0
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("precision, sources", [("fp32", {"convolution", "winograd"}), ("fp16", {"cuda/convolution"})])
def test_what_is_to_be_tried_out_is_compiled_first(monkeypatch, folder, precision, sources):
    """All of it at once, and nothing else."""
    fake_cupy.install(monkeypatch, fake_cupy.Idle(), **fake_cupy.H200)
    ops, wanted = backends.get("cuda", precision=precision), []
    ops.autotune = True
    prepare = ops.prepare
    monkeypatch.setattr(ops, "prepare", lambda kernels: wanted.append(kernels) or prepare(kernels))
    layer, pad = ops.convolution(np.ones((64, 64, 3, 3), np.float32), None, (1, 1), (1, 1), 1), (1, 1, 1, 1)
    for number, call in enumerate((
        lambda: layer.forward(ops.empty((1, 64, 60, 80)), pad, RELU),
        lambda: ops.materialize(layer.backward(ops.empty((1, 64, 60, 80)), (60, 80), pad)),
    )):  # fmt: skip
        before = set(ops.requested_kernels)
        call()
        tried = {each for each in ops.requested_kernels if each[0] in sources} - before
        assert len(wanted) == number + 1 and set(wanted[-1]) - before == tried and len(set(wanted[-1])) > 1


def test_what_does_not_compile_is_left_to_whoever_needs_it(fake, folder):
    ops = backends.get("cuda")
    assert ops.prepare([("elementwise", (("int", "nonsense"),)), ("reduce", ())]) == 1
    with pytest.raises(DeviceError, match=r"operation 'scale' \(kernels/elementwise.cl -Dint=nonsense\)"):
        ops.launch("elementwise", "scale", (1, 1, 1), (), defines=(("int", "nonsense"),))


@pytest.mark.parametrize("autotune", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_a_run_will_compile_is_known_before(monkeypatch, folder, precision, autotune):
    """With all that would be tried out, whatever turns out to be fastest; and nothing but that."""

    def work(ops):
        net = Network(nets.vgg(19, 4, (32, 32), classifier=False), ops)
        picture = np.zeros((3, 96, 128), np.float32)
        objective = Objective(net, picture, [picture], content_layers=["relu4_2"], style_layers=["relu1_1", "relu3_1"])
        optimize.minimize("lbfgs", objective, ops.asarray(picture[None]), 4, history=2)

    cupy = fake_cupy.install(monkeypatch, fake_cupy.Idle(), **fake_cupy.H200)
    times = np.random.default_rng(0)
    monkeypatch.setattr(cupy.cuda, "get_elapsed_time", lambda start, end: times.random())
    ops, late = (backends.get("cuda", precision=precision) for _ in range(2))
    ops.autotune = late.autotune = autotune
    needed = dry_run.kernels_needed(ops, work)
    assert ops.prepare(needed) == len(set(needed)) == len(needed) > 10
    assert not ops.requested_kernels and not ops.pool.reserved
    work(late)
    assert set(late.requested_kernels) <= set(needed)
    assert len(cupy.compiled) == len(list(folder.iterdir())) == len(needed)
    again = dry_run.kernels_needed(late, work)  # when all choices are made
    assert set(again) < set(needed) if autotune else again == needed == late.requested_kernels


def test_too_little_memory_is_one_line(fake, monkeypatch, capsys, tmp_path):
    from cvstyle.cli import main

    def full(self, size):
        raise MemoryError("Fake GPU 0: 512 MB: cudaErrorMemoryAllocation: out of memory")

    monkeypatch.setattr(cuda.Device, "allocate", full)
    picture = np.zeros((8, 8, 3), np.float32)
    images.write(str(tmp_path / "a.png"), picture)
    names = [str(tmp_path / "a.png")] * 2
    assert main(["run", "--content", names[0], "--style", names[1], "--output", str(tmp_path / "b.png")]) == 2
    said = capsys.readouterr().err.strip()
    assert "Fake GPU 0: 512 MB" in said and "--tile-size auto or a smaller --image-size needs less" in said
    assert "\n" not in said


@pytest.mark.parametrize("driver, change, message", [
    (None, None, "no NVIDIA driver"),
    (12040, "absent", r"CuPy is not installed \(pip install 'cvstyle\[cuda12\]'\)"),
    (13000, "absent", r"CuPy is not installed \(pip install 'cvstyle\[cuda13\]'\)"),
    (12040, "no library", r"CuPy cannot use the GPU: libnvrtc.so.12 is missing \(.*cvstyle\[cuda12\]"),
    (13000, "no device", "the NVIDIA driver reports no GPU"),
    (12040, "old driver", r"CuPy cannot use the GPU: cudaErrorInsufficientDriver: .*cvstyle\[cuda12\]"),
], ids=str)  # fmt: skip
def test_what_is_missing_is_said(fake, monkeypatch, driver, change, message):
    def missing():
        raise RuntimeError("libnvrtc.so.12 is missing\nand more")

    def insufficient():
        raise fake_cupy.CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    monkeypatch.setattr(cuda, "_driver_version", lambda: driver)
    if change == "absent":
        monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: None)
    elif change == "no library":
        monkeypatch.setattr(fake.cuda.nvrtc, "getVersion", missing)
    elif change == "old driver":
        monkeypatch.setattr(fake.cuda.runtime, "getDeviceCount", insufficient)
    elif change == "no device":
        monkeypatch.setattr(fake.cuda.runtime, "getDeviceCount", lambda: 0)
    with pytest.raises(OptionError, match=f"backend 'cuda' cannot be used here: {message}"):
        backends.get("cuda")
    assert cuda.Backend.list_devices() == []
