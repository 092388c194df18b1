"""The options of a run: their records, what values they take and refuse, and the parser that is made from them."""

from __future__ import annotations

import argparse
import copy
import os
import pickle
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvstyle import fields, images, options
from cvstyle.cli import main, run
from cvstyle.errors import OptionError
from cvstyle.fields import Offload
from cvstyle.options import Compute, Files, Options, Reports
from cvstyle.reports.signals import handling

CLASSES = (Files, Options, Compute, Reports)


def records():
    return [entry for cls in CLASSES for entry in fields.options_of(cls).values()]


def test_every_option_has_a_record_that_is_whole():
    names = [entry.name for entry in records()]
    assert len(names) == len(set(names))
    for entry in records():
        assert entry.help, entry.name
        assert entry.group in fields.GROUPS, entry.name
        if entry.default is not fields.REQUIRED:
            assert entry.convert(entry.default) == entry.default, entry.name
            entry.check(entry.default)


@pytest.mark.parametrize("name, given, kept", [
    ("image_size", 512.0, 512), ("image_size", np.int64(300), 300), ("image_size", np.float32(300), 300),
    ("image_size", "5.12e2", 512), ("style_scale", 2, 2.0), ("style_scale", np.float64(0.5), 0.5),
    ("style_layers", "relu1_1, relu2_1:2", ["relu1_1", "relu2_1:2"]),
    ("style_layers", {"relu1_1": 2.0}, [("relu1_1", 2.0)]), ("style_layers", (["a", np.float64(2)],), [("a", 2.0)]),
    ("content_layers", iter(["relu4_2"]), ["relu4_2"]), ("content_layers", [("a", 2)], [("a", 2)]),
    ("style_blend_weights", "3,7", [3.0, 7.0]), ("style_blend_weights", np.array([3, 7]), [3.0, 7.0]),
    ("style_blend_weights", "nil", None), ("scales", "256,512", [256, 512]), ("scales", "auto", "auto"),
    ("scales", np.array([256, 512]), [256, 512]), ("scales", (256.0, 512), [256, 512]),
    ("scale_iterations", "6,4", [6, 4]), ("tile_size", "1024", 1024), ("tile_size", "off", None),
    ("tile_size", 1024.0, 1024), ("multigpu_strategy", "3,pool2", [3, "pool2"]),
    ("multigpu_strategy", (3, "pool2"), [3, "pool2"]), ("bounds", 1, True), ("bounds", np.bool_(True), True),
    ("original_colors", "1", True), ("seed", -1, -1), ("init", None, None),
    ("offload", "", Offload()), ("offload", "host", Offload()), ("offload", "disk:a,b", Offload("a,b")),
    ("offload", Path("a"), Offload("a")), ("offload", Offload("host"), Offload("host")),
], ids=lambda value: str(value).partition(" object at")[0])  # fmt: skip
def test_what_is_unambiguous_is_accepted(name, given, kept):
    found = getattr(Options(**{name: given}), name)
    assert found == kept and type(found) is type(kept)
    assert all(type(a) is type(b) for a, b in zip(found, kept)) if isinstance(kept, list) else True


