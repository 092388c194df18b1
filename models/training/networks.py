"""The teacher and the student in PyTorch, and the student as a Caffe network."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cvstyle.caffe import read_net
from cvstyle.netdef import LayerDef, NetDef

SCALE = 60.0  # divisor of the student's input, about the standard deviation of pixels
_PLAIN = {"ReLU": functional.relu, "Eltwise": torch.add}


class Teacher(nn.Module):
    """The convolutional part of a Caffe network with fixed weights: BatchNorm and Scale folded into convolutions.

    layers: names of the layers whose features `forward` returns, in this order.
    """

    def __init__(self, proto, model, layers: list[str]):
        super().__init__()
        self.layers = list(layers)
        self.steps = []
        net = read_net(proto, model)
        missing = set(layers)
        for definition in net.layers:
            if not missing:
                break
            self._add(definition, [torch.from_numpy(np.array(b)) for b in net.weights.get(definition.name, ())])
            missing.discard(definition.name)
        if missing:
            raise ValueError(f"{model} has no layer {sorted(missing)[0]}")
        self.requires_grad_(False)

    def _add(self, definition, blobs):
        bottoms = definition.bottoms
        top = definition.tops[0]
        params = definition.params
        conv = self.steps[-1][0] if self.steps else None
        if definition.type == "BatchNorm":
            mean, variance, factor = (b.flatten().double() for b in blobs)
            deviation = torch.sqrt(variance / factor + params.get("eps", 1e-5))
            return _scale(conv, 1 / deviation, -mean / factor / deviation)
        if definition.type == "Scale":
            return _scale(conv, *(b.flatten().double() for b in blobs))
        kernel, stride, pad = (_side(params, n, int(n != "pad")) for n in ("kernel_size", "stride", "pad"))
        if definition.type == "Convolution":
            weights, *bias = blobs
            function = nn.Conv2d(weights.shape[1], weights.shape[0], kernel, stride, pad)
            function.weight.data = weights.float()
            function.bias.data = bias[0].flatten().float() if bias else torch.zeros(len(weights))
            self.add_module(definition.name, function)
        elif definition.type == "Pooling":
            function = nn.MaxPool2d(kernel, stride, ceil_mode=True)
        elif definition.type in _PLAIN:
            function = _PLAIN[definition.type]
        else:
            raise ValueError(f"a teacher with {definition.name} ({definition.type})")
        self.steps.append((function, bottoms, top, definition.name))

    def forward(self, x):
        """x: (N, 3, H, W), BGR less ImageNet's mean. Returns the features of `layers`."""
        blobs = {"data": x}
        found = {}
        for function, bottoms, top, name in self.steps:
            found[name] = blobs[top] = function(*[blobs[bottom] for bottom in bottoms])
        return [found[name] for name in self.layers]


def _side(params, name, default):
    value = params.get(name, default)
    return value[0] if isinstance(value, list) else value


def _scale(conv, factor, shift):
    conv.weight.data = (conv.weight.double() * factor[:, None, None, None]).float()
    conv.bias.data = (conv.bias.double() * factor + shift).float()


class Unit(nn.Sequential):
    """A convolution, followed by batch normalisation during training."""

    def __init__(self, channels, out, kernel, stride=1):
        super().__init__(nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out))

    def folded(self) -> nn.Conv2d:
        """An equivalent convolution for evaluation."""
        if len(self) == 1:
            return self[0]
        old, norm = self
        conv = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding)
        conv.weight.data = old.weight.data.clone()
        conv.bias.data = torch.zeros(old.out_channels)
        factor = norm.weight.data.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        _scale(conv, factor, norm.bias.data.double() - norm.running_mean.double() * factor)
        return conv.to(memory_format=torch.channels_last)


class Block(nn.Module):
    """A residual block: 3×3, ReLU, 3×3 and sum with the input. middle: channels between the convolutions."""

    def __init__(self, channels, middle):
        super().__init__()
        self.first = Unit(channels, middle, 3)
        self.second = Unit(middle, channels, 3)

    def forward(self, x):
        """x: (N, C, H, W), rectified. Returns the rectified sum."""
        return functional.relu(x + self.second(functional.relu(self.first(x))))


