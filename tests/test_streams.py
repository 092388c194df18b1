"""Standard streams that are closed, full or lost, signals, and --quiet: the picture is saved, without a traceback."""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pictures
import pytest
from PIL import Image

from cvstyle import images
from cvstyle.cli import main
from cvstyle.reports import reporter
from cvstyle.reports.signals import handling

pytestmark = pytest.mark.skipif(os.name == "nt", reason="streams are redirected by a shell")
SHORT = "--image-size 32 --num-iterations 2 --print-iter 1 --backend numpy --threads 1 --seed 1 -o out.png"
LONG = "--image-size 32 --num-iterations 100000 --print-iter 1 --backend numpy --threads 1 -o out.png --log log.csv"


@pytest.fixture
def box(tmp_path, monkeypatch):
    """The current folder, with two pictures."""
    monkeypatch.chdir(tmp_path)
    for name in ("c.png", "s.png"):
        Image.fromarray(pictures.random_pixels(40, 48)).save(name)
    return tmp_path


def environment(**more):
    given = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return dict(given, PYTHONPATH=os.pathsep.join(sys.path), **more)


def shell(command, **more):
    """The finished process of a shell's command line, in which CVSTYLE is the command."""
    command = command.replace("CVSTYLE", f"{shlex.quote(sys.executable)} -m cvstyle")
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment(**more), timeout=120)


def is_saved():
    return images.read("out.png").rgb.shape == (27, 32, 3)


def test_a_picture_for_a_closed_standard_output_is_refused_before_the_run(box):
    done = shell(f"CVSTYLE run --content c.png --style s.png {SHORT} -o - >&-")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("cvstyle: -: it cannot be written: ")
    assert "iteration" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("streams, status", [
    ("2>&-", 0), (">&-", 0), ("<&- >&- 2>&-", 0), ("2>/dev/full", 0), (">/dev/full", 1), (">/dev/full 2>/dev/full", 1),
    (">/dev/full 2>&-", 1),
])  # fmt: skip
def test_a_run_without_usable_streams(box, streams, status, unbuffered):
    if "full" in streams and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    done = shell(f"CVSTYLE run -c c.png -s s.png {SHORT} {streams}", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, is_saved()) == (status, True), done
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    said = "cvstyle: standard output cannot be written: No space left on device; the picture is in out.png"
    assert (said in done.stderr.splitlines()) == (streams == ">/dev/full")
    assert sorted(os.listdir()) == ["c.png", "out.png", "s.png"]


@pytest.mark.parametrize("words", ["models", "models show vgg19", "info", "--help", "run --help", "--version"])
def test_other_verbs_without_usable_streams(words):
    """In one shell for each verb, since starts take time."""
    full = os.path.exists("/dev/full")
    statuses = "echo $? >&3; "
    script = f"CVSTYLE {words} 2>&- >/dev/null; {statuses} CVSTYLE {words} >&-; {statuses}"
    script += f"CVSTYLE {words} >/dev/full; {statuses}" if full else ""
    done = shell(f"exec 3>&1; {script}")
    assert done.stdout.split() == ["0", "0", *["1"] * full]
    assert done.stderr == "cvstyle: standard output cannot be written: No space left on device\n" * full


def test_errors_without_a_standard_error_go_nowhere():
    done = shell("CVSTYLE bogus 2>&-; echo $?; CVSTYLE bogus >&-")
    assert done.stdout == "2\n" and done.returncode == 2
    assert done.stderr.startswith("cvstyle: unknown command 'bogus'")


def test_a_reader_that_goes_away(box):
    done = shell(f"(CVSTYLE run -c c.png -s s.png {SHORT}; echo $? >&2) | true")
    assert done.stderr.splitlines()[-1] in ("0", "1") and is_saved() and "Traceback" not in done.stderr
    done = shell("(CVSTYLE info; echo $? >&2) | head -1 >/dev/null")
    assert done.stderr in ("0\n", "1\n")


def test_a_picture_from_standard_input(box):
    before = Path("c.png").read_bytes()
    done = shell(f"CVSTYLE run -c - -s s.png {SHORT} < c.png")
    assert done.returncode == 0 and is_saved(), done
    done = shell(f"CVSTYLE run -c - -s s.png {SHORT} -o c.png < c.png")
    assert done.returncode == 2 and "c.png: the output would overwrite the input /dev/stdin" in done.stderr
    assert Path("c.png").read_bytes() == before
    done = shell(f"CVSTYLE run -c - -s - {SHORT} < c.png")
    assert done.returncode == 2 and "standard input can be only one of the pictures" in done.stderr


