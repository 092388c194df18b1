"""Saved styles: the moments of a painting at several sizes, which stand for the painting in any run.

Kept is, for each size and style layer, what every style loss is a function of (`losses.style.moments`): G, by its upper
triangle row by row, and μ, as little endian float32. A size has two numbers: "size", the longest side of the painting
that was measured, and "run", that for which it was read. A run reads a painting once, for its result, and reduces it
for coarser scales, so the same size has slightly other pixels in runs of other sizes, and each is kept.

The header (`style_file`) has: "cvstyle", the version; "name" and "source", the painting's name and the digest of its
file; "proportions", its (height, width); "compat", its interpolation and range of values; "network", the name, the
fingerprint and the convention of the network; "pooling"; "layers", each with a name, "channels", the fingerprint of its
function and "pooled", true where this depends on the kind of pooling; "moments", each with "run", "size" and for every
layer the number of its blob, or null; "thumbnail", the number of a JPEG, or null.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from . import __version__, images, style_file
from .errors import CvstyleError, OptionError
from .losses import Loss
from .netdef import Convention, NetDef
from .style_file import StyleFile

_MOST_LAYERS = 1000
_MOST_CHANNELS = 1 << 13
LONGEST_SIDE = 1 << 20  # pixels
_LONGEST_TEXT = 1000  # characters
_THUMBNAIL = 128
_NUMBER = np.dtype("<f4")


class Layer(NamedTuple):
    """A layer that is kept: its channels, the fingerprint of its function, and True where that depends on pooling."""

    channels: int
    fingerprint: str
    pooled: bool


@dataclass(frozen=True)
class Origin:
    """The network that measured a style, by its name, fingerprint and convention, the kind of its pooling, and `compat`
    (see `Options`)."""

    name: str
    fingerprint: str
    convention: Convention
    pooling: str
    compat: bool

    @classmethod
    def of(cls, net, compat: bool) -> Origin:
        """The origin of what a network measures."""
        return cls(network_name(net.definition), _fingerprint(net.definition), net.convention, net.pooling, compat)


class Size(NamedTuple):
    """A size that is kept: the longest side for which the painting was read, and that which was measured."""

    run: int
    size: int


class SavedStyle:
    """A saved style, which stands for a picture wherever styles are given. It can be pickled.

    name: the painting's. proportions: its (height, width). origin: the network. layers: name → `Layer`. sizes: those
    that are kept. digest: 16 hexadecimal digits for all that is in it. bytes: the size of its file.
    """

    remarks = ()

    def __init__(self, data, path: str = "the saved style"):
        """data: the bytes of a file. path: its name in messages. Raises ImageError for bytes that are none."""
        self._open(data if isinstance(data, StyleFile) else StyleFile(data, path))

    @classmethod
    def read(cls, path: str | os.PathLike) -> SavedStyle:
        """Map a file. Raises ImageError for a file that is damaged or no saved style."""
        return cls(style_file.read(os.fspath(path)))

    def _open(self, file):
        self._file = file
        self.digest = file.digest
        self.bytes = len(file.view)
        check = _Checked(file, file.header)
        self.name = check.text("name")
        self.source = check.text("source")
        self.version = check.text("cvstyle")
        self.proportions = tuple(check.numbers("proportions", 2, 1, 1 << 31))
        self.origin = check.origin()
        self.layers = check.layers()
        self._blobs: dict[Size, dict[str, int]] = check.moments(self.layers)
        self._thumbnail = file.header.get("thumbnail")
        if self._thumbnail is not None:
            file.length(check.number("thumbnail", 0, 1 << 20))

    def __reduce__(self):
        return type(self), (bytes(self._file.view), self._file.path)

    @property
    def path(self) -> str:
        """The file's name."""
        return self._file.path

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the painting in pixels."""
        return self.proportions

    @property
    def sizes(self) -> list[Size]:
        """The sizes that are kept, those of small runs first."""
        return sorted(self._blobs)

    @property
    def thumbnail(self) -> bytes | None:
        """A JPEG of the painting, at most 128 pixels long; None without one."""
        return None if self._thumbnail is None else bytes(self._file.blob(self._thumbnail))

    def preview(self) -> images.Picture | None:
        """The thumbnail as a picture; None without one, or for a damaged or larger one."""
        from PIL.JpegImagePlugin import JpegImageFile

        try:
            with JpegImageFile(io.BytesIO(self.thumbnail or b"")) as found:  # Image.open warns of large ones, or fails
                return images.as_picture(found, self.path) if max(found.size) <= _THUMBNAIL else None
        except (OSError, SyntaxError, ValueError, CvstyleError):  # Pillow's and our own errors for such files
            return None

    def write(self, path: str | os.PathLike) -> None:
        """Write the file, atomically. Raises ImageError."""
        style_file.write(os.fspath(path), self._file.view)

    def at(self, size: int, run: int | None = None) -> SizedStyle:
        """The style of the painting with this longest side in pixels, as an entry of the styles of `Objective`.

        run: the longest side of the painting at the result of a run (see above); None: the same.
        """
        return SizedStyle(self, Size(run or size, size))

    def moments(self, layer: str, size: Size) -> np.ndarray:
        """G and, as the last row, μ of a layer: (C + 1, C) float32.

        Between sizes that are kept it is interpolated linearly in the logarithm of the size; beyond them it is that of
        the nearest one. Raises ImageError for numbers that are damaged.
        """
        kept = [found for found, blobs in self._blobs.items() if layer in blobs]
        near = {found: abs(math.log(found.run / size.run)) for found in kept}
        ends = min(found.size for found in kept), max(found.size for found in kept)
        wanted = min(max(size.size, ends[0]), ends[1])
        lower = max((found for found in kept if found.size <= wanted), key=lambda s: (s.size, -near[s], s.run))
        upper = min((found for found in kept if found.size >= wanted), key=lambda s: (s.size, near[s], -s.run))
        low = self._kept(layer, lower)
        if lower == upper or lower.size == upper.size:
            return low
        part = math.log(wanted / lower.size) / math.log(upper.size / lower.size)
        return low + np.float32(part) * (self._kept(layer, upper) - low)

    def _kept(self, layer, size):
        numbers = np.frombuffer(self._file.blob(self._blobs[size][layer]), _NUMBER)
        if not np.isfinite(numbers).all():
            self._file.fail("it has numbers that are not finite")
        channels = self.layers[layer].channels
        result = np.empty((channels + 1, channels), np.float32)
        for row in range(channels):
            end = channels - row
            result[row, row:] = result[row:-1, row] = numbers[:end]
            numbers = numbers[end:]
        result[-1] = numbers
        return result

    def remark(self, sizes: Sequence[int]) -> str:
        """A sentence for a run that wants these sizes where some are not within those that are kept, or ""."""
        kept = sorted({found.size for found in self._blobs})
        outside = max(sizes) if max(sizes) > kept[-1] else min(sizes)
        if kept[0] <= outside <= kept[-1]:
            return ""
        word, nearest = ("largest", kept[-1]) if outside > kept[-1] else ("smallest", kept[0])
        wanted = ",".join(map(str, sorted({outside, *(found.run for found in self._blobs)})))
        return (
            f"{self.path}: {nearest} pixels is the {word} size that is kept, and it stands for {outside}; "
            f"'cvstyle style save PICTURE --as FILE --sizes {wanted}' keeps that one too"
        )

    def check(self, net, layers: Sequence[str]) -> None:
        """Raises OptionError where layers of a network are not kept, or compute another function."""
        shared = [name for name in self.layers if name in net.layer_names]
        names = [name for name in shared if name in layers] or shared
        same = net.fingerprints(names) if names else {}
        if not names or any(same[name] != self.layers[name].fingerprint for name in names):
            raise OptionError(
                f"{self.path}: this style was saved with the network {self.origin.name} (fingerprint "
                f"{self.origin.fingerprint}), and the run has {network_name(net.definition)} (fingerprint "
                f"{_fingerprint(net.definition)}); give --proto and --model of the one that saved it, or "
                f"{_way_out('this network')}"
            )
        missing = next((name for name in layers if name not in self.layers), None)
        if missing is not None:
            net.value(missing)  # which names those that are meant, where there is none
            wanted = ",".join(dict.fromkeys((*self.layers, *layers)))
            raise OptionError(
                f"{self.path}: layer '{missing}' is not kept in this saved style, which has {','.join(self.layers)}; "
                f"{_way_out(f'--style-layers {wanted}')}"
            )
        if net.pooling != self.origin.pooling and any(self.layers[name].pooled for name in layers):
            raise OptionError(
                f"{self.path}: this style was saved with --pooling {self.origin.pooling}, and the run has "
                f"{net.pooling}; {_way_out(f'--pooling {net.pooling}')}"
            )
        own = self.origin.convention
        if (own.mean, own.channels) != (net.convention.mean, net.convention.channels):
            raise OptionError(
                f"{self.path}: this style was saved with pictures that enter the network as {own}, and here they do as "
                f"{net.convention}; {_way_out('--mean and --channels of this run')}"
            )

    def check_compat(self, compat: bool) -> None:
        """Raises OptionError for a run with another range of values."""
        if compat != self.origin.compat:
            raise OptionError(
                f"{self.path}: this style was saved {'with' if self.origin.compat else 'without'} --compat, whose "
                f"values differ; {_way_out('--compat' if compat else 'no --compat')}"
            )


@dataclass(frozen=True, eq=False)
class SizedStyle:
    """A saved style at a size: an entry of the styles of `Objective` and of `measure_styles`."""

    style: SavedStyle
    size: Size

    def statistic(self, loss: Loss) -> np.ndarray:
        """The statistic of a style loss, on the host. Raises OptionError for a loss that moments do not determine."""
        found = loss.of_moments(self.style.moments(loss.layer, self.size))
        if found is None:
            raise OptionError(
                f"{self.style.path}: a saved style has the moments of features, and the loss '{loss.name}' needs more; "
                "give the picture itself"
            )
        return found


def pack(
    name: str, source: str, proportions: tuple[int, int], origin: Origin, layers: Mapping[str, Layer],
    moments: Mapping[Size, Mapping[str, np.ndarray]], thumbnail: bytes | None = None,
) -> SavedStyle:  # fmt: skip
    """A saved style of these values (see `SavedStyle`). moments: size → layer → (C + 1, C); layers may be absent."""
    blobs: dict[bytes, int] = {}
    entries = []
    for size, statistics in moments.items():
        kept = {layer: _triangle(statistic) for layer, statistic in statistics.items()}
        numbers = [blobs.setdefault(kept[layer], len(blobs)) if layer in kept else None for layer in layers]
        entries.append({**size._asdict(), "blobs": numbers})
    header = {
        "cvstyle": __version__, "name": name, "source": source, "proportions": list(proportions),
        "compat": origin.compat, "pooling": origin.pooling,
        "network": {"name": origin.name, "fingerprint": origin.fingerprint, **asdict(origin.convention)},
        "layers": [{"name": layer, **record._asdict()} for layer, record in layers.items()], "moments": entries,
        "thumbnail": None if thumbnail is None else blobs.setdefault(thumbnail, len(blobs)),
    }  # fmt: skip
    return SavedStyle(style_file.packed(header, list(blobs)))


def blend(styles: Sequence[SavedStyle], weights: Sequence[float]) -> SavedStyle:
    """The style between several, as `style_blend_weights` makes it in a run: a mean of raw moments.

    It has the layers that all have, at all sizes that one has and that lie within those of the others. weights: finite
    and not negative, of a sum above 0. Raises OptionError for styles of different networks or without a common size.
    """
    if len(styles) != len(weights) or not all(0 <= w < math.inf for w in weights) or not sum(weights):
        raise OptionError("a blend of styles needs a weight for each, none negative and one at least above zero")
    first = styles[0]
    layers = {name: layer for name, layer in first.layers.items() if all(name in style.layers for style in styles)}
    for style in styles[1:]:
        _check_alike(first, style, layers)
    total = sum(weights)
    low = max(min(found.size for found in style.sizes) for style in styles)
    high = min(max(found.size for found in style.sizes) for style in styles)
    sizes = [size for size in sorted({size for style in styles for size in style.sizes}) if low <= size.size <= high]
    if not sizes:
        raise OptionError(f"{first.path} and {styles[-1].path} keep no size in common; save both with the same --sizes")
    moments: dict[Size, dict[str, np.ndarray]] = {}
    for size in sizes:
        moments[size] = {}
        for layer in layers:
            parts = ((w / total) * style.moments(layer, size).astype(float) for style, w in zip(styles, weights))
            moments[size][layer] = sum(parts).astype(np.float32)
    name = " + ".join(f"{w:g} {style.name}" for style, w in zip(styles, weights))[:_LONGEST_TEXT]
    narrow = max(styles, key=lambda style: max(style.proportions) / min(style.proportions))
    heaviest = styles[max(range(len(styles)), key=weights.__getitem__)]
    return pack(name, "", narrow.proportions, first.origin, layers, moments, heaviest.thumbnail)


def network_name(definition: NetDef) -> str:
    """The name of a network's file of weights."""
    return os.path.basename(definition.weights_source or definition.source) or definition.name or "a network"


