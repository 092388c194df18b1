"""Downloads of known networks: an interrupted one goes on, mirrors take turns, a whole file is checked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from .. import __version__
from ..errors import ModelError, OptionError
from .cards import File
from .place import Fetched, check_room, digest_of, disk, kept, made

# progress(file, url, bytes so far, bytes in all or None)
Progress = Callable[[File, str, int, "int | None"], None]

_CHUNK = 1 << 18
_TIMEOUT = 30  # seconds without a byte


def download(
    file: File, folder: str | os.PathLike, base_url: str | None = None, progress: Progress | None = None
) -> Fetched:
    """Make sure that a file is in a folder: a good one is kept, an interrupted download goes on, mirrors take turns.

    What has arrived is kept in NAME.part until it is whole and its digest is right. Raises ModelError, or OptionError
    for an unusable base_url.
    """
    urls = file.urls if base_url is None else (_address(base_url, file.name),)
    here = kept(file, folder)
    if here:
        return here
    target = made(folder) / file.name
    part, failures = _Part(target), []
    for url in urls:
        try:
            found = _transfer(file, url, part, progress)
        except _TransferError as error:
            failures.append(f"{url}: {error}")
            continue
        with disk(target):
            os.replace(part.path, target)
        part.remove()
        return Fetched(str(target), found, bool(file.digest), True)
    size = part.size()
    raise ModelError(
        f"{file.name} cannot be downloaded: {'; '.join(failures)}; "
        + (f"{size:,} bytes are kept in {part.path}, and the same command goes on from there" if size else _WAY_OUT)
    )


_WAY_OUT = "try later, name a mirror with --base-url, or get the file elsewhere and give it to 'cvstyle run --model'"


class _TransferError(Exception):
    """One address did not give the file; another may."""


class _Part:
    """What has arrived of a file, and beside it where from: an ETag or date lets the server tell if it changed."""

    def __init__(self, target: Path):
        self.path = target.with_name(target.name + ".part")
        self.origin = target.with_name(target.name + ".part.origin")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def remove(self) -> None:
        for path in (self.path, self.origin):
            path.unlink(missing_ok=True)

    def validator(self, url: str) -> str:
        """What If-Range needs to go on from this address, or ""."""
        try:
            origin = json.loads(self.origin.read_text(encoding="utf-8"))
            return origin["validator"] if origin["url"] == url else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def start(self, url: str, headers) -> None:
        """Begin anew with a response from this address."""
        etag = headers.get("ETag", "")
        # A weak ETag promises the same meaning, not the same bytes: If-Range may not use it.
        validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
        with disk(self.path):
            self.path.write_bytes(b"")
            self.origin.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def append(self):
        """The file, opened to append the next bytes."""
        with disk(self.path):
            return self.path.open("ab")


def _transfer(file, url, part, progress):
    """Bring the part file to completion from one address; returns its digest. Raises _TransferError."""
    # pooch would do this, but it starts every download over, and half of these are more than 500 MB.
    resumed = part.size() == file.size or _receive(file, url, part, progress)
    found = digest_of(part.path, file.digest)
    if resumed and found != (file.digest or found):
        part.remove()  # the earlier piece may be damaged
        _receive(file, url, part, progress)
        found = digest_of(part.path, file.digest)
    if found != (file.digest or found):
        part.remove()
        raise _TransferError(f"what came is not the file: its digest is {found}, that of the file is {file.digest}")
    return found


def _receive(file, url, part, progress):
    """Append the missing bytes to the part file; returns whether the file had bytes before."""
    from http.client import HTTPException

    report = progress or (lambda *_: None)
    try:
        response, offset, total = _open(file, url, part)
        with response, part.append() as out:
            check_room(part.path, (total or 0) - offset)
            done = offset
            report(file, url, done, total)
            while chunk := response.read(_CHUNK):
                with disk(part.path):
                    out.write(chunk)
                    out.flush()
                done += len(chunk)
                report(file, url, done, total)
    except (OSError, HTTPException, ValueError) as error:
        raise _TransferError(_reason(error)) from None
    if total is not None and done != total:
        raise _TransferError(f"the connection broke after {done:,} of {total:,} bytes")
    return offset > 0


def _open(file, url, part):
    """(response with the missing bytes, number of its first byte, size of the whole file)."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    headers = {"User-Agent": f"cvstyle/{__version__}", "Accept-Encoding": "identity"}
    offset, validator = part.size(), part.validator(url)
    # Without a validator only the digest can tell whether the pieces fit.
    if offset and (validator or file.digest):
        headers["Range"] = f"bytes={offset}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code != 416 or "Range" not in headers:
            raise
        error.close()
        part.remove()  # there is no byte after these: the file is another one now
        return _open(file, url, part)
    try:
        first, total = _extent(response)
        if first not in (0, offset):
            raise _TransferError(f"the server sent bytes from {first:,} on, not from {offset:,}")
        if response.headers.get_content_type() == "text/html":
            raise _TransferError("the server sent a web page, not the file")
        if file.size is not None and total not in (None, file.size):
            raise _TransferError(f"the server has {total:,} bytes under this name; the file has {file.size:,}")
        if not first:
            part.start(url, response.headers)
    except Exception:
        response.close()
        raise
    return response, first, total


def _extent(response):
    """(first byte, size of the whole file or None) of a response."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        return 0, int(length) if length else None
    stated = re.match(r"bytes (\d+)-\d+/(\d+)?", response.headers.get("Content-Range", ""))
    if not stated:
        raise _TransferError("the server sent a part of the file and does not say which")
    return int(stated[1]), int(stated[2]) if stated[2] else None


def _reason(error):
    """An exception of the network as a phrase."""
    code = getattr(error, "code", None)
    if code:
        return f"the server answers {code} {error.reason}"
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"no answer in {_TIMEOUT} seconds"
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__


def _address(base_url, name):
    if not base_url.startswith(("http://", "https://")):
        raise OptionError(f"--base-url {base_url}: an address that begins with http:// or https:// is needed")
    return f"{base_url.rstrip('/')}/{name}"
