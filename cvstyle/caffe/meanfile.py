"""Mean files: the .binaryproto of Caffe's compute_image_mean, an image of means."""

from __future__ import annotations

import ntpath
import os
from dataclasses import replace
from math import prod

import numpy as np
from google.protobuf.message import DecodeError

from ..netdef import Transform
from .caffe_pb2 import BlobProto
from .caffemodel import stated_shape
from .errors import model_error


def with_mean(transform: Transform, folder: str) -> Transform:
    """The transform with the mean from its mean file, if that exists in the folder, as written or by base name.

    Raises ModelError if the file is no mean file.
    """
    name = transform.mean_file
    for path in (os.path.join(folder, name), os.path.join(folder, ntpath.basename(name))):
        if name and os.path.isfile(path):
            return replace(transform, mean=channel_means(path))
    return transform


def channel_means(path: str) -> tuple[float, ...]:
    """The mean of each channel, in the file's order: BGR, as Caffe reads pictures. Raises ModelError."""
    expected = "a mean file (the BlobProto of compute_image_mean); get it again, or move it away and give --mean"
    try:
        with open(path, "rb") as file:
            blob = BlobProto.FromString(file.read())
    except OSError as error:
        raise model_error(f"{path}: cannot be read: {error.strerror}") from None
    except DecodeError:
        raise model_error(f"{path}: is not {expected}") from None
    data = np.array(blob.double_data or blob.data, np.float64)
    shape = stated_shape(blob, data.size)
    if not data.size or min(shape, default=0) < 1 or prod(shape) != data.size or prod(shape[:-3]) != 1:
        raise model_error(f"{path}: holds {data.size} values in the shape {list(shape)[:8]}, so it is not {expected}")
    channels = shape[-3] if len(shape) > 2 else shape[0]
    return tuple(float(mean) for mean in data.reshape(channels, -1).mean(1))
