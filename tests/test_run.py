"""A run from Python: whatever pictures come as, stepped and stopped, side by side with others, in other processes."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import threading
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import nets
import numpy as np
import pytest
import runs
from PIL import Image

import cvstyle
from cvstyle import Compute, Job, Objective, Options, images, load_network, measure_styles, plan, preprocess, stylize
from cvstyle.backends import native, threads
from cvstyle.backends.reference import Backend
from cvstyle.errors import ImageError, OptionError
from cvstyle.graph import Network
from cvstyle.netdef import LayerDef, NetDef

needs_native = pytest.mark.skipif(
    native.Backend.unavailable_because() is not None, reason=f"no engine here: {native.Backend.unavailable_because()}"
)
BACKENDS = ["numpy", pytest.param("native", marks=needs_native)]
LAYERS = {"content_layers": ["relu2_2"], "style_layers": ["relu1_1", "relu3_1"]}
SETTINGS = {"image_size": 48, "seed": 3, "init": "random", "num_iterations": 6, **LAYERS}
OPTIMIZERS = pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgsb", "adam"])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    net = nets.vgg(16, 16, (64, 64), classifier=False)
    return runs.files(tmp_path_factory.mktemp("files"), net, content=(360, 340), styles=(40, 44))


def job(files, backend="numpy", network=None, **settings):
    options, compute = Options(**{**SETTINGS, **settings}), Compute(backend=backend)
    if network is not None:
        files = files | {"proto": None, "model": None}
        compute = Compute()
    return Job(**files, options=options, compute=compute, network=network)


def run(files, **more):
    return stylize(**{"backend": "numpy", **SETTINGS, **files, **more})


def started(files, **given):
    """`run`'s arguments for a Job."""
    pictures = {name: given.pop(name) for name in ("content", "styles") if name in given}
    return job(files | pictures, **given).start()


def same(results, others):
    """Whether results agree to the bit, losses too."""
    pairs = zip(results, others, strict=True)
    return [a.picture.rgb.tobytes() == b.picture.rgb.tobytes() and a.losses == b.losses for a, b in pairs]


def threads_of_scipy():
    return [t for t in threading.enumerate() if t.name == "cvstyle-lbfgsb"]


# Pictures without files


def test_a_picture_may_come_as_anything(files, tmp_path):
    pixels = {name: np.asarray(Image.open(files[name])) for name in ("content", "styles")}
    wanted = run(files, num_iterations=3)
    for form in (lambda a: a, lambda a: a.astype(np.float64), Image.fromarray, lambda a: a[..., ::1]):
        found = run(files | {name: form(array) for name, array in pixels.items()}, num_iterations=3)
        assert same([found], [wanted]) == [True]
    found = run(files | {name: images.as_picture(array) for name, array in pixels.items()}, num_iterations=3)
    np.testing.assert_allclose(found.picture.rgb, wanted.picture.rgb, atol=0.1)  # reduced at each scale, by OpenCV
    for styles in ([pixels["styles"]], (files["styles"],), pixels["styles"], Image.open(files["styles"])):
        assert same([run(files | {"styles": styles}, num_iterations=3)], [wanted]) == [True]
    two = run(files | {"styles": f"{files['styles']},{files['content']}"}, num_iterations=2)
    listed = run(files | {"styles": [files["styles"], pixels["content"]]}, num_iterations=2)
    assert same([two], [listed]) == [True] and same([two], [run(files, num_iterations=2)]) == [False]


def test_alpha_is_kept_without_files(files):
    pixels = np.random.default_rng(0).integers(0, 256, (36, 48, 4), np.uint8)
    for content in (pixels, Image.fromarray(pixels), pixels.astype(np.float32)):
        picture = run(files | {"content": content}, num_iterations=1).picture
        np.testing.assert_allclose(picture.alpha, pixels[..., 3] / 255, atol=1e-6)


