"""Sentences on decisions of a setup that may surprise."""

from __future__ import annotations

from collections.abc import Iterator

from .. import losses
from ..graph.periodic import periodic
from ..netdef import IMAGENET
from ..objective import fits
from ..regions import layers_without_inside
from . import styles


def remarks_on(setup) -> Iterator[str]:
    """One line for each decision that may surprise, without those on pictures."""
    convention = setup.net.convention
    chosen = setup.chosen_layers
    options = setup.options
    yield from styles.remarks(setup)
    if setup.resumed and options.seed not in (None, setup.seed) and options.seed >= 0:
        yield f"--seed {options.seed} has no effect: {options.checkpoint} goes on with seed {setup.seed}"
    if setup.resumed and options.init_image:
        yield f"--init-image has no effect: the run goes on with the picture in {options.checkpoint}"
    if options.pooling == "avg" and not setup.program().max_pools:
        yield "--pooling avg has no effect: the layers of this run are above no max pooling"
    if convention != IMAGENET:
        colours = "; the colours stay the content's" if convention.luminance else ""
        yield f"pictures enter the network as {convention}{colours}"
    height, width = size = setup.padded_sizes[-1]
    for loss in losses.create(setup.loss_settings):
        if loss.layer is None and not fits(loss, size, options.wrap):
            yield f"the loss {loss.name} has no effect: a picture of {width}×{height} is too small for it"
    yield from _on_inside(setup)
    if chosen:
        sources = "; ".join(f"{name.removesuffix('_layers')} from {','.join(chosen[name])}" for name in chosen)
        others = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
        verb = "name" if len(chosen) > 1 else "names"
        yield f"{sources} (chosen from the network; {others} {verb} others)"


def _on_inside(setup):
    """Sentences on layers of the last scale in which too few positions see a region alone."""
    regions = [region for region in setup.regions if region.inside]
    if not regions:
        return
    program = setup.net.with_pooling(setup.options.pooling).program(setup.style_layers)
    last = len(setup.sizes) - 1
    for region in regions:
        region = region.resized(setup.sizes[last], setup.style_sizes(last), setup.margins)
        parts = {"the content": region.mask} | {f"style {n + 1}": part for n, part in region.styles.items()}
        for where, mask in parts.items():
            if mask is None:
                continue
            seen = periodic(program, mask.shape, setup.options.wrap, mirrored=where != "the content")
            layers = layers_without_inside(mask, program, seen)
            if layers:
                yield (
                    f"--mask-mode inside: no position of {', '.join(layers)} sees region '{region.name}' of {where} "
                    "alone, so there it counts as with simple"
                )
