"""The backend "native": an engine in C, Winograd and direct convolutions with the operations around them in one pass.

The engine is a plain shared library (no Python API), built by setup.py where a compiler is found and loaded by ctypes,
with one variant per instruction set, the best of which is chosen at run time; CVSTYLE_CPU=portable, avx2 or avx512 asks
for one. Operations that it lacks (local response normalisation, ...) are the reference's.
"""

from __future__ import annotations

from .backend import Backend
from .library import variants

__all__ = ["Backend", "variants"]
