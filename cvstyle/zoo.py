"""Known networks: how to recognise them, the run's defaults for them, and where their files come from."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import __version__, folders
from .errors import ModelError, OptionError, nearest

# progress(file, url, bytes so far, bytes in all or None)
Progress = Callable[["File", str, int, "int | None"], None]

_CHUNK = 1 << 18
_TIMEOUT = 30  # seconds without a byte

_GENERAL = {
    "content_layers": None,
    "style_layers": None,
    "content_weight": 5.0,
    "style_weight": 100.0,
    "tv_weight": 1e-3,
    "num_iterations": 400,
    "init": "random",
    "margin": 0,
}
_COMPAT_ITERATIONS = 1000  # neural_style.lua's


@dataclass(frozen=True)
class Family:
    """Networks that share layer names. signs: patterns, each of which some layer matches; settings: see `defaults`."""

    signs: tuple[str, ...]
    settings: dict

    def recognises(self, layer_names: list[str]) -> bool:
        """Whether these are the layers of a network of this family."""
        return all(fnmatch.filter(layer_names, sign) for sign in self.signs)


@dataclass(frozen=True)
class File:
    """A file of a model. digest: "sha1:..." or "sha256:...", "" where none is published; about: its size in words."""

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    about: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Card:
    """What is known of a model."""

    name: str
    title: str
    source: str
    licence: str
    family: Family
    proto: File
    model: File
    aliases: tuple[str, ...] = ()
    note: str = ""

    @property
    def embedded(self) -> bool:
        """Whether the model comes with cvstyle."""
        return not self.model.urls

    def files(self, folder: str | os.PathLike | None = None) -> tuple[str, str]:
        """Where its .prototxt and .caffemodel are, or will be. folder: instead of `default_folder()`."""
        if self.embedded:
            return embedded_files()
        folder = Path(folder or default_folder())
        return str(folder / self.proto.name), str(folder / self.model.name)


@dataclass(frozen=True)
class Fetched:
    """A file that is here now. checked: its digest is the published one; downloaded: it was not here before."""

    path: str
    digest: str
    checked: bool
    downloaded: bool


# Chosen by eye (docs/embedded-network.md). From noise, L-BFGS without a line search hardly moves here.
_WAVELET = Family(
    ("octave*",),
    {
        "content_layers": ("octave3",),
        "style_layers": ("octave1", "octave2", "octave3", "octave4", "octave5:0.1"),
        "content_weight": 12.0,
        "num_iterations": 100,
        "init": "image",
        "margin": 6,  # within which its features fade
    },
)
# The layers of Gatys et al. (2016) and neural_style.lua.
_VGG = Family(
    ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"),
    {"content_layers": ("relu4_2",), "style_layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")},
)
# neural-style-pt's README; that of neural_style.lua has style_weight 1000.
_NIN = Family(
    ("cccp1", "relu0", "relu3", "relu7", "relu12"),
    {
        "content_layers": ("relu0", "relu3", "relu7", "relu12"),
        "style_layers": ("relu0", "relu3", "relu7", "relu12"),
        "content_weight": 10.0,
        "style_weight": 500.0,
    },
)
# The layers that github.com/fzliu/style-transfer chose, after their ReLU; without its inception_5a, which sees
# more than most pictures hold.
_ALEXNET = Family(
    ("norm1", "norm2", "relu1", "relu2", "relu3", "relu4", "relu5", "pool5"),
    {"content_layers": ("relu4",), "style_layers": ("relu1", "relu2", "relu3", "relu4", "relu5")},
)
_GOOGLENET = Family(
    ("conv1/relu_7x7", "conv2/relu_3x3", "inception_3a/output", "inception_4a/output"),
    {
        "content_layers": ("inception_3a/output",),
        "style_layers": ("conv1/relu_7x7", "conv2/relu_3x3", "inception_3a/output", "inception_4a/output"),
    },
)

_VGG_TEAM = "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe"
_VGG_GISTS = "https://gist.githubusercontent.com/ksimonyan"
_BERKELEY = "http://dl.caffe.berkeleyvision.org"
_CAFFE = "https://raw.githubusercontent.com/BVLC/caffe/master/models"
_MXNET = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/caffe/models"

# Digests: of the model zoo's own readme files where they have one, of Apache MXNet's table of Caffe models for VGG;
# SHA-256 where it was computed from the file in its repository.
_ALL_CARDS = (
    Card(
        "wavelet",
        "rectified wavelets, the embedded network",
        "computed, not trained: see docs/mathematics.md",
        "that of cvstyle",
        _WAVELET,
        File("wavelet.prototxt"),
        File("wavelet.caffemodel"),
    ),
    Card(
        "vgg19",
        "VGG-19 (ILSVRC-2014, configuration E)",
        "Simonyan and Zisserman 2014, arXiv:1409.1556; http://www.robots.ox.ac.uk/~vgg/research/very_deep/",
        "Creative Commons, terms on the source's page",
        _VGG,
        File(
            "VGG_ILSVRC_19_layers_deploy.prototxt",
            (
                f"{_VGG_GISTS}/3785162f95cd2d5fee77/raw/bb2b4fe0a9bb0669211cf3d0bc949dfdda173e9e/"
                "VGG_ILSVRC_19_layers_deploy.prototxt",
                f"{_VGG_GISTS}/3785162f95cd2d5fee77/raw/f43eeefc869d646b449aa6ce66f87bf987a1c9b5/"
                "VGG_ILSVRC_19_layers_deploy.prototxt",
                f"{_MXNET}/vgg/VGG_ILSVRC_19_layers_deploy.prototxt",
            ),
            about="a few KB",
        ),
        File(
            "VGG_ILSVRC_19_layers.caffemodel",
            (f"{_VGG_TEAM}/VGG_ILSVRC_19_layers.caffemodel", f"{_MXNET}/vgg/VGG_ILSVRC_19_layers.caffemodel"),
            size=574_671_192,
            digest="sha1:239785e7862442717d831f682bb824055e51e9ba",
        ),
        aliases=("vgg-19", "VGG_ILSVRC_19_layers"),
        note="the network of neural_style.lua",
    ),
    Card(
        "vgg19-normalised",
        "VGG-19 with weights scaled to a mean activation of 1, average pooling, no classifier",
        "Gatys, Ecker and Bethge 2015, arXiv:1505.07376; https://github.com/leongatys/DeepTextures",
        "academic and non-commercial use only",
        _VGG,
        File(
            "VGG_ave_pool_deploy.prototxt",
            ("https://raw.githubusercontent.com/leongatys/DeepTextures/master/Models/VGG_ave_pool_deploy.prototxt",),
            size=4_711,
            digest="sha256:1c5bb3c39196c3b6f0d043140821381b76433445d5a8c297c99703a9095a18e4",
        ),
        File(
            "vgg_normalised.caffemodel",
            ("https://bethgelab.org/media/uploads/deeptextures/vgg_normalised.caffemodel",),
            about="78 MB",
        ),
        aliases=("vgg_normalised", "vgg-normalised", "vgg19-normalized", "vgg_normalized"),
        note="the server of its authors has been reported to be down since 2020",
    ),
    Card(
        "vgg16",
        "VGG-16 (ILSVRC-2014, configuration D)",
        "Simonyan and Zisserman 2014, arXiv:1409.1556; http://www.robots.ox.ac.uk/~vgg/research/very_deep/",
        "Creative Commons, terms on the source's page",
        _VGG,
        File(
            "VGG_ILSVRC_16_layers_deploy.prototxt",
            (
                f"{_VGG_GISTS}/211839e770f7b538e2d8/raw/0067c9b32f60362c74f4c445a080beed06b07eb3/"
                "VGG_ILSVRC_16_layers_deploy.prototxt",
                f"{_MXNET}/vgg/VGG_ILSVRC_16_layers_deploy.prototxt",
            ),
            about="a few KB",
            digest="sha1:2734e5500f1445bd7c9fee540c99f522485247bd",
        ),
        File(
            "VGG_ILSVRC_16_layers.caffemodel",
            (f"{_VGG_TEAM}/VGG_ILSVRC_16_layers.caffemodel", f"{_MXNET}/vgg/VGG_ILSVRC_16_layers.caffemodel"),
            size=553_432_081,
            digest="sha1:9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24",
        ),
        aliases=("vgg-16", "VGG_ILSVRC_16_layers"),
    ),
    Card(
        "nin",
        "Network in Network for ImageNet",
        "Lin, Chen and Yan 2014, arXiv:1312.4400; https://gist.github.com/mavenlin/d802a5849de39225bcc6",
        "BSD, earlier non-commercial",
        _NIN,
        File(
            "nin_imagenet_train_val.prototxt",
            ("https://gist.githubusercontent.com/mavenlin/d802a5849de39225bcc6/raw/train_val.prototxt",),
            about="a few KB",
        ),
        # The gist once stated a SHA-1, but the same one as the gist of the authors' CIFAR-10 network.
        File(
            "nin_imagenet.caffemodel",
            ("https://www.dropbox.com/s/0cidxafrb2wuwxw/nin_imagenet.caffemodel?dl=1",),
            about="29 MB",
        ),
        aliases=("nin_imagenet", "nin_imagenet_conv"),
        note="nin_imagenet_conv.caffemodel, which neural_style.lua needs, holds the same weights in other shapes",
    ),
    Card(
        "caffenet",
        "BVLC reference CaffeNet, much like AlexNet",
        "Krizhevsky, Sutskever and Hinton 2012; https://github.com/BVLC/caffe/tree/master/models/bvlc_reference_caffenet",
        "unrestricted",
        _ALEXNET,
        File(
            "bvlc_reference_caffenet_deploy.prototxt",
            (f"{_CAFFE}/bvlc_reference_caffenet/deploy.prototxt",),
            size=2_878,
            digest="sha256:922248a4d2f6aac1cc8e7e5dbd996cc2ecd3356480d67c198f6cf96b12311a04",
        ),
        File(
            "bvlc_reference_caffenet.caffemodel",
            (
                f"{_BERKELEY}/bvlc_reference_caffenet.caffemodel",
                "https://www.dropbox.com/s/nlggnj47xxdmwkb/bvlc_reference_caffenet.caffemodel?dl=1",
            ),
            about="232 MB",
            digest="sha1:4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        ),
        aliases=("bvlc_reference_caffenet",),
    ),
    Card(
        "googlenet",
        "BVLC GoogLeNet",
        "Szegedy et al. 2014, arXiv:1409.4842; https://github.com/BVLC/caffe/tree/master/models/bvlc_googlenet",
        "unrestricted",
        _GOOGLENET,
        File(
            "bvlc_googlenet_deploy.prototxt",
            (f"{_CAFFE}/bvlc_googlenet/deploy.prototxt", f"{_MXNET}/bvlc_googlenet/deploy.prototxt"),
            size=35_862,
            digest="sha256:fa36cd4112a3240a29600a5aa35333f31bec33daa1a6085b0af308a9f50f0c50",
        ),
        File(
            "bvlc_googlenet.caffemodel",
            (
                f"{_BERKELEY}/bvlc_googlenet.caffemodel",
                f"{_MXNET}/bvlc_googlenet/bvlc_googlenet.caffemodel",
                "https://www.deepdetect.com/downloads/platform/pretrained/caffe/googlenet/bvlc_googlenet.caffemodel",
            ),
            size=53_533_754,
            digest="sha1:405fc5acd08a3bb12de8ee5e23a96bec22f08204",
        ),
        aliases=("bvlc_googlenet",),
    ),
)
CARDS = {card.name: card for card in _ALL_CARDS}


def embedded_files() -> tuple[str, str]:
    """The .prototxt and .caffemodel of the embedded network. Raises ModelError where they are absent."""
    package = Path(__file__).resolve().parent
    card = CARDS["wavelet"]
    for folder in (package / "models", package.parent / "models"):
        files = [folder / file.name for file in (card.proto, card.model)]
        if all(path.is_file() for path in files):
            return str(files[0]), str(files[1])
    raise ModelError(
        f"{package / 'models' / card.proto.name}: the embedded network is missing from this installation; reinstall "
        "cvstyle, or name a network with --proto and --model"
    )


def defaults(layer_names: list[str], compat: bool = False) -> dict:
    """The run's defaults for a network, recognised by its layer names; compat: only its layers, the rest as for VGG.

    content_layers and style_layers (None for an unknown network), content_weight, style_weight, tv_weight,
    num_iterations, init and margin.
    """
    known = next((card.family.settings for card in CARDS.values() if card.family.recognises(layer_names)), {})
    if compat:
        known = {name: value for name, value in known.items() if name.endswith("_layers")}
        known["num_iterations"] = _COMPAT_ITERATIONS
    return {name: list(value) if isinstance(value, tuple) else value for name, value in (_GENERAL | known).items()}


def find(name: str) -> Card:
    """The card of a model, by its name or an alias in any case. Raises ModelError with the nearest names."""
    for card in CARDS.values():
        if name.lower() in (card.name, *(alias.lower() for alias in card.aliases)):
            return card
    known = [known for card in CARDS.values() for known in (card.name, *card.aliases)]
    raise ModelError(f"there is no known model '{name}'; {nearest(name, known)}")


def default_folder() -> Path:
    """Where models are kept: $CVSTYLE_MODELS, or a folder in the user's cache."""
    chosen = os.environ.get("CVSTYLE_MODELS")
    if chosen:
        return Path(os.path.expanduser(chosen))
    return folders.cache() / "models"


