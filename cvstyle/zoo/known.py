"""Published weights by their digests and fingerprints: how they were trained."""

from __future__ import annotations

from .fingerprint import Blobs, fingerprint
from .training import CAFFE, CAFFE_RGB, TORCHVISION, Training

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


def training_by_digest(digest: str) -> Training | None:
    """The training of a published file, by its SHA-256 in hexadecimal digits."""
    return _BY_DIGEST.get(digest[:8])


def is_published_first_layer(blobs: Blobs) -> bool:
    """True if these filters and bias are the first layer of a published network for Caffe."""
    return fingerprint([blobs]) in _FIRST_LAYERS
