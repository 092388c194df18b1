"""Regions: parts of a picture with styles of their own (Gatys et al. 2017, arXiv:1611.07865, section 4).

Every style loss becomes one for each region. It sees the positions of its layer by the region's share of the pixels
that a position stands for, and its target is of the same region of the styles. Regions may overlap: where the masks of
two sum to 1, their styles cross-fade.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .errors import ImageError
from .images import resize
from .losses import Loss


@dataclass(frozen=True, eq=False)
class StyleRegion:
    """A part of a picture, and the parts of the styles that it is painted with.

    name: the end of its losses' names, "style:relu1_1@NAME". mask: (H, W) of 0..1 over the content. styles: the number
    of each of its styles, from 0 → the mask (H, W) of the style's part; None: all of it. weight: the factor of its
    style losses; None: the mean of the mask, by which a pixel's gradient is as strong as without regions. content: the
    factor of content losses within it.
    """

    name: str
    mask: np.ndarray
    styles: Mapping[int, np.ndarray | None]
    weight: float | None = None
    content: float = 1.0

    @property
    def factor(self) -> float:
        """The factor of its style losses."""
        return float(self.mask.mean(dtype=float)) if self.weight is None else self.weight

    def resized(self, size: tuple[int, int]) -> StyleRegion:
        """The region in the content at another (height, width)."""
        return replace(self, mask=means(self.mask, size))

    def own(self, loss: Loss) -> Loss:
        """A copy of the loss with the region's name."""
        loss = copy.copy(loss)
        loss.name = f"{loss.name}@{self.name}"
        return loss


def regional(losses: Sequence[Loss], regions: Sequence[StyleRegion], shapes: Mapping) -> list[Loss]:
    """The losses of a content with regions. shapes: layer → (1, C, h, w).

    Raises ImageError for a region without a position in a layer.
    """
    result = []
    for loss in losses:
        size = shapes[loss.layer][2:]
        if loss.target_from == "styles":
            for region in regions:
                own = weighted(region.own(loss), means(region.mask, size))
                if own is None:
                    raise ImageError(f"region '{region.name}' of the content is empty at layer '{loss.layer}'")
                own.weight *= region.factor
                result.append(own)
        else:
            factors = content_factors(regions, size) if loss.target_from == "content" else None
            result.append(loss if factors is None else loss.weighted(factors))
    return result


def weighted(loss: Loss, values: np.ndarray) -> Loss | None:
    """The loss with weights of its positions in proportion to values (h, w); None where these are all zero.

    Equal values give the loss itself.
    """
    total = values.sum(dtype=float)
    if not total > 0:
        return None
    return loss if values.min() == values.max() else loss.weighted(values / np.float32(total))


def means(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) float32: the mean of a mask (H, W) over each position's part of the picture."""
    return resize(np.ascontiguousarray(mask, np.float32)[..., None], size)[..., 0]


def content_factors(regions: Sequence[StyleRegion], size: tuple[int, int]) -> np.ndarray | None:
    """The factors (h, w) of a content loss's positions; None for 1 everywhere, as outside all regions."""
    if all(region.content == 1 for region in regions):
        return None
    return 1 + sum((region.content - 1) * means(region.mask, size) for region in regions)
