"""Seconds per L-BFGS iteration and peak memory: cvstyle's CPU backends beside plain PyTorch, alternating in one run.

usage: python benchmarks/iteration.py [--networks vgg19,distilled,wavelet] [--sizes 256,512,1024] [--rounds 21]
           [--engines native,torch] [--threads 1] [--processor-time] [--goal 256] [--no-profile]

Each engine is a separate process, with memory of its own; the processes take turns, one iteration at a time. The
networks are a VGG-19 with random weights, read from a V1 file, and the networks that come with cvstyle, each with its
default layers and weights; pictures are 4:3. cvstyle keeps its default history and PyTorch 100 pairs, of which --rounds
are filled. The output also has the time of each layer and, at the sizes of --goal, the time to the loss that PyTorch's
L-BFGS reaches in 200 iterations.
--processor-time, with --threads 1, is for a busy machine: it counts only the time that a process ran.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from common import memory_mb, network_files, objective, problem, where

GOAL_ITERATIONS = 200
PAUSE = 0.3  # seconds between turns, since the previous engine's idle threads may spin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="vgg19,distilled,wavelet")
    parser.add_argument("--sizes", default="256,512,1024")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--engines", default="native,torch")
    parser.add_argument("--threads", default="0", help="0: one for each processor")
    parser.add_argument("--goal", default="256", help="sizes for the time to PyTorch's loss; empty: none")
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--no-profile", action="store_true")
    parser.add_argument("--worker", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(*args.worker)
    if args.processor_time and args.threads != "1":
        parser.error("--processor-time needs --threads 1: threads that wait would count")
    engines = args.engines.split(",")
    worker_options = args.threads, "process_time" if args.processor_time else "perf_counter"
    if "torch" in engines and importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed (pip install torch==2.13.0); its column is left out")
        engines.remove("torch")
    print(where())
    with tempfile.TemporaryDirectory() as folder:
        files = {network: network_files(network, Path(folder)) for network in args.networks.split(",")}
        print(f"\n{'':<20}" + "".join(f"{e:>48}" for e in engines))
        for network, paths in files.items():
            for size in map(int, filter(None, args.sizes.split(","))):
                measured = measure(engines, paths, size, args.rounds, worker_options)
                baseline = measured.get("torch")
                cells = []
                for engine in engines:
                    (low, seconds, high), peak = measured[engine]
                    compared = baseline and engine != "torch"
                    speedup = f" {baseline[0][1] / seconds:.2f}×" if compared else ""
                    saving = f" {baseline[1] / peak:.1f}× less" if compared else ""
                    cells.append(f"{seconds:.3f} s ({low:.3f} to {high:.3f}){speedup}, {peak:.0f} MB{saving}")
                name = f"{network} {size}×{size * 3 // 4}"
                print(f"{name:<20}" + "".join(f"{c:>48}" for c in cells), flush=True)
        print("Seconds per iteration (median, quartiles), PyTorch's divided by it; peak resident memory, likewise.")
        if "torch" in engines and len(engines) > 1:
            for size in map(int, filter(None, args.goal.split(","))):
                for network, paths in files.items():
                    race(engines, network, paths, size, worker_options)
        if not args.no_profile:
            for paths in files.values():
                command = ["info", "--timings", "--proto", paths[0], "--model", paths[1], "--image-size", "512x384"]
                print(flush=True)
                subprocess.run([sys.executable, "-m", "cvstyle", *command], check=True)


@contextmanager
def workers(engines, files, size, worker_options):
    """Engine -> a worker process (see `work`)."""
    processes = {
        engine: subprocess.Popen(
            [sys.executable, Path(__file__), "--worker", engine, *files, str(size), *worker_options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for engine in engines
    }  # fmt: skip
    try:
        for process in processes.values():
            ask(process, "ready")
        yield processes
    finally:
        for process in processes.values():
            process.stdin.close()
            process.wait()


def measure(engines, files, size, rounds, worker_options):
    """Engine -> (quartiles of the seconds per iteration, peak resident MB); the first iteration does not count."""
    times = {engine: [] for engine in engines}
    with workers(engines, files, size, worker_options) as processes:
        for turn in range(rounds + 1):
            for engine in engines:
                time.sleep(PAUSE)
                seconds, _ = ask(processes[engine], "step")
                if turn:
                    times[engine].append(seconds)
        peaks = {engine: ask(processes[engine], "peak")[0] for engine in engines}
    return {engine: (statistics.quantiles(times[engine]), peaks[engine]) for engine in engines}


def race(engines, network, files, size, worker_options):
    """Print when each engine reaches the loss of PyTorch after 200 iterations; the engines run alternately."""
    times = {engine: [] for engine in engines}
    losses = {engine: [] for engine in engines}
    with workers(engines, files, size, worker_options) as processes:
        for _ in range(GOAL_ITERATIONS + 1):  # a loss belongs to the picture before the step
            for engine in engines:
                seconds, loss = ask(processes[engine], "step")
                times[engine].append(seconds)
                losses[engine].append(loss)
        goal = losses["torch"][-1]
        baseline = sum(times["torch"])
        print(f"\n{network} {size}: loss {goal:.6g}, PyTorch's after {GOAL_ITERATIONS} iterations, {baseline:.1f} s")
        for engine in engines:
            if engine == "torch":
                continue
            while min(losses[engine]) > goal and len(losses[engine]) < 3 * GOAL_ITERATIONS:
                seconds, loss = ask(processes[engine], "step")
                times[engine].append(seconds)
                losses[engine].append(loss)
            if min(losses[engine]) > goal:
                print(f"{engine}: not reached in {len(losses[engine])} iterations (lowest {min(losses[engine]):.6g})")
                continue
            count = next(i for i, loss in enumerate(losses[engine], 1) if loss <= goal)
            seconds = sum(times[engine][:count])
            print(f"{engine}: after {count - 1} iterations, {seconds:.1f} s ({baseline / seconds:.2f}×)", flush=True)


def ask(process, request):
    """The numbers that a worker answers to a request."""
    process.stdin.write(request + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("a worker died; see its message above")
    return [float(number) for number in answer.split()]


def work(engine, proto, model, size, threads, clock):
    """The worker: answers "step" with seconds and loss, anything else with the peak memory (MB), on standard output."""
    make = torch_step if engine == "torch" else cvstyle_step
    step = make(engine, proto, model, int(size), int(threads))
    now = getattr(time, clock)
    for line in sys.stdin:
        if line.strip() == "step":
            start = now()
            loss = step()
            print(now() - start, loss, flush=True)
        else:
            print(memory_mb("VmHWM"), flush=True)


def torch_step(engine, proto, model, size, threads):
    import torch
    from peer_torch import TorchStyle

    from cvstyle.caffe import read_net

    if threads:
        torch.set_num_threads(threads)
    net = read_net(proto, model)
    return TorchStyle(net, problem([layer.name for layer in net.layers], size)).step


def cvstyle_step(engine, proto, model, size, threads):
    from cvstyle import load_network
    from cvstyle.backends.threads import limit
    from cvstyle.optimize import lbfgs

    limit(threads or None)
    net = load_network(proto, model, engine)
    p = problem(net.layer_names, size)
    function = objective(net, p)
    x = net.ops.asarray(p.start[None])
    state = lbfgs.init(net.ops, x)

    def step():
        gradient = function.evaluate(x)
        lbfgs.update(net.ops, x, gradient, state, 1.0, **lbfgs.FOR_PICTURES)
        return function.loss

    return step


if __name__ == "__main__":
    main()
