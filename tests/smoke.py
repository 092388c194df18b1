"""Smoke test of the wheel on every Python from 3.10 on that this machine has (`make smoke`); standard library only.

The wheel is built once. Each Python gets a new virtual environment with the wheel and its dependencies, and runs the
commands and the objective in it. A Python for which a dependency has no wheel is left out, with the reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PHOTO = str(ROOT / "models/demo/content.jpg")
PAINTING = str(ROOT / "models/demo/style.jpg")
MINORS = range(10, 15)  # versions whose absence is reported
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")
TIME_LIMIT = 300  # seconds for one command

PROBE = """import platform, sys, sysconfig
print(platform.python_implementation() + (" free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))
print(*sys.version_info[:3])
print(sys.executable)"""
NETWORK = """input: "data" input_dim: 1 input_dim: 3 input_dim: 32 input_dim: 32
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }"""


class Interpreter(NamedTuple):
    """A Python that runs: its implementation, (major, minor, patch), its path."""

    implementation: str
    version: tuple[int, ...]
    path: str


class CommandError(Exception):
    """A failed command: its words and its output."""


def candidates(environment, home):
    """Return the paths that may be a Python from 3.10 on: those of PATH in its order, then pyenv's versions."""
    names = re.compile(r"(python|pypy)3(\.1\d+t?)?")
    folders = [Path(name) for name in environment.get("PATH", "").split(os.pathsep) if name]
    pyenv = Path(environment.get("PYENV_ROOT") or Path(home, ".pyenv"))
    found = [path for folder in folders for path in sorted(folder.glob("py*3*")) if names.fullmatch(path.name)]
    return [*found, *sorted(pyenv.glob("versions/*/bin/python"))]


def probe(path):
    """Return the Interpreter at a path, or None if it does not run (a pyenv shim of a version that is not enabled)."""
    try:
        result = subprocess.run([path, "-I", "-c", PROBE], capture_output=True, text=True, timeout=30)
        implementation, version, executable = result.stdout.splitlines()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return Interpreter(implementation, tuple(map(int, version.split())), executable)


def choose(interpreters):
    """Return the newest interpreter of each implementation and minor version from 3.10 on."""
    recent = sorted(one for one in interpreters if one.version >= (3, MINORS[0]))
    return list({(one.implementation, one.version[:2]): one for one in recent}.values())


def is_offline(output):
    """Return whether pip could not reach a package index."""
    return re.search("connection broken by|Failed to connect to", output) is not None


def missing_wheel(output):
    """Return the requirement that has no wheel according to pip, or None if pip failed for another reason."""
    single = r"No matching distribution found for (\S+)"
    conflict = r"no matching distributions available for your environment:\s+(\S+)"
    match = re.search(f"{single}|{conflict}", output)
    return (match[1] or match[2]) if match and not is_offline(output) else None


def run(*command, cwd=None, **environment):
    """Return the output of a command. Raises CommandError if it fails or does not end."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CVSTYLE_"))}
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    options |= {"text": True, "errors": "replace", "timeout": TIME_LIMIT}
    try:
        result = subprocess.run(command, cwd=cwd, env=inherited | environment, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(command, str(error)) from error
    if result.returncode:
        raise CommandError(command, result.stdout)
    return result.stdout


def exercise(folder, backends):
    """Run the commands in the virtual environment of a folder, and `check`. Raises CommandError."""
    execute = partial(run, cwd=folder, XDG_CACHE_HOME=str(folder))
    cvstyle = partial(execute, str(folder / "bin/cvstyle"))
    cvstyle("--version")
    cvstyle("devices")
    (folder / "net.prototxt").write_text(NETWORK)
    cvstyle("info", "--proto", "net.prototxt", "--image-size", "64")
    options = ("--image-size", "96", "--num-iterations", "5", "--seed", "1")
    for name in backends:
        cvstyle("run", "--content", PHOTO, "--style", PAINTING, *options, "--backend", name, "--output", f"{name}.png")
    execute(str(folder / "bin/python"), "-I", __file__, "check", *(f"{name}.png" for name in backends))


def check(paths):
    """Compare the pictures of the backends, and take a step along the gradient; runs in the virtual environment."""
    import cvstyle

    pictures = [cvstyle.read_picture(path).rgb.astype(float) for path in paths]
    for path, picture in zip(paths, pictures):
        assert picture.shape == (64, 96, 3), f"{path} has the shape {picture.shape}"
        assert picture.std() > 5, f"{path} is constant"
        assert abs(picture - pictures[0]).mean() < 1, f"{path} differs from {paths[0]}"
    content, style = (cvstyle.preprocess(path, size=96) for path in (PHOTO, PAINTING))
    layers = {"content_layers": ["relu3_2"], "style_layers": ["relu1", "relu2_1"]}
    objective = cvstyle.Objective(cvstyle.embedded_network(), content=content, styles=[style], **layers)
    loss, gradient = objective(content)
    lower, _ = objective(content - gradient / abs(gradient).max())
    assert 0 <= lower < loss, f"along the gradient the loss goes from {loss} to {lower}"


def attempt(interpreter, wheel, pip, backends):
    """Print the outcome with one Python, and the output of the command that failed. Return OK, FAILED or left out."""
    start = time.monotonic()
    state, detail, output = "OK", f"C engine {'compiled' if 'native' in backends else 'not compiled'}", ""
    with tempfile.TemporaryDirectory(prefix="cvstyle-smoke-") as folder:
        install = (f"{folder}/bin/python", *PIP, "install", "--only-binary", ":all:", "--no-compile", str(wheel))
        try:
            run(interpreter.path, "-m", "venv", "--without-pip", folder)
            run(*install, PYTHONPATH=pip)
            exercise(Path(folder), backends)
        except CommandError as error:
            command, output = error.args
            state, detail = "FAILED", " ".join(command)
            if command == install and missing_wheel(output):
                state, detail, output = "left out", f"no wheel of {missing_wheel(output)} for this Python", ""
    name = f"{interpreter.implementation} {'.'.join(map(str, interpreter.version))}"
    print(f"{name:16} {state:8} {time.monotonic() - start:5.1f} s  {detail}\n{output}".rstrip(), flush=True)
    return state


def build(folder):
    """Build the wheel, and install a pip that every Python from 3.10 on can run; return the path of each."""
    pip = f"{folder}/pip"
    run(sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", folder, str(ROOT))
    oldest = ("--python-version", f"3.{MINORS[0]}", "--only-binary", ":all:")
    run(sys.executable, *PIP, "install", "--target", pip, *oldest, "pip")
    return next(Path(folder).glob("*.whl")), pip


def main():
    """Return the exit status: 1 if a Python fails, or if none could be tried though there is a package index."""
    with tempfile.TemporaryDirectory(prefix="cvstyle-wheel-") as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(probe, candidates(os.environ, Path.home()))
        try:
            wheel, pip = build(folder)
        except CommandError as error:
            command, output = error.args
            if is_offline(output):
                print("The wheel was not tried on any Python: the package index cannot be reached.")
                return 0
            print("FAILED", " ".join(command), output)
            return 1
        has_engine = any("/_engine." in name for name in zipfile.ZipFile(wheel).namelist())
        backends = ["native", "numpy"] if has_engine else ["numpy"]
        interpreters = choose(filter(None, found))
        states = list(pool.map(partial(attempt, wheel=wheel, pip=pip, backends=backends), interpreters))
    versions = {one.version[:2] for one in interpreters}
    absent = [f"3.{minor}" for minor in MINORS if (3, minor) not in versions]
    if absent:
        print("not on this machine:", ", ".join(absent))
    return int("FAILED" in states or "OK" not in states)


if __name__ == "__main__":
    sys.exit(check(sys.argv[2:]) if sys.argv[1:2] == ["check"] else main())
