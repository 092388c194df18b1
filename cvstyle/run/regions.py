"""The regions of a run, from the masks and the options that the user gives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath

from ..errors import ImageError, OptionError, nearest
from ..formatting import counted, share
from ..graph.periodic import AXES
from ..images import Picture, masks
from ..options import Options
from ..regions import StyleRegion, coverage
from ..saved_style import SavedStyle

_SHOWN = 6  # regions that a remark lists


def read_regions(
    options: Options, content: Picture, styles: Sequence[Picture], names: Sequence[str]
) -> tuple[list[StyleRegion], list[str]]:
    """(the regions of the options' masks, remarks); their masks have the sizes of the pictures.

    options: with a size of the result. names: of the styles, for messages. Raises ImageError for a mask that cannot be
    read or does not fit its picture, and OptionError for factors that fit no region.
    """
    if not options.mask:
        return [], []
    remarks = []
    find = _by_colour if options.style_mask else _by_style
    regions = find(options, content, styles, names, remarks)
    width = options.mask_feather * max(content.size) / options.schedule(1)[-1][0]
    repeats = AXES.get(options.wrap, ())
    # The factors are those of the masks as they are painted.
    factors = _style_factors(options, regions)
    contents = _factors(options, "region_content", regions)
    regions = [
        StyleRegion(
            region.name, masks.feathered(region.mask, width, repeats), region.styles, weight, content_factor,
            options.mask_mode == "inside",
        )
        for region, weight, content_factor in zip(regions, factors, contents, strict=True)
    ]  # fmt: skip
    return regions, [*remarks, _summary(regions, names)]


def _by_style(options, content, styles, names, remarks):
    """A region for each style, from a grey mask."""
    regions = []
    for number, thing in enumerate(options.mask):
        role = _role(thing, f"mask {number + 1}")
        picture = masks.as_mask(thing, role, content.size)
        masks.check_proportions(picture, role, content, "the content picture")
        remarks += picture.remarks
        taken = [region.name for region in regions]
        values = masks.weights(picture, role, content.size)
        regions.append(StyleRegion(_unique(_stem(thing, number), taken), values, {number: None}))
    return regions


def _by_colour(options, content, styles, names, remarks):
    """A region for each colour of the content's mask, painted with the regions of that colour in the styles."""

    def read(thing, role, picture, of):
        mask = masks.as_mask(thing, role, picture.size, colours=True)
        masks.check_proportions(mask, role, picture, of)
        remarks.extend(mask.remarks)
        return masks.colour_regions(mask, role, picture.size)

    (thing,) = options.mask
    role = _role(thing, "mask")
    found = read(thing, role, content, "the content picture")
    parts = [{} for _ in found]
    for number, (thing, style) in enumerate(zip(options.style_mask, styles, strict=True)):
        if isinstance(style, SavedStyle):
            raise OptionError(
                f"{style.path}: --style-mask shows parts of a picture, and a saved style is of all of it; give the "
                "picture, or one --mask for each style"
            )
        style_role = _role(thing, f"style mask {number + 1}")
        for own in read(thing, style_role, style, f"style {number + 1}"):
            pair = next((i for i, region in enumerate(found) if region.matches(own.rgb)), None)
            if pair is None:
                what = f"{own.name}, {share(own.share)} of it"
                remarks.append(f"{style_role}: {what}, is not in {role} and has no effect")
            else:
                parts[pair][number] = own.mask
    for region, own in zip(found, parts):
        if not own:
            what = f"the colour {region.name}, {share(region.share)} of the mask"
            raise ImageError(
                f"{role}: {what}, is in no style's mask, or in too few pixels of it; paint it there too, or make it "
                "transparent here"
            )
    return [StyleRegion(region.name, region.mask, own) for region, own in zip(found, parts)]


def _role(thing, otherwise):
    return thing if isinstance(thing, str) else otherwise


def _stem(thing, number):
    """The name of a grey mask's region."""
    return PurePath(thing).stem if isinstance(thing, str) and os.path.basename(thing) else f"region{number + 1}"


def _unique(name, taken):
    number = 1
    unique = name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    return unique


def _style_factors(options, regions):
    """The weight of each region; None: its area."""
    if options.region_weights == "area":
        return [None] * len(regions)
    areas = [region.factor for region in regions]
    if options.region_weights == "equal":
        return [sum(areas) / len(areas)] * len(areas)
    return [factor * area for factor, area in zip(_factors(options, "region_weights", regions), areas)]


def _factors(options, option, regions):
    """The number that an option gives each region, by name or in order; 1 where it gives none."""
    given = getattr(options, option)
    names = [region.name for region in regions]
    spelling = f"--{option.replace('_', '-')}"
    result = dict.fromkeys(names, 1.0)
    if not given:
        return list(result.values())
    if given[0][0] is None:
        if len(given) != len(names):
            numbers = counted(len(given), "number")
            raise OptionError(f"{spelling}: {numbers} for {counted(len(names), 'region')} ({', '.join(names)})")
        return [number for _, number in given]
    for name, number in given:
        known = _named(name, names)
        if known is None:
            raise OptionError(f"{spelling}: there is no region '{name}'{nearest(name, names)}")
        result[known] = number
    return list(result.values())


def _named(name, names):
    """The region of a name, or of a colour in another spelling; None without one."""
    from PIL import ImageColor

    if name in names:
        return name
    try:
        colour = masks.colour_name(ImageColor.getrgb(name.strip())[:3])
    except ValueError:
        return None
    return colour if colour in names else None


def _summary(regions, names):
    """A sentence with the regions, their shares of the picture and their styles."""
    shown = []
    for region in regions[:_SHOWN]:
        painted = " and ".join(names[number] for number in region.styles)
        shown.append(f"{region.name} {share(region.mask.mean(dtype=float))} ({painted})")
    shown += [f"{len(regions) - _SHOWN} more"] if len(regions) > _SHOWN else []
    rest = 1 - float(coverage(regions).mean(dtype=float))
    end = f"; {rest:.0%} of the picture is in none and stays the photograph" if rest >= 0.005 else ""
    return f"regions: {', '.join(shown)}{end}"
