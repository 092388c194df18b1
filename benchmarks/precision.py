"""The effect of rounded operands on the gradient and on L-BFGS, emulated in PyTorch on a CPU.

usage: python benchmarks/precision.py [--size 128] [--narrow 1] [--iterations 0] [--modes tf32,tf32:xw] [--seeds 1]

VGG-19 with random weights and its usual layers. A mode is the type of a word and, behind a colon, the operands of the
forward pass that take two words: "fp16:xw" (features and weights, --precision fp16), "fp16:x", "fp16:w", "fp16"
(--precision fp16-fast). Products and sums are float32, nearly as on tensor cores. The gradient is compared with
float64's at the content picture with added noise; --iterations lists losses of L-BFGS from noise instead.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from common import nets, problem, vgg19, where
from peer_torch import TorchStyle

from cvstyle.backends.device import operands


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--narrow", type=int, default=1, help="divisor of the number of channels")
    parser.add_argument("--iterations", type=int, default=0)
    parser.add_argument("--modes", default=",".join(w + s for s in ("", ":xw") for w in operands.FORMATS))
    parser.add_argument("--seeds", type=int, default=1, help="pictures; the largest error is shown")
    args = parser.parse_args()
    print(where())
    definition = vgg(args.narrow)
    p = problem([d.name for d in definition.layers], args.size)
    modes = args.modes.split(",")
    if args.iterations:
        return converge(definition, p, ["fp32", *modes], args.iterations)
    exact = Emulated(definition, p, None, torch.float64)
    pictures = [p.content + np.random.default_rng(i).standard_normal(p.content.shape) * 20 for i in range(args.seeds)]
    truth = [exact.gradient(x) for x in pictures]
    for mode in ("fp32", *modes):
        style = Emulated(definition, p, mode)
        errors = [
            float((style.gradient(x).double() - g).norm() / g.norm()) for x, g in zip(pictures, truth, strict=True)
        ]
        print(f"{mode}: {max(errors):.2e}", flush=True)


def vgg(narrow):
    if narrow == 1:
        return vgg19()
    return nets.vgg(19, narrow, (64, 64), classifier=False)


def converge(definition, p, modes, count):
    """Print losses of L-BFGS for each mode; rounding applies to the loss as to the gradient."""
    from cvstyle import optimize
    from cvstyle.backends.reference import Backend
    from cvstyle.optimize import lbfgs

    for mode in modes:
        style = Emulated(definition, p, mode)

        class Function:
            ops = Backend()
            capturable = False

            def evaluate(self, x, style=style):
                gradient = style.gradient(x)
                losses.append(style.value)
                return gradient.numpy()

            def extension(self, pixels):
                return None

        losses = []
        x = np.array(p.start[None], np.float32)
        optimize.minimize("lbfgs", Function(), x, count, **lbfgs.FOR_PICTURES)
        shown = [n for n in (10, 20, 40, 80, 160, 320, 640) if n <= count]
        print(f"{mode}: " + ", ".join(f"{n}: {losses[n - 1]:.3g}" for n in shown), flush=True)


class Emulated(TorchStyle):
    """A TorchStyle that rounds the operands of products as the mode says; None: no rounding."""

    def __init__(self, definition, p, mode, dtype=torch.float32):
        self.dtype = dtype
        self.precision, _, self.split = (mode or "fp32").partition(":")
        super().__init__(definition, p)

    def gradient(self, x):
        self.x = torch.from_numpy(np.array(x)).to(self.dtype).reshape(1, *self.problem.content.shape).requires_grad_()
        loss = self.total()
        loss.backward()
        self.value = float(loss.detach())
        return self.x.grad

    def features(self, x, names):
        x = x.to(self.dtype)
        outputs = {}
        for layer, weights in self.layers:
            if layer.type == "Convolution":
                weight, bias = (w.to(self.dtype) for w in weights)
                weight = weight.reshape(layer.params["num_output"], x.shape[1], 3, 3)
                if x.shape[1] > 3 and self.precision != "fp32":
                    x = _Convolution.apply(x, weight, self.precision, self.split) + bias.reshape(1, -1, 1, 1)
                else:
                    x = F.conv2d(x, weight, bias.flatten(), padding=1)
            elif layer.type == "ReLU":
                x = F.relu(x)
            else:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            if layer.name in names:
                outputs[layer.name] = x
        return outputs

    def gram(self, features):
        f = features.flatten(2)[0]
        if self.precision == "fp32":
            return f @ f.T / f.numel()
        return _Gram.apply(f, self.precision)


def rounded(x, precision):
    """x after a round trip through a word of the precision."""
    if precision == "fp16":
        factor = float(operands.fp16_scale(float(x.abs().max())))
        return (x * factor).half().float() / factor
    if precision == "bf16":
        return x.bfloat16().float()
    bits = x.view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def parts(x, precision, split):
    """(x as one word, None), or two words whose sum is x."""
    high = rounded(x, precision)
    if not split:
        return high, None
    if precision == "fp16":
        factor = float(operands.fp16_scale(float(x.abs().max())))
        return high, ((x - high) * factor).half().float() / factor
    return high, rounded(x - high, precision)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, precision, split):
        ctx.weight = weight
        ctx.precision = precision
        x, x_rest = parts(x, precision, "x" in split)
        w, w_rest = parts(weight, precision, "w" in split)
        y = F.conv2d(x, w, padding=1)
        if w_rest is not None:
            y = y + F.conv2d(x, w_rest, padding=1)
        if x_rest is not None:
            y = y + F.conv2d(x_rest, w, padding=1)
        return y

    @staticmethod
    def backward(ctx, g):
        g = rounded(g, ctx.precision)
        w = rounded(ctx.weight, ctx.precision)
        return F.conv_transpose2d(g, w, padding=1), None, None, None


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx, f, precision):
        ctx.save_for_backward(f)
        ctx.precision = precision
        f = rounded(f, precision)
        return f @ f.T / f.numel()

    @staticmethod
    def backward(ctx, d):
        (f,) = ctx.saved_tensors
        d = d + d.T
        return rounded(d, ctx.precision) @ rounded(f, ctx.precision) / f.numel(), None


if __name__ == "__main__":
    main()
