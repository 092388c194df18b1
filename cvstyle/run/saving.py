"""Saving of styles: the moments of a painting at the sizes that runs want, measured as a run measures them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from .. import images, losses, paths, saved_style, style_file, zoo
from ..errors import ImageError, OptionError, ShapeError
from ..fields import SCALES, as_path
from ..graph import Network, load_network
from ..losses.style.moments import Moments
from ..options import Options
from ..saved_style import Layer, Origin, SavedStyle, Size
from ..schedule import doubled
from ..style import measure_styles
from .style_layers import without_presets

AUTO_SIZES = (256, 512, 1024)
SMALLEST = 64  # pixels: the first scale of a run is of 128 or more, with --style-scale 0.5 of half as many
_PIECE = 1 << 20


def save_style(
    path, picture, *, proto: str | None = None, model: str | None = None, backend="auto",
    network: Network | None = None, sizes: Sequence[int] | str = "auto", options: Options | None = None, **settings,
) -> SavedStyle:  # fmt: skip
    """Save the style of a picture, which any run with the network then takes in place of the picture.

    path: the new file, NAME.cvstyle; None writes none. picture, proto, model, backend, network, options, settings: as
    for `stylize`; of the options style_layers, pooling, compat, tile_size and the network's matter. sizes: the sizes of
    results, for each of which the sizes of its coarser scales, from 64 pixels on, are kept too; "auto": 256,512,1024.

    A run gives the bytes that it would give with the picture where it has one of these sizes, the same backend, number
    of threads and tiles; at other sizes moments are interpolated. Raises ImageError, ModelError and OptionError.
    """
    if options is not None and settings:
        raise OptionError(f"options and {', '.join(settings)} are both given; put all settings into the options")
    options = Options.from_dict(settings) if options is None else options
    if network is None:
        network = load_network(*zoo.files_of(proto, model), backend, **options.convention)
    if path is None:
        return Saver(network, options, sizes).save(picture)
    path = as_path(path)
    style_file.check_writable(path)
    Saver(network, options, sizes).save(picture).write(path)
    return SavedStyle.read(path)


@dataclass
class Saver:
    """Saves styles with one network. sizes: see `save_style`. Raises OptionError for invalid sizes."""

    network: Network
    options: Options
    sizes: Sequence[int] | str = "auto"

    def __post_init__(self):
        self.options.check_values()
        try:
            sizes = SCALES.convert(self.sizes)
        except (ArithmeticError, TypeError, ValueError):
            sizes = []
        sizes = AUTO_SIZES if sizes == "auto" else sizes
        if not sizes or not all(1 <= size <= saved_style.LONGEST_SIDE for size in sizes):
            raise OptionError(f"--sizes is {self.sizes}; auto, or sizes such as 256,512, are needed")
        self.sizes = sorted(set(sizes))
        if self.options.tile_size == "auto":
            raise OptionError("--tile-size auto depends on a run; give a number of pixels to save a style")
        self.network = self.network.with_pooling(self.options.pooling)

    @cached_property
    def origin(self) -> Origin:
        """The network, as it is kept in the styles."""
        return Origin.of(self.network, self.options.compat)

    def is_same(self, style: SavedStyle, picture) -> bool:
        """True for a style that `save` would give for a picture, as far as can be told without measuring it."""
        wanted = {Size(run, size) for run in self.sizes for size in doubled(run, SMALLEST)}
        origin = (style.origin.fingerprint, style.origin.convention, style.origin.pooling, style.origin.compat)
        own = (self.origin.fingerprint, self.origin.convention, self.origin.pooling, self.origin.compat)
        layers = self._layers([style.proportions])
        largest = {size for size in wanted if size.size == size.run}
        return (
            style.source == _source(picture) != "" and origin == own and list(style.layers) == layers
            and largest <= set(style.sizes) <= wanted
        )  # fmt: skip

    def save(self, picture, role: str = "style") -> SavedStyle:
        """The style of a picture of any form. role: its name where it has none."""
        compat = self.options.compat
        is_path = isinstance(picture, (str, os.PathLike))
        role = as_path(picture) if is_path else role
        source = _source(picture)
        if saved_style.style_of(picture) is not None:
            raise ImageError(f"{role}: this is a saved style already; give a picture")
        if is_path and paths.is_stream(role):
            picture = images.as_picture(picture, role)  # it can be read once
        moments = {}
        layers = None
        for run in reversed(self.sizes):

            def fit(height, width, run=run):
                return images.target_size(height, width, run, compat)

            read = images.filled(images.as_picture(picture, role, fit), role)
            layers = layers or self._layers([read.proportions])
            for size in reversed(doubled(run, SMALLEST)):
                found = self._measure(read, size, layers, bool(moments))
                if found:
                    moments[Size(run, size)] = found
            proportions = read.proportions
            thumbnail = saved_style.thumbnail(read)
        return saved_style.pack(
            os.path.basename(role), source, proportions, self.origin, self._records(layers, moments), moments, thumbnail
        )

    def _layers(self, proportions):
        """The style layers of the options or the network, or those that runs of any of the sizes choose."""
        net = self.network
        compat = self.options.compat
        sizes = [[images.target_size(*each, run, compat) for each in proportions] for run in reversed(self.sizes)]
        layers = zoo.defaults(net.layer_names, compat)["style_layers"]
        if layers is None:
            chosen = {}
            for own in sizes:
                chosen |= dict.fromkeys(zoo.choose_layers(net, own).get("style_layers", ()))
            layers = [name for name in net.layer_names if name in chosen]
        if self.options.style_layers:
            options, _ = without_presets(self.options, net, layers, list(chain.from_iterable(sizes)))
            layers = options.style_layers or layers
        layers = losses.layer_names({"style_layers": layers})
        if not layers:
            raise OptionError(
                f"{net.definition.source}: no layer for style is known; say which with --style-layers ('cvstyle info' "
                "lists them)"
            )
        return layers

    def _measure(self, picture, size, layers, optional):
        """Layer → moments at a size. optional: layers for which the picture is too small are left out."""
        resized = images.resized(
            picture, images.target_size(*picture.proportions, size, self.options.compat), self.options.compat
        )
        white = 256.0 if self.options.compat else 255.0
        x = images.preprocess(resized.rgb, white, self.network.convention)

        def measured(names):
            terms = [_Measured(name, name, 1.0) for name in names]
            tile_size = self.options.tile_size
            return measure_styles(self.network, terms, [x], None, tile_size, masks=[resized.alpha]).statistics

        try:
            return measured(layers)
        except (ImageError, ShapeError):
            if not optional:
                raise
        found = {}
        for name in layers:
            try:
                found |= measured([name])
            except (ImageError, ShapeError):
                continue
        return found

    def _records(self, layers, moments):
        """Layer → `Layer` of what is kept."""
        fingerprints = self.network.fingerprints(layers)
        channels = {name: found.shape[1] for each in moments.values() for name, found in each.items()}
        return {
            name: Layer(channels[name], fingerprints[name], self.network.program([name]).max_pools) for name in layers
        }


class _Measured(Moments):
    """The moments of a layer, G and μ."""

    means = True


def _source(picture):
    """The digest of a picture's file, 16 hexadecimal digits; "" for another form of a picture."""
    if not isinstance(picture, (str, os.PathLike)):
        return ""
    path = as_path(picture)
    if not os.path.isfile(path):
        return ""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(_PIECE):
                found.update(piece)
    except OSError:  # reading the picture says why
        return ""
    return found.hexdigest()[:16]
