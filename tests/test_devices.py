"""Several devices: layers or tiles on each give the loss and gradient of one, whatever the graph and the cuts."""

from __future__ import annotations

import shlex
from pathlib import Path

import nets
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_opencl_cli import arguments, files, gpus  # noqa: F401 (fixtures)
from test_tiles import DEEP, evaluate, graphs, noise, vgg

from cvstyle import Objective, images, optimize
from cvstyle.backends import cuda, native, opencl
from cvstyle.backends.reference import Backend
from cvstyle.cli import main
from cvstyle.errors import CvstyleError, OptionError
from cvstyle.graph import Network
from cvstyle.graph.placement import balanced_cuts
from cvstyle.netdef import NetDef
from cvstyle.run import setup as run_setup

needs_opencl = pytest.mark.skipif(
    opencl.Backend.unavailable_because() is not None, reason=f"no OpenCL here: {opencl.Backend.unavailable_because()}"
)
needs_native = pytest.mark.skipif(
    native.Backend.unavailable_because() is not None,
    reason=f"{native.Backend.unavailable_because()}; numpy runs the same",
)


def double():
    return Backend("float64", threads=1)


def assert_equal(found, expected, tolerance):
    """(loss, gradient, objective) of `evaluate`, twice."""
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert found[2].losses == pytest.approx(expected[2].losses, rel=tolerance)
    assert np.linalg.norm(found[1] - expected[1]) <= tolerance * np.linalg.norm(expected[1])


# Layers


