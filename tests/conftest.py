"""What several tests share: the OpenCL device of this machine, which is PoCL where there is no GPU."""

from __future__ import annotations

import pocl
import pytest

pocl.prepare()


@pytest.fixture(scope="session")
def device():
    """The backend under test, one for all tests, so that each kernel is compiled once."""
    from cvstyle.backends.opencl import Backend

    return Backend()
