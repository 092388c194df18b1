"""`cvstyle models normalise`: a network whose filters have a mean activation of 1."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OptionError
from ..fields import as_path
from .common import say
from .models_import import files_as_options
from .streams import show


def add_arguments(actions) -> None:
    """Add the action to the parsers of `cvstyle models`."""
    parser = actions.add_parser(
        "normalise", aliases=["normalize"], allow_abbrev=False,
        help="scale a model's filters to a mean activation of 1 over some pictures",
        description="Scale the filters of a network of convolutions, ReLU and pooling, such as VGG, to a mean "
        "activation of 1 over some pictures (Gatys, Ecker and Bethge 2015). Features stay the same but for one factor "
        "per channel. A classifier is left out. The files are NAME-normalised.prototxt and .caffemodel.",
    )  # fmt: skip
    parser.set_defaults(execute=normalise_model)
    parser.add_argument(
        "words", metavar="MODEL PICTURE", nargs="+", type=as_path,
        help="the name of a model that 'cvstyle models' lists, or a .prototxt and a .caffemodel; then pictures",
    )  # fmt: skip
    parser.add_argument(
        "--dir", metavar="DIR", type=as_path, help="the folder of the new files (default: the current one)"
    )
    parser.add_argument(
        "--pooling", metavar="{max,avg}", default="max", help="avg: average pooling, as in the network of Gatys et al."
    )
    parser.add_argument(
        "--image-size", metavar="N", type=int, default=512,
        help="the longest side of the pictures, in pixels (default: 512)",
    )  # fmt: skip
    parser.add_argument(
        "--floor", metavar="X", type=float, default=0.1,
        help="the smallest mean activation by which a channel is divided, as a share of its layer's (default: 0.1; 0: "
        "none, as Gatys et al. have it; then channels that are hardly active in the pictures are amplified)",
    )  # fmt: skip


def normalise_model(args) -> int:
    """Run `cvstyle models normalise`; returns the exit status."""
    from .. import zoo
    from ..graph import load_network
    from ..netdef import IMAGENET
    from ..normalise import normalised
    from ..zoo.conversion import write
    from ..zoo.fingerprint import fingerprint_of

    if args.pooling not in ("max", "avg"):
        raise OptionError(f"--pooling {args.pooling}: it is max or avg")
    if not 0 <= args.floor <= 1:
        raise OptionError(f"--floor {args.floor:g}: it is a share of a layer's mean activation, 0 to 1")
    if args.image_size < 1:
        raise OptionError(f"--image-size {args.image_size}: a number of pixels above zero is needed")
    _check_order(args.words)
    named = not args.words[0].lower().endswith(".prototxt")
    pictures = args.words[1:] if named else args.words[2:]
    if not pictures:
        raise OptionError("a model and at least one picture are needed: cvstyle models normalise vgg19-conv photo.jpg")
    proto, model = zoo.files_of(None if named else args.words[0], args.words[0] if named else args.words[1])
    network = load_network(proto, model)
    made = normalised(network, pictures, args.image_size, args.pooling, args.floor)
    stem = zoo.find(args.words[0]).name if named else Path(model).stem
    files = [os.path.join(args.dir or "", f"{stem}-normalised.{end}") for end in ("prototxt", "caffemodel")]
    new = write(made.net, *files)
    counted = "a picture" if len(pictures) == 1 else f"{len(pictures)} pictures"
    show(f"{stem}: {len(made.scales)} layers scaled to a mean activation of 1 over {counted}")
    raised = ", ".join(f"{count} of {name}" for name, count in made.raised.items() if count)
    if raised:
        share = f"{args.floor:g} of their layer's mean activation"
        say(
            f"channels with less than {share} in these pictures are scaled as if they had it: {raised}" if args.floor
            else f"channels that are zero in these pictures stay as they are: {raised}"
        )  # fmt: skip
    if made.left_out:
        show(f"left out: {', '.join(made.left_out)}")
    show(f"fingerprint {fingerprint_of(made.net)}")
    for path, is_new in zip(files, new, strict=True):
        show(f"{path}: {'written' if is_new else 'was already present'}")
    convention = network.convention
    options = files_as_options(*files)
    if (convention.channels, convention.mean) != (IMAGENET.channels, IMAGENET.mean):
        options += f" --channels {convention.channels} --mean {','.join(f'{n:g}' for n in convention.mean)}"
    show(f"cvstyle run {options} --content photo.jpg --style painting.jpg")
    return 0


def _check_order(words):
    """Raises OptionError for a file, other than a .prototxt, where the model is expected."""
    first = words[0]
    if os.path.isfile(first) and not first.lower().endswith(".prototxt"):
        raise OptionError(f"{first}: first comes the model, a name or a .prototxt and its .caffemodel, then pictures")
