"""The command line on devices: which one is chosen, what is said, and that losses are fetched only when needed."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import fake_cupy
import nets
import numpy as np
import pytest

from cvstyle import Objective, backends, images, stylize
from cvstyle.backends import cuda, opencl
from cvstyle.cli import main
from cvstyle.graph import load_network


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two pictures and a small VGG on disk."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    paths = {}
    for name, (height, width) in {"content": (36, 48), "style": (40, 40)}.items():
        coarse = rng.integers(0, 256, (height // 4, width // 4, 3)).astype(np.uint8)
        paths[name] = str(folder / f"{name}.png")
        cv2.imwrite(paths[name], cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    paths["proto"], paths["model"] = nets.write(nets.vgg(19, 16, (32, 32), classifier=False), folder)
    return paths


def arguments(files, output, *more):
    return [str(a) for a in (
        "run", "--content", files["content"], "--style", files["style"], "--proto", files["proto"],
        "--model", files["model"], "--output", output, "--image-size", 48, "--seed", 1, "--init", "image", *more,
    )]  # fmt: skip


@pytest.fixture
def gpus(device, monkeypatch):
    """Two GPUs of a CUDA that is stood in for."""
    fake_cupy.install(monkeypatch, device.device)


def test_a_run_on_a_device_reports_its_memory_and_agrees_with_numpy(files, tmp_path, capsys):
    for backend in ("opencl", "numpy"):
        assert main(arguments(files, tmp_path / f"{backend}.png", "--backend", backend, "--num-iterations", 6)) == 0
    out = capsys.readouterr().out
    assert "MB in use" in out and "filters" in out
    ours, theirs = (images.read(tmp_path / f"{b}.png").rgb for b in ("opencl", "numpy"))
    assert np.abs(ours - theirs).mean() < 0.5  # of 255 levels


def test_devices_lists_what_there_is_and_why_not(capsys, monkeypatch):
    monkeypatch.setattr(cuda.Backend, "unavailable_because", lambda: "no NVIDIA driver was found")
    assert main(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("cuda") and "not used: no NVIDIA driver was found" in line for line in lines)
    assert any(line.startswith("opencl") and "0: " in line and "GB" in line for line in lines)
    assert sum("the default" in line for line in lines) == 1


def test_devices_with_a_gpu(gpus, capsys):
    assert main(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Fake GPU 0" in lines[1] and "the default" in lines[1] and "Fake GPU 1" in lines[2]
    assert sum("the default" in line for line in lines) == 1


@pytest.mark.parametrize("options, used", [
    ([], "Fake GPU 0"), (["-gpu", "1"], "Fake GPU 1"), (["-gpu", "1", "-backend", "cudnn"], "Fake GPU 1"),
    (["-backend", "nn"], "Fake GPU 0"), (["-gpu", "0", "-backend", "clnn"], "Fake GPU 0"),
    (["-gpu", "-1"], None), (["-gpu", "-1", "-backend", "cudnn"], None), (["--backend", "cpu"], None),
    (["--backend", "gpu", "--device", "GPU 1"], "Fake GPU 1"), (["--backend", "cuda", "--gpu", "1"], "Fake GPU 1"),
    (["--gpu", "1,0"], "Fake GPU 1"),
], ids=str)  # fmt: skip
def test_spellings_choose_the_gpu(files, tmp_path, capsys, gpus, options, used):
    assert main(arguments(files, tmp_path / "out.png", "--num-iterations", 1, *options)) == 0
    captured = capsys.readouterr()
    if used:
        assert f"{used}: at most" in captured.out
    else:
        assert "MB in use" not in captured.out


def test_without_a_gpu_the_references_command_line_runs_on_the_cpu(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cuda.Backend, "unavailable_because", lambda: "no NVIDIA driver was found")
    monkeypatch.setattr(opencl.Backend, "unavailable_because", lambda: "PyOpenCL is not installed")
    for backend in ("nn", "cudnn", "clnn"):
        command = arguments(files, tmp_path / "out.png", "--num-iterations", 1, "-gpu", 0, "-backend", backend)
        assert main(command) == 0
        assert "no GPU can be used ('cvstyle devices' says why); using the CPU" in capsys.readouterr().err
    assert main(arguments(files, tmp_path / "out.png", "--num-iterations", 1, "-backend", "nn")) == 0
    assert "GPU" not in capsys.readouterr().err


@pytest.mark.parametrize("options, message", [
    (["--backend", "opencl", "--device", "99"], "no OpenCL device '99'; there is 0 ("),
    (["--backend", "opencl", "--device", "nonesuch"], "no OpenCL device 'nonesuch'"),
    (["--backend", "opencl", "--device", "²"], "no OpenCL device '²'"),
    (["--backend", "numpy", "--device", "0"], "backend 'numpy' has no devices to choose from"),
    (["--gpu", "0", "--device", "0"], "both choose a device"),
    (["--backend", "gpu"], "no GPU can be used (cuda: no NVIDIA driver was found; opencl: it has no GPU)"),
    (["--backend", "cuda"], "backend 'cuda' cannot be used here: no NVIDIA driver was found"),
], ids=str)  # fmt: skip
def test_devices_that_are_not_there(files, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.setattr(cuda.Backend, "unavailable_because", lambda: "no NVIDIA driver was found")
    monkeypatch.setattr(opencl.Backend, "auto_selectable", lambda: False)
    assert main(arguments(files, tmp_path / "out.png", "--num-iterations", 1, *options)) == 2
    assert message in capsys.readouterr().err


def test_auto_never_takes_a_cpu_through_opencl(monkeypatch):
    monkeypatch.setattr(cuda.Backend, "unavailable_because", lambda: "no NVIDIA driver was found")
    for kind in ("cpu", "gpu"):
        found = [SimpleNamespace(kind=kind, name="one", tunes=False)]
        monkeypatch.setattr(opencl.Backend, "list_devices", staticmethod(lambda found=found: found))
        assert (backends.get("auto").name == "opencl") == (kind == "gpu")


@pytest.mark.parametrize("reads, expected", [(False, 5), (True, 110)])
def test_losses_are_fetched_only_when_someone_looks(files, device, reads, expected):
    """Without a look: at iterations 1, 2, 50, 100 and the last, for NaN; the losses are one download.

    Before the first, the targets of the five style layers are one download each.
    """
    net = load_network(files["proto"], files["model"], device)
    seen = []

    def callback(iterate):
        if reads:
            seen.append(iterate.loss)

    before = device.downloads
    settings = {"image_size": 32, "num_iterations": 110, "init": "image", "callback": callback, "optimizer": "adam"}
    result = stylize(files["content"], [files["style"]], network=net, **settings)
    pictures = device.downloads - before - expected - 5
    assert 1 <= pictures <= 2 + 1  # the result, and its losses once more
    assert np.isfinite(result.loss) and len(seen) == (110 if reads else 0)


def test_nan_is_found_at_the_next_look(files, device, monkeypatch):
    read, calls = Objective.losses_async, []

    def spoiled(self):
        calls.append(1)
        losses = read(self)
        return (lambda: {**losses(), "tv": float("nan")}) if len(calls) == 3 else losses

    monkeypatch.setattr(Objective, "losses_async", spoiled)
    net = load_network(files["proto"], files["model"], device)
    settings = {"image_size": 32, "num_iterations": 60, "init": "image"}
    result = stylize(files["content"], [files["style"]], network=net, **settings)
    assert "nan at iteration 50 (tv)" in result.stopped
    assert np.isfinite(result.picture.rgb).all()


def test_the_log_waits_for_no_iteration_and_has_every_one(files, tmp_path, capsys, monkeypatch):
    """Losses are on their way while the next iteration begins; lines and rows are those of a backend that waits."""
    order, logs = [], []
    start, evaluate = opencl.Device.start_download, Objective.evaluate

    def started(self, view, size):
        ready, number = start(self, view, size), sum(isinstance(o, int) for o in order)
        return lambda: order.append(f"read {number}") or ready()

    monkeypatch.setattr(opencl.Device, "start_download", started)
    monkeypatch.setattr(Objective, "evaluate", lambda self, x: order.append(1) or evaluate(self, x))
    for backend in ("opencl", "numpy"):
        log = tmp_path / f"{backend}.csv"
        options = ("--backend", backend, "--optimizer", "adam", "--num-iterations", 7, "--print-iter", 3, "--log", log)
        assert main(arguments(files, tmp_path / "out.png", *options)) == 0
        logs.append(np.genfromtxt(log, delimiter=",", skip_header=1))
        lines = [line.split(":")[0] for line in capsys.readouterr().err.splitlines() if "iteration" in line]
        assert lines == ["iteration 3/7", "iteration 6/7", "iteration 7/7"]
        if backend == "opencl":
            first = [order.index(f"read {n}") for n in range(3, 8)]
            assert [sum(o == 1 for o in order[:at]) for at in first] == [4, 5, 6, 7, 7]
    np.testing.assert_allclose(logs[0][:, 2:], logs[1][:, 2:], rtol=2e-3)
    assert logs[0][:, 0].tolist() == list(range(1, 8))
