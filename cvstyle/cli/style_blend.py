"""`cvstyle style blend`: a saved style between others."""

from __future__ import annotations

import os

from ..errors import OptionError
from ..fields import as_path
from .common import shown
from .streams import show


def add_arguments(actions) -> None:
    """Add the action to the parsers of `cvstyle style`."""
    parser = actions.add_parser(
        "blend", help="make a style between several", allow_abbrev=False,
        description="Blend saved styles of one network, as --style-blend-weights blends pictures in a run.",
    )  # fmt: skip
    parser.set_defaults(execute=blend_styles)
    parser.add_argument(
        "files", metavar="FILE[:WEIGHT]", nargs="+", help="saved styles (.cvstyle), each with its weight (default: 1)"
    )
    parser.add_argument(
        "--as", dest="target", metavar="FILE", type=as_path, required=True, help="the new file, such as blend.cvstyle"
    )
    parser.add_argument("--force", action="store_true", help="replace a saved style that is there")


def blend_styles(args) -> int:
    """Run `cvstyle style blend`; returns the exit status."""
    from ..saved_style import SavedStyle, blend

    if len(args.files) < 2:
        raise OptionError("a blend needs two saved styles: cvstyle style blend a.cvstyle:3 b.cvstyle:7 --as c.cvstyle")
    paths, weights = zip(*map(_weighted, args.files))
    made = blend([SavedStyle.read(path) for path in paths], weights)
    check_target(args.target, args.force)
    made.write(args.target)
    sizes = ", ".join(dict.fromkeys(str(size.size) for size in sorted(made.sizes, key=lambda size: size.size)))
    show(f"{args.target}: {made.name}; {len(made.layers)} layers at {sizes} pixels, {made.bytes / 1e6:.1f} MB")
    return 0


def check_target(path: str, force: bool) -> None:
    """Raises an error where no saved style can be written, or something is there that stays."""
    from .. import style_file

    if os.path.lexists(path) and not style_file.is_saved_style(path):
        raise OptionError(f"{path}: something else than a saved style is there; name another file")
    if os.path.lexists(path) and not force:
        raise OptionError(f"{path}: this saved style exists; add --force to replace it, or name another file")
    style_file.check_writable(path)


def _weighted(word):
    """(path, weight) of FILE:WEIGHT; a file of that whole name counts first."""
    path, colon, weight = word.rpartition(":")
    if not colon or os.path.exists(as_path(word)):
        return as_path(word), 1.0
    try:
        return as_path(path), float(weight)
    except ValueError:
        if os.path.exists(as_path(path)):
            raise OptionError(f"{shown(word)}: {weight} is no number; a weight is one, as in a.cvstyle:3") from None
        return as_path(word), 1.0
