"""The pictures that a network was trained with, and their conversion to Caffe's by its first layer.

Caffe's networks of ImageNet take BGR 0..255 minus a mean, torchvision's (RGB 0..1 − mean) / σ. Both are affine in the
picture, so the first convolution can take up the difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import OptionError, nearest
from ..netdef import IMAGENET, imagenet_mean


@dataclass(frozen=True)
class Training:
    """A network's input, (pixel − mean) / std with pixels 0..255.

    channels: "bgr" or "rgb", the order of mean and std.
    """

    name: str
    channels: str = IMAGENET.channels
    mean: tuple[float, ...] = IMAGENET.mean
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __str__(self) -> str:
        numbers = lambda values: ",".join(f"{n:g}" for n in values)  # noqa: E731
        scaled = f", σ {numbers(self.std)}" if set(self.std) != {1.0} else ""
        return f"{self.channels.upper()} 0..255, mean {numbers(self.mean)}{scaled}"

    @property
    def padding_shift(self) -> float:
        """The largest difference of its mean, the colour of zero padding, to Caffe's, in levels of 255."""
        return float(np.abs(np.subtract(self.mean, imagenet_mean(self.channels))).max())

    @property
    def is_of_caffe(self) -> bool:
        """True for Caffe's pictures, in either order of the channels."""
        return self.padding_shift < _SAME and set(self.std) == {1.0}

    def agrees_with(self, other: Training) -> bool:
        """True for the same pictures, whatever the name."""
        near = np.allclose([self.mean, self.std], [other.mean, other.std], rtol=0, atol=_SAME)
        return near and self.channels == other.channels


_SAME = 1e-4  # levels: MATLAB's files have the mean in single precision
CAFFE = Training("caffe")
CAFFE_RGB = Training("caffe-rgb", "rgb", imagenet_mean("rgb"))
TORCHVISION = Training(
    "torchvision", "rgb", tuple(255 * n for n in (0.485, 0.456, 0.406)), tuple(255 * n for n in (0.229, 0.224, 0.225))
)
TRAININGS = {training.name: training for training in (CAFFE, CAFFE_RGB, TORCHVISION)}


def stated(
    name: str | None, channels: str | None, mean: str | None, std: str | None, white: str | None
) -> Training | None:
    """The training of options as texts, None if none is given. white: 255, or 1 for mean and std of pictures 0..1.

    Raises OptionError.
    """
    options = {"--channels": channels, "--mean": mean, "--std": std, "--range": white}
    given = [option for option, value in options.items() if value is not None]
    if name is not None:
        if given:
            raise OptionError(f"--training says all that {given[0]} says; leave one out")
        if name.lower() not in TRAININGS:
            raise OptionError(f"--training {name} is unknown{nearest(name.lower(), list(TRAININGS))}")
        return TRAININGS[name.lower()]
    if not given:
        return None
    channels = (channels or CAFFE.channels).lower()
    if channels not in ("bgr", "rgb"):
        raise OptionError(f"--channels {channels}: the order of the channels is bgr or rgb")
    if white not in (None, "1", "255"):
        raise OptionError(f"--range {white}: white is 1 or 255 in the pictures of a training")
    means = _numbers("--mean", mean, imagenet_mean(channels) if white != "1" else (0.0,) * 3)
    deviations = _numbers("--std", std, (1.0,) * 3)
    if white is None and mean is not None and 0 < max(means) <= 1:
        raise OptionError(f"--mean {mean}: is this of pictures 0..1? then say --range 1, else --range 255")
    if min(deviations) <= 0:
        raise OptionError(f"--std {std}: σ is above zero")
    unit = 255.0 if white == "1" else 1.0
    return Training("stated", channels, tuple(unit * n for n in means), tuple(unit * n for n in deviations))


def _numbers(option, text, default):
    """Three numbers from one or three, with commas between them."""
    if text is None:
        return default
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) not in (1, 3) or not np.isfinite(found).all():
        raise OptionError(f"{option} {text}: one number is needed, or three with commas between them")
    return tuple(found * (3 // len(found)))


def fold_input(filters: np.ndarray, bias: np.ndarray | None, training: Training) -> tuple[np.ndarray, np.ndarray]:
    """The first layer for pictures BGR 0..255 minus Caffe's mean: filters and bias, float32.

    filters: (outputs, 3, ...), for the training's pictures. bias: None: zeros. Inside the picture the outputs are the
    same (computed in float64); within the padding's reach they differ by the padded colour, the mean of the training
    before and Caffe's after.
    """
    order = slice(None, None, 1 if training.channels == IMAGENET.channels else -1)
    bias = np.zeros(len(filters), np.float32) if bias is None else bias
    if training.is_of_caffe:  # to the bit
        return filters[:, order], bias
    scaled = filters.astype(np.float64) / np.reshape(training.std, (-1, *[1] * (filters.ndim - 2)))
    moved = scaled.reshape(len(scaled), 3, -1).sum(2) @ np.subtract(imagenet_mean(training.channels), training.mean)
    return scaled[:, order].astype(np.float32), (bias + moved).astype(np.float32)


def fold_normalisation(
    filters: np.ndarray, bias: np.ndarray | None, statistics: tuple[np.ndarray, ...], eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray]:
    """Filters and bias, float32, of a convolution and the batch normalisation after it in one (exact, in float64).

    statistics: scale, shift, mean and variance, each of one number per filter. eps: PyTorch's and Caffe's default.
    """
    scale, shift, mean, variance = (np.asarray(part, np.float64) for part in statistics)
    factor = scale / np.sqrt(variance + eps)
    folded = filters * factor.reshape(-1, *[1] * (filters.ndim - 1))
    bias = 0.0 if bias is None else bias
    return folded.astype(np.float32), ((bias - mean) * factor + shift).astype(np.float32)
