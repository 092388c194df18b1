"""Style targets: statistics of style pictures, measured for the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .errors import ImageError, OptionError, ShapeError
from .fields import BLEND, argument
from .graph import tiling
from .graph.periodic import periodic
from .images.masks import is_even
from .losses import Loss, create
from .losses.layers import checked_weight
from .passes import DevicePass
from .regions import StyleRegion, shares, weighted
from .saved_style import SavedStyle, SizedStyle

_LEAST = 1 / 16  # positions of a layer that must be visible


@dataclass(frozen=True)
class StyleTargets:
    """Blended statistics of style pictures, which serve any number of objectives on any backend.

    statistics: loss name ("style:relu1_1") → host array.
    """

    statistics: dict[str, np.ndarray]


def measure_styles(
    net, losses: Sequence[Loss] | Mapping, pictures: Sequence[np.ndarray | SizedStyle],
    blend_weights: Sequence[float] | None = None, tile_size: int | None = None, most_tiles: int | None = None,
    masks: Sequence[np.ndarray | None] | None = None, regions: Sequence[StyleRegion] = (), wrap: str | None = None,
) -> StyleTargets:  # fmt: skip
    """The style targets of losses on a network, from pictures (3, H, W), BGR, mean-subtracted, of any sizes.

    losses: `Loss` objects, or settings of `Objective` by name. pictures: a list, or one picture; an entry may be a
    saved style at a size (`SavedStyle.at`), of which nothing is computed. blend_weights: one number per picture,
    normalised to sum 1; None: equal weights. tile_size: the longest side, in pixels, computed at a time, raised to the
    network's minimum where necessary. most_tiles: compute only the first tiles of a picture, for a measurement of
    memory. masks: for each picture the weights of its pixels (H, W), such as its alpha; None: equal weights. regions:
    see `Objective`. wrap: the axes along which the picture repeats that gets the styles; along these, layers see a
    style's mirror image beyond its borders, which otherwise were a part of the style. Raises OptionError and ImageError
    as `Objective`.
    """
    losses = create(losses) if isinstance(losses, Mapping) else losses
    pictures = listed(pictures)
    weights = _blend_weights(blend_weights, len(pictures))
    masks = [None] * len(pictures) if masks is None else listed(masks)
    if len(masks) != len(pictures):
        raise OptionError(f"{len(masks)} masks for {len(pictures)} style pictures")
    losses = [loss for loss in losses if loss.target_from == "styles" and loss.layer is not None]
    if not (losses and pictures):
        return StyleTargets({})
    totals = {}
    with net.ops.lock:
        program = net.program(dict.fromkeys(loss.layer for loss in losses))
        backends = {}
        for number, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
            place = _Place(regions, number, weights)
            if isinstance(picture, (SavedStyle, SizedStyle)):
                parts = place.saved_parts(losses, picture, mask)
                picture.style.check(net, [loss.layer for loss in losses])
            else:
                checked_picture(picture, place.role)
                if wrap is None:
                    check_size(program, picture, place.role)
                seen = periodic(program, picture.shape[1:], wrap, mirrored=True)
                parts = place.parts(losses, mask, program, seen)
            if not parts:  # none of its regions counts
                continue
            portions = {loss.name: portion for loss, portion in parts}
            backends |= {loss.name: program.backend_of(loss.layer) for loss, _ in parts}
            if isinstance(picture, SizedStyle):
                sums = {loss.name: backends[loss.name].asarray(picture.statistic(loss)) for loss, _ in parts}
            else:
                sums = _sums(net, program, [loss for loss, _ in parts], picture, seen, tile_size, most_tiles)
            for name, own in sums.items():
                ops = backends[name]
                total = totals.get(name)
                portion = portions[name]
                totals[name] = ops.scale(own, portion) if total is None else ops.add_scaled(total, portion, own)
    # On the host, so that nothing fragments the device memory that the run will need.
    return StyleTargets({name: backends[name].to_host(total) for name, total in totals.items()})


def _sums(net, program, losses, picture, seen, tile_size, most_tiles):
    """Loss name → statistic of a picture, on the backend of the loss's layer. seen: as layers see it."""
    size = seen.extended
    side = tile_size
    if side and side < max(size):  # chosen for the content; a style may need slightly larger tiles
        side = max(side, tiling.min_tile_size([program.footprint(size, axis) for axis in (0, 1)]))
    tiles = seen.tiles(program, side)[:most_tiles]
    style_pass = DevicePass(net, tiles, size, losses, shapes=seen.shapes)
    return style_pass.sum_statistics(net.ops, net.ops.asarray(seen.extension.of_host(picture)[None]), keep=False)


