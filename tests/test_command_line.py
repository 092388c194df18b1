"""Command lines as people type and paste them: what is plain is done, the rest is one line that helps."""

from __future__ import annotations

import io
import os
import shlex
import shutil
from contextlib import redirect_stderr, redirect_stdout
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pictures
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import cvstyle
from cvstyle import cli, zoo
from cvstyle.backends.native import library
from cvstyle.cli import devices, info, main, plan, run
from cvstyle.fields import as_path, as_paths

QUICK = ["--image-size", "32", "--num-iterations", "1", "--backend", "numpy", "--threads", "1", "--seed", "1"]
NAMES = ("c.jpg", "a.png", "b.png", "x,y.png", "my photo.jpg", "-lead.jpg", "-old.png", "photo.jpeg")


@pytest.fixture
def box(tmp_path, monkeypatch):
    """The current folder, with pictures, and with a home folder in it."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Image.fromarray(pictures.random_pixels(40, 48)).save(tmp_path / name)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("c.jpg", "a.png"):
        shutil.copy(name, home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    return tmp_path


@pytest.fixture
def request_of(box, monkeypatch):
    """A function: words → the `Request` that `cvstyle run` or another verb makes of them, without a run."""
    found = []

    def kept(request, *_):
        found.append(request)
        return 0

    monkeypatch.setattr(run, "_execute", kept)

    def of(*words):
        assert main(list(words)) == 0
        return found.pop()

    return of


@pytest.mark.parametrize("line, styles", [
    ("-s a.png -s b.png", ["a.png", "b.png"]), ("--style a.png b.png", ["a.png", "b.png"]),
    ("--style a.png --style-image b.png", ["a.png", "b.png"]), ("-style_image a.png,b.png", ["a.png", "b.png"]),
    ("--style 'a.png, b.png'", ["a.png", "b.png"]), ("--style a.png, b.png", ["a.png", "b.png"]),
    ("--style a.png ,b.png", ["a.png", "b.png"]), ("--style=a.png b.png,c.jpg -s a.png",
                                                   ["a.png", "b.png", "c.jpg", "a.png"]),
    ("--style x,y.png,a.png", ["x,y.png", "a.png"]), ("--style 'a.png, x,y.png ,b.png'", ["a.png", "x,y.png", "b.png"]),
    ("--style x,y.png --style a.png", ["x,y.png", "a.png"]),
    ("--style '*.png'", ["-old.png", "a.png", "b.png", "x,y.png"]),
    ("--style [ab].png", ["a.png", "b.png"]), ("--style a.png,~/a.png", ["a.png", "HOME/a.png"]),
    ("--style=~/a.png -s file://BOX/my%20photo.jpg", ["HOME/a.png", "BOX/my photo.jpg"]),
    ("--style “a.png”", ["a.png"]), ("--style “a.png”,“b.png”", ["a.png", "b.png"]), ("--style ‘a.png’", ["a.png"]),
    ("--style \"'a.png'\"", ["a.png"]), ("--style \u202aa.png\u202c", ["a.png"]), ("--style -old.png", ["-old.png"]),
    ("-s=a.png", ["a.png"]), ("-sa.png", ["a.png"]), ("-s = a.png", ["a.png"]), ("--style= a.png", ["a.png"]),
    ("--style =a.png", ["a.png"]), ("–style a.png", ["a.png"]), ("—style a.png", ["a.png"]), ("−s a.png", ["a.png"]),
    ("--style‑image a.png", ["a.png"]), ("--STYLE a.png", ["a.png"]), ("--Style_Image a.png", ["a.png"]),
    ("'--style\u00a0a.png'", ["a.png"]), ("-- --style a.png", ["a.png"]), ("\u200b--style a.png", ["a.png"]),
], ids=str)  # fmt: skip
def test_ways_to_name_styles(request_of, box, line, styles):
    places = {"BOX": box.as_posix(), "HOME": (box / "home").as_posix()}
    for name, place in places.items():
        line = line.replace(name, place)
        styles = [style.replace(name, place) for style in styles]
    assert request_of("run", "-c", "c.jpg", *shlex.split(line)).files.style == styles


@pytest.mark.parametrize("line", [
    "--quiet run -c c.jpg -s a.png -o x.png", "-c c.jpg -s a.png -o x.png --quiet",
    "-o x.png --quiet RUN -s a.png -c c.jpg",
    "run -content_image c.jpg -style_image a.png -output_image x.png -quiet",
    "-c c.jpg --style a.png run -ox.png --quiet",
    "run -- -c c.jpg -s a.png -- -o x.png --quiet",
])  # fmt: skip
def test_options_around_the_verb(request_of, line):
    request = request_of(*line.split())
    files = request.files
    assert (files.content, files.style, files.output, request.reports.quiet) == ("c.jpg", ["a.png"], "x.png", True)


def test_files_that_have_the_names_of_verbs_and_options(request_of, box):
    shutil.copy("c.jpg", "run")
    shutil.copy("a.png", "plan")
    request = request_of("-style_image", "plan", "-content_image", "run")
    assert (request.files.content, request.files.style) == ("run", ["plan"])


@pytest.mark.parametrize("words, name, value", [
    ("--optimizer LBFGSB", "optimizer", "lbfgsb"), ("--init Image", "init", "image"),
    ("--pooling AVG", "pooling", "avg"),
    ("--quality Draft", "quality", "draft"), ("--channels RGB", "channels", "rgb"), ("--scales AUTO", "scales", "auto"),
    ("--tile-size OFF", "tile_size", None), ("--style-blend-weights NIL", "style_blend_weights", None),
    ("--image-size 300px", "image_size", 300), ("--image-size '300 px'", "image_size", 300),
    ("--image-size 3e2", "image_size", 300), ("--margin 8px", "margin", 8), ("--scales 64, 512", "scales", [64, 512]),
    ("--seed -1", "seed", -1), ("--style-blend-weights 3", "style_blend_weights", [3.0]),
    ("--checkpoint ~/k.npz", "checkpoint", "HOME/k.npz"), ("--offload=disk:~", "offload", ("HOME",)),
    ("--init-image=~/a.png", "init_image", "HOME/a.png"), ("--split LAYERS", "split", "layers"),
    ("--style-layers relu1_1, relu2_1:2", "style_layers", ["relu1_1", "relu2_1:2"]),
])  # fmt: skip
def test_ways_to_write_values(request_of, box, words, name, value):
    home = str(box / "home")
    value = type(value)(*(v.replace("HOME", home) for v in [value])) if isinstance(value, str) else value
    value = (home,) if value == ("HOME",) else value
    found = getattr(request_of("run", "-c", "c.jpg", "-s", "a.png", *shlex.split(words)).options, name)
    assert found == value


def test_home_in_every_path(request_of, box):
    words = "--content=~/c.jpg --style=~/a.png --output=~/o.png --log=~/l.csv --proto=~/p --model=~/m.caffemodel"
    request = request_of("run", *words.split())
    home = str(box / "home")
    paths = [request.files.content, *request.files.style, request.files.output, request.reports.log]
    assert {os.path.dirname(p) for p in [*paths, request.files.proto, request.files.model]} == {home}


def test_paths_by_themselves(box):
    home = str(box / "home")
    assert as_path("~") == home and as_path("~/a") == os.path.join(home, "a") and as_path(Path("~/a")) == as_path("~/a")
    assert as_path("./~") == "./~" and as_path("~nobody-of-this-name/a") == "~nobody-of-this-name/a"
    assert as_path("a~") == "a~" and as_path(os.path.expanduser("~root")) == os.path.expanduser("~root")
    assert as_path("file:///a%20b%23.png") == as_path("FILE://localhost/a%20b%23.png") == "/a b#.png"
    assert as_paths(" a.png ,, b.png,") == ["a.png", "b.png"] and as_paths("x,y.png") == ["x,y.png"]
    assert as_paths("a.png,x,y.png,x") == ["a.png", "x,y.png", "x"] and as_paths("") == as_paths(" , ") == []


@pytest.mark.parametrize("line, parts", [
    ("rnu -c c.jpg", ["'rnu'", "did you mean run?"]), ("c.jpg a.png", ["'c.jpg'", "run --content"]),
    ("run c.jpg a.png", ["--content c.jpg --style a.png"]), ("--verison", ["--verison", "did you mean --version"]),
    ("run --contnet c.jpg -s a.png", ["--contnet", "--content"]), ("run -c c.jpg", ["--style FILE", "--help"]),
    ("run", ["--content FILE and --style FILE"]), ("run -c", ["--content", "value"]),
    ("run -c --style a.png", ["--content", "value", "--style follows"]),
    ("run -c c.jpg -s a.png --output", ["--output", "value"]),
    ("run -c c.jpg -s a.png --size 3", ["--size", "--image-size"]), ("run -i c.jpg -s a.png", ["-i;", "--content"]),
    ("run -c c.jpg -s a.png --num 3", ["--num;", "--num-iterations"]),
    ("run -c my photo.jpg -s a.png", ["--content 'my photo.jpg'", "quotes"]),
    ("run -c c.jpg -s my photo.jpg", ["--style 'my photo.jpg'", "quotes"]),
    ("run -c c.jpg -s a.png my photo.jpg b.png", ["--style 'my photo.jpg'", "quotes"]),
    ("run -c c.jpg -s a.png -o my out.png", ["'out.png'", "--output my", "quotes"]),
    ("run -c c.jpg a.png -s b.png", ["--content takes one file", "'c.jpg'", "'a.png'"]),
    ("run -c '*.jpg' -s a.png", ["--content takes one file", "*.jpg", "c.jpg"]),
    ("run -c c.jpg -s '*.gif'", ["--style *.gif", "no file fits"]), ("run -c '' -s a.png", ["--content", "no file"]),
    ("run -c c.jpg -s ''", ["--style", "no file"]), ("run -c c.jpg -s a.png -o ''", ["--output", "no file"]),
    ("run -c https://example.org/a.jpg -s a.png", ["--content https://example.org/a.jpg", "download"]),
    ("run -c file://elsewhere/a.jpg -s a.png", ["--content", "file://elsewhere/a.jpg", "no file on this machine"]),
    ("run -c file:///%00 -s a.png", ["--content", "file:///%00", "no file"]),
    ("run -c photo.jpg -s a.png", ["--content photo.jpg", "is photo.jpeg meant?"]),
    ("run -c C.JPG -s a.png", ["C.JPG", "is c.jpg meant?"]), ("run -c no/c.jpg -s a.png", ["no folder no"]),
    ("run -c c.jpg -s a.png,zzz.tif", ["--style zzz.tif", "check the name"]),
    ("run -c c.jpg -s ~nobody-of-this-name/a.png", ["~nobody", "user"]),
    ("run -c c.jpg -s a.png --image-size 512,", ["--image-size", "'512,'", "is 512 meant?"]),
    ("run -c c.jpg -s a.png --image-size 640x480", ["--image-size", "'640x480'", "is 640 meant?"]),
    ("run -c c.jpg -s a.png --style-scale 0,5", ["--style-scale", "'0,5'", "is 0.5 meant?"]),
    ("run -c c.jpg -s a.png --style-scale 50%", ["--style-scale", "'50%'", "is 0.5 meant?"]),
    ("run -c c.jpg -s a.png --image-size ''", ["--image-size", "''", "number of pixels"]),
    ("run -c c.jpg -s a.png --pooling mix", ["--pooling", "'mix'", "max, avg"]),
    ("run -c c.jpg -s a.png --precision fp61", ["--precision", "did you mean fp16"]),
    ("run -c c.jpg -s a.png --resume k.npz", ["--resume takes no value", "--checkpoint k.npz --resume"]),
    ("run -c c.jpg -s a.png --quiet=1", ["--quiet takes no value", "'1'"]),
    ("run -c c.jpg -s a.png --quiet b.png", ["'b.png'", "--quiet"]),
    ("run -c c.jpg -s a.png --image-size 128 --scales 32,64", ["--image-size is 128", "ends with 64", "leave one"]),
    ("run -c c.jpg -s a.png --image-size 512 --scales 32,64", ["--image-size is 512", "ends with 64", "leave one"]),
    ("run -c c.jpg -s a.png,b.png --style-blend-weights 0,0", ["--style-blend-weights", "above zero"]),
    ("run -c c.jpg -s a.png -o - --log -", ["-: the log and the output are one file"]),
    ("run -c c.jpg -s a.png --checkpoint -", ["-: this is no place for a checkpoint"]),
    ("''", ["unknown command"]), ("--", ["--content FILE"]),
    ("models fetch", ["NAME", "'cvstyle models fetch --help'"]),
    ("info --num-iterations 3", ["--num-iterations", "--help"]), ("models fetch a b", ["'b'"]),
    ("info --image-size x", ["--image-size", "'x'"]),
    ("devices now", ["'now'"]), ("models fetch vgg19 --dri x", ["--dri", "--dir"]),
])  # fmt: skip
def test_what_cannot_be_meant_is_one_line_that_helps(box, capfd, line, parts):
    before = sorted(os.listdir("."))
    assert main(shlex.split(line)) == 2
    out, err = capfd.readouterr()
    assert not out and err.startswith("cvstyle: ") and len(err.splitlines()) == 1
    for part in parts:
        assert part in err
    assert sorted(os.listdir(".")) == before


@pytest.mark.skipif(os.name == "nt", reason="there it is a path as others")
def test_a_path_of_windows_elsewhere(box, capsys):
    assert main(["run", "-c", r"C:\Users\me\a.jpg", "-s", "a.png"]) == 2
    assert "under WSL it is /mnt/c/Users/me/a.jpg" in capsys.readouterr().err
    assert main(["run", "-c", r"home\c.jpg", "-s", "a.png"]) == 2
    assert "is home/c.jpg meant?" in capsys.readouterr().err
    os.symlink("gone.jpg", "link.jpg")
    assert main(["run", "-c", "link.jpg", "-s", "a.png"]) == 2
    assert "link.jpg: this link leads to gone.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("line, said", [
    ("--image-size 64 --image-size 32", "--image-size is given more than once; the last one, 32, counts"),
    ("--image-size 32 --image-size 32", ""), ("--content b.png", "the last one, b.png, counts"),
    ("--style a.png --style a.png", ""),
    ("--learning-rate 3", "--learning-rate has no effect with --optimizer lbfgs, only with adam"),
    ("--learning-rate 3 --optimizer adam", ""), ("--lbfgs-smooth 1 --optimizer adam", "--lbfgs-smooth has no effect"),
    ("--lbfgs-num-correction 9 --optimizer Adam", "only with lbfgs or lbfgsb"),
    ("--checkpoint-iter 3", "--checkpoint-iter has no effect without --checkpoint"),
    ("--style-blend-weights 3", "--style-blend-weights has no effect with one style"),
    ("--style-weight 0", "the weight of style is 0, so the style pictures have no effect"),
    ("--content-layers relu1_1 --content-weight 0", "--content-layers has no effect with --content-weight 0"),
    ("--style-layers relu1_1:0,relu2_1:0", "the weight of style is 0"), ("--content-weight 0", ""),
    ("--style-weight 0 --content-weight 0 --tv-weight 0", "all weights are 0, so the result is the picture that"),
])  # fmt: skip
def test_what_has_no_effect_is_said(request_of, line, said):
    remarks = request_of("run", "-c", "c.jpg", "-s", "a.png", *line.split()).all_remarks()
    assert (len(remarks) == 1 and said in remarks[0]) if said else not remarks


@pytest.mark.parametrize("words, said", [
    ("--pooling avg --content-layers relu1 --style-layers relu1", True), ("--pooling avg", False),
    ("--content-layers relu1 --style-layers relu1", False),
])  # fmt: skip
def test_an_average_without_a_max_pool_is_said(box, words, said, capfd):
    assert main(["run", "-c", "c.jpg", "-s", "a.png", *words.split(), *QUICK]) == 0
    assert ("--pooling avg has no effect" in capfd.readouterr().err) is said


def test_remarks_are_printed_with_a_run(box, capfd):
    assert main(["run", "-c", "c.jpg", "-s", "a.png", "--learning-rate", "3", *QUICK]) == 0
    assert "cvstyle: --learning-rate has no effect" in capfd.readouterr().err
    assert main(["run", "-c", "c.jpg", "-s", "a.png", "--learning-rate", "3", "--quiet", *QUICK]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["version"], ["run", "--version"], ["--quiet", "--version"]])
def test_version(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0 and capsys.readouterr().out == f"cvstyle {cli.__version__}\n"


@pytest.mark.parametrize("words", [["help", "plan"], ["plan", "--help"], ["plan", "-h"], ["plan", "-c", "x", "-help"],
                                   ["--help", "plan"], ["plan", "--help", "run"]])  # fmt: skip
def test_help(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0 and capsys.readouterr().out.startswith("usage: cvstyle plan ")


def test_home_from_python(box):
    cvstyle.write_picture("~/out.png", cvstyle.read_picture("~/c.jpg"))
    assert (box / "home" / "out.png").exists()
    result = cvstyle.stylize("~/c.jpg", "~/a.png,~/c.jpg", image_size=16, num_iterations=1, backend="NumPy")
    assert result.iterations == 1
    assert zoo.files_of("~/p", Path("~/m")) == tuple(os.path.join(str(box / "home"), name) for name in "pm")


@pytest.mark.parametrize("words", ["show VGG19", "Show vgg19", "--dir x show vgg19", "show --dir=x vgg19"])
def test_actions_of_models(words, capsys):
    assert main(["models", *words.split()]) == 0 and "VGG_ILSVRC_19" in capsys.readouterr().out


def test_resuming_says_what_comes_from_the_checkpoint(box, capfd):
    words = ["run", "-c", "c.jpg", "-s", "a.png", "--checkpoint", "k.npz", *QUICK[:-2]]
    assert main([*words, "--seed", "1"]) == 0
    for number, (more, said) in enumerate([
        (["--seed", "7"], ["--seed 7 has no effect: k.npz goes on with seed 1"]), (["--seed", "1"], []), ([], []),
        (["--init-image", "b.png"], ["--init-image has no effect: the run goes on with the picture in k.npz"]),
        (["--seed", "-1"], []),
    ], 2):  # fmt: skip
        capfd.readouterr()
        words[words.index("--num-iterations") + 1] = str(number)
        assert main([*words, "--resume", *more]) == 0
        lines = capfd.readouterr().err.splitlines()
        assert [line for line in lines if "has no effect" in line] == [f"cvstyle: {line}" for line in said]


_TEXTS = [
    "c.jpg", "a.png", "x,y.png", "out.png", "-1", "0", "2,3", "auto", "1e400", "nan", "-inf", "1e-400", "²", "1_0", "",
    " ", ",", "relu1_1:x", "disk:", "host", "~", "~x", "-", "--", "-o", "=", "=x", "a\0b", "\udcff", "x" * 300, "/",
    "/dev/null/x", "on", "cpu", "LBFGS", "best", "fp16", "http://a/b", "file://[", "file:///%00", "[", "*", "a" * 5000,
    "–x", "“", "a\nb", "\x1b[31m", "1" * 5000, "1.", "٣", "\ud800", "C:\\x", "1e20", "-5,3", "3,pool2", "8px", "5%",
]  # fmt: skip
_options = st.sampled_from([*cli._run_options(), "--bogus", "-x", "—style", "-C", "--dir", "--timings", "fetch"])
_values = st.one_of(st.sampled_from(_TEXTS), st.text(max_size=6), st.floats().map(str), st.integers().map(str))
_words = st.one_of(
    st.tuples(_options, _values).map(list), st.tuples(_options, _values).map(lambda pair: ["=".join(pair)]),
    _values.map(lambda value: [value]), _options.map(lambda option: [option]),
)  # fmt: skip
_verbs = st.sampled_from(
    [["run", "-c", "c.jpg", "-s", "a.png"], ["plan"], ["info"], ["models", "show"], [], ["devices"]]
)
_more = st.lists(_words, max_size=5).map(lambda parts: [word for words in parts for word in words])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(verb=_verbs, more=_more, last=st.booleans())
def test_any_words_give_a_status_and_one_line(box, verb, more, last):
    words = [*more, *verb] if last else [*verb, *more]
    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(errors), redirect_stdout(io.StringIO()):
        for module in (run, plan):
            patch.setattr(module, "_execute", lambda request, *_: len(request.all_remarks()) * 0)
        patch.setattr(info, "execute", lambda args: 0)
        patch.setattr(devices, "execute", lambda args: 0)
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code
    assert status in (0, 2)
    message = errors.getvalue()
    assert not message if status == 0 else message.startswith("cvstyle: ") and message.count("\n") == 1


@pytest.fixture
def no_engine(tmp_path, monkeypatch):
    """A function: whether the package lies in a source tree → the reason why the engine does not work."""
    folder = tmp_path / "tree" / "cvstyle" / "backends" / "native"
    folder.mkdir(parents=True)
    (folder / "engine.h").touch()
    monkeypatch.setattr(library, "__file__", str(folder / "library.py"))
    library._path.cache_clear()

    def reason(in_source_tree):
        if in_source_tree:
            (tmp_path / "tree" / "setup.py").touch()
        return library.unavailable_because()

    yield reason
    library._path.cache_clear()


def test_an_engine_that_is_not_built(no_engine, tmp_path, monkeypatch):
    wheel = SimpleNamespace(read_text=lambda name: "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setattr(metadata, "distribution", lambda name: wheel)
    assert "wheel installed here (py3-none-any), made without a C compiler; reinstall" in no_engine(False)
    wheel.read_text = lambda name: None
    assert "its library is not in this installation; reinstall" in no_engine(False)
    reason = no_engine(True)
    assert f"'python setup.py build_ext --inplace' in {tmp_path / 'tree'} builds it" in reason


def test_a_run_without_the_engine_says_so(box, no_engine, capfd):
    no_engine(True)
    automatic = [word if word != "numpy" else "auto" for word in QUICK]
    words = ["run", "-c", "c.jpg", "-s", "a.png"]
    for backend, count in ((automatic, 1), (QUICK, 0)):
        assert main([*words, *backend, "--gpu", "-1"]) == 0
        assert capfd.readouterr().err.count("native, the fastest on a CPU, cannot be used: its library is not") == count
    assert main([*words, *automatic, "--gpu", "-1", "--style-layers", "absent"]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1
