"""A real trained Caffe network, whose files are beside the repository where they are: ResNet-50 at half width."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

import cvstyle
from cvstyle import images, stylize, zoo

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT.parent / "shared" / "models" / "open_nsfw"
FILES = [str(FOLDER / name) for name in ("deploy.prototxt", "resnet_50_1by2_nsfw.caffemodel")]
DEMO = next(path for path in (ROOT / "models" / "demo", ROOT / "cvstyle" / "models" / "demo") if path.is_dir())

pytestmark = pytest.mark.skipif(
    not all(Path(path).is_file() for path in FILES),
    reason=f"{FOLDER} is not here; test_choose.py and test_balance.py cover the logic on networks made there",
)


@pytest.mark.skipif(not hasattr(cv2.dnn, "readNetFromCaffe"), reason="OpenCV 5 has no Caffe importer")
def test_features_are_those_of_opencv():
    """Through to its last layer, of a real photograph at the size that its classifier is for."""
    picture = cv2.resize(images.read(DEMO / "content.jpg").rgb, (224, 224), interpolation=cv2.INTER_AREA)
    x = images.preprocess(picture)
    names = ["relu_1", "relu_stage0_block2", "relu_stage1_block3", "relu_stage3_block2", "prob"]
    ours = cvstyle.features(cvstyle.load_network(*FILES), x, names)
    other = cv2.dnn.readNetFromCaffe(*FILES)
    other.setInput(x[None])
    for name in names:
        theirs = other.forward(name)[0]
        np.testing.assert_allclose(ours[name], theirs, atol=2e-4 * abs(theirs).max(), err_msg=name)


def test_it_paints_with_nothing_said():
    """The colours and textures become the painting's, and what is seen stays: by another network than painted it."""
    pictures = [DEMO / "content.jpg", DEMO / "style.jpg"]
    result = stylize(*pictures, proto=FILES[0], model=FILES[1], image_size=192, quality="draft", seed=1)
    judge = cvstyle.load_network(model="wavelet")
    layers = {"style_layers": ["octave1", "octave2", "octave3", "octave4"]}
    content, style = (cvstyle.preprocess(path, 192) for path in pictures)
    aim = cvstyle.measure_styles(judge, layers, style).statistics

    def distance(x):
        own = cvstyle.measure_styles(judge, layers, x).statistics
        return np.mean([((own[name] - aim[name]) ** 2).sum() / (aim[name] ** 2).sum() for name in aim])

    painted = cvstyle.preprocess(result.picture)
    assert distance(painted) < distance(content) / 3
    kept = cvstyle.features(judge, content, ["octave3"])["octave3"]
    theirs = {name: cvstyle.features(judge, x, ["octave3"])["octave3"] for name, x in
              (("painted", painted), ("mirrored", content[:, :, ::-1].copy()))}  # fmt: skip
    errors = {name: ((f - kept) ** 2).mean() for name, f in theirs.items()}
    assert errors["painted"] < 0.8 * errors["mirrored"]
    shares = {kind: sum(v for k, v in result.losses.items() if k.startswith(kind)) / result.loss
              for kind in ("content", "style", "tv")}  # fmt: skip
    assert min(shares.values()) > 0.03, shares  # none decides alone


def test_it_is_the_one_that_can_be_fetched():
    card = zoo.find("resnet50-half")
    for path, file in zip(FILES, (card.proto, card.model), strict=True):
        assert file.digest == "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()