def fetch(
    card: Card, folder: str | os.PathLike | None = None, base_url: str | None = None, progress: Progress | None = None
) -> tuple[Fetched, Fetched]:
    """Make sure that a model's .prototxt and .caffemodel are in a folder, downloading what is not.

    base_url: a mirror that holds the files under their own names, asked instead of the card's addresses.
    """
    folder = Path(folder or default_folder())
    return tuple(download(file, folder, base_url, progress) for file in (card.proto, card.model))


def download(
    file: File, folder: str | os.PathLike, base_url: str | None = None, progress: Progress | None = None
) -> Fetched:
    """Make sure that a file is in a folder: a good one is kept, an interrupted download goes on, mirrors take turns.

    What has arrived is kept in NAME.part until it is whole and its digest is right. Raises ModelError, or OptionError
    for an unusable base_url.
    """
    target = Path(folder) / file.name
    urls = file.urls if base_url is None else (_address(base_url, file.name),)
    if target.is_file():
        found = _digest(target, file.digest)
        if found != (file.digest or found):
            raise ModelError(
                f"{target}: this is not the published file: its digest is {found}, not {file.digest}; move it away, or "
                "name another folder with --dir"
            )
        return Fetched(str(target), found, bool(file.digest), False)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"{target.parent}: the folder cannot be made: {error.strerror}; name another with --dir or CVSTYLE_MODELS"
        ) from None
    part, failures = _Part(target), []
    for url in urls:
        try:
            found = _transfer(file, url, part, progress)
        except _TransferError as error:
            failures.append(f"{url}: {error}")
            continue
        with _disk(target):
            os.replace(part.path, target)
        part.remove()
        return Fetched(str(target), found, bool(file.digest), True)
    kept = part.size()
    raise ModelError(
        f"{file.name} cannot be downloaded: {'; '.join(failures)}; "
        + (f"{kept:,} bytes are kept in {part.path}, and the same command goes on from there" if kept else _WAY_OUT)
    )


