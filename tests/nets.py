"""Well-known networks for tests: graphs from their papers and model cards, with random weights.

Each function returns a NetDef. `width` divides the number of channels, `size` is the (height, width) of the picture.
The graph is the published deploy form (names, order, in-place layers); only what must fit the size differs.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from cvstyle.backends import native, opencv
from cvstyle.backends.reference import Backend
from cvstyle.caffe.write import write_caffemodel, write_prototxt
from cvstyle.graph import Network
from cvstyle.layers import layer_class
from cvstyle.netdef import LayerDef, NetDef

# Every CPU engine in float32, by name: a function that makes its backend.
ENGINES = {"numpy": Backend, "opencv": opencv.Backend}
if native.Backend.unavailable_because() is None:
    ENGINES.update({f"native-{v}": partial(native.Backend, variant=v) for v in native.variants()})


class Builder:
    """Layers one after the other; each reads the last top unless told otherwise."""

    def __init__(self, name: str, size: tuple[int, int], width: int = 1):
        self.name, self.size, self.width = name, size, width
        self.layers: list[LayerDef] = []
        self.last = "data"

    def add(self, layer_type: str, name: str, *bottoms: str, top: str | None = None, **params) -> str:
        """Add a layer whose top has its name, or `top`; returns the top."""
        self.last, bottoms = top or name, bottoms or (self.last,)
        self.layers.append(LayerDef(name, layer_type, tuple(bottoms), (self.last,), params))
        return self.last

    def inplace(self, layer_type: str, name: str, **params) -> str:
        """Add a layer that writes on the blob that it reads."""
        return self.add(layer_type, name, self.last, top=self.last, **params)

    def conv(self, name: str, channels: int, kernel: int, *bottoms: str, relu: str = "", **params) -> str:
        """Add a convolution of channels / width, and an in-place ReLU of this name."""
        size = [kernel]
        self.add("Convolution", name, *bottoms, num_output=max(1, channels // self.width), kernel_size=size, **params)
        return self.inplace("ReLU", relu) if relu else self.last

    def pool(self, name: str, kernel: int, stride: int, *bottoms: str, method: str = "MAX", pad: int = 0) -> str:
        return self.add(
            "Pooling", name, *bottoms, pool=method, kernel_size=kernel, stride=stride, **({"pad": pad} if pad else {})
        )

    def lrn(self, name: str) -> str:
        return self.add("LRN", name, local_size=5, alpha=1e-4, beta=0.75)

    def full(self, number: int, outputs: int, dropout: bool = True) -> None:
        """Add layers fcN, reluN and dropN."""
        self.add("InnerProduct", f"fc{number}", num_output=max(2, outputs // self.width))
        if dropout:
            self.inplace("ReLU", f"relu{number}")
            self.inplace("Dropout", f"drop{number}", dropout_ratio=0.5)

    def done(self, seed: int = 0) -> NetDef:
        """The net with random weights."""
        net = NetDef(self.name, {"data": (1, 3, *self.size)}, tuple(self.layers), source=f"{self.name}.prototxt")
        return with_weights(net, seed)


def vgg(depth: int = 19, width: int = 1, size=(224, 224), classifier: bool = True) -> NetDef:
    """VGG-16 or VGG-19 (Simonyan and Zisserman 2014)."""
    b = Builder(f"VGG_ILSVRC_{depth}_layers", size, width)
    counts = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[depth]
    for block, (channels, count) in enumerate(zip((64, 128, 256, 512, 512), counts), 1):
        for i in range(1, count + 1):
            b.conv(f"conv{block}_{i}", channels, 3, pad=[1], relu=f"relu{block}_{i}")
        b.pool(f"pool{block}", 2, 2)
    if classifier:
        for number in (6, 7):
            b.full(number, 4096)
        b.full(8, 1000, dropout=False)
        b.add("Softmax", "prob")
    return b.done()


def nin(width: int = 1, size=(224, 224)) -> NetDef:
    """Network in Network for ImageNet (Lin et al. 2013; the model zoo's nin_imagenet)."""
    b = Builder("nin_imagenet", size, width)
    b.conv("conv1", 96, 11, relu="relu0", stride=[4])
    b.conv("cccp1", 96, 1, relu="relu1", stride=[1])
    b.conv("cccp2", 96, 1, relu="relu2", stride=[1])
    b.pool("pool0", 3, 2)
    b.conv("conv2", 256, 5, relu="relu3", pad=[2], stride=[1])
    b.conv("cccp3", 256, 1, relu="relu5", stride=[1])
    b.conv("cccp4", 256, 1, relu="relu6", stride=[1])
    b.pool("pool2", 3, 2)
    b.conv("conv3", 384, 3, relu="relu7", pad=[1], stride=[1])
    b.conv("cccp5", 384, 1, relu="relu8", stride=[1])
    b.conv("cccp6", 384, 1, relu="relu9", stride=[1])
    b.pool("pool3", 3, 2)
    b.inplace("Dropout", "drop", dropout_ratio=0.5)
    b.conv("conv4-1024", 1024, 3, relu="relu10", pad=[1], stride=[1])
    b.conv("cccp7-1024", 1024, 1, relu="relu11", stride=[1])
    b.conv("cccp8-1024", 1000, 1, relu="relu12", stride=[1])
    b.add("Pooling", "pool4", pool="AVE", global_pooling=True)
    b.add("Softmax", "prob")
    return b.done()


def alexnet(width: int = 1, size=(227, 227), caffenet: bool = False) -> NetDef:
    """AlexNet (Krizhevsky et al. 2012), or CaffeNet, which pools before it normalises."""
    b = Builder("CaffeNet" if caffenet else "AlexNet", size, width)

    def pool_and_norm(number):
        steps = [lambda: b.lrn(f"norm{number}"), lambda: b.pool(f"pool{number}", 3, 2)]
        for step in reversed(steps) if caffenet else steps:
            step()

    b.conv("conv1", 96, 11, relu="relu1", stride=[4])
    pool_and_norm(1)
    b.conv("conv2", 256, 5, relu="relu2", pad=[2], group=2)
    pool_and_norm(2)
    b.conv("conv3", 384, 3, relu="relu3", pad=[1])
    b.conv("conv4", 384, 3, relu="relu4", pad=[1], group=2)
    b.conv("conv5", 256, 3, relu="relu5", pad=[1], group=2)
    b.pool("pool5", 3, 2)
    for number in (6, 7):
        b.full(number, 4096)
    b.full(8, 1000, dropout=False)
    b.add("Softmax", "prob")
    return b.done()


def caffenet(width: int = 1, size=(227, 227)) -> NetDef:
    return alexnet(width, size, caffenet=True)


# 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool projection (Szegedy et al. 2014, table 1)
_INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


def googlenet(width: int = 1, size=(224, 224), separator: str = "/") -> NetDef:
    """GoogLeNet (Szegedy et al. 2014; bvlc_googlenet). separator: that of names such as inception_3a/1x1."""
    s, b = separator, Builder("GoogleNet", size, width)
    b.conv(f"conv1{s}7x7_s2", 64, 7, relu=f"conv1{s}relu_7x7", pad=[3], stride=[2])
    b.pool(f"pool1{s}3x3_s2", 3, 2)
    b.lrn(f"pool1{s}norm1")
    b.conv(f"conv2{s}3x3_reduce", 64, 1, relu=f"conv2{s}relu_3x3_reduce")
    b.conv(f"conv2{s}3x3", 192, 3, relu=f"conv2{s}relu_3x3", pad=[1])
    b.lrn(f"conv2{s}norm2")
    below = b.pool(f"pool2{s}3x3_s2", 3, 2)
    for module, (c1, r3, c3, r5, c5, projection) in _INCEPTION.items():
        at = f"inception_{module}{s}"

        def conv(name, channels, kernel, bottom, at=at, **params):
            return b.conv(at + name, channels, kernel, bottom, relu=f"{at}relu_{name}", **params)

        branches = [conv("1x1", c1, 1, below)]
        branches.append(conv("3x3", c3, 3, conv("3x3_reduce", r3, 1, below), pad=[1]))
        branches.append(conv("5x5", c5, 5, conv("5x5_reduce", r5, 1, below), pad=[2]))
        branches.append(conv("pool_proj", projection, 1, b.pool(f"{at}pool", 3, 1, below, pad=1)))
        below = b.add("Concat", f"{at}output", *branches)
        if module in ("3b", "4e"):
            below = b.pool(f"pool{int(module[0])}{s}3x3_s2", 3, 2)
    if size == (224, 224):
        b.pool(f"pool5{s}7x7_s1", 7, 1, method="AVE")
    else:
        b.add("Pooling", f"pool5{s}7x7_s1", pool="AVE", global_pooling=True)
    b.inplace("Dropout", f"pool5{s}drop_7x7_s1", dropout_ratio=0.4)
    b.add("InnerProduct", f"loss3{s}classifier", num_output=max(2, 1000 // width))
    b.add("Softmax", "prob")
    return b.done()


def squeezenet(width: int = 1, size=(227, 227)) -> NetDef:
    """SqueezeNet v1.1 (Iandola et al. 2016)."""
    b = Builder("SqueezeNet", size, width)
    b.conv("conv1", 64, 3, relu="relu_conv1", stride=[2])
    b.pool("pool1", 3, 2)
    for number, (squeeze, expand) in enumerate(((16, 64), (32, 128), (48, 192), (64, 256)), 1):
        for fire in (f"fire{2 * number}", f"fire{2 * number + 1}"):
            below = b.conv(f"{fire}/squeeze1x1", squeeze, 1, relu=f"{fire}/relu_squeeze1x1")
            sides = [
                b.conv(f"{fire}/expand{k}x{k}", expand, k, below, relu=f"{fire}/relu_expand{k}x{k}", pad=[k // 2])
                for k in (1, 3)
            ]
            b.add("Concat", f"{fire}/concat", *sides)
        if number < 3:
            b.pool(f"pool{2 * number + 1}", 3, 2)
    b.inplace("Dropout", "drop9", dropout_ratio=0.5)
    b.conv("conv10", 1000, 1, relu="relu_conv10")
    b.add("Pooling", "pool10", pool="AVE", global_pooling=True)
    b.add("Softmax", "prob")
    return b.done()


def resnet50(width: int = 1, size=(224, 224)) -> NetDef:
    """ResNet-50 (He et al. 2015)."""
    b = Builder("ResNet-50", size, width)

    def conv(name, channels, kernel, *bottoms, relu=False, label=None, **params):
        label = label or name.removeprefix("res")
        join = "_" if name == "conv1" else ""
        b.conv(name, channels, kernel, *bottoms, **params)
        b.inplace("BatchNorm", f"bn{join}{label}", use_global_stats=True)
        b.inplace("Scale", f"scale{join}{label}", bias_term=True)
        return b.inplace("ReLU", f"{name}_relu") if relu else b.last

    conv("conv1", 64, 7, pad=[3], stride=[2], relu=True)
    below = b.pool("pool1", 3, 2)
    for stage, blocks, channels in zip((2, 3, 4, 5), (3, 4, 6, 3), (64, 128, 256, 512)):
        for block in "abcdef"[:blocks]:
            at, stride = f"res{stage}{block}", [2 if block == "a" and stage > 2 else 1]
            short = below
            if block == "a":
                short = conv(f"{at}_branch1", 4 * channels, 1, below, stride=stride, bias_term=False)
            conv(f"{at}_branch2a", channels, 1, below, stride=stride, bias_term=False, relu=True)
            conv(f"{at}_branch2b", channels, 3, pad=[1], bias_term=False, relu=True)
            conv(f"{at}_branch2c", 4 * channels, 1, bias_term=False)
            b.add("Eltwise", at, short, b.last)
            below = b.inplace("ReLU", f"{at}_relu")
    if size == (224, 224):
        b.pool("pool5", 7, 1, method="AVE")
    else:
        b.add("Pooling", "pool5", pool="AVE", global_pooling=True)
    b.add("InnerProduct", "fc1000", num_output=max(2, 1000 // width))
    b.add("Softmax", "prob")
    return b.done()


def with_weights(net: NetDef, seed: int = 0) -> NetDef:
    """The net with random weights for every layer that has some."""
    rng = np.random.default_rng(seed)
    ops = Backend()
    network = Network(net, ops)
    (stated,) = net.inputs.values()
    shapes = network.shapes(stated[2:], stated[1])
    weights = {}
    for index, node in enumerate(network.nodes):
        blobs = network.layer(index).blob_shapes([shapes[b] for b in node.bottoms])
        if blobs:
            weights[node.definition.name] = random_blobs(node.definition.type, blobs, rng)
    return replace(net, weights=weights, weights_source=f"{net.name}.caffemodel")


def random_blobs(layer_type: str, shapes, rng) -> list[np.ndarray]:
    """Random weights for a layer that keep the scale of what flows through it (He et al. 2015)."""
    if layer_type == "BatchNorm":
        mean, variance = rng.normal(0, 0.3, shapes[0]), rng.uniform(0.5, 1.5, shapes[1])
        return [b.astype(np.float32) for b in (2.5 * mean, 2.5 * variance, np.array([2.5]))]
    blobs = []
    for shape in shapes:
        if layer_type == "PReLU":
            blob = rng.uniform(-0.2, 0.5, shape)
        elif layer_type == "Scale" and not blobs:
            blob = rng.normal(1, 0.3, shape)
        elif len(shape) < 2 or layer_type in ("Scale", "Bias"):
            blob = rng.normal(0, 0.3, shape)
        else:
            blob = rng.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
        blobs.append(np.asarray(blob, np.float32))
    return blobs


def blobs_for(definition: LayerDef, shapes, rng) -> list[np.ndarray]:
    """Random weights for one layer on bottoms of these shapes."""
    return random_blobs(definition.type, layer_class(definition.type)(definition, Backend()).blob_shapes(shapes), rng)


def write(net: NetDef, folder, form: str = "V2") -> tuple[str, str]:
    """Write the net's two files into a folder; returns their paths."""
    paths = str(Path(folder, "net.prototxt")), str(Path(folder, "net.caffemodel"))
    write_prototxt(paths[0], net, form)
    write_caffemodel(paths[1], net, form=form)
    return paths
