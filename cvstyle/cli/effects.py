"""Options of a command line that contradict each other, or have no effect because of others."""

from __future__ import annotations

from collections.abc import Iterator, Set

from ..errors import OptionError
from ..fields import options_of
from ..losses import parse_layer
from ..options import Options, Reports


def check_sizes(given: Set[str], options: Options) -> None:
    """Raises OptionError if an image size is given and is not the last of the scales."""
    longest = options.schedule(1)[-1][0]
    if "image_size" in given and options.image_size != longest:
        size = options.image_size or "original"
        raise OptionError(f"--image-size is {size} and --scales ends with {longest}; leave one of them out")


def without_effect(given: Set[str], options: Options, reports: Reports, styles: int) -> Iterator[str]:
    """A sentence for each option in `given` (names) without effect, and for losses that weigh nothing."""
    optimizer = options.optimizer
    for name, fitting in _OF_OPTIMIZERS.items():
        if name in given and optimizer not in fitting:
            yield f"{_spelling(name)} has no effect with --optimizer {optimizer}, only with {' or '.join(fitting)}"
    if "checkpoint_iter" in given and not options.checkpoint:
        yield "--checkpoint-iter has no effect without --checkpoint"
    if "print_iter" in given and reports.quiet:
        yield "--print-iter has no effect with --quiet"
    if "num_iterations" in given and options.scale_iterations and "scale_iterations" in given:
        yield "--num-iterations has no effect with --scale-iterations"
    if options.style_blend_weights is not None and styles == 1:
        yield "--style-blend-weights has no effect with one style"
    elif options.style_blend_weights is not None and options.mask and not options.style_mask:
        yield "--style-blend-weights has no effect with a mask for each style; --region-weights has"
    for name in ("mask_mode", "mask_feather", "region_weights", "region_content"):
        if name in given and not options.mask:
            yield f"{_spelling(name)} has no effect without --mask"
    for name, weight in _WEIGHT_OF.items():
        if name in given and getattr(options, weight) == 0:
            yield f"{_spelling(name)} has no effect with {_spelling(weight)} 0"
    yield from _weightless(options)


_OF_OPTIMIZERS = {
    "learning_rate": ("adam",), "lbfgs_num_correction": ("lbfgs", "lbfgsb"), "lbfgs_smooth": ("lbfgs",),
}  # fmt: skip


_WEIGHT_OF = {
    "content_layers": "content_weight", "style_layers": "style_weight", "style_loss": "style_weight",
    "laplacian_pool": "laplacian", "tv_per_pixel": "tv_weight",
}  # fmt: skip


def _spelling(name):
    return options_of(Options)[name].spellings[0]


def _weightless(options):
    nothing = {
        kind: getattr(options, f"{kind}_weight") == 0 or _all_zero(getattr(options, f"{kind}_layers"))
        for kind in ("content", "style")
    }
    if nothing["style"]:
        everything = nothing["content"] and options.tv_weight == 0 and options.laplacian == 0
        yield (
            "all weights are 0, so the result is the picture that the run starts from" if everything else
            "the weight of style is 0, so the style pictures have no effect"
        )  # fmt: skip


def _all_zero(layers):
    return bool(layers) and all(parse_layer(entry)[1] == 0 for entry in layers)
