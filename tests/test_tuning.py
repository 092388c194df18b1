"""The choice among ways of doing a convolution: by a clock that is given, kept in a file, and gone on with."""

from __future__ import annotations

import json
import shutil

import fake_cupy
import nets
import numpy as np
import ptx
import pytest
import test_checkpoint
from test_objective import reference_objective
from test_opencl import EXACT, close, noise
from test_tiles import check_features

from cvstyle import backends, checkpoint, paths
from cvstyle.backends import device as common
from cvstyle.backends import opencl
from cvstyle.backends.device import conv_tensor_cores, convolution, mma, tuning
from cvstyle.backends.device.algorithms import GEMM_BLOCKS, Algorithm
from cvstyle.errors import DeviceError, OptionError
from cvstyle.graph import Network

files = test_checkpoint.files  # the fixture


class Clock:
    """Stands in for `Device.seconds`: seconds by candidate, in the order in which they are asked for."""

    def __init__(self, monkeypatch, device, times):
        self.asked, self.times = 0, times
        monkeypatch.setattr(device, "seconds", self)

    def __call__(self, work):
        work()
        self.asked += 1
        return self.times(self.asked)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def ops(folder, monkeypatch):
    """A backend that tunes, on the first OpenCL device, among few ways, since PoCL takes seconds to compile each."""
    ranked = convolution.ranked_algorithms
    monkeypatch.setattr(convolution, "ranked_algorithms", lambda *shape, **options: ranked(*shape, **options)[:2])
    backend = common.Backend(opencl.Backend.list_devices()[0])
    assert not backend.autotune  # a CPU does not by itself
    backend.autotune = True
    return backend


def choices(ops):
    return tuning.Choices(ops.device, "digest")


def test_the_fastest_is_chosen_and_kept(ops, monkeypatch):
    order = {"a": 3.0, "b": 1.0, "c": 2.0}
    ran = []
    Clock(monkeypatch, ops.device, lambda n: order[ran[-1]])
    first = choices(ops)
    assert first.pick(("conv", 3, (1, 2)), ["a", "b", "c"], ran.append) == "b"
    assert first.pick(("conv", 4), ["a"], ran.append) == "a"  # nothing to choose
    count = len(ran)
    assert first.pick(("conv", 3, (1, 2)), ["a", "b", "c"], ran.append) == "b"
    assert choices(ops).pick(("conv", 3, (1, 2)), ["a", "b", "c"], ran.append) == "b"
    assert len(ran) == count
    assert choices(ops).pick(("conv", 3, (1, 2)), ["a", "c"], ran.append) == "c"  # kept for what there no longer is


def test_what_cannot_be_run_is_passed_over(ops, monkeypatch):
    def run(candidate):
        if candidate != "c":
            raise DeviceError("too many registers") if candidate == "a" else MemoryError

    def seconds(work):
        raise KeyError("not recorded")

    monkeypatch.setattr(ops.device, "errors", (KeyError,))
    monkeypatch.setattr(ops.device, "seconds", seconds)
    assert choices(ops).pick(("w",), ["c", "d"], run) == "c"
    Clock(monkeypatch, ops.device, lambda n: 1.0)
    assert choices(ops).pick(("x",), ["a", "b", "c"], run) == "c"
    assert choices(ops).pick(("y",), ["a", "b"], run) == "a"  # whose error then shows
    assert choices(ops).entries == {"x": "c"}  # the only one that was measured


