"""Names of input files on a command line: standard input, patterns, and hints for names of files that are not there."""

from __future__ import annotations

import difflib
import glob
import ntpath
import os
import re

from ..errors import OptionError
from .common import shown

DEVICE = "/dev/stdin"
"""The path of standard input, for which "-" stands."""
EXAMPLES = {
    "--content": "photo.jpg", "--style": "painting.jpg", "--init-image": "small.png", "--output": "out.png",
    "PICTURE": "painting.jpg", "texture": "bricks.jpg",
    "--mask": "sky.png,houses.png", "--style-mask": "painting-regions.png",
}  # fmt: skip
_MOST_LISTED = 10000  # names of a folder that are compared with a misspelt one


def pictures(option: str, paths: list[str]) -> list[str]:
    """The paths of picture files. "-" is standard input; a pattern such as *.jpg stands for all files that fit.

    Raises OptionError for a file that is not there.
    """
    return [path for name in paths for path in _pictures(option, name)]


def picture(option: str, path: str) -> str:
    """The path of one picture file. Raises OptionError, also for a pattern that several files fit."""
    paths = _pictures(option, path)
    if len(paths) > 1:
        more = ", ..." if len(paths) > 2 else ""
        raise OptionError(
            f"{option} takes one file, and {shown(path)} stands for {len(paths)} ({paths[0]}, {paths[1]}{more}); name "
            "one of them, and start a run for each of the others"
        )
    return paths[0]


def _pictures(option, path):
    if not path.strip():
        raise OptionError(f"{option} {shown(path)} names no file: {option} {EXAMPLES[option]}")
    if not _is_missing(path):
        return [path]
    if path == "-":
        if not os.path.exists(DEVICE):
            raise OptionError(f"{option} -: there is no standard input to read a picture from; name a file")
        if os.isatty(0):
            raise OptionError(f"{option} -: standard input is the terminal; pipe a picture into it, or name a file")
        return [DEVICE]
    fitting = sorted(glob.glob(path)) if glob.has_magic(path) else []
    if not fitting:
        raise OptionError(f"{option} {path}: {_cause(path)}")
    return fitting


def _is_missing(path):
    """True if there is no such file; False if that cannot be told, which reading the file will explain."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        pass
    return False


def _cause(path):
    """The reason why there is no file of a name, with a way out."""
    drive = re.match(r"([A-Za-z]):[\\/]", path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        return "this is an address, and cvstyle reads files; download the picture and give the name of its file"
    if os.path.islink(path):
        return f"this link leads to {os.readlink(path)}, which does not exist; name another file"
    if drive and os.name != "nt":
        rest = path[3:].replace("\\", "/")
        return f"this is a path of Windows, and here is none; under WSL it is /mnt/{drive[1].lower()}/{rest}"
    if "\\" in path and os.name != "nt" and os.path.exists(path.replace("\\", "/")):
        return f"there is no such file; is {path.replace(ntpath.sep, '/')} meant?"
    if glob.has_magic(path):
        return "no file fits this pattern; check the folder and the ending"
    if path.startswith("~"):
        return "there is no such file, or no user of that name; give the whole path"
    return f"there is no such file; {_alike(path)}"


def _alike(path):
    folder, name = os.path.split(path)
    if folder and not os.path.isdir(folder):
        return f"there is no folder {folder} either"
    try:
        names = os.listdir(folder or ".")[:_MOST_LISTED]
    except OSError:
        names = []
    for other in names:
        if other.strip().lower() == name.strip().lower():
            return f"is {os.path.join(folder, other)} meant?"
    alike = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    return f"is {os.path.join(folder, alike[0])} meant?" if alike else "check the name and the folder"
