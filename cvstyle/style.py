"""A style: what the losses aim at, from pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from . import tiles
from .errors import ImageError, OptionError, ShapeError
from .fields import BLEND, argument
from .losses import Loss, create
from .losses.base import checked_weight
from .passes import DevicePass


@dataclass(frozen=True)
class StyleTargets:
    """Statistics of style pictures, one for each loss that asks, blended: made once, they serve any number of
    objectives, on any backend.

    statistics: loss name ("style:relu1_1") → host array.
    """

    statistics: dict[str, np.ndarray]


def measure_styles(
    net, losses: Sequence[Loss] | Mapping, pictures: Sequence[np.ndarray], blend_weights: Sequence[float] | None = None,
    tile_size: int | None = None, most_tiles: int | None = None,
) -> StyleTargets:  # fmt: skip
    """The targets of losses on a network, from pictures (3, H, W), BGR, mean-subtracted, each of its own size.

    losses: `Loss` objects, or settings of `Objective` by name. pictures: one need not be in a list. blend_weights: one
    number per picture, normalised to sum 1; None: equal. tile_size: the most, in pixels a side, that is computed at
    once; what the network needs at least is taken in any case. most_tiles: of more tiles than these the first alone are
    computed, to see what that takes. Raises OptionError and ImageError as `Objective`.
    """
    losses = create(losses) if isinstance(losses, Mapping) else losses
    pictures = listed(pictures)
    shares = _blend(blend_weights, len(pictures))
    asking = [loss for loss in losses if loss.target_from == "styles" and loss.layer is not None]
    if not (asking and pictures):
        return StyleTargets({})
    sums, places = {}, {}
    with net.ops.lock:
        for number, (picture, share) in enumerate(zip(pictures, shares, strict=True), 1):
            role = f"style {number}"
            program = net.program(dict.fromkeys(loss.layer for loss in asking))
            check_size(program, checked_picture(picture, role), role)
            size, side = picture.shape[1:], tile_size
            if side and side < max(size):  # it was chosen for the content; a style may need a little more
                side = max(side, tiles.least([program.reach(size, axis) for axis in (0, 1)]))
            found = DevicePass(net, tiles.split(program, size, side)[:most_tiles], size, asking)
            places = {loss.name: found.ops_of(loss.layer) for loss in asking}
            for name, own in found.sum_statistics(net.ops, net.ops.asarray(picture[None]), keep=False).items():
                known, ops = sums.get(name), places[name]
                sums[name] = ops.scale(own, share) if known is None else ops.add_scaled(known, share, own)
    # On the host, since a device's memory then holds nothing that lies amid what the run will need.
    return StyleTargets({name: places[name].to_host(total) for name, total in sums.items()})


def listed(pictures) -> list:
    """Pictures one by one: what is no list or tuple is one."""
    return list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]


def checked_picture(picture: np.ndarray, role: str) -> np.ndarray:
    """The picture. Raises ImageError where it is no array (3, height, width)."""
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[0] != 3 or not picture.size:
        found = f"shape {picture.shape}" if isinstance(picture, np.ndarray) else f"the type {type(picture).__name__}"
        raise ImageError(
            f"the {role} has {found}; an array (3, height, width) is needed, as cvstyle.preprocess makes of any picture"
        )
    return picture


def check_size(program, picture: np.ndarray, role: str) -> None:
    """Raises ImageError where a picture (3, H, W) is too small for a program."""
    try:
        program.shapes(tuple(picture.shape[1:]))
    except ShapeError as error:
        height, width = picture.shape[1:]
        raise ImageError(f"the {role} picture of {width}×{height} does not fit this network: {error}") from None


def _blend(weights, count):
    if weights is None:
        return [1 / count] * count if count else []
    weights = [checked_weight(w, "a style blend weight") for w in argument("style_blend_weights", weights, BLEND)]
    if len(weights) != count:
        raise OptionError(f"{len(weights)} style blend weights for {count} style pictures")
    if count and not sum(weights):
        raise OptionError("the style blend weights are all zero")
    return [w / sum(weights) for w in weights]
