"""What several tests share: a cache folder that is not the user's, and the device that the kernels run on.

`make test` spreads the tests over one worker per processor (pytest-xdist). Each worker, with the programs that it
starts, keeps to its share of the processors, so that threads do not wait for each other and the bytes are the same in
all its processes. `make test-quick` runs the first case of each test.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import tempfile
import threading
import time

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
if WORKERS > 1 and hasattr(os, "sched_setaffinity"):  # before NumPy is imported, whose BLAS counts its threads then
    share = sorted(os.sched_getaffinity(0))[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) :: WORKERS]
    os.sched_setaffinity(0, share or os.sched_getaffinity(0))

import launches  # noqa: E402
import pocl  # noqa: E402
import pytest  # noqa: E402

from cvstyle.backends import threads  # noqa: E402

KEPT = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
KEPT = os.environ.setdefault("CVSTYLE_TEST_KEPT", os.path.join(KEPT, "cvstyle-tests"))
"""What compilers make for tests, which stays between runs."""
pocl.prepare(os.path.join(KEPT, "pocl"))
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # workers ignore it, and so would programs of theirs


def use_a_cache_of_its_own():
    """What cvstyle keeps for a user goes to another folder, for all tests and all programs that they start.

    To a temporary one; on a GPU to the one that CVSTYLE_TEST_CACHE names, so that kernels are compiled once and not by
    each process. What stand-ins compile no GPU can load.
    """
    folder = os.environ.get("CVSTYLE_TEST_CACHE") if BACKEND == "cuda" else None
    if not folder:
        outer = os.environ["XDG_CACHE_HOME"] if WORKERS > 1 else None  # the controller removes it with all in it
        folder = tempfile.mkdtemp(prefix="cvstyle-tests-", dir=outer)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(XDG_CACHE_HOME=folder, LOCALAPPDATA=folder)


BACKEND = os.environ.get("CVSTYLE_TEST_BACKEND", "opencl")
use_a_cache_of_its_own()
if BACKEND == "ptx":  # the backend cuda, with the code that CUDA's compiler makes run on the CPU; slow
    import fake_cupy
    import ptx

    fake_cupy.install(pytest.MonkeyPatch(), ptx.Device())
elif BACKEND == "nothing":  # the backend cuda on an H200 that only counts, for what it would be asked to do
    launches.install(pytest.MonkeyPatch())
CHOSEN = launches.Launches()


@pytest.fixture(scope="session")
def device():
    """The backend under test, one for all tests, so that each kernel is compiled once.

    OpenCL's first device, which is PoCL where there is no GPU; CVSTYLE_TEST_BACKEND names another backend.
    """
    from cvstyle import backends

    backend = backends.get("cuda" if BACKEND in ("ptx", "nothing") else BACKEND)
    backend.autotune = False  # each of many random shapes would be tried in many ways
    compile_beforehand(backend)
    return backend


def compile_beforehand(backend):
    """All that the chosen tests need, side by side, where CVSTYLE_TEST_VARIANTS names a list of it.

    The backend "nothing" writes that list (`pytest_terminal_summary`).
    """
    path, start = os.environ.get("CVSTYLE_TEST_VARIANTS"), time.perf_counter()
    if path and BACKEND != "nothing" and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            wanted = [(source, tuple(map(tuple, defines))) for source, defines in json.load(file)]
        CHOSEN.beforehand = f", {backend.prepare(wanted)} of {len(wanted)} compiled beforehand"
        CHOSEN.beforehand += f" in {time.perf_counter() - start:.1f} s"


LEFT_OUT = {  # of --quick: files of programs for GPUs, and tests that take five seconds or more
    "test_gpu.py", "test_gpu_report.py", "test_ptx.py", "test_selfcheck.py", "test_wheels.py", "test_smoke.py",
    "test_a_recorded_iteration_has_the_bits_of_its_launches", "test_an_iteration_is_recorded_once_and_replayed",
    "test_any_convolution", "test_any_damage_to_a_checkpoint_is_found", "test_half_precision_does_not_overflow",
    "test_features_that_count_have_the_bits_of_the_whole_picture", "test_memory_is_that_of_a_tile",
    "test_hoppers_instruction_is_exact_on_integers", "test_numbers_that_are_not_finite_replace_no_checkpoint",
    "test_predicted_peak_is_the_measured_one", "test_predicted_peak_of_devices", "test_random_graphs",
    "test_shares_may_be_uneven_or_empty", "test_windows_add_up_in_the_order_that_was_fastest_for_the_picture",
    "test_tiles_that_a_scale_cannot_be_cut_into_are_refused_before_the_first",
}  # fmt: skip


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="the first case of each test, without those that take long")


def pytest_collection_modifyitems(config, items):
    if not config.option.quick:
        return
    first = {}
    for item in items:
        name = getattr(item, "originalname", item.name)
        if not {item.path.name, name} & LEFT_OUT:
            first.setdefault((item.path, name), item)
    chosen = set(first.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = first.values()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    if item.get_closest_marker("gpu") is None:
        yield
    else:
        with CHOSEN.watched():
            yield


@pytest.fixture(autouse=True)
def no_limit_of_threads_stays():
    """A command line's --threads holds for its process, which the tests share."""
    yield
    threads.limit(None)


def pytest_terminal_summary(terminalreporter, config):
    if config.option.markexpr == "gpu":
        terminalreporter.write_line(f"On {BACKEND}: {CHOSEN}")
        path = os.environ.get("CVSTYLE_TEST_VARIANTS")
        if path and BACKEND == "nothing":
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                json.dump(sorted(CHOSEN.variants, key=repr), file)
