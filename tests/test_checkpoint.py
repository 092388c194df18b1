"""Checkpoints and scales: a run that is killed goes on to the same bytes; scales start where the one before ended."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import nets
import numpy as np
import pytest
import runs
from reference import make_checkpoints

from cvstyle import Objective, Options, checkpoint, images, stylize
from cvstyle.backends import native, opencl
from cvstyle.cli import main
from cvstyle.errors import CheckpointError, OptionError
from cvstyle.fields import LAYERS as LAYERS_KIND
from cvstyle.fields import NETWORK, option
from cvstyle.optimize import Stop, adam
from cvstyle.run import scale
from cvstyle.run.loop import Loop
from cvstyle.run.scale import Scale

needs_opencl = pytest.mark.skipif(
    opencl.Backend.unavailable_because() is not None, reason=f"no OpenCL here: {opencl.Backend.unavailable_because()}"
)
LAYERS = {"content_layers": ["relu2_2"], "style_layers": ["relu1_1", "relu3_1"]}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    net = nets.vgg(16, 16, (64, 64), classifier=False)
    return runs.files(tmp_path_factory.mktemp("files"), net, content=(48, 36), style=(40, 44))


def command(files, output, *more):
    layers = ("--content-layers", "relu2_2", "--style-layers", "relu1_1,relu3_1")
    return runs.command(files, output, "--image-size", 48, "--seed", 3, *layers, "--init", "random", *more)


def start(arguments):
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.Popen(
        [sys.executable, "-m", "cvstyle", *arguments], stderr=subprocess.PIPE, text=True, env=environment
    )


def run(files, **settings):
    return stylize(
        files["content"], [files["style"]], proto=files["proto"], model=files["model"],
        **{"backend": "numpy", "image_size": 48, "seed": 3, "init": "random", "margin": 0, **LAYERS, **settings},
    )  # fmt: skip


@pytest.mark.parametrize("more", [
    ["--optimizer", "lbfgs", "--lbfgs-num-correction", 7],
    ["--optimizer", "adam", "--scales", "24,32,48", "--average-iterates", 0.9],
], ids=lambda more: more[1])  # fmt: skip
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(files, tmp_path, more):
    rng = random.Random(5)
    more = [*more, "--num-iterations", 200, "--checkpoint-iter", 3, "--backend", "numpy"]
    whole = tmp_path / "whole.npz"
    assert main(command(files, tmp_path / "whole.png", *more, "--checkpoint", whole, "--quiet")) == 0
    broken, kills = tmp_path / "broken.npz", 0
    arguments = command(files, tmp_path / "broken.png", *more, "--checkpoint", broken, "--resume")
    while True:
        process = start(arguments)
        changed, begun = os.path.getmtime(broken) if broken.exists() else 0, time.monotonic()
        while kills < 3 and process.poll() is None and time.monotonic() < begun + 60:
            if broken.exists() and os.path.getmtime(broken) != changed:
                time.sleep(rng.uniform(0, 0.05))
                process.kill()
                break
            time.sleep(0.002)
        _, err = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
        kills += 1
    assert kills > 1
    (_, known), (_, found) = checkpoint.load(str(whole)), checkpoint.load(str(broken))
    assert set(found) == set(known)
    assert all(found[name].tobytes() == known[name].tobytes() for name in known)
    np.testing.assert_array_equal(images.read(tmp_path / "broken.png").rgb, images.read(tmp_path / "whole.png").rgb)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_writes_a_checkpoint(files, tmp_path, number):
    path, log = tmp_path / "run.npz", tmp_path / "log.csv"
    arguments = command(
        files, tmp_path / "out.png", "--num-iterations", 100000, "--checkpoint", path, "--checkpoint-iter", 10**6,
        "--log", log, "--lbfgs-num-correction", 5,
    )  # fmt: skip
    process = start(arguments)
    for _ in range(600):
        if process.poll() is not None or (log.exists() and log.read_text().count("\n") > 3):
            break
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume" in err and "Traceback" not in err
    header, _ = checkpoint.load(str(path))
    assert header["done"] > 2


@pytest.mark.parametrize("optimizer, backend", [("lbfgs", "numpy"), ("adam", "numpy"), ("lbfgs", "native")])
def test_resuming_within_a_process(files, tmp_path, optimizer, backend):
    """Also further than the first run was meant to go, which had room for a shorter history."""
    if backend == "native" and native.Backend.unavailable_because():
        pytest.skip(f"the native backend does not work here: {native.Backend.unavailable_because()}")
    settings = {"optimizer": optimizer, "checkpoint_iter": 100, "lbfgs_num_correction": 8, "backend": backend}
    whole = run(files, num_iterations=12, **settings)
    path = str(tmp_path / "run.npz")
    run(files, num_iterations=5, checkpoint=path, **settings)

    def stop(iterate):
        if iterate.iteration == 8:
            raise Stop

    part = run(files, num_iterations=12, checkpoint=path, resume=True, callback=stop, **settings)
    assert part.iterations == 8
    rest = run(files, num_iterations=12, checkpoint=path, resume=True, **settings)
    assert (rest.iterations, rest.seed) == (12, 3)
    assert rest.picture.rgb.tobytes() == whole.picture.rgb.tobytes()
    again = run(files, num_iterations=12, checkpoint=path, resume=True, **settings)
    assert again.picture.rgb.tobytes() == whole.picture.rgb.tobytes()
    assert again.losses == rest.losses


@pytest.mark.skipif(
    native.Backend.unavailable_because() is not None,
    reason=f"the native backend does not work here: {native.Backend.unavailable_because()}",
)
def test_a_history_of_another_kind_is_refused(files, tmp_path):
    """The native backend's is bfloat16."""
    path = str(tmp_path / "run.npz")
    run(files, num_iterations=2, checkpoint=path)
    with pytest.raises(CheckpointError, match="another backend, by the bytes of a value in its L-BFGS history"):
        run(files, num_iterations=3, checkpoint=path, resume=True, backend="native")


