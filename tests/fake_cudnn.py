"""What `cvstyle.backends.cudnn` uses of cuDNN's frontend, carried out by the numpy backend on the stand-in for CuPy.

Names, keywords and the order of calls are those of nvidia-cudnn-frontend 1.10 to 1.32. Plan 0 is what heuristics take,
plan 1 is not deterministic, plan 2 uses tensor cores (its result is off by a thousandth, to be told apart), plan 3 is
as plan 0.
"""

from __future__ import annotations

import enum
import types

import numpy as np

from cvstyle.backends.reference import Backend


class cudnnGraphNotSupportedError(RuntimeError):
    pass


data_type = enum.Enum("data_type", "NOT_SET FLOAT HALF")
heur_mode = enum.Enum("heur_mode", "A B FALLBACK")
build_plan_policy = enum.Enum("build_plan_policy", "HEURISTICS_CHOICE ALL")
numerical_note = enum.Enum(
    "numerical_note", "TENSOR_CORE DOWN_CONVERT_INPUTS REDUCED_PRECISION_REDUCTION NONDETERMINISTIC WINOGRAD"
)
PLANS = [(), (numerical_note.NONDETERMINISTIC,), (numerical_note.TENSOR_CORE,), ()]
WORKSPACE = 4096


class Tensor:
    def __init__(self, dim=None, stride=None):
        self.dim, self.stride, self.output, self.data_type = dim, stride, False, None

    def set_output(self, output):
        self.output = output
        return self

    def set_data_type(self, data_type):
        self.data_type = data_type
        return self

    def set_dim(self, dim):
        assert type(dim) is list
        self.dim = dim
        return self

    def set_stride(self, stride):
        assert type(stride) is list
        self.stride = stride
        return self


def make(cupy, refuses=lambda kind, weight: False):
    """A module `cudnn` on this stand-in for CuPy; refuses(kind, shape of the weights): whether there is no plan."""
    module = types.ModuleType("cudnn")
    module.__spec__, module.__version__ = types.SimpleNamespace(name="cudnn"), "1.24.0"
    module.backend_version = lambda: 92400
    module.executed = []  # (kind, plan)
    streams = {}

    def create_handle():
        streams[len(streams) + 7] = 0
        return max(streams)

    def set_stream(handle, stream):
        assert type(stream) is int
        streams[handle] = stream

    class pygraph:
        def __init__(self, *, io_data_type, intermediate_data_type, compute_data_type, handle):
            assert {io_data_type, intermediate_data_type, compute_data_type} == {data_type.FLOAT} and handle in streams
            self.stage, self.barred, self.built = 0, set(), set()

        def tensor(self, *, dim, stride, data_type, name):
            assert type(dim) is list and type(stride) is list
            return Tensor(dim, stride).set_data_type(data_type)

        def conv_fprop(self, *, image, weight, **geometry):
            return self._node("conv_fprop", image, weight, geometry)

        def conv_dgrad(self, *, loss, filter, **geometry):
            return self._node("conv_dgrad", loss, filter, geometry)

        def _node(self, kind, x, weight, geometry):
            assert geometry.keys() == {"pre_padding", "post_padding", "stride", "dilation"}
            assert all(type(v) is list and len(v) == 2 for v in geometry.values())
            self.kind, self.x, self.weight, self.geometry, self.y = kind, x, weight, geometry, Tensor()
            return self.y

        def _next(self, stage):
            assert self.stage == stage
            self.stage += 1

        def validate(self):
            self._next(0)
            assert self.y.output
            for t in (self.x, self.weight, self.y):
                assert t.stride == [int(np.prod(t.dim[i + 1 :])) for i in range(4)]

        def build_operation_graph(self):
            self._next(1)

        def create_execution_plans(self, modes):
            self._next(2)
            assert set(modes) == {heur_mode.A, heur_mode.FALLBACK}

        def deselect_numeric_notes(self, notes):
            assert self.stage == 3
            self.barred |= {i for i, own in enumerate(PLANS) if set(own) & set(notes)}

        def deselect_workspace_greater_than(self, size):
            assert self.stage == 3 and size >= WORKSPACE

        def check_support(self):
            self._next(3)
            if refuses(self.kind, tuple(self.weight.dim)):
                raise cudnnGraphNotSupportedError("no plan")

        def build_plans(self, policy):
            self._next(4)
            self.built.add(0)

        def get_execution_plan_count(self):
            return len(PLANS)

        def build_plan_at_index(self, index):
            if index in self.barred:
                raise cudnnGraphNotSupportedError("deselected")
            self.built.add(index)

        def get_workspace_size(self):
            return WORKSPACE

        def get_workspace_size_plan_at_index(self, index):
            return 0 if index == 3 else WORKSPACE

        def execute(self, buffers, workspace, handle=None):
            self.execute_plan_at_index(buffers, workspace, 0, handle=handle)

        def execute_plan_at_index(self, buffers, workspace, index, handle=None):
            assert self.stage == 5 and index in self.built
            assert streams[handle] == cupy.cuda.get_current_stream().ptr
            assert all(type(p) is int for p in (*buffers.values(), workspace))
            assert set(buffers) == {self.x, self.weight, self.y}
            if index != 3:
                assert workspace
            module.executed.append((self.kind, index))

            def run(x, weight, y):
                write(y, self.compute(read(x, self.x.dim), read(weight, self.weight.dim), index))

            cupy.enqueue(run, *(cupy.pointer_at(buffers[t]) for t in (self.x, self.weight, self.y)))

        def compute(self, x, weight, index):
            g = self.geometry
            pad, group = (*g["pre_padding"], *g["post_padding"]), self.group
            filters = Backend().convolution(weight, None, tuple(g["stride"]), tuple(g["dilation"]), group)
            if self.kind == "conv_fprop":
                y, _ = filters.forward(x, pad)
            else:
                y = filters.backward(x, tuple(self.y.dim[2:]), pad)
            assert list(y.shape) == self.y.dim
            return y * np.float32(1.001 if index == 2 else 1)

        @property
        def group(self):
            inputs = self.x if self.kind == "conv_fprop" else self.y
            return inputs.dim[1] // self.weight.dim[1]

    def read(pointer, shape):
        host = np.empty(shape, np.float32)
        cupy.cl_device.download(host.reshape(-1).view(np.uint8), pointer.view())
        return host

    def write(pointer, host):
        cupy.cl_device.upload(pointer.view(), np.ascontiguousarray(host, np.float32).reshape(-1).view(np.uint8))

    for thing in (
        cudnnGraphNotSupportedError, data_type, heur_mode, build_plan_policy, numerical_note, create_handle, set_stream,
        pygraph,
    ):  # fmt: skip
        setattr(module, thing.__name__, thing)
    return module
