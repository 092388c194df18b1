"""cvstyle's objective and optimiser in idiomatic PyTorch: autograd, oneDNN, torch.optim.LBFGS.

For comparison only, written from the definitions in docs/; cvstyle does not depend on PyTorch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from cvstyle.losses import parse_layer


class TorchStyle:
    """Style transfer at one size; `step()` is one L-BFGS iteration of one evaluation.

    net: a NetDef, run up to the last layer of a loss. problem: a `common.Problem`.
    """

    def __init__(self, net, problem, device="cpu", history=100):
        self.problem = problem
        to_device = lambda host: torch.from_numpy(np.array(host, np.float32)).to(device)  # noqa: E731
        # "octave5:0.1" is a layer with a factor.
        self.content_weights, self.style_weights = (
            {name: factor * weight for name, factor in map(parse_layer, names)}
            for names, weight in (
                (problem.content_layers, problem.content_weight), (problem.style_layers, problem.style_weight),
            )
        )  # fmt: skip
        wanted = {*self.content_weights, *self.style_weights}
        last = max(i for i, d in enumerate(net.layers) if d.name in wanted)
        self.layers = [
            (d, [to_device(b) for b in net.weights.get(d.name, ())])
            for d in net.layers[: last + 1]
        ]
        with torch.no_grad():
            features = self.features(to_device(problem.content)[None], self.content_weights)
            self.content = {n: features[n].clone() for n in self.content_weights}
            features = self.features(to_device(problem.style)[None], self.style_weights)
            self.style = {n: self.gram(features[n]) for n in self.style_weights}
        self.x = to_device(problem.start)[None].requires_grad_(True)
        # The tolerances are off, as in cvstyle, so that no iteration is skipped.
        self.optimizer = torch.optim.LBFGS(
            [self.x], lr=1, max_iter=1, history_size=history, tolerance_grad=-1, tolerance_change=-1
        )
        self.loss = float("nan")

    def features(self, x, names):
        """The outputs of the named layers; blobs have names, so an in-place layer replaces its input."""
        blobs = {"data": x}
        outputs = {}
        for layer, weights in self.layers:
            if layer.bottoms:
                blobs[layer.tops[0]] = run(layer, [blobs[b] for b in layer.bottoms], weights)
            if layer.name in names:
                outputs[layer.name] = blobs[layer.tops[0]]
        return outputs

    @staticmethod
    def gram(features):
        f = features.flatten(2)[0]
        return f @ f.T / f.numel()

    def total(self):
        """The loss, with its graph."""
        features = self.features(self.x, {*self.content_weights, *self.style_weights})
        loss = sum(w * F.mse_loss(features[n], self.content[n]) for n, w in self.content_weights.items())
        loss = loss + sum(w * F.mse_loss(self.gram(features[n]), self.style[n]) for n, w in self.style_weights.items())
        block = self.x[..., :-1, :-1]
        right = block - self.x[..., :-1, 1:]
        below = block - self.x[..., 1:, :-1]
        return loss + self.problem.tv_weight / 2 * ((right**2).sum() + (below**2).sum())

    def closure(self):
        self.optimizer.zero_grad()
        loss = self.total()
        loss.backward()
        self.loss = loss.item()
        return loss

    def step(self):
        self.optimizer.step(self.closure)
        return self.loss


def run(layer, bottoms, weights):
    """The output of a layer of the types in VGG-19 and the embedded network."""
    x = bottoms[0]
    p = layer.params

    def pair(name, default, short=None):
        if f"{short or name}_h" in p:
            return p[f"{short or name}_h"], p[f"{short or name}_w"]
        value = p.get(name, default)
        return (value[0], value[-1]) if isinstance(value, (list, tuple)) else (value, value)

    if layer.type == "Convolution":
        bias = weights[1].flatten() if len(weights) > 1 else None
        weight = weights[0].reshape(p["num_output"], -1, *pair("kernel_size", 1, "kernel"))
        return F.conv2d(x, weight, bias, pair("stride", 1), pair("pad", 0), groups=p.get("group", 1))
    if layer.type == "ReLU":
        return F.relu(x)
    if layer.type == "Pooling":
        pool = {"MAX": F.max_pool2d, "AVE": F.avg_pool2d}[p.get("pool", "MAX")]
        return pool(x, p["kernel_size"], p["stride"], ceil_mode=True)
    if layer.type == "Concat":
        return torch.cat(bottoms, 1)
    if layer.type == "Power":
        return (p.get("shift", 0) + p.get("scale", 1) * x) ** p.get("power", 1)
    if layer.type == "Eltwise" and p.get("operation", "SUM") == "PROD":
        return bottoms[0] * bottoms[1]
    if layer.type == "Eltwise":
        return sum(c * b for c, b in zip(p.get("coeff") or [1] * len(bottoms), bottoms))
    raise NotImplementedError(f"{layer.type} ({layer.name})")