def test_the_start_may_be_a_picture(files, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (36, 48, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "start.png")
    settings = {"init": None, "num_iterations": 2}
    wanted = run(files, init_image=tmp_path / "start.png", **settings)
    for start in (pixels, Image.fromarray(pixels), images.as_picture(pixels)):
        assert same([run(files, init_image=start, **settings)], [wanted]) == [True]
    options = Options(init_image=pixels)
    pixels[:] = 0
    assert pickle.loads(pickle.dumps(options)).init_image.rgb.max() > 200
    assert same([run(files, **{**settings, "init": "image"})], [wanted]) == [False]


def test_a_network_may_be_loaded_before(files):
    wanted = run(files)
    net = load_network(files["proto"], files["model"], "numpy")
    loaded = files | {"proto": None, "model": None, "backend": "auto", "network": net}
    assert same([run(loaded), run(loaded)], [wanted, wanted]) == [True, True]
    own = {"proto": None, "model": None, **dict.fromkeys(LAYERS)}
    embedded = run(loaded, network=cvstyle.embedded_network("numpy"), **dict.fromkeys(LAYERS))
    assert same([embedded], [run(files, **own)]) == [True]
    with pytest.raises(OptionError, match="a network has its files and its backend already; leave out"):
        run(files | {"network": net})


# What makes no sense


ARRAY = np.full((20, 30, 3), 99, np.uint8)


@pytest.mark.parametrize("given, error, message", [
    ({"styles": []}, OptionError, "no style picture is given"),
    ({"styles": ""}, OptionError, "no style picture is given"),
    ({"styles": "absent.png"}, ImageError, "absent.png: there is no such file"),
    ({"styles": [ARRAY.transpose(2, 0, 1)]}, ImageError, r"style 1: .*\(H, W, 3\) here: \(3, H, W\) is for Objective"),
    ({"styles": {"a": ARRAY}}, ImageError, "style 1: dict is no picture"),
    ({"content": [ARRAY]}, ImageError, "content: list is no picture"),
    ({"content": preprocess(ARRAY)}, ImageError, r"content: .*\(3, H, W\) is for Objective"),
    ({"init": None, "init_image": preprocess(ARRAY)}, ImageError, r"init_image: .*\(3, H, W\) is for Objective"),
    ({"init": None, "init_image": [1]}, ImageError, "init_image: list is no picture"),
    ({"init_image": ARRAY}, OptionError, "init random starts from noise and init_image from a picture"),
    ({"image_size": 48.5}, OptionError, "image_size is 48.5; a number of pixels, or original"),
    ({"style_layers": [["relu1_1", "much"]]}, OptionError, "style_layers is .* layers such as"),
    ({"style_layers": "relu1_1,relu9"}, OptionError, "no layer or preset 'relu9'; 'cvstyle info' lists all"),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("call", [run, started])
def test_what_makes_no_sense_is_refused_in_one_line(files, call, given, error, message):
    with pytest.raises(error, match=message) as caught:
        call(files, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", [stylize, plan])
def test_options_and_settings_together_are_refused(files, call):
    with pytest.raises(OptionError, match="options and image_size, seed are both given; put all"):
        call(**files, options=Options(), image_size=48, seed=1)


@pytest.mark.parametrize("layers", [
    "relu1_1:2, relu3_1", {"relu1_1": 2, "relu3_1": 1.0}, [("relu1_1", 2), "relu3_1"],
    np.array(["relu1_1:2", "relu3_1"]),
], ids=str)  # fmt: skip
def test_objective_takes_layers_as_options_do(files, layers):
    net = load_network(files["proto"], files["model"], "numpy")
    content, style = (preprocess(files[name], size=32) for name in ("content", "styles"))
    wanted = Objective(net, content, [style], style_layers=["relu1_1:2", "relu3_1:1"], style_weight=7)(content)
    for styles in ([style], style, measure_styles(net, {"style_layers": layers, "style_weight": 7}, style)):
        loss, gradient = Objective(net, content, styles, style_layers=layers, style_weight="7", tv_weight=None)(content)
        assert loss == wanted[0]
        np.testing.assert_array_equal(gradient, wanted[1])


@pytest.mark.parametrize("given, error, message", [
    ({"content": ARRAY}, ImageError, r"the content has shape \(20, 30, 3\); .*as cvstyle.preprocess makes"),
    ({"content": "photo.jpg"}, ImageError, "the content has the type str; .*as cvstyle.preprocess makes"),
    ({"styles": "a.png"}, ImageError, "the style 1 has the type str; .*as cvstyle.preprocess makes"),
    ({"styles": ["a.png"]}, ImageError, "the style 1 has the type str"),
    ({"styles": images.as_picture(ARRAY)}, ImageError, "the style 1 has the type Picture"),
    ({"styles": ARRAY}, ImageError, r"the style 1 has shape \(20, 30, 3\)"),
    ({"style_layers": "relu1_1,relu9"}, OptionError, "no layer 'relu9'; 'cvstyle info' lists all"),
    ({"style_layers": 3}, OptionError, "style_layers is 3; layers such as"),
    ({"style_layers": {"relu1_1": "much"}}, OptionError, "style_layers is .* layers such as"),
    ({"style_weight": "much"}, OptionError, "style_weight is 'much'; a number is needed"),
    ({"style_wieght": 3}, OptionError, "no setting 'style_wieght'; did you mean style_weight"),
], ids=str)  # fmt: skip
def test_objective_and_measure_styles_refuse_in_one_line(files, given, error, message):
    net = load_network(files["proto"], files["model"], "numpy")
    x = preprocess(ARRAY)
    given = {"content": x, "styles": [x], "style_layers": "relu1_1", **given}
    calls = [lambda content, styles, **settings: Objective(net, content, styles, **settings)]
    if given["content"] is x:
        calls.append(lambda content, styles, **settings: measure_styles(net, settings, styles))
    for call in calls:
        with pytest.raises(error, match=message) as caught:
            call(**given)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given, message", [
    ({"style_blend_weights": "much"}, "style_blend_weights is 'much'; numbers such as 3,7 are needed"),
    ({"style_blend_weights": 3}, "style_blend_weights is 3; numbers such as"),
    ({"tile_size": "auto"}, "tile_size is 'auto'; a whole number is needed"),
    ({"tile_size": 64.5}, "tile_size is 64.5; a whole number is needed"),
    ({"size": "large"}, "size is 'large'; a whole number is needed"),
    ({"size": 48.5}, "size is 48.5; a whole number is needed"),
    ({"size": np.inf}, "size is inf; a whole number is needed"),
], ids=str)  # fmt: skip
def test_numbers_that_are_none_are_refused(files, given, message):
    net, x = load_network(files["proto"], files["model"], "numpy"), preprocess(ARRAY)
    with pytest.raises(OptionError, match=message):
        if "size" in given:
            preprocess(ARRAY, **given)
        Objective(net, x, [x], style_layers="relu1_1", **given)


def test_numbers_in_other_forms_are_taken(files):
    net, x = load_network(files["proto"], files["model"], "numpy"), preprocess(ARRAY)
    assert preprocess(ARRAY, size=15.0).shape == preprocess(ARRAY, size=np.int64(15)).shape == (3, 10, 15)
    found = [
        Objective(net, x, [x, x + x], style_layers="relu1_1", style_blend_weights=weights)(x)[0]
        for weights in ("3,7", (3, 7), np.array([0.3, 0.7]))
    ]
    assert found == pytest.approx([found[0]] * 3) and found[0] > 0


def test_options_must_be_an_object(files):
    for call in (lambda: stylize(**files, options={"image_size": 48}), Job(**files, options={}).start):
        with pytest.raises(OptionError, match="options is of the type dict; give an object of cvstyle's Options"):
            call()


def test_a_picture_in_another_order_is_no_argument(files):
    objective = Objective(load_network(files["proto"], files["model"], "numpy"), preprocess(ARRAY))
    with pytest.raises(ImageError, match=r"the picture has shape \(20, 30, 3\); the content has \(3, 20, 30\)"):
        objective(preprocess(ARRAY).transpose(1, 2, 0))


# Stepped and stopped


@OPTIMIZERS
def test_a_run_that_is_stopped_is_a_shorter_one(files, optimizer):
    run = job(files, optimizer=optimizer).start()
    counted = [next(run).iteration for _ in range(3)]
    run.stop()
    run.stop("again")
    assert counted == [1, 2, 3] and not list(run) and not threads_of_scipy()
    assert same([run.result()], [job(files, optimizer=optimizer, num_iterations=3).run()]) == [True]
    assert run.result() is run.result() and (run.result().iterations, run.result().stopped) == (3, "")


@pytest.mark.parametrize("raised", [cvstyle.Stop, KeyboardInterrupt])
def test_ctrl_c_while_a_stopped_run_is_saved_keeps_its_result(files, tmp_path, monkeypatch, raised):
    def interrupted(*_):
        raise KeyboardInterrupt

    def stop(iterate):
        if iterate.iteration == 3:
            raise raised

    monkeypatch.setattr("cvstyle.run.checkpoint.save", interrupted)
    result = job(files, checkpoint=str(tmp_path / "run.npz")).run(stop)
    assert (result.stopped, result.iterations) == ("interrupted", 3)
    np.testing.assert_array_equal(result.picture.rgb, job(files).run(stop).picture.rgb)


def test_an_empty_list_of_devices_is_none(files):
    job = Job(**files, compute=Compute(backend="numpy"), devices=[], options=Options(**SETTINGS, margin=1))
    assert job.setup().net.ops.name == "numpy"


def test_a_run_that_is_stopped_at_once_is_its_start(files):
    run = job(files, init="image").start()
    run.stop("no time")
    result = run.result()
    wanted = images.resize(images.read(files["content"]).rgb, result.picture.size)
    noise = result.picture.rgb - wanted
    assert abs(noise.mean()) < 0.1 and noise.std() == pytest.approx(2, rel=0.05)
    assert (result.iterations, result.stopped, result.losses) == (0, "no time", {}) and np.isnan(result.loss)


def test_a_closed_run_has_no_result(files):
    run = job(files).start()
    next(run)
    run.close()
    run.close()
    assert not list(run)
    with pytest.raises(RuntimeError, match="closed before its result was asked for"):
        run.result()


def test_an_iterate_that_is_over_has_losses_but_no_picture(files):
    run = job(files).start()
    first = next(run)
    picture = first.picture()
    second = next(run)
    assert second.loss < first.loss == pytest.approx(sum(first.losses.values()))
    with pytest.raises(RuntimeError, match=r"^this iteration is over: ask for"):
        first.picture()
    assert picture.rgb.tobytes() != second.picture().rgb.tobytes()


@OPTIMIZERS
def test_what_a_callback_raises_leaves_nothing_behind(files, optimizer):
    """While the traceback is there too, without the garbage collector."""
    kept = []

    def fail(iterate):
        kept.append(weakref.ref(iterate._losses_async.__self__))
        raise ZeroDivisionError("in the callback")

    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError, match="in the callback") as caught:
            job(files, optimizer=optimizer).run(fail)
        assert caught.value.__traceback__ and not threads_of_scipy()
        assert isinstance(kept[0], weakref.ref) and kept[0]() is None
    finally:
        gc.enable()


@OPTIMIZERS
def test_a_run_that_is_dropped_leaves_nothing_behind(files, optimizer):
    gc.disable()
    try:
        run = job(files, optimizer=optimizer).start()
        next(run)
        kept = weakref.ref(run.scale.objective)
        del run
        assert kept() is None and not threads_of_scipy()
    finally:
        gc.enable()


# Side by side


def two(files, backend, shared):
    """Two jobs of different sizes and layers, one of them so large that the engine moves its blocks."""
    net = load_network(files["proto"], files["model"], backend) if shared else None
    other = {"image_size": 330, "content_layers": "relu3_1", "style_layers": "relu2_1,relu1_2", "num_iterations": 4}
    return [job(files, backend, net), job(files, backend, net, **other)]


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_side_by_side_have_the_bits_of_runs_alone(files, backend, shared):
    limits = [pool["num_threads"] for pool in threads._blas().info()]
    alone = [job.run() for job in two(files, backend, shared)]
    begun = [job.start() for job in two(files, backend, shared)]
    for _ in range(4):
        for each in begun:
            next(each)
    assert len(list(begun[0])) == 2 and not list(begun[1])
    assert same([each.result() for each in begun], alone) == [True, True]
    for _ in range(3):
        with ThreadPoolExecutor(2) as pool:
            assert same(pool.map(Job.run, two(files, backend, shared)), alone) == [True, True]
    assert [pool["num_threads"] for pool in threads._blas().info()] == limits


def test_a_blas_has_one_thread_while_anyone_needs_it_so():
    """In whatever thread, and as many as it had when the last has left."""
    def limits():
        return {pool["num_threads"] for pool in threads._blas().info()}

    before, inside, leave = limits(), threading.Event(), threading.Event()

    def other():
        with threads.one_thread_each():
            inside.set()
            leave.wait(20)
            return limits()

    with ThreadPoolExecutor(1) as pool:
        with threads.one_thread_each():
            found = pool.submit(other)
            inside.wait(20)
        assert limits() == {1}
        leave.set()
        assert found.result() == {1}
    assert limits() == before


# Other processes


def test_a_job_in_another_process_has_the_same_bytes(files):
    jobs = [job(files), job(files, optimizer="lbfgsb", init=None, init_image=ARRAY)]
    jobs.append(replace(jobs[0], content=ARRAY, styles=[images.as_picture(ARRAY), Image.fromarray(ARRAY)]))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, threads.limit, (threads.cpu_count(),)) as pool:
        assert same(pool.map(Job.run, jobs), [job.run() for job in jobs]) == [True] * 3