@pytest.mark.parametrize("name, given, message", [
    ("image_size", 512.5, "image_size is 512.5; a number of pixels, or original, is needed"),
    ("image_size", True, "image_size is True; a number of pixels, or original, is needed"),
    ("image_size", None, "image_size is None; a number of pixels, or original, is needed"),
    ("image_size", "large", "image_size is 'large'; a number of pixels, or original, is needed"),
    ("image_size", np.inf, "image_size is inf; a number of pixels, or original, is needed"),
    ("image_size", [512], "image_size is [512]; a number of pixels, or original, is needed"),
    ("image_size", -1, "image_size is -1; a number of pixels, or original, is needed"),
    ("style_scale", float("nan"), "style_scale is nan; a number above zero is needed"),
    ("learning_rate", 0, "learning_rate is 0.0; a number above zero is needed"),
    ("num_iterations", -3, "num_iterations is -3; a number above zero is needed"),
    ("num_iterations", [6, 0], "iterations 6,0 do not fit 1 scales"),
    ("style_weight", -1, "style_weight is -1.0; a finite number that is not negative is needed"),
    ("tv_weight", False, "tv_weight is False; a number is needed"),
    ("tv_weight", 1j, "tv_weight is 1j; a number is needed"),
    ("style_layers", 3, "style_layers is 3; layers such as relu1_1,relu2_1:2 are needed"),
    ("style_layers", [3], "style_layers is [3]; layers such as"),
    ("style_layers", {"relu1_1": "much"}, "style_layers is {'relu1_1': 'much'}; layers such as"),
    ("style_blend_weights", "a", "style_blend_weights is 'a'; numbers such as 3,7 are needed"),
    ("style_blend_weights", 3, "style_blend_weights is 3; numbers such as"),
    ("scales", "many", "scales is 'many'; auto, or sizes such as 256,512,1024, are needed"),
    ("scales", 512, "scales is 512; auto, or sizes"), ("scales", [256.5], "scales is [256.5]; auto, or sizes"),
    ("scales", [512, 256], "scales 512,256 must be above zero and ascend"),
    ("tile_size", "many", "tile_size is 'many'; auto, or a number of pixels, is needed"),
    ("tile_size", 0, "tile_size is 0; a number of pixels above zero is needed"),
    ("tile_size", True, "tile_size is True; auto, or"),
    ("multigpu_strategy", 3, "multigpu_strategy is 3; layers such as 3,pool2 are needed"),
    ("bounds", "yes", "bounds is 'yes'; True or False is needed"), ("bounds", None, "bounds is None; True or False"),
    ("bounds", True, "bounds needs optimizer lbfgsb; lbfgs has no bounds"),
    ("optimizer", 3.5, "optimizer is 3.5; a name is needed"),
    ("optimizer", "lbgfs", "unknown optimizer 'lbgfs': did you mean lbfgs"),
    ("init", "noise", "init must be random or image, not 'noise'"),
    ("pooling", "min", "pooling must be max or avg, not 'min'"),
    ("split", "rows", "split must be tiles or layers, not 'rows'"), ("checkpoint", 3, "checkpoint is 3; a path is"),
    ("margin", -1, "margin is -1; a number from 0 to the picture's longest side is needed"),
    ("margin", 600, "margin is 600; a number from 0 to the picture's longest side is needed"),
    ("lbfgs_num_correction", -1, "lbfgs_num_correction is -1; it cannot be negative"),
    ("lbfgs_smooth", 3, "lbfgs_smooth is 3.0; a number from 0 to 2 is needed"),
    ("avg_decay", 1, "avg_decay is 1.0; a number from 0 to below 1 is needed"),
    ("average_iterates", 1, "avg_decay is 1.0; a number from 0 to below 1 is needed"),
    ("checkpoint_iter", 0, "checkpoint_iter is 0; a number above zero is needed"),
    ("resume", True, "resume needs checkpoint, the file to continue from"),
    ("offload", "absent", "absent: there is no such folder to offload to"),
    ("offload", "disk:", ": there is no such folder to offload to"),
    ("offload", 3, "offload is 3; host, or disk:FOLDER, is needed"),
    ("imagesize", 3, "there is no option 'imagesize'; did you mean image_size"),
    ("image_size", 10**400, "pixels"), ("style_scale", 10**400, "style_scale is 1"),
], ids=lambda value: str(value)[:40])  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(name, given, message):
    with pytest.raises(OptionError) as caught:
        Options.from_dict({name: given}).check(1)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("message, python", [
    ("--image-size is 0", "image_size is 0"), ("leave out --mean (--proto)", "leave out mean (proto)"),
    ("run 'cvstyle --model a'; --x", "run 'cvstyle --model a'; x"),
    ("it's --bits, not a--b.png", "it's bits, not a--b.png"),
])  # fmt: skip
def test_errors_name_options_as_each_surface_spells_them(message, python):
    error = pickle.loads(pickle.dumps(OptionError(message)))
    assert error.command_line == message and str(error) == python


def test_a_value_set_later_is_checked_too():
    given = Options()
    given.image_size = "64"
    given.check(1)
    assert given.image_size == 64
    given.image_size = True
    with pytest.raises(OptionError, match="image_size is True"):
        given.check(1)


def test_several_iteration_counts_are_those_of_the_scales():
    given = Options(num_iterations="6,4,3", scales="48,72,96")
    assert (given.num_iterations, given.scale_iterations) == (6, [6, 4, 3])
    assert given.schedule(6) == [(48, 6), (72, 4), (96, 3)]
    assert Options(num_iterations=[7]) == Options(num_iterations=7)
    with pytest.raises(OptionError, match="both set iterations"):
        Options(num_iterations=[6, 4], scale_iterations=[5, 4])
    with pytest.raises(OptionError, match="num_iterations is \\[\\]; a whole number, or one for each scale"):
        Options(num_iterations=[])


def test_options_can_be_pickled_copied_and_compared():
    given = Options(style_layers={"relu1_1": 2.0}, scales="auto", seed=3)
    for same in (pickle.loads(pickle.dumps(given)), copy.deepcopy(given)):
        assert same == given and same is not given
    assert Options(image_size=512.0) == Options() != Options(seed=3)
    with pytest.raises(TypeError):
        Options(512)  # the order of the fields means nothing


