"""That tests leave the user's cache alone, and what `make gpu-quick` runs of them on a GPU (the marker `gpu`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cvstyle import folders
from cvstyle.backends.device.tuning import Choices


class Nothing:
    name, driver, units = "no device", "1", 1


def test_the_users_cache_is_left_alone():
    """What is measured here goes to a temporary folder, in programs that tests start as well."""
    choices = Choices(Nothing, "digest")
    choices.pick(("x",), ["a"], lambda candidate: None)
    command = [sys.executable, "-c", "from cvstyle import folders; print(folders.cache())"]
    started = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert choices.path.parent == folders.cache() == Path(started)
    assert choices.path.is_file() and folders.cache().is_relative_to(tempfile.gettempdir())
    assert not folders.cache().is_relative_to(Path(os.path.expanduser("~"), ".cache"))
