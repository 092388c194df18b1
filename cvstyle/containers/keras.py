"""Weights in HDF5 files: Keras's models, weights alone and Keras 3's .weights.h5; Caffe's; any other's arrays.

The process of `hdf5` says where arrays are; those in one piece are views of the map, and others that process reads.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from math import prod

import numpy as np

from .nested import counted
from .source import Source, expansion_limit, number_type, tensor_of
from .tensors import Container, Tensor

MAGIC = b"\x89HDF\r\n\x1a\n"
_SECONDS = 30
_LONGEST_LIST = 1 << 20  # bytes of names beyond the size of the file
_LONGEST_MESSAGE = 1000
_ROTATED = "the filters are turned around: Keras wrote them for Theano"
_STATES = ("optimizer", "diff/")  # of Keras's optimiser, and of Caffe's solver
_KERAS_3 = re.compile("(.*/)?vars/[0-9]+")  # also of a subclassed model, whose groups have its own names
_CAFFE = re.compile("data/.*/[0-9]+")  # a layer's blob in HDF5, which Caffe writes instead of a .caffemodel


def read(source: Source) -> Container:
    """The container. Raises ModelError, also without h5py."""
    try:
        listed = json.loads(_run(source, most=source.size + _LONGEST_LIST))
    except ValueError:
        raise source.damaged("its arrays cannot be listed") from None
    source.check_count(len(listed["arrays"]))
    rotated = listed["backend"] == "theano"  # whose convolutions turn their filters by 180°
    tensors = {entry["name"]: _tensor(source, entry, rotated) for entry in listed["arrays"]}
    if not listed["ordered"]:
        tensors = {name: tensors[name] for name in sorted(tensors, key=counted) if not name.startswith(_STATES)}
    if listed["keras"] or (tensors and all(_KERAS_3.fullmatch(name) for name in tensors)):
        remarks = (_ROTATED,) if rotated else ()
        return Container(source.path, "Keras", tensors, "hwio", source.digest, remarks=remarks)
    caffe = tensors and all(_CAFFE.fullmatch(name) for name in tensors)
    return Container(source.path, "Caffe" if caffe else "HDF5", tensors, "oihw" if caffe else "", source.digest)


def _tensor(source: Source, entry: dict, rotated: bool) -> Tensor:
    name = entry["name"]
    shape = source.shape(name, entry["shape"])
    dtype = number_type(entry["dtype"])
    size = prod(shape) * (dtype.itemsize if dtype else 0)
    if dtype is None:
        raise source.error(f"tensor '{name}' holds '{entry['dtype']}'; save the weights as float32")
    if entry["offset"] is not None:
        tensor = source.tensor(name, dtype, shape, source.view[entry["offset"] :])
    elif not size:
        tensor = tensor_of(name, dtype, shape, lambda: np.empty(shape, dtype))
    else:
        if entry["stored"] > source.size or size > expansion_limit(entry["stored"]):
            raise source.error(
                f"tensor '{name}' would expand from {entry['stored']} bytes to {size}, which no weights do; "
                "if they are yours, save them uncompressed"
            )
        tensor = tensor_of(name, dtype, shape, lambda: _values(source, entry, dtype, shape, size))
    if rotated and len(shape) == 4:
        plain = tensor.read
        return Tensor(name, shape, tensor.dtype, lambda: plain()[::-1, ::-1])
    return tensor


def _values(source: Source, entry: dict, dtype: np.dtype, shape: tuple[int, ...], size: int) -> np.ndarray:
    data = _run(source, entry["place"], most=size)
    if len(data) != size:
        raise source.damaged(f"tensor '{entry['name']}' has {len(data)} bytes of {size}")
    return np.ndarray(shape, dtype, data)


def _run(source: Source, *arguments: str, most: int) -> bytes:
    """The output of `hdf5`, at most so many bytes and one. Raises ModelError."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [sys.executable, "-m", f"{__package__}.hdf5", os.path.abspath(source.path), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        timer = threading.Timer(_SECONDS, process.kill)
        timer.start()
        try:
            output = process.stdout.read(most + 1)
            if len(output) > most:
                process.kill()
            message = process.stderr.read(_LONGEST_MESSAGE).decode(errors="replace").strip()
            status = process.wait()
        finally:
            timer.cancel()
    if message == "h5py":
        raise source.error("is an HDF5 file, as Keras writes, for which h5py is needed: pip install 'cvstyle[keras]'")
    if status:
        if message.startswith("error: "):
            raise source.damaged(message.removeprefix("error: "))
        raise source.damaged(f"HDF5 stops or hangs on it (status {status})")
    return output
