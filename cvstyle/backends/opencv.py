"""The backend "opencv": OpenCV's DNN module for convolutions that it does faster than a GEMM; the rest is NumPy.

The fast ones are 3×3 convolutions with groups, and gradients of 3×3 convolutions of stride 1. A forward 3×3
convolution without groups is left to NumPy though OpenCV may be faster: its Winograd F(6×6, 3×3) rounds ten times as
much, which turns ReLUs and maxima (docs/performance.md), while in a gradient rounding stays rounding.

The gradient of a stride-1 convolution for its input is a convolution with the filters flipped and transposed. Each
direction is a net of one layer, handed to OpenCV as an ONNX model in memory: unlike its Caffe importer, which OpenCV 5
dropped, ONNX has padding on each side.
"""

from __future__ import annotations

import threading

import cv2
import numpy as np

from . import reference

_MAX_FEW = 8  # output channels up to which OpenCV's convolution is slower than GEMM (measured: 64 → 3)


class Backend(reference.Backend):
    """float32 only."""

    name = "opencv"
    priority = -10  # VGG-19 at 512 takes as long as with `numpy`, and three times the memory (docs/performance.md)

    @classmethod
    def unavailable_because(cls):
        return None if hasattr(cv2, "dnn") else "this build of OpenCV has no dnn module"

    def __init__(self, threads=None, pool=None):
        super().__init__("float32", threads, pool)
        cv2.setNumThreads(self.workers.count)

    def convolution(self, weight, bias, stride, dilation, group):
        return Convolution(self, weight, bias, stride, dilation, group)


class Convolution(reference.Convolution):
    """Convolution through cv2.dnn where that is worth it (see above), by the reference's GEMM elsewhere."""

    def __init__(self, ops, weight, bias, stride, dilation, group):
        super().__init__(ops, weight, bias, stride, dilation, group)
        self._nets = {}
        self._lock = threading.Lock()  # a net has the arrays of one call

    def _correlate(self, x, pad):
        if self.kernel != (3, 3) or self.group == 1 or self._is_wrong_in_opencv(x, pad):
            return super()._correlate(x, pad)
        return self._run(x, "forward", pad, lambda: (self.weight, self.bias), self.stride)

    def _transpose(self, g, size, pad):
        flipped_pad = tuple(e - 1 - p for e, p in zip(self.extent * 2, pad, strict=True))
        if not self._has_fast_gradient() or min(flipped_pad) < 0 or self._is_wrong_in_opencv(g, flipped_pad):
            return super()._transpose(g, size, pad)
        return self._run(g, "backward", flipped_pad, lambda: (self._adjoint(), None), (1, 1))

    def engine(self, backward=False):
        fast = self._has_fast_gradient() if backward else self.kernel == (3, 3) and self.group > 1
        return "cv2.dnn" if fast else super().engine(backward)

    def _has_fast_gradient(self):
        return self.kernel == (3, 3) and self.stride == (1, 1) and self.inputs > _MAX_FEW

    def _is_wrong_in_opencv(self, x, pad):
        """True where OpenCV (4.14) gives a wrong result.

        A depthwise 3×3 reads beyond an input that is dilated, padded unevenly, or one pixel high or wide.
        """
        uneven = pad[:2] != pad[2:]
        depthwise = self.group > 1 and self.group == self.outputs == self.inputs
        return depthwise and (uneven or self.dilation != (1, 1) or min(x.shape[2:]) < 2)

    def _run(self, x, direction, pad, filters, stride):
        with self._lock:
            if (direction, pad) not in self._nets:
                weight, bias = filters()
                model = _onnx_convolution(weight, bias, pad, stride, self.dilation, self.group)
                self._nets[direction, pad] = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
            net = self._nets[direction, pad]
            net.setInput(x)
            return net.forward()

    def _adjoint(self):
        """Filters of the gradient: (input channels, output channels / group, kernel), flipped in both directions."""
        w = self.weight.reshape(self.group, -1, *self.weight.shape[1:])
        w = w.transpose(0, 2, 1, 3, 4)[..., ::-1, ::-1]
        return np.ascontiguousarray(w).reshape(-1, *w.shape[2:])


def _onnx_convolution(weight, bias, pad, stride, dilation, group) -> bytes:
    """An ONNX model (protobuf wire form) of one Conv node. pad: (top, left, bottom, right).

    Field numbers are as in onnx.proto (ONNX IR version 8, opset 13).
    """
    node = _field(1, b"x") + _field(1, b"w") + (b"" if bias is None else _field(1, b"b"))
    node += _field(2, b"y") + _field(3, b"conv") + _field(4, b"Conv")
    for name, values in (
        (b"kernel_shape", weight.shape[2:]), (b"pads", pad), (b"strides", stride), (b"dilations", dilation),
    ):  # fmt: skip
        node += _field(5, _field(1, name) + _number(20, 7) + b"".join(_number(8, v) for v in values))
    node += _field(5, _field(1, b"group") + _number(20, 2) + _number(3, group))
    channels = weight.shape[1] * group
    graph = _field(1, node) + _field(2, b"g") + _field(5, _tensor(b"w", weight))
    if bias is not None:
        graph += _field(5, _tensor(b"b", bias))
    # Height and width only have to be possible: OpenCV takes the size of its input array.
    size = (n * d + s for n, d, s in zip(weight.shape[2:], dilation, stride, strict=True))
    graph += _field(11, _value(b"x", (1, channels, *size)))
    graph += _field(12, _value(b"y", ()))
    return _number(1, 8) + _field(8, _field(1, b"") + _number(2, 13)) + _field(7, graph)


def _tensor(name, array):
    dims = b"".join(_number(1, n) for n in array.shape)
    return dims + _number(2, 1) + _field(8, name) + _field(9, np.ascontiguousarray(array, "<f4").tobytes())


def _value(name, shape):
    dims = b"".join(_field(1, _number(1, n)) for n in shape)
    return _field(1, name) + _field(2, _field(1, _number(1, 1) + _field(2, dims)))


def _varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _number(field, value):
    return _varint(field << 3) + _varint(int(value))


def _field(field, payload):
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload
