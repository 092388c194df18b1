"""The same objective and optimiser in plain PyTorch, as one would write them: autograd, oneDNN, torch.optim.LBFGS.

Written for comparison only, from the definitions in docs/; PyTorch is no dependency of cvstyle.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from common import CONTENT_LAYERS, STYLE_LAYERS, picture, vgg19


class TorchStyle:
    """VGG-19 style transfer at one size; `step()` is one L-BFGS iteration of one evaluation."""

    def __init__(self, longest, threads=None):
        if threads:
            torch.set_num_threads(threads)
        net = vgg19()
        self.layers = [
            (d.name, d.type, [torch.from_numpy(np.asarray(b)) for b in net.weights.get(d.name, ())]) for d in net.layers
        ]
        with torch.no_grad():
            content = torch.from_numpy(picture(longest, 1))[None]
            features = self.features(content)
            self.content = {n: features[n].clone() for n in CONTENT_LAYERS}
            features = self.features(torch.from_numpy(picture(longest, 2))[None])
            self.style = {n: self.gram(features[n]) for n in STYLE_LAYERS}
        self.x = content.clone().requires_grad_(True)
        # The tolerances are off, as in cvstyle, so that no iteration is skipped.
        self.optimizer = torch.optim.LBFGS(
            [self.x], lr=1, max_iter=1, history_size=100, tolerance_grad=-1, tolerance_change=-1
        )
        self.loss = float("nan")

    def features(self, x):
        last, found = STYLE_LAYERS[-1], {}
        for name, kind, weights in self.layers:
            if kind == "Convolution":
                x = F.conv2d(x, *weights, padding=1)
            elif kind == "ReLU":
                x = F.relu(x)
            elif kind == "Pooling":
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            found[name] = x
            if name == last:
                return found
        return found

    @staticmethod
    def gram(features):
        f = features.flatten(2)[0]
        return f @ f.T / f.numel()

    def closure(self):
        self.optimizer.zero_grad()
        features = self.features(self.x)
        loss = sum(5 * F.mse_loss(features[n], t) for n, t in self.content.items())
        loss = loss + sum(100 * F.mse_loss(self.gram(features[n]), t) for n, t in self.style.items())
        block = self.x[..., :-1, :-1]
        right, below = block - self.x[..., :-1, 1:], block - self.x[..., 1:, :-1]
        loss = loss + 1e-3 / 2 * ((right**2).sum() + (below**2).sum())
        loss.backward()
        self.loss = loss.item()
        return loss

    def step(self):
        self.optimizer.step(self.closure)
        return self.loss