@pytest.mark.parametrize("options", [
    {}, {"pooling": "avg"}, {"normalize_gradients": True}, {"content_layers": []}, {"style_layers": []},
    {"styles": [(60, 41), (33, 80)], "style_blend_weights": [1, 3]},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("tile", [None, 200])
def test_every_option_with_layers_on_three_devices(options, tile):
    size = (51, 67) if tile is None else (211, 230)
    split = vgg(double()).partition([double() for _ in range(3)], ["relu1_1", "conv3_1"])
    options = {"tile_size": tile, **DEEP, **options}
    expected, found = (evaluate(net, size, **options) for net in (vgg(double()), split))
    assert_equal(found, expected, 1e-12)
    assert len(found[2].program.devices) == 3
    assert expected[2].capturable is (tile is None) and not found[2].capturable


def test_every_cut_of_vgg_gives_the_same():
    """Within a convolution and its ReLU too, which then are not one."""
    net = vgg(double())
    expected = evaluate(net, (33, 30), None, **DEEP)
    for cut in range(1, net.layer_names.index("relu5_1") + 1):
        found = evaluate(net.partition([double(), double()], [cut]), (33, 30), None, **DEEP)
        assert_equal(found, expected, 1e-12)
        assert len(found[2].program.devices) == 2


def test_layers_and_picture_apart(tmp_path):
    """Where the picture lives in files."""
    from cvstyle.backends.mapped import MappedPool

    home = Backend("float64", pool=MappedPool(str(tmp_path)))
    split = vgg(double()).partition([double(), double()], ["pool2"])
    for tile, size in ((None, (51, 67)), (200, (211, 230))):
        found = evaluate(split, size, tile, home=home, **DEEP)
        assert_equal(found, evaluate(vgg(double()), size, tile, **DEEP), 1e-12)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    graphs(), st.tuples(st.integers(9, 30), st.integers(9, 30)), st.lists(st.integers(1, 6), max_size=3), st.booleans(),
)  # fmt: skip
def test_random_graphs_and_cuts(case, size, cuts, normalize):
    layers, taps = case
    cuts = sorted({cut for cut in cuts if cut < len(layers)})
    definition = NetDef("net", {"data": (1, 3, *size)}, layers, source="net.prototxt")
    try:
        net = Network(nets.with_weights(definition, 0), double())
        net.program(taps).shapes(size)
    except CvstyleError:
        assume(False)
    split = net.partition([double() for _ in range(len(cuts) + 1)], cuts)
    options = {
        "styles": [size], "content_layers": taps[:1], "style_layers": taps[-2:], "normalize_gradients": normalize,
    }  # fmt: skip
    assert_equal(evaluate(split, size, None, **options), evaluate(net, size, None, **options), 1e-10)


def test_a_value_goes_to_a_device_once():
    """GoogLeNet's four branches read one map; with the join it takes one way there, and one back for the gradient."""

    class Counting(Backend):
        received = 0

        def receive(self, array):
            type(self).received += 1
            return super().receive(array)

    first, second = Counting("float64", threads=1), Counting("float64", threads=1)
    program = Network(nets.googlenet(16, (64, 64)), first).partition([first, second], ["pool2/3x3_s2"]).program(
        ["inception_3a/output"]
    )
    features = program.forward(first.asarray(noise(1, 3, 64, 64)))
    assert Counting.received == 1
    features.backward(lambda name, gradient: features.pop(name))
    assert Counting.received == 2


def test_memory_is_spread():
    """No device needs what one needs for all layers, and the balanced cut is about as good as the best."""

    def most(*cuts):
        devices = [Backend(threads=1) for _ in range(len(cuts) + 1)]
        evaluate(vgg(devices[0]).partition(devices, cuts), (320, 320), None, **DEEP)
        return max(ops.pool.reserved for ops in devices)

    program = vgg(Backend()).program(["relu1_1", "relu3_1", "relu4_2", "relu5_1", "conv2_1", "pool1"])
    balanced = most(*balanced_cuts(program, (320, 320), 2))
    assert balanced < 0.95 * most()
    assert balanced < 1.2 * min(map(most, ["conv1_1", "relu1_2", "relu2_1", "relu3_1", "relu5_1"]))


def test_balanced_parts():
    """By hand: every choice of two cuts of five steps."""
    from itertools import combinations
    from types import SimpleNamespace

    steps = [("a", 5, 9), ("b", 1, 20), ("c", 7, 2), ("d", 3, 3), ("e", 8, 1)]

    def worst(ends, first):
        parts = [steps[i:j] for i, j in zip((0, *ends), (*ends, 5))]
        held = [sum(p[1] for p in part) + max(p[2] for p in part) for part in parts]
        return max(held[0] + first, *held[1:])

    program = SimpleNamespace(memory=lambda size: steps)
    for first in (0, 12):
        found = ["abcde".index(name) + 1 for name in balanced_cuts(program, (1, 1), 3, first)]
        assert worst(found, first) == min(worst(c, first) for c in combinations(range(1, 5), 2))
    with pytest.raises(OptionError, match="6 devices"):
        balanced_cuts(program, (1, 1), 6)


# OpenCL and the CPU's engine


@pytest.fixture(scope="module")
def pair(device):
    """Two devices of OpenCL, or of the backend under test."""
    from cvstyle import backends

    return [device, backends.get(device.name, 1)]


def small(ops, width=16):
    return Network(nets.vgg(16, width, (32, 32), classifier=False), ops)


SMALL = {"content_layers": ["relu2_2"], "style_layers": ["relu1_1", "relu3_1"], "tv_weight": 0.1}


@needs_opencl
@pytest.mark.parametrize("options", [
    {}, {"normalize_gradients": True, "styles": [(30, 30), (41, 35)]}, {"home": Backend(threads=1)},
    {"tile_size": 64}, {"tile_size": 64, "normalize_gradients": True},
], ids=["plain", "normalized", "offloaded", "tiles", "normalized tiles"])  # fmt: skip
@pytest.mark.parametrize("split", ["layers", "tiles"])
def test_two_opencl_devices(pair, split, options):
    net, size, losses = small(pair[0]), (70, 90), {n: v for n, v in options.items() if n not in ("tile_size", "home")}
    expected = evaluate(net, size, None, **SMALL | losses)
    if split == "tiles":
        found = evaluate(net, size, devices=pair, **{"tile_size": 64} | SMALL | options)
    else:
        found = evaluate(net.partition(pair, ["relu1_2"]), size, **{"tile_size": None} | SMALL | options)
        assert found[2].program.devices == pair
    assert_equal(found, expected, 2e-5)


@needs_opencl
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 11), st.booleans())
def test_cuts_between_opencl_devices(pair, cut, swapped):
    expected = evaluate(small(pair[0]), (37, 41), None, **SMALL)
    found = evaluate(small(pair[0]).partition(pair[::-1] if swapped else pair, [cut]), (37, 41), None, **SMALL)
    assert_equal(found, expected, 2e-5)


