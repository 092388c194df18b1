"""Checkpoints of an older version, which later ones must read: see tests/test_checkpoint.py.

usage, with that version on the path: PYTHONPATH=OLD:tests/reference python tests/reference/make_checkpoints.py

Those in checkpoints/ are of commit 2701be2, format 1.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CASES = {  # name: (options of the run, those of the interrupted one)
    "lbfgs": ({"num_iterations": 5}, {"num_iterations": 3}),
    "scales": (
        {"optimizer": "adam", "average_iterates": 0.5, "scales": [16, 24], "scale_iterations": [3, 4]},
        {"scale_iterations": [3, 2]},
    ),
}
COMMON = {"image_size": 24, "backend": "numpy", "seed": 1, "margin": 2}


def pictures(folder: Path) -> tuple[str, str]:
    """Two small pictures as files."""
    paths = []
    for seed, (name, size) in enumerate({"content": (24, 18), "style": (20, 20)}.items()):
        pixels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        paths.append(str(folder / f"{name}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return tuple(paths)


def main():
    from cvstyle import stylize

    folder = Path(__file__).with_name("checkpoints")
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        content, style = pictures(Path(temporary))
        for name, (options, interrupted) in CASES.items():
            path = folder / f"{name}.npz"
            path.unlink(missing_ok=True)
            stylize(content, [style], checkpoint=str(path), **COMMON | options | interrupted)


if __name__ == "__main__":
    main()