def test_a_checkpoint_from_before_there_was_an_option(files, tmp_path):
    """It had the default; another value is refused."""
    @dataclass(kw_only=True)
    class Later(Options):
        more_layers: list | None = option(  # noqa: RUF009
            None, "more", group=NETWORK, kind=LAYERS_KIND, identity=True
        )

    path = str(tmp_path / "run.npz")
    run(files, checkpoint=path, image_size=24, num_iterations=3)
    options = {"image_size": 24, "num_iterations": 5, "init": "random", "margin": 0, "checkpoint": path,
               "resume": True, **LAYERS}  # fmt: skip

    def resumed(**more):
        given = {"proto": files["proto"], "model": files["model"], "backend": "numpy"}
        return stylize(files["content"], [files["style"]], options=Later(**options, **more), **given)

    assert resumed().iterations == 5
    with pytest.raises(CheckpointError, match="other more_layers"):
        resumed(more_layers="relu1_1")


@pytest.mark.parametrize("name", make_checkpoints.CASES)
def test_a_checkpoint_of_the_version_before(tmp_path, name, monkeypatch):
    """Goes on as the run would have that was not interrupted; another machine may round otherwise."""
    content, style = make_checkpoints.pictures(tmp_path)
    options = make_checkpoints.COMMON | make_checkpoints.CASES[name][0]
    # Its network, and its defaults for that.
    options |= {"balance": "none", "content_weight": 12, "tv_weight": 1e-3}
    options["style_layers"] = "octave1,octave2,octave3,octave4,octave5:0.1"
    path = tmp_path / f"{name}.npz"
    shutil.copy(Path(make_checkpoints.__file__).with_name("checkpoints") / path.name, path)
    done = []
    options["model"] = "wavelet"
    resumed = stylize(content, [style], checkpoint=str(path), resume=True, callback=done.append, **options)
    monkeypatch.setattr(scale, "_GRAIN", 0)  # it began without noise
    whole = stylize(content, [style], **options)
    assert 0 < len(done) < whole.iterations == resumed.iterations
    assert resumed.losses == pytest.approx(whole.losses, rel=1e-3)
    assert np.abs(resumed.picture.rgb - whole.picture.rgb).max() < 0.1


