"""`cvstyle style save`: the styles of pictures, or of a folder of them, as files."""

from __future__ import annotations

import os
from contextlib import suppress

from ..errors import CvstyleError, OptionError
from ..fields import as_path, as_paths, options_of
from ..options import Compute, Files, Options
from . import inputs
from .common import add_option, say, settings_of
from .streams import show
from .style_blend import check_target

_ENDING = ".cvstyle"
_OPTIONS = {
    Files: ("proto", "model"),
    Options: ("style_layers", "pooling", "mean", "input_scale", "channels", "compat", "tile_size"),
    Compute: tuple(options_of(Compute)),
}


def add_arguments(actions) -> None:
    """Add the action to the parsers of `cvstyle style`."""
    parser = actions.add_parser(
        "save", help="save the styles of pictures", allow_abbrev=False,
        description="Save the style of a picture, of several, or of all in a folder, for a network. A file that is "
        "there already is kept, so the same command goes on where it was interrupted.",
    )  # fmt: skip
    parser.set_defaults(execute=save_styles)
    parser.add_argument("pictures", metavar="PICTURE", nargs="+", type=as_paths, help="pictures, or folders of them")
    parser.add_argument(
        "--as", dest="target", metavar="FILE|FOLDER", type=as_path, required=True,
        help="the new file, such as monet.cvstyle; for several pictures a folder, which is made",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", metavar="auto|N,N", default="auto",
        help="sizes of results (--image-size) for which the style is the picture's to the last bit; between them it is "
        "interpolated (default: auto, 256,512,1024)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    group = parser.add_argument_group("network and devices, as for 'cvstyle run'")
    for kind, names in _OPTIONS.items():
        for name in names:
            add_option(group, options_of(kind)[name])


def save_styles(args) -> int:
    """Run `cvstyle style save`; returns the exit status."""
    from .. import zoo
    from ..backends import threads
    from ..graph import load_network
    from ..run.saving import Saver

    pictures, in_folder = _pictures(args.pictures)
    targets = _targets(pictures, args.target, in_folder)
    options = settings_of(Options, args)
    compute = settings_of(Compute, args)
    files = zoo.files_of(args.proto, args.model)
    threads.limit(compute.threads)  # also resets the limit of an earlier command line
    network = load_network(*files, compute.devices(options, say)[0], **options.convention)
    saver = Saver(network, options, args.sizes)
    if in_folder:
        _make_folder(args.target)
    failed = []
    for number, (picture, target) in enumerate(zip(pictures, targets), 1):
        count = f"{number}/{len(pictures)} " * (len(pictures) > 1)
        try:
            show(count + _save(saver, picture, target, args.force))
        except CvstyleError as error:
            if not in_folder:
                raise
            say(error.command_line)
            failed.append(picture)
    if failed:
        say(f"{len(failed)} of {len(pictures)} pictures have no style: {', '.join(map(os.path.basename, failed))}")
    return 2 if failed else 0


def _save(saver, picture, target, force):
    """Save a picture's style, unless that is done; returns the line that says it."""
    from .. import style_file
    from ..saved_style import SavedStyle

    if style_file.is_saved_style(target) and not force:
        with suppress(CvstyleError):
            if saver.is_same(SavedStyle.read(target), picture):
                return f"{target}: was already present"
        raise OptionError(
            f"{target}: this file exists, and is not the style of {picture} by this network at these sizes; --force "
            "replaces it"
        )
    check_target(target, force)
    style = saver.save(picture)
    style.write(target)
    sizes = ", ".join(map(str, saver.sizes))
    return f"{target}: {len(style.layers)} layers for results of {sizes} pixels, {style.bytes / 1e6:.1f} MB"


def _pictures(words):
    """(paths of the pictures, True where there are several or a folder is named). Raises OptionError."""
    found = []
    in_folder = False
    for path in inputs.pictures("PICTURE", [path for word in words for path in word]):
        if not os.path.isdir(path):
            found.append(path)
            continue
        in_folder = True
        inside = (os.path.join(path, name) for name in sorted(os.listdir(path)) if not name.startswith("."))
        inside = [file for file in inside if os.path.isfile(file) and not file.lower().endswith(_ENDING)]
        if not inside:
            raise OptionError(f"{path}: there is no picture in this folder; name another")
        found += inside
    found = list(dict.fromkeys(found))
    return found, in_folder or len(found) > 1


def _targets(pictures, target, in_folder):
    """The new file of each picture. Raises OptionError for a file where a folder is needed, and the other way round."""
    is_folder = os.path.isdir(target) or target.endswith(("/", os.sep))
    if in_folder and not is_folder and (os.path.lexists(target) or target.lower().endswith(_ENDING)):
        raise OptionError(f"--as {target} is one file, and there are several pictures; name a folder: --as styles/")
    if not (in_folder or is_folder):
        return [target]
    stems = [os.path.splitext(os.path.basename(path))[0] for path in pictures]
    names = [
        stem if stems.count(stem) == 1 else os.path.basename(path) for stem, path in zip(stems, pictures, strict=True)
    ]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise OptionError(f"two of the pictures are called {repeated}; save them into folders of their own")
    return [os.path.join(target, name + _ENDING) for name in names]


def _make_folder(path):
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--as {path}: no folder can be made there ({error.strerror}); name another") from None
