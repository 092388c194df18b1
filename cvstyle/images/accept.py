"""Conversion of paths, Pillow images and arrays to pictures."""

from __future__ import annotations

import os

import numpy as np

from ..errors import ImageError
from ..fields import as_path
from .formats import pillow
from .picture import Picture
from .read import Fit, decoding, picture_of, read
from .source import Source, cut


def as_picture(thing, role: str = "picture", fit: Fit | None = None) -> Picture:
    """Convert to a Picture, which shares no memory with the argument unless that is a Picture.

    thing: a path (str or os.PathLike; ~ is the home directory); a Picture, returned as it is; a Pillow image; or a
        NumPy array in RGB order, (H, W, 3), (H, W, 4) with alpha, (H, W, 1) or (H, W). The range, also of alpha, is the
        type's for uint8 and uint16, and 0..255 for floats.
    role: the name of the picture in error messages.
    fit: the size needed; all but a Picture is reduced to it (see `read`).

    Raises ImageError for other types, for arrays that are empty or contain NaN or infinity, and for arrays of floats
    with a maximum of at most 1, which probably have the range 0..1.
    """
    if isinstance(thing, Picture):
        return thing
    if isinstance(thing, (str, os.PathLike)):
        return read(as_path(thing), fit)
    if isinstance(thing, np.ndarray):
        return _from_array(thing, role, fit)

    from PIL import Image

    if isinstance(thing, Image.Image):
        return _from_pillow(thing, role, fit)
    kind = type(thing).__name__
    raise ImageError(f"{role}: {kind} is no picture; give a path, a Picture, a Pillow image or an array (H, W, 3)")


def _from_pillow(image, role, fit):
    if 0 in image.size:
        raise ImageError(f"{role}: the Pillow image is empty; its size is {image.width}×{image.height}")
    with decoding(role, "Pillow cannot decode its image ({}); open it again"):
        return picture_of(pillow.of_image(image, role), role, fit)


def _from_array(array, role, fit):
    shape = array.shape
    kind = array.dtype.kind
    if array.ndim not in (2, 3) or shape[2:] not in ((), (1,), (3,), (4,)):
        if array.ndim == 3 and shape[0] == 3:
            raise ImageError(f"{role}: the array is {shape}; it must be (H, W, 3) here: (3, H, W) is for Objective")
        raise ImageError(f"{role}: the array is {shape}; it must be (H, W, 3), (H, W, 4), (H, W, 1) or (H, W)")
    if not array.size:
        raise ImageError(f"{role}: the array is empty; its shape is {shape}")
    if kind == "u" and array.itemsize <= 2:
        return _from_samples(array, np.iinfo(array.dtype).max, role, fit)
    if kind != "f":
        raise ImageError(f"{role}: an array of {array.dtype} is no picture; give uint8, uint16, or floats of 0..255")
    with np.errstate(over="ignore"):  # overflow gives infinity, which is rejected below
        samples = np.atleast_3d(array).astype(np.float32)
    if not np.isfinite(samples).all():
        raise ImageError(f"{role}: the array has values that are NaN or infinite; replace them first")
    for part in (samples[..., :3], samples[..., 3:]):
        if part.any() and part.max() <= 1:
            raise ImageError(
                f"{role}: an array of floats is 0..255 here and this one ends at {part.max():.3g}; multiply values of "
                "0..1 by 255, or give them as uint8"
            )
    samples[..., 3:].clip(0, 255, out=samples[..., 3:])
    return _from_samples(samples, 255, role, fit)


def _from_samples(samples, white, role, fit):
    samples = np.atleast_3d(samples)
    height, width, channels = samples.shape
    source = Source(
        (height, width), "L" if channels == 1 else "RGB", lambda *_: ((height, width), cut(samples)),
        lambda *_: (0, 0), "straight" if channels == 4 else None, white=float(white), opaque=float(white),
    )  # fmt: skip
    return picture_of(source, role, fit)