def test_a_checkpoint_from_before_long_waves_were_favoured(files, tmp_path):
    """Its settings say nothing of it: that is a run without."""
    path = str(tmp_path / "run.npz")
    run(files, num_iterations=2, lbfgs_smooth=0.0, checkpoint=path)
    header, arrays = checkpoint.load(path)
    del header["settings"]["lbfgs_smooth"]
    checkpoint.save(path, header, arrays)
    with pytest.raises(CheckpointError, match=r"another lbfgs_smooth \(None; here 0\.5\)"):
        run(files, num_iterations=3, checkpoint=path, resume=True)
    assert run(files, num_iterations=3, lbfgs_smooth=0.0, checkpoint=path, resume=True).iterations == 3


def test_scipy_starts_anew_from_the_checkpoints_picture(files, tmp_path, capsys):
    path = tmp_path / "run.npz"
    more = ["--optimizer", "lbfgsb", "--checkpoint", path]
    assert main(command(files, tmp_path / "a.png", *more, "--num-iterations", 4)) == 0
    assert main(command(files, tmp_path / "a.png", *more, "--num-iterations", 9, "--resume")) == 0
    captured = capsys.readouterr()
    assert "starts anew" in captured.err
    assert "9 iterations" in captured.out


def test_one_array_at_a_time_is_on_the_host(tmp_path):
    """What a device downloads for a checkpoint is the largest array, not all of them."""
    alive, most = set(), []

    def to_host(number):
        array = np.full(1000, number)
        alive.add(number)
        most.append(len(alive))
        weakref.finalize(array, alive.discard, number)
        return array

    checkpoint.save(str(tmp_path / "run.npz"), {}, {f"a{n}": n for n in range(5)}, to_host)
    arrays = checkpoint.load(str(tmp_path / "run.npz"))[1]
    assert most == [1] * 5 and [int(arrays[f"a{n}"][0]) for n in range(5)] == [*range(5)]


def test_a_whole_checkpoint_survives_a_disk_that_fills(files, tmp_path, monkeypatch):
    path = str(tmp_path / "run.npz")
    checkpoint.save(path, {"done": 1}, {"x": np.arange(5)})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save(path, {"done": 2}, {"x": np.arange(6)})
    assert checkpoint.load(path)[0]["done"] == 1
    assert os.listdir(tmp_path) == ["run.npz"]


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(files, tmp_path, monkeypatch, capsys):
    """Nor is it promised after Ctrl-C, unless there is one from before."""
    path, out, save = tmp_path / "run.npz", tmp_path / "out.png", checkpoint.save

    def full(path, header, *rest):
        if header["done"] > good:
            raise CheckpointError(f"{path}: no room")
        save(path, header, *rest)

    monkeypatch.setattr(checkpoint, "save", full)
    good = 0
    more = ["--num-iterations", 6, "--checkpoint", path, "--checkpoint-iter", 2]
    assert main(command(files, out, *more)) == 0
    assert capsys.readouterr().err.count("no room; the run goes on") == 4  # once more at the end
    assert images.read(out).rgb.shape == (36, 48, 3) and not path.exists()

    updated_average = Loop._updated_average

    def interrupt(self, x):
        if self.state.done == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return updated_average(self, x)

    monkeypatch.setattr(Loop, "_updated_average", interrupt)
    for promise in (False, True):
        good = 3 if promise else 0
        assert main(command(files, out, *more)) == 130
        assert ("from iteration 2 with --resume" in capsys.readouterr().err) == promise


@pytest.mark.parametrize("backend", ["numpy", pytest.param("opencl", marks=needs_opencl)])
def test_numbers_that_are_not_finite_replace_no_checkpoint(files, tmp_path, monkeypatch, backend):
    """Nor where a device's losses are not looked at in time."""
    path, step = str(tmp_path / "run.npz"), adam._step

    def spoiled(ops, x, gradient, state, count, rate):
        step(ops, x, gradient, state, count, math.nan if state.step == 5 else rate)

    monkeypatch.setattr(adam, "_step", spoiled)
    settings = {
        "optimizer": "adam", "num_iterations": 20, "checkpoint_iter": 1, "backend": backend, "image_size": 24
    }  # fmt: skip
    result = run(files, checkpoint=path, **settings)
    assert "nan" in result.stopped and result.checkpoint == 5
    assert np.isfinite(result.picture.rgb).all()
    assert np.isfinite(checkpoint.load(path)[1]["x"]).all()


