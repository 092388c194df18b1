"""What several tests share: the device that the kernels run on."""

from __future__ import annotations

import os

import pocl
import pytest

pocl.prepare()
BACKEND = os.environ.get("CVSTYLE_TEST_BACKEND", "opencl")
if BACKEND == "ptx":  # the backend cuda, with the code that CUDA's compiler makes run on the CPU; slow
    import fake_cupy
    import ptx

    fake_cupy.install(pytest.MonkeyPatch(), ptx.Device())


@pytest.fixture(scope="session")
def device():
    """The backend under test, one for all tests, so that each kernel is compiled once.

    OpenCL's first device, which is PoCL where there is no GPU; CVSTYLE_TEST_BACKEND names another backend.
    """
    from cvstyle import backends

    backend = backends.get("cuda" if BACKEND == "ptx" else BACKEND)
    backend.autotune = False  # each of many random shapes would be tried in many ways
    return backend