def test_styles_may_be_a_comma_list(tmp_path):
    both = tmp_path / "a,b.png"
    both.touch()
    assert options.style_paths("a.jpg,b.jpg") == ["a.jpg", "b.jpg"]
    assert options.style_paths(str(both)) == options.style_paths(both) == [str(both)]
    assert options.style_paths(("a.jpg", both)) == ["a.jpg", str(both)]
    for wrong in (None, 3, [None]):
        with pytest.raises(OptionError, match=r"style is .*; paths such as a\.png,b\.png are needed"):
            options.style_paths(wrong)


def test_what_a_checkpoint_must_agree_on():
    names = {
        "content_weight", "style_weight", "tv_weight", "init", "content_layers", "style_layers", "style_scale",
        "style_blend_weights", "optimizer", "learning_rate", "lbfgs_num_correction", "bounds", "normalize_gradients",
        "pooling", "compat", "average_iterates",
    }  # fmt: skip
    kept = options.identity(Options(seed=3), {"style_weight": 7.0})
    assert names <= set(kept) and "seed" not in kept
    assert kept["style_weight"] == 7.0 and kept["content_weight"] is None


def test_options_need_no_numpy():
    code = "import sys; from cvstyle import Options; Options(style_layers='a'); sys.exit('numpy' in sys.modules)"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def parsed(*words):
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_args(["--content", "c.png", "--style", "s.png", *words])


def test_the_parser_has_every_option_with_its_default():
    args = vars(parsed())
    for entry in records():
        if entry.default is not fields.REQUIRED:
            assert args[entry.name] == entry.default, entry.name
    request = run.Request.of(parsed())
    assert request.options == Options() and request.compute == Compute() and request.reports == Reports()
    assert request.files == Files(content="c.png", style=["s.png"])


def test_the_help_lists_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for entry in records():
        for spelling in entry.spellings:
            assert f"{spelling} " in shown, spelling
        assert " ".join((entry.help % {"default": entry.default}).split()) in shown, entry.name
    places = [shown.index(f" {group}: --") for group in fields.GROUPS]
    assert places == sorted(places)


@pytest.mark.parametrize("words, kept", [
    (["--image-size", "3.2e1"], {"image_size": 32}), (["--style-layers", "a, b:2"], {"style_layers": ["a", "b:2"]}),
    (["--num-iterations", "6,4", "--scales", "48,96"],
     {"num_iterations": 6, "scale_iterations": [6, 4], "scales": [48, 96]}),
    (["--original-colors"], {"original_colors": True}), (["--original-colors", "0"], {"original_colors": False}),
    (["--scale-iterations", "6,4", "--scales", "48,96"], {"scale_iterations": [6, 4], "scales": [48, 96]}),
    (["--offload"], {"offload": Offload()}), (["--offload", "host"], {"offload": Offload()}),
    (["--offload", "disk:."], {"offload": Offload(".")}), (["--offload", "."], {"offload": Offload(".")}),
    (["--avg-decay"], {"avg_decay": 0.99}), (["--avg-decay", "0.5"], {"avg_decay": 0.5}),
    (["--average-iterates"], {"avg_decay": 0.99}), (["--average-iterates", "0.5"], {"avg_decay": 0.5}),
    (["--tile-size", "auto"], {"tile_size": "auto"}), (["--tile-size", "off"], {"tile_size": None}),
    (["--style-blend-weights", "nil"], {"style_blend_weights": None}), (["--seed", "-1"], {"seed": -1}),
    (["--multigpu-strategy", "3,pool2"], {"multigpu_strategy": [3, "pool2"]}),
], ids=str)  # fmt: skip
def test_texts_of_the_command_line(words, kept):
    given = run.Request.of(parsed(*words)).options
    assert given == Options(**kept) and {name: getattr(given, name) for name in kept} == kept


@pytest.mark.parametrize("words, kept", [
    ([], "auto"), (["--autotune", "on"], "on"), (["--autotune", "off"], "off"), (["--no-autotune"], "off"),
    (["--cudnn-autotune"], "on"), (["--cudnn-autotune", "--no-autotune"], "off"),
], ids=str)  # fmt: skip
def test_autotune_on_the_command_line(words, kept):
    assert run.Request.of(parsed(*words)).compute == Compute(autotune=kept)


def test_keywords_of_earlier_versions():
    given = Options(average_iterates=0.5)
    assert given == Options(avg_decay=0.5) == Options.from_dict({"average_iterates": 0.5})
    assert replace(given, average_iterates=0) == Options() and replace(given, seed=3).avg_decay == 0.5
    assert Compute(no_autotune=True).autotune == "off" and Compute(cudnn_autotune=True).autotune == "on"
    assert Compute(no_autotune=False, cudnn_autotune=False) == Compute()
    assert Compute(no_autotune=True, cudnn_autotune=True).autotune == "off"
    with pytest.raises(TypeError, match="no_autotun"):
        Compute(no_autotun=True)
    with pytest.raises(OptionError, match="autotune must be auto, on or off, not 'yes'"):
        Compute(autotune="yes").devices(Options())


