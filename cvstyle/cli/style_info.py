"""`cvstyle style info`: what a saved style holds."""

from __future__ import annotations

from ..fields import as_path
from .common import table
from .streams import show

_COLOURS = 5


def add_arguments(actions) -> None:
    """Add the action to the parsers of `cvstyle style`."""
    parser = actions.add_parser("info", help="show what saved styles hold", allow_abbrev=False)
    parser.set_defaults(execute=show_styles)
    parser.add_argument("files", metavar="FILE", nargs="+", type=as_path, help="saved styles (.cvstyle)")


def show_styles(args) -> int:
    """Run `cvstyle style info`; returns the exit status."""
    from ..saved_style import SavedStyle

    for number, path in enumerate(args.files):
        style = SavedStyle.read(path)
        show(("\n" if number else "") + table([row for row in _rows(style) if row[1]]))
    return 0


def _rows(style):
    height, width = style.proportions
    origin = style.origin
    runs = {size.run: [] for size in style.sizes}
    for size in style.sizes:
        runs[size.run].append(str(size.size))
    settings = [f"--pooling {origin.pooling}"] * (origin.pooling != "max") + ["--compat"] * origin.compat
    return [
        ("style", style.name), ("picture", f"{width}×{height}"), ("network", origin.name),
        ("fingerprint", origin.fingerprint), ("input", str(origin.convention)), ("settings", " ".join(settings)),
        ("layers", ", ".join(f"{name} ({layer.channels})" for name, layer in style.layers.items())),
        ("sizes", "; ".join(f"{run} (at {', '.join(sizes)})" for run, sizes in runs.items())),
        ("bytes", f"{style.bytes:,}"), ("colours", _colours(style.preview())), ("saved by", f"cvstyle {style.version}"),
    ]  # fmt: skip


def _colours(preview):
    """The most frequent colours of a picture as #rrggbb, or "" without one."""
    import numpy as np
    from PIL import Image

    if preview is None:
        return ""
    image = Image.fromarray(np.rint(preview.rgb.clip(0, 255)).astype(np.uint8))
    image.thumbnail((64, 64))
    few = image.quantize(_COLOURS)
    palette = few.getpalette()
    counted = sorted(few.getcolors(), reverse=True)
    return " ".join("#{:02x}{:02x}{:02x}".format(*palette[3 * index : 3 * index + 3]) for _, index in counted)
