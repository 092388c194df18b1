"""`cvstyle info`: what a network consists of."""

from __future__ import annotations

from ..errors import OptionError
from .common import add_network_arguments


def add_parser(subparsers):
    """Register the verb."""
    parser = subparsers.add_parser(
        "info", help="list the layers of a network", allow_abbrev=False,
        description="List a network's layers: type, output shape, weights, receptive field in pixels, and use: c where "
        "a layer can serve for content, s for style.",
    )  # fmt: skip
    parser.set_defaults(execute=execute, parser=parser)
    add_network_arguments(parser)
    parser.add_argument(
        "--image-size",
        type=_size,
        default=(512, 512),
        metavar="N or WxH",
        help="size of the picture (default: 512x512)",
    )


def execute(args) -> int:
    """Carry out `cvstyle info`; returns the exit status."""
    from .. import zoo
    from ..caffe import read_net
    from ..network import Network

    if args.model and not args.proto:
        raise OptionError("--model needs --proto, the prototxt that belongs to it")
    net = Network(read_net(*((args.proto, args.model) if args.proto else zoo.embedded_files())), ops=None)
    width, height = args.image_size
    shapes = net.shapes((height, width), strict=False)
    fields = net.receptive_fields()
    rows = [("layer", "type", f"output at {width}×{height}", "weights", "field", "use")]
    for node in net.nodes:
        layer = node.definition
        shape = shapes.get(node.tops[0]) if node.tops else None
        field = fields.get(node.tops[0]) if node.tops else None
        weights = net.parameter_count(layer.name)
        rows.append((
            layer.name,
            layer.type,
            "×".join(map(str, shape[1:])) if shape else "does not run at this size",
            f"{weights:,}" if weights else "",
            _field(field),
            _use(shape),
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print(net.definition.name or net.definition.source)
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    known = zoo.defaults(net.layer_names)
    for kind in ("content_layers", "style_layers"):
        if known.get(kind):
            print(f"default {kind.replace('_', ' ')}: {','.join(known[kind])}")
    return 0


def _use(shape):
    """Any feature map can serve for content; for style it needs positions to average over."""
    if not shape:
        return ""
    return "c s" if len(shape) == 4 and shape[2] * shape[3] > 1 else "c"


def _field(field):
    if field is None:
        return ""
    if field.size is None:
        return "all"
    return str(field.size[0]) if field.size[0] == field.size[1] else f"{field.size[1]}×{field.size[0]}"


def _size(text):
    """(width, height) from "512" or "640x480"."""
    import argparse

    parts = text.lower().replace("×", "x").split("x")
    try:
        width, height = (int(part) for part in (parts * 2 if len(parts) == 1 else parts))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 512 or 640x480") from None
    if min(width, height) < 1:
        raise argparse.ArgumentTypeError("a size is at least 1 pixel")
    return width, height
