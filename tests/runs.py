"""Files on disk and command lines of runs for tests."""

from __future__ import annotations

from pathlib import Path

import nets
import pictures

from cvstyle.netdef import NetDef


def files(folder: Path, net: NetDef, form: str = "V2", **sizes: tuple[int, int]) -> dict[str, str]:
    """Write a network and a picture of each (width, height); returns their paths as "proto", "model" and by name."""
    proto, model = nets.write(net, folder, form)
    return {"proto": proto, "model": model, **dict(zip(sizes, pictures.write(folder, **sizes), strict=True))}


def command(files: dict[str, str], output, *more) -> list[str]:
    """The words of `cvstyle run` for these files, with more options."""
    given = (word for name in ("proto", "model", "content", "style") for word in (f"--{name}", files[name]))
    return ["run", *given, "--output", str(output), *map(str, more)]
