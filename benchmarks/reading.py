"""Peak memory of a run with large picture files, beside what `cvstyle plan` says, and the time of reading them.

usage: python benchmarks/reading.py [--megapixels 54] [--sizes 256,1024]

Each reading is a separate process: the whole command with two iterations of the included network, and `images.read`
alone. A photograph of that size is written in several formats first.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import tifffile
from common import where
from PIL import Image

STYLE = Path(__file__).resolve().parents[1] / "models/demo/style.jpg"
_COMMAND = """
import sys
from cvstyle.cli import main
status = main(sys.argv[1:])
print("peak", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""
_READ = """
import sys, time
from cvstyle import images
start = time.perf_counter()
images.read(sys.argv[1], lambda height, width: images.target_size(height, width, int(sys.argv[2])))
print("seconds", time.perf_counter() - start)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=54)
    parser.add_argument("--sizes", default="256,1024")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder), args.megapixels)
        print(where())
        print(f"pictures of {args.megapixels:g} megapixels, two iterations of the included network\n")
        print(f"{'file':<22}{'size':>6}{'plan':>10}{'run':>10}{'plan/run':>10}{'reading':>10}")
        for name, path in files.items():
            for size in args.sizes.split(","):
                options = ["--content", path, "--style", STYLE, "--image-size", size, "--num-iterations", 2]
                plan = number(r"memory +([\d,]+) MB", output(_COMMAND, "plan", *options))
                run = number(r"peak (\d+)", output(_COMMAND, "run", *options, "--output", path.with_suffix(".o.png")))
                seconds = number(r"seconds ([\d.]+)", output(_READ, path, size))
                run *= 1024 / 1e6
                print(f"{name:<22}{size:>6}{plan:>7.0f} MB{run:>7.0f} MB{plan / run:>10.2f}{seconds:>8.1f} s")


def write(folder, megapixels):
    """Name of a kind of file → path; the picture is the demo's content, enlarged, with grain."""
    content = cv2.imread(str(STYLE.with_name("content.jpg")))[..., ::-1]
    factor = np.sqrt(megapixels * 1e6 / content[..., 0].size)
    large = cv2.resize(content, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    cv2.setRNGSeed(0)
    grain = np.empty_like(large)
    cv2.randn(grain, (4, 4, 4), (3, 3, 3))
    large = cv2.add(large, grain)
    image = Image.fromarray(large)
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, image.width // 2, image.height // 2))
    files = {}

    def path(name, ending):
        files[name] = folder / f"{len(files)}{ending}"
        return files[name]

    image.save(path("JPEG", ".jpg"), quality=90)
    image.save(path("JPEG, progressive", ".jpg"), quality=90, progressive=True)
    image.save(path("PNG", ".png"), compress_level=1)
    transparent = image.copy()
    transparent.putalpha(alpha)
    transparent.save(path("PNG with alpha", ".png"), compress_level=1)
    cv2.imwrite(str(path("PNG, 16 bits", ".png")), large.astype(np.uint16) * 257, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    tifffile.imwrite(path("TIFF", ".tif"), large, photometric="rgb")
    deep = large.astype(np.uint16) * 257
    tifffile.imwrite(
        path("TIFF, 16 bits, tiles", ".tif"), deep, photometric="rgb", tile=(256, 256), compression="zlib"
    )
    if max(image.size) <= 16383:
        image.save(path("WebP", ".webp"), quality=90, method=0)
    return files


def output(code, *words):
    """What a process prints."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def number(pattern, text):
    return float(re.search(pattern, text)[1].replace(",", ""))


if __name__ == "__main__":
    main()
