"""Style targets: statistics of style pictures, measured for the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import ImageError, OptionError, ShapeError
from .fields import BLEND, argument
from .graph import tiling
from .graph.periodic import periodic
from .losses import Loss, create
from .losses.base import checked_weight
from .passes import DevicePass
from .regions import StyleRegion, means, weighted

_LEAST = 1 / 16  # positions of a layer that must be visible


@dataclass(frozen=True)
class StyleTargets:
    """Blended statistics of style pictures, which serve any number of objectives on any backend.

    statistics: loss name ("style:relu1_1") → host array.
    """

    statistics: dict[str, np.ndarray]


def measure_styles(
    net, losses: Sequence[Loss] | Mapping, pictures: Sequence[np.ndarray], blend_weights: Sequence[float] | None = None,
    tile_size: int | None = None, most_tiles: int | None = None, masks: Sequence[np.ndarray | None] | None = None,
    regions: Sequence[StyleRegion] = (), wrap: str | None = None,
) -> StyleTargets:  # fmt: skip
    """The style targets of losses on a network, from pictures (3, H, W), BGR, mean-subtracted, of any sizes.

    losses: `Loss` objects, or settings of `Objective` by name. pictures: a list, or one picture. blend_weights: one
    number per picture, normalised to sum 1; None: equal weights. tile_size: the longest side, in pixels, computed at a
    time, raised to the network's minimum where necessary. most_tiles: compute only the first tiles of a picture, for a
    measurement of memory. masks: for each picture the weights of its pixels (H, W), such as its alpha; None: equal
    weights. regions: see `Objective`. wrap: the axes along which the picture repeats that gets the styles; along these,
    layers see a style's mirror image beyond its borders, which otherwise were a part of the style. Raises OptionError
    and ImageError as `Objective`.
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
            role = f"style {number + 1}"
            checked_picture(picture, role)
            if wrap is None:
                check_size(program, picture, role)
            seen = periodic(program, picture.shape[1:], wrap)
            size = seen.extended
            side = tile_size
            if side and side < max(size):  # chosen for the content; a style may need slightly larger tiles
                side = max(side, tiling.min_tile_size([program.footprint(size, axis) for axis in (0, 1)]))
            parts = _parts(losses, regions, number, weights, mask, picture.shape[1:], seen.shapes)
            shares = {loss.name: share for loss, share in parts}
            backends |= {loss.name: program.backend_of(loss.layer) for loss, _ in parts}
            tiles = seen.tiles(program, side)[:most_tiles]
            style_pass = DevicePass(net, tiles, size, [loss for loss, _ in parts], shapes=seen.shapes)
            array = net.ops.asarray(seen.extension.of_host(picture, mirrored=True)[None])
            for name, own in style_pass.sum_statistics(net.ops, array, keep=False).items():
                ops = backends[name]
                total = totals.get(name)
                share = shares[name]
                totals[name] = ops.scale(own, share) if total is None else ops.add_scaled(total, share, own)
    # On the host, so that nothing fragments the device memory that the run will need.
    return StyleTargets({name: backends[name].to_host(total) for name, total in totals.items()})


def _parts(losses, regions, number, weights, mask, size, shapes):
    """[(loss, share of its target)] for a style: the losses, or those of the regions that have it.

    weights: of all styles. mask, size: the style's. shapes: layer → (1, C, h, w).
    """
    role = f"style {number + 1}"
    mask = None if mask is None else checked_mask(mask, size, role)
    if not regions:
        return [(_seen(loss, mask, shapes, role), weights[number]) for loss in losses]
    parts = []
    for region in regions:
        if number not in region.styles:
            continue
        share = weights[number] / sum(weights[style] for style in region.styles)
        own = region.styles[number]
        own = None if own is None else checked_mask(own, size, f"region '{region.name}' of {role}")
        both = own if mask is None else mask if own is None else own * mask
        where = f"{role}, region '{region.name}'"
        parts += [(_seen(region.own(loss), both, shapes, where), share) for loss in losses]
    return parts


def checked_mask(mask: np.ndarray, size: tuple[int, int], role: str) -> np.ndarray:
    """The mask. Raises ImageError unless it is an array of this (height, width) of finite numbers, none negative."""
    if mask.shape != size or not np.isfinite(mask).all() or mask.min() < 0:
        height, width = size
        raise ImageError(f"the mask of {role} must have a number for each pixel of {width}×{height}, none negative")
    return mask


def _seen(loss, mask, shapes, role):
    """The loss with the mask's means over the positions as weights; itself where they are equal."""
    if mask is None:
        return loss
    values = means(mask, shapes[loss.layer][2:])
    own = weighted(loss, values) if values.sum(dtype=float) >= _LEAST * mask.max() else None
    if own is None:
        raise ImageError(
            f"{role}: too little of the picture is visible for layer '{loss.layer}'; cut off what is transparent, "
            "or use a larger --style-scale"
        )
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
