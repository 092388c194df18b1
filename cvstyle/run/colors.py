"""The styles of a run in the content's colours."""

from __future__ import annotations

from collections.abc import Sequence

from .. import images
from ..regions import StyleRegion


def recoloured(
    styles: Sequence[images.Picture], content: images.Picture, method: str, regions: Sequence[StyleRegion] = ()
) -> list[images.Picture]:
    """The styles with the content's colours, once for all scales; unchanged without a method.

    method: see `images.recoloured`. A style's part of a region takes the colours of that region of the content.
    """
    if not method:
        return list(styles)
    result = []
    for number, style in enumerate(styles):
        parts = [(region.styles[number], region.mask) for region in regions if number in region.styles]
        result.append(images.recoloured(style, content, method, parts))
    return result
