"""The backends of a run, from names and numbers as on the command line, neural_style.lua's names among them."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import OptionError
from .registry import backend_class, get, list_backends, names, pick, proper_name

_REFERENCE = {"nn": "gpu", "cudnn": "cudnn", "clnn": "opencl"}  # neural_style.lua's names -> ours


def choose(
    backend: str, device: str | None, gpu: str | None, precision: str, share_tiles: bool, say: Callable[[str], None]
) -> list:
    """New backend objects, one per device; on the CPU a device is a share of the threads.

    backend, device, precision: see `get`. gpu: numbers of devices, "0,1", or "-1" for the CPU. share_tiles: whether
    several devices work at the same time. say: takes a line where another backend than the wanted one is used.
    Raises OptionError for backends and devices that are not there, and options that contradict each other.
    """
    backend = proper_name(backend)
    numbers = [number.strip() for number in (gpu or "").split(",") if number.strip()]
    if any(number != "-1" and not number.isdecimal() for number in numbers):
        raise OptionError(f"--gpu {gpu}: a device number, or -1 for the CPU, is needed")
    wanted = [number for number in numbers if number != "-1"]
    if wanted and device:
        raise OptionError("--gpu and --device both choose a device; give one of them")
    name = backend.lower() if backend.lower() in _REFERENCE else backend
    device = device or next(iter(wanted), None)
    if name in _REFERENCE or (name == "auto" and numbers):
        name = _best_for(name, numbers, wanted, say)
        device = None if name == "cpu" else device
    if len(set(wanted)) < len(wanted):
        raise OptionError(f"--gpu {gpu}: each device can be named once")
    if len(wanted) < 2 or (name == "cpu" and backend != "cpu"):
        all_threads = len(wanted) == 1 and _on_host(name)
        return [get(name, None if all_threads else device, precision)]
    if not _on_host(name):
        return [get(name, number, precision) for number in wanted]
    first = get(name, None, precision)
    threads = first.workers.count  # where layers are split, one device works at a time
    if share_tiles:
        threads = max(1, threads // len(wanted))
    return [type(first)(threads=threads) for _ in wanted]


def _on_host(name):
    return name == "cpu" or (name in names() and backend_class(name).on_host)


def _best_for(name, numbers, wanted, say):
    """The backend for one of neural_style.lua's names, or for "auto" where GPUs are chosen by number."""
    if numbers and not wanted:
        return "cpu"
    surveyed = list_backends()
    gpus = {info.name for info in surveyed for device in info.devices if device.kind == "gpu"}
    if not gpus:
        if wanted:
            say("no GPU can be used ('cvstyle devices' says why); using the CPU")
        return "cpu"
    served = _REFERENCE.get(name, "gpu")
    if served in gpus:
        return served
    if name == "cudnn":
        reason = next(info.unavailable_because for info in surveyed if info.name == name)
        say(f"backend 'cudnn' cannot be used: {reason}; using {pick('gpu').name}")
    return "gpu"