def test_an_interrupt_while_an_array_is_freed_is_not_lost(files, tmp_path, monkeypatch, capsys):
    """Python ignores what is raised in __del__, and says so at length."""
    updated_average = Loop._updated_average

    class Freed:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)

    def interrupt(self, x):
        if self.state.done == 4:
            Freed()
        return updated_average(self, x)

    monkeypatch.setattr(Loop, "_updated_average", interrupt)
    assert main(command(files, tmp_path / "out.png", "--num-iterations", 60, "--backend", "numpy")) == 130
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and "interrupted after 5 iterations" in err[0]
    assert (tmp_path / "out.png").exists()


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    writer = "import os, sys; from cvstyle import paths\nwith paths.atomic_write(sys.argv[1]): os._exit(9)"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    for name in ("other.npz", "run.npz"):
        subprocess.run([sys.executable, "-c", writer, tmp_path / name], env=environment)
    assert len(os.listdir(tmp_path)) == 2
    checkpoint.save(str(tmp_path / "run.npz"), {"done": 1}, {"x": np.arange(5)})
    (left,) = set(os.listdir(tmp_path)) - {"run.npz"}
    checkpoint.save(str(tmp_path / "other.npz"), {"done": 1}, {"x": np.arange(5)})
    assert left.startswith(".") and sorted(os.listdir(tmp_path)) == ["other.npz", "run.npz"]


def test_any_damage_to_a_checkpoint_is_found(tmp_path):
    """Bytes changed at random anywhere: it is refused, or holds what it held."""
    path, rng = tmp_path / "run.npz", random.Random(1)
    arrays = {"x": np.arange(300, dtype=np.float32), "state.m": np.zeros((2, 3), np.float32)}
    checkpoint.save(str(path), {"done": 1}, arrays)
    data, refused = path.read_bytes(), 0
    for _ in range(1500):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 2, 5])):
            at = rng.randrange(len(data)) if rng.random() < 0.3 else len(data) - 1 - rng.randrange(400)
            damaged[at] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            header, found = checkpoint.load(str(path))
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert header["done"] == 1 and set(found) == set(arrays)
            assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    assert refused > 1000


@pytest.fixture(scope="module")
def contents(files, tmp_path_factory):
    """Bytes of a file by name: a checkpoint of three iterations, half of it, and files that are no checkpoints."""
    folder = tmp_path_factory.mktemp("checkpoints")
    path = folder / "run.npz"
    assert main(command(files, folder / "out.png", "--num-iterations", 3, "--checkpoint", path, "--quiet")) == 0
    np.save(folder / "array.npy", np.arange(3))
    np.savez(folder / "other.npz", header=np.frombuffer(b"[1]", np.uint8))
    good = path.read_bytes()
    return {
        "good": good, "half": good[: len(good) // 2], "empty": b"", "text": b"hello",
        "array": (folder / "array.npy").read_bytes(), "other": (folder / "other.npz").read_bytes(),
    }  # fmt: skip


@pytest.mark.parametrize("change, content, named", [
    (["--resume"], "array", ["no checkpoint"]),
    (["--resume"], "other", ["no checkpoint"]),
    (["--resume", "--num-iterations", 2], "good", ["iteration 3"]),
    ([], "good", ["exists", "--resume"]),
    (["--resume", "--image-size", 40], "good", ["scales"]),
    (["--resume", "--style-weight", 3], "good", ["style_weight", "3"]),
    (["--resume", "--optimizer", "adam"], "good", ["optimizer"]),
    (["--resume", "--content", "{style}"], "good", ["content picture"]),
    (["--resume", "--pooling", "avg"], "good", ["pooling"]),
    (["--resume", "--proto", "{proto}", "--model", "{model}"], "good", ["network"]),
    (["--resume"], "half", ["truncated"]),
    (["--resume"], "empty", ["truncated"]),
    (["--resume"], "text", ["no checkpoint"]),
    (["--checkpoint", "{folder}/no/run.npz"], "good", ["folder"]),
    (["--checkpoint", "{folder}"], "good", ["place"]),
    (["--checkpoint-iter", 0], "good", ["--checkpoint-iter"]),
    (["--scales", "64,32"], "good", ["ascend"]),
    (["--average-iterates", 1], "good", ["--avg-decay", "below 1"]),
    (["--resume", "--average-iterates", 0.5], "good", ["average_iterates"]),
    (["--scales", "x"], "good", ["'x'"]),
    (["--num-iterations", "3,4"], "good", ["3,4"]),
    (["--tile-size", "0"], "good", ["0"]),
    (["--resume", "--gpu", "0,0"], "good", ["once"]),
    (["--tile-size", "20", "--resume"], "good", ["relu3_1", "tile size of"]),
], ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value)))  # fmt: skip
def test_bad_checkpoints_are_one_clear_line_and_nothing_is_lost(
    files, contents, tmp_path, capsys, change, content, named
):  # fmt: skip
    path = tmp_path / "run.npz"
    path.write_bytes(contents[content])
    places = {"style": files["style"], "folder": tmp_path}
    if "{proto}" in change:
        places["proto"], places["model"] = nets.write(nets.vgg(16, 32, (64, 64), classifier=False), tmp_path)
    change = [str(word).format(**places) for word in change]
    base = ["--num-iterations", 3, "--checkpoint", path, "--quiet"]
    assert main(command(files, tmp_path / "out.png", *base, *change)) == 2
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 1 and message.startswith("cvstyle: ")
    for part in named:
        assert part in message
    assert path.read_bytes() == contents[content]


