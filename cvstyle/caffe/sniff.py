"""File type detection by the first bytes, before parsing, so that a wrong file gets a clear error."""

from __future__ import annotations

import os
import stat

from .errors import model_error

_IMPORT = "'cvstyle models import' makes a .prototxt and a .caffemodel"
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with `git lfs pull` or download it"),
    (b"\x89HDF", f"an HDF5 file; {_IMPORT} of Keras's weights"),
    (b"PK\x03\x04", f"a ZIP archive or a PyTorch file; unpack the one, {_IMPORT} of the other"),
    (b"\x80\x02", f"a pickle, such as older PyTorch files; {_IMPORT} of these"),
    (b"MATLAB 5.0 MAT-file", f"a MATLAB file; {_IMPORT} of MatConvNet's"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
)
_HTML = (b"<!doctype", b"<html", b"<head", b"<?xml")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r"))


def check_file_type(path: str, text: bool) -> int:
    """The size in bytes of a regular file that looks like text (a .prototxt) or like binary (a .caffemodel).

    Raises ModelError naming the actual type of any other file.
    """
    try:
        info = os.stat(path)
        if stat.S_ISDIR(info.st_mode):
            raise model_error(f"{path}: is a directory; give the {'.prototxt' if text else '.caffemodel'} file in it")
        if not stat.S_ISREG(info.st_mode):
            raise model_error(f"{path}: is not a regular file; save it to one first")
        with open(path, "rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise model_error(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise model_error(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not head:
        raise model_error(f"{path}: is empty (0 bytes); download it again")
    for magic, description in _FOREIGN:
        if head.startswith(magic):
            raise model_error(f"{path}: is {description}")
    if head.lstrip().lower().startswith(_HTML):
        raise model_error(f"{path}: is a web page, not a model; download the file itself (the 'raw' link)")
    controls = not head.startswith(_UTF16) and head.translate(None, _CONTROLS) != head
    if text and controls:
        raise model_error(f"{path}: is binary, not a .prototxt; are the .prototxt and the .caffemodel swapped?")
    if not text and not controls and b":" in head:
        raise model_error(f"{path}: is text, not a .caffemodel; are the .prototxt and the .caffemodel swapped?")
    return info.st_size
