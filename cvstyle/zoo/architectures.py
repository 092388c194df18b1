"""Networks that are known by the shapes of their filters: the convolutional parts of VGG, and Network in Network."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..netdef import LayerDef, NetDef

_VGG_WIDTHS = (64, 128, 256, 512, 512)
_VGG_BLOCKS = {  # convolutions in each block: configurations A, B, D and E of Simonyan and Zisserman 2014
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
# Lin, Chen and Yan 2014, as the model zoo's nin_imagenet: name, ReLU, outputs, kernel, stride, padding.
_NIN_BLOCKS = (
    (("conv1", "relu0", 96, 11, 4, 0), ("cccp1", "relu1", 96, 1, 1, 0), ("cccp2", "relu2", 96, 1, 1, 0)),
    (("conv2", "relu3", 256, 5, 1, 2), ("cccp3", "relu5", 256, 1, 1, 0), ("cccp4", "relu6", 256, 1, 1, 0)),
    (("conv3", "relu7", 384, 3, 1, 1), ("cccp5", "relu8", 384, 1, 1, 0), ("cccp6", "relu9", 384, 1, 1, 0)),
    (("conv4-1024", "relu10", 1024, 3, 1, 1), ("cccp7-1024", "relu11", 1024, 1, 1, 0),
     ("cccp8-1024", "relu12", 1000, 1, 1, 0)),
)  # fmt: skip
_NIN_POOLS = ("pool0", "pool2", "pool3")


@dataclass(frozen=True)
class Architecture:
    """A known network. name: of `--as`; title: in words; net: its graph without weights."""

    name: str
    title: str
    net: NetDef

    def filters(self) -> list[tuple[int, int, int, int]]:
        """Shapes (outputs, inputs, height, width) of the convolutions' filters, in order."""
        shapes = []
        inputs = 3
        for layer in convolutions(self.net):
            size = layer.params["kernel_size"][0]
            shapes.append((layer.params["num_output"], inputs, size, size))
            inputs = layer.params["num_output"]
        return shapes

    def with_outputs(self, outputs: list[int]) -> Architecture:
        """The same graph with these numbers of filters."""
        number = iter(outputs)
        layers = [
            replace(layer, params={**layer.params, "num_output": next(number)})
            if layer.type == "Convolution" else layer
            for layer in self.net.layers
        ]  # fmt: skip
        return replace(self, net=replace(self.net, layers=tuple(layers)))


def convolutions(net: NetDef) -> list[LayerDef]:
    """The convolutions of a net, in order."""
    return [layer for layer in net.layers if layer.type == "Convolution"]


class _Chain:
    """Layers one after the other."""

    def __init__(self):
        self.layers = []
        self.last = "data"

    def convolution(self, name, relu, outputs, kernel, stride, pad):
        params = {"num_output": outputs, "pad": [pad], "kernel_size": [kernel], "stride": [stride]}
        plain = {"pad": [0], "stride": [1]}
        self._add(name, "Convolution", name, {key: n for key, n in params.items() if n != plain.get(key)})
        self._add(relu, "ReLU", self.last, {})

    def pool(self, name, size):
        self._add(name, "Pooling", name, {"pool": "MAX", "kernel_size": size, "stride": 2})

    def _add(self, name, kind, top, params):
        self.layers.append(LayerDef(name, kind, (self.last,), (top,), params))
        self.last = top

    def net(self, name):
        return NetDef(name, {"data": (1, 3, 224, 224)}, tuple(self.layers))


def _vgg(name, blocks):
    chain = _Chain()
    for block, (width, count) in enumerate(zip(_VGG_WIDTHS, blocks, strict=True), 1):
        for number in range(1, count + 1):
            chain.convolution(f"conv{block}_{number}", f"relu{block}_{number}", width, 3, 1, 1)
        chain.pool(f"pool{block}", 2)
    title = f"VGG-{name.removeprefix('vgg')}"
    return Architecture(name, title, chain.net(f"{title}, convolutional part"))


def _nin():
    chain = _Chain()
    for number, block in enumerate(_NIN_BLOCKS):
        for layer in block:
            chain.convolution(*layer)
        if number < len(_NIN_POOLS):
            chain.pool(_NIN_POOLS[number], 3)
    return Architecture("nin", "Network in Network", chain.net("nin_imagenet, convolutional part"))


ARCHITECTURES = {name: _vgg(name, blocks) for name, blocks in _VGG_BLOCKS.items()} | {"nin": _nin()}
