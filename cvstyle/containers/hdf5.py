"""A program that lists and reads arrays in an HDF5 file: python -m cvstyle.containers.hdf5 FILE [ARRAY].

HDF5 is a C library that a damaged file can keep busy for ever or crash; so it has a process of its own, with limits of
time and memory that its caller and `main` set. Standard output: a list in JSON, or an array's values.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys

_SPARE = 256 << 20  # bytes of memory beside the file's size
_MOST_ARRAYS = 5_000
_KINDS = "fiub"
_PIECE = 1 << 20


def main(path: str, array: str = "") -> None:
    """List a file's arrays, or write the values of one."""
    import h5py

    _limit_memory(os.path.getsize(path) + _SPARE)
    with h5py.File(path, "r") as file:
        if array:
            _write(file[array])
        else:
            json.dump(_listed(h5py, file), sys.stdout)


def _limit_memory(more: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # elsewhere than on Linux there is no such limit
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))


def _listed(h5py, file) -> dict:
    root = file.get("model_weights", file)
    layers = _names(root.attrs, "layer_names")
    arrays = []
    if layers:
        for layer in layers:
            for weight in _names(root[layer].attrs, "weight_names"):
                name = weight if weight.startswith(layer) else f"{layer}/{weight}"
                arrays.append(_array(root[layer][weight], name, file.filename))
    else:

        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                arrays.append(_array(item, name, file.filename))
            return True if len(arrays) > _MOST_ARRAYS else None

        root.visititems(visit)
    return {
        "keras": bool(layers) or "layers" in root,
        "ordered": bool(layers),
        "backend": _text(root.attrs.get("backend", "")),
        "arrays": [array for array in arrays if array],
    }


def _names(attributes, name: str) -> list[str]:
    """A list of names, which Keras divides where an attribute would be too long."""
    if name in attributes:
        return [_text(value) for value in attributes[name]]
    found = []
    for part in itertools.takewhile(attributes.__contains__, (f"{name}{n}" for n in itertools.count())):
        found += [_text(value) for value in attributes[part]]
    return found


def _text(value) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _array(dataset, name: str, file: str) -> dict | None:
    """Name, place in the file, dtype, shape, offset and size in the file, of an array of numbers."""
    if dataset.shape is None or dataset.dtype.kind not in _KINDS:
        return None
    if dataset.external or dataset.is_virtual or dataset.file.filename != file:
        raise ValueError(f"array '{name}' is in another file")
    return {
        "name": name, "place": dataset.name, "dtype": dataset.dtype.str, "shape": list(dataset.shape),
        "offset": dataset.id.get_offset(), "stored": dataset.id.get_storage_size(),
    }  # fmt: skip


def _write(dataset) -> None:
    """Write values in C order, by parts of the first axis."""
    if not dataset.shape:
        sys.stdout.buffer.write(dataset[()].tobytes())
        return
    rows = max(1, _PIECE // max(1, dataset.nbytes // max(1, dataset.shape[0])))
    for row in range(0, dataset.shape[0], rows):
        sys.stdout.buffer.write(dataset[row : row + rows].tobytes())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ModuleNotFoundError as error:
        sys.exit("h5py" if error.name == "h5py" else str(error))
    except Exception as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
