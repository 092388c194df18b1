"""Public functions: reading and writing of pictures and saved styles, inputs of networks, and features of layers."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from . import images
from .errors import ImageError, OptionError
from .fields import INT, PIXELS, argument, as_items, as_path
from .netdef import IMAGENET
from .saved_style import SavedStyle, blend
from .style import check_size, checked_picture


def read_picture(path: str | os.PathLike) -> images.Picture:
    """Read a picture, with EXIF orientation applied, as RGB 0..255 with alpha and colour profile. Raises ImageError."""
    return images.read(as_path(path))


def write_picture(
    path: str | os.PathLike,
    picture,
    *,
    metadata: dict[str, str] | None = None,
    bits: int = 8,
    strip: bool = False,
) -> None:
    """Write a picture as PNG, JPEG, WebP or TIFF, by the extension, with its alpha and colour profile.

    picture: a Picture, a Pillow image, or an array (H, W, 3) in RGB order, of uint8, uint16 or floats 0..255.
    metadata: texts to store in the file. bits: 8 or, for PNG and TIFF, 16. strip: leave out the metadata that a Picture
        has of its photograph.
    The file is written atomically. Raises ImageError.
    """
    path = as_path(path)
    picture = images.as_picture(picture)
    images.write(path, picture.rgb, picture.alpha, picture.icc, metadata, bits, None if strip else picture.metadata)


def read_style(path: str | os.PathLike) -> SavedStyle:
    """Read a saved style. Raises ImageError for a damaged file or another kind of file."""
    return SavedStyle.read(as_path(path))


def blend_styles(styles: Sequence[SavedStyle], weights: Sequence[float] | None = None) -> SavedStyle:
    """The style between saved styles. weights: one number for each; None: equal. Raises OptionError (see `blend`)."""
    return blend(styles, [1.0] * len(styles) if weights is None else weights)


def preprocess(picture, size: int | None = None, network=None) -> np.ndarray:
    """The input array of `Objective` and networks: (3, H, W) float32, 0..255 minus a mean.

    picture: a path, a Picture, a Pillow image, or an array (H, W, 3) in RGB order, of uint8, uint16 or floats 0..255;
        colours that are hidden by alpha are replaced by those around them, and alpha is left out.
    size: longest side in pixels after resizing; None: unchanged.
    network: its `convention` determines the order of channels and the mean; None: BGR and ImageNet's mean.

        content = cvstyle.preprocess("photo.jpg", size=512)
        style = cvstyle.preprocess("painting.jpg", size=512)
        objective = cvstyle.Objective(net, content=content, styles=[style])
        loss, gradient = objective(content)

    Raises ImageError for an invalid picture, OptionError for a size that is no whole number above zero.
    """
    picture = _filled(picture, "picture")
    size = argument("size", size, INT, PIXELS)
    if size is not None:
        picture = images.resized(picture, images.target_size(*picture.size, size))
    return images.preprocess(picture.rgb, convention=_convention_of(network))


def deprocess(x: np.ndarray, network=None) -> images.Picture:
    """The inverse of `preprocess` with the same network, for an array (3, H, W) of floats.

    Values outside 0..255 are clipped only in files. Raises ImageError.
    """
    if not isinstance(x, np.ndarray):
        raise ImageError(f"deprocess: {type(x).__name__} is no array; give one of NumPy, (3, H, W)")
    if x.ndim != 3 or x.shape[0] != 3 or not x.size or x.dtype.kind != "f":
        raise ImageError(f"deprocess: the array is {x.shape} of {x.dtype}; it must be (3, H, W) of floats")
    with np.errstate(over="ignore"):  # overflow gives infinity, which is rejected below
        rgb = images.deprocess(x, convention=_convention_of(network))
    if not np.isfinite(rgb).all():
        raise ImageError("deprocess: the array has values that are NaN or infinite; start again from another one")
    return images.Picture(rgb)


def match_colors(picture, reference, method: str = "sym") -> images.Picture:
    """The picture in the colours of another one: with their mean and covariance, as --color match makes the styles.

    picture, reference: as for `preprocess`; pixels count by their alpha. method: "sym", which moves colours least,
    "pca", "chol" or "mean" (each channel by itself). Values are sRGB as encoded; those of the result are clipped to
    0..255 and to what the reference has beyond (Gatys et al. 2017, arXiv:1611.07865, section 5).
    Raises ImageError for an invalid picture, OptionError for an unknown method.
    """
    if method not in images.METHODS:
        known = f"{', '.join(images.METHODS[:-1])} or {images.METHODS[-1]}"
        raise OptionError(f"method must be {known}, not '{method}'")
    return images.recoloured(_filled(picture, "picture"), _filled(reference, "reference"), method)


def features(net, picture: np.ndarray, layers: Sequence[str] | str) -> dict[str, np.ndarray]:
    """Feature maps by layer name, on the host: (C, H, W) float32, or (C,) for a fully connected layer.

    picture: an array (3, H, W) as from `preprocess`. layers: names, as a list or comma-separated text.
    Raises OptionError for an unknown layer, ImageError for an invalid array or one too small for the network.
    """
    names = as_items(layers)
    if not names:
        raise OptionError("no layer is named ('cvstyle info' lists the layers)")
    program = net.program(names)
    check_size(program, checked_picture(picture, "input"), "input")
    with net.ops.lock:
        maps = program.forward(net.ops.asarray(picture[None]), needs_grad=False)
        return {name: program.backend_of(name).to_host(maps[name])[0] for name in names}


def _filled(picture, role):
    name = os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else role
    return images.filled(images.as_picture(picture, role), name)


def _convention_of(network):
    return IMAGENET if network is None else network.convention
