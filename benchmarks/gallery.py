"""Pictures, one for each control, to be looked at: docs/control.md shows them.

usage: python benchmarks/gallery.py IMAGES FOLDER [--resnet FOLDER] [--size 400] [--only PATTERN]

IMAGES: a folder with tubingen.jpg, golden_gate.jpg, starry_night_google.jpg and the_scream.jpg. FOLDER: for the
pictures, as JPEG. --resnet: a folder with a deploy.prototxt and a .caffemodel, for the pictures of a larger network;
without it, the included network makes them. Masks are computed from the photographs.
"""

from __future__ import annotations

import argparse
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import cv2
import numpy as np

import cvstyle
from cvstyle import images

_QUALITY = 82  # of the JPEG files
_SEED = 3


def sky(rgb: np.ndarray) -> np.ndarray:
    """(H, W) uint8: 255 where a photograph (H, W, 3) has the colours of its upper border, connected with it."""
    smooth = cv2.bilateralFilter(rgb.astype(np.uint8), 9, 25, 9)
    height, width = rgb.shape[:2]
    mask = np.zeros((height + 2, width + 2), np.uint8)
    for column in range(0, width, width // 24):
        if not mask[1, column + 1]:
            flags = cv2.FLOODFILL_MASK_ONLY | (255 << 8)
            cv2.floodFill(smooth, mask, (column, 0), 0, (3, 3, 3), (3, 3, 3), flags)
    return cv2.morphologyEx(mask[1:-1, 1:-1], cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))


def red(rgb: np.ndarray) -> np.ndarray:
    """(H, W) uint8: 255 where a photograph (H, W, 3) is red."""
    found = np.where(rgb[..., 0] - rgb[..., 2] > 50, 255, 0).astype(np.uint8)
    return cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))


class Gallery:
    """The pictures: a method for each, whose name is the file's."""

    def __init__(self, folder: Path, size: int, resnet: Path | None):
        self.size = size
        self.town, self.bridge, self.night, self.scream = (
            self._reduced(folder / f"{name}.jpg")
            for name in ("tubingen", "golden_gate", "starry_night_google", "the_scream")
        )
        self.large = {}
        if resnet:
            self.large = {"proto": str(resnet / "deploy.prototxt"), "model": str(next(resnet.glob("*.caffemodel")))}

    def regions(self):
        """The sky by one painting and the rest by another."""
        return self._of_town([self.night, self.scream])

    def regions_resnet(self):
        """The same by a larger network."""
        return self._of_town([self.night, self.scream], **self.large)

    def region_alone(self):
        """A painted sky over the town of the photograph."""
        return self._run(self.town, [self.night], mask=[sky(self.town)])

    def region_from_region(self):
        """The bridge from the figure's part of a painting, the rest from its sky."""
        masks = [np.where(mask > 0, 255, 0).astype(np.uint8) for mask in (red(self.bridge), self._figure())]
        return self._run(self.bridge, [self.scream], mask=[masks[0]], style_mask=[masks[1]])

    def color_content(self):
        return self._run(self.town, [self.scream], color="content", **self.large)

    def color_match(self):
        return self._run(self.town, [self.scream], color="match", **self.large)

    def color_luminance(self):
        return self._run(self.town, [self.scream], color="luminance", **self.large)

    def strength(self):
        """A third of the style."""
        return self._run(self.bridge, [self.scream], strength=0.35)

    def loss_gram(self):
        return self._of_bridge()

    def loss_covariance(self):
        return self._of_bridge(style_loss="covariance")

    def loss_shifted(self):
        return self._of_bridge(style_loss="shifted")

    def loss_wasserstein(self):
        return self._of_bridge(style_loss="wasserstein")

    def loss_wasserstein_laplacian(self):
        return self._of_bridge(style_loss="wasserstein", laplacian=100)

    def layers_falling(self):
        return self._of_bridge(style_layers="falling")

    def layers_all(self):
        return self._of_bridge(style_layers="all")

    def layers_fine(self):
        return self._of_bridge(style_layers="fine")

    def layers_coarse(self):
        return self._of_bridge(style_layers="coarse")

    def texture(self):
        """A seamless tile of a painting's sky, laid out two by two."""
        side = self.size // 2
        source = self.night[: self.night.shape[0] // 2]
        tile = cvstyle.synthesize([source], size=(side, side), wrap="xy", seed=_SEED, backend="cpu").picture.rgb
        return np.tile(tile, (2, 2, 1))

    def _of_town(self, styles, **settings):
        mask = sky(self.town)
        return self._run(self.town, styles, mask=[mask, 255 - mask], **settings)

    def _of_bridge(self, **settings):
        return self._run(self.bridge, [self.night], **self.large, **settings)

    def _figure(self):
        """The lower part of the painting with its figure."""
        height, width = self.scream.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        mask[height // 2 :] = 255
        return mask

    def _reduced(self, path):
        picture = cvstyle.read_picture(path)
        return images.resized(picture, images.target_size(*picture.size, self.size)).rgb

    def _run(self, content, styles, **settings):
        settings = {"image_size": self.size, "seed": _SEED, "backend": "cpu"} | settings
        return cvstyle.stylize(content, styles, **settings).picture.rgb


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resnet", type=Path)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--only", default="*")
    args = parser.parse_args()
    gallery = Gallery(args.images, args.size, args.resnet)
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in (name for name in vars(Gallery) if not name.startswith("_") and fnmatch(name, args.only)):
        started = time.perf_counter()
        rgb = getattr(gallery, name)().clip(0, 255)
        path = args.folder / f"{name.replace('_', '-')}.jpg"
        cv2.imwrite(str(path), np.rint(rgb[..., ::-1]).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} KB, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
