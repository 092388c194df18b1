"""Damage to saved styles: `python style_fuzz.py SEED COUNT` reads COUNT damaged copies of a file and prints those of
which it gets neither an ImageError of one line nor the style with its own numbers, or that need more memory than they
have. Half of them have a header of other values whose digest is right, as an attacker would make it. The last line
counts.

A program of its own, since it limits its memory.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import hashlib
import json
import signal
import struct
import sys
import tracemalloc

import numpy as np

from cvstyle import saved_style
from cvstyle.errors import ImageError
from cvstyle.netdef import Convention
from cvstyle.saved_style import Layer, Origin, SavedStyle, Size

SPARE = 1 << 20  # bytes beside three times the file's
MOST = 4 << 30  # bytes of address space
SECONDS = 5
VALUES = (
    None, True, False, -1, 0, 1, 3, 63, 64, 1 << 31, 1 << 40, 1 << 63, 10**400, -(10**30), 0.5, float("nan"),
    float("inf"), "", "x", "max", "\0", "a" * 5000, [], [1], [[]], [None] * 3, {}, {"a": 1}, [[0, 1 << 62, ""]],
)  # fmt: skip


def example() -> SavedStyle:
    """A style of two layers at three sizes."""
    rng = np.random.default_rng(0)

    def moments(channels):
        features = rng.normal(0, 9, (channels, 40)).astype(np.float32)
        return np.vstack([features @ features.T, features.mean(1)])

    layers = {"relu1_1": Layer(5, "a" * 32, False), "relu2_1": Layer(9, "b" * 32, True)}
    kept = {
        Size(run, size): {name: moments(layer.channels) for name, layer in layers.items()}
        for run, size in ((64, 32), (64, 64), (128, 128))
    }
    origin = Origin("vgg.caffemodel", "c" * 16, Convention(), "max", False)
    return saved_style.pack("monet.jpg", "d" * 16, (400, 300), origin, layers, kept, b"\xff\xd8 no picture")


def numbers(style: SavedStyle) -> dict:
    """All that is in a style."""
    sizes = [*style.sizes, Size(90, 90), Size(1, 1), Size(4096, 4096)]
    found = {(name, size): style.moments(name, size).tobytes() for name in style.layers for size in sizes}
    return found | {"thumbnail": style.thumbnail, "name": style.name, "proportions": style.proportions}


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with a few kinds of damage that files suffer."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if len(out) < 2:
            break
        place = int(rng.integers(len(out)) if rng.random() < 0.5 else rng.integers(min(len(out), 1500)))
        kind = rng.integers(6)
        if kind == 0:
            del out[place + 1 :]
        elif kind == 1:
            out[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            out[place : place + 8] = rng.bytes(8)
        elif kind == 3:
            del out[place : place + int(rng.integers(1, 70))]
        elif kind == 4:
            out[place:place] = rng.bytes(int(rng.integers(1, 70)))
        else:
            out[place : place + 8] = (b"\xff" * 8, b"\0" * 8)[rng.integers(2)]
    return bytes(out)


def hostile(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with another value somewhere in its header, and the digest of that."""
    length = struct.unpack_from("<I", data, 12)[0]
    header = json.loads(data[48 : 48 + length])
    for _ in range(rng.integers(1, 3)):
        _change(header, rng)
    try:
        text = json.dumps(header).encode().ljust(length)
    except ValueError:  # Python writes no integer of so many digits
        return data
    if rng.random() < 0.05:
        text = (b"[" * 100_000, b"\xff\xfe", b"null", b"{}", b'{"bytes": ' + b"9" * 5000 + b"}")[rng.integers(5)]
    start = data[:12] + struct.pack("<I", len(text))
    return start + hashlib.sha256(start + text).digest() + text + data[48 + length :]


def _change(value, rng):
    """Another value in place of one within a JSON value."""
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        inner = value[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.3:
            break
        value = inner
    choice = rng.random()
    if choice < 0.15:
        del value[key]
    elif choice < 0.3 and isinstance(inner, int) and not isinstance(inner, bool):
        value[key] = inner + int(rng.integers(-70, 70))
    elif choice < 0.4 and isinstance(value, list):
        value.append(copy.deepcopy(inner))
    else:
        value[key] = VALUES[rng.integers(len(VALUES))]


def wrong(data: bytes, own: dict | None) -> tuple[str, bool]:
    """What is wrong with how bytes are read, or ""; and True where they give a style. own: the numbers it must have."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    signal.alarm(SECONDS)
    good = False
    try:
        found = numbers(SavedStyle(data, "m.cvstyle"))
        good = True
        if own is not None and found != own:
            return "other numbers", True
        if not all(np.isfinite(np.frombuffer(v, np.float32)).all() for k, v in found.items() if isinstance(k, tuple)):
            return "numbers that are not finite", True
    except ImageError as error:
        line = error.command_line
        if "\n" in line or not line.startswith("m.cvstyle: ") or len(line) > 300:
            return f"not one line: {line!r}", False
    except Exception as error:
        return f"{type(error).__name__}: {error}", False
    finally:
        signal.alarm(0)
    peak = tracemalloc.get_traced_memory()[1] - before
    return (f"needs {peak} bytes for a file of {len(data)}" if peak > 3 * len(data) + SPARE else ""), good


def main(seed: int, count: int) -> int:
    """Read damaged files; the number of wrong results."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST))
    style = example()
    data = bytes(style._file.view)
    own = numbers(style)
    rng = np.random.default_rng(seed)
    counts = collections.Counter()
    bad = 0
    tracemalloc.start()
    for number in range(count):
        attack = number % 2
        changed = hostile(data, rng) if attack else damaged(data, rng)
        cause, good = wrong(changed, None if attack else own)
        counts[good] += 1
        if cause:
            bad += 1
            print(f"{number}: {cause[:300]}")
    print(f"{count} files, {counts[True]} read, {counts[False]} refused, {bad} wrong", file=sys.stderr)
    return bad


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("takes too long")))
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[2]))))
