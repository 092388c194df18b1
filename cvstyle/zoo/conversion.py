"""A network made from another framework's file, and its files for Caffe."""

from __future__ import annotations

import filecmp
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..caffe.write import write_caffemodel, write_prototxt
from ..errors import ModelError
from ..netdef import NetDef
from .cards import Card
from .store import disk_errors, make_folder, removed_if_empty
from .training import Training


@dataclass(frozen=True)
class Conversion:
    """A network made from another framework's file; its weights are computed on access.

    title: of the network, for the user. training: of the file; None: the weights are as they were. known_by: how the
    training is known. left_out: names of the file's tensors without a layer. remarks: sentences for the user. card: the
    known model that it is. proto: the prototxt to copy; None: it is written from the net.
    """

    net: NetDef
    title: str
    fingerprint: str
    training: Training | None
    known_by: str
    left_out: tuple[str, ...]
    remarks: tuple[str, ...]
    card: Card | None = None
    proto: str | None = None

    def files(self, folder: str | os.PathLike | None = None) -> tuple[str, str]:
        """Paths of the .prototxt and .caffemodel: a known model's, else of the file's name in the folder.

        folder: None: that of models for a known model, else the current one.
        """
        if self.card:
            return self.card.files(folder)
        stem = Path(self.net.weights_source).stem
        return tuple(os.path.join(folder or "", f"{stem}.{ending}") for ending in ("prototxt", "caffemodel"))


class LazyWeights(Mapping):
    """Blobs by layer name, computed on each access."""

    def __init__(self, makers: Mapping[str, Callable[[], list[np.ndarray]]]):
        self._makers = makers

    def __getitem__(self, name: str) -> list[np.ndarray]:
        return self._makers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def write(net: NetDef, proto: str, model: str, text: str | None = None) -> tuple[bool, bool]:
    """Write both files of a net, or none; True for each that is new, False for one that was there, equal to the byte.

    text: path of a prototxt to copy; None: it is written from the net. Raises ModelError for another file of the name,
    which is left alone, and for a disk that takes no file.
    """
    targets = [Path(proto), Path(model)]
    folder = targets[0].parent
    with removed_if_empty(folder), disk_errors(folder):
        make_folder(folder)
        with tempfile.TemporaryDirectory(prefix=".cvstyle-", dir=folder) as temporary:
            parts = [Path(temporary) / target.name for target in targets]
            if text is None:
                write_prototxt(parts[0], net)
            else:
                parts[0].write_bytes(Path(text).read_bytes())
            write_caffemodel(parts[1], net)
            new = [_is_new(part, target) for part, target in zip(parts, targets)]
            for part, target, wanted in zip(parts, targets, new):
                if wanted:
                    os.replace(part, target)
    return new[0], new[1]


def border_remark(training: Training) -> list[str]:
    """A sentence about the border of pictures, if the padding there is of another colour than in the training."""
    levels = training.padding_shift
    if levels < 0.001:
        return []
    return [
        f"zero padding at a picture's border is now Caffe's mean, {levels:.2g} of 255 levels from that in training; "
        "all else is exact"
    ]


def _is_new(part, target):
    if not os.path.lexists(target):  # a link to a disk that is not there is someone's, too
        return True
    if not target.is_file() or not filecmp.cmp(part, target, shallow=False):
        raise ModelError(f"{target}: another file of this name is there; move it away, or name a folder with --dir")
    return False
