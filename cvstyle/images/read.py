"""Reading of picture files: a decoder's samples, reduced to the size needed, then made sRGB and upright."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from .. import machine
from ..errors import ImageError
from . import kinds, profiles
from .formats import source_of
from .picture import Picture
from .reduce import reduced
from .source import STRIP, Source, upright

Fit = Callable[[int, int], tuple[int, int]]
"""(height, width) of a file's picture, upright → the size needed of it."""

_MOST_PIXELS = 1 << 31
_STRIPS = 16 * STRIP  # bytes for the strips in work, measured
_PIECE = 1 << 20
_LONGEST_STREAM = 4 << 30  # bytes from a pipe


def read(path: str | os.PathLike, fit: Fit | None = None) -> Picture:
    """Read a picture and apply its EXIF orientation.

    fit: the size needed; a larger picture is reduced to it by area averages, as it is decoded. None: the picture's own.
    The path may also be that of a pipe. Raises ImageError for all that is no picture, is damaged, takes more memory
    than there is, or has numbers that do not say what is white.
    """
    name = os.fspath(path)
    with _reading(name) as file:
        return picture_of(source_of(file, name), name, fit)


def reading_memory(path: str | os.PathLike, fit: Fit | None = None) -> int:
    """Peak bytes of `read`, without its result, from the file's header alone. Raises ImageError."""
    with _reading(os.fspath(path)) as file:
        source = source_of(file, os.fspath(path))
        return _memory(source, _needed(source, fit))


def picture_of(source: Source, name: str, fit: Fit | None = None) -> Picture:
    """The picture of a source. name: in messages. Raises ImageError, and errors of other classes for damaged files."""
    size = _needed(source, fit)
    _check_memory(name, source, size)
    samples, alpha, ends = reduced(source, size)
    remarks = [*source.remarks, *_check_numbers(name, source, ends)]
    black, white = (np.asarray(end, np.float32) for end in (source.black, source.white))
    if black.any():
        samples -= black
    if (white - black != 255).any():
        samples *= 255 / (white - black)
    rgb, icc, remark = profiles.to_srgb(samples, source.mode, source.icc)
    remarks += [f"{name}: {remark}"] if remark else []
    rgb = np.ascontiguousarray(upright(rgb, source.orientation), np.float32)
    if alpha is not None:
        alpha = np.ascontiguousarray(upright(alpha, source.orientation))
    return Picture(rgb, alpha, icc, None if size == source.size else source.upright, tuple(remarks), source.metadata)


@contextmanager
def decoding(name: str, damaged: str = kinds.DAMAGED) -> Iterator[None]:
    """Turns all that decoders raise into ImageError with this message, and silences their warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about unusual metadata
            yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # those about damaged files have no common class
        raise kinds.damaged(name, error, damaged) from None


@contextmanager
def _reading(name):
    """The file, open for reading at any place."""
    if os.path.isdir(name):
        raise ImageError(f"{name}: this is a folder; give a picture in it")
    try:
        file = open(name, "rb")  # noqa: SIM115
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe or the standard input, which ends only once
            with file:
                file = _collected(name, file)
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file") from None
    except PermissionError:
        raise ImageError(f"{name}: it may not be read; check its permissions") from None
    except MemoryError:
        raise ImageError(f"{name}: there is not enough memory for all that comes from it; reduce the picture") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: it cannot be read: {getattr(error, 'strerror', None) or error}") from None
    with file, decoding(name):
        yield file


def _collected(name, stream):
    """The bytes of a stream as a file."""
    head = stream.read(kinds.HEAD)
    kinds.refuse(name, head)
    if not head.strip(b"\0"):
        raise kinds.unknown(name, head)
    file = io.BytesIO(head)
    file.seek(0, io.SEEK_END)
    while piece := stream.read(_PIECE):
        file.write(piece)
        if file.tell() > _LONGEST_STREAM:
            raise ImageError(f"{name}: more than {_LONGEST_STREAM >> 30} GB come from it; give a picture file")
    file.seek(0)
    return file


def _needed(source, fit):
    """The size to read at, as stored: the size needed where it is smaller, else the source's."""
    size = tuple(fit(*source.upright)) if fit else source.upright
    larger = any(new > old for new, old in zip(size, source.upright))
    return source.size if larger else source.turned(size)


def _memory(source, size):
    """Peak bytes beside the result: of decoding, of reducing, or of converting the colours and turning."""
    pixels = size[0] * size[1]
    channels = {"L": 1, "CMYK": 4}.get(source.mode, 3) + (source.alpha is not None)
    samples = 4 * pixels * channels
    result = 4 * pixels * (3 + (source.alpha is not None))
    decoding, held = source.memory(*size)
    strips = min(_STRIPS, 48 * source.size[0] * source.size[1])
    plain = source.mode == "RGB" and source.alpha is None and source.orientation == 1 and not source.icc
    return int(max(decoding - result, held + strips + samples - result, 0 if plain else samples))


def _check_memory(name, source, size):
    """Raises ImageError for a picture that takes too much memory, before it is decoded."""
    height, width = source.size
    pixels = height * width
    if pixels > _MOST_PIXELS:
        raise ImageError(
            f"{name}: the picture has {pixels / 1e6:.0f} megapixels and {_MOST_PIXELS / 1e6:.0f} can be read; reduce it"
        )
    free = machine.free()
    needed = _memory(source, size) + 16 * size[0] * size[1]
    if free is not None and needed > free:
        raise ImageError(
            f"{name}: to read {width}×{height} pixels takes {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB "
            "are free; reduce the picture"
        )


def _check_numbers(name, source, ends):
    """A list of remarks on samples of more than 8 bits. Raises ImageError for samples that would give no picture."""
    low, high = ends
    if low == np.inf:  # 8 bits
        return []
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{name}: it has values that are NaN or infinite; save it as 16-bit TIFF or PNG")
    black, white = (float(np.min(end)) for end in (source.black, source.white))
    span = white - black
    found = f"its values are {low:.6g} to {high:.6g}, where {black:.6g} is black and {white:.6g} is white"
    outside = low < black - span / 510 or high > white + span / 510
    if source.bounded and outside:
        raise ImageError(f"{name}: {found}; save it as 16-bit TIFF or PNG")
    if source.mode not in ("L", "RGB") or not low < high:
        return []
    if high < black + span / 255:
        raise ImageError(f"{name}: {found}, so it would be black; stretch its values and save it again")
    return [f"{name}: {found}, so it is dark"] if high < black + span / 15.9 else []
