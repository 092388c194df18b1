"""The least time that VGG-19's convolutions and Gram matrices can take on a GPU: a prediction from its rates.

usage: python benchmarks/gpu_roofline.py [--size 512] [--bandwidth 2850] [--cache 5500] [--tf32 296] [--fp16 593]
                                         [--fp32 47]

GB/s and TFLOP/s; the defaults are an H100's datasheet rates times 0.85 for memory, 0.6 for tensor cores through
mma.sync and 0.7 for fp32. Bytes are each map once, in float32, and one bit per output. 3-channel layers run in fp32.
"forward" has two words per number, three products for each; "backward" has one, as both have with "-fast".
A Gram matrix reads its features from memory once, and from the cache as often as its tiles do; its parts stay there.
"""

from __future__ import annotations

import argparse

from common import VGG19

from cvstyle.backends.device import tensor


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (
        ("size", 512), ("bandwidth", 2850), ("cache", 5500), ("tf32", 296), ("fp16", 593), ("fp32", 47), ("units", 132),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    print("| layer | positions | GFLOP | MB | tf32 forward, backward, µs | fp16 forward, backward, µs | forward by |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    channels, height, width, totals = 3, args.size * 3 // 4, args.size, {}
    for block, (outputs, count) in enumerate(VGG19, 1):
        for index in range(1, (1 if block == 5 else count) + 1):
            operations = 18 * channels * outputs * height * width
            moved = 4 * height * width * (channels + outputs) + height * width * outputs // 8
            cells = []
            for word, rate in (("tf32", args.tf32), ("fp16", args.fp16)):
                arithmetic = operations / (args.fp32 if channels == 3 else rate) / 1e6
                memory = moved / args.bandwidth / 1e3
                forward = max(arithmetic * (1 if channels == 3 else 3), memory)
                backward = max(arithmetic, memory)
                totals[word] = totals.get(word, 0) + forward + backward
                totals[word + "-fast"] = totals.get(word + "-fast", 0) + 2 * backward
                cells.append(", ".join(f"{t:.0f}{' (memory)' if t == memory else ''}" for t in (forward, backward)))
            if channels == 3:
                tile = "picture.cl"
            else:
                tile = str(tensor.plan(channels, height, width, outputs, 3, "fp16", True, args.units))
            print(
                f"| conv{block}_{index} | {width}×{height} | {operations / 1e9:.1f} | {moved / 1e6:.0f} | {cells[0]} | "
                f"{cells[1]} | {tile} |"
            )
            channels = outputs
        height, width = -(-height // 2), -(-width // 2)
    print("\nForward and backward: " + ", ".join(f"{name} {t / 1e3:.2f} ms" for name, t in totals.items()))
    grams(args)


def grams(args):
    """The style layers' Gram matrices and gradients, in microseconds."""
    print("\n| features of | MB | Gram matrix | its gradient, part of a sum | on its own |")
    print("| --- | --- | --- | --- | --- |")
    height, width, totals = args.size * 3 // 4, args.size, [0, 0, 0]
    for block, (channels, _) in enumerate(VGG19, 1):
        positions, across = height * width, channels // 64
        features, tiles = 4 * channels * positions, across * (across + 1) // 2
        parts = min(-(-4 * args.units // tiles), -(-positions // 256)) * tiles * 64 * 64 * 4
        read = max(features / args.bandwidth, features * across / args.cache)
        times = [(read + 2 * parts / args.cache) / 1e3, features / args.bandwidth / 1e3, 0]
        times[2] = 3 * times[1]
        if block == len(VGG19):  # nothing comes from above
            times[1] = times[2] = 2 * times[1]
        totals = [a + b for a, b in zip(totals, times)]
        print(f"| conv{block}_1 | {features / 1e6:.0f} | " + " | ".join(f"{t:.0f}" for t in times) + " |")
        height, width = -(-height // 2), -(-width // 2)
    print("| all | | " + " | ".join(f"{t:.0f}" for t in totals) + " |")


if __name__ == "__main__":
    main()
