"""A network from its files."""

from __future__ import annotations

from .. import backends, zoo
from ..caffe import read_net
from ..convention import fitted
from .network import Network


def load_network(proto=None, model=None, backend="auto", *, mean=None, input_scale=None, channels=None) -> Network:
    """The network of a Caffe .prototxt and .caffemodel (paths), on a backend (name or object).

    Either may be the name of a known model, alone too; neither means the embedded network (see `zoo.files_of`).
    mean, input_scale, channels: the convention of its pictures, where the prototxt's transform_param does not say what
    is right (see `convention.fitted`).
    Weights are read when they are needed. Raises ModelError for unreadable or mismatched files, OptionError for an
    unusable backend or convention.
    """
    files = zoo.files_of(proto, model)
    ops = backends.get(backend)
    return Network(fitted(read_net(*files), mean, input_scale, channels), ops)
