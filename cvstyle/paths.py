"""The user's cache folder, and atomic writes of files."""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_MOST_LINKS = 40  # followed in a row, as by Linux
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)  # by a folder in which a file itself may still be written
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STANDARD = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}


def cache() -> Path:
    """cvstyle's folder in the user's cache; it may not exist yet."""
    if sys.platform == "win32":
        found = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    else:
        found = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(found) / "cvstyle"


def descriptor(path: str | os.PathLike) -> int | None:
    """The number of the open file that a path such as /dev/stdout or "-", standard output, stands for."""
    path = os.fspath(path)
    match = _DESCRIPTOR.fullmatch(path)
    return int(match[1]) if match else _STANDARD.get(path)


def is_stream(path: str | os.PathLike) -> bool:
    """True for an open file's descriptor, a pipe or a device such as /dev/null, which cannot be replaced."""
    with suppress(OSError):
        path = _destination(path)
        if descriptor(path) is not None:
            return True
        mode = os.stat(path).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
    return False


def is_standard_output(path: str | os.PathLike) -> bool:
    """True for "-", /dev/stdout and links to it."""
    try:
        return descriptor(_destination(path)) == 1
    except OSError:
        return False


def free(path: str | os.PathLike) -> int | None:
    """Free bytes where a file is written; None if unknown."""
    if is_stream(path):
        return None
    try:
        usage = shutil.disk_usage(os.path.dirname(_destination(path)) or ".")
    except OSError:
        return None
    return usage.free if usage.total else None  # some network file systems report zeros


def check_writable(path: str | os.PathLike) -> None:
    """Raises OSError if `atomic_write` would fail, as far as a trial can tell. Leaves no file."""
    target = _destination(path)
    number = descriptor(target)
    if number is not None:
        os.write(number, b"")
        return
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        os.close(_create(target))  # only this finds names that the file system does not take
        os.unlink(target)
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise OSError(errno.EINVAL, "it is a disk or a socket")
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    part = None if is_stream(target) else _create_beside(target)
    if part:
        os.unlink(part)


@contextmanager
def atomic_write(path: str | os.PathLike, durable: bool = False) -> Iterator[BinaryIO]:
    """A file that replaces `path` once the context ends without an exception; before, nothing changes.

    It can be written and read, and is hidden beside `path` until then. Symbolic links are followed, and the mode and
    owner of a file that exists are kept. Content of a pipe, a device or a descriptor (see `descriptor`), and of a file
    in a folder that takes no other one, is collected in memory and written into it at the end. durable: wait until the
    content is on the disk. Raises OSError.
    """
    target = _destination(path)
    part = None if is_stream(target) else _create_beside(target)
    if part is None:
        with io.BytesIO() as file:
            yield file
            file.seek(0)
            _copy_into(target, file)
        return
    try:
        with open(part, "w+b") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        _keep_mode(target, part)
        _replace(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    if durable:
        _fsync_folder(target)


def remove_left(path: str | os.PathLike) -> None:
    """Remove the temporary files that earlier processes left when they were killed while writing `path`."""
    folder, name = os.path.split(_destination(path))
    for left in glob.glob(os.path.join(glob.escape(folder), f"{_prefix(name)}*")):
        with suppress(OSError):
            os.remove(left)


def write(path: Path, content: bytes) -> bool:
    """Write a file atomically, creating its folder if necessary; returns True on success."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(content)
    except OSError:
        return False
    return True


def _destination(path):
    """The path at the end of a chain of symbolic links; it may be absent. Raises OSError for a circle of links."""
    path = os.fspath(path)
    for _ in range(_MOST_LINKS):
        if descriptor(path) is not None or not os.path.islink(path):
            return path
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _create(path):
    """A descriptor of a new file, whose mode follows the umask."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def _create_beside(target):
    """The path of a new hidden file in the folder of `target`; None if the folder takes none and `target` is there."""
    folder, name = os.path.split(target)
    prefix = _prefix(name)
    longest = None
    while True:
        part = os.path.join(folder, (prefix + secrets.token_hex(4))[:longest])
        try:
            os.close(_create(part))
            return part
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG and not longest:  # the whole path is nearly as long as it can be
                prefix = "."
                longest = max(len(name), 4)
            elif error.errno in _REFUSED and _may_be_written(target):
                return None
            else:
                raise


def _prefix(name):
    """The beginning of the names of temporary files for `name`, which may itself be as long as a name can be."""
    return f".cvstyle-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}-"


def _may_be_written(path):
    return os.path.isfile(path) and os.access(path, os.W_OK)


def _keep_mode(target, part):
    """Give `part` the owner and mode of the file that it will replace, as far as this is allowed."""
    try:
        old = os.stat(target)
    except OSError:
        return
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(part, old.st_uid, old.st_gid)
    with suppress(OSError):
        os.chmod(part, old.st_mode & 0o777)


def _replace(part, target):
    """Rename `part`. A file that is a mount of its own, or another user's in /tmp, only takes the content."""
    try:
        os.replace(part, target)
    except OSError:
        if not _may_be_written(target):
            raise
        with open(part, "rb") as file:
            _copy_into(target, file)
        os.unlink(part)


def _copy_into(target, file):
    number = descriptor(target)
    if number is not None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, or none
                stream.flush()
    with open(target if number is None else os.dup(number), "wb") as out:
        shutil.copyfileobj(file, out)


def _fsync_folder(path):
    """Make a new file name durable, on systems that can sync a folder."""
    with suppress(OSError, AttributeError):
        handle = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
