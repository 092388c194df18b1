"""Saved styles: what they keep, runs with them instead of pictures, their files, and the command line."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nets
import numpy as np
import pytest
from pictures import noise, write
from PIL import Image
from runs import files
from style_fuzz import example
from test_tiles import vgg

import cvstyle
from cvstyle import losses, measure_styles, saved_style, style_file
from cvstyle.backends.reference import Backend
from cvstyle.cli import main
from cvstyle.errors import ImageError, OptionError
from cvstyle.graph import Network
from cvstyle.netdef import Convention
from cvstyle.regions import StyleRegion
from cvstyle.run.saving import Saver
from cvstyle.run.texture import colours
from cvstyle.saved_style import Layer, Origin, SavedStyle, Size
from cvstyle.style import StyleTargets

LAYERS = ["relu1_1", "relu2_1", "relu3_1"]
QUICK = ["--scales", "32,64", "--scale-iterations", "3,2", "--seed", "1", "--backend", "cpu", "--threads", "1"]
QUICK += ["--style-layers", ",".join(LAYERS), "--content-layers", "relu2_1"]
ALIKE = ["--backend", "cpu", "--threads", "1", "--style-layers", ",".join(LAYERS)]


@pytest.fixture(scope="module")
def net():
    return vgg(Backend(threads=1))


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """Paths of a small network, a photograph, paintings, one of them transparent in part, and saved styles."""
    folder = tmp_path_factory.mktemp("saved")
    made = files(folder, nets.vgg(19, 8, (32, 32), classifier=False), photo=(72, 56), a=(210, 150), b=(90, 130))
    clear = np.asarray(Image.open(made["a"]).convert("RGBA")).copy()
    clear[:70, :90, 3] = 0
    Image.fromarray(clear).save(folder / "clear.png")
    made |= {"clear": str(folder / "clear.png"), "folder": str(folder)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cvstyle.run.saving.SMALLEST", 32)
        for name in ("a", "b", "clear"):
            made[f"{name}.cvstyle"] = save(made, name, str(folder / f"{name}.cvstyle"), "--sizes", "32,64")
    return made


def save(box, name, target, *more):
    network = ["--proto", box["proto"], "--model", box["model"]]
    assert main(["style", "save", box[name], "--as", target, *network, *ALIKE, *more]) == 0
    return target


def run(box, styles, output, *more):
    """The pixels of a run with these styles."""
    words = ["run", "--proto", box["proto"], "--model", box["model"], "--content", box["photo"], *QUICK]
    words += ["--style", *(box.get(name, name) for name in styles), "--output", str(output), *more]
    assert main(words) == 0
    return np.asarray(Image.open(output))


def kept_sizes(style, layer=LAYERS[1]):
    return {size: style.moments(layer, size) for size in style.sizes}


def one_layer(moments, name="relu1_1", **changes):
    """A style of one layer with these moments, by size."""
    channels = next(iter(moments.values())).shape[1]
    origin = replace(Origin("n", "f" * 16, Convention(), "max", False), **changes)
    layers = {name: Layer(channels, "a" * 32, False)}
    return saved_style.pack("p", "", (64, 64), origin, layers, {s: {name: m} for s, m in moments.items()})


# What is kept


def test_moments_are_those_of_the_features(net):
    """Against sums in float64 over the features of the layers."""
    picture = noise(64, 48, 3, scale=40).clip(-120, 120) + 128
    style = Saver(net, cvstyle.Options(style_layers=LAYERS), [64]).save(picture)
    x = cvstyle.preprocess(picture, network=net)
    for name, features in cvstyle.features(net, x, LAYERS).items():
        f = features.reshape(len(features), -1).astype(float)
        found = style.moments(name, Size(64, 64))
        np.testing.assert_allclose(found[:-1], f @ f.T / f.size, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(found[-1], f.mean(1), rtol=2e-5, atol=1e-6)
        assert style.layers[name].channels == len(f)


def test_a_size_between_is_interpolated_in_its_logarithm():
    a, b = noise(4, 3), noise(4, 3, seed=1)
    a[:-1] += a[:-1].T.copy()
    b[:-1] += b[:-1].T.copy()
    style = one_layer({Size(64, 64): a, Size(256, 256): b})
    for size, part in ((64, 0), (128, 0.5), (91, np.log2(91 / 64) / 2), (256, 1), (30, 0), (999, 1)):
        found = style.moments("relu1_1", Size(size, size))
        np.testing.assert_allclose(found, (1 - part) * a + part * b, rtol=1e-5, atol=1e-6)


def test_the_reading_for_the_run_counts():
    kept = {Size(run, size): np.full((4, 3), run + size, np.float32) for run, size in ((64, 64), (128, 64), (128, 128))}
    style = one_layer(kept)
    for wanted, found in ((Size(64, 64), 128), (Size(128, 64), 192), (Size(70, 64), 128), (Size(300, 64), 192)):
        assert (style.moments("relu1_1", wanted) == found).all()


def test_interpolation_is_close_to_a_measurement(net, tmp_path):
    painting = write(tmp_path, p=(300, 300))[0]
    options = cvstyle.Options(style_layers=LAYERS)
    kept = Saver(net, options, [64, 128, 256]).save(painting)
    for size in (90, 180):  # 0.7 and 1.4 of 128
        measured = Saver(net, options, [size]).save(painting)
        for name in LAYERS:
            wanted = measured.moments(name, Size(size, size))
            error = kept.moments(name, Size(size, size)) - wanted
            nearest = kept.moments(name, Size(128, 128)) - wanted
            assert np.linalg.norm(error) < min(0.15 * np.linalg.norm(wanted), np.linalg.norm(nearest))


def test_five_layers_of_vgg_take_little(tmp_path):
    channels = (64, 128, 256, 512, 512)
    layers = {f"relu{i}_1": Layer(n, "a" * 32, i > 1) for i, n in enumerate(channels, 1)}
    moments = {name: np.ones((layer.channels + 1, layer.channels), np.float32) for name, layer in layers.items()}
    moments["relu5_1"][:] = 2  # equal arrays are kept once
    origin = Origin("vgg19.caffemodel", "0" * 16, Convention(), "max", False)
    style = saved_style.pack("p", "", (9, 9), origin, layers, {Size(512, 512): moments})
    assert 4 * sum(n * (n + 1) // 2 for n in channels) < style.bytes <= 1.3e6
    twice = saved_style.pack("p", "", (9, 9), origin, layers, {Size(n, 512): moments for n in (512, 1024)})
    assert twice.bytes < style.bytes + 1000


def test_a_size_that_is_too_small_for_a_layer_has_the_others():
    b = nets.Builder("unpadded", (64, 64))
    for name in ("near", "far"):
        b.conv(f"c_{name}", 4, 21, relu=name)
    net = Network(b.done(), Backend(threads=1))
    options = cvstyle.Options(style_layers=["near", "far"])
    style = Saver(net, options, [512]).save(noise(96, 512, 3, scale=40).clip(-99, 99) + 128)
    missing = {size for size, blobs in style._blobs.items() if "far" not in blobs}
    assert missing == {Size(512, 128)} and len(style.sizes) == 3
    nearest = style.moments("far", Size(512, 256))
    assert (style.moments("far", Size(512, 128)) == nearest).all()
    with pytest.raises(ImageError, match="does not fit this network"):
        Saver(net, options, [64]).save(np.full((16, 64, 3), 9, np.uint8))


# Runs


@pytest.mark.parametrize("name, more, saved", [
    ("a", [], []), ("clear", [], []), ("a", ["--scales", "64", "--scale-iterations", "3"], []),
    ("a", ["--style-scale", "2"], ["--sizes", "128,64"]), ("a", ["--tile-size", "60"], ["--tile-size", "60"]),
    ("a", ["--pooling", "avg"], ["--pooling", "avg"]), ("a", ["--compat", "--init", "image"], ["--compat"]),
    ("a", ["--mean", "90", "--channels", "rgb"], ["--mean", "90", "--channels", "rgb"]),
    ("a", ["--style-layers", "relu2_1"], []), ("a", ["--style-layers", "relu3_1:3,relu1_1"], []),
    ("a", ["--strength", "0.4"], []), ("a", ["--normalize-gradients", "--optimizer", "adam"], []),
])  # fmt: skip
def test_a_run_has_the_bytes_of_the_picture_s(box, tmp_path, monkeypatch, name, more, saved):
    monkeypatch.setattr("cvstyle.run.saving.SMALLEST", 32)
    sizes = [] if "--sizes" in saved else ["--sizes", "64"]
    kept = save(box, name, str(tmp_path / "s.cvstyle"), *sizes, *saved) if saved else box[f"{name}.cvstyle"]
    wanted = run(box, [name], tmp_path / "a.png", *more)
    assert (run(box, [kept], tmp_path / "b.png", *more) == wanted).all()


def test_mixed_with_pictures(box, tmp_path):
    more = ["--style-blend-weights", "3,1,2"]
    wanted = run(box, ["a", "b", "clear"], tmp_path / "a.png", *more)
    for names in (["a.cvstyle", "b", "clear.cvstyle"], ["a", "b.cvstyle", "clear"]):
        assert (run(box, names, tmp_path / "b.png", *more) == wanted).all()
    assert (run(box, ["a", "b", "a"], tmp_path / "b.png", *more) != wanted).any()


def test_two_devices_and_offload(box, tmp_path):
    """Their windows add up in another order than the whole picture's moments."""
    for more in (["--gpu", "0,1"], ["--gpu", "0,1", "--split", "layers"], ["--offload"]):
        wanted = run(box, ["a"], tmp_path / "a.png", *more).astype(int)
        assert np.abs(run(box, ["a.cvstyle"], tmp_path / "b.png", *more) - wanted).max() <= 2


