"""What `cvstyle.backends.cuda` uses of CuPy, carried out by an OpenCL device, or by one that runs CUDA's code (ptx.py).

Names, signatures and errors are those of CuPy 14.2 (nvrtc, Module, Function, Memory, MemoryPointer, runtime); a source
without __CUDACC__ is OpenCL, so the same kernels run. A graph keeps nothing alive, as CUDA's: launching it fails where
memory of its nodes is gone, and so does ending a recording during which something was given back to the device. What it
cannot show: streams, and what a real GPU computes (`make gpu-test`).
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import sys
import time
import types
import weakref

import numpy as np

from cvstyle.backends.device import CompilerError


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class NVRTCError(RuntimeError):
    pass


H200 = types.MappingProxyType({"units": 132, "memory": 141 * 10**9, "cache": 60 << 20, "name": "NVIDIA H200"})


class Idle:
    """A device that does nothing, at once: for what it is asked to do. What is read from it is 1."""

    single_pass_reductions = True

    def allocate(self, size):
        if size > 1 << 37:
            raise MemoryError
        return None

    def view(self, memory, start, size):
        return None

    def download(self, host, view):
        host.view(np.float32 if host.nbytes % 4 == 0 else np.uint8).fill(1)

    def upload(self, view, host):
        pass

    def copy(self, target, source, size):
        pass

    def compile(self, source, options):
        if "__CUDACC__" not in source:  # no kernel of ours
            raise CompilerError(source)
        return str

    def launch(self, kernel, groups, threads, arguments):
        pass

    def synchronize(self):
        pass


def install(patch, device, **properties):
    """A `cupy` over this device, on a machine with a driver of CUDA 13.

    What is not a test of it does not autotune, and does not try whether wgmma is right.
    """
    from cvstyle.backends import cuda

    module = make(device, **properties)
    patch.setitem(sys.modules, "cupy", module)
    patch.setattr(cuda, "_driver_version", lambda: 13000)
    patch.setattr(cuda.Device, "autotunes", False)
    patch.setattr(cuda.Device, "single_pass_reductions", device.single_pass_reductions)
    patch.setenv("CVSTYLE_WGMMA", os.environ.get("CVSTYLE_WGMMA", "0"))
    uncached = getattr(cuda.Backend.unavailable_because.__func__, "__wrapped__", None)
    if uncached is not None:  # the reason that was found before does not count
        patch.setattr(cuda.Backend, "unavailable_because", classmethod(uncached))
    return module


def make(cl_device, count=2, capability=(9, 0), units=4, memory=1 << 34, cache=4 << 20, name="Fake GPU"):
    """A module `cupy` with `count` GPUs, all of them this device (`opencl.Device`)."""
    current = [0]

    def device_properties(number):
        return {
            "name": f"{name} {number}".encode(), "multiProcessorCount": units, "totalGlobalMem": memory,
            "l2CacheSize": cache, "major": capability[0], "minor": capability[1],
        }  # fmt: skip

    def set_device(number):
        if not 0 <= number < count:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        current[0] = number

    streams = []  # the current one last
    pinned_memories = []
    memories, addresses, numbers = {}, itertools.count(1 << 20, 1 << 40), itertools.count(1)

    def recording():
        return bool(streams) and streams[-1].recording is not None

    def enqueue(work, *operands):
        """work(*operands), now or whenever the graph that is recorded is launched; that knows pointers by address."""
        if recording():
            noted = [(weakref.ref(o.mem), o.offset) if isinstance(o, MemoryPointer) else o for o in operands]
            streams[-1].recording.append((work, noted))
        else:
            work(*operands)

    def found(operand):
        if not isinstance(operand, tuple):
            return operand
        memory = operand[0]()
        assert memory is not None, "a node of the graph points into memory that has been freed"
        return MemoryPointer(memory, operand[1])

    def given_back(what):
        for stream in streams:
            if stream.recording is not None:
                stream.given_back.append(what)

    def not_recording(error=CUDARuntimeError):
        if recording():
            raise error("cudaErrorStreamCaptureUnsupported: not permitted when stream is capturing")

    class Graph:
        def __init__(self, work, allocations):
            self.work, self.allocations = work, allocations

        def launch(self, stream=None):
            assert stream is Stream.null
            for work, operands in self.work:
                work(*map(found, operands))
            module.replays += 1
            module.launched = self

        def __del__(self):
            given_back("a graph")

    class Stream:
        null = object()

        def __init__(self, non_blocking=False):
            assert non_blocking  # else the default stream would have to wait for it, which ends a recording
            self.recording, self.given_back, self.ptr = None, [], id(self)

        def __enter__(self):
            streams.append(self)

        def __exit__(self, *_):
            streams.pop()

        def begin_capture(self, mode=None):
            self.recording, self.allocations = [], 0

        def end_capture(self):
            work, self.recording = self.recording, None
            assert not self.given_back, f"given back while recording: {self.given_back}"
            return Graph(work, self.allocations)

    class Memory:
        def __init__(self, size):
            self.size, self.device_id = size, current[0]
            self.ptr = next(addresses)
            memories[self.ptr] = weakref.ref(self)
            for stream in streams:
                if stream.recording is not None:
                    stream.allocations += 1
            try:
                self.buffer = cl_device.allocate(size)
            except MemoryError:
                raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory") from None

        def __del__(self):
            given_back(f"{self.size} bytes")

    class MemoryPointer:
        def __init__(self, mem, offset):
            self.mem, self.offset = mem, offset
            self.ptr = mem.ptr + offset

        def view(self):
            return cl_device.view(self.mem.buffer, self.offset, self.mem.size - self.offset)

        def copy_from_host(self, mem, size):
            not_recording(RuntimeError)  # by CuPy, which does not ask CUDA
            cl_device.upload(self.view(), _host(mem, size))

        def copy_to_host(self, mem, size):
            not_recording(RuntimeError)  # by CuPy, which does not ask CUDA
            cl_device.download(_host(mem, size), self.view())

        def copy_to_host_async(self, mem, size, stream=None):
            not_recording(RuntimeError)
            assert any(mem == pinned.ptr and size <= len(pinned) for pinned in pinned_memories)
            enqueue(lambda source: cl_device.download(_host(mem, size), source.view()), self)

        def copy_from_device_async(self, src, size, stream=None):
            assert isinstance(src, MemoryPointer)
            enqueue(lambda target, source: cl_device.copy(target.view(), source.view(), size), self, src)

    def alloc_pinned_memory(size):
        pinned_memories[:] = [*pinned_memories[-9:], memory := PinnedMemory(-(-size // 512) * 512)]
        return memory

    class PinnedMemory(bytearray):
        @property
        def ptr(self):
            return ctypes.addressof(ctypes.c_uint8.from_buffer(self))

    class Event:
        def record(self, stream=None):
            not_recording()
            cl_device.synchronize()
            self.seconds = time.perf_counter()

        def synchronize(self):
            pass

    def pointer_at(address):
        """The memory at what another library takes for an address."""
        start = max(a for a in memories if a <= address)
        memory = memories[start]()
        assert memory is not None and address - start < memory.size, "freed memory"
        return MemoryPointer(memory, address - start)

    def function_of(kernel, device):
        loaded = False

        def call(grid, block, args, *, shared_mem=0):
            nonlocal loaded
            assert loaded or not recording(), "a driver that loads lazily would load this kernel while recording"
            loaded = True
            assert isinstance(grid, tuple) and isinstance(block, tuple) and isinstance(args, tuple)
            assert all(type(n) is int and n > 0 for n in (*grid, *block))  # CuPy makes a one of a zero
            assert current[0] == device
            if block[0] * block[1] * block[2] > 1024:
                raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
            for a in args:
                assert isinstance(a, (MemoryPointer, np.int32, np.float32))
                assert not isinstance(a, MemoryPointer) or a.mem.device_id == device

            def launch(*args):
                views = [a.view() if isinstance(a, MemoryPointer) else a for a in args]
                cl_device.launch(kernel, grid, block[0], views)

            enqueue(launch, *args)

        return call

    programs, compiled = {}, {}

    class NVRTC:
        """The low-level compiler; an image is what it was made of, so that it means the same to another process."""

        NVRTCError = NVRTCError

        @staticmethod
        def getVersion():
            return (13, 0)

        @staticmethod
        def getSupportedArchs():
            return (75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121)

        @staticmethod
        def createProgram(source, name, headers, include_names):
            assert isinstance(source, str)
            number = next(numbers)
            programs[number] = [source, None, ""]
            return number

        @staticmethod
        def compileProgram(program, options):
            *defines, flush, target = options
            assert flush == "-ftz=true" and target.startswith("--gpu-architecture=")
            assert target.endswith("a") == ("-DWGMMA=1" in defines)
            image = json.dumps([programs[program][0], *options]).encode()
            try:
                compiled[image] = cl_device.compile(programs[program][0], tuple(defines))
            except CompilerError as error:
                programs[program][2] = str(error)
                raise NVRTCError("NVRTC_ERROR_COMPILATION (6)") from None
            programs[program][1] = image
            module.compiled.append(target)

        @staticmethod
        def getCUBIN(program):
            assert b"--gpu-architecture=sm_" in programs[program][1]
            return programs[program][1]

        @staticmethod
        def getPTX(program):
            return programs[program][1]

        @staticmethod
        def getProgramLog(program):
            return programs[program][2]

        @staticmethod
        def destroyProgram(program):
            del programs[program]

    class Module:
        def load(self, image):
            assert type(image) is bytes and not recording()
            self.device = current[0]
            if image not in compiled:
                source, *defines, _, _ = json.loads(image)
                compiled[image] = cl_device.compile(source, tuple(defines))
            self.kernels = compiled[image]

        def get_function(self, name):
            return function_of(self.kernels(name), self.device)

        def __del__(self):
            given_back("a module")

    def memcpy_peer(target, target_device, source, source_device, size):
        not_recording()
        target, source = pointer_at(target), pointer_at(source)
        assert (target.mem.device_id, source.mem.device_id) == (target_device, source_device)
        cl_device.copy(target.view(), source.view(), size)

    cuda = types.SimpleNamespace(
        alloc_pinned_memory=alloc_pinned_memory, Memory=Memory, MemoryPointer=MemoryPointer, Stream=Stream, Event=Event,
        get_current_stream=lambda: streams[-1] if streams else types.SimpleNamespace(ptr=0),
        get_elapsed_time=lambda start, end: (end.seconds - start.seconds) * 1e3,
        driver=types.SimpleNamespace(CUDADriverError=CUDADriverError),
        nvrtc=NVRTC, function=types.SimpleNamespace(Module=Module),
        runtime=types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError, getDeviceCount=lambda: count, setDevice=set_device,
            memcpyPeer=memcpy_peer,
            getDeviceProperties=device_properties, deviceSynchronize=cl_device.synchronize,
            driverGetVersion=lambda: 13000,
        ),
    )  # fmt: skip
    module = types.ModuleType("cupy")
    module.replays, module.launched, module.cl_device = 0, None, cl_device
    module.enqueue, module.pointer_at = enqueue, pointer_at  # for fake_cudnn
    module.compiled = []  # for what, in order
    module.cuda, module.__spec__ = cuda, types.SimpleNamespace(name="cupy")
    return module


def _host(address, size):
    """The host memory at an address, as bytes."""
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)
