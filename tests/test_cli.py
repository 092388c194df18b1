"""The command line as a user meets it: whole runs on small networks, and every way to get it wrong."""

from __future__ import annotations

import csv
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nets
import numpy as np
import pytest
import runs
from PIL import Image

from cvstyle import images
from cvstyle.cli import main
from cvstyle.errors import ImageError

LAYERS = ["--content-layers", "relu2_2", "--style-layers", "relu1_1,relu2_1:2,relu3_1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of a small VGG in V1 form and of pictures, by role."""
    folder = tmp_path_factory.mktemp("cli")
    net = nets.vgg(16, width=16, size=(64, 64), classifier=False)
    paths = runs.files(folder, net, "V1", content=(120, 90), style=(80, 70), second=(60, 100))
    return {**paths, "folder": folder}


def arguments(files, output, *more):
    return runs.command(files, output, "--image-size", 64, "--num-iterations", 4, *LAYERS, *more)


def test_a_run_writes_picture_metadata_and_log(files, tmp_path, capsys):
    output, log = tmp_path / "out.png", tmp_path / "losses.csv"
    assert main(arguments(files, output, "--seed", 3, "--log", log, "--print-iter", 2)) == 0
    assert images.read(output).rgb.shape == (48, 64, 3)
    texts = images.read_metadata(output)
    assert texts["Seed"] == "3" and texts["Software"].startswith("cvstyle ")
    assert shlex.split(texts["Command"])[:2] == ["cvstyle", "run"]
    rows = list(csv.DictReader(log.open()))
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    parts = sum(float(v) for k, v in rows[0].items() if k not in ("iteration", "seconds", "loss"))
    assert parts == pytest.approx(float(rows[0]["loss"]), rel=1e-5)
    assert {"content:relu2_2", "style:relu3_1", "tv"} <= set(rows[0])
    captured = capsys.readouterr()
    assert "iteration 2/4" in captured.err and "s left" in captured.err
    assert "seed 3" in captured.out


def test_a_command_line_of_the_reference_runs_as_it_is(files, tmp_path):
    """neural_style.lua's spelling, without a verb."""
    output = tmp_path / "out.png"
    line = f"""
        -style_image {files["style"]},{files["second"]} -style_blend_weights 3,7 -content_image {files["content"]}
        -image_size 64 -gpu -1 -content_weight 5e0 -style_weight 1e2 -tv_weight 1e-3 -num_iterations 4
        -normalize_gradients -init image -optimizer adam -learning_rate 1e1 -lbfgs_num_correction 0 -print_iter 50
        -save_iter 2 -output_image {output} -style_scale 0.9 -original_colors 1 -pooling avg
        -proto_file {files["proto"]} -model_file {files["model"]} -backend nn -cudnn_autotune -seed 123
        -multigpu_strategy 3,6,12
        -content_layers relu2_2 -style_layers relu1_1,relu2_1"""
    assert main(shlex.split(line)) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.png", "out_2.png"]


def test_numbers_may_be_written_as_lua_reads_them(files, tmp_path):
    more = ["-image_size", "3.2e1", "-num_iterations", "3.0", "-style_blend_weights", "nil", "-save_iter", "-1"]
    assert main(arguments(files, tmp_path / "out.png", *more, "-multigpu_strategy", "", "-init_image", "")) == 0
    assert images.read(tmp_path / "out.png").rgb.shape == (24, 32, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


def test_the_same_seed_gives_the_same_bytes(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = []
    for seed in (1, 1, 2):
        assert main(arguments(files, "out.png", "--seed", seed, "--quiet")) == 0
        data.append((tmp_path / "out.png").read_bytes())
    assert data[0] == data[1]
    assert data[0] != data[2]


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgsb", "adam"])
@pytest.mark.parametrize("backend", ["numpy", "opencv"])
def test_optimizers_and_backends_lower_the_loss(files, tmp_path, optimizer, backend):
    log = tmp_path / "log.csv"
    more = ["--optimizer", optimizer, "--backend", backend, "--init", "image", "--log", log, "--quiet"]
    assert main(arguments(files, tmp_path / "out.png", *more, "--num-iterations", 8)) == 0
    losses = [float(row["loss"]) for row in csv.DictReader(log.open())]
    assert len(losses) == 8
    assert losses[-1] < losses[0]


def test_compat_uses_the_defaults_of_the_reference(files, tmp_path):
    output = tmp_path / "out.png"
    more = ["--compat", "--num-iterations", 101, "--image-size", 32, "--seed", 1, "--quiet"]
    assert main(arguments(files, output, *more)) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.png", "out_100.png"]


def test_without_any_loss_the_loss_is_zero(files, tmp_path, capsys):
    none = [word for name in ("content", "style", "tv") for word in (f"--{name}-weight", 0)]
    assert main(arguments(files, tmp_path / "out.png", *none)) == 0
    assert "loss 0, seed" in capsys.readouterr().out


def test_alpha_and_sixteen_bits_are_carried_over(files, tmp_path):
    with Image.open(files["content"]) as image:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save(tmp_path / "content.png")
    args = arguments(files, tmp_path / "out.tiff", "--bits", 16, "--quiet")
    args[args.index("--content") + 1] = str(tmp_path / "content.png")
    assert main(args) == 0
    alpha = images.read(tmp_path / "out.tiff").alpha
    assert alpha[0].max() < 0.05 and alpha[-1].min() > 0.95


def test_bounds_keep_pixels_in_range(files, tmp_path):
    from cvstyle import stylize

    layers = {"content_layers": ["relu2_2"], "style_layers": ["relu1_1"]}
    result = stylize(
        files["content"], [files["style"]], proto=files["proto"], model=files["model"], image_size=40,
        num_iterations=6, optimizer="lbfgsb", bounds=True, style_weight=1e5, seed=1, **layers,
    )  # fmt: skip
    assert result.picture.rgb.min() >= -1e-3 and result.picture.rgb.max() <= 255.001


def bad_inputs(files):
    """(arguments that replace or follow the good ones, what the message must name)."""
    folder = files["folder"]
    (folder / "truncated.caffemodel").write_bytes(Path(files["model"]).read_bytes()[:5000])
    (folder / "broken.prototxt").write_text("layers { name: 'a' type: }")
    (folder / "tiny.png").write_bytes(b"")
    Image.new("RGB", (40, 1)).save(folder / "thin.png")
    (folder / "text.jpg").write_text("hello")
    yield ["--content", folder / "absent.jpg"], ["absent.jpg"]
    yield ["--style", folder / "text.jpg"], ["text.jpg"]
    yield ["--style", folder / "tiny.png"], ["tiny.png", "empty"]
    yield ["--content", folder], ["folder"]
    yield ["--proto", folder / "absent.prototxt"], ["absent.prototxt"]
    yield ["--proto", folder / "broken.prototxt"], ["broken.prototxt"]
    yield ["--model", folder / "absent.caffemodel"], ["absent.caffemodel"]
    yield ["--model", folder / "truncated.caffemodel"], ["truncated.caffemodel"]
    yield ["--proto", files["model"], "--model", files["proto"]], ["caffemodel"]
    yield ["--style-layers", "relu1_1,relu2_l"], ["relu2_l", "did you mean", "relu2_1"]
    yield ["--content-layers", "relu9_1"], ["relu9_1"]
    yield ["--style-layers", "relu1_1,relu1_1"], ["relu1_1", "twice"]
    yield ["--output", folder / "no" / "out.png"], ["no folder"]
    yield ["--output", folder / "out.gif"], [".gif", ".png"]
    yield ["--output", folder], ["folder"]
    yield ["--output", files["content"]], ["overwrite"]
    yield ["--log", folder / "no" / "log.csv"], ["log.csv"]
    yield ["--style-blend-weights", "1,2"], ["2 style blend weights", "1 style"]
    yield ["--style-blend-weights", "a"], ["list of numbers"]
    yield ["--optimizer", "sgd"], ["sgd", "lbfgs"]
    yield ["--backend", "opencvv"], ["opencvv", "did you mean opencv"]
    yield ["--pooling", "min"], ["min"]
    yield ["--image-size", "-1"], ["--image-size"]
    yield ["--image-size", "abc"], ["abc"]
    yield ["--image-size", "2", "--pooling", "avg", "--margin", "0"], ["content picture of 2×2", "pool2", "too small"]
    yield ["--num-iterations", "-3"], ["--num-iterations"]
    yield ["--style-weight", "nan"], ["--style-weight"]
    yield ["--bounds"], ["--bounds", "lbfgsb"]
    yield ["--bits", "16", "--output", folder / "out.jpg"], ["16 bits"]
    yield ["--image-size", "17000", "--output", folder / "out.webp"], [".webp", "16383"]
    yield ["--init-image", folder / "absent.png"], ["absent.png"]
    yield ["--gpu", "x"], ["--gpu x"]
    yield ["--imagesize", "64"], ["--imagesize", "--image-size"]
    yield ["--image-size", "9999999"], ["9999999", "pixels"]
    yield ["--style-scale", "1e9"], ["--style-scale", "pixels"]
    yield ["--scales", "64,1e9"], ["1000000000", "pixels"]
    yield ["--threads", "²"], ["'²'", "threads"]
    yield ["--tile-size", "²"], ["'²'", "pixels"]
    yield ["--multigpu-strategy", ","], ["','", "positions"]
    yield ["--gpu", "²"], ["--gpu ²"]
    yield ["--image-size", "12.5"], ["--image-size", "12.5"]
    yield ["--multigpu-strategy", "6,3"], ["6,3", "ascending"]
    yield ["--init", "random", "--init-image", files["style"]], ["--init-image", "leave one"]
    yield ["photo", "of", "me.jpg"], ["'photo'", "quotes"]
    yield ["--log", files["style"]], ["style.png", "overwrite"]
    yield ["--output", folder / "both.png", "--checkpoint", folder / "both.png"], ["one file"]
    yield ["--log", folder / "both.npz", "--checkpoint", folder / "both.npz"], ["one file"]
    yield ["--checkpoint", files["style"], "--resume"], ["style.png", "overwrite"]
    yield ["--output", files["model"].replace("net.caffemodel", "log.png"), "--log", folder / "log.png"], ["one file"]
    Image.new("RGB", (40, 40)).save(folder / "out_20.png")
    yield ["--content", folder / "out_20.png", "--output", folder / "out.png", "--save-iter", 5], ["out_20.png"]


def test_bad_input_is_one_clear_line_and_status_2(files, tmp_path, capfd):
    for change, named in bad_inputs(files):
        args = arguments(files, tmp_path / "out.png", "--quiet", *change)  # argparse takes the last of two
        assert main(args) == 2, change
        captured = capfd.readouterr()
        message = captured.err.strip()
        assert len(message.splitlines()) == 1 and message.startswith("cvstyle: "), (change, captured)
        for part in named:
            assert part in message, (change, message)
        assert list(tmp_path.iterdir()) == [], change


def test_missing_required_options_and_unknown_verbs(capsys):
    assert main(["run", "--content", "a.png"]) == 2
    assert "--style" in capsys.readouterr().err
    assert main(["run", "--contnet", "a.png"]) == 2  # the misspelt option rather than the lack of the right one
    assert "--contnet" in capsys.readouterr().err
    assert main(["rum"]) == 2
    assert "run" in capsys.readouterr().err
    assert main([]) == 0
    assert "usage" in capsys.readouterr().out


def test_a_model_without_its_prototxt_is_refused(files, tmp_path, capsys):
    args = ["run", "--model", files["model"], "--content", files["content"], "--style", files["style"]]
    assert main([*args, "--output", str(tmp_path / "out.png")]) == 2
    assert "--proto" in capsys.readouterr().err


def test_interrupting_keeps_the_picture(files, tmp_path):
    output, log = tmp_path / "out.png", tmp_path / "log.csv"
    args = arguments(files, output, "--num-iterations", 100000, "--log", log)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    process = subprocess.Popen(
        [sys.executable, "-m", "cvstyle", *args], stderr=subprocess.PIPE, text=True, env=environment
    )
    for _ in range(300):
        if process.poll() is not None:
            break
        if log.exists() and log.read_text().count("\n") > 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)  # impatience does no harm
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert str(output) in err and "interrupted" in err and "Traceback" not in err
    assert images.read(output).rgb.shape == (48, 64, 3)


def test_a_loss_that_becomes_nan_stops_with_the_last_good_picture(files, tmp_path, monkeypatch, capsys):
    from cvstyle.objective import Objective

    calls = []
    read = Objective.losses_async

    def spoiled(self):
        calls.append(1)
        found = read(self)()
        return lambda: {**found, "tv": float("nan")} if len(calls) == 5 else found

    monkeypatch.setattr(Objective, "losses_async", spoiled)
    output = tmp_path / "out.png"
    assert main(arguments(files, output, "--num-iterations", 50)) == 2
    message = capsys.readouterr().err.strip()
    assert "nan at iteration 5 (tv)" in message and str(output) in message
    assert np.isfinite(images.read(output).rgb).all()
    assert images.read_metadata(output)["Iterations"] == "4"


def test_trouble_with_a_report_does_not_end_the_run(files, tmp_path, monkeypatch, capsys):
    real = images.write

    def full(path, *rest, **named):
        if "_2" in str(path):
            raise ImageError(f"{path}: it could not be written: No space left on device")
        real(path, *rest, **named)

    monkeypatch.setattr(images, "write", full)
    more = ["--save-iter", 2, "--log", "/dev/full"] if os.path.exists("/dev/full") else ["--save-iter", 2]
    assert main(arguments(files, tmp_path / "out.png", *more)) == 0
    err = capsys.readouterr().err
    assert "out_2.png: it could not" in err
    assert "/dev/full: the log ends here" in err or "--log" not in more
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


def test_a_picture_that_its_place_does_not_take_goes_elsewhere(files, tmp_path, monkeypatch, capsys):
    """It may be the work of hours."""
    elsewhere, real = tmp_path / "elsewhere", images.write
    elsewhere.mkdir()

    def full(path, *rest, **named):
        if Path(path).parent == tmp_path:
            raise ImageError(f"{path}: it could not be written: No space left on device")
        real(path, *rest, **named)

    monkeypatch.setattr(images, "write", full)
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    assert main(arguments(files, tmp_path / "out.png", "--quiet")) == 2
    message = capsys.readouterr().err.strip()
    (path,) = elsewhere.iterdir()
    assert "No space left" in message and message.endswith(f"the picture is in {path}")
    assert images.read(path).rgb.shape == (48, 64, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes file names of any bytes")
def test_names_that_are_no_text_and_a_terminal_of_ascii(files, tmp_path):
    content = os.path.join(os.fsencode(tmp_path), b"b\xff\xc3\xa9.png")
    Path(os.fsdecode(content)).write_bytes(Path(files["content"]).read_bytes())
    args = arguments(files, tmp_path / os.fsdecode(b"o\xff.png"), "--save-iter", 2)
    args[args.index("--content") + 1] = os.fsdecode(content)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), LC_ALL="C", PYTHONUTF8="0")
    environment["PYTHONCOERCECLOCALE"] = "0"
    for words in (args, ["info", "--proto", files["proto"], "--model", files["model"]]):
        done = subprocess.run([sys.executable, "-m", "cvstyle", *words], capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(os.fsencode(tmp_path)))[1:] == [b"o\xff.png", b"o\xff_2.png"]
    assert "Command" in images.read_metadata(str(tmp_path / os.fsdecode(b"o\xff.png")))


def test_a_reader_that_goes_away_does_not_end_the_run(files, tmp_path):
    args = [sys.executable, "-m", "cvstyle", *arguments(files, tmp_path / "out.png", "--print-iter", 1)]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    process = subprocess.Popen(args, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert images.read(tmp_path / "out.png").rgb.shape == (48, 64, 3)


def test_info_lists_layers_and_uses(files, capsys):
    assert main(["info", "--proto", files["proto"], "--model", files["model"], "--image-size", "64x48"]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line.split() for line in lines if line.startswith("relu4_2"))
    assert row == ["relu4_2", "ReLU", "32×6×8", "76", "c", "s"]
    assert main(["info"]) == 0
    assert "default style layers" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit on its address space")
@pytest.mark.parametrize("backend, more, status", [
    ("opencv", ["--model", "wavelet", "--image-size", "1400"], 2),
    ("auto", ["--image-size", "300", "--tile-size", "auto"], 0),
])  # fmt: skip
def test_too_little_address_space(files, tmp_path, backend, more, status):
    """As under ulimit -v: one line, whatever asked for the memory; automatic tiles go by what is left."""
    code = "import sys; from cvstyle import cli; sys.exit(cli.main(sys.argv[1:]))"
    args = ["prlimit", "--as=1500000000", sys.executable, "-c", code, "run", "--content", files["content"], "--style"]
    args += [files["style"], "--output", str(tmp_path / "out.png"), "--num-iterations", "1", "--backend", backend]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([*args, *more], capture_output=True, text=True, env=environment)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert ("cvstyle: not enough memory (" in done.stderr) == (status == 2), done.stderr


def test_help_needs_no_heavy_import():
    """Answering at once is a matter of what is imported; times are in benchmarks/."""
    code = """
import sys
from cvstyle.cli import main
try:
    main(["run", "--help"])
except SystemExit:
    pass
heavy = {"numpy", "cv2", "scipy", "google", "PIL", "tifffile", "tqdm"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "--style-blend-weights" in done.stdout
