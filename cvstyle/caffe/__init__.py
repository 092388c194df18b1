"""Readers of Caffe's files in all three forms (V0, V1, V2), into the neutral description of a network."""

from __future__ import annotations

import os
from dataclasses import replace

from ..netdef import NetDef


def read_net(proto_path: str | os.PathLike, model_path: str | os.PathLike | None = None, phase: str = "TEST") -> NetDef:
    """Read a .prototxt file and, optionally, the weights in a .caffemodel.

    proto_path: V2 (`layer`), V1 (`layers`) or V0 (nested) text; deploy or train_val. The prototxt alone is the graph.
        Its mean_file is read if it is beside the prototxt, at the path as written or by its base name.
    model_path: V2, V1 or V0 binary. It is mapped and indexed; blob data are read on access to `weights[name]`.
    phase: "TEST" or "TRAIN", for include and exclude rules.

    Raises ModelError: one line with file, place, cause and way out.
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