def test_a_device_that_stops_working_ends_the_run_and_leaves_no_choices(ops, monkeypatch):
    """After an illegal access a GPU refuses everything: what comes after it is not to blame, and not to be chosen."""
    tried, found = [], choices(ops)

    def run(candidate):
        tried.append(candidate)
        if lost():
            raise KeyError("illegal address")

    def synchronize():
        if lost():
            raise KeyError("illegal address, still")

    lost = lambda: "b" in tried  # noqa: E731
    Clock(monkeypatch, ops.device, lambda n: 1.0)
    monkeypatch.setattr(ops.device, "errors", (KeyError,))
    monkeypatch.setattr(ops.device, "synchronize", synchronize)
    with pytest.raises(DeviceError, match=r"stopped working when 'b' was tried for 'x 1' .*illegal address, still"):
        found.pick(("x", 1), ["a", "b", "c"], run)
    assert tried[-1] == "b"
    with pytest.raises(DeviceError, match="stopped working before anything was tried for 'y'"):
        found.pick(("y",), ["a", "c"], run)
    assert tried[-1] == "b" and not found.entries and not found.path.exists()


def test_trying_ends_with_its_time(ops, monkeypatch):
    """What is left takes the estimate, which a checkpoint has and the file has not; the next process tries it."""
    times = iter(range(0, 1000, 25))  # 25 seconds for each choice
    monkeypatch.setattr(tuning, "perf_counter", lambda: next(times))
    clock, order = Clock(monkeypatch, ops.device, lambda n: -float(n)), ["a", "b"]
    first = choices(ops)
    assert [first.pick((n,), order, lambda c: None) for n in range(5)] == ["b", "b", "b", "a", "a"]
    assert first.pick((5,), ["c"], lambda c: None) == "c"  # nothing to try
    assert first.untried == ["3", "4"] and clock.asked == 3 * 2 * 3
    assert first.pick((3,), order, lambda c: None) == "a"
    assert first.problem.startswith("2 choices among kernels were left to the estimate, since 60 s of trying")
    assert first.entries == {"0": "b", "1": "b", "2": "b", "3": "a", "4": "a", "5": "c"}
    second = choices(ops)
    assert second.entries == {"0": "b", "1": "b", "2": "b"}
    assert [second.pick((n,), order, lambda c: None) for n in range(5)] == ["b"] * 5
    assert not second.untried and not second.problem


@pytest.mark.parametrize("value, tried, said", [("0", 0, False), ("30", 2, True), ("", 3, False)])
def test_the_time_for_trying_can_be_chosen(ops, monkeypatch, value, tried, said):
    times = iter(range(0, 1000, 25))
    monkeypatch.setattr(tuning, "perf_counter", lambda: next(times))
    monkeypatch.setenv("CVSTYLE_AUTOTUNE_SECONDS", value)
    Clock(monkeypatch, ops.device, lambda n: -float(n))
    for number in range(3):
        ops.choices.pick((number,), ["a", "b"], lambda c: None)
    assert list(ops.choices.entries.values()) == ["b"] * tried + ["a"] * (3 - tried)
    assert len(ops.choices.untried) == 3 - tried
    assert ("left to the estimate, since 30 s" in ops.memory_used()) == said
    ops.autotune = False
    assert "estimate" not in ops.memory_used()


@pytest.mark.parametrize("value", ["-1", "soon", "nan"])
def test_a_time_for_trying_that_makes_no_sense(ops, monkeypatch, value):
    monkeypatch.setenv("CVSTYLE_AUTOTUNE_SECONDS", value)
    with pytest.raises(OptionError, match=f"CVSTYLE_AUTOTUNE_SECONDS is '{value}'; a number"):
        choices(ops)


@pytest.mark.parametrize("content", [
    "", "{", "[]", '{"for": {}, "choices": {"x": "b"}}', '{"choices": 3}', "\0", '{"for": "same", "choices": []}',
])  # fmt: skip
def test_a_damaged_or_foreign_file_is_ignored_and_rewritten(ops, monkeypatch, content):
    found = choices(ops)
    content = content.replace('"same"', json.dumps(found._identity))
    found.path.parent.mkdir(parents=True)
    found.path.write_text(content, "utf-8")
    Clock(monkeypatch, ops.device, lambda n: float(n))
    assert choices(ops).pick(("x",), ["a", "b"], lambda c: None) == "a"
    assert json.loads(found.path.read_text("utf-8")) == {"for": found._identity, "choices": {"x": "a"}}