def test_resume_needs_a_checkpoint(files):
    with pytest.raises(OptionError, match="checkpoint"):
        run(files, resume=True, num_iterations=1)


def test_layers_may_be_pairs(files, tmp_path):
    """(name, factor), as `Objective` takes them, name the same layers as text does."""
    path = str(tmp_path / "run.npz")
    layers = {"content_layers": [("relu2_2", 1.0)], "style_layers": [("relu1_1", 2.0), ("relu3_1", 1.0)]}
    pairs = run(files, num_iterations=2, checkpoint=path, **layers)
    text = run(files, num_iterations=2, style_layers=["relu1_1:2", "relu3_1"])
    np.testing.assert_array_equal(pairs.picture.rgb, text.picture.rgb)
    assert checkpoint.load(path)[0]["done"] == 2


def test_the_file_is_plain_numpy(files, tmp_path):
    path = str(tmp_path / "run.npz")
    run(files, num_iterations=3, optimizer="adam", checkpoint=path)
    with np.load(path, allow_pickle=False) as data:
        assert data["x"].shape == data["state.m"].shape == (1, 3, 36, 48)
        assert json.loads(data["header"].tobytes())["numbers"] == {"step": 3}


def test_the_average_of_the_iterates(files, tmp_path):
    path, iterates = str(tmp_path / "run.npz"), []
    settings = {"optimizer": "adam", "checkpoint": path, "checkpoint_iter": 1, "average_iterates": 0.8}
    result = run(files, num_iterations=6, callback=lambda i: iterates.append(checkpoint.load(path)[1]["x"]), **settings)
    average = np.zeros_like(iterates[0], dtype=np.float64)
    for x in iterates:
        average = 0.8 * average + 0.2 * x
    rgb = images.deprocess((average / (1 - 0.8 ** len(iterates)))[0].astype(np.float32), pixel_range=255.0)
    np.testing.assert_allclose(result.picture.rgb, rgb, atol=1e-3)
    last = images.deprocess(iterates[-1][0], pixel_range=255.0)
    assert np.abs(last - rgb).mean() > 0.1


# Scales