def test_streams_of_python_that_are_none(box, monkeypatch):
    """As in pythonw. They are None again afterwards."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["run", "-c", "c.png", "-s", "s.png", *SHORT.split()]) == 0 and is_saved()
    assert main(["bogus"]) == 2
    assert sys.stdout is None and sys.stderr is None


@pytest.mark.parametrize("settings", [
    {"COLUMNS": "1"}, {"COLUMNS": "x", "LINES": "-1"}, {"PYTHONIOENCODING": "ascii:strict"}, {"TERM": "dumb"},
    {"PYTHONIOENCODING": "utf-16"}, {"LC_ALL": "C", "PYTHONUTF8": "0"},
], ids=str)  # fmt: skip
def test_odd_terminals(settings):
    done = subprocess.run(
        [sys.executable, "-m", "cvstyle", "run", "--help"], capture_output=True, env=environment(**settings)
    )
    assert done.returncode == 0 and not done.stderr and b"\0-\0-\0q" in done.stdout.replace(b"--q", b"\0-\0-\0q")
    done = subprocess.run([sys.executable, "-m", "cvstyle", "info"], capture_output=True, env=environment(**settings))
    assert done.returncode == 0 and not done.stderr and done.stdout


def lines_logged():
    return Path("log.csv").read_text().count("\n") if os.path.exists("log.csv") else 0


def test_a_bar_needs_a_terminal_that_redraws(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for term, found in (("xterm", True), ("dumb", False)):
        monkeypatch.setenv("TERM", term)
        assert reporter._on_terminal() == found


def long_run(before=None, **streams):
    """A process of a run that has made its first iterations."""
    command = [sys.executable, "-m", "cvstyle", "run", "-c", "c.png", "-s", "s.png", *LONG.split()]
    process = subprocess.Popen(command, env=environment(), preexec_fn=before, **streams)
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        if lines_logged() > 3:
            break
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_save_the_picture(box, kind):
    process = long_run(stderr=subprocess.PIPE, text=True)
    process.send_signal(getattr(signal, kind))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and is_saved()
    assert "iterations; the picture so far is in out.png" in err and "Traceback" not in err


def test_a_lost_terminal_saves_the_picture(box):
    """The terminal is gone when the run reports: writing to it fails."""
    import fcntl
    import termios

    ours, theirs = os.openpty()

    def becomes_terminal():
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = long_run(becomes_terminal, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(ours)  # the kernel sends SIGHUP
    assert process.wait(timeout=60) == 130 and is_saved()


def test_ignored_signals_stay_ignored(box):
    """As under nohup, and in a shell's jobs in the background."""

    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = long_run(ignore, stderr=subprocess.DEVNULL)
    lines = lines_logged()
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    end = time.monotonic() + 30
    while lines_logged() < lines + 5 and time.monotonic() < end:
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130 and is_saved()


def test_stopping_and_going_on(box):
    process = long_run(stderr=subprocess.DEVNULL)
    process.send_signal(signal.SIGTSTP)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130 and is_saved()


def test_handlers_are_restored():
    kinds = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = [signal.getsignal(kind) for kind in kinds]
    with handling(True, lambda line: None) as stop_requested:
        assert all(signal.getsignal(kind) not in before for kind in kinds)
        signal.raise_signal(signal.SIGHUP)
        assert stop_requested()
    assert [signal.getsignal(kind) for kind in kinds] == before
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handling(False, print):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


def test_ctrl_c_in_the_main_thread_while_a_run_is_in_another(box):
    """The caller's handler gets it, and the run goes on."""
    before = signal.getsignal(signal.SIGINT)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(main, ["run", "-c", "c.png", "-s", "s.png", "--quiet", *SHORT.split()])
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert running.result() == 0
    assert is_saved() and signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    "module, name", [("images", "as_picture"), ("run.job", "load_network"), ("run.run", "plan_if_large")]
)
def test_ctrl_c_before_the_first_iteration(box, monkeypatch, capfd, module, name):
    def pressed(*_, **__):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the signal had no effect")

    monkeypatch.setattr(importlib.import_module(f"cvstyle.{module}"), name, pressed)
    assert main(["run", "-c", "c.png", "-s", "s.png", *SHORT.split()]) == 130
    assert capfd.readouterr().err == "cvstyle: interrupted; nothing was written\n"
    assert sorted(os.listdir()) == ["c.png", "s.png"]


def test_quiet_silences_libraries(box, monkeypatch, capfd):
    """Python's warnings, and what C code writes to descriptor 2; errors arrive."""
    import cvstyle.images

    read = cvstyle.images.as_picture

    def noisy(*rest, **named):
        warnings.warn("of NumPy", RuntimeWarning, stacklevel=1)
        os.write(2, b"libpng warning: iCCP: known incorrect sRGB profile\n")
        return read(*rest, **named)

    monkeypatch.setattr(cvstyle.images, "as_picture", noisy)
    with pytest.warns(RuntimeWarning, match="of NumPy"):
        words = ["run", "-c", "c.png", "-s", "s.png", *SHORT.split()]
        assert main([*words, "--quiet"]) == 0
        assert capfd.readouterr() == ("", "")
        assert main([*words, "--quiet", "--style-layers", "absent"]) == 2
        out, err = capfd.readouterr()
        assert not out and err.startswith("cvstyle: ") and len(err.splitlines()) == 1
        os.write(2, b"as before")
        assert capfd.readouterr().err == "as before"
        assert main(words) == 0
        assert "libpng warning" in capfd.readouterr().err


def test_quiet_reports_what_went_wrong_in_a_run(box, capfd):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    assert main(["run", "-c", "c.png", "-s", "s.png", *SHORT.split(), "--quiet", "--log", "/dev/full"]) == 0
    assert capfd.readouterr() == ("", "cvstyle: /dev/full: the log ends here: No space left on device\n")
