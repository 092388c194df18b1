"""One scale of a run: the pictures at one size, their objective, and the rendering of results."""

from __future__ import annotations

import cv2
import numpy as np

from .. import images
from ..graph.periodic import AXES
from ..netdef import imagenet_mean
from ..objective import Objective
from ..regions import coverage
from .setup import Setup
from .styles import entries
from .texture import coloured

_NOISE = 0.001  # neural_style.lua starts from noise of this standard deviation, in its 0..256 units
# Where a picture is flat, all positions have the same gradient, and edges spread as parallel lines; noise of this
# standard deviation, in levels, lets strokes begin everywhere.
_GRAIN = 2.0


class Scale:
    """The scale `index` of a setup.

    size: (height, width) of the picture without the margin. iterations: the scale's own; last_iteration: the number of
    the last one, counted through all scales. objective: a function of arrays (3, H, W) with the margin.
    """

    def __init__(self, setup: Setup, index: int, objective=None):
        """objective: given instead of made from the setup's pictures; such a scale cannot render."""
        self.setup = setup
        self.size = setup.sizes[index]
        self.iterations = setup.schedule[index][1]
        self.last_iteration = setup.last_iteration(index)
        if objective is None:
            self._content = self._resized(setup.content)
            styles, masks = zip(*entries(setup, index, self._style))
            regions = setup.regions_at(self.size, setup.style_sizes(index), setup.margins)
            self._covered = _covered(regions)
            objective = Objective(
                setup.net, self.content, styles, style_masks=masks, regions=regions, **setup.objective_settings
            )
        self.objective = objective

    @property
    def content(self) -> np.ndarray:
        """The photograph, (3, H, W) with the margin."""
        return self._input(self._content)

    @property
    def _painted(self):
        """The share of the styles in each pixel, as `_covered`."""
        return self.setup.options.strength * self._covered

    def start(self) -> np.ndarray:
        """The initial picture, (1, 3, H, W) on the host."""
        start = self._full_start()
        if np.min(self._painted) < 1:
            start = self.content + np.float32(self._painted) * (start - self.content)
        return start

    def _full_start(self):
        """The initial picture where the style is painted at full strength."""
        setup = self.setup
        size = images.padded_size(self.size, setup.margins)
        noise = np.random.default_rng(setup.seed).standard_normal((1, 3, *size), dtype=np.float32)
        if setup.start is not None or setup.value("init") == "image":
            start = self.content[None] if setup.start is None else self._input(self._resized(setup.start))[None]
            return start if setup.options.compat else start + noise * np.float32(_GRAIN)
        if setup.texture:
            rgb = coloured(noise[0], setup.styles, setup.options.style_blend_weights)
            return setup.preprocess(rgb)[None]
        # The noise lies about ImageNet's mean colour, whatever the network's mean.
        convention = setup.net.convention
        middle = np.float32(imagenet_mean(convention.channels)) - np.float32(convention.mean)
        return noise * np.float32(_NOISE) + middle[:, None, None]

    def continued(self, x: np.ndarray, previous: Scale) -> np.ndarray:
        """The picture that starts the scale, from the previous scale's result (1, 3, H, W) on the host."""
        start = self.enlarged(x)
        if np.min(self._painted) < 1:  # the detail of the photograph that the smaller picture lacks
            start += np.float32(1 - self._painted) * (self.content - self.enlarged(previous.content[None]))
        return start

    def enlarged(self, x: np.ndarray) -> np.ndarray:
        """A host array (1, 3, H, W) of another scale, resized to the scale's size and with a new margin.

        Linear interpolation keeps Adam's second moments positive.
        """
        planes = self._without_margin(x[0])
        for axis in AXES.get(self.setup.options.wrap, ()):
            planes = np.stack([_stretched(plane, self.size[axis], axis) for plane in planes])
        planes = np.ascontiguousarray(planes.transpose(1, 2, 0))
        planes = cv2.resize(planes, self.size[::-1], interpolation=cv2.INTER_LINEAR)
        return self._with_margin(planes.transpose(2, 0, 1))[None]

    def render(self, x: np.ndarray) -> images.Picture:
        """The picture of a host array (1, 3, H, W)."""
        setup = self.setup
        rgb = setup.deprocess(self._without_margin(x[0]))
        # A network of one channel does not determine colours; its gradient, along the luminance, would tint bright
        # places green and dark places purple.
        if setup.options.colors in ("content", "luminance") or setup.net.convention.luminance:
            rgb = images.original_colors(self._content.rgb, rgb)
        content = self._content
        if self._covered.min() < 1:  # style losses reach as far beyond a region as layers see
            covered = self._without_margin(self._covered[None])[0, ..., None]
            rgb = content.rgb + covered * (rgb - content.rgb)
        return images.Picture(rgb, content.alpha, content.icc, metadata=content.metadata)

    def _resized(self, picture, size=None):
        return images.resized(picture, size or self.size, self.setup.options.compat)

    def _style(self, picture, size):
        """(the input of a style, the weights of its pixels)."""
        style = self._resized(picture, size)
        return self.setup.preprocess(style.rgb), style.alpha

    def _input(self, picture):
        grey = self.setup.options.colors == "luminance"
        return self._with_margin(self.setup.preprocess(images.luminance(picture.rgb) if grey else picture.rgb))

    def _with_margin(self, x):
        """(C, H, W) with the margin, at first a mirror image of the border."""
        ends = [(margin, margin) for margin in self.setup.margins]
        return np.pad(x, ((0, 0), *ends), "symmetric") if any(self.setup.margins) else x

    def _without_margin(self, x):
        rows, columns = (slice(margin, n - margin) for n, margin in zip(x.shape[1:], self.setup.margins))
        return x[:, rows, columns]


def _stretched(plane, count, axis):
    """A plane (H, W) with `count` positions along an axis, by linear interpolation; its last and first are neighbours.

    Places as in `cv2.resize`, which knows no such edges.
    """
    n = plane.shape[axis]
    places = (np.arange(count) + 0.5) * n / count - 0.5
    first = np.floor(places).astype(int)
    part = np.expand_dims((places - first).astype(plane.dtype), 1 - axis)
    result = plane.take((first + 1) % n, axis)
    result *= part
    result += (1 - part) * plane.take(first % n, axis)
    return result


def _covered(regions):
    """The part of each pixel in regions, an array (H, W); (1, 1) of 1 where there is nothing else."""
    covered = coverage(regions) if regions else np.ones((1, 1), np.float32)
    return np.ones((1, 1), np.float32) if covered.min() >= 1 else covered
