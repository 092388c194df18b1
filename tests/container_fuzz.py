"""Damage to files of weights: `python container_fuzz.py SEED COUNT` reads COUNT damaged copies of each file and prints
those of which it gets neither a container nor a ModelError of one line, that run something, or need more memory than
they have bytes. The last line counts.

A program of its own, since it limits its memory and watches what Python does.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import sys
import tempfile
import time
import tracemalloc

import container_files
import numpy as np

from cvstyle import containers
from cvstyle.containers import hdf5, keras
from cvstyle.errors import ModelError

SPARE = 3 << 20  # bytes beside the file's: blocks, and states of expansion
MOST = 4 << 30  # bytes of address space
SECONDS = 5
HOSTILE = (  # parts of pickles that do something, or ask for much
    b"cos\nsystem\n(X\x0d\0\0\0touch sentineltR", b"cbuiltins\neval\n(X\x01\0\0\x001tR",
    b"c__builtin__\nexec\n(S'1'\ntR", b"(X\x0d\0\0\0touch sentinelios\nsystem\n",
    b"(cos\nsystem\nX\x0d\0\0\0touch sentinelo", b"\x8c\x02os\x8c\x06system\x93)R", b"\x82\x01", b"\x83\x01\x00",
    b"\x84\x01\0\0\0", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"\x94", b"2", b"0", b"1", b"\x8b\xff\xff\xff\x7f",
    b"\x8b\xff\xff\xff\xff", b"\x8d" + (1 << 63).to_bytes(8, "little"), b"\x8e" + b"\xff" * 8, b"\x95" + b"\xff" * 8,
    b"\x96" + b"\xff" * 7 + b"\x7f", b"T\xff\xff\xff\xff", b"}}b", b")\x81", b"NQ", b"Pstorage\n",
    b"X\x07\0\0\0storageQ", b"(X\x07\0\0\0storageNNNNtQ", b"\x85" * 3000, b"(" * 3000, b"]" * 3000,
    b"}" * 3000 + b"s" * 900, b"cbuiltins\ngetattr\n(cos\nX\x06\0\0\0systemtR", b"I" + b"9" * 5000 + b"\n",
    b"L" + b"9" * 250 + b"L\n", b"Vx\\u12\n", b"cnumpy\ndtype\n(X\x0c\0\0\0(99999999,)f4tR",
    b"cnumpy\nload\n(X\x01\0\0\0xtR", b"\x8f(\x90", b"\x97\x98", b"e", b"u", b".",
)  # fmt: skip
NUMBERS = (
    b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff" * 8, (1 << 62).to_bytes(8, "little"),
    b"\0" * 8, b"\0\0\1\0",
)  # fmt: skip
EVENTS = (
    "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "exec", "compile", "import", "pickle.find_class",
)  # fmt: skip

ran: list[str] = []  # what was run while a file was read


def watch(event: str, arguments: tuple) -> None:
    if event in EVENTS:
        ran.append(f"{event} {str(arguments)[:60]}")


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with a few kinds of damage that files suffer, or that an attacker would try."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        out = _damage(out, rng)
    return bytes(out)


def _damage(out: bytearray, rng: np.random.Generator) -> bytearray:
    size = len(out)
    if size < 16:
        return out
    place = int(rng.integers(size - 8))
    if rng.random() < 0.5:  # at the begin and at the end, where directories are
        place = int(rng.integers(min(size - 8, 600)))
        place = place if rng.random() < 0.6 else size - 8 - place
    kind = rng.integers(10)
    if kind == 0:
        return out[: place + 1]
    if kind == 1:
        for at in rng.integers(size, size=4):
            out[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        number = NUMBERS[rng.integers(len(NUMBERS))]
        out[place : place + len(number)] = number
    elif kind == 3:
        out[place] = int(rng.integers(256))
    elif kind == 4:
        del out[place : place + int(rng.integers(1, 9))]
    elif kind == 5:
        out[place:place] = rng.bytes(int(rng.integers(1, 9)))
    elif kind == 6:  # two blocks change places
        other = int(rng.integers(size - 8))
        out[place : place + 32], out[other : other + 32] = out[other : other + 32], out[place : place + 32]
    elif kind == 7:  # a block is there twice
        other = int(rng.integers(size - 8))
        out[place:place] = out[other : other + int(rng.integers(1, 400))]
    else:  # a hostile part, in place of others or between them
        part = HOSTILE[rng.integers(len(HOSTILE))]
        out[place : place + len(part) * (kind == 8)] = part
    return out


def wrong(path: str, size: int) -> tuple[str, bool]:
    """What is wrong with how a file is read, or ""; and True if it gives a container."""
    ran.clear()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    signal.alarm(SECONDS)
    largest = 0
    good = False
    try:
        container = containers.read(path)
        for name, tensor in container.tensors.items():
            values = tensor.read()
            largest = max(largest, values.nbytes)
            if values.shape != tensor.shape or values.dtype != tensor.dtype or name != tensor.name:
                return f"tensor {name} is {values.dtype} {values.shape}", True
        good = True
    except ModelError as error:
        line = error.command_line
        if "\n" in line or not line.startswith(path) or len(line) > 1100:
            return f"not one line: {line!r}", False
    except Exception as error:
        return f"{type(error).__name__}: {error}", False
    finally:
        signal.alarm(0)
    peak = tracemalloc.get_traced_memory()[1] - before
    if peak > 2 * size + SPARE:
        return f"needs {peak} bytes for a file of {size}, with an array of {largest}", good
    return ("runs " + "; ".join(ran) if ran else ""), good


def forked(source, *arguments: str, most: int) -> bytes:
    """As `keras._run`, in a fork of this process: a new one takes half a second."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        tracemalloc.stop()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # HDF5 would never come back to a handler of Python's
        signal.alarm(SECONDS - 2)
        status = 1
        with contextlib.suppress(BaseException):
            os.dup2(writer, 1)
            sys.stdout = open(1, "w")  # noqa: SIM115
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            hdf5.main(source.path, *arguments)
            sys.stdout.flush()
            status = 0
        os._exit(status)
    os.close(writer)
    with open(reader, "rb") as file:
        output = file.read(most + 1)
    status = os.waitpid(child, 0)[1]
    if status:
        if os.WIFSIGNALED(status):
            forked.signals[os.WTERMSIG(status)] += 1
        raise source.damaged(f"HDF5 fails on it (status {status})")
    return output