def thumbnail(picture: images.Picture) -> bytes:
    """A small JPEG of a picture (see `SavedStyle.thumbnail`)."""
    import cv2

    longest = min(_THUMBNAIL, max(picture.size))
    small = images.resized(images.composited(picture), images.target_size(*picture.size, longest))
    pixels = np.rint(small.rgb.clip(0, 255)).astype(np.uint8)[..., ::-1]
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _check_alike(first, style, layers):
    """Raises OptionError for two styles that cannot be blended. layers: those that both have."""
    same = bool(layers) and all(style.layers[name] == layer for name, layer in layers.items())
    if not same or style.origin.convention != first.origin.convention:
        networks = (f"{each.origin.name} (fingerprint {each.origin.fingerprint})" for each in (first, style))
        raise OptionError(
            f"{first.path} and {style.path} were saved with different networks or without a common layer, "
            f"{' and '.join(networks)}; save both with the same"
        )
    if (style.origin.compat, style.origin.pooling) != (first.origin.compat, first.origin.pooling):
        raise OptionError(
            f"{first.path} and {style.path} were saved with different --pooling or --compat; save both with the same"
        )


def _triangle(statistic):
    """The bytes that are kept of moments (C + 1, C)."""
    gram = statistic[:-1]
    return b"".join(part.astype(_NUMBER).tobytes() for part in (gram[np.triu_indices(len(gram))], statistic[-1]))


