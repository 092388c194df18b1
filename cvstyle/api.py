"""Pictures for callers: from and to files, and the arrays that `Objective` takes."""

from __future__ import annotations

import os

import numpy as np

from . import images
from .errors import ImageError, OptionError


def read_picture(path: str | os.PathLike) -> images.Picture:
    """The picture in a file, upright, as RGB of 0..255 with its alpha and colour profile. Raises ImageError."""
    return images.read(path)


def write_picture(path: str | os.PathLike, picture, *, metadata: dict[str, str] | None = None, bits: int = 8) -> None:
    """Write a picture as PNG, JPEG, WebP or TIFF, as the path ends, with its alpha and colour profile.

    picture: a Picture, an array (H, W, 3) in the order RGB, of uint8, uint16 or floats of 0..255, or a Pillow image.
    metadata: texts to store in the file. bits: 8 or, for PNG and TIFF, 16.
    The file appears whole or not at all. Raises ImageError.
    """
    picture = images.as_picture(picture)
    images.write(path, picture.rgb, picture.alpha, picture.icc, metadata, bits)


def preprocess(picture, size: int | None = None) -> np.ndarray:
    """The array that `Objective` and Caffe's networks take: (3, H, W) float32, BGR in 0..255 minus ImageNet's mean.

    picture: a path, a Picture, a Pillow image or an array (H, W, 3) in the order RGB, of uint8, uint16 or floats of
        0..255; alpha is left out.
    size: the longest side in pixels, to which the picture is shrunk or enlarged; None: as it is.

        content = cvstyle.preprocess("photo.jpg", size=512)
        style = cvstyle.preprocess("painting.jpg", size=512)
        objective = cvstyle.Objective(net, content=content, styles=[style])
        loss, gradient = objective(content)

    Raises ImageError for anything but a picture and OptionError for a size below 1.
    """
    rgb = images.as_picture(picture).rgb
    if size is not None:
        if size < 1:
            raise OptionError(f"size is {size}; a number of pixels above zero is needed")
        rgb = images.resize(rgb, images.target_size(*rgb.shape[:2], size))
    return images.preprocess(rgb)


def deprocess(x: np.ndarray) -> images.Picture:
    """The picture of an array (3, H, W) of floats such as `preprocess` makes and `Objective` takes: its inverse.

    Values beyond 0..255 are kept until the picture is written. Raises ImageError.
    """
    if not isinstance(x, np.ndarray):
        raise ImageError(f"deprocess: {type(x).__name__} is no array; give one of NumPy, (3, H, W)")
    if x.ndim != 3 or x.shape[0] != 3 or not x.size or x.dtype.kind != "f":
        raise ImageError(f"deprocess: the array is {x.shape} of {x.dtype}; it must be (3, H, W) of floats")
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, and are refused
        rgb = images.deprocess(x)
    if not np.isfinite(rgb).all():
        raise ImageError("deprocess: the array has values that are NaN or infinite; start again from another one")
    return images.Picture(rgb)
