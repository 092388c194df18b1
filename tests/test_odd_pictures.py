"""Odd picture files: each is right, or refused in one line, without a print, a warning or much memory."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import odd_pictures
import pytest
from odd_pictures import Refused, Right, little_time

from cvstyle import images
from cvstyle.errors import ImageError

ODD = odd_pictures.load()
MOST = 400 << 20  # bytes of memory for any of these small files
PIPED = ["rgb_8.png", "rgb_16.png", "ycc_jfif.jpg", "grey_16.tif", "lossless.webp"]
KNOWN: dict[str, str] = {}
"""The symptom of today, by the name of the file."""
_SYMPTOMS: dict[str, str] = {}
for _symptom, _names in _SYMPTOMS.items():
    KNOWN.update(dict.fromkeys(_names.split(), _symptom))


def status(name):
    """A line of the process's status in Linux, in bytes; 0 elsewhere."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))
    return 0


@contextlib.contextmanager
def little_memory():
    """An allocation of more than 3 GB fails, and one that is used beyond MOST fails the test (on Linux)."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + (3 << 30), limits[1]))
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    before = status("VmHWM")
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert status("VmHWM") - before < MOST


def outcome(path, fit=None):
    """The picture, or its refusal; whatever else is raised, is not caught."""
    try:
        with little_time():
            return images.read(path, fit)
    except ImageError as error:
        return error


def complaint(found, expected, path):
    """What is wrong with an outcome, or ""."""
    if isinstance(expected, Refused):
        if not isinstance(found, ImageError):
            return f"a picture {found.rgb.shape} of mean {found.rgb.mean():.1f} instead of a refusal"
        line = found.command_line
        if "\n" in line or not line.startswith(f"{path}: "):
            return f"not one line that begins with the path: {line!r}"
        said = line.removeprefix(f"{path}: ")
        return "" if re.search(expected.words, said) else f"{said!r} says nothing of {expected.words!r}"
    if isinstance(found, ImageError):
        return f"refused: {found.command_line.removeprefix(f'{path}: ')}"
    if found.rgb.shape != expected.rgb.shape:
        return f"a picture {found.rgb.shape} instead of {expected.rgb.shape}"
    opacity = np.ones(found.size) if found.alpha is None else found.alpha
    visible = np.ones(found.size) if expected.alpha is None else expected.alpha
    if (error := np.abs(opacity - visible).max()) > expected.tolerance / 255 + 1e-3:
        return f"alpha is wrong by {error:.3f}"
    difference = np.abs(found.rgb.clip(0, 255) - np.clip(expected.rgb, 0, 255)).max(axis=2) * (visible > 0.05)
    if not difference.max() <= expected.tolerance:
        return f"colours are wrong by up to {difference.max():.1f} levels, {difference.mean():.1f} on average"
    if expected.remark and not any(re.search(expected.remark, remark) for remark in found.remarks):
        return f"no remark says {expected.remark!r}; remarks: {found.remarks}"
    return ""


def known(names, prefix=""):
    """The names as parameters, with those that fail today marked."""
    mark = lambda name: [pytest.mark.xfail(strict=True, reason=KNOWN[name])] if name in KNOWN else []  # noqa: E731
    return [pytest.param(name, marks=mark(prefix + name)) for name in names]


def would_print(record):
    """Whether a record goes to the terminal where nothing is configured: its loggers have no handlers."""
    logger = logging.getLogger(record.name)
    while logger.parent and not logger.handlers:
        logger = logger.parent
    return record.levelno >= logging.WARNING and logger is logging.root


@pytest.mark.parametrize("name", known(ODD))
def test_odd_picture(name, tmp_path, capfd, caplog):
    data, *accepted = ODD[name]()
    path = str(tmp_path / name)
    with open(path, "wb") as file:
        file.write(data)
    with warnings.catch_warnings(record=True) as warned, little_memory():
        warnings.simplefilter("always")
        found = outcome(path)
    complaints = [complaint(found, expected, path) for expected in accepted]
    assert "" in complaints, "; or ".join(complaints)
    out, err = capfd.readouterr()
    assert not out + err
    assert not [record.getMessage() for record in caplog.records if would_print(record)]
    assert not [str(warning.message) for warning in warned]


def test_the_corpus_is_large_and_no_symptom_is_of_nothing():
    assert len(ODD) > 700
    assert set(KNOWN) <= {*ODD, *PLACES, *(f"pipe {name}" for name in PIPED)}
    assert any(isinstance(e, Right) for e in ODD["rgb_8.png"]()[1:])


def refusal(path):
    """The error about a path, without the path; a line feed in a path does not make two lines."""
    with little_memory():
        found = outcome(path)
    assert isinstance(found, ImageError), f"a picture {found.rgb.shape}"
    assert "\n" not in found.command_line
    return found.command_line


def long_name(folder):
    return str(folder / ("a" * 300 + ".png"))


def link(folder, target):
    os.symlink(target, folder / "link.png")
    return str(folder / "link.png")


def named(folder, name):
    (folder / name).write_bytes(b"no picture")
    return str(folder / name)


def bound(folder):
    """A socket's file."""
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)  # its path may have 107 bytes only
        try:
            server.bind("socket.png")
        finally:
            os.chdir(here)
    return str(folder / "socket.png")


PLACES = {
    "folder": (str, "folder"),
    "folder_named.png": (lambda folder: str(os.makedirs(folder / "a.png") or folder / "a.png"), "folder"),
    "missing": (lambda folder: str(folder / "a.png"), "no such file"),
    "missing_folder": (lambda folder: str(folder / "a" / "b.png"), "no such file"),
    "below_a_file": (lambda folder: named(folder, "a.png") + "/b.png", "no such file|folder|directory"),
    "nothing": (lambda folder: "", "no such file|empty|path|name"),
    "long_name": (long_name, "too long|no such file"),
    "zero_byte": (lambda folder: str(folder / "a\0b.png"), "name|path|character|null byte|no such file"),
    "link_to_nothing": (lambda folder: link(folder, "gone.png"), "no such file|link"),
    "link_to_itself": (lambda folder: link(folder, "link.png"), "link|loop|no such file"),
    "link_to_folder": (lambda folder: link(folder, "."), "folder"),
    "null": (lambda folder: "/dev/null", "empty"),
    "endless": (lambda folder: "/dev/zero", "no picture|large|no end|device|endless|zeros"),
    "socket": (bound, "socket|cannot be|no picture|opened"),
    "line_feed": (lambda folder: named(folder, "a\nb.png"), "no picture|text"),
    "not_utf8": (lambda folder: named(folder, "\udcff.png"), "no picture|text"),
    "number": (lambda folder: named(folder, "123"), "no picture|text"),
}
HALVED = [
    "hidden_colours.png", "hidden_colours_16.png", "progressive.jpg", "tiles_16.tif", "tiles_planar_8.tif",
    "thumbnail_last_8.tif", "lossless_alpha.webp", "rgba.jp2",
]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
@pytest.mark.parametrize("name", known(PLACES))
def test_a_path_that_is_no_file_is_refused_in_one_line(name, tmp_path):
    make, words = PLACES[name]
    assert re.search(words, refusal(make(tmp_path)).split(": ", 1)[1])


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes")
@pytest.mark.parametrize("name", known(PIPED, "pipe "))
def test_a_picture_from_a_pipe(name, tmp_path):
    data, expected, *_ = ODD[name]()
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    writer = threading.Thread(target=Path(path).write_bytes, args=(data,), daemon=True)
    writer.start()
    assert complaint(outcome(path), expected, path) == ""
    writer.join(10)


@pytest.mark.parametrize("name", known(HALVED))
def test_a_reduced_picture_is_the_mean_of_the_whole(name, tmp_path):
    """To half of the size, with colours weighted by alpha: means of 2×2 pixels."""
    data, expected, *_ = ODD[name]()
    path = str(tmp_path / name)
    with open(path, "wb") as file:
        file.write(data)
    height, width = (n // 2 for n in expected.rgb.shape[:2])
    alpha = np.ones(expected.rgb.shape[:2]) if expected.alpha is None else expected.alpha
    halved = lambda a: a.reshape(height, 2, width, 2, -1).mean(axis=(1, 3))  # noqa: E731
    colour = halved(expected.rgb * alpha[..., None]) / np.maximum(halved(alpha), 1e-9)
    opacity = None if expected.alpha is None else halved(alpha)[..., 0]
    found = outcome(path, lambda *size: (height, width))
    assert complaint(found, Right(colour, opacity, expected.tolerance + 0.5), path) == ""
    assert found.full_size == expected.rgb.shape[:2]


def test_damaged_files_are_pictures_or_refused():
    """A damaged copy of each file (tests/odd_fuzz.py)."""
    tests = os.path.dirname(odd_pictures.__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(tests), tests])}
    run = [sys.executable, os.path.join(tests, "odd_fuzz.py"), "0", "1"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=600)
    assert not done.stdout
    assert not done.returncode, done.stderr[-2000:]