def _fingerprint(definition):
    """The fingerprint of a network's weights, as 'cvstyle models show' has it."""
    from dataclasses import replace

    from .zoo.fingerprint import fingerprint_of

    return fingerprint_of(replace(definition, layers=definition.layers[definition.added :]))


def _way_out(options):
    return f"save the painting with {options}: cvstyle style save PICTURE --as FILE ..."


class _Checked:
    """A header's values, each checked for its type and range."""

    def __init__(self, file: StyleFile, values: Any, where: str = ""):
        self.file = file
        self.values = values if isinstance(values, dict) else file.fail(f"{where or 'its header'} is no object")

    def text(self, name):
        value = self.values.get(name)
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            self.file.fail(f"'{name}' is no text of at most {_LONGEST_TEXT} characters")
        return "".join(c if c.isprintable() else " " for c in value)  # people see it at their terminals

    def flag(self, name):
        value = self.values.get(name)
        return value if isinstance(value, bool) else self.file.fail(f"'{name}' is neither true nor false")

    def number(self, name, low, high):
        return self._within(name, self.values.get(name), low, high)

    def numbers(self, name, count, low, high, kinds=(int,)):
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) != count:
            self.file.fail(f"'{name}' is no list of {count}")
        return [self._within(name, number, low, high, kinds) for number in value]

    def records(self, name, most):
        value = self.values.get(name)
        if not isinstance(value, list) or not 0 < len(value) <= most:
            self.file.fail(f"'{name}' is no list of 1 to {most}")
        return [_Checked(self.file, record, name) for record in value]

    def _within(self, name, value, low, high, kinds=(int,)):
        if type(value) not in kinds or not low <= value <= high:
            self.file.fail(f"'{name}' is out of range")
        return value

    def choice(self, name, choices):
        value = self.text(name)
        return value if value in choices else self.file.fail(f"'{name}' is none of {', '.join(choices)}")

    def origin(self):
        network = _Checked(self.file, self.values.get("network"), "network")
        mean = network.numbers("mean", 3, -1e6, 1e6, (int, float))
        scale = network._within("scale", network.values.get("scale"), 1e-9, 1e9, (int, float))
        convention = Convention(
            tuple(mean), network.choice("channels", ("bgr", "rgb")), network.flag("luminance"), scale,
            network.text("missing"),
        )  # fmt: skip
        return Origin(
            network.text("name"), network.text("fingerprint"), convention, self.choice("pooling", ("max", "avg")),
            self.flag("compat"),
        )  # fmt: skip

    def layers(self):
        found = {}
        for record in self.records("layers", _MOST_LAYERS):
            channels = record.number("channels", 1, _MOST_CHANNELS)
            found[record.text("name")] = Layer(channels, record.text("fingerprint"), record.flag("pooled"))
        return found

    def moments(self, layers):
        found = {}
        for record in self.records("moments", 1 << 10):
            size = Size(*(record.number(name, 1, LONGEST_SIDE) for name in Size._fields))
            numbers = record.values.get("blobs")
            if not isinstance(numbers, list) or len(numbers) != len(layers):
                self.file.fail("a size has not one blob for each layer")
            found[size] = {}
            for (layer, (channels, *_)), number in zip(layers.items(), numbers):
                if number is None:
                    continue
                if type(number) is not int or self.file.length(number) != _bytes(channels):
                    self.file.fail("the moments of a layer are of another length")
                found[size][layer] = number
        if any(all(layer not in blobs for blobs in found.values()) for layer in layers):
            self.file.fail("a layer has no moments")
        return found


def _bytes(channels):
    """The bytes of a layer's moments."""
    return _NUMBER.itemsize * (channels * (channels + 1) // 2 + channels)


def style_of(thing: Any) -> SavedStyle | None:
    """The saved style that a picture's place holds: the object, or the file of a path; None for anything else.

    Raises ImageError for a saved style that is damaged.
    """
    if isinstance(thing, SavedStyle):
        return thing
    if isinstance(thing, (str, os.PathLike)):
        from .fields import as_path

        path = as_path(thing)
        return SavedStyle.read(path) if style_file.is_saved_style(path) else None
    return None
