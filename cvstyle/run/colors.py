"""The styles of a run in the content's colours."""

from __future__ import annotations

from collections.abc import Sequence

from .. import images
from ..errors import OptionError
from ..regions import StyleRegion
from ..saved_style import SavedStyle


def recoloured(styles: Sequence, content: images.Picture, method: str, regions: Sequence[StyleRegion] = ()) -> list:
    """The styles in the content's colours, once for all scales; unchanged without a method.

    method: see `images.recoloured`. A style's part of a region takes the colours of that region of the content.
    Raises OptionError for a saved style, which has no colours to change.
    """
    if not method:
        return list(styles)
    result = []
    for number, style in enumerate(styles):
        if isinstance(style, SavedStyle):
            raise OptionError(
                f"{style.path}: --color {method if method == 'luminance' else f'match:{method}'} recolours the picture "
                "of a style, and a saved style has none; give the picture, or --color content"
            )
        parts = [(region.styles[number], region.mask) for region in regions if number in region.styles]
        result.append(images.recoloured(style, content, method, parts))
    return result
