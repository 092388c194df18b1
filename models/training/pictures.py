"""Training data: random crops of pictures, and modified copies."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import cv2
import numpy as np
import torch

from cvstyle.netdef import IMAGENET

MEAN = np.float32(IMAGENET.mean)
cv2.setNumThreads(1)  # the cores are PyTorch's
_MAX_SIDE = 640  # pixels, of pictures in memory


class Pictures:
    """The pictures of a folder, in memory.

    painted: arrays (paintings, states, H, W, 3) uint8 of intermediate results of style transfer. share: the share of
    crops from these.
    """

    def __init__(self, folder, painted=(), share: float = 0.25):
        self.pictures = [_read(path) for path in sorted(Path(folder).glob("*.jpg"))]
        if not self.pictures:
            raise SystemExit(f"there is no picture in {folder} (see models/training/gather.py)")
        self.painted = [states for array in painted for states in array]
        self.share = share if self.painted else 0

    def crop(self, rng, side: int) -> np.ndarray:
        """A random crop (side, side, 3) float32, BGR 0..255, with random scale, colour and contrast."""
        if rng.random() < self.share:
            states = self.painted[rng.integers(len(self.painted))]
            return _cut(states[rng.integers(len(states))], side, rng).astype(np.float32)
        picture = self.pictures[rng.integers(len(self.pictures))]
        shorter = min(picture.shape[:2])
        span = int(np.clip(shorter * rng.uniform(0.25, 1.0), min(side, shorter), shorter))
        if rng.random() < 0.3:
            span = min(side, shorter)  # without reduction
        crop = cv2.resize(_cut(picture, span, rng), (side, side), interpolation=cv2.INTER_AREA)
        return _recoloured(crop.astype(np.float32), rng)

    def state_pair(self, rng, side: int):
        """The same crop of two random states of a painting."""
        states = self.painted[rng.integers(len(self.painted))]
        first, second = rng.choice(len(states), 2, replace=False)
        both = _cut(np.concatenate([states[first], states[second]], axis=2), side, rng).astype(np.float32)
        return both[..., :3], both[..., 3:]

    def whole(self, rng, side: int) -> np.ndarray:
        """A random square (side, side, 3) float32 of a picture, between a third and all of its shorter side."""
        picture = self.pictures[rng.integers(len(self.pictures))]
        span = int(min(picture.shape[:2]) * rng.uniform(0.35, 1.0))
        crop = cv2.resize(_cut(picture, span, rng), (side, side), interpolation=cv2.INTER_AREA)
        return crop.astype(np.float32)


def _read(path):
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    scale = _MAX_SIDE / max(picture.shape[:2])
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture


def _cut(picture, side, rng):
    height, width = picture.shape[:2]
    y = rng.integers(height - side + 1)
    x = rng.integers(width - side + 1)
    crop = picture[y : y + side, x : x + side]
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def _recoloured(crop, rng):
    kind = rng.random()
    if kind < 0.15:
        crop = crop[..., rng.permutation(3)]
    elif kind < 0.2:
        crop = 255 - crop
    if rng.random() < 0.5:
        centre = crop.mean(axis=(0, 1))
        crop = (crop - centre) * rng.uniform(0.5, 1.5) + centre * rng.uniform(0.7, 1.2) + rng.normal(0, 12, 3)
    return crop.astype(np.float32)


def modified(batch: np.ndarray, others: np.ndarray, rng) -> np.ndarray:
    """A copy of the batch (N, H, W, 3), each picture with noise, blended with another picture, or blurred."""
    new = batch.copy()
    height, width = batch.shape[1:3]
    for n in range(len(new)):
        kind = rng.random()
        if kind < 0.6:
            step = int(rng.choice([1, 1, 2, 4, 8]))
            noise = rng.normal(0, rng.uniform(3, 30), (-(-height // step), -(-width // step), 3))
            if rng.random() < 0.3:
                noise[:] = noise.mean(axis=2, keepdims=True)
            new[n] += cv2.resize(noise.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        elif kind < 0.9:
            share = rng.uniform(0.05, 0.4)
            new[n] += share * (others[n] - new[n])
        else:
            new[n] = cv2.GaussianBlur(new[n], (0, 0), rng.uniform(0.5, 2.0))
    return new


def picture_of(batch: torch.Tensor) -> np.ndarray:
    """The inverse of `tensor`, as uint8."""
    return np.clip(batch.permute(0, 2, 3, 1).numpy() + MEAN, 0, 255).round().astype(np.uint8)


def tensor(batch: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) 0..255 → the networks' input, (N, 3, H, W) minus the mean."""
    return torch.from_numpy(np.ascontiguousarray(batch - MEAN)).permute(0, 3, 1, 2)


class Batches:
    """Batches for distillation, prepared by a thread; the second half of a batch is a modified first half."""

    def __init__(self, pictures: Pictures, seed, size: int, side: int):
        self.pictures = pictures
        self.rng = np.random.default_rng(seed)
        self.size = size
        self.side = side
        self.ready = queue.Queue(4)
        threading.Thread(target=self._work, daemon=True).start()

    def next(self) -> torch.Tensor:
        """The next batch, (size, 3, side, side)."""
        batch = self.ready.get()
        if isinstance(batch, Exception):
            raise batch
        return batch

    def _work(self):
        try:
            self._make()
        except Exception as error:
            self.ready.put(error)

    def _make(self):
        half = self.size // 2
        side = self.side
        rng = self.rng
        while True:
            crops = np.stack([self.pictures.crop(rng, side) for _ in range(2 * half)])
            noisy = rng.random(half) < 0.3
            crops[:half][noisy] += rng.normal(0, 12, crops[:half][noisy].shape).astype(np.float32)
            second = modified(crops[:half], crops[half:], rng)
            if self.pictures.painted and rng.random() < 0.8:
                crops[0], second[0] = self.pictures.state_pair(rng, side)
            self.ready.put(tensor(np.concatenate([crops[:half], second])))
