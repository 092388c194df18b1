"""NVIDIA GPUs, through CuPy: its NVRTC compiler, memory and launches; the kernels and operations are cvstyle's own."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from functools import cache

from ..errors import DeviceError
from . import device as devices_in_common
from .device.graph_capture import gc_paused
from .device.kernel_cache import KernelCache

_ROUNDS = 3  # of a timed function
_TENSOR_CORES = (8, 0)  # compute capability of the first with TF32 and BF16 (Ampere)
_WGMMA = (9, 0)  # the one compute capability with the instruction wgmma (Hopper)


def extra() -> str | None:
    """The extra of cvstyle that fits the NVIDIA driver, "cuda12" or "cuda13"; None without a driver."""
    version = _driver_version()
    return None if version is None else "cuda13" if version >= 13000 else "cuda12"


class Backend(devices_in_common.Backend):
    """Operations on one NVIDIA GPU."""

    name = "cuda"
    priority = 30

    @classmethod
    @cache
    def unavailable_because(cls):
        if extra() is None:
            return "no NVIDIA driver was found"
        command = f"pip install 'cvstyle[{extra()}]'"
        if importlib.util.find_spec("cupy") is None:
            return f"CuPy is not installed ({command})"
        try:
            import cupy

            count = cupy.cuda.runtime.getDeviceCount()
            # Whether there is a compiler shows when it is first asked for anything.
            cupy.cuda.nvrtc.getVersion()
        except Exception as error:  # CuPy raises errors of many kinds while it loads CUDA's libraries
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            return f"CuPy cannot use the GPU: {reason} (the installation that fits this driver: {command})"
        return None if count else "the NVIDIA driver reports no GPU"

    @classmethod
    def list_devices(cls):
        """All GPUs; `--device N` and `--gpu N` count in this order, which is CUDA's."""
        if cls.unavailable_because():
            return []
        import cupy

        return [Device(i) for i in range(cupy.cuda.runtime.getDeviceCount())]

    def __init__(self, device: str | int | None = None, precision: str = "fp32"):
        """device: a number from `list_devices()` or part of a name; the first one without it."""
        super().__init__(devices_in_common.choose(self.list_devices(), device, "NVIDIA GPU"), precision)