forked.signals = collections.Counter()


def main(seed: int, count: int) -> int:
    """Read damaged files; the number of wrong results."""
    files = container_files.files()
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST))
    with contextlib.suppress(ImportError):
        values = container_files.arrays()
        files["w.h5"] = container_files.keras(values)
        files["packed.h5"] = container_files.keras(values, compression="gzip", chunks=True)
    keras._run = forked
    rng = np.random.default_rng(seed)
    bad = 0
    counts = collections.Counter()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        paths = {}
        for name, data in files.items():
            paths[name] = os.path.join(folder, name)
            with open(paths[name], "wb") as file:
                file.write(data)
            for tensor in containers.read(paths[name]).tensors.values():
                tensor.read()
        tracemalloc.start()
        sys.addaudithook(watch)
        for number in range(count):
            for name, data in files.items():
                changed = damaged(data, rng)
                with open(paths[name], "wb") as file:
                    file.write(changed)
                cause, good = wrong(paths[name], len(changed))
                counts[good] += 1
                if cause:
                    bad += 1
                    print(f"{name} {number}: {cause}")
                    if os.environ.get("KEEP"):
                        with open(os.path.join(os.environ["KEEP"], f"{seed}_{number}_{name}"), "wb") as file:
                            file.write(changed)
        if os.path.exists("sentinel"):
            print("a pickle was run")
            bad += 1
        os.chdir("/")
    print(
        f"{sum(counts.values())} files, {counts[True]} read, {counts[False]} refused, {bad} wrong, "
        f"signals in HDF5: {dict(forked.signals)}, {time.monotonic() - begin:.0f} s", file=sys.stderr
    )  # fmt: skip
    return bad


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("takes too long")))
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[2]))))