def test_a_folder_that_cannot_be_written_changes_nothing(ops, monkeypatch, folder):
    folder.write_text("a file where the folder should be", "utf-8")
    Clock(monkeypatch, ops.device, lambda n: -float(n))
    found = choices(ops)
    assert [found.pick(("x",), ["a", "b"], lambda c: None) for _ in range(2)] == ["b", "b"]
    assert folder.read_text("utf-8").startswith("a file")


def test_two_processes_keep_what_each_chose(ops, monkeypatch):
    Clock(monkeypatch, ops.device, lambda n: 1.0)
    first, second = choices(ops), choices(ops)
    first.pick(("x",), ["a", "c"], lambda c: None)
    second.pick(("y",), ["b", "c"], lambda c: None)
    assert choices(ops).entries == {"x": "a", "y": "b"}


def test_another_driver_or_kernel_has_a_file_of_its_own(ops, monkeypatch):
    files = {choices(ops).path, tuning.Choices(ops.device, "other").path}
    monkeypatch.setattr(ops.device, "driver", "99")
    files.add(choices(ops).path)
    assert len(files) == 3


def test_a_convolution_takes_the_way_that_was_fastest(ops, monkeypatch):
    """Each of the ways gives the same numbers but for rounding; the last one is made the fastest."""
    clock = Clock(monkeypatch, ops.device, lambda n: -float(n))
    weight, x = noise(70, 40, 3, 3), noise(1, 40, 9, 11)
    ours, exact = (b.convolution(weight, None, (1, 1), (1, 1), 1) for b in (ops, EXACT))
    pads = (1, 1, 1, 1)
    close([ours.forward(ops.asarray(x), pads)[0]], [exact.forward(x, pads)[0]])
    device = ops.device
    ways = convolution.ranked_algorithms(70, 99, 40, 9, 1, device.multiprocessors, blocks=9, cpu=device.kind == "cpu")
    assert len(ways) == 2 and clock.asked == 3 * len(ways)
    assert ours.engine() == str(ways[-1]) and not ours.engine(backward=True)
    ours.forward(ops.asarray(x), pads)
    assert clock.asked == 3 * len(ways)


def test_what_is_added_to_is_tried_out_beside_it(folder, monkeypatch):
    """A Gram gradient on tensor cores is measured on an array that nobody reads; Gram matrices as well."""
    fake_cupy.install(monkeypatch, ptx.Device())
    backend = backends.get("cuda", precision="tf32-fast")
    backend.autotune = True
    clock, ways = Clock(monkeypatch, backend.device, lambda n: -float(n)), mma.ranked_algorithms
    monkeypatch.setattr(conv_tensor_cores, "ranked_algorithms", lambda *shape: ways(*shape)[-2:])
    x, base = (np.round(noise(1, 64, 5, 40, seed=i) * 2) for i in (1, 2))
    results = []
    for b in (EXACT, backend):
        gram = b.gram(b.asarray(x), 1.0)
        results.append([gram, b.gram_backward(gram, b.asarray(x), 1 / 64, out=b.asarray(base))])
    close(results[1], results[0], 1e-6)
    assert clock.asked
    assert {key.split()[0] for key in backend.choices.entries} == {"gram", "cuda/convolution"}


