"""The reader for a file of weights, by the file's content."""

from __future__ import annotations

import os

from ..caffe.caffemodel import Weights
from ..errors import ModelError
from . import archive, arrays, keras, matconvnet, onnx, pytorch, safetensors
from .foreign import check_foreign
from .source import Source
from .tensors import Container

_HEAD = 4096


def read(path: str | os.PathLike) -> Container:
    """The tensors of a file: PyTorch (.pth), safetensors, Keras (.h5), MatConvNet (.mat), NumPy (.npz, .npy) or ONNX.

    The format is told by the content. Opening reads names and shapes; tensors are views of the mapped file, or read
    when they are asked for. Nothing in the file is executed. Raises ModelError for a file that is none of these, is
    damaged, or holds no tensors.
    """
    path = os.fspath(path)
    check_foreign(path)
    source = Source(path)
    container = _read(source)
    if not container.tensors:
        raise source.error(f"holds no tensors that can be read (format: {container.kind}); is it a file of weights?")
    return container


def _read(source: Source) -> Container:
    head = bytes(source.view[:_HEAD])
    if head.startswith(b"PK\x03\x04"):
        return _read_archive(source)
    if head.startswith(arrays.MAGIC):
        return arrays.read_npy(source)
    if pytorch.is_legacy(head):
        return pytorch.read_legacy(source)
    if safetensors.begins(head):
        return safetensors.read(source)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return arrays.read_pickle(source)
    if head.startswith(keras.MAGIC):
        return keras.read(source)
    if matconvnet.begins(head):
        return matconvnet.read(source)
    if onnx.is_onnx(source):
        return onnx.read(source)
    _refuse_caffe(source)
    raise source.error(
        "is not a file of weights in a known format (.pth, .safetensors, .h5, .mat, .npz, .npy, .onnx); "
        "save the weights as one of these"
    )


def _refuse_caffe(source: Source) -> None:
    try:
        layers = len(Weights(source.path))
    except ModelError:
        return
    if layers:
        raise source.error("is a .caffemodel already; use it with its .prototxt")


def _read_archive(source: Source) -> Container:
    members = archive.members(source)
    if pytorch.pickle_member(members):
        return pytorch.read_archive(source, members)
    if "model.weights.h5" in members:
        raise source.error("is a .keras archive; unpack it (unzip) and give its model.weights.h5")
    if any(name.endswith(".npy") for name in members):
        return arrays.read_npz(source, members)
    raise source.error(
        "is a ZIP archive without weights of PyTorch or NumPy in it; unpack it and give the file of weights inside"
    )
