"""Caffe's files, in all three forms that ever were, read into the neutral description of a network."""

from __future__ import annotations

import os
from dataclasses import replace

from ..netdef import NetDef


def read_net(proto_path: str | os.PathLike, model_path: str | os.PathLike | None = None, phase: str = "TEST") -> NetDef:
    """The net of a .prototxt file with, if given, the weights of a .caffemodel.

    proto_path: V2 (`layer`), V1 (`layers`) or V0 (nested) text; deploy or train_val. The prototxt alone is the graph.
        A mean_file that it names is read where it lies beside it, as written or by its base name.
    model_path: V2, V1 or V0 binary. It is mapped and indexed here; blob data are read when `weights[name]` is asked.
    phase: "TEST" or "TRAIN", for include and exclude rules.

    Raises ModelError, one line with file, place, cause and way out.
    """
    from .graph import net_def
    from .meanfile import with_mean
    from .prototxt import read_prototxt

    proto_path = os.fspath(proto_path)
    net = net_def(read_prototxt(proto_path), proto_path, phase)
    if net.transform is not None:
        net = replace(net, transform=with_mean(net.transform, os.path.dirname(proto_path)))
    if model_path is None:
        return net
    from .caffemodel import Weights

    return replace(net, weights=Weights(model_path), weights_source=os.fspath(model_path))
