"""What several tests share: a cache folder that is not the user's, and the device that the kernels run on."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pocl
import pytest

pocl.prepare()  # first, since it keeps PoCL's own cache where it is


def use_a_cache_of_its_own():
    """What cvstyle keeps for a user goes to a temporary folder, for all tests and all programs that they start."""
    folder = tempfile.mkdtemp(prefix="cvstyle-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(XDG_CACHE_HOME=folder, LOCALAPPDATA=folder)


use_a_cache_of_its_own()
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
