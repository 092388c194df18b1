"""Textures: runs from noise, without a photograph (Gatys, Ecker and Bethge 2015, arXiv:1505.07376).

The sources are styles that keep their own size, so that a larger result has more of the texture, not a larger one.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .. import images
from ..control import Canvas
from ..errors import OptionError
from ..fields import options_of
from ..options import Options
from ..saved_style import SavedStyle

_GREY = 128
_LONGEST = 1024  # pixels of a result whose size is that of its source
STYLE_LOSS = "wasserstein"
"""The default. By eye: cleaner bricks and squares, whole motifs and fewer stray colours than by Gram matrices."""
TV_SHARE = 0.1
"""Of a network's default weight of total variation. By eye: with all of it textures are blurred, with none dotted."""
_SET = {"content_layers": [], "content_weight": 0.0}


def of_texture(options: Options, canvas: Canvas) -> Options:
    """The options of a run that fills the canvas. Raises OptionError for options of a photograph."""
    for name, entry in options_of(Options).items():
        if entry.of_content and getattr(options, name) not in (entry.default, _SET.get(name)):
            way_out = "give its size as size" if name == "image_size" else "leave it out"
            raise OptionError(f"{entry.spellings[0]} is for a photograph, which a texture has not; {way_out}")
    longest = options.schedule(1)[-1][0] if options.scales not in (None, "auto") else max(canvas.size or (0,))
    if canvas.size and longest != max(canvas.size):
        height, width = canvas.size
        raise OptionError(f"--size is {width}x{height} and --scales ends with {longest}; leave one of them out")
    init = None if options.init_image else "random"
    return dataclasses.replace(options, **_SET, init=init, image_size=longest)


def shown_side(size: tuple[int, int], longest: int = 0) -> int:
    """The longest side, in a result of `longest` pixels, of a source of (height, width) `size`: its own, at most the
    result's. 0: of the result that the source itself gives the size."""
    return min(max(size), longest or _LONGEST)


def canvas_picture(canvas: Canvas, options: Options, sources: list) -> images.Picture:
    """The empty picture, of the sources' mean colour, with the first source's colour profile and metadata."""
    first = sources[0]
    remarks = ()
    size = canvas.size
    if size is None:
        size = images.target_size(*first.proportions, options.image_size)
        remarks = (f"the texture has {size[1]}×{size[0]} pixels, by the first picture; --size sets others",)
    kept = {} if isinstance(first, SavedStyle) else {"icc": first.icc, "metadata": first.metadata}
    colour = colours(sources, options.style_blend_weights)[0].astype(np.float32)
    return images.Picture(colour[None, None], full_size=size, remarks=remarks, **kept)


def colours(sources: list, blend_weights=None) -> tuple[np.ndarray, np.ndarray]:
    """(mean (3,), covariance (3, 3)) of the sources' visible colours, RGB, in float64; saved styles have previews'."""
    mean = np.zeros(3)
    squares = np.zeros((3, 3))
    blend_weights = [1] * len(sources) if blend_weights is None else blend_weights
    for source, weight in zip(sources, np.divide(blend_weights, sum(blend_weights))):
        if isinstance(source, SavedStyle):
            source = source.preview() or images.Picture(np.full((1, 1, 3), _GREY, np.float32))
        alpha = np.ones(source.size) if source.alpha is None else source.alpha.astype(float)
        share = weight / alpha.sum() * alpha.reshape(-1, 1)
        rgb = source.rgb.reshape(-1, 3).astype(float)
        mean += (share * rgb).sum(axis=0)
        squares += (share * rgb).T @ rgb
    return mean, squares - np.outer(mean, mean)


def coloured(noise: np.ndarray, sources: list, blend_weights=None) -> np.ndarray:
    """A picture (H, W, 3) with the mean and covariance of the sources' colours, from white noise (3, H, W)."""
    mean, covariance = colours(sources, blend_weights)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return (np.tensordot(noise, root.astype(np.float32), (0, 1)) + mean.astype(np.float32)).astype(np.float32)
