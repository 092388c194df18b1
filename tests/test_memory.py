"""The heap of host memory: arrays never overlap while they live, and their places serve others afterwards."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from cvstyle import cli, machine
from cvstyle.backends import memory
from cvstyle.backends.memory import HostPool
from cvstyle.backends.reference import Backend

MB = 1 << 20


def test_two_small_arrays_take_the_place_of_a_large_one():
    pool = HostPool()
    large, last = pool.empty((8 * MB,), np.uint8), pool.empty((MB,), np.uint8)
    address = large.ctypes.data
    del large
    a, b = pool.empty((3 * MB,), np.uint8), pool.empty((5 * MB,), np.uint8)
    assert (a.ctypes.data, b.ctypes.data) == (address, address + 3 * MB)
    assert pool.reserved == 9 * MB
    del a, b  # and joined again
    assert pool.empty((8 * MB,), np.uint8).ctypes.data == address
    assert last.ctypes.data == address + 8 * MB


def test_a_view_keeps_its_memory():
    pool = HostPool()
    view = pool.empty((4, 1000), np.float32)[1:, 500]
    view[:] = 7
    others = [pool.empty((4, 1000), np.float32) for _ in range(3)]
    for other in others:
        other[:] = 0
    assert (view == 7).all()


def test_arrays_from_several_threads_do_not_overlap():
    pool, problems = HostPool(), []

    def work(seed):
        rng, held = np.random.default_rng(seed), []
        for _ in range(400):
            if held and rng.random() < 0.5:
                array, value = held.pop(rng.integers(len(held)))
                if not (array == value).all():
                    problems.append(seed)
            else:
                array, value = pool.empty((int(rng.integers(1, 3000)),), np.int64), int(rng.integers(1 << 60))
                array[:] = value
                assert array.ctypes.data % 64 == 0
                held.append((array, value))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    gc.collect()
    pool.trim()
    assert pool.reserved == 0


def test_trimmed_memory_can_be_used_again():
    pool = HostPool()
    kept = pool.empty((3 * MB,), np.uint8)
    kept[:] = 5
    for _ in range(3):
        for array in [pool.empty((n * MB,), np.uint8) for n in (6, 2)]:
            array[:] = 1
        del array
        pool.trim()
        assert pool.reserved == 3 * MB
    assert (kept == 5).all()


def test_more_than_the_reserved_range_is_a_second_one(monkeypatch):
    monkeypatch.setattr(memory, "_reserve", lambda size: memory._Range(max(size, 4 * MB)))
    pool = HostPool()
    arrays = [pool.empty((n * MB,), np.uint8) for n in (3, 3, 9)]
    for i, array in enumerate(arrays):
        array[:] = i
    assert all((array == i).all() for i, array in enumerate(arrays))
    assert pool.reserved == 15 * MB


def test_too_little_memory_is_an_error_before_it_is_touched(monkeypatch, capsys):
    monkeypatch.setattr(machine, "_meminfo", lambda: 100 * MB)
    ops = Backend()
    held = ops.empty((10 * MB // 4,))
    with pytest.raises(MemoryError, match="200 MB are needed and 100 MB are free"):
        ops.empty((200 * MB // 4,))

    def fail(_):
        ops.empty((200 * MB // 4,))

    for words, place, option in (
        ("info", "info.execute", "image-size"), ("texture x.png", "texture.execute", "size"),
        ("style save x.png --as x.cvstyle", "style_save.save_styles", "sizes"),
    ):  # fmt: skip
        monkeypatch.setattr(f"cvstyle.cli.{place}", fail)
        assert cli.main(words.split()) == 2
        said = capsys.readouterr().err
        assert "not enough memory (200 MB are needed and 100 MB are free); --tile-size auto or a smaller" in said
        assert f"smaller --{option} needs less" in said
    del held


def test_a_container_limit_counts(monkeypatch):
    monkeypatch.setattr(machine, "_control_group", lambda: 50 * MB)
    with pytest.raises(MemoryError, match="50 MB are free"):
        HostPool().empty((60 * MB,), np.uint8)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc; elsewhere plans are measured as they are")
def test_freed_arrays_leave_the_process_while_memory_is_measured():
    """In a process of its own, whose heap has no holes in which arrays find room."""
    code = """
        import numpy as np
        from cvstyle import process
        large = np.ones(30 << 20, np.uint8)
        del large  # from now on glibc keeps smaller ones
        with process.freed_at_once():
            array = np.ones(8 << 20, np.uint8)
            held = process.resident()
            del array
            print(held - process.resident())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 7 << 20
