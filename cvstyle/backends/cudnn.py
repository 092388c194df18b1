"""NVIDIA GPUs with cuDNN's convolutions, through the Python package of its frontend; all else is the backend cuda's."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import DeviceError, OptionError
from . import cuda
from .base import BIAS, UNPLACED, ReluMask
from .device.arrays import strides_of
from .device.convolution import Convolution

_PRECISIONS = ("fp32", "tf32-fast")
_WORKSPACE = 128 << 20  # most bytes of a plan's workspace
_OPERANDS = {"conv_fprop": ("image", "weight"), "conv_dgrad": ("loss", "filter")}


def extra() -> str | None:
    """The extra of cvstyle that fits the NVIDIA driver; None without a driver."""
    return {"cuda12": "cudnn12", "cuda13": "cudnn", None: None}[cuda.extra()]


class Backend(cuda.Backend):
    """Operations on one NVIDIA GPU, convolutions by cuDNN.

    Plans that give other bytes each time are not used, and without precision "tf32-fast" none on tensor cores.
    autotune: time all plans of a shape when it is first met, instead of taking the one that cuDNN's heuristics name.
    """

    name = "cudnn"
    priority = 25  # below cuda, which works wherever this does

    @classmethod
    def unavailable_because(cls):
        reason = cuda.Backend.unavailable_because()
        if reason:
            return reason
        command = f"pip install 'cvstyle[{extra()}]'"
        if importlib.util.find_spec("cudnn") is None:
            return f"cuDNN's frontend is not installed ({command})"
        try:
            import cudnn

            cudnn.backend_version()
        except Exception as error:  # of many kinds, while it loads cuDNN's libraries
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            return f"cuDNN cannot be loaded: {reason} ({command})"
        return None

    @classmethod
    def auto_selectable(cls):
        """Only where it is asked for."""
        return False

    def __init__(self, device: str | int | None = None, precision: str = "fp32"):
        """device: a number from `list_devices()` or part of a name; the first one without it."""
        if precision not in _PRECISIONS:
            raise OptionError(
                f"precision {precision} cannot be had with backend 'cudnn', which has {' and '.join(_PRECISIONS)}; use "
                "backend cuda"
            )
        super().__init__(device, precision)
        self.autotune = False
        self._plans: dict[tuple, _Plan | None] = {}

    def convolution(self, weight, bias, stride, dilation, group):
        return CudnnConvolution(self, weight, bias, stride, dilation, group)

    @cached_property
    def handle(self):
        """cuDNN's handle for this device."""
        import cudnn

        self.device.stream()  # makes the device current
        return cudnn.create_handle()

    def plan(self, geometry, run) -> _Plan | None:
        """The plan of a convolution; None where cuDNN has none. run(plan, index) does the convolution once."""
        if geometry not in self._plans:
            plan = self._plans[geometry] = self._built(geometry)
            if plan is not None and self.autotune:
                plan.index = self._fastest(geometry, plan, run)
        return self._plans[geometry]

    def execute(self, plan, x, weight, y, index) -> None:
        """Put a plan on the queue; index: of all plans for the shape, or None for that of the heuristics."""
        import cudnn

        graph = plan.graph
        buffers = {plan.x: x.block.view.ptr, plan.weight: weight.block.view.ptr, plan.y: y.block.view.ptr}
        try:
            cudnn.set_stream(self.handle, self.device.stream())
            size = graph.get_workspace_size() if index is None else graph.get_workspace_size_plan_at_index(index)
            workspace = self.empty((size,), np.uint8) if size else None
            pointer = workspace.block.view.ptr if size else 0
            if index is None:
                graph.execute(buffers, pointer, handle=self.handle)
            else:
                graph.execute_plan_at_index(buffers, pointer, index, handle=self.handle)
        except RuntimeError as error:
            raise DeviceError(f"cuDNN's convolution failed on {self.device.name}: {error}") from None

    def _built(self, geometry):
        import cudnn

        try:
            plan = describe(cudnn, self.handle, *geometry)
            graph = plan.graph
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
            notes = cudnn.numerical_note
            unwanted = [notes.NONDETERMINISTIC]
            if self.precision == "fp32":
                unwanted += [notes.TENSOR_CORE, notes.DOWN_CONVERT_INPUTS, notes.REDUCED_PRECISION_REDUCTION]
            graph.deselect_numeric_notes(unwanted)
            graph.deselect_workspace_greater_than(_WORKSPACE)
            graph.check_support()
            graph.build_plans(cudnn.build_plan_policy.HEURISTICS_CHOICE)
        except (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError):
            return None
        return plan

    def _fastest(self, geometry, plan, run):
        """The index of the fastest plan, built; None where none can be."""
        import cudnn

        def build(index):
            if index in built:
                return
            try:
                plan.graph.build_plan_at_index(index)
            except (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError) as error:  # it may be deselected
                raise DeviceError(f"cuDNN's plan {index} cannot be built: {error}") from None
            built.add(index)

        def build_and_run(index):
            build(index)
            run(plan, index)

        built = set()
        version = cudnn.backend_version(), cudnn.__version__
        indices = list(range(plan.graph.get_execution_plan_count()))
        index = self.choices.pick(("cudnn", self.precision, version, geometry), indices, build_and_run)
        try:
            build(index)
        except DeviceError:
            return None
        return index