@needs_opencl
def test_a_cpu_and_an_opencl_device(pair):
    devices = [Backend(threads=1), pair[1]]
    expected = evaluate(small(Backend()), (37, 41), None, **SMALL)
    for order in (devices, devices[::-1]):
        assert_equal(evaluate(small(order[0]).partition(order, ["pool1"]), (37, 41), None, **SMALL), expected, 2e-5)


@needs_native
@pytest.mark.parametrize("options", [{}, {"normalize_gradients": True}], ids=str)
def test_two_shares_of_the_processor(options):
    devices = [native.Backend(threads=n) for n in (1, 2)]
    options = SMALL | options
    expected = evaluate(small(native.Backend(), 8), (70, 90), None, **options)
    for cut in ("conv1_2", "relu1_2", "pool1", "conv3_1"):
        found = evaluate(small(devices[0], 8).partition(devices, [cut]), (70, 90), None, **options)
        assert_equal(found, expected, 1e-4 if cut.startswith("conv") else 1e-6)


def test_gpus_copy_to_each_other_without_the_host(device, gpus):  # noqa: F811
    """Through cudaMemcpyPeer, which waits for both queues."""
    gpus = [cuda.Backend(number) for number in (0, 1)]
    split = small(gpus[0]).partition(gpus, ["pool1"])
    objective = Objective(split, noise(3, 37, 41), [noise(3, 30, 30, seed=2)], **SMALL)
    x = gpus[0].asarray(noise(1, 3, 37, 41, seed=1))
    before = [gpu.downloads for gpu in gpus]
    optimize.minimize("adam", objective, x, 3)
    assert [gpu.downloads for gpu in gpus] == before
    alone = Objective(small(device), noise(3, 37, 41), [noise(3, 30, 30, seed=2)], **SMALL)
    y = device.asarray(noise(1, 3, 37, 41, seed=1))
    optimize.minimize("adam", alone, y, 3)
    np.testing.assert_allclose(gpus[0].to_host(x), device.to_host(y), atol=1e-3)


# From the command line


def command(paths, output, *more):
    return arguments(paths, output, "--num-iterations", 2, "--image-size", 120, *more)


def stylized(paths, folder, *more):
    out = folder / "out.png"
    assert main(command(paths, out, *more)) == 0
    return images.read(out).rgb


def test_splits_from_the_command_line(files, tmp_path):  # noqa: F811
    alone = stylized(files, tmp_path, "--backend", "numpy")
    for more in (
        ["--gpu", "0,1", "--multigpu-strategy", "3"], ["-gpu", "0,1", "-multigpu_strategy", "pool1"],
        ["--gpu", "0,1", "--split", "layers"], ["--gpu", "0,1,2", "--split", "layers", "--tile-size", "auto"],
    ):  # fmt: skip
        assert np.abs(stylized(files, tmp_path, "--backend", "numpy", *more) - alone).max() <= 1
    shallow = ["--style-layers", "relu2_1", "--content-layers", "relu2_1"]
    alone = stylized(files, tmp_path, "--backend", "numpy", *shallow)
    for backend, split in (("numpy", "tiles"), ("opencl", "tiles"), ("opencl", "layers")):
        if backend == "numpy" or not opencl.Backend.unavailable_because():
            found = stylized(files, tmp_path, "--backend", backend, "--gpu", "0,1", "--split", split, *shallow)
            assert np.abs(found - alone).mean() < 0.5


def test_the_first_device_also_has_picture_and_optimiser(files, tmp_path, monkeypatch):  # noqa: F811
    """So it gets fewer layers, unless the host has them."""
    held, balanced = [], balanced_cuts

    def looked(program, size, count, first_has):
        held.append(first_has)
        return balanced(program, size, count, first_has)

    monkeypatch.setattr(run_setup, "balanced_cuts", looked)
    two = ["--backend", "numpy", "--gpu", "0,1", "--split", "layers", "--num-iterations", 4, "--margin", 0]
    for more in (["--offload"], ["--optimizer", "adam"], ["--lbfgs-num-correction", 1], []):
        stylized(files, tmp_path, *two, *more)
    picture = 4 * 3 * 120 * 90
    assert [size / picture for size in held] == [0, 4 + 2, 4 + 4, 4 + 10]


