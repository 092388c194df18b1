"""File type detection by the first bytes, before parsing, so that a wrong file gets a clear error."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable

from ..style_file import MAGIC
from .errors import model_error

ARCHIVES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with `git lfs pull` or download it"),
    (b"\x1f\x8b", "a gzip archive; unpack it first (gunzip)"),
    (b"BZh", "a bzip2 archive; unpack it first (bunzip2)"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first (unxz)"),
    (b"(\xb5/\xfd", "a Zstandard archive; unpack it first (unzstd)"),
    (b"\x04\x22\x4d\x18", "an LZ4 archive; unpack it first (unlz4)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
)
"""First bytes of files that stand for others, and a description with the way out."""

_IMPORT = "'cvstyle models import' makes a .prototxt and a .caffemodel"
_FOREIGN = (
    *ARCHIVES,
    (MAGIC, "a saved style, not a network; give it as --style"),
    (b"\x89HDF", f"an HDF5 file; {_IMPORT} of Keras's weights"),
    (b"PK\x03\x04", f"a ZIP archive or a PyTorch file; unpack the one, {_IMPORT} of the other"),
    (b"\x80\x02", f"a pickle, such as older PyTorch files; {_IMPORT} of these"),
    (b"MATLAB 5.0 MAT-file", f"a MATLAB file; {_IMPORT} of MatConvNet's"),
)
_HTML = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")
_HEAD = 4096
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r"))


def regular_file(path: str, directory: Callable[[], str]) -> tuple[int, bytes]:
    """(size, first bytes) of a file that is not empty. directory: the way out for a directory. Raises ModelError."""
    try:
        info = os.stat(path)
        if stat.S_ISDIR(info.st_mode):
            raise model_error(f"{path}: is {directory()}")
        if not stat.S_ISREG(info.st_mode):
            raise model_error(f"{path}: is not a regular file; save it to one first")
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        raise model_error(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise model_error(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not head:
        raise model_error(f"{path}: is empty (0 bytes); download it again")
    return info.st_size, head


def check_first_bytes(path: str, head: bytes, kinds: Iterable[tuple[bytes, str]], wanted: str) -> None:
    """Raises ModelError for a file of one of these kinds, (first bytes, description), and for a web page.

    wanted: the contents that the file should have, as a noun.
    """
    for magic, description in kinds:
        if head.startswith(magic):
            raise model_error(f"{path}: is {description}")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        raise model_error(f"{path}: is a web page, not {wanted}; download the file itself (the 'raw' link)")


def check_file_type(path: str, text: bool) -> int:
    """The size in bytes of a regular file that looks like text (a .prototxt) or like binary (a .caffemodel).

    Raises ModelError naming the actual type of any other file.
    """
    wanted = ".prototxt" if text else ".caffemodel"
    size, head = regular_file(path, lambda: f"a directory; give the {wanted} file in it")
    check_first_bytes(path, head, _FOREIGN, "a model")
    controls = not head.startswith(_UTF16) and head.translate(None, _CONTROLS) != head
    if text and controls:
        raise model_error(f"{path}: is binary, not a .prototxt; are the .prototxt and the .caffemodel swapped?")
    if not text and not controls and b":" in head:
        raise model_error(f"{path}: is text, not a .caffemodel; are the .prototxt and the .caffemodel swapped?")
    return size
