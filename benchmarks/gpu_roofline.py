"""The least time that each convolution of VGG-19 can take on a GPU: a prediction from its rates, not a measurement.

usage: python benchmarks/gpu_roofline.py [--size 512] [--bandwidth 2850] [--tf32 296] [--fp16 593] [--fp32 47]

GB/s and TFLOP/s; the defaults are an H100's datasheet rates times 0.85 for memory, 0.6 for tensor cores through
mma.sync and 0.7 for fp32. Bytes are each map once, in float32, and one bit per output. 3-channel layers run in fp32.
"forward" has two words per number, three products for each; "backward" has one, as both have with "-fast".
"""

from __future__ import annotations

import argparse

from common import VGG19

from cvstyle.backends.device import tensor


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("size", 512), ("bandwidth", 2850), ("tf32", 296), ("fp16", 593), ("fp32", 47), ("units", 132)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    print("| layer | positions | GFLOP | MB | tf32 forward, backward, µs | fp16 forward, backward, µs | forward by |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    channels, height, width, totals = 3, args.size * 3 // 4, args.size, {}
    for block, (outputs, count) in enumerate(VGG19, 1):
        for index in range(1, (1 if block == 5 else count) + 1):
            operations = 18 * channels * outputs * height * width
            moved = 4 * height * width * (channels + outputs) + height * width * outputs // 8
            cells, tile = [], "portable"
            for word, rate in (("tf32", args.tf32), ("fp16", args.fp16)):
                arithmetic = operations / (args.fp32 if channels == 3 else rate) / 1e6
                memory = moved / args.bandwidth / 1e3
                forward = max(arithmetic * (1 if channels == 3 else 3), memory)
                backward = max(arithmetic, memory)
                totals[word] = totals.get(word, 0) + forward + backward
                totals[word + "-fast"] = totals.get(word + "-fast", 0) + 2 * backward
                cells.append(", ".join(f"{t:.0f}{' (memory)' if t == memory else ''}" for t in (forward, backward)))
            if channels != 3:
                tile = str(tensor.plan(channels, height, width, outputs, 3, "fp16", True, args.units))
            print(
                f"| conv{block}_{index} | {width}×{height} | {operations / 1e9:.1f} | {moved / 1e6:.0f} | {cells[0]} | "
                f"{cells[1]} | {tile} |"
            )
            channels = outputs
        height, width = -(-height // 2), -(-width // 2)
    print("\nForward and backward: " + ", ".join(f"{name} {t / 1e3:.2f} ms" for name, t in totals.items()))


if __name__ == "__main__":
    main()
