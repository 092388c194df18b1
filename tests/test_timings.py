"""`cvstyle info --timings` and `--threads`."""

from __future__ import annotations

import nets
import pytest

from cvstyle import backends
from cvstyle.backends import threads
from cvstyle.cli import main
from cvstyle.graph import Network
from cvstyle.timings import measure


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    net = nets.vgg(19, width=16, size=(64, 64), classifier=False)
    return nets.write(net, tmp_path_factory.mktemp("timings"), form="V1")


@pytest.mark.parametrize("engine", list(nets.ENGINES))
def test_every_step_is_timed_and_its_engine_named(engine):
    net = Network(nets.vgg(16, 8, (48, 64), classifier=False), nets.ENGINES[engine]())
    rows, whole = measure(net, ["relu2_2"], ["relu1_1", "relu3_1"], (48, 64), rounds=2)
    assert [name for row in rows for name in row.names] == net.layer_names[: net.layer_names.index("relu3_1") + 1]
    assert all(seconds > 0 for row in rows for seconds in row.seconds)
    assert 0 < sum(sum(row.seconds) for row in rows) < 2 * whole
    by_name = {row.names[0]: row for row in rows}
    assert by_name["conv1_1"].operations == 2 * 8 * 3 * 9 * 48 * 64
    assert by_name["conv2_2"].operations == 2 * 16 * 16 * 9 * 24 * 32
    expected = {"numpy": ("BLAS", "BLAS"), "opencv": ("BLAS", "cv2.dnn")}.get(engine, ("Winograd", "Winograd"))
    assert all(name in found for name, found in zip(expected, by_name["conv2_2"].engine, strict=True))
    assert "Winograd" not in by_name["conv1_1"].engine[0]
    if engine.startswith("native"):
        assert engine.partition("-")[2] in by_name["conv2_2"].engine[0]


def test_timings_on_the_command_line(files, capsys):
    line = ["info", "--proto", files[0], "--model", files[1], "--timings", "--image-size", "64x48", "--threads", "1"]
    assert main(line) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "64×48" in lines[0] and "1 threads" in lines[0]
    assert lines[1].split() == ["step", "forward", "backward", "GFLOP/s", "engine"]
    assert lines[2].startswith("conv1_1 + relu1_1")
    assert any(line.startswith("losses") for line in lines)
    assert lines[-2].startswith("in all") and "ms an evaluation" in lines[-2]


def test_timings_on_a_device_name_the_tiles(files, capsys):
    line = ["info", "--proto", files[0], "--model", files[1], "--timings", "--image-size", "64x48", "--backend"]
    assert main([*line, "opencl", "--device", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "opencl backend" in lines[0] and "threads" not in lines[0]
    assert "tile" in lines[2] and "share" in lines[2]
    assert main([*line, "opencl", "--device", "99"]) == 2
    assert "no OpenCL device '99'" in capsys.readouterr().err


def test_threads_are_those_that_were_asked_for(files, capsys):
    threads.limit(3)
    assert backends.get("numpy").workers.count == 3
    threads.limit(None)
    assert backends.get("numpy").workers.count == threads.cpu_count()
    for bad in ("0", "-1", "two"):
        assert main(["info", "--timings", "--threads", bad]) == 2
        assert f"'{bad}' is not a number of threads" in capsys.readouterr().err
