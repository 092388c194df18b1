"""`cvstyle style`: save the styles of paintings in files, show and blend these."""

from __future__ import annotations

from ..errors import OptionError
from . import style_blend, style_info, style_save


def add_arguments(parser):
    """Set up the verb's parser."""
    parser.description = (
        "Save the style of a painting in a small file, which runs take in its place: --style monet.cvstyle. Nothing of "
        "the painting is computed again."
    )
    parser.set_defaults(execute=_without_action)
    actions = parser.add_subparsers(title="actions", metavar="save|info|blend")
    for module in (style_save, style_info, style_blend):
        module.add_arguments(actions)


def _without_action(args):
    raise OptionError("say what to do with a style: cvstyle style save painting.jpg --as painting.cvstyle")
