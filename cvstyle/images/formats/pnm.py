"""The raw formats of Netpbm: PGM, PPM and PAM of any maximum, and PFM, whose samples are floats."""

from __future__ import annotations

import numpy as np

from ...errors import ImageError
from ..source import Source, nothing, rows_of

_PAM = {
    "GRAYSCALE": ("L", 1), "GRAYSCALE_ALPHA": ("L", 2), "RGB": ("RGB", 3), "RGB_ALPHA": ("RGB", 4),
    "BLACKANDWHITE": ("L", 1), "BLACKANDWHITE_ALPHA": ("L", 2),
}  # fmt: skip
_LONGEST_HEADER = 1 << 16


def source_of(file, name: str) -> Source:
    """The source of a PNM, PAM or PFM file."""
    magic = file.read(2).decode()
    if magic == "P7":
        width, height, channels, white, mode = _pam_header(file, name)
    else:
        width, height, white = (float(_word(file)) for _ in range(3))
        width, height = map(int, (width, height))
        channels = 3 if magic in ("P6", "PF") else 1
        mode = "RGB" if channels == 3 else "L"
    floats = magic in ("PF", "Pf")
    if min(width, height) < 1 or not white or (not floats and not 1 <= white <= 65535):
        raise ValueError("an impossible header")
    kind = np.dtype((">f4" if white > 0 else "<f4") if floats else ">u2" if white > 255 else "u1")
    start = file.tell()
    row = width * channels * kind.itemsize

    def strips(*_):
        rows = rows_of(width)
        return (height, width), (part(top, min(height, top + rows)) for top in range(0, height, rows))

    def part(top, bottom):
        file.seek(start + (height - bottom if floats else top) * row)  # PFM begins with the lowest row
        data = file.read((bottom - top) * row)
        pixels = np.frombuffer(data, kind, (bottom - top) * width * channels).reshape(-1, width, channels)
        return pixels[::-1] if floats else pixels

    return Source(
        (height, width), mode, strips, nothing, "straight" if channels in (2, 4) else None,
        white=abs(white), opaque=abs(white), bounded=True,
    )  # fmt: skip


def _word(file):
    """The next word of a header, without comments; one white character after it is consumed."""
    word = b""
    for _ in range(_LONGEST_HEADER):
        byte = file.read(1)
        if byte == b"#":
            while file.read(1) not in (b"\n", b"\r", b""):
                pass
        elif byte and not byte.isspace():
            word += byte
        elif word or not byte:
            break
    return word.decode("ascii")


def _pam_header(file, name):
    fields = {}
    for _ in range(64):
        line = file.readline(_LONGEST_HEADER).decode("latin-1").split("#")[0].split()
        if line[:1] == ["ENDHDR"]:
            break
        if line:
            fields[line[0]] = " ".join(line[1:])
    width, height, channels, white = (int(fields[key]) for key in ("WIDTH", "HEIGHT", "DEPTH", "MAXVAL"))
    by_depth = {1: "GRAYSCALE", 2: "GRAYSCALE_ALPHA", 3: "RGB", 4: "RGB_ALPHA"}
    mode, wanted = _PAM.get(fields.get("TUPLTYPE") or by_depth.get(channels), ("", channels))
    if not mode or wanted != channels:
        kind = fields.get("TUPLTYPE", "")
        raise ImageError(f"{name}: a PAM of {channels} channels {kind} is no picture; save it as PNG")
    return width, height, channels, white, mode
