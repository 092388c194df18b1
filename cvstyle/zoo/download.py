"""Downloads over HTTP that can be resumed, with mirrors and verification of digests."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from .. import __version__
from ..errors import ModelError, OptionError
from .files import File
from .store import LocalFile, check_free_space, digest_of, disk_errors, find_local, make_folder

# progress(file, url, bytes so far, bytes in all or None)
Progress = Callable[[File, str, int, "int | None"], None]

_CHUNK = 1 << 18
_TIMEOUT = 30  # seconds without a byte


WAY_OUT = "try later, name a mirror with --base-url, or get the file elsewhere and give it to 'cvstyle run --model'"


def download(
    file: File, folder: str | os.PathLike, base_url: str | None = None, progress: Progress | None = None,
    way_out: str = WAY_OUT,
) -> LocalFile:  # fmt: skip
    """Download a file into a folder, unless it is there; try the mirrors in turn, and resume a partial download.

    The data are in NAME.part until the file is complete and its digest verified. Raises ModelError, which ends with
    `way_out` if it is not empty, or OptionError for an invalid base_url.
    """
    urls = file.urls if base_url is None else (_address(base_url, file.name),)
    local = find_local(file, folder)
    if local:
        return local
    target = make_folder(folder) / file.name
    part = _PartialFile(target)
    failures = []
    for url in urls:
        try:
            digest = _transfer(file, url, part, progress)
        except _TransferError as error:
            failures.append(f"{url}: {error}")
            continue
        with disk_errors(target):
            os.replace(part.path, target)
        part.remove()
        return LocalFile(str(target), digest, bool(file.digest), True)
    size = part.size()
    if not size:
        part.remove()
    raise ModelError(
        f"{file.name} cannot be downloaded: {'; '.join(failures)}"
        + (f"; {size:,} bytes are kept in {part.path}, and the same command resumes the download" if size else
           way_out and f"; {way_out}")
    )


class _TransferError(Exception):
    """Failure of one address; another may succeed."""


class _PartialFile:
    """A partial download, and a file with its address and the ETag or date that If-Range compares."""

    def __init__(self, target: Path):
        self.path = target.with_name(target.name + ".part")
        self.origin = target.with_name(target.name + ".part.origin")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def remove(self) -> None:
        for path in (self.path, self.origin):
            path.unlink(missing_ok=True)

    def validator(self, url: str) -> str:
        """The value of If-Range for a resumed download from this address, or ""."""
        try:
            origin = json.loads(self.origin.read_text(encoding="utf-8"))
            return origin["validator"] if origin["url"] == url else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def start(self, url: str, headers) -> None:
        """Start a new download with a response from this address."""
        etag = headers.get("ETag", "")
        # A weak ETag does not guarantee the same bytes, so If-Range may not use it.
        validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
        with disk_errors(self.path):
            self.path.write_bytes(b"")
            self.origin.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def append(self):
        """The file, opened to append the next bytes."""
        with disk_errors(self.path):
            return self.path.open("ab")


def _transfer(file, url, part, progress):
    """Complete the partial file from one address; returns its digest. Raises _TransferError."""
    # pooch cannot resume a download, and half of these files are larger than 500 MB.
    resumed = part.size() == file.size or _receive(file, url, part, progress)
    digest = digest_of(part.path, file.algorithm)
    if resumed and not file.has_digest(digest):
        part.remove()  # the earlier piece may be damaged
        _receive(file, url, part, progress)
        digest = digest_of(part.path, file.algorithm)
    if not file.has_digest(digest):
        part.remove()
        raise _TransferError(f"the data are not the published file: the digest is {digest}, not {file.digest}")
    return digest


def _receive(file, url, part, progress):
    """Append the missing bytes to the partial file; returns True if the download was resumed."""
    from http.client import HTTPException

    report = progress or (lambda *_: None)
    try:
        response, offset, total = _open(file, url, part)
        with response, part.append() as out:
            check_free_space(part.path, (total or 0) - offset)
            done = offset
            report(file, url, done, total)
            while chunk := response.read(_CHUNK):
                with disk_errors(part.path):
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
    offset = part.size()
    validator = part.validator(url)
    # Without a validator only the digest tells if the pieces belong together.
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
        part.remove()  # no bytes beyond these: the file has changed
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
    match = re.match(r"bytes (\d+)-\d+/(\d+)?", response.headers.get("Content-Range", ""))
    if not match:
        raise _TransferError("the server sent a part of the file and does not say which")
    return int(match[1]), int(match[2]) if match[2] else None


def _reason(error):
    """The cause of a network exception as text."""
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