def test_ways_worth_trying_are_few_and_the_estimated_one_is_first():
    for shape in ((512, 96 * 128, 512, 9, 1, 132), (64, 512 * 384, 3, 9, 1, 132), (512, 16 * 12, 512, 9, 1, 132)):
        ways = convolution.ranked_algorithms(*shape)
        assert 1 <= len(ways) == len(set(ways)) <= 8 and ways[0] == convolution.best_algorithm(*shape)
        both = convolution.ranked_algorithms(*shape, blocks=shape[1] // 16)
        assert len(both) == len(set(both)) <= 10 and {way.winograd for way in both} == {False, True}
    for word, split in (("tf32", True), ("fp16", False)):
        ways = mma.ranked_algorithms(512, 96, 128, 512, 3, word, split, 132)
        assert 1 < len(ways) == len(set(map(str, ways))) <= 8


def test_only_the_first_evaluation_measures_and_the_file_makes_runs_equal(ops, monkeypatch):
    clock = Clock(monkeypatch, ops.device, lambda n: (n * 7919) % 31)  # as good as random
    gradients, asked = [], []
    for number in range(2):
        if number:
            ops.__dict__.pop("choices")  # as a new process
        objective, x = reference_objective("max", ops)
        gradients += [objective(x)[1].tobytes() for _ in range(2)]
        asked.append(clock.asked)
    assert len(set(gradients)) == 1
    assert asked[0] and asked[1] == asked[0]


def test_windows_add_up_in_the_order_that_was_fastest_for_the_picture(ops, monkeypatch):
    """Whatever else is measured, and whether the picture or its windows come first: they have its bits."""
    small, large = GEMM_BLOCKS[2], GEMM_BLOCKS[0]
    ways = Algorithm(small, 1), Algorithm(small, 2, True), Algorithm(large, 2), Algorithm(small, 1, True)
    monkeypatch.setattr(
        convolution, "ranked_algorithms",
        lambda *_, order=None, **__: [way for way in ways if order in (None, way.reduction_order)],
    )  # fmt: skip
    monkeypatch.setattr(convolution, "_TRIAL_SIZE", 64 * 20 * 20)
    for first in (0, 1):
        Clock(monkeypatch, ops.device, lambda n: (n * 7919) % 31)  # as good as random
        ops.__dict__.pop("choices", None)
        ops.choices.entries.clear()
        net = Network(nets.vgg(19, 4, (64, 64), classifier=False), ops)
        check_features(net, ["relu1_1", "relu3_1"], (84, 40), 64, first)
        taken = [layer.filters._algorithms[0] for layer in net._layers.values() if layer.uses_grid]
        assert len({way.reduction_order for way in taken if isinstance(way, Algorithm)}) > 1


def test_a_checkpoint_brings_its_choices(ops, monkeypatch):
    Clock(monkeypatch, ops.device, lambda n: -float(n))
    ops.choices.pick(("x",), ["a", "b"], lambda c: None)
    ops.choices.adopt({"x": "a", "y": "c"})
    assert ops.choices.pick(("x",), ["a", "b"], lambda c: None) == "a"
    assert ops.choices.entries["y"] == "c"
    ops.choices.pick(("z",), ["a", "b"], lambda c: None)
    kept = json.loads(ops.choices.path.read_text("utf-8"))["choices"]
    assert kept == {"x": "b", "z": "b"}  # what was measured here


def test_resuming_takes_the_choices_of_the_run_that_wrote_the_checkpoint(ops, files, monkeypatch, tmp_path, folder):
    """The same bytes even where the file is gone and the clock says something else."""
    results, kept = [], []
    for order, runs in ((1, [(6, False)]), (1, [(3, False)]), (-1, [(6, True)])):
        backend = common.Backend(ops.device)
        backend.autotune = True
        Clock(monkeypatch, ops.device, lambda n, order=order: order * float(n))
        shutil.rmtree(folder, ignore_errors=True)
        for count, resume in runs:
            name = "whole" if not results else "cut"
            result = test_checkpoint.run(
                files, backend=backend, num_iterations=count, resume=resume, checkpoint=str(tmp_path / f"{name}.npz")
            )
        results.append(result.picture.rgb.tobytes())
        kept.append(backend.choices.entries)
    assert results[0] == results[2] != results[1]
    assert kept[1] == kept[2] == checkpoint.load(str(tmp_path / "cut.npz"))[0]["choices"] != {}