def test_a_job_with_objects_of_this_process_is_refused(files):
    net = load_network(files["proto"], files["model"], "numpy")
    for bound in (job(files, network=net), replace(job(files), devices=[net.ops])):
        with pytest.raises(OptionError, match="a Job with a network or devices stays in its process; give it proto"):
            pickle.dumps(bound)
        assert bound.start()


@pytest.mark.parametrize(
    ("kernel", "shape", "sizes"),
    [(3, (96, 128), [128, 256, 512]), (100, (96, 128), [256, 512]), (3, (32, 128), [256, 512]), (3, (8, 128), [512])],
    ids=["whole", "too small for the network", "low", "too low at any size"],
)
def test_a_quality_begins_where_pictures_are_large_enough(kernel, shape, sizes):
    layer = LayerDef("seen", "Convolution", ("data",), ("seen",), {"num_output": 4, "kernel_size": [kernel]})
    weights = {"seen": [np.zeros((4, 3, kernel, kernel), np.float32), np.zeros(4, np.float32)]}
    net = Network(NetDef("net", {"data": None}, (layer,), weights), Backend())
    options = Options(image_size=512, content_layers=["seen"], style_layers=["seen"])
    setup = Job(np.zeros((*shape, 3), np.uint8), np.zeros((64, 64, 3), np.uint8), options=options, network=net).setup()
    assert [side for side, _ in setup.schedule] == sizes
    assert [n for _, n in setup.schedule] == [n for _, n in options.schedule(1)][: len(sizes)]


def test_the_share_of_the_work_goes_by_pixels(files):
    """A finer scale's iterations are more of it; 3 of 24×18 and 2 of 48×36 pixels."""
    shares = []
    found = job(files, scales=[24, 48], num_iterations=[3, 2], margin=0)
    height, width = found.setup().sizes[0]
    small = height * width / (48 * found.setup().sizes[1][0])
    found.run(lambda iterate: shares.append(iterate.share))
    whole = 3 * small + 2
    assert shares == pytest.approx([n / whole for n in (small, 2 * small, 3 * small, 3 * small + 1, whole)], rel=1e-12)
