"""Files that are mistaken for weights, told by their first bytes."""

from __future__ import annotations

import os
import stat

from ..caffe.errors import model_error

_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with `git lfs pull` or download it"),
    (b"\x1f\x8b", "a gzip archive; unpack it first (gunzip)"),
    (b"BZh", "a bzip2 archive; unpack it first (bunzip2)"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first (unxz)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\xff\xd8\xff", "a picture (JPEG), not weights; are two arguments swapped?"),
    (b"\x89PNG", "a picture (PNG), not weights; are two arguments swapped?"),
    (b"GIF8", "a picture (GIF), not weights; are two arguments swapped?"),
    (b"RIFF", "a picture or a film (RIFF), not weights; are two arguments swapped?"),
    (b"%PDF", "a PDF document, not weights; get the file of weights itself"),
    (b"GGUF", "a GGUF file of a language model; get the weights of an image network as .pth or .safetensors"),
)
_HTML = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")
_TAR = (257, b"ustar")


def check_foreign(path: str) -> int:
    """The size in bytes of a regular file. Raises ModelError that names the kind of a file that holds no weights."""
    try:
        info = os.stat(path)
        if stat.S_ISDIR(info.st_mode):
            raise model_error(_directory(path))
        if not stat.S_ISREG(info.st_mode):
            raise model_error(f"{path}: is not a regular file; save it to one first")
        with open(path, "rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise model_error(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise model_error(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}; check it") from None
    if not head:
        raise model_error(f"{path}: is empty (0 bytes); download it again")
    for magic, description in _KINDS:
        if head.startswith(magic):
            raise model_error(f"{path}: is {description}")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        raise model_error(f"{path}: is a web page, not weights; download the file itself (the 'raw' link)")
    if head[_TAR[0] :].startswith(_TAR[1]):
        raise model_error(f"{path}: is {_tar(head)}")
    return info.st_size


def _directory(path: str) -> str:
    names = os.listdir(path)
    if "saved_model.pb" in names:
        return f"{path}: is a SavedModel of TensorFlow; save the weights as .h5 (model.save_weights) or .npz"
    if "data.pkl" in names:
        return f"{path}: is an unpacked file of PyTorch; pack it again without compression (zip -0 -r)"
    return f"{path}: is a directory; give the file of weights in it"


def _tar(head: bytes) -> str:
    name = head[:100].rstrip(b"\0")
    if name in (b"sys_info", b"./sys_info", b"pickle", b"./pickle", b"storages", b"tensors"):
        return "a file of a PyTorch before 0.1.10 (tar); load it with PyTorch 1.13 or older and save it again"
    return "a tar archive; unpack it first (tar -xf)"