_WAY_OUT = "try later, name a mirror with --base-url, or get the file elsewhere and give it to 'cvstyle run --model'"


class _TransferError(Exception):
    """One address did not give the file; another may."""


class _Part:
    """What has arrived of a file, and beside it where from: an ETag or date lets the server tell if it changed."""

    def __init__(self, target: Path):
        self.path = target.with_name(target.name + ".part")
        self.origin = target.with_name(target.name + ".part.origin")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def remove(self) -> None:
        for path in (self.path, self.origin):
            path.unlink(missing_ok=True)

    def validator(self, url: str) -> str:
        """What If-Range needs to go on from this address, or ""."""
        try:
            origin = json.loads(self.origin.read_text(encoding="utf-8"))
            return origin["validator"] if origin["url"] == url else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def start(self, url: str, headers) -> None:
        """Begin anew with a response from this address."""
        etag = headers.get("ETag", "")
        # A weak ETag promises the same meaning, not the same bytes: If-Range may not use it.
        validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
        with _disk(self.path):
            self.path.write_bytes(b"")
            self.origin.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def append(self):
        """The file, opened for what comes next."""
        with _disk(self.path):
            return self.path.open("ab")


def _transfer(file, url, part, progress):
    """Bring the part file to completion from one address; returns its digest. Raises _TransferError."""
    # pooch would do this, but it starts every download over, and half of these are more than 500 MB.
    resumed = part.size() == file.size or _receive(file, url, part, progress)
    found = _digest(part.path, file.digest)
    if resumed and found != (file.digest or found):
        part.remove()  # the piece from before may be what is wrong
        _receive(file, url, part, progress)
        found = _digest(part.path, file.digest)
    if found != (file.digest or found):
        part.remove()
        raise _TransferError(f"what came is not the file: its digest is {found}, that of the file is {file.digest}")
    return found


