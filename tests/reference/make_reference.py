"""Writes objective.json: losses and gradients of a small network of VGG's form, by PyTorch autograd in float64.

An implementation of its own, from the definitions in DESIGN.md section 2 and docs/; shares nothing with cvstyle. Tests
read the numbers and never run this. Run once: python tests/reference/make_reference.py (needs torch and numpy only).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CHANNELS = {"conv1_1": (3, 8), "conv1_2": (8, 8), "conv2_1": (8, 12), "conv2_2": (12, 12), "conv3_1": (12, 16)}
ORDER = ("conv1_1", "conv1_2", "pool", "conv2_1", "conv2_2", "pool", "conv3_1")
CASES = {
    "max": {},
    "avg": {"pooling": "avg"},
    "odd": {"content_shape": (37, 51), "pooling": "max"},
    "odd avg": {"content_shape": (37, 51), "pooling": "avg"},
    "two styles": {"style_shapes": [(33, 40), (29, 18)], "blend": [3.0, 7.0]},
    "normalized": {"normalize_gradients": True},
    "all": {
        "content_shape": (23, 30), "style_shapes": [(17, 24), (40, 21)], "blend": [1.0, 3.0], "pooling": "avg",
        "normalize_gradients": True, "content_layers": {"relu2_2": 1.0, "conv2_1": 0.5},
        "style_layers": {"relu1_1": 2.0, "relu2_1": 1.0, "relu2_2": 0.25, "relu3_1": 1.0},
    },
}  # fmt: skip
DEFAULTS = {
    "content_shape": (32, 48), "style_shapes": [(40, 28)], "blend": None, "pooling": "max",
    "normalize_gradients": False, "content_weight": 5.0, "style_weight": 100.0, "tv_weight": 1e-3,
    "content_layers": {"relu2_2": 1.0}, "style_layers": {"relu1_1": 1.0, "relu2_1": 1.0, "relu3_1": 1.0},
}  # fmt: skip


def weights():
    """name -> (filters, bias), float32, from a fixed seed; the same in the test."""
    rng = np.random.RandomState(7)
    return {
        name: (
            (rng.standard_normal((o, i, 3, 3)) * np.sqrt(2 / (9 * i))).astype(np.float32),
            (rng.standard_normal(o) * 5).astype(np.float32),
        )
        for name, (i, o) in CHANNELS.items()
    }


def pictures(case):
    """(content, styles, x), float32, from a fixed seed: a few waves and noise, in 0..255 units about zero."""
    rng = np.random.RandomState(11)

    def picture(shape):
        y, x = np.mgrid[: shape[0], : shape[1]]
        waves = [70 * np.sin(x * rng.uniform(0.1, 1) + y * rng.uniform(0.1, 1) + rng.uniform(0, 6)) for _ in range(3)]
        return (np.stack(waves) + rng.standard_normal((3, *shape)) * 15).astype(np.float32)

    return picture(case["content_shape"]), [picture(s) for s in case["style_shapes"]], picture(case["content_shape"])


def compute(case):
    """{losses, gradient} of one case."""
    import torch
    from torch.nn import functional

    def tensor(array):
        return torch.tensor(array, dtype=torch.float64)

    parameters = {name: [tensor(p) for p in pair] for name, pair in weights().items()}
    content, styles, x = pictures(case)
    content, styles, x = tensor(content), [tensor(s) for s in styles], tensor(x)

    def features(picture):
        found, value = {}, picture[None]
        for step in ORDER:
            if step == "pool":
                if case["pooling"] == "avg":
                    value = functional.avg_pool2d(value, 2)
                else:
                    value = functional.max_pool2d(value, 2, ceil_mode=True)
                continue
            value = functional.conv2d(value, *parameters[step], padding=1)
            found[step] = value[0]
            value = functional.relu(value)
            found[step.replace("conv", "relu")] = value[0]
        return found

    def gram(f):
        flat = f.flatten(1)
        return flat @ flat.T / flat.numel()

    of_content, of_styles = features(content), [features(s) for s in styles]
    blend = case["blend"] or [1.0] * len(styles)
    x.requires_grad_()
    of_x = features(x)

    parts = {}  # name -> (weight, tensor that the loss looks at, loss without its weight)
    for name, factor in case["content_layers"].items():
        f = of_x[name]
        parts[f"content:{name}"] = case["content_weight"] * factor, f, ((f - of_content[name]) ** 2).mean()
    for name, factor in case["style_layers"].items():
        target = sum(b / sum(blend) * gram(s[name]) for b, s in zip(blend, of_styles))
        f = of_x[name]
        parts[f"style:{name}"] = case["style_weight"] * factor, f, ((gram(f) - target) ** 2).mean()
    block = x[:, :-1, :-1]
    tv = case["tv_weight"] / 2 * (((block - x[:, :-1, 1:]) ** 2).sum() + ((block - x[:, 1:, :-1]) ** 2).sum())

    losses = {name: float((weight * loss).detach()) for name, (weight, _, loss) in parts.items()}
    losses["tv"] = float(tv.detach())
    (gradient,) = torch.autograd.grad(tv, x, retain_graph=True)
    for weight, f, loss in parts.values():
        # Each layer's own gradient at its features, normalised where asked for, then taken down to the picture.
        (own,) = torch.autograd.grad(loss, f, retain_graph=True)
        if case["normalize_gradients"]:
            own = own / (own.abs().sum() + 1e-8)
        (below,) = torch.autograd.grad(f, x, weight * own, retain_graph=True)
        gradient = gradient + below
    return losses, gradient.numpy()


def main():
    result = {}
    for name, changes in CASES.items():
        losses, gradient = compute(DEFAULTS | changes)
        at = np.random.RandomState(3).choice(gradient.size, 20, replace=False)
        direction = np.random.RandomState(5).standard_normal(gradient.shape)
        result[name] = {
            "losses": losses,
            "gradient_norm": float(np.sqrt((gradient**2).sum())),
            "gradient_sum": float(gradient.sum()),
            "gradient_projected": float((gradient * direction).sum()),
            "gradient_at": [[int(i), float(gradient.flat[i])] for i in sorted(at)],
        }
    path = Path(__file__).with_name("objective.json")
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in result.items())
    path.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