def test_each_scale_starts_from_the_one_before(files):
    sizes, first_losses = [], {}

    def look(iterate):
        sizes.append(iterate.picture().rgb.shape[1])
        first_losses.setdefault(sizes[-1], iterate.loss)

    result = run(files, scales=[24, 48], scale_iterations=[20, 3], callback=look)
    assert sizes == [24] * 20 + [48] * 3
    assert result.iterations == 23
    assert result.picture.rgb.shape == (36, 48, 3)
    noise = []
    run(files, num_iterations=1, callback=lambda iterate: noise.append(iterate.loss))
    assert first_losses[48] < 0.9 * noise[0]


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgsb", "adam"])
def test_an_interrupt_between_two_scales_leaves_the_result_of_the_first(files, monkeypatch, optimizer):
    settings, make = {"optimizer": optimizer, "average_iterates": 0.5}, Scale.__init__

    def interrupted(self, setup, index):
        if setup.schedule[index][0] == 48:
            raise KeyboardInterrupt
        make(self, setup, index)

    monkeypatch.setattr(Scale, "__init__", interrupted)
    first = run(files, image_size=24, num_iterations=3, **settings)
    result = run(files, scales=[24, 48], scale_iterations=[3, 3], **settings)
    assert (result.stopped, result.iterations) == ("interrupted", 3)
    assert result.losses == pytest.approx(first.losses, rel=2e-3)  # pictures were reduced to 48 pixels before
    np.testing.assert_allclose(result.picture.rgb, first.picture.rgb, atol=1)


def test_a_scale_that_fails_at_once_leaves_its_start(files, monkeypatch):
    read = Objective.losses_async

    def spoiled(self):
        losses = read(self)
        return lambda: {name: value if self.shape[2] < 48 else math.nan for name, value in losses().items()}

    starts = []
    settings = {"scales": [24, 48], "scale_iterations": [3, 3]}
    enlarged = Scale.enlarged
    monkeypatch.setattr(Scale, "enlarged", lambda *a: starts.append(enlarged(*a)) or starts[-1])
    monkeypatch.setattr(Objective, "losses_async", spoiled)
    result = run(files, **settings)
    assert "nan at iteration 4" in result.stopped
    np.testing.assert_array_equal(result.picture.rgb, images.deprocess(starts[0][0], pixel_range=255.0))


def test_tiles_that_a_scale_cannot_be_cut_into_are_refused_before_the_first(files):
    """The least tile of a picture of 105×79 is larger than that of one of 110×82."""
    done = []
    with pytest.raises(OptionError, match=r"tile of 26 pixels is too small for a picture of 105×79.*of 29 or more"):
        run(files, scales=[20, 105, 110], num_iterations=1, tile_size=26, callback=done.append)
    assert not done
    run(files, scales=[20, 110], num_iterations=1, tile_size=26, callback=done.append)
    assert len(done) == 2


def test_adams_moments_are_carried_over(files):
    """Its step count goes on, so its first step at a new size is not the sign of the gradient times the rate."""
    steps, before = [], None

    def look(iterate):
        nonlocal before
        now = iterate.picture().rgb
        if before is not None and before.shape == now.shape:
            steps.append(np.abs(now - before))
        before = now

    run(files, optimizer="adam", scales=[32, 48], scale_iterations=[10, 2], learning_rate=1.0, callback=look)
    assert 0 < steps[-1].mean() < 0.95


def test_automatic_scales():
    assert Options(image_size=3620, scales="auto").schedule(1000) == [(452, 1000), (905, 500), (1810, 200), (3620, 100)]
    assert Options(image_size=300, scales="auto").schedule(1000) == [(300, 1000)]
    assert Options(scales=[256, 512], scale_iterations=[9]).schedule(1000) == [(256, 9), (512, 9)]


def test_tiles_from_the_command_line(files, tmp_path, capsys):
    shared = ["--tile-size", 56, "--gpu", "0,1"]
    whole, chosen = ["--gpu", "0", "--split", "tiles"], ["--gpu", "0,1"]
    for name, more in (("whole", whole), ("tiled", ["--tile-size", 56]), ("shared", shared), ("chosen", chosen)):
        out = tmp_path / f"{name}.png"
        assert main(command(files, out, *more, "--image-size", 120, "--num-iterations", 2, "--backend", "numpy")) == 0
    assert capsys.readouterr().err.count("have no effect with one device") == 1
    whole, *others = (images.read(tmp_path / f"{n}.png").rgb for n in ("whole", "tiled", "shared", "chosen"))
    assert all(np.abs(whole - other).max() <= 1 for other in others)
