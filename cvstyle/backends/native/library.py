"""The engine's shared library: loading, instruction sets, argument structures and signatures."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np

from ...errors import OptionError

_VARIANTS = ("portable", "avx2", "avx512")


def unavailable_because() -> str | None:
    """The reason why the engine does not work here, or None."""
    if sys.byteorder != "little":
        return "the engine is for little-endian processors"
    if _path() is None:
        return _absent_because()
    try:
        _library()
    except OSError as error:
        return f"its library cannot be loaded: {error}"
    return None


def variants() -> tuple[str, ...]:
    """The instruction sets of this processor for which there is a variant of the engine, the best last."""
    return _VARIANTS[: _library().cvstyle_variant() + 1]


def chosen_variant() -> str:
    """The instruction set to use. Raises OptionError where CVSTYLE_CPU asks for one that is not there."""
    asked = os.environ.get("CVSTYLE_CPU") or variants()[-1]
    if asked not in variants():
        raise OptionError(f"CVSTYLE_CPU is {asked}; this processor has {', '.join(variants())}")
    return asked


def address(value):
    """The address of a contiguous array; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    assert value.flags.c_contiguous
    return value.__array_interface__["data"][0]  # `ctypes.data` takes twice as long


@cache
def function(name: str, variant: str):
    """A function of the engine for an instruction set."""
    found = getattr(_library(), f"{name}_{variant}")
    found.restype, found.argtypes = _SIGNATURES[name]
    return found


@cache
def _library():
    library = ctypes.CDLL(_path())
    library.cvstyle_variant.restype = ctypes.c_int64
    return library


@cache
def _path():
    """The library that setup.py built, or None."""
    paths = (Path(__file__).with_name("_engine" + suffix) for suffix in reversed(EXTENSION_SUFFIXES))
    return next((str(path) for path in paths if path.exists()), None)


def _absent_because():
    """The reason why there is no library: a source tree that is not built, or an installation without it."""
    source = Path(__file__).parents[3]
    if (source / "setup.py").exists() and Path(__file__).with_name("engine.h").exists():
        command = f"'python setup.py build_ext --inplace' in {source}"
        return f"its library is not built in this source tree: {command} builds it, with a C compiler"
    return f"its library is not in {_installation()}; reinstall with gcc or clang present, or a wheel for this platform"


def _installation():
    """The name of the installation for a message: the tags of its wheel, if they are known."""
    from importlib import metadata

    try:
        wheel = metadata.distribution("cvstyle").read_text("WHEEL") or ""
    except metadata.PackageNotFoundError:
        wheel = ""
    tags = [line.removeprefix("Tag: ") for line in wheel.splitlines() if line.startswith("Tag: ")]
    return f"the wheel installed here ({', '.join(tags)}), made without a C compiler" if tags else "this installation"


def _structure(pointers, names):
    """ctypes fields of a structure of 64-bit integers and the pointers that are named."""
    return [(name, ctypes.c_void_p if name in pointers else ctypes.c_int64) for name in names.split()]


_POINTERS = {"x", "saved", "weight", "bias", "y", "bits_out", "mask", "dy", "dx", "winner", "work"}


class Winograd(ctypes.Structure):
    """`struct winograd` of engine.h."""

    _fields_ = _structure(
        _POINTERS,
        "x channels height width source saved saved_y saved_x pooled_height pooled_width weight outputs output_step "
        "input_step flip bias pad_top pad_left out_height out_width shift_y shift_x y relu pool_height pool_width "
        "bits_out work threads",
    )


class General(ctypes.Structure):
    """`struct general` of engine.h."""

    _fields_ = _structure(
        _POINTERS,
        "x channels groups height width step_y step_x taps dy dx weight outputs bias y plane row column out_height "
        "out_width relu accumulate bits_out mask work threads",
    )


class Pooling(ctypes.Structure):
    """`struct pooling` of engine.h."""

    _fields_ = _structure(
        _POINTERS,
        "x planes height width kernel_y kernel_x step_y step_x pad_y pad_x y out_height out_width winner winner_size "
        "work threads",
    )


_int = ctypes.c_int64
_pointer = ctypes.c_void_p
_float = ctypes.c_float
_double = ctypes.c_double
_PREPARED = ("winograd", "product", "few", "max_pool", "max_pool_backward", "avg_pool", "avg_pool_backward")
_SIGNATURES = {
    **dict.fromkeys(_PREPARED, (None, (_pointer,))),
    **{f"{name}_work": (_int, (_pointer,)) for name in _PREPARED},
    "gram": (None, (_pointer, _int, _int, _float, _pointer, _pointer, _int)),
    "gram_work": (_int, (_int, _int, _int)),
    "symmetric_panels": (None, (_pointer, _int, _float, _pointer, _int)),
    "relu": (None, (_pointer, _pointer, _pointer, _int, _int, _int)),
    "relu_backward": (None, (_pointer, _pointer, _int, _int, _int)),
    "clip": (None, (*[_pointer] * 3, _float, _float, _int, _int, _int)),
    "copy": (None, (_pointer, _pointer, _int, _int)),
    "add_scaled": (None, (_pointer, _float, _pointer, _int, _int)),
    "dot": (_double, (_pointer, _pointer, _int, _pointer, _int)),
    "lbfgs_products": (None, (*[_pointer] * 3, *[_int] * 4, _pointer, _pointer, _int)),
    "lbfgs_step": (None, (*[_pointer] * 5, *[_int] * 4, _double, _pointer, _int)),
    "halve": (None, (_pointer, _int, _int, _int, _pointer, _int)),
    "add_doubled": (None, (_pointer, _int, _int, _int, _float, _pointer, _int)),
    "total_variation": (_double, (_pointer, _int, _int, _int, _float, _pointer, _pointer, _int)),
}
