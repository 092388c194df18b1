"""What the student is trained on."""

from __future__ import annotations

from torch import nn
from torch.nn import functional


class Heads(nn.ModuleList):
    """1×1 convolutions from layers of the student to those of the teacher, rectified; only training needs them.

    pairs: (student's layer, its channels, teacher's channels), for each layer of the teacher.
    """

    def __init__(self, pairs):
        super().__init__([nn.Conv2d(channels, out, 1) for _, channels, out in pairs])
        self.layers = [name for name, _, _ in pairs]

    def forward(self, found):
        """found: the student's {name: features}. Returns a guess at the teacher's features, as `Evened` has them."""
        return [functional.relu(head(found[name])) for head, name in zip(self, self.layers, strict=True)]


class Evened:
    """The teacher's features, divided so that those channels that vary little count for more than in a Gram matrix.

    examples: features of a batch, from which the deviation of each channel is taken.
    """

    def __init__(self, examples):
        deviations = [f.std(dim=(0, 2, 3), keepdim=True) for f in examples]
        self.factors = [1 / (d * d.mean()).sqrt().clamp_min(0.05 * d.mean()) for d in deviations]

    def __call__(self, features):
        """One tensor for each layer."""
        return [f * factor for f, factor in zip(features, self.factors, strict=True)]


def features_loss(guesses, features):
    """(loss, [(relative error, that of changes) of each layer]) of a batch whose second half is its first, changed.

    Every layer's is the squared error of the features, relative to their variance, and that of their change from one
    half to the other, relative to its square: the better to know the slope of the features, on which painting depends.
    """
    total, errors = 0.0, []
    for guess, aim in zip(guesses, features, strict=True):
        half = len(aim) // 2
        error = guess - aim
        plain = error.square().mean() / aim.var()
        change = (error[half:] - error[:half]).square().mean() / (aim[half:] - aim[:half]).square().mean()
        total = total + 0.5 * plain + change
        errors.append((plain.item(), change.item()))
    return total, errors


def gram_matrices(features):
    """(N, C, C), means over the positions of (N, C, H, W)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def style_loss(features, targets):
    """Σ over pictures and layers of ‖G − A‖² / ‖A‖², as `--balance targets` has it (docs/mathematics.md)."""
    return sum(((gram_matrices(f) - a).square().sum(dim=(1, 2)) / a.square().sum(dim=(1, 2))).sum()
               for f, a in zip(features, targets, strict=True))  # fmt: skip