def _receive(file, url, part, progress):
    """Append what is missing to the part file; returns whether there was a piece from before."""
    from http.client import HTTPException

    report = progress or (lambda *_: None)
    try:
        response, offset, total = _open(file, url, part)
        with response, part.append() as out:
            _check_room(part.path, (total or 0) - offset)
            done = offset
            report(file, url, done, total)
            while chunk := response.read(_CHUNK):
                with _disk(part.path):
                    out.write(chunk)
                    out.flush()
                done += len(chunk)
                report(file, url, done, total)
    except (OSError, HTTPException, ValueError) as error:
        raise _TransferError(_reason(error)) from None
    if total is not None and done != total:
        raise _TransferError(f"the connection broke after {done:,} of {total:,} bytes")
    return offset > 0


def _open(file, url, part):
    """The response that gives what is missing, the number of bytes that it goes on from, and the size in all."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    headers = {"User-Agent": f"cvstyle/{__version__}", "Accept-Encoding": "identity"}
    offset, validator = part.size(), part.validator(url)
    # Without a validator only the digest can tell whether the pieces fit.
    if offset and (validator or file.digest):
        headers["Range"] = f"bytes={offset}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code != 416 or "Range" not in headers:
            raise
        error.close()
        part.remove()  # there is no byte after these: the file is another one now
        return _open(file, url, part)
    try:
        first, total = _extent(response)
        if first not in (0, offset):
            raise _TransferError(f"the server sent bytes from {first:,} on, not from {offset:,}")
        if response.headers.get_content_type() == "text/html":
            raise _TransferError("the server sent a web page, not the file")
        if file.size is not None and total not in (None, file.size):
            raise _TransferError(f"the server has {total:,} bytes under this name; the file has {file.size:,}")
        if not first:
            part.start(url, response.headers)
    except Exception:
        response.close()
        raise
    return response, first, total


def _extent(response):
    """(first byte, size of the whole file or None) of a response."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        return 0, int(length) if length else None
    stated = re.match(r"bytes (\d+)-\d+/(\d+)?", response.headers.get("Content-Range", ""))
    if not stated:
        raise _TransferError("the server sent a part of the file and does not say which")
    return int(stated[1]), int(stated[2]) if stated[2] else None


def _reason(error):
    """An exception of the network as a phrase."""
    code = getattr(error, "code", None)
    if code:
        return f"the server answers {code} {error.reason}"
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"no answer in {_TIMEOUT} seconds"
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__


def _check_room(path, needed):
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise ModelError(
            f"{path}: {needed:,} bytes are still to come and the disk has room for {free:,}; make room, or name "
            "another folder with --dir"
        )


@contextlib.contextmanager
def _disk(path):
    """Turns an OSError of the disk into a ModelError, so that no mirror is blamed for it."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; name another folder with --dir") from None


def _digest(path, like):
    """The digest of a file in the form of a known one ("sha1:..."); SHA-256 where none is known."""
    name = like.partition(":")[0] or "sha256"
    digest = hashlib.new(name, usedforsecurity=False)
    with _disk(path), path.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return f"{name}:{digest.hexdigest()}"


def _address(base_url, name):
    if not base_url.startswith(("http://", "https://")):
        raise OptionError(f"--base-url {base_url}: an address that begins with http:// or https:// is needed")
    return f"{base_url.rstrip('/')}/{name}"