class _Place(NamedTuple):
    """The place of a style: its number, in the regions and with the weights of all styles."""

    regions: Sequence[StyleRegion]
    number: int
    weights: Sequence[float]

    @property
    def role(self):
        return f"style {self.number + 1}"

    def parts(self, losses, mask, program, seen):
        """[(loss, portion of its target)]: the losses, or those of the regions that have the style.

        mask: the style's. seen: it, as layers see it.
        """
        size = seen.extension.size
        mask = None if mask is None else checked_mask(mask, size, self.role)
        if not self.regions:
            way_out = "cut off what is transparent, or use a larger --style-scale"
            portion = self.weights[self.number]
            return [(_seen(loss, mask, program, seen, self.role, way_out), portion) for loss in losses]
        way_out = "make the region larger in the style's mask, or use a larger --style-scale"
        parts = []
        for region, portion in self._portions():
            own = region.styles[self.number]
            own = None if own is None else checked_mask(own, size, f"region '{region.name}' of {self.role}")
            own = None if own is None or (own.any() and is_even(own)) else own
            both = own if mask is None else mask if own is None else own * mask
            where = f"{self.role}, region '{region.name}'"
            parts += [
                (_seen(region.own(loss), both, program, seen, where, way_out, region.inside), portion)
                for loss in losses
            ]
        return parts

    def saved_parts(self, losses, style, mask):
        """`parts` for a saved style, which is seen whole."""
        if not isinstance(style, SizedStyle):
            raise OptionError(f"{self.role} is a saved style, and a size is needed, as by read_style(path).at(512)")
        if mask is not None or any(region.styles[self.number] is not None for region, _ in self._portions()):
            raise OptionError(
                f"{style.style.path}: a mask shows a part of a style, and a saved style is of the whole picture; give "
                "the picture itself, or save a style of that part cut out"
            )
        if not self.regions:
            return [(loss, self.weights[self.number]) for loss in losses]
        return [(region.own(loss), portion) for region, portion in self._portions() for loss in losses]

    def _portions(self):
        """(region, the style's portion of its target) of the regions that have the style and count."""
        for region in self.regions:
            if self.number in region.styles and region.factor:
                yield region, self._portion(region)

    def _portion(self, region):
        if len(region.styles) == 1:
            return 1.0
        total = sum(self.weights[style] for style in region.styles)
        if not total:
            raise OptionError(
                f"the styles of region '{region.name}' all have the blend weight 0; give one of them more"
            )
        return self.weights[self.number] / total


def checked_mask(mask: np.ndarray, size: tuple[int, int], role: str) -> np.ndarray:
    """The mask. Raises ImageError unless it is an array of this (height, width) of finite numbers, none negative."""
    if mask.shape != size or not np.isfinite(mask).all() or mask.min() < 0:
        height, width = size
        raise ImageError(f"the mask of {role} must have a number for each pixel of {width}×{height}, none negative")
    return mask


def _seen(loss, mask, program, seen, role, way_out, inside=False):
    """The loss with the mask's shares of the positions as weights; itself where they are equal."""
    if mask is None:
        return loss
    values = shares(mask, loss.layer, program, seen, inside)
    own = weighted(loss, values) if values.sum(dtype=float) >= _LEAST * mask.max() else None
    if own is None:
        raise ImageError(f"{role}: too little of the picture is visible for layer '{loss.layer}'; {way_out}")
    return own


def listed(pictures) -> list:
    """A list or tuple of pictures as a list; a single picture as a list of one."""
    return list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]


def checked_picture(picture: np.ndarray, role: str) -> np.ndarray:
    """The picture. Raises ImageError unless it is an array (3, height, width)."""
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[0] != 3 or not picture.size:
        given = f"shape {picture.shape}" if isinstance(picture, np.ndarray) else f"the type {type(picture).__name__}"
        raise ImageError(
            f"the {role} has {given}; an array (3, height, width) is needed, as cvstyle.preprocess makes of any picture"
        )
    return picture


def check_size(program, picture: np.ndarray, role: str) -> None:
    """Raises ImageError for a picture (3, H, W) that is too small for the program."""
    try:
        program.shapes(tuple(picture.shape[1:]))
    except ShapeError as error:
        height, width = picture.shape[1:]
        raise ImageError(f"the {role} picture of {width}×{height} does not fit this network: {error}") from None


def _blend_weights(weights, count):
    """The weights normalised to sum 1. Raises OptionError for invalid weights or a wrong number of them."""
    if weights is None:
        return [1 / count] * count if count else []
    weights = [checked_weight(w, "a style blend weight") for w in argument("style_blend_weights", weights, BLEND)]
    if len(weights) != count:
        raise OptionError(f"{len(weights)} style blend weights for {count} style pictures")
    if count and not sum(weights):
        raise OptionError("the style blend weights are all zero")
    return [w / sum(weights) for w in weights]
