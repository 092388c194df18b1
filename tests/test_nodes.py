"""How many kernels an iteration launches, which on a GPU is a graph of as many nodes: counted, and none carried out."""

from __future__ import annotations

from collections import Counter

import fake_cupy
import nets
import numpy as np
import ptx
import pytest

from cvstyle import Objective, backends, optimize
from cvstyle.backends.device.dry_run import DryRunBackend
from cvstyle.graph import Network
from cvstyle.optimize import lbfgs

STYLES = ["relu1_1", "relu2_1", "relu4_1"]
NETWORK = ("convolution", "cuda/convolution", "finish", "few_channels", "pooling", "winograd")


@pytest.fixture
def launches(monkeypatch):
    """A function: precision → launches of a steady L-BFGS iteration of VGG-19 by source and kernel."""
    fake_cupy.install(monkeypatch, ptx.Device())

    def count(precision):
        ops, counts, steady = DryRunBackend(backends.get("cuda", precision=precision)), Counter(), []
        launch = ops.launch
        monkeypatch.setattr(ops, "launch", lambda *all, **more: counts.update([all[:2]]) or launch(*all, **more))
        net, picture = Network(nets.vgg(19, 1, (32, 32), classifier=False), ops), np.zeros((3, 96, 128), np.float32)
        objective = Objective(net, picture, [picture], content_layers=["relu3_2"], style_layers=STYLES)

        def callback(iteration, x):
            steady[:] = [Counter(counts)]
            counts.clear()

        optimize.minimize("lbfgs", objective, ops.asarray(picture[None]), 4, callback, history=2, **lbfgs.FOR_PICTURES)
        return steady[0]

    return count


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "fp16-fast"])
def test_a_loss_takes_few_launches(launches, precision):
    """A style layer two, its Gram matrix and the words of the difference; content and total variation one each."""
    beside = {kernel: n for kernel, n in launches(precision).items() if kernel[0] not in NETWORK}
    losses = {kernel: n for kernel, n in beside.items() if kernel[0] not in ("lbfgs", "pyramid", "elementwise")}
    tensor = precision != "fp32"
    expected = {
        ("cuda/gram" if tensor else "gram", "gram_parts"): 3, ("reduce", "add_difference"): 1,
        ("variation", "total_variation"): 1,
    }  # fmt: skip
    assert losses == expected | ({("cuda/pack", "pack"): 3} if tensor else {})
    assert sum(beside.values()) - sum(losses.values()) <= 9  # L-BFGS and its pyramid
