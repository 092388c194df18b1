"""docs/python.md: its blocks run as they stand, one after the other, and do what it says."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from pictures import write
from PIL import Image

import cvstyle
from cvstyle.backends import registry

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def blocks():
    """heading -> the Python of its section, a block each."""
    sections = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = zip(sections[1::2], sections[2::2])
    return {name: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for name, text in named}


def slope(objective, x, direction):
    """Along a direction, by differences."""
    return (objective(x + direction)[0] - objective(x - direction)[0]) / 2


def check_pictures(here, number):
    result = here["result"]
    if number == 0:
        with Image.open("out.png") as image:
            assert np.array_equal(np.asarray(image), result.picture.rgb.clip(0, 255).round())
        assert result.iterations == 10 and result.picture.size == (192, 256)
    if number == 1:
        assert result.picture.size == (96, 128)
    if number == 2:
        here["by options"] = result
        assert set(result.losses) == {"content:relu3_2", "style:relu1", "style:relu2_1", "style:relu2_2", "tv"}
    if number == 3:
        np.testing.assert_array_equal(result.picture.rgb, here["by options"].picture.rgb)


def check_steps(here, number):
    if number == 0:
        assert here["result"].iterations == 6 and here["result"].stopped == ""
    if number == 1:
        assert [png[:8] for png in here["shown"]] == [b"\x89PNG\r\n\x1a\n"] * 2 and here["shown"][0] != here["shown"][1]
    if number == 2:
        assert here["result"].iterations == here["result"].checkpoint == 10
        np.testing.assert_array_equal(here["result"].picture.rgb, here["by options"].picture.rgb)


def check_processes(here, number):
    wanted = [job.run() for job in here["jobs"]]
    assert [a.picture.rgb.tobytes() for a in here["results"]] == [b.picture.rgb.tobytes() for b in wanted]


def check_optimisers(here, number):
    objective = here["objective"]
    if number == 0:
        start, end = (objective(x)[0] for x in (here["content"], here["found"].x))
        assert end < start / 2 and end == here["found"].fun and Path("scipy.png").exists()
    if number == 1:
        assert here["losses"][-1] < here["losses"][0] / 2
        assert sum(objective.losses.values()) == pytest.approx(here["losses"][-1])
    if number == 2:
        own = cvstyle.Objective(here["net"], here["content"], [here["style"]], **here["settings"])
        assert here["path"] == "second.jpg" and own(here["content"])[0] == objective(here["content"])[0]


def check_saved_styles(here, number):
    if number == 0:
        np.testing.assert_array_equal(here["by_style"].picture.rgb, here["by_painting"].picture.rgb)
        return
    styles = [cvstyle.preprocess(path, size=128) for path in ("painting.jpg", "photo.jpg")]
    settings = {"style_layers": ["relu1", "relu2_1"], "style_blend_weights": [3, 7]}
    direct = cvstyle.Objective(here["net"], here["content"], styles, **settings)
    assert here["objective"](here["content"])[0] == pytest.approx(direct(here["content"])[0], rel=1e-3)


def check_features(here, number):
    assert [features.ndim for features in here["maps"].values()] == [3, 3]


def check_losses(here, number):
    if number < 2:
        return
    objective, content = here["objective"], here["content"]
    means = [cvstyle.features(here["net"], x, "relu2_1")["relu2_1"].mean((1, 2)) for x in (content, here["style"])]
    objective(content)
    assert objective.losses["means"] == pytest.approx(((means[0] - means[1]) ** 2).sum(), rel=1e-3)
    assert objective.losses["calm"] == pytest.approx(1e-4 * (content.astype(float) ** 2).sum(), rel=1e-4)
    alone = cvstyle.Objective(here["net"], content, here["style"], more_losses=here["losses"], tv_weight=0)
    gradient = alone(content)[1]
    direction = gradient / np.abs(gradient).max()
    assert slope(alone, content, direction) == pytest.approx((gradient * direction).sum(), rel=1e-2)


CHECKS = {
    "A picture": check_pictures, "Step by step": check_steps, "Threads and processes": check_processes,
    "A custom optimiser": check_optimisers, "Saved styles": check_saved_styles,
    "Features": check_features, "A custom loss": check_losses,
}  # fmt: skip


def test_the_page_does_what_it_says(tmp_path, monkeypatch, capsys):
    for path in write(tmp_path, photo=(320, 240), second=(200, 160), painting=(120, 90)):
        Image.open(path).save(Path(path).with_suffix(".jpg"))
    shown = []
    display = types.ModuleType("IPython.display")
    display.display = lambda iterate: shown.append(iterate._repr_png_())
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    pick = registry.pick
    monkeypatch.setattr(registry, "pick", lambda kind: pick("cpu" if kind == "auto" else kind))
    monkeypatch.chdir(tmp_path)
    here = {"__name__": "__main__", "shown": shown}
    assert list(blocks()) == list(CHECKS)
    for section, codes in blocks().items():
        for number, code in enumerate(codes):
            exec(compile(code, f"{PAGE.name}: {section}, block {number + 1}", "exec"), here)
            CHECKS[section](here, number)
    assert capsys.readouterr().out.count("relu") > 10