@pytest.mark.parametrize("backend", ["numpy", "opencv", "opencl"])
def test_backends(box, tmp_path, monkeypatch, backend):
    monkeypatch.setattr("cvstyle.run.saving.SMALLEST", 32)
    more = ["--backend", backend, "--autotune", "off", "--scale-iterations", "2,1"]
    kept = save(box, "a", str(tmp_path / "s.cvstyle"), "--sizes", "64", *more[:4])
    assert (run(box, [kept], tmp_path / "b.png", *more) == run(box, ["a"], tmp_path / "a.png", *more)).all()


def test_nothing_of_the_painting_is_computed(box, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a style is computed")

    monkeypatch.setattr("cvstyle.style._sums", refuse)
    run(box, ["a.cvstyle", "b.cvstyle"], tmp_path / "a.png")
    with pytest.raises(AssertionError, match="computed"):
        run(box, ["a.cvstyle", "b"], tmp_path / "a.png")


def test_from_python(box, tmp_path, monkeypatch):
    monkeypatch.setattr("cvstyle.run.saving.SMALLEST", 32)
    network = {"proto": box["proto"], "model": box["model"], "backend": "numpy"}
    settings = {"style_layers": LAYERS, "content_layers": "relu2_1"}
    options = cvstyle.Options(**settings, scales=[32, 64], scale_iterations=[2, 1], seed=1)
    painting = cvstyle.read_picture(box["a"])
    style = cvstyle.save_style(tmp_path / "s.cvstyle", painting, sizes=[64], style_layers=LAYERS, **network)
    assert style.digest == cvstyle.read_style(str(tmp_path / "s.cvstyle")).digest
    assert len(style.sizes) == 2 and style.proportions == (150, 210)
    wanted = cvstyle.stylize(box["photo"], [painting], options=options, **network).picture.rgb
    compute = cvstyle.Compute(backend="numpy")
    job = cvstyle.Job(box["photo"], [style], box["proto"], box["model"], options=options, compute=compute)
    shutil.move(tmp_path / "s.cvstyle", tmp_path / "gone")
    for thing in (job, pickle.loads(pickle.dumps(job))):
        assert (thing.run().picture.rgb == wanted).all()
    for styles in (tmp_path / "gone", style, [style]):
        assert (cvstyle.stylize(box["photo"], styles, options=options, **network).picture.rgb == wanted).all()


def test_a_checkpoint_goes_on(box, tmp_path):
    wanted = run(box, ["a.cvstyle"], tmp_path / "a.png")
    kept = ["--checkpoint", str(tmp_path / "k.npz"), "--checkpoint-iter", "1"]
    run(box, ["a.cvstyle"], tmp_path / "b.png", "--scale-iterations", "3,1", *kept)
    assert (run(box, ["a.cvstyle"], tmp_path / "b.png", *kept, "--resume") == wanted).all()


def test_another_style_does_not_go_on(box, tmp_path, capsys):
    kept = ["--checkpoint", str(tmp_path / "k.npz")]
    run(box, ["a.cvstyle"], tmp_path / "b.png", *kept)
    words = ["run", "--proto", box["proto"], "--model", box["model"], "--content", box["photo"], *QUICK, *kept]
    assert main([*words, "--style", box["b.cvstyle"], "--resume", "-o", str(tmp_path / "b.png")]) == 2
    assert "other style pictures;" in capsys.readouterr().err


def test_a_region_is_served_whole(net):
    content, painting = noise(3, 40, 40, scale=50), noise(3, 48, 48, scale=50, seed=1)
    style = Saver(net, cvstyle.Options(style_layers=LAYERS), [48]).save(cvstyle.deprocess(painting).rgb.clip(0, 255))
    x = cvstyle.preprocess(cvstyle.deprocess(painting).rgb.clip(0, 255))
    left = np.repeat(np.float32([[1] * 20 + [0] * 20]), 40, 0)
    settings = {"style_layers": LAYERS, "content_layers": ["relu2_1"]}
    regions = [StyleRegion("l", left, {0: None}), StyleRegion("r", 1 - left, {1: None})]
    values = [
        cvstyle.Objective(net, content, [each, painting], regions=regions, **settings)(content)
        for each in (x, style.at(48))
    ]
    assert values[0][0] == values[1][0] and (values[0][1] == values[1][1]).all()
    regions[0] = StyleRegion("l", left, {0: np.ones((48, 48), np.float32)})
    with pytest.raises(OptionError, match="whole picture; give the picture itself"):
        cvstyle.Objective(net, content, [style.at(48), painting], regions=regions, **settings)


def test_any_loss_of_moments_is_served(net):
    class Means(losses.style.moments.Moments):
        means = True

    picture = noise(48, 48, 3, scale=40).clip(-120, 120) + 128
    style = Saver(net, cvstyle.Options(style_layers=LAYERS), [48]).save(picture)
    terms = [Means("m", "relu2_1", 1.0), losses.style.kind_class("gram")("g", "relu2_1", 1.0)]
    x = cvstyle.preprocess(picture, network=net)
    by_picture, by_style = (measure_styles(net, terms, [each]).statistics for each in (x, style.at(48)))
    assert by_style["m"].shape[0] == by_style["g"].shape[0] + 1
    for name in "mg":
        np.testing.assert_array_equal(by_picture[name].astype(np.float32), by_style[name])
    assert isinstance(measure_styles(net, terms, style.at(48)), StyleTargets)


# Blends


def test_a_blend_is_that_of_a_run(box, tmp_path):
    target = str(tmp_path / "c.cvstyle")
    assert main(["style", "blend", f"{box['a.cvstyle']}:3", f"{box['b.cvstyle']}:7", "--as", target]) == 0
    a, b, c = (kept_sizes(cvstyle.read_style(path)) for path in (box["a.cvstyle"], box["b.cvstyle"], target))
    for size, found in c.items():
        np.testing.assert_allclose(found, 0.3 * a[size].astype(float) + 0.7 * b[size].astype(float), rtol=1e-6)
    more = ["--style-blend-weights", "3,7"]
    wanted = run(box, ["a", "b"], tmp_path / "a.png", *more).astype(int)
    assert np.abs(run(box, [target], tmp_path / "b.png") - wanted).max() <= 1


def test_a_blend_interpolates_sizes_that_one_lacks():
    ones = np.ones((4, 3), np.float32)
    a = one_layer({Size(64, 64): ones, Size(256, 256): 3 * ones})
    b = one_layer({Size(128, 128): 10 * ones})
    found = saved_style.blend([a, b], [1, 3])
    assert found.sizes == [Size(128, 128)]
    np.testing.assert_allclose(found.moments("relu1_1", Size(128, 128)), (2 + 30) / 4, rtol=1e-6)
    assert cvstyle.blend_styles([a, a]).moments("relu1_1", Size(256, 256)).max() == 3


@pytest.mark.parametrize("other, weights, said", [
    (one_layer({Size(64, 64): np.ones((4, 3), np.float32)}, "relu9"), [1, 1], "without a common layer"),
    (one_layer({Size(64, 64): np.ones((5, 4), np.float32)}), [1, 1], "different networks"),
    (one_layer({Size(64, 64): np.ones((4, 3), np.float32)}, pooling="avg"), [1, 1], "--pooling or --compat"),
    (one_layer({Size(64, 64): np.ones((4, 3), np.float32)}, compat=True), [1, 1], "--pooling or --compat"),
    (one_layer({Size(9, 9): np.ones((4, 3), np.float32)}), [1, 1], "no size in common"),
    (one_layer({Size(64, 64): np.ones((4, 3), np.float32)}), [0, 0], "at least above zero"),
    (one_layer({Size(64, 64): np.ones((4, 3), np.float32)}), [1, -1], "none negative"),
    (one_layer({Size(64, 64): np.ones((4, 3), np.float32)}), [1], "a weight for each"),
])  # fmt: skip
def test_what_cannot_be_blended(other, weights, said):
    with pytest.raises(OptionError) as caught:
        saved_style.blend([one_layer({Size(64, 64): np.ones((4, 3), np.float32)}), other], weights)
    assert said in caught.value.command_line


# Refusals


def refused(box, capsys, *more, styles=("a.cvstyle",), network=True):
    words = ["run", "--content", box["photo"], *QUICK, "--output", os.path.join(box["folder"], "never.png")]
    words += ["--proto", box["proto"], "--model", box["model"]] if network else []
    words += ["--style", *(box.get(name, name) for name in styles)]
    assert main([*words, *map(str, more)]) == 2
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1
    return err


def test_another_network_is_refused(box, tmp_path, capsys):
    other = files(tmp_path, nets.with_weights(nets.vgg_graph(19, 8, (32, 32), classifier=False), 5))
    err = refused(box, capsys, "--proto", other["proto"], "--model", other["model"])
    own, theirs = (cvstyle.load_network(n["proto"], n["model"], "numpy") for n in (box, other))
    for net in (own, theirs):
        assert saved_style._fingerprint(net.definition) in err and saved_style.network_name(net.definition) in err
    assert "cvstyle style save" in err
    err = refused(box, capsys, "--style-layers", "relu1", "--content-layers", "relu2_1", network=False)
    assert "was saved with the network" in err and "distilled.caffemodel" in err


def test_a_layer_that_is_not_kept_is_refused(box, capsys):
    err = refused(box, capsys, "--style-layers", "relu1_1,relu2_2")
    assert "layer 'relu2_2' is not kept" in err and "which has relu1_1,relu2_1,relu3_1" in err
    assert "cvstyle style save" in err and "--style-layers relu1_1,relu2_1,relu3_1,relu2_2" in err


def test_layers_that_a_run_chooses_are_those_that_are_kept(tmp_path, capsys):
    """A network of no known family: its deepest layers that fit depend on the size of the result."""
    b = nets.Builder("unknown", (64, 64))
    for name, kernel in (("one", 3), ("two", 3), ("three", 91)):
        b.conv(f"c_{name}", 4, kernel, pad=[kernel // 2], relu=name)
    made = files(tmp_path, b.done(), photo=(80, 80), a=(160, 160))
    network = ["--proto", made["proto"], "--model", made["model"], "--backend", "cpu"]
    target = str(tmp_path / "a.cvstyle")
    assert main(["style", "save", made["a"], "--as", target, *network, "--sizes", "128"]) == 0
    assert list(cvstyle.read_style(target).layers) == ["one", "three"]
    words = ["run", "--content", made["photo"], *network, "--image-size", "64", "--num-iterations", "1", "-o"]
    for style, said in ((made["a"], "two"), (target, "one,three")):
        capsys.readouterr()
        assert main([*words, str(tmp_path / "x.png"), "--style", style]) == 0
        assert f"style from {said};" in capsys.readouterr().err


def test_a_layer_that_is_misspelt_is_no_layer(box, capsys):
    assert "there is no layer or preset 'relu2_11'; did you mean" in refused(box, capsys, "--style-layers", "relu2_11")


def test_other_settings_of_the_network_are_refused(box, capsys):
    assert "with --pooling max, and the run has avg" in refused(box, capsys, "--pooling", "avg")
    assert "mean 90" in refused(box, capsys, "--mean", "90")
    assert "without --compat" in refused(box, capsys, "--compat", "--margin", "0")
    assert "was saved with the network" in refused(box, capsys, "--input-scale", "0.5")


@pytest.mark.parametrize("color", ["match", "match:pca", "luminance"])
def test_colours_need_the_picture(box, color):
    options = cvstyle.Options(image_size=64, style_layers=LAYERS, content_layers="relu2_1", num_iterations=1)
    options.color = color
    with pytest.raises(OptionError, match=r"recolours the picture of a style.*give the picture") as caught:
        network = {"proto": box["proto"], "model": box["model"], "backend": "numpy"}
        cvstyle.stylize(box["photo"], box["a.cvstyle"], options=options, **network)
    assert f"--color {color}" in caught.value.command_line


def test_pooling_matters_above_a_pool_alone(box, tmp_path):
    more = ["--style-layers", "relu1_1", "--pooling", "avg"]
    assert (run(box, ["a.cvstyle"], tmp_path / "b.png", *more) == run(box, ["a"], tmp_path / "a.png", *more)).all()


def test_what_a_saved_style_cannot_be(box, net, tmp_path, capsys):
    for option in ("--content", "--init-image"):
        assert "saved style of cvstyle; give its file as --style" in refused(box, capsys, option, box["a.cvstyle"])
    assert "a saved style, not a network" in refused(box, capsys, "--model", box["a.cvstyle"])
    assert main(["models", "import", box["a.cvstyle"]]) == 2
    assert "a saved style, not weights" in capsys.readouterr().err
    assert main(["style", "save", box["a.cvstyle"], "--as", str(tmp_path / "x")]) == 2
    assert "this is a saved style already" in capsys.readouterr().err
    style = cvstyle.read_style(box["a.cvstyle"])
    with pytest.raises(ImageError, match="SavedStyle is no picture"):
        cvstyle.stylize(style, box["a"])
    with pytest.raises(OptionError, match=r"a size is needed, as by read_style\(path\).at\(512\)"):
        measure_styles(net, {"style_layers": ["relu1_1"]}, [style])
    with pytest.raises(OptionError, match="the loss 'own' needs more"):
        loss = losses.Loss("own", "relu1_1", 1.0)
        loss.target_from = "styles"
        same = Saver(net, cvstyle.Options(style_layers=["relu1_1"]), [48]).save(np.full((48, 48, 3), 9, np.uint8))
        measure_styles(net, [loss], [same.at(48)])


def test_the_content_counts_not_the_name(box, tmp_path):
    picture, style = str(tmp_path / "picture.cvstyle"), str(tmp_path / "style.png")
    shutil.copy(box["a"], picture)
    shutil.copy(box["a.cvstyle"], style)
    assert (run(box, [picture], tmp_path / "a.png") == run(box, [style], tmp_path / "b.png")).all()


def test_a_pipe_is_read_once_and_holds_no_saved_style(box, tmp_path):
    target = str(tmp_path / "piped.cvstyle")
    words = ["--proto", box["proto"], "--model", box["model"], *ALIKE, "--sizes", "64"]
    program = [sys.executable, "-c", "import sys; from cvstyle.cli import main; sys.exit(main(sys.argv[1:]))"]

    def piped(name, *words):
        paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with open(box[name], "rb") as file, subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) as cat:
            return subprocess.run([*program, *words], stdin=cat.stdout, capture_output=True, text=True, env=paths)

    assert piped("a", "style", "save", "-", "--as", target, *words).returncode == 0
    style, own = (cvstyle.read_style(path) for path in (target, box["a.cvstyle"]))
    for name in LAYERS:
        found, wanted = (each.moments(name, Size(64, 64)) for each in (style, own))
        assert np.linalg.norm(found - wanted) < 1e-4 * np.linalg.norm(wanted)
    words = ["run", "--content", box["photo"], "--style", "-", *QUICK, *words[:4], "-o", str(tmp_path / "x.png")]
    done = piped("a.cvstyle", *words)
    assert done.returncode == 2 and "give its file as --style" in done.stderr


def test_sizes_outside_are_said(box, tmp_path, capsys):
    run(box, ["a.cvstyle"], tmp_path / "a.png", "--scales", "32,96")
    err = capsys.readouterr().err
    assert "64 pixels is the largest size that is kept, and it stands for 96" in err and "--sizes 32,64,96'" in err
    run(box, ["a.cvstyle"], tmp_path / "a.png", "--style-scale", "0.5")
    err = capsys.readouterr().err
    assert "32 pixels is the smallest size that is kept, and it stands for 16" in err and "--sizes 16,32,64'" in err
    run(box, ["a.cvstyle"], tmp_path / "a.png")
    assert "size that is kept" not in capsys.readouterr().err


def test_the_same_network_in_another_file_is_accepted(net):
    """With other names of blobs, layers in place, defaults spelt out, and a layer behind that nothing reads."""
    definition = net.definition
    names = {blob: f"x{blob}" for layer in definition.layers for blob in (*layer.tops, *layer.bottoms)}
    spelt = {"stride": [1], "group": 1, "weight_filler": {"type": "xavier"}}
    layers = [
        replace(
            layer, tops=tuple(names[b] for b in layer.tops), bottoms=tuple(names[b] for b in layer.bottoms),
            params={**spelt, **layer.params} if layer.type == "Convolution" else layer.params,
        )
        for layer in definition.layers
    ]  # fmt: skip
    inputs = {names[name]: shape for name, shape in definition.inputs.items()}
    other = Network(replace(definition, layers=tuple(layers), inputs=inputs), net.ops)
    assert other.digest(LAYERS) != net.digest(LAYERS) and other.fingerprints(LAYERS) == net.fingerprints(LAYERS)
    weights = dict(definition.weights)
    weights["conv1_1"] = [weights["conv1_1"][0] * np.float32(1.0001), *weights["conv1_1"][1:]]
    changed = Network(replace(definition, weights=weights), net.ops)
    assert set(changed.fingerprints(LAYERS).values()).isdisjoint(net.fingerprints(LAYERS).values())


def test_plans_know_that_no_style_is_computed(box):
    options = cvstyle.Options(image_size=64, style_scale=16, style_layers=LAYERS, content_layers="relu2_1")
    net = cvstyle.load_network(box["proto"], box["model"], "cpu")
    by_picture, by_style = (
        cvstyle.plan(box["photo"], [box[name]], network=net, options=options)[0] for name in ("a", "a.cvstyle")
    )
    assert by_style.needs[-1].size < by_picture.needs[-1].size - 3 * 4 * 1024 * 731
    assert by_style.fits and by_style.size == by_picture.size


# Files


def test_damage_is_found():
    """A share of what `style_fuzz.py` does."""
    words = [sys.executable, Path(__file__).with_name("style_fuzz.py"), "3", "1500"]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, capture_output=True, text=True, env=paths)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "0 wrong" in done.stderr


def test_every_length_of_a_file_is_refused():
    data = bytes(example()._file.view)
    for length in {*range(0, 1200, 7), *range(1200, len(data), 97)}:
        with pytest.raises(ImageError, match="truncated or damaged"):
            SavedStyle(data[:length], "x")


def test_another_version_is_named(tmp_path, capsys):
    data = bytearray(example()._file.view)
    data[8] = 2
    (tmp_path / "x.cvstyle").write_bytes(data)
    assert main(["style", "info", str(tmp_path / "x.cvstyle")]) == 2
    assert "has format 2, and this version of cvstyle reads format 1" in capsys.readouterr().err


def test_blobs_are_aligned_and_once():
    blobs = [b"a" * 65, b"", b"b"]
    file = style_file.StyleFile(style_file.packed({"x": "é"}, blobs), "x")
    assert [bytes(file.blob(n)) for n in range(3)] == blobs and file.header["x"] == "é"
    assert all(offset % 64 == 0 for offset, _, _ in file.header["blobs"])
    for number in (-1, 3):
        with pytest.raises(ImageError, match="a blob is missing"):
            file.blob(number)


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "x.cvstyle"
    example().write(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    monkeypatch.setattr("cvstyle.paths._may_be_written", lambda _: False)
    with pytest.raises(ImageError, match="cannot be written"):
        example().write(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.cvstyle"]


# The command line


def test_a_folder_becomes_a_folder(box, tmp_path, capsys):
    paintings = tmp_path / "paintings"
    paintings.mkdir()
    for name in ("a", "b"):
        shutil.copy(box[name], paintings)
    (paintings / "c.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (paintings / ".hidden").write_text("x")
    words = ["style", "save", str(paintings), "--as", str(tmp_path / "styles"), *ALIKE, "--sizes", "64"]
    words += ["--proto", box["proto"], "--model", box["model"]]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert "1 of 3 pictures have no style: c.jpg" in err and out.count("3 layers for results of 64 pixels") == 2
    assert sorted(os.listdir(tmp_path / "styles")) == ["a.cvstyle", "b.cvstyle"]
    (paintings / "c.jpg").unlink()
    (tmp_path / "styles" / "b.cvstyle").unlink()
    assert main(words) == 0  # goes on where it was interrupted
    out, err = capsys.readouterr()
    assert out.count("was already present") == 1 and out.count("for results of") == 1 and not err
    assert main([*words, "--sizes", "48"]) == 2
    assert capsys.readouterr().err.count("--force replaces it") == 2
    assert main([*words, "--sizes", "48", "--force"]) == 0
    assert cvstyle.read_style(tmp_path / "styles" / "a.cvstyle").sizes == [Size(48, 48)]


def test_a_changed_painting_is_no_longer_the_same(box, tmp_path, capsys):
    path = str(tmp_path / "x.png")
    shutil.copy(box["a"], path)
    target = save({**box, "x": path}, "x", str(tmp_path / "x.cvstyle"), "--sizes", "64")
    shutil.copy(box["b"], path)
    words = ["style", "save", path, "--as", target, "--proto", box["proto"], "--model", box["model"], *ALIKE]
    assert main([*words, "--sizes", "64"]) == 2
    assert "--force replaces it" in capsys.readouterr().err


@pytest.mark.parametrize("words, said", [
    ("style", "cvstyle style save painting.jpg --as painting.cvstyle"), ("style sav x", "invalid choice: 'sav'"),
    ("style save a.png", "--as FILE|FOLDER must be given"), ("style save gone.png --as x", "gone.png: there is no"),
    ("style save a.png b.png --as x.cvstyle", "--as x.cvstyle is one file, and there are several pictures"),
    ("style save a.png --as gone/x.cvstyle", "cannot be written"),
    ("style save a.png --as b.png --force", "something else than a saved style"),
    ("style save a.png --as -", "cannot be written"), ("style save . --as a.png", "--as a.png is one file"),
    ("style save a.png --as x --sizes 0", "--sizes is 0"), ("style save a.png --as x --sizes big", "--sizes is big"),
    ("style save a.png --as x --sizes 99999999", "--sizes is 99999999"),
    ("style save a.png --as x --tile-size auto", "--tile-size auto depends on a run"),
    ("style save a.png --as x --style-layers relu9", "there is no layer or preset 'relu9'"),
    ("style save a.png sub/a.png --as s/", "two of the pictures are called a.png"),
    ("style save empty --as s/", "there is no picture in this folder"),
    ("style info gone.cvstyle", "there is no such file"), ("style info a.png", "style save PICTURE --as a.cvstyle'"),
    ("style info empty", "cannot be read"), ("style blend a.cvstyle --as x", "a blend needs two saved styles"),
    ("style blend a.cvstyle:x a.cvstyle --as x", "x is no number"),
    ("style blend a.png:1 b.png --as x", "no saved style"),
    ("style blend a.cvstyle a.cvstyle:-1 --as x", "none negative"),
    ("style blend a.cvstyle a.cvstyle --as a.cvstyle", "add --force to replace it"),
    ("style blend a.cvstyle a.cvstyle:nan --as x", "none negative"),
])  # fmt: skip
def test_what_cannot_be_meant_is_one_line(box, tmp_path, monkeypatch, capsys, words, said):
    for name in ("a", "b", "a.cvstyle"):
        shutil.copy(box[name], tmp_path)
    for name in ("empty", "sub"):
        (tmp_path / name).mkdir()
    shutil.copy(box["a"], tmp_path / "sub")
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir("."))
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and said in err
    assert sorted(set(os.listdir(".")) - {"s"}) == before


def test_info(box, tmp_path, capsys):
    assert main(["style", "info", box["a.cvstyle"], box["clear.cvstyle"]]) == 0
    out = capsys.readouterr().out
    net = cvstyle.load_network(box["proto"], box["model"], "numpy")
    for said in (
        "a.png", "210×150", saved_style._fingerprint(net.definition), "relu1_1 (8), relu2_1 (16), relu3_1 (32)",
        "32 (at 32); 64 (at 32, 64)", f"{os.path.getsize(box['a.cvstyle']):,}", "clear.png", "#",
    ):  # fmt: skip
        assert said in out
    plain = tmp_path / "red.png"
    Image.new("RGB", (64, 64), (200, 30, 40)).save(plain)
    save({**box, "red": str(plain)}, "red", str(tmp_path / "red.cvstyle"), "--sizes", "64")
    capsys.readouterr()
    assert main(["style", "info", str(tmp_path / "red.cvstyle")]) == 0
    colour = next(line for line in capsys.readouterr().out.splitlines() if "colours" in line).split()[1]
    assert all(abs(int(colour[i : i + 2], 16) - n) < 4 for i, n in zip((1, 3, 5), (200, 30, 40)))


def jpeg(size=(40, 30), claimed=None, mode="RGB", kind="JPEG"):
    """The bytes of a red picture, whose header may claim another (width, height)."""
    data = io.BytesIO()
    Image.new("RGB", size, (200, 30, 20)).convert(mode).save(data, kind)
    data = bytearray(data.getvalue())
    if claimed:
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, *claimed[::-1])
    return bytes(data)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("thumbnail, red", [
    (jpeg(), True), (jpeg(mode="CMYK"), True), (jpeg(claimed=(60000, 60000)), False), (b"", False),
    (jpeg(claimed=(10000, 10000)), False), (jpeg((129, 1)), False), (jpeg()[:200], False), (b"garbage", False),
    (jpeg(kind="PNG"), False), (None, False),
], ids=["good", "cmyk", "bomb", "empty", "large", "long", "cut", "garbage", "png", "none"])  # fmt: skip
def test_any_thumbnail(tmp_path, capsys, thumbnail, red):
    """One that cannot be used is none: neither 'style info' nor the colours of a texture's first noise fail."""
    style = with_text("x", thumbnail)
    assert (style.preview() is not None) == red
    expected = [200, 30, 20] if red else [128] * 3
    np.testing.assert_allclose(colours([style])[0], expected, atol=60 if style.preview() else 0)  # CMYK differs
    style.write(tmp_path / "x.cvstyle")
    assert main(["style", "info", str(tmp_path / "x.cvstyle")]) == 0
    assert ("#" in capsys.readouterr().out) == red


def test_names_cannot_control_a_terminal(tmp_path, capsys):
    with_text("\x1b[31mred\r\n\ud800 \u202e").write(tmp_path / "x.cvstyle")
    assert main(["style", "info", str(tmp_path / "x.cvstyle")]) == 0
    assert (tmp_path / "x.cvstyle").read_bytes().count(b"\\u001b[31mred\\r\\n") == 1  # as the file has it
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["style", "[31mred", "?"] and all(line.isprintable() for line in lines)


def with_text(name, thumbnail=None):
    """The example, with another name and thumbnail."""
    style = example()
    moments = {size: {layer: style.moments(layer, size) for layer in style.layers} for size in style.sizes}
    return saved_style.pack(name, "", style.proportions, style.origin, style.layers, moments, thumbnail)


def test_pictures_that_repeat_say_what_a_saved_style_lacks(box, tmp_path, capsys):
    run(box, ["a.cvstyle"], tmp_path / "out.png", "--wrap", "x")
    assert f"{box['a.cvstyle']}: a saved style has the borders of its picture" in capsys.readouterr().err
    run(box, ["a.cvstyle"], tmp_path / "out.png")
    run(box, ["a"], tmp_path / "out.png", "--wrap", "x")
    assert "borders" not in capsys.readouterr().err
