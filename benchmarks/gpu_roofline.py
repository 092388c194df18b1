"""A lower bound of the time of VGG-19's convolutions and Gram matrices on a GPU, predicted from the GPU's rates.

usage: python benchmarks/gpu_roofline.py [--size 512] [--bandwidth 2850] [--cache 5500] [--tf32 296] [--fp16 593]
                                         [--fp32 47] [--units 132] [--memory 80] [--l2 50] [--launch 2500] [--wgmma]
                                         [--tile 400]

Units: GB/s, TFLOP/s, GB, MB and ns per launch; the defaults are an H100's datasheet rates times 0.85 for memory, 0.6
for tensor cores through mma.sync and 0.7 for fp32. Each map is read or written once, in float32, with one bit per
output. Layers of three channels run in fp32.
"forward" has two words per number and three products; "backward" has one word, and so do both with "-fast".
A Gram matrix reads its features once from memory, and from the cache as often as its tiles do; partial sums stay in the
cache. --wgmma assumes 0.75 of the tensor cores' rate and Hopper's tiles as candidates. The next columns show the
algorithms that the backend would choose for fp16: "busy" is the share of the multiprocessors' time with work, and times
are the backend's estimate, in which the largest tile of mma.sync reaches --tile TFLOP/s on a full device.

The last table is fp32, one direction: the direct kernel, bound by arithmetic or by its maps, and Winograd's three
kernels, slab by slab, two of them bound by memory. The slabs are the estimate's for a device with --memory (0: slabs of
32 MB); the cache serves a slab as far as half of it can hold the slab. The product counts in whole waves of the
multiprocessors, and every launch takes its time.
"""

from __future__ import annotations

import argparse
import math

from common import VGG19

