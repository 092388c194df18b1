"""`cvstyle texture`: make a texture of pictures."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import replace
from itertools import chain

from ..control import Canvas
from ..errors import OptionError
from ..fields import BOOL, as_paths, options_of
from ..options import Compute, Files, Options, Reports
from . import plan, run
from .common import add_option, add_options, shown

_EXAMPLE = "cvstyle texture bricks.jpg --size 1024x512"


def add_arguments(parser):
    """Set up the verb's parser."""
    parser.description = (
        "Make a texture of one or more pictures, such as a photograph of bricks, in any size, and with --tile so that "
        "it repeats without a seam. It begins with noise, and the pictures keep their own size (--style-scale) unless "
        "they are larger than the texture."
    )
    parser.set_defaults(execute=execute)
    parser.add_argument("sources", nargs="*", type=as_paths, metavar="FILE", help="the picture, or several: blended")
    parser.add_argument("--plan", action="store_true", help="predict memory and time, as 'cvstyle plan', and end")
    classes = [Files, Canvas, Options, Compute, Reports]
    add_options(parser, classes, leave_out=lambda entry: entry.of_content or entry.name == "style")
    add_option(parser, replace(options_of(Files)["style"], default=None, help=argparse.SUPPRESS))
    for entry in (entry for cls in classes for entry in options_of(cls).values() if entry.of_content):
        nargs = "?" if entry.const is not None else 0 if entry.kind is BOOL else None
        settings = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS, "metavar": entry.metavar or entry.name}
        parser.add_argument(*entry.spellings, nargs=nargs, action=_OfPhotograph, **settings)


class _OfPhotograph(argparse.Action):
    """An option of `cvstyle run` that a texture has not."""

    def __call__(self, parser, namespace, values, option_string=None):
        if self.dest == "image_size":
            raise OptionError(f"{option_string} is the longest side of a photograph; for a texture say {_EXAMPLE}")
        raise OptionError(
            f"{option_string} is for a photograph, and a texture has none; leave it out, or paint a photograph: "
            "cvstyle run --content photo.jpg --style bricks.jpg"
        )


def execute(args) -> int:
    """Run `cvstyle texture`; returns the exit status."""
    args.style = [*chain.from_iterable(args.sources), *(args.style or [])]
    args.content = ""
    if not args.style:
        raise OptionError(_without_source(args))
    for source in args.style:
        if re.fullmatch(r"\d+( *[x×*] *\d+)?", source) and not os.path.exists(source):
            raise OptionError(f"{shown(source)} is a size, and there is no picture of that name; say --size {source}")
    if "output" not in args.given:
        stem = os.path.splitext(os.path.basename(args.style[0]))[0]
        args.output = f"{stem.lstrip('-*?') or 'out'}_texture.png"
    request = run.Request.of(args)
    request.canvas = Canvas(size=args.size)
    return plan.predict(request) if args.plan else run.carry_out(request, args.command_line)


def _without_source(args):
    """The message where no picture is named."""
    for name in sorted(args.given):
        value = getattr(args, name, None)
        if isinstance(value, str) and os.path.isfile(value):
            option = f"--{name.replace('_', '-')}"
            return f"no picture is named: {shown(value)} is the value of {option}; name the picture as well: {_EXAMPLE}"
    return f"no picture is named: {_EXAMPLE}"
