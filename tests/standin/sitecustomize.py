"""With this folder in PYTHONPATH every Python process finds a CuPy: tests/fake_cupy.py over PoCL.

So a whole command, with the processes that it starts, can be tried out without a GPU (test_gpu_report.py).
"""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import fake_cupy
import pocl
import pytest

pocl.prepare()

from cvstyle.backends import opencl  # noqa: E402

fake_cupy.install(pytest.MonkeyPatch(), opencl.devices()[0])
