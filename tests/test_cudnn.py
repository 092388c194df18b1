"""The cuDNN backend over stand-ins for CuPy and cuDNN's frontend (which see for what they cannot show)."""

from __future__ import annotations

import sys

import fake_cudnn
import fake_cupy
import numpy as np
import pytest
from pictures import noise
from test_objective import reference_objective
from test_opencl import EXACT, close

from cvstyle import backends, optimize, paths
from cvstyle.backends import cuda, cudnn
from cvstyle.backends.base import RELU
from cvstyle.cli import _parser, run
from cvstyle.errors import DeviceError, OptionError


@pytest.fixture
def fake(device, monkeypatch, tmp_path):
    """(cupy, cudnn) that work, on a machine with a driver of CUDA 13."""
    cupy = fake_cupy.install(monkeypatch, device.device)
    monkeypatch.setitem(sys.modules, "cudnn", fake_cudnn.make(cupy))
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    return cupy, sys.modules["cudnn"]


GEOMETRIES = [  # input, outputs, group, kernel, stride, dilation, pad
    ((16, 9, 17), 24, 1, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    ((4, 12, 11), 6, 2, (3, 2), (2, 3), (1, 1), (0, 1, 2, 0)),
    ((3, 10, 13), 5, 1, (3, 3), (1, 1), (2, 1), (2, 0, 2, 0)),
]


def results(ops, geometry):
    shape, outputs, group, kernel, stride, dilation, pad = geometry
    weight, bias = noise(outputs, shape[0] // group, *kernel, seed=1), noise(outputs, seed=2)
    filters = ops.convolution(weight, bias, stride, dilation, group)
    x = ops.asarray(noise(1, *shape))
    y, _ = filters.forward(x, pad)
    g = noise(*y.shape, seed=3)
    rectified, mask = filters.forward(x, pad, RELU)
    return [
        y, rectified, filters.backward(ops.asarray(g), shape[1:], pad),
        filters.backward(ops.asarray(g), shape[1:], pad, mask),
    ]  # fmt: skip


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_convolution_by_cudnn(fake, geometry):
    close(results(backends.get("cudnn"), geometry), results(EXACT, geometry))
    assert fake[1].executed == [("conv_fprop", 0)] * 2 + [("conv_dgrad", 0)] * 2


def test_what_cudnn_refuses_is_done_by_our_kernels(fake, monkeypatch):
    refusing = fake_cudnn.make(fake[0], refuses=lambda kind, weight: kind == "conv_dgrad")
    monkeypatch.setitem(sys.modules, "cudnn", refusing)
    close(results(backends.get("cudnn"), GEOMETRIES[0]), results(EXACT, GEOMETRIES[0]))
    assert refusing.executed == [("conv_fprop", 0)] * 2


def test_objective_optimizers_and_recording(fake):
    gradients, losses = [], []
    for ops in (EXACT, backends.get("cudnn")):
        objective, x = reference_objective("max", ops)
        gradients.append(objective(x)[1])
        optimize.minimize("adam", objective, ops.asarray(x[None]), 6, lambda i, x: losses.append(objective.loss))
    assert np.linalg.norm(gradients[1] - gradients[0]) <= 1e-4 * np.linalg.norm(gradients[0])
    assert losses[6:] == pytest.approx(losses[:6], rel=1e-3)
    assert fake[0].replays == 4 and not ops.capture_problem


def test_autotune_takes_the_fastest_deterministic_plan_and_remembers_it(fake, monkeypatch):
    seconds = iter([3, 3, 3, 1, 1, 1])  # of plans 0 and 3; 1 and 2 are barred
    monkeypatch.setattr(cuda.Device, "seconds", lambda self, work: work() or next(seconds))
    module = fake[1]
    for known in (False, True):
        ops = backends.get("cudnn")
        ops.autotune = True
        module.executed.clear()
        filters = ops.convolution(noise(24, 16, 3, 3), None, (1, 1), (1, 1), 1)
        filters.forward(ops.asarray(noise(1, 16, 9, 17)), (1, 1, 1, 1))
        assert module.executed[-1] == ("conv_fprop", 3)
        assert {index for _, index in module.executed} == ({3} if known else {0, 3})


def test_tensor_cores_where_they_are_asked_for(fake, monkeypatch):
    monkeypatch.setattr(cuda.Device, "seconds", lambda self, work: work() or -fake[1].executed[-1][1] % 3)
    ops = backends.get("cudnn", precision="tf32-fast")
    ops.autotune = True
    results(ops, GEOMETRIES[0])
    assert {index for _, index in fake[1].executed} == {0, 2, 3}
    with pytest.raises(OptionError, match="fp16 cannot be had with backend 'cudnn', which has fp32 and tf32-fast; use"):
        backends.get("cudnn", precision="fp16")


def test_auto_prefers_our_kernels(fake):
    assert backends.get("auto").name == "cuda"
    assert [name for name, problem, _ in backends.list_backends() if not problem][:2] == ["cuda", "cudnn"]


@pytest.mark.parametrize("options, used, autotunes", [
    (["-gpu", "0", "-backend", "cudnn", "-cudnn_autotune"], "cudnn", True), (["--backend", "cudnn"], "cudnn", False),
    (["--backend", "cudnn", "--cudnn-autotune", "--no-autotune"], "cudnn", False), (["--cudnn-autotune"], "cuda", True),
    (["--no-autotune"], "cuda", False), (["-gpu", "-1", "-backend", "cudnn", "-cudnn_autotune"], None, False),
], ids=str)  # fmt: skip
def test_the_command_line(fake, monkeypatch, options, used, autotunes):
    monkeypatch.setattr(cuda.Device, "autotunes", True)
    (backend,) = run.Request.of(parsed(options)).devices()
    assert (backend.name, backend.autotune) == (used, autotunes) if used else backend.name not in ("cudnn", "cuda")


def test_the_references_backend_without_cudnn(fake, monkeypatch, capsys):
    find = cudnn.importlib.util.find_spec
    monkeypatch.setattr(cudnn.importlib.util, "find_spec", lambda name: None if name == "cudnn" else find(name))
    (backend,) = run.Request.of(parsed(["-backend", "cudnn"])).devices()
    assert backend.name == "cuda"
    said = capsys.readouterr().err
    assert "'cudnn' cannot be used: cuDNN's frontend is not installed" in said
    assert "'cvstyle[cudnn]'); using cuda" in said


def parsed(options):
    return _parser(["run"]).parse_args(["run", "--content", "c", "--style", "s", *options])


def test_a_failure_is_one_line(fake, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")

    monkeypatch.setattr(fake[1].pygraph, "execute", fail)
    with pytest.raises(DeviceError, match="cuDNN's convolution failed on Fake GPU 0: CUDNN_STATUS_EXECUTION_FAILED"):
        results(backends.get("cudnn"), GEOMETRIES[0])


@pytest.mark.parametrize("driver, change, message", [
    (None, None, "no NVIDIA driver"),
    (12040, "absent", r"cuDNN's frontend is not installed \(pip install 'cvstyle\[cudnn12\]'\)"),
    (13000, "absent", r"cuDNN's frontend is not installed \(pip install 'cvstyle\[cudnn\]'\)"),
    (13000, "no library", r"cuDNN cannot be loaded: libcudnn.so.9 is missing \(pip install 'cvstyle\[cudnn\]'\)"),
], ids=str)  # fmt: skip
def test_what_is_missing_is_said(fake, monkeypatch, driver, change, message):
    def missing():
        raise RuntimeError("libcudnn.so.9 is missing\nand more")

    monkeypatch.setattr(cuda, "_driver_version", lambda: driver)
    find = cudnn.importlib.util.find_spec
    if change == "absent":
        monkeypatch.setattr(cudnn.importlib.util, "find_spec", lambda name: None if name == "cudnn" else find(name))
    elif change:
        monkeypatch.setattr(fake[1], "backend_version", missing)
    with pytest.raises(OptionError, match=f"backend 'cudnn' cannot be used here: {message}"):
        backends.get("cudnn")
