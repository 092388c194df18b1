"""Colours of a run: the maps against the papers' formulas in float64, and what reaches the network and the result."""

from __future__ import annotations

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import runs
import scipy.linalg
from nets import vgg
from pictures import noise, random_pixels

import cvstyle
from cvstyle import Job, Options, images
from cvstyle.backends import opencl
from cvstyle.cli import main
from cvstyle.errors import CheckpointError, ImageError, OptionError
from cvstyle.regions import StyleRegion
from cvstyle.run.colors import recoloured
from cvstyle.run.scale import Scale

METHODS = ("sym", "pca", "chol", "mean")
MODES = ("style", "content", *(f"match:{method}" for method in METHODS), "luminance")
LUMA = np.array([0.299, 0.587, 0.114])
EPSILON = 1e-5 * 255**2
TINY = {"image_size": 40, "num_iterations": 2, "seed": 1, "backend": "numpy"}


def painting(height, width, seed, low=60, high=190):
    """A smooth picture of correlated colours that no map takes out of 0..255."""
    rng = np.random.default_rng(seed)
    planes = cv2.resize(rng.normal(0, 1, (height // 6, width // 6, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    colours = planes @ (rng.normal(0, 0.3, (3, 3)) + np.eye(3) + 0.5)  # brightness varies most
    colours = (colours - colours.min()) / np.ptp(colours)
    return (low + colours * (high - low)).astype(np.float32)


def moments(rgb, weights=None):
    """(mean, covariance) by the definition."""
    pixels = np.asarray(rgb, float).reshape(-1, 3)
    weights = np.full(len(pixels), 1 / len(pixels)) if weights is None else np.asarray(weights, float).ravel()
    weights = weights / weights.sum()
    mean = (weights[:, None] * pixels).sum(axis=0)
    return mean, sum(w * np.outer(p - mean, p - mean) for w, p in zip(weights, pixels) if w)


def regularised(rgb, weights=None):
    mean, covariance = moments(rgb, weights)
    return mean, covariance + EPSILON * np.eye(3)


def by_formula(method, before, after):
    """A of the papers, with SciPy's matrix functions."""
    root = lambda matrix: np.real(scipy.linalg.sqrtm(matrix))  # noqa: E731
    if method == "mean":
        return np.diag(np.sqrt(np.diag(after)) / np.sqrt(np.diag(before)))
    if method == "chol":
        return np.linalg.cholesky(after) @ np.linalg.inv(np.linalg.cholesky(before))
    if method == "pca":
        return root(after) @ np.linalg.inv(root(before))
    half = root(before)
    return np.linalg.inv(half) @ root(half @ after @ half) @ np.linalg.inv(half)


STYLE = painting(30, 42, seed=1)
CONTENT = painting(36, 48, seed=2, low=90, high=160)


@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_that_of_the_papers(method):
    mean_s, before = regularised(STYLE)
    mean_c, after = regularised(CONTENT)
    matrix = by_formula(method, before, after)
    expected = (STYLE.astype(float) - mean_s) @ matrix.T + mean_c
    assert expected.min() > 0 and expected.max() < 255
    found = cvstyle.match_colors(STYLE, CONTENT, method)
    np.testing.assert_allclose(found.rgb, expected, atol=2e-4)
    if method != "mean":
        np.testing.assert_allclose(matrix @ before @ matrix.T, after, rtol=1e-6, atol=1e-6)
    mean, covariance = moments(found.rgb)
    np.testing.assert_allclose(mean, mean_c, atol=1e-4)
    left_out = covariance + EPSILON * matrix @ matrix.T - after  # nothing but the regularisation
    assert np.abs(left_out if method != "mean" else np.diag(left_out)).max() < 1e-3
    assert np.abs(np.diag(covariance - after)).max() < 0.01 * np.diag(after).max()


def test_sym_is_the_map_that_moves_colours_least():
    """The mean squared change is the Wasserstein-2 distance of the Gaussians; every other map's is larger."""
    (mean_s, before), (mean_c, after) = regularised(STYLE), regularised(CONTENT)
    half = scipy.linalg.sqrtm(before)
    both = np.real(scipy.linalg.sqrtm(half @ after @ half))
    distance = ((mean_s - mean_c) ** 2).sum() + np.trace(before + after - 2 * both)
    changes = {}
    for method in METHODS[:3]:
        found = cvstyle.match_colors(STYLE, CONTENT, method)
        changes[method] = ((found.rgb.astype(float) - STYLE) ** 2).sum(axis=2).mean()
    assert changes["sym"] == pytest.approx(distance, rel=0.01)
    assert changes["sym"] < 0.999 * min(changes["pca"], changes["chol"])


@pytest.mark.parametrize("method", [*METHODS, "luminance"])
def test_invisible_pixels_do_not_count(method):
    """The result is that of the visible pixels alone, with soft edges by their alpha."""
    rng = np.random.default_rng(3)
    given = {}
    for name, rgb in (("style", STYLE), ("content", CONTENT)):
        alpha = rng.choice([0, 0.25, 1], rgb.shape[:2]).astype(np.float32)
        hidden = np.where(alpha[..., None] > 0, rgb, rng.uniform(0, 255, 3)).astype(np.float32)
        given[name] = images.Picture(hidden, alpha)
    style, content = given["style"], given["content"]
    found = images.recoloured(style, content, method)
    (mean_s, before), (mean_c, after) = (regularised(p.rgb, p.alpha) for p in (style, content))
    if method == "luminance":
        gain = np.sqrt(LUMA @ after @ LUMA) / np.sqrt(LUMA @ before @ LUMA)
        expected = (gain * ((style.rgb - mean_s) @ LUMA) + LUMA @ mean_c)[..., None].repeat(3, axis=2)
    else:
        expected = (style.rgb - mean_s) @ by_formula(method, before, after).T + mean_c
    visible = style.alpha > 0
    np.testing.assert_allclose(found.rgb[visible], expected.clip(0, 255)[visible], atol=1e-3)
    assert found.alpha is style.alpha


def test_luminance_has_the_contents_mean_and_deviation():
    grey = images.recoloured(images.Picture(STYLE), images.Picture(CONTENT), "luminance").rgb
    assert np.ptp(grey, axis=2).max() < 1e-3
    ours, theirs = (rgb.astype(float) @ LUMA for rgb in (grey, CONTENT))
    assert ours.mean() == pytest.approx(theirs.mean(), abs=1e-3)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.01)
    assert np.corrcoef(ours.ravel(), theirs.ravel()[: ours.size])[0, 1] < 0.99  # not the content itself
    assert np.corrcoef(ours.ravel(), (STYLE @ LUMA).ravel())[0, 1] == pytest.approx(1)


FLAT = np.full((24, 30, 3), (200, 40, 90), np.float32)
WIDE = CONTENT * np.float32([3, 1, 1]) - np.float32([300, 0, 60])  # -30..180 and the like
ODD = {
    "grey": CONTENT[..., :1].repeat(3, axis=2), "flat": FLAT, "pixel": FLAT[:1, :1], "row": CONTENT[:1],
    "two pixels": CONTENT[:1, :2], "black": FLAT * 0, "line": np.float32([[[10, 20, 30]], [[20, 40, 60]]]),
    "wide": WIDE, "huge": noise(9, 8, 3) * np.float32(1e18), "largest": noise(9, 8, 3).clip(-1, 1) * np.float32(3e38),
    "faint": FLAT + noise(24, 30, 3) * np.float32(1e-4), "plain": CONTENT,
}  # fmt: skip


@pytest.mark.parametrize("method", [*METHODS, "luminance"])
def test_odd_pictures_stay_finite(method):
    """Any two of them, within 0..255 and what the reference has beyond."""
    for style in ODD.values():
        for content in ODD.values():
            found = images.recoloured(images.Picture(style), images.Picture(content), method).rgb
            assert found.dtype == np.float32 and found.shape == style.shape and np.isfinite(found).all()
            assert found.min() >= min(content.min(), 0) and found.max() <= max(content.max(), 255)


@pytest.mark.parametrize("method", METHODS)
def test_odd_pictures_have_the_matched_colours(method):
    for name in ("grey", "flat", "row", "wide", "black"):
        found = cvstyle.match_colors(STYLE, ODD[name], method).rgb
        (mean, covariance), (wanted, expected) = moments(found), moments(ODD[name])
        np.testing.assert_allclose(mean, wanted, atol=1)
        if method != "mean":
            assert np.abs(covariance - expected).max() <= 2 * EPSILON + 0.03 * np.abs(expected).max(), name
    for name in ("flat", "pixel"):
        found = cvstyle.match_colors(ODD[name], CONTENT, method).rgb
        np.testing.assert_allclose(found, np.broadcast_to(moments(CONTENT)[0], found.shape), atol=1e-3)


def test_a_picture_of_the_same_colours_stays():
    for method in METHODS:
        np.testing.assert_allclose(cvstyle.match_colors(CONTENT, CONTENT, method).rgb, CONTENT, atol=1e-3)
    large = painting(700, 900, seed=5)  # of several strips
    np.testing.assert_allclose(cvstyle.match_colors(large, large[::-1, ::-1]).rgb, large, atol=1e-3)


def test_parts_have_colours_of_their_own():
    """Each half as if it were a picture; a soft border blends; what is in no part is mapped as a whole."""
    left, right = np.zeros((2, 30, 42), np.float32)
    left[:, :14] = right[:, 28:] = 1
    upper = np.zeros((36, 48), np.float32)
    upper[:12] = 1
    style, content = images.Picture(STYLE), images.Picture(CONTENT)
    found = images.recoloured(style, content, "sym", [(left, upper), (right, 1 - upper)]).rgb
    top = cvstyle.match_colors(STYLE[:, :14], CONTENT[:12]).rgb
    bottom = cvstyle.match_colors(STYLE[:, 28:], CONTENT[12:]).rgb
    whole = cvstyle.match_colors(STYLE, CONTENT).rgb
    np.testing.assert_allclose(found, np.concatenate([top, whole[:, 14:28], bottom], axis=1), atol=1e-3)
    # A style that is used whole.
    found = images.recoloured(style, content, "pca", [(None, upper)]).rgb
    np.testing.assert_allclose(found, cvstyle.match_colors(STYLE, CONTENT[:12], "pca").rgb, atol=1e-3)
    # Grey masks: a third of one map, two of the other.
    share = np.full((30, 42), 1 / 3, np.float32)
    found = images.recoloured(style, content, "sym", [(share, upper), (1 - share, 1 - upper)]).rgb
    top, bottom = (cvstyle.match_colors(STYLE, part).rgb for part in (CONTENT[:12], CONTENT[12:]))
    np.testing.assert_allclose(found, top / 3 + bottom * 2 / 3, atol=1e-3)
    # A part without a pixel.
    found = images.recoloured(style, content, "sym", [(left, upper * 0), (left * 0, upper)]).rgb
    np.testing.assert_allclose(found, whole, atol=1e-3)


def test_parts_of_a_cut_out_count_by_alpha():
    alpha = np.ones((36, 48), np.float32)
    alpha[:6] = 0
    upper = np.zeros((36, 48), np.float32)
    upper[:12] = 1
    content = images.Picture(np.where(alpha[..., None] > 0, CONTENT, 255), alpha)
    found = images.recoloured(images.Picture(STYLE), content, "sym", [(None, upper)]).rgb
    np.testing.assert_allclose(found, cvstyle.match_colors(STYLE, CONTENT[6:12]).rgb, atol=1e-3)


# Runs.


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    net = vgg(16, 16, (64, 64), classifier=False)
    return runs.files(tmp_path_factory.mktemp("files"), net, content=(48, 36), style=(40, 44), second=(30, 40))


def setup(color, content=CONTENT, styles=(STYLE,), **more):
    return Job(content, list(styles), options=Options(color=color, image_size=48, seed=1, **more)).setup()


@pytest.mark.parametrize("color", MODES)
def test_styles_are_recoloured_once_for_all_scales(color):
    made = setup(color, styles=(STYLE, painting(42, 30, seed=7)), scales=[24, 48], margin=0)
    for number, given in enumerate((STYLE, painting(42, 30, seed=7))):
        small = images.as_picture(given)
        method = color.removeprefix("match:")
        expected = given if color in ("style", "content") else images.recoloured(small, made.content, method).rgb
        np.testing.assert_allclose(made.styles[number].rgb, expected, atol=1e-3)
    inputs = {}
    for index in (0, 1):
        scale = Scale(made, index)
        grey = np.ptp(made.deprocess(scale.content), axis=2).max() < 1e-2
        assert grey == (color == "luminance")
        inputs[index] = made.deprocess(scale.content) @ LUMA
        np.testing.assert_allclose(inputs[index], images.resize(CONTENT, made.sizes[index]) @ LUMA, atol=1e-2)


def test_the_result_of_luminance_by_hand():
    """The result has the run's luminance and the content's chroma; the run begins with the content's luminance."""
    made = setup("luminance", margin=2, num_iterations=1, scales=[40])
    scale = Scale(made, 0)
    content = images.resize(CONTENT, made.sizes[0])
    x = made.preprocess(painting(34, 44, seed=9))[None]
    rgb = scale.render(x).rgb
    np.testing.assert_allclose(rgb @ LUMA, painting(34, 44, seed=9)[2:-2, 2:-2] @ LUMA, atol=0.02)
    for channel in (0, 2):
        chroma = rgb[..., channel] - rgb @ LUMA
        np.testing.assert_allclose(chroma, content[..., channel] - content @ LUMA, atol=0.05)
    start = made.deprocess(scale.start()[0])
    assert np.abs(start[2:-2, 2:-2] - (content @ LUMA)[..., None]).mean() < 2.5  # faint noise
    start = Scale(setup("luminance", init_image=STYLE, compat=True), 0).start()[0]
    assert np.ptp(made.deprocess(start), axis=2).max() < 0.02


@pytest.mark.parametrize("color", MODES)
def test_alpha_hides_colours_from_matching(color):
    results = []
    for hidden in (0, 255):
        content, style = (np.dstack([rgb, np.full(rgb.shape[:2], 255)]) for rgb in (CONTENT, STYLE))
        for picture in (content, style):
            picture[:10] = (hidden, hidden, 0, 0)
        results.append(cvstyle.stylize(content, style, color=color, **TINY).picture)
    assert results[0].rgb.tobytes() == results[1].rgb.tobytes() and results[0].alpha[0, 0] == 0


def test_names_of_options(files, tmp_path):
    """Every spelling of keeping the content's colours is one, and gives the bytes that original_colors has given."""
    whole = TINY | {"image_size": 48}
    plain = cvstyle.stylize(CONTENT, STYLE, **whole).picture.rgb
    expected = images.original_colors(CONTENT, plain)
    for more in (
        {"original_colors": True}, {"color": "content"}, {"colour": "Content"}, {"original_colours": 1},
        {"color": "content", "original_colors": True},
    ):  # fmt: skip
        assert cvstyle.stylize(CONTENT, STYLE, **whole, **more).picture.rgb.tobytes() == expected.tobytes(), more
    for more in ({"color": "style"}, {"original_colors": False}, {"color": "STYLE", "original_colors": 0}):
        assert cvstyle.stylize(CONTENT, STYLE, **whole, **more).picture.rgb.tobytes() == plain.tobytes(), more
    written = set()
    for words in (
        ["--color", "content"], ["--colour", "CONTENT"], ["-original_colors", "1"], ["--original-colors"],
        ["--original-colours"], ["-color", "content", "-original_colors", "1"],
    ):  # fmt: skip
        out = tmp_path / "out.png"
        arguments = ("--image-size", 40, "--num-iterations", 1, "--seed", 1, "--backend", "numpy", "--quiet", "--strip")
        assert main(runs.command(files, out, *arguments, *words)) == 0
        written.add(images.read(out).rgb.tobytes())
    assert len(written) == 1


def test_match_is_sym(files, tmp_path):
    assert Options(color="match").color == Options(color="Match:SYM").color == "match:sym"
    assert Options(colour=" match ") == Options(color="match:sym")
    colors = ("match", "match:sym", "match:pca")
    one, two, other = (cvstyle.stylize(CONTENT, STYLE, color=color, **TINY).picture.rgb for color in colors)
    assert one.tobytes() == two.tobytes() and (one != other).any()


@pytest.mark.parametrize("words, message", [
    (["--color", "match:pcaa"], "--color: 'match:pcaa' is not one of style, content, match:sym, match:pca, match:chol, "
     "match:mean, luminance; did you mean match:pca?"),
    (["--colour", "match=pca"], "did you mean match:pca?"), (["--color", "luminence"], "did you mean luminance?"),
    (["--color", "contents"], "did you mean content?"), (["--color", "red"], "known: style, content, match:sym"),
    (["--color", ""], "is not one of style"), (["--color"], "--color needs a value"),
    (["--color", "match", "--original-colors"],
     "--original-colors keeps the photograph's colours, and --color is match:sym; leave one of them out"),
    (["--color", "style", "-original_colors", "1"], "and --color is style; leave one of them out"),
    (["--color", "content", "--original-colors", "0"],
     "--original-colors is 0, and --color is content; leave one of them out"),
    (["--keep-colors"], "did you mean --color content?"), (["--preserve-color"], "did you mean --color content?"),
])  # fmt: skip
def test_errors_on_the_command_line(files, tmp_path, capsys, words, message):
    for verb in ("run", "plan"):
        command = runs.command(files, tmp_path / "out.png", *words)
        assert main([verb, *command[1:]]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_errors_in_python():
    for value in ("matched", "sym", "match:", "match:histogram", "luminance:sym", ["match"], 3, True):
        with pytest.raises(OptionError, match="color"):
            cvstyle.stylize(CONTENT, STYLE, color=value, **TINY)
    with pytest.raises(OptionError, match="original_colors keeps the photograph's colours, and color is luminance"):
        cvstyle.stylize(CONTENT, STYLE, color="luminance", original_colors=True, **TINY)
    with pytest.raises(OptionError, match="method must be sym, pca, chol or mean, not 'match'"):
        cvstyle.match_colors(STYLE, CONTENT, "match")
    with pytest.raises(ImageError, match="reference: the array is empty"):
        cvstyle.match_colors(STYLE, np.zeros((0, 4, 3), np.uint8))


@pytest.mark.parametrize("color", MODES)
def test_everything_else_of_a_run(color, files, tmp_path):
    """Tiles, devices, scales, several styles and a checkpoint: the losses are those of the plain run, its bytes those
    of the resumed one."""
    given = {"proto": files["proto"], "model": files["model"], "backend": "numpy", "image_size": 48, "seed": 3}
    given |= {"content_layers": "relu2_2", "style_layers": "relu1_1,relu2_1", "color": color, "scales": [24, 48]}
    styles = [files["style"], files["second"]]
    shown = []
    whole = cvstyle.stylize(files["content"], styles, **given, scale_iterations=[2, 3], callback=shown.append)
    apart = given | {"tile_size": 32, "devices": ["numpy"] * 2}
    tiled = cvstyle.stylize(files["content"], styles, **apart, scale_iterations=[2, 3])
    assert tiled.losses == pytest.approx(whole.losses, rel=1e-3)
    np.testing.assert_allclose(tiled.picture.rgb, whole.picture.rgb, atol=0.5)
    kept = given | {"checkpoint": str(tmp_path / "run.npz")}
    cvstyle.stylize(files["content"], styles, **kept, scale_iterations=[2, 1])
    resumed = cvstyle.stylize(files["content"], styles, **kept, scale_iterations=[2, 3], resume=True)
    assert resumed.picture.rgb.tobytes() == whole.picture.rgb.tobytes()


def test_a_resumed_run_has_the_same_matching(tmp_path):
    kept = TINY | {"checkpoint": str(tmp_path / "run.npz"), "color": "match:pca"}
    cvstyle.stylize(CONTENT, STYLE, **kept)
    for color, shown in (("match", "match:sym"), ("style", None), ("luminance", "luminance")):
        with pytest.raises(CheckpointError, match=rf"another color \(match:pca; here {shown}\)"):
            cvstyle.stylize(CONTENT, STYLE, **kept | {"color": color, "resume": True, "num_iterations": 3})
    # The result's colours alone may change.
    kept = TINY | {"checkpoint": str(tmp_path / "other.npz")}
    cvstyle.stylize(CONTENT, STYLE, **kept)
    for color in ("content", "style", None):
        cvstyle.stylize(CONTENT, STYLE, **kept | {"color": color, "resume": True, "num_iterations": 3})


def test_intermediate_pictures_have_the_results_colours():
    for color in ("content", "luminance"):
        shown = []
        see = lambda iterate, shown=shown: shown.append(iterate.picture().rgb)  # noqa: E731
        result = cvstyle.stylize(CONTENT, STYLE, color=color, callback=see, **TINY)
        assert shown[-1].tobytes() == result.picture.rgb.tobytes()


def test_forms_of_pictures_and_pickled_jobs():
    style = images.Picture(STYLE)
    job = Job(images.Picture(CONTENT), [style], options=Options(color="match", image_size=40, num_iterations=1, seed=1))
    before = STYLE.tobytes()
    first = job.run().picture.rgb
    again = pickle.loads(pickle.dumps(job)).run().picture.rgb
    assert first.tobytes() == again.tobytes() and style.rgb.tobytes() == before
    other = replace(job, options=replace(job.options, color="style"))
    assert (other.run().picture.rgb != first).any()


@pytest.mark.parametrize("backend", ["numpy", "opencv", "native", "opencl"])
def test_every_backend(backend):
    if backend == "opencl" and opencl.Backend.unavailable_because():
        pytest.skip(f"no OpenCL here: {opencl.Backend.unavailable_because()}")
    for color in ("match", "luminance"):
        losses = {}
        for ops in ("numpy", backend):
            losses[ops] = cvstyle.stylize(CONTENT, STYLE, color=color, **TINY | {"backend": ops}).losses
        assert losses[backend] == pytest.approx(losses["numpy"], rel=1e-3)


@pytest.mark.parametrize("color", MODES)
@pytest.mark.parametrize("more", [
    {"strength": 0}, {"compat": True, "num_iterations": 2}, {"content": ODD["grey"]}, {"content": ODD["flat"]},
    {"style": FLAT}, {"content": WIDE}, {"init": "random"}, {"style": random_pixels(20, 30)[..., :1]},
], ids=str)  # fmt: skip
def test_odd_runs(color, more):
    more = dict(more)
    content = more.pop("content", CONTENT)
    style = more.pop("style", STYLE)
    rgb = cvstyle.stylize(content, style, color=color, **TINY | more).picture.rgb
    assert np.isfinite(rgb).all()
    if "strength" in more:
        assert np.abs(rgb - images.resize(CONTENT, (30, 40))).max() < 0.01


def test_a_region_takes_the_colours_of_its_own():
    """Two halves of the photograph, each from its own style."""
    left = np.zeros(CONTENT.shape[:2], np.float32)
    left[:, :24] = 1
    regions = [StyleRegion("left", left, {0: None}), StyleRegion("right", 1 - left, {1: None})]
    found = recoloured([images.Picture(STYLE)] * 2, images.Picture(CONTENT), "sym", regions)
    for number, part in enumerate((np.s_[:, :24], np.s_[:, 24:])):
        expected = cvstyle.match_colors(STYLE, CONTENT[part]).rgb
        np.testing.assert_allclose(found[number].rgb, expected, atol=1e-3)


def test_a_network_of_one_channel_matches_brightness(tmp_path):
    """Its result has the content's colours in every mode, and match differs from style by brightness alone."""
    from test_convention import lenet

    given = runs.files(tmp_path, lenet(), content=(80, 60), style=(60, 60))
    losses = {}
    for color in MODES:
        result = cvstyle.stylize(
            given["content"], given["style"], proto=given["proto"], model=given["model"], color=color,
            style_layers="conv1", content_layers="conv1", **TINY | {"image_size": 80, "compat": False},
        )  # fmt: skip
        rgb, content = result.picture.rgb, images.read(given["content"]).rgb
        chroma, expected = (picture - (picture @ LUMA)[..., None] for picture in (rgb, content))
        np.testing.assert_allclose(chroma, expected, atol=0.1)
        losses[color] = result.losses["style:conv1"]
    assert losses["style"] == losses["content"] != losses["match:sym"]


def test_a_plan_takes_it(files, capsys):
    command = ["--content", files["content"], "--style", files["style"], "--color", "MATCH:chol", "--image-size", "40"]
    assert main(["plan", *command, "--num-iterations", "2", "--backend", "numpy"]) == 0
    assert "picture" in capsys.readouterr().out
