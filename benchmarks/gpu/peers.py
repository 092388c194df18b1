"""PyTorch on the same problems: as one would write it, and as fast as it can be made."""

from __future__ import annotations

import json
import statistics
import time

import torch
from common import problem
from measure import Settings, first_line, shape
from peer_torch import TorchStyle

from cvstyle.optimize import lbfgs

_DTYPES = {
    "fp32": (torch.float32, False), "tf32": (torch.float32, True), "fp16": (torch.float16, True),
    "bf16": (torch.bfloat16, True),
}  # fmt: skip


def products(s: Settings, emit):
    """Rate of a large matrix product in each type, recorded for the layers' shares."""
    n, reached = 256 if s.dry else 8192, {}
    for name, (dtype, tf32) in _DTYPES.items():
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(n, n, device=device(s)).to(dtype) for _ in range(2))
        reached[name] = 2 * n**3 / each(lambda a=a, b=b: a @ b, 1 if s.dry else 10) / 1e12
        emit({"what": f"matrix product {n}³, {name}", "reached": reached[name], "unit": "TFLOP/s"})
    s.at("ceilings.json").write_text(json.dumps(reached), "utf-8")


def peers(s: Settings, emit):
    """plain: fp32, eager, torch.optim.LBFGS, history 100. best: channels_last, bf16 autocast, cuDNN's own choice by
    time, an iteration of L-BFGS with cvstyle's history as one CUDA graph. best, compiled: that, after torch.compile."""
    plain = s.configuration == "plain"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not plain
    torch.backends.cudnn.benchmark = not plain
    for name, definition in s.nets():
        for size in s.sizes:
            p, start = problem([d.name for d in definition.layers], size), time.perf_counter()
            try:
                if device(s) == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                style = TorchStyle(definition, p, device(s), 100 if plain else lbfgs.HISTORY)
                if plain:
                    evaluate, step = style.closure, style.step
                else:
                    evaluate, step = fast(style, compiled=s.configuration.endswith("compiled"))
                count = 1 if s.dry else max(5, 20 * 512 // size)
                for _ in range(3):
                    step()
                values = {"ready after, s": time.perf_counter() - start, "ms": each(step, count) * 1e3}
                values["evaluation, ms"] = each(evaluate, count) * 1e3
                if device(s) == "cuda":
                    values["MB"] = torch.cuda.max_memory_allocated() / 1e6
            except RuntimeError as error:  # also for too little memory
                values = {"ms": f"left out: {first_line(error)}"}
            emit({"network": name, "size": shape(size), **values})


def fast(style, compiled):
    """(evaluation, iteration) of a TorchStyle, each one launch where there is a GPU."""
    kind = style.x.device.type
    style.layers = [
        (d, [w.to(memory_format=torch.channels_last) if w.ndim == 4 else w for w in weights])
        for d, weights in style.layers
    ]
    style.x.grad = torch.zeros_like(style.x)
    total = torch.compile(style.total) if compiled else style.total

    def evaluate():
        style.x.grad.zero_()
        with torch.autocast(kind, torch.bfloat16):
            loss = total()
        loss.backward()

    step = descent(style.x, evaluate)
    return (recorded(evaluate), recorded(step)) if kind == "cuda" else (evaluate, step)


def descent(x, evaluate):
    """An L-BFGS iteration with step 1 that decides nothing on the host (Nocedal and Wright 2006, algorithm 7.4)."""
    size, m = x.numel(), lbfgs.HISTORY
    steps, changes = (torch.zeros(m, size, device=x.device) for _ in range(2))
    gradient, direction = (torch.zeros(size, device=x.device) for _ in range(2))

    def append(rows, row):
        rows.copy_(torch.cat([rows[1:], row[None]]))

    @torch.no_grad()
    def step():
        with torch.enable_grad():
            evaluate()
        found = x.grad.flatten()
        append(steps, direction)
        append(changes, found - gradient)
        gradient.copy_(found)
        products = (steps * changes).sum(1)
        q, inverse = found.clone(), torch.where(products > 1e-10, 1 / products, 0.0)  # a pair of no use counts nothing
        factors = []
        for i in reversed(range(m)):
            factors.append(inverse[i] * torch.dot(steps[i], q))
            q = torch.addcmul(q, changes[i], -factors[-1])
        curvature = products[-1] / torch.dot(changes[-1], changes[-1])
        q = q * torch.where(products[-1] > 1e-10, curvature, 1 / found.abs().sum())
        for i in range(m):
            q = torch.addcmul(q, steps[i], factors.pop() - inverse[i] * torch.dot(changes[i], q))
        direction.copy_(-q)
        x.data.add_(direction.view_as(x))

    return step


def recorded(function):
    """The launches of a function, as one launch."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def each(run, count):
    """Seconds of a call: the median of three times, each over many calls between two waits for the device."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    times = []
    for _ in range(4):  # the first for practice
        wait()
        start = time.perf_counter()
        for _ in range(count):
            run()
        wait()
        times.append((time.perf_counter() - start) / count)
    return statistics.median(times[1:])


def device(s: Settings):
    """Raises ImportError where PyTorch finds no GPU, unless this is tried out."""
    if torch.cuda.is_available():
        return "cuda"
    if s.dry:
        return "cpu"
    raise ImportError(f"PyTorch {torch.__version__} finds no GPU")
