"""Build the embedded network, rectified wavelets, as models/wavelet.prototxt and models/wavelet.caffemodel.

usage: python models/build_wavelet.py

Nothing is trained: every filter is a formula (docs/embedded-network.md). Features are rectified Gabor responses at
several phases, whose covariances carry the phase harmonics of Mallat, Zhang and Rochette (2019) and Zhang and Mallat
(2021); a Gram matrix of them describes a texture.
"""

from __future__ import annotations

import sys
from math import comb, pi
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT.parent))

from cvstyle.caffe.write import write_caffemodel, write_prototxt  # noqa: E402
from cvstyle.netdef import LayerDef, NetDef  # noqa: E402

OCTAVES = 5
ORIENTATIONS = 8
PHASES = 4
FREQUENCY = 0.25  # cycles per pixel
ALONG = 1.4  # standard deviations of the Gabor envelope, in pixels
ACROSS = 2.0
SCALE = 34.0  # of all features, so that the usual weights (content 5, style 100) suit this network
CONSTANT = 2270.0  # the constant channel, about as large as the features

# Rows on B, G, R: sum, red minus green, yellow minus blue.
OPPONENT = np.array([[1, 1, 1], [0, -1, 1], [-1, 0.5, 0.5]])


class Builder:
    """Builds layers in order, each with the name of its top."""

    def __init__(self):
        self.layers = []
        self.weights = {}
        self.channels = {"data": 3}

    def add(self, kind, name, bottoms, channels, **params):
        self.layers.append(LayerDef(name, kind, tuple(bottoms), (name,), params))
        self.channels[name] = channels
        return name

    def conv(self, name, bottom, weight, bias=None, stride=1, pad=0, group=1):
        weight = np.asarray(weight, np.float32)
        params = {"num_output": len(weight), "bias_term": bias is not None}
        height, width = weight.shape[2:]
        params |= {"kernel_size": [height]} if height == width else {"kernel_h": height, "kernel_w": width}
        if isinstance(stride, tuple):
            params |= {"stride_h": stride[0], "stride_w": stride[1]}
        elif stride > 1:
            params |= {"stride": [stride]}
        if isinstance(pad, tuple):
            params |= {"pad_h": pad[0], "pad_w": pad[1]}
        elif pad:
            params |= {"pad": [pad]}
        params |= {"group": group} if group > 1 else {}
        self.weights[name] = [weight] if bias is None else [weight, np.asarray(bias, np.float32)]
        return self.add("Convolution", name, [bottom], len(weight), **params)

    def relu(self, name, bottom):
        """An in-place ReLU; the next layer reads `bottom`."""
        self.layers.append(LayerDef(name, "ReLU", (bottom,), (bottom,), {}))
        return bottom

    def filtered(self, name, bottom, line, stride=1):
        """Separable filter of each channel of `bottom`, vertical and then horizontal."""
        count = self.channels[bottom]
        half = len(line) // 2
        each = np.stack([line] * count)
        down = self.conv(f"{name}_down", bottom, each[:, None, :, None], None, (stride, 1), (half, 0), count)
        return self.conv(name, down, each[:, None, None], None, (1, stride), (0, half), count)

    def blurred(self, name, bottom, ones, line, stride=1):
        """Separable filter of `bottom`, divided by the sum of the filter's weights inside the picture."""
        inside = self.filtered(f"{name}_inside", ones, line, stride)
        inverse = self.add("Power", f"{name}_inverse", [inside], 3, power=-1.0)
        raw = self.filtered(f"{name}_raw", bottom, line, stride)
        return self.add("Eltwise", name, [raw, inverse], 3, operation="PROD")


def gabors(size=7):
    """(orientations · phases, size, size): zero mean, unit norm."""
    y, x = np.mgrid[:size, :size] - size // 2
    filters = []
    for orientation in np.arange(ORIENTATIONS) * pi / ORIENTATIONS:
        u = x * np.cos(orientation) + y * np.sin(orientation)
        v = -x * np.sin(orientation) + y * np.cos(orientation)
        envelope = np.exp(-(u**2) / (2 * ALONG**2) - v**2 / (2 * ACROSS**2))
        for phase in np.arange(PHASES) * 2 * pi / PHASES:
            wave = envelope * np.cos(2 * pi * FREQUENCY * u + phase)
            wave -= envelope * wave.sum() / envelope.sum()
            filters.append(wave / np.linalg.norm(wave))
    return np.array(filters)


def gaussian(size, deviation):
    """(size,), sum 1."""
    line = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * deviation**2))
    return line / line.sum()


def binomial(size):
    """(size,), sum 1."""
    return np.array([comb(size - 1, i) for i in range(size)]) / 2.0 ** (size - 1)


def build():
    """Build the network with its weights."""
    net = Builder()
    delta = np.zeros((7, 7))
    delta[3, 3] = 1
    # In addition to the waves, the detail itself, rectified with both signs.
    details = np.concatenate([gabors(), [delta, -delta]])
    opponent = OPPONENT / np.linalg.norm(OPPONENT, axis=1, keepdims=True)
    x = net.conv("opponent", "data", opponent[:, :, None, None] * SCALE)
    carried = []
    for octave in range(1, OCTAVES + 1):
        ones = net.conv(f"ones{octave}", x, np.zeros((3, 1, 1, 1)), np.ones(3), group=3)
        # Zero-mean filters on the picture minus its local mean, so that zero padding makes no frame.
        mean = net.blurred(f"mean{octave}", x, ones, gaussian(13, 3.0))
        detail = net.add("Eltwise", f"whole_detail{octave}", [x, mean], 3, operation="SUM", coeff=[1.0, -1.0])
        # Tapered at the border, where pixels could otherwise become extreme dots that serve the statistics.
        inside = net.add("Power", f"taper{octave}", [f"mean{octave}_inside"], 3, scale=2.0, shift=-1.0)
        inside = net.relu(f"relu_taper{octave}", inside)
        detail = net.add("Eltwise", f"detail{octave}", [detail, inside], 3, operation="PROD")
        wave = net.conv(f"wave{octave}", detail, np.concatenate([details] * 3)[:, None], pad=3, group=3)
        net.relu(f"relu_wave{octave}", wave)
        smooth = net.blurred(f"smooth{octave}", x, ones, gaussian(7, 1.2))
        signs = np.tile([1.0, -1.0], 3).reshape(-1, 1, 1, 1)
        colour = net.relu(f"relu_colour{octave}", net.conv(f"colour{octave}", smooth, signs, group=3))
        count = net.channels[wave] + net.channels[colour]
        features = net.add("Concat", f"features{octave}", [wave, colour], count)
        constant = net.conv(f"constant{octave}", x, np.zeros((1, 3, 1, 1)), [CONSTANT])
        parts = [features, constant, *carried]
        net.add("Concat", f"octave{octave}", parts, sum(net.channels[p] for p in parts))
        if octave < OCTAVES:
            carried = [net.filtered(f"carry{octave}", features, binomial(7), stride=2)]
            x = net.blurred(f"x{octave + 1}", x, ones, binomial(5), stride=2)
    return NetDef("rectified wavelets", {"data": (1, 3, 512, 512)}, tuple(net.layers), net.weights)


if __name__ == "__main__":
    network = build()
    write_prototxt(ROOT / "wavelet.prototxt", network)
    write_caffemodel(ROOT / "wavelet.caffemodel", network)
