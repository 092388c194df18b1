"""`cvstyle info`: the layers of a network."""

from __future__ import annotations

import argparse

from ..fields import MODEL, options_of
from ..options import CONVENTION, Compute, Files, Options
from .common import add_option, add_options, table
from .streams import show


def add_arguments(parser):
    """Set up the verb's parser."""
    parser.description = (
        "List a network's layers: type, output shape, weights, receptive field in pixels, use (c: content, s: style)."
    )
    parser.set_defaults(execute=execute)
    add_options(parser, [Files, Options], [MODEL])
    parser.add_argument(
        "--image-size", type=_size, default=(512, 512), metavar="N or WxH",
        help="size of the picture (default: 512x512)",
    )  # fmt: skip
    parser.add_argument(
        "--timings", action="store_true",
        help="measure every step of the default layers, and show the engine that computes it",
    )  # fmt: skip
    parser.add_argument("--backend", default="auto", metavar="NAME", help="for --timings (default: auto)")
    parser.add_argument("--device", metavar="N or NAME", help="for --timings: device of the backend")
    parser.add_argument("--precision", default="fp32", metavar="NAME", help="for --timings, as for 'cvstyle run'")
    add_option(parser, options_of(Compute)["threads"])


def execute(args) -> int:
    """Carry out `cvstyle info`; returns the exit status."""
    from .. import zoo
    from ..caffe import read_net
    from ..convention import fitted
    from ..graph import Network
    from ..netdef import IMAGENET

    if args.timings:
        return _timings(args)
    definition = read_net(*zoo.files_of(args.proto, args.model))
    net = Network(fitted(definition, **_convention(args)), ops=None)
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
    show(net.definition.name or net.definition.source)
    show(table(rows))
    if net.convention != IMAGENET:
        show(f"input: {net.convention}")
    defaults, automatic = _default_layers(net, (height, width))
    note = f" (chosen from the network for {width}×{height})" if automatic else ""
    for kind in ("content_layers", "style_layers"):
        if defaults[kind]:
            show(f"default {kind.replace('_', ' ')}: {','.join(defaults[kind])}{note}")
    return 0


def _convention(args):
    return {name: getattr(args, name) for name in CONVENTION}


def _default_layers(net, size):
    """(the run's defaults, True if the layers were chosen for this size)."""
    from .. import zoo

    defaults = zoo.defaults(net.layer_names)
    chosen = {} if defaults["style_layers"] else zoo.choose_layers(net, [size])
    return defaults | chosen, bool(chosen)


def _timings(args):
    from .. import backends
    from ..backends import threads
    from ..graph import load_network
    from ..timings import measure

    threads.limit(args.threads)
    ops = backends.get(args.backend, args.device, args.precision)
    net = load_network(args.proto, args.model, ops, **_convention(args))
    width, height = args.image_size
    defaults, _ = _default_layers(net, (height, width))
    content, style = (defaults[kind] or net.layer_names[-1:] for kind in ("content_layers", "style_layers"))
    steps, whole = measure(net, content, style, (height, width))
    rows = [("step", "forward", "backward", "GFLOP/s", "engine")]
    for step in steps:
        seconds = sum(step.seconds)
        rows.append((
            " + ".join(step.names),
            *(f"{1e3 * s:.2f} ms" for s in step.seconds),
            f"{2 * step.operations / seconds / 1e9:.0f}" if step.operations else "",
            step.engine[0] if step.engine[0] == step.engine[1] else " / ".join(step.engine),
        ))  # fmt: skip
    both = [sum(step.seconds[i] for step in steps) for i in (0, 1)]
    rows.append(("losses", "", f"{1e3 * (whole - sum(both)):.2f} ms", "", ""))
    total = 4 * sum(step.operations for step in steps) / 2 / whole / 1e9
    rows.append(("in all", *(f"{1e3 * s:.2f} ms" for s in both), f"{total:.0f}", f"{1e3 * whole:.1f} ms an evaluation"))
    device = f"{ops.workers.count} threads" if ops.on_host else ops.device.name
    show(f"{net.definition.name}: {width}×{height}, {ops.name} backend, {device}")
    show(table(rows))
    if ops.autotune:
        show(f"Tiles and shares are the fastest of those tried on this device, kept in {ops.choices.path}")
    show("GFLOP/s are those of a direct convolution; Winograd's multiplies a quarter of that.")
    return 0


def _use(shape):
    """Possible use: content for any feature map, style for a map with several positions."""
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
    parts = text.lower().strip().removesuffix("px").replace("×", "x").split("x")
    try:
        width, height = (int(part) for part in (parts * 2 if len(parts) == 1 else parts))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 512 or 640x480") from None
    if min(width, height) < 1:
        raise argparse.ArgumentTypeError("a size is at least 1 pixel")
    return width, height
