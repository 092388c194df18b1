"""The writer and the reader beside an independent Caffe importer, OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from caffe_helpers import SMALL, V1_TEXT, V2_TEXT, small_weights

from cvstyle.caffe import read_net
from cvstyle.caffe.write import write_caffemodel, write_prototxt

pytestmark = pytest.mark.skipif(not hasattr(cv2.dnn, "readNetFromCaffe"), reason="OpenCV 5 has no Caffe importer")


@pytest.mark.parametrize("form, legacy", [("V2", False), ("V2", True), ("V1", True), ("V1", False)])
@pytest.mark.parametrize("written_text", [True, False])
def test_opencv_reads_the_same(tmp_path, form, legacy, written_text):
    proto, model = str(tmp_path / "a.prototxt"), str(tmp_path / "a.caffemodel")
    if written_text:
        write_prototxt(proto, SMALL, form)
    else:
        (tmp_path / "a.prototxt").write_text(V1_TEXT if form == "V1" else V2_TEXT)
    write_caffemodel(model, SMALL, small_weights(), form, legacy_shape=legacy)
    ours, theirs = read_net(proto, model), cv2.dnn.readNetFromCaffe(proto, model)

    names = [layer.name for layer in ours.layers]
    assert [name for name in theirs.getLayerNames() if name in names] == names
    for layer in ours.layers:
        there = theirs.getLayer(theirs.getLayerId(layer.name))
        assert there.type == layer.type
        for got, wanted in zip(ours.weights.get(layer.name, []), there.blobs, strict=True):
            np.testing.assert_array_equal(got.ravel(), wanted.ravel())


def test_opencv_computes_what_the_small_net_says(tmp_path):
    """The first layers by hand: OpenCV took the graph, the padding and the weights as we wrote them."""
    proto, model = str(tmp_path / "a.prototxt"), str(tmp_path / "a.caffemodel")
    write_prototxt(proto, SMALL, "V1")
    weights = small_weights(1)
    write_caffemodel(model, SMALL, weights, "V1")
    image = np.random.default_rng(2).standard_normal((1, 3, 10, 12)).astype("f4")
    net = cv2.dnn.readNetFromCaffe(proto, model)
    net.setInput(image)
    got = net.forward("relu1")

    kernel, bias = read_net(proto, model).weights["conv1"]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image[0], ((0, 0), (1, 1), (1, 1))), (3, 3), (1, 2))
    wanted = np.einsum("chwij,kcij->khw", windows, kernel) + bias.reshape(-1, 1, 1)
    np.testing.assert_allclose(got[0], np.maximum(wanted, 0), rtol=1e-4, atol=1e-5)
