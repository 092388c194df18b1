"""`cvstyle info`: the layers of a network."""

from __future__ import annotations

import argparse
from dataclasses import replace

from ..errors import ModelError, ShapeError
from ..fields import MODEL, options_of
from ..options import CONVENTION, Compute, Files, Options
from .common import add_option, add_options, table
from .streams import show

_SIZE = "does not run at this size"
_REFUSED = "cannot run"
_MOST_CAUSES = 8  # reasons that are listed


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
    from ..graph import Network
    from ..losses import parse_layer
    from ..netdef import IMAGENET

    if args.timings:
        return _timings(args)
    width, height = args.image_size
    size = (height, width)
    definition, refusal = _definition(read_net(*zoo.files_of(args.proto, args.model)), _convention(args), size)
    net = Network(definition, ops=None)
    shapes, faults, bare = net.examine(size)
    reasons = _reasons(net, faults, size)
    usable = {} if refusal else _usable(net, size)
    fields = net.receptive_fields()
    rows = [("layer", "type", f"output at {width}×{height}", "weights", "field", "use")]
    for index, node in enumerate(net.nodes):
        layer = node.definition
        value = node.tops[0]
        reason = reasons.get(index)
        weights = net.parameter_count(layer.name)
        rows.append((
            layer.name,
            layer.type,
            reason or "×".join(map(str, shapes[value][1:])),
            f"{weights:,}" if weights else "",
            _field(fields.get(value)) if reason in (None, _SIZE) else "",
            _use(None if reason else usable.get(value)),
        ))  # fmt: skip
    show(net.definition.name or net.definition.source)
    show(table(rows))
    for note in _notes(net, faults, reasons, bare, refusal):
        show(note)
    if refusal:
        return 0
    if net.convention != IMAGENET:
        show(f"input: {net.convention}")
    defaults, automatic = _default_layers(net, size)
    note = f" (chosen from the network for {width}×{height})" if automatic else ""
    for preset in zoo.PRESETS if defaults["style_layers"] else ():
        layers = zoo.preset_layers(preset, net, list(map(parse_layer, defaults["style_layers"])), [size])
        show(f"--style-layers {preset}: {zoo.listed(layers)}")
    for kind in ("content_layers", "style_layers"):
        if defaults[kind]:
            show(f"default {kind.replace('_', ' ')}: {','.join(defaults[kind])}{note}")
    return 0


def _definition(definition, convention, size):
    """(the net as a run takes it, None), or else (the net with the inputs that it has, why a run refuses it)."""
    from ..convention import fitted, input_channels

    try:
        return fitted(definition, **convention), None
    except ModelError as error:
        inputs = {
            name: (1, input_channels(definition, name) or 3, *size) if shape is None else shape
            for name, shape in definition.inputs.items()
        }
        return replace(definition, inputs=inputs), error


def _reasons(net, faults, size):
    """Number of a node → why it has no output at this (height, width), for all that have none."""
    at_fault = {}  # value → the first node that keeps it from being computed
    reasons = {}
    elsewhere = None
    for index, node in enumerate(net.nodes):
        first = next((at_fault[b] for b in node.bottoms if b in at_fault), None)
        if first is None and index not in faults:
            continue
        at_fault.update(dict.fromkeys(node.tops, index if first is None else first))
        if first is not None:
            needed = net.nodes[first].definition.name
            reasons[index] = _SIZE if reasons[first] == _SIZE else f"needs '{needed}'"
        elif not isinstance(faults[index], ShapeError):
            reasons[index] = _REFUSED
        else:
            elsewhere = elsewhere or [net.examine(other)[0] for other in _other_sizes(net, size)]
            runs = any(node.tops[0] in shapes for shapes in elsewhere)
            reasons[index] = _SIZE if runs else _REFUSED
    return reasons


def _other_sizes(net, size):
    """Sizes at which layers may run that do not run at this one: the file's, usual ones, SegNet's, and a large one."""
    stated = [shape[2:] for shape in net.definition.inputs.values() if shape is not None and len(shape) == 4]
    usual = [(360, 480), *((n, n) for n in (224, 227, 299, 321, 513, 1024, 4096))]
    return [other for other in (*stated, *usual) if other != size]


def _usable(net, size):
    """Value → its shape for a picture of this (height, width), for the values that depend on one picture alone.

    Those from which no gradient reaches the picture are left out.
    """
    shapes = net.shapes(size, strict=False)
    inputs = {value: {value} for value in range(len(net.input_names))}
    for node in net.nodes:
        found = set().union(*(inputs.get(b, ()) for b in node.bottoms))
        inputs.update(dict.fromkeys(node.tops, found))
    stops = net.gradient_stops()
    return {value: shape for value, shape in shapes.items() if len(inputs[value]) == 1 and value not in stops}


def _notes(net, faults, reasons, bare, refusal):
    """The lines below the table that give reasons."""
    if refusal:
        yield f"a run refuses this network: {_without_source(refusal, net)}"
    causes = [_without_source(faults[index], net) for index in faults if reasons[index] == _REFUSED]
    yield from causes[:_MOST_CAUSES]
    if len(causes) > _MOST_CAUSES:
        yield f"and {len(causes) - _MOST_CAUSES} more layers that cannot run"
    if bare and net.definition.weights_source:
        more = f" and {len(bare) - _MOST_CAUSES} more" if len(bare) > _MOST_CAUSES else ""
        yield f"layers without weights in the model: {', '.join(bare[:_MOST_CAUSES])}{more}"


def _without_source(error, net):
    """An error's message without the name of the file, which the table is of."""
    return error.command_line.removeprefix(f"{net.definition.source}: ")


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
