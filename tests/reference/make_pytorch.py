"""Write pytorch/: files that PyTorch itself wrote, and features that it computed, for tests/test_pytorch_files.py.

Needs PyTorch (made with 2.13.0 on a CPU): python tests/reference/make_pytorch.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent / "pytorch"
WIDTHS = (4, 6, 8, 8, 8)  # channels of the five blocks of VGG-19
COUNTS = (2, 2, 4, 4, 4)
MEAN = np.array((0.485, 0.456, 0.406))
SIGMA = np.array((0.229, 0.224, 0.225))
CAFFE_MEAN = np.array((123.68, 116.779, 103.939))
SIZE = (34, 40)
KEPT = ("relu1_1", "relu2_2", "relu3_4", "relu4_2", "relu5_1")


def network() -> torch.nn.Sequential:
    """VGG-19 in torchvision's form, narrow."""
    parts = []
    inputs = 3
    for width, count in zip(WIDTHS, COUNTS):
        for _ in range(count):
            parts += [torch.nn.Conv2d(inputs, width, 3, padding=1), torch.nn.ReLU()]
            inputs = width
        parts.append(torch.nn.MaxPool2d(2, ceil_mode=True))
    return torch.nn.Sequential(*parts)


def other_tensors() -> dict:
    """Tensors of the kinds that state dicts hold beside plain ones."""
    shared = torch.arange(6.0)
    return {
        "transposed": torch.arange(12.0).reshape(3, 4).t(), "part": torch.arange(10.0)[3:7],
        "half": torch.tensor([0.5, -2.0]).half(), "brain": torch.tensor([[1.5, -3.0]]).bfloat16(),
        "double": torch.tensor([1 / 3], dtype=torch.float64), "scalar": torch.tensor(3.5), "empty": torch.empty(0, 3),
        "shared": shared, "same": shared.view(2, 3), "parameter": torch.nn.Parameter(torch.ones(3)),
    }  # fmt: skip


def features(net, rgb) -> dict[str, np.ndarray]:
    """Outputs of the kept ReLUs in float64, for a picture of levels with Caffe's mean around it in place of zeros."""
    height, width = rgb.shape[:2]
    padded = torch.tensor((CAFFE_MEAN / 255 - MEAN) / SIGMA).reshape(1, 3, 1, 1).repeat(1, 1, height + 2, width + 2)
    padded[0, :, 1:-1, 1:-1] = torch.tensor((rgb / 255 - MEAN) / SIGMA).permute(2, 0, 1)
    first, *others = net.double()
    x = torch.nn.functional.conv2d(padded, first.weight, first.bias)
    names = iter(f"relu{b}_{i}" for b, count in enumerate(COUNTS, 1) for i in range(1, count + 1))
    found = {}
    for part in others:
        x = part(x)
        if isinstance(part, torch.nn.ReLU):
            found[next(names)] = x[0].numpy().astype("f4")
    return {name: found[name] for name in KEPT}


def main() -> None:
    """Write the three files."""
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(0)
    net = network()
    for part in net:
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
            torch.nn.init.normal_(part.bias, 0, 0.1)
    state = {f"features.{name}": value for name, value in net.state_dict().items()}
    for name, zipped in (("zip", True), ("legacy", False)):
        torch.save(state | other_tensors(), FOLDER / f"{name}.pth", _use_new_zipfile_serialization=zipped)
    rgb = np.random.default_rng(2).integers(0, 256, (*SIZE, 3)).astype("u1")
    with torch.no_grad():
        first = net[0].weight.numpy().copy()
        np.savez_compressed(FOLDER / "features.npz", rgb=rgb, first=first, **features(net, rgb))


if __name__ == "__main__":
    main()
