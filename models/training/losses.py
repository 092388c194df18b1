"""Losses of the distillation."""

from __future__ import annotations

from torch import nn
from torch.nn import functional


class Heads(nn.ModuleList):
    """1×1 convolutions and ReLUs from layers of the student to layers of the teacher, for training only.

    pairs: (student's layer, its channels, teacher's channels) for each layer of the teacher.
    """

    def __init__(self, pairs):
        super().__init__([nn.Conv2d(channels, out, 1) for _, channels, out in pairs])
        self.layers = [name for name, _, _ in pairs]

    def forward(self, features):
        """features: the student's by name. Returns predictions of the teacher's scaled features."""
        return [functional.relu(head(features[name])) for head, name in zip(self, self.layers, strict=True)]


class ChannelScaling:
    """Scaling of the teacher's features that gives channels with little variation more weight than in a Gram matrix.

    examples: features of a batch, which determine the standard deviation of each channel.
    """

    def __init__(self, examples):
        deviations = [f.std(dim=(0, 2, 3), keepdim=True) for f in examples]
        self.factors = [1 / (d * d.mean()).sqrt().clamp_min(0.05 * d.mean()) for d in deviations]

    def __call__(self, features):
        """Scale a list of one tensor per layer."""
        return [f * factor for f, factor in zip(features, self.factors, strict=True)]


def features_loss(predictions, features):
    """(loss, [(relative error, relative error of changes) per layer]); the second half of a batch is a changed first.

    The terms of a layer are the squared error of the features, relative to their variance, and the squared error of
    their change between the halves, relative to its square, since style transfer depends on the features' gradients.
    """
    total = 0.0
    errors = []
    for prediction, target in zip(predictions, features, strict=True):
        half = len(target) // 2
        error = prediction - target
        plain = error.square().mean() / target.var()
        change = (error[half:] - error[:half]).square().mean() / (target[half:] - target[:half]).square().mean()
        total = total + 0.5 * plain + change
        errors.append((plain.item(), change.item()))
    return total, errors


def gram_matrices(features):
    """Gram matrices (N, C, C) of (N, C, H, W), averaged over positions."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def style_loss(features, targets):
    """Σ over pictures and layers of ‖G − A‖² / ‖A‖², as in `--balance targets` (docs/mathematics.md)."""
    return sum(((gram_matrices(f) - a).square().sum(dim=(1, 2)) / a.square().sum(dim=(1, 2))).sum()
               for f, a in zip(features, targets, strict=True))  # fmt: skip
