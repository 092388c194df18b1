"""benchmarks/painted.py: runs of the command, an independent judge, and sheets."""

from __future__ import annotations

import sys
from pathlib import Path

import nets
import numpy as np
import pytest
from pictures import write
from PIL import Image

import cvstyle

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import painted

EMBEDDED = painted.Files(painted.EMBEDDED)
LAYERS = ["relu2_1"], ["relu1", "relu2_2"]


def test_a_picture_is_no_distance_from_itself(tmp_path):
    [path] = write(tmp_path, one=(48, 40))
    judge = painted.Judge(EMBEDDED, LAYERS)
    x = cvstyle.preprocess(path, 48)
    assert judge.style(x, path) == judge.content(x, path) == 0


def test_the_distance_is_that_of_gram_matrices(tmp_path):
    first, second = write(tmp_path, first=(48, 40), second=(40, 48))
    judge = painted.Judge(EMBEDDED, LAYERS)
    x = cvstyle.preprocess(first, 48)
    own, aim = (
        [f.reshape(len(f), -1).astype(np.float64) for f in cvstyle.features(judge.net, p, LAYERS[1]).values()]
        for p in (x, cvstyle.preprocess(second, 48))
    )
    own, aim = ([f @ f.T / f.size for f in maps] for maps in (own, aim))
    expected = np.mean([((g - a) ** 2).sum() / (a**2).sum() for g, a in zip(own, aim, strict=True)])
    assert judge.style(x, second) == pytest.approx(expected, rel=1e-4)


def test_a_run_is_made_once_and_a_refusal_is_told(tmp_path):
    content, style = write(tmp_path, content=(48, 40), style=(48, 40))

    def paint(*options):
        return painted.paint(EMBEDDED, content, style, 48, options, tmp_path / f"{len(options)}.png")

    done = paint("--num-iterations", "2")
    assert done.style_layers and not done.refusal and done.processor > 0
    assert sum(done.share(kind) for kind in ("content", "style", "tv")) == pytest.approx(1)
    assert paint("--num-iterations", "2") == done
    refused = paint("--content-layers", "nowhere", "--quiet")
    assert "'nowhere'" in refused.refusal and not refused.losses


def test_default_layers_are_those_that_info_prints(tmp_path):
    """Of a family, and chosen from the network, which is said behind them."""
    chosen = painted.Files("chosen", *nets.write(nets.squeezenet(16), tmp_path))
    for files in (EMBEDDED, chosen):
        content, style = files.default_layers()
        assert content and style and {*content, *style} <= set(files.load().layer_names)


def test_a_sheet_holds_every_cell(tmp_path):
    [path] = write(tmp_path, one=(48, 24))
    rows = [("first", [(path, "below"), (None, "a refusal of more words than fit into one line")])] * 2
    painted.sheet(tmp_path / "sheet.png", "title", ["a", "b"], rows, cell=64)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 2 * 64 and image.height > 2 * 32
        shown = np.asarray(image.convert("RGB"))[:, 130:194]
    assert (shown.std(axis=(1, 2)) > 20).sum() > 2 * 30  # the picture in both rows