class Device:
    """An NVIDIA GPU; the package `device` documents the interface. All work goes to CuPy's current stream."""

    kind = "gpu"
    captures = True
    autotunes = True
    single_pass_reductions = True

    def __init__(self, number: int):
        import cupy

        self._cuda = cupy.cuda
        self.number = number
        self._kernel_cache = KernelCache()
        self.errors = (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)
        properties = cupy.cuda.runtime.getDeviceProperties(number)
        name = properties["name"]
        self.name = name.decode() if isinstance(name, bytes) else name
        self.multiprocessors = properties["multiProcessorCount"]
        self.memory = properties["totalGlobalMem"]
        self.cache_size = properties["l2CacheSize"]
        self.driver = f"CUDA {cupy.cuda.runtime.driverGetVersion()}"
        self._capability = properties["major"], properties["minor"]
        self.no_tensor_cores = None
        if self._capability < _TENSOR_CORES:
            own, need = map(_dotted, (self._capability, _TENSOR_CORES))
            self.no_tensor_cores = f"{self.name} has compute capability {own}, and {need} is needed"
        self.compiler = f"NVRTC {'.'.join(map(str, cupy.cuda.nvrtc.getVersion()))}"
        wanted = {"0": False, "1": True}.get(os.environ.get("CVSTYLE_WGMMA"))
        self.wgmma = wanted if self._capability == _WGMMA else False

    def allocate(self, size):
        self._use()
        try:
            return self._cuda.Memory(size)
        except self.errors as error:
            if "MemoryAllocation" not in str(error):
                raise
            raise MemoryError(f"{self.name}: {size >> 20} MB: {error}") from None

    def view(self, memory, start, size):
        return self._cuda.MemoryPointer(memory, start)

    def upload(self, view, host):
        self._use()
        view.copy_from_host(host.ctypes.data, host.nbytes)

    def download(self, host, view):
        self._use()
        view.copy_to_host(host.ctypes.data, host.nbytes)

    def start_download(self, view, size):
        self._use()
        host = self._cuda.alloc_pinned_memory(size)
        view.copy_to_host_async(host.ptr, size)
        arrival = self._cuda.Event()
        arrival.record()
        return lambda: arrival.synchronize() or host

    def copy(self, target, source, size):
        self._use()
        target.copy_from_device_async(source, size)

    def transfer(self, target, device, source, size):
        # "Serialized with respect to all pending and future asynchronous work" of both devices (CUDA Runtime API).
        self._use()
        self._cuda.runtime.memcpyPeer(target.ptr, self.number, source.ptr, device.number, size)

    def compile(self, source, options):
        binary, _ = self.build(source, options)
        self._use()
        module = self._cuda.function.Module()
        module.load(binary)
        return module.get_function

    def build(self, source, options):
        nvrtc = self._cuda.nvrtc
        target = self._target("-DWGMMA=1" in options)
        options = (*options, "-ftz=true", f"--gpu-architecture={target}")

        def compiled():
            program = nvrtc.createProgram(source, "kernel.cu", (), ())
            try:
                nvrtc.compileProgram(program, options)
                return nvrtc.getCUBIN(program) if target.startswith("sm") else nvrtc.getPTX(program)
            except nvrtc.NVRTCError:
                raise devices_in_common.CompilerError(nvrtc.getProgramLog(program)) from None
            finally:
                nvrtc.destroyProgram(program)

        return self._kernel_cache.get((source, *options, str(nvrtc.getVersion())), compiled)

    def _target(self, wgmma):
        """The compiler's target: this GPU or, for one newer than the compiler, PTX that the driver compiles further."""
        own = 10 * self._capability[0] + self._capability[1]
        known = self._cuda.nvrtc.getSupportedArchs()
        if own in known:
            return f"sm_{own}a" if wgmma else f"sm_{own}"
        if own < min(known):  # CUDA 13 compiles for 7.5 (Turing) and later
            raise DeviceError(
                f"{self.name} has compute capability {_dotted(self._capability)}, which this CUDA's compiler no longer "
                "knows: pip install 'cvstyle[cuda12]', or use --backend opencl"
            )
        return f"compute_{max(n for n in known if n < own)}"

    def launch(self, kernel, groups, threads, arguments):
        self._use()
        kernel(groups, (threads, 1, 1), tuple(arguments))

    def capture(self, function):
        self._use()
        stream = self._cuda.Stream(non_blocking=True)  # the default stream cannot capture
        with gc_paused(), stream:
            stream.begin_capture()
            try:
                function()
            except RuntimeError as error:  # CuPy refuses some captures without asking CUDA
                raise DeviceError(str(error)) from None
            finally:
                graph = stream.end_capture()

        def replay():
            self._use()
            graph.launch(self._cuda.Stream.null)

        return replay

    def seconds(self, function):
        def rounds():  # as one launch, so that the host's pace does not count
            for _ in range(_ROUNDS):
                function()

        try:
            work = self.capture(rounds)
        except (DeviceError, *self.errors):  # nothing can be captured, or the calls below fail for the same reason
            work = rounds
        work()
        start = self._cuda.Event()
        end = self._cuda.Event()
        start.record()
        work()
        end.record()
        end.synchronize()
        return self._cuda.get_elapsed_time(start, end) / 1e3 / _ROUNDS

    def stream(self):
        """CUDA's current stream, as a number; this device becomes the current one."""
        self._use()
        return self._cuda.get_current_stream().ptr

    def synchronize(self):
        self._use()
        self._cuda.runtime.deviceSynchronize()

    def _use(self):
        self._cuda.runtime.setDevice(self.number)


def _dotted(version):
    return ".".join(map(str, version))


def _driver_version() -> int | None:
    """The CUDA version that the driver supports, as 1000 · major + 10 · minor; None without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        version = ctypes.c_int()
        return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else None
    except (OSError, AttributeError):
        return None

