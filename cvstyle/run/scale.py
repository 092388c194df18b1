"""One size of a run: its pictures, its objective, and how what comes of it is shown."""

from __future__ import annotations

import cv2
import numpy as np

from .. import images
from ..netdef import imagenet_mean
from ..objective import Objective
from .setup import Setup

_NOISE = 0.001  # neural_style.lua starts from noise of this standard deviation, in its 0..256 units


class Scale:
    """The scale `index` of a setup.

    size: (height, width) of its picture, without the margin. end: iterations until it has ended, counted through all
    scales; iterations: its own. objective: of arrays (3, H, W) that have the margin.
    """

    def __init__(self, setup: Setup, index: int, objective=None):
        """objective: in place of that of the setup's pictures, of which then nothing can be shown."""
        self.setup, self.size = setup, setup.sizes[index]
        self.iterations, self.end = setup.schedule[index][1], setup.end(index)
        if objective is None:
            self._content_rgb = self._resize(setup.content.rgb)
            sizes = setup.style_sizes(index)
            objective = Objective(
                setup.net, self._with_margin(setup.preprocess(self._content_rgb)),
                [setup.preprocess(self._resize(style.rgb, size)) for style, size in zip(setup.styles, sizes)],
                **setup.objective_settings,
            )  # fmt: skip
        self.objective = objective

    def start(self) -> np.ndarray:
        """The picture that the run starts from, (1, 3, H, W) on the host."""
        setup = self.setup
        if setup.start is not None:
            return self._with_margin(setup.preprocess(self._resize(setup.start.rgb)))[None]
        if setup.value("init") == "image":
            return self._with_margin(setup.preprocess(self._content_rgb))[None]
        size = images.padded_size(self.size, setup.margin)
        noise = np.random.default_rng(setup.seed).standard_normal((3, *size), dtype=np.float32)
        # About the colour that is 0 to most networks, whatever this one's mean.
        convention = setup.net.convention
        middle = np.float32(imagenet_mean(convention.channels)) - np.float32(convention.mean)
        return noise[None] * np.float32(_NOISE) + middle[:, None, None]

    def enlarged(self, x: np.ndarray) -> np.ndarray:
        """A host array (1, 3, H, W) of another scale at this size, with its margin made anew.

        Linear, so that Adam's second moments stay positive.
        """
        planes = np.ascontiguousarray(self._without_margin(x[0]).transpose(1, 2, 0))
        height, width = self.size
        resized = cv2.resize(planes, (width, height), interpolation=cv2.INTER_LINEAR)
        return self._with_margin(resized.transpose(2, 0, 1))[None]

    def render(self, x: np.ndarray) -> images.Picture:
        """The picture of a host array (1, 3, H, W)."""
        setup = self.setup
        rgb = setup.deprocess(self._without_margin(x[0]))
        # A network of one channel leaves colours undecided; its gradient, along the luminance, would turn them green
        # where it brightens and purple where it darkens.
        if setup.options.original_colors or setup.net.convention.luminance:
            rgb = images.original_colors(self._content_rgb, rgb)
        alpha = setup.content.alpha
        if alpha is not None:
            alpha = self._resize(alpha[..., None])[..., 0]
        return images.Picture(rgb, alpha, setup.content.icc)

    def _resize(self, rgb, size=None):
        return images.resize(rgb, size or self.size, compat=self.setup.options.compat)

    def _with_margin(self, x):
        """(C, H, W) with the margin, which begins as its mirror image."""
        ends = (self.setup.margin, self.setup.margin)
        return np.pad(x, ((0, 0), ends, ends), "symmetric") if self.setup.margin else x

    def _without_margin(self, x):
        rows, columns = (slice(self.setup.margin, n - self.setup.margin) for n in x.shape[1:])
        return x[:, rows, columns]