@dataclass
class _Plan:
    """A graph of one convolution: its tensors, and which of its plans is used (None: that of the heuristics)."""

    graph: Any
    x: Any
    weight: Any
    y: Any
    index: int | None = None


def describe(cudnn, handle, kind, source, weight, result, pad, stride, dilation) -> _Plan:
    """A graph of one convolution, contiguous float32 throughout.

    kind: "conv_fprop" or "conv_dgrad". source, weight, result: shapes. pad: (top, left, bottom, right).
    """
    float32 = cudnn.data_type.FLOAT
    types = {f"{name}_data_type": float32 for name in ("io", "intermediate", "compute")}
    graph = cudnn.pygraph(handle=handle, **types)
    operands = [
        graph.tensor(name=name, dim=list(shape), stride=strides_of(shape), data_type=float32)
        for name, shape in (("x", source), ("weight", weight))
    ]
    y = getattr(graph, kind)(
        **dict(zip(_OPERANDS[kind], operands, strict=True)), pre_padding=list(pad[:2]), post_padding=list(pad[2:]),
        stride=list(stride), dilation=list(dilation),
    )  # fmt: skip
    y.set_output(True)
    y.set_data_type(float32)
    y.set_dim(list(result))
    y.set_stride(strides_of(result))
    return _Plan(graph, *operands, y)


class CudnnConvolution(Convolution):
    """A convolution by cuDNN, or by cvstyle's kernels where cuDNN has no plan for the shape."""

    block_size = 1  # cuDNN's algorithm depends on the shape, so windows do not round as the picture in any case

    def forward(self, x, pad, epilogue=BIAS, grid=UNPLACED):
        y = self._by_cudnn("conv_fprop", x, (1, self.outputs, *self.output_size(x.shape[2:], pad)), pad)
        if y is None:
            y, _ = super().forward(x, pad, grid=grid)
        elif self._bias is not None:
            y = self.ops.affine(y, None, self._bias.reshape(1, -1, 1, 1), out=y)
        if not epilogue.relu:
            return y, None
        y, bits = self.ops.relu(y, out=y)
        return y, ReluMask(bits)

    def backward(self, g, size, pad, prologue=None, grid=UNPLACED):
        g = g if prologue is None else self.ops.relu_backward(g, prologue.bits)
        y = self._by_cudnn("conv_dgrad", g, (1, self.inputs, *size), pad)
        return super().backward(g, size, pad, grid=grid) if y is None else y

    def fuses_pool(self, kernel, stride, pad):
        return False

    @cached_property
    def _filters(self):
        return self.ops.upload_filters(np.ascontiguousarray(self._source, np.float32))

    def _by_cudnn(self, kind, x, shape, pad):
        ops = self.ops
        geometry = kind, x.shape, self._source.shape, shape, tuple(pad), self.stride, self.dilation
        y = ops.empty(shape)
        run = lambda plan, index: ops.execute(plan, x, self._filters, y, index)  # noqa: E731
        plan = ops.plan(geometry, run)
        if plan is None:
            return None
        self._algorithms[int(kind == "conv_dgrad")] = "cuDNN"
        run(plan, plan.index)
        return y