class Student(nn.Module):
    """A small network. form: entries as in `models/train.py`; `=name` marks the layers whose features are returned."""

    def __init__(self, form: str):
        super().__init__()
        self.form = form
        self.parts = nn.ModuleList()
        self.names = []
        channels = 3
        for entry in form.split():
            part, _, name = entry.partition("=")
            kind = part[0]
            numbers = [int(n) for n in part[1:].split(",")]
            if kind == "c":
                kernel, out, stride = numbers
                self.parts.append(nn.Sequential(Unit(channels, out, kernel, stride), nn.ReLU()))
                channels = out
            elif kind == "b":
                self.parts.append(Block(channels, numbers[0]))
            elif kind == "m":
                self.parts.append(nn.MaxPool2d(numbers[0], 2, ceil_mode=True))
            self.names.append(name)
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        """x: (N, 3, H, W), BGR less ImageNet's mean. Returns {name: features}."""
        x = x / SCALE
        found = {}
        for part, name in zip(self.parts, self.names, strict=True):
            x = part(x)
            if name:
                found[name] = x
        return found

    def folded(self) -> Student:
        """An equivalent copy for evaluation, without batch normalisation."""
        new = copy.deepcopy(self)
        for module in new.modules():
            if isinstance(module, Unit) and len(module) == 2:
                conv = module.folded()
                del module[1]
                module[0] = conv
        return new

    def net_def(self, title: str, levels: int | None = None) -> NetDef:
        """The student as a Caffe network. levels: see `rounded`."""
        out = _Writer(levels)
        for part, name in zip(self.folded().parts, self.names, strict=True):
            if isinstance(part, nn.Sequential):
                out.conv(part[0][0], name, first=not out.layers)
            elif isinstance(part, Block):
                out.block(part, name)
            else:
                out.add("Pooling", f"pool{out.number - 1}", pool="MAX", kernel_size=part.kernel_size, stride=2)
        return NetDef(title, {"data": (1, 3, 512, 512)}, tuple(out.layers), out.weights)


class _Writer:
    """Builds a sequence of Caffe layers."""

    def __init__(self, levels):
        self.layers = []
        self.weights = {}
        self.top = "data"
        self.number = 1
        self.levels = levels

    def add(self, kind, name, bottoms=None, top=None, **params):
        self.layers.append(LayerDef(name, kind, tuple(bottoms or [self.top]), (top or name,), params))
        self.top = top or name

    def conv(self, conv, name="", first=False):
        """Add a convolution and its ReLU, which gets the name."""
        label = f"conv{self.number}"
        self.number += 1
        weights = conv.weight.data.double() / (SCALE if first else 1)
        weights, bias = (b.contiguous().numpy().astype(np.float32) for b in (weights, conv.bias.data))
        self.weights[label] = [rounded(weights, self.levels), bias]
        params = {"num_output": conv.out_channels, "kernel_size": [conv.kernel_size[0]], "pad": [conv.padding[0]]}
        self.add("Convolution", label, **params, **({"stride": [conv.stride[0]]} if conv.stride[0] > 1 else {}))
        self.add("ReLU", name or f"relu_{label}", top=label)

    def block(self, block, name):
        start = self.top
        self.conv(block.first[0])
        label = f"conv{self.number}"
        self.conv(block.second[0])
        self.layers.pop()  # the second convolution has no ReLU before the sum
        self.add("Eltwise", f"sum_{label}", [start, label], operation="SUM")
        self.add("ReLU", name or f"relu_sum_{label}", top=f"sum_{label}")


def rounded(weights: np.ndarray, levels: int | None) -> np.ndarray:
    """Weights rounded to multiples of a power of two per output channel, at most `levels` of them on each side of 0.

    They are float32 with few significant bits, which a wheel (a zip file) compresses to about a byte each.
    """
    if levels is None:
        return weights
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    step = np.exp2(np.ceil(np.log2(np.maximum(largest, 1e-30) / levels)))
    return (np.round(weights / step) * step).astype(np.float32)
