"""Networks of MatConvNet in MATLAB's files: `layers` of a SimpleNN, or `params` of a DagNN.

https://www.vlfeat.org/matconvnet/mfiles/simplenn/vl_simplenn/
"""

from __future__ import annotations

from math import prod

from .matlab import HEADER, Array, variables
from .nested import tensors_in
from .source import Source
from .tensors import Container, Tensor

_BEGIN = b"MATLAB 5.0 MAT-file"
_LEVEL5 = (b"\x00\x01IM", b"\x01\x00MI")
_MEMBERS = ("filters", "biases", "moments")  # of a layer's `weights`


def begins(head: bytes) -> bool:
    """True for the beginning of a file of level 5, whose text is the writer's own."""
    return head.startswith(_BEGIN) or (len(head) >= HEADER and head[124:128] in _LEVEL5)


def read(source: Source) -> Container:
    """The container. Raises ModelError. A file of other variables gives all its arrays of numbers."""
    if source.size < HEADER:
        raise source.damaged("it ends in its header")
    found = variables(source)
    net = found.get("net")
    net = found | net if isinstance(net, dict) else found
    tensors: dict[str, Tensor] = {}
    for name, array in [*_simple(net.get("layers")), *_dag(net.get("params"))]:
        shape = _shape(array, filters=name.endswith((".filters", "filter", "f")))
        tensors.setdefault(name, array.tensor(name, shape))
    mean = _mean(net)
    if tensors:
        channels = "rgb" if mean else ""
        return Container(source.path, "MatConvNet", tensors, "hwio", source.digest, channels, mean)
    tensors = tensors_in(source, found, _tensor)
    return Container(source.path, "MATLAB", tensors, "", source.digest)


def _tensor(name: str, value: object) -> Tensor | None:
    return value.tensor(name, value.shape) if isinstance(value, Array) else None


def _simple(layers: object):
    """Name and array for every array of the layers of a SimpleNN."""
    for number, layer in enumerate(layers if isinstance(layers, list) else []):
        if not isinstance(layer, dict):
            continue
        name = layer.get("name") if isinstance(layer.get("name"), str) else f"layer{number + 1}"
        weights = layer.get("weights")
        weights = weights if isinstance(weights, list) else [layer.get(member) for member in _MEMBERS]
        yield from ((f"{name}.{m}", array) for m, array in zip(_MEMBERS, weights) if isinstance(array, Array))


def _dag(params: object):
    """Name and array for every parameter of a DagNN."""
    for param in params if isinstance(params, list) else [params]:
        if isinstance(param, dict) and isinstance(param.get("name"), str) and isinstance(param.get("value"), Array):
            yield param["name"], param["value"]


def _shape(array: Array, filters: bool) -> tuple[int, ...]:
    """MATLAB has no arrays of one axis, and drops axes of 1 at the end."""
    shape = array.shape
    if prod(shape) == max(shape, default=0) and len(shape) < 3:
        return (prod(shape),)
    return shape + (1,) * (4 - len(shape)) if filters else shape


def _mean(net: dict) -> tuple[float, ...]:
    """The mean of the channels of the pictures, from the mean picture."""
    meta = net.get("meta")
    holder = meta if isinstance(meta, dict) and "normalization" in meta else net
    normalization = holder.get("normalization")
    image = normalization.get("averageImage") if isinstance(normalization, dict) else None
    if not isinstance(image, Array) or prod(image.shape) % 3 or not prod(image.shape):
        return ()
    if 3 not in (image.shape[-1], prod(image.shape)):
        return ()
    values = image.tensor("averageImage", (prod(image.shape) // 3, 3)).read()
    return tuple(float(mean) for mean in values.mean(0, dtype="f8"))
