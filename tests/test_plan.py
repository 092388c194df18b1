"""The plan before the run: its prediction against the peak of a real run, refusals, automatic tiles."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import fake_cupy
import nets
import pytest
from pictures import write

import cvstyle
from cvstyle import Job, Options, machine, optimize, plan, process, stylize
from cvstyle.backends import opencl
from cvstyle.caffe.write import write_caffemodel, write_prototxt
from cvstyle.cli import main
from cvstyle.errors import OptionError
from cvstyle.graph import Network
from cvstyle.netdef import LayerDef, NetDef
from cvstyle.options import Compute
from cvstyle.run import loop, planner, probes


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    content, style = write(tmp_path_factory.mktemp("pictures"), content=(64, 48), style=(48, 48))
    return ["--content", content, "--style", style]


_RUN = """
import sys
from pathlib import Path
from cvstyle.cli import main
assert main(sys.argv[1:]) == 0
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is read from /proc, as on Linux")
@pytest.mark.parametrize("backend, more", [
    ("numpy", []), ("opencv", ["--tile-size", 448]), ("native", ["--optimizer", "adam"]),
    ("native", ["--style-scale", 1.7]),
    ("native", ["--gpu", "0,1", "--tile-size", 448, "--model", "wavelet"]),
    ("numpy", ["--gpu", "0,1", "--split", "layers"]),
], ids=str)  # fmt: skip
def test_predicted_peak_is_the_measured_one(pictures, tmp_path, backend, more):
    """Of a process of its own, within 15 %."""
    if backend == "native":
        from cvstyle.backends import native

        if native.Backend.unavailable_because():
            pytest.skip(f"{native.Backend.unavailable_because()}; the other backends are measured in the same way")
    # One thread: how many temporary arrays live at once is otherwise up to the scheduler.
    options = [*pictures, "--backend", backend, "--threads", 1, "--image-size", 560, "--num-iterations", 2, *more]
    options = [str(o) for o in options]
    environment = dict(os.environ, PYTHONPATH=str(Path(cvstyle.__file__).parents[1]))
    planned = subprocess.run(
        [sys.executable, "-m", "cvstyle", "plan", *options],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    predicted = int(re.search(r"memory +([\d,]+) MB", planned.stdout).group(1).replace(",", "")) * 1e6
    # The kernel counts what this process holds at the fork into the child's ru_maxrss, so the child reads its own peak.
    ran = subprocess.run(
        [sys.executable, "-c", _RUN, "run", *options, "--quiet", "--output", str(tmp_path / "out.png")],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert predicted == pytest.approx(int(ran.stdout) * 1024, rel=0.15)


@pytest.mark.skipif(
    opencl.Backend.unavailable_because() is not None, reason=f"no OpenCL here: {opencl.Backend.unavailable_because()}"
)
@pytest.mark.parametrize("split, tile, width, offload, computed", [
    (None, None, 16, None, True), (None, None, 16, None, False), ("layers", None, 16, None, False),
    ("tiles", None, 16, None, False), (None, 272, 16, None, False), (None, None, 4, None, False),
    (None, 272, 4, None, False), (None, 272, 4, "host", False),
])  # fmt: skip
def test_predicted_peak_of_devices(split, tile, width, offload, computed, pictures, monkeypatch):
    """The memory that each device's pool takes in a run. Only one run computes; the others count the same bytes."""
    if not computed:
        fake_cupy.compute_nothing(monkeypatch, opencl.Device)
    monkeypatch.setattr(probes, "PROBES", (64, 96))
    monkeypatch.setattr(loop, "CHECK", 3)  # a picture more is kept from a check on
    devices = [opencl.Backend(number) for number in range(2 if split else 1)]
    options = {
        "network": Network(nets.vgg(16, width, (64, 64), classifier=False), devices[0]), "devices": devices,
        "split": split, "multigpu_strategy": ["pool1"] if split == "layers" else None,
        "image_size": 128 if computed else 480,
        "content_layers": ["relu2_2"], "style_layers": ["relu1_1", "relu2_1"], "optimizer": "adam",
        "num_iterations": 4, "init": "image", "tile_size": tile, "offload": offload,
    }  # fmt: skip
    found, _ = plan(pictures[1], [pictures[3]], **options)
    assert (found.windows > 1) is (tile is not None or split == "tiles")
    assert [need.place for need in found.needs] == [*(["device 0", "device 1"] if split else ["device"]), "memory"]
    assert found.memory == sum(need.size for need in found.needs)
    for ops in devices:
        ops.pool.max_reserved = 0
    stylize(pictures[1], [pictures[3]], **options)
    for ops, need in zip(devices, found.needs):
        assert need.size == pytest.approx(ops.pool.max_reserved, rel=0.1)


@pytest.mark.skipif(
    opencl.Backend.unavailable_because() is not None, reason=f"no OpenCL here: {opencl.Backend.unavailable_because()}"
)
@pytest.mark.parametrize("chosen, pairs, more", [
    ({"compat": True}, 100, 0), ({"lbfgs_smooth": 0}, 20, 0), ({}, 20, 4 / 3), ({"lbfgs_num_correction": 7}, 7, 4 / 3),
    ({"compat": True, "scales": [160, 320], "scale_iterations": [40, 30]}, 30, 0),
], ids=str)  # fmt: skip
def test_the_history_that_is_planned_is_kept(chosen, pairs, more, pictures, monkeypatch):
    """With what the optimiser really takes, after two iterations of the last scale. The device computes nothing."""
    fake_cupy.compute_nothing(monkeypatch, opencl.Device)
    monkeypatch.setattr(probes, "PROBES", (64, 128))

    def end(iterate):
        if iterate.iteration >= (42 if "scales" in chosen else 2):
            raise optimize.Stop

    def vectors(history, more):
        return (2 * history + 3 + more) * 3 * 4 * 240 * 320

    ops = opencl.Backend()
    layer = LayerDef("half", "Pooling", ("data",), ("half",), {"kernel_size": 2, "stride": 2})
    options = {
        "network": Network(NetDef("net", {"data": None}, (layer,)), ops), "image_size": 320, "init": "image",
        "content_layers": ["half"], "style_layers": [], "num_iterations": 400, **chosen,
    }  # fmt: skip
    found, _ = plan(pictures[1], [pictures[3]], **options)
    stylize(pictures[1], [pictures[3]], callback=end, **options)
    assert found.needs[0].size == pytest.approx(ops.pool.max_reserved, rel=0.15)
    assert vectors(pairs, more) < ops.pool.max_allocated < vectors(pairs, more) + 15 * 3 * 4 * 240 * 320


def test_automatic_tiles_and_the_summary_of_a_run(pictures, tmp_path, capsys, monkeypatch):
    """With half of what the whole picture needs, tiles are chosen, and they do fit."""
    monkeypatch.setattr(probes, "PROBES", (64, 128))
    arguments = [*pictures, "--model", "wavelet", "--backend", "numpy", "--image-size", "900", "--num-iterations", "1"]
    assert main(["plan", *arguments]) == 0
    whole = capsys.readouterr().out
    assert re.search(r"tiles +none", whole)
    needed = int(re.search(r"memory +([\d,]+) MB", whole).group(1).replace(",", "")) * 1e6
    monkeypatch.setattr(machine, "available", lambda: int(needed * 0.75) - process.resident())
    assert main(["plan", *arguments]) == 1
    assert "does not fit" in capsys.readouterr().out
    assert main(["plan", *arguments, "--tile-size", "auto"]) == 0
    assert re.search(r"tiles +\d+ windows of", capsys.readouterr().out)


def test_what_cannot_fit_is_refused_with_the_options_that_would(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(probes, "PROBES", (64, 96))
    out = tmp_path / "out.png"
    assert main(["run", *pictures, "--image-size", "60000", "--output", str(out), "--backend", "numpy"]) == 2
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 1
    assert "60000×45000" in message and "--image-size" in message and "would fit" in message
    assert not out.exists()


@pytest.mark.parametrize("layer, tileable", [
    (LayerDef("out", "ReLU", ("data",), ("out",)), True), (LayerDef("out", "MVN", ("data",), ("out",)), False),
    (LayerDef("out", "BatchNorm", ("data",), ("out",), {"use_global_stats": False}), False),
], ids=["ReLU", "MVN", "BatchNorm"])  # fmt: skip
def test_tiles_are_advised_where_the_network_can_be_cut(layer, tileable, pictures, tmp_path, capsys, monkeypatch):
    """A map's own mean and variance need the whole map."""
    monkeypatch.setattr(probes, "PROBES", (64, 96))
    monkeypatch.setattr(machine, "available", lambda: 10**9)
    proto, model = (str(tmp_path / name) for name in ("net.prototxt", "net.caffemodel"))
    net = NetDef("net", {"data": None}, (layer,))
    write_prototxt(proto, net)
    write_caffemodel(model, net)
    arguments = [*pictures, "--proto", proto, "--model", model, "--content-layers", "out", "--style-layers", "out"]
    for size in ("100", "60000"):
        main(["plan", *arguments, "--image-size", size])
        largest = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("largest"))
        assert largest.endswith("would fit with --tile-size auto" if tileable else "would fit")
    assert main(["run", *arguments, "--image-size", "60000", "--output", str(tmp_path / "out.png")]) == 2
    assert ("--tile-size auto" in capsys.readouterr().err) is tileable


def test_the_library_takes_automatic_tiles(pictures, monkeypatch):
    monkeypatch.setattr(probes, "PROBES", (64, 96))
    result = stylize(
        pictures[1], [pictures[3]], backend="numpy", image_size=64, num_iterations=1, tile_size="auto",
    )  # fmt: skip
    assert result.iterations == 1
    with pytest.raises(OptionError, match="tile_size is 'many'"):
        stylize(pictures[1], [pictures[3]], tile_size="many")


def planner_of(pictures, **settings):
    """Of the embedded network."""
    options = Options.from_dict({"optimizer": "adam", "num_iterations": 10, **settings})
    return planner.Planner(Job(pictures[1], pictures[3], options=options, compute=Compute(backend="numpy")).setup())


@pytest.mark.parametrize("tile_size", [None, 400])
def test_a_margin_is_planned_for(tile_size, pictures, monkeypatch):
    """It costs what as many pixels more of the picture would, and is no part of the sizes that are told."""
    monkeypatch.setattr(probes, "PROBES", (64, 96))
    monkeypatch.setattr(machine, "available", lambda: 10**10)
    layers = {"content_layers": ["relu1"], "style_layers": ["relu2_1"], "style_scale": 0.01}
    maker = planner_of(pictures, image_size=600, margin=20, tile_size=tile_size, **layers)
    found, largest = maker.plan(), maker.largest()
    setup = maker.setup
    setup.sizes = setup.padded_sizes
    setup.margin = 0
    wider = maker.plan()
    assert [need.size for need in found.needs] == [need.size for need in wider.needs]
    assert (found.windows, found.window, found.seconds) == (wider.windows, wider.window, wider.seconds)
    assert (found.size, wider.size) == ((450, 600), (490, 640))
    setup.sizes = [(450, 600)]
    assert largest < maker.largest() < largest + 60


def test_time_of_tiles_counts_both_passes(pictures, monkeypatch):
    monkeypatch.setattr(probes, "PROBES", (64, 96))
    layers = {"content_layers": [], "style_layers": ["relu1", "relu2_1"], "margin": 0}
    maker = planner_of(pictures, image_size=1000, **layers)
    maker.costs = maker.costs._replace(seconds=1e-6)
    whole = maker.plan()
    assert whole.seconds == pytest.approx(0.75) and whole.total == pytest.approx(7.5)
    maker.setup.tile_size = 300
    tiled = maker.plan()
    pixels = tiled.windows * tiled.window[0] * tiled.window[1]
    assert tiled.seconds == pytest.approx(1e-6 * pixels * (1.5 - 0.5 / tiled.windows))
