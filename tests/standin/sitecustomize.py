"""With this folder in PYTHONPATH every Python process finds a CuPy: tests/fake_cupy.py over PoCL.

So a whole command, with the processes that it starts, can be tried out without a GPU (test_gpu_report.py). With
CVSTYLE_STANDIN=idle it is an H200 that does nothing, tunes, and minds what is recorded.
"""

import os
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import fake_cupy
import pytest

if os.environ.get("CVSTYLE_STANDIN") == "idle":
    fake_cupy.install(pytest.MonkeyPatch(), fake_cupy.Idle(), **fake_cupy.H200)

    from cvstyle.backends import cuda

    cuda.Device.autotunes = True
else:
    import pocl

    pocl.prepare()

    from cvstyle.backends import opencl

    fake_cupy.install(pytest.MonkeyPatch(), opencl.Backend.list_devices()[0])
