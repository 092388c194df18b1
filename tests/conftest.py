"""What several tests share: the device that the kernels run on."""

from __future__ import annotations

import os

import pocl
import pytest

pocl.prepare()


@pytest.fixture(scope="session")
def device():
    """The backend under test, one for all tests, so that each kernel is compiled once.

    OpenCL's first device, which is PoCL where there is no GPU; CVSTYLE_TEST_BACKEND names another backend.
    """
    from cvstyle import backends

    backend = backends.get(os.environ.get("CVSTYLE_TEST_BACKEND", "opencl"))
    backend.autotune = False  # each of many random shapes would be tried in many ways
    return backend
