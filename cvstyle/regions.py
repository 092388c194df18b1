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
from .graph.periodic import Periodic
from .images import resize
from .images.masks import is_even, resized
from .losses import Loss

_COVERED = 0.999  # the part of a pixel in regions from which rounding has taken the rest
_LEAST_INSIDE = 1.0  # positions that see a region alone; with fewer, those that see a part of it count


@dataclass(frozen=True, eq=False)
class StyleRegion:
    """A part of a picture, and the parts of the styles that it is painted with.

    name: the end of its losses' names, "style:relu1_1@NAME". mask: (H, W) of 0..1 over the content. styles: the number
    of each of its styles, from 0 → the mask (H, W) of the style's part; None: all of it. weight: the factor of its
    style losses; None: the mean of the mask, by which a pixel's gradient is as strong as without regions. content: the
    factor of content losses within it. inside: True to count only positions of a layer that see nothing else, where
    there are such (`shares`); the factor of its losses at the layer falls with their number, so that the gradient at
    such a position is as strong as without `inside`.
    """

    name: str
    mask: np.ndarray
    styles: Mapping[int, np.ndarray | None]
    weight: float | None = None
    content: float = 1.0
    inside: bool = False

    @property
    def factor(self) -> float:
        """The factor of its style losses."""
        return float(self.mask.mean(dtype=float)) if self.weight is None else self.weight

    def resized(
        self, size: tuple[int, int], style_sizes: Sequence[tuple[int, int]], margins: tuple[int, int] = (0, 0)
    ) -> StyleRegion:
        """The region in a content and styles of other (height, width), the content with mirrored margins."""
        mask = resized(self.mask, size)
        mask = np.pad(mask, [(margin, margin) for margin in margins], "symmetric") if any(margins) else mask
        own = {n: None if part is None else resized(part, style_sizes[n]) for n, part in self.styles.items()}
        return replace(self, mask=mask, styles=own)

    def own(self, loss: Loss) -> Loss:
        """A copy of the loss with the region's name."""
        loss = copy.copy(loss)
        loss.name = f"{loss.name}@{self.name}"
        return loss


def regional(losses: Sequence[Loss], regions: Sequence[StyleRegion], program, picture: Periodic) -> list[Loss]:
    """The losses of a content with regions; those of factor 0 have none.

    program: computes the losses' layers. picture: the content, as they see it. Raises ImageError for a region without
    a position in a layer.
    """
    result = []
    for loss in losses:
        if loss.target_from == "styles":
            for region in (region for region in regions if region.factor):
                own = region.own(loss)
                own.weight *= region.factor
                if not is_even(region.mask):
                    values = shares(region.mask, loss.layer, program, picture, region.inside)
                    own.weight *= values.mean(dtype=float) / region.mask.mean(dtype=float) if region.inside else 1
                    own = weighted(own, values)
                if own is None or not region.mask.any():
                    raise ImageError(
                        f"region '{region.name}' of the content is empty at layer '{loss.layer}'; paint it in its mask"
                    )
                result.append(own)
        elif loss.target_from == "content":
            factors = content_factors(regions, picture.shapes[loss.layer][2:])
            result.append(loss if factors is None else loss.weighted(factors))
        else:
            result.append(loss)
    return result


def painted(losses: Sequence[Loss], regions: Sequence[StyleRegion]) -> list[Loss]:
    """The losses of the picture itself; those without a target act only where there is a style.

    Elsewhere they would take from the photograph without anything in return.
    """
    covered = coverage(regions)
    if covered.min() >= 1:
        return list(losses)
    return [loss.weighted(covered) if loss.target_from is None else loss for loss in losses]


def weighted(loss: Loss, values: np.ndarray) -> Loss | None:
    """The loss with weights of its positions in proportion to values (h, w); None where these are all zero.

    Equal values give the loss itself.
    """
    total = values.sum(dtype=float)
    if not total > 0:
        return None
    return loss if values.min() == values.max() else loss.weighted(values / np.float32(total))


def shares(mask: np.ndarray, layer: str, program, picture: Periodic, inside: bool = False) -> np.ndarray:
    """(h, w) float32: the share that each position of a layer has in a mask (H, W) of the picture.

    It is the mean of the mask over the position's part of the picture or, with `inside`, the least value among all
    pixels that the position sees, unless too few positions have one above zero.
    """
    if inside:
        least = _least_seen(mask, layer, program, picture)
        if least.sum(dtype=float) >= _LEAST_INSIDE:
            return least
    return means(mask, picture.shapes[layer][2:])


def layers_without_inside(mask: np.ndarray, program, picture: Periodic) -> list[str]:
    """The layers in which too few positions see the mask alone (see `shares`)."""
    return [
        name for name in program.outputs
        if _least_seen(mask, name, program, picture).sum(dtype=float) < _LEAST_INSIDE
    ]  # fmt: skip


def _least_seen(mask, layer, program, picture):
    """The least value of the mask among the pixels that each position sees."""
    mask = picture.extension.of_host(mask[None])[0]
    ends = [program.sight(mask.shape, axis)[layer] for axis in (0, 1)]
    if picture.positions:
        ends = [[part[slice(*span)] for part in both] for both, span in zip(ends, picture.positions[layer])]
    rows, columns = (zip(*both) for both in ends)
    by_rows = np.stack([mask[first:end].min(axis=0) for first, end in rows])
    turned = np.ascontiguousarray(by_rows.T)
    return np.ascontiguousarray(np.stack([turned[first:end].min(axis=0) for first, end in columns]).T, np.float32)


def means(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) float32: the mean of a mask (H, W) over each position's part of the picture."""
    return resize(np.ascontiguousarray(mask, np.float32)[..., None], size)[..., 0]


def content_factors(regions: Sequence[StyleRegion], size: tuple[int, int]) -> np.ndarray | None:
    """The factors (h, w) of a content loss's positions; None for 1 everywhere, as outside all regions."""
    if all(region.content == 1 for region in regions):
        return None
    return np.maximum(0, 1 + sum((region.content - 1) * means(region.mask, size) for region in regions))


def coverage(regions: Sequence[StyleRegion]) -> np.ndarray:
    """(H, W) float32: the part of each pixel that lies in regions with a style, 0..1."""
    covered = np.zeros(regions[0].mask.shape, np.float32)
    for region in regions:
        if region.factor:
            covered += region.mask
    covered[covered >= _COVERED] = 1
    return covered