def test_save_iter_under_compat():
    assert [Reports().save_interval(compat) for compat in (False, True)] == [0, 100]
    assert [Reports(save_iter=0).save_interval(compat) for compat in (False, True)] == [0, 0]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A run of the embedded network on a small picture, without its output."""
    folder = tmp_path_factory.mktemp("options")
    picture = str(folder / "picture.png")
    images.write(picture, np.random.default_rng(3).uniform(0, 255, (40, 40, 3)).astype(np.float32))
    options = "--image-size 32 --num-iterations 2 --seed 1 --backend numpy --threads 1"
    return ["run", "--content", picture, "--style", picture, *options.split()]


def test_main_leaves_the_process_as_it_was(command, tmp_path, monkeypatch):
    seen = []
    write = images.write

    def noticed(*rest, **named):
        seen.append(signal.getsignal(signal.SIGTERM))
        write(*rest, **named)

    monkeypatch.setattr(images, "write", noticed)
    handlers = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    streams = [sys.stdout.errors, sys.stderr.errors]
    shown = warnings.showwarning
    for turn in range(2):
        assert main([*command, "--output", str(tmp_path / f"{turn}.png")]) == 0
        assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == handlers
        assert [sys.stdout.errors, sys.stderr.errors] == streams and warnings.showwarning is shown
    assert seen and handlers[1] not in seen
    assert images.read(tmp_path / "0.png").rgb.shape == images.read(tmp_path / "1.png").rgb.shape == (32, 32, 3)
    assert main([*command, "--output", str(tmp_path / "absent" / "out.png")]) == 2
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_main_works_in_a_thread(command, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        status = pool.submit(main, [*command, "--output", str(tmp_path / "thread.png"), "--quiet"]).result()
    assert status == 0 and main([*command, "--output", str(tmp_path / "main.png"), "--quiet"]) == 0
    ours, theirs = (images.read(tmp_path / f"{name}.png").rgb for name in ("thread", "main"))
    assert (ours == theirs).all()


def test_ctrl_c_while_the_parser_is_made_is_one_line(monkeypatch, capsys):
    def pressed(parser):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "add_arguments", pressed)
    assert main(["run"]) == 130 and capsys.readouterr().err == "cvstyle: interrupted; nothing was written\n"


@pytest.mark.parametrize("finish_iteration", [False, True])
def test_signals_end_a_run_at_once_or_after_the_iteration(finish_iteration):
    before, said = signal.getsignal(signal.SIGINT), []
    with handling(finish_iteration, said.append) as stop_requested:
        assert not stop_requested()
        if finish_iteration:
            signal.raise_signal(signal.SIGINT)
            assert stop_requested() and said == ["stopping after this iteration; once more to stop at once"]
        else:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            assert stop_requested() and not said
        signal.raise_signal(signal.SIGINT)  # while the picture is saved: nothing but the last warning
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


def test_the_second_signal_does_not_wait_for_the_iteration():
    with handling(True, lambda line: None) as stop_requested:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop_requested()


def test_signals_of_another_thread_change_nothing():
    def within():
        with handling(False, print) as stop_requested:
            return signal.getsignal(signal.SIGINT), stop_requested()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(within).result() == (signal.getsignal(signal.SIGINT), False)


# Quality


@pytest.mark.parametrize(
    ("size", "sizes"), [(100, [100]), (255, [255]), (256, [128, 256]), (512, [128, 256, 512]), (900, [225, 450, 900])]
)
@pytest.mark.parametrize("quality", [None, "draft", "normal", "best"])
def test_a_quality_goes_from_coarse_to_fine(size, sizes, quality):
    schedule = Options(image_size=size, quality=quality).schedule(7)
    assert [side for side, _ in schedule] == sizes
    counts = [count for _, count in schedule]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == len(counts)


def test_more_quality_is_more_iterations():
    counts = [[n for _, n in Options(image_size=4096, quality=q).schedule(1)] for q in ("draft", "normal", "best")]
    assert all(a < b < c for a, b, c in zip(*counts, strict=True))
    assert Options(image_size=512).schedule(1) == Options(image_size=512, quality="normal").schedule(1)


@pytest.mark.parametrize(
    "given", [{"scales": [64, 128]}, {"num_iterations": 50}, {"scale_iterations": [50]}, {"compat": True}]
)
def test_what_is_said_by_hand_goes_before_the_quality(given):
    options = Options(image_size=128, **given)
    assert not options.uses_quality and options.schedule(9)[-1][0] == 128
    with pytest.raises(OptionError, match=f"quality sets sizes and iterations, and so does {next(iter(given))}"):
        Options(image_size=128, quality="best", **given).check(1)