@needs_opencl
def test_offloading_from_a_device(files, tmp_path):  # noqa: F811
    """The device computes gradients; picture, optimiser and the content's features stay on the host, or in files."""
    shallow = ["--style-layers", "relu1_1,relu2_1", "--content-layers", "relu2_1", "--num-iterations", 5]
    alone, memory, folder, split = (
        stylized(files, tmp_path, "--backend", "opencl", *shallow, *more)
        for more in ([], ["--offload"], ["--offload", tmp_path], ["--offload", "--gpu", "0,1", "--split", "layers"])
    )
    np.testing.assert_array_equal(folder, memory)
    assert np.abs(memory - alone).max() <= 1 and np.abs(split - alone).max() <= 1


@pytest.mark.parametrize("more, named", [
    (["--gpu", "0,1", "--multigpu-strategy", "3,6"], ["3,6", "3 parts", "2 devices"]),
    (["--gpu", "0,1", "--multigpu-strategy", "99"], ["after layer 99", "1 to "]),
    (["--gpu", "0,1", "--multigpu-strategy", "relu9_1"], ["relu9_1", "did you mean"]),
    (["--gpu", "0,1,2", "--multigpu-strategy", "pool2,pool1"], ["pool2,pool1", "order"]),
    (["--gpu", "0,1,2", "--multigpu-strategy", "9,3"], ["9,3", "ascending"]),
    (["--gpu", "0,1,2", "--multigpu-strategy", "9,9"], ["9,9", "ascending"]),
    (["--gpu", "0,1", "--multigpu-strategy", "0"], ["'0'", "ascending"]),
    (["--gpu", "0,1", "--multigpu-strategy", "pool4", "--style-layers", "relu2_1", "--content-layers", "relu2_1"],
     ["pool4", "1 of 2 devices"]),
    (["--gpu", "0,1", "--split", "tiles", "--multigpu-strategy", "3"], ["leave one"]),
    (["--gpu", "0,1", "--split", "rows"], ["rows", "layers"]),
    (["--gpu", "0,7", "--backend", "opencl"], ["7", "there is 0"]),
], ids=lambda v: " ".join(v[2:4]) if v[0] == "--gpu" else "")  # fmt: skip
def test_bad_splits_are_one_clear_line(files, tmp_path, capsys, more, named):  # noqa: F811
    if "opencl" in more and opencl.Backend.unavailable_because():
        pytest.skip(f"no OpenCL here: {opencl.Backend.unavailable_because()}")
    backend = [] if "--backend" in more else ["--backend", "numpy"]
    assert main(command(files, tmp_path / "out.png", *backend, *more)) == 2
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 1 and message.startswith("cvstyle: ")
    for part in named:
        assert part in message
    assert not list(tmp_path.iterdir())


def test_the_recipe_for_four_gpus_as_documented(files, tmp_path, monkeypatch):  # noqa: F811
    """docs/large-pictures.md's command with every flag; files and numbers are smaller ones."""
    text = (Path(__file__).parents[1] / "docs" / "large-pictures.md").read_text("utf-8")
    line = text.partition("    cvstyle run --content hoover")[2].partition("\n\n")[0]
    words = shlex.split("run --content hoover" + line.replace("\\\n", " "))
    smaller = {
        "hoovertowernight.jpg": files["content"], "starry_night_gigapixel.jpg": files["style"],
        "VGG_ILSVRC_19_layers_deploy.prototxt": files["proto"], "VGG_ILSVRC_19_layers.caffemodel": files["model"],
        "256,512,1024,2048,3620": "24,32,48,64,200", "1000,500,200,100,50": "3,2,2,1,2",
    }  # fmt: skip
    assert set(smaller) < set(words)
    monkeypatch.chdir(tmp_path)
    command = [smaller.get(word, word) for word in words] + ["--seed", "1"]
    pictures = []
    for more in ([], ["--gpu", "0,1,2,3"], ["--gpu", "0,1,2,3", "--multigpu-strategy", "3,6,12"]):
        backend = ["--backend", "numpy"] if more else []
        assert main([*command, *more, *backend, "--resume"]) == 0
        pictures.append(images.read("out.png").rgb)
        assert (tmp_path / "run.npz").exists()
        (tmp_path / "run.npz").unlink()
    assert [p.shape for p in pictures] == [(150, 200, 3)] * 3
    assert np.abs(pictures[1] - pictures[2]).mean() < 0.5