from cvstyle.backends.device import algorithms, mma, winograd


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (
        ("size", 512), ("bandwidth", 2850), ("cache", 5500), ("tf32", 296), ("fp16", 593), ("fp32", 47), ("units", 132),
        ("memory", 80), ("l2", 50), ("launch", 2500), ("tile", 400),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--wgmma", action="store_true")
    args = parser.parse_args()
    tensor_cores(args)
    grams(args)
    fp32(args)


def layers(size):
    """(name, channels, outputs, height, width) of VGG-19 up to conv5_1."""
    channels = 3
    height = size * 3 // 4
    width = size
    for block, (outputs, count) in enumerate(VGG19, 1):
        for index in range(1, (1 if block == 5 else count) + 1):
            yield f"conv{block}_{index}", channels, outputs, height, width
            channels = outputs
        height = -(-height // 2)
        width = -(-width // 2)


def tensor_cores(args):
    """Print the table of convolutions on tensor cores."""
    if args.wgmma:
        args.tf32, args.fp16 = (round(rate / 0.6 * 0.75) for rate in (args.tf32, args.fp16))
    times = "tf32 forward, backward, µs | fp16 forward, backward, µs"
    ways_taken = "forward by | busy | µs | backward by | busy | µs"
    print(f"| layer | positions | GFLOP | MB | {times} | {ways_taken} |\n|{' --- |' * 12}")
    totals = {}
    for name, channels, outputs, height, width in layers(args.size):
        operations = 18 * channels * outputs * height * width
        moved = maps(channels, outputs, height, width)
        cells = []
        for word, rate in (("tf32", args.tf32), ("fp16", args.fp16)):
            arithmetic = operations / (args.fp32 if channels == 3 else rate) / 1e6
            memory = moved / args.bandwidth / 1e3
            forward = max(arithmetic * (1 if channels == 3 else 3), memory)
            backward = max(arithmetic, memory)
            totals[word] = totals.get(word, 0) + forward + backward
            totals[word + "-fast"] = totals.get(word + "-fast", 0) + 2 * backward
            cells.append(", ".join(f"{t:.0f}{' (memory)' if t == memory else ''}" for t in (forward, backward)))
        for split, read, written in ((True, channels, outputs), (False, outputs, channels)):
            if channels == 3:
                cells.append("few_channels.cl | |")
                continue
            way, busy, microseconds = taken(args, read, height, width, written, split)
            totals["fp16 by these ways"] = totals.get("fp16 by these ways", 0) + microseconds
            cells.append(f"{way} | {busy:.2f} | {microseconds:.0f}")
        print(f"| {name} | {width}×{height} | {operations / 1e9:.1f} | {moved / 1e6:.0f} | {' | '.join(cells)} |")
    print("\nForward and backward: " + ", ".join(f"{name} {t / 1e3:.2f} ms" for name, t in totals.items()))


def taken(args, channels, height, width, outputs, split):
    """(the way that the backend takes for fp16, share of the multiprocessors' time that is used, microseconds)"""
    shape = channels, height, width, outputs, 3, "fp16", split, args.units
    way = mma.best_algorithm(*shape, wgmma=args.wgmma)
    groups = way.block.count(height, width, outputs) * way.splits
    products = next(time for time, other in mma.estimates((way.block,), *shape) if other == way)
    return way, groups / (-(-groups // args.units) * args.units), products * 2 * args.units / args.tile / 1e6


def grams(args):
    """Print the times of the style layers' Gram matrices and gradients, in microseconds."""
    print("\n| features of | MB | Gram matrix | its gradient, part of a sum | on its own |")
    print("| --- | --- | --- | --- | --- |")
    height = args.size * 3 // 4
    width = args.size
    totals = [0, 0, 0]
    for block, (channels, _) in enumerate(VGG19, 1):
        positions = height * width
        features = 4 * channels * positions
        across = channels // 64
        tiles = across * (across + 1) // 2
        parts = min(-(-4 * args.units // tiles), -(-positions // 256)) * tiles * 64 * 64 * 4
        read = max(features / args.bandwidth, features * across / args.cache)
        times = [(read + 2 * parts / args.cache) / 1e3, features / args.bandwidth / 1e3, 0]
        times[2] = 3 * times[1]
        if block == len(VGG19):  # no gradient comes from above
            times[1] = times[2] = 2 * times[1]
        totals = [a + b for a, b in zip(totals, times)]
        print(f"| conv{block}_1 | {features / 1e6:.0f} | " + " | ".join(f"{t:.0f}" for t in times) + " |")
        height = -(-height // 2)
        width = -(-width // 2)
    print("| all | | " + " | ".join(f"{t:.0f}" for t in totals) + " |")


def fp32(args):
    """Print the table of fp32 convolutions in one direction."""
    print("\n| layer | positions | direct, µs | Winograd, µs: in, product, out | slabs | ratio | estimate takes |")
    print(f"|{' --- |' * 7}")
    totals = [0.0, 0.0]
    launches = 0
    largest_slab = 0
    for name, channels, outputs, height, width in layers(args.size):
        blocks = math.prod(winograd.tile_grid((height, width)))
        arithmetic = 18 * channels * outputs * height * width / args.fp32 / 1e6
        direct = max(arithmetic, maps(channels, outputs, height, width) / args.bandwidth / 1e3) + args.launch / 1e3
        limits = {"blocks": blocks, "memory": args.memory * 10**9, "cache_size": args.l2 * 10**6}
        ranked = algorithms.ranked_algorithms(outputs, height * width, channels, 9, 1, args.units, **limits)
        way = next(w for w in ranked if w.winograd)
        size = algorithms.tile_batch(channels, outputs, way.splits, blocks, way.workspace)
        slabs = -(-blocks // size)
        parts = by_winograd(args, channels, outputs, blocks, size, way)
        times = direct, sum(parts) + 3 * slabs * args.launch / 1e3
        taken = times[0] if channels == 3 else min(times)
        totals = [totals[0] + times[0], totals[1] + taken]
        launches += 1 if taken == direct else 3 * slabs
        if taken < direct:
            largest_slab = max(largest_slab, 4 * 36 * (channels + way.splits * outputs) * size)
        cell = f"{times[1]:.0f}: {', '.join(f'{part:.0f}' for part in parts)}"
        chosen = "few_channels.cl" if channels == 3 else ranked[0]
        print(f"| {name} | {width}×{height} | {direct:.0f} | {cell} | {slabs} | {times[0] / times[1]:.2f} | {chosen} |")
    direct, faster = (2 * total / 1e3 for total in totals)
    print(
        f"\nForward and backward: {direct:.2f} ms directly, {faster:.2f} ms by the faster way each, in {2 * launches} "
        f"launches; slabs of at most {largest_slab / 1e6:.0f} MB"
    )


def by_winograd(args, channels, outputs, blocks, size, way):
    """Microseconds of the input transform, the product, and the output transform, in slabs of `size`."""
    slab_channels = channels, way.splits * outputs
    cached = min(1, args.l2 * 1e6 / 2 / (4 * 36 * sum(slab_channels) * size))
    rate = 1 / (cached / args.cache + (1 - cached) / args.bandwidth)  # of a slab's numbers
    first, last = (
        4 * blocks * (16 * in_map / args.bandwidth + 36 * in_slab / rate) / 1e3
        for in_map, in_slab in zip((channels, outputs), slab_channels, strict=True)
    )
    tile = way.block
    groups = -(-outputs // tile.bm) * -(-size // tile.bn) * 36 * way.splits
    waves = -(-groups // args.units)
    channels_each = -(-channels // 8 // way.splits) * 8
    product = waves * args.units * tile.bm * tile.bn * channels_each * 2 / args.fp32 / 1e6
    memory = 4 * 36 * (channels * outputs / args.bandwidth + size * sum(slab_channels) / rate) / 1e3
    return first, -(-blocks // size) * max(product, memory), last


def maps(channels, outputs, height, width):
    """Bytes of a layer's input and output maps, and of one bit per output."""
    return 4 * height * width * (channels + outputs) + height * width * outputs // 8


if __name__ == "__main__":
    main()
