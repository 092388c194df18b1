"""Published weights by their digests and fingerprints: how they were trained."""

from __future__ import annotations

from ..containers import Container
from ..errors import ModelError
from .fingerprint import Blobs, fingerprint
from .training import CAFFE, CAFFE_RGB, TORCHVISION, Training, fold_input

# First digits of a file's SHA-256, as PyTorch puts them into its name.
_BY_DIGEST = {
    # Caffe's weights, from web.eecs.umich.edu/~justincj/models and download.pystiche.org/models.
    "d01eb7cb": CAFFE, "00b39a1b": CAFFE, "74e45263": CAFFE, "781be684": CAFFE,
    # Caffe's for pictures RGB 0..255 minus the mean: torchvision's VGG16_Weights.IMAGENET1K_FEATURES.
    "88682ab5": CAFFE_RGB,
    # torchvision's, with the files of its earlier versions and those with batch normalisation.
    "8a719046": TORCHVISION, "bbd30ac9": TORCHVISION, "19584684": TORCHVISION, "c768596a": TORCHVISION,
    "397923af": TORCHVISION, "dcbb9e9d": TORCHVISION, "6002323d": TORCHVISION, "abd245e5": TORCHVISION,
    "6c64b313": TORCHVISION, "c79401a0": TORCHVISION,
}  # fmt: skip

_FIRST_LAYERS = ("dd951f130e277c7b",)  # fingerprints: of VGG-16, measured


def published(container: Container, first: Blobs) -> tuple[Training, str] | None:
    """(training, how it is known) of published weights with this first layer; None for others."""
    for training in (CAFFE, CAFFE_RGB):
        if fingerprint([fold_input(*first, training)]) in _FIRST_LAYERS:
            return training, "by the values of its first layer"
    training = _BY_DIGEST.get(container.digest()[:8])
    return training and (training, "by the file's digest")


def check_stated(stated: Training, container: Container, first: Blobs) -> None:
    """Raises ModelError for pictures that are stated of published weights that were trained with others."""
    found = published(container, first)
    if found and not stated.agrees_with(found[0]):
        raise ModelError(
            f"{container.path}: these weights were trained with pictures {found[0]}, {found[1]}, not with {stated}; "
            "leave the options of the training out"
        )
