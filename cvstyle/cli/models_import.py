"""`cvstyle models import`: weights of another framework as a model for Caffe."""

from __future__ import annotations

import shlex

from ..errors import OptionError
from ..fields import as_path
from .common import say
from .streams import show

_MOST_SHOWN = 4


def add_arguments(actions) -> None:
    """Add the action to the parsers of `cvstyle models`."""
    parser = actions.add_parser(
        "import", help="make a model from another framework's file of weights", allow_abbrev=False,
        description="Make a .prototxt and a .caffemodel from weights in a file of PyTorch (.pth), safetensors, Keras "
        "(.h5), MatConvNet (.mat), NumPy (.npz, .npy), ONNX or Caffe. VGG and NIN are recognised by the shapes of "
        "their filters, and the classifier is left out; --proto names the prototxt of any other network.",
    )  # fmt: skip
    parser.set_defaults(execute=import_model)
    parser.add_argument("file", metavar="FILE", type=as_path, help="the file of weights")
    parser.add_argument(
        "--as", dest="architecture", metavar="NAME",
        help="the network, vgg19, vgg16, vgg13, vgg11 or nin, if its filters are not of the published numbers",
    )  # fmt: skip
    parser.add_argument("--proto", metavar="FILE", type=as_path, help="the prototxt of a network of any other kind")
    parser.add_argument(
        "--dir", metavar="DIR", type=as_path,
        help="the folder of the new files (default: that of models for a known one, else the current one)",
    )  # fmt: skip
    group = parser.add_argument_group("pictures that the network was trained with, where the file does not say it")
    group.add_argument(
        "--training", metavar="NAME",
        help="caffe: BGR 0..255 minus the mean; caffe-rgb: the same in RGB; torchvision: RGB 0..1 minus the mean, "
        "divided by σ",
    )  # fmt: skip
    group.add_argument("--channels", metavar="ORDER", help="bgr or rgb")
    group.add_argument("--mean", metavar="NUMBERS", help="the mean, of each channel in that order")
    group.add_argument("--std", metavar="NUMBERS", help="σ, of each channel in that order")
    group.add_argument("--range", metavar="NUMBER", help="white in these numbers: 255 (the default) or 1")


def import_model(args) -> int:
    """Run `cvstyle models import`; returns the exit status."""
    from ..zoo.assign import assign
    from ..zoo.conversion import write
    from ..zoo.convert import convert
    from ..zoo.training import stated
    from ..zoo.weights_file import read_weights

    if args.proto and args.architecture:
        raise OptionError("--as names a known network, and --proto the prototxt of any other; leave one out")
    training = stated(args.training, args.channels, args.mean, args.std, args.range)
    container = read_weights(args.file)
    made = assign(container, args.proto, training) if args.proto else convert(container, args.architecture, training)
    files = made.files(args.dir)
    new = write(made.net, *files, made.proto)
    show(f"{container.path}: {container.kind}, {made.title}")
    if made.training:
        show(f"trained with pictures {made.training}, {made.known_by}")
    if made.left_out:
        more = f", ... ({len(made.left_out)} tensors)" if len(made.left_out) > _MOST_SHOWN else ""
        show(f"left out: {', '.join(made.left_out[:_MOST_SHOWN])}{more}")
    for remark in made.remarks:
        say(remark)
    show(f"fingerprint {made.fingerprint}{_comparison(made.card)}")
    for path, is_new in zip(files, new, strict=True):
        show(f"{path}: {'written' if is_new else 'was already present'}")
    named = f"--model {made.card.name}" if made.card and not args.dir else files_as_options(*files)
    show(f"cvstyle run {named} --content photo.jpg --style painting.jpg")
    return 0


def _comparison(card):
    """The fingerprint's comparison with that of the known model whose name the files get."""
    if card is None:
        return ""
    return ", that of the published weights" if card.fingerprint else f"; that of {card.name} is not known to compare"


def files_as_options(proto: str, model: str) -> str:
    """The options of `cvstyle run` for a network's files."""
    return f"--proto {shlex.quote(proto)} --model {shlex.quote(model)}"
