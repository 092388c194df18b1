"""Files that are mistaken for weights, told by their first bytes."""

from __future__ import annotations

import os
import re

from ..caffe.errors import model_error
from ..caffe.sniff import ARCHIVES, check_first_bytes, regular_file
from ..style_file import MAGIC

_KINDS = (
    *ARCHIVES,
    (MAGIC, "a saved style, not weights; give it as --style"),
    (b"\xff\xd8\xff", "a picture (JPEG), not weights; are two arguments swapped?"),
    (b"\x89PNG", "a picture (PNG), not weights; are two arguments swapped?"),
    (b"GIF8", "a picture (GIF), not weights; are two arguments swapped?"),
    (b"RIFF", "a picture or a film (RIFF), not weights; are two arguments swapped?"),
    (b"II*\0", "a picture (TIFF), not weights; are two arguments swapped?"),
    (b"MM\0*", "a picture (TIFF), not weights; are two arguments swapped?"),
    (b"%PDF", "a PDF document, not weights; get the file of weights itself"),
    (b"GGUF", "a GGUF file of a language model; get the weights of an image network as .pth or .safetensors"),
)
_PICKED = "save its arrays by name with numpy.savez and give the .npz"
# Formats of weights that are not read. A Torch7 object begins with its type (4 an object, 3 a table) and its number.
_FRAMEWORKS = (
    (b"MATLAB 7.3 MAT-file", "a .mat file of -v7.3 (HDF5); save it in MATLAB with save(..., '-v7')"),
    (b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1", f"a file of Torch7 (.t7); read it with the package torchfile, {_PICKED}"),
    (b"\x03\0\0\0\x01\0\0\0", f"a file of Torch7 (.t7); read it with the package torchfile, {_PICKED}"),
    (b"4\n1\n3\nV 1\n", f"a file of Torch7 (.t7, ASCII); load it with Torch7 or PyTorch 0.4 (load_lua), {_PICKED}"),
    (b"3\n1\n", f"a file of Torch7 (.t7, ASCII); load it with Torch7 or PyTorch 0.4 (load_lua), {_PICKED}"),
    (b"\x12\x01\0\0\0\0\0\0", f"a file of MXNet (.params); load it with mxnet.nd.load, {_PICKED}"),
    (b"model_checkpoint_path:", f"the list of a TensorFlow checkpoint; load the checkpoint with TensorFlow, {_PICKED}"),
)
_TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # of a LevelDB table, such as a checkpoint's index
_TENSORFLOW = f"a TensorFlow checkpoint; load it with tf.train.load_checkpoint, {_PICKED}"
_TAR = (257, b"ustar")


def check_foreign(path: str) -> None:
    """Raises ModelError that names the kind of a file that holds no weights."""
    size, head = regular_file(path, lambda: _directory(path))
    check_first_bytes(path, head, (*_KINDS, *_FRAMEWORKS), "weights")
    with open(path, "rb") as file:
        file.seek(max(0, size - len(_TABLE_END)))
        tail = file.read()
    if tail == _TABLE_END or re.search(r"\.data-\d{5}-of-\d{5}$", path):
        raise model_error(f"{path}: is {_TENSORFLOW}")
    if head[4:8] == b"TFL3":
        raise model_error(f"{path}: is a model of TensorFlow Lite; give the model that it was converted from")
    if head[_TAR[0] :].startswith(_TAR[1]):
        raise model_error(f"{path}: is {_tar(head)}")


def _directory(path: str) -> str:
    names = os.listdir(path)
    if "saved_model.pb" in names:
        return "a SavedModel of TensorFlow; save the weights as .h5 (model.save_weights) or .npz"
    if "data.pkl" in names:
        return "an unpacked file of PyTorch; pack it again without compression (zip -0 -r)"
    return "a directory; give the file of weights in it"


def _tar(head: bytes) -> str:
    name = head[:100].rstrip(b"\0")
    if name in (b"sys_info", b"./sys_info", b"pickle", b"./pickle", b"storages", b"tensors"):
        return "a file of a PyTorch before 0.1.10 (tar); load it with PyTorch 1.13 or older and save it again"
    return "a tar archive; unpack it first (tar -xf)"
