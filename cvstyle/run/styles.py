"""The styles of a run, pictures and saved styles, at the sizes that its scales want."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .. import checkpoint, images, losses
from ..saved_style import SavedStyle


def saved(styles: Sequence) -> list[SavedStyle]:
    """The saved styles among the styles."""
    return [style for style in styles if isinstance(style, SavedStyle)]


def kept_layers(chosen: Mapping[str, list[str]], styles: Sequence) -> dict[str, list[str]]:
    """The layers that were chosen for a run (see `zoo.choose_layers`), which depend on its size.

    Those for style are the saved styles' own, where these lack some of them.
    """
    kept = [style.layers for style in saved(styles)]
    if not kept or all(name in layers for name in chosen.get("style_layers", ()) for layers in kept):
        return dict(chosen)
    common = [name for name in kept[0] if all(name in layers for layers in kept)]
    return {**chosen, "style_layers": common or chosen["style_layers"]}


def check(setup) -> None:
    """Raises OptionError for a saved style of another network."""
    layers = losses.layer_names({"style_layers": setup.loss_settings["style_layers"]})
    for style in saved(setup.styles):
        style.check_compat(setup.options.compat)
        style.check(setup.net.with_pooling(setup.options.pooling), layers)


def remarks(setup) -> Iterator[str]:
    """A sentence for each saved style that lacks a size, and on what all lack for a picture that repeats."""
    pairs = enumerate(setup.styles)
    yield from filter(None, (style.remark(_sides(setup, i)) for i, style in pairs if isinstance(style, SavedStyle)))
    names = [style.path for style in saved(setup.styles)]
    if names and setup.options.wrap:
        yield (
            f"{', '.join(names)}: a saved style has the borders of its picture, which with --wrap do not count for a "
            "picture itself; that gives cleaner colours here"
        )


def picture_sizes(setup, scale: int) -> list[tuple[int, int]]:
    """(height, width) at a scale of each style of which a picture is computed."""
    pairs = zip(setup.styles, setup.style_sizes(scale))
    return [size for style, size in pairs if not isinstance(style, SavedStyle)]


def entries(setup, scale: int, entry: Callable[[images.Picture, tuple[int, int]], tuple]) -> list[tuple[Any, Any]]:
    """(style, mask) for each of `Objective`'s styles: entry(picture, size), or a saved style without a mask."""
    result = []
    for number, (style, size) in enumerate(zip(setup.styles, setup.style_sizes(scale))):
        if isinstance(style, SavedStyle):
            sides = _sides(setup, number)
            result.append((style.at(sides[scale], sides[-1]), None))
        else:
            result.append(entry(style, size))
    return result


def digest(picture: images.Picture | SavedStyle) -> str:
    """The digest of a picture with its alpha, where something is transparent, or of a saved style."""
    if isinstance(picture, SavedStyle):
        return picture.digest
    return checkpoint.digest(picture.rgb, *([] if images.is_opaque(picture.alpha) else [picture.alpha]))


def digests(content: images.Picture, styles: Sequence) -> list[str]:
    """The digests of the content and the styles."""
    return [digest(picture) for picture in (content, *styles)]


def _sides(setup, number):
    """The longest side of a style at each scale."""
    return [max(setup.style_sizes(scale)[number]) for scale in range(len(setup.schedule))]
