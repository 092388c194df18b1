"""Real Caffe: outputs, gradients and refusals of small nets, as BVLC's Caffe gives them in double precision.

The numbers are facts, computed once by reference/make_real_caffe.py, which names the commit and the forks.
"""

from __future__ import annotations

from pathlib import Path

import nets
import numpy as np
import pytest
from real_caffe import NETS, NONE, REFUSED

from cvstyle.backends.reference import Backend
from cvstyle.caffe import read_net
from cvstyle.errors import CvstyleError
from cvstyle.graph import Network


def numbers():
    """Name of a net -> (output, gradient or None), from the file."""
    with np.load(Path(__file__).with_name("reference") / "real_caffe.npz") as file:
        shapes = {str(name): tuple(n for n in shape if n) for name, shape in zip(file["names"], file["shapes"])}
        rest = file["numbers"].astype(np.float64)
    found = {}
    for net in NETS:
        arrays = []
        for shape in (shapes[net.name], () if net.no_gradient else net.shape):
            count = int(np.prod(shape)) if shape else 0
            arrays.append(rest[:count].reshape(shape) if shape else None)
            rest = rest[count:]
        found[net.name] = tuple(arrays)
    assert not rest.size
    return found


EXPECTED = numbers()
every_net = pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)


def load(net, folder, ops):
    (folder / "net.prototxt").write_text(net.text)
    (folder / "net.caffemodel").write_bytes(net.caffemodel())
    return Network(read_net(folder / "net.prototxt", folder / "net.caffemodel" if net.blobs else None), ops)


def run(net, folder, ops):
    """(output, gradient or None) of the last layer's first top."""
    network = load(net, folder, ops)
    name = network.layer_names[-1]
    features = network.program([name]).forward(ops.asarray(net.picture()), needs_grad=not net.no_gradient)
    top = np.array(features[name], np.float64)
    diff = ops.asarray(net.diff(top.shape))
    return top, None if net.no_gradient else np.array(features.backward(lambda *_: diff), np.float64)


@every_net
def test_numbers_of_real_caffe(net, tmp_path):
    for ours, caffes in zip(run(net, tmp_path, Backend("float64")), EXPECTED[net.name], strict=True):
        if caffes is not None:
            assert ours.shape == caffes.shape
            # Caffe's parameters are float32, and so are Interp's coordinates.
            np.testing.assert_allclose(ours, caffes, rtol=1e-5, atol=1e-6 * np.abs(caffes).max())


@every_net
@pytest.mark.parametrize("engine", nets.ENGINES)
def test_engines_have_the_numbers_of_real_caffe(net, engine, tmp_path):
    for ours, caffes in zip(run(net, tmp_path, nets.ENGINES[engine]()), EXPECTED[net.name], strict=True):
        if caffes is not None:
            np.testing.assert_allclose(ours, caffes, rtol=1e-4, atol=1e-4 * np.abs(caffes).max())


@every_net
def test_gradients_stop_where_caffe_has_no_backward_pass(net, tmp_path):
    network = load(net, tmp_path, Backend("float64"))
    assert (network.value(network.layer_names[-1]) in network.gradient_stops()) == (net.no_gradient == NONE)


@pytest.mark.parametrize("net", REFUSED, ids=lambda net: net.name)
def test_refused_as_by_real_caffe(net, tmp_path):
    with pytest.raises(CvstyleError) as refusal:
        network = load(net, tmp_path, Backend("float64"))
        network.program(network.layer_names[-1:]).forward(net.picture())
    assert "x" in str(refusal.value)
